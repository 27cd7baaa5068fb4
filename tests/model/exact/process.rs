//! What a process does: it takes buckets, fences, reads, records itself, and publishes.
//!
//! Promises: each statement and each request is a step of its own; between any two another process may do
//! anything, and this one may die, or stand still for as long as it likes. Must not: know what others do.
//! Fails: with a violation that a step commits.

use super::broker::{Broker, Ids, Topic, id};
use super::{Bug, Setup, Violation};

/// Of a small model; what is not used stays zero.
pub(super) const BUCKETS_MAX: usize = 2;

/// What PostgreSQL has of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Row {
    /// Who has taken it last. Each time is an epoch of its own: whoever had it before learns that it has not.
    pub(super) owner: Option<usize>,
    /// Ids that may have an open transaction with it.
    pub(super) fence: Ids,
    /// The saved cursor: a lower bound.
    pub(super) saved: u8,
}

/// What all processes have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) rows: Vec<Row>,
    pub(super) broker: Broker,
}

/// Where a process stands with a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    /// It is not ours, as far as we know.
    Not,
    /// It is, and these are to be fenced.
    Taken { to_fence: Ids, read: Option<u8> },
    /// Everything up to `claimed` is published, or in a transaction; what is certain is up to `certain`.
    At { claimed: u8, certain: u8 },
    /// The producers are new, so the cursor has to be read again.
    Again,
}

/// Where it stands with its producers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Producers {
    /// They may send.
    Ready,
    /// These ids are to be asked for again.
    ToInit(Ids),
    /// They are new; whether all buckets are still ours is to be seen.
    ToLook,
}

/// A transaction: an event, and then the cursor behind it, of each bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Transaction {
    producer: u8,
    /// Of each bucket; zero where it is not in it.
    events: [u8; BUCKETS_MAX],
    /// Records that were appended.
    appended: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Process {
    number: usize,
    places: Vec<Place>,
    producers: Producers,
    /// Not known to have ended, in their order.
    transactions: Vec<Transaction>,
    next_producer: u8,
}

/// One step of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Take(usize),
    DurabilityBarrier(usize, u8),
    Init(u8),
    Look,
    Read(usize),
    Record(usize),
    Append,
    /// A transaction is asked to be committed, by its place among those that have not ended.
    Commit(usize, End),
    Save(usize),
    Release(usize),
    Crash,
}

/// What the process learns of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was sent once, and has ended.
    Certain,
    /// It has ended, after who knows how many copies.
    Slow,
    /// Nothing; one copy is still on its way.
    Unknown,
}

const ENDS: [End; 3] = [End::Certain, End::Slow, End::Unknown];

impl Process {
    pub(super) fn new(number: usize, setup: &Setup) -> Self {
        let own = Ids::of_process(number, setup.producers);
        Self {
            number,
            places: vec![Place::Not; setup.buckets],
            producers: Producers::ToInit(own),
            transactions: Vec::new(),
            next_producer: 0,
        }
    }

    fn own(&self, setup: &Setup) -> Ids {
        Ids::of_process(self.number, setup.producers)
    }

    /// All steps that it can take now.
    pub(super) fn steps(&self, world: &World, setup: &Setup) -> Vec<Step> {
        let mut steps = Vec::new();
        for bucket in 0..setup.buckets {
            steps.extend(self.bucket_steps(bucket, world, setup));
        }
        match self.producers {
            Producers::ToInit(ids) if self.has_any() => steps.extend(ids.iter().map(Step::Init)),
            Producers::ToLook => steps.push(Step::Look),
            Producers::ToInit(_) => {}
            Producers::Ready => {
                if self.begins(setup).is_some() || self.unfinished(setup).is_some() {
                    steps.push(Step::Append);
                }
                for index in (0..self.transactions.len()).filter(|at| self.may_commit(*at, setup)) {
                    steps.extend(ENDS.map(|end| Step::Commit(index, end)));
                }
            }
        }
        if self.has_any() {
            steps.push(Step::Crash);
        }
        steps
    }

    fn bucket_steps(&self, bucket: usize, world: &World, setup: &Setup) -> Vec<Step> {
        let (is_quiet, is_ready) =
            (self.transactions.is_empty(), self.producers == Producers::Ready);
        let mut steps = Vec::new();
        match self.places[bucket] {
            Place::Not if is_quiet && self.producers != Producers::ToLook => {
                steps.push(Step::Take(bucket));
            }
            Place::Not => {}
            Place::Taken { to_fence, read } => {
                let others = to_fence.iter().filter(|id| !self.own(setup).has(*id));
                steps.extend(others.map(|id| Step::DurabilityBarrier(bucket, id)));
                let is_fenced = to_fence.are_none() && is_ready;
                match read {
                    Some(_) if is_fenced => steps.push(Step::Record(bucket)),
                    None if is_fenced || setup.bug == Bug::ReadsBeforeFence => {
                        steps.push(Step::Read(bucket));
                    }
                    Some(_) | None => {}
                }
            }
            Place::Again if is_ready => steps.push(Step::Read(bucket)),
            Place::Again => {}
            Place::At { claimed, certain } => {
                let known = if setup.bug == Bug::SavesBeforeCommit { claimed } else { certain };
                if world.rows[bucket].saved < known {
                    steps.push(Step::Save(bucket));
                }
                if is_quiet || setup.bug == Bug::ReleasesInFlight {
                    steps.push(Step::Release(bucket));
                }
            }
        }
        steps
    }

