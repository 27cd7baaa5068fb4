//! What the publishing thread does with an event: sends it, hands it back, or buries it.
//!
//! Promises: once an event of an aggregate was handed back, so is every later one until the aggregate
//! is let go; an event is handed back, sent, or in the dead-letter topic, never two of these.
//! Must not: know what becomes of events that are handed back. Fails: with the producer's error;
//! with [`ErrorKind::Unpublishable`] where a poisonous event is to stop the relay.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use hashbrown::HashSet;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventPlace, LendEvent, OrderingKey, SeqSource, Whereabouts};
use crate::order::holds::{AggregateKey, HeldFrom, Hold, Holds, Reason, Refusal, SetAside};
use crate::publish::send_deadline::SendDeadline;
use crate::publish::sieve::{Aside, Placed, Sieve};
use crate::publish::{Answer, InFlightBatch, Offer, Produce};
use crate::record::encode::Encoder;

/// What to do with an event that cannot become a record, or not one that its topic takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnPoison {
    /// Hand it back, and hold its aggregate.
    #[default]
    Park,
    /// Send it to this topic, with the reason in its headers; the aggregate goes on.
    DeadLetter(String),
    /// End the process.
    Stop,
}

/// What happens to an event.
#[derive(Debug)]
pub(super) enum Dispatched {
    /// It is on its way.
    Sent,
    /// It waits for others with which it is sent apart.
    Gathered,
    /// It waits for an earlier one.
    Follows,
    /// It cannot be sent.
    Refused(Refusal),
}

/// The publishing thread's tools.
#[derive(Debug)]
pub(super) struct Dispatcher<P> {
    pub(super) encoder: Encoder,
    on_poison: OnPoison,
    pub(super) producer: P,
    holds: Holds,
    /// How many are held, for those outside.
    held: Arc<AtomicUsize>,
    send_deadline: Arc<SendDeadline>,
    /// Leads from one pick to the next, see [`Dispatcher::sift`].
    pub(super) picked: u64,
}

impl<P: Produce> Dispatcher<P> {
    pub(super) fn new(
        encoder: Encoder,
        on_poison: OnPoison,
        producer: P,
        held: Arc<AtomicUsize>,
        send_deadline: Arc<SendDeadline>,
    ) -> Self {
        let holds = Holds::default();
        Self { encoder, on_poison, producer, holds, held, send_deadline, picked: 0 }
    }

    /// Hands the events to the producer, in their order, and those back that are not sent.
    pub(super) fn publish<R: LendEvent>(
        &mut self,
        rows: Vec<R>,
        batch: &Arc<InFlightBatch>,
    ) -> Result<Vec<SetAside<R>>> {
        self.producer.begin_batch();
        if self.producer.wants_topics()? {
            let topics = self.topics_of(&rows);
            self.producer.meet_topics(topics)?;
        }
        let (mut set_aside, mut sieve) = (Vec::new(), Sieve::default());
        let mut later =
            self.pass(rows.into_iter().enumerate(), &mut sieve, batch, &mut set_aside)?;
        while !later.is_empty() {
            later = self.pass(later.into_iter(), &mut sieve, batch, &mut set_aside)?;
        }
        self.encoder.rest();
        // What was sent apart may have been found out later than what came after it.
        set_aside.sort_unstable_by_key(|(place, _)| *place);
        Ok(set_aside.into_iter().map(|(_, one)| one).collect())
    }

    /// Sends what can be sent, and then apart what was gathered. What waits for one of these is left for the next
    /// pass: so all topics in doubt are found out together, and others do not wait for them.
    fn pass<R: LendEvent>(
        &mut self,
        rows: impl Iterator<Item = Placed<R>>,
        sieve: &mut Sieve<R>,
        batch: &Arc<InFlightBatch>,
        set_aside: &mut Vec<Aside<R>>,
    ) -> Result<Vec<Placed<R>>> {
        let (mut later, mut refused) = (Vec::new(), Vec::new());
        for (place, row) in rows {
            if sieve.meets(&row) {
                later.push((place, row));
                continue;
            }
            if let Some(refusal) = self.look_for_flaw(&row)? {
                set_aside.push((place, SetAside { row, refusal }));
                continue;
            }
            match self.offer(&row.event(), (row.ordering_key(), row.seq_source()), batch)? {
                Dispatched::Sent => {}
                Dispatched::Gathered => sieve.push((place, row)),
                Dispatched::Follows => {
                    set_aside.push((place, SetAside { row, refusal: Refusal::follows() }));
                }
                Dispatched::Refused(refusal) => {
                    // A dead letter may have to be sent apart, and then alone.
                    sieve.bar(&row);
                    refused.push(((place, row), refusal));
                }
            }
        }
        self.sift(sieve, batch, set_aside)?;
        for (row, refusal) in refused {
            self.give_up(row, refusal, batch, set_aside)?;
        }
        Ok(later)
    }

    fn topics_of<R: LendEvent>(&mut self, rows: &[R]) -> HashSet<String> {
        let mut topics = HashSet::new();
        for row in rows {
            if let Ok(topic) = self.encoder.topic(&row.event()) {
                topics.get_or_insert_with(topic, str::to_owned);
            }
        }
        topics
    }

