//! What a shard does with events that were not sent, and how it tries them again.
//!
//! Promises: a batch counts as done only when all of its events are in Kafka or in `postrider.parked`,
//! on disk; events of one aggregate appear first in the order in which they are read, whatever is parked,
//! tried again or discarded, and whatever crashes in between. Must not: send, claim, or know SQL.
//! Fails: with the error of `postrider.parked`; nothing is acknowledged then.
//!
//! **Which order.** The log brings events by their log position: the place of the commit, then that in the
//! transaction. Polling brings ranges of commits, each by `seq`. Writers that take turns at an aggregate get
//! the same order from both.
//!
//! **Why it holds.** Let *S* be the events that are in Kafka, *P* those in `postrider.parked`. Three rules
//! are kept here.
//!
//! 1. *An event is parked only when everything that was sent before it is acknowledged.* The shard keeps
//!    what was set aside until its batch is the oldest in flight and its other records are delivered.
//!    So whatever is in P has all earlier events of its aggregate in S or in P, from the moment at which
//!    it is there; and S only grows, and an event leaves P only for S (or because somebody discards it).
//! 2. *A retry begins when nothing is in flight, and the publishing thread does everything in order.*
//!    It is told: let these aggregates go; send their first parked events; hold those again that have
//!    more, from the next one on. What the shard reads later follows behind.
//! 3. *P is a queue.* An event gets its turn when it enters P, and keeps it as long as it is there. By rule 1
//!    events enter in the order in which they are read, from the log or from the table; they leave from the
//!    front.
//!
//! Thus a retry sends the first events of P, whose predecessors are all in S. The aggregate's next event is sent either by the next piece of the retry or, when P is exhausted, by the
//! claim; either way behind them on the same producer, which leaves no gaps. A retried event that
//! cannot be sent either is held again by the publishing thread before it meets the next one.
//!
//! After a crash the shard begins at the saved cursor, which may lie before or behind any of these. It
//! reads the holds first. An event that was not read before comes after all of P, in every order, and is
//! held. One that was, and comes before P, is sent again: a repeat, in its place. One that is in P is parked
//! again, which changes nothing.
//!
//! So it must be known whether an event comes before P or not. In the log its log position is compared with the
//! first in P. Polling compares its `seq` with the lowest in P, and so does the log with the lowest of those
//! that polling has parked: they have no log position. As long as one way alone has read since P began, that is
//! exact for the log whoever writes. Where polling comes in, it is for writers that take turns.
//!
//! An event that is tried again is no question: it is in P, and waits as soon as one before it is held.
//!
//! **Of how many.** Up to [`HELD_MAX`] held aggregates lie in memory. When there are more, then at a moment when nothing
//! is in flight memory forgets them: all of P is in the table. From then on, right before a batch is handed
//! over, those of its aggregates that are in P are looked up and held again. What is set aside meanwhile and not in P
//! yet is in memory. Retried events are in P until they land: nothing is looked up while a retry is on
//! its way, so that nobody waits behind events that are just leaving.
//!
//! One that was discarded, and is read again because no cursor behind it was saved, enters again, as the last.
//!
//! `tests/model/parking.rs` runs these steps against a model that crashes anywhere and reads on in either
//! way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashSet;

use crate::control::parked::{FromLog, Owned, Parked, ParkedWaiting, RetryPage};
use crate::error::Result;
use crate::event::{Bucket, Event, EventId, LendEvent, OrderingKey, OwnedEvent};
use crate::order::holds::{AggregateKey, HELD_MAX, Hold, Reason, Refusal, SetAside};
use crate::order::ledger::BatchNumber;
use crate::publish::kafka::producer::Warnings;
use crate::shard::batch::OutgoingRow;
use crate::shard::probes::Probes;

/// How often the shard looks for requests, while any aggregate is held.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often those are counted that are held in the table alone.
const COUNT_INTERVAL: Duration = Duration::from_secs(60);

/// What of a shard's events is parked or on its way there.
#[derive(Debug)]
pub(super) struct Parking {
    parked: Arc<Parked>,
    warnings: Arc<Warnings>,
    /// Batches with more to do than to be acknowledged.
    open: BTreeMap<BatchNumber, OpenBatch>,
    retry: Option<Retry>,
    probes: Probes,
    is_requested: bool,
    /// None while nothing is held that anybody could ask for.
    next_look: Option<Instant>,
    /// What of [`Parked::asks`] was looked for.
    asked: u64,
    known: Known,
    /// How many are held, and when that was counted, where memory does not know all.
    counted: Option<(u64, Instant)>,
}

/// Where it is known which aggregates are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// The publishing threads know all.
    InMemory,
    /// They are too many. The threads know those of which an event was set aside since; the others are
    /// looked up before each batch.
    InTheTable,
}