    fn has_any(&self) -> bool {
        self.places.iter().any(|place| *place != Place::Not)
    }

    /// Takes one of the steps.
    pub(super) fn step(
        &mut self,
        step: Step,
        world: &mut World,
        setup: &Setup,
    ) -> Result<(), Violation> {
        match step {
            Step::Take(bucket) => self.take(bucket, world, setup),
            Step::DurabilityBarrier(bucket, id) => {
                world.broker.init(id, false);
                if let Place::Taken { to_fence, .. } = &mut self.places[bucket] {
                    *to_fence = to_fence.without(id);
                }
            }
            Step::Init(id) => self.init(id, world, setup),
            Step::Look if self.owns_all(world) => self.producers = Producers::Ready,
            Step::Look => self.give_up(world, setup),
            Step::Read(bucket) => self.read(bucket, world),
            Step::Record(bucket) => self.record(bucket, world, setup),
            Step::Append => self.append(world, setup),
            Step::Commit(index, end) => return self.commit(index, end, world, setup),
            Step::Save(bucket) => return self.save(bucket, world, setup),
            Step::Release(bucket) => self.release(bucket, world, setup),
            Step::Crash => self.give_up(world, setup),
        }
        Ok(())
    }

    /// PostgreSQL: the epoch rises.
    fn take(&mut self, bucket: usize, world: &mut World, setup: &Setup) {
        let (row, own) = (&mut world.rows[bucket], self.own(setup));
        row.owner = Some(self.number);
        self.places[bucket] = Place::Taken { to_fence: row.fence, read: None };
        let lives = world.broker.live().has_all(own);
        if !lives || own.iter().any(|id| row.fence.has(id)) {
            self.drop_producers(world, setup);
        }
    }

    /// Kafka: a producer begins again, and with it ends what was open.
    fn init(&mut self, id: u8, world: &mut World, setup: &Setup) {
        world.broker.init(id, true);
        for place in &mut self.places {
            if let Place::Taken { to_fence, .. } = place {
                *to_fence = to_fence.without(id);
            }
        }
        let Producers::ToInit(ids) = self.producers else { return };
        let rest = ids.without(id);
        self.producers = match () {
            () if !rest.are_none() => Producers::ToInit(rest),
            () if setup.bug == Bug::NoSecondLook => Producers::Ready,
            () => Producers::ToLook,
        };
    }

    /// PostgreSQL: whether every bucket is still ours under the epoch that we know.
    fn owns_all(&self, world: &World) -> bool {
        let is_ours =
            |(place, row): (&Place, &Row)| *place == Place::Not || row.owner == Some(self.number);
        self.places.iter().zip(&world.rows).all(is_ours)
    }

    /// Kafka: the last committed cursor, or PostgreSQL's if that is later.
    fn read(&mut self, bucket: usize, world: &World) {
        let cursor = world.broker.read(bucket).max(world.rows[bucket].saved);
        match &mut self.places[bucket] {
            Place::Taken { read, .. } => *read = Some(cursor),
            place => *place = Place::At { claimed: cursor, certain: cursor },
        }
    }

    /// PostgreSQL: our ids may have an open transaction with the bucket from here on, if it is ours.
    fn record(&mut self, bucket: usize, world: &mut World, setup: &Setup) {
        let (row, own) = (&mut world.rows[bucket], self.own(setup));
        if row.owner != Some(self.number) && setup.bug != Bug::RecordsUnasked {
            return self.give_up(world, setup);
        }
        if setup.bug != Bug::RecordsNothing {
            row.fence = own;
        }
        if let Place::Taken { read: Some(cursor), .. } = self.places[bucket] {
            self.places[bucket] = Place::At { claimed: cursor, certain: cursor };
        }
    }

    /// The transaction that can begin, if all that was sent before is acknowledged.
    fn begins(&self, setup: &Setup) -> Option<Transaction> {
        let is_at_work = |place: &Place| matches!(place, Place::Not | Place::At { .. });
        let is_full = self.transactions.len() >= usize::from(setup.producers);
        if is_full || self.unfinished(setup).is_some() || !self.places.iter().all(is_at_work) {
            return None;
        }
        let mut events = [0; BUCKETS_MAX];
        for (place, event) in self.places.iter().zip(&mut events) {
            if let Place::At { claimed, .. } = place
                && *claimed < setup.events
            {
                *event = claimed + 1;
            }
        }
        let producer = self.next_producer;
        events.iter().any(|event| *event > 0).then_some(Transaction {
            producer,
            events,
            appended: 0,
        })
    }

    /// The last transaction, if not all of it is appended.
    fn unfinished(&self, setup: &Setup) -> Option<usize> {
        let last = self.transactions.len().checked_sub(1)?;
        let transaction = &self.transactions[last];
        let whole = transaction.records(setup).len();
        (usize::from(transaction.appended) < whole).then_some(last)
    }

