//! How what has landed is committed to Kafka, where events are delivered exactly once.
//!
//! Promises: a page is handed on when the transaction has ended in which its events are; with the cursors behind what
//! has landed each transaction ends. Must not: know what a place is. Fails: as the source does, and the publisher.

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::metrics::overlong::show_size;
use crate::order::ledger::Finished;
use crate::shard::TRANSACTION_INTERVALS;
use crate::shard::batch::BATCH_BYTES;
use crate::shard::outlet::{Outlet, OutletSource, count_published, next_finished};
use crate::shard::transaction_budget::SharedBudget;
use crate::shard::transactions::ShardTransactions;

/// A transaction that cannot end where it should is ended in the middle after this.
const TRANSACTION_PATIENCE: Duration = Duration::from_secs(3);
/// A transaction that may have little in flight has it in so many batches, where events are small.
const BATCHES_IN_FLIGHT: usize = 4;
/// What to do where transactions take longer than they may.
const OVERLONG_REMEDY: &str = "raise the quota of this user and client.id (producer_byte_rate), or see to a faster \
     way to Kafka; nothing is lost: each transaction has less in flight than the one before, until they end in time";

impl<S: OutletSource> Outlet<S> {
    /// From here on what is sent is a part of transactions.
    pub(in crate::shard) fn begin_transactions(&mut self, budget: SharedBudget) {
        let transactions = ShardTransactions::new(TRANSACTION_INTERVALS, budget);
        self.ledger.set_bytes_max(transactions.bytes_max());
        self.transactions = Some(transactions);
    }

    pub(in crate::shard) fn note_sent(&mut self, bytes: usize) {
        if let Some(transactions) = &mut self.transactions {
            transactions.note_sent(bytes, self.ledger.bytes(), Instant::now());
        }
    }

    /// As much of a batch as overshoots what a transaction may have in flight by little: the last one has room if
    /// anything has.
    pub(in crate::shard) fn batch_bytes(&self) -> usize {
        let all = self.transactions.as_ref().map(ShardTransactions::bytes_max);
        all.map_or(BATCH_BYTES, |all| (all / BATCHES_IN_FLIGHT).clamp(1, BATCH_BYTES))
    }

    /// As much as is read at once for a transaction, or tried again in one.
    pub(in crate::shard) fn piece_bytes(&self) -> usize {
        let all = self.transactions.as_ref().map(ShardTransactions::bytes_max);
        all.map_or(usize::MAX, |all| all.saturating_mul(2))
    }

    /// Whether the transaction is to take in no more: its time has come, and what is in flight is enough.
    pub(in crate::shard) fn is_transaction_filled(&self) -> bool {
        !self.ledger.has_room() && self.is_transaction_due()
    }

    /// The same in the middle of one of PostgreSQL's, where it is ended early only if Kafka is slow.
    pub(in crate::shard) fn is_part_filled(&self) -> bool {
        let is_slow = || self.transactions.as_ref().is_some_and(ShardTransactions::are_reduced);
        self.is_transaction_filled() && (is_slow() || self.is_transaction_overdue())
    }

    /// The shard has failed. What to say of it, where that is because a transaction took longer than it may.
    pub(in crate::shard) fn give_up_transaction(&self, error: Error) -> Error {
        if !matches!(error.kind(), ErrorKind::DeliveryUncertain | ErrorKind::KafkaUnavailable) {
            return error;
        }
        let Some(transactions) = &self.transactions else { return error };
        let Some(overlong) = transactions.give_up(self.ledger.bytes(), Instant::now()) else {
            return error;
        };
        self.gauge.note_overlong(Some(overlong));
        let next = show_size(transactions.bytes_max() as u64);
        let cause = format!("{overlong}; the next one has {next} in flight ({})", error.message());
        Error::new(error.kind(), cause).with_remedy(OVERLONG_REMEDY)
    }