    /// Why the row is handed back, whatever Kafka would say of it. What cannot be sent as it is cannot be sent
    /// as a dead letter either: what is at hand may be a part.
    fn look_for_flaw<R: LendEvent>(&mut self, row: &R) -> Result<Option<Refusal>> {
        let Some(flaw) = row.flaw() else { return Ok(None) };
        let (event, ordering_key) = (&row.event(), row.ordering_key());
        let is_held = !self.holds.is_empty() && self.holds.catch(event, ordering_key);
        if is_held && row.whereabouts() != Whereabouts::Lent {
            return Ok(Some(Refusal::follows()));
        }
        match &self.on_poison {
            OnPoison::Stop => Err(unpublishable(event, flaw)),
            OnPoison::Park | OnPoison::DeadLetter(_) => {
                self.hold_from(event, ordering_key, flaw.clone()).map(Some)
            }
        }
    }

    /// Sends the event, if it can be sent.
    pub(super) fn offer(
        &mut self,
        event: &Event<'_>,
        (ordering_key, source): (OrderingKey, SeqSource),
        batch: &Arc<InFlightBatch>,
    ) -> Result<Dispatched> {
        batch.note_created(event.created_at_micros);
        if !self.holds.is_empty() && self.holds.catch(event, ordering_key) {
            return Ok(Dispatched::Follows);
        }
        if let Some(refusal) = self.producer.known_refusal(event.id) {
            return Ok(Dispatched::Refused(refusal));
        }
        let offer =
            match self.encoder.encode(event, EventPlace::of(event.seq, source, ordering_key)) {
                Ok(record) => self.producer.produce(&record, batch)?,
                Err(cause) => Offer::Refused(cause.into()),
            };
        Ok(match offer {
            Offer::Taken => Dispatched::Sent,
            Offer::Gathered => Dispatched::Gathered,
            Offer::Refused(refusal) => Dispatched::Refused(refusal),
        })
    }

    /// Until when anything is sent.
    pub(super) fn check_send_deadline(&self) -> Result<()> {
        if self.send_deadline.covers(Instant::now()) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Fenced, "the lease ran out; nothing more is sent"))
    }

    /// Why the event is handed back, if it is not in the dead letters.
    pub(super) fn decide(
        &mut self,
        event: &Event<'_>,
        ordering_key: OrderingKey,
        refusal: Refusal,
        batch: &Arc<InFlightBatch>,
    ) -> Result<Option<Refusal>> {
        let refusal = if refusal.reason.is_poison() {
            match &self.on_poison {
                OnPoison::Park => refusal,
                OnPoison::Stop => return Err(unpublishable(event, &refusal)),
                OnPoison::DeadLetter(topic) => {
                    let letter = self.encoder.dead_letter(event, topic, &refusal);
                    match self.producer.produce(&letter, batch)? {
                        Offer::Taken => return Ok(None),
                        Offer::Refused(again) => unburied(refusal, &again),
                        Offer::Gathered => match self.producer.confirm(batch)?.pop() {
                            Some(Answer::Refused(again, ..)) => unburied(refusal, &again),
                            Some(Answer::Appended) | None => return Ok(None),
                        },
                    }
                }
            }
        } else {
            refusal
        };
        self.hold_from(event, ordering_key, refusal).map(Some)
    }

    fn hold_from(
        &mut self,
        event: &Event<'_>,
        ordering_key: OrderingKey,
        refusal: Refusal,
    ) -> Result<Refusal> {
        self.holds.hold(AggregateKey::of(event), HeldFrom::new(event.seq, ordering_key));
        self.tell();
        Ok(refusal)
    }

    pub(super) fn renew(&mut self, holds: Holds, topics: Vec<String>) -> Result<()> {
        self.holds = holds;
        self.tell();
        self.producer.watch_topics(topics)
    }

    pub(super) fn resume(&mut self, topics: &[String], aggregates: &[AggregateKey]) {
        self.producer.resume_topics(topics);
        self.producer.forget_culprits(aggregates);
        aggregates.iter().for_each(|key| self.holds.release(key));
        self.tell();
    }

    pub(super) fn hold(&mut self, holds: Vec<Hold>) {
        holds.into_iter().for_each(|Hold { key, from, .. }| self.holds.hold(key, from));
        self.tell();
    }

    fn tell(&self) {
        self.held.store(self.holds.len(), Ordering::Relaxed);
    }
}

fn unpublishable(event: &Event<'_>, refusal: &Refusal) -> Error {
    let (id, seq, detail) = (event.id, event.seq, &refusal.detail);
    Error::new(
        ErrorKind::Unpublishable,
        format!("event {id} (seq {seq}) cannot be published: {detail}"),
    )
    .with_remedy("mend what it says, or let --on-poison park or dead-letter such events")
}

/// The dead-letter topic does not take it either. Where that is the topic's trouble it is tried again by itself.
fn unburied(refusal: Refusal, again: &Refusal) -> Refusal {
    let detail = format!("{}; nor as a dead letter: {}", refusal.detail, again.detail);
    match again.reason {
        Reason::TopicUnavailable => Refusal { detail, ..again.clone() },
        _ => Refusal { detail, ..refusal },
    }
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