    /// Kafka: one more record.
    fn append(&mut self, world: &mut World, setup: &Setup) {
        if self.unfinished(setup).is_none()
            && let Some(transaction) = self.begins(setup)
        {
            for (place, event) in self.places.iter_mut().zip(transaction.events) {
                if let Place::At { claimed, .. } = place {
                    *claimed = (*claimed).max(event);
                }
            }
            self.transactions.push(transaction);
            self.next_producer = (self.next_producer + 1) % setup.producers;
        }
        let Some(transaction) = self.transactions.last_mut() else { return };
        let (to, value) = transaction.records(setup)[usize::from(transaction.appended)];
        transaction.appended += 1;
        let id = id(self.number, transaction.producer);
        if world.broker.append(id, to, value).is_err() {
            self.drop_producers(world, setup);
        }
    }

    fn may_commit(&self, index: usize, setup: &Setup) -> bool {
        let is_whole = self.unfinished(setup) != Some(index);
        is_whole && (index == 0 || setup.bug == Bug::CommitsInAnyOrder)
    }

    /// Kafka: the end of a transaction, and what we learn of it.
    fn commit(
        &mut self,
        index: usize,
        end: End,
        world: &mut World,
        setup: &Setup,
    ) -> Result<(), Violation> {
        let transaction = self.transactions[index];
        let id = id(self.number, transaction.producer);
        if end == End::Unknown {
            world.broker.leave_copy(id);
            self.fail(index, world, setup);
            return Ok(());
        }
        match world.broker.commit(id) {
            Ok(done) => done?,
            Err(_) => {
                self.fail(index, world, setup);
                return Ok(());
            }
        }
        if end == End::Slow {
            world.broker.leave_copy(id);
            if setup.bug != Bug::KeepsProducer && setup.bug != Bug::KeepsProducerCursorFirst {
                self.drop_producers(world, setup);
                return Ok(());
            }
        }
        self.transactions.remove(index);
        self.note(&transaction);
        Ok(())
    }

    fn note(&mut self, transaction: &Transaction) {
        for (place, event) in self.places.iter_mut().zip(transaction.events) {
            if let Place::At { certain, .. } = place {
                *certain = (*certain).max(event);
            }
        }
    }

    fn fail(&mut self, index: usize, world: &mut World, setup: &Setup) {
        if setup.bug == Bug::SecondOutlivesFirst && self.transactions.len() > 1 {
            self.transactions.remove(index);
            return;
        }
        self.drop_producers(world, setup);
    }

    /// Nothing of them is used again, and nothing is aborted: what was sent may still arrive.
    fn drop_producers(&mut self, world: &mut World, setup: &Setup) {
        let own = self.own(setup);
        own.iter().for_each(|id| world.broker.forget(id));
        self.producers = Producers::ToInit(own);
        self.transactions.clear();
        self.next_producer = 0;
        for place in &mut self.places {
            if let Place::At { .. } = place {
                *place = Place::Again;
            }
        }
    }

    /// The session is over, or the process.
    fn give_up(&mut self, world: &mut World, setup: &Setup) {
        self.drop_producers(world, setup);
        self.places.fill(Place::Not);
    }

    /// PostgreSQL: how far it is, if the bucket is ours.
    fn save(&mut self, bucket: usize, world: &mut World, setup: &Setup) -> Result<(), Violation> {
        let Place::At { claimed, certain } = self.places[bucket] else { return Ok(()) };
        if world.rows[bucket].owner != Some(self.number) {
            self.give_up(world, setup);
            return Ok(());
        }
        let cursor = if setup.bug == Bug::SavesBeforeCommit { claimed } else { certain };
        world.rows[bucket].saved = cursor;
        if setup.bug == Bug::CursorOutside {
            world.broker.append_alone((Topic::Cursors, bucket), cursor);
        }
        let is_committed = world.broker.published(bucket) >= cursor;
        if is_committed { Ok(()) } else { Err(Violation::Ahead) }
    }

    /// PostgreSQL: the bucket is nobody's, and nothing is open with it.
    fn release(&mut self, bucket: usize, world: &mut World, setup: &Setup) {
        let row = &mut world.rows[bucket];
        if row.owner != Some(self.number) {
            return self.give_up(world, setup);
        }
        (row.owner, row.fence) = (None, Ids::default());
        self.places[bucket] = Place::Not;
    }
}

impl Transaction {
    /// Its records, in their order.
    fn records(&self, setup: &Setup) -> Vec<((Topic, usize), u8)> {
        let of = |topic: Topic| {
            let events = self.events.iter().copied().enumerate();
            events.filter(|(_, event)| *event > 0).map(move |(at, event)| ((topic, at), event))
        };
        match setup.bug {
            Bug::CursorOutside => of(Topic::Events).collect(),
            Bug::KeepsProducerCursorFirst => of(Topic::Cursors).chain(of(Topic::Events)).collect(),
            _ => of(Topic::Events).chain(of(Topic::Cursors)).collect(),
        }
    }
}
