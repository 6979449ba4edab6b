//! Services of one and of two address families.

use http::StatusCode;
use serde_json::{Value, json};

use crate::bench::Bench;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const DUAL: &str = "10.96.0.0/16,fd00:96::/112";

fn service(name: &str, spec: &Value) -> Value {
    let mut service =
        json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        service["spec"][field] = value.clone();
    }
    service
}

async fn taken(bench: &Bench) -> Vec<String> {
    let (_, list) = bench.get("/apis/networking.k8s.io/v1/ipaddresses").await;
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_service_is_upgraded_and_downgraded_and_its_addresses_follow() {
    let bench = Bench::with_services(DUAL).await;
    let (code, made) = bench.post(SERVICES, &service("s", &json!({}))).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(made["spec"]["ipFamilyPolicy"], "SingleStack");
    let first = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let path = format!("{SERVICES}/s");
    let (code, upgraded) =
        bench.patch(&path, "merge", &json!({"spec": {"ipFamilyPolicy": "PreferDualStack"}})).await;
    assert_eq!(code, StatusCode::OK, "{upgraded}");
    assert_eq!(upgraded["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!(upgraded["spec"]["clusterIPs"][0], first);
    let second = upgraded["spec"]["clusterIPs"][1].as_str().unwrap().to_owned();
    assert!(second.starts_with("fd00:96::"), "{second}");
    assert!(taken(&bench).await.contains(&second));
    let (code, downgraded) =
        bench.patch(&path, "merge", &json!({"spec": {"ipFamilyPolicy": "SingleStack"}})).await;
    assert_eq!(code, StatusCode::OK, "{downgraded}");
    assert_eq!(downgraded["spec"]["clusterIPs"], json!([first]));
    assert!(!taken(&bench).await.contains(&second));
    bench.call("DELETE", &path, None).await;
    assert!(!taken(&bench).await.contains(&first));
}

#[tokio::test]
async fn the_second_address_is_released_only_on_request() {
    let bench = Bench::with_services(DUAL).await;
    let (_, made) = bench.post(SERVICES, &service("s", &json!({"ipFamilyPolicy": "RequireDualStack"}))).await;
    let first = made["spec"]["clusterIP"].clone();
    let path = format!("{SERVICES}/s");
    let shrink = json!({"spec": {"clusterIPs": [first], "ipFamilies": ["IPv4"]}});
    let (code, refused) = bench.patch(&path, "merge", &shrink).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    assert_eq!(refused["details"]["causes"][0]["field"], "spec.ipFamilyPolicy");
    let swap = json!({"spec": {"ipFamilies": ["IPv6", "IPv4"]}});
    let (code, refused) = bench.patch(&path, "merge", &swap).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    let (code, labelled) = bench.patch(&path, "merge", &json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!((code, &labelled["spec"]["clusterIPs"]), (StatusCode::OK, &made["spec"]["clusterIPs"]));
}

#[tokio::test]
async fn a_chosen_address_may_be_of_either_family_and_is_held_in_one_spelling() {
    let bench = Bench::with_services(DUAL).await;
    let chosen = json!({"clusterIP": "FD00:96::0ABC"});
    let (code, made) = bench.post(SERVICES, &service("s", &chosen)).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv6"]));
    let (code, refused) = bench.post(SERVICES, &service("t", &json!({"clusterIP": "fd00:96::abc"}))).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("already allocated"), "{refused}");
    let pair = json!({"ipFamilyPolicy": "RequireDualStack", "clusterIPs": ["fd00:96::9", "10.96.0.99"]});
    let (code, made) = bench.post(SERVICES, &service("u", &pair)).await;
    assert_eq!((code, &made["spec"]["clusterIP"]), (StatusCode::CREATED, &json!("fd00:96::9")), "{made}");
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv6", "IPv4"]));
}

#[tokio::test]
async fn one_family_serves_what_it_can_and_refuses_the_rest() {
    let bench = Bench::with_services("fd00:96::/112").await;
    let (_, api) = bench.get(&format!("{SERVICES}/kubernetes")).await;
    assert_eq!(
        (&api["spec"]["clusterIP"], &api["spec"]["ipFamilies"]),
        (&json!("fd00:96::1"), &json!(["IPv6"]))
    );
    let (_, range) = bench.get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes").await;
    assert_eq!(range["spec"]["cidrs"], json!(["fd00:96::/112"]));
    let prefer = json!({"ipFamilyPolicy": "PreferDualStack"});
    let (code, made) = bench.post(SERVICES, &service("s", &prefer)).await;
    assert_eq!((code, &made["spec"]["ipFamilies"]), (StatusCode::CREATED, &json!(["IPv6"])), "{made}");
    for (spec, field) in [
        (json!({"ipFamilyPolicy": "RequireDualStack"}), "spec.ipFamilyPolicy"),
        (json!({"ipFamilies": ["IPv4"]}), "spec.ipFamilies[0]"),
        (json!({"clusterIP": "10.96.0.7"}), "spec.clusterIPs[0]"),
        (json!({"clusterIPs": ["fd00:96::2", "fd00:96::3"], "clusterIP": "fd00:96::2"}), "spec.clusterIPs"),
    ] {
        let (code, refused) = bench.post(SERVICES, &service("t", &spec)).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
        assert_eq!(refused["details"]["causes"][0]["field"], field, "{refused}");
    }
}
