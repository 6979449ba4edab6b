//! Which certificate requests are approved, denied or signed, and for what.

use std::net::IpAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use skep_pki::Usage;

use super::identity::{RequestedIdentity, SignGrant};

const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";

const NODE_PREFIX: &str = "system:node:";
const NODES_GROUP: &str = "system:nodes";
const BOOTSTRAP_GROUP: &str = "system:bootstrappers";

const DEFAULT_VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);
const SHORTEST_VALIDITY: Duration = Duration::from_secs(600);
const KEEP_DONE: SignedDuration = SignedDuration::from_hours(1);
const KEEP_PENDING: SignedDuration = SignedDuration::from_hours(24);

/// What to do with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Add the Approved condition with this message.
    Approve(&'static str),
    /// Sign and store the certificate.
    Sign(SignGrant),
    /// Add the Failed condition: approved, but its signer must not sign it.
    Fail(String),
    /// Delete: finished long ago, or never answered.
    Expire,
    /// Leave it, and look again when it may expire.
    Keep(SignedDuration),
}

/// Decides about `request`. `identity` is what its PKCS#10 body asks for; `node` the node it names, if there is one.
pub(crate) fn plan(
    request: &CertificateSigningRequest,
    identity: &Result<RequestedIdentity, String>,
    node: Option<&Node>,
    now: Timestamp,
) -> Command {
    let has = |kind: &str| has_condition(request, kind);
    let signed = request.status.as_ref().is_some_and(|status| status.certificate.is_some());
    let settled = signed || has("Denied") || has("Failed");
    let keep = if settled { KEEP_DONE } else { KEEP_PENDING };
    let age = request
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(SignedDuration::ZERO, |time| now.duration_since(time.0));
    if age > keep {
        return Command::Expire;
    }
    let left = keep - age;
    if settled || !ours(&request.spec.signer_name) {
        return Command::Keep(left);
    }
    if has("Approved") {
        return match sign(request, identity) {
            Ok(grant) => Command::Sign(grant),
            Err(reason) => Command::Fail(reason),
        };
    }
    approval(request, identity, node).map_or(Command::Keep(left), Command::Approve)
}

/// Whether nobody has decided about a request that is ours.
pub(crate) fn is_open(request: &CertificateSigningRequest) -> bool {
    let decided = ["Approved", "Denied", "Failed"].iter().any(|kind| has_condition(request, kind));
    ours(&request.spec.signer_name) && !decided
}

fn ours(signer: &str) -> bool {
    matches!(signer, KUBELET_CLIENT | KUBELET_SERVING | API_CLIENT)
}

fn has_condition(request: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == kind && condition.status != "False")
}

/// The approval message for requests that need no person, none for all others.
fn approval(
    request: &CertificateSigningRequest,
    identity: &Result<RequestedIdentity, String>,
    node: Option<&Node>,
) -> Option<&'static str> {
    let identity = identity.as_ref().ok()?;
    let spec = &request.spec;
    let own =
        spec.username.as_deref() == Some(identity.common_name.as_str()) && in_group(request, NODES_GROUP);
    match spec.signer_name.as_str() {
        KUBELET_CLIENT => {
            check_kubelet_client(request, identity).ok()?;
            if own {
                Some("Auto approving self kubelet client certificate after SubjectAccessReview.")
            } else if in_group(request, BOOTSTRAP_GROUP) {
                Some("Auto approving kubelet client certificate after SubjectAccessReview.")
            } else {
                None
            }
        }
        KUBELET_SERVING if own => {
            check_kubelet_serving(request, identity).ok()?;
            owns_names(node?, identity)
                .then_some("Auto approving kubelet serving certificate of the node itself.")
        }
        _ => None,
    }
}

fn in_group(request: &CertificateSigningRequest, group: &str) -> bool {
    request.spec.groups.iter().flatten().any(|member| member == group)
}

