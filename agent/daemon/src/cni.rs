//! The CNI verbs over the agent's socket.

use std::{collections::BTreeSet, sync::Arc};

use skep_ipam::{Allocation, Attachment as Pod, AttachmentKey};
use skep_model::IpCidr;
use skep_routing::PodLink;
use skep_wire::agent::{
    AddReply, Address, Attachment, CheckReply, DelReply, GcReply, GcRequest, Interface, Route, StatusReply,
    StatusRequest, cni_server::Cni,
};
use tonic::{Request, Response, Status};

use crate::endpoints::Endpoints;

/// The server of the verbs.
pub(crate) struct CniService {
    endpoints: Arc<Endpoints>,
}

impl CniService {
    /// Over the node's endpoints, which have been restored.
    pub(crate) fn new(endpoints: Arc<Endpoints>) -> Self {
        CniService { endpoints }
    }
}

#[tonic::async_trait]
impl Cni for CniService {
    async fn add(&self, request: Request<Attachment>) -> Result<Response<AddReply>, Status> {
        let (key, pod) = parse(request.into_inner())?;
        let endpoints = Arc::clone(&self.endpoints);
        // On a task of its own: a caller that gives up must not leave half an attachment.
        let added = tokio::spawn(async move { endpoints.add(key, pod).await });
        let (link, allocation) = added.await.map_err(|_| Status::unavailable("the agent is stopping"))??;
        Ok(Response::new(reply(&link, &allocation)))
    }

    async fn del(&self, request: Request<Attachment>) -> Result<Response<DelReply>, Status> {
        let (key, _) = parse(request.into_inner())?;
        let endpoints = Arc::clone(&self.endpoints);
        let removed = tokio::spawn(async move { endpoints.del(&key).await });
        removed.await.map_err(|_| Status::unavailable("the agent is stopping"))??;
        Ok(Response::new(DelReply {}))
    }

    async fn check(&self, request: Request<Attachment>) -> Result<Response<CheckReply>, Status> {
        let (key, pod) = parse(request.into_inner())?;
        self.endpoints.check(&key, &pod.netns).await?;
        Ok(Response::new(CheckReply {}))
    }

    async fn gc(&self, request: Request<GcRequest>) -> Result<Response<GcReply>, Status> {
        let valid = request.into_inner().valid.into_iter();
        let valid: BTreeSet<_> = valid
            .map(|valid| AttachmentKey { container_id: valid.container_id, ifname: valid.ifname })
            .collect();
        let removed = self.endpoints.gc(&valid).await?;
        Ok(Response::new(GcReply { removed }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        if self.endpoints.free() == 0 {
            return Err(Status::unavailable("the node's pod range is exhausted"));
        }
        Ok(Response::new(StatusReply {}))
    }
}

fn parse(attachment: Attachment) -> Result<(AttachmentKey, Pod), Status> {
    if attachment.container_id.is_empty() || attachment.ifname.is_empty() {
        return Err(Status::invalid_argument("the sandbox id and the interface name are required"));
    }
    let key = AttachmentKey { container_id: attachment.container_id, ifname: attachment.ifname };
    let pod = Pod {
        netns: attachment.netns,
        pod_namespace: attachment.pod_namespace,
        pod_name: attachment.pod_name,
        pod_uid: attachment.pod_uid,
    };
    Ok((key, pod))
}

fn reply(link: &PodLink, allocation: &Allocation) -> AddReply {
    let interface = |name: &str, mac: skep_model::MacAddr| Interface {
        name: name.into(),
        mac: mac.to_string(),
        mtu: link.mtu,
    };
    let gateway = |ip: std::net::IpAddr| {
        let address = link.addresses.iter().find(|address| address.ip == ip);
        address.map(|address| address.gateway.to_string()).unwrap_or_default()
    };
    let default = |ip: std::net::IpAddr| if ip.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    AddReply {
        host: Some(interface(&link.host_name, link.host_mac)),
        pod: Some(interface(&link.pod_name, link.pod_mac)),
        addresses: allocation
            .addresses()
            .map(|ip| Address { cidr: IpCidr::host(ip).to_string(), gateway: gateway(ip) })
            .collect(),
        routes: allocation
            .addresses()
            .map(|ip| Route { destination: default(ip).into(), gateway: gateway(ip), mtu: link.mtu })
            .collect(),
    }
}
