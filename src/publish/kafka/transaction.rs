//! A producer whose records are seen all at once, or not at all.
//!
//! Promises: a transaction counts as committed only where its end was asked for once and came soon; after anything
//! else the producer is no longer usable, and nothing is aborted: whoever takes the id again ends what is open. The
//! records that say how far it leads are its last ones, and none ends whose cursors went to a topic that was made anew.
//! Must not: know what they say. Fails: with [`crate::error::ErrorKind::DeliveryUncertain`] for an end that nobody is
//! sure of.
//!
//! librdkafka asks for the end of a transaction again by itself, and reports success as if it had asked once. A copy
//! of that request may arrive late, and an older broker then ends whatever the producer has open by then. A copy is
//! sent `RETRY_BACKOFF` after the one before it at the earliest, less a fifth: what took less than
//! `CERTAIN_WITHIN` was asked for once. `tests/model/exact` shows what follows from any other rule.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseRecord, Producer};

use crate::error::{Error, Result};
use crate::event::Bucket;
use crate::metrics::histogram::micros;
use crate::order::ledger::BatchNumber;
use crate::publish::InFlightBatch;
use crate::publish::kafka::apart::ApartRecord;
use crate::publish::kafka::control_topic::CursorEnds;
use crate::publish::kafka::errors::{refused, replaced};
use crate::publish::kafka::producer::KafkaProducer;
use crate::publish::kafka::transactional_id::take_id;

/// An end that took so long may have been asked for twice.
const CERTAIN_WITHIN: Duration = Duration::from_millis(200);
/// An end that takes longer is not waited for.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// What makes a producer's records part of transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionTerms {
    /// Names the producer to the brokers, for ever.
    pub id: String,
    /// After so long without an end the coordinator ends a transaction.
    pub timeout: Duration,
    /// Where the cursors go.
    pub control_topic: String,
}

/// How far a producer is with its transactions.
#[derive(Debug)]
pub(super) struct ProducerTransactions {
    control_topic: String,
    /// After so long the coordinator ends one.
    timeout: Duration,
    /// Where its cursors are there.
    cursor_ends: CursorEnds,
    is_open: bool,
    /// What is tried apart, to be sent when a broker has taken it there.
    tried: Vec<TriedRecord>,
}

/// A record that is tried apart.
#[derive(Debug)]
pub(super) struct TriedRecord {
    topic: String,
    partition: i32,
    key: String,
    value: Option<Vec<u8>>,
    headers: OwnedHeaders,
    timestamp: Option<i64>,
}

/// Why a transaction's producer is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// The end took so long that it may have been asked for twice.
    Slow,
    /// Nobody said how it ended.
    Unanswered,
    /// It was never asked for.
    Abandoned,
}

impl Doubt {
    fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Unanswered => "unanswered",
            Self::Abandoned => "abandoned",
        }
    }
}

/// How sure it is that a transaction has ended, and no copy of that word is on its way.
fn judge(
    ended: std::result::Result<(), KafkaError>,
    took: Duration,
) -> std::result::Result<(), (Doubt, Error)> {
    match ended {
        Ok(()) if took < CERTAIN_WITHIN => Ok(()),
        Ok(()) => {
            let millis = took.as_millis();
            let cause =
                format!("a transaction took {millis} ms to end: the word may have been sent twice");
            Err((Doubt::Slow, replaced(cause)))
        }
        Err(cause) => {
            let cause = format!("nobody knows whether a transaction ended: {cause}");
            Err((Doubt::Unanswered, replaced(cause)))
        }
    }
}

impl KafkaProducer {
    /// From here on all records are parts of transactions. What was open under the id has ended then.
    ///
    /// # Errors
    /// As the brokers' answer.
    pub fn with_transactions(mut self, terms: &TransactionTerms) -> Result<Self> {
        take_id(&*self.producer, &terms.id)?;
        self.transactions = Some(ProducerTransactions {
            control_topic: terms.control_topic.clone(),
            timeout: terms.timeout,
            cursor_ends: CursorEnds::default(),
            is_open: false,
            tried: Vec::new(),
        });
        Ok(self)
    }

    /// A record comes next.
    pub(super) fn begin_transaction(&mut self) -> Result<()> {
        let Some(transactions) = &mut self.transactions else { return Ok(()) };
        if transactions.is_open {
            return Ok(());
        }
        let begun = self.producer.begin_transaction();
        begun.map_err(|cause| replaced(format!("no transaction can begin: {cause}")))?;
        transactions.is_open = true;
        let expires = Instant::now() + transactions.timeout;
        self.context().note_transaction(expires);
        Ok(())
    }

