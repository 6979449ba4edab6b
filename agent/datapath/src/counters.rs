//! Exact counters per hook and reason, summed over CPUs.

use std::sync::Arc;

use skep_abi::{Counter, DropReason, Hook, drop::REASON_SLOTS};

use crate::{sys::RawMap, table::TableError};

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterRow {
    /// Where the packets were seen.
    pub hook: Hook,
    /// Why they were dropped; `None` counts those that passed.
    pub reason: Option<DropReason>,
    /// Packets (calls at [`Hook::Socket`]).
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Reads every counter that is not zero.
pub(crate) fn read(map: &Arc<RawMap>, cpus: usize) -> Result<Vec<CounterRow>, TableError> {
    let mut rows = Vec::new();
    for hook in Hook::ALL {
        for number in 0..REASON_SLOTS {
            let number = number as u8;
            let reason = DropReason::from_number(number);
            if number != 0 && reason.is_none() {
                continue;
            }
            let values = map
                .get_per_cpu::<Counter>(Counter::index(*hook, number), cpus)
                .map_err(|source| TableError::Kernel { table: skep_abi::maps::COUNTERS.name, source })?;
            rows.extend(sum(*hook, reason, &values));
        }
    }
    Ok(rows)
}

/// How often programs have counted at an index that is no hook's.
pub(crate) fn packets(map: &RawMap, index: u32, cpus: usize) -> Result<u64, TableError> {
    let values = map
        .get_per_cpu::<Counter>(index, cpus)
        .map_err(|source| TableError::Kernel { table: skep_abi::maps::COUNTERS.name, source })?;
    Ok(values.iter().map(|value| value.packets).sum())
}

fn sum(hook: Hook, reason: Option<DropReason>, values: &[Counter]) -> Option<CounterRow> {
    let packets = values.iter().map(|value| value.packets).sum();
    let bytes = values.iter().map(|value| value.bytes).sum();
    (packets > 0).then_some(CounterRow { hook, reason, packets, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_over_cpus_and_zero_is_left_out() {
        let value = Counter { packets: 2, bytes: 100, sampled: 0 };
        let row = sum(Hook::FromPod, Some(DropReason::NoBackend), &[value, value]).unwrap();
        assert_eq!((row.packets, row.bytes), (4, 200));
        assert_eq!(sum(Hook::FromPod, None, &[Counter::default()]), None);
    }
}
