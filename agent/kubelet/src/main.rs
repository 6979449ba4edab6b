//! skep-kubelet: drives pods through CRI.

fn main() {}
