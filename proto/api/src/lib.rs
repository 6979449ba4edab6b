//! Kubernetes objects: k8s-openapi re-exports, our CRDs, Quantity, patch and selector semantics. Pure.
