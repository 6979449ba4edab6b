//! The shell of the certificate controller.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, PostParams};
use skep_informer::{Change, ObjectKey, Outcome, WorkQueue, work};
use skep_pki::CertificateRequest;

use super::identity::RequestedIdentity;
use super::plan::{Command, is_open, node_name, plan};
use crate::context::Context;
use crate::error::{ControllerError, unless_gone};

/// Approves and signs certificate requests.
pub(crate) struct CsrController {
    context: Arc<Context>,
    queue: Arc<WorkQueue<ObjectKey>>,
}

impl CsrController {
    /// Registers for requests.
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let sink = queue.clone();
        context.informers.csrs.on_change(move |change| sink.add(ObjectKey::of(&**change.latest())));
        // A serving certificate waits for its node to say which addresses are its own.
        let (sink, requests) = (queue.clone(), context.informers.csrs.store().clone());
        context.informers.nodes.on_change(move |change| {
            let addresses = |node: &Node| node.status.as_ref().and_then(|status| status.addresses.clone());
            if let Change::Updated { old, new } = &change
                && addresses(old) == addresses(new)
            {
                return;
            }
            for request in requests.list().iter().filter(|request| is_open(request)) {
                sink.add(ObjectKey::of(&**request));
            }
        });
        Self { context: context.clone(), queue }
    }

    /// Works until dropped.
    pub(crate) async fn run(self) {
        work("certificates", &self.queue, 2, |key| self.reconcile(key)).await;
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ControllerError> {
        let informers = &self.context.informers;
        let Some(request) = informers.csrs.store().get(&key) else { return Ok(Outcome::Done) };
        let body = String::from_utf8_lossy(&request.spec.request.0).into_owned();
        let parsed = CertificateRequest::parse(&body).map_err(|error| error.to_string());
        let identity = parsed.as_ref().map(RequestedIdentity::from).map_err(Clone::clone);
        let node = identity
            .as_ref()
            .ok()
            .and_then(node_name)
            .and_then(|name| informers.nodes.store().get_cluster(name));
        match plan(&request, &identity, node.as_deref(), Timestamp::now()) {
            Command::Approve(message) => {
                let condition = condition("Approved", "AutoApproved", message);
                self.write_approval((*request).clone(), condition).await?;
            }
            Command::Sign(grant) => {
                let Ok(parsed) = &parsed else { return Ok(Outcome::Done) };
                let certificate = self.context.config.authority.sign(parsed, &grant.into())?;
                self.write_certificate((*request).clone(), certificate).await?;
            }
            Command::Fail(reason) => {
                let mut failed = (*request).clone();
                add_condition(&mut failed, condition("Failed", "SignerValidationFailure", &reason));
                unless_gone(self.api().replace_status(&key.name, &PostParams::default(), &failed).await)?;
            }
            Command::Expire => {
                unless_gone(self.api().delete(&key.name, &DeleteParams::default()).await)?;
            }
            Command::Keep(left) => {
                let left = Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1);
                return Ok(Outcome::After(left));
            }
        }
        Ok(Outcome::Done)
    }

    fn api(&self) -> kube::Api<CertificateSigningRequest> {
        self.context.cluster()
    }

    async fn write_approval(
        &self,
        mut request: CertificateSigningRequest,
        condition: CertificateSigningRequestCondition,
    ) -> Result<(), ControllerError> {
        let name = request.metadata.name.clone().unwrap_or_default();
        add_condition(&mut request, condition);
        unless_gone(
            self.api().replace_subresource("approval", &name, &PostParams::default(), &request).await,
        )?;
        Ok(())
    }

    async fn write_certificate(
        &self,
        mut request: CertificateSigningRequest,
        certificate: String,
    ) -> Result<(), ControllerError> {
        let name = request.metadata.name.clone().unwrap_or_default();
        request.status.get_or_insert_default().certificate = Some(ByteString(certificate.into_bytes()));
        unless_gone(self.api().replace_status(&name, &PostParams::default(), &request).await)?;
        Ok(())
    }
}

fn condition(kind: &str, reason: &str, message: &str) -> CertificateSigningRequestCondition {
    let now = Time(Timestamp::now());
    CertificateSigningRequestCondition {
        type_: kind.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
    }
}

fn add_condition(request: &mut CertificateSigningRequest, condition: CertificateSigningRequestCondition) {
    let status = request.status.get_or_insert_default();
    status.conditions.get_or_insert_default().push(condition);
}
