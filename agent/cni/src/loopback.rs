//! The loopback plugin: brings `lo` up in the pod's namespace.

use std::path::Path;

use skep_routing::namespace::Namespace;

use crate::{
    config::{Environment, NetConf, Verb},
    failure::Failure,
    result,
};

/// Serves a verb. DEL has nothing to do: the device goes with its namespace.
pub(crate) async fn run(environment: &Environment, conf: &NetConf) -> Result<Option<String>, Failure> {
    if environment.verb != Verb::Add {
        return Ok(None);
    }
    let namespace = Namespace::open(Path::new(&environment.netns)).map_err(Failure::Loopback)?;
    let up = namespace.run(|netlink| async move { netlink.set_up("lo").await });
    up.await.map_err(Failure::Loopback)?;
    let answer = match &conf.previous {
        Some(previous) => previous.to_string(),
        None => result::loopback(environment, &conf.version),
    };
    Ok(Some(answer))
}