/// The grant for an approved request, or why its signer refuses.
fn sign(
    request: &CertificateSigningRequest,
    identity: &Result<RequestedIdentity, String>,
) -> Result<SignGrant, String> {
    let identity = identity.as_ref().map_err(Clone::clone)?;
    let validity = validity(request.spec.expiration_seconds);
    match request.spec.signer_name.as_str() {
        KUBELET_CLIENT => {
            check_kubelet_client(request, identity)?;
            Ok(SignGrant { usage: Usage::Client, validity })
        }
        KUBELET_SERVING => {
            check_kubelet_serving(request, identity)?;
            Ok(SignGrant { usage: Usage::Server, validity })
        }
        _ => {
            check_usages(request, "client auth")?;
            if identity.organizations.iter().any(|group| group == "system:masters") {
                return Err("the group system:masters is never signed for".into());
            }
            Ok(SignGrant { usage: Usage::Client, validity })
        }
    }
}

fn validity(seconds: Option<i32>) -> Duration {
    let asked = seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    asked.map_or(DEFAULT_VALIDITY, |asked| asked.clamp(SHORTEST_VALIDITY, DEFAULT_VALIDITY))
}

fn check_kubelet_client(
    request: &CertificateSigningRequest,
    identity: &RequestedIdentity,
) -> Result<(), String> {
    check_node_subject(identity)?;
    if !identity.dns_names.is_empty() || !identity.ip_addresses.is_empty() || identity.other_names {
        return Err("a kubelet client certificate has no subject alternative names".into());
    }
    check_usages(request, "client auth")
}

fn check_kubelet_serving(
    request: &CertificateSigningRequest,
    identity: &RequestedIdentity,
) -> Result<(), String> {
    check_node_subject(identity)?;
    if identity.other_names || (identity.dns_names.is_empty() && identity.ip_addresses.is_empty()) {
        return Err("a kubelet serving certificate names DNS names or IP addresses, and nothing else".into());
    }
    check_usages(request, "server auth")
}

fn check_node_subject(identity: &RequestedIdentity) -> Result<(), String> {
    let named = identity.common_name.strip_prefix(NODE_PREFIX).is_some_and(|node| !node.is_empty());
    if named && identity.organizations == [NODES_GROUP] {
        return Ok(());
    }
    Err(format!("subject must be CN={NODE_PREFIX}NAME, O={NODES_GROUP}"))
}

fn check_usages(request: &CertificateSigningRequest, required: &str) -> Result<(), String> {
    let usages: Vec<&str> = request.spec.usages.iter().flatten().map(String::as_str).collect();
    let allowed = |usage: &&str| [required, "digital signature", "key encipherment"].contains(usage);
    if usages.contains(&required) && usages.iter().all(allowed) {
        return Ok(());
    }
    Err(format!("usages must be {required:?} with digital signature and key encipherment at most"))
}

/// The node's name in a node identity.
pub(crate) fn node_name(identity: &RequestedIdentity) -> Option<&str> {
    identity.common_name.strip_prefix(NODE_PREFIX)
}

