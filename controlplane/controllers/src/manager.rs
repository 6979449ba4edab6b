//! Wires controllers to informers and runs them until the drain begins.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, join_all};
use skep_informer::Recorder;
use skep_runtime::Drain;

use crate::ControllersConfig;
use crate::context::{Context, Informers};
use crate::csr::CsrController;
use crate::daemonset::DaemonSetController;
use crate::deployment::DeploymentController;
use crate::disruption::DisruptionController;
use crate::endpointslice::EndpointSliceController;
use crate::gc::GarbageCollector;
use crate::job::JobController;
use crate::namespace::NamespaceController;
use crate::node_ipam::NodeIpamController;
use crate::node_lifecycle::NodeLifecycleController;
use crate::pod_gc::PodGcController;
use crate::replicaset::ReplicaSetController;
use crate::service_account::ServiceAccountController;
use crate::statefulset::StatefulSetController;
use crate::volume::VolumeController;

const COMPONENT: &str = "kube-controller-manager";

/// Runs every controller until `drain` begins.
///
/// Controllers register with the informers first, then the watches start, and work begins when every type has been
/// listed once: no plan sees half a cluster.
pub async fn run(config: ControllersConfig, drain: Drain) {
    let client = config.client.clone();
    let (recorder, events) = Recorder::new(client.clone(), COMPONENT, None);
    let context = Arc::new(Context { client: client.clone(), recorder, informers: Informers::new(), config });
    let controllers = controllers(&context);
    let mut running = vec![drain.spawn_until_drained(events.run())];
    for watch in context.informers.watches(&client) {
        running.push(drain.spawn_until_drained(watch));
    }
    tokio::select! {
        () = context.informers.synced() => tracing::info!("controllers have listed every type; starting work"),
        () = drain.cancelled() => return,
    }
    for controller in controllers {
        running.push(drain.spawn_until_drained(controller));
    }
    join_all(running).await;
}

fn controllers(context: &Arc<Context>) -> Vec<BoxFuture<'static, ()>> {
    vec![
        CsrController::new(context).run().boxed(),
        NodeIpamController::new(context).run().boxed(),
        ServiceAccountController::new(context).run().boxed(),
        ReplicaSetController::new(context).run().boxed(),
        DeploymentController::new(context).run().boxed(),
        DaemonSetController::new(context).run().boxed(),
        StatefulSetController::new(context).run().boxed(),
        JobController::new(context).run().boxed(),
        DisruptionController::new(context).run().boxed(),
        EndpointSliceController::new(context).run().boxed(),
        NodeLifecycleController::new(context).run().boxed(),
        NamespaceController::new(context).run().boxed(),
        GarbageCollector::new(context).run().boxed(),
        PodGcController::new(context).run().boxed(),
        VolumeController::new(context).run().boxed(),
    ]
}
