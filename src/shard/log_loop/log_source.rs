//! Our end of the stream: how far it has come, how far it has led, and what the server hears of that.
//!
//! Promises: a place is handed on only when all before it is acknowledged or parked, and confirmed only when
//! that is saved; the server hears from us also while Kafka is away. Must not: send, or wait for Kafka.
//! Fails: with the stream's error.

use std::time::{Duration, Instant};

use crate::capture::log::decode::{LogCapture, Lsn};
use crate::error::Result;
use crate::event::Bucket;
use crate::order::ledger::Finished;
use crate::shard::log_loop::log_commits::LogCommits;
use crate::shard::log_loop::log_progress::{Landing, LogPlace, LogProgress, ProgressLine};
use crate::shard::outlet::OutletSource;

/// The server ends a stream from which it has not heard for `wal_sender_timeout`, a minute by default.
const FEEDBACK_INTERVAL: Duration = Duration::from_secs(1);
/// Before it is looked again whether our ticker has told of a tick that the stream has brought.
const TICK_PAUSE: Duration = Duration::from_millis(2);
/// While nothing comes for the outbox, the place moves on in steps of so many bytes of the log.
const IDLE_STEP_BYTES: u64 = 1024 * 1024;

/// Our end of the stream.
#[derive(Debug)]
pub(super) struct LogSource {
    pub(super) capture: LogCapture,
    pub(super) progress_line: ProgressLine,
    pub(super) progress: LogProgress,
    /// Where the stream began.
    pub(super) begins: Lsn,
    /// The end of the last transaction.
    pub(super) place: Lsn,
    /// How far the server says it has come.
    received: Lsn,
    feedback_at: Instant,
    /// Where events are delivered exactly once.
    pub(super) commits: Option<LogCommits>,
    /// The server keeps what lies behind this, whatever is saved.
    confirms_up_to: Option<Lsn>,
}

impl OutletSource for LogSource {
    type Place = LogPlace;

    fn hand_on(&mut self, finished: impl Iterator<Item = Finished<LogPlace>>) {
        if let Some(landing) = self.commits.as_mut().and_then(LogCommits::take_ended) {
            // Its pages were reckoned when it was told to end.
            self.progress_line.landed.send_replace(Some(landing));
            return;
        }
        for Finished { place, .. } in finished {
            if let Some(landing) = self.progress.land(place) {
                self.progress_line.landed.send_replace(Some(landing));
            }
        }
        self.hand_on_ticks();
    }

    fn heartbeat_at(&self) -> Option<Instant> {
        Some(self.feedback_at)
    }

    async fn heartbeat(&mut self) -> Result<()> {
        self.feed_back().await
    }

    async fn control_records(
        &mut self,
        landed: &[Finished<LogPlace>],
        retried: &[i64],
    ) -> Result<Option<Vec<(Bucket, String)>>> {
        let mut reached = None;
        let known = self.commits.as_ref().map_or(0, |commits| commits.reckoned);
        for Finished { place, .. } in &landed[known..] {
            reached = self.progress.land(*place).or(reached);
        }
        while self.progress.awaits_ticks() {
            match self.progress.next_landing() {
                Some(landing) => reached = Some(landing),
                None => {
                    if let Some(table) = self.progress.table() {
                        table.ask_again_for_tick();
                    }
                    tokio::time::sleep(TICK_PAUSE).await;
                }
            }
        }
        let commits = self.commits.as_mut().expect("cursors are committed to Kafka");
        commits.reckoned = landed.len();
        if reached.is_none() && !landed.is_empty() && !commits.is_behind_part() {
            return Ok(None);
        }
        commits.records(reached, retried).await.map(Some)
    }
}

impl LogSource {
    pub(super) fn new(
        capture: LogCapture,
        progress_line: ProgressLine,
        progress: LogProgress,
        begins: Lsn,
        confirms_up_to: Option<Lsn>,
    ) -> Self {
        let feedback_at = Instant::now() + FEEDBACK_INTERVAL;
        Self {
            capture,
            progress_line,
            progress,
            begins,
            place: begins,
            received: begins,
            feedback_at,
            commits: None,
            confirms_up_to,
        }
    }

    /// How far the server says it has come.
    pub(super) fn received(&self) -> Lsn {
        self.received
    }

    /// The server has come this far.
    pub(super) fn receive(&mut self, end: Lsn) {
        self.received = self.received.max(end);
    }

    /// Hands on what has landed of the ticks that are known by now.
    pub(super) fn hand_on_ticks(&mut self) {
        while let Some(landing) = self.progress.next_landing() {
            self.progress_line.landed.send_replace(Some(landing));
        }
    }

    /// Tells the server how far we are. What is confirmed was saved before.
    pub(super) async fn feed_back(&mut self) -> Result<()> {
        let saved = *self.progress_line.saved.borrow_and_update();
        self.feedback_at = Instant::now() + FEEDBACK_INTERVAL;
        if let Some(table) = self.progress.table() {
            table.ask_for_more(self.received);
        }
        let confirmed = self.confirms_up_to.map_or(saved, |place| place.min(saved));
        self.capture.confirm(self.received.max(saved), confirmed).await
    }

    /// The same, when it is time.
    pub(super) async fn feed_back_when_due(&mut self) -> Result<()> {
        if self.is_feedback_due() { self.feed_back().await } else { Ok(()) }
    }

    pub(super) fn is_feedback_due(&self) -> bool {
        self.feedback_at <= Instant::now()
    }

    /// Something was saved: the server is to hear of it at once.
    pub(super) fn hurry_feedback(&mut self) {
        self.feedback_at = Instant::now();
    }

    /// While nothing comes for the outbox, nothing of the log is needed: an idle outbox in a busy database
    /// keeps no log back. Nothing is on its way.
    pub(super) fn move_on_idle(&mut self) {
        let landed = self
            .progress_line
            .landed
            .borrow()
            .as_ref()
            .map_or(self.begins, |landing| landing.place);
        if self.progress.is_at_rest() && self.received.0 > landed.0 + IDLE_STEP_BYTES {
            let place = self.received;
            self.place = place;
            self.progress_line.landed.send_modify(|landing| match landing {
                Some(landing) => landing.place = place,
                None => *landing = Some(Landing::at(place)),
            });
        }
    }
}
