//! Desired-state tables and the generic reconciler: update, delete, prune.
