//! The container runtime as this kubelet uses it: one call a method, each with a deadline and a named error.

pub(crate) mod inspect;
pub(crate) mod labels;

use std::{path::Path, time::Duration};

use skep_wire::cri::{
    MAX_MESSAGE_BYTES, connect_lazy,
    v1::{self, image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient},
};
use tonic::{Code, Request, Status, transport::Channel};

/// A call to the runtime that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", status.message())]
pub(crate) struct CriError {
    /// The call.
    pub(crate) call: &'static str,
    /// The runtime's answer.
    #[source]
    pub(crate) status: Status,
}

impl CriError {
    /// Whether the object is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status.code() == Code::NotFound || self.status.message().contains("not found")
    }

    /// Whether the deadline passed.
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self.status.code(), Code::DeadlineExceeded | Code::Cancelled)
    }
}

/// The runtime. Cheap to clone; survives restarts of the runtime.
#[derive(Debug, Clone)]
pub(crate) struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

const SHORT: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(120);
const PULL: Duration = Duration::from_secs(1800);

macro_rules! call {
    ($client:expr, $method:ident, $deadline:expr, $message:expr) => {{
        let mut request = Request::new($message);
        request.set_timeout($deadline);
        let done =
            tokio::time::timeout($deadline + Duration::from_secs(2), $client.clone().$method(request)).await;
        let call = stringify!($method);
        match done {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(CriError { call, status }),
            Err(_) => {
                let status = Status::deadline_exceeded("the container runtime did not answer in time");
                Err(CriError { call, status })
            }
        }
    }};
}

