//! One shard: claim, send, take note, in this order, for the buckets that it owns.
//!
//! Promises: events of a bucket are sent in the order of the cursor's ranges and of `seq` in them; a
//! cursor is handed to the store only when all that lies before it was acknowledged or parked; nothing
//! is claimed while too much is in flight. Must not: know SQL, librdkafka, or other shards.
//! Fails: with the first error of either side; everything in flight is then forgotten, and whoever
//! starts the shard again starts from the saved cursors.
//!
//! ```text
//!            ┌─ a cursor group has an unfinished range, and there is room ─► claim its page, send it ─┐
//!   settle ──┼─ nothing to claim, or no room ─► wait: a tick, a report, an order ───────────────┤
//!      ▲     ├─ something waits for quiet, something is in flight ─► wait, claim nothing ───────┤
//!      │     └─ the same, nothing is in flight ─► begin with new buckets, try parked again ─────┤
//!      └────────────────────────────────────────────────────────────────────────────────────────┘
//!   the signal to stop ─► nothing more is claimed ─► what is in flight lands ─► done
//! ```
//!
//! How rows go out and reports come back is in `outlet`, the same for this loop and that of the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::capture::table::claim::Poller;
use crate::control::cursors::CursorStore;
use crate::control::parked::Parked;
use crate::error::Result;
use crate::event::Bucket;
use crate::metrics::counters::ShardGauge;
use crate::order::cursor::{Cursor, CursorGroup, GroupCursor};
use crate::order::ledger::{Finished, Ledger, Limit};
use crate::order::snapshot::TransactionId;
use crate::order::tick::Tick;
use crate::publish::Publisher;
use crate::publish::kafka::producer::Warnings;

pub mod assignment;
mod batch;
mod cursor_groups;
pub mod exactly;
pub mod log_loop;
mod outlet;
mod page;
mod parking;
mod probes;
pub mod transaction_budget;
mod transactions;

use crate::shard::assignment::Holdings;
pub use crate::shard::batch::OutgoingRow;
use crate::shard::exactly::{Begun, Exactly};
use crate::shard::outlet::{Outlet, OutletWiring, sleep_until};
pub use crate::shard::page::ShardLimits;
use crate::shard::page::{PageReader, SavedCursors};
use crate::shard::transactions::Intervals;

/// Batches between claim and acknowledgement.
pub const BATCHES_MAX: usize = 1_024;

/// How long a transaction gathers what is sent.
const TRANSACTION_INTERVALS: Intervals =
    Intervals { live: Duration::from_millis(100), backlog: Duration::from_millis(500) };

/// Everything that a shard works with.
#[derive(Debug)]
pub struct Shard {
    pages: PageReader,
    outlet: Outlet<SavedCursors>,
    ticks: watch::Receiver<Arc<Tick>>,
    nudge: Arc<Notify>,
    stop: watch::Receiver<bool>,
    holdings: Holdings,
    cursor_groups: Vec<GroupCursor>,
    /// The cursor group whose turn it is.
    turn: usize,
    /// Where cursors are committed to Kafka.
    exactly: Option<Exactly>,
    /// Since which switch events are delivered as they are.
    delivery_term: i64,
    /// Nothing parked is tried again before all is passed that this transaction's write comes after: what was sent
    /// before what is parked may not have been committed.
    retries_wait_for: Option<TransactionId>,
}

/// What a shard does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ShardStep {
    /// Claims the next page of this cursor group.
    Claim(usize),
    /// Does what waits for a moment at which nothing is in flight: this is one.
    UseQuiet,
    /// Waits, for quiet or for something to do.
    Wait,
}

/// What a shard is connected to.
#[derive(Debug)]
pub struct Wiring {
    /// Where pages come from.
    pub poller: Poller,
    /// Where batches go.
    pub publisher: Publisher<OutgoingRow>,
    /// Who saves cursors.
    pub store: Arc<CursorStore>,
    /// Where events go that cannot be published.
    pub parked: Arc<Parked>,
    /// Which warnings were said.
    pub warnings: Arc<Warnings>,
    /// The latest tick.
    pub ticks: watch::Receiver<Arc<Tick>>,
    /// Asks for a tick at once.
    pub nudge: Arc<Notify>,
    /// Becomes true when no more is to be claimed.
    pub stop: watch::Receiver<bool>,
    /// Which buckets are its own.
    pub holdings: Holdings,
    /// What operators see.
    pub gauge: Arc<ShardGauge>,
    /// Where cursors are committed to Kafka.
    pub exactly: Option<Exactly>,
    /// Since which switch events are delivered as they are.
    pub delivery_term: i64,
}

