//! Services and EndpointSlices as the API server sends them, by number.

use std::net::Ipv4Addr;

use serde_json::json;

/// Endpoints of a Service under churn.
pub(super) const ENDPOINTS: u32 = 5;

/// A Service with a cluster address and one port.
pub(super) fn service(number: u32) -> String {
    let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 1, 0)) + number);
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": format!("service-{number}"), "namespace": format!("team-{}", number % 100),
            "uid": format!("11111111-0000-0000-0000-{number:012}"), "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": format!("app-{number}")},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": ip.to_string(), "clusterIPs": [ip.to_string()],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None", "selector": {"app": format!("app-{number}")},
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        },
        "status": {"loadBalancer": {}},
    })
    .to_string()
}

/// Its slice with so many endpoints, one of which is another at each change.
pub(super) fn slice(number: u32, endpoints: u32, change: u32) -> String {
    let endpoint = |at: u32| {
        let place = number * ENDPOINTS + at;
        let base = if change > 0 && at == change % endpoints {
            // Half of the pod range is for those that replace others.
            u32::from(Ipv4Addr::new(10, 248, 0, 0)) + (place + change) % (1 << 19)
        } else {
            u32::from(Ipv4Addr::new(10, 240, 0, 1)) + place
        };
        json!({
            "addresses": [Ipv4Addr::from(base).to_string()],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("node-{}", place % 100),
            "targetRef": {
                "kind": "Pod", "name": format!("pod-{place}"), "namespace": format!("team-{}", number % 100),
                "uid": format!("22222222-0000-0000-0000-{place:012}"),
            },
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("service-{number}-x"), "namespace": format!("team-{}", number % 100),
            "labels": {
                "kubernetes.io/service-name": format!("service-{number}"),
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "endpoints": (0..endpoints).map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
    })
    .to_string()
}
