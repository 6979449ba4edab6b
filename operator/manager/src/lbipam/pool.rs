//! Pools as they are used: which of them give addresses, and why others do not. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use skep_api::LabelSelector;
use skep_model::{IpCidr, IpFamily, NamespacedName};

use super::{
    facts::{PoolFacts, ServiceFacts, selector, selects},
    range::{Block, Range, block},
};

/// The cluster's own ranges, which no pool may touch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reserved {
    /// Ranges of the pods.
    pub(crate) pods: Vec<IpCidr>,
    /// Ranges of the Services.
    pub(crate) services: Vec<IpCidr>,
}

/// Whether a pool gives addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It does.
    Gives,
    /// Its owner says no; Services keep what they have.
    Disabled,
    /// An elder pool, or another block of its own, has some of its addresses; Services keep what they have.
    Conflict(String),
    /// It reaches into the pods' range and is not used at all.
    InsidePodRange(String),
    /// It reaches into the Services' range and is not used at all.
    InsideServiceRange(String),
    /// It cannot be understood and is not used at all.
    Invalid(String),
}

/// A pool, read and judged.
#[derive(Clone, Debug)]
pub(crate) struct Pool<'a> {
    pub(crate) name: &'a str,
    pub(crate) facts: &'a PoolFacts,
    pub(crate) blocks: Vec<Block>,
    pub(crate) standing: Standing,
    selector: LabelSelector,
}

impl Pool<'_> {
    /// Whether it gives new addresses.
    pub(crate) fn gives(&self) -> bool {
        self.standing == Standing::Gives
    }

    /// Whether Services may keep addresses of it.
    pub(crate) fn keeps(&self) -> bool {
        matches!(self.standing, Standing::Gives | Standing::Disabled | Standing::Conflict(_))
    }

    /// Whether the Service may use it.
    pub(crate) fn selects(&self, name: &NamespacedName, service: &ServiceFacts) -> bool {
        selects(&self.selector, name, &service.labels)
    }

    /// Whether the address is one of its.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.blocks.iter().any(|block| block.whole.contains(address))
    }

    /// Whether it may give the address.
    pub(crate) fn may_give(&self, address: IpAddr) -> bool {
        self.blocks.iter().any(|block| block.usable.contains(address))
    }

    /// The ranges of a family that it gives.
    pub(crate) fn ranges(&self, family: IpFamily) -> impl Iterator<Item = Range> {
        self.blocks.iter().map(|block| block.usable).filter(move |range| range.family() == family)
    }
}

/// All pools, by name. Of two that overlap, the elder gives.
pub(crate) fn judge<'a>(pools: &'a BTreeMap<String, PoolFacts>, reserved: &Reserved) -> Vec<Pool<'a>> {
    let mut by_age: Vec<(&String, &PoolFacts)> = pools.iter().collect();
    by_age.sort_by_key(|(name, facts)| (facts.created, *name));
    let mut judged: Vec<Pool<'a>> = Vec::with_capacity(by_age.len());
    for (name, facts) in by_age {
        let pool = judge_one(name, facts, reserved, &judged);
        judged.push(pool);
    }
    judged.sort_by_key(|pool| pool.name);
    judged
}

fn judge_one<'a>(name: &'a str, facts: &'a PoolFacts, reserved: &Reserved, elder: &[Pool<'_>]) -> Pool<'a> {
    let mut pool = Pool {
        name,
        facts,
        blocks: Vec::new(),
        standing: Standing::Gives,
        selector: LabelSelector::everything(),
    };
    if let Err(reason) = read(&mut pool) {
        pool.standing = Standing::Invalid(reason);
        return pool;
    }
    if let Some(text) = reaches_into(&pool, &reserved.pods, "pods") {
        pool.standing = Standing::InsidePodRange(text);
    } else if let Some(text) = reaches_into(&pool, &reserved.services, "Services") {
        pool.standing = Standing::InsideServiceRange(text);
    } else if let Some(text) = conflict(&pool, elder) {
        pool.standing = Standing::Conflict(text);
    } else if facts.spec.disabled {
        pool.standing = Standing::Disabled;
    }
    pool
}

fn read(pool: &mut Pool<'_>) -> Result<(), String> {
    let spec = &pool.facts.spec;
    pool.selector =
        selector(spec.service_selector.as_ref()).map_err(|why| format!("serviceSelector: {why}"))?;
    for (index, given) in spec.blocks.iter().enumerate() {
        let read = block(index, given, spec.allow_first_last_ips).map_err(|error| error.to_string())?;
        pool.blocks.push(read);
    }
    if pool.blocks.is_empty() { Err("the pool has no blocks".into()) } else { Ok(()) }
}

