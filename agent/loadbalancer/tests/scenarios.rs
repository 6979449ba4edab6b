//! Runs every file of `testdata/`: steps of objects in, tables out.
//!
//! A file names the node and lists steps. A step may `apply` objects, `delete` them (kind and namespace/name), or
//! `restart` the load balancer (numbers are adopted, objects come again in reverse order); then it states every
//! frontend and, if it wants, every DNS name.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use k8s_openapi::api::{core::v1, discovery::v1 as discovery};
use serde::Deserialize;
use skep_loadbalancer::{LoadBalancer, Service, Slice};
use skep_model::{DnsTarget, Frontend, FrontendId};

#[derive(Deserialize)]
struct Scenario {
    node: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    #[serde(default)]
    apply: Vec<serde_json::Value>,
    #[serde(default)]
    delete: Vec<String>,
    #[serde(default)]
    restart: bool,
    frontends: Vec<String>,
    names: Option<Vec<String>>,
}

struct Run {
    balancer: LoadBalancer,
    node: String,
    services: BTreeMap<String, Service>,
    slices: BTreeMap<String, Slice>,
}

impl Run {
    fn apply(&mut self, object: &serde_json::Value) {
        match object["kind"].as_str() {
            Some("Service") => {
                let object: v1::Service = serde_json::from_value(object.clone()).unwrap();
                let service = Service::try_from(&object).unwrap();
                self.services.insert(service.name.to_string(), service.clone());
                self.balancer.upsert_service(service);
            }
            Some("EndpointSlice") => {
                let object: discovery::EndpointSlice = serde_json::from_value(object.clone()).unwrap();
                let slice = Slice::try_from(&object).unwrap();
                self.slices.insert(slice.name.to_string(), slice.clone());
                self.balancer.upsert_slice(slice);
            }
            other => panic!("kind {other:?}"),
        }
    }

    fn delete(&mut self, what: &str) {
        let (kind, name) = what.split_once(' ').unwrap();
        match kind {
            "Service" => {
                self.services.remove(name).unwrap();
                self.balancer.remove_service(&name.parse().unwrap());
            }
            "EndpointSlice" => {
                self.slices.remove(name).unwrap();
                self.balancer.remove_slice(&name.parse().unwrap());
            }
            other => panic!("kind {other}"),
        }
    }

    fn restart(&mut self) {
        let numbers: Vec<_> = self.balancer.frontends().values().map(|f| (f.address, f.id)).collect();
        self.balancer = LoadBalancer::new(&self.node);
        self.balancer.adopt(numbers);
        self.slices.values().rev().for_each(|slice| self.balancer.upsert_slice(slice.clone()));
        self.services.values().rev().for_each(|service| self.balancer.upsert_service(service.clone()));
        self.balancer.refresh();
        self.balancer.settle();
    }

    fn numbers(&self) -> BTreeMap<String, FrontendId> {
        self.balancer.frontends().values().map(|f| (f.address.to_string(), f.id)).collect()
    }
}

fn show(frontend: &Frontend) -> String {
    let backends: Vec<String> = frontend
        .backends
        .iter()
        .map(|backend| std::net::SocketAddr::new(backend.ip, backend.port.get()).to_string())
        .collect();
    let affinity = frontend.affinity_seconds.map(|seconds| format!(" sticky {seconds}s")).unwrap_or_default();
    let text = format!(
        "{} {}:{}{affinity} -> {}",
        frontend.address,
        frontend.service,
        frontend.port_name,
        backends.join(" ")
    );
    text.trim_end().to_owned()
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

fn run(path: &Path) {
    let scenario: Scenario = serde_yaml_ng::from_str(&fs::read_to_string(path).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut run = Run {
        balancer: LoadBalancer::new(&scenario.node),
        node: scenario.node,
        services: BTreeMap::new(),
        slices: BTreeMap::new(),
    };
    for (index, step) in scenario.steps.into_iter().enumerate() {
        let at = format!("{} step {}", path.display(), index + 1);
        let before = run.numbers();
        step.apply.iter().for_each(|object| run.apply(object));
        step.delete.iter().for_each(|what| run.delete(what));
        if step.restart {
            run.balancer.refresh();
            run.restart();
        }
        run.balancer.refresh();
        let frontends: Vec<String> = run.balancer.frontends().values().map(show).collect();
        assert_eq!(frontends, step.frontends, "{at}: frontends");
        if let Some(expected) = step.names {
            let services = &run.balancer.names().services;
            let names: Vec<String> =
                services.iter().map(|(name, t)| show_name(&name.to_string(), t)).collect();
            assert_eq!(names, expected, "{at}: names");
        }
        for (address, id) in run.numbers() {
            assert!(
                before.get(&address).is_none_or(|known| *known == id),
                "{at}: {address} changed its number"
            );
        }
    }
}

#[test]
fn every_scenario_ends_as_it_states() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 7, "scenario files are missing");
    files.iter().for_each(|path| run(path));
}
