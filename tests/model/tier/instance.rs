//! One instance: its steward, its shard, its saver and its producer, step by step.
//!
//! Promises: the steps are those of `src/relay/steward.rs`, `src/shard` and `src/cursors.rs`, each
//! statement apart from its answer; planning, dealing, cursors, ticks, ledger and the permit are the
//! real ones. Must not: take two steps at once. Fails: with a violation that it commits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::cursor::Cursor;
use postrider::event::Bucket;
use postrider::lease::Terms;
use postrider::lease::plan::{Deal, Holding, Tier};
use postrider::ledger::{BatchNumber, Ledger, Limit};
use postrider::publish::permit::Permit;
use postrider::tick::{Observation, Tick};

use super::outside::{Moment, Outside, index};
use super::{Bug, Dice, Violation};
use crate::database::{Database, Fate};

const LIMIT: Limit = Limit { bytes: 100, batches: 6 };
const PAGE_ROWS: usize = 3;
const BATCH_ROWS: usize = 2;

/// Where the steward stands: before a statement takes effect, or before its answer is there.
#[derive(Debug)]
enum Steward {
    Pause {
        until: Moment,
    },
    Renew {
        sent: Moment,
    },
    Renewed {
        sent: Moment,
    },
    Owners,
    Live {
        holdings: Vec<Holding>,
    },
    Take {
        free: Vec<(Bucket, i64)>,
    },
    Taken {
        taken: Vec<(Bucket, i64)>,
    },
    /// Waits for the end of the save with this number, which begins from now on.
    Save {
        drained: Vec<(Bucket, i64)>,
        number: u64,
    },
    Release {
        drained: Vec<(Bucket, i64)>,
    },
    Released {
        drained: Vec<(Bucket, i64)>,
    },
}

/// A save on its way: cursors with the epochs under which they are saved, and their revisions.
#[derive(Debug)]
struct Save {
    due: Vec<(Bucket, i64, Cursor)>,
    revisions: Vec<u64>,
    took_effect: bool,
}

#[derive(Debug)]
struct Batch {
    number: BatchNumber,
    rows: Vec<(Bucket, i64)>,
}

/// What a session has; all of it goes with the session.
#[derive(Debug)]
pub(crate) struct Session {
    steward: Steward,
    deadline: Moment,
    permit: Permit,
    owned: BTreeMap<Bucket, i64>,
    deal: Deal,
    tick: Arc<Tick>,
    progress: BTreeMap<Bucket, (Cursor, u64)>,
    save: Option<Save>,
    saves_begun: u64,
    saves_done: u64,
    // The shard.
    cursors: BTreeMap<Bucket, Cursor>,
    leaving: BTreeMap<Bucket, u64>,
    ledger: Ledger<(Bucket, Cursor)>,
    // The publisher.
    queue: VecDeque<Batch>,
    waiting: BTreeMap<BatchNumber, usize>,
    in_flight: Vec<VecDeque<(BatchNumber, i64)>>,
    acknowledged: VecDeque<BatchNumber>,
    failed: bool,
}

/// One process.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) name: String,
    pub(crate) session: Option<Session>,
    pub(crate) frozen_until: Moment,
    pub(crate) stops: bool,
    /// For the mutant that trusts it.
    memory: BTreeMap<Bucket, Cursor>,
}

/// What all instances have in common.
pub(crate) struct World {
    pub(crate) database: Database,
    pub(crate) outside: Outside,
    pub(crate) now: Moment,
    pub(crate) began: Instant,
    pub(crate) terms: Terms,
    pub(crate) bug: Bug,
    pub(crate) dice: Dice,
}

impl World {
    fn millis(duration: Duration) -> Moment {
        Moment::try_from(duration.as_millis()).expect("terms are short")
    }

    fn clock(&self) -> Instant {
        self.began + Duration::from_millis(self.now)
    }

    fn own_term(&self) -> Moment {
        let own = Self::millis(self.terms.own);
        if self.bug == Bug::LongDeadline { own * 3 } else { own }
    }
}

/// What became of a step.
pub(crate) enum Stepped {
    On,
    /// The session ended by itself.
    Ended,
    /// The instance has left the tier.
    Left,
}

impl Instance {
    pub(crate) fn new(name: String) -> Self {
        let memory = BTreeMap::new();
        Self { name, session: None, frozen_until: 0, stops: false, memory }
    }

