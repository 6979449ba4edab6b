//! Runs every file of `testdata/`: steps of objects in, tables out.
//!
//! A file names the node, perhaps its zone, addresses, the cluster's nodes and settings, and lists steps. A step may
//! `apply` objects, `delete` them (kind and namespace/name), move the node to another `zone`, or `restart` the load
//! balancer (numbers and slots are adopted, objects come again in reverse order); then it states every frontend and, if
//! it wants, DNS names, source ranges, health checks and what is refused. After each step a load balancer that gets all
//! objects in reverse order must end at the same tables.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use k8s_openapi::api::{core::v1, discovery::v1 as discovery};
use serde::Deserialize;
use skep_loadbalancer::{
    Changes, Context, Frontend, FrontendKey, HostPorts, LoadBalancer, Pinned, Service, Set, Settings, Slice,
};
use skep_model::{DnsTarget, DnsView, FrontendKind, Scope, SetId};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Scenario {
    node: String,
    zone: Option<String>,
    #[serde(default)]
    addresses: BTreeSet<std::net::IpAddr>,
    #[serde(default)]
    nodes: BTreeMap<String, Vec<std::net::IpAddr>>,
    #[serde(default)]
    settings: Chosen,
    steps: Vec<Step>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct Chosen {
    maglev: Option<u16>,
    external_ranges: Vec<skep_model::IpCidr>,
    service_ranges: Vec<skep_model::IpCidr>,
    pod_ranges: Vec<skep_model::IpCidr>,
    direct_return: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    #[serde(default)]
    apply: Vec<serde_json::Value>,
    #[serde(default)]
    delete: Vec<String>,
    zone: Option<String>,
    #[serde(default)]
    restart: bool,
    frontends: Vec<String>,
    names: Option<Vec<String>>,
    sources: Option<Vec<String>>,
    health: Option<Vec<String>>,
    problems: Option<Vec<String>>,
    lost: Option<Vec<String>>,
}

/// What whoever applies every change would have.
#[derive(Default)]
struct Shadow {
    frontends: BTreeMap<FrontendKey, Frontend>,
    sets: BTreeMap<SetId, Set>,
    names: DnsView,
    lost: BTreeSet<String>,
}

impl Shadow {
    fn apply(&mut self, changes: Changes) {
        assert!(changes.removed_frontends.iter().all(|key| !changes.frontends.contains_key(key)));
        assert!(changes.removed_sets.iter().all(|id| !changes.sets.contains_key(id)));
        self.frontends.retain(|key, _| !changes.removed_frontends.contains(key));
        self.sets.retain(|id, _| !changes.removed_sets.contains(id));
        self.frontends.extend(changes.frontends);
        self.sets.extend(changes.sets);
        self.names.apply(changes.names);
        self.lost = changes.lost.iter().map(|lost| lost.backend.to_string()).collect();
    }

    fn sources(&self) -> Vec<String> {
        let of_row = |(key, frontend): (&FrontendKey, &Frontend)| {
            let ranges: Vec<String> =
                self.sets[&frontend.set].sources.iter().map(ToString::to_string).collect();
            frontend.flags.source_ranges.then(|| {
                format!("{} {} from {}", key.address, key.scope, ranges.join(" ")).trim_end().to_owned()
            })
        };
        self.frontends.iter().filter_map(of_row).collect()
    }
}

struct Run {
    balancer: LoadBalancer,
    context: Context,
    shadow: Shadow,
    objects: BTreeMap<String, Object>,
}

#[derive(Clone)]
enum Object {
    Service(Service),
    Slice(Slice),
    Pod(HostPorts),
}

fn give(balancer: &mut LoadBalancer, object: &Object) {
    match object.clone() {
        Object::Service(service) => balancer.upsert_service(service),
        Object::Slice(slice) => balancer.upsert_slice(slice),
        Object::Pod(pod) => balancer.upsert_pod(pod),
    }
}

impl Run {
    fn apply(&mut self, object: &serde_json::Value) {
        let key = format!(
            "{} {}/{}",
            object["kind"].as_str().unwrap(),
            object["metadata"]["namespace"].as_str().unwrap(),
            object["metadata"]["name"].as_str().unwrap()
        );
        let parsed = match object["kind"].as_str() {
            Some("Service") => {
                let object: v1::Service = serde_json::from_value(object.clone()).unwrap();
                Object::Service(Service::try_from(&object).unwrap())
            }
            Some("EndpointSlice") => {
                let object: discovery::EndpointSlice = serde_json::from_value(object.clone()).unwrap();
                Object::Slice(Slice::try_from(&object).unwrap())
            }
            Some("Pod") => {
                let object: v1::Pod = serde_json::from_value(object.clone()).unwrap();
                Object::Pod(HostPorts::of(&object).unwrap().unwrap())
            }
            other => panic!("kind {other:?}"),
        };
        give(&mut self.balancer, &parsed);
        self.objects.insert(key, parsed);
    }

    fn delete(&mut self, what: &str) {
        match self.objects.remove(what).unwrap_or_else(|| panic!("no {what}")) {
            Object::Service(service) => self.balancer.remove_service(&service.name),
            Object::Slice(slice) => self.balancer.remove_slice(&slice.name),
            Object::Pod(pod) => self.balancer.remove_pod(&pod.name),
        }
    }

    fn refresh(&mut self) {
        self.shadow.apply(self.balancer.refresh());
    }

    fn restart(&mut self) {
        self.refresh();
        let pinned = Pinned {
            rows: self.shadow.frontends.iter().map(|(key, frontend)| (*key, frontend.set)).collect(),
            slots: self.shadow.sets.iter().map(|(id, set)| (*id, set.backends.to_vec())).collect(),
        };
        let before = std::mem::take(&mut self.shadow).sets;
        self.balancer = LoadBalancer::new(self.context.clone());
        self.balancer.adopt(pinned);
        self.objects.values().rev().for_each(|object| give(&mut self.balancer, object));
        self.refresh();
        assert!(self.balancer.settle().is_empty());
        assert_eq!(self.shadow.sets, before, "a restart moved something");
    }

    /// The same objects, the other way round, all at once.
    fn afresh(&self) -> LoadBalancer {
        let mut balancer = LoadBalancer::new(self.context.clone());
        self.objects.values().rev().for_each(|object| give(&mut balancer, object));
        balancer.refresh();
        balancer
    }
}

fn show((key, frontend): (&FrontendKey, &Frontend)) -> String {
    let mut backends: Vec<String> = frontend
        .backends
        .iter()
        .map(|backend| std::net::SocketAddr::new(backend.ip, backend.port.get()).to_string())
        .collect();
    backends.sort();
    let mut words = vec![key.address.to_string()];
    if key.scope != Scope::Inside {
        words.push(key.scope.to_string());
    }
    if frontend.kind != FrontendKind::ClusterIp {
        words.push(frontend.kind.to_string());
    }
    words.push(format!("{}:{}", frontend.owner, frontend.port_name));
    words.extend(frontend.flags.names().into_iter().map(str::to_owned));
    if frontend.affinity_seconds > 0 {
        words.push(format!("sticky {}s", frontend.affinity_seconds));
    }
    if frontend.maglev > 0 {
        words.push(format!("maglev {}", frontend.maglev));
    }
    words.push("->".into());
    words.extend(backends);
    words.join(" ")
}

fn tables(balancer: &LoadBalancer) -> Vec<String> {
    balancer.frontends().iter().map(show).collect()
}

fn show_name(name: &str, target: &DnsTarget) -> String {
    match target {
        DnsTarget::Cluster { addresses, ports } => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!("{name} cluster {} ports {}", addresses.join(","), ports.len())
        }
        DnsTarget::Headless(subsets) => {
            let endpoints: BTreeSet<String> = subsets
                .iter()
                .flat_map(|subset| &subset.endpoints)
                .map(|e| format!("{}={}", e.hostname.clone().unwrap_or_default(), e.address))
                .collect();
            format!("{name} headless {}", endpoints.into_iter().collect::<Vec<_>>().join(","))
        }
        DnsTarget::External(target) => format!("{name} external {target}"),
    }
}

