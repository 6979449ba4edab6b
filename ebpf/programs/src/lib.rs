//! What the eBPF programs share: maps, and the two seams of `skep-packet` bound to the kernel.
//!
//! The entry points are in `src/bin`, one object an attach point. They hold no logic: they make a [`skb::Skb`] (or an
//! [`xdp::XdpPacket`]) and an [`env::KernelEnv`], call the function of their hook, and carry out its action. Builds for `bpfel-unknown-none` only
//! (`cargo xtask ebpf`).
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![cfg_attr(target_arch = "bpf", allow(unstable_features, reason = "inline assembly for BPF is unstable"))]

/// Reads a field of a context that stands for a pointer. The fields are declared 32 bits wide, but hold all of it: what
/// the compiler does with 32 bits (hand them to other functions, save them on the stack) the verifier does not follow, so
/// it gets to see a whole register only.
macro_rules! context_word {
    ($context:expr, $type:ty, $field:ident) => {{
        #[cfg(target_arch = "bpf")]
        let word = {
            let word: usize;
            // SAFETY: the context is the program's own, and has the field there.
            unsafe {
                core::arch::asm!(
                    "{word} = *(u32 *)({context} + {offset})",
                    word = out(reg) word,
                    context = in(reg) $context,
                    offset = const core::mem::offset_of!($type, $field),
                    options(nostack),
                );
            }
            word
        };
        #[cfg(not(target_arch = "bpf"))]
        // SAFETY: the context is the caller's.
        let word = unsafe { (*$context).$field as usize };
        word
    }};
}

pub mod actions;
pub mod env;
pub mod maps;
pub mod report;
pub mod skb;
pub mod sockaddr;
pub mod xdp;

/// Makes a value of zeros, word by word. `core::mem::zeroed` becomes a call of `memset`, after which LLVM believes
/// registers to hold what the verifier knows they do not.
///
/// # Safety
/// All zeros must be a valid value, and the type's size a multiple of four.
#[inline(always)]
#[must_use]
pub unsafe fn zeros<T>() -> core::mem::MaybeUninit<T> {
    let mut room = core::mem::MaybeUninit::<T>::uninit();
    let words: *mut u32 = room.as_mut_ptr().cast();
    let mut at = 0;
    while at < size_of::<T>() / 4 {
        // SAFETY: the offset is within the value.
        unsafe { core::ptr::write_volatile(words.add(at), 0) };
        at += 1;
    }
    room
}

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
