//! The labels and annotations by which a restarted kubelet recognises its sandboxes and containers.

use std::collections::BTreeMap;

use crate::pod::model::PodId;

/// The pod's name.
pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
/// The pod's namespace.
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The pod's uid.
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
/// The container's name.
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// The container's specification, hashed.
pub(crate) const HASH: &str = "io.kubernetes.container.hash";
/// Where the container's last words are on the node.
pub(crate) const MESSAGE_FILE: &str = "skep.dev/termination-message-file";
/// `File` or `FallbackToLogsOnError`.
pub(crate) const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// The grace period the pod asked for.
pub(crate) const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// The labels of everything that belongs to a pod.
pub(crate) fn pod(id: &PodId) -> BTreeMap<String, String> {
    BTreeMap::from([
        (POD_NAME.to_owned(), id.name.clone()),
        (POD_NAMESPACE.to_owned(), id.namespace.clone()),
        (POD_UID.to_owned(), id.uid.clone()),
    ])
}

/// The pod that labels name, if they name one.
pub(crate) fn pod_of(labels: &std::collections::HashMap<String, String>) -> Option<PodId> {
    Some(PodId {
        namespace: labels.get(POD_NAMESPACE)?.clone(),
        name: labels.get(POD_NAME)?.clone(),
        uid: labels.get(POD_UID)?.clone(),
    })
}
