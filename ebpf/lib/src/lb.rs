//! Load balancing: which backend takes a new connection.

use skep_abi::{Addr, BackendKey, BackendValue, ServiceValue};

use crate::env::Balancer;

/// A backend that was picked, and its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick<A> {
    /// Where it is.
    pub backend: BackendValue<A>,
    /// In which slot.
    pub slot: u16,
}

/// Maps a random number onto `0..count` without a division.
#[inline(always)]
#[must_use]
pub const fn scale(random: u32, count: u16) -> u32 {
    ((random as u64 * count as u64) >> 32) as u32
}

/// Picks a random backend. A slot that has just vanished is replaced by slot zero, which is the last to go.
#[inline(always)]
pub fn pick<A: Addr, E: Balancer<A>>(env: &mut E, service: &ServiceValue) -> Option<Pick<A>> {
    if service.count == 0 {
        return None;
    }
    let slot = scale(env.random(), service.count);
    if let Some(backend) = env.backend(&BackendKey { set: service.set, slot }) {
        return Some(Pick { backend, slot: slot as u16 });
    }
    let backend = env.backend(&BackendKey { set: service.set, slot: 0 })?;
    Some(Pick { backend, slot: 0 })
}

/// Picks the neighbour of a slot: for a connection that must not go where the first choice led.
#[inline(always)]
pub fn pick_next<A: Addr, E: Balancer<A>>(env: &mut E, service: &ServiceValue, slot: u16) -> Option<Pick<A>> {
    let next = if slot + 1 < service.count { slot + 1 } else { 0 };
    if next == slot {
        return None;
    }
    let backend = env.backend(&BackendKey { set: service.set, slot: u32::from(next) })?;
    Some(Pick { backend, slot: next })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_scaled_number_is_a_slot(random in any::<u32>(), count in 1u16..) {
            prop_assert!(scale(random, count) < u32::from(count));
        }
    }

    #[test]
    fn slots_are_chosen_evenly() {
        let mut counts = [0u32; 3];
        for step in 0..3000u32 {
            counts[scale(step.wrapping_mul(0x9e37_79b9), 3) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (950..1050).contains(count)), "{counts:?}");
    }
}
