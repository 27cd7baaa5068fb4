//! Tests that take the address of an empty database, each given one of its own.

use crate::support::fixture::empty_database;
use crate::support::servers::servers;

macro_rules! on_an_empty_database {
    ($module:ident: $($name:ident),+ $(,)?) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let url = super::empty_database(stringify!($name)).await;
                Box::pin(crate::$module::$name(&url)).await;
            })+
        }
    };
}

macro_rules! on_an_empty_database_with_brokers {
    ($wired:ident, $module:ident: $($name:ident),+ $(,)?) => {
        mod $wired {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let url = super::empty_database(stringify!($name)).await;
                Box::pin(crate::$module::$name(&url, super::servers().kafka.brokers())).await;
            })+
        }
    };
}

on_an_empty_database!(migrate:
    up_is_idempotent,
    many_at_once_end_well,
    of_two_wishes_one_is_refused,
    other_settings_are_refused,
    what_others_made_is_left_alone,
    another_history_is_refused,
    pending_migrations_are_told,
    print_makes_the_same,
    odd_names_are_quoted,
    a_changed_table_is_refused,
    a_writer_can_only_insert,
    the_relay_role_suffices,
);

on_an_empty_database!(printed:
    what_failed_is_not_noted,
    a_second_run_does_nothing,
    an_occupied_name_can_be_changed,
    the_settings_are_put_back,
);

on_an_empty_database!(connection:
    our_settings_hold_against_all_defaults,
    a_swallowed_mark_tells_a_pooler,
    refusals_say_what_to_do,
    a_lost_session_is_told,
    hidden_rows_are_an_error,
);

on_an_empty_database!(settings:
    every_setting_is_pinned_or_known_to_be_harmless,
    no_time_is_too_short_to_begin_a_session,
);

on_an_empty_database!(log_stream:
    committed_rows_come_and_confirmed_ones_do_not_come_again,
    statements_give_rows,
    the_session_is_ours_and_direct,
    refusals_are_told_as_elsewhere,
    a_wait_can_be_given_up,
    a_confirmation_does_not_wait_for_a_blocked_server,
    a_sign_of_life_is_asked_for_and_answered,
    an_ended_session_is_told,
);

on_an_empty_database!(command_line:
    status_counts_what_waits,
    status_stops_counting_early,
    status_sees_behind_a_long_transaction,
);

on_an_empty_database_with_brokers!(command_line_with_brokers, command_line:
    status_sees_a_late_commit,
    run_ends_well_by_either_signal,
    check_looks_at_waiting_events,
    check_names_what_a_role_lacks,
);
