//! What a Deployment needs: sets to create, change or delete, its revision and its status.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet};
use kube::ResourceExt;

use super::revision::{self, REVISION, annotate_new, annotate_size};
use super::rolling::{self, Bounds};
use super::scale;
use super::status;
use super::template::{self, available, replicas};

/// A change to a set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    /// Create the set of the newest template.
    Create(Box<ReplicaSet>),
    /// Replace a set's spec and annotations; `from` is the size before.
    Update {
        /// The set as it should be, with the resourceVersion it was planned from.
        set: Box<ReplicaSet>,
        /// Replicas before.
        from: i32,
    },
    /// Delete a set that history no longer keeps.
    Delete {
        /// Name.
        name: String,
        /// Uid.
        uid: String,
    },
}

/// All that follows from one look at a Deployment.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Changes to sets, in order.
    pub(crate) commands: Vec<Command>,
    /// The Deployment's revision annotation, if it has to change.
    pub(crate) revision: Option<String>,
    /// Its status.
    pub(crate) status: DeploymentStatus,
    /// When the progress deadline passes.
    pub(crate) again: Option<Duration>,
}

/// Plans `deployment` with the sets it owns. `old_pods_run` says whether pods of older sets are still there (Recreate
/// waits for them).
pub(crate) fn plan(
    deployment: &Deployment,
    sets: &[ReplicaSet],
    old_pods_run: bool,
    now: Timestamp,
) -> Result<Plan, serde_json::Error> {
    let spec = deployment.spec.clone().unwrap_or_default();
    let bounds = Bounds::of(&spec);
    let mut work = Work::new(deployment, &spec, bounds, sets);
    if deployment.metadata.deletion_timestamp.is_none() {
        if spec.paused == Some(true) || scale::is_resized(bounds, work.current.iter()) {
            work.annotate()?;
            work.resize();
        } else {
            work.roll(old_pods_run)?;
        }
    }
    work.finish(now)
}

/// The sets as they were and as they should become.
struct Work<'a> {
    deployment: &'a Deployment,
    spec: &'a DeploymentSpec,
    bounds: Bounds,
    original: &'a [ReplicaSet],
    current: Vec<ReplicaSet>,
    new: Option<usize>,
    created: bool,
}

impl<'a> Work<'a> {
    fn new(
        deployment: &'a Deployment,
        spec: &'a DeploymentSpec,
        bounds: Bounds,
        sets: &'a [ReplicaSet],
    ) -> Self {
        let found = template::find_new(deployment, sets).map(ResourceExt::name_any);
        let new = found.and_then(|name| sets.iter().position(|set| set.name_any() == name));
        Self { deployment, spec, bounds, original: sets, current: sets.to_vec(), new, created: false }
    }

    fn old(&self) -> Vec<usize> {
        let mut old: Vec<usize> = (0..self.current.len()).filter(|index| Some(*index) != self.new).collect();
        old.sort_by_key(|index| self.current[*index].metadata.creation_timestamp.as_ref().map(|time| time.0));
        old
    }

    /// Brings revision and annotations of the new set up to date, if there is one.
    fn annotate(&mut self) -> Result<(), serde_json::Error> {
        let number = revision::next(self.old().iter().map(|index| &self.current[*index]));
        if let Some(new) = self.new {
            annotate_new(self.deployment, &mut self.current[new], number, true);
            if let Some(spec) = self.current[new].spec.as_mut() {
                spec.min_ready_seconds = self.spec.min_ready_seconds;
            }
        }
        Ok(())
    }

    /// The new set, made if need be.
    fn ensure_new(&mut self) -> Result<usize, serde_json::Error> {
        self.annotate()?;
        if let Some(new) = self.new {
            return Ok(new);
        }
        let mut set = template::make(self.deployment, self.spec)?;
        let number = revision::next(self.current.iter());
        annotate_new(self.deployment, &mut set, number, false);
        annotate_size(&mut set, self.bounds.replicas, self.bounds.maximum());
        let total: i32 = self.current.iter().map(replicas).sum();
        let size = rolling::new_size(self.bounds, 0, total);
        if let Some(spec) = set.spec.as_mut() {
            spec.replicas = Some(size);
        }
        self.current.push(set);
        self.created = true;
        let new = self.current.len() - 1;
        self.new = Some(new);
        Ok(new)
    }

