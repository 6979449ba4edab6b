//! Thin eBPF entry points, one binary an attach point.

fn main() {}
