//! skep-agent: the node agent. Configuration and wiring only.

fn main() {}
