//! Rollouts played through: a model cluster obeys the commands and makes pods available one by one.

use k8s_openapi::api::apps::v1::{DeploymentStrategy, ReplicaSetStatus, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;

use super::*;

/// A cluster with one deployment whose sets obey at once and whose pods become available when told.
struct Model {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    clock: i64,
}

impl Model {
    fn new(replicas: i32, surge: i32, unavailable: i32) -> Self {
        let mut deployment = Deployment::default();
        deployment.metadata.name = Some("web".into());
        deployment.metadata.namespace = Some("ns".into());
        deployment.metadata.generation = Some(1);
        deployment.spec = Some(DeploymentSpec {
            replicas: Some(replicas),
            progress_deadline_seconds: Some(600),
            revision_history_limit: Some(2),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(surge)),
                    max_unavailable: Some(IntOrString::Int(unavailable)),
                }),
            }),
            ..DeploymentSpec::default()
        });
        let mut model = Self { deployment, sets: Vec::new(), clock: 0 };
        model.set_image("v1");
        model
    }

    fn spec(&mut self) -> &mut DeploymentSpec {
        self.deployment.spec.as_mut().unwrap()
    }

    fn set_image(&mut self, image: &str) {
        let container = Container { name: "c".into(), image: Some(image.into()), ..Container::default() };
        let pod = PodSpec { containers: vec![container], ..PodSpec::default() };
        self.spec().template = PodTemplateSpec { spec: Some(pod), ..PodTemplateSpec::default() };
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + self.clock).unwrap()
    }

    /// Plans once and obeys. Returns whether sets changed.
    fn turn(&mut self) -> bool {
        self.clock += 1;
        let plan = plan(&self.deployment, &self.sets, false, self.now()).unwrap();
        let changed = !plan.commands.is_empty();
        for command in plan.commands {
            match command {
                Command::Create(mut set) => {
                    set.metadata.creation_timestamp = Some(Time(self.now()));
                    set.metadata.uid = set.metadata.name.clone();
                    self.sets.push(*set);
                }
                Command::Update { set, .. } => {
                    let place = self.sets.iter_mut().find(|old| old.metadata.name == set.metadata.name);
                    *place.unwrap() = *set;
                }
                Command::Delete { name, .. } => self.sets.retain(|set| set.name_any() != name),
            }
        }
        if let Some(revision) = plan.revision {
            let annotations = self.deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(REVISION.into(), revision);
        }
        self.deployment.status = Some(plan.status);
        for set in &mut self.sets {
            let size = replicas(set);
            let status = set.status.get_or_insert_default();
            status.replicas = size;
            status.available_replicas = Some(status.available_replicas.unwrap_or(0).min(size));
            status.ready_replicas = status.available_replicas;
        }
        changed
    }

    /// One more pod of the set at `index` becomes available, if it has one that is not.
    fn ripen(&mut self, index: usize) {
        let count = self.sets.len().max(1);
        if let Some(set) = self.sets.get_mut(index % count) {
            let size = replicas(set);
            let status: &mut ReplicaSetStatus = set.status.get_or_insert_default();
            status.available_replicas = Some((status.available_replicas.unwrap_or(0) + 1).min(size));
            status.ready_replicas = status.available_replicas;
        }
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            while self.turn() {}
            for index in 0..self.sets.len() {
                self.ripen(index);
            }
        }
    }

    fn total(&self) -> i32 {
        self.sets.iter().map(replicas).sum()
    }

    fn serving(&self) -> i32 {
        self.sets.iter().map(available).sum()
    }

    fn revisions(&self) -> Vec<(i64, i32)> {
        let mut list: Vec<(i64, i32)> =
            self.sets.iter().map(|set| (revision::revision(set), replicas(set))).collect();
        list.sort_unstable();
        list
    }

    fn progressing(&self) -> (String, String) {
        let status = self.deployment.status.clone().unwrap();
        let condition = status.conditions.unwrap().into_iter().find(|c| c.type_ == "Progressing").unwrap();
        (condition.status, condition.reason.unwrap())
    }
}

