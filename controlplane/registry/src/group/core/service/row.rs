//! A Service's table row.

use jiff::Timestamp;
use serde_json::Value;

use crate::field::{int, items, text};
use crate::row;

/// The cells of the service columns.
pub(super) fn cells(service: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &service["spec"];
    let address =
        items(spec, &["clusterIPs"]).first().and_then(Value::as_str).unwrap_or(text(spec, &["clusterIP"]));
    vec![
        row::name(service),
        text(spec, &["type"]).into(),
        row::or_none(address),
        external(service).into(),
        row::or_none(&ports(spec)),
        row::age(service, now),
        row::labels(spec.get("selector")),
    ]
}

fn external(service: &Value) -> String {
    let spec = &service["spec"];
    let mut all: Vec<&str> = Vec::new();
    match text(spec, &["type"]) {
        "ExternalName" => return text(spec, &["externalName"]).to_owned(),
        "LoadBalancer" => {
            all.extend(items(service, &["status", "loadBalancer", "ingress"]).iter().map(|i| {
                let ip = text(i, &["ip"]);
                if ip.is_empty() { text(i, &["hostname"]) } else { ip }
            }));
            all.extend(items(spec, &["externalIPs"]).iter().filter_map(Value::as_str));
            if all.is_empty() {
                return "<pending>".to_owned();
            }
        }
        _ => all.extend(items(spec, &["externalIPs"]).iter().filter_map(Value::as_str)),
    }
    if all.is_empty() { "<none>".to_owned() } else { all.join(",") }
}

fn ports(spec: &Value) -> String {
    let one = |port: &Value| {
        let (number, protocol) = (int(port, &["port"]).unwrap_or(0), text(port, &["protocol"]));
        match int(port, &["nodePort"]).unwrap_or(0) {
            0 => format!("{number}/{protocol}"),
            node => format!("{number}:{node}/{protocol}"),
        }
    };
    items(spec, &["ports"]).iter().map(one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shows_node_ports_and_pending_balancers() {
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]}});
        assert_eq!(external(&service), "<pending>");
        assert_eq!(ports(&service["spec"]), "80:30080/TCP");
    }
}