impl Shard {
    /// A shard that has no bucket in hand yet.
    pub fn new(wiring: Wiring, limits: ShardLimits) -> Self {
        let Wiring { poller, publisher, store, parked, warnings, ticks, .. } = wiring;
        let term = wiring.exactly.as_ref().map(|exactly| exactly.term);
        let (publishers, source) = (vec![publisher], SavedCursors::new(Arc::clone(&store), term));
        let outlet = OutletWiring { publishers, store, parked, warnings, gauge: wiring.gauge };
        let limit = Limit { bytes: limits.in_flight_bytes, batches: BATCHES_MAX };
        let ledger = Ledger::merging(limit, GroupCursor::is_covered_by);
        let mut outlet = Outlet::new(outlet, ledger, source);
        if let Some(exactly) = &wiring.exactly {
            outlet.begin_transactions(exactly.budget.clone());
        }
        Self {
            pages: PageReader::new(poller, wiring.stop.clone(), limits),
            outlet,
            ticks,
            nudge: wiring.nudge,
            stop: wiring.stop,
            holdings: wiring.holdings,
            cursor_groups: Vec::new(),
            turn: 0,
            exactly: wiring.exactly,
            delivery_term: wiring.delivery_term,
            retries_wait_for: None,
        }
    }

    /// Works until told to stop; then waits for what is in flight.
    ///
    /// # Errors
    /// The first error of PostgreSQL's or Kafka's side.
    pub async fn run(mut self) -> Result<()> {
        let ended = self.work().await.map_err(|error| self.outlet.give_up_transaction(error));
        // Buckets are in hand until nothing can be sent any more.
        let closed = self.outlet.close().await;
        ended.and(closed.map(drop))
    }

    async fn work(&mut self) -> Result<()> {
        while !*self.stop.borrow() {
            self.outlet.settle().await?;
            self.follow_holdings().await?;
            if self.outlet.is_time_to_look() {
                self.outlet.parking.look(&self.claimed_buckets()).await?;
            }
            match self.next_step().await? {
                ShardStep::Claim(index) => {
                    self.outlet.begin_task();
                    self.pages.claim(&mut self.cursor_groups[index], &mut self.outlet).await?;
                    self.outlet.end_task();
                }
                ShardStep::UseQuiet => {
                    // Who begins may ask Kafka, which may give no answer: then this does not get on.
                    self.outlet.begin_task();
                    self.outlet.end_transaction().await?;
                    self.begin_joined().await?;
                    self.lighten().await?;
                    self.retry().await?;
                    self.outlet.end_task();
                }
                ShardStep::Wait => self.wait().await,
            }
        }
        self.outlet.wait_until_landed().await?;
        assert!(self.outlet.ledger.is_empty(), "no page is open, and none is left");
        self.outlet.conclude().await?;
        let held = self.holdings.held();
        self.clear(&held).await
    }

    /// Nothing of ours is open with these any more.
    async fn clear(&mut self, buckets: &[Bucket]) -> Result<()> {
        if self.exactly.is_none() || buckets.is_empty() {
            return Ok(());
        }
        self.outlet.source.forget(buckets);
        self.outlet.store.clear_ids(buckets).await
    }

    /// Whether parked events may be tried again, if any are asked for.
    fn wants_retry(&mut self) -> bool {
        if !self.outlet.parking.wants_quiet() {
            return false;
        }
        let Some(xid) = self.retries_wait_for else { return true };
        let has_passed = |at: &GroupCursor| {
            at.cursor.from().sees(xid)
                || (at.cursor.is_finished() && at.cursor.upto().snapshot.sees(xid))
        };
        if self.cursor_groups.iter().all(has_passed) {
            self.retries_wait_for = None;
            return true;
        }
        self.nudge.notify_one();
        false
    }

