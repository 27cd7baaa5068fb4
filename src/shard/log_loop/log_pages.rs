//! The pages that the stream fills, and how they leave.
//!
//! Promises: events of an aggregate go to one publisher, in the order in which they were gathered; nothing
//! waits longer than a moment for others to travel with; nothing is gathered that is not as durable as the
//! server makes commits. Must not: read the stream, or decide what is published. Fails: as the outlet does.
//!
//! ```text
//!   AtRest ── event, or a commit behind events that were sent ──► Gathering(send_at)
//!     ▲                                                              │
//!     └───────── all is sent: 2 ms later, or the page ends ──────────┘
//! ```

use std::time::{Duration, Instant};

use crate::capture::log::decode::{LoggedEvent, Lsn};
use crate::capture::log::durability::DurabilityBarrier;
use crate::error::Result;
use crate::event::{Bucket, OrderingKey};
use crate::order::control_record::RecordedPlace;
use crate::shard::batch::{Outgoing, OutgoingRow};
use crate::shard::log_loop::log_progress::LogPlace;
use crate::shard::log_loop::log_source::LogSource;
use crate::shard::outlet::{Outlet, OutletSource, sleep_until};

/// Events wait this long for others to travel with.
pub(super) const GATHER: Duration = Duration::from_millis(2);
/// Reports are looked for after so many items, at the latest.
pub(super) const SETTLE_ITEMS: u32 = 256;
/// A page ends with the first commit after so many events, if no tick ends it before.
const PAGE_EVENTS: u64 = 5_000;

/// What the open page waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gathering {
    /// Nothing: all that came was sent.
    AtRest,
    /// Others to travel with, or its end; until this moment.
    Until(Instant),
}

/// Where the stream stands, between two transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StandsAt {
    /// At the commit of a tick of our own.
    Tick,
    /// At that of any other.
    Commit,
}

/// The pages that the stream fills.
#[derive(Debug)]
pub(super) struct LogPages {
    pub(super) outlet: Outlet<LogSource>,
    /// How far the log is durable.
    barrier: DurabilityBarrier,
    /// What has gathered for each publisher.
    outgoing: Vec<Outgoing>,
    gathering: Gathering,
    /// How many events the open page has, with those that no batch carries.
    events: u64,
}

impl LogPages {
    /// With an empty page.
    pub(super) fn new(mut outlet: Outlet<LogSource>, barrier: DurabilityBarrier) -> Self {
        outlet.ledger.open_page();
        let outgoing = (0..outlet.publishers()).map(|_| Outgoing::default()).collect();
        Self { outlet, barrier, outgoing, gathering: Gathering::AtRest, events: 0 }
    }

    /// Our end of the stream.
    pub(super) fn source(&mut self) -> &mut LogSource {
        &mut self.outlet.source
    }

    /// When what has gathered is to be sent.
    pub(super) fn send_at(&self) -> Option<Instant> {
        match self.gathering {
            Gathering::AtRest => None,
            Gathering::Until(moment) => Some(moment),
        }
    }

    pub(super) fn is_due(&self) -> bool {
        self.send_at().is_some_and(|due| due <= Instant::now())
    }

    /// Whether nothing has gathered, the open page is empty, nothing is in flight, and nothing is in a transaction in
    /// Kafka: what is in one may still be taken back.
    pub(super) fn is_idle(&self) -> bool {
        self.gathering == Gathering::AtRest
            && self.events == 0
            && self.outlet.ledger.batches() == 0
            && !self.outlet.is_transaction_open()
    }

    fn begin_to_gather(&mut self) {
        if self.gathering == Gathering::AtRest {
            self.gathering = Gathering::Until(Instant::now() + GATHER);
        }
    }

    /// Puts an event to those that travel with it.
    pub(super) async fn gather(
        &mut self,
        event: LoggedEvent,
        ordering_key: OrderingKey,
    ) -> Result<()> {
        let publisher = self.outlet.publisher_of(event.aggregate_id());
        self.begin_to_gather();
        self.events += 1;
        let bytes_max = self.outlet.batch_bytes();
        if self.outgoing[publisher].push(OutgoingRow::Logged(event, ordering_key), bytes_max) {
            self.send(publisher).await?;
        }
        Ok(())
    }

