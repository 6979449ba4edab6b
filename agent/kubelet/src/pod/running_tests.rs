//! What the plan of a running pod is to be, scene by scene.

use serde_json::json;

use super::{
    memory::{ProbeFailure, ProbeState, StartFailure},
    plan::{Command, OpKey},
    scene::{Scene, at},
    view::RunState,
};

fn two() -> serde_json::Value {
    json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]})
}

#[test]
fn volumes_come_first_then_the_sandbox_then_containers_one_by_one() {
    let mut scene = Scene::new(two());
    scene.memory.volumes_ready = false;
    assert_eq!(scene.plan().commands, [Command::PrepareVolumes]);
    scene.memory.volumes_ready = true;
    assert_eq!(scene.plan().commands, [Command::CreateSandbox { attempt: 0, stale: vec![] }]);
    let scene = scene.sandbox("s");
    assert_eq!(scene.starts(), ["a"]);
    let scene = scene.running("a");
    assert_eq!(scene.starts(), ["b"]);
    assert!(scene.running("b").plan().commands.is_empty());
}

#[test]
fn commands_in_flight_are_not_given_again() {
    let scene = Scene::new(two()).busy(OpKey::Sandbox, None);
    assert!(scene.plan().commands.is_empty());
    let scene = Scene::new(two()).sandbox("s").busy(OpKey::Start("a".into()), None);
    assert!(scene.plan().commands.is_empty());
}

#[test]
fn only_host_network_pods_start_without_a_network() {
    let mut scene = Scene::new(two());
    scene.network_ready = false;
    assert!(scene.plan().commands.is_empty());
    let mut scene = Scene::new(json!({"hostNetwork": true, "containers": [{"name": "a"}]}));
    scene.network_ready = false;
    assert_eq!(scene.plan().commands.len(), 1);
}

#[test]
fn init_containers_run_one_after_the_other_before_the_rest() {
    let spec = json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]});
    let scene = Scene::new(spec).sandbox("s");
    assert_eq!(scene.starts(), ["i"]);
    let scene = scene.exited("i", 0);
    assert_eq!(scene.starts(), ["j"]);
    let scene = scene.running("j");
    assert!(scene.starts().is_empty());
    let mut scene = scene;
    scene.view.containers.retain(|c| c.name != "j");
    assert_eq!(scene.exited("j", 0).starts(), ["a"]);
}

#[test]
fn sidecars_hold_the_rest_back_until_they_are_started() {
    let spec = json!({"initContainers": [{"name": "s", "restartPolicy": "Always",
        "startupProbe": {"tcpSocket": {"port": 80}}}], "containers": [{"name": "a"}]});
    let mut scene = Scene::new(spec).sandbox("x").running("s");
    assert!(scene.starts().is_empty());
    scene.memory.probes.insert("s-0".into(), ProbeState { started: true, ..ProbeState::default() });
    assert_eq!(scene.starts(), ["a"]);
    let scene = scene.running("a").exited("s", 0);
    assert_eq!(scene.starts(), ["s"], "a sidecar that ends is started again");
}

#[test]
fn the_crash_loop_holds_the_second_restart_back() {
    let mut scene = Scene::new(json!({"containers": [{"name": "a"}]})).sandbox("s").exited("a", 1);
    assert_eq!(scene.starts(), ["a"]);
    scene.memory.container("a").crash.advance(at(980), at(985));
    scene.now = at(999);
    assert!(scene.plan().commands.is_empty());
    assert_eq!(scene.plan().wake, Some(at(1000)), "ten seconds after its end");
    scene.now = at(1000);
    assert_eq!(scene.starts(), ["a"]);
}

#[test]
fn a_failed_start_is_tried_again_when_due() {
    let mut scene = Scene::new(json!({"containers": [{"name": "a"}, {"name": "b"}]})).sandbox("s");
    scene.memory.container("a").failure = Some(StartFailure {
        reason: "CreateContainerConfigError".into(),
        message: String::new(),
        at: at(995),
        due: at(1005),
    });
    assert_eq!(scene.starts(), ["b"], "the others go on");
    scene.now = at(1005);
    assert_eq!(scene.starts(), ["a"]);
}

#[test]
fn a_container_that_was_never_started_is_replaced_under_its_number() {
    let scene =
        Scene::new(json!({"containers": [{"name": "a"}]})).sandbox("s").container("a", RunState::Created, 0);
    let expected = Command::StartContainer {
        name: "a".into(),
        attempt: 0,
        sandbox: "s".into(),
        remove: Some("a-0".into()),
    };
    assert_eq!(scene.plan().commands, [expected]);
}

#[test]
fn a_lost_sandbox_takes_its_containers_with_it_first() {
    let scene = Scene::new(two()).any_sandbox("s", false).running("a");
    assert_eq!(scene.stops(), [("a-0".to_owned(), 30)]);
    let mut scene = scene;
    scene.view.containers[0].state = RunState::Exited;
    assert_eq!(scene.plan().commands, [Command::CreateSandbox { attempt: 1, stale: vec!["s".into()] }]);
}

#[test]
fn a_container_that_ended_for_good_does_not_come_back_in_a_new_sandbox() {
    let spec = json!({"restartPolicy": "OnFailure", "containers": [{"name": "a"}, {"name": "b"}]});
    let scene = Scene::new(spec).any_sandbox("s", false).exited("a", 0).sandbox("t");
    assert_eq!(scene.starts(), ["b"]);
}

#[test]
fn restarts_count_on_after_the_runtime_forgot_them() {
    let mut scene = Scene::new(json!({"containers": [{"name": "a"}]})).sandbox("s");
    scene.memory.container("a").floor = 4;
    assert!(matches!(&scene.plan().commands[..], [Command::StartContainer { attempt: 4, .. }]));
}

#[test]
fn a_failed_liveness_probe_restarts_the_container() {
    let mut scene = Scene::new(json!({"containers": [{"name": "a"}]})).sandbox("s").running("a");
    let failed = Some(ProbeFailure { kind: "liveness", grace: Some(3) });
    scene.memory.probes.insert("a-0".into(), ProbeState { failed, ..ProbeState::default() });
    assert_eq!(scene.stops(), [("a-0".to_owned(), 3)]);
}

#[test]
fn a_changed_image_replaces_the_container() {
    let mut scene =
        Scene::new(json!({"containers": [{"name": "a", "image": "new"}]})).sandbox("s").running("a");
    scene.view.containers[0].hash = "old".into();
    assert_eq!(scene.stops(), [("a-0".to_owned(), 30)]);
    scene.view.containers[0].hash = scene.model.units[0].hash.clone();
    assert!(scene.plan().commands.is_empty());
}

#[test]
fn the_deadline_fails_the_pod() {
    let mut scene = Scene::new(json!({"activeDeadlineSeconds": 10, "containers": [{"name": "a"}]}))
        .sandbox("s")
        .running("a");
    assert_eq!(scene.plan().wake, Some(at(1010)));
    scene.now = at(1010);
    assert!(matches!(&scene.plan().commands[..], [Command::Fail(v)] if v.reason == "DeadlineExceeded"));
}

#[test]
fn projected_files_are_read_again_in_time() {
    let mut scene = Scene::new(json!({"containers": [{"name": "a"}]})).sandbox("s").running("a");
    scene.memory.refresh_at = Some(at(1010));
    assert_eq!(scene.plan().wake, Some(at(1010)));
    scene.now = at(1010);
    assert_eq!(scene.plan().commands, [Command::RefreshVolumes]);
}
