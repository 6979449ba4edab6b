//! The engine over fake tables: what is adopted, when pruning may begin, and when it stops.

use std::time::Duration;

use clap::Parser;
use skep_datapath::{
    BackendAddress, BackendSlot, Endpoint, FakeTable, Frontend, FrontendKey, MapTable, PeerKind,
};
use skep_loadbalancer::{Service, Slice};
use skep_model::{FrontendAddress, Port, Protocol};
use skep_routing::{Netlink, Uplink};
use skep_runtime::Readiness;
use tokio::{task::JoinHandle, time::timeout};

use super::*;
use crate::{
    api::{Change, SeenSlice},
    endpoints::Programs,
    facts::NodeFacts,
    options::Options,
    seen::{NodeSeen, NodeState},
};

struct NoPrograms;

impl Programs for NoPrograms {
    fn attach_pod(&self, _: u32) -> Result<(), skep_datapath::DatapathError> {
        Ok(())
    }

    fn detach_pod(&self, _: u32) -> Result<(), skep_datapath::DatapathError> {
        Ok(())
    }
}

/// An engine that runs, and everything around it.
struct Fixture {
    endpoints: Arc<FakeTable<IpAddr, Endpoint>>,
    ipcache: Arc<FakeTable<IpCidr, Peer>>,
    frontends: Arc<FakeTable<FrontendKey, Frontend>>,
    backends: Arc<FakeTable<BackendSlot, BackendAddress>>,
    readiness: Readiness,
    publication: watch::Receiver<Publication>,
    health: watch::Receiver<Health>,
    lost: mpsc::Receiver<Vec<Lost>>,
    reports: mpsc::Receiver<Vec<Report>>,
    questions: mpsc::Sender<Question>,
    events: mpsc::Sender<Event>,
    engine: Option<JoinHandle<Stop>>,
    _addresses: watch::Sender<BTreeSet<IpAddr>>,
    _state: tempfile::TempDir,
}

const OWN: &str = "10.244.0.0/24";

fn own() -> OwnNode {
    OwnNode::v4([10, 89, 0, 11].into(), OWN.parse().unwrap())
}

fn row_of(last: u8) -> FrontendKey {
    let port = Port::new(80).unwrap();
    FrontendKey::inside(FrontendAddress { ip: [10, 96, 0, last].into(), port, protocol: Protocol::Tcp })
}

fn frontend_address() -> FrontendKey {
    row_of(5)
}

fn stale_address() -> FrontendKey {
    row_of(66)
}