    /// Keeps a record that is tried apart.
    pub(super) fn keep_tried(&mut self, record: &ApartRecord<'_>) {
        let Some(transactions) = &mut self.transactions else { return };
        transactions.tried.push(TriedRecord {
            topic: record.topic.to_owned(),
            partition: record.partition.unwrap_or_default(),
            key: record.key.unwrap_or_default().to_owned(),
            value: record.payload.map(<[u8]>::to_vec),
            headers: record.headers.clone().unwrap_or_default(),
            timestamp: record.timestamp,
        });
    }

    /// What was tried, in its order.
    pub(super) fn take_tried(&mut self) -> Vec<TriedRecord> {
        self.transactions.as_mut().map_or_else(Vec::new, |own| std::mem::take(&mut own.tried))
    }

    /// Sends what a broker has taken apart, as a part of the transaction. A producer that takes no record of so many
    /// bytes is replaced by one that does.
    pub(super) fn send_tried(
        &mut self,
        tried: &TriedRecord,
        bytes: usize,
        batch: &Arc<InFlightBatch>,
    ) -> Result<()> {
        self.begin_transaction()?;
        let mut record: BaseRecord<'_, str, [u8], _> =
            BaseRecord::with_opaque_to(&tried.topic, Arc::clone(batch))
                .partition(tried.partition)
                .key(tried.key.as_str())
                .headers(tried.headers.clone());
        record.payload = tried.value.as_deref();
        record.timestamp = tried.timestamp;
        let Err((cause, _)) = self.producer.send(record) else { return Ok(()) };
        if cause.rdkafka_error_code() != Some(RDKafkaErrorCode::MessageSizeTooLarge) {
            return Err(refused(&cause, &tried.topic));
        }
        self.context().learned_limits.with_sizes(|sizes| sizes.admit_messages(bytes));
        let topic = &tried.topic;
        Err(replaced(format!("topic {topic} took {bytes} bytes: so does the producer from now on")))
    }

    /// Sends the cursors behind everything else, and ends the transaction.
    pub(super) fn end_transaction(&mut self, cursors: &[(Bucket, String)]) -> Result<()> {
        self.begin_transaction()?;
        self.topics.settle()?;
        let sent = self.send_cursors(cursors)?;
        self.topics.settle()?;
        let transactions = self.transactions.as_mut().expect("it has them");
        // Before it ends: nothing is published whose cursor went to another topic.
        let (topic, ends) = (&transactions.control_topic, &mut transactions.cursor_ends);
        sent.appended().into_iter().try_for_each(|at| ends.note(topic, at))?;
        let began = Instant::now();
        let ended = self.producer.commit_transaction(END_TIMEOUT);
        let took = began.elapsed();
        transactions.is_open = false;
        let figures = self.context().reports.figures();
        match judge(ended, took) {
            Ok(()) => figures.transaction_end.record(micros(took.as_micros()), 1),
            Err((doubt, error)) => {
                figures.transactions_dropped.add(doubt.name(), 1);
                return Err(error);
            }
        }
        Ok(())
    }

    /// The producer is dropped.
    pub(super) fn abandon_transaction(&self) {
        if self.transactions.as_ref().is_some_and(|transactions| transactions.is_open) {
            let figures = self.context().reports.figures();
            figures.transactions_dropped.add(Doubt::Abandoned.name(), 1);
        }
    }

    fn send_cursors(&self, cursors: &[(Bucket, String)]) -> Result<Arc<InFlightBatch>> {
        let topic = &self.transactions.as_ref().expect("it has them").control_topic;
        // One more than there are: nobody is told of it.
        let waiting = u32::try_from(cursors.len() + 1).expect("there are few buckets");
        let quiet = InFlightBatch::new(BatchNumber(0), waiting, Instant::now());
        let quiet = Arc::new(quiet.that_is_located());
        for (bucket, value) in cursors {
            let key = bucket.0.to_string();
            let record = BaseRecord::with_opaque_to(topic, Arc::clone(&quiet))
                .partition(bucket.0.into())
                .key(key.as_str())
                .payload(value.as_bytes());
            self.producer.send(record).map_err(|(cause, _)| refused(&cause, topic))?;
        }
        Ok(quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::publish::kafka::transactional_id::RETRY_BACKOFF;

    #[test]
    fn an_end_that_took_long_is_not_sure() {
        let millis = Duration::from_millis;
        assert!(judge(Ok(()), millis(199)).is_ok());
        assert!(RETRY_BACKOFF * 4 / 5 >= CERTAIN_WITHIN, "librdkafka's jitter is a fifth");
        for (ended, took, why) in [
            (Ok(()), millis(200), Doubt::Slow),
            (
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::Fenced)),
                millis(1),
                Doubt::Unanswered,
            ),
        ] {
            let (doubt, error) = judge(ended, took).expect_err("nobody is sure");
            assert_eq!((doubt, error.kind()), (why, ErrorKind::DeliveryUncertain));
        }
    }
}
