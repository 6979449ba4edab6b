//! skep: up, down, status and init.

fn main() {}
