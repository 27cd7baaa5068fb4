//! Parking and retries, step by step, with a crash between any two of them.
//!
//! Promises: whatever is parked, tried again or discarded, wherever the shard crashes, and whether it then
//! reads the log or polls, each event arrives or was discarded, and first appearances of one aggregate come
//! in order: in the log in that of the commits; where polling is mixed in, events come so whose order of
//! writing is that of their commits, as that of writers with a lock. Each simpler rule is convicted by the
//! same checks. Must not: share code with `src/shard/parking.rs`; the real `Holds` and `Ledger` are in it.
//! Fails: with the shortest script that proptest finds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use postrider::event::{Event, EventId, LogPosition, OrderingKey};
use postrider::order::holds::{AggregateKey, HeldFrom, Holds};
use postrider::order::ledger::{BatchNumber, Ledger, Limit};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

mod script;

use script::{
    Begins, Forgotten, HoldsBy, Parks, Policy, Rest, Retries, SOUND, Script, Step, TriesBy, Way,
    script,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Violation {
    Lost { seq: i64 },
    OutOfOrder { seq: i64 },
}

/// The place of an event in the outbox, which is that of writing.
fn place(seq: i64) -> usize {
    usize::try_from(seq).expect("a seq is not negative") - 1
}

fn seq_of(place: usize) -> i64 {
    i64::try_from(place).expect("the outbox is small") + 1
}

fn key(aggregate: u8) -> AggregateKey {
    AggregateKey::named("t", &aggregate.to_string())
}

/// A batch with more to do than to be acknowledged.
#[derive(Default)]
struct Open {
    set_aside: Vec<(i64, Option<LogPosition>)>,
    retried: Vec<i64>,
    answers: BTreeSet<u8>,
}

/// What a crash takes away.
struct Shard {
    way: Way,
    holds: Holds,
    ledger: Ledger<usize>,
    /// A place in the log.
    claimed: usize,
    /// Given to the producer and not in Kafka yet, in order.
    queue: VecDeque<(BatchNumber, i64)>,
    waiting: BTreeMap<BatchNumber, usize>,
    open: BTreeMap<BatchNumber, Open>,
    /// What is held is looked up where it is parked.
    looks_up: bool,
}

struct World {
    policy: Policy,
    /// Of each event its aggregate, and whether it is poison; `seq` is the place, from 1.
    outbox: Vec<(u8, bool)>,
    open: Vec<i64>,
    /// What has committed, in the order of the commits.
    log: Vec<i64>,
    is_mended: bool,
    kafka: Vec<i64>,
    /// By their turns; with their arrivals, if the log had brought them.
    parked: BTreeMap<u32, (i64, Option<LogPosition>)>,
    turn: u32,
    requests: BTreeSet<u8>,
    discarded: BTreeSet<i64>,
    saved: usize,
    shard: Shard,
}

impl World {
    fn new(policy: Policy, way: Way) -> Self {
        Self {
            policy,
            outbox: Vec::new(),
            open: Vec::new(),
            log: Vec::new(),
            is_mended: false,
            kafka: Vec::new(),
            parked: BTreeMap::new(),
            turn: 0,
            requests: BTreeSet::new(),
            discarded: BTreeSet::new(),
            saved: 0,
            shard: Shard::begin(way, 0, Holds::default()),
        }
    }

    fn aggregate(&self, seq: i64) -> u8 {
        self.outbox[place(seq)].0
    }

    fn is_poison(&self, seq: i64) -> bool {
        !self.is_mended && self.outbox[place(seq)].1
    }

    /// What is parked of an aggregate, in the order in which it is tried again.
    fn of(&self, aggregate: u8) -> Vec<(i64, Option<LogPosition>)> {
        let is_of = |(seq, _): &(i64, _)| self.aggregate(*seq) == aggregate;
        let mut all: Vec<_> = self.parked.values().copied().filter(is_of).collect();
        if self.policy.tries == TriesBy::Seq {
            all.sort_unstable_by_key(|(seq, _)| *seq);
        }
        all
    }

    fn park(&mut self, events: impl IntoIterator<Item = (i64, Option<LogPosition>)>) {
        for (seq, log_position) in events {
            if !self.parked.values().any(|(known, _)| *known == seq) {
                self.turn += 1;
                self.parked.insert(self.turn, (seq, log_position));
            }
        }
    }

    fn take_out(&mut self, seq: i64) {
        self.parked.retain(|_, (known, _)| *known != seq);
    }

    /// What a reader of the log knows of an event. Each transaction but the first has two.
    fn log_position(&self, seq: i64) -> Option<LogPosition> {
        let place = self.log.iter().position(|known| *known == seq)? as u64 + 1;
        let is_known = self.shard.way == Way::Log && self.policy.holds == HoldsBy::LogPosition;
        let index = u32::from(place % 2 == 1);
        is_known.then_some(LogPosition { commit_lsn: place / 2, index })
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write { aggregate, poison, is_open } => self.write(aggregate, poison, is_open),
            Step::Commit(place) => self.commit(place),
            Step::Claim(count) => self.claim(count),
            Step::Deliver(count) => self.deliver(count),
            Step::Land => self.land(),
            Step::Save => self.save(),
            Step::Request(aggregate) => self.request(aggregate),
            Step::Discard(place) => self.discard(place),
            Step::Retry(piece) => self.retry(piece),
            Step::Mend => self.is_mended = true,
            Step::Forget => self.forget(),
            Step::Crash(way) => self.crash(way),
        }
    }

    fn write(&mut self, aggregate: u8, poison: bool, is_open: bool) {
        self.outbox.push((aggregate, poison));
        let seq = self.outbox.len() as i64;
        if is_open { &mut self.open } else { &mut self.log }.push(seq);
    }

    fn commit(&mut self, place: usize) {
        if place < self.open.len() {
            self.log.push(self.open.remove(place));
        }
    }

    fn claim(&mut self, count: usize) {
        if self.shard.looks_up && self.shard.open.values().any(|open| !open.retried.is_empty()) {
            // What is just leaving would hold what comes after it, and nobody would ask for that.
            return;
        }
        let from = self.shard.claimed;
        let upto = (from + count).min(self.log.len());
        if from < upto {
            self.shard.ledger.open_page();
            let mut seqs = self.log[from..upto].to_vec();
            if self.shard.way == Way::Poll {
                seqs.sort_unstable();
            }
            self.look_up(&seqs);
            let ordering_key =
                |seq| self.log_position(seq).map_or(OrderingKey::Written, OrderingKey::Committed);
            let events = seqs.into_iter().map(|seq| (seq, ordering_key(seq))).collect();
            self.send(events, Open::default());
            self.shard.claimed = upto;
            self.shard.ledger.close_page(upto);
        }
    }

    /// Memory forgets which aggregates are held.
    fn forget(&mut self) {
        self.save();
        let at_any_time = self.policy.forgotten == Forgotten::AtAnyTime;
        if self.shard.ledger.is_empty() || at_any_time {
            self.shard.holds = Holds::default();
            self.shard.looks_up = self.policy.forgotten != Forgotten::NotLookedUp;
        }
    }

    fn look_up(&mut self, seqs: &[i64]) {
        if !self.shard.looks_up {
            return;
        }
        for aggregate in seqs.iter().map(|seq| self.aggregate(*seq)).collect::<BTreeSet<u8>>() {
            for parked in self.of(aggregate) {
                let (key, from) = self.hold_of(parked);
                self.shard.holds.hold(key, from);
            }
        }
    }

    /// The publishing thread.
    fn send(&mut self, events: Vec<(i64, OrderingKey)>, mut open: Open) {
        let number = self.shard.ledger.add_batch(events.len() as u64, 1);
        let mut sent = 0;
        for (seq, ordering_key) in events {
            let name = self.aggregate(seq).to_string();
            let event = event(seq, &name);
            let is_caught = self.shard.holds.catch(&event, ordering_key);
            if is_caught || self.is_poison(seq) {
                if !is_caught {
                    self.shard
                        .holds
                        .hold(AggregateKey::of(&event), HeldFrom::new(seq, ordering_key));
                }
                open.set_aside.push((seq, log_position_of(ordering_key)));
            } else {
                self.shard.queue.push_back((number, seq));
                sent += 1;
            }
        }
        if self.policy.parks == Parks::AtOnce {
            self.park(open.set_aside.drain(..));
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
            let again: Vec<i64> = open.set_aside.iter().map(|(seq, _)| *seq).collect();
            self.park(open.set_aside);
            let published = open.retried.iter().filter(|seq| !again.contains(seq));
            published.for_each(|seq| self.take_out(*seq));
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
        if let Some((seq, _)) = self.parked.values().nth(place).copied() {
            self.take_out(seq);
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
            let retried = first.iter().map(|(seq, _)| *seq).collect();
            let open = Open { retried, answers, ..Open::default() };
            let events = first.iter().map(|(seq, at)| (*seq, OrderingKey::Waiting(*at))).collect();
            self.shard.ledger.open_page();
            self.send(events, open);
            self.shard.ledger.close_page(self.shard.claimed);
            if self.policy.rest == Rest::IsHeldAgain {
                rest.iter().for_each(|parked| {
                    let (key, from) = self.hold_of(*parked);
                    self.shard.holds.hold(key, from);
                });
            }
        }
    }

    fn hold_of(&self, (seq, log_position): (i64, Option<LogPosition>)) -> (AggregateKey, HeldFrom) {
        (key(self.aggregate(seq)), HeldFrom::new(seq, OrderingKey::Waiting(log_position)))
    }

    fn crash(&mut self, way: Way) {
        let held = self.parked.values().map(|parked| self.hold_of(*parked));
        let holds = match self.policy.begins {
            Begins::WithTheHolds => held.collect(),
            Begins::WithNone => Holds::default(),
        };
        self.shard = Shard::begin(way, self.saved, holds);
    }

    /// Everything is mended, asked for, and done.
    fn finish(&mut self) {
        self.step(Step::Mend);
        while !self.open.is_empty() {
            self.step(Step::Commit(0));
        }
        for _ in 0..9 {
            let all = [Step::Claim(99), Step::Deliver(99), Step::Land, Step::Save];
            all.into_iter().for_each(|step| self.step(step));
            let again = [Step::Request(0), Step::Request(1), Step::Retry(99)];
            again.into_iter().for_each(|step| self.step(step));
        }
    }

    /// Whether one event has to come before another of its aggregate.
    fn is_before(&self, one: i64, other: i64, is_of_the_log: bool) -> bool {
        let place = |seq| self.log.iter().position(|known| *known == seq);
        self.aggregate(one) == self.aggregate(other)
            && place(one) < place(other)
            && (is_of_the_log || one < other)
    }

    fn check(&self, is_of_the_log: bool) -> Result<(), Violation> {
        let mut seen: Vec<i64> = Vec::new();
        for seq in self.kafka.iter().filter(|seq| !self.discarded.contains(seq)) {
            if !seen.contains(seq) {
                if seen.iter().any(|before| self.is_before(*seq, *before, is_of_the_log)) {
                    return Err(Violation::OutOfOrder { seq: *seq });
                }
                seen.push(*seq);
            }
        }
        let is_lost = |seq: &i64| !seen.contains(seq) && !self.discarded.contains(seq);
        let lost = (0..self.outbox.len()).map(seq_of).find(is_lost);
        lost.map_or(Ok(()), |seq| Err(Violation::Lost { seq }))
    }
}

impl Shard {
    fn begin(way: Way, claimed: usize, holds: Holds) -> Self {
        Self {
            way,
            holds,
            ledger: Ledger::new(Limit { bytes: usize::MAX, batches: usize::MAX }),
            claimed,
            queue: VecDeque::new(),
            waiting: BTreeMap::new(),
            open: BTreeMap::new(),
            looks_up: false,
        }
    }
}

fn log_position_of(ordering_key: OrderingKey) -> Option<LogPosition> {
    match ordering_key {
        OrderingKey::Committed(log_position) | OrderingKey::Waiting(Some(log_position)) => {
            Some(log_position)
        }
        OrderingKey::Written | OrderingKey::Waiting(None) => None,
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

fn run(script: &Script, policy: Policy) -> Result<(), Violation> {
    let mut world = World::new(policy, script.begins);
    script.steps.iter().for_each(|step| world.step(*step));
    world.finish();
    world.check(script.is_of_the_log())
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

#[test]
fn holding_by_the_order_of_writing_breaks_that_of_the_log() {
    convict(Policy { holds: HoldsBy::Seq, ..SOUND });
}

#[test]
fn trying_again_in_the_order_of_writing_breaks_that_of_the_log() {
    convict(Policy { tries: TriesBy::Seq, ..SOUND });
}

#[test]
fn forgetting_without_looking_up_breaks_the_order() {
    convict(Policy { forgotten: Forgotten::NotLookedUp, ..SOUND });
}

#[test]
fn forgetting_what_is_not_parked_yet_breaks_the_order() {
    convict(Policy { forgotten: Forgotten::AtAnyTime, ..SOUND });
}
