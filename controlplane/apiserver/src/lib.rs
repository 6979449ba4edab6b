//! The Kubernetes API over HTTP: negotiation, authn, authz, admission, watch, patch, subresources.
