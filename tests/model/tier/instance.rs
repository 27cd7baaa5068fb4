//! One instance: its assigner, its shard, its saver and its producer, step by step.
//!
//! Promises: the steps are those of `src/relay/assigner`, `src/shard` and `src/control/cursors.rs`, each
//! statement apart from its answer; planning, dealing, cursors, ticks, ledger and the send deadline are the
//! real ones. Must not: take two steps at once. Fails: with a violation that it commits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::control::lease::Terms;
use postrider::control::lease::plan::{Deal, Holding, Tier};
use postrider::event::Bucket;
use postrider::order::cursor::Cursor;
use postrider::order::ledger::{BatchNumber, Ledger, Limit};
use postrider::order::tick::{Observation, Tick};
use postrider::publish::send_deadline::SendDeadline;

use super::outside::{Moment, Outside, index};
use super::{Bug, Dice, Violation};
use crate::database::Database;

pub(super) const LIMIT: Limit = Limit { bytes: 100, batches: 6 };

/// Where the assigner stands: before a statement takes effect, or before its answer is there.
#[derive(Debug)]
enum BucketAssigner {
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
pub(super) struct Batch {
    pub(super) number: BatchNumber,
    pub(super) rows: Vec<(Bucket, i64)>,
}

/// What a session has; all of it goes with the session.
#[derive(Debug)]
pub(crate) struct Session {
    assigner: BucketAssigner,
    pub(super) deadline: Moment,
    pub(super) send_deadline: SendDeadline,
    pub(super) owned: BTreeMap<Bucket, i64>,
    pub(super) deal: Deal,
    pub(super) tick: Arc<Tick>,
    pub(super) progress: BTreeMap<Bucket, (Cursor, u64)>,
    save: Option<Save>,
    pub(super) saves_begun: u64,
    pub(super) saves_done: u64,
    // The shard.
    pub(super) cursors: BTreeMap<Bucket, Cursor>,
    pub(super) leaving: BTreeMap<Bucket, u64>,
    pub(super) ledger: Ledger<(Bucket, Cursor)>,
    // The publisher.
    pub(super) queue: VecDeque<Batch>,
    pub(super) waiting: BTreeMap<BatchNumber, usize>,
    pub(super) in_flight: Vec<VecDeque<(BatchNumber, i64)>>,
    pub(super) acknowledged: VecDeque<BatchNumber>,
    pub(super) failed: bool,
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

    pub(super) fn clock(&self) -> Instant {
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
            assigner: BucketAssigner::Pause { until: sent },
            deadline: sent + world.own_term(),
            send_deadline: SendDeadline::ended(),
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

    pub(super) fn has_in_hand(&self, bucket: Bucket) -> bool {
        self.cursors.contains_key(&bucket) || self.leaving.contains_key(&bucket)
    }

    /// One step of `BucketAssigner::round`.
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
        let assigner = std::mem::replace(&mut self.assigner, BucketAssigner::Owners);
        self.assigner = match assigner {
            BucketAssigner::Pause { until } => self.pauses(until, stops, world),
            BucketAssigner::Renew { sent } => {
                world.outside.renew(name, world.now, World::millis(world.terms.lease));
                BucketAssigner::Renewed { sent }
            }
            BucketAssigner::Renewed { sent } => {
                self.deadline = sent + world.own_term();
                let deadline = world.began + Duration::from_millis(self.deadline);
                // The real send deadline began by the real clock; it only knows the end.
                self.send_deadline.extend(deadline);
                if stops { self.rests(world) } else { BucketAssigner::Owners }
            }
            BucketAssigner::Owners => BucketAssigner::Live { holdings: world.outside.owners() },
            BucketAssigner::Live { holdings } => {
                let silence = World::millis(world.terms.silence);
                let live = world.outside.live(name, world.now, silence);
                match self.follows(name, &Tier { live, holdings }, world) {
                    Some(next) => next,
                    None => return Ok(Stepped::Ended),
                }
            }
            BucketAssigner::Take { free } => {
                let checks = !world.bug.takes_any_epoch();
                let taken = world.outside.take(name, &free, world.now, checks);
                BucketAssigner::Taken { taken }
            }
            BucketAssigner::Taken { taken } => {
                for (bucket, epoch) in taken {
                    self.owned.insert(bucket, epoch);
                    if !self.deal.contains(bucket) {
                        self.deal.add(bucket);
                    }
                }
                self.rests(world)
            }
            BucketAssigner::Save { drained, number } if self.saves_done >= number => {
                BucketAssigner::Release { drained }
            }
            BucketAssigner::Save { drained, number } => match self.saves(world)? {
                Stepped::On => BucketAssigner::Save { drained, number },
                ended => return Ok(ended),
            },
            BucketAssigner::Release { drained } => {
                world.outside.release(name, &drained);
                BucketAssigner::Released { drained }
            }
            BucketAssigner::Released { drained } => {
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

    fn rests(&self, world: &World) -> BucketAssigner {
        BucketAssigner::Pause { until: world.now + World::millis(world.terms.interval) }
    }

    fn pauses(&mut self, until: Moment, stops: bool, world: &World) -> BucketAssigner {
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
            return BucketAssigner::Save { drained, number: self.saves_begun + 1 };
        }
        if world.now >= until {
            BucketAssigner::Renew { sent: world.now }
        } else {
            BucketAssigner::Pause { until }
        }
    }

    /// `BucketAssigner::follow`; none when a bucket was lost.
    fn follows(&mut self, name: &str, tier: &Tier, world: &World) -> Option<BucketAssigner> {
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
            return Some(BucketAssigner::Release { drained: beyond });
        }
        let free: Vec<(Bucket, i64)> =
            from_before.into_iter().chain(plan.take.iter().copied()).take(lack).collect();
        Some(if free.is_empty() { self.rests(world) } else { BucketAssigner::Take { free } })
    }

    /// A whole tick; `tests/model/relay.rs` takes it apart.
    fn ticks(&mut self, world: &mut World) -> Stepped {
        let database = &mut world.database;
        let floor = database.drawn();
        let snapshot = database.snapshot(None);
        let next = database.assign();
        let ceiling = database.drawn();
        database.end(next);
        let observed = Observation { floor, snapshot, next, ceiling, storage: 1 };
        self.tick = Arc::new(Tick::follow(&self.tick, observed).expect("there is one history"));
        Stepped::On
    }

    /// One step of a save: it begins, takes effect, or is answered. One save at a time.
    pub(super) fn saves(&mut self, world: &mut World) -> Result<Stepped, Violation> {
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
}
