//! What the eBPF programs share: maps, and the two seams of `skep-packet` bound to the kernel.
//!
//! The entry points are in `src/bin`, one object an attach point. They hold no logic: they make a [`skb::Skb`] and an
//! [`env::KernelEnv`], call the function of their hook, and carry out its action. Builds for `bpfel-unknown-none` only
//! (`cargo xtask ebpf`).
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![cfg_attr(target_arch = "bpf", allow(unstable_features, reason = "inline assembly for BPF is unstable"))]

pub mod actions;
pub mod env;
pub mod maps;
pub mod report;
pub mod skb;
pub mod sockaddr;

/// Programs cannot panic: the verifier would refuse the call. This is here because the language demands one.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: no program holds a path that leads here; the verifier proves it at load time.
    unsafe { core::hint::unreachable_unchecked() }
}

/// The licence that the helpers in use demand.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
