//! The engine over fake tables: what is adopted, when pruning may begin, and when it stops.

use std::time::Duration;

use skep_datapath::{BackendAddress, BackendSlot, Endpoint, FakeTable, Frontend, MapTable, PeerKind};
use skep_loadbalancer::{Service, Slice};
use skep_model::{FrontendAddress, Port, Protocol};
use skep_routing::{Netlink, NodeNetwork};
use skep_runtime::Readiness;
use tokio::{task::JoinHandle, time::timeout};

use super::*;
use crate::{api::Change, endpoints::Programs, facts::NodeFacts};

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
    frontends: Arc<FakeTable<FrontendAddress, Frontend>>,
    backends: Arc<FakeTable<BackendSlot, BackendAddress>>,
    readiness: Readiness,
    publication: watch::Receiver<Publication>,
    events: mpsc::Sender<Event>,
    engine: Option<JoinHandle<Stop>>,
    _addresses: watch::Sender<BTreeSet<IpAddr>>,
    _state: tempfile::TempDir,
}

const OWN: &str = "10.244.0.0/24";

fn own() -> OwnNode {
    OwnNode { node_ip: [10, 89, 0, 11].into(), range: OWN.parse().unwrap() }
}

fn frontend_address() -> FrontendAddress {
    FrontendAddress { ip: [10, 96, 0, 5].into(), port: Port::new(80).unwrap(), protocol: Protocol::Tcp }
}

fn stale_address() -> FrontendAddress {
    FrontendAddress { ip: [10, 96, 0, 66].into(), ..frontend_address() }
}

fn start() -> Fixture {
    let endpoints: Arc<FakeTable<IpAddr, Endpoint>> = Arc::default();
    let ipcache: Arc<FakeTable<IpCidr, Peer>> = Arc::default();
    let frontends: Arc<FakeTable<FrontendAddress, Frontend>> = Arc::default();
    let backends: Arc<FakeTable<BackendSlot, BackendAddress>> = Arc::default();
    // What an earlier process left: a Service that lives, one that is gone, and a node that is gone.
    for (address, id) in [(frontend_address(), 7), (stale_address(), 8)] {
        frontends.update(&address, &Frontend { id, count: 1 }).unwrap();
        let backend = BackendAddress { ip: [10, 244, 0, 2].into(), port: 8080 };
        backends.update(&BackendSlot { frontend: id, slot: 0 }, &backend).unwrap();
    }
    let gone = Peer::new(PeerKind::RemotePods([10, 89, 0, 99].into()));
    ipcache.update(&"10.244.99.0/24".parse().unwrap(), &gone).unwrap();

    let state = tempfile::tempdir().unwrap();
    let (netlink, _connection) = Netlink::open().unwrap();
    let network = NodeNetwork {
        node_ip: own().node_ip,
        gateway: own().gateway().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        uplink_mtu: 1500,
    };
    let table = Arc::clone(&endpoints) as Arc<dyn MapTable<IpAddr, Endpoint>>;
    let attached =
        Endpoints::open(state.path(), netlink, network, own().range, Arc::new(NoPrograms), &table).unwrap();
    let tables = Tables {
        endpoints: table,
        ipcache: Arc::clone(&ipcache) as _,
        frontends: Arc::clone(&frontends) as _,
        backends: Arc::clone(&backends) as _,
    };
    let readiness = Readiness::default();
    let (publication, published) = watch::channel(Publication::default());
    let (summary, _) = watch::channel(Summary::default());
    let outputs = Outputs {
        feed: DnsFeed::new("test".into()),
        publication,
        summary,
        synced: readiness.token("synced"),
    };
    let name = "node-1".parse().unwrap();
    let engine = Engine::new(name, own(), None, &tables, Arc::new(attached), outputs).unwrap();
    let (events, received) = mpsc::channel(QUEUE);
    let (addresses, addresses_source) = watch::channel(BTreeSet::new());
    Fixture {
        endpoints,
        ipcache,
        frontends,
        backends,
        readiness,
        publication: published,
        events,
        engine: Some(tokio::spawn(engine.run(received, addresses_source))),
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
        self.send(Event::Slice(Change::Replace(vec![(slice.name.clone(), slice)]))).await;
    }

    async fn send_nodes(&self) {
        let facts = |n: u8| NodeFacts {
            created: i64::from(n),
            addresses: vec![[10, 89, 0, 10 + n].into()],
            ranges: vec![format!("10.244.{}.0/24", n - 1).parse().unwrap()],
        };
        let nodes = vec![("node-1".into(), facts(1)), ("node-2".into(), facts(2))];
        self.send(Event::Node(Change::Replace(nodes))).await;
    }
}

#[tokio::test]
async fn half_of_the_lists_prunes_nothing_and_takes_no_backend_away() {
    let mut fixture = start();
    fixture.send_services().await;
    assert_eq!(fixture.stop().await, Stop::Drained);
    assert_eq!(fixture.frontends.rows().len(), 2);
    assert_eq!(fixture.frontends.rows()[&frontend_address()], Frontend { id: 7, count: 1 });
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
    assert_eq!(fixture.frontends.rows(), [(frontend_address(), Frontend { id: 7, count: 2 })].into());
    assert!(fixture.backends.rows().keys().all(|slot| slot.frontend == 7));
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
        addresses: vec![own().node_ip.into()],
        ranges: vec!["10.244.7.0/24".parse().unwrap()],
    };
    fixture.send(Event::Node(Change::Upsert("node-1".into(), facts))).await;
    assert_eq!(fixture.stop().await, Stop::OwnNodeChanged);
}
