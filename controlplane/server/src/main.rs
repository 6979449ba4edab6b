//! skep-controlplane: API server, scheduler and controllers in one process.

fn main() {}
