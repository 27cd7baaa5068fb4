//! What happens to a shard that parks, and the rules by which it works.
//!
//! Promises: half of the scripts read the log alone. Must not: judge what comes of it.

use proptest::prelude::*;

/// When the shard does what; the first of each is the real rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) parks: Parks,
    pub(super) retries: Retries,
    pub(super) begins: Begins,
    pub(super) rest: Rest,
    pub(super) holds: HoldsBy,
    pub(super) tries: TriesBy,
    pub(super) forgotten: Forgotten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parks {
    WhenAllBeforeIsAcknowledged,
    AtOnce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retries {
    WhenNothingIsInFlight,
    AtAnyTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begins {
    WithTheHolds,
    WithNone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    IsHeldAgain,
    IsLeft,
}

/// What tells in the log whether an event comes after those that are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HoldsBy {
    LogPosition,
    Seq,
}

/// In which order parked events are tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TriesBy {
    Turn,
    Seq,
}

/// What becomes of held aggregates that memory has forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forgotten {
    /// Right before a batch is handed over; memory forgets only while nothing is in flight.
    LookedUp,
    AtAnyTime,
    NotLookedUp,
}

pub(super) const SOUND: Policy = Policy {
    parks: Parks::WhenAllBeforeIsAcknowledged,
    retries: Retries::WhenNothingIsInFlight,
    begins: Begins::WithTheHolds,
    rest: Rest::IsHeldAgain,
    holds: HoldsBy::LogPosition,
    tries: TriesBy::Turn,
    forgotten: Forgotten::LookedUp,
};

/// How events are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Log,
    /// What has committed since, in the order of writing.
    Poll,
}

#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) begins: Way,
    pub(super) steps: Vec<Step>,
}

impl Script {
    pub(super) fn is_of_the_log(&self) -> bool {
        let polls = |step: &Step| matches!(step, Step::Crash(Way::Poll));
        self.begins == Way::Log && !self.steps.iter().any(polls)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Write {
        aggregate: u8,
        poison: bool,
        is_open: bool,
    },
    /// One of the open transactions.
    Commit(usize),
    Claim(usize),
    Deliver(usize),
    Land,
    Save,
    Request(u8),
    Discard(usize),
    Retry(usize),
    Mend,
    /// Too many are held: memory forgets them.
    Forget,
    /// Another shard begins at what is saved, in this way.
    Crash(Way),
}

fn step(way: impl Strategy<Value = Way> + 'static) -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2_u8, prop::bool::weighted(0.3), prop::bool::weighted(0.4)).prop_map(
            |(aggregate, poison, is_open)| Step::Write { aggregate, poison, is_open }
        ),
        2 => (0..4_usize).prop_map(Step::Commit),
        4 => (1..4_usize).prop_map(Step::Claim),
        3 => (1..4_usize).prop_map(Step::Deliver),
        3 => Just(Step::Land),
        2 => Just(Step::Save),
        2 => (0..2_u8).prop_map(Step::Request),
        1 => (0..4_usize).prop_map(Step::Discard),
        3 => (1..3_usize).prop_map(Step::Retry),
        1 => Just(Step::Mend),
        1 => Just(Step::Forget),
        1 => way.prop_map(Step::Crash),
    ]
}

pub(super) fn script() -> impl Strategy<Value = Script> {
    let way = || prop_oneof![Just(Way::Log), Just(Way::Poll)];
    let mixed = (way(), prop::collection::vec(step(way()), 1..50));
    let log = (Just(Way::Log), prop::collection::vec(step(Just(Way::Log)), 1..50));
    prop_oneof![mixed.boxed(), log.boxed()].prop_map(|(begins, steps)| Script { begins, steps })
}
