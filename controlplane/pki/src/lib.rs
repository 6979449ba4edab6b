//! The cluster CA, service-account keys and certificates.
