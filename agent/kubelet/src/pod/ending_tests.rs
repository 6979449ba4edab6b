//! What the plan of an ending pod is to be, scene by scene.

use serde_json::json;

use super::{
    ending::{self, Cause},
    memory::{TornDown, Verdict},
    plan::{Command, OpKey},
    scene::{Scene, at},
    view::RunState,
};

fn deleted(grace: i64, spec: serde_json::Value) -> Scene {
    let end = at(1000 + grace).to_string();
    Scene::with_metadata(json!({"deletionTimestamp": end, "deletionGracePeriodSeconds": grace}), spec)
}

fn one() -> serde_json::Value {
    json!({"containers": [{"name": "a"}]})
}

#[test]
fn a_deleted_pod_is_stopped_frozen_torn_down_and_reported() {
    let mut scene = deleted(5, one()).sandbox("s").running("a");
    assert_eq!(scene.stops(), [("a-0".to_owned(), 5)]);
    scene.view.containers[0].state = RunState::Exited;
    assert_eq!(scene.plan().commands, [Command::Freeze]);
    scene.memory.last_status = Some(scene.status());
    assert_eq!(scene.plan().commands, [Command::Teardown { remove: true }]);
    scene.memory.torn = TornDown::Removed;
    assert_eq!(scene.plan().commands, [Command::Finalize]);
    scene.memory.finalized = true;
    assert_eq!(scene.plan().commands, [Command::Forget]);
}

#[test]
fn a_kubelet_that_comes_late_grants_what_is_left() {
    let mut scene = deleted(30, one()).sandbox("s").running("a");
    scene.now = at(1020);
    assert_eq!(scene.stops(), [("a-0".to_owned(), 10)]);
    scene.now = at(2000);
    assert_eq!(scene.stops(), [("a-0".to_owned(), 1)]);
}

#[test]
fn a_shorter_grace_replaces_a_stop_in_flight() {
    let scene = deleted(1, one()).sandbox("s").running("a").busy(OpKey::Stop("a-0".into()), Some(30));
    assert!(scene.plan().commands.contains(&Command::Abort(OpKey::Stop("a-0".into()))));
    assert_eq!(scene.stops(), [("a-0".to_owned(), 1)]);
    let scene = deleted(30, one()).sandbox("s").running("a").busy(OpKey::Stop("a-0".into()), Some(30));
    assert!(scene.plan().commands.is_empty());
}

#[test]
fn starts_are_given_up() {
    let scene = deleted(5, one()).sandbox("s").busy(OpKey::Start("a".into()), None);
    assert_eq!(scene.plan().commands[0], Command::Abort(OpKey::Start("a".into())));
}

#[test]
fn sidecars_are_stopped_last_and_in_reverse() {
    let spec = json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "t", "restartPolicy": "Always"}],
        "containers": [{"name": "a"}, {"name": "b"}]});
    let mut scene = deleted(5, spec).sandbox("x").running("s").running("t").running("a").running("b");
    let ids = |scene: &Scene| {
        let mut ids: Vec<_> = scene.stops().into_iter().map(|(id, _)| id).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&scene), ["a-0", "b-0"]);
    scene.view.containers.retain(|c| c.name != "a" && c.name != "b");
    assert_eq!(ids(&scene), ["t-0"]);
    scene.view.containers.retain(|c| c.name != "t");
    assert_eq!(ids(&scene), ["s-0"]);
}

#[test]
fn a_pod_that_has_run_its_course_keeps_its_containers_for_their_logs() {
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "a"}]});
    let mut scene = Scene::new(spec).sandbox("s").exited("a", 0);
    assert_eq!(ending::cause(&scene.input()), Some(Cause::Completed));
    scene.memory.last_status = Some(scene.status());
    assert_eq!(scene.plan().commands, [Command::Teardown { remove: false }]);
    scene.memory.torn = TornDown::Stopped;
    assert!(scene.plan().commands.is_empty());
}

#[test]
fn a_verdict_stops_what_still_runs() {
    let mut scene = Scene::new(one()).sandbox("s").running("a");
    scene.memory.verdict = Some(Verdict { reason: "Evicted".into(), message: String::new() });
    assert_eq!(scene.stops(), [("a-0".to_owned(), 30)]);
    assert_eq!(scene.status().phase.as_deref(), Some("Failed"));
    assert_eq!(scene.status().reason.as_deref(), Some("Evicted"));
}

#[test]
fn an_orphan_is_removed_without_telling_anybody() {
    let mut scene = Scene::new(json!({"containers": []})).sandbox("s");
    scene.gone = true;
    scene.memory.torn = TornDown::Removed;
    scene.memory.last_status = Some(scene.status());
    assert_eq!(scene.plan().commands, [Command::Forget]);
}

#[test]
fn a_failed_clean_up_is_tried_again_later() {
    let mut scene = deleted(5, one());
    scene.memory.last_status = Some(scene.status());
    scene.memory.teardown.fail(at(1000), ending::LONGEST_RETRY);
    let plan = scene.plan();
    assert!(plan.commands.is_empty());
    assert_eq!(plan.wake, Some(at(1001)));
}
