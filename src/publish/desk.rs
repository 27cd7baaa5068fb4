//! What the publishing thread does with an event: sends it, hands it back, or buries it.
//!
//! Promises: once an event of an aggregate was handed back, so is every later one until the aggregate
//! is let go; an event is handed back, sent, or in the dead-letter topic, never two of these.
//! Must not: know what becomes of events that are handed back. Fails: with the producer's error;
//! with [`ErrorKind::Unpublishable`] where a poisonous event is to stop the relay.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashSet;

use super::{InFlightBatch, Offer, Produce};
use crate::encode::Encoder;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, LendEvent, Standing};
use crate::hold::{AggregateKey, HeldFrom, Hold, Holds, Refusal, SetAside};

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

/// The publishing thread's tools.
#[derive(Debug)]
pub(super) struct Desk<P> {
    encoder: Encoder,
    on_poison: OnPoison,
    producer: P,
    holds: Holds,
    /// How many are held, for those outside.
    held: Arc<AtomicUsize>,
}

impl<P: Produce> Desk<P> {
    pub(super) fn new(
        encoder: Encoder,
        on_poison: OnPoison,
        producer: P,
        held: Arc<AtomicUsize>,
    ) -> Self {
        Self { encoder, on_poison, producer, holds: Holds::default(), held }
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
        let mut set_aside = Vec::new();
        for row in rows {
            if let Some(refusal) = self.offer(&row.event(), row.standing(), batch)? {
                set_aside.push(SetAside { row, refusal });
            }
        }
        self.encoder.rest();
        Ok(set_aside)
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

    /// Why the event is not sent, if it is not.
    fn offer(
        &mut self,
        event: &Event<'_>,
        standing: Standing,
        batch: &Arc<InFlightBatch>,
    ) -> Result<Option<Refusal>> {
        if !self.holds.is_empty() && self.holds.catch(event, standing) {
            return Ok(Some(Refusal::follows()));
        }
        let offer = match self.encoder.encode(event) {
            Ok(record) => self.producer.produce(&record, batch)?,
            Err(cause) => Offer::Refused(cause.into()),
        };
        match offer {
            Offer::Taken => Ok(None),
            Offer::Refused(refusal) => self.decide(event, standing, refusal, batch),
        }
    }

    fn decide(
        &mut self,
        event: &Event<'_>,
        standing: Standing,
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
                    }
                }
            }
        } else {
            refusal
        };
        self.holds.hold(AggregateKey::of(event), HeldFrom::new(event.seq, standing));
        self.tell();
        Ok(Some(refusal))
    }

    pub(super) fn renew(&mut self, holds: Holds, topics: Vec<String>) -> Result<()> {
        self.holds = holds;
        self.tell();
        self.producer.watch_topics(topics)
    }

    pub(super) fn resume(&mut self, topics: &[String], aggregates: &[AggregateKey]) {
        self.producer.resume_topics(topics);
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

/// The dead-letter topic does not take it either.
fn unburied(refusal: Refusal, again: &Refusal) -> Refusal {
    let detail = format!("{}; nor as a dead letter: {}", refusal.detail, again.detail);
    Refusal { detail, ..refusal }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
