//! Which Service gets which address. Pure: the same facts give the same plan, and a carried out plan changes nothing.
//!
//! Three passes over the Services, the eldest first: who has addresses keeps them where that is still right; who asks
//! for certain addresses gets those; the rest get the lowest free ones. So a restart adopts what is assigned before
//! anything new is, and of two that claim one address the elder keeps it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use skep_api::load_balancer_ip_pool::{ASSIGNED, CLASS};
use skep_model::{IpFamily, NamespacedName};

use super::{
    facts::{Known, ServiceFacts},
    pool::{Pool, Reserved, Standing, judge},
    problem::Problem,
    range::next,
    sharing::may_share,
};

/// What does not change while the operator runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// The cluster's own ranges.
    pub(crate) reserved: Reserved,
    /// Whether Services without a class are ours.
    pub(crate) default_class: bool,
}

impl Settings {
    /// Whether we give the Service its addresses.
    pub(crate) fn owns(&self, service: &ServiceFacts) -> bool {
        service.balanced && service.class.as_deref().map_or(self.default_class, |class| class == CLASS)
    }
}

/// What a Service's status should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// These addresses, which are all it asks for; and where they are from.
    Assigned(Vec<IpAddr>, String),
    /// These addresses, but something is missing.
    Unmet(Vec<IpAddr>, Vec<Problem>),
    /// It is not ours any more: these addresses are another's.
    Released(Vec<IpAddr>),
}

/// Who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder<'a> {
    /// A Service of ours.
    Service(&'a NamespacedName),
    /// A Service by its external IPs, or by the status that another's controller wrote.
    Foreign(&'a NamespacedName),
    /// A node.
    Node(&'a str),
}

/// The plan.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// What each Service of ours should say; others are absent.
    pub(crate) services: BTreeMap<&'a NamespacedName, Verdict>,
    /// The pools.
    pub(crate) pools: Vec<Pool<'a>>,
    /// Who has which address.
    pub(crate) taken: BTreeMap<IpAddr, Vec<Holder<'a>>>,
}

/// Makes the plan.
pub(crate) fn plan<'a>(known: &'a Known, settings: &Settings) -> Plan<'a> {
    let mut planner = Planner::new(known, settings);
    let owned = planner.owned(settings);
    for (name, service) in &owned {
        planner.adopt(name, service);
    }
    for (name, service) in owned.iter().filter(|(_, service)| !service.deleting) {
        planner.give_wanted(name, service);
    }
    for (name, service) in owned.iter().filter(|(_, service)| !service.deleting) {
        for family in &service.families {
            planner.give_any(name, service, *family);
        }
    }
    let mut services: BTreeMap<_, _> =
        owned.iter().map(|(name, service)| (*name, planner.verdict(name, service))).collect();
    let former = known.services.iter().filter(|(_, service)| !settings.owns(service));
    for (name, service) in former.filter(|(_, service)| service.condition(ASSIGNED).is_some()) {
        services.insert(name, Verdict::Released(planner.foreign_part(service)));
    }
    Plan { services, pools: planner.pools, taken: planner.taken }
}

struct Planner<'a> {
    known: &'a Known,
    pools: Vec<Pool<'a>>,
    taken: BTreeMap<IpAddr, Vec<Holder<'a>>>,
    given: HashMap<&'a NamespacedName, BTreeSet<IpAddr>>,
    /// Addresses that Services with a sharing key have.
    shared: HashMap<&'a str, BTreeSet<IpAddr>>,
    /// Where the search in a range goes on: nothing is freed while a plan is made.
    cursors: HashMap<IpAddr, Option<IpAddr>>,
    problems: HashMap<&'a NamespacedName, Vec<Problem>>,
}

impl<'a> Planner<'a> {
    fn new(known: &'a Known, settings: &Settings) -> Self {
        let mut taken: BTreeMap<IpAddr, Vec<Holder<'a>>> = BTreeMap::new();
        for (node, addresses) in &known.nodes {
            addresses.iter().for_each(|ip| taken.entry(*ip).or_default().push(Holder::Node(node)));
        }
        for (name, service) in &known.services {
            let elsewhere: &[IpAddr] = match settings.owns(service) || !service.balanced {
                true => &[],
                false => &service.ingress,
            };
            for ip in service.external.iter().chain(elsewhere) {
                taken.entry(*ip).or_default().push(Holder::Foreign(name));
            }
        }
        Planner {
            known,
            pools: judge(&known.pools, &settings.reserved),
            taken,
            given: HashMap::new(),
            shared: HashMap::new(),
            cursors: HashMap::new(),
            problems: HashMap::new(),
        }
    }

    /// Our Services, the eldest first.
    fn owned(&self, settings: &Settings) -> Vec<(&'a NamespacedName, &'a ServiceFacts)> {
        let mut owned: Vec<_> =
            self.known.services.iter().filter(|(_, service)| settings.owns(service)).collect();
        owned.sort_by_key(|(name, service)| (service.created, *name));
        owned
    }

