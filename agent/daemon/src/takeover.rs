//! Living beside kube-proxy, and after it. Both may serve a node at once: packets of connections that Skep's programs do
//! not know go on to the stack, where kube-proxy's rules know theirs. This file notices what is there of kube-proxy;
//! [`cleanup`] removes it on request, once it does not run any more.

pub(crate) mod cleanup;

use std::{io, os::fd::AsRawFd, path::Path, time::Duration};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    health::PortState,
    nlmsg::{Attributes, Messages, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, message},
};

/// How often the node is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// Lists all chains of all tables (nfnetlink, subsystem 10).
const GET_CHAIN: u16 = (10 << 8) | 4;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
/// Where the kernel says that IPVS has an address for Services.
const IPVS_DEVICE: &str = "/sys/class/net/kube-ipvs0";

/// What is there of kube-proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KubeProxy {
    /// Whether somebody else holds its health port: it runs.
    pub(crate) holds_port: bool,
    /// Chains of its iptables mode, as far as they can be seen from here.
    pub(crate) chains: usize,
    /// Whether the table of its nftables mode is there.
    pub(crate) has_table: bool,
    /// Whether the device of its IPVS mode is there.
    pub(crate) has_ipvs: bool,
}

impl KubeProxy {
    /// What the operator should know; `None` when nothing is there.
    pub(crate) fn hint(&self) -> Option<String> {
        let mut found = Vec::new();
        if self.chains > 0 {
            found.push(format!("{} KUBE-* chains", self.chains));
        }
        if self.has_table {
            found.push("the nft table kube-proxy".into());
        }
        if self.has_ipvs {
            found.push("the IPVS device kube-ipvs0".into());
        }
        let found = found.join(", ");
        match (self.holds_port, found.is_empty()) {
            (true, _) => Some(
                "kube-proxy still runs here (its health port is taken): both serve Services, no connection breaks; \
                 delete its DaemonSet when you have seen that Skep does"
                    .into(),
            ),
            (false, false) => Some(format!(
                "kube-proxy left {found}: remove them with `kubectl debug node/NODE --profile=sysadmin --image=AGENT-IMAGE -it -- /usr/bin/skep-agent kube-proxy cleanup --root /host` (--dry-run shows what)"
            )),
            (false, true) => None,
        }
    }
}

/// Keeps `found` up to date, for ever.
pub(crate) async fn watch(found: watch::Sender<KubeProxy>, mut port: watch::Receiver<PortState>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = port.changed() => {}
        }
        let holds_port = *port.borrow_and_update() == PortState::Taken;
        let Ok(seen) = tokio::task::spawn_blocking(move || look(holds_port)).await else { return };
        found.send_if_modified(|now| {
            let news = *now != seen;
            if let Some(hint) = seen.hint().filter(|_| news) {
                tracing::info!("{hint}");
            }
            *now = seen;
            news
        });
    }
}

fn look(holds_port: bool) -> KubeProxy {
    let chains = chains().unwrap_or_else(|error| {
        tracing::debug!(%error, "cannot list nftables' chains");
        Vec::new()
    });
    KubeProxy {
        holds_port,
        chains: chains.iter().filter(|(_, chain)| cleanup::is_proxys(chain)).count(),
        has_table: chains.iter().any(|(table, _)| table == cleanup::NFT_TABLE),
        has_ipvs: Path::new(IPVS_DEVICE).exists(),
    }
}

/// Every chain of nftables of every family, those of iptables-nft among them, with its table.
fn chains() -> io::Result<Vec<(String, String)>> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    // nfgenmsg: every family, version 0, no resource.
    let request = message(GET_CHAIN, NLM_F_REQUEST | NLM_F_DUMP, &[0; 4]);
    sendto(fd.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut chains = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for (kind, body) in Messages(buffer.get(..length).unwrap_or_default()) {
            match kind {
                NLMSG_DONE => return Ok(chains),
                NLMSG_ERROR => return Err(io::Error::other("the kernel refuses to list chains")),
                _ => chains.extend(body.get(4..).and_then(chain)),
            }
        }
    }
}

fn chain(attributes: &[u8]) -> Option<(String, String)> {
    let text = |wanted: u16| {
        let value = Attributes(attributes).find(|(kind, _)| *kind == wanted)?.1;
        Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned())
    };
    Some((text(CHAIN_TABLE)?, text(CHAIN_NAME)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_says_what_to_do_next() {
        assert_eq!(KubeProxy::default().hint(), None);
        let running = KubeProxy { holds_port: true, chains: 40, ..KubeProxy::default() };
        assert!(running.hint().unwrap().contains("delete its DaemonSet"));
        let gone = KubeProxy { holds_port: false, has_table: true, ..running };
        let hint = gone.hint().unwrap();
        assert!(
            hint.contains("40 KUBE-* chains, the nft table kube-proxy") && hint.contains("cleanup"),
            "{hint}"
        );
    }
}
