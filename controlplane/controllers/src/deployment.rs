//! Deployments: revisions of a pod template, each a ReplicaSet, and the way from one to the next.
//!
//! * `plan`: the order of decisions; * `rolling`: how replicas move within surge and unavailability bounds;
//! * `scale`: resizing in the middle of a rollout; * `revision`: history that `kubectl rollout undo` reads;
//! * `status`: counts and conditions that `kubectl rollout status` reads; * `template`: names and equality.

mod controller;
mod plan;
mod revision;
mod rolling;
mod scale;
mod status;
mod template;

pub(crate) use controller::DeploymentController;
