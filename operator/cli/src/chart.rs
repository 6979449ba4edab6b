//! The chart: rendered in process from the same files that Helm reads, with its typed values.
//!
//! Templates may use what `gotmpl` and Helm share: actions, `range`, `if`, `quote`, `default`.

mod balancing;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use gotmpl::{FuncMap, MissingKey, Template as Engine, Value as Dot};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::terminal::print;

macro_rules! chart_files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../charts/skep/", $name)))),*]
    };
}

/// Applied first and not rendered, as Helm does with `crds/`.
const CRDS: [(&str, &str); 3] = chart_files![
    "crds/nodeendpoints.yaml",
    "crds/loadbalancerippools.yaml",
    "crds/l2announcementpolicies.yaml",
];
const TEMPLATES: [(&str, &str); 5] = chart_files![
    "templates/rbac.yaml",
    "templates/agent.yaml",
    "templates/proxy.yaml",
    "templates/operator.yaml",
    "templates/dns.yaml",
];
const DEFAULTS: &str = include_str!("../../../charts/skep/values.yaml");

/// The chart's values; `values.schema.json` says the same to Helm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Values {
    /// The API server's direct address.
    pub(crate) api_server: ApiServer,
    /// The pods' range, or one a family with a comma between.
    pub(crate) cluster_cidr: String,
    /// The Services' range, likewise.
    pub(crate) service_cidr: String,
    /// The cluster's DNS.
    pub(crate) dns: Dns,
    /// How pods of different nodes reach each other.
    pub(crate) routing: Routing,
    /// How Services are balanced.
    pub(crate) load_balancer: balancing::LoadBalancer,
    /// Addresses for Services of type LoadBalancer.
    pub(crate) lbipam: Lbipam,
    /// Announcements of these addresses.
    pub(crate) l2: L2,
    /// Where the images come from.
    pub(crate) image: Image,
    /// Digests of the images, so that a changed image rolls its pods. May be empty.
    pub(crate) digests: Digests,
}

/// Never the Service address: the agent is what makes that one work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApiServer {
    /// Host name or address.
    pub(crate) host: String,
    /// Port.
    pub(crate) port: u16,
}

/// The cluster's DNS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Dns {
    /// Whether node DNS serves the kube-dns Service.
    pub(crate) enabled: bool,
    /// The Service's addresses, inside the Services' ranges: one, or one a family.
    pub(crate) cluster_ips: Vec<String>,
    /// The cluster's domain.
    pub(crate) domain: String,
}

/// Routing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Routing {
    /// The mode.
    pub(crate) mode: RoutingMode,
}

/// How pods of different nodes reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RoutingMode {
    /// VXLAN.
    Overlay,
}

/// Addresses for Services of type LoadBalancer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Lbipam {
    /// Whether Services without a class get addresses too.
    pub(crate) default_class: bool,
}

/// Announcements of the addresses of Services on the local network; times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct L2 {
    /// Whether nodes announce.
    pub(crate) enabled: bool,
    /// How long a Lease holds.
    pub(crate) lease_duration: u32,
    /// How often it is renewed.
    pub(crate) lease_renew: u32,
    /// When a renewal that failed is repeated.
    pub(crate) lease_retry: u32,
}

/// Where images come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Image {
    /// What comes before the name of each image.
    pub(crate) repository: String,
    /// The tag.
    pub(crate) tag: String,
    /// When to pull.
    pub(crate) pull_policy: String,
}

/// Digests of the images.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Digests {
    /// Of the agent's.
    pub(crate) agent: String,
    /// Of the proxy's.
    pub(crate) proxy: String,
    /// Of the operator's.
    pub(crate) operator: String,
}

/// Options of `skep template`.
#[derive(Debug, clap::Args)]
pub(crate) struct Template {
    /// A file with values; the chart's own where it says nothing.
    #[arg(long, short)]
    pub(crate) values: Option<PathBuf>,
    /// The API server's direct address.
    #[arg(long)]
    pub(crate) api_server_host: Option<String>,
}