#[test]
fn first_rollout_creates_one_set_and_completes() {
    let mut model = Model::new(3, 1, 0);
    model.turn();
    assert_eq!(model.revisions(), [(1, 3)]);
    assert_eq!(model.progressing().1, "NewReplicaSetCreated");
    model.settle();
    assert_eq!(model.progressing(), ("True".into(), "NewReplicaSetAvailable".into()));
    assert!(!model.turn(), "a finished rollout rests");
}

#[test]
fn undo_gives_the_old_set_a_new_revision() {
    let mut model = Model::new(2, 1, 0);
    model.settle();
    model.set_image("v2");
    model.settle();
    assert_eq!(model.revisions(), [(1, 0), (2, 2)]);
    model.set_image("v1");
    model.settle();
    assert_eq!(model.revisions(), [(2, 0), (3, 2)]);
    assert_eq!(model.deployment.annotations().get(REVISION).map(String::as_str), Some("3"));
}

#[test]
fn history_keeps_as_many_revisions_as_asked() {
    let mut model = Model::new(1, 1, 0);
    for image in ["v1", "v2", "v3", "v4", "v5"] {
        model.set_image(image);
        model.settle();
    }
    assert_eq!(model.revisions(), [(3, 0), (4, 0), (5, 1)]);
}

#[test]
fn paused_deployment_resizes_but_does_not_roll() {
    let mut model = Model::new(2, 1, 0);
    model.settle();
    model.spec().paused = Some(true);
    model.set_image("v2");
    model.spec().replicas = Some(5);
    model.settle();
    assert_eq!(model.revisions(), [(1, 5)]);
    assert_eq!(model.progressing().1, "DeploymentPaused");
    model.spec().paused = Some(false);
    model.settle();
    assert_eq!(model.revisions(), [(1, 0), (2, 5)]);
}

#[test]
fn recreate_waits_for_the_old_pods() {
    let mut model = Model::new(2, 0, 0);
    model.spec().strategy = Some(DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None });
    model.settle();
    model.set_image("v2");
    model.turn();
    assert_eq!(model.revisions(), [(1, 0)]);
    let waiting = plan(&model.deployment, &model.sets, true, model.now()).unwrap();
    assert!(waiting.commands.is_empty());
    model.settle();
    assert_eq!(model.revisions(), [(1, 0), (2, 2)]);
}

#[test]
fn stuck_rollout_exceeds_its_deadline() {
    let mut model = Model::new(2, 1, 0);
    model.settle();
    model.set_image("broken");
    while model.turn() {}
    model.clock += 590;
    model.turn();
    assert_eq!(model.progressing().0, "True");
    model.clock += 20;
    model.turn();
    assert_eq!(model.progressing(), ("False".into(), "ProgressDeadlineExceeded".into()));
}

#[test]
fn resize_in_the_middle_of_a_rollout_is_proportional() {
    let mut model = Model::new(10, 3, 2);
    model.settle();
    model.set_image("v2");
    while model.turn() {}
    let before = model.total();
    model.spec().replicas = Some(20);
    model.turn();
    assert_eq!(before, 13);
    assert_eq!(model.total(), 23);
    assert!(model.revisions().iter().all(|(_, size)| *size > 0));
}

proptest! {
    #[test]
    fn rollout_stays_within_its_bounds(
        replicas in 1i32..9,
        surge in 0i32..4,
        unavailable in 0i32..4,
        order in prop::collection::vec(0usize..4, 0..60),
    ) {
        let mut model = Model::new(replicas, surge, unavailable);
        model.settle();
        let bounds = Bounds::of(model.deployment.spec.as_ref().unwrap());
        for (step, index) in order.iter().enumerate() {
            if step % 20 == 0 {
                model.set_image(&format!("v{step}"));
            }
            model.turn();
            prop_assert!(model.total() <= bounds.maximum(), "{} pods", model.total());
            prop_assert!(model.serving() >= bounds.minimum(), "{} serving", model.serving());
            model.ripen(*index);
        }
        model.settle();
        prop_assert_eq!(model.total(), replicas);
        prop_assert_eq!(model.serving(), replicas);
    }
}
