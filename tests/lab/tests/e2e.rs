//! What a kubectl user does, on a cluster of three nodes with the demo.

use std::process::ExitCode;

use skep_test_lab::cases;
use skep_test_lab::suite::{Case, run};

#[path = "e2e/errors.rs"]
mod errors;
#[path = "e2e/loadbalancer.rs"]
mod loadbalancer;
#[path = "e2e/network.rs"]
mod network;
#[path = "e2e/objects.rs"]
mod objects;
#[path = "e2e/pods.rs"]
mod pods;
#[path = "e2e/services.rs"]
mod services;
#[path = "e2e/services_change.rs"]
mod services_change;
#[path = "e2e/services_inside.rs"]
mod services_inside;
#[path = "e2e/services_mistakes.rs"]
mod services_mistakes;
#[path = "e2e/services_outside.rs"]
mod services_outside;
#[path = "e2e/services_seen.rs"]
mod services_seen;
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
        services_inside::cluster_ip_balances_tcp_and_udp_for_pods_and_hosts,
        services_inside::ports_of_a_service_lead_to_the_ports_they_name,
        services_inside::headless_names_lead_to_pods_and_to_no_frontend,
        services_inside::external_names_lead_to_names_and_to_no_frontend,
        services_inside::internal_local_is_served_on_the_backends_node_or_not_at_all,
        services_inside::affinity_keeps_a_client_with_its_backend_until_it_was_quiet,
        services_inside::not_ready_addresses_are_served_only_when_published,
        services_inside::a_preferred_node_serves_its_own_clients,
        services_inside::a_pod_reaches_itself_through_its_service,
        services_inside::endpoints_written_by_hand_are_served,
        services_inside::another_services_address_is_no_endpoint,
        services_inside::a_service_of_another_proxy_is_left_alone,
        services_inside::a_backend_on_the_hosts_network_serves_everybody,
        services_outside::node_ports_answer_on_every_node_but_not_on_loopback,
        services_outside::large_answers_and_fragments_pass_the_node_ports,
        services_outside::external_local_keeps_the_clients_address_and_names_its_nodes,
        services_outside::the_health_port_of_kube_proxy_answers_on_every_node,
        services_outside::a_balancer_address_is_given_announced_and_served,
        services_outside::source_ranges_let_in_whom_they_name,
        services_outside::a_host_port_is_a_port_of_the_pods_node,
        services_outside::external_ips_count_for_nothing_unless_allowed,
        loadbalancer::pools_give_addresses_and_count_them,
        loadbalancer::a_new_operator_gives_nobody_another_address,
        loadbalancer::pools_that_overlap_or_reach_into_the_cluster_are_refused,
        loadbalancer::a_service_without_address_is_told_why,
        loadbalancer::services_of_one_key_share_an_address_and_both_are_served,
        loadbalancer::a_removed_pool_takes_its_addresses_along,
        loadbalancer::one_node_announces_an_address_and_keeps_it_over_a_restart,
        loadbalancer::another_node_takes_over_when_the_agent_hangs,
        loadbalancer::an_excluded_node_hands_its_addresses_over_at_once,
        loadbalancer::local_traffic_is_announced_where_the_pods_are,
        loadbalancer::policies_choose_who_announces_what,
        services_mistakes::ports_out_of_range_or_in_use_are_refused,
        services_mistakes::addresses_that_are_nobodys_to_give_are_refused,
        services_mistakes::a_slice_that_names_a_node_is_not_served,
        services_mistakes::the_terminal_names_the_next_step,
        services_seen::services_and_maps_are_shown_as_they_are,
        services_seen::status_shows_how_services_are_balanced,
        services_change::a_terminating_backend_serves_to_its_end,
        services_change::udp_clients_move_on_at_once_when_a_backend_dies,
        services_change::agents_killed_lose_no_connection,
        services_change::programs_and_settings_replaced_lose_no_connection,
        services_change::external_ips_in_an_allowed_range_are_served,
        services_change::direct_return_shows_backends_the_clients_address,
        services_change::xdp_takes_over_without_a_loss,
        services::services_leave_nothing_behind,
    ];
    run("skepe2e", cases)
}
