//! Slices as pods come, go and change.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, Node, Pod, PodCondition, PodSpec, PodStatus, ServicePort, ServiceSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::*;

fn service(target: IntOrString) -> Service {
    let mut service = Service::default();
    service.metadata.name = Some("web".into());
    service.metadata.namespace = Some("ns".into());
    let port = ServicePort { port: 80, target_port: Some(target), ..ServicePort::default() };
    service.spec = Some(ServiceSpec {
        cluster_ip: Some("10.96.0.7".into()),
        ports: Some(vec![port]),
        ..ServiceSpec::default()
    });
    service
}

fn pod(number: usize, ready: bool) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.name = Some(format!("p{number}"));
    pod.metadata.namespace = Some("ns".into());
    pod.metadata.uid = Some(format!("u{number}"));
    let port = ContainerPort { name: Some("http".into()), container_port: 8080, ..ContainerPort::default() };
    pod.spec = Some(PodSpec {
        node_name: Some("n1".into()),
        containers: vec![Container { ports: Some(vec![port]), ..Container::default() }],
        ..PodSpec::default()
    });
    let status = if ready { "True" } else { "False" };
    let condition = PodCondition { type_: "Ready".into(), status: status.into(), ..PodCondition::default() };
    pod.status = Some(PodStatus {
        phase: Some("Running".into()),
        pod_ip: Some(format!("10.244.{}.{}", number / 250, number % 250 + 1)),
        conditions: Some(vec![condition]),
        ..PodStatus::default()
    });
    pod
}

/// Plans and obeys: returns the number of writes and the slices afterwards.
fn turn(service: &Service, pods: &[Pod], slices: &[Arc<EndpointSlice>]) -> (usize, Vec<Arc<EndpointSlice>>) {
    let pods: Vec<Arc<Pod>> = pods.iter().cloned().map(Arc::new).collect();
    let nodes = HashMap::from([("n1".to_owned(), Arc::new(Node::default()))]);
    let commands = plan(&Backends { service, pods: &pods, nodes: &nodes }, slices);
    let writes = commands.len();
    let mut slices = slices.to_vec();
    for command in commands {
        match command {
            Command::Create(mut slice) => {
                slice.metadata.name = Some(format!("s{}", slices.len()));
                slices.push(Arc::new(*slice));
            }
            Command::Update(slice) => {
                let place = slices.iter_mut().find(|old| old.metadata.name == slice.metadata.name);
                *place.unwrap() = Arc::new(*slice);
            }
            Command::Delete(name) => slices.retain(|slice| slice.name_any() != name),
        }
    }
    (writes, slices)
}

fn counts(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
    slices.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).collect()
}

#[test]
fn service_without_pods_keeps_one_empty_slice() {
    let service = service(IntOrString::Int(8080));
    let (_, slices) = turn(&service, &[], &[]);
    assert_eq!(counts(&slices), [0]);
    assert_eq!(turn(&service, &[], &slices).0, 0);
    let (_, slices) = turn(&service, &[pod(1, true)], &slices);
    assert_eq!(counts(&slices), [1]);
}

#[test]
fn at_most_a_hundred_endpoints_a_slice_and_few_writes() {
    let service = service(IntOrString::String("http".into()));
    let mut pods: Vec<Pod> = (0..250).map(|number| pod(number, true)).collect();
    let (_, slices) = turn(&service, &pods, &[]);
    assert_eq!(counts(&slices), [100, 100, 50]);
    assert_eq!(slices[0].ports.as_ref().unwrap()[0].port, Some(8080));
    pods.push(pod(250, true));
    let (writes, slices) = turn(&service, &pods, &slices);
    assert_eq!((writes, counts(&slices)), (1, vec![100, 100, 51]));
    let first = slices[0].endpoints.as_ref().unwrap()[0].clone();
    pods.retain(|pod| pod.metadata.uid != first.target_ref.as_ref().unwrap().uid);
    let (writes, slices) = turn(&service, &pods, &slices);
    assert_eq!((writes, counts(&slices)), (1, vec![99, 100, 51]));
}

#[test]
fn conditions_tell_serving_from_terminating() {
    let service = service(IntOrString::Int(80));
    let mut leaving = pod(1, true);
    leaving.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    let (_, slices) = turn(&service, &[leaving, pod(2, false)], &[]);
    let conditions: Vec<_> = slices[0]
        .endpoints
        .iter()
        .flatten()
        .filter_map(|endpoint| endpoint.conditions.as_ref())
        .map(|conditions| (conditions.ready, conditions.serving, conditions.terminating))
        .collect();
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(conditions, [(no, yes, yes), (no, no, no)]);
}

#[test]
fn pod_on_an_unknown_node_waits_for_its_node() {
    let service = service(IntOrString::Int(80));
    let mut stranger = pod(1, true);
    stranger.spec.as_mut().unwrap().node_name = Some("gone".into());
    let (_, slices) = turn(&service, &[stranger], &[]);
    assert_eq!(counts(&slices), [0]);
}

#[test]
fn pods_with_other_port_numbers_get_slices_of_their_own() {
    let service = service(IntOrString::String("http".into()));
    let mut other = pod(2, true);
    other.spec.as_mut().unwrap().containers[0].ports.as_mut().unwrap()[0].container_port = 9090;
    let (_, slices) = turn(&service, &[pod(1, true), other], &[]);
    assert_eq!(counts(&slices), [1, 1]);
    let (_, slices) = turn(&service, &[pod(1, true)], &slices);
    assert_eq!(counts(&slices), [1]);
}

#[test]
fn headless_services_are_marked() {
    let mut service = service(IntOrString::Int(80));
    service.spec.as_mut().unwrap().cluster_ip = Some("None".into());
    let (_, slices) = turn(&service, &[], &[]);
    assert_eq!(slices[0].labels().get(HEADLESS).map(String::as_str), Some(""));
}

#[test]
fn traffic_distribution_becomes_hints_of_ready_endpoints_and_goes_with_it() {
    let mut preferring = service(IntOrString::Int(80));
    preferring.spec.as_mut().unwrap().traffic_distribution = Some("PreferSameNode".into());
    let hints = |slices: &[Arc<EndpointSlice>]| -> Vec<_> {
        slices[0].endpoints.iter().flatten().map(|endpoint| endpoint.hints.clone()).collect()
    };
    let pods = [pod(1, true), pod(2, false)];
    let (_, slices) = turn(&preferring, &pods, &[]);
    let mut found = hints(&slices);
    found.sort_by_key(Option::is_none);
    let nodes = found[0].clone().unwrap().for_nodes.unwrap();
    assert_eq!((nodes[0].name.as_str(), found[1].is_none()), ("n1", true));
    preferring.spec.as_mut().unwrap().traffic_distribution = Some("PreferSameZone".into());
    let (_, slices) = turn(&preferring, &pods, &slices);
    assert_eq!(hints(&slices), [None, None], "a node without a zone gives no hint");
}