    /// Lets a Service keep those of its addresses that it may have and still wants.
    fn adopt(&mut self, name: &'a NamespacedName, service: &'a ServiceFacts) {
        for ip in &service.ingress {
            let family = IpFamily::of(*ip);
            let wanted = match self.wanted_of(service, family).next() {
                Some(_) if service.malformed.is_none() => service.wanted.contains(ip),
                // One is enough of a family of which no certain one is asked for.
                _ => service.malformed.is_some() || !self.has(name, family),
            };
            let kept = |pool: &Pool<'_>| pool.keeps() && pool.contains(*ip) && pool.selects(name, service);
            let in_pool = self.pools.iter().any(kept);
            if wanted
                && in_pool
                && service.families.contains(&family)
                && self.holder(*ip, name, service).is_none()
            {
                self.assign(name, service, *ip);
            }
        }
    }

    /// Gives what is asked for by name.
    fn give_wanted(&mut self, name: &'a NamespacedName, service: &'a ServiceFacts) {
        if let Some(text) = &service.malformed {
            self.complain(name, Problem::Malformed(text.clone()));
            return;
        }
        for ip in &service.wanted {
            if self.given.get(name).is_some_and(|given| given.contains(ip)) {
                continue;
            }
            match self.objection(*ip, name, service) {
                Some(problem) => self.complain(name, problem),
                None => self.assign(name, service, *ip),
            }
        }
    }

    /// Why the Service may not have the address.
    fn objection(&self, ip: IpAddr, name: &NamespacedName, service: &ServiceFacts) -> Option<Problem> {
        if !service.families.contains(&IpFamily::of(ip)) {
            return Some(Problem::Family(ip));
        }
        let withheld = |reason: String| Some(Problem::Withheld { address: ip, reason });
        let home = self.pools.iter().filter(|pool| pool.contains(ip));
        // Of several pools that overlap, the one that gives counts.
        let Some(pool) = home.max_by_key(|pool| pool.gives()) else {
            return Some(Problem::Outside(ip));
        };
        if !pool.gives() {
            return withheld(format!("the pool {} {}", pool.name, standing(&pool.standing)));
        }
        if !pool.selects(name, service) {
            return withheld(format!("the pool {} does not select this Service", pool.name));
        }
        if !pool.may_give(ip) {
            let why = "it is the first or last address of a block, see allowFirstLastIPs of the pool";
            return withheld(format!("{why} {}", pool.name));
        }
        self.holder(ip, name, service)
    }

    /// Gives the lowest free address of a family, or one that can be shared, to a Service that has none of it.
    fn give_any(&mut self, name: &'a NamespacedName, service: &'a ServiceFacts, family: IpFamily) {
        let asked = service.malformed.is_some() || self.wanted_of(service, family).next().is_some();
        if asked || self.has(name, family) {
            return;
        }
        let matching: Vec<usize> = (0..self.pools.len())
            .filter(|at| {
                let pool = &self.pools[*at];
                pool.gives() && pool.selects(name, service) && pool.ranges(family).next().is_some()
            })
            .collect();
        if matching.is_empty() {
            let problem = self.no_pool(name, service, family);
            self.complain(name, problem);
            return;
        }
        let found = self.shareable(name, service, family, &matching).or_else(|| self.free(family, &matching));
        match found {
            Some(ip) => self.assign(name, service, ip),
            None => {
                let pools: Vec<_> = matching.iter().map(|at| self.pools[*at].name).collect();
                let pools =
                    format!("the pool{} {}", if pools.len() > 1 { "s" } else { "" }, pools.join(", "));
                self.complain(name, Problem::Exhausted { family, pools });
            }
        }
    }

    fn shareable(
        &self,
        name: &NamespacedName,
        service: &ServiceFacts,
        family: IpFamily,
        matching: &[usize],
    ) -> Option<IpAddr> {
        let shared = self.shared.get(service.sharing.as_ref()?.key.as_str())?;
        let usable = |ip: &&IpAddr| {
            IpFamily::of(**ip) == family
                && matching.iter().any(|at| self.pools[*at].may_give(**ip))
                && self.holder(**ip, name, service).is_none()
        };
        shared.iter().find(usable).copied()
    }

    fn free(&mut self, family: IpFamily, matching: &[usize]) -> Option<IpAddr> {
        for at in matching {
            for range in self.pools[*at].ranges(family) {
                let mut candidate = *self.cursors.get(&range.first).unwrap_or(&Some(range.first));
                while let Some(ip) = candidate.filter(|ip| range.contains(*ip)) {
                    if !self.taken.contains_key(&ip) {
                        self.cursors.insert(range.first, Some(ip));
                        return Some(ip);
                    }
                    candidate = next(ip);
                }
                self.cursors.insert(range.first, candidate);
            }
        }
        None
    }

