//! Names as users know them, against a small cluster.

use skep_model::Port;

use super::*;

fn port(name: &str, protocol: Protocol, number: u16) -> DnsPort {
    let name = Some(name.to_owned()).filter(|name| !name.is_empty());
    DnsPort { name, protocol, port: Port::new(number).unwrap() }
}

fn endpoint(address: &str, hostname: Option<&str>) -> HeadlessEndpoint {
    HeadlessEndpoint { address: address.parse().unwrap(), hostname: hostname.map(Into::into) }
}

fn view() -> DnsView {
    let web = DnsTarget::Cluster {
        addresses: vec!["10.96.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
        ports: vec![port("http", Protocol::Tcp, 80), port("", Protocol::Udp, 53)],
    };
    let db = DnsTarget::Headless(vec![HeadlessSubset {
        ports: vec![port("sql", Protocol::Tcp, 5432)],
        endpoints: vec![endpoint("10.244.1.5", Some("db-0")), endpoint("10.244.2.6", None)],
    }]);
    DnsView {
        services: [
            (NamespacedName::new("shop", "web"), web),
            (NamespacedName::new("shop", "db"), db),
            (NamespacedName::new("shop", "far"), DnsTarget::External("api.example.com".into())),
        ]
        .into(),
        namespaces: ["shop".to_owned(), "empty".to_owned()].into(),
    }
}

fn zone() -> Zone {
    let mut zone = Zone::new("cluster.local", Vec::new()).unwrap();
    zone.replace(view());
    zone
}

fn ask(zone: &Zone, name: &str, kind: RecordType) -> Answer {
    zone.lookup(&Name::from_ascii(name).unwrap(), kind)
}

/// The data of the answer's records, or the kind of a negative answer.
fn shown(name: &str, kind: RecordType) -> Vec<String> {
    match ask(&zone(), name, kind) {
        Answer::Records(records, _) => records.iter().map(|record| record.data.to_string()).collect(),
        Answer::Alias(_, target) => vec![format!("-> {target}")],
        other => vec![format!("{other:?}")],
    }
}

#[test]
fn a_service_answers_its_cluster_addresses_by_family() {
    assert_eq!(shown("web.shop.svc.cluster.local.", RecordType::A), ["10.96.0.7"]);
    assert_eq!(shown("web.shop.svc.cluster.local.", RecordType::AAAA), ["fd00::7"]);
    assert_eq!(shown("WEB.Shop.svc.Cluster.LOCAL.", RecordType::A), ["10.96.0.7"]);
}

#[test]
fn a_headless_service_answers_its_endpoints_and_their_names() {
    assert_eq!(shown("db.shop.svc.cluster.local.", RecordType::A), ["10.244.1.5", "10.244.2.6"]);
    assert_eq!(shown("db-0.db.shop.svc.cluster.local.", RecordType::A), ["10.244.1.5"]);
    assert_eq!(shown("10-244-2-6.db.shop.svc.cluster.local.", RecordType::A), ["10.244.2.6"]);
    assert_eq!(shown("db-1.db.shop.svc.cluster.local.", RecordType::A), ["NoName"]);
}

#[test]
fn named_ports_have_srv_records_and_unnamed_ones_have_not() {
    let srv = |name: &str| shown(name, RecordType::SRV);
    assert_eq!(srv("_http._tcp.web.shop.svc.cluster.local."), ["0 100 80 web.shop.svc.cluster.local."]);
    assert_eq!(srv("_http._udp.web.shop.svc.cluster.local."), ["NoName"]);
    assert_eq!(
        srv("_sql._tcp.db.shop.svc.cluster.local."),
        ["0 50 5432 db-0.db.shop.svc.cluster.local.", "0 50 5432 10-244-2-6.db.shop.svc.cluster.local."]
    );
}

#[test]
fn srv_answers_bring_the_targets_addresses() {
    let answer = ask(&zone(), "_sql._tcp.db.shop.svc.cluster.local.", RecordType::SRV);
    let Answer::Records(_, additional) = answer else { panic!("{answer:?}") };
    let shown: Vec<_> = additional.iter().map(|record| format!("{} {}", record.name, record.data)).collect();
    assert_eq!(
        shown,
        ["db-0.db.shop.svc.cluster.local. 10.244.1.5", "10-244-2-6.db.shop.svc.cluster.local. 10.244.2.6"]
    );
}

#[test]
fn pods_answer_by_address_only_in_namespaces_that_exist() {
    assert_eq!(shown("10-244-1-9.shop.pod.cluster.local.", RecordType::A), ["10.244.1.9"]);
    assert_eq!(shown("fd00--9.shop.pod.cluster.local.", RecordType::AAAA), ["fd00::9"]);
    assert_eq!(shown("10-244-1-9.nowhere.pod.cluster.local.", RecordType::A), ["NoName"]);
    assert_eq!(shown("web.shop.pod.cluster.local.", RecordType::A), ["NoName"]);
}

#[test]
fn addresses_have_reverse_names_and_foreign_ones_are_not_ours() {
    assert_eq!(shown("7.0.96.10.in-addr.arpa.", RecordType::PTR), ["web.shop.svc.cluster.local."]);
    assert_eq!(shown("5.1.244.10.in-addr.arpa.", RecordType::PTR), ["db-0.db.shop.svc.cluster.local."]);
    let v6 = format!("7.{}0.0.d.f.ip6.arpa.", "0.".repeat(27));
    assert_eq!(shown(&v6, RecordType::PTR), ["web.shop.svc.cluster.local."]);
    assert_eq!(shown("1.0.0.127.in-addr.arpa.", RecordType::PTR), ["NotOurs"]);
}

#[test]
fn names_that_exist_without_data_differ_from_names_that_do_not() {
    for name in [
        "cluster.local.",
        "svc.cluster.local.",
        "empty.svc.cluster.local.",
        "_tcp.web.shop.svc.cluster.local.",
    ] {
        assert_eq!(shown(name, RecordType::A), ["NoData"], "{name}");
    }
    assert_eq!(shown("db.shop.svc.cluster.local.", RecordType::AAAA), ["NoData"]);
    for name in ["web.default.svc.cluster.local.", "example.com.shop.svc.cluster.local.", "x.cluster.local."]
    {
        assert_eq!(shown(name, RecordType::A), ["NoName"], "{name}");
    }
    assert_eq!(shown("example.com.", RecordType::A), ["NotOurs"]);
    assert_eq!(shown("mycluster.local.", RecordType::A), ["NotOurs"]);
}

#[test]
fn an_external_name_is_an_alias() {
    assert_eq!(shown("far.shop.svc.cluster.local.", RecordType::A), ["-> api.example.com."]);
}

#[test]
fn the_apex_names_its_authority_and_version() {
    assert_eq!(shown("dns-version.cluster.local.", RecordType::TXT), ["1.1.0"]);
    assert_eq!(shown("cluster.local.", RecordType::NS), ["ns.dns.cluster.local."]);
    assert!(shown("cluster.local.", RecordType::SOA)[0].starts_with("ns.dns.cluster.local."));
}

#[test]
fn a_removed_service_takes_its_names_along() {
    let mut zone = zone();
    let mut next = view();
    next.services.remove(&NamespacedName::new("shop", "web"));
    zone.replace(next);
    assert_eq!(ask(&zone, "web.shop.svc.cluster.local.", RecordType::A), Answer::NoName);
    assert_eq!(ask(&zone, "7.0.96.10.in-addr.arpa.", RecordType::PTR), Answer::NotOurs);
}

#[test]
fn the_reverse_index_follows_changes_as_if_built_anew() {
    let mut changed = zone();
    let mut next = view();
    next.services.insert(
        NamespacedName::new("shop", "db"),
        DnsTarget::Headless(vec![HeadlessSubset {
            ports: vec![],
            endpoints: vec![endpoint("10.244.2.6", Some("db-1"))],
        }]),
    );
    changed.replace(next.clone());
    let mut fresh = Zone::new("cluster.local", Vec::new()).unwrap();
    fresh.replace(next);
    assert_eq!(changed.reverse, fresh.reverse);
}
