//! The contract suite: what every thread log must do, one test for each promise of the port.
//!
//! An implementation runs it with one line in its tests:
//!
//! ```text
//! superstep_checkpoint::contract_tests!(make_log);
//! ```
//!
//! where `make_log` is an `async fn()` that gives a [`Fixture`]: an empty log, in a namespace
//! of its own, and whatever must live as long (a server, a folder). Each contract function
//! becomes a test of its own. A wrapper that is no test binary calls [`run`].
//!
//! A log whose clock can be set also runs [`contract_clock_tests!`](crate::contract_clock_tests)
//! for the times to live; the others cannot be waited for. What only one store can promise
//! (durability, reopening, several processes) is left to that store's own tests.
#![expect(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "a contract function is a test: it panics to say that the contract is broken"
)]

mod append;
mod build;
mod claims;
mod clock;
mod delete;
mod index;
mod inspect;
mod list;
mod maps;
mod model;
mod odd;
mod progress;
mod read;

use std::sync::Arc;

pub use self::{
    append::*, claims::*, clock::*, delete::*, index::*, inspect::*, list::*, maps::*, model::*,
    odd::*, progress::*, read::*,
};
use crate::ThreadLog;

/// An empty log for one contract test, with whatever must live as long as it.
pub trait Fixture: Send + Sync {
    /// The log.
    fn log(&self) -> Arc<dyn ThreadLog>;
}

impl Fixture for Arc<dyn ThreadLog> {
    fn log(&self) -> Arc<dyn ThreadLog> {
        Arc::clone(self)
    }
}

impl<Guard: Send + Sync> Fixture for (Arc<dyn ThreadLog>, Guard) {
    fn log(&self) -> Arc<dyn ThreadLog> {
        Arc::clone(&self.0)
    }
}

/// Names every contract function once, to the macro that expands them.
#[doc(hidden)]
#[macro_export]
macro_rules! contract_list {
    ([$($expand:tt)+] $($make:tt)+) => {
        $($expand)+! { $($make)+;
            a_first_append_makes_a_log
            an_append_after_the_head_is_done
            a_stale_nonce_with_the_right_version_is_refused
            an_older_head_is_refused
            a_first_append_to_a_known_thread_is_refused
            an_append_to_an_unknown_thread_is_refused
            a_refused_append_changes_nothing
            a_version_gap_is_an_invalid_call
            a_first_record_without_a_row_is_invalid
            the_same_append_again_is_done
            another_record_of_the_same_version_is_refused
            an_accepting_append_keeps_its_outcome
            an_append_for_a_decided_command_changes_nothing
            a_decided_command_is_told_before_a_moved_head
            a_refused_append_keeps_no_outcome
            one_of_many_racing_appends_wins
            one_of_many_racing_first_appends_wins
            the_same_append_sent_many_times_is_one_record
            writers_that_decide_again_build_one_chain
            accepting_appends_of_one_command_race_to_one_record
            an_unknown_thread_reads_as_nothing
            load_begins_with_the_last_snapshot
            load_of_a_snapshot_head_is_one_record
            load_is_consistent_while_writers_append_and_trim
            a_record_is_read_by_its_version
            history_goes_newest_first_within_before_and_limit
            history_ends_where_the_log_was_trimmed
            trim_removes_what_is_before_the_snapshot
            trim_refuses_what_is_not_a_snapshot
            an_append_goes_on_after_a_trim
            results_are_counted_as_they_are_put
            results_of_some_tasks_are_read_alone
            a_second_result_of_a_task_is_refused
            a_result_needs_an_open_round
            a_result_for_an_unknown_thread_is_refused
            results_of_different_rounds_do_not_mix
            several_rounds_may_be_open_at_once
            racing_results_are_counted_once_each
            racing_results_of_one_task_store_one
            progress_is_read_in_order_of_index
            the_first_entry_of_an_index_stays
            progress_belongs_to_its_task_and_round
            progress_counts_as_no_result
            progress_needs_an_open_round
            progress_of_an_unknown_thread_is_refused
            racing_entries_of_one_index_store_one
            delete_removes_progress
            a_claim_keeps_others_out
            a_claim_is_given_up_by_its_owner
            claims_of_different_things_do_not_mix
            racing_claims_have_one_owner
            attempts_are_counted_and_forgiven
            attempts_need_an_open_round
            an_outcome_is_kept_if_absent
            outcomes_of_threads_do_not_mix
            racing_outcomes_keep_one
            blobs_come_back_in_the_order_asked
            a_missing_blob_is_corrupt
            a_blob_put_again_is_written
            blobs_of_threads_do_not_mix
            a_watched_thread_is_listed_with_its_head
            watching_again_moves_the_entry
            an_append_can_end_the_watch
            unwatch_compares_the_head
            watched_goes_oldest_first_within_until_and_limit
            timers_are_due_by_their_time
            a_timer_is_moved_and_removed
            due_goes_earliest_first_within_the_limit
            open_questions_follow_the_appends
            the_row_follows_the_appends
            the_status_filter_follows_the_appends
            a_list_of_threads_is_paged_in_order
            a_list_of_threads_filters_by_status_and_graph
            a_list_of_questions_is_paged_in_order
            a_list_of_questions_filters_by_thread
            pages_stay_in_place_while_threads_come
            a_cursor_that_is_none_is_invalid
            a_limit_out_of_range_is_brought_into_it
            an_empty_store_lists_nothing
            delete_leaves_a_tombstone
            delete_takes_the_thread_off_every_list
            delete_removes_results_and_blobs
            delete_compares_the_head
            the_same_delete_again_is_done
            a_tombstone_gap_is_an_invalid_call
            only_an_append_after_the_tombstone_recreates
            a_late_result_after_a_delete_is_refused
            a_late_append_after_a_recreation_is_refused
            outcomes_outlive_a_delete
            a_delete_races_an_append_to_one_winner
            odd_thread_ids_are_kept_apart
            odd_names_are_kept_as_they_are
            ids_that_join_alike_are_kept_apart
            empty_values_are_not_absent
            large_binary_values_come_back_whole
            extreme_nonces_are_kept
            a_long_log_loads_and_pages
            registrations_are_renewed
            the_clock_goes_forward
            checks_name_what_they_looked_at
            random_operations_agree_with_the_model
        }
    };
}

