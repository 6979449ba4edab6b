//! What Services and pools say in their status. Pure: the clock is the caller's.

use std::net::IpAddr;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use skep_api::load_balancer_ip_pool::{ASSIGNED, LoadBalancerIPPoolStatus};
use skep_model::IpFamily;

use super::{
    facts::ServiceFacts,
    plan::{Holder, Plan, Verdict},
    pool::{Pool, Standing},
};

/// What is to be written into a Service's status.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServiceStatus {
    /// The addresses.
    pub(crate) ingress: Vec<IpAddr>,
    /// Every condition, others' too.
    pub(crate) conditions: Vec<Condition>,
    /// What to tell in an event; nothing when the condition said so before.
    pub(crate) news: Option<News>,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct News {
    /// Whether something is wrong.
    pub(crate) warning: bool,
    pub(crate) reason: String,
    pub(crate) note: String,
}

/// What a Service's status should become; `None` when it is so.
pub(crate) fn service(facts: &ServiceFacts, verdict: &Verdict, now: Timestamp) -> Option<ServiceStatus> {
    let (ingress, wanted) = match verdict {
        Verdict::Assigned(ingress, origin) => (ingress, Some((true, "Assigned", origin.clone()))),
        Verdict::Unmet(ingress, problems) => {
            let reason = problems.first().map_or("Deleting", |problem| problem.reason());
            let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
            (ingress, Some((false, reason, texts.join("; "))))
        }
        Verdict::Released(ingress) => (ingress, None),
    };
    // What is being deleted keeps what it has and is told nothing.
    if facts.deleting && ingress == &facts.ingress {
        return None;
    }
    let told = wanted.map(|(met, reason, message)| condition(ASSIGNED, met, reason, message, 0));
    let before = facts.condition(ASSIGNED);
    let same_condition = match (before, &told) {
        (Some(before), Some(told)) => says_the_same(before, told),
        (None, None) => true,
        _ => false,
    };
    let ours = facts.ingress_ours || told.is_none() && ingress == &facts.ingress;
    if same_condition && ingress == &facts.ingress && ours {
        return None;
    }
    let news = match &told {
        Some(told) if !same_condition => Some(News {
            warning: told.status == "False",
            reason: if told.status == "True" { "IPAssigned".into() } else { told.reason.clone() },
            note: told.message.clone(),
        }),
        None => Some(News {
            warning: false,
            reason: "IPReleased".into(),
            note: "the Service is no longer of the type and class that get addresses from pools".into(),
        }),
        Some(_) => None,
    };
    let mut conditions: Vec<Condition> =
        facts.conditions.iter().filter(|condition| condition.type_ != ASSIGNED).cloned().collect();
    conditions.extend(told.map(|told| since(told, before, now)));
    Some(ServiceStatus { ingress: ingress.clone(), conditions, news })
}

/// What a pool's status should become; `None` when it is so.
pub(crate) fn pool(plan: &Plan<'_>, pool: &Pool<'_>, now: Timestamp) -> Option<LoadBalancerIPPoolStatus> {
    let before = pool.facts.status.clone().unwrap_or_default();
    let count = Count::of(plan, pool);
    let mut conditions = standing(pool);
    conditions.push(exhausted(pool, &count));
    let conditions = conditions
        .into_iter()
        .map(|told| {
            let earlier = before.conditions.iter().find(|condition| condition.type_ == told.type_);
            match earlier {
                Some(earlier) if says_the_same(earlier, &told) => earlier.clone(),
                earlier => since(told, earlier, now),
            }
        })
        .collect();
    let status = LoadBalancerIPPoolStatus {
        conditions,
        total: count.total.to_string(),
        // Who does not give has nothing to offer, however much is free.
        available: if pool.gives() { count.available() } else { 0 }.to_string(),
        used: count.used.to_string(),
    };
    (status != before).then_some(status)
}

fn standing(pool: &Pool<'_>) -> Vec<Condition> {
    let generation = pool.facts.generation;
    let (reason, text) = match &pool.standing {
        Standing::Gives => ("Ready", "addresses are given"),
        Standing::Disabled => ("Disabled", "spec.disabled: no new addresses are given"),
        Standing::Conflict(text) => ("Conflict", text.as_str()),
        Standing::InsidePodRange(text) => ("InsidePodRange", text.as_str()),
        Standing::InsideServiceRange(text) => ("InsideServiceRange", text.as_str()),
        Standing::Invalid(text) => ("Invalid", text.as_str()),
    };
    let mut all = vec![condition("Ready", pool.gives(), reason, text.to_owned(), generation)];
    for kind in ["Conflict", "InsidePodRange", "InsideServiceRange"] {
        let met = kind == reason;
        let (reason, text) = if met { ("Overlap", text) } else { ("None", "") };
        all.push(condition(kind, met, reason, text.to_owned(), generation));
    }
    all
}

