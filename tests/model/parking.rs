//! Parking and retries, step by step, with a crash between any two of them.
//!
//! Promises: whatever is parked, tried again or discarded, and wherever the shard crashes, each event
//! arrives or was discarded, and first appearances of one aggregate come in the order of `seq`. Each
//! simpler rule is convicted by the same checks. Must not: share code with `src/shard/parking.rs`; the
//! real `Holds` and `Ledger` are in it. Fails: with the shortest script that proptest finds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use postrider::event::{Event, EventId};
use postrider::hold::{AggregateKey, Holds};
use postrider::ledger::{BatchNumber, Ledger, Limit};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// When the shard does what; the first of each is the real rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    parks: Parks,
    retries: Retries,
    begins: Begins,
    rest: Rest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parks {
    WhenAllBeforeIsAcknowledged,
    AtOnce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retries {
    WhenNothingIsInFlight,
    AtAnyTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    WithTheHolds,
    WithNone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    IsHeldAgain,
    IsLeft,
}

const SOUND: Policy = Policy {
    parks: Parks::WhenAllBeforeIsAcknowledged,
    retries: Retries::WhenNothingIsInFlight,
    begins: Begins::WithTheHolds,
    rest: Rest::IsHeldAgain,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Violation {
    Lost { seq: i64 },
    OutOfOrder { seq: i64 },
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Write { aggregate: u8, poison: bool },
    Claim(usize),
    Deliver(usize),
    Land,
    Save,
    Request(u8),
    Discard(usize),
    Retry(usize),
    Mend,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2_u8, prop::bool::weighted(0.3))
            .prop_map(|(aggregate, poison)| Step::Write { aggregate, poison }),
        4 => (1..4_usize).prop_map(Step::Claim),
        3 => (1..4_usize).prop_map(Step::Deliver),
        3 => Just(Step::Land),
        2 => Just(Step::Save),
        2 => (0..2_u8).prop_map(Step::Request),
        1 => (0..4_usize).prop_map(Step::Discard),
        3 => (1..3_usize).prop_map(Step::Retry),
        1 => Just(Step::Mend),
        1 => Just(Step::Crash),
    ]
}

fn script() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..50)
}

/// The place of an event in the outbox.
fn place(seq: i64) -> usize {
    usize::try_from(seq).expect("a seq is not negative") - 1
}

fn seq_of(place: usize) -> i64 {
    i64::try_from(place).expect("the outbox is small") + 1
}

fn key(aggregate: u8) -> AggregateKey {
    AggregateKey { aggregate_type: "t".to_owned(), aggregate_id: aggregate.to_string() }
}

/// A batch with more to do than to be acknowledged.
#[derive(Default)]
struct Open {
    set_aside: Vec<i64>,
    retried: Vec<i64>,
    answers: BTreeSet<u8>,
}

/// What a crash takes away.
struct Shard {
    holds: Holds,
    ledger: Ledger<usize>,
    claimed: usize,
    /// Given to the producer and not in Kafka yet, in order.
    queue: VecDeque<(BatchNumber, i64)>,
    waiting: BTreeMap<BatchNumber, usize>,
    open: BTreeMap<BatchNumber, Open>,
}

struct World {
    policy: Policy,
    /// Of each event its aggregate, and whether it is poison; `seq` is the place, from 1.
    outbox: Vec<(u8, bool)>,
    is_mended: bool,
    kafka: Vec<i64>,
    parked: BTreeSet<i64>,
    requests: BTreeSet<u8>,
    discarded: BTreeSet<i64>,
    saved: usize,
    shard: Shard,
}

impl World {
    fn new(policy: Policy) -> Self {
        Self {
            policy,
            outbox: Vec::new(),
            is_mended: false,
            kafka: Vec::new(),
            parked: BTreeSet::new(),
            requests: BTreeSet::new(),
            discarded: BTreeSet::new(),
            saved: 0,
            shard: Shard::begin(0, Holds::default()),
        }
    }

    fn aggregate(&self, seq: i64) -> u8 {
        self.outbox[place(seq)].0
    }

    fn is_poison(&self, seq: i64) -> bool {
        !self.is_mended && self.outbox[place(seq)].1
    }