    async fn next_step(&mut self) -> Result<ShardStep> {
        let is_full = self.outlet.is_full();
        let is_due = self.outlet.is_transaction_due();
        if is_due || is_full || self.holdings.wants_more() || self.wants_retry() {
            return Ok(self.quiet_step());
        }
        // One and the same: a later one may leave a window that this one does not.
        let tick = Arc::clone(&self.ticks.borrow_and_update());
        self.show_course(&tick);
        self.close_windows(&tick).await?;
        let claim = self.next_claim(&tick);
        if claim.is_none() {
            self.outlet.note_ran_out();
            if self.outlet.is_transaction_due() {
                return Ok(self.quiet_step());
            }
        }
        let has_room = self.outlet.ledger.has_room() && self.outlet.ledger.has_page_room();
        Ok(claim.filter(|_| has_room).map_or(ShardStep::Wait, ShardStep::Claim))
    }

    fn quiet_step(&self) -> ShardStep {
        if self.outlet.ledger.is_empty() { ShardStep::UseQuiet } else { ShardStep::Wait }
    }

    /// Of a range that is not finished all that was drawn may be to come; of one that is, what was drawn since.
    fn show_course(&self, tick: &Tick) {
        let remaining = |at: &GroupCursor| {
            let (cursor, drawn) = (&at.cursor, tick.ceiling.max(0));
            let reached = match (cursor.is_finished(), tick.is_later_than(cursor.upto())) {
                (true, false) => drawn,
                (true, true) => cursor.upto().ceiling,
                (false, _) => cursor.position().min(cursor.upto().ceiling),
            };
            drawn.saturating_sub(reached.max(0)).max(0)
        };
        let most = self.cursor_groups.iter().map(remaining).max().unwrap_or_default();
        self.outlet.show_course(tick.ceiling.saturating_sub(most), most.unsigned_abs());
    }

    /// Closes the windows that have to be closed, or are old enough to be.
    async fn close_windows(&mut self, tick: &Tick) -> Result<()> {
        // Cohorts become one when they stand alike.
        let are_many = self.cursor_groups.len() > 1;
        for at in &mut self.cursor_groups {
            if are_many || self.pages.is_window_due(at, tick) {
                self.pages.close_window(at, &self.outlet).await?;
            }
        }
        Ok(())
    }

    /// Claims no more for buckets that are to be given up, and lets those go whose last page is done.
    async fn follow_holdings(&mut self) -> Result<()> {
        let drained = self.holdings.drained(self.outlet.pages_settled());
        self.clear(&drained).await?;
        if !self.holdings.settle(self.outlet.pages_settled()) {
            return Ok(());
        }
        let leaving = self.holdings.leave(self.outlet.ledger.pages_opened());
        if !leaving.is_empty() {
            self.cursor_groups =
                cursor_groups::without(std::mem::take(&mut self.cursor_groups), &leaving);
        }
        Ok(())
    }

    /// Begins with new buckets at their saved cursors. Nothing is in flight: what is held is read again
    /// for all buckets, as somebody else may have lifted holds since one was here last.
    async fn begin_joined(&mut self) -> Result<()> {
        let joining = self.holdings.join();
        if joining.is_empty() {
            return Ok(());
        }
        // One that was ours a moment ago may have a cursor that is not saved yet.
        self.outlet.store.save_all().await?;
        let cursors = match self.exactly.clone() {
            None => {
                let store = &self.outlet.store;
                store.mark_term(&joining, self.delivery_term).await?;
                store.load(&joining).await?
            }
            Some(exactly) => self.begin_exactly(&exactly, &joining).await?,
        };
        let tick = Arc::clone(&self.ticks.borrow());
        if cursors.iter().any(|(_, cursor)| cursor.awaits_more_than(&tick)) {
            self.nudge.notify_one();
        }
        self.cursor_groups.extend(cursor_groups::group(cursors));
        self.outlet.load_holds(&self.claimed_buckets()).await
    }