impl Cri {
    /// The runtime listening on `socket`; nothing is dialled yet.
    pub(crate) fn new(socket: &Path) -> Self {
        let channel = connect_lazy(socket);
        Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES),
        }
    }

    pub(crate) async fn version(&self) -> Result<v1::VersionResponse, CriError> {
        call!(self.runtime, version, SHORT, v1::VersionRequest::default())
    }

    pub(crate) async fn status(&self) -> Result<v1::StatusResponse, CriError> {
        call!(self.runtime, status, SHORT, v1::StatusRequest::default())
    }

    pub(crate) async fn run_sandbox(
        &self,
        config: v1::PodSandboxConfig,
        handler: &str,
    ) -> Result<String, CriError> {
        let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        Ok(call!(self.runtime, run_pod_sandbox, LONG * 2, request)?.pod_sandbox_id)
    }

    pub(crate) async fn stop_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(call!(self.runtime, stop_pod_sandbox, LONG, request).map(|_| ()))
    }

    pub(crate) async fn remove_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(call!(self.runtime, remove_pod_sandbox, LONG, request).map(|_| ()))
    }

    pub(crate) async fn sandbox_status(&self, id: &str) -> Result<Option<v1::PodSandboxStatus>, CriError> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        Ok(call!(self.runtime, pod_sandbox_status, SHORT, request)?.status)
    }

    pub(crate) async fn sandboxes(&self, uid: Option<&str>) -> Result<Vec<v1::PodSandbox>, CriError> {
        let filter = uid.map(|uid| v1::PodSandboxFilter {
            label_selector: [(labels::POD_UID.to_owned(), uid.to_owned())].into(),
            ..v1::PodSandboxFilter::default()
        });
        Ok(call!(self.runtime, list_pod_sandbox, SHORT, v1::ListPodSandboxRequest { filter })?.items)
    }

    pub(crate) async fn containers(&self, uid: Option<&str>) -> Result<Vec<v1::Container>, CriError> {
        let filter = uid.map(|uid| v1::ContainerFilter {
            label_selector: [(labels::POD_UID.to_owned(), uid.to_owned())].into(),
            ..v1::ContainerFilter::default()
        });
        Ok(call!(self.runtime, list_containers, SHORT, v1::ListContainersRequest { filter })?.containers)
    }

    pub(crate) async fn container_status(&self, id: &str) -> Result<Option<v1::ContainerStatus>, CriError> {
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        Ok(call!(self.runtime, container_status, SHORT, request)?.status)
    }

    pub(crate) async fn create_container(
        &self,
        request: v1::CreateContainerRequest,
    ) -> Result<String, CriError> {
        Ok(call!(self.runtime, create_container, LONG, request)?.container_id)
    }

    pub(crate) async fn start_container(&self, id: &str) -> Result<(), CriError> {
        let request = v1::StartContainerRequest { container_id: id.to_owned() };
        call!(self.runtime, start_container, LONG, request).map(|_| ())
    }

    pub(crate) async fn stop_container(&self, id: &str, grace: i64) -> Result<(), CriError> {
        let request = v1::StopContainerRequest { container_id: id.to_owned(), timeout: grace };
        let deadline = LONG + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        gone_is_fine(call!(self.runtime, stop_container, deadline, request).map(|_| ()))
    }

    pub(crate) async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        let request = v1::RemoveContainerRequest { container_id: id.to_owned() };
        gone_is_fine(call!(self.runtime, remove_container, LONG, request).map(|_| ()))
    }

    pub(crate) async fn reopen_log(&self, id: &str) -> Result<(), CriError> {
        let request = v1::ReopenContainerLogRequest { container_id: id.to_owned() };
        call!(self.runtime, reopen_container_log, SHORT, request).map(|_| ())
    }

    pub(crate) async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<v1::ExecSyncResponse, CriError> {
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let request = v1::ExecSyncRequest { container_id: id.to_owned(), cmd: command, timeout: seconds };
        call!(self.runtime, exec_sync, timeout + Duration::from_secs(5), request)
    }

    pub(crate) async fn exec_url(&self, request: v1::ExecRequest) -> Result<String, CriError> {
        Ok(call!(self.runtime, exec, SHORT, request)?.url)
    }

    pub(crate) async fn attach_url(&self, request: v1::AttachRequest) -> Result<String, CriError> {
        Ok(call!(self.runtime, attach, SHORT, request)?.url)
    }

    pub(crate) async fn port_forward_url(&self, sandbox: &str, ports: Vec<i32>) -> Result<String, CriError> {
        let request = v1::PortForwardRequest { pod_sandbox_id: sandbox.to_owned(), port: ports };
        Ok(call!(self.runtime, port_forward, SHORT, request)?.url)
    }

    pub(crate) async fn stats(&self) -> Result<Vec<v1::ContainerStats>, CriError> {
        let request = v1::ListContainerStatsRequest::default();
        Ok(call!(self.runtime, list_container_stats, SHORT, request)?.stats)
    }

    /// The runtime's event stream; unimplemented by older runtimes. Returns with the first event.
    pub(crate) async fn events(&self) -> Result<tonic::Streaming<v1::ContainerEventResponse>, CriError> {
        let stream = self.runtime.clone().get_container_events(v1::GetEventsRequest::default()).await;
        stream
            .map(tonic::Response::into_inner)
            .map_err(|status| CriError { call: "get_container_events", status })
    }

    pub(crate) async fn images(&self) -> Result<Vec<v1::Image>, CriError> {
        Ok(call!(self.images, list_images, SHORT, v1::ListImagesRequest::default())?.images)
    }

    pub(crate) async fn image(&self, image: &str) -> Result<Option<v1::Image>, CriError> {
        let request = v1::ImageStatusRequest { image: Some(image_spec(image)), verbose: false };
        Ok(call!(self.images, image_status, SHORT, request)?.image)
    }

    pub(crate) async fn pull(
        &self,
        image: &str,
        auth: Option<v1::AuthConfig>,
        sandbox: v1::PodSandboxConfig,
    ) -> Result<String, CriError> {
        let request =
            v1::PullImageRequest { image: Some(image_spec(image)), auth, sandbox_config: Some(sandbox) };
        Ok(call!(self.images, pull_image, PULL, request)?.image_ref)
    }

    pub(crate) async fn remove_image(&self, image: &str) -> Result<(), CriError> {
        let request = v1::RemoveImageRequest { image: Some(image_spec(image)) };
        call!(self.images, remove_image, LONG, request).map(|_| ())
    }
}

/// An image by reference.
pub(crate) fn image_spec(image: &str) -> v1::ImageSpec {
    v1::ImageSpec { image: image.to_owned(), ..v1::ImageSpec::default() }
}

fn gone_is_fine(result: Result<(), CriError>) -> Result<(), CriError> {
    match result {
        Err(error) if error.status.code() == Code::NotFound => Ok(()),
        other => other,
    }
}
