//! What holds whatever pools and Services there are.

use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use skep_api::{IpBlock, LoadBalancerIPPoolSpec};

use super::{tests::name, *};
use crate::lbipam::facts::{PoolFacts, Sharing};

/// Few addresses, so that pools overlap and Services clash.
fn address() -> impl Strategy<Value = IpAddr> {
    (0u8..24, any::<bool>()).prop_map(|(n, six)| {
        if six { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)]) } else { IpAddr::from([10, 0, 0, n]) }
    })
}

fn pool() -> impl Strategy<Value = PoolFacts> {
    let block = (0u8..24, 0u8..8, any::<bool>()).prop_map(|(from, len, six)| {
        let text = |n: u8| if six { format!("fd00::{n:x}") } else { format!("10.0.0.{n}") };
        IpBlock { cidr: None, start: Some(text(from)), stop: Some(text(from + len)) }
    });
    (prop::collection::vec(block, 0..3), 0i64..3, any::<bool>(), prop::option::of("[xy]")).prop_map(
        |(blocks, created, disabled, label)| PoolFacts {
            created: Timestamp::from_second(created).unwrap(),
            spec: LoadBalancerIPPoolSpec {
                blocks,
                disabled,
                service_selector: label
                    .map(|l| serde_json::from_value(serde_json::json!({"matchLabels": {"l": l}})).unwrap()),
                ..LoadBalancerIPPoolSpec::default()
            },
            ..PoolFacts::default()
        },
    )
}

prop_compose! {
    fn service()(
        created in 0i64..4,
        (balanced, ours, partial, local) in (prop::bool::weighted(0.9), prop::bool::weighted(0.9), any::<bool>(), any::<bool>()),
        families in prop::sample::subsequence(IpFamily::ALL.to_vec(), 1..=2),
        wanted in prop::collection::btree_set(address(), 0..2),
        ingress in prop::collection::btree_set(address(), 0..3),
        external in prop::collection::vec(address(), 0..2),
        key in prop::option::of("[kj]"),
        open in any::<bool>(),
        port in 1i32..4,
        label in "[xy]",
    ) -> ServiceFacts {
        ServiceFacts {
            created: Timestamp::from_second(created).unwrap(),
            balanced,
            class: Some(if ours { CLASS.into() } else { "example.com/x".into() }),
            labels: [("l".to_owned(), label.clone())].into(),
            selector: [("app".to_owned(), label)].into(),
            families,
            partial,
            wanted,
            local,
            ingress: ingress.into_iter().collect(),
            external: if port == 1 { external } else { Vec::new() },
            ports: [("TCP".to_owned(), port)].into(),
            sharing: key.map(|key| Sharing {
                key,
                namespaces: open.then(|| "*".to_owned()).into_iter().collect(),
            }),
            ..ServiceFacts::default()
        }
    }
}

fn cluster() -> impl Strategy<Value = Known> {
    let names = |n: usize| name(&format!("{}/s{n}", if n.is_multiple_of(2) { "even" } else { "odd" }));
    (
        prop::collection::vec(pool(), 0..4),
        prop::collection::vec(service(), 0..10),
        prop::collection::btree_set(address(), 0..2),
    )
        .prop_map(move |(pools, services, node)| Known {
            pools: pools.into_iter().enumerate().map(|(n, pool)| (format!("p{n}"), pool)).collect(),
            services: services.into_iter().enumerate().map(|(n, service)| (names(n), service)).collect(),
            nodes: [("node".to_owned(), node)].into(),
        })
}

fn addresses(verdict: &Verdict) -> &[IpAddr] {
    match verdict {
        Verdict::Assigned(ips, _) | Verdict::Unmet(ips, _) | Verdict::Released(ips) => ips,
    }
}

/// The cluster after the plan was written.
fn carried_out(known: &Known) -> Known {
    let mut after = known.clone();
    for (name, verdict) in plan(known, &Settings::default()).services {
        let service = after.services.get_mut(name).unwrap();
        service.ingress = addresses(&verdict).to_vec();
    }
    after
}

