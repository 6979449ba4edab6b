//! Maglev from the reader's side: a hash of the flow leads to a position of the set's table, which names a slot.
//!
//! Tables are filled in user space. The hash has no secret, because all nodes must agree without telling each other.

use skep_abi::{Addr, MaglevKey, ServiceValue};

use crate::{env::Env, frame::Frame, lb::scale};

/// One round of MurmurHash3 (32 bits).
#[inline(always)]
const fn mix(hash: u32, word: u32) -> u32 {
    let word = word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    (hash ^ word).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}

/// Its last step: every bit of the input has a say in every bit of the result.
#[inline(always)]
const fn finish(mut hash: u32) -> u32 {
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

#[inline(always)]
fn mix_addr<A: Addr>(hash: u32, addr: A) -> u32 {
    let words = addr.words();
    let mut hash = mix(hash, words[0]);
    if A::BITS == 128 {
        hash = mix(hash, words[1]);
        hash = mix(hash, words[2]);
        hash = mix(hash, words[3]);
    }
    hash
}

/// The hash of a flow's addresses, ports and protocol.
#[inline(always)]
pub fn hash_flow<A: Addr>(frame: &Frame<A>) -> u32 {
    let ports = u32::from(frame.src_port.raw()) << 16 | u32::from(frame.dst_port.raw());
    let hash = mix_addr(mix_addr(u32::from(frame.protocol), frame.src), frame.dst);
    finish(mix(hash, ports))
}

/// The hash of a client, whatever it connects to.
#[inline(always)]
pub fn hash_client<A: Addr>(addr: A) -> u32 {
    finish(mix_addr(0, addr))
}

/// The slot that a hash leads to.
#[inline(always)]
pub fn slot<A: Addr, E: Env<A>>(env: &mut E, service: &ServiceValue, hash: u32) -> Option<u16> {
    let (key, index) = MaglevKey::of(service.set, scale(hash, service.maglev));
    env.maglev(&key, index)
}
