//! The consumer of an open-loop run: audits every record as it comes and takes its latencies.
//!
//! Promises: sees every record once, in partition order, in bounded memory. Must not: fall behind in
//! silence; the backlog counts what it has not seen. Fails: when the topic cannot be read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use rdkafka::message::{BorrowedMessage, Message};

use crate::audit::{Auditor, Sighting};
use crate::commits::Commit;
use crate::event::Mark;
use crate::latency::Stage;
use crate::topic::{Reader, RecordClock, Stamp, Topic};
use crate::writer::{Epoch, LatencyBook, Written};

/// How long one wait for a record lasts.
const STEP_LIMIT: Duration = Duration::from_millis(50);

/// The broker's stamp is cut to whole milliseconds; half of one is the fair guess.
const STAMP_MIDDLE_US: u64 = 500;

/// What the consumer knows.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The audit so far.
    pub(crate) auditor: Auditor,
    /// Latencies of delivered events.
    pub(crate) book: LatencyBook,
    /// Whose clock stamped the records.
    pub(crate) record_clock: Option<RecordClock>,
    /// Records that came before the answer to their commit.
    pub(crate) before_commit_answer: u64,
    /// Records whose commit lay too far back.
    pub(crate) commit_forgotten: u64,
}

impl Seen {
    /// Nothing was seen yet.
    pub(crate) fn new(auditor: Auditor, measured_from_us: u64) -> Self {
        Self {
            auditor,
            book: LatencyBook::new(measured_from_us),
            record_clock: None,
            before_commit_answer: 0,
            commit_forgotten: 0,
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>, epoch: Epoch, written: &Written) {
        let sighting = self.auditor.observe(message.partition(), message.key(), message.payload());
        if let Sighting::First(mark) = sighting {
            self.time(mark, Stamp::of(message), epoch, written);
        }
    }

    fn time(&mut self, mark: Mark, stamp: Option<Stamp>, epoch: Epoch, written: &Written) {
        let now_us = epoch.elapsed_us();
        let intended_us = epoch.elapsed_at(mark.intended_unix_us);
        let mut record = |stage, from: u64, to: u64| {
            self.book.record(stage, intended_us, to.saturating_sub(from), 1);
        };
        record(Stage::Total, intended_us, now_us);
        let stamp_us = stamp.map(|stamp| {
            let unix_us = stamp.unix_ms.unsigned_abs() * 1_000 + STAMP_MIDDLE_US;
            epoch.elapsed_at(unix_us)
        });
        if let Some(stamp_us) = stamp_us {
            record(Stage::StampToConsume, stamp_us, now_us);
        }
        let committed_us = match written.commits.find(mark.writer, mark.transaction) {
            Commit::At(at_us) => at_us,
            Commit::NotYet => now_us,
            Commit::Forgotten => {
                self.commit_forgotten += 1;
                return;
            }
        };
        record(Stage::CommitToConsume, committed_us, now_us);
        if let Some(stamp_us) = stamp_us {
            record(Stage::CommitToStamp, committed_us, stamp_us);
        }
        self.before_commit_answer += u64::from(committed_us == now_us);
        self.record_clock = self.record_clock.or(stamp.map(|stamp| stamp.clock));
    }
}

/// Follows the topic until `stop`, then reads to the end that it has then.
///
/// # Errors
/// When the topic cannot be read.
pub(crate) fn follow(
    topic: &Topic,
    mut reader: Reader,
    seen: &Mutex<Seen>,
    epoch: Epoch,
    written: &Written,
    stop: &AtomicBool,
) -> Result<()> {
    let take = |message: &BorrowedMessage<'_>| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.take(message, epoch, written);
    };
    while !stop.load(Ordering::Acquire) {
        reader.step(STEP_LIMIT, take)?;
    }
    // Only a new reader is certain to reach the end: this one may hold old signs of it.
    let mut last = topic.reader(reader.positions())?;
    last.read_to(&topic.ends()?, take)
}