fn reaches_into(pool: &Pool<'_>, ranges: &[IpCidr], whose: &str) -> Option<String> {
    pool.blocks.iter().find_map(|block| {
        ranges.iter().find_map(|cidr| {
            let shared = block.whole.overlap(Range::of(*cidr))?;
            Some(format!("{shared} lies in the range {cidr} of the cluster's {whose}"))
        })
    })
}

fn conflict(pool: &Pool<'_>, elder: &[Pool<'_>]) -> Option<String> {
    for (index, block) in pool.blocks.iter().enumerate() {
        for (earlier, other) in pool.blocks[..index].iter().enumerate() {
            if let Some(shared) = block.whole.overlap(other.whole) {
                return Some(format!("{shared} is in block {earlier} and again in block {index}"));
            }
        }
        let active =
            elder.iter().filter(|other| matches!(other.standing, Standing::Gives | Standing::Disabled));
        for other in active {
            let shared = other.blocks.iter().find_map(|theirs| block.whole.overlap(theirs.whole));
            if let Some(shared) = shared {
                return Some(format!("{shared} belongs to the pool {}, which is older", other.name));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use skep_api::{IpBlock, LoadBalancerIPPoolSpec};

    use super::*;

    fn pools(given: &[(&str, &str)]) -> BTreeMap<String, PoolFacts> {
        let one = |(age, (name, cidrs)): (usize, &(&str, &str))| {
            let blocks = cidrs.split(' ').filter(|cidr| !cidr.is_empty());
            let blocks =
                blocks.map(|cidr| IpBlock { cidr: Some(cidr.into()), ..IpBlock::default() }).collect();
            let created = k8s_openapi::jiff::Timestamp::from_second(i64::try_from(age).unwrap()).unwrap();
            let spec = LoadBalancerIPPoolSpec { blocks, ..LoadBalancerIPPoolSpec::default() };
            ((*name).to_owned(), PoolFacts { created, spec, ..PoolFacts::default() })
        };
        given.iter().enumerate().map(one).collect()
    }

    fn standings(given: &[(&str, &str)]) -> Vec<Standing> {
        let reserved = Reserved {
            pods: vec!["10.244.0.0/16".parse().unwrap()],
            services: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
        };
        judge(&pools(given), &reserved).into_iter().map(|pool| pool.standing).collect()
    }

    #[test]
    fn the_elder_of_two_overlapping_pools_gives_and_the_younger_names_it() {
        let found =
            standings(&[("z", "10.0.0.0/24 10.0.2.0/24"), ("a", "10.0.0.128/25"), ("b", "10.0.1.0/24")]);
        let Standing::Conflict(text) = &found[0] else { panic!("{found:?}") };
        assert_eq!(text, "10.0.0.128-10.0.0.255 belongs to the pool z, which is older");
        assert_eq!(found[1..], [Standing::Gives, Standing::Gives]);
    }

    #[test]
    fn the_clusters_own_ranges_are_refused() {
        assert!(matches!(&standings(&[("a", "10.244.3.0/24")])[0], Standing::InsidePodRange(_)));
        assert!(matches!(&standings(&[("a", "10.0.0.0/8")])[0], Standing::InsidePodRange(_)));
        let Standing::InsideServiceRange(text) = standings(&[("a", "fd00:96::/64")]).remove(0) else {
            panic!()
        };
        assert_eq!(text, "fd00:96::-fd00:96::ffff lies in the range fd00:96::/112 of the cluster's Services");
    }

    #[test]
    fn a_refused_pool_is_in_nobodys_way() {
        let found = standings(&[("old", "10.244.0.0/16 10.0.0.0/24"), ("young", "10.0.0.0/24")]);
        assert_eq!(found[1], Standing::Gives);
    }

    #[test]
    fn a_pool_may_not_name_an_address_twice_and_needs_a_block() {
        assert!(
            matches!(&standings(&[("a", "10.0.0.0/24 10.0.0.8/29")])[0], Standing::Conflict(text) if text.contains("block 0"))
        );
        assert!(matches!(&standings(&[("a", "")])[0], Standing::Invalid(text) if text.contains("no blocks")));
        assert!(matches!(&standings(&[("a", "10.0.0.0")])[0], Standing::Invalid(_)));
    }
}
