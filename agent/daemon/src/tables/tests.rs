use std::net::IpAddr;

use skep_datapath::{FakeTable, MAGLEV_CHUNK, MaglevChunk, MaglevKey};
use skep_loadbalancer::{Frontend, FrontendFlags, FrontendKey, Owner};
use skep_model::{Backend, FrontendAddress, FrontendKind, IpCidr, NamespacedName, Port, Protocol, Scope};

use super::*;

fn backends(numbers: &[u8]) -> Arc<[Backend]> {
    let backend = |n: &u8| Backend {
        ip: [10, 244, 0, *n].into(),
        port: Port::new(80).unwrap(),
        protocol: Protocol::Tcp,
    };
    numbers.iter().map(backend).collect()
}

/// What the load balancer says of a set with one frontend.
fn change(id: u32, numbers: &[u8], maglev: u16, sources: &[&str]) -> Changes {
    let backends = backends(numbers);
    let maglev = if numbers.is_empty() { 0 } else { maglev };
    let port = Port::new(80).unwrap();
    let address = FrontendAddress { ip: [10, 96, 0, id as u8].into(), port, protocol: Protocol::Tcp };
    let frontend = Frontend {
        set: SetId(id),
        kind: FrontendKind::LoadBalancer,
        owner: Arc::new(Owner::Service(NamespacedName::new("a", "b"))),
        port_name: "".into(),
        flags: FrontendFlags { source_ranges: !sources.is_empty(), ..FrontendFlags::default() },
        affinity_seconds: 0,
        backends: Arc::clone(&backends),
        maglev,
    };
    let sources = sources.iter().map(|text| text.parse().unwrap()).collect();
    Changes {
        sets: [(SetId(id), Set { backends, maglev, sources })].into(),
        frontends: [(FrontendKey { address, scope: Scope::Inside }, frontend)].into(),
        ..Changes::default()
    }
}

struct Fixture {
    frontends: Arc<FakeTable<RowKey, FrontendRow>>,
    backends: Arc<Reluctant>,
    maglev: Arc<FakeTable<MaglevKey, MaglevChunk>>,
    sources: Arc<FakeTable<SourceRange, ()>>,
    tables: ServiceTables,
}

/// A table that refuses rows while it is told to.
#[derive(Default)]
struct Reluctant {
    inner: FakeTable<BackendSlot, BackendAddress>,
    refuses: std::sync::atomic::AtomicBool,
}

impl MapTable<BackendSlot, BackendAddress> for Reluctant {
    fn update(&self, key: &BackendSlot, value: &BackendAddress) -> Result<(), TableError> {
        if self.refuses.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(TableError::Full { table: "backends", capacity: 1 });
        }
        self.inner.update(key, value)
    }

    fn delete(&self, key: &BackendSlot) -> Result<(), TableError> {
        self.inner.delete(key)
    }

    fn entries(&self) -> Result<Vec<(BackendSlot, BackendAddress)>, TableError> {
        self.inner.entries()
    }
}

fn fixture() -> Fixture {
    let (frontends, backends): (Arc<FakeTable<_, _>>, Arc<Reluctant>) = Default::default();
    let (maglev, sources): (Arc<FakeTable<_, _>>, Arc<FakeTable<_, _>>) = Default::default();
    let (endpoints, ipcache): (Arc<FakeTable<IpAddr, _>>, Arc<FakeTable<IpCidr, _>>) = Default::default();
    let tables = Tables {
        endpoints,
        ipcache,
        frontends: frontends.clone(),
        backends: backends.clone(),
        maglev: maglev.clone(),
        sources: sources.clone(),
    };
    Fixture { frontends, backends, maglev, sources, tables: ServiceTables::new(&tables) }
}

impl Fixture {
    fn apply(&mut self, changes: &Changes) -> Option<Instant> {
        self.tables.apply(changes, Instant::now())
    }

    /// Every slot that a frontend counts is there, every position of its table leads to one, and nothing else is left.
    fn consistent(&self) {
        let slots = self.backends.inner.rows();
        let mut counted = 0;
        for row in self.frontends.rows().values() {
            counted += usize::from(row.count);
            for slot in 0..row.count {
                assert!(slots.contains_key(&BackendSlot { set: row.set, slot }));
            }
            for position in 0..u32::from(row.maglev) {
                let chunk = position / MAGLEV_CHUNK as u32;
                let part = self.maglev.rows()[&MaglevKey { set: row.set, chunk }];
                assert!(part[position as usize % MAGLEV_CHUNK] < row.count);
            }
        }
        assert_eq!(counted, slots.len());
        let tables = self.frontends.rows().values().filter(|row| row.maglev > 0).count();
        assert_eq!(self.maglev.rows().len(), tables * 251usize.div_ceil(MAGLEV_CHUNK));
    }
}

