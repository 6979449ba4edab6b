//! Failures: processes killed, nodes switched off, a bring-up that dies half way.

use std::process::ExitCode;

use skep_test_lab::cases;
use skep_test_lab::suite::{Case, run};

#[path = "lab/lifecycle.rs"]
mod lifecycle;
#[path = "lab/recovery.rs"]
mod recovery;

fn main() -> ExitCode {
    let cases: &[Case] = cases![
        lifecycle::a_second_up_adopts_the_cluster_within_seconds,
        lifecycle::up_refuses_what_differs_from_the_running_cluster,
        recovery::containerd_killed_comes_back_and_pods_live_on,
        recovery::kubelet_killed_comes_back_and_pods_live_on,
        recovery::agent_killed_breaks_no_traffic,
        recovery::proxy_killed_answers_names_again,
        recovery::control_plane_killed_keeps_every_object,
        recovery::a_node_off_leaves_the_workload_answering_and_converges_when_on,
        lifecycle::up_repairs_a_node_that_is_off,
        lifecycle::down_after_a_crash_half_way_leaves_nothing,
        lifecycle::an_etcd_cluster_survives_its_etcd_and_goes_down,
        lifecycle::down_leaves_nothing,
    ];
    run("skeplab", cases)
}
