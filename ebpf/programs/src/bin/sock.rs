//! Socket programs: Services are resolved when an application connects or sends.
#![no_std]
#![no_main]

use aya_ebpf::bindings::bpf_sock_addr;
use skep_ebpf_programs::sockaddr::SockAddr;

macro_rules! entry {
    ($name:ident, $section:literal, $method:ident, $doc:literal) => {
        #[doc = $doc]
        #[unsafe(no_mangle)]
        #[unsafe(link_section = $section)]
        pub extern "C" fn $name(ctx: *mut bpf_sock_addr) -> i32 {
            SockAddr::new(ctx).$method()
        }
    };
}

entry!(skep_connect4, "cgroup/connect4", outgoing4, "An IPv4 socket connects.");
entry!(skep_connect6, "cgroup/connect6", outgoing6, "An IPv6 socket connects.");
entry!(skep_sendmsg4, "cgroup/sendmsg4", outgoing4, "An IPv4 socket sends a datagram to an address.");
entry!(skep_sendmsg6, "cgroup/sendmsg6", outgoing6, "An IPv6 socket sends a datagram to an address.");
entry!(skep_recvmsg4, "cgroup/recvmsg4", incoming4, "An IPv4 socket receives a datagram.");
entry!(skep_recvmsg6, "cgroup/recvmsg6", incoming6, "An IPv6 socket receives a datagram.");
entry!(skep_getpeer4, "cgroup/getpeername4", incoming4, "An IPv4 socket asks for its peer.");
entry!(skep_getpeer6, "cgroup/getpeername6", incoming6, "An IPv6 socket asks for its peer.");