proptest! {
    #[test]
    fn no_address_has_two_owners_that_do_not_share(known in cluster()) {
        let plan = plan(&known, &Settings::default());
        let given: Vec<_> = plan.services.iter().flat_map(|(name, v)| addresses(v).iter().map(move |ip| (*name, *ip))).collect();
        for (at, (name, ip)) in given.iter().enumerate() {
            prop_assert!(!known.nodes["node"].contains(ip));
            for (other, service) in &known.services {
                prop_assert!(other == *name || !service.external.contains(ip));
                let foreign = service.balanced && service.class.as_deref() != Some(CLASS);
                prop_assert!(!foreign || !service.ingress.contains(ip));
            }
            for (other, _) in given[at + 1..].iter().filter(|(_, same)| same == ip) {
                prop_assert!(may_share((name, &known.services[*name]), (other, &known.services[*other])).is_ok());
            }
        }
    }

    #[test]
    fn every_address_is_of_a_pool_that_selects_the_service_and_of_a_family_it_has(known in cluster()) {
        let plan = plan(&known, &Settings::default());
        for (name, verdict) in &plan.services {
            let service = &known.services[*name];
            for ip in addresses(verdict) {
                prop_assert!(service.families.contains(&IpFamily::of(*ip)));
                let home = plan.pools.iter().find(|pool| {
                    pool.keeps() && pool.contains(*ip) && pool.selects(name, service)
                });
                prop_assert!(home.is_some());
                prop_assert!(service.ingress.contains(ip) || plan.pools.iter().any(|pool| pool.gives() && pool.may_give(*ip)));
                let asked = service.wanted.iter().any(|wanted| IpFamily::of(*wanted) == IpFamily::of(*ip));
                prop_assert!(!asked || service.wanted.contains(ip));
            }
        }
    }

    #[test]
    fn a_plan_that_was_carried_out_changes_nothing(known in cluster()) {
        let before = carried_out(&known);
        let after = plan(&before, &Settings::default());
        for (name, verdict) in &after.services {
            prop_assert_eq!(addresses(verdict), &before.services[*name].ingress);
        }
    }

    #[test]
    fn nobody_new_takes_what_somebody_has(known in cluster(), newcomer in service()) {
        let settled = carried_out(&known);
        let before: BTreeMap<_, _> = plan(&settled, &Settings::default())
            .services.into_iter().map(|(name, verdict)| (name.clone(), addresses(&verdict).to_vec())).collect();
        let mut grown = settled.clone();
        // Without anything that claims addresses past the pools.
        let newcomer = ServiceFacts { ingress: Vec::new(), external: Vec::new(), ..newcomer };
        grown.services.insert(name("odd/new"), newcomer);
        let after = plan(&grown, &Settings::default());
        for (name, ips) in before {
            prop_assert!(ips.iter().all(|ip| addresses(&after.services[&name]).contains(ip)));
        }
    }

    #[test]
    fn a_service_stays_without_address_only_when_none_is_free_for_it(known in cluster()) {
        let plan = plan(&known, &Settings::default());
        for (name, verdict) in &plan.services {
            let Verdict::Unmet(ips, problems) = verdict else { continue };
            let service = &known.services[*name];
            for problem in problems {
                let Problem::Exhausted { family, .. } = problem else { continue };
                prop_assert!(ips.iter().all(|ip| IpFamily::of(*ip) != *family));
                for pool in plan.pools.iter().filter(|pool| pool.gives() && pool.selects(name, service)) {
                    for range in pool.ranges(*family) {
                        let mut ip = Some(range.first);
                        while let Some(one) = ip.filter(|ip| range.contains(*ip)) {
                            prop_assert!(plan.taken.contains_key(&one));
                            ip = next(one);
                        }
                    }
                }
            }
        }
    }
}
