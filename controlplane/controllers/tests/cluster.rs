//! Controllers and scheduler against the real API server over memory, as the users they run as in a cluster.
//!
//! Nodes and kubelets are played by the test: it registers ready nodes, renews leases, and makes pods ready. Nothing
//! sleeps for a fixed time: every step waits for a condition with a deadline.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "cluster/world.rs"]
mod world;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Namespace, Node, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use world::World;

fn deployment(replicas: i32, image: &str) -> serde_json::Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    })
}

async fn set_image(world: &World, image: &str) {
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    let api = world.api::<Deployment>("default");
    api.patch("web", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
}

/// Makes pods ready until the Deployment reports that its rollout is over.
async fn finish_rollout(world: &World) -> Deployment {
    world
        .until("the rollout is over", || async {
            world.play_kubelets("default").await;
            let deployment = world.api::<Deployment>("default").get("web").await.ok()?;
            let status = deployment.status.clone()?;
            let wanted = deployment.spec.as_ref()?.replicas;
            let over = status.observed_generation == deployment.metadata.generation
                && status.updated_replicas == wanted
                && status.replicas == wanted
                && status.available_replicas == wanted;
            over.then_some(deployment)
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_get_their_account_and_certificate() {
    let world = World::start().await;
    world.create_namespace("fresh").await;
    let account = world.api::<ServiceAccount>("fresh");
    world.until("the default account exists", || async { account.get("default").await.ok() }).await;
    let maps = world.api::<ConfigMap>("fresh");
    let map = world.until("the CA map exists", || async { maps.get("kube-root-ca.crt").await.ok() }).await;
    assert!(map.data.unwrap()["ca.crt"].contains("BEGIN CERTIFICATE"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployment_rolls_out_spreads_and_rolls_back() {
    let world = World::start().await;
    world.add_nodes(3).await;
    world.create::<Deployment>("default", deployment(3, "v1")).await;
    let first = finish_rollout(&world).await;
    assert_eq!(first.annotations()["deployment.kubernetes.io/revision"], "1");
    let pods = world.list::<Pod>("default").await;
    let mut nodes: Vec<String> = pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
    nodes.sort();
    assert_eq!(nodes, ["node-0", "node-1", "node-2"]);

    set_image(&world, "v2").await;
    let second = finish_rollout(&world).await;
    assert_eq!(second.annotations()["deployment.kubernetes.io/revision"], "2");
    set_image(&world, "v1").await;
    let third = finish_rollout(&world).await;
    assert_eq!(third.annotations()["deployment.kubernetes.io/revision"], "3");
    let sets = world.list::<ReplicaSet>("default").await;
    let mut revisions: Vec<String> =
        sets.iter().map(|set| set.annotations()["deployment.kubernetes.io/revision"].clone()).collect();
    revisions.sort();
    assert_eq!(revisions, ["2", "3"]);
    world
        .until("events tell the story", || async {
            let events = world.list::<Event>("default").await;
            let has = |reason: &str| events.iter().any(|event| event.reason.as_deref() == Some(reason));
            (has("ScalingReplicaSet") && has("SuccessfulCreate") && has("Scheduled")).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unschedulable_pod_says_why_and_starts_when_a_node_comes() {
    let world = World::start().await;
    world.create::<Deployment>("default", deployment(1, "v1")).await;
    let condition = world
        .until("the pod says why", || async {
            let pod = world.list::<Pod>("default").await.pop()?;
            let conditions = pod.status?.conditions?;
            conditions.into_iter().find(|condition| condition.type_ == "PodScheduled")
        })
        .await;
    assert_eq!((condition.status.as_str(), condition.reason.as_deref()), ("False", Some("Unschedulable")));
    world.add_nodes(1).await;
    finish_rollout(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_follow_their_pods() {
    let world = World::start().await;
    world.add_nodes(2).await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}});
    world.create::<Service>("default", service).await;
    world.create::<Deployment>("default", deployment(2, "v1")).await;
    finish_rollout(&world).await;
    let ready = |slices: &[EndpointSlice]| {
        let ours = slices.iter().filter(|slice| slice.name_any().starts_with("web-"));
        let endpoints = ours.flat_map(|slice| slice.endpoints.iter().flatten());
        endpoints
            .filter(|endpoint| endpoint.conditions.as_ref().is_some_and(|c| c.ready == Some(true)))
            .count()
    };
    world
        .until("both pods are endpoints", || async {
            (ready(&world.list::<EndpointSlice>("default").await) == 2).then_some(())
        })
        .await;
    let legacy = world.api::<Endpoints>("default");
    world
        .until("the Endpoints object agrees", || async {
            let subsets = legacy.get("web").await.ok()?.subsets?;
            (subsets.first()?.addresses.as_ref()?.len() == 2).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemon_set_covers_new_nodes_and_keeps_history() {
    let world = World::start().await;
    world.add_nodes(2).await;
    let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": {
            "metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}}});
    world.create::<DaemonSet>("default", set).await;
    let available = |wanted: i32| {
        let world = &world;
        async move {
            world
                .until("the set is available everywhere", || async {
                    world.play_kubelets("default").await;
                    let set = world.api::<DaemonSet>("default").get("agent").await.ok()?;
                    let status = set.status?;
                    (status.number_available == Some(wanted)
                        && status.updated_number_scheduled == Some(wanted)
                        && status.observed_generation == set.metadata.generation)
                        .then_some(())
                })
                .await;
        }
    };
    available(2).await;
    world.add_nodes(3).await;
    available(3).await;
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}});
    let sets = world.api::<DaemonSet>("default");
    sets.patch("agent", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    available(3).await;
    let mut revisions: Vec<i64> =
        world.list::<ControllerRevision>("default").await.iter().map(|revision| revision.revision).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_deployment_takes_its_sets_and_pods() {
    let world = World::start().await;
    world.add_nodes(1).await;
    world.create::<Deployment>("default", deployment(2, "v1")).await;
    finish_rollout(&world).await;
    let api = world.api::<Deployment>("default");
    api.delete("web", &DeleteParams::foreground()).await.unwrap();
    world
        .until("everything is gone", || async {
            world.play_kubelets("default").await;
            let gone = world.list::<Pod>("default").await.is_empty()
                && world.list::<ReplicaSet>("default").await.is_empty()
                && world.list::<Deployment>("default").await.is_empty();
            gone.then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphaning_leaves_the_set_behind() {
    let world = World::start().await;
    world.create::<Deployment>("default", deployment(1, "v1")).await;
    world.until("the set exists", || async { world.list::<ReplicaSet>("default").await.pop() }).await;
    let api = world.api::<Deployment>("default");
    api.delete("web", &DeleteParams::orphan()).await.unwrap();
    world
        .until("the Deployment is gone and its set is nobody's", || async {
            let set = world.list::<ReplicaSet>("default").await.pop()?;
            let gone = world.list::<Deployment>("default").await.is_empty();
            (gone && set.owner_references().is_empty()).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespace_waits_for_finalizers_and_then_goes() {
    let world = World::start().await;
    world.create_namespace("doomed").await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "held", "finalizers": ["example.com/f"]}});
    world.create::<ConfigMap>("doomed", map).await;
    let namespaces = world.cluster_api::<Namespace>();
    namespaces.delete("doomed", &DeleteParams::default()).await.unwrap();
    world
        .until("the namespace says what remains", || async {
            let conditions = namespaces.get("doomed").await.ok()?.status?.conditions?;
            let remaining = conditions.get(4)?;
            (remaining.type_ == "NamespaceFinalizersRemaining" && remaining.status == "True").then_some(())
        })
        .await;
    let free = json!({"metadata": {"finalizers": null}});
    let maps = world.api::<ConfigMap>("doomed");
    maps.patch("held", &PatchParams::default(), &Patch::Merge(free)).await.unwrap();
    world
        .until("the namespace is gone", || async {
            let left = namespaces.get_opt("doomed").await.ok()?;
            left.is_none().then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_get_ranges_of_their_own_and_lose_taints_when_ready() {
    let world = World::start().await;
    world.add_nodes(3).await;
    let nodes = world.cluster_api::<Node>();
    let ranges = world
        .until("every node has a range", || async {
            let list = nodes.list(&Default::default()).await.ok()?.items;
            let ranges: Vec<String> =
                list.iter().filter_map(|node| node.spec.as_ref()?.pod_cidr.clone()).collect();
            (ranges.len() == 3).then_some(ranges)
        })
        .await;
    let mut distinct = ranges.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 3, "{ranges:?}");
    let cordon = json!({"spec": {"unschedulable": true}});
    nodes.patch("node-0", &PatchParams::default(), &Patch::Merge(cordon)).await.unwrap();
    world
        .until("the cordon is a taint", || async {
            let taints = nodes.get("node-0").await.ok()?.spec?.taints?;
            taints.iter().any(|taint| taint.key == "node.kubernetes.io/unschedulable").then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_node_is_tainted_and_its_pods_leave_their_services() {
    let world = World::start().await;
    world.add_nodes(2).await;
    world.create::<Deployment>("default", deployment(2, "v1")).await;
    finish_rollout(&world).await;
    world.silence("node-1");
    let nodes = world.cluster_api::<Node>();
    world
        .until("the node is unreachable", || async {
            let taints = nodes.get("node-1").await.ok()?.spec?.taints?;
            let unreachable = |taint: &k8s_openapi::api::core::v1::Taint| {
                taint.key == "node.kubernetes.io/unreachable" && taint.effect == "NoExecute"
            };
            taints.iter().any(unreachable).then_some(())
        })
        .await;
    world
        .until("its pod is not ready", || async {
            let pods = world.list::<Pod>("default").await;
            let pod = pods
                .into_iter()
                .find(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some("node-1"))?;
            let conditions = pod.status?.conditions?;
            conditions.iter().any(|c| c.type_ == "Ready" && c.status == "False").then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bootstrapping_kubelet_gets_its_certificate() {
    let world = World::start().await;
    let requests = world.request_kubelet_certificate("node-9").await;
    let request = world
        .until("the certificate is issued", || async {
            let request: CertificateSigningRequest = requests.get("node-9").await.ok()?;
            request.status.as_ref()?.certificate.is_some().then_some(request)
        })
        .await;
    let certificate = request.status.unwrap().certificate.unwrap();
    assert!(String::from_utf8_lossy(&certificate.0).contains("BEGIN CERTIFICATE"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_controllers_and_scheduler_take_over_without_doubling_pods() {
    let world = World::start().await;
    world.add_nodes(3).await;
    world.create::<Deployment>("default", deployment(6, "v1")).await;
    for image in ["v2", "v3"] {
        world.play_kubelets("default").await;
        world.restart_control_loops().await;
        set_image(&world, image).await;
        world.play_kubelets("default").await;
    }
    let most = std::sync::atomic::AtomicUsize::new(0);
    world
        .until("the rollout is over", || async {
            world.play_kubelets("default").await;
            let live = |pod: &Pod| pod.metadata.deletion_timestamp.is_none();
            let count = world.list::<Pod>("default").await.iter().filter(|pod| live(pod)).count();
            most.fetch_max(count, std::sync::atomic::Ordering::Relaxed);
            let deployment = world.api::<Deployment>("default").get("web").await.ok()?;
            let status = deployment.status?;
            (status.observed_generation == deployment.metadata.generation
                && status.updated_replicas == Some(6)
                && status.replicas == Some(6)
                && status.available_replicas == Some(6))
            .then_some(())
        })
        .await;
    assert!(most.into_inner() <= 8, "more pods than the surge allows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pods_start_quickly_and_evenly() {
    let world = World::start().await;
    world.add_nodes(10).await;
    world.create::<Deployment>("default", deployment(100, "v1")).await;
    let pods = world
        .until("every pod has a node", || async {
            let pods = world.list::<Pod>("default").await;
            let bound = |pod: &&Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
            (pods.iter().filter(bound).count() == 100).then_some(pods)
        })
        .await;
    assert_eq!(pods.len(), 100);
    let mut counts = std::collections::BTreeMap::new();
    for node in pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()) {
        *counts.entry(node).or_insert(0) += 1;
    }
    assert!(counts.values().all(|count| *count == 10), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serving_certificate_waits_for_the_addresses_of_its_node() {
    let world = World::start().await;
    world.add_nodes(1).await;
    let requests = world.request_serving_certificate("node-0", "10.89.0.11").await;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "10.89.0.11"}]}});
    let nodes = world.cluster_api::<Node>();
    nodes.patch_status("node-0", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    world
        .until("the certificate is issued", || async {
            let request: CertificateSigningRequest = requests.get("node-0-serving").await.ok()?;
            request.status?.certificate
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn important_pod_takes_the_place_of_a_lesser_one() {
    let world = World::start().await;
    world.add_nodes(1).await;
    let pod = |name: &str, class: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
            "priorityClassName": class, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "3"}}}]}})
    };
    world.create_priority_class("low", 1).await;
    world.create_priority_class("high", 1000).await;
    world.create::<Pod>("default", pod("lesser", "low")).await;
    let pods = world.api::<Pod>("default");
    let is_bound = |name: &'static str| {
        let pods = pods.clone();
        move || {
            let pods = pods.clone();
            async move { pods.get(name).await.ok()?.spec?.node_name }
        }
    };
    world.until("the lesser pod has the node", is_bound("lesser")).await;
    world.create::<Pod>("default", pod("greater", "high")).await;
    let evict = || async {
        world.play_kubelets("default").await;
        is_bound("greater")().await
    };
    world.until("the greater pod has the node", evict).await;
    assert!(pods.get_opt("lesser").await.unwrap().is_none());
}
