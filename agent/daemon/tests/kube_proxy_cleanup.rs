//! `skep-agent kube-proxy cleanup` against real iptables and nft, in a network namespace of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::{Command, Output};

/// What kube-proxy and others have written: rules of two variants and families, and its nft tables.
const RULES: &str = r#"
set -e
for save in iptables-legacy ip6tables-legacy iptables-nft ip6tables-nft; do
  $save-restore <<END
*filter
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:MINE - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -m comment --comment "mine, looks like -j KUBE-FORWARD" -j MINE
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-ERIFXISQEP7F7OF4 - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -m comment --comment "default/kubernetes:https \"cluster\" IP" -p tcp -m tcp --dport 443 -j KUBE-SVC-ERIFXISQEP7F7OF4
-A KUBE-SVC-ERIFXISQEP7F7OF4 -j RETURN
COMMIT
END
done
nft add table ip kube-proxy
nft add chain ip kube-proxy services
nft add table ip6 kube-proxy
nft add table inet kube-proxy
nft add table ip mine
"#;

const SHOW: &str = "for save in iptables-legacy ip6tables-legacy iptables-nft ip6tables-nft; do echo \"@$save\"; $save-save; done 2>/dev/null; nft list tables 2>/dev/null";

/// Runs each script one after the other in one fresh namespace; what they print is divided by marks.
fn in_namespace(scripts: &[String]) -> Output {
    let joined = scripts.join("\necho =====\n");
    Command::new("unshare").args(["--net", "sh", "-c", &joined]).output().unwrap()
}

fn missing() -> Option<String> {
    let tools = ["iptables-legacy-save", "iptables-nft-save", "nft", "unshare"];
    let script = tools.map(|tool| format!("command -v {tool} >/dev/null || echo {tool}")).join(";");
    let found = Command::new("sh").args(["-c", &script]).output().unwrap();
    let absent = String::from_utf8_lossy(&found.stdout).split_whitespace().collect::<Vec<_>>().join(", ");
    let allowed =
        Command::new("unshare").args(["--net", "true"]).status().is_ok_and(|status| status.success());
    match (absent.is_empty(), allowed) {
        (false, _) => Some(absent),
        (true, false) => Some("the right to make a network namespace".into()),
        (true, true) => None,
    }
}

/// Lines that say what is there, without counters, dates and default chains.
fn facts(saved: &str) -> Vec<&str> {
    let is_fact = |line: &&str| {
        line.starts_with(['@', '*', '-', 't']) || line.starts_with(":KUBE") || line.starts_with(":MINE")
    };
    saved.lines().filter(is_fact).map(|line| line.split(" [").next().unwrap()).collect()
}

#[test]
fn removes_kube_proxys_rules_and_nothing_else() {
    if let Some(what) = missing() {
        eprintln!("cannot run here: {what} is missing");
        return;
    }
    let agent = env!("CARGO_BIN_EXE_skep-agent");
    let scripts = [
        RULES.to_owned(),
        format!("{SHOW}; {agent} kube-proxy status"),
        format!("{agent} kube-proxy cleanup --dry-run"),
        SHOW.to_owned(),
        format!("{agent} kube-proxy cleanup --root /"),
        SHOW.to_owned(),
        format!("{agent} kube-proxy cleanup"),
        format!("{agent} kube-proxy status"),
    ];
    let done = in_namespace(&scripts);
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}\n{err}");
    let parts: Vec<&str> = out.split("=====\n").collect();
    let (before, dry_run, unchanged, after, again) = (parts[1], parts[2], parts[3], parts[5], parts[6]);
    // Chains of the legacy variant cannot be listed without its tools: three of each family of the other are seen.
    assert!(before.contains(r#""chains":6,"hasTable":true"#), "{before}");
    assert!(parts[7].contains(r#""chains":0,"hasTable":false"#), "{}", parts[7]);
    assert_eq!(facts(before), facts(unchanged), "a dry run changed something");
    assert!(
        dry_run.contains("-X KUBE-SERVICES") && dry_run.contains("nft delete table ip6 kube-proxy"),
        "{dry_run}"
    );
    let is_ours = |line: &&&str| {
        ["KUBE-FORWARD", "KUBE-SERVICES", "KUBE-SVC"].iter().any(|chain| line.contains(chain))
            && !line.contains("looks like")
            || **line == "table ip kube-proxy"
            || **line == "table ip6 kube-proxy"
    };
    let before = facts(before);
    let removed = before.iter().filter(is_ours).count();
    assert_eq!(removed, 4 * 9 + 2, "{before:#?}");
    let left: Vec<&str> = before.iter().filter(|line| !is_ours(line)).copied().collect();
    assert_eq!(facts(after), left, "{err}");
    assert!(again.contains("nothing"), "{again}");
}
