//! What a data path does with what an earlier one left pinned. Needs root and objects.

#![allow(clippy::unwrap_used, reason = "what a test builds on must work")]

use std::time::Duration;

use skep_abi::programs::FROM_POD;
use skep_datapath::{Datapath, MapSizes, Timeouts};
use skep_test_programs::{
    Bench, Crafted, Segment,
    bench::{BpfFs, NEIGHBOUR, POD, POD_HOST_MAC, POD_MAC, config, require_root},
};

fn root_or_say() {
    require_root().unwrap_or_else(|error| panic!("{error:#}"));
}

fn flow(bench: &Bench, port: u16) {
    let segment = Segment::Udp(port, 53, Vec::new());
    bench.pass(&FROM_POD, &Crafted::new(POD_MAC, POD_HOST_MAC, POD, NEIGHBOUR, segment)).unwrap();
}

#[test]
fn tables_and_flows_survive_a_restart_and_a_change_of_size() {
    root_or_say();
    let mut bench = Bench::new().unwrap_or_else(|error| panic!("{error:#}"));
    for port in 1..=50 {
        flow(&bench, port);
    }
    let endpoints = bench.datapath().tables().endpoints.entries().unwrap().len();
    for conntrack in [16_384, 65_536, 32_768] {
        bench.reopen(MapSizes { conntrack, sockets: 8192 }).unwrap();
        assert_eq!(bench.datapath().conntrack().unwrap().len(), 50);
        assert_eq!(bench.datapath().tables().endpoints.entries().unwrap().len(), endpoints);
    }
    flow(&bench, 99);
    assert_eq!(bench.datapath().conntrack().unwrap().len(), 51);
}

#[test]
fn garbage_collection_takes_idle_flows_and_leaves_live_ones() {
    root_or_say();
    let bench = Bench::new().unwrap_or_else(|error| panic!("{error:#}"));
    flow(&bench, 1);
    let lenient = bench.datapath().collect_garbage(&Timeouts::default()).unwrap();
    assert_eq!((lenient.seen, lenient.removed), (1, 0));
    let strict = Timeouts { other_opening: 0, ..Timeouts::default() };
    // A tick is about a second: wait until the flow is older than none.
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while bench.datapath().collect_garbage(&strict).unwrap().removed == 0 {
        assert!(std::time::Instant::now() < deadline, "the flow never got old");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(bench.datapath().conntrack().unwrap().is_empty());
}

#[test]
fn a_missing_object_folder_says_what_is_wrong() {
    root_or_say();
    let pins = BpfFs::mount().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(pins.path());
    config.object_dir = Some(folder.path().into());
    let error = Datapath::open(config).unwrap_err();
    assert!(error.to_string().contains("sock.o"), "{error}");
}
