//! Where a proxied request goes: which address, over TLS or not, under which path. Addresses come from the objects of
//! the cluster, never from the client.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde_json::Value;

use crate::context::Context;
use crate::meta;
use crate::state::State;
use crate::status::{ApiError, ApiResult};

const KUBELET_PORT: u16 = 10250;

/// How the backend is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP to a pod.
    Http,
    /// HTTPS to a pod, whose certificate nobody can verify.
    HttpsUnverified,
    /// HTTPS to a kubelet with our identity, verified by the cluster CA.
    Kubelet,
}

/// One backend and what to ask it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Address.
    pub address: SocketAddr,
    /// How.
    pub scheme: Scheme,
    /// Path and query.
    pub path: String,
}

/// Finds the backend of a request; `None` for a pod that is on no node.
pub fn find(state: &Arc<State>, context: &Context) -> ApiResult<Option<Place>> {
    let info = &context.info;
    let name = info.name.as_deref().unwrap_or_default();
    let namespace = info.namespace.as_deref();
    match (info.resource.as_str(), info.subresource.as_deref().unwrap_or_default()) {
        ("nodes", _) => {
            let address = kubelet(state, name.split(':').next().unwrap_or(name))?;
            Ok(Some(Place { address, scheme: Scheme::Kubelet, path: rest_of(context) }))
        }
        ("pods", "proxy") => pod_proxy(state, context, namespace, name).map(Some),
        ("services", _) => service_proxy(state, context, namespace, name).map(Some),
        (_, part) => {
            let pod = state
                .store
                .value("", "pods", namespace, name)
                .ok_or_else(|| ApiError::not_found("", "pods", name))?;
            let path = kubelet_path(context, part, &pod)?;
            let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
            if node.is_empty() {
                return Ok(None);
            }
            Ok(Some(Place { address: kubelet(state, node)?, scheme: Scheme::Kubelet, path }))
        }
    }
}

fn kubelet(state: &State, node: &str) -> ApiResult<SocketAddr> {
    let object =
        state.store.value("", "nodes", None, node).ok_or_else(|| ApiError::not_found("", "nodes", node))?;
    let addresses = object["status"]["addresses"].as_array().into_iter().flatten();
    let internal =
        addresses.into_iter().find(|a| a["type"] == "InternalIP").and_then(|a| a["address"].as_str());
    let ip: IpAddr = internal
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| ApiError::unavailable(format!("node {node} has no internal address yet")))?;
    let port = object["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    let port = port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0).unwrap_or(KUBELET_PORT);
    Ok(SocketAddr::new(ip, port))
}

/// The kubelet's path for a part of a pod.
fn kubelet_path(context: &Context, part: &str, pod: &Value) -> ApiResult<String> {
    let (space, name) = (meta::text(pod, "namespace"), meta::text(pod, "name"));
    let query = &context.query;
    if part == "portforward" {
        let ports: Vec<(&str, String)> =
            query.all("ports").chain(query.all("port")).map(|p| ("port", p.to_owned())).collect();
        return Ok(format!("/portForward/{space}/{name}{}", encode_query(&ports)));
    }
    let container = container(context, pod)?;
    if part == "log" {
        let mut kept = Vec::new();
        for key in [
            "follow",
            "previous",
            "timestamps",
            "sinceSeconds",
            "sinceTime",
            "tailLines",
            "limitBytes",
            "stream",
        ] {
            if let Some(value) = query.text(key) {
                kept.push((key, value.to_owned()));
            }
        }
        check_log_options(context)?;
        return Ok(format!("/containerLogs/{space}/{name}/{container}{}", encode_query(&kept)));
    }
    let mut kept: Vec<(&str, String)> = query.all("command").map(|c| ("command", c.to_owned())).collect();
    if part == "exec" && kept.is_empty() {
        return Err(ApiError::bad_request("you must specify at least 1 command for the container"));
    }
    for (theirs, ours) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.flag(theirs) {
            kept.push((ours, "1".to_owned()));
        }
    }
    Ok(format!("/{part}/{space}/{name}/{container}{}", encode_query(&kept)))
}

fn check_log_options(context: &Context) -> ApiResult<()> {
    for key in ["sinceSeconds", "tailLines", "limitBytes"] {
        if let Some(text) = context.query.text(key) {
            let least = if key == "tailLines" { 0 } else { 1 };
            let number: i64 = text.parse().map_err(|_not_a_number| {
                ApiError::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"))
            })?;
            if number < least {
                let message = format!("Invalid value: {number}: must be greater than or equal to {least}");
                let cause = crate::status::Cause::new("FieldValueInvalid", key, message);
                return Err(ApiError::invalid(
                    "",
                    "PodLogOptions",
                    context.info.name.as_deref().unwrap_or_default(),
                    vec![cause],
                ));
            }
        }
    }
    Ok(())
}

/// The container asked for, which must be the pod's; the only one when none is named.
fn container(context: &Context, pod: &Value) -> ApiResult<String> {
    let name = meta::text(pod, "name");
    let names = |list: &str| -> Vec<&str> {
        pod["spec"][list].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect()
    };
    let main = names("containers");
    if let Some(wanted) = context.query.text("container") {
        let known = ["containers", "initContainers", "ephemeralContainers"]
            .iter()
            .any(|l| names(l).contains(&wanted));
        if !known {
            return Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {name}")));
        }
        return Ok(wanted.to_owned());
    }
    match main.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => Err(ApiError::bad_request(format!("a container name must be specified for pod {name}"))),
        several => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            several.join(" ")
        ))),
    }
}