    /// Who has the address and does not share it with the Service.
    fn holder(&self, ip: IpAddr, name: &NamespacedName, service: &ServiceFacts) -> Option<Problem> {
        let in_use = |holder: String, reason| Some(Problem::InUse { address: ip, holder, reason });
        self.taken.get(&ip)?.iter().find_map(|holder| match *holder {
            Holder::Node(node) => in_use(format!("the node {node}"), None),
            Holder::Foreign(other) if other == name => None,
            Holder::Foreign(other) => in_use(other.to_string(), None),
            Holder::Service(other) if other == name => None,
            Holder::Service(other) => {
                let reason = may_share((name, service), (other, self.known.services.get(other)?)).err()?;
                in_use(other.to_string(), Some(reason))
            }
        })
    }

    fn assign(&mut self, name: &'a NamespacedName, service: &'a ServiceFacts, ip: IpAddr) {
        self.taken.entry(ip).or_default().push(Holder::Service(name));
        self.given.entry(name).or_default().insert(ip);
        if let Some(sharing) = &service.sharing {
            self.shared.entry(&sharing.key).or_default().insert(ip);
        }
    }

    fn complain(&mut self, name: &'a NamespacedName, problem: Problem) {
        self.problems.entry(name).or_default().push(problem);
    }

    fn wanted_of(&self, service: &'a ServiceFacts, family: IpFamily) -> impl Iterator<Item = &'a IpAddr> {
        service.wanted.iter().filter(move |ip| IpFamily::of(**ip) == family)
    }

    fn has(&self, name: &NamespacedName, family: IpFamily) -> bool {
        self.given.get(name).is_some_and(|given| given.iter().any(|ip| IpFamily::of(*ip) == family))
    }

    fn no_pool(&self, name: &NamespacedName, service: &ServiceFacts, family: IpFamily) -> Problem {
        let one = |pool: &Pool<'_>| {
            let why = if !pool.gives() {
                standing(&pool.standing).to_owned()
            } else if !pool.selects(name, service) {
                "does not select this Service".to_owned()
            } else {
                format!("has no {family} block")
            };
            format!("{} {why}", pool.name)
        };
        let mut reasons: Vec<String> = self.pools.iter().take(5).map(one).collect();
        if self.pools.len() > reasons.len() {
            reasons.push(format!("and {} more", self.pools.len() - reasons.len()));
        }
        let none = || "there is no LoadBalancerIPPool".to_owned();
        Problem::NoPool { family, reason: if reasons.is_empty() { none() } else { reasons.join(", ") } }
    }

    fn verdict(&self, name: &'a NamespacedName, service: &ServiceFacts) -> Verdict {
        let empty = BTreeSet::new();
        let given = self.given.get(name).unwrap_or(&empty);
        let of = |family: &IpFamily| {
            let family = *family;
            given.iter().copied().filter(move |ip| IpFamily::of(*ip) == family)
        };
        let addresses: Vec<IpAddr> = service.families.iter().flat_map(of).collect();
        let problems = self.problems.get(name).cloned().unwrap_or_default();
        let optional =
            |problem: &Problem| matches!(problem, Problem::NoPool { .. } | Problem::Exhausted { .. });
        let content = service.partial && !addresses.is_empty() && problems.iter().all(optional);
        if !content && !problems.is_empty() || addresses.is_empty() {
            return Verdict::Unmet(addresses, problems);
        }
        let from = |ip: &IpAddr| {
            let pool =
                self.pools.iter().filter(|pool| pool.keeps() && pool.contains(*ip)).max_by_key(|p| p.gives());
            format!("{ip} from the pool {}", pool.map_or("?", |pool| pool.name))
        };
        let mut origin: Vec<String> = addresses.iter().map(from).collect();
        origin.extend(problems.iter().map(ToString::to_string));
        Verdict::Assigned(addresses, origin.join("; "))
    }

    /// What stays in the status of a Service that is not ours any more.
    fn foreign_part(&self, service: &ServiceFacts) -> Vec<IpAddr> {
        if !service.balanced {
            return Vec::new();
        }
        let ours = |ip: &IpAddr| self.pools.iter().any(|pool| pool.keeps() && pool.contains(*ip));
        service.ingress.iter().copied().filter(|ip| !ours(ip)).collect()
    }
}

fn standing(standing: &Standing) -> &'static str {
    match standing {
        Standing::Gives => "gives addresses",
        Standing::Disabled => "is disabled",
        Standing::Conflict(_) => "is in conflict with another pool",
        Standing::InsidePodRange(_) => "reaches into the pods' range",
        Standing::InsideServiceRange(_) => "reaches into the Services' range",
        Standing::Invalid(_) => "is not valid",
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
