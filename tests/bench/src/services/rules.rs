//! The rule sets that kube-proxy installs for a number of Services, as text for `nft -f` and `iptables-restore`. Pure.
//!
//! One Service is measured: it has a cluster address, a node port and a backend for each port the server listens on.
//! The others only fill the tables, with one endpoint each. In the nftables set these have no anonymous map: naming
//! one looks at all others, so that loading 10,000 takes more than a minute, and no measured packet sees them.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
};

/// What is installed.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// How many Services, the measured one included.
    pub(crate) services: u32,
    /// The measured Service's address.
    pub(crate) frontend: SocketAddrV4,
    /// Its node port.
    pub(crate) node_port: u16,
    /// The node's address that answers node ports.
    pub(crate) node: Ipv4Addr,
    /// Its backends.
    pub(crate) backends: Vec<SocketAddrV4>,
    /// The range of pods, whose addresses are not masqueraded.
    pub(crate) pods: &'static str,
}

/// Frontend and backend of each Service that only fills the tables.
pub(crate) fn fillers(services: u32) -> impl Iterator<Item = (SocketAddrV4, SocketAddrV4)> {
    (0..services.saturating_sub(1)).map(|number| {
        let [high, low] = [number / 250, number % 250 + 1].map(|part| u8::try_from(part).unwrap_or(u8::MAX));
        let frontend = SocketAddrV4::new(Ipv4Addr::new(10, 96, high + 1, low), 80);
        (frontend, SocketAddrV4::new(Ipv4Addr::new(10, 200, high, low), 8080))
    })
}

const MEASURED: &str = "MEASURED0-bench/web/tcp/http";