    /// One step of one of its tasks.
    pub(crate) fn step(&mut self, world: &mut World) -> Result<Stepped, Violation> {
        if world.now < self.frozen_until {
            return Ok(Stepped::On);
        }
        let Some(session) = &mut self.session else {
            if self.stops {
                return Ok(Stepped::Left);
            }
            self.session = Some(Session::begin(&self.name, world));
            return Ok(Stepped::On);
        };
        let stepped = match world.dice.below(8) {
            0..=2 => session.stewards(&self.name, self.stops, world)?,
            3 => session.ticks(world),
            4 => session.saves(world)?,
            5 => session.works(self.stops, &mut self.memory, world)?,
            6 => session.publishes(&self.name, world)?,
            _ => session.brokers(world),
        };
        if !matches!(stepped, Stepped::On) {
            self.end_session(world);
        }
        Ok(stepped)
    }

    /// Everything of a session ends; what its producer had sent may still arrive.
    pub(crate) fn end_session(&mut self, world: &mut World) {
        let Some(session) = self.session.take() else { return };
        world.outside.lose_session(&self.name);
        session.drop_producer(world);
    }

    /// As a power cut does; a statement that was sent may still take effect.
    pub(crate) fn kill(&mut self, world: &mut World) -> Result<(), Violation> {
        if let Some(session) = &mut self.session
            && world.dice.below(2) == 0
        {
            session.stewards(&self.name, self.stops, world)?;
        }
        self.end_session(world);
        Ok(())
    }

    /// Kafka refuses a record: the shard's producer is replaced.
    pub(crate) fn fail_producer(&mut self) {
        if let Some(session) = &mut self.session {
            session.failed = true;
        }
    }
}

impl Session {
    fn begin(name: &str, world: &mut World) -> Self {
        let latest = world.outside.cursors.iter().map(|row| Arc::clone(row.saved.upto()));
        let tick = latest.max_by_key(|tick| tick.next).expect("there are buckets");
        let sent = world.now;
        world.outside.renew(name, world.now, World::millis(world.terms.lease));
        Self {
            steward: Steward::Pause { until: sent },
            deadline: sent + world.own_term(),
            permit: Permit::ended(),
            owned: BTreeMap::new(),
            deal: Deal::new(2),
            tick,
            progress: BTreeMap::new(),
            save: None,
            saves_begun: 0,
            saves_done: 0,
            cursors: BTreeMap::new(),
            leaving: BTreeMap::new(),
            ledger: Ledger::new(LIMIT),
            queue: VecDeque::new(),
            waiting: BTreeMap::new(),
            in_flight: vec![VecDeque::new(); world.outside.partitions.len()],
            acknowledged: VecDeque::new(),
            failed: false,
        }
    }

    fn drop_producer(self, world: &mut World) {
        for (partition, records) in self.in_flight.into_iter().enumerate() {
            let records = records.into_iter().map(|(_, seq)| seq).collect();
            world.outside.leave_behind(partition, records);
        }
    }

    fn has_in_hand(&self, bucket: Bucket) -> bool {
        self.cursors.contains_key(&bucket) || self.leaving.contains_key(&bucket)
    }

