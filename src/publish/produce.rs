//! What the publishing thread asks of a producer.
//!
//! Promises: nothing but the words for it. Must not: know Kafka.

use std::sync::Arc;

use hashbrown::HashSet;

use crate::error::Result;
use crate::event::{Bucket, Event, EventId};
use crate::order::holds::{AggregateKey, Reason, Refusal};
use crate::publish::answer::{Answer, Ground};
use crate::publish::in_flight_batch::InFlightBatch;
use crate::record::encode::Record;

/// What a producer did with a record.
#[derive(Debug)]
pub enum Offer {
    /// It is on its way: it will be acknowledged, or a failure reported.
    Taken,
    /// This record cannot be sent; others can.
    Refused(Refusal),
    /// It is sent, apart from all others, with [`Produce::confirm`].
    Gathered,
}

/// A producer of records: Kafka, or nothing at all for benchmarks.
pub trait Produce: Send + 'static {
    /// A batch begins: the moment to look at the clock.
    fn begin_batch(&mut self) {}

    /// Whether it is worth while to tell it the topics of the batch at hand first, as some may be new.
    ///
    /// # Errors
    /// When the producer is no longer usable.
    fn wants_topics(&mut self) -> Result<bool> {
        Ok(false)
    }

    /// Records for these topics come next.
    ///
    /// # Errors
    /// When the producer is no longer usable.
    fn meet_topics(&mut self, _topics: HashSet<String>) -> Result<()> {
        Ok(())
    }

    /// Takes one record over, or says why it cannot be sent.
    ///
    /// # Errors
    /// When the producer is no longer usable.
    fn produce(&mut self, record: &Record<'_>, batch: &Arc<InFlightBatch>) -> Result<Offer>;

    /// Ends the transaction in which all is that was sent, with these cursors as its last records.
    ///
    /// # Errors
    /// When the producer is no longer usable, and nobody knows how the transaction has ended.
    fn end(&mut self, _cursors: &[(Bucket, String)]) -> Result<()> {
        Ok(())
    }

    /// Why this event is refused, where that was found out a moment ago.
    fn known_refusal(&self, _event: EventId) -> Option<Refusal> {
        None
    }

    /// An event was refused for its own sake.
    fn note_culprit(&mut self, _event: &Event<'_>, _refusal: &Refusal) {}

    /// Events of these aggregates are to be tried again, whatever is known of them.
    fn forget_culprits(&mut self, _aggregates: &[AggregateKey]) {}

    /// Sends what was gathered, and waits: what became of each record, in their order.
    ///
    /// # Errors
    /// When the producer is no longer usable.
    fn confirm(&mut self, _batch: &Arc<InFlightBatch>) -> Result<Vec<Answer>> {
        Ok(Vec::new())
    }

    /// A record was refused alone, and is given up on this ground: what to say of it.
    ///
    /// # Errors
    /// When its topic cannot be looked at.
    fn give_up(&mut self, refusal: Refusal, _ground: Ground) -> Result<Refusal> {
        Ok(refusal)
    }

    /// Nothing goes through to the topic of a refused event, and nobody knows which of them is at fault: it
    /// is the topic, until more is known. What to say of the event.
    ///
    /// # Errors
    /// When the topic cannot be looked at.
    fn blame_topic(&mut self, refusal: Refusal, _event: EventId) -> Result<Refusal> {
        Ok(refusal)
    }

    /// The same, where nobody knows whether it is the topic or Kafka. Nothing that is set aside is parked before
    /// something was taken elsewhere, see [`Publisher::is_in_suspense`](super::Publisher::is_in_suspense).
    ///
    /// # Errors
    /// When the topic cannot be looked at.
    fn doubt_topic(&mut self, refusal: Refusal) -> Result<Refusal> {
        Ok(Refusal { reason: Reason::TopicUnavailable, ..refusal })
    }

    /// Nothing that is sent apart gets through, and nobody knows why: it is sent as usual again.
    fn trust_topics(&mut self) {}

    /// These topics are refused until they are back, see [`Reports::topic_is_back`](super::Reports::topic_is_back).
    ///
    /// # Errors
    /// When they cannot be looked at.
    fn watch_topics(&mut self, _topics: Vec<String>) -> Result<()> {
        Ok(())
    }

    /// These topics are to be tried again.
    fn resume_topics(&mut self, _topics: &[String]) {}
}