fn encode_query(pairs: &[(&str, String)]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let text: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}={}", escape(v, ""))).collect();
    format!("?{}", text.join("&"))
}

fn escape(text: &str, keep: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b) || keep.as_bytes().contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The part of the request's path that is the backend's, with the query as the client sent it.
fn rest_of(context: &Context) -> String {
    let rest = context.info.rest.as_deref().unwrap_or_default();
    let slash = if context.info.path.ends_with('/') && !rest.is_empty() { "/" } else { "" };
    let query = context.query.raw();
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    format!("/{}{slash}{query}", escape(rest, "/:@!$&'()*+,;="))
}

/// Splits `[scheme:]name[:port]`.
fn split_name(name: &str) -> (Scheme, &str, &str) {
    let (scheme, rest) = match name.split_once(':') {
        Some(("http", rest)) => (Scheme::Http, rest),
        Some(("https", rest)) => (Scheme::HttpsUnverified, rest),
        _ => (Scheme::Http, name),
    };
    let (name, port) = rest.split_once(':').unwrap_or((rest, ""));
    (scheme, name, port)
}

fn pod_proxy(state: &State, context: &Context, namespace: Option<&str>, name: &str) -> ApiResult<Place> {
    let (scheme, name, port) = split_name(name);
    let pod = state
        .store
        .value("", "pods", namespace, name)
        .ok_or_else(|| ApiError::not_found("", "pods", name))?;
    let address = pod["status"]["podIP"].as_str().unwrap_or_default();
    let own = pod["spec"]["containers"][0]["ports"][0]["containerPort"].as_u64();
    let port = match port {
        "" => own.and_then(|p| u16::try_from(p).ok()).unwrap_or(80),
        text => {
            text.parse().map_err(|_not_a_port| ApiError::bad_request(format!("invalid port {text:?}")))?
        }
    };
    Ok(Place { address: reachable(address, port)?, scheme, path: rest_of(context) })
}

fn service_proxy(state: &State, context: &Context, namespace: Option<&str>, name: &str) -> ApiResult<Place> {
    let (scheme, name, port) = split_name(name);
    let service = state
        .store
        .value("", "services", namespace, name)
        .ok_or_else(|| ApiError::not_found("", "services", name))?;
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let fits = |p: &&Value| port == p["name"] || port.parse::<u64>().is_ok_and(|n| p["port"] == n);
    let chosen = match (port, ports.as_slice()) {
        ("", [only]) => Some(only),
        _ => ports.iter().find(fits),
    };
    let chosen = chosen.ok_or_else(|| {
        ApiError::unavailable(format!("no service port {port:?} found for service {name:?}"))
    })?;
    let wanted = chosen["name"].as_str().unwrap_or_default();
    let slices = state.store.values("discovery.k8s.io", "endpointslices", namespace);
    let mut backends: Vec<(String, u16)> = Vec::new();
    for slice in slices.iter().filter(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == name) {
        let number = slice["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|p| p["name"].as_str().unwrap_or_default() == wanted)
            .and_then(|p| u16::try_from(p["port"].as_u64()?).ok());
        let Some(number) = number else { continue };
        for endpoint in
            slice["endpoints"].as_array().into_iter().flatten().filter(|e| e["conditions"]["ready"] != false)
        {
            backends.extend(endpoint["addresses"][0].as_str().map(|a| (a.to_owned(), number)));
        }
    }
    if backends.is_empty() {
        return Err(ApiError::unavailable(format!("no endpoints available for service {name:?}")));
    }
    let (address, port) = &backends[rand::random_range(0..backends.len())];
    Ok(Place { address: reachable(address, *port)?, scheme, path: rest_of(context) })
}

/// Objects may claim any address; those of the node itself and of the link are refused.
fn reachable(address: &str, port: u16) -> ApiResult<SocketAddr> {
    let ip: IpAddr = address
        .parse()
        .map_err(|_not_an_address| ApiError::unavailable("address not allowed or not known yet"))?;
    // ::ffff:127.0.0.1 is loopback too.
    let ip = ip.to_canonical();
    let forbidden = ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_multicast()
        || matches!(ip, IpAddr::V4(v4) if v4.is_link_local() || v4.is_broadcast())
        || matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if forbidden {
        return Err(ApiError::bad_request("address not allowed"));
    }
    Ok(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_carry_scheme_and_port() {
        assert_eq!(split_name("web"), (Scheme::Http, "web", ""));
        assert_eq!(split_name("web:http"), (Scheme::Http, "web", "http"));
        assert_eq!(split_name("https:web:443"), (Scheme::HttpsUnverified, "web", "443"));
        assert_eq!(split_name("https:web:"), (Scheme::HttpsUnverified, "web", ""));
    }

    #[test]
    fn addresses_of_the_node_itself_are_refused() {
        for bad in ["127.0.0.1", "169.254.169.254", "::1", "fe80::1", "0.0.0.0", "224.0.0.1"] {
            assert!(reachable(bad, 80).is_err(), "{bad}");
        }
        assert!(reachable("10.244.0.5", 80).is_ok());
    }

    #[test]
    fn query_values_are_escaped() {
        assert_eq!(encode_query(&[("command", "a b&c".to_owned())]), "?command=a%20b%26c");
    }
}
