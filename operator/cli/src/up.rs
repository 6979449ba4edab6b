//! `skep up`: a cluster on this machine, from nothing to the demo's first answers. Everything is
//! checked and made only where it is missing, so a second run adopts the cluster and repairs it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::Client;

use crate::chart;
use crate::init::boot::inside;
use crate::lab::address::Families;
use crate::lab::plan::{API_PORT, CONTROL_PLANE_DIR, MAX_NODES, NodeNumber, Plan, Store};
use crate::lab::{disk, machine, network, state};
use crate::terminal::{Steps, count};
use binaries::Changed;
use images::Archive;
use objects::Existing;

pub(crate) mod binaries;
pub(crate) mod demo;
pub(crate) mod farewell;
pub(crate) mod images;
pub(crate) mod objects;
pub(crate) mod preflight;
pub(crate) mod wait;

const START_PATIENCE: Duration = Duration::from_secs(60);
const PODS_PATIENCE: Duration = Duration::from_secs(180);

/// The cluster to bring up.
#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// How many nodes; what is there already by default, else 3.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_NODES)))]
    pub(crate) nodes: Option<u8>,
    /// Where the cluster's state is kept.
    #[arg(long, value_enum)]
    pub(crate) store: Option<Store>,
    /// The cluster's folder.
    #[arg(long, default_value = ".skep")]
    pub(crate) dir: PathBuf,
    /// Folder with skep, skep-controlplane and skep-kubelet; this program's own by default.
    #[arg(long)]
    pub(crate) bin_dir: Option<PathBuf>,
    /// Folder with the image archives; `images` beside the folder with the binaries by default.
    #[arg(long)]
    pub(crate) images_dir: Option<PathBuf>,
    /// The API server's port on the host's loopback.
    #[arg(long)]
    pub(crate) api_port: Option<u16>,
    /// Address families of nodes, pods and Services; those of what is there by default, else IPv4.
    #[arg(long, value_enum, value_name = "FAMILIES")]
    pub(crate) ip_family: Option<Families>,
    /// What every name on this machine starts with, so that several clusters can live side by side.
    #[arg(long)]
    pub(crate) prefix: Option<String>,
    /// Leave the demo out.
    #[arg(long)]
    pub(crate) no_demo: bool,
}

/// Brings the cluster up.
pub(crate) async fn up(options: &Up) -> Result<()> {
    preflight::need_root("up", "nodes are made of namespaces, mounts, cgroups and eBPF programs")?;
    let plan = plan(options)?;
    let bin_dir = options.bin_dir.clone().map_or_else(own_folder, Ok)?;
    let images_dir = options.images_dir.clone().unwrap_or_else(|| bin_dir.join("../images"));
    preflight::need_programs(plan.store)?;
    preflight::need_families(plan.families)?;
    preflight::need_files(&bin_dir, &images_dir)?;
    if machine::init_of(&plan, NodeNumber(1)).is_none() {
        preflight::need_port(plan.api_port)?;
    }
    let archives = images::archives(&images_dir)?;
    let mut steps = Steps::new();
    let changed = boot(&plan, &bin_dir, &mut steps)?;
    let client = control_plane(&plan, &mut steps).await?;
    import(&plan, &archives, &mut steps)?;
    upgrade(&plan, changed)?;
    network_pods(&plan, &client, &archives, &mut steps).await?;
    if !options.no_demo {
        run_demo(&client, &mut steps).await?;
    }
    steps.finish();
    farewell::print_all(&plan, &client, !options.no_demo).await
}

/// What is asked for, on top of what is there.
fn plan(options: &Up) -> Result<Plan> {
    let dir = std::path::absolute(&options.dir)?;
    let there = state::load(&dir)?;
    let is_new = there.is_none();
    let plan = match there {
        None => Plan {
            prefix: options.prefix.clone().unwrap_or_else(|| "skep".into()),
            nodes: options.nodes.unwrap_or(3),
            store: options.store.unwrap_or(Store::Embedded),
            api_port: options.api_port.unwrap_or(API_PORT),
            families: options.ip_family.unwrap_or_default(),
            dir,
        },
        Some(there) => adopt(there, options)?,
    };
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if plan.prefix.is_empty() || !plan.prefix.chars().all(word) {
        bail!("--prefix {:?}: small letters and digits only", plan.prefix);
    }
    if is_new {
        preflight::need_nobody_elses(&plan)?;
    }
    Ok(plan)
}

