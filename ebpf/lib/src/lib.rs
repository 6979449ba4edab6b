//! Packet logic that runs in the kernel and on the host: parse, checksum, conntrack, load balancing.
#![no_std]
