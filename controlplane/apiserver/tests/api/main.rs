//! The API in process over a store in memory: what clients rely on, stage by stage.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its server has failed")]

mod bench;
mod families;
mod kubelet;

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use bench::{Bench, pod};
use kubelet::{Site, read_head};

#[tokio::test]
async fn creates_reads_updates_and_deletes() {
    let bench = Bench::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let (code, made) = bench.post(maps, &json!({"metadata": {"name": "c"}, "data": {"a": "1"}})).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(made["kind"], "ConfigMap");
    let (_, read) = bench.get(&format!("{maps}/c")).await;
    assert_eq!(read, made);
    let mut changed = read.clone();
    changed["data"]["a"] = "2".into();
    let (code, updated) = bench.call("PUT", &format!("{maps}/c"), Some(&changed)).await;
    assert_eq!((code, &updated["data"]["a"]), (StatusCode::OK, &json!("2")));
    let (code, stale) = bench.call("PUT", &format!("{maps}/c"), Some(&changed)).await;
    assert_eq!((code, &stale["reason"]), (StatusCode::CONFLICT, &json!("Conflict")));
    let (code, gone) = bench.call("DELETE", &format!("{maps}/c"), None).await;
    assert_eq!((code, &gone["status"]), (StatusCode::OK, &json!("Success")));
    assert_eq!(bench.get(&format!("{maps}/c")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_pod_may_be_labelled_after_admission_completed_it() {
    let bench = Bench::start().await;
    bench.account("default").await;
    let (code, made) = bench.post("/api/v1/namespaces/default/pods", &pod("p")).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let patch = json!({"metadata": {"labels": {"x": "y"}}});
    let (code, patched) = bench.patch("/api/v1/namespaces/default/pods/p", "merge", &patch).await;
    assert_eq!(code, StatusCode::OK, "{patched}");
    assert_eq!(patched["metadata"]["labels"]["x"], "y");
    assert_eq!(patched["spec"], made["spec"]);
}

#[tokio::test]
async fn addresses_and_node_ports_are_never_given_twice() {
    let bench = Arc::new(Bench::start().await);
    let mut writers = Vec::new();
    for i in 0..40 {
        let bench = Arc::clone(&bench);
        writers.push(tokio::spawn(async move {
            let service = json!({
                "metadata": {"name": format!("s{i}")},
                "spec": {"type": "NodePort", "ports": [{"port": 80}]},
            });
            bench.post("/api/v1/namespaces/default/services", &service).await
        }));
    }
    let (mut addresses, mut ports) = (Vec::new(), Vec::new());
    for writer in writers {
        let (code, made) = writer.await.unwrap();
        assert_eq!(code, StatusCode::CREATED, "{made}");
        addresses.push(made["spec"]["clusterIP"].as_str().unwrap().to_owned());
        ports.push(made["spec"]["ports"][0]["nodePort"].as_u64().unwrap());
    }
    addresses.sort();
    addresses.dedup();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!((addresses.len(), ports.len()), (40, 40));
}

#[tokio::test]
async fn a_chosen_address_goes_to_one_of_many_writers() {
    let bench = Arc::new(Bench::start().await);
    let mut writers = Vec::new();
    for i in 0..20 {
        let bench = Arc::clone(&bench);
        writers.push(tokio::spawn(async move {
            let service = json!({
                "metadata": {"name": format!("s{i}")},
                "spec": {"clusterIP": "10.96.7.7", "ports": [{"port": 80}]},
            });
            bench.post("/api/v1/namespaces/default/services", &service).await.0
        }));
    }
    let mut won = 0;
    for writer in writers {
        won += usize::from(writer.await.unwrap() == StatusCode::CREATED);
    }
    assert_eq!(won, 1);
    let (_, list) = bench.get("/api/v1/namespaces/default/services").await;
    let holder =
        list["items"].as_array().unwrap().iter().find(|s| s["spec"]["clusterIP"] == "10.96.7.7").unwrap();
    let name = holder["metadata"]["name"].as_str().unwrap();
    bench.call("DELETE", &format!("/api/v1/namespaces/default/services/{name}"), None).await;
    let again =
        json!({"metadata": {"name": "again"}, "spec": {"clusterIP": "10.96.7.7", "ports": [{"port": 80}]}});
    assert_eq!(bench.post("/api/v1/namespaces/default/services", &again).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn nobody_grants_more_than_they_hold() {
    let bench = Bench::start().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = |name: &str, rules: Value| json!({"metadata": {"name": name}, "rules": rules});
    let own = json!([
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["create"]},
    ]);
    bench.post(&format!("{rbac}/roles"), &role("r", own)).await;
    let binding = json!({
        "metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "eve"}],
    });
    assert_eq!(bench.post(&format!("{rbac}/rolebindings"), &binding).await.0, StatusCode::CREATED);
    let less = role("less", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]));
    let more = role("more", json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]));
    let eve = bench.as_user("eve", &[]);
    assert_eq!(eve.post(&format!("{rbac}/roles"), &less).await.0, StatusCode::CREATED);
    assert_eq!(eve.post(&format!("{rbac}/roles"), &more).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_kubelet_sees_its_own_pods_secrets_only() {
    let bench = Bench::start().await;
    bench.account("default").await;
    for name in ["mine", "other"] {
        bench.post("/api/v1/namespaces/default/secrets", &json!({"metadata": {"name": name}})).await;
    }
    let mut mine = pod("p");
    mine["spec"]["nodeName"] = "n1".into();
    mine["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "mine"}}]);
    assert_eq!(bench.post("/api/v1/namespaces/default/pods", &mine).await.0, StatusCode::CREATED);
    let kubelet = bench.as_user("system:node:n1", &["system:nodes"]);
    let secrets = "/api/v1/namespaces/default/secrets";
    assert_eq!(kubelet.get(&format!("{secrets}/mine")).await.0, StatusCode::OK);
    assert_eq!(kubelet.get(&format!("{secrets}/other")).await.0, StatusCode::FORBIDDEN);
    assert_eq!(kubelet.get(secrets).await.0, StatusCode::FORBIDDEN);
    assert_eq!(kubelet.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await.0, StatusCode::OK);
    assert_eq!(kubelet.get("/api/v1/pods").await.0, StatusCode::FORBIDDEN);
    let stranger = bench.as_user("system:node:n2", &["system:nodes"]);
    assert_eq!(stranger.get(&format!("{secrets}/mine")).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_binding_puts_a_pod_on_a_node_once() {
    let bench = Bench::start().await;
    bench.account("default").await;
    bench.post("/api/v1/namespaces/default/pods", &pod("p")).await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let path = "/api/v1/namespaces/default/pods/p/binding";
    assert_eq!(bench.post(path, &binding).await.0, StatusCode::CREATED);
    assert_eq!(bench.post(path, &binding).await.0, StatusCode::CONFLICT);
    let (_, bound) = bench.get("/api/v1/namespaces/default/pods/p").await;
    assert_eq!(bound["spec"]["nodeName"], "n");
    let scheduled =
        bound["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "PodScheduled");
    assert_eq!(scheduled.unwrap()["status"], "True");
}

#[tokio::test]
async fn a_token_dies_with_the_pod_it_is_bound_to() {
    let bench = Bench::start().await;
    bench.account("default").await;
    bench.post("/api/v1/namespaces/default/pods", &pod("p")).await;
    let request = json!({"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}}});
    let (code, made) = bench.post("/api/v1/namespaces/default/serviceaccounts/default/token", &request).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let token = made["status"]["token"].as_str().unwrap();
    let (code, _) = bench.with_token(token, "/api/v1/namespaces/default/pods").await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    bench.call("DELETE", "/api/v1/namespaces/default/pods/p?gracePeriodSeconds=0", None).await;
    let (code, _) = bench.with_token(token, "/api/v1/namespaces/default/pods").await;
    assert_eq!(code, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_custom_resource_is_served_and_goes_with_its_definition() {
    let bench = Bench::start().await;
    let definition = json!({
        "metadata": {"name": "foos.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    });
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (code, made) = bench.post(crds, &definition).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let foos = "/apis/example.com/v1/namespaces/default/foos";
    bench.until(foos, StatusCode::OK).await;
    let (code, made) = bench.post(foos, &json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a"}, "spec": {"x": 1}})).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let (_, list) = bench.get(foos).await;
    assert_eq!((&list["kind"], &list["items"][0]["kind"]), (&json!("FooList"), &json!("Foo")));
    let (code, _) = bench.call("DELETE", &format!("{crds}/foos.example.com"), None).await;
    assert_eq!(code, StatusCode::OK);
    bench.until(foos, StatusCode::NOT_FOUND).await;
    bench.until(&format!("{crds}/foos.example.com"), StatusCode::NOT_FOUND).await;
}

#[tokio::test]
async fn a_watch_resumes_where_it_left_and_sees_selectors_as_borders() {
    use futures::{StreamExt, TryStreamExt};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
    let bench = Bench::start().await;
    let api: Api<ConfigMap> = Api::namespaced(bench.client(), "default");
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "a", "labels": {"on": "1"}}})).unwrap();
    let made = api.create(&PostParams::default(), &map).await.unwrap();
    let from = made.metadata.resource_version.clone().unwrap();
    for on in [Some("0"), Some("1"), None] {
        let patch = json!({"metadata": {"labels": {"on": on}}});
        api.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }
    let parameters = WatchParams::default().labels("on=1").timeout(5);
    let events = api.watch(&parameters, &from).await.unwrap();
    let events: Vec<WatchEvent<ConfigMap>> = events.take(3).try_collect().await.unwrap();
    assert!(matches!(events[0], WatchEvent::Deleted(_)));
    assert!(matches!(events[1], WatchEvent::Added(_)));
    assert!(matches!(events[2], WatchEvent::Deleted(_)));
}

#[tokio::test]
async fn anonymous_callers_learn_little() {
    let bench = Bench::start().await;
    assert_eq!(bench.anonymous("/healthz").await, StatusCode::OK);
    assert_eq!(bench.anonymous("/version").await, StatusCode::OK);
    for path in ["/api", "/metrics", "/api/v1/secrets", "/bogus"] {
        assert_eq!(bench.anonymous(path).await, StatusCode::FORBIDDEN, "{path}");
    }
}

#[tokio::test]
async fn eviction_asks_the_disruption_budget() {
    let bench = Bench::start().await;
    bench.account("default").await;
    let mut guarded = pod("p");
    guarded["metadata"]["labels"] = json!({"app": "x"});
    guarded["spec"]["nodeName"] = "n".into();
    bench.post("/api/v1/namespaces/default/pods", &guarded).await;
    let running =
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let (code, _) = bench.patch("/api/v1/namespaces/default/pods/p/status", "merge", &running).await;
    assert_eq!(code, StatusCode::OK);
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    bench.post(budgets, &budget).await;
    let eviction = json!({"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "p"}});
    let path = "/api/v1/namespaces/default/pods/p/eviction";
    assert_eq!(bench.post(path, &eviction).await.0, StatusCode::TOO_MANY_REQUESTS);
    let status = json!({"status": {"disruptionsAllowed": 1, "observedGeneration": 1, "currentHealthy": 1, "desiredHealthy": 0, "expectedPods": 1}});
    let (code, said) = bench.patch(&format!("{budgets}/b/status"), "merge", &status).await;
    assert_eq!(code, StatusCode::OK, "{said}");
    assert_eq!(bench.post(path, &eviction).await.0, StatusCode::CREATED);
    let (_, evicted) = bench.get("/api/v1/namespaces/default/pods/p").await;
    assert!(evicted["metadata"]["deletionTimestamp"].is_string());
}

const EXEC: &str = "POST /api/v1/namespaces/default/pods/p/exec?command=sh&stdin=true&stdout=true HTTP/1.1\r\n\
    Host: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nAuthorization: Bearer secret\r\n\r\n";

#[tokio::test]
async fn an_upgrade_is_piped_byte_for_byte() {
    let kubelet = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Line: {line}\r\n\r\n";
    let site = Site::with_kubelet(kubelet).await;
    let mut stream = site.connect().await;
    stream.write_all(EXEC.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.contains("POST /exec/default/p/c?command=sh&input=1&output=1 HTTP/1.1"), "{head}");
    stream.write_all(b"\x80\x03\x00\x01ping").await.unwrap();
    let mut echo = [0; 8];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"\x80\x03\x00\x01ping");
}

#[tokio::test]
async fn an_upgrade_that_is_not_granted_is_answered_and_closed() {
    let kubelet = "HTTP/1.1 302 Found\r\nLocation: https://10.0.0.1/\r\nContent-Length: 2\r\n\r\nno";
    let site = Site::with_kubelet(kubelet).await;
    let mut stream = site.connect().await;
    stream.write_all(EXEC.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    // The end of the stream is what is waited for; how it ends is the peer's affair.
    let _ =
        tokio::time::timeout(std::time::Duration::from_secs(10), stream.read_to_end(&mut all)).await.unwrap();
    let text = String::from_utf8(all).unwrap();
    assert!(text.starts_with("HTTP/1.1 302") && text.ends_with("no"), "{text}");
}

#[tokio::test]
async fn logs_come_from_the_kubelet() {
    let site =
        Site::with_kubelet("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello")
            .await;
    let mut stream = site.connect().await;
    let ask = "GET /api/v1/namespaces/default/pods/p/log?tailLines=5 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    let text = String::from_utf8(all).unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("hello"), "{text}");
}

#[tokio::test]
async fn managers_share_an_object_by_applying() {
    let bench = Bench::start().await;
    let map = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data});
    let path = |manager: &str| format!("/api/v1/namespaces/default/configmaps/c?fieldManager={manager}");
    let (code, _) = bench.apply(&path("m1"), &map(json!({"a": "1", "b": "1"}))).await;
    assert_eq!(code, StatusCode::CREATED);
    let (code, refused) = bench.apply(&path("m2"), &map(json!({"a": "2"}))).await;
    assert_eq!((code, &refused["details"]["causes"][0]["field"]), (StatusCode::CONFLICT, &json!(".data.a")));
    let (code, _) = bench.apply(&format!("{}&force=true", path("m2")), &map(json!({"a": "2"}))).await;
    assert_eq!(code, StatusCode::OK);
    let (_, left) = bench.apply(&path("m1"), &map(json!({}))).await;
    assert_eq!(left["data"], json!({"a": "2"}));
}
