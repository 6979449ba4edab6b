//! Session affinity: a client stays with its backend while it comes back in time and the backend is there.

use skep_abi::{Addr, AffinityKey, AffinityValue, ServiceValue, TICK_SHIFT};

use crate::{
    env::Balancer,
    lb::{Pick, at},
};

/// In how many slots a backend is looked for that is no longer in the slot where it was seen last. A backend beyond
/// them is taken for gone when it moves: its clients choose again.
const SEARCHED_SLOTS: u32 = 32;

/// Seconds as ticks, rounded down.
#[inline(always)]
#[must_use]
pub const fn ticks(seconds: u32) -> u32 {
    ((seconds as u64 * 1_000_000_000) >> TICK_SHIFT) as u32
}

/// The backend that the client stays with.
#[inline(always)]
pub fn recall<A: Addr, E: Balancer<A>>(
    env: &mut E,
    service: &ServiceValue,
    client: &AffinityKey,
) -> Option<Pick<A>> {
    let last = env.affinity(client)?;
    if env.tick().wrapping_sub(last.last_used) > ticks(service.affinity) {
        return None;
    }
    if let Some(pick) = at(env, service, last.slot.into())
        && is_same(&pick, &last)
    {
        return Some(pick);
    }
    for slot in 0..SEARCHED_SLOTS {
        let pick = at(env, service, slot)?;
        if is_same(&pick, &last) {
            return Some(pick);
        }
    }
    None
}

#[inline(always)]
fn is_same<A: Addr>(pick: &Pick<A>, last: &AffinityValue) -> bool {
    pick.backend.port == last.port && pick.backend.addr.words() == last.addr
}

/// The client stays with this backend from now on.
#[inline(always)]
pub fn remember<A: Addr, E: Balancer<A>>(env: &mut E, client: &AffinityKey, pick: &Pick<A>) {
    let value = AffinityValue {
        addr: pick.backend.addr.words(),
        port: pick.backend.port,
        slot: pick.slot,
        last_used: env.tick(),
    };
    env.insert_affinity(client, &value);
}
