//! The Storage trait, the watch cache, the conformance suite; embedded and etcd implementations.