/// Prints the rendered chart.
pub(crate) fn template(options: &Template) -> Result<()> {
    let mut values = parse::<Value>(DEFAULTS)?;
    if let Some(path) = &options.values {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        merge(&mut values, parse(&text).with_context(|| format!("{}", path.display()))?);
    }
    let mut values: Values = serde_json::from_value(values).context("the values do not fit the chart")?;
    if let Some(host) = &options.api_server_host {
        values.api_server.host.clone_from(host);
    }
    for document in render(&values)? {
        print(&format!("---\n{}", serde_yaml_ng::to_string(&document)?.trim_end()));
    }
    Ok(())
}

/// The chart's own values.
pub(crate) fn defaults() -> Result<Values> {
    parse(DEFAULTS)
}

/// The chart's objects, the ones that others depend on first.
pub(crate) fn render(values: &Values) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for (name, text) in CRDS {
        objects.extend(documents(text).with_context(|| name.to_owned())?);
    }
    let dot = to_dot(&json!({
        "Values": values,
        "Release": {"Name": "skep", "Namespace": "kube-system"},
        "Chart": {"Name": "skep", "Version": env!("CARGO_PKG_VERSION"), "AppVersion": env!("CARGO_PKG_VERSION")},
    }));
    for (name, text) in TEMPLATES {
        let engine = Engine::new(name).funcs(functions()).missing_key(MissingKey::Error);
        let rendered = engine.parse(text).and_then(|engine| engine.execute_to_string(&dot));
        let rendered = rendered.with_context(|| format!("cannot render {name}"))?;
        objects.extend(documents(&rendered).with_context(|| format!("{name} renders to something else"))?);
    }
    objects.sort_by_key(|object| rank(object["kind"].as_str().unwrap_or_default()));
    Ok(objects)
}

fn rank(kind: &str) -> usize {
    const ORDER: [&str; 8] = [
        "Namespace",
        "CustomResourceDefinition",
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "ConfigMap",
    ];
    ORDER.iter().position(|known| *known == kind).unwrap_or(ORDER.len())
}

/// The objects of a file of YAML documents.
pub(crate) fn documents(text: &str) -> Result<Vec<Value>> {
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    let values: Result<Vec<Value>, _> = documents.map(Value::deserialize).collect();
    Ok(values?.into_iter().filter(|value| !value.is_null()).collect())
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_yaml_ng::from_str(text).context("the values do not fit the chart")
}

fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

fn functions() -> FuncMap {
    let mut functions = FuncMap::new();
    functions.insert(
        "quote".into(),
        Arc::new(|arguments: &[Dot]| {
            let text = arguments.first().map(ToString::to_string).unwrap_or_default();
            Ok(Dot::String(Value::from(text).to_string().into()))
        }),
    );
    functions.insert(
        "default".into(),
        Arc::new(|arguments: &[Dot]| {
            let given = arguments.get(1).filter(|value| gotmpl::is_true(value));
            Ok(given.or(arguments.first()).cloned().unwrap_or(Dot::Nil))
        }),
    );
    functions
}

