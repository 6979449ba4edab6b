//! Clusters with IPv6: one of both families, then one of IPv6 alone. `SKEP_FAMILIES=dual` or `ipv6` brings up
//! one of them only.

use std::process::ExitCode;

use skep_test_lab::cases;
use skep_test_lab::suite::{Case, run_with};

#[path = "families/balancer.rs"]
mod balancer;
#[path = "families/both.rs"]
mod both;
#[path = "families/each.rs"]
mod each;

fn main() -> ExitCode {
    let asked = std::env::var("SKEP_FAMILIES").unwrap_or_default();
    let of_both: &[Case] = cases![
        both::nodes_have_addresses_and_ranges_of_both_families,
        both::a_pod_knows_its_addresses_of_both_families,
        each::pods_answer_each_other_on_every_node,
        each::nodes_and_their_pods_answer_each_other,
        each::a_service_is_answered_by_every_replica,
        both::a_service_gains_and_loses_its_second_family,
        both::headless_services_have_addresses_of_both_families,
        each::names_have_addresses_of_the_services_families,
        each::pods_reach_the_api_through_its_service,
        each::large_answers_cross_the_tunnel,
        each::probes_logs_exec_and_port_forward_work,
        balancer::announced_addresses_of_each_family_answer_their_neighbours,
    ];
    let of_one: &[Case] = cases![
        each::pods_answer_each_other_on_every_node,
        each::nodes_and_their_pods_answer_each_other,
        each::a_service_is_answered_by_every_replica,
        each::names_have_addresses_of_the_services_families,
        each::pods_reach_the_api_through_its_service,
        each::large_answers_cross_the_tunnel,
        each::probes_logs_exec_and_port_forward_work,
        balancer::announced_addresses_of_each_family_answer_their_neighbours,
    ];
    for (families, cases) in [("dual", of_both), ("ipv6", of_one)] {
        if !asked.is_empty() && asked != families {
            continue;
        }
        eprintln!("cluster of {families}");
        let done = run_with("skepfam", &["--nodes", "2", "--ip-family", families], cases);
        if done != ExitCode::SUCCESS {
            return done;
        }
    }
    ExitCode::SUCCESS
}