    fn resize(&mut self) {
        let sets: Vec<&ReplicaSet> = self.current.iter().collect();
        let sizes = scale::resize(self.deployment, self.bounds, &sets, self.new);
        for (index, size) in sizes.into_iter().enumerate() {
            let running = replicas(&self.current[index]) > 0 || size > 0;
            self.set_size(index, size, running);
        }
    }

    fn roll(&mut self, old_pods_run: bool) -> Result<(), serde_json::Error> {
        if self.bounds.recreate {
            let old = self.old();
            let running = old.iter().any(|index| replicas(&self.current[*index]) > 0);
            for index in old {
                self.set_size(index, 0, false);
            }
            if running || old_pods_run {
                return self.annotate();
            }
            let new = self.ensure_new()?;
            self.set_size(new, self.bounds.replicas, false);
        } else {
            let new = self.ensure_new()?;
            let old = self.old();
            let sets: Vec<&ReplicaSet> = old.iter().map(|index| &self.current[*index]).collect();
            let (size, sizes) = rolling::step(self.bounds, &self.current[new], &sets);
            self.set_size(new, size, false);
            for (index, size) in old.into_iter().zip(sizes) {
                self.set_size(index, size, false);
            }
        }
        Ok(())
    }

    /// Resizes a set; `always` notes the Deployment's size on it even when its own does not change.
    fn set_size(&mut self, index: usize, size: i32, always: bool) {
        let set = &mut self.current[index];
        if size != replicas(set) || always {
            annotate_size(set, self.bounds.replicas, self.bounds.maximum());
        }
        if let Some(spec) = set.spec.as_mut() {
            spec.replicas = Some(size);
        }
    }

    fn finish(self, now: Timestamp) -> Result<Plan, serde_json::Error> {
        let new_original = self.new.and_then(|new| self.original.get(new));
        let old: Vec<&ReplicaSet> =
            self.old().into_iter().filter_map(|index| self.original.get(index)).collect();
        let sets: Vec<&ReplicaSet> = self.original.iter().collect();
        let mut status = status::counts(self.deployment, &sets, new_original);
        status::set_paused(&mut status, self.spec, now);
        let new_current = self.new.map(|new| &self.current[new]);
        let again =
            status::set_progress(&mut status, self.deployment, self.spec, new_current, self.created, now);
        status::set_available(&mut status, self.bounds, now);
        status::set_replica_failure(&mut status, new_original, &old, now);
        let mut commands = self.changes();
        if status::is_complete(self.spec, &status) && self.spec.paused != Some(true) && !self.created {
            commands.extend(self.expired(&old));
        }
        let revision = new_current.and_then(|set| set.annotations().get(REVISION).cloned());
        let revision = revision.filter(|number| self.deployment.annotations().get(REVISION) != Some(number));
        Ok(Plan { commands, revision, status, again })
    }

    fn changes(&self) -> Vec<Command> {
        let mut commands = Vec::new();
        for (index, set) in self.current.iter().enumerate() {
            match self.original.get(index) {
                None => commands.push(Command::Create(Box::new(set.clone()))),
                Some(before) if before != set => {
                    commands.push(Command::Update { set: Box::new(set.clone()), from: replicas(before) });
                }
                Some(_) => {}
            }
        }
        commands
    }

    /// Empty old sets beyond the history limit, oldest revisions first.
    fn expired(&self, old: &[&ReplicaSet]) -> Vec<Command> {
        let limit = usize::try_from(self.spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
        let surplus = old.len().saturating_sub(limit);
        let mut sets: Vec<&&ReplicaSet> = old.iter().collect();
        sets.sort_by_key(|set| revision::revision(**set));
        let idle = |set: &&&ReplicaSet| {
            let status = set.status.clone().unwrap_or_default();
            replicas(set) == 0
                && status.replicas == 0
                && available(set) == 0
                && set.metadata.generation <= status.observed_generation
                && set.metadata.deletion_timestamp.is_none()
        };
        let expired = sets.into_iter().take(surplus).filter(idle);
        expired
            .map(|set| Command::Delete { name: set.name_any(), uid: set.uid().unwrap_or_default() })
            .collect()
    }
}

#[cfg(test)]
mod tests;