fn context(scenario: &Scenario) -> Context {
    let each = scenario.nodes.iter();
    let nodes = each.flat_map(|(name, addresses)| addresses.iter().map(move |ip| (*ip, name.clone())));
    let chosen = &scenario.settings;
    Context {
        node: scenario.node.clone(),
        zone: scenario.zone.clone(),
        addresses: scenario.addresses.clone(),
        nodes: nodes.collect(),
        settings: Settings {
            maglev: chosen.maglev,
            external_ranges: chosen.external_ranges.clone(),
            service_ranges: chosen.service_ranges.clone(),
            pod_ranges: chosen.pod_ranges.clone(),
            direct_return: chosen.direct_return,
        },
    }
}

fn check(at: &str, run: &Run, step: &Step) {
    assert_eq!(run.shadow.frontends, *run.balancer.frontends(), "{at}: changes do not add up");
    assert_eq!(tables(&run.balancer), step.frontends, "{at}: frontends");
    assert_eq!(tables(&run.afresh()), step.frontends, "{at}: the order of objects matters");
    for frontend in run.shadow.frontends.values() {
        let set = &run.shadow.sets[&frontend.set];
        assert_eq!((&set.backends, set.maglev), (&frontend.backends, frontend.maglev), "{at}");
    }
    if let Some(expected) = &step.names {
        let services = run.shadow.names.services.iter();
        let names: Vec<String> = services.map(|(name, t)| show_name(&name.to_string(), t)).collect();
        assert_eq!(names, *expected, "{at}: names");
    }
    if let Some(expected) = &step.sources {
        assert_eq!(run.shadow.sources(), *expected, "{at}: source ranges");
    }
    if let Some(expected) = &step.health {
        let checks = run.balancer.health_checks().iter();
        let shown: Vec<String> =
            checks.map(|(name, check)| format!("{name} {} {}", check.port, check.local_endpoints)).collect();
        assert_eq!(shown, *expected, "{at}: health checks");
    }
    if let Some(expected) = &step.problems {
        let shown: Vec<String> =
            run.balancer.problems().map(|(owner, problem)| format!("{owner}: {problem}")).collect();
        assert_eq!(shown, *expected, "{at}: problems");
    }
    if let Some(expected) = &step.lost {
        assert_eq!(run.shadow.lost.iter().cloned().collect::<Vec<_>>(), *expected, "{at}: lost backends");
    }
}