    /// The source has nothing more at the moment: what is sent is not to wait for more.
    pub(in crate::shard) fn note_ran_out(&mut self) {
        if let Some(transactions) = &mut self.transactions {
            transactions.note_ran_out();
        }
    }

    /// Hands on what is done; what is in a transaction waits for its end.
    pub(in crate::shard) fn hand_on(&mut self) {
        let (ledger, gauge) = (&mut self.ledger, &self.gauge);
        let finished = std::iter::from_fn(|| next_finished(ledger, gauge));
        match &mut self.transactions {
            Some(transactions) if !transactions.are_none() => {
                finished.for_each(|page| transactions.land(page));
            }
            Some(transactions) => {
                self.source.hand_on(finished.inspect(|page| count_published(page, gauge)));
                transactions.pass(ledger.pages_finished());
            }
            None => self.source.hand_on(finished.inspect(|page| count_published(page, gauge))),
        }
    }

    /// How many pages are done for good.
    pub(in crate::shard) fn pages_settled(&self) -> u64 {
        let finished = self.ledger.pages_finished();
        self.transactions.as_ref().map_or(finished, ShardTransactions::pages)
    }

    /// Whether the transaction is to end as soon as all has landed.
    pub(in crate::shard) fn is_transaction_due(&self) -> bool {
        self.transactions.as_ref().is_some_and(|open| open.are_due(Instant::now()))
    }

    /// Whether it is to end wherever it is.
    pub(in crate::shard) fn is_transaction_overdue(&self) -> bool {
        let due = self.transaction_due_at();
        due.is_some_and(|due| due + TRANSACTION_PATIENCE <= Instant::now())
    }

    /// Whether anything is in an open transaction, or in one that is about to end.
    pub(in crate::shard) fn is_transaction_open(&self) -> bool {
        self.transactions.as_ref().is_some_and(|open| !open.are_none())
    }

    /// When it is to end.
    pub(in crate::shard) fn transaction_due_at(&self) -> Option<Instant> {
        self.transactions.as_ref().and_then(ShardTransactions::due_at)
    }

    /// Ends the open transaction, if there is one. Nothing is in flight; it is not waited for.
    pub(in crate::shard) async fn end_transaction(&mut self) -> Result<()> {
        match &self.transactions {
            Some(transactions) if transactions.is_open() => self.end_with(&[]).await,
            Some(_) | None => Ok(()),
        }
    }

    /// The same, and waits until nothing is open.
    pub(in crate::shard) async fn conclude(&mut self) -> Result<()> {
        self.await_end().await?;
        self.end_transaction().await?;
        self.await_end().await
    }

    /// Commits where these buckets stand, and waits for it. Nothing is open.
    pub(in crate::shard) async fn commit_places(
        &mut self,
        places: &[Finished<S::Place>],
    ) -> Result<()> {
        if let Some(records) = self.source.control_records(places, &[]).await? {
            self.tell_end(records);
        }
        self.await_end().await
    }

    pub(in crate::shard) async fn end_with(&mut self, retried: &[i64]) -> Result<()> {
        self.await_end().await?;
        let Some(transactions) = &self.transactions else { return Ok(()) };
        let landed = transactions.landed();
        if let Some(records) = self.source.control_records(landed, retried).await? {
            self.tell_end(records);
        }
        Ok(())
    }

    fn tell_end(&mut self, records: Vec<(Bucket, String)>) {
        let Some(transactions) = &mut self.transactions else { return };
        transactions.end(self.ledger.pages_finished());
        assert_eq!(self.publishers.len(), 1, "a transaction is one producer's");
        self.publishers[0].end(records);
    }

    /// Waits until no transaction is about to end.
    pub(in crate::shard) async fn await_end(&mut self) -> Result<()> {
        while self.transactions.as_ref().is_some_and(ShardTransactions::is_ending) {
            self.take_reports()?;
            if self.transactions.as_ref().is_some_and(ShardTransactions::is_ending) {
                self.wait().await?;
            }
        }
        Ok(())
    }
}
