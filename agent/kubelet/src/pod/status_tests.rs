//! What users are to see, scene by scene.

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use serde_json::json;

use super::{
    memory::{ProbeState, StartFailure},
    scene::{Scene, at},
    status,
};

fn one() -> serde_json::Value {
    json!({"containers": [{"name": "a", "image": "x"}]})
}

fn container(status: &PodStatus) -> ContainerStatus {
    status.container_statuses.as_ref().unwrap()[0].clone()
}

fn waiting(scene: &Scene) -> String {
    let waiting = container(&scene.status()).state.unwrap().waiting.unwrap();
    waiting.reason.unwrap()
}

fn holds(status: &PodStatus, kind: &str) -> bool {
    status::condition(status, kind).unwrap().status == "True"
}

#[test]
fn a_new_pod_is_pending_and_creating() {
    let scene = Scene::new(one());
    let status = scene.status();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting(&scene), "ContainerCreating");
    assert!(holds(&status, "PodScheduled") && !holds(&status, "PodReadyToStartContainers"));
    assert_eq!(status.host_ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
}

#[test]
fn a_running_pod_is_ready_and_has_its_address() {
    let status = Scene::new(one()).sandbox("s").running("a").status();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.0"));
    for kind in ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"] {
        assert!(holds(&status, kind), "{kind}");
    }
    let container = container(&status);
    assert!(container.ready && container.started == Some(true));
    assert_eq!(container.container_id.as_deref(), Some("containerd://a-0"));
}

#[test]
fn host_network_pods_have_the_nodes_address() {
    let spec = json!({"hostNetwork": true, "containers": [{"name": "a"}]});
    assert_eq!(Scene::new(spec).sandbox("s").running("a").status().pod_ip.as_deref(), Some("192.0.2.1"));
}

#[test]
fn a_pod_is_not_ready_until_its_probe_says_so() {
    let spec = json!({"containers": [{"name": "a", "readinessProbe": {"tcpSocket": {"port": 1}}}]});
    let mut scene = Scene::new(spec).sandbox("s").running("a");
    let status = scene.status();
    assert!(!holds(&status, "Ready"));
    let message = status::condition(&status, "Ready").unwrap().message.clone();
    assert_eq!(message.as_deref(), Some("containers with unready status: [a]"));
    scene.memory.probes.insert("a-0".into(), ProbeState { ready: true, ..ProbeState::default() });
    assert!(holds(&scene.status(), "Ready"));
}

#[test]
fn readiness_gates_wait_for_others_conditions() {
    let spec = json!({"readinessGates": [{"conditionType": "x/y"}], "containers": [{"name": "a"}]});
    let status = Scene::new(spec).sandbox("s").running("a").status();
    assert!(holds(&status, "ContainersReady") && !holds(&status, "Ready"));
}

#[test]
fn a_crash_loop_shows_its_name_and_the_last_end() {
    let mut scene = Scene::new(one()).sandbox("s").exited("a", 3);
    assert!(container(&scene.status()).state.unwrap().terminated.is_some());
    scene.memory.container("a").crash.advance(at(980), at(985));
    scene.now = at(995);
    assert_eq!(waiting(&scene), "CrashLoopBackOff");
    let status = scene.status();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let last = container(&status).last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
}

#[test]
fn a_pull_error_becomes_a_back_off() {
    let mut scene = Scene::new(one()).sandbox("s");
    let failure =
        StartFailure { reason: "ErrImagePull".into(), message: "no".into(), at: at(999), due: at(1009) };
    scene.memory.container("a").failure = Some(failure);
    assert_eq!(waiting(&scene), "ErrImagePull");
    scene.now = at(1005);
    assert_eq!(waiting(&scene), "ImagePullBackOff");
}

#[test]
fn main_containers_wait_for_initialisation() {
    let spec = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
    let scene = Scene::new(spec).sandbox("s").running("i");
    assert_eq!(waiting(&scene), "PodInitializing");
    let status = scene.status();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    let reason = status::condition(&status, "Initialized").unwrap().reason.clone();
    assert_eq!(reason.as_deref(), Some("ContainersNotInitialized"));
}

#[test]
fn the_end_of_a_pod_is_told_by_its_exits() {
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "a"}, {"name": "b"}]});
    let well = Scene::new(spec.clone()).sandbox("s").exited("a", 0).exited("b", 0).status();
    assert_eq!(well.phase.as_deref(), Some("Succeeded"));
    assert_eq!(status::condition(&well, "Ready").unwrap().reason.as_deref(), Some("PodCompleted"));
    let badly = Scene::new(spec).sandbox("s").exited("a", 0).exited("b", 1).status();
    assert_eq!(badly.phase.as_deref(), Some("Failed"));
}

#[test]
fn a_transition_time_stays_while_the_condition_does() {
    let mut scene = Scene::new(one()).sandbox("s").running("a");
    let first = scene.status();
    let mut pod = (*scene.model.pod).clone();
    pod.status = Some(first.clone());
    scene.model = super::model::PodModel::new(std::sync::Arc::new(pod));
    scene.now = at(5000);
    assert_eq!(scene.status().conditions, first.conditions);
    assert_eq!(scene.status().start_time, first.start_time);
}