    /// Begins with buckets whose cursors are committed to Kafka.
    async fn begin_exactly(
        &mut self,
        exactly: &Exactly,
        joining: &[Bucket],
    ) -> Result<Vec<(Bucket, Cursor)>> {
        self.outlet.conclude().await?;
        let store = Arc::clone(&self.outlet.store);
        let Begun { cursors, fresh, retried, since } = exactly.begin(&store, joining).await?;
        if !retried.is_empty() {
            self.outlet.parking.parked().answer(&store.owned(), &retried, &[]).await?;
        }
        self.outlet.source.begin(&cursors);
        if !fresh.is_empty() {
            let place = |(bucket, cursor): &(Bucket, Cursor)| Finished {
                place: GroupCursor {
                    cursor_group: CursorGroup::from([*bucket]),
                    cursor: cursor.clone(),
                },
                events: 0,
                parked: 0,
            };
            let first = cursors.iter().filter(|(bucket, _)| fresh.contains(bucket));
            self.outlet.commit_places(&first.map(place).collect::<Vec<_>>()).await?;
            store.mark_term(&fresh, exactly.term).await?;
        }
        self.retries_wait_for = Some(since);
        Ok(cursors)
    }

    /// Begins again with what is held, if more of it lies in memory than may. Nothing is in flight.
    async fn lighten(&mut self) -> Result<()> {
        if self.outlet.is_full() {
            self.outlet.load_holds(&self.claimed_buckets()).await?;
        }
        Ok(())
    }

    /// Those that are not to be given up.
    fn claimed_buckets(&self) -> Vec<Bucket> {
        self.cursor_groups.iter().flat_map(|at| at.cursor_group.iter().copied()).collect()
    }

    /// Tries parked events again that were asked for. Nothing is in flight.
    async fn retry(&mut self) -> Result<()> {
        if !self.wants_retry() {
            return Ok(());
        }
        self.outlet.ledger.open_page();
        self.outlet.retry(&self.claimed_buckets()).await?;
        // It leads no cursor anywhere.
        let nowhere =
            GroupCursor { cursor_group: CursorGroup::from([]), cursor: Cursor::initial() };
        self.outlet.ledger.close_page(nowhere);
        Ok(())
    }

    /// The next cursor group with something to claim, in turn.
    fn next_claim(&mut self, tick: &Arc<Tick>) -> Option<usize> {
        self.enter_tick(tick);
        let count = self.cursor_groups.len();
        let index = (0..count)
            .map(|offset| (self.turn + offset) % count)
            .find(|index| !self.cursor_groups[*index].cursor.is_finished())?;
        self.turn = index + 1;
        Some(index)
    }

    /// Leads every cursor group that has finished its range into the next one.
    fn enter_tick(&mut self, tick: &Arc<Tick>) {
        let is_due = |cursor: &Cursor| cursor.is_finished() && tick.is_later_than(cursor.upto());
        if !self.cursor_groups.iter().any(|at| is_due(&at.cursor))
            || !self.outlet.ledger.has_page_room()
        {
            return;
        }
        self.cursor_groups = cursor_groups::merge(std::mem::take(&mut self.cursor_groups));
        for at in &mut self.cursor_groups {
            if is_due(&at.cursor) {
                at.cursor.enter(tick);
                if at.cursor.is_finished() {
                    self.outlet.ledger.open_page();
                    self.outlet.ledger.close_page(at.clone());
                }
            }
        }
    }

    /// Waits until there is a tick, a report, or the signal to stop.
    async fn wait(&mut self) {
        // An empty page that was just closed is finished already.
        let ledger = &self.outlet.ledger;
        if ledger.is_front_finished() || self.holdings.is_due(self.outlet.pages_settled()) {
            return;
        }
        let look = self.outlet.parking.next_look();
        let ends = self.outlet.transaction_due_at().filter(|due| *due > Instant::now());
        let ended = tokio::select! {
            changed = self.ticks.changed() => changed.is_err(),
            () = self.outlet.reported() => false,
            () = sleep_until(look) => false,
            () = sleep_until(ends) => false,
            changed = self.stop.changed() => changed.is_err(),
            changed = self.holdings.changed() => changed.is_err(),
        };
        if ended {
            // The relay has let go of the session; it ends this shard too.
            std::future::pending::<()>().await;
        }
    }
}