fn run(path: &Path) {
    let scenario: Scenario = serde_yaml_ng::from_str(&fs::read_to_string(path).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let context = context(&scenario);
    let balancer = LoadBalancer::new(context.clone());
    let mut run = Run { balancer, context, shadow: Shadow::default(), objects: BTreeMap::new() };
    for (index, step) in scenario.steps.iter().enumerate() {
        let at = format!("{} step {}", path.display(), index + 1);
        let before: BTreeMap<FrontendKey, SetId> =
            run.balancer.frontends().iter().map(|(key, frontend)| (*key, frontend.set)).collect();
        step.apply.iter().for_each(|object| run.apply(object));
        step.delete.iter().for_each(|what| run.delete(what));
        if let Some(zone) = &step.zone {
            run.context.zone = Some(zone.clone());
            run.balancer.set_context(run.context.clone());
        }
        if step.restart {
            run.restart();
            for (key, frontend) in run.balancer.frontends() {
                assert_eq!(before.get(key), Some(&frontend.set), "{at}: {} changed its set", key.address);
            }
        }
        if !step.restart {
            run.refresh();
        }
        check(&at, &run, step);
    }
}

#[test]
fn every_scenario_ends_as_it_states() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 30, "scenario files are missing");
    files.iter().for_each(|path| run(path));
}
