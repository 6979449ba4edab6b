//! The last words of `skep up`: the nodes, the demo's answers, and what to type next.

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client};

use super::{demo, wait};
use crate::lab::plan::Plan;
use crate::terminal::{print, table};

/// Prints them.
pub(crate) async fn print_all(plan: &Plan, client: &Client, with_demo: bool) -> Result<()> {
    print("");
    print(&node_table(client).await?);
    if with_demo {
        print("\nhttp://web, asked from the client pod:");
        for (answer, times) in demo::ask(client).await? {
            print(&format!("  {times:>3} x  {answer}"));
        }
    }
    print(&format!(
        "\nNext:\n  export KUBECONFIG={}\n  kubectl get pods -A -o wide\n  kubectl exec -it deploy/client -- sh\n  \
         kubectl scale deploy/web --replicas=6\n  skep status, skep down (or cargo xtask status, cargo xtask down)",
        plan.kubeconfig().display()
    ));
    Ok(())
}

async fn node_table(client: &Client) -> Result<String> {
    let nodes: Api<Node> = Api::all(client.clone());
    let nodes = nodes.list(&ListParams::default()).await?.items;
    let rows = nodes.iter().map(|node| {
        let status = node.status.clone().unwrap_or_default();
        let address = status.addresses.iter().flatten().find(|address| address.type_ == "InternalIP");
        let info = status.node_info.unwrap_or_default();
        vec![
            node.metadata.name.clone().unwrap_or_default(),
            if wait::node_is_ready(node) { "Ready".into() } else { "NotReady".into() },
            address.map(|address| address.address.clone()).unwrap_or_default(),
            node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone()).unwrap_or_default(),
            info.kubelet_version,
            info.container_runtime_version,
        ]
    });
    Ok(table(&["NAME", "STATUS", "ADDRESS", "PODS", "VERSION", "RUNTIME"], rows.collect()))
}
