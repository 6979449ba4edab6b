//! What large clusters cost: time of a change, of a cold start, and memory.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{sync::Mutex, time::Duration};

use skep_loadbalancer::{Context, LoadBalancer, Service, Slice};

/// Memory is the process's: one measurement at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn service(n: u32) -> Service {
    let ip = format!("10.{}.{}.{}", 96 + n / 65_536, n / 256 % 256, n % 256);
    let object = serde_json::json!({
        "metadata": {"namespace": "default", "name": format!("service-{n}"), "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    });
    Service::try_from(&serde_json::from_value::<k8s_openapi::api::core::v1::Service>(object).unwrap())
        .unwrap()
}

fn slice(n: u32, endpoints: u32, generation: u32) -> Slice {
    let endpoint = |e: u32| {
        let number = n * 5 + e + generation % 7;
        serde_json::json!({
            "addresses": [format!("10.{}.{}.{}", 128 + number / 65_536, number / 256 % 256, number % 256)],
            "nodeName": format!("node-{}", number % 500),
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "name": "p"},
        })
    };
    let object = serde_json::json!({
        "metadata": {"namespace": "default", "name": format!("service-{n}-abcde"),
            "labels": {"kubernetes.io/service-name": format!("service-{n}")}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": (0..endpoints).map(endpoint).collect::<Vec<_>>(),
    });
    let object: k8s_openapi::api::discovery::v1::EndpointSlice = serde_json::from_value(object).unwrap();
    Slice::try_from(&object).unwrap()
}

fn resident_megabytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096 / 1_000_000
}

/// What this thread has used; others may be busy.
fn processor_time() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(schedstat.split_whitespace().next().unwrap().parse().unwrap())
}

fn filled(services: u32, endpoints: u32) -> LoadBalancer {
    let mut balancer = LoadBalancer::new(Context { node: "node-1".into(), ..Context::default() });
    for n in 0..services {
        balancer.upsert_service(service(n));
        balancer.upsert_slice(slice(n, endpoints, 0));
    }
    balancer
}

#[test]
fn a_change_among_ten_thousand_services_is_no_dearer_than_among_ten() {
    let _alone = ALONE.lock();
    let mean = |services: u32| -> Duration {
        let mut balancer = filled(services, 5);
        balancer.refresh();
        let rounds = 2000;
        let changed: Vec<Slice> =
            (0..rounds).map(|round| slice(round * 7919 % services, 5, round + 1)).collect();
        let start = processor_time();
        for slice in changed {
            balancer.upsert_slice(slice);
            assert!(balancer.refresh().sets.len() <= 1);
        }
        (processor_time() - start) / rounds
    };
    let (few, many) = (mean(10), mean(10_000));
    println!("a change: {few:?} among 10 Services, {many:?} among 10,000 with 50,000 endpoints");
    assert!(many < few * 5 + Duration::from_millis(1), "{many:?} is out of proportion to {few:?}");
}

#[test]
fn thirty_thousand_services_are_computed_in_time_and_fit_in_memory() {
    let _alone = ALONE.lock();
    let before = resident_megabytes();
    let mut balancer = filled(30_000, 2);
    let listed = resident_megabytes().saturating_sub(before);
    let start = processor_time();
    let (mut frontends, mut computed) = (0, 0);
    while balancer.is_dirty() {
        let changes = balancer.refresh_some(4096);
        frontends += changes.frontends.len();
        computed = computed.max(resident_megabytes().saturating_sub(before));
    }
    let took = processor_time() - start;
    assert_eq!(frontends, 30_000);
    let megabytes = resident_megabytes().saturating_sub(before);
    println!(
        "cold start with 30,000 Services: {took:?}, {megabytes} MB ({listed} MB listed, {computed} MB at most)"
    );
    // The budget is two seconds for everything; unoptimized code takes several times as long.
    let budget = Duration::from_secs(if cfg!(debug_assertions) { 8 } else { 1 });
    assert!(took < budget, "{took:?}");
    assert!(megabytes <= 60, "{megabytes} MB");
}