/// A batch of which events were set aside, or that carries parked ones.
#[derive(Debug, Default)]
pub(super) struct OpenBatch {
    set_aside: Vec<SetAside<OutgoingRow>>,
    /// The turns of the parked events that it carries.
    retried: Vec<i64>,
    is_delivered: bool,
}

impl OpenBatch {
    /// The turns of the parked events that it carries, and that were sent.
    fn published(&self) -> impl Iterator<Item = i64> {
        let again: HashSet<i64> = self.set_aside.iter().filter_map(|one| one.row.turn()).collect();
        self.retried.iter().copied().filter(move |turn| !again.contains(turn))
    }
}

/// What came of an event that is nowhere whole.
#[derive(Debug)]
struct Remnant {
    event: OwnedEvent,
    ordering_key: OrderingKey,
    flaw: Refusal,
}

impl LendEvent for Remnant {
    fn event(&self) -> Event<'_> {
        self.event.event()
    }

    fn ordering_key(&self) -> OrderingKey {
        self.ordering_key
    }

    fn flaw(&self) -> Option<&Refusal> {
        Some(&self.flaw)
    }
}

/// A piece of what was asked for, on its way.
#[derive(Debug)]
struct Retry {
    began: Instant,
    requests: Vec<(i64, AggregateKey)>,
    /// Requests of which nothing can be sent.
    untried: Vec<i64>,
    /// Aggregates that have more parked events.
    rest: HashSet<AggregateKey>,
    /// Aggregates of which an event could not be sent either.
    stuck: HashSet<AggregateKey>,
    batches_open: usize,
    is_all_sent: bool,
}

impl Retry {
    /// The requests that are answered: nothing is left, or what is left cannot be sent now.
    fn answered(&self) -> Vec<i64> {
        let is_answered = |key: &AggregateKey| !self.rest.contains(key) || self.stuck.contains(key);
        self.requests
            .iter()
            .filter(|(_, key)| is_answered(key))
            .map(|(number, _)| *number)
            .chain(self.untried.iter().copied())
            .collect()
    }
}

impl Parking {
    pub(super) fn new(parked: Arc<Parked>, warnings: Arc<Warnings>) -> Self {
        Self {
            parked,
            warnings,
            open: BTreeMap::new(),
            retry: None,
            probes: Probes::default(),
            is_requested: false,
            next_look: None,
            asked: 0,
            known: Known::InMemory,
            counted: None,
        }
    }

    /// What waits in these buckets. Also requests are looked for: one may be left over from before.
    pub(super) async fn load(&mut self, buckets: &[Bucket]) -> Result<ParkedWaiting> {
        self.next_look = Some(Instant::now());
        let waiting = self.parked.waiting(buckets).await?;
        self.known = if waiting.holds.is_some() { Known::InMemory } else { Known::InTheTable };
        self.count(buckets).await?;
        Ok(waiting)
    }

    /// How many aggregates are held that memory may not know; the figure of a moment.
    pub(super) fn held_in_the_table(&self) -> u64 {
        self.counted.map_or(0, |(held, _)| held)
    }

    async fn count(&mut self, buckets: &[Bucket]) -> Result<()> {
        self.counted = match self.known {
            Known::InMemory => None,
            Known::InTheTable => Some((self.parked.count_held(buckets).await?, Instant::now())),
        };
        Ok(())
    }

    /// Whether it has to be looked up which aggregates are held.
    pub(super) fn looks_up(&self) -> bool {
        self.known == Known::InTheTable
    }

    /// Whether more aggregates are held in memory than may. Long before it is said.
    pub(super) fn is_full(&self, held: usize) -> bool {
        let cause = "many aggregates are held";
        if held >= HELD_MAX / 10
            && let Some(unsaid) = self.warnings.note(cause, Instant::now())
        {
            tracing::warn!(
                held,
                in_memory_at_most = HELD_MAX,
                unsaid,
                "{cause}; see `postrider parked list`"
            );
        }
        held > HELD_MAX
    }

    /// Those of a batch's aggregates that are held and may be unknown in memory. Whatever is set aside and
    /// not parked yet is known there.
    pub(super) async fn held_among(&self, rows: &[OutgoingRow]) -> Result<Vec<Hold>> {
        if !self.looks_up() {
            return Ok(Vec::new());
        }
        let keys = rows.iter().map(|row| AggregateKey::of(&row.event())).collect();
        self.parked.held(&keys).await
    }

    /// The session, for what no batch carries; something is parked from here on.
    pub(super) fn parked(&mut self) -> &Parked {
        self.next_look = self.next_look.or_else(|| Some(Instant::now() + LOOK_INTERVAL));
        &self.parked
    }

    /// Takes events that were not sent.
    pub(super) fn set_aside(&mut self, number: BatchNumber, events: Vec<SetAside<OutgoingRow>>) {
        self.open.entry(number).or_default().set_aside.extend(events);
    }

