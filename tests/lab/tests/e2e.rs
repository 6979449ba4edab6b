//! What a kubectl user does, on a cluster of three nodes with the demo.

use std::process::ExitCode;

use skep_test_lab::cases;
use skep_test_lab::suite::{Case, run};

#[path = "e2e/errors.rs"]
mod errors;
#[path = "e2e/network.rs"]
mod network;
#[path = "e2e/objects.rs"]
mod objects;
#[path = "e2e/pods.rs"]
mod pods;
#[path = "e2e/workload.rs"]
mod workload;

fn main() -> ExitCode {
    let cases: &[Case] = cases![
        network::three_nodes_are_ready_with_address_and_pod_range,
        network::web_is_answered_by_every_replica_on_every_node,
        network::names_of_services_resolve_in_pods,
        network::other_names_fail_at_once_without_a_resolver,
        network::pods_reach_the_api_through_its_service,
        network::status_is_healthy_and_says_so_in_json,
        pods::exec_hands_on_input_output_and_exit_code,
        pods::cp_copies_into_a_pod_and_back,
        pods::logs_show_and_follow_what_a_container_writes,
        pods::port_forward_reaches_a_service,
        pods::describe_and_events_tell_a_pods_story,
        pods::a_pod_sees_its_configuration,
        pods::a_failing_container_is_restarted_and_counted,
        workload::scale_changes_the_number_of_answers,
        workload::rollout_replaces_pods_and_undo_brings_them_back,
        workload::cordon_and_drain_empty_a_node,
        workload::a_taint_keeps_pods_away,
        objects::apply_diff_and_apply_again,
        objects::edit_label_annotate_and_patch_change_objects,
        objects::wait_and_delete_work_together,
        objects::explain_and_can_i_answer,
        errors::a_wrong_type_an_unknown_and_a_missing_field_are_refused,
        errors::a_duplicate_port_is_refused,
        errors::an_image_that_is_not_there_is_said_so,
        errors::an_unschedulable_pod_says_why,
    ];
    run("skepe2e", cases)
}