#[test]
fn slots_and_tables_follow_a_set_that_grows_shrinks_and_goes() {
    let mut fixture = fixture();
    for (numbers, maglev) in [(&[1, 2][..], 251), (&[1, 2, 3], 251), (&[3], 0), (&[3, 4], 251), (&[], 251)] {
        fixture.apply(&change(1, numbers, maglev, &[]));
        fixture.consistent();
    }
    let gone = change(2, &[1], 251, &[]);
    fixture.apply(&gone);
    fixture.apply(&Changes {
        removed_sets: [SetId(2)].into(),
        removed_frontends: gone.frontends.keys().copied().collect(),
        ..Changes::default()
    });
    fixture.consistent();
    assert_eq!(fixture.frontends.rows().len(), 1);
}

#[test]
fn source_ranges_follow_their_set() {
    let mut fixture = fixture();
    let ranges = |fixture: &Fixture| -> Vec<(u32, String)> {
        fixture.sources.rows().keys().map(|range| (range.set, range.cidr.to_string())).collect()
    };
    fixture.apply(&change(1, &[1], 0, &["192.0.2.0/24", "198.51.100.0/24"]));
    fixture.apply(&change(2, &[1], 0, &["192.0.2.0/24"]));
    fixture.apply(&change(1, &[1], 0, &["203.0.113.0/24"]));
    assert_eq!(ranges(&fixture), [(1, "203.0.113.0/24".into()), (2, "192.0.2.0/24".into())]);
    fixture.apply(&Changes { removed_sets: [SetId(1)].into(), ..Changes::default() });
    assert_eq!(ranges(&fixture), [(2, "192.0.2.0/24".into())]);
}

#[test]
fn a_frontend_waits_for_slots_that_could_not_be_written() {
    let mut fixture = fixture();
    fixture.apply(&change(1, &[1], 0, &[]));
    fixture.backends.refuses.store(true, std::sync::atomic::Ordering::Relaxed);
    let retry = fixture.apply(&change(1, &[1, 2], 0, &[])).unwrap();
    assert_eq!(fixture.frontends.rows().values().next().unwrap().count, 1);
    fixture.backends.refuses.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(fixture.tables.retry(retry), None);
    assert_eq!(fixture.frontends.rows().values().next().unwrap().count, 2);
    fixture.consistent();
}

#[test]
fn what_an_earlier_process_left_goes_once_everything_is_known_and_its_numbers_come_back() {
    let mut fixture = fixture();
    let key = RowKey::inside(FrontendAddress {
        ip: [10, 96, 0, 9].into(),
        port: Port::new(80).unwrap(),
        protocol: Protocol::Udp,
    });
    fixture.frontends.update(&key, &FrontendRow::new(9, 1)).unwrap();
    let address = BackendAddress { ip: [10, 0, 0, 1].into(), port: 1 };
    fixture.backends.update(&BackendSlot { set: 9, slot: 0 }, &address).unwrap();
    fixture.maglev.update(&MaglevKey { set: 9, chunk: 0 }, &[0; MAGLEV_CHUNK]).unwrap();
    let all = Tables {
        endpoints: Arc::<FakeTable<IpAddr, _>>::default(),
        ipcache: Arc::<FakeTable<IpCidr, _>>::default(),
        frontends: fixture.frontends.clone(),
        backends: fixture.backends.clone(),
        maglev: fixture.maglev.clone(),
        sources: fixture.sources.clone(),
    };
    let pinned = pinned(&all).unwrap();
    assert_eq!(pinned.rows.values().collect::<Vec<_>>(), [&SetId(9)]);
    assert_eq!(pinned.slots[&SetId(9)][0].to_string(), "10.0.0.1:1/UDP");
    fixture.apply(&change(1, &[1], 251, &[]));
    assert_eq!(fixture.frontends.rows().len(), 2);
    fixture.tables.complete();
    assert_eq!(fixture.tables.retry(Instant::now()), None);
    fixture.consistent();
}