/// Whether every name asked for is the node's own: its name, or an address in its status.
fn owns_names(node: &Node, identity: &RequestedIdentity) -> bool {
    let name = node.name_any();
    if node_name(identity) != Some(name.as_str()) {
        return false;
    }
    let status = node.status.as_ref();
    let addresses: Vec<&str> = status
        .and_then(|status| status.addresses.as_ref())
        .into_iter()
        .flatten()
        .map(|address| address.address.as_str())
        .collect();
    let known_ip = |ip: &IpAddr| addresses.iter().any(|text| text.parse::<IpAddr>().as_ref() == Ok(ip));
    let known_dns = |dns: &String| *dns == name || addresses.contains(&dns.as_str());
    identity.ip_addresses.iter().all(known_ip) && identity.dns_names.iter().all(known_dns)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::certificates::v1::{
        CertificateSigningRequestCondition, CertificateSigningRequestSpec, CertificateSigningRequestStatus,
    };
    use k8s_openapi::api::core::v1::{NodeAddress, NodeStatus};

    use super::*;

    fn request(signer: &str, user: &str, group: &str, usage: &str) -> CertificateSigningRequest {
        CertificateSigningRequest {
            spec: CertificateSigningRequestSpec {
                signer_name: signer.into(),
                username: Some(user.into()),
                groups: Some(vec![group.into(), "system:authenticated".into()]),
                usages: Some(vec![usage.into(), "digital signature".into()]),
                ..CertificateSigningRequestSpec::default()
            },
            ..CertificateSigningRequest::default()
        }
    }

    fn node_identity(name: &str) -> RequestedIdentity {
        RequestedIdentity {
            common_name: format!("system:node:{name}"),
            organizations: vec!["system:nodes".into()],
            ..RequestedIdentity::default()
        }
    }

    fn node(name: &str, ip: &str) -> Node {
        let mut node = Node::default();
        node.metadata.name = Some(name.into());
        let address = NodeAddress { address: ip.into(), type_: "InternalIP".into() };
        node.status = Some(NodeStatus { addresses: Some(vec![address]), ..NodeStatus::default() });
        node
    }

    fn approved(mut request: CertificateSigningRequest) -> CertificateSigningRequest {
        let condition = CertificateSigningRequestCondition {
            type_: "Approved".into(),
            status: "True".into(),
            ..CertificateSigningRequestCondition::default()
        };
        request.status = Some(CertificateSigningRequestStatus {
            conditions: Some(vec![condition]),
            ..CertificateSigningRequestStatus::default()
        });
        request
    }

    #[test]
    fn bootstrapper_gets_a_client_certificate_for_a_node() {
        let request = request(KUBELET_CLIENT, "system:bootstrap:abc", BOOTSTRAP_GROUP, "client auth");
        let identity = Ok(node_identity("n1"));
        assert!(matches!(plan(&request, &identity, None, Timestamp::now()), Command::Approve(_)));
        let grant = plan(&approved(request), &identity, None, Timestamp::now());
        assert!(matches!(grant, Command::Sign(SignGrant { usage: Usage::Client, .. })));
    }

    #[test]
    fn node_renews_its_own_client_certificate_and_no_other() {
        let own = request(KUBELET_CLIENT, "system:node:n1", NODES_GROUP, "client auth");
        let now = Timestamp::now();
        assert!(matches!(plan(&own, &Ok(node_identity("n1")), None, now), Command::Approve(_)));
        assert!(matches!(plan(&own, &Ok(node_identity("n2")), None, now), Command::Keep(_)));
    }

    #[test]
    fn serving_certificate_names_only_the_node_itself() {
        let request = request(KUBELET_SERVING, "system:node:n1", NODES_GROUP, "server auth");
        let node = node("n1", "10.89.0.11");
        let now = Timestamp::now();
        let mut identity = node_identity("n1");
        identity.dns_names = vec!["n1".into()];
        identity.ip_addresses = vec!["10.89.0.11".parse().unwrap()];
        assert!(matches!(plan(&request, &Ok(identity.clone()), Some(&node), now), Command::Approve(_)));
        identity.ip_addresses = vec!["10.96.0.1".parse().unwrap()];
        assert!(matches!(plan(&request, &Ok(identity), Some(&node), now), Command::Keep(_)));
    }

    #[test]
    fn user_requests_wait_for_a_person_and_never_give_masters() {
        let request = request(API_CLIENT, "alice", "dev", "client auth");
        let identity = RequestedIdentity { common_name: "alice".into(), ..RequestedIdentity::default() };
        let now = Timestamp::now();
        assert!(matches!(plan(&request, &Ok(identity.clone()), None, now), Command::Keep(_)));
        assert!(matches!(plan(&approved(request.clone()), &Ok(identity), None, now), Command::Sign(_)));
        let masters = RequestedIdentity {
            common_name: "alice".into(),
            organizations: vec!["system:masters".into()],
            ..RequestedIdentity::default()
        };
        assert!(matches!(plan(&approved(request), &Ok(masters), None, now), Command::Fail(_)));
    }

    #[test]
    fn wrong_usages_and_foreign_signers_are_left_alone() {
        let now = Timestamp::now();
        let wrong = request(KUBELET_CLIENT, "system:bootstrap:abc", BOOTSTRAP_GROUP, "server auth");
        assert!(matches!(plan(&wrong, &Ok(node_identity("n1")), None, now), Command::Keep(_)));
        let foreign = approved(request("example.com/x", "a", "b", "client auth"));
        assert!(matches!(plan(&foreign, &Ok(node_identity("n1")), None, now), Command::Keep(_)));
    }
}
