use clap::Parser;

use super::*;
use crate::options::Options;

fn own() -> OwnNode {
    OwnNode::v4([10, 89, 0, 11].into(), "10.244.0.0/24".parse().unwrap())
}

fn given() -> Given {
    Given { v4: true, ..Given::default() }
}

fn seen(n: u8) -> NodeSeen {
    let facts = NodeFacts {
        addresses: vec![[10, 89, 0, 10 + n].into()],
        ranges: vec![format!("10.244.{}.0/24", n - 1).parse().unwrap()],
        created: i64::from(n),
    };
    NodeSeen { facts, state: NodeState::default() }
}

fn cluster() -> Cluster {
    let balancing = Options::try_parse_from(["skep-agent", "--node-name", "node-1"]).unwrap().balancing;
    Cluster::new("node-1".parse().unwrap(), own(), balancing, ClusterRanges::default(), Pinned::default())
}

fn upsert(name: &str, seen: NodeSeen) -> Event {
    Event::Node(Change::Upsert(name.into(), seen))
}

#[test]
fn other_nodes_are_tunnel_ends_and_the_own_node_is_the_host() {
    let mut cluster = cluster();
    let nodes = vec![("node-1".into(), seen(1)), ("node-2".into(), seen(2))];
    let touched = cluster.handle(Event::Node(Change::Replace(nodes)), &given());
    assert!(touched.ipcache && !touched.own_node && cluster.nodes_known());
    let heartbeat = cluster.handle(upsert("node-2", seen(2)), &given());
    assert_eq!(heartbeat, Touched::default());
    let (rows, _) = cluster.ipcache();
    let row = |text: &str| rows[&text.parse().unwrap()];
    let far = [10, 89, 0, 12].into();
    assert_eq!(row("10.244.1.0/24").kind, PeerKind::RemotePods(far));
    assert_eq!(row("10.244.1.1/32").kind, PeerKind::RemoteNode(far));
    assert_eq!(row("10.89.0.12/32").kind, PeerKind::RemoteNode(far));
    assert_eq!(row("10.244.0.0/24").kind, PeerKind::LocalPods);
    assert_eq!(row("10.89.0.11/32").kind, PeerKind::Host);
    assert_eq!(row("10.244.0.1/32").kind, PeerKind::Host);
    let ports =
        ["10.89.0.11/32", "10.89.0.12/32", "10.244.0.1/32", "10.244.1.1/32"].map(|text| row(text).node_port);
    assert_eq!(ports, [true, true, false, false], "node ports answer on node addresses, not on gateways");
}

#[test]
fn another_node_cannot_claim_this_nodes_addresses() {
    let mut cluster = cluster();
    let mut thief = seen(1);
    thief.facts.created = 9;
    cluster.handle(upsert("thief", thief), &given());
    let (rows, _) = cluster.ipcache();
    assert_eq!(rows[&"10.89.0.11/32".parse().unwrap()].kind, PeerKind::Host);
    assert_eq!(rows[&"10.244.0.0/24".parse().unwrap()].kind, PeerKind::LocalPods);
}

#[test]
fn a_new_range_of_the_own_node_is_noticed() {
    let mut cluster = cluster();
    assert!(cluster.handle(upsert("node-1", seen(3)), &given()).own_node);
    assert!(!cluster.handle(upsert("node-1", NodeSeen::default()), &given()).own_node);
}

#[test]
fn nothing_is_said_of_services_before_all_lists_are_in() {
    let mut cluster = cluster();
    let list = [
        Event::Namespace(Change::Replace(vec![("default".into(), ())])),
        Event::Service(Change::Replace(vec![])),
        Event::Slice(Change::Replace(vec![])),
        Event::Node(Change::Replace(vec![])),
    ];
    for event in list {
        cluster.handle(event, &given());
        assert!(cluster.refresh() == Changes::default() && !cluster.names_known());
    }
    cluster.handle(Event::Pod(Change::Replace(vec![])), &given());
    let changes = cluster.refresh();
    assert_eq!(changes.names.namespaces, ["default".to_owned()].into());
    assert!(cluster.names_known() && cluster.refresh() == Changes::default());
}

#[test]
fn namespaces_come_and_go_once() {
    let mut cluster = cluster();
    for event in [
        Event::Namespace(Change::Replace(vec![("a".into(), ()), ("b".into(), ())])),
        Event::Service(Change::Replace(vec![])),
        Event::Slice(Change::Replace(vec![])),
        Event::Node(Change::Replace(vec![])),
        Event::Pod(Change::Replace(vec![])),
    ] {
        cluster.handle(event, &given());
    }
    cluster.refresh();
    cluster.handle(Event::Namespace(Change::Replace(vec![("b".into(), ()), ("c".into(), ())])), &given());
    let names = cluster.refresh().names;
    assert!(names.removed_namespaces.contains("a") && names.namespaces.contains("c"));
    cluster.handle(Event::Namespace(Change::Remove("c".into())), &given());
    assert_eq!(cluster.refresh().names.removed_namespaces, ["c".to_owned()].into());
}
