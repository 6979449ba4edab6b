//! Making and removing pods for a controller: from a template, in slowly growing batches, with events.

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt};
use skep_informer::{EventType, ObjectKey};

use crate::context::Context;
use crate::error::{ControllerError, all_steps};
use crate::expectations::Expectations;

/// A pod to remove: name and uid, so that a successor of the same name is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodRef {
    /// Name.
    pub(crate) name: String,
    /// Uid.
    pub(crate) uid: String,
}

impl PodRef {
    /// The reference to `pod`.
    pub(crate) fn of(pod: &Pod) -> Self {
        Self { name: pod.name_any(), uid: pod.uid().unwrap_or_default() }
    }
}

/// A pod made from `template`, controlled by `owner`, with a generated name.
pub(crate) fn pod_from_template(template: &PodTemplateSpec, prefix: &str, owner: OwnerReference) -> Pod {
    let mut pod = Pod { spec: template.spec.clone(), ..Pod::default() };
    if let Some(meta) = &template.metadata {
        pod.metadata.labels = meta.labels.clone();
        pod.metadata.annotations = meta.annotations.clone();
        pod.metadata.finalizers = meta.finalizers.clone();
    }
    pod.metadata.generate_name = Some(format!("{prefix}-"));
    pod.metadata.owner_references = Some(vec![owner]);
    pod
}

/// Creates and deletes the pods of `owner`, meeting the expectations that cover them.
pub(crate) struct PodControl<'a, K> {
    /// Shared state.
    pub(crate) context: &'a Context,
    /// Whose pods they are.
    pub(crate) owner: &'a K,
    /// Expectations of the owner's controller.
    pub(crate) expectations: &'a Expectations,
}

impl<K: Resource<DynamicType = ()>> PodControl<'_, K> {
    /// Creates `pods`: first one, then twice as many each time all went well. Stops after a batch with a failure.
    pub(crate) async fn create(&self, pods: Vec<Pod>) -> Result<(), ControllerError> {
        let key = ObjectKey::of(self.owner);
        let mut rest = pods.as_slice();
        let mut size = 1;
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(size.min(rest.len()));
            let results = join_all(batch.iter().map(|pod| self.create_one(&key, pod))).await;
            if let Err(error) = all_steps(results) {
                self.expectations.created(&key, later.len());
                return Err(error);
            }
            rest = later;
            size *= 2;
        }
        Ok(())
    }

    async fn create_one(&self, key: &ObjectKey, pod: &Pod) -> Result<(), ControllerError> {
        let api = self.context.namespaced::<Pod>(&key.namespace);
        let recorder = &self.context.recorder;
        match api.create(&PostParams::default(), pod).await {
            Ok(created) => {
                let message = format!("Created pod: {}", created.name_any());
                recorder.publish(self.owner, EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                self.expectations.created(key, 1);
                if let kube::Error::Api(status) = &error {
                    if is_terminating_namespace(status) {
                        return Ok(());
                    }
                    let message = format!("Error creating: {}", status.message);
                    recorder.publish(self.owner, EventType::Warning, "FailedCreate", message);
                }
                Err(error.into())
            }
        }
    }

    /// Deletes `pods` at once.
    pub(crate) async fn delete(&self, pods: &[PodRef]) -> Result<(), ControllerError> {
        let key = ObjectKey::of(self.owner);
        all_steps(join_all(pods.iter().map(|pod| self.delete_one(&key, pod))).await)
    }

    async fn delete_one(&self, key: &ObjectKey, pod: &PodRef) -> Result<(), ControllerError> {
        let api = self.context.namespaced::<Pod>(&key.namespace);
        let same = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
        let recorder = &self.context.recorder;
        match api.delete(&pod.name, &DeleteParams::default().preconditions(same)).await {
            Ok(_) => {
                let message = format!("Deleted pod: {}", pod.name);
                recorder.publish(self.owner, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) => {
                self.expectations.deleted(key, &pod.uid);
                match &error {
                    kube::Error::Api(status) if matches!(status.code, 404 | 409) => Ok(()),
                    kube::Error::Api(status) => {
                        let message = format!("Error deleting: {}", status.message);
                        recorder.publish(self.owner, EventType::Warning, "FailedDelete", message);
                        Err(error.into())
                    }
                    _ => Err(error.into()),
                }
            }
        }
    }
}

/// Whether a create was refused because its namespace is going away: nothing to retry.
pub(crate) fn is_terminating_namespace(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}
