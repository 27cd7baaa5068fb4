//! Exactly once: cursor and events in one transaction of Kafka, owners in PostgreSQL.
//!
//! Promises: whatever dies, stands still or arrives late, `read_committed` shows every event once and in order, and
//! from wherever things stand the rest can still be published; PostgreSQL's cursor is never ahead of Kafka's. Looked
//! at for two processes and one bucket in all that can happen, and for more of both at random. Each simpler
//! rule is convicted. Must not: know leases: a bucket may be taken from anybody at any moment, which is more than
//! a lease allows. Fails: with the shortest way to a violation.
//!
//! The protocol, as a process has it:
//!
//! ```text
//!   take     PostgreSQL: the epoch rises, and with it come the ids that may have an open transaction
//!   fence    Kafka: each of them is asked for, which ends what it had open
//!   init     Kafka: our own ids, if our producers are not there, or were among them
//!   look     PostgreSQL: every bucket is still ours                              after each init
//!   read     Kafka: the last committed cursor, up to the last stable offset
//!   record   PostgreSQL: our ids may have an open transaction, where the bucket is ours
//!   append   Kafka: an event, and so on; the cursor is the last record of its transaction
//!   commit   Kafka: certain if it was sent once; in any other case the producers are dropped ─► init
//!   save     PostgreSQL: a lower bound, behind the commit
//! ```

mod broker;
mod process;
mod search;

use search::{Action, Found, State, search, walk};

/// A mistake in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Bug {
    None,
    /// Whoever has new producers does not look whether its buckets are still its own.
    NoSecondLook,
    /// Whoever takes writes its ids down whether the bucket is still its own or not.
    RecordsUnasked,
    /// Nobody learns which ids to fence.
    RecordsNothing,
    ReadsBeforeFence,
    /// The cursor is sent after the commit, by itself.
    CursorOutside,
    /// Also after a commit that took long, of which a copy may be on its way.
    KeepsProducer,
    /// The same, with the cursor as the first record.
    KeepsProducerCursorFirst,
    /// The second producer need not wait for the first.
    CommitsInAnyOrder,
    /// When a commit fails, what the other producer has sent stays.
    SecondOutlivesFirst,
    SavesBeforeCommit,
    ReleasesInFlight,
}

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Violation {
    /// `read_committed` shows an event for the second time.
    Repeated,
    /// It shows one before an earlier one, or without it.
    Skipped,
    /// A cursor is ahead of what is committed: events are lost.
    Ahead,
}

/// How large a model is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    processes: usize,
    buckets: usize,
    /// Of each process, in turn.
    producers: u8,
    /// Of each bucket.
    events: u8,
    bug: Bug,
}

/// Two processes, one bucket.
const SMALL: Setup = Setup { processes: 2, buckets: 1, producers: 1, events: 2, bug: Bug::None };
/// The same with two producers each.
const IN_TURN: Setup = Setup { producers: 2, ..SMALL };
/// What is too large to be looked at as a whole.
const LARGE: Setup = Setup { processes: 3, buckets: 2, producers: 2, events: 6, bug: Bug::None };

const WALKS: u64 = 300;
const WALK_STEPS: usize = 2_000;

fn hold(setup: Setup) {
    let Found { states, dead_ends, violations } = search(&setup, None);
    println!("{setup:?}: {states} states");
    assert!(violations.is_empty(), "{violations:#?}");
    assert_eq!(dead_ends, 0, "from anywhere the rest can be published");
}

#[test]
fn two_processes_show_every_event_once_whatever_happens() {
    hold(SMALL);
}

#[test]
fn two_producers_in_turn_show_every_event_once_whatever_happens() {
    hold(IN_TURN);
}

#[test]
fn more_of_them_show_every_event_once() {
    let is_done = |seed: &u64| walk(*seed, WALK_STEPS, &LARGE).expect("the protocol holds");
    let done = (0..WALKS).filter(is_done).count();
    println!("{done} of {WALKS} walks published everything");
    assert!(done > 0, "walks that end nowhere show nothing");
}

/// A bug leads to this.
fn convict(bug: Bug, setup: Setup, expected: Violation) {
    let found = search(&Setup { bug, ..setup }, Some(expected));
    let way = found.violations.into_iter().find(|(violation, _)| *violation == expected);
    let Some((_, way)) = way else {
        panic!("{bug:?} stays hidden in {} states", found.states);
    };
    println!("{bug:?} leads to {expected:?}, after {} states: {way:?}", found.states);
    assert!(replays(&way, &setup), "the same way without the bug");
}

/// As far as these steps can be taken at all, nothing is broken.
fn replays(way: &[Action], setup: &Setup) -> bool {
    let mut state = State::new(setup);
    way.iter()
        .all(|action| !state.actions(setup).contains(action) || state.act(*action, setup).is_ok())
}

#[test]
fn new_producers_without_a_second_look_are_found() {
    convict(Bug::NoSecondLook, SMALL, Violation::Repeated);
    convict(Bug::RecordsUnasked, SMALL, Violation::Repeated);
}

#[test]
fn a_producer_kept_after_a_slow_commit_is_found() {
    convict(Bug::KeepsProducer, SMALL, Violation::Repeated);
}

#[test]
fn a_cursor_read_before_the_fence_is_found() {
    convict(Bug::ReadsBeforeFence, SMALL, Violation::Repeated);
}

#[test]
fn a_cursor_outside_of_the_transaction_is_found() {
    convict(Bug::CursorOutside, SMALL, Violation::Repeated);
}

#[test]
fn ids_that_nobody_knows_to_fence_are_found() {
    convict(Bug::RecordsNothing, SMALL, Violation::Repeated);
    convict(Bug::ReleasesInFlight, SMALL, Violation::Repeated);
}

#[test]
fn a_second_producer_that_does_not_follow_the_first_is_found() {
    convict(Bug::CommitsInAnyOrder, IN_TURN, Violation::Skipped);
    convict(Bug::SecondOutlivesFirst, IN_TURN, Violation::Skipped);
}

#[test]
fn a_save_before_the_commit_is_found() {
    convict(Bug::SavesBeforeCommit, SMALL, Violation::Ahead);
}

/// Should the rule of slow commits ever fail, the order of records says what that costs.
#[test]
fn a_torn_transaction_repeats_where_the_cursor_is_last_and_loses_where_it_is_first() {
    let last = search(&Setup { bug: Bug::KeepsProducer, ..SMALL }, None);
    let found: Vec<Violation> = last.violations.into_iter().map(|(found, _)| found).collect();
    assert_eq!(found, [Violation::Repeated]);
    // The cursor has passed what nobody sees.
    convict(Bug::KeepsProducerCursorFirst, SMALL, Violation::Ahead);
}
