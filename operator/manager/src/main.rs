//! skep-operator: CRDs and cluster-wide housekeeping.

fn main() {}
