//! Benchmarks, each beside a peer or a limit in the same run.

fn main() {}