    /// Takes note of a delivered batch; whether there is more to do about it.
    pub(super) fn is_unfinished(&mut self, delivered: BatchNumber) -> bool {
        let Some(batch) = self.open.get_mut(&delivered) else { return false };
        batch.is_delivered = true;
        true
    }

    /// Whether any parked events are on their way that are tried again.
    pub(super) fn has_retried(&self) -> bool {
        self.open.values().any(|batch| !batch.retried.is_empty())
    }

    /// The turns of what is tried again and was sent; none while any of it is on its way.
    pub(super) fn tried_again(&self) -> Option<Vec<i64>> {
        let retried = || self.open.values().filter(|batch| !batch.retried.is_empty());
        let are_delivered = retried().all(|batch| batch.is_delivered);
        are_delivered.then(|| retried().flat_map(OpenBatch::published).collect())
    }

    /// Whether any batch is more than in flight.
    pub(super) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The oldest batch in flight, if it is delivered and there is more to do about it.
    pub(super) fn take(&mut self, oldest: BatchNumber) -> Option<(BatchNumber, OpenBatch)> {
        let is_ready = self.open.get(&oldest).is_some_and(|batch| batch.is_delivered);
        is_ready.then(|| self.open.remove_entry(&oldest))?
    }

    /// Parks what a batch has set aside, and takes away what it has published. Says how many events
    /// were parked.
    pub(super) async fn land(&mut self, batch: &OpenBatch, owned: &[Owned]) -> Result<u64> {
        if !batch.set_aside.is_empty() {
            self.park(owned, &batch.set_aside).await?;
            self.say(&batch.set_aside);
            self.next_look = self.next_look.or_else(|| Some(Instant::now() + LOOK_INTERVAL));
        }
        if !batch.retried.is_empty() {
            self.end_retried(batch, owned).await?;
        }
        Ok(batch.set_aside.len() as u64)
    }

    /// In their order: those that are at hand, and those that are whole in their table alone.
    async fn park(&self, owned: &[Owned], set_aside: &[SetAside<OutgoingRow>]) -> Result<()> {
        let is_part = |one: &SetAside<OutgoingRow>| one.row.whole().is_some();
        for run in set_aside.chunk_by(|one, next| is_part(one) == is_part(next)) {
            if !is_part(&run[0]) {
                self.parked.park(owned, run).await?;
                continue;
            }
            for part in run {
                self.park_part(owned, part).await?;
            }
        }
        Ok(())
    }

    /// What its table does not have is parked as far as it came.
    async fn park_part(&self, owned: &[Owned], part: &SetAside<OutgoingRow>) -> Result<()> {
        let SetAside { row, refusal } = part;
        let (event, ordering_key) = (row.event(), row.ordering_key());
        let whole = row.whole().expect("it is a part");
        let done =
            self.parked.park_from_table(owned, (&event, ordering_key), whole, refusal).await?;
        let FromLog::Missing(cause) = done else { return Ok(()) };
        let detail = format!("{}; only its beginning is kept: {cause}", refusal.detail);
        let refusal = Refusal { detail, ..refusal.clone() };
        let row = Remnant { event: event.to_owned(), ordering_key, flaw: refusal.clone() };
        self.parked.park(owned, &[SetAside { row, refusal }]).await
    }

    async fn end_retried(&mut self, batch: &OpenBatch, owned: &[Owned]) -> Result<()> {
        let published: Vec<i64> = batch.published().collect();
        self.parked.answer(owned, &published, &[]).await?;
        let retry = self.retry.as_mut().expect("parked events are sent by a retry");
        let stuck = batch.set_aside.iter().map(|one| AggregateKey::of(&one.row.event()));
        retry.stuck.extend(stuck);
        batch.set_aside.iter().for_each(|one| self.probes.refused(&one.refusal));
        retry.batches_open -= 1;
        self.end_retry(owned).await
    }

    /// Answers the requests once all that was sent for them has landed.
    async fn end_retry(&mut self, owned: &[Owned]) -> Result<()> {
        let Some(retry) = self.retry.take_if(|retry| retry.is_all_sent && retry.batches_open == 0)
        else {
            return Ok(());
        };
        // There may be more to do than one piece. As long as this one took others have their turn.
        let took = retry.began.elapsed().min(LOOK_INTERVAL);
        self.next_look = Some(Instant::now() + took);
        let answered = retry.answered();
        self.parked.answer(owned, &[], &answered).await?;
        self.probes.answered(&answered);
        Ok(())
    }