    fn of(&self, aggregate: u8) -> Vec<i64> {
        self.parked.iter().copied().filter(|seq| self.aggregate(*seq) == aggregate).collect()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write { aggregate, poison } => self.outbox.push((aggregate, poison)),
            Step::Claim(count) => self.claim(count),
            Step::Deliver(count) => self.deliver(count),
            Step::Land => self.land(),
            Step::Save => self.save(),
            Step::Request(aggregate) => self.request(aggregate),
            Step::Discard(place) => self.discard(place),
            Step::Retry(piece) => self.retry(piece),
            Step::Mend => self.is_mended = true,
            Step::Crash => self.crash(),
        }
    }

    fn claim(&mut self, count: usize) {
        let from = self.shard.claimed;
        let upto = (from + count).min(self.outbox.len());
        if from < upto {
            self.shard.ledger.open_page();
            let seqs = (from..upto).map(seq_of).collect();
            self.send(seqs, Open::default());
            self.shard.claimed = upto;
            self.shard.ledger.close_page(upto);
        }
    }

    /// The publishing thread.
    fn send(&mut self, seqs: Vec<i64>, mut open: Open) {
        let number = self.shard.ledger.add_batch(seqs.len() as u64, 1);
        let mut sent = 0;
        for seq in seqs {
            let name = self.aggregate(seq).to_string();
            let event = event(seq, &name);
            if self.shard.holds.covers(&event) || self.is_poison(seq) {
                self.shard.holds.hold(AggregateKey::of(&event), seq);
                open.set_aside.push(seq);
            } else {
                self.shard.queue.push_back((number, seq));
                sent += 1;
            }
        }
        if self.policy.parks == Parks::AtOnce {
            self.parked.extend(open.set_aside.drain(..));
        }
        self.shard.waiting.insert(number, sent);
        if !open.set_aside.is_empty() || !open.retried.is_empty() {
            self.shard.open.insert(number, open);
        }
        self.acknowledge(number);
    }

    /// Lets a batch go that is delivered and has nothing more to do.
    fn acknowledge(&mut self, number: BatchNumber) {
        if self.shard.waiting.get(&number) == Some(&0) && !self.shard.open.contains_key(&number) {
            self.shard.waiting.remove(&number);
            self.shard.ledger.acknowledge(number);
        }
    }

    fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            let Some((number, seq)) = self.shard.queue.pop_front() else { return };
            self.kafka.push(seq);
            *self.shard.waiting.get_mut(&number).expect("it is in flight") -= 1;
            self.acknowledge(number);
        }
    }

    fn land(&mut self) {
        while let Some(oldest) = self.shard.ledger.oldest() {
            if self.shard.waiting[&oldest] > 0 {
                return;
            }
            let open = self.shard.open.remove(&oldest).expect("it is open");
            self.parked.extend(open.set_aside.iter());
            let published = open.retried.iter().filter(|seq| !open.set_aside.contains(seq));
            published.for_each(|seq| {
                self.parked.remove(seq);
            });
            self.requests.retain(|aggregate| !open.answers.contains(aggregate));
            self.acknowledge(oldest);
        }
    }

    fn save(&mut self) {
        while let Some(finished) = self.shard.ledger.next_finished() {
            self.saved = finished.place;
        }
    }

    fn request(&mut self, aggregate: u8) {
        if !self.of(aggregate).is_empty() {
            self.requests.insert(aggregate);
        }
    }

    fn discard(&mut self, place: usize) {
        if let Some(seq) = self.parked.iter().nth(place).copied() {
            self.parked.remove(&seq);
            self.discarded.insert(seq);
            self.requests.insert(self.aggregate(seq));
        }
    }

    fn retry(&mut self, piece: usize) {
        self.save();
        let is_quiet = self.shard.ledger.is_empty();
        if !is_quiet && self.policy.retries == Retries::WhenNothingIsInFlight {
            return;
        }
        for aggregate in self.requests.clone() {
            self.shard.holds.release(&key(aggregate));
            let all = self.of(aggregate);
            let (first, rest) = all.split_at(piece.min(all.len()));
            if first.is_empty() {
                self.requests.remove(&aggregate);
                continue;
            }
            let answers = if rest.is_empty() { [aggregate].into() } else { BTreeSet::new() };
            let open = Open { retried: first.to_vec(), answers, ..Open::default() };
            self.shard.ledger.open_page();
            self.send(first.to_vec(), open);
            self.shard.ledger.close_page(self.shard.claimed);
            if let (Some(next), Rest::IsHeldAgain) = (rest.first(), self.policy.rest) {
                self.shard.holds.hold(key(aggregate), *next);
            }
        }
    }

    fn crash(&mut self) {
        let held = self.parked.iter().map(|seq| (key(self.aggregate(*seq)), *seq));
        let holds = match self.policy.begins {
            Begins::WithTheHolds => held.collect(),
            Begins::WithNone => Holds::default(),
        };
        self.shard = Shard::begin(self.saved, holds);
    }

    /// Everything is mended, asked for, and done.
    fn finish(&mut self) {
        self.step(Step::Mend);
        for _ in 0..9 {
            let all = [Step::Claim(99), Step::Deliver(99), Step::Land, Step::Save];
            all.into_iter().for_each(|step| self.step(step));
            let again = [Step::Request(0), Step::Request(1), Step::Retry(99)];
            again.into_iter().for_each(|step| self.step(step));
        }
    }

    fn check(&self) -> Result<(), Violation> {
        let mut seen = BTreeSet::new();
        let mut last = [0; 2];
        for seq in self.kafka.iter().filter(|seq| !self.discarded.contains(seq)) {
            if seen.insert(*seq) {
                let last = &mut last[usize::from(self.aggregate(*seq))];
                if *seq < *last {
                    return Err(Violation::OutOfOrder { seq: *seq });
                }
                *last = *seq;
            }
        }
        let is_lost = |seq: &i64| !seen.contains(seq) && !self.discarded.contains(seq);
        let lost = (0..self.outbox.len()).map(seq_of).find(is_lost);
        lost.map_or(Ok(()), |seq| Err(Violation::Lost { seq }))
    }
}