/// The nftables mode's table; replaces what was there.
pub(crate) fn nftables(plan: &Plan) -> String {
    let mut text = String::from("table ip kube-proxy\ndelete table ip kube-proxy\ntable ip kube-proxy {\n");
    nft_frame(&mut text);
    let mut vmap = Vec::new();
    let mut addresses = Vec::new();
    for (number, (frontend, backend)) in fillers(plan.services).enumerate() {
        let name = format!("FILLER{number}-bench/filler/tcp/http");
        nft_endpoint(&mut text, &name, backend);
        let hairpin = nft_from_outside(frontend, plan.pods);
        let endpoint = format!("endpoint-{name}__{}/{}", backend.ip(), backend.port());
        line(&mut text, &format!("chain service-{name} {{ {hairpin}; goto {endpoint}; }}"));
        vmap.push(nft_frontend(frontend, &name));
        addresses.push(frontend.ip().to_string());
    }
    let mut choices = Vec::new();
    for (number, backend) in plan.backends.iter().enumerate() {
        nft_endpoint(&mut text, MEASURED, *backend);
        let (ip, port) = (backend.ip(), backend.port());
        choices.push(format!("{number} : goto endpoint-{MEASURED}__{ip}/{port}"));
    }
    let hairpin = nft_from_outside(plan.frontend, plan.pods);
    let choice = format!("numgen random mod {} vmap {{ {} }}", plan.backends.len(), choices.join(", "));
    line(&mut text, &format!("chain service-{MEASURED} {{ {hairpin}; {choice}; }}"));
    line(
        &mut text,
        &format!("chain external-{MEASURED} {{ jump mark-for-masquerade; goto service-{MEASURED}; }}"),
    );
    vmap.push(nft_frontend(plan.frontend, MEASURED));
    addresses.push(plan.frontend.ip().to_string());
    text.push_str("}\n");
    let mut add = |set: &str, elements: &str| {
        line(&mut text, &format!("add element ip kube-proxy {set} {{ {elements} }}"));
    };
    add("service-ips", &vmap.join(", "));
    add("cluster-ips", &addresses.join(", "));
    add("service-nodeports", &format!("tcp . {} : goto external-{MEASURED}", plan.node_port));
    add("nodeport-ips", &plan.node.to_string());
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn nft_frontend(frontend: SocketAddrV4, name: &str) -> String {
    format!("{} . tcp . {} : goto service-{name}", frontend.ip(), frontend.port())
}

fn nft_from_outside(frontend: SocketAddrV4, pods: &str) -> String {
    let (ip, port) = (frontend.ip(), frontend.port());
    format!("ip daddr {ip} tcp dport {port} ip saddr != {pods} jump mark-for-masquerade")
}

fn nft_endpoint(text: &mut String, name: &str, backend: SocketAddrV4) {
    let (ip, port) = (backend.ip(), backend.port());
    let hairpin = format!("ip saddr {ip} jump mark-for-masquerade");
    line(
        text,
        &format!("chain endpoint-{name}__{ip}/{port} {{ {hairpin}; meta l4proto tcp dnat to {backend}; }}"),
    );
}

/// Sets, maps, and the chains that every packet of a new connection goes through.
fn nft_frame(text: &mut String) {
    let key = "type ipv4_addr . inet_proto . inet_service : verdict";
    for (kind, name, what) in [
        ("set", "cluster-ips", "type ipv4_addr"),
        ("set", "nodeport-ips", "type ipv4_addr"),
        ("map", "service-ips", key),
        ("map", "no-endpoint-services", key),
        ("map", "firewall-ips", key),
        ("map", "service-nodeports", "type inet_proto . inet_service : verdict"),
        ("map", "no-endpoint-nodeports", "type inet_proto . inet_service : verdict"),
    ] {
        line(text, &format!("{kind} {name} {{ {what}; }}"));
    }
    let frontend = "ip daddr . meta l4proto . th dport";
    let node_port = "ip daddr @nodeport-ips meta l4proto . th dport";
    for (name, rules) in [
        ("mark-for-masquerade", "meta mark set meta mark | 0x4000".to_owned()),
        (
            "masquerading",
            "meta mark & 0x4000 == 0 return; meta mark set meta mark ^ 0x4000; masquerade fully-random"
                .to_owned(),
        ),
        ("services", format!("{frontend} vmap @service-ips; {node_port} vmap @service-nodeports")),
        ("service-endpoints-check", format!("{frontend} vmap @no-endpoint-services")),
        ("nodeport-endpoints-check", format!("{node_port} vmap @no-endpoint-nodeports")),
        ("firewall-check", format!("{frontend} vmap @firewall-ips")),
        ("cluster-ips-check", "ip daddr @cluster-ips reject; ip daddr 10.96.0.0/16 drop".to_owned()),
        ("filter-prerouting", hook("filter", "prerouting", -110, &["firewall-check"])),
        (
            "filter-input",
            hook("filter", "input", -110, &["nodeport-endpoints-check", "service-endpoints-check"]),
        ),
        (
            "filter-forward",
            hook("filter", "forward", -110, &["service-endpoints-check", "cluster-ips-check"]),
        ),
        ("filter-output", hook("filter", "output", -110, &["service-endpoints-check", "firewall-check"])),
        ("filter-output-post-dnat", hook("filter", "output", -90, &["cluster-ips-check"])),
        ("nat-prerouting", "type nat hook prerouting priority -100; jump services".to_owned()),
        ("nat-output", "type nat hook output priority -100; jump services".to_owned()),
        ("nat-postrouting", "type nat hook postrouting priority 100; jump masquerading".to_owned()),
    ] {
        line(text, &format!("chain {name} {{ {rules}; }}"));
    }
}

/// A base chain whose rules see new connections only.
fn hook(kind: &str, hook: &str, priority: i32, targets: &[&str]) -> String {
    let mut text = format!("type {kind} hook {hook} priority {priority}");
    for target in targets {
        // Writing to a String cannot fail.
        let _ = write!(text, "; ct state new jump {target}");
    }
    text
}

/// The iptables mode's tables. The measured Service is in the middle of the chain, as one is on average.
pub(crate) fn iptables(plan: &Plan) -> String {
    let (mut chains, mut services, mut rules) = (String::new(), String::new(), String::new());
    let middle = plan.services / 2;
    for (number, (frontend, backend)) in (0..).zip(fillers(plan.services)) {
        if number == middle.saturating_sub(1) {
            ipt_measured(plan, &mut chains, &mut services, &mut rules);
        }
        ipt_service(&mut chains, &mut services, &format!("FILLER{number:08}"), frontend);
        ipt_hairpin(&mut rules, &format!("FILLER{number:08}"), frontend, plan.pods);
        line(&mut rules, &format!("-A KUBE-SVC-FILLER{number:08} -j KUBE-SEP-FILLER{number:08}"));
        line(&mut chains, &format!(":KUBE-SEP-FILLER{number:08} - [0:0]"));
        ipt_endpoint(&mut rules, &format!("FILLER{number:08}"), backend);
    }
    if plan.services <= 1 {
        ipt_measured(plan, &mut chains, &mut services, &mut rules);
    }
    format!("{FILTER}*nat\n{NAT_CHAINS}{chains}{NAT_RULES}{services}{NODE_PORTS}{rules}COMMIT\n")
}

const FILTER: &str = "*filter
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A INPUT -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A FORWARD -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

const NAT_CHAINS: &str = ":KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
";

const NAT_RULES: &str = "-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
";

/// Behind all Services.
const NODE_PORTS: &str = "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n";

fn ipt_service(chains: &mut String, services: &mut String, name: &str, frontend: SocketAddrV4) {
    line(chains, &format!(":KUBE-SVC-{name} - [0:0]"));
    let (ip, port) = (frontend.ip(), frontend.port());
    let comment = "-m comment --comment \"bench/web:http cluster IP\"";
    line(
        services,
        &format!("-A KUBE-SERVICES -d {ip}/32 -p tcp {comment} -m tcp --dport {port} -j KUBE-SVC-{name}"),
    );
}

/// Connections from outside the pod range come back through this node.
fn ipt_hairpin(rules: &mut String, name: &str, frontend: SocketAddrV4, pods: &str) {
    let (ip, port) = (frontend.ip(), frontend.port());
    line(
        rules,
        &format!("-A KUBE-SVC-{name} ! -s {pods} -d {ip}/32 -p tcp -m tcp --dport {port} -j KUBE-MARK-MASQ"),
    );
}

fn ipt_endpoint(rules: &mut String, name: &str, backend: SocketAddrV4) {
    line(rules, &format!("-A KUBE-SEP-{name} -s {}/32 -j KUBE-MARK-MASQ", backend.ip()));
    line(rules, &format!("-A KUBE-SEP-{name} -p tcp -m tcp -j DNAT --to-destination {backend}"));
}

fn ipt_measured(plan: &Plan, chains: &mut String, services: &mut String, rules: &mut String) {
    ipt_service(chains, services, "MEASURED", plan.frontend);
    ipt_hairpin(rules, "MEASURED", plan.frontend, plan.pods);
    line(chains, ":KUBE-EXT-MEASURED - [0:0]");
    line(rules, "-A KUBE-EXT-MEASURED -j KUBE-MARK-MASQ");
    line(rules, "-A KUBE-EXT-MEASURED -j KUBE-SVC-MEASURED");
    let port = plan.node_port;
    line(rules, &format!("-A KUBE-NODEPORTS -p tcp -m tcp --dport {port} -j KUBE-EXT-MEASURED"));
    for (number, backend) in plan.backends.iter().enumerate() {
        line(chains, &format!(":KUBE-SEP-MEASURED{number} - [0:0]"));
        let left = plan.backends.len() - number;
        let chance = if left == 1 {
            String::new()
        } else {
            format!("-m statistic --mode random --probability {:.10} ", 1.0 / left as f64)
        };
        line(rules, &format!("-A KUBE-SVC-MEASURED {chance}-j KUBE-SEP-MEASURED{number}"));
        ipt_endpoint(rules, &format!("MEASURED{number}"), *backend);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn plan(services: u32) -> Plan {
        Plan {
            services,
            frontend: "10.96.0.50:80".parse().unwrap(),
            node_port: 30080,
            node: Ipv4Addr::new(172, 30, 0, 1),
            backends: ["10.244.1.6:8080", "10.244.1.6:8081"].map(|text| text.parse().unwrap()).to_vec(),
            pods: "10.244.0.0/16",
        }
    }

    #[test]
    fn there_are_as_many_frontends_as_services_and_no_two_alike() {
        let mut seen: BTreeSet<_> = fillers(30_000).map(|(frontend, _)| frontend).collect();
        assert_eq!(seen.len(), 29_999);
        assert!(seen.insert(plan(1).frontend));
    }

    #[test]
    fn every_service_and_endpoint_has_its_rules() {
        for services in [1, 2, 10, 1000] {
            let nft = nftables(&plan(services));
            let chains =
                nft.lines().filter(|line| line.starts_with("chain service-") && line.contains("-bench/"));
            assert_eq!(chains.count(), services as usize);
            assert_eq!(nft.matches("dnat to").count(), services as usize + 1);
            let ipt = iptables(&plan(services));
            assert_eq!(ipt.matches("-A KUBE-SERVICES -d").count(), services as usize);
            assert_eq!(ipt.matches("-j DNAT").count(), services as usize + 1);
        }
    }

    #[test]
    fn the_measured_service_is_in_the_middle_of_the_chain() {
        let text = iptables(&plan(1000));
        let chain: Vec<_> = text.lines().filter(|line| line.starts_with("-A KUBE-SERVICES -d")).collect();
        let at = chain.iter().position(|line| line.ends_with("KUBE-SVC-MEASURED"));
        assert_eq!(at, Some(499));
    }
}