    /// An event was parked that no batch carries: the page is to end behind it.
    pub(super) fn count_parked(&mut self) {
        self.events += 1;
    }

    /// A transaction has ended, at a tick or not.
    pub(super) async fn commit(&mut self, tick: Option<u64>) -> Result<()> {
        if tick.is_some() || self.events >= PAGE_EVENTS {
            self.end_page(tick).await?;
        } else if self.events > 0 {
            // If its last events are on their way, the page is to end, too.
            self.begin_to_gather();
        }
        Ok(())
    }

    /// Sends what has gathered and ends the page at the last commit.
    pub(super) async fn end_page(&mut self, tick: Option<u64>) -> Result<()> {
        self.send_all().await?;
        let end = self.outlet.source.place;
        self.outlet.ledger.close_page(LogPlace { end, tick });
        self.outlet.ledger.open_page();
        self.events = 0;
        self.outlet.settle().await
    }

    pub(super) async fn send_all(&mut self) -> Result<()> {
        for publisher in 0..self.outgoing.len() {
            self.send(publisher).await?;
        }
        self.gathering = Gathering::AtRest;
        Ok(())
    }

    /// Sends what has gathered for a publisher, once there is room.
    async fn send(&mut self, publisher: usize) -> Result<()> {
        if self.outgoing[publisher].rows.is_empty() {
            return Ok(());
        }
        self.outlet.wait_for_room().await?;
        self.outlet.send(publisher, &mut self.outgoing[publisher]).await
    }

    /// Sends what has gathered, and waits until everything has landed.
    pub(super) async fn land_all(&mut self) -> Result<()> {
        self.send_all().await?;
        self.outlet.wait_until_landed().await
    }

    /// Waits until a commit at this place is as durable as the server makes commits. What was read before is
    /// not held up, and the server hears from us meanwhile.
    pub(super) async fn wait_until_durable(&mut self, commit: Lsn) -> Result<()> {
        if self.barrier.has_passed(commit) {
            return Ok(());
        }
        self.send_all().await?;
        while !self.barrier.has_passed(commit) {
            self.outlet.settle().await?;
            self.outlet.source.feed_back_when_due().await?;
            tokio::select! {
                () = self.barrier.ask() => {}
                () = self.outlet.reported() => {}
                () = sleep_until(self.outlet.source.heartbeat_at()) => {}
            }
        }
        Ok(())
    }

    /// Ends the transaction in Kafka, if it is time and the stream stands where others can go on.
    pub(super) async fn commit_if_due(&mut self, stands_at: StandsAt) -> Result<()> {
        if !self.outlet.is_transaction_due() {
            return Ok(());
        }
        match stands_at {
            StandsAt::Tick => {}
            StandsAt::Commit if self.outlet.source.progress.ends_anywhere() => {
                self.end_page(None).await?;
            }
            StandsAt::Commit => return Ok(()),
        }
        self.outlet.wait_until_landed().await?;
        self.outlet.end_transaction().await
    }

    /// Ends the transaction in Kafka, if there is one, and waits for that: what is in it leads no place further.
    pub(super) async fn commit_so_far(&mut self) -> Result<()> {
        self.send_all().await?;
        self.outlet.wait_until_landed().await?;
        self.outlet.conclude().await
    }

    /// Ends the transaction in Kafka behind a part of one of PostgreSQL's, which takes long.
    pub(super) async fn commit_part(&mut self, part: RecordedPlace) -> Result<()> {
        self.send_all().await?;
        self.outlet.wait_until_landed().await?;
        if let Some(commits) = &mut self.outlet.source.commits {
            commits.note_part(part);
        }
        self.outlet.end_transaction().await
    }

    /// Begins again with what is held, as more of it lies in memory than may.
    pub(super) async fn lighten(&mut self, buckets: &[Bucket]) -> Result<()> {
        self.outlet.wait_until_landed().await?;
        self.outlet.load_holds(buckets).await
    }

    /// Tries parked events again that were asked for. No transaction is open.
    pub(super) async fn retry(&mut self, buckets: &[Bucket]) -> Result<()> {
        self.end_page(None).await?;
        self.outlet.wait_until_landed().await?;
        self.outlet.retry(buckets).await
    }
}
