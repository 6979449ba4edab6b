//! PodTemplates.

use serde_json::Value;

use super::pod_spec;
use crate::field::object;
use crate::path::Path;
use crate::row;
use crate::strategy::Strategy;

pub(crate) static STRATEGY: Strategy = Strategy {
    generation: true,
    default: |t| pod_spec::default::template(object(t, "template")),
    validate: |t, errors| pod_spec::validate_template(&t["template"], &Path::new("template"), errors),
    row: |t, _| {
        let (names, images) = containers(&t["template"]);
        vec![row::name(t), names, images, row::labels(t["template"]["metadata"].get("labels"))]
    },
    ..Strategy::BASE
};

/// The names and the images of a template's containers.
pub(crate) fn containers(template: &Value) -> (Value, Value) {
    let list = crate::field::items(template, &["spec", "containers"]);
    let join = |name: &str| list.iter().map(|c| crate::field::text(c, &[name])).collect::<Vec<_>>().join(",");
    (join("name").into(), join("image").into())
}