    /// One step of `Steward::round`.
    fn stewards(
        &mut self,
        name: &str,
        stops: bool,
        world: &mut World,
    ) -> Result<Stepped, Violation> {
        let has_session = world.outside.instances.get(name).is_some_and(|row| row.has_session);
        if world.now >= self.deadline || !has_session {
            return Ok(Stepped::Ended);
        }
        let steward = std::mem::replace(&mut self.steward, Steward::Owners);
        self.steward = match steward {
            Steward::Pause { until } => self.pauses(until, stops, world),
            Steward::Renew { sent } => {
                world.outside.renew(name, world.now, World::millis(world.terms.lease));
                Steward::Renewed { sent }
            }
            Steward::Renewed { sent } => {
                self.deadline = sent + world.own_term();
                let deadline = world.began + Duration::from_millis(self.deadline);
                // The real permit began by the real clock; it only knows the end.
                self.permit.extend(deadline);
                if stops { self.rests(world) } else { Steward::Owners }
            }
            Steward::Owners => Steward::Live { holdings: world.outside.owners() },
            Steward::Live { holdings } => {
                let silence = World::millis(world.terms.silence);
                let live = world.outside.live(name, world.now, silence);
                match self.follows(name, &Tier { live, holdings }, world) {
                    Some(next) => next,
                    None => return Ok(Stepped::Ended),
                }
            }
            Steward::Take { free } => {
                let checks = !world.bug.takes_any_epoch();
                let taken = world.outside.take(name, &free, world.now, checks);
                Steward::Taken { taken }
            }
            Steward::Taken { taken } => {
                for (bucket, epoch) in taken {
                    self.owned.insert(bucket, epoch);
                    if !self.deal.contains(bucket) {
                        self.deal.add(bucket);
                    }
                }
                self.rests(world)
            }
            Steward::Save { drained, number } if self.saves_done >= number => {
                Steward::Release { drained }
            }
            Steward::Save { drained, number } => match self.saves(world)? {
                Stepped::On => Steward::Save { drained, number },
                ended => return Ok(ended),
            },
            Steward::Release { drained } => {
                world.outside.release(name, &drained);
                Steward::Released { drained }
            }
            Steward::Released { drained } => {
                for (bucket, _) in &drained {
                    self.owned.remove(bucket);
                    self.progress.remove(bucket);
                }
                if stops && self.owned.is_empty() {
                    world.outside.instances.remove(name);
                    return Ok(Stepped::Left);
                }
                self.rests(world)
            }
        };
        Ok(Stepped::On)
    }

    fn rests(&self, world: &World) -> Steward {
        Steward::Pause { until: world.now + World::millis(world.terms.interval) }
    }

    fn pauses(&mut self, until: Moment, stops: bool, world: &World) -> Steward {
        let early = world.bug == Bug::ReleasesBeforeDrained;
        let is_free = |bucket: &Bucket| {
            let given_up = stops || !self.deal.contains(*bucket);
            // The one who stops lets its shard end first, with nothing in flight.
            let is_done = if stops { self.ledger.is_empty() } else { !self.has_in_hand(*bucket) };
            given_up && (early || is_done)
        };
        let drained: Vec<(Bucket, i64)> = self
            .owned
            .iter()
            .filter(|(bucket, _)| is_free(bucket))
            .map(|(bucket, epoch)| (*bucket, *epoch))
            .collect();
        if !drained.is_empty() || (stops && self.owned.is_empty()) {
            return Steward::Save { drained, number: self.saves_begun + 1 };
        }
        if world.now >= until {
            Steward::Renew { sent: world.now }
        } else {
            Steward::Pause { until }
        }
    }

    /// `Steward::follow`; none when a bucket was lost.
    fn follows(&mut self, name: &str, tier: &Tier, world: &World) -> Option<Steward> {
        let owns = |bucket: Bucket, epoch: i64| {
            let holding = &tier.holdings[index(bucket)];
            holding.epoch == epoch && holding.owner.as_deref() == Some(name)
        };
        if !self.owned.iter().all(|(bucket, epoch)| owns(*bucket, *epoch)) {
            return None;
        }
        let mut plan = tier.plan(name);
        if world.bug.plans_twice() {
            let is_free = |holding: &&Holding| {
                !tier.live.iter().any(|live| Some(live) == holding.owner.as_ref())
            };
            let free = tier.holdings.iter().filter(is_free);
            plan.take = free.map(|holding| (holding.bucket, holding.epoch)).collect();
        }
        while self.deal.len() > plan.quota && self.deal.remove_one().is_some() {}
        for bucket in self.owned.keys() {
            if self.deal.len() < plan.quota && !self.deal.contains(*bucket) {
                self.deal.add(*bucket);
            }
        }
        let mut from_before: Vec<(Bucket, i64)> = tier
            .holdings
            .iter()
            .filter(|holding| holding.owner.as_deref() == Some(name))
            .filter(|holding| !self.owned.contains_key(&holding.bucket))
            .map(|holding| (holding.bucket, holding.epoch))
            .collect();
        let lack = plan.quota.saturating_sub(self.deal.len());
        let beyond = from_before.split_off(lack.min(from_before.len()));
        if !beyond.is_empty() && world.bug != Bug::ForgetsItsFormerSession {
            return Some(Steward::Release { drained: beyond });
        }
        let free: Vec<(Bucket, i64)> =
            from_before.into_iter().chain(plan.take.iter().copied()).take(lack).collect();
        Some(if free.is_empty() { self.rests(world) } else { Steward::Take { free } })
    }