/// Makes one test of every contract function; `$make` is an `async fn()` giving a
/// [`Fixture`](crate::contract::Fixture).
#[macro_export]
macro_rules! contract_tests {
    ($make:path) => {
        /// The contract of a thread log.
        mod contract_tests {
            use super::*;
            $crate::contract_list!([$crate::contract_each] $make);
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! contract_each {
    ($make:path; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let fixture = $make().await;
                let log = $crate::contract::Fixture::log(&fixture);
                $crate::contract::$name(log).await;
            }
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! contract_in_turn {
    ($make:expr; $($name:ident)*) => {
        $(
            let fixture = ($make)().await;
            $crate::contract::$name(Fixture::log(&fixture)).await;
        )*
    };
}

/// Runs every contract function in turn, each on a fixture of its own.
pub async fn run<F: Fixture>(make: impl AsyncFn() -> F) {
    contract_list!([crate::contract_in_turn] make);
}

/// Makes one test of every contract function about time; `$make` is an
/// `async fn(Clock)` giving a [`Fixture`](crate::contract::Fixture) on that clock.
#[macro_export]
macro_rules! contract_clock_tests {
    ($make:path) => {
        /// The contract of a thread log about time.
        mod contract_clock_tests {
            use super::*;
            $crate::contract_clock_each! { $make;
                a_tombstone_goes_away_in_time
                an_append_lifts_the_tombstones_time
                results_of_an_ended_round_go_away_in_time
                results_of_an_open_round_stay
                progress_lives_as_long_as_results
                a_claim_dies_with_its_lease
                a_claim_of_a_clock_ahead_is_dead
                attempts_live_as_long_as_results
                outcomes_go_away_in_time
                a_blob_without_a_record_goes_away_in_time
                a_blob_of_a_record_stays
                a_blob_put_again_before_its_record_stays_longer
                a_trim_frees_blobs_of_trimmed_records_only
                a_blob_freed_by_a_trim_is_lifted_by_an_append
                no_blob_of_a_record_is_lost_to_trims
                registrations_carry_when_they_were_renewed
                watch_entries_carry_the_stores_time
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! contract_clock_each {
    ($make:path; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let clock = $crate::contract::ManualClock::default();
                let fixture = $make(clock.clock()).await;
                let log = $crate::contract::Fixture::log(&fixture);
                $crate::contract::$name(log, clock).await;
            }
        )*
    };
}

/// Makes one test of every contract function about tools; `$make` is an `async fn()` giving an
/// [`Inspected`].
#[macro_export]
macro_rules! contract_inspect_tests {
    ($make:path) => {
        /// The contract of a store that tools look into.
        mod contract_inspect_tests {
            use super::*;
            $crate::contract_inspect_list!([$crate::contract_inspect_each] $make);
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! contract_inspect_each {
    ($make:path; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let made = $make().await;
                $crate::contract::$name(made.log.clone(), made.inspect.clone()).await;
            }
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! contract_inspect_list {
    ([$($expand:tt)+] $($make:tt)+) => {
        $($expand)+! { $($make)+;
            every_log_is_found_without_the_indexes
            what_is_kept_follows_the_appends
            blobs_stay_as_long_as_their_records
            a_tombstone_is_kept_without_entries
            a_reindex_replaces_every_entry
            a_reindex_enters_the_watch_with_the_head
            a_reindex_compares_the_head
            rounds_that_end_leave_no_strays
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! contract_inspect_in_turn {
    ($make:expr; $($name:ident)*) => {
        $(
            let made = ($make)().await;
            $crate::contract::$name(made.log.clone(), made.inspect.clone()).await;
        )*
    };
}

/// Runs every contract function about tools in turn, each on a store of its own.
pub async fn run_inspect<Guard>(make: impl AsyncFn() -> Inspected<Guard>) {
    contract_inspect_list!([crate::contract_inspect_in_turn] make);
}
