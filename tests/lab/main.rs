//! Real packets through real iptables, on both backends, in namespaces that the test makes.

mod ahead;
mod blackhole;
mod boot;
mod chance;
mod churn;
mod confirm;
mod counters;
mod damage;
mod diff;
mod doctor;
mod entrances;
mod faults;
mod files;
mod flows;
#[path = "../generate/mod.rs"]
#[expect(dead_code, reason = "of its strategies the lab takes one")]
mod generate;
mod guards;
mod history;
mod invalid;
mod ipv6;
mod ipv6_health;
mod kills;
mod lab;
mod layouts;
mod lifecycle;
mod log;
mod managers;
mod marks;
mod matrix;
mod measure;
mod namespace;
mod no_ipv6;
#[path = "../oracle/mod.rs"]
#[expect(dead_code, reason = "the lab has no use for a second reader")]
mod oracle;
mod overtaken;
mod package;
mod persistence;
mod probe;
mod reach;
mod rehearsal;
mod report;
mod round_trip;
mod scenarios;
mod senders;
mod sharing;
mod shortage;
mod ssh;
mod state;
mod status;
mod survey;
mod sysctl;
mod takeover;
mod traffic;
mod transaction;
mod trial;
mod twin;
mod twin_cause;
mod twin_differential;
mod twin_faults;
mod twin_rules;
mod twin_shortage;
mod unread;
mod upgrade;
mod walk;
mod watch;
mod wire;

use lab::Said;
use namespace::Host;

/// Runs nvactl on a host.
fn nvactl(host: &Host, args: &[&str], stdin: &str) -> Said {
    Said::from(host.feed(env!("CARGO_BIN_EXE_nvactl"), args, stdin))
}

/// One test for each backend.
macro_rules! on_both_backends {
    ($($module:ident :: $behaviour:ident),* $(,)?) => {
        mod nft {
            $(#[test] fn $behaviour() {
                if $crate::namespace::possible() {
                    $crate::$module::$behaviour($crate::lab::Backend::Nft);
                }
            })*
        }
        mod legacy {
            $(#[test] fn $behaviour() {
                if $crate::namespace::possible() {
                    $crate::$module::$behaviour($crate::lab::Backend::Legacy);
                }
            })*
        }
    };
}