fn adopt(there: Plan, options: &Up) -> Result<Plan> {
    let other = |what: &str| {
        bail!(
            "the cluster in {} has another {what}: `skep down` it first, or use another --dir",
            there.dir.display()
        )
    };
    if options.store.is_some_and(|store| store != there.store) {
        return other("store");
    }
    if options.api_port.is_some_and(|port| port != there.api_port) {
        return other("API port");
    }
    if options.ip_family.is_some_and(|families| families != there.families) {
        return other("set of address families");
    }
    if options.prefix.as_ref().is_some_and(|prefix| *prefix != there.prefix) {
        return other("prefix");
    }
    if options.nodes.is_some_and(|nodes| nodes < there.nodes) {
        bail!(
            "the cluster has {} nodes: `skep node off NAME` switches one off, `skep down` removes all",
            there.nodes
        );
    }
    Ok(Plan { nodes: options.nodes.unwrap_or(there.nodes), ..there })
}

fn own_folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find this program's folder: give --bin-dir")?;
    program.parent().map(Path::to_owned).context("cannot find this program's folder: give --bin-dir")
}

fn boot(plan: &Plan, bin_dir: &Path, steps: &mut Steps) -> Result<Changed> {
    steps.begin(format!("booting {}", count(plan.nodes.into(), "node")));
    state::save(plan)?;
    let changed = binaries::install(bin_dir, &plan.bin_dir())?;
    network::ensure_router(plan)?;
    let mut booted = Vec::new();
    for node in plan.numbers() {
        if machine::power_on(plan, node)? {
            booted.push(node.name());
        }
    }
    steps.done(match booted.len() {
        0 => format!("{} running already", count(plan.nodes.into(), "node")),
        _ => format!("booted {}", booted.join(", ")),
    });
    Ok(changed)
}

async fn control_plane(plan: &Plan, steps: &mut Steps) -> Result<Client> {
    steps.begin("starting the control plane");
    let folder = plan.root(NodeNumber(1)).join(inside(Path::new(CONTROL_PLANE_DIR)));
    let log = plan.root(NodeNumber(1)).join("var/log/skep/controlplane.log");
    let hint = format!("See {}", log.display());
    let made = folder.join("admin.kubeconfig");
    let look = async || {
        if made.exists() {
            return Ok(wait::Standing::Holds);
        }
        let trouble = machine::trouble_with(plan, NodeNumber(1), "controlplane");
        Ok(wait::Standing::Missing(trouble.unwrap_or_else(|| "no administrator's kubeconfig yet".into())))
    };
    wait::until(steps, START_PATIENCE, "the control plane's start", &hint, look).await?;
    crate::kubeconfig::write_for_host(&made, &plan.kubeconfig(), plan.api_port)?;
    let client = crate::kubeconfig::client(Some(&plan.kubeconfig())).await?;
    let look = async || wait::api_ready(&client).await;
    wait::until(steps, START_PATIENCE, "the control plane's start", &hint, look).await?;
    let look = async || {
        let all =
            plan.numbers().map(|node| disk::hand_out_bootstrap(plan, node)).collect::<Result<Vec<_>>>()?;
        Ok(if all.into_iter().all(|done| done) {
            wait::Standing::Holds
        } else {
            wait::Standing::Missing("no bootstrap credential yet".into())
        })
    };
    wait::until(steps, START_PATIENCE, "the bootstrap credential", &hint, look).await?;
    steps.done(format!("the API answers on https://127.0.0.1:{}", plan.api_port));
    Ok(client)
}

fn import(plan: &Plan, archives: &[Archive], steps: &mut Steps) -> Result<()> {
    steps.begin("importing images");
    let import = |node: NodeNumber| {
        let init = machine::init_of(plan, node).with_context(|| format!("{} is off", node.name()))?;
        images::import(init, archives).with_context(|| format!("on {}", node.name()))
    };
    let counts: Result<Vec<usize>> = std::thread::scope(|scope| {
        let workers: Vec<_> = plan.numbers().map(|node| scope.spawn(move || import(node))).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Result<usize>>| {
            worker.join().unwrap_or_else(|_| bail!("an import ended unexpectedly"))
        };
        workers.into_iter().map(join).collect()
    });
    let imported: usize = counts?.iter().sum();
    steps.done(match imported {
        0 => "images are up to date".to_owned(),
        _ => format!("imported {} images on {}", archives.len(), count(plan.nodes.into(), "node")),
    });
    Ok(())
}

/// New binaries take over in the running nodes; their supervisor starts them again.
fn upgrade(plan: &Plan, changed: Changed) -> Result<()> {
    for node in plan.numbers() {
        let Some(init) = machine::init_of(plan, node) else { continue };
        if changed.control_plane && node.is_first() {
            machine::restart_service(init, "controlplane")?;
        }
        if changed.kubelet {
            machine::restart_service(init, "kubelet")?;
        }
    }
    Ok(())
}

