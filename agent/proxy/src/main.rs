//! skep-proxy: the node's user-space data plane; here, the node DNS.

fn main() {}
