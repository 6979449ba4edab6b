//! Real traffic between pods, nodes and Services, in network namespaces. Needs root and compiled objects.

#![allow(clippy::unwrap_used, reason = "what a test builds on must work")]

use std::net::Ipv4Addr;

use skep_abi::Hook;
use skep_datapath::AttachKind;
use skep_model::Protocol;
use skep_test_programs::{
    Attach, Cluster, Peer,
    cluster::{Node, Pod},
};

const PEER: &str = env!("CARGO_BIN_EXE_skep-test-peer");
const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 50);
const UDP_VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 53);
const NODE_VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const EMPTY_VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 99);

fn cluster(attach: Attach) -> Cluster {
    Cluster::new(2, attach).unwrap_or_else(|error| panic!("{error:#}"))
}

fn serve(pod: &Pod, protocol: &str, port: u16, name: &str) -> Peer {
    let address = format!("{}:{port}", pod.ip);
    Peer::serve(PEER, &pod.netns, &[&format!("{protocol}-echo"), &address, name]).unwrap()
}

fn get(pod: &Pod, how: &str, to: (Ipv4Addr, u16)) -> anyhow::Result<Vec<String>> {
    Peer::ask(PEER, &pod.netns, None, &[how, &format!("{}:{}", to.0, to.1)])
}

fn get_from_node(
    node: &Node,
    in_cgroup: bool,
    how: &str,
    to: (Ipv4Addr, u16),
) -> anyhow::Result<Vec<String>> {
    let cgroup = in_cgroup.then(|| node.cgroup.path());
    Peer::ask(PEER, &node.netns, cgroup, &[how, &format!("{}:{}", to.0, to.1)])
}

fn ping(pod: &Pod, to: Ipv4Addr, size: u32, how: &str) -> anyhow::Result<Vec<String>> {
    Peer::ask(PEER, &pod.netns, None, &["ping", &to.to_string(), &size.to_string(), how])
}

/// What each node dropped, for the message of a failed assertion.
fn drops(cluster: &Cluster) -> String {
    let mut text = String::new();
    for node in &cluster.nodes {
        for row in node.datapath().counters().unwrap() {
            text.push_str(&format!("node{} {} {:?}: {}\n", node.number, row.hook, row.reason, row.packets));
        }
    }
    text
}

#[track_caller]
fn first_line(cluster: &Cluster, answer: anyhow::Result<Vec<String>>) -> String {
    match answer {
        Ok(lines) => lines[0].clone(),
        Err(error) => panic!("{error:#}\n{}", drops(cluster)),
    }
}

fn traffic_of_every_kind_passes(attach: Attach) {
    let cluster = cluster(attach);
    let [first, second] = &cluster.nodes[..] else { panic!("two nodes") };
    let (client, neighbour, remote) = (&first.pods[0], &first.pods[1], &second.pods[0]);
    let _servers = [
        serve(neighbour, "tcp", 80, "neighbour"),
        serve(remote, "tcp", 80, "remote"),
        serve(remote, "udp", 53, "remote"),
        Peer::serve(PEER, &second.netns, &["tcp-echo", "10.89.0.12:6443", "node2"]).unwrap(),
        Peer::serve(PEER, &first.netns, &["tcp-echo", "10.89.0.11:10250", "node1"]).unwrap(),
    ];
    cluster.service(1, (VIP, 80, Protocol::Tcp), &[(remote.ip, 80)]).unwrap();
    cluster.service(2, (UDP_VIP, 53, Protocol::Udp), &[(remote.ip, 53)]).unwrap();
    cluster.service(3, (NODE_VIP, 443, Protocol::Tcp), &[(second.ip, 6443)]).unwrap();
    cluster.service(4, (EMPTY_VIP, 80, Protocol::Tcp), &[]).unwrap();
    cluster.service(5, (VIP, 10250, Protocol::Tcp), &[(first.ip, 10250)]).unwrap();

    let ok = |answer| first_line(&cluster, answer);
    // Pod to pod, same node and across; the server sees the client's own address.
    assert!(ok(get(client, "tcp-get", (neighbour.ip, 80))).starts_with("neighbour 10.244.1.5 "));
    assert!(ok(get(client, "tcp-get", (remote.ip, 80))).starts_with("remote 10.244.1.5 "));
    assert_eq!(ok(get(client, "udp-get", (remote.ip, 53))), "remote 10.244.1.5 one from=10.244.2.5:53");
    // Pod to its own node, to the other node, and node to pods.
    assert!(ok(get(client, "tcp-get", (first.ip, 10250))).starts_with("node1 10.244.1.5 "));
    assert!(ok(get(client, "tcp-get", (second.ip, 6443))).starts_with("node2 10.244.1.5 "));
    assert!(ok(get_from_node(first, false, "tcp-get", (neighbour.ip, 80))).starts_with("neighbour "));
    assert!(ok(get_from_node(first, false, "tcp-get", (remote.ip, 80))).starts_with("remote 10.89.0.11 "));
    assert!(
        ok(get_from_node(second, false, "tcp-get", (neighbour.ip, 80))).starts_with("neighbour 10.89.0.12 ")
    );
    // Services per packet: replies come from the address that was asked.
    assert_eq!(ok(get(client, "tcp-get", (VIP, 80))), "remote 10.244.1.5 peer=10.96.0.50:80");
    assert_eq!(ok(get(client, "udp-get", (UDP_VIP, 53))), "remote 10.244.1.5 one from=10.96.0.53:53");
    assert_eq!(ok(get(client, "tcp-get", (NODE_VIP, 443))), "node2 10.244.1.5 peer=10.96.0.1:443");
    assert_eq!(ok(get(client, "tcp-get", (VIP, 10250))), "node1 10.244.1.5 peer=10.96.0.50:10250");
    assert_eq!(ok(get_from_node(first, false, "tcp-get", (VIP, 80))), "remote 10.244.1.1 peer=10.96.0.50:80");
    assert_eq!(
        ok(get_from_node(first, false, "tcp-get", (NODE_VIP, 443))),
        "node2 10.244.1.1 peer=10.96.0.1:443"
    );
    // A Service on a pod of the asking node, for its host processes.
    assert_eq!(
        ok(get_from_node(second, false, "tcp-get", (VIP, 80))),
        "remote 10.244.2.1 peer=10.96.0.50:80"
    );
    // Services at connect time.
    let before = second.datapath().conntrack().unwrap().len();
    assert_eq!(ok(get_from_node(first, true, "tcp-get", (VIP, 80))), "remote 10.89.0.11 peer=10.96.0.50:80");
    assert_eq!(
        ok(get_from_node(first, true, "udp-get", (UDP_VIP, 53))),
        "remote 10.89.0.11 one from=10.96.0.53:53"
    );
    assert!(second.datapath().conntrack().unwrap().len() > before);
    let in_cgroup = |to: &str| Peer::ask(PEER, &client.netns, Some(first.cgroup.path()), &["tcp-get", to]);
    assert_eq!(ok(in_cgroup("10.96.0.50:80")), "remote 10.244.1.5 peer=10.96.0.50:80");
    assert_eq!(ok(in_cgroup("[::ffff:10.96.0.50]:80")), "remote 10.244.1.5 peer=[::ffff:10.96.0.50]:80");
    assert!(in_cgroup("10.96.0.99:80").is_err(), "a Service without endpoints refuses");
    // Ping, with packets as large as they may be and one byte more.
    for to in [neighbour.ip, remote.ip, first.ip, second.ip, first.gateway()] {
        let answer = ping(client, to, 1422, "whole");
        assert!(answer.is_ok(), "{to}: {answer:?}\n{}", drops(&cluster));
    }
    assert!(ping(client, remote.ip, 1423, "whole").is_err());
    // Datagrams larger than the MTU travel in fragments, through a Service too.
    for to in [neighbour.ip, remote.ip, first.ip, second.ip] {
        let answer = ping(client, to, 4000, "fragments");
        assert!(answer.is_ok(), "{to}: {answer:?}\n{}", drops(&cluster));
    }
    // Bulk TCP: segmentation offload and both checksum states, across nodes and through a Service.
    for to in [format!("{}:80", remote.ip), format!("{VIP}:80"), format!("{}:80", neighbour.ip)] {
        let bulk = Peer::ask(PEER, &client.netns, None, &["bulk", &to, "20000000"]);
        assert_eq!(first_line(&cluster, bulk), "bulk 20000000");
    }
}