fn start() -> Fixture {
    let endpoints: Arc<FakeTable<IpAddr, Endpoint>> = Arc::default();
    let ipcache: Arc<FakeTable<IpCidr, Peer>> = Arc::default();
    let frontends: Arc<FakeTable<FrontendKey, Frontend>> = Arc::default();
    let backends: Arc<FakeTable<BackendSlot, BackendAddress>> = Arc::default();
    // What an earlier process left: a Service that lives, one that is gone, and a node that is gone.
    for (address, id) in [(frontend_address(), 7), (stale_address(), 8)] {
        frontends.update(&address, &Frontend::new(id, 1)).unwrap();
        let backend = BackendAddress { ip: [10, 244, 0, 2].into(), port: 8080 };
        backends.update(&BackendSlot { set: id, slot: 0 }, &backend).unwrap();
    }
    let gone = Peer::new(PeerKind::RemotePods([10, 89, 0, 99].into()));
    ipcache.update(&"10.244.99.0/24".parse().unwrap(), &gone).unwrap();

    let state = tempfile::tempdir().unwrap();
    let (netlink, _connection) = Netlink::open().unwrap();
    let ranges = |text: &str| text.parse().unwrap();
    let uplink = Uplink { name: "eth0".into(), index: 0, mtu: 1500, heeds_routers: false };
    let network = crate::network::network(own(), ranges("10.244.0.0/16"), ranges("10.96.0.0/16"), uplink);
    let own_ranges: Vec<_> = own().ranges().collect();
    let table = Arc::clone(&endpoints) as Arc<dyn MapTable<IpAddr, Endpoint>>;
    let attached =
        Endpoints::open(state.path(), netlink, network, &own_ranges, Arc::new(NoPrograms), &table).unwrap();
    let tables = Tables {
        endpoints: table,
        ipcache: Arc::clone(&ipcache) as _,
        frontends: Arc::clone(&frontends) as _,
        backends: Arc::clone(&backends) as _,
        maglev: Arc::<FakeTable<_, _>>::default(),
        sources: Arc::<FakeTable<_, _>>::default(),
    };
    let readiness = Readiness::default();
    let (publication, published) = watch::channel(Publication::default());
    let (summary, _) = watch::channel(Summary::default());
    let (health, health_source) = watch::channel(Health::default());
    let (lost, lost_source) = mpsc::channel(8);
    let (reports, reports_source) = mpsc::channel(8);
    let outputs = Outputs {
        feed: DnsFeed::new("test".into()),
        publication,
        summary,
        health,
        node_addresses: watch::channel(NodeAddresses::default()).0,
        lost,
        reports,
        latency: prometheus::Histogram::with_opts(prometheus::HistogramOpts::new("a", "b")).unwrap(),
        synced: readiness.token("synced"),
    };
    let node = Node {
        name: "node-1".parse().unwrap(),
        own: own(),
        given: Given { v4: true, ..Given::default() },
        balancing: Options::try_parse_from(["skep-agent", "--node-name", "node-1"]).unwrap().balancing,
        ranges: ClusterRanges::default(),
    };
    let engine = Engine::new(node, &tables, Arc::new(attached), outputs).unwrap();
    let (events, received) = mpsc::channel(QUEUE);
    let (addresses, addresses_source) = watch::channel(BTreeSet::new());
    let (questions, questions_source) = mpsc::channel(1);
    let inputs = Inputs { events: received, own_addresses: addresses_source, questions: questions_source };
    Fixture {
        endpoints,
        ipcache,
        frontends,
        backends,
        readiness,
        publication: published,
        health: health_source,
        lost: lost_source,
        reports: reports_source,
        questions,
        events,
        engine: Some(tokio::spawn(engine.run(inputs))),
        _addresses: addresses,
        _state: state,
    }
}

impl Fixture {
    async fn send(&self, event: Event) {
        self.events.send(event).await.unwrap();
    }

    /// Ends the engine, so that everything sent before has been taken in.
    async fn stop(&mut self) -> Stop {
        let (closed, _) = mpsc::channel(1);
        self.events = closed;
        let engine = self.engine.take().unwrap();
        timeout(Duration::from_secs(10), engine).await.unwrap().unwrap()
    }

    async fn send_services(&self) {
        let service: k8s_openapi::api::core::v1::Service = serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "a", "name": "web"},
            "spec": {"clusterIP": "10.96.0.5", "ports": [{"port": 80}]},
        }))
        .unwrap();
        let service = Service::try_from(&service).unwrap();
        self.send(Event::Service(Change::Replace(vec![(service.name.clone(), service)]))).await;
    }

    async fn send_slices(&self) {
        let slice: k8s_openapi::api::discovery::v1::EndpointSlice = serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "a", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.244.0.3"]}, {"addresses": ["10.244.1.3"]}],
        }))
        .unwrap();
        let slice = Slice::try_from(&slice).unwrap();
        self.send(Event::Slice(Change::Replace(vec![(
            slice.name.clone(),
            SeenSlice { slice, since: SystemTime::now() },
        )])))
        .await;
    }

    async fn send_nodes(&self) {
        let facts = |n: u8| NodeFacts {
            created: i64::from(n),
            addresses: vec![[10, 89, 0, 10 + n].into()],
            ranges: vec![format!("10.244.{}.0/24", n - 1).parse().unwrap()],
        };
        let seen = |n| NodeSeen { facts: facts(n), state: NodeState::default() };
        let nodes = vec![("node-1".into(), seen(1)), ("node-2".into(), seen(2))];
        self.send(Event::Node(Change::Replace(nodes))).await;
        self.send(Event::Pod(Change::Replace(vec![]))).await;
    }
}

