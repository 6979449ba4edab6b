//! What fields are for: the descriptions that k8s-openapi's types carry, by definition and field.

use std::collections::BTreeMap;

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

/// Descriptions of one definition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Description {
    /// Of the definition itself.
    pub(super) text: String,
    /// Of its fields.
    pub(super) fields: BTreeMap<String, String>,
}

/// Adds a root type and everything it refers to.
type Root = fn(&mut SchemaGenerator);

macro_rules! roots {
    ($($path:path),* $(,)?) => {
        /// Every kind that the schema table knows, by definition name.
        fn roots() -> Vec<(String, Root)> {
            use k8s_openapi::*;
            vec![$((<$path as JsonSchema>::schema_name().into_owned(), (|generator| {
                let _reference = generator.subschema_for::<$path>();
            }) as Root)),*]
        }
    };
}

roots![
    api::admissionregistration::v1::MutatingAdmissionPolicy,
    api::admissionregistration::v1::MutatingAdmissionPolicyBinding,
    api::admissionregistration::v1::MutatingWebhookConfiguration,
    api::admissionregistration::v1::ValidatingAdmissionPolicy,
    api::admissionregistration::v1::ValidatingAdmissionPolicyBinding,
    api::admissionregistration::v1::ValidatingWebhookConfiguration,
    api::apps::v1::ControllerRevision,
    api::apps::v1::DaemonSet,
    api::apps::v1::Deployment,
    api::apps::v1::ReplicaSet,
    api::apps::v1::StatefulSet,
    api::authentication::v1::SelfSubjectReview,
    api::authentication::v1::TokenRequest,
    api::authentication::v1::TokenReview,
    api::authorization::v1::LocalSubjectAccessReview,
    api::authorization::v1::SelfSubjectAccessReview,
    api::authorization::v1::SelfSubjectRulesReview,
    api::authorization::v1::SubjectAccessReview,
    api::autoscaling::v1::HorizontalPodAutoscaler,
    api::autoscaling::v1::Scale,
    api::autoscaling::v2::HorizontalPodAutoscaler,
    api::batch::v1::CronJob,
    api::batch::v1::Job,
    api::certificates::v1::CertificateSigningRequest,
    api::coordination::v1::Lease,
    api::core::v1::Binding,
    api::core::v1::ComponentStatus,
    api::core::v1::ConfigMap,
    api::core::v1::Endpoints,
    api::core::v1::Event,
    api::core::v1::LimitRange,
    api::core::v1::Namespace,
    api::core::v1::Node,
    api::core::v1::PersistentVolume,
    api::core::v1::PersistentVolumeClaim,
    api::core::v1::Pod,
    api::core::v1::PodTemplate,
    api::core::v1::ReplicationController,
    api::core::v1::ResourceQuota,
    api::core::v1::Secret,
    api::core::v1::Service,
    api::core::v1::ServiceAccount,
    api::discovery::v1::EndpointSlice,
    api::events::v1::Event,
    api::flowcontrol::v1::FlowSchema,
    api::flowcontrol::v1::PriorityLevelConfiguration,
    api::networking::v1::IPAddress,
    api::networking::v1::Ingress,
    api::networking::v1::IngressClass,
    api::networking::v1::NetworkPolicy,
    api::networking::v1::ServiceCIDR,
    api::node::v1::RuntimeClass,
    api::policy::v1::Eviction,
    api::policy::v1::PodDisruptionBudget,
    api::rbac::v1::ClusterRole,
    api::rbac::v1::ClusterRoleBinding,
    api::rbac::v1::Role,
    api::rbac::v1::RoleBinding,
    api::resource::v1::DeviceClass,
    api::resource::v1::ResourceClaim,
    api::resource::v1::ResourceClaimTemplate,
    api::resource::v1::ResourceSlice,
    api::scheduling::v1::PriorityClass,
    api::storage::v1::CSIDriver,
    api::storage::v1::CSINode,
    api::storage::v1::CSIStorageCapacity,
    api::storage::v1::StorageClass,
    api::storage::v1::VolumeAttachment,
    api::storage::v1::VolumeAttributesClass,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::Status,
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
];

/// The descriptions of the named definitions and of all that they refer to.
pub(super) fn of<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<String, Description> {
    let roots: BTreeMap<_, _> = roots().into_iter().collect();
    let mut generator = SchemaGenerator::default();
    for root in names.filter_map(|name| roots.get(name)) {
        root(&mut generator);
    }
    generator.take_definitions(false).into_iter().map(|(name, schema)| (name, describe(&schema))).collect()
}

fn describe(schema: &Value) -> Description {
    let text = |value: &Value| value["description"].as_str().unwrap_or_default().to_owned();
    let fields = schema["properties"].as_object().into_iter().flatten();
    Description {
        text: text(schema),
        fields: fields.map(|(name, field)| (name.clone(), text(field))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_a_kind_and_what_it_refers_to() {
        let found = of(["io.k8s.api.core.v1.Pod"].into_iter());
        assert!(!found["io.k8s.api.core.v1.Container"].fields["image"].is_empty());
        assert!(!found["io.k8s.api.core.v1.Pod"].text.is_empty());
        assert!(!found.contains_key("io.k8s.api.apps.v1.Deployment"));
    }
}
