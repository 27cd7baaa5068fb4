//! How far the stream has led, and what of it can be saved.
//!
//! Promises: a place is handed on with the cursor that says the same. Must not: read the stream, or save.
//! Fails: never.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use tokio::sync::{Notify, mpsc, watch};

use crate::capture::adopted::copy::AdoptedCopy;
use crate::capture::log::decode::Lsn;
use crate::event::Bucket;
use crate::order::cursor::Cursor;
use crate::order::log_cursor::{Streamed, widen};
use crate::order::snapshot::{Snapshot, TransactionId};
use crate::order::tick::Tick;
use crate::shard::log_loop::proven::Proven;

/// An id takes at least four bytes of the log: so much of it is a sixteenth of a round at most.
const NEAR_BYTES: u64 = 1 << 30;
/// Ticks that wait for their page.
const TICKS_MAX: usize = 64;

/// How far the stream has led.
#[derive(Clone, Debug)]
pub struct Landing {
    /// Everything that committed before it is published or parked.
    pub place: Lsn,
    /// The same as a cursor of all buckets, where ticks come.
    pub cursor: Option<Cursor>,
    /// Of adopted tables: transactions of which the cursor alone does not prove that they are published.
    pub proven: Vec<TransactionId>,
}

/// The line between the reader and whoever saves and confirms.
#[derive(Debug)]
pub struct Course {
    /// How far everything has landed.
    pub landed: watch::Sender<Option<Landing>>,
    /// How far that is saved.
    pub saved: watch::Receiver<Lsn>,
}

/// Cursors and ticks, where the stream is a table's.
#[derive(Debug)]
pub struct TableCourse {
    /// Where each bucket stands; what it has passed is not sent again.
    pub cursors: Vec<(Bucket, Cursor)>,
    /// A transaction id of the cluster's present: the log gives the lower half of each alone. A slot does not
    /// let the server go further than half of a round beyond what it keeps.
    pub near: TransactionId,
    /// Every tick, in order.
    pub ticks: mpsc::Receiver<Arc<Tick>>,
    /// Asks for a tick at once.
    pub nudge: Arc<Notify>,
    /// What is known of the adopted tables.
    pub adopted: AdoptedCourse,
}

/// Where the adopted tables stand.
#[derive(Debug, Default)]
pub struct AdoptedCourse {
    /// By their numbers: the transactions whose rows are published.
    pub passed: Vec<Snapshot>,
    /// Transactions of which the snapshots alone do not prove it.
    pub proven: Vec<TransactionId>,
    /// The rows that come before the stream.
    pub copy: Option<AdoptedCopy>,
}

/// What the stream has led to, where it is a table's.
#[derive(Debug)]
pub(super) struct Table {
    passed: HashMap<Bucket, Cursor>,
    /// Transactions from here on were passed by no cursor.
    horizon: u64,
    pub(super) streamed: Streamed,
    ticks: mpsc::Receiver<Arc<Tick>>,
    waiting: VecDeque<Arc<Tick>>,
    /// Places of ticks that are not there yet.
    pub(super) landed: VecDeque<(u64, Lsn)>,
    /// The last tick, or what was the present when the stream began.
    near: TransactionId,
    /// Where in the log that was.
    near_at: Lsn,
    pub(super) adopted: AdoptedCourse,
    pub(super) proven: Proven,
    /// The last tick that was handed on.
    handed: Option<u64>,
    nudge: Arc<Notify>,
    is_asked: bool,
}

impl Table {
    pub(super) fn new(course: TableCourse, begins: Lsn) -> Self {
        let TableCourse { cursors, near, ticks, nudge, mut adopted } = course;
        let streamed = Streamed::new(cursors.iter().map(|(_, cursor)| cursor));
        let horizon = |cursor: &Cursor| cursor.from().xmax().max(cursor.upto().snapshot.xmax());
        let latest = cursors.iter().map(|(_, cursor)| cursor.upto().next).max();
        Self {
            horizon: cursors.iter().map(|(_, cursor)| horizon(cursor)).max().unwrap_or_default(),
            passed: cursors.into_iter().collect(),
            streamed,
            ticks,
            waiting: VecDeque::new(),
            landed: VecDeque::new(),
            near: latest.unwrap_or_default().max(near),
            near_at: begins,
            proven: Proven::new(std::mem::take(&mut adopted.proven)),
            adopted,
            handed: None,
            nudge,
            is_asked: false,
        }
    }

