//! A suite: cases in order on one cluster, with cargo's own lines and counts.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use crate::cluster::Cluster;

/// A case: its name states the behaviour.
pub type Case = (&'static str, fn(&Cluster) -> Result<()>);

/// Makes a table of cases from the functions' names.
#[macro_export]
macro_rules! cases {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$((stringify!($name), $module::$name)),*]
    };
}

/// Brings the cluster up, runs the cases, takes it down. The filters are cargo's: parts of names.
pub fn run(prefix: &'static str, cases: &[Case]) -> ExitCode {
    run_with(prefix, &[], cases)
}

/// The same with further arguments of `skep up`.
pub fn run_with(prefix: &'static str, up: &[&str], cases: &[Case]) -> ExitCode {
    let cluster = match Cluster::new(prefix) {
        Ok(cluster) => cluster,
        Err(error) => {
            say(&format!("no free port: {error:#}\ntest result: FAILED. 0 passed; 1 failed; 0 ignored"));
            return ExitCode::FAILURE;
        }
    };
    run_on(&cluster, up, cases)
}

fn run_on(cluster: &Cluster, arguments: &[&str], cases: &[Case]) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("needs root: nodes are made of namespaces, mounts and cgroups");
        say(&format!("test result: ok. 0 passed; 0 failed; {} ignored", cases.len()));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let chosen: Vec<&Case> = cases.iter().filter(|(name, _)| wanted(name)).collect();
    say(&format!("\nrunning {} tests", chosen.len()));
    // A run that was killed leaves its cluster behind.
    let up = cluster.down().and_then(|_| cluster.up(arguments));
    let (mut passed, mut failed) = (0, 0);
    if let Err(error) = up {
        say(&format!("the cluster does not come up: {error:#}"));
        cluster.explain();
        failed = chosen.len();
    } else {
        for (name, case) in chosen {
            let ok = run_one(cluster, name, *case);
            passed += usize::from(ok);
            failed += usize::from(!ok);
        }
    }
    if let Err(error) = cluster.down() {
        say(&format!("the cluster does not go down: {error:#}"));
        failed += 1;
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    say(&format!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored"));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_one(cluster: &Cluster, name: &str, case: fn(&Cluster) -> Result<()>) -> bool {
    let start = Instant::now();
    let result = case(cluster);
    let seconds = start.elapsed().as_secs_f32();
    match result {
        Ok(()) => say(&format!("test {name} ... ok ({seconds:.1} s)")),
        Err(error) => {
            say(&format!("test {name} ... FAILED ({seconds:.1} s)\n{error:#}"));
            cluster.explain();
            return false;
        }
    }
    true
}

/// Cargo's runner and the count read standard output.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