async fn network_pods(plan: &Plan, client: &Client, archives: &[Archive], steps: &mut Steps) -> Result<()> {
    steps.begin("installing agent, proxy and operator");
    let mut values = chart::defaults()?;
    let api_server = SocketAddr::new(plan.families.primary(NodeNumber(1)), values.api_server.port);
    values.api_server.host = in_url(api_server);
    values.cluster_cidr = plan.families.cluster_cidr();
    values.service_cidr = plan.families.service_cidr();
    values.dns.cluster_ips = plan.families.dns().iter().map(ToString::to_string).collect();
    let digest =
        |name: &str| archives.iter().find(|archive| archive.name == name).map(|found| found.digest.clone());
    values.digests = chart::Digests {
        agent: digest("agent").unwrap_or_default(),
        proxy: digest("proxy").unwrap_or_default(),
        operator: digest("operator").unwrap_or_default(),
    };
    let objects = chart::render(&values)?;
    let look = async || {
        objects::apply(client, &objects, Existing::Patch).await?;
        Ok(wait::Standing::Holds)
    };
    let hint = "See `skep status` and the nodes' /var/log/skep";
    wait::until(steps, START_PATIENCE, "applying the chart", hint, look).await?;
    let wanted = usize::from(plan.nodes);
    let look = async || wait::nodes_ready(client, wanted).await;
    wait::until(steps, PODS_PATIENCE, "the nodes' start", hint, look).await?;
    for name in ["skep-agent", "skep-proxy"] {
        let look = async || wait::daemon_set_ready(client, name, i32::from(plan.nodes)).await;
        wait::until(steps, PODS_PATIENCE, "the network's start", hint, look).await?;
    }
    let look = async || wait::deployment_ready(client, "kube-system", "skep-operator").await;
    wait::until(steps, PODS_PATIENCE, "the operator's start", hint, look).await?;
    steps.done(format!("{} Ready, agent and proxy run on each", count(wanted, "node")));
    Ok(())
}

/// The host part of a URL: IPv6 in brackets.
fn in_url(address: SocketAddr) -> String {
    let text = address.to_string();
    text.rsplit_once(':').map_or(text.clone(), |(host, _port)| host.to_owned())
}

async fn run_demo(client: &Client, steps: &mut Steps) -> Result<()> {
    steps.begin("deploying the demo");
    demo::deploy(client).await?;
    for name in ["web", "client"] {
        let look = async || wait::deployment_ready(client, "default", name).await;
        let hint = "See `kubectl describe pods` and `kubectl get events`";
        wait::until(steps, PODS_PATIENCE, "the demo's start", hint, look).await?;
    }
    steps.done("the demo runs: deployments web and client, service web");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Up {
        Up {
            nodes: None,
            store: None,
            dir: ".skep".into(),
            bin_dir: None,
            images_dir: None,
            api_port: None,
            ip_family: None,
            prefix: None,
            no_demo: false,
        }
    }

    fn there() -> Plan {
        let (families, store) = (Families::Ipv4, Store::Embedded);
        Plan { prefix: "skep".into(), nodes: 3, store, api_port: 6443, families, dir: "/d".into() }
    }

    #[test]
    fn a_second_run_adopts_the_cluster_as_it_is() {
        assert_eq!(adopt(there(), &options()).unwrap(), there());
    }

    #[test]
    fn nodes_can_be_added_but_not_taken_away() {
        assert_eq!(adopt(there(), &Up { nodes: Some(5), ..options() }).unwrap().nodes, 5);
        let error = adopt(there(), &Up { nodes: Some(2), ..options() }).unwrap_err().to_string();
        assert!(error.contains("node off"), "{error}");
    }

    #[test]
    fn another_store_needs_a_fresh_cluster() {
        let error = adopt(there(), &Up { store: Some(Store::Etcd), ..options() }).unwrap_err().to_string();
        assert!(error.contains("skep down"), "{error}");
    }

    #[test]
    fn other_families_need_a_fresh_cluster() {
        let asked = Up { ip_family: Some(Families::Dual), ..options() };
        let error = adopt(there(), &asked).unwrap_err().to_string();
        assert!(error.contains("address families"), "{error}");
    }

    #[test]
    fn an_address_in_a_url_has_brackets_where_it_needs_them() {
        assert_eq!(in_url("[fd00:89::11]:6443".parse().unwrap()), "[fd00:89::11]");
        assert_eq!(in_url("10.89.0.11:6443".parse().unwrap()), "10.89.0.11");
    }
}