#[tokio::test]
async fn half_of_the_lists_prunes_nothing_and_takes_no_backend_away() {
    let mut fixture = start();
    fixture.send_services().await;
    assert_eq!(fixture.stop().await, Stop::Drained);
    assert_eq!(fixture.frontends.rows().len(), 2);
    assert_eq!(fixture.frontends.rows()[&frontend_address()], Frontend::new(7, 1));
    assert_eq!(fixture.backends.rows().len(), 2);
    assert!(fixture.ipcache.rows().contains_key(&"10.244.99.0/24".parse().unwrap()));
    assert!(fixture.ipcache.rows().contains_key(&OWN.parse().unwrap()));
    assert!(!fixture.readiness.is_ready());
}

#[tokio::test]
async fn full_lists_adopt_numbers_prune_leftovers_and_make_the_node_ready() {
    let mut fixture = start();
    fixture.send_slices().await;
    fixture.send_nodes().await;
    fixture.send_services().await;
    timeout(Duration::from_secs(10), fixture.readiness.ready()).await.unwrap();
    assert_eq!(fixture.frontends.rows(), [(frontend_address(), Frontend::new(7, 2))].into());
    assert!(fixture.backends.rows().keys().all(|slot| slot.set == 7));
    assert_eq!(fixture.backends.rows().len(), 2);
    let peers = fixture.ipcache.rows();
    assert!(!peers.contains_key(&"10.244.99.0/24".parse().unwrap()));
    let far = peers[&"10.244.1.0/24".parse().unwrap()];
    assert_eq!(far.kind, PeerKind::RemotePods([10, 89, 0, 12].into()));
    assert_eq!(fixture.publication.borrow().spec.pod_cidrs, [OWN]);
    assert!(fixture.endpoints.rows().is_empty());
    fixture.stop().await;
}

#[tokio::test]
async fn a_new_range_of_the_own_node_ends_the_engine() {
    let mut fixture = start();
    let facts = NodeFacts {
        created: 0,
        addresses: own().addresses().collect(),
        ranges: vec!["10.244.7.0/24".parse().unwrap()],
    };
    let seen = NodeSeen { facts, state: NodeState::default() };
    fixture.send(Event::Node(Change::Upsert("node-1".into(), seen))).await;
    assert_eq!(fixture.stop().await, Stop::OwnNodeChanged);
}

#[tokio::test]
async fn what_follows_from_services_is_told_to_those_who_wait_for_it() {
    let mut fixture = start();
    let service: k8s_openapi::api::core::v1::Service = serde_json::from_value(serde_json::json!({
        "metadata": {"namespace": "a", "name": "web"},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.5", "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 30100, "externalIPs": ["192.0.2.1"], "ports": [{"port": 80}]},
    }))
    .unwrap();
    let service = Service::try_from(&service).unwrap();
    fixture.send(Event::Service(Change::Replace(vec![(service.name.clone(), service)]))).await;
    fixture.send_slices().await;
    fixture.send_nodes().await;
    timeout(Duration::from_secs(10), fixture.readiness.ready()).await.unwrap();
    let report = fixture.reports.recv().await.unwrap();
    assert_eq!(report[0].problem.reason(), "ExternalIPIgnored");
    fixture.health.wait_for(|health| health.is_synced && health.checks.len() == 1).await.unwrap();
    let lost = fixture.lost.recv().await.unwrap();
    assert!(lost.iter().all(|lost| lost.backend.ip == IpAddr::from([10, 244, 0, 2])), "{lost:?}");
    let (answer, answered) = tokio::sync::oneshot::channel();
    let question: Question = Box::new(move |cluster| {
        let _ = answer.send(cluster.balancer().frontends().len());
    });
    fixture.questions.send(question).await.unwrap();
    assert_eq!(answered.await, Ok(1));
    fixture.stop().await;
}
