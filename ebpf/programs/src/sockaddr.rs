//! The context of socket programs: addresses and ports of both families.

use aya_ebpf::{bindings::bpf_sock_addr, helpers::bpf_get_socket_cookie};
use skep_abi::{Be16, DropReason, Hook, V4, V6};
use skep_packet::{
    conntrack::Target,
    sock::{SockVerdict, incoming, outgoing},
};

use crate::{env::KernelEnv, report};

/// The call goes on.
pub const PROCEED: i32 = 1;
/// The call fails with `EPERM`: programs can choose the error from kernel 5.18 on only.
pub const REFUSE: i32 = 0;

/// A socket call.
pub struct SockAddr {
    ctx: *mut bpf_sock_addr,
}

impl SockAddr {
    /// Wraps a program's context.
    #[inline(always)]
    pub fn new(ctx: *mut bpf_sock_addr) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the context is the program's own.
        unsafe { bpf_get_socket_cookie(self.ctx.cast()) }
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        // SAFETY: the context is the program's own.
        unsafe { (*self.ctx).protocol as u8 }
    }

    #[inline(always)]
    fn port(&self) -> Be16 {
        // SAFETY: the context is the program's own.
        Be16::from_raw(unsafe { (*self.ctx).user_port as u16 })
    }

    #[inline(always)]
    fn v4(&self) -> V4 {
        // SAFETY: the context is the program's own.
        V4::from_raw(unsafe { (*self.ctx).user_ip4 })
    }

    #[inline(always)]
    fn v6(&self) -> V6 {
        // SAFETY: the context is the program's own; the kernel wants word by word.
        V6::from_raw(unsafe {
            [
                (*self.ctx).user_ip6[0],
                (*self.ctx).user_ip6[1],
                (*self.ctx).user_ip6[2],
                (*self.ctx).user_ip6[3],
            ]
        })
    }

    #[inline(always)]
    fn set_v4(&mut self, to: Target<V4>) {
        // SAFETY: the context is the program's own, and these fields are writable in every hook.
        unsafe {
            (*self.ctx).user_ip4 = to.addr.raw();
            (*self.ctx).user_port = u32::from(to.port.raw());
        }
    }

    #[inline(always)]
    fn set_mapped(&mut self, to: Target<V4>) {
        let words = V6::from_mapped(to.addr).raw();
        // SAFETY: the context is the program's own, and these fields are writable in every hook.
        unsafe {
            (*self.ctx).user_ip6[0] = words[0];
            (*self.ctx).user_ip6[1] = words[1];
            (*self.ctx).user_ip6[2] = words[2];
            (*self.ctx).user_ip6[3] = words[3];
            (*self.ctx).user_port = u32::from(to.port.raw());
        }
    }

    #[inline(always)]
    fn out(&self, addr: V4) -> SockVerdict<V4> {
        outgoing(&mut KernelEnv, self.cookie(), addr, self.port(), self.protocol())
    }

    #[inline(always)]
    fn back(&self, addr: V4) -> Option<Target<V4>> {
        incoming(&mut KernelEnv, self.cookie(), addr, self.port(), self.protocol())
    }

    /// An IPv4 socket connects or sends.
    #[inline(always)]
    pub fn outgoing4(&mut self) -> i32 {
        match self.out(self.v4()) {
            SockVerdict::Pass => return PROCEED,
            SockVerdict::Refuse => return refuse(),
            SockVerdict::Translate(to) => self.set_v4(to),
        }
        report::translated(Hook::Socket);
        PROCEED
    }

    /// An IPv6 socket connects or sends: to an IPv4 Service when the address is a mapped one.
    #[inline(always)]
    pub fn outgoing6(&mut self) -> i32 {
        let Some(addr) = self.v6().mapped() else { return PROCEED };
        match self.out(addr) {
            SockVerdict::Pass => return PROCEED,
            SockVerdict::Refuse => return refuse(),
            SockVerdict::Translate(to) => self.set_mapped(to),
        }
        report::translated(Hook::Socket);
        PROCEED
    }

    /// An IPv4 socket learns its peer.
    #[inline(always)]
    pub fn incoming4(&mut self) -> i32 {
        if let Some(to) = self.back(self.v4()) {
            self.set_v4(to);
        }
        PROCEED
    }

    /// An IPv6 socket learns its peer.
    #[inline(always)]
    pub fn incoming6(&mut self) -> i32 {
        if let Some(addr) = self.v6().mapped()
            && let Some(to) = self.back(addr)
        {
            self.set_mapped(to);
        }
        PROCEED
    }
}

#[inline(always)]
fn refuse() -> i32 {
    report::refused(Hook::Socket, DropReason::NoBackend);
    REFUSE
}