fn to_dot(value: &Value) -> Dot {
    match value {
        Value::Null => Dot::Nil,
        Value::Bool(flag) => Dot::Bool(*flag),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| Dot::Float(number.as_f64().unwrap_or_default()), Dot::Int)
        }
        Value::String(text) => Dot::String(text.as_str().into()),
        Value::Array(items) => Dot::List(items.iter().map(to_dot).collect()),
        Value::Object(fields) => Dot::Map(Arc::new(
            fields.iter().map(|(key, value)| (key.as_str().into(), to_dot(value))).collect(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../charts/skep")
    }

    #[test]
    fn embeds_every_file_of_the_chart() {
        let known: Vec<&str> = CRDS.iter().chain(&TEMPLATES).map(|(name, _)| *name).collect();
        for folder in ["crds", "templates"] {
            for entry in std::fs::read_dir(chart().join(folder)).unwrap() {
                let name = format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap());
                assert!(
                    known.contains(&name.as_str()) || name.ends_with("NOTES.txt"),
                    "{name} is not embedded"
                );
            }
        }
    }

    /// `BLESS=1` writes the file anew after a change of the type.
    #[test]
    fn the_definitions_in_the_chart_are_the_types_in_the_code() {
        for definition in skep_api::definitions() {
            let path = chart().join(format!("crds/{}.yaml", definition.spec.names.plural));
            let wanted = serde_json::to_value(&definition).unwrap();
            if std::env::var_os("BLESS").is_some() {
                std::fs::write(&path, serde_yaml_ng::to_string(&wanted).unwrap()).unwrap();
            }
            assert_eq!(documents(&std::fs::read_to_string(&path).unwrap()).unwrap(), [wanted]);
        }
    }

    #[test]
    fn renders_objects_with_kind_and_name_crds_first() {
        let objects = render(&defaults().unwrap()).unwrap();
        assert!(
            objects.iter().all(|object| object["kind"].is_string() && object["metadata"]["name"].is_string())
        );
        assert_eq!(objects[0]["kind"], "CustomResourceDefinition");
    }

    #[test]
    fn a_changed_image_changes_its_pods_only() {
        let mut values = defaults().unwrap();
        values.digests.agent = "sha256:ab".into();
        let (before, after) = (render(&defaults().unwrap()).unwrap(), render(&values).unwrap());
        let changed: Vec<&Value> =
            before.iter().zip(&after).filter(|(a, b)| a != b).map(|(a, _)| &a["metadata"]["name"]).collect();
        assert_eq!(changed, ["skep-agent"]);
    }

    #[test]
    fn a_cluster_of_two_families_has_its_dns_in_both() {
        let mut values = defaults().unwrap();
        values.dns.cluster_ips = vec!["10.96.0.10".into(), "fd00:96::a".into()];
        let objects = render(&values).unwrap();
        let find = |name: &str| objects.iter().find(|object| object["metadata"]["name"] == name).unwrap();
        assert_eq!(find("kube-dns")["spec"]["clusterIPs"], json!(["10.96.0.10", "fd00:96::a"]));
        assert_eq!(find("kube-dns")["spec"]["ipFamilyPolicy"], "RequireDualStack");
        let proxies = objects
            .iter()
            .find(|object| object["kind"] == "DaemonSet" && object["metadata"]["name"] == "skep-proxy");
        let proxy = &proxies.unwrap()["spec"]["template"]["spec"]["containers"][0]["command"];
        let told = proxy.as_array().unwrap().contains(&json!("--dns-address=10.96.0.10,fd00:96::a"));
        assert!(told, "{proxy}");
    }

    #[test]
    fn the_schema_names_the_values_and_no_others() {
        let schema: Value =
            serde_json::from_str(&std::fs::read_to_string(chart().join("values.schema.json")).unwrap())
                .unwrap();
        same_names(&schema, &serde_json::to_value(defaults().unwrap()).unwrap());
    }

    fn same_names(schema: &Value, value: &Value) {
        let Some(fields) = value.as_object() else { return };
        let properties = schema["properties"].as_object().unwrap();
        let (mut named, mut there): (Vec<_>, Vec<_>) = (properties.keys().collect(), fields.keys().collect());
        named.sort();
        there.sort();
        assert_eq!(named, there);
        assert_eq!(schema["additionalProperties"], false);
        fields.iter().for_each(|(name, value)| same_names(&properties[name], value));
    }

    #[test]
    fn an_unknown_value_is_refused() {
        assert!(parse::<Values>(&format!("{DEFAULTS}\nsurprise: 1\n")).is_err());
    }
}
