use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{Change, Key, ResourceId, Revision, embedded::lossy::LossyDisk};

const SMALL: u64 = 64 << 10;

fn key(number: u8) -> Key {
    Key::new(ResourceId::new("", "configmaps").unwrap(), Some("default"), &format!("key-{number}")).unwrap()
}

/// A transaction with a value of this size, and a deletion.
fn batch(revision: u64, size: usize) -> Batch {
    let put = Change { key: key(1), value: Some(Bytes::from(vec![b'x'; size])) };
    let delete = Change { key: key(2), value: None };
    Batch { revision: Revision(revision), changes: vec![put, delete] }
}

fn written(batch: &Batch) -> Written {
    let changes = batch.changes.iter().map(|change| Replayed {
        key: change.key.encode(),
        value: change.value.as_ref().map(|value| value.to_vec()),
    });
    Written { revision: batch.revision.0, changes: changes.collect() }
}

fn open(disk: &LossyDisk) -> Journal {
    Journal::new(Box::new(disk.clone()), SMALL).unwrap()
}

/// A journal of generation 7 with a record for each of these transactions, the first of which is revision 2.
fn filled(disk: &LossyDisk, sizes: &[usize]) -> Vec<Batch> {
    let mut journal = open(disk);
    journal.begin(7);
    let batches: Vec<_> = (2..).zip(sizes).map(|(revision, size)| batch(revision, *size)).collect();
    for batch in &batches {
        journal.append(Record::new(batch.revision.0, std::slice::from_ref(batch))).unwrap();
    }
    batches
}

#[test]
fn what_was_written_is_read_after_the_revision_that_the_database_has() {
    let disk = LossyDisk::default();
    let batches = filled(&disk, &[10, 5000, 0]);
    let read = |revision| open(&disk).read(7, revision).unwrap();
    assert!(read(1) == batches.iter().map(written).collect::<Vec<_>>());
    assert_eq!(read(3), [written(&batches[2])]);
    assert_eq!(read(4), []);
}

#[test]
fn a_group_shares_a_record_and_its_revisions_count_up() {
    let disk = LossyDisk::default();
    let mut journal = open(&disk);
    journal.begin(1);
    let batches = [batch(2, 100), batch(3, 200), Batch { revision: Revision(4), changes: Vec::new() }];
    journal.append(Record::new(2, &batches)).unwrap();
    assert_eq!(open(&disk).read(1, 1).unwrap(), batches.iter().map(written).collect::<Vec<_>>());
    assert_eq!(open(&disk).read(1, 2).unwrap().len(), 2, "part of a record may be in the database");
}

#[test]
fn other_generations_and_revisions_behind_a_gap_are_not_read() {
    let disk = LossyDisk::default();
    filled(&disk, &[10, 10]);
    assert_eq!(open(&disk).read(8, 1).unwrap(), []);
    assert_eq!(open(&disk).read(7, 0).unwrap(), [], "revision 1 is missing");
    // A new generation is shorter than the old one: behind it lies an old record.
    let mut journal = open(&disk);
    journal.begin(8);
    journal.append(Record::new(4, &[batch(4, 10)])).unwrap();
    assert_eq!(open(&disk).read(8, 3).unwrap(), [written(&batch(4, 10))]);
}

#[test]
fn a_record_that_does_not_fit_is_told_beforehand() {
    let disk = LossyDisk::default();
    let mut journal = open(&disk);
    assert!(!journal.fits(&Record::new(2, &[batch(2, 0)])), "before a generation has begun");
    journal.begin(1);
    let large = || Record::new(2, &[batch(2, SMALL as usize - 8192)]);
    assert!(journal.is_empty() && journal.fits(&large()));
    journal.append(Record::new(2, &[batch(2, 0)])).unwrap();
    assert!(!journal.is_empty() && journal.fits(&large()));
    journal.append(Record::new(3, &[batch(3, 0)])).unwrap();
    assert!(!journal.fits(&large()));
}

proptest! {
    #[test]
    fn a_flipped_bit_ends_the_journal_before_its_record(
        sizes in prop::collection::vec(0usize..6000, 1..6),
        place: prop::sample::Index,
        bit in 0u8..8,
    ) {
        let disk = LossyDisk::default();
        let batches = filled(&disk, &sizes);
        let lengths: Vec<_> =
            batches.iter().map(|batch| Record::new(0, std::slice::from_ref(batch)).0.len()).collect();
        let blocks = |length: &usize| length.next_multiple_of(BLOCK);
        let at = place.index(lengths.iter().map(blocks).sum());
        disk.flip(at, bit);
        let mut start = 0;
        let mut intact = 0;
        for length in &lengths {
            // Padding is not looked at.
            if (start..start + length).contains(&at) {
                break;
            }
            start += blocks(length);
            intact += 1;
        }
        let read = open(&disk).read(7, 1).unwrap();
        prop_assert!(read == batches[..intact].iter().map(written).collect::<Vec<_>>());
    }
}