    /// A whole tick; `tests/model/relay.rs` takes it apart.
    fn ticks(&mut self, world: &mut World) -> Stepped {
        let database = &mut world.database;
        let floor = database.drawn();
        let snapshot = database.snapshot(None);
        let next = database.assign();
        let ceiling = database.drawn();
        database.end(next);
        let observed = Observation { floor, snapshot, next, ceiling };
        self.tick = Arc::new(Tick::follow(&self.tick, observed).expect("there is one history"));
        Stepped::On
    }

    /// One step of a save: it begins, takes effect, or is answered. One save at a time.
    fn saves(&mut self, world: &mut World) -> Result<Stepped, Violation> {
        let Some(save) = &mut self.save else {
            let due: Vec<(Bucket, i64, Cursor)> = self
                .progress
                .iter()
                .filter_map(|(bucket, (cursor, _))| {
                    Some((*bucket, *self.owned.get(bucket)?, cursor.clone()))
                })
                .collect();
            let revisions = due.iter().map(|(bucket, ..)| self.progress[bucket].1).collect();
            self.save = Some(Save { due, revisions, took_effect: false });
            self.saves_begun += 1;
            return Ok(Stepped::On);
        };
        if !save.took_effect {
            save.took_effect = true;
            let checks = world.bug != Bug::SavesAnyEpoch;
            let all = world.outside.save(&save.due, checks)?;
            return Ok(if all { Stepped::On } else { Stepped::Ended });
        }
        let Some(Save { due, revisions, .. }) = self.save.take() else { return Ok(Stepped::On) };
        for ((bucket, _, _), revision) in due.iter().zip(revisions) {
            if self.progress.get(bucket).is_some_and(|(_, known)| *known == revision) {
                self.progress.remove(bucket);
            }
        }
        self.saves_done += 1;
        Ok(Stepped::On)
    }

    /// One step of the shard.
    fn works(
        &mut self,
        stops: bool,
        memory: &mut BTreeMap<Bucket, Cursor>,
        world: &mut World,
    ) -> Result<Stepped, Violation> {
        if self.failed {
            self.replace_producer(world);
            return Ok(Stepped::On);
        }
        self.settle(memory);
        if stops {
            return Ok(Stepped::On);
        }
        let finished = self.ledger.pages_finished();
        self.leaving.retain(|_, pages| *pages > finished);
        let given_up = |bucket: &Bucket| !self.deal.contains(*bucket);
        let leaving: Vec<Bucket> =
            self.cursors.keys().copied().filter(|bucket| given_up(bucket)).collect();
        for bucket in leaving {
            self.cursors.remove(&bucket);
            self.leaving.insert(bucket, self.ledger.pages_opened());
        }
        let joins = self
            .owned
            .keys()
            .copied()
            .find(|bucket| self.deal.contains(*bucket) && !self.has_in_hand(*bucket));
        if let Some(bucket) = joins {
            // Its cursor may not be saved yet; then the save comes first.
            if self.progress.contains_key(&bucket) {
                return self.saves(world);
            }
            return Ok(self.join(bucket, memory, world));
        }
        self.claim(world);
        Ok(Stepped::On)
    }

    fn join(
        &mut self,
        bucket: Bucket,
        memory: &BTreeMap<Bucket, Cursor>,
        world: &World,
    ) -> Stepped {
        let row = &world.outside.cursors[index(bucket)];
        if row.epoch != self.owned[&bucket] {
            return Stepped::Ended;
        }
        let remembered = memory.get(&bucket).filter(|_| world.bug == Bug::KeepsCursors);
        self.cursors.insert(bucket, remembered.unwrap_or(&row.saved).clone());
        Stepped::On
    }

    fn replace_producer(&mut self, world: &mut World) {
        self.failed = false;
        for (partition, records) in self.in_flight.iter_mut().enumerate() {
            let records = std::mem::take(records).into_iter().map(|(_, seq)| seq).collect();
            world.outside.leave_behind(partition, records);
        }
        self.queue.clear();
        self.waiting.clear();
        self.acknowledged.clear();
        self.ledger = Ledger::new(LIMIT);
        self.leaving.clear();
        if world.bug != Bug::ResumesWhereItClaimed {
            self.cursors.clear();
        }
    }