on_both_backends! {
    twin::a_copy_does_with_packets_as_the_machine,
    twin::a_doctor_leaves_the_live_machine_as_it_was,
    twin::a_killed_doctor_leaves_nothing_behind,
    twin_shortage::without_the_right_to_make_namespaces_packets_are_unknown,
    twin_shortage::without_nft_packets_are_unknown,
    twin_shortage::without_a_free_thread_packets_are_unknown,
    twin_shortage::a_socket_that_cannot_be_opened_costs_its_own_forward_alone,
    twin_shortage::without_time_for_all_interfaces_packets_are_unknown,
    twin_shortage::of_a_hundred_doctors_nothing_is_left,
    sharing::connections_are_shared_evenly,
    sharing::a_client_keeps_its_pod,
    sharing::a_client_keeps_its_address_of_a_range,
    guards::only_who_is_allowed_and_not_denied_comes_through,
    guards::a_list_keeps_out_whatever_the_policy_is,
    guards::a_list_keeps_out_what_no_rule_accepts,
    guards::what_opens_no_connection_uses_up_no_limit,
    guards::a_list_of_ten_thousand_networks_is_exact,
    guards::a_list_is_about_its_own_forward_only,
    guards::a_list_that_was_tampered_with_shows_at_its_forwards,
    guards::the_datagrams_of_one_sender_are_one_connection,
    guards::of_a_burst_only_what_the_limit_allows_passes,
    guards::each_client_has_a_limit_of_its_own,
    guards::no_more_connections_are_kept_than_allowed,
    guards::a_flood_writes_no_more_lines_than_the_log_allows,
    entrances::a_forward_is_open_where_it_says,
    entrances::a_hairpin_is_reached_from_behind_and_from_the_firewall,
    entrances::each_forward_to_one_target_gives_its_own_source,
    entrances::an_old_kernel_that_cannot_tell_forwards_apart_gets_none_of_them,
    entrances::a_floating_ip_is_no_address_of_the_machine,
    package::a_removal_is_refused_while_a_change_waits,
    package::a_removal_leaves_the_rules_and_says_how_to_remove_them,
    package::a_purge_deletes_all_but_the_specs,
    scenarios::through_an_ilb,
    scenarios::straight_to_a_pod,
    scenarios::two_nics,
    scenarios::the_lab_is_the_same_on_a_router,
    scenarios::udp_is_forwarded,
    scenarios::transit_is_not_hijacked,
    scenarios::equal_ports_do_not_open_the_target,
    scenarios::ranges,
    scenarios::masquerade_hides_the_client,
    scenarios::what_forwards_share_and_say_for_themselves,
    scenarios::the_example_of_everything_is_loaded_as_it_is_planned,
    scenarios::a_listen_address_goes_before_all,
    scenarios::the_snat_address_is_the_one_given,
    matrix::each_way_to_forward_works,
    layouts::the_same_packets_come_through_both,
    layouts::a_change_of_layout_is_told_and_counters_stay,
    layouts::the_layout_of_each_family_is_told_by_apply_and_rollback,
    layouts::where_no_forward_is_loaded_no_layout_changes,
    layouts::what_passes_during_the_trial_is_counted,
    layouts::a_tampered_tree_shows_at_the_forwards_it_holds,
    layouts::a_rule_put_into_a_tree_is_told_with_what_takes_it_out,
    layouts::a_spec_that_is_not_applied_yet_leaves_the_loaded_forwards_in_sync,
    marks::a_foreign_rule_that_writes_nvactl_s_mark_is_named,
    marks::what_writes_the_mark_beside_iptables_is_named,
    lifecycle::the_kernel_gives_back_what_was_rendered,
    round_trip::the_kernel_gives_back_every_form,
    lifecycle::a_second_apply_writes_nothing,
    lifecycle::a_folder_is_found_and_applied,
    lifecycle::a_dry_run_says_what_apply_does,
    lifecycle::foreign_rules_stay_in_their_order,
    lifecycle::remove_leaves_what_was_there_before,
    lifecycle::the_jump_stands_first_and_once,
    lifecycle::a_rule_beside_a_change_keeps_its_counters,
    counters::a_rule_that_moves_keeps_them,
    counters::a_change_that_is_undone_gives_them_back,
    lifecycle::forwards_come_back_after_a_boot,
    boot::what_is_saved_comes_back_at_boot,
    boot::only_persist_changes_what_comes_back,
    boot::while_a_change_waits_nothing_is_saved,
    boot::a_saved_state_that_does_not_load_gives_way_to_the_one_before,
    boot::a_reload_brings_back_only_what_was_flushed,
    boot::nvactl_s_lines_go_from_the_rules_file,
    boot::beside_a_manager_only_the_unit_is_left,
    boot::a_switch_that_cannot_be_set_is_no_reason_to_take_other_rules,
    boot::a_state_that_is_not_trusted_leaves_nothing_open,
    boot::what_a_neighbour_has_flushed_is_not_forgotten,
    boot::what_the_unit_has_loaded_is_what_was_loaded_last,
    boot::ipv6_that_cannot_be_read_stays_saved,
    boot::a_program_that_others_can_replace_is_no_unit_s,
    lifecycle::rules_typed_by_hand_are_named_with_their_removal,
    lifecycle::a_table_that_was_loaded_is_undone_when_the_next_fails,
    lifecycle::what_did_not_take_is_undone,
    lifecycle::what_cannot_be_read_back_is_undone,
    lifecycle::a_table_that_iptables_cannot_show_is_not_taken_for_empty,
    lifecycle::a_report_that_nobody_reads_is_no_reason_to_stop,
    lifecycle::applies_at_once_take_turns,
    overtaken::a_ban_that_the_jump_goes_before_is_named,
    overtaken::a_ban_is_named_although_the_target_moves,
    overtaken::an_exemption_that_the_jump_goes_before_is_named,
    overtaken::the_first_apply_names_a_set_and_a_block,
    overtaken::a_ban_of_ipv6_is_named_as_such,
    trial::a_change_that_would_cut_off_what_works_is_not_made,
    trial::a_rule_of_nft_in_the_way_is_named_before_a_change,
    trial::a_target_that_another_program_leads_to_is_one_that_works,
    trial::one_dead_target_of_several_refuses_no_change,
    trial::a_change_to_the_dead_one_of_two_targets_is_not_made,
    trial::replies_that_leave_elsewhere_are_a_warning,
    trial::a_forward_that_goes_moves_or_narrows_stops_nothing,
    trial::no_trial_stops_a_way_back,
    trial::other_connections_are_opened_anew_before_and_after,
    trial::without_a_copy_of_the_machine_the_rules_are_tried_alone,
    reach::a_forward_that_cannot_work_is_warned_of,
    reach::a_missing_interface_is_told_while_nothing_is_forwarded,
    reach::a_route_for_clients_alone_is_the_one_that_counts,
    reach::a_floating_ip_is_told_until_packets_have_come_for_it,
    reach::many_targets_take_no_more_programs_than_one,
    reach::without_ip_one_note_says_what_was_not_checked,
    lifecycle::a_foreign_rule_that_leads_to_nvactl_is_named,
    lifecycle::without_iptables_it_says_what_is_missing,
    lifecycle::each_program_that_is_run_is_logged_on_request,
    persistence::the_old_file_is_kept_and_the_new_one_is_root_s,
    persistence::a_spec_that_is_not_live_is_refused,
    persistence::a_file_that_would_not_load_never_replaces_one_that_does,
    persistence::rules_made_anew_at_each_start_are_named,
    persistence::remove_tells_of_a_file_that_brings_the_rules_back,
    persistence::foreign_bytes_are_kept,
    persistence::emptiness_is_not_kept,
    persistence::the_same_rules_do_not_push_out_the_backup,
    persistence::the_file_of_the_distribution_is_written,
    persistence::it_tells_whether_the_file_is_loaded_at_boot,
    rehearsal::a_rule_that_needs_an_ipset_is_not_kept,
    rehearsal::a_jump_to_a_missing_chain_does_not_load,
    rehearsal::of_two_files_none_is_written_if_one_does_not_load,
    rehearsal::a_file_that_iptables_refuses_does_not_hold_what_runs,
    rehearsal::a_file_with_commands_holds_what_runs,
    rehearsal::without_a_namespace_the_text_is_read,
    rehearsal::a_file_that_others_wrote_is_only_read,
    transaction::a_rule_that_the_kernel_refuses_is_named_with_its_forward,
    transaction::what_is_there_already_is_not_tried,
    transaction::of_many_rules_only_what_has_changed_is_read_back,
    transaction::each_change_can_be_rolled_back,
    transaction::rolling_back_leaves_a_policy_alone_that_nvactl_never_set,
    transaction::a_change_that_failed_is_not_remembered,
    transaction::the_last_twenty_states_are_kept,
    transaction::what_another_namespace_remembers_is_not_acted_on,
    transaction::without_a_place_for_history_nothing_is_changed,
    transaction::whoever_holds_the_lock_is_named,
    ahead::of_a_bad_spec_no_program_is_left,
    ahead::a_bad_spec_keeps_nobody_waiting,
    ahead::ipv6_rules_that_come_meanwhile_are_seen,
    transaction::a_signal_ends_it_in_one_of_the_two_states,
    transaction::a_failed_undo_leaves_the_script_that_mends_it,
    confirm::without_an_answer_the_old_rules_come_back,
    confirm::an_answer_from_any_session_keeps_the_change,
    confirm::it_can_be_cancelled_at_once,
    confirm::nothing_else_is_changed_while_it_waits,
    confirm::a_change_that_fails_leaves_nothing_to_confirm,
    confirm::the_watchdog_outlives_the_one_who_applies,
    confirm::the_watchdog_outlives_the_terminal,
    confirm::at_a_terminal_it_asks,
    confirm::a_change_that_was_never_made_is_not_waited_for,
    confirm::a_foreign_reference_does_not_keep_it_from_being_undone,
    confirm::an_old_watchdog_leaves_a_later_change_alone,
    flows::what_came_by_an_undone_change_is_ended,
    confirm::a_stopped_apply_does_not_keep_the_lock,
    confirm::it_is_undone_even_where_the_rules_cannot_be_read,
    confirm::what_is_not_made_cannot_be_confirmed,
    confirm::the_one_who_is_asked_learns_who_decided,
    lifecycle::long_work_is_told_at_a_terminal_only,
    confirm::systemd_is_the_watchdog_where_it_runs,
    survey::rules_in_the_other_backend_are_told,
    survey::nvactl_s_own_rules_in_the_other_backend_are_a_reason_to_refuse,
    survey::an_iptables_that_does_not_say_what_it_is_is_not_guessed,
    survey::programs_that_manage_the_machine_are_told,
    flows::stale_connections_are_ended_and_no_others,
    flows::a_confirmed_change_ends_stale_connections,
    senders::a_sender_that_a_local_service_answers_is_named_and_ended,
    senders::a_sender_that_nobody_answers_reaches_the_forward_at_once,
    senders::a_sender_of_ipv6_is_named_and_ended,
    senders::a_service_for_the_other_side_is_healthy,
    senders::only_the_connections_of_who_is_denied_are_ended,
    senders::a_finished_connection_is_not_stale,
    flows::connections_that_would_be_cut_off_are_told,
    flows::without_conntrack_only_flushing_is_refused,
    faults::a_killed_load_leaves_the_old_rules,
    faults::after_a_killed_nvactl_the_next_one_converges,
    faults::the_watchdog_outlives_a_nvactl_killed_at_any_point,
    kills::no_kill_ends_between_two_tables,
    kills::an_orphan_s_words_do_not_end_it,
    kills::a_program_that_outlived_nvactl_is_named,
    kills::a_hung_orphan_does_not_keep_a_change_from_being_undone,
    shortage::without_processes_a_change_is_made_whole_or_not_at_all,
    shortage::without_file_descriptors_a_change_is_made_whole_or_not_at_all,
    shortage::the_watchdog_needs_no_thread,
    shortage::without_a_thread_each_port_is_probed,
    blackhole::a_session_that_went_dark_is_undone,
    ssh::only_a_new_connection_confirms,
    ssh::a_shared_connection_is_not_a_new_one,
    ssh::a_connection_counts_only_below_sshd,
    ssh::a_connection_from_the_machine_itself_is_warned_of,
    log::each_change_and_decision_is_a_line,
    log::a_log_that_takes_nothing_keeps_nobody_waiting,
    faults::whoever_holds_the_xtables_lock_is_waited_for_and_told,
    faults::no_packet_is_lost_or_let_through_while_rules_change,
    confirm::the_watchdog_does_not_need_a_sound_folder,
    confirm::a_slow_load_takes_nothing_from_the_time_to_answer,
    confirm::it_is_undone_by_the_backend_that_loaded_it,
    confirm::an_orphaned_load_is_waited_for,
    confirm::a_change_without_its_watchdog_is_told_of,
    transaction::a_damaged_state_does_not_hide_the_others,
    diff::it_says_what_apply_would_do,
    diff::drift_is_named,
    status::counters_and_connections_agree_with_what_was_sent,
    status::each_state_is_told_by_forward,
    status::rules_of_others_before_a_jump_are_listed_and_no_drift,
    status::a_jump_that_is_missing_doubled_or_behind_a_stop_is_drift,
    status::looking_leaves_no_trace,
    status::what_the_next_boot_brings_is_told,
    probe::each_port_comes_to_what_it_is,
    probe::what_is_expected_is_asked_for,
    probe::many_silent_ports_are_tried_at_once,
    doctor::each_fault_is_named_first,
    doctor::a_fix_of_a_rule_that_stands_twice_takes_both_away,
    doctor::a_machine_without_a_route_to_the_internet_is_told,
    doctor::where_all_is_ipv6_no_address_of_ipv4_is_missed,
    doctor::silent_targets_leave_time_for_the_copy,
    doctor::in_a_sound_lab_nothing_is_named,
    doctor::a_forward_that_nobody_has_reached_is_a_question_for_azure,
    ipv6::both_families_are_forwarded,
    ipv6::the_kernel_gives_back_both_families,
    ipv6::a_spec_of_ipv4_alone_never_calls_ip6tables,
    ipv6::what_ipv6_refuses_is_undone_in_both,
    ipv6::a_failed_undo_names_the_program_of_each_family,
    ipv6::without_ipv6_in_the_spec_its_rules_go,
    ipv6::each_change_of_both_can_be_rolled_back,
    ipv6::without_an_answer_both_come_back,
    ipv6::both_files_are_kept_for_the_boot,
    ipv6::kept_ipv6_rules_go_where_no_table_is_loaded,
    ipv6::remove_takes_out_both,
    ipv6::old_states_are_read,
    ipv6::a_kill_between_the_families_is_mended,
    ipv6::a_machine_without_ip6tables_forwards_ipv4,
    ipv6_health::status_judges_forwards_of_both_families,
    ipv6_health::doctor_walks_the_way_of_both_families,
    ipv6_health::targets_of_both_families_are_probed,
    ipv6_health::stale_connections_of_ipv6_are_ended,
    ipv6_health::the_switch_of_ipv6_is_set_where_it_is_meant,
    walk::both_scenarios_as_readme_has_them,
    unread::a_comment_with_a_line_break_stops_nothing,
    unread::a_rule_that_cannot_be_read_stops_nothing,
    unread::in_nvactl_s_own_chain_it_is_drift,
    unread::what_would_not_load_is_not_kept_for_the_boot,
    unread::a_rate_is_read_as_the_kernel_has_it,
    report::a_change_is_told_by_forward,
    report::programs_read_what_a_change_did,
    report::without_a_spec_the_one_applied_last_counts,
    report::a_kill_between_the_families_is_named,
    report::a_rollback_passes_over_what_changed_nothing,
    report::of_two_rules_files_none_is_written_without_the_other,
    invalid::a_packet_out_of_its_window_ends_a_connection_unless_the_kernel_is_liberal,
    invalid::doctor_warns_while_invalid_packets_come,
    invalid::the_switch_is_kept_beside_forwarding,
    managers::a_flush_at_boot_is_told_unless_nvactl_s_own_unit_comes_behind_it,
    managers::a_program_that_loads_whole_tables_is_told_until_it_brings_nvactl_s_back,
    managers::no_advice_uninstalls_another_manager,
    sysctl::it_is_turned_on_and_off,
    sysctl::a_file_that_systemd_does_not_read_is_no_promise,
    sysctl::turning_off_takes_out_only_the_lines_that_are_meant,
    sysctl::the_file_that_wins_is_the_one_read_last,
    sysctl::every_reader_of_the_files_is_thought_of,
    sysctl::what_cannot_be_kept_is_not_set,
    sysctl::what_is_only_half_done_is_told,
    sysctl::a_switch_that_cannot_be_set_leaves_the_other_alone,
    sysctl::a_kernel_without_ipv6_forwards_ipv4,
    sysctl::an_interface_that_contradicts_is_named,
    sysctl::enable_warns_of_a_router_for_everybody,
    sysctl::apply_says_what_keeps_packets_from_being_forwarded,
    state::a_folder_that_others_can_write_is_refused,
    state::a_change_waits_on_where_others_can_write,
    state::a_folder_of_root_s_in_a_sticky_one_is_used,
    state::a_planted_lock_leaves_its_target_alone,
    damage::a_full_disk_keeps_nobody_from_going_back,
    damage::a_full_disk_keeps_nobody_from_confirming,
    damage::a_full_disk_keeps_no_change_from_being_undone,
    damage::leftovers_of_a_kill_are_cleaned_up,
    damage::no_kill_leaves_a_change_that_never_happened,
    damage::an_unreadable_record_can_be_discarded,
    damage::the_watchdog_of_a_discarded_record_leaves_later_changes_alone,
    watch::a_late_watchdog_leaves_a_change_alone_that_waits,
    watch::a_late_watchdog_leaves_a_change_alone_that_was_confirmed,
    watch::a_late_watchdog_undoes_its_own_change,
    watch::a_decision_outlives_the_one_who_made_it,
    takeover::outside_the_first_namespace_nothing_is_taken_over,
    takeover::the_first_namespace_has_a_name_that_stays,
    takeover::state_of_this_boot_is_renamed,
    takeover::a_change_that_waits_is_renamed_with_its_answer,
    takeover::the_one_state_of_an_older_kernel_is_taken_over,
    takeover::of_several_states_none_is_taken_over,
    takeover::loaded_ipv6_needs_no_record,
    takeover::kept_ipv6_needs_no_record,
    takeover::the_namespace_of_the_tests_is_told_apart,
    no_ipv6::ipv4_is_changed_without_ipv6,
    no_ipv6::ipv4_is_rolled_back_without_ipv6,
    no_ipv6::ipv4_is_looked_at_without_ipv6,
    no_ipv6::ipv4_is_kept_without_ipv6,
    no_ipv6::ipv4_is_confirmed_without_ipv6,
    no_ipv6::ipv4_is_undone_without_ipv6,
    no_ipv6::a_spec_with_ipv6_is_refused,
    churn::the_jump_comes_first_again,
    churn::a_jump_that_is_moved_for_ever_is_a_warning,
    churn::other_changes_are_not_undone_either,
    churn::changes_beside_churn_are_all_made,
    history::each_rollback_goes_a_step_further,
    history::only_changes_that_stay_are_steps,
    history::an_entry_keeps_its_number,
    history::an_entry_says_who_changed_which_forwards,
    history::a_rollback_announces_the_policy,
    twin_cause::a_rule_of_iptables_is_named,
    twin_cause::a_rule_of_nft_is_named,
    twin_cause::a_reason_of_the_kernel_is_named,
    twin_cause::many_rules_cost_little,
    upgrade::the_forwards_of_an_older_release_are_known,
    upgrade::the_history_of_an_older_release_leads_back,
    upgrade::what_an_older_release_loaded_can_be_removed,
    upgrade::a_change_on_top_of_an_older_release_s_is_made,
    upgrade::a_change_of_an_older_release_can_be_confirmed,
    upgrade::a_change_of_an_older_release_can_be_cancelled,
    upgrade::what_waited_before_the_boot_is_not_acted_on,
    twin_rules::a_filter_of_both_families_is_copied_as_it_is,
    twin_rules::a_comment_with_a_line_end_keeps_no_rule_out,
    twin_rules::rules_of_nft_in_iptables_tables_are_the_machine_s,
    twin_rules::tables_of_nft_are_copied,
    twin_rules::a_line_that_does_not_load_costs_only_itself,
    twin_rules::a_line_of_nft_that_does_not_load_costs_only_itself,
    twin_rules::a_packet_that_meets_a_state_is_counted,
    twin_rules::a_state_of_nft_in_a_table_of_iptables_is_counted,
    twin_rules::a_queue_is_decided_by_its_listener,
    twin_rules::a_table_that_comes_and_goes_costs_nothing_else,
    twin_rules::a_user_namespace_takes_any_number_of_rules,
    twin_differential::random_rules_are_what_packets_say,
    twin_faults::a_rule_of_iptables_is_what_packets_say,
    twin_faults::a_rule_of_nft_is_what_packets_say,
    twin_faults::a_way_is_what_packets_say,
    twin_faults::each_target_that_clients_choose_is_tried,
    twin_rules::ten_thousand_forwards_are_copied_in_seconds,
}