impl Shard {
    fn begin(claimed: usize, holds: Holds) -> Self {
        Self {
            holds,
            ledger: Ledger::new(Limit { bytes: usize::MAX, batches: usize::MAX }),
            claimed,
            queue: VecDeque::new(),
            waiting: BTreeMap::new(),
            open: BTreeMap::new(),
        }
    }
}

fn event(seq: i64, aggregate_id: &str) -> Event<'_> {
    Event {
        seq,
        id: EventId([0; 16]),
        aggregate_type: "t",
        aggregate_id,
        kind: "",
        payload: None,
        headers: None,
        created_at_micros: 0,
    }
}

fn run(script: &[Step], policy: Policy) -> Result<(), Violation> {
    let mut world = World::new(policy);
    script.iter().for_each(|step| world.step(*step));
    world.finish();
    world.check()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::cases()))]

    #[test]
    fn each_event_arrives_in_its_place_or_was_discarded(script in script()) {
        prop_assert_eq!(run(&script, SOUND), Ok(()));
    }
}

/// Finds a script under which the mutant breaks the order.
#[track_caller]
fn convict(mutant: Policy) {
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    for _ in 0..20_000 {
        let script = script().new_tree(&mut runner).expect("nothing is rejected").current();
        if let Err(Violation::OutOfOrder { .. }) = run(&script, mutant) {
            return assert_eq!(run(&script, SOUND), Ok(()));
        }
    }
    panic!("{mutant:?} survived");
}

#[test]
fn parking_before_what_was_sent_is_acknowledged_breaks_the_order() {
    convict(Policy { parks: Parks::AtOnce, ..SOUND });
}

#[test]
fn a_retry_in_full_flight_breaks_the_order() {
    convict(Policy { retries: Retries::AtAnyTime, ..SOUND });
}

#[test]
fn beginning_without_the_holds_breaks_the_order() {
    convict(Policy { begins: Begins::WithNone, ..SOUND });
}

#[test]
fn a_rest_that_is_not_held_again_breaks_the_order() {
    convict(Policy { rest: Rest::IsLeft, ..SOUND });
}
