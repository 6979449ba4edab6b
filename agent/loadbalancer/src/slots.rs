//! Slots: where each backend of a set is. A backend keeps its slot while it can, so that a change costs as many writes
//! as backends came and went.

use std::collections::BTreeSet;

use skep_model::Backend;

/// Places the wanted backends: old ones stay, new ones fill what became free, and the last fill what is left.
#[must_use]
pub fn place(before: &[Backend], wanted: &BTreeSet<Backend>) -> Vec<Backend> {
    let mut kept = BTreeSet::new();
    let keep = |backend: &Backend| (wanted.contains(backend) && kept.insert(*backend)).then_some(*backend);
    let mut slots: Vec<Option<Backend>> = before.iter().map(keep).collect();
    let mut new = wanted.iter().filter(|backend| !kept.contains(backend)).copied();
    for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
        *slot = new.next();
    }
    slots.extend(new.map(Some));
    let mut index = 0;
    while index < slots.len() {
        if slots[index].is_some() {
            index += 1;
        } else {
            slots.swap_remove(index);
        }
    }
    slots.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use skep_model::{Port, Protocol};

    use super::*;

    fn backend(n: u8) -> Backend {
        Backend { ip: [10, 0, 0, n].into(), port: Port::new(80).unwrap(), protocol: Protocol::Tcp }
    }

    proptest! {
        #[test]
        fn holds_what_is_wanted_and_moves_no_more_than_it_must(before: BTreeSet<u8>, wanted: BTreeSet<u8>) {
            let before: Vec<Backend> = before.into_iter().rev().map(backend).collect();
            let wanted: BTreeSet<Backend> = wanted.into_iter().map(backend).collect();
            let slots = place(&before, &wanted);
            prop_assert_eq!(slots.iter().copied().collect::<BTreeSet<_>>(), wanted.clone());
            prop_assert_eq!(slots.len(), wanted.len());
            let came = wanted.iter().filter(|backend| !before.contains(backend)).count();
            let went = before.iter().filter(|backend| !wanted.contains(backend)).count();
            let written = slots.iter().enumerate().filter(|(slot, backend)| before.get(*slot) != Some(backend)).count();
            prop_assert!(written <= came.max(went), "{written} writes for {came} new and {went} gone");
        }
    }
}
