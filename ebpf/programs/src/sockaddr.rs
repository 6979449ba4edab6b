//! The context of socket programs: addresses and ports of both families.

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie},
};
use skep_abi::{Addr, Be16, DropReason, Hook, V4, V6};
use skep_packet::{
    SockEnv,
    conntrack::Target,
    sock::{Caller, SockVerdict, incoming, outgoing},
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
    fn caller(&self) -> Caller {
        // SAFETY: the context is the program's own.
        Caller { cookie: self.cookie(), netns: unsafe { bpf_get_netns_cookie(self.ctx.cast()) } }
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
    fn set_v6(&mut self, addr: V6, port: Be16) {
        let words = addr.raw();
        // SAFETY: the context is the program's own, and these fields are writable in every hook.
        unsafe {
            (*self.ctx).user_ip6[0] = words[0];
            (*self.ctx).user_ip6[1] = words[1];
            (*self.ctx).user_ip6[2] = words[2];
            (*self.ctx).user_ip6[3] = words[3];
            (*self.ctx).user_port = u32::from(port.raw());
        }
    }

    #[inline(always)]
    fn out<A: Addr>(&self, addr: A) -> SockVerdict<A>
    where
        KernelEnv: SockEnv<A>,
    {
        outgoing(&mut KernelEnv, &self.caller(), addr, self.port(), self.protocol())
    }

    #[inline(always)]
    fn back<A: Addr>(&self, addr: A) -> Option<Target<A>>
    where
        KernelEnv: SockEnv<A>,
    {
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
        let addr = self.v6();
        let (addr, port) = match addr.mapped() {
            Some(addr) => match self.out(addr) {
                SockVerdict::Pass => return PROCEED,
                SockVerdict::Refuse => return refuse(),
                SockVerdict::Translate(to) => (V6::from_mapped(to.addr), to.port),
            },
            None => match self.out(addr) {
                SockVerdict::Pass => return PROCEED,
                SockVerdict::Refuse => return refuse(),
                SockVerdict::Translate(to) => (to.addr, to.port),
            },
        };
        self.set_v6(addr, port);
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
        let addr = self.v6();
        match addr.mapped() {
            Some(addr) => {
                if let Some(to) = self.back(addr) {
                    self.set_v6(V6::from_mapped(to.addr), to.port);
                }
            }
            None => {
                if let Some(to) = self.back(addr) {
                    self.set_v6(to.addr, to.port);
                }
            }
        }
        PROCEED
    }
}

#[inline(always)]
fn refuse() -> i32 {
    report::refused(Hook::Socket, DropReason::NoBackend);
    REFUSE
}
