//! Real namespaces, programs, containerd and kubectl.
