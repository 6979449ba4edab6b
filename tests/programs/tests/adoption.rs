//! What a data path does with what an earlier one left pinned. Needs root and objects.

#![allow(clippy::unwrap_used, reason = "what a test builds on must work")]

use std::time::Duration;

use skep_abi::programs::FROM_POD;
use skep_datapath::{CtHalf, Datapath, MapOrigin, MapSizes, PeerKind, Timeouts};
use skep_test_programs::{
    Attach, Bench, Cluster, Crafted, Peer, Segment,
    bench::{BpfFs, NEIGHBOUR, POD, POD_HOST_MAC, POD_MAC, config, require_root},
    old::{self, Kind},
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

/// What the agent before today's layouts had pinned: a flow through a Service, its frontend, and a peer.
fn pin_as_before(root: &std::path::Path) {
    let port = |port: u16| port.to_be_bytes();
    // Client 10.244.0.5:4000, frontend 10.96.0.50:80 (the lower address), backend 10.244.0.6:8080.
    let up = [&[10, 96, 0, 50, 10, 244, 0, 5][..], &port(80), &port(4000), &[6, 0, 0, 0]].concat();
    let up_value =
        [&[0; 4][..], &7u32.to_ne_bytes(), &[10, 244, 0, 6], &port(8080), &[17, 1, 3, 0, 0, 0]].concat();
    let down = [&[10, 244, 0, 5, 10, 244, 0, 6][..], &port(4000), &port(8080), &[6, 0, 0, 0]].concat();
    let down_value =
        [&[0; 4][..], &7u32.to_ne_bytes(), &[10, 96, 0, 50], &port(80), &[17, 1, 4, 0, 0, 0]].concat();
    old::pin(root, "CONNTRACK4", Kind::LruHash, (16, 20), &[(up, up_value), (down, down_value)]).unwrap();
    let frontend = [&[10, 96, 0, 50][..], &port(80), &[6, 0]].concat();
    let value = [&7u32.to_ne_bytes()[..], &1u16.to_ne_bytes(), &[0; 2]].concat();
    old::pin(root, "SERVICES4", Kind::Hash, (8, 8), &[(frontend, value)]).unwrap();
    let peer = [&24u32.to_ne_bytes()[..], &[10, 244, 1, 0]].concat();
    let value = [&[10, 89, 0, 12][..], &4u32.to_ne_bytes(), &4u32.to_ne_bytes()].concat();
    old::pin(root, "IPCACHE4", Kind::LpmTrie, (8, 12), &[(peer, value)]).unwrap();
}

#[test]
fn what_an_older_agent_pinned_goes_on_in_todays_layout() {
    root_or_say();
    let pins = BpfFs::mount().unwrap();
    pin_as_before(pins.path());
    let datapath = Datapath::open(config(pins.path())).unwrap_or_else(|error| panic!("{error}"));
    for map in ["CONNTRACK4", "SERVICES4", "IPCACHE4"] {
        let report = datapath.map_reports().into_iter().find(|report| report.map == map).unwrap();
        assert_eq!(report.origin, MapOrigin::Migrated, "{report:?}");
        assert_eq!(report.carried, if map == "CONNTRACK4" { 2 } else { 1 });
    }
    let flows = datapath.conntrack().unwrap();
    let up = flows.iter().find(|flow| flow.half == CtHalf::ToBackend).unwrap();
    assert_eq!((up.source.to_string(), up.set), ("10.244.0.5:4000".into(), 7));
    assert_eq!(up.translated.unwrap().to_string(), "10.244.0.6:8080");
    let down = flows.iter().find(|flow| flow.half == CtHalf::FromBackend).unwrap();
    assert_eq!(down.translated.unwrap().to_string(), "10.96.0.50:80");
    let frontends = datapath.tables().frontends.entries().unwrap();
    assert_eq!((frontends[0].1.set, frontends[0].1.count), (7, 1));
    let peers = datapath.tables().ipcache.entries().unwrap();
    assert_eq!(peers[0].1, skep_datapath::Peer::new(PeerKind::RemotePods([10, 89, 0, 12].into())));
    drop(datapath);
    let again = Datapath::open(config(pins.path())).unwrap_or_else(|error| panic!("{error}"));
    assert!(again.map_reports().iter().all(|report| report.origin == MapOrigin::Adopted));
}

#[test]
fn programs_of_before_go_on_until_a_rebuilt_table_is_filled() {
    const PEER: &str = env!("CARGO_BIN_EXE_skep-test-peer");
    for attach in [Attach::Best, Attach::Clsact] {
        let mut cluster = Cluster::new(2, attach).unwrap_or_else(|error| panic!("{error:#}"));
        let ping = |cluster: &Cluster| {
            let (pod, other) = (&cluster.nodes[0].pods[0], cluster.nodes[0].pods[1].ip.to_string());
            Peer::ask(PEER, &pod.netns, None, &["ping", &other, "8", "whole"])
        };
        ping(&cluster).unwrap();
        old::pin(cluster.nodes[0].pins(), "ENDPOINTS4", Kind::Hash, (4, 12), &[]).unwrap();
        cluster.restart_agent(0).unwrap();
        let node = &cluster.nodes[0];
        assert!(node.datapath().tables().endpoints.entries().unwrap().is_empty());
        assert!(node.datapath().attach_report().is_empty(), "{:?}", node.datapath().attach_report());
        ping(&cluster).unwrap();
        node.refill().unwrap();
        node.synced().unwrap();
        assert!(node.datapath().attach_report().len() >= 13, "{:?}", node.datapath().attach_report());
        ping(&cluster).unwrap();
        let pod = node.pods[0].ip.into();
        node.datapath().tables().endpoints.delete(&pod).unwrap();
        assert!(ping(&cluster).is_err(), "the new programs read the new table");
    }
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

#[test]
fn evictions_are_counted_and_laid_at_someones_door() {
    root_or_say();
    let mut bench = Bench::new().unwrap_or_else(|error| panic!("{error:#}"));
    bench.reopen(MapSizes { conntrack: 1024, sockets: 1024 }).unwrap();
    let conntrack = |bench: &Bench| bench.datapath().pressure().unwrap().swap_remove(0);
    assert_eq!(conntrack(&bench).evictions, 0);
    for port in 1001..=4000 {
        flow(&bench, port);
    }
    let full = conntrack(&bench);
    assert_eq!((full.map, full.capacity, full.inserts), ("CONNTRACK4", 1024, 3000));
    assert!(full.entries <= 1024 && full.evictions > 0, "{full:?}");
    assert_eq!(full.evictions + full.entries as u64, 3000, "{full:?}");
    assert_eq!(full.top_clients, [(POD.into(), full.entries)]);
}