    fn settle(&mut self, memory: &mut BTreeMap<Bucket, Cursor>) {
        while let Some(number) = self.acknowledged.pop_front() {
            self.ledger.acknowledge(number);
        }
        while let Some(finished) = self.ledger.next_finished() {
            let (bucket, cursor) = finished.place;
            memory.insert(bucket, cursor.clone());
            let revision = self.progress.get(&bucket).map_or(0, |(_, revision)| revision + 1);
            self.progress.insert(bucket, (cursor, revision));
        }
    }

    fn claim(&mut self, world: &mut World) {
        let tick = Arc::clone(&self.tick);
        let buckets: Vec<Bucket> = self.cursors.keys().copied().collect();
        let Some(place) = world.dice.below(1 << 30).checked_rem(buckets.len() as u64) else {
            return;
        };
        let bucket = buckets[usize::try_from(place).expect("it is below a length")];
        let mut cursor = self.cursors[&bucket].clone();
        if cursor.is_finished() && tick.is_later_than(cursor.upto()) {
            cursor.enter(&tick);
        }
        if cursor.is_finished() || !self.ledger.has_room() {
            self.cursors.insert(bucket, cursor);
            return;
        }
        let count = world.outside.partitions.len();
        let claimed = |row: &&crate::database::Row| {
            row.aggregate % count == index(bucket)
                && matches!(row.fate, Fate::Committed(_))
                && row.seq > cursor.position()
                && row.seq <= cursor.through()
                && !cursor.from().sees(row.xid)
                && cursor.upto().snapshot.sees(row.xid)
        };
        let rows: Vec<(Bucket, i64)> = world
            .database
            .rows()
            .iter()
            .filter(claimed)
            .take(PAGE_ROWS)
            .map(|row| (bucket, row.seq))
            .collect();
        self.ledger.open_page();
        for rows in rows.chunks(BATCH_ROWS) {
            let number = self.ledger.add_batch(rows.len() as u64, 1);
            self.waiting.insert(number, rows.len());
            self.queue.push_back(Batch { number, rows: rows.to_vec() });
            cursor.advance(rows[rows.len() - 1].1);
        }
        if rows.len() < PAGE_ROWS {
            cursor.finish();
        }
        self.ledger.close_page((bucket, cursor.clone()));
        self.cursors.insert(bucket, cursor);
    }

    /// One batch goes to the producer, if the permit lasts.
    fn publishes(&mut self, name: &str, world: &mut World) -> Result<Stepped, Violation> {
        let Some(batch) = self.queue.pop_front() else { return Ok(Stepped::On) };
        if self.failed {
            return Ok(Stepped::On);
        }
        if !self.permit.covers(world.clock()) {
            return Ok(Stepped::Ended);
        }
        for (bucket, seq) in &batch.rows {
            let epoch = self.owned.get(bucket).copied().unwrap_or(-1);
            // Without a session it counts as dead before its lease is over, and does not know yet.
            let has_session = world.outside.instances.get(name).is_some_and(|row| row.has_session);
            if has_session && !world.outside.is_owned(*bucket, epoch) {
                return Err(Violation::Overlap);
            }
            self.in_flight[index(*bucket)].push_back((batch.number, *seq));
        }
        if world.bug == Bug::AcknowledgesBeforeKafka {
            self.waiting.remove(&batch.number);
            self.acknowledged.push_back(batch.number);
        }
        Ok(Stepped::On)
    }

    /// The broker takes one record, and its acknowledgement comes.
    fn brokers(&mut self, world: &mut World) -> Stepped {
        let place = world.dice.below(self.in_flight.len() as u64);
        let partition = usize::try_from(place).expect("it is below a length");
        if self.failed {
            return Stepped::On;
        }
        let Some((number, seq)) = self.in_flight[partition].pop_front() else { return Stepped::On };
        world.outside.append(partition, seq);
        if let Some(left) = self.waiting.get_mut(&number) {
            *left -= 1;
            if *left == 0 {
                self.waiting.remove(&number);
                self.acknowledged.push_back(number);
            }
        }
        Stepped::On
    }
}
