//! skep-cni: one call to the agent's socket for each CNI verb.

fn main() {}