fn exhausted(pool: &Pool<'_>, count: &Count) -> Condition {
    let full: Vec<String> =
        if pool.keeps() { count.full.iter().map(ToString::to_string).collect() } else { Vec::new() };
    let (reason, text) = match full.is_empty() {
        true => ("None", String::new()),
        false => ("AllInUse", format!("every {} address is in use", full.join(" and every "))),
    };
    condition("Exhausted", !full.is_empty(), reason, text, pool.facts.generation)
}

/// The addresses of a pool.
struct Count {
    total: u128,
    used: u128,
    /// Taken by others than Services of ours.
    lost: u128,
    /// The families of which none is free.
    full: Vec<IpFamily>,
}

impl Count {
    fn of(plan: &Plan<'_>, pool: &Pool<'_>) -> Self {
        let mut count = Count { total: 0, used: 0, lost: 0, full: Vec::new() };
        if !pool.keeps() {
            return count;
        }
        for family in IpFamily::ALL {
            let (mut total, mut taken) = (0u128, 0u128);
            for range in pool.ranges(family) {
                total = total.saturating_add(range.len());
                for holders in plan.taken.range(range.first..=range.last).map(|(_, holders)| holders) {
                    taken += 1;
                    let ours = holders.iter().any(|holder| matches!(holder, Holder::Service(_)));
                    *(if ours { &mut count.used } else { &mut count.lost }) += 1;
                }
            }
            if total > 0 && taken >= total {
                count.full.push(family);
            }
            count.total = count.total.saturating_add(total);
        }
        count
    }

    fn available(&self) -> u128 {
        self.total.saturating_sub(self.used).saturating_sub(self.lost)
    }
}

