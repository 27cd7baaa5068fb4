//! A model of PostgreSQL's transactions drives the real `Tick` and `Cursor`.
//!
//! Promises: over random interleavings every committed row is delivered exactly once per bucket,
//! none that was rolled back is, rows of serialised writers come in the order of commit, and
//! `Tick::is_stale` hides no row. The same checks find every mutant of the rules, so they can fail.
//! Must not: need a service, a clock, or a random seed of its own. Fails: with the shortest script
//! that proptest finds. `PROPTEST_CASES` sets how many interleavings are tried.

#![allow(clippy::print_stdout, reason = "a test may talk")]

mod bucket;
mod database;
mod exact;
mod mutants;
mod parking;
mod relay;
mod script;
mod tier;

use proptest::prelude::*;

use relay::{Policy, TickOrder, UndrawnRule};

/// About two seconds without optimisation.
const CASES_DEFAULT: u32 = 4000;

fn cases() -> u32 {
    match std::env::var("PROPTEST_CASES") {
        Ok(text) => text.parse().expect("PROPTEST_CASES is a number"),
        Err(_) => CASES_DEFAULT,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn every_row_once_and_in_order(
        script in script::script(),
        tick_order in prop::sample::select(TickOrder::SOUND),
        undrawn in prop::sample::select(UndrawnRule::SOUND),
    ) {
        let policy = Policy { tick_order, undrawn, ..Policy::SOUND };
        if let Err(violation) = script::run(&script, policy) {
            prop_assert!(false, "{violation:?}");
        }
    }

    #[test]
    fn every_row_once_although_the_sequence_is_set_back(
        script in script::set_back_script(),
        tick_order in prop::sample::select(TickOrder::SOUND),
        undrawn in prop::sample::select(UndrawnRule::SOUND),
    ) {
        let policy = Policy { tick_order, undrawn, ..Policy::SOUND };
        if let Err(violation) = script::run(&script, policy) {
            prop_assert!(false, "{violation:?}");
        }
    }

    #[test]
    fn every_row_once_although_nobody_drew_its_number(
        script in script::forged_script(),
        tick_order in prop::sample::select(TickOrder::SOUND),
        undrawn in prop::sample::select(UndrawnRule::SOUND),
    ) {
        let policy = Policy { tick_order, undrawn, ..Policy::SOUND };
        if let Err(violation) = script::run(&script, policy) {
            prop_assert!(false, "{violation:?}");
        }
    }
}
