//! Ends what still goes to backends that are gone. UDP clients do not notice by themselves: their flows are cut, so that
//! the next datagram finds another backend, and sockets that were connected to the backend itself are destroyed, so that
//! the application hears of it. TCP flows may finish.

mod diag;

use std::{collections::BTreeSet, io, net::SocketAddr, path::PathBuf, sync::Arc};

use skep_datapath::{CutBackend, Datapath};
use skep_loadbalancer::Lost;
use skep_model::Protocol;
use skep_routing::{RoutingError, namespace::Namespace};
use tokio::sync::mpsc;

use crate::{endpoints::Endpoints, metrics::Metrics};

/// Cuts what comes in, for ever.
pub(crate) async fn run(
    mut lost: mpsc::Receiver<Vec<Lost>>,
    datapath: Arc<Datapath>,
    endpoints: Arc<Endpoints>,
    metrics: Metrics,
) {
    let mut destroyer = Destroyer::default();
    while let Some(batch) = lost.recv().await {
        let cuts = flows(&batch);
        if cuts.is_empty() {
            continue;
        }
        let datapath = Arc::clone(&datapath);
        let cut = tokio::task::spawn_blocking(move || datapath.cut_backends(&cuts)).await;
        let flows = match cut {
            Ok(Ok(flows)) => flows,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot end flows to backends that are gone");
                0
            }
            Err(_) => return,
        };
        let dead = sockets(&batch);
        let destroyed =
            if dead.is_empty() { 0 } else { destroyer.everywhere(&dead, endpoints.namespaces()).await };
        metrics.observe_cut(flows, destroyed);
    }
}

/// Flows that are over.
fn flows(lost: &[Lost]) -> Vec<CutBackend> {
    let datagrams = lost.iter().filter(|lost| lost.backend.protocol == Protocol::Udp);
    datagrams
        .map(|lost| CutBackend {
            set: Some(lost.set.0),
            backend: SocketAddr::new(lost.backend.ip, lost.backend.port.get()),
            protocol: lost.backend.protocol.number(),
        })
        .collect()
}

/// Where no socket should be connected to any more.
fn sockets(lost: &[Lost]) -> BTreeSet<SocketAddr> {
    let dead = lost.iter().filter(|lost| lost.is_dead && lost.backend.protocol == Protocol::Udp);
    dead.map(|lost| SocketAddr::new(lost.backend.ip, lost.backend.port.get())).collect()
}

/// Destroys sockets, as long as the kernel can.
#[derive(Debug, Default)]
struct Destroyer {
    is_told: bool,
}

impl Destroyer {
    /// In this namespace and in those of pods; says how many.
    async fn everywhere(&mut self, peers: &BTreeSet<SocketAddr>, namespaces: Vec<PathBuf>) -> usize {
        let own = peers.clone();
        let mut count = match tokio::task::spawn_blocking(move || diag::destroy(&own)).await {
            Ok(result) => self.judge(result),
            Err(_) => 0,
        };
        for path in namespaces {
            let peers = peers.clone();
            // A pod that ended meanwhile has no sockets.
            let Ok(namespace) = Namespace::open(&path) else { continue };
            let done =
                namespace.run(move |_| async move { Ok::<_, RoutingError>(diag::destroy(&peers)) }).await;
            count += done.map_or(0, |result| self.judge(result));
        }
        count
    }

    fn judge(&mut self, result: io::Result<usize>) -> usize {
        result.unwrap_or_else(|error| {
            if !std::mem::replace(&mut self.is_told, true) {
                tracing::warn!(
                    %error,
                    "cannot destroy sockets connected to backends that are gone (the kernel needs INET_DIAG_DESTROY)"
                );
            }
            0
        })
    }
}

#[cfg(test)]
mod tests {
    use skep_model::{Backend, Port, SetId};

    use super::*;

    #[test]
    fn only_datagrams_are_cut_and_only_dead_ends_destroyed() {
        let lost = |protocol, is_dead| Lost {
            set: SetId(3),
            backend: Backend { ip: [10, 0, 0, 1].into(), port: Port::new(53).unwrap(), protocol },
            is_dead,
        };
        let batch = [lost(Protocol::Tcp, true), lost(Protocol::Udp, false)];
        assert_eq!((flows(&batch).len(), sockets(&batch).len()), (1, 0));
        assert_eq!(sockets(&[lost(Protocol::Udp, true)]).len(), 1);
    }
}