#[test]
fn the_stacks_own_routes_through_the_tunnel_device_work_too() {
    let cluster = cluster(Attach::Best);
    let (first, remote) = (&cluster.nodes[0], &cluster.nodes[1].pods[0]);
    let _server = serve(remote, "tcp", 80, "remote");
    let route = "ip link set skep_vxlan arp off; ip route add 10.244.2.0/24 dev skep_vxlan src 10.89.0.11";
    first.netns.sh(route).unwrap();
    let answer = get_from_node(first, false, "tcp-get", (remote.ip, 80));
    assert!(first_line(&cluster, answer).starts_with("remote 10.89.0.11 "));
    let counted = first.datapath().counters().unwrap();
    assert!(counted.iter().any(|row| row.hook == Hook::ToOverlay && row.reason.is_none()), "{counted:?}");
}

#[test]
fn traffic_of_every_kind_passes_on_the_best_attach_kind() {
    traffic_of_every_kind_passes(Attach::Best);
}

#[test]
fn traffic_of_every_kind_passes_on_clsact() {
    traffic_of_every_kind_passes(Attach::Clsact);
}

fn an_agent_restart_breaks_no_connection(attach: Attach) {
    let mut cluster = cluster(attach);
    let (client_node, remote_ip) = (0, cluster.nodes[1].pods[0].ip);
    let _server = serve(&cluster.nodes[1].pods[0], "tcp", 80, "remote");
    cluster.service(1, (VIP, 80, Protocol::Tcp), &[(remote_ip, 80)]).unwrap();
    let client = &cluster.nodes[client_node].pods[0].netns;
    let mut held = Peer::start(PEER, client, None, &["hold", &format!("{VIP}:80")]).unwrap();
    assert_eq!(held.line().unwrap(), "remote 10.244.1.5");
    assert_eq!(held.exchange("before").unwrap(), "before");
    for _ in 0..3 {
        for node in 0..2 {
            cluster.restart_agent(node).unwrap();
            assert_eq!(held.exchange("after").unwrap(), "after", "{}", drops(&cluster));
        }
    }
    for node in &cluster.nodes {
        let report = node.datapath().attach_report();
        assert!(report.len() >= 13, "{report:?}");
        assert!(report.iter().all(|one| one.adopted), "{report:?}");
        let kinds = |kind| report.iter().filter(|one| one.kind == kind).count();
        let expected = if attach == Attach::Clsact { AttachKind::Clsact } else { AttachKind::Tcx };
        assert_eq!((kinds(expected), kinds(AttachKind::CgroupLink)), (7, 8), "{report:?}");
    }
}

#[test]
fn an_agent_restart_breaks_no_connection_on_the_best_attach_kind() {
    an_agent_restart_breaks_no_connection(Attach::Best);
}

#[test]
fn an_agent_restart_breaks_no_connection_on_clsact() {
    an_agent_restart_breaks_no_connection(Attach::Clsact);
}