    /// Says once in a while that something is parked, and where to look.
    fn say(&self, set_aside: &[SetAside<OutgoingRow>]) {
        for SetAside { row, refusal } in set_aside {
            if refusal.reason == Reason::Follows {
                continue;
            }
            // Without the topic: there may be thousands in trouble, and each is said by itself.
            let cause = format!("parked: {}", refusal.reason);
            if let Some(unsaid) = self.warnings.note(&cause, Instant::now()) {
                let event = row.event();
                tracing::warn!(
                    event = %event.id,
                    aggregate =
                        format!("{}/{}", said(event.aggregate_type), said(event.aggregate_id)),
                    reason = refusal.reason.name(),
                    cause = said(&refusal.detail),
                    unsaid,
                    "an event is parked, its aggregate waits; see `postrider parked list`"
                );
            }
        }
    }

    /// Says once in a while that rows are published whose numbers were not drawn when they were written.
    pub(super) fn say_below(&self, lowest: i64) {
        let cause = "rows were written with a seq that was not drawn for them";
        if let Some(unsaid) = self.warnings.note(cause, Instant::now()) {
            tracing::warn!(
                lowest,
                unsaid,
                "{cause}; they are published now, after what was written with higher ones"
            );
        }
    }

    /// The same of a message that was parked without its values.
    pub(super) fn say_large(&self, event: &EventId, refusal: &Refusal) {
        let cause = format!("parked large: {}", refusal.reason);
        if let Some(unsaid) = self.warnings.note(&cause, Instant::now()) {
            tracing::warn!(
                %event,
                reason = refusal.reason.name(),
                cause = said(&refusal.detail),
                unsaid,
                "a large event is parked, its aggregate waits; see `postrider parked list`"
            );
        }
    }

    /// When to look for requests.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let asked = (self.parked.asks().count() != self.asked).then(Instant::now);
        let due = asked.or(self.next_look);
        due.filter(|_| self.retry.is_none() && !self.is_requested)
    }

    /// The brokers say that these topics can be used.
    pub(super) fn seem_back(&mut self, topics: Vec<String>) {
        self.probes.seem_back(topics);
    }

    /// Looks for requests. It is time, as [`Parking::next_look`] says.
    pub(super) async fn look(&mut self, buckets: &[Bucket]) -> Result<()> {
        let now = Instant::now();
        self.asked = self.parked.asks().count();
        let seen = self.parked.look(buckets).await?;
        self.is_requested = seen.is_requested;
        if !seen.is_any_parked {
            self.known = Known::InMemory;
        }
        let is_due = self.counted.is_none_or(|(_, at)| now >= at + COUNT_INTERVAL);
        if is_due || !self.looks_up() {
            self.count(buckets).await?;
        }
        self.next_look = (seen.is_any_parked || seen.is_requested).then_some(now + LOOK_INTERVAL);
        Ok(())
    }

    /// Whether there is something to try again, as soon as nothing is in flight.
    pub(super) fn wants_quiet(&self) -> bool {
        self.retry.is_none() && (self.is_requested || self.probes.are_any())
    }

    /// What to try again: the topics that seem to be back, and the next piece of what was asked for. Nothing
    /// is in flight.
    pub(super) async fn begin_retry(
        &mut self,
        buckets: &[Bucket],
        bytes_max: usize,
    ) -> Result<(Vec<String>, RetryPage)> {
        assert!(self.open.is_empty() && self.retry.is_none(), "nothing is in flight");
        let began = Instant::now();
        self.is_requested = false;
        let (topics, open) = (self.probes.take_back(), self.probes.take_open());
        if !open.is_empty() {
            self.parked.request_topics(buckets, &open).await?;
        }
        if !topics.is_empty() {
            for (topic, request) in self.parked.request_one(buckets, &topics).await? {
                self.probes.asked(topic, request);
            }
        }
        let piece = self.parked.piece(buckets, bytes_max).await?;
        self.retry = Some(Retry {
            began,
            requests: piece.requests.clone(),
            untried: piece.untried.clone(),
            rest: piece.rest.iter().map(|hold| hold.key).collect(),
            stuck: HashSet::new(),
            batches_open: 0,
            is_all_sent: false,
        });
        Ok((topics, piece))
    }

    /// A batch of parked events is on its way.
    pub(super) fn retries(&mut self, number: BatchNumber, rows: &[OutgoingRow]) {
        let turns = rows.iter().filter_map(OutgoingRow::turn).collect();
        self.open.entry(number).or_default().retried = turns;
        self.retry.as_mut().expect("a retry has begun").batches_open += 1;
    }

    /// All batches of the piece are on their way.
    pub(super) async fn all_sent(&mut self, owned: &[Owned]) -> Result<()> {
        self.retry.as_mut().expect("a retry has begun").is_all_sent = true;
        self.end_retry(owned).await
    }
}

/// Bytes of a text from a row that are said in the log.
const SAID_BYTES: usize = 500;

/// As much of a text from a row as fits a line of the log.
fn said(text: &str) -> &str {
    let mut end = text.len().min(SAID_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
