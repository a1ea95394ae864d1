"""The fault register: what may go wrong, and the tests that would fail if it were handled badly.

`python -m tests.fault_register` prints it as a Markdown table. A test stands here only for a fault that it walks into;
where there is none the row says why.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Fault(NamedTuple):
    """One fault: its number, what goes wrong, and the tests as `file::test` below `tests/`, or why there is none."""

    number: int
    what: str
    tests: tuple[str, ...]
    why: str = ""


class Area(NamedTuple):
    """Faults of one kind."""

    name: str
    faults: tuple[Fault, ...]


def _by(number: int, what: str, *tests: str) -> Fault:
    return Fault(number, what, tests)


def _by_none(number: int, what: str, why: str) -> Fault:
    return Fault(number, what, (), why)


KILLED = "e2e/test_kill_points.py::test_kill_at_a_named_step_loses_nothing"
KILLED_ANYWHERE = "e2e/test_kill_points.py::test_kill_anywhere_loses_nothing"
DIES = "simulation/test_crash_everywhere.py::test_profiles_survive_a_death_at_any_step_and_values_that_go_back"
DIES_SENDING = "simulation/test_crash_everywhere.py::test_events_survive_a_death_at_any_step"
DIES_IN_ANY_WORLD = "simulation/test_deaths.py::test_every_promise_holds_wherever_a_run_dies"
WIRE = "e2e/test_socket_faults.py::test_profiles_survive_whatever_the_wire_does"
WIRE_EVENTS = "e2e/test_socket_faults.py::test_no_event_goes_twice_whatever_the_wire_does"
UNTRUSTED_202 = "test_outcome.py::test_a_202_in_doubt"
STATUSES = "test_outcome.py::test_statuses"
BROKEN_YAML = "config/test_broken.py::test_a_broken_sync_is_told_at_its_place"
NOTHING_LANDS = "e2e/test_pull.py::TestFiles::test_nothing_lands"

AREAS = (
    Area("Process and machine", (
        _by(1, "killed while it reads the warehouse", KILLED, "e2e/test_kill.py::test_kill_before_anything_was_sent_leaves_no_trace"),
        _by(2, "killed while it compares", KILLED, "e2e/test_engine_kills.py::test_kill_at_a_named_step_loses_nothing"),
        _by(3, "killed while it writes its plan", KILLED, DIES),
        _by(4, "killed after a call was noted, before it left", KILLED, DIES, "simulation/test_planted_bugs.py::test_planted_bug_shows", DIES_IN_ANY_WORLD),
        _by(5, "killed while a body is half sent", "e2e/test_api_faults.py::test_kill_while_a_body_is_half_sent_loses_nothing"),
        _by(6, "killed after Batch applied a call, before its answer was read", KILLED, "e2e/test_kill.py::test_value_that_reverts_after_a_kill_is_sent_again", "e2e/test_event_kill.py::test_kill_under_hold_sends_nothing_twice_and_lists_what_was_in_flight", DIES_IN_ANY_WORLD),
        _by(7, "killed after the answer, before it was noted", KILLED, DIES, DIES_SENDING),
        _by(8, "killed between two calls", KILLED, "e2e/test_kill.py::test_kill_in_the_middle_loses_nothing_and_repeats_only_what_was_in_flight"),
        _by(9, "killed while it writes a snapshot's file", KILLED, DIES),
        _by(10, "killed after the file was written, before anything names it", KILLED, "test_state.py::test_sweeping_leaves_what_is_named_or_young"),
        _by(11, "killed while it recovers, again and again", "simulation/test_crash_everywhere.py::test_a_recovery_that_dies_five_times_ends_well", KILLED, KILLED_ANYWHERE, DIES_IN_ANY_WORLD),
        _by(12, "SIGTERM, once and twice", "e2e/test_kill.py::test_sigterm_settles_what_is_in_flight_and_ends_with_143", "e2e/test_kill.py::test_second_signal_ends_at_once_like_a_crash"),
        _by(13, "Ctrl-C at any moment", "test_cli.py::test_signal_settles_what_is_in_flight", "e2e/test_traps.py::test_interrupt_while_reading_leaves_no_value_behind", "simulation/test_random.py::test_every_promise_holds_after_faults_and_deaths"),
        _by(14, "a power cut: what was not synced is torn", DIES, DIES_SENDING, "e2e/test_pull_kill.py::test_killed_at_every_step"),
        _by(15, "the disk is full at any write", "e2e/test_full_disk.py::test_a_write_that_fails_ends_the_run_and_the_next_one_goes_on"),
        _by(16, "fsync fails", "e2e/test_state_faults.py::test_a_file_that_cannot_be_made_safe_is_not_believed"),
        _by(17, "the state can only be read, or not be there at all", "e2e/test_full_disk.py::test_a_write_that_fails_ends_the_run_and_the_next_one_goes_on", "e2e/test_state_faults.py::test_a_state_that_cannot_be_there_is_one_sentence"),
        _by(18, "out of memory: the kernel ends the process", KILLED_ANYWHERE, "contracts/test_duckdb.py::test_the_memory_limit_is_set"),
        _by(19, "too many open files", "e2e/test_state_faults.py::test_too_few_file_handles_lose_nothing"),
        _by_none(20, "an open state is carried into a forked child", "nothing of ours forks while a state is open, and no check refuses it yet"),
        _by(21, "two versions of the software on one state", "test_state.py::test_a_newer_version_is_refused", "test_state_versions.py::test_an_older_state_is_brought_forward"),
        _by(22, "an older version on a migrated state", "test_state.py::test_a_newer_version_is_refused", "test_state_versions.py::test_a_migration_that_fails_leaves_the_state_as_it_was"),
    )),
    Area("State files", (
        _by(23, "a snapshot is cut, empty or longer", "test_state.py::test_any_flipped_bit_is_found", "test_ledger.py::test_any_flipped_bit_is_found"),
        _by(24, "a bit of a snapshot is flipped", "test_state.py::test_any_flipped_bit_is_found", "e2e/test_sync.py::test_altered_snapshot_is_refused_with_the_ways_out"),
        _by(25, "a snapshot's file is gone", "test_state.py::test_a_database_without_its_files_is_refused", "e2e/test_traps.py::test_resend_is_a_way_out_of_a_damaged_state"),
        _by(26, "a snapshot of another kind of sync, or of another key", "e2e/test_events.py::test_sync_does_not_change_its_kind", "e2e/test_state_faults.py::test_another_key_column_is_refused"),
        _by(27, "a torn page of the database", "test_state.py::test_a_damaged_database_is_refused", "test_state_versions.py::test_a_spoilt_page_is_found_once_a_day"),
        _by(28, "a state restored from an old backup", "e2e/test_state_faults.py::test_a_state_from_an_old_backup_converges"),
        _by(29, "the state is lost, in part or whole", "test_state.py::test_files_without_a_database_are_refused", "e2e/test_state_faults.py::test_a_state_that_is_gone_starts_at_the_beginning", "test_shared_state.py::test_a_lost_database_is_not_a_fresh_start"),
        _by(30, "an outbox is altered on disk", "e2e/test_state_faults.py::test_an_outbox_that_was_altered_is_not_taken_over"),
        _by(31, "hashes change with a library's version", "test_hashing.py::test_golden_vectors", "test_hashing.py::test_golden_keys_and_rows", "test_state.py::test_another_hash_recipe_is_refused"),
        _by(32, "killed runs leave files behind", "test_state.py::test_sweeping_leaves_what_is_named_or_young", "e2e/test_kill.py::test_kill_before_anything_was_sent_leaves_no_trace", KILLED),
        _by_none(33, "the state lies on a network share whose locks do not reach other hosts", "no probe of the file system yet; what follows from it, two holders at once, is fenced (fault 41)"),
        _by(34, "the state can be read by others", "test_state.py::test_the_folder_is_private", "test_state.py::test_a_folder_that_was_open_to_others_is_closed"),
    )),
    Area("Time and concurrency", (
        _by(35, "the clock is set by a day during a run", "simulation/test_clock.py::test_a_clock_that_is_set_while_a_run_sends", "test_shared_state.py::test_the_hosts_own_clock_decides_nothing"),
        _by(36, "the clock is set back between two runs", "simulation/test_clock.py::test_a_clock_that_is_set_while_a_run_sends", "test_state.py::test_the_clock_of_another_boot_is_not_believed", "test_shared_state.py::test_a_server_clock_that_is_set_back_stops_nobody"),
        _by(37, "summer time and time zones", "contracts/test_windows.py::test_a_row_written_after_a_window_is_not_before_its_end", "contracts/test_windows.py::test_bounds_never_go_back", "test_rules.py::test_naive_timestamps_in_a_zone"),
        _by(38, "leap seconds, the year 9999, moments before 1970", "test_rules.py::test_text_dates", "test_rules.py::test_first_and_last_moment", "test_rules.py::test_moments_before_1970_are_cut_downwards"),
        _by(39, "two start one sync together", "test_state.py::test_of_two_processes_one_runs_and_a_killed_one_is_free_at_once", "e2e/test_kill.py::test_second_run_of_a_sync_is_busy_while_the_first_runs"),
        _by(40, "who holds a sync is killed", "test_state.py::test_of_two_processes_one_runs_and_a_killed_one_is_free_at_once", "e2e/test_two_hosts.py::test_another_host_is_busy_until_the_lease_of_a_dead_one_ends"),
        _by(41, "who holds a sync is frozen past its lease, and goes on", "e2e/test_fencing.py::test_frozen_run_that_was_replaced_is_fenced", "test_state.py::test_a_run_that_was_taken_for_dead_cannot_write"),
        _by(42, "two syncs of one Batch project at once", "e2e/test_kill.py::test_two_processes_share_one_rate", "test_state.py::test_two_senders_share_one_bucket", "test_event_delivery.py::test_one_run_of_a_project_sends_at_a_time"),
        _by_none(43, "one sync on two hosts with a state each", "two states know nothing of each other: the docs say so; a shared state is the remedy"),
        _by(44, "Dagster's daemon restarts within a tick", "assets/test_table_sensors.py::test_a_look_that_is_repeated_asks_for_the_same_runs", "assets/test_materialize.py::test_a_second_run_sends_nothing_and_is_a_materialization_with_zeros"),
        _by(45, "two daemons start the same run", "assets/test_materialize.py::test_a_second_run_of_the_same_sync_fails_as_busy_and_answers_no_check"),
        _by(46, "a run that still lives is started again", "e2e/test_fencing.py::test_frozen_run_that_was_replaced_is_fenced", "assets/test_materialize.py::test_a_second_run_of_the_same_sync_fails_as_busy_and_answers_no_check"),
        _by(47, "a cancelled run keeps its place in a pool", "e2e/test_dagster_graphql.py::test_a_cancelled_run_ends_within_two_seconds_and_the_next_one_sends_only_the_rest"),
        _by(48, "Dagster's retries on top of ours", "assets/test_definitions.py::test_nothing_but_a_person_or_a_schedule_starts_a_run_again"),
        _by(49, "a backfill of thirty partitions at once", "e2e/test_dagster_graphql.py::test_a_backfill_of_thirty_sent_days_is_one_run_and_sends_nothing", "assets/test_events.py::test_a_backfill_is_one_read_of_all_its_days_and_says_whose_counts_it_shows"),
        _by(50, "a schedule repeats a tick", "assets/test_materialize.py::test_a_second_run_sends_nothing_and_is_a_materialization_with_zeros", "e2e/test_events.py::test_what_was_sent_is_never_sent_again"),
    )),
    Area("Network", (
        _by(51, "a name is not known, and then is", "e2e/test_api_faults.py::test_a_name_that_is_not_known_for_a_moment_costs_a_moment", "e2e/test_socket_faults.py::test_nothing_left_where_no_connection_was_made"),
        _by(52, "a name leads into a private network", "test_download.py::test_links_that_are_not_followed"),
        _by(53, "a connection is refused, or does not come about in time", "test_client.py::test_refused_connection_left_nothing_behind", "e2e/test_api_faults.py::test_an_address_that_swallows_everything_leaves_nothing_in_doubt", "e2e/test_events.py::test_refusals_429_and_refused_connections_never_duplicate"),
        _by(54, "TLS that cannot be trusted", "e2e/test_socket_faults.py::test_nothing_left_where_no_connection_was_made"),
        _by(55, "a connection is reset before, in or after a request", WIRE, WIRE_EVENTS, "test_event_delivery.py::test_body_of_unknown_outcome_is_not_sent_twice"),
        _by(56, "an answer of known length is cut", "test_client.py::test_answer_that_breaks_off_is_no_acknowledgement", WIRE, WIRE_EVENTS),
        _by(57, "an answer of unknown length is cut", "test_client.py::test_answer_that_breaks_off_is_no_acknowledgement", WIRE, WIRE_EVENTS),
        _by(58, "an answer in chunks is cut", WIRE, WIRE_EVENTS),
        _by(59, "an answer comes byte by byte", "test_client.py::test_dripping_answer_is_cut_by_the_deadline_of_the_whole_exchange", WIRE, WIRE_EVENTS),
        _by(60, "a server never reads", WIRE, "e2e/test_socket_faults.py::test_a_body_larger_than_any_buffer_is_given_up_too"),
        _by(61, "ten minutes without a network", "e2e/test_sync.py::test_outage_ends_incomplete_and_the_next_run_goes_on", "test_event_delivery.py::test_outage_leaves_few_chunks_in_doubt"),
        _by(62, "a kept connection is closed between two calls", WIRE, WIRE_EVENTS),
        _by(63, "a captive portal, or a proxy that asks who we are", "e2e/test_sync.py::test_answers_that_cannot_be_trusted_end_the_run_incomplete", WIRE, "test_client.py::test_proxy_of_the_environment_is_not_used"),
        _by(64, "one address of a host swallows everything", "e2e/test_api_faults.py::test_an_address_that_swallows_everything_is_passed_over"),
        _by(65, "an answer, its head or what it unpacks to is huge", "test_client.py::test_endless_answer_is_not_read_to_its_end", "e2e/test_socket_faults.py::test_an_answer_without_end_takes_little_memory", WIRE),
        _by(66, "a proxy sends a request twice", "e2e/test_api_faults.py::test_a_request_that_arrives_twice_changes_nothing"),
        _by(67, "a lost request is applied after a newer one", "simulation/test_fixed.py::test_late_copy_does_not_outlive_the_quiet_time", "e2e/test_traps.py::test_late_write_after_a_clear_is_cleared_again", "simulation/test_planted_bugs.py::test_planted_bug_shows", DIES_IN_ANY_WORLD),
    )),
    Area("Batch's answers", (
        _by(68, "Retry-After in seconds, as a date, negative, endless, nonsense", "test_outcome.py::test_retry_after", "test_outcome.py::test_retry_after_takes_anything", "e2e/test_sync.py::test_retry_after_holds_all_senders"),
        _by(69, "ten minutes of 429 without Retry-After", "e2e/test_api_faults.py::test_a_storm_of_refusals_is_met_with_few_calls", "test_state.py::test_a_true_limit_below_the_configured_one_is_found"),
        _by(70, "500 after the call was applied", "e2e/test_sync.py::test_faults_of_the_api_end_in_the_state_of_the_view", "e2e/test_events.py::test_unknown_outcome_is_held_and_nothing_is_sent_twice"),
        _by(71, "hours of 503", "e2e/test_sync.py::test_outage_ends_incomplete_and_the_next_run_goes_on", "test_outcome.py::test_maintenance_with_an_end_was_not_applied"),
        _by(72, "a 202 that is empty or no whole JSON", UNTRUSTED_202, "e2e/test_events.py::test_answer_that_nobody_understands_is_no_reason_for_copies"),
        _by(73, "a page of HTML, whatever the status", STATUSES, UNTRUSTED_202, WIRE),
        _by(74, "a redirect", "test_client.py::test_redirect_is_not_followed_and_the_key_goes_nowhere_else", "e2e/test_socket_faults.py::test_a_redirect_ends_the_run_and_our_key_goes_nowhere_else"),
        _by(75, "partial errors of any shape", "test_outcome.py::test_partial_errors", "test_outcome.py::test_one_odd_error_makes_all_odd", "test_outcome.py::test_partial_errors_are_believed_whole_or_not_at_all"),
        _by(76, "unknown codes, further fields, errors that are null", "test_outcome.py::test_success", UNTRUSTED_202, "test_outcome.py::test_no_body_is_accepted_by_accident"),
        _by(77, "a member of an answer stands there twice", UNTRUSTED_202),
        _by(78, "a key is revoked during a run", "e2e/test_api_faults.py::test_keys_that_change_under_a_run_stop_it_and_the_next_one_reads_them_anew", "e2e/test_sync.py::test_refused_key_stops_the_run_and_loses_nothing"),
        _by(79, "a key is rotated during a run", "e2e/test_api_faults.py::test_keys_that_change_under_a_run_stop_it_and_the_next_one_reads_them_anew", DIES_IN_ANY_WORLD),
        _by(80, "a wrong key or project", STATUSES, "test_cli.py::test_mistakes_end_a_run_in_one_sentence"),
        _by(81, "400 for one row of many", "e2e/test_sync.py::test_poisoned_row_is_found_by_halving_and_the_others_go", "e2e/test_traps.py::test_many_guilty_neighbours_are_rejected_and_the_others_go"),
        _by(82, "413: a call is too large", STATUSES, "test_event_delivery.py::test_refused_call_is_halved_until_the_guilty_operation_is_alone"),
        _by(83, "an event is too old, or of the future", "e2e/test_events.py::test_late_events_are_held_until_somebody_decides", "e2e/test_events.py::test_future_event_is_invalid_and_goes_when_it_is_due", "test_event_delivery.py::test_chunk_that_becomes_too_old_while_it_waits_is_not_sent"),
        _by(84, "Batch takes fewer of a call than it did", "e2e/test_api_faults.py::test_limits_that_batch_lowered_are_found_by_halving"),
        _by(85, "the version of the API is gone", STATUSES, "e2e/test_sync.py::test_refused_key_stops_the_run_and_loses_nothing"),
        _by(86, "202, and nothing is stored", "e2e/test_reconcile.py::test_exactly_what_somebody_else_changed", "e2e/test_reconcile.py::test_only_what_differs_goes"),
    )),
    Area("Warehouse reads", (
        _by(87, "a session ends in the middle of a read", "contracts/test_snowflake.py::test_a_session_is_closed_whatever_happened", "contracts/test_warehouses.py::test_a_read_ends_with_the_connection", "contracts/test_bigquery.py::test_streams_of_any_length_lose_and_repeat_no_row"),
        _by(88, "a result ends early and nobody reports an error", "contracts/test_bigquery.py::test_rows_that_do_not_come_fail_the_read", "contracts/test_snowflake.py::test_a_chunk_that_does_not_come_whole_ends_the_read"),
        _by(89, "a source is suddenly empty", "e2e/test_sync.py::test_guards_stop_before_the_first_request", "e2e/test_engines.py::test_an_empty_source_clears_nobody"),
        _by(90, "rows change while they are read", "contracts/test_snowflake.py::test_a_read_is_one_statement_and_ends_with_the_session", "contracts/test_duckdb.py::test_nothing_writes", "e2e/test_still.py::test_rows_written_during_the_read_are_read_by_the_next_run"),
        _by(91, "rows arrive late, or with the cursor of the last read", "contracts/test_warehouses.py::test_a_window_takes_its_start_and_not_its_end", "e2e/test_events.py::test_new_events_go_and_overlapping_windows_send_each_once", "e2e/test_sync.py::test_full_read_finds_what_the_cursor_hides"),
        _by(92, "a cursor is null, or goes back", "contracts/test_warehouses.py::test_a_window_takes_its_start_and_not_its_end", "e2e/test_sync.py::test_full_read_finds_what_the_cursor_hides", "test_cli.py::test_check_counts_keys_and_cursors_that_no_run_can_use"),
        _by(93, "a column is gone, renamed or new", "contracts/test_warehouses.py::test_a_missing_column_is_named_at_once", "test_mapping.py::test_missing_columns_are_all_named", "e2e/test_sync.py::test_new_column_sends_itself_where_it_has_values_and_a_removed_one_nothing"),
        _by(94, "a column changes its type", "e2e/test_sync.py::test_changed_type_sends_the_column_again", "test_rules.py::test_unsupported_columns_name_themselves", "test_event_mapping.py::test_id_is_text_whatever_the_column_is"),
        _by(95, "a key stands there twice", "laws/test_change_laws.py::test_repeated_keys_are_rejected_wherever_they_stand", "e2e/test_sync.py::test_bad_keys_and_duplicates_are_invalid_and_the_others_go"),
        _by(96, "keys that are null, blank, odd or long", "test_rules.py::test_text_keys", "test_rules.py::test_float_keys_must_be_whole", "e2e/test_sync.py::test_bad_keys_and_duplicates_are_invalid_and_the_others_go"),
        _by(97, "NaN, infinities, -0.0, numbers beyond 64 bits", "test_rules.py::test_floats", "test_rules.py::test_zero_has_no_sign", "test_rules.py::test_integers_by_inference", "test_nested.py::test_no_number_becomes_null"),
        _by(98, "texts that are empty or too long", "test_rules.py::test_text_columns", "e2e/test_sync.py::test_bad_value_stays_back_and_the_rest_of_its_row_goes"),
        _by(99, "NUL, control and direction marks, emoji, half characters", "test_rules.py::test_text_columns", "test_payload.py::test_what_our_rules_let_through_the_local_api_takes", "test_rules.py::test_json_text_arrays"),
        _by(100, "rows are deleted", "e2e/test_sync.py::test_removed_rows_are_cleared_once", "e2e/test_traps.py::test_removals_that_were_not_sent_are_owed", "e2e/test_sync.py::test_guards_stop_before_the_first_request"),
        _by(101, "SQL in names and queries", "contracts/test_warehouses.py::test_a_source_is_exactly_one_select", "contracts/test_warehouses.py::test_a_name_needs_quoting_nowhere", "contracts/test_bigquery_sql.py::test_no_name_ends_its_own_quotes", "contracts/test_snowflake_sql.py::test_the_rest_of_a_query_never_slips_through"),
        _by(102, "a query is cancelled, times out or waits", "contracts/test_bigquery.py::test_a_query_that_takes_too_long_is_cancelled", "contracts/test_bigquery.py::test_a_passing_failure_is_tried_again", "contracts/test_snowflake.py::test_an_error_is_told_by_its_class_and_state"),
        _by(103, "a right is gone since the last run", "contracts/test_bigquery.py::test_a_refused_query_is_told_in_bigquery_s_words", "contracts/test_bigquery.py::test_a_missing_right_to_stream_names_the_role", "contracts/test_snowflake_loading.py::test_a_missing_right_is_named"),
    )),
    Area("Exports", (
        _by(104, "an export is never made", "e2e/test_pull.py::TestBeingAsked::test_an_export_that_takes_too_long_is_looked_at_by_the_next_run", "e2e/test_pull.py::TestBeingAsked::test_waiting_ends_by_itself"),
        _by(105, "killed after it asked, before it knows the id", "e2e/test_pull_kill.py::test_killed_at_every_step", "e2e/test_pull.py::TestBeingAsked::test_an_unclear_answer_never_makes_a_second_export"),
        _by(106, "an export ends in an error, or without a file", "e2e/test_pull.py::TestBeingAsked::test_an_export_in_error", NOTHING_LANDS),
        _by(107, "a link expires during a download", "e2e/test_pull.py::TestFiles::test_a_link_that_is_no_longer_good", "test_download.py::test_a_file_that_changed_comes_whole"),
        _by(108, "a link leads elsewhere", "test_download.py::test_links_that_are_not_followed", "test_download.py::test_redirects", NOTHING_LANDS),
        _by(109, "a file is cut, altered or followed by something", NOTHING_LANDS, "test_export_lines.py::test_files_that_are_not_whole", "test_export_lines.py::test_any_cut_of_an_archive_is_seen"),
        _by(110, "a file unpacks to far more than it should", NOTHING_LANDS, "e2e/test_pull.py::TestFiles::test_a_file_larger_than_it_should_be"),
        _by(111, "lines or files come twice, or one is missing", "e2e/test_pull.py::TestFiles::test_lines_that_come_twice", "e2e/test_pull.py::TestFiles::test_a_part_that_is_listed_twice", NOTHING_LANDS),
        _by(112, "unknown fields, other types, broken lines", "e2e/test_pull.py::TestFiles::test_lines_that_are_no_rows", "e2e/test_pull.py::TestWhatLands::test_values_of_another_type_are_counted_and_kept_in_the_line", "test_export_lines.py::test_any_json_is_read_or_told"),
        _by(113, "names of files that are paths", "e2e/test_pull.py::TestFiles::test_hostile_names", "test_download.py::test_a_file_is_no_link_to_another"),
        _by(114, "killed while it loads", "e2e/test_pull_kill.py::test_killed_at_every_step", "contracts/test_duckdb_loading.py::test_a_kill_in_the_middle_leaves_what_was_there", "contracts/test_snowflake_loading.py::test_a_session_that_ends_at_any_statement_leaves_the_table"),
        _by(115, "a load is refused half-way", "contracts/test_loading.py::test_a_load_that_fails_half_way_leaves_the_table_as_it_was", "e2e/test_pull.py::TestWarehouses::test_a_load_that_fails_is_made_up_for"),
        _by_none(116, "a formula in a spreadsheet of rejects", "no output of ours is CSV: rejects are a table for people, and JSON"),
    )),
    Area("Configuration and secrets", (
        _by(117, "aliases that unfold without end, deep or large files", "config/test_broken.py::test_an_alias_bomb_is_harmless", "config/test_broken.py::test_a_large_file_is_not_read", BROKEN_YAML),
        _by(118, "a key of the YAML stands there twice", BROKEN_YAML),
        _by(119, "`no` that is false, `1:20` that is 80", "config/test_project.py::test_yaml_is_version_1_2"),
        _by(120, "tags that make objects", BROKEN_YAML),
        _by(121, "unknown and misspelt keys", BROKEN_YAML, "config/test_broken.py::test_a_broken_project_file_is_told_at_its_place"),
        _by(122, "a secret is missing, empty, or has a line's end or a mark", "config/test_secrets.py::test_keys_that_cannot_be_are_named_together", "config/test_secrets.py::test_what_copying_adds_is_no_part_of_a_key"),
        _by(123, "a secret stands in the YAML", "config/test_broken.py::test_a_broken_project_file_is_told_at_its_place"),
        _by(124, "the mapping changes between two runs", "e2e/test_sync.py::test_new_column_sends_itself_where_it_has_values_and_a_removed_one_nothing", "e2e/test_events.py::test_mapping_that_makes_sent_events_look_new_is_guarded", "laws/test_engine_laws.py::test_switching_engines_and_mappings_changes_nothing_at_batch"),
        _by(125, "the YAML is edited during a run", "config/test_project.py::test_a_project_is_frozen"),
        _by(126, "the keys of another project", "e2e/test_sync.py::test_state_of_another_project_is_refused", "test_state.py::test_a_state_stays_with_its_project"),
        _by(127, "secrets or values in logs, errors, metadata", "e2e/test_sync.py::test_no_value_key_or_secret_reaches_a_log", "assets/test_materialize.py::test_no_key_value_or_secret_reaches_the_event_log", "test_cli.py::test_no_value_and_no_secret_is_ever_shown"),
    )),
)  # fmt: skip
"""Every fault, by area."""


def share(areas: Iterable[Area]) -> float:
    """The share of these areas' faults that have a test, 0 to 1."""
    faults = [fault for area in areas for fault in area.faults]
    return sum(bool(fault.tests) for fault in faults) / len(faults)


def page() -> Iterator[str]:
    """The register in Markdown: how much of each area is covered, then every fault."""
    yield "| area | faults | with a test | share |"
    yield "|---|---:|---:|---:|"
    everything = Area("**all**", tuple(fault for area in AREAS for fault in area.faults))
    for area in (*AREAS, everything):
        covered = sum(bool(fault.tests) for fault in area.faults)
        yield f"| {area.name} | {len(area.faults)} | {covered} | {share([area]):.0%} |"
    for area in AREAS:
        yield f"\n## {area.name}\n"
        yield "| | what goes wrong | what fails if it is handled badly |"
        yield "|---|---|---|"
        for number, what, tests, why in area.faults:
            yield f"| F{number:03} | {what} | {'<br>'.join(f'`{test}`' for test in tests) or f'no test: {why}'} |"


if __name__ == "__main__":
    print("\n".join(page()))