pub(crate) fn condition(kind: &str, met: bool, reason: &str, message: String, generation: i64) -> Condition {
    Condition {
        type_: kind.to_owned(),
        status: if met { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: (generation > 0).then_some(generation),
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    }
}

/// Whether two conditions differ in nothing but their time.
pub(crate) fn says_the_same(one: &Condition, other: &Condition) -> bool {
    (&one.status, &one.reason, &one.message, one.observed_generation)
        == (&other.status, &other.reason, &other.message, other.observed_generation)
}

/// The condition with the time since when it has its status.
pub(crate) fn since(mut told: Condition, before: Option<&Condition>, now: Timestamp) -> Condition {
    told.last_transition_time = match before {
        Some(before) if before.status == told.status => before.last_transition_time.clone(),
        _ => Time(now),
    };
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lbipam::{
        facts::{Known, PoolFacts},
        plan::{Settings, plan},
        problem::Problem,
    };

    fn now() -> Timestamp {
        Timestamp::from_second(1_000).unwrap()
    }

    fn assigned(ip: &str) -> Verdict {
        Verdict::Assigned(vec![ip.parse().unwrap()], format!("{ip} from the pool blue"))
    }

    fn carried_out(mut facts: ServiceFacts, status: &ServiceStatus) -> ServiceFacts {
        facts.ingress.clone_from(&status.ingress);
        facts.conditions.clone_from(&status.conditions);
        facts.ingress_ours = true;
        facts
    }

    #[test]
    fn a_status_that_says_so_already_is_not_written_again() {
        let facts = ServiceFacts { ingress_ours: true, ..ServiceFacts::default() };
        let status = service(&facts, &assigned("10.0.0.1"), now()).unwrap();
        assert_eq!(status.news.as_ref().unwrap().reason, "IPAssigned");
        let facts = carried_out(facts, &status);
        assert_eq!(service(&facts, &assigned("10.0.0.1"), Timestamp::MAX), None);
        let foreign = ServiceFacts { ingress_ours: false, ..facts };
        assert!(service(&foreign, &assigned("10.0.0.1"), now()).unwrap().news.is_none());
    }

    #[test]
    fn other_conditions_stay_and_a_problem_is_told_once() {
        let other = condition("example.com/Other", true, "Fine", String::new(), 0);
        let facts = ServiceFacts { conditions: vec![other.clone()], ..ServiceFacts::default() };
        let unmet = Verdict::Unmet(Vec::new(), vec![Problem::Outside("10.0.0.1".parse().unwrap())]);
        let status = service(&facts, &unmet, now()).unwrap();
        assert_eq!((status.conditions.len(), &status.conditions[0]), (2, &other));
        assert_eq!(status.conditions[1].reason, "AddressOutsidePools");
        assert!(status.news.as_ref().unwrap().warning);
        assert_eq!(service(&carried_out(facts, &status), &unmet, Timestamp::MAX), None);
    }

    #[test]
    fn a_released_service_loses_address_and_condition() {
        let facts = ServiceFacts::default();
        let facts = carried_out(facts.clone(), &service(&facts, &assigned("10.0.0.1"), now()).unwrap());
        let status = service(&facts, &Verdict::Released(Vec::new()), now()).unwrap();
        assert!(status.ingress.is_empty() && status.conditions.is_empty());
        assert_eq!(status.news.unwrap().reason, "IPReleased");
    }

    /// The status of pool `p` with these blocks and holders, and whether a second look finds nothing to write.
    fn pool_status(json: serde_json::Value, services: &[&str]) -> LoadBalancerIPPoolStatus {
        let mut known = Known::default();
        let spec = serde_json::from_value(json).unwrap();
        known.pools.insert("p".into(), PoolFacts { spec, generation: 3, ..PoolFacts::default() });
        known.nodes.insert("n".into(), ["10.0.0.1".parse().unwrap()].into());
        for (at, ip) in services.iter().enumerate() {
            let facts = ServiceFacts {
                balanced: true,
                class: Some(skep_api::load_balancer_ip_pool::CLASS.into()),
                families: IpFamily::ALL.into(),
                ingress: vec![ip.parse().unwrap()],
                deleting: true,
                ..ServiceFacts::default()
            };
            known.services.insert(skep_model::NamespacedName::new("default", format!("s{at}")), facts);
        }
        let settings = Settings::default();
        let written = {
            let plan = plan(&known, &settings);
            pool(&plan, &plan.pools[0], now()).unwrap()
        };
        known.pools.get_mut("p").unwrap().status = Some(written.clone());
        let plan = plan(&known, &settings);
        assert_eq!(pool(&plan, &plan.pools[0], Timestamp::MAX), None);
        written
    }

    fn is_true(status: &LoadBalancerIPPoolStatus, kind: &str) -> bool {
        status.conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
    }

    #[test]
    fn a_pool_counts_what_is_used_and_what_is_lost_to_nodes() {
        let spec = serde_json::json!({"blocks": [{"cidr": "10.0.0.0/29"}, {"cidr": "fd00::/64"}]});
        let status = pool_status(spec, &["10.0.0.2", "fd00::5"]);
        let total: u128 = 6 + (1 << 64) - 2;
        assert_eq!((status.total, status.used.as_str()), (total.to_string(), "2"));
        assert_eq!(status.available, (total - 3).to_string());
    }

    #[test]
    fn a_full_family_and_a_silent_pool_say_so() {
        let spec =
            serde_json::json!({"blocks": [{"start": "10.0.0.1", "stop": "10.0.0.2"}, {"cidr": "fd00::/64"}]});
        let status = pool_status(spec, &["10.0.0.2"]);
        assert!(is_true(&status, "Ready") && is_true(&status, "Exhausted"));
        assert!(status.conditions.iter().any(|c| c.message == "every IPv4 address is in use"));
        let disabled = serde_json::json!({"blocks": [{"cidr": "10.0.0.0/29"}], "disabled": true});
        let status = pool_status(disabled, &["10.0.0.2"]);
        assert!(!is_true(&status, "Ready") && !is_true(&status, "Exhausted"));
        assert_eq!((status.used.as_str(), status.available.as_str()), ("1", "0"));
    }

    #[test]
    fn the_time_of_a_condition_is_that_of_its_last_change() {
        let first = since(condition("A", true, "X", String::new(), 0), None, now());
        let same = since(condition("A", true, "Y", String::new(), 0), Some(&first), Timestamp::MAX);
        assert_eq!(same.last_transition_time, first.last_transition_time);
        let changed = since(condition("A", false, "Y", String::new(), 0), Some(&first), Timestamp::MAX);
        assert_eq!(changed.last_transition_time, Time(Timestamp::MAX));
    }
}
