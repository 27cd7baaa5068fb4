//! Rules that look right and are not: each must be found by the checks that the real ones pass.
//!
//! Promises: the seeds are fixed, so a mutant is found always or never; the script that convicts a
//! mutant is passed by the sound policy. Must not: share code with the mutants' originals. Fails: a
//! mutant that survives names itself and the number of scripts that it survived.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::bucket::WindowRule;
use crate::relay::{
    CarryRule, ClaimRule, EnterRule, IdleRule, LineageRule, Policy, TickOrder, UndrawnRule,
    Violation,
};
use crate::script;
use crate::script::Step;

/// Scripts that a mutant has to survive to be called alive.
const SCRIPTS: usize = 20_000;

/// Finds the first script under which the mutant breaks a promise of the kind that `expected` knows.
#[track_caller]
fn convict(mutant: Policy, expected: fn(Violation) -> bool) {
    convict_by(script::script(), mutant, expected);
}

#[track_caller]
fn convict_by(
    scripts: impl Strategy<Value = Vec<Step>>,
    mutant: Policy,
    expected: fn(Violation) -> bool,
) {
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    for _ in 0..SCRIPTS {
        let script = scripts.new_tree(&mut runner).expect("the strategy rejects nothing").current();
        let Err(violation) = script::run(&script, mutant) else { continue };
        assert!(expected(violation), "{mutant:?} breaks another promise: {violation:?}");
        assert_eq!(script::run(&script, Policy::SOUND), Ok(()), "the sound policy, same script");
        return;
    }
    panic!("{mutant:?} survived {SCRIPTS} scripts");
}

/// A look below the ranges finds what a wrong bound has left out, too late for the order: here nobody looks.
const UNSEEN: Policy = Policy { window: WindowRule::Unseen, ..Policy::SOUND };

fn loses(violation: Violation) -> bool {
    matches!(violation, Violation::Lost { .. } | Violation::Hidden { .. })
}

#[test]
fn a_lower_bound_without_the_carry_loses_rows() {
    convict(Policy { carry: CarryRule::None, ..UNSEEN }, loses);
}

#[test]
fn xmax_taken_for_the_next_id_loses_rows() {
    convict(Policy { carry: CarryRule::BelowXmax, ..UNSEEN }, loses);
}

#[test]
fn a_floor_read_after_the_ticks_own_id_loses_rows() {
    convict(Policy { tick_order: TickOrder::FloorLast, ..UNSEEN }, loses);
}

#[test]
fn bounds_do_not_hold_across_a_sequence_that_was_set_back() {
    for lineage in [LineageRule::Ignored, LineageRule::ByStorage, LineageRule::BelowTheLast] {
        convict_by(script::set_back_script(), Policy { lineage, ..UNSEEN }, loses);
    }
}

#[test]
fn what_lies_below_a_window_is_lost_without_a_look() {
    for window in [WindowRule::Unseen, WindowRule::LastRangeOnly] {
        convict_by(script::forged_script(), Policy { window, ..Policy::SOUND }, loses);
    }
}

#[test]
fn who_had_drawn_nothing_before_the_floor_was_read_may_have_by_then() {
    convict(Policy { undrawn: UndrawnRule::BeforeTheFloor, ..UNSEEN }, loses);
}

#[test]
fn who_holds_no_lock_may_have_ended() {
    convict(Policy { undrawn: UndrawnRule::WhoHoldsNoLock, ..UNSEEN }, loses);
}

#[test]
fn a_last_seq_for_a_cursor_loses_rows() {
    convict(Policy { claim: ClaimRule::AfterLastSeq, ..Policy::SOUND }, |violation| {
        matches!(violation, Violation::Lost { .. })
    });
}

#[test]
fn the_order_of_transaction_ids_is_not_the_order_of_commit() {
    convict(Policy { claim: ClaimRule::ByXid, ..Policy::SOUND }, |violation| {
        matches!(violation, Violation::OutOfOrder { .. })
    });
}

#[test]
fn windows_of_transaction_ids_break_the_order() {
    convict(Policy { claim: ClaimRule::ByXidWindow, ..Policy::SOUND }, |violation| {
        matches!(violation, Violation::OutOfOrder { .. })
    });
}

/// The cursor itself refuses it.
#[test]
#[should_panic(expected = "from a tick to a later one")]
fn a_higher_id_does_not_make_a_tick_the_later_one() {
    convict(Policy { enter: EnterRule::HigherId, ..Policy::SOUND }, |violation| {
        matches!(violation, Violation::Repeated { .. })
    });
}

#[test]
fn a_sequence_at_rest_does_not_make_an_outbox_idle() {
    convict(Policy { idle: IdleRule::SequenceAtRest, ..Policy::SOUND }, |violation| {
        matches!(violation, Violation::Hidden { .. })
    });
}