    /// The whole id of a transaction that the stream begins.
    pub(super) fn whole(&self, xid: u32) -> TransactionId {
        widen(xid, self.near)
    }

    /// The commit of a tick: the transactions to come are close to it.
    pub(super) fn mark(&mut self, xid: u32, end: Lsn) -> TransactionId {
        (self.near, self.near_at) = (self.whole(xid), end);
        self.streamed.mark(self.near);
        self.proven.mark(self.near);
        self.near
    }

    /// The tick that came last.
    pub(super) fn last_tick(&self) -> TransactionId {
        self.near
    }

    pub(super) fn has_passed(&self, bucket: Bucket, txid: u64, seq: i64) -> bool {
        txid < self.horizon
            && self.passed.get(&bucket).is_some_and(|cursor| cursor.has_passed(txid, seq))
    }

    pub(super) fn has_passed_adopted(&self, table: usize, txid: u64) -> bool {
        self.adopted.passed[table].sees(txid)
    }

    /// Whether nothing was streamed since the last tick, and that one is handed on.
    pub(super) fn is_at_rest(&self) -> bool {
        self.landed.is_empty() && !self.streamed.has_recent()
    }

    /// Asks once.
    pub(super) fn ask_for_tick(&mut self) {
        if !std::mem::replace(&mut self.is_asked, true) {
            self.nudge.notify_one();
        }
    }

    /// Rows of adopted tables draw no `seq`, by which the ticker sees that there is something to pass; and what
    /// lay far ahead of a tick waits for another. An outbox at rest does not tick, and the ids of others go on.
    pub(super) fn ask_for_more(&self, received: Lsn) {
        let is_unseen = !self.adopted.passed.is_empty() && self.streamed.has_recent();
        let is_far = received.0.saturating_sub(self.near_at.0) > NEAR_BYTES;
        if is_unseen || is_far || self.streamed.is_behind() {
            self.nudge.notify_one();
        }
    }

    /// Whether a tick that came in the stream is of our own ticker, which tells of it at about the same
    /// time. A later one of its own tells that it is not.
    pub(super) async fn is_own(&mut self, tick: u64) -> bool {
        loop {
            let told = self.waiting.back().map(|tick| tick.next).max(self.handed);
            if told >= Some(tick) {
                return self.handed == Some(tick)
                    || self.waiting.iter().any(|one| one.next == tick);
            }
            // An outbox at rest does not tick by itself.
            self.nudge.notify_one();
            match self.ticks.recv().await {
                Some(tick) => self.waiting.push_back(tick),
                None => return false,
            }
        }
    }

    /// The next tick whose page is done and which is known. Ticks of a session before this one are in
    /// the stream, too; nobody tells of them again.
    pub(super) fn next_landing(&mut self) -> Option<Landing> {
        while let Some((number, place)) = self.landed.front().copied() {
            self.take_ticks();
            while self.waiting.front().is_some_and(|tick| tick.next < number) {
                self.waiting.pop_front();
            }
            let tick = self.waiting.front()?;
            self.landed.pop_front();
            if tick.next == number {
                let cursor = self.streamed.cursor_at(tick);
                let proven = cursor
                    .as_ref()
                    .map(|cursor| self.proven.land(number, cursor.from()))
                    .unwrap_or_default();
                self.waiting.pop_front();
                self.handed = Some(number);
                if cursor.is_some() {
                    return Some(Landing { place, cursor, proven });
                }
            }
        }
        None
    }

    fn take_ticks(&mut self) {
        while self.waiting.len() < TICKS_MAX
            && let Ok(tick) = self.ticks.try_recv()
        {
            self.waiting.push_back(tick);
        }
    }
}
