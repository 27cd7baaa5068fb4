//! How far the stream has led, and what of it can be saved.
//!
//! Promises: a place is handed on with the cursor that says the same; the log says which transaction a row is
//! of, whatever the row says. Must not: read the stream, or save.
//!
//! ```text
//!   Places   a page has landed ─► its place
//!   Ticks    a page has landed ─► it ended at a tick, of which our ticker tells, too ─► place and cursor
//!                              └► at another one, or at none ─► nothing: a later tick covers it
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use tokio::sync::{Notify, mpsc, watch};

use crate::capture::adopted::copy::AdoptedCopy;
use crate::capture::log::decode::Lsn;
use crate::capture::log::flawed::EventOrigin;
use crate::event::Bucket;
use crate::order::cursor::Cursor;
use crate::order::log_cursor::{Streamed, widen};
use crate::order::seq_ranges::SeqRanges;
use crate::order::snapshot::{Snapshot, TransactionId};
use crate::order::tick::Tick;
use crate::shard::log_loop::brought::BroughtRows;
use crate::shard::log_loop::proven::Proven;
use crate::shard::log_loop::transaction::{Claims, Kind, Transaction};

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

impl Landing {
    /// One without a cursor.
    pub(super) fn at(place: Lsn) -> Self {
        Self { place, cursor: None, proven: Vec::new() }
    }
}

/// The line between the reader and whoever saves and confirms.
#[derive(Debug)]
pub struct ProgressLine {
    /// How far everything has landed.
    pub landed: watch::Sender<Option<Landing>>,
    /// How far that is saved.
    pub saved: watch::Receiver<Lsn>,
}

/// Cursors and ticks, where the stream is a table's.
#[derive(Debug)]
pub struct TableWiring {
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
    pub adopted: AdoptedWiring,
    /// Where it is told which rows came.
    pub brought: BroughtRows,
}

/// Where the adopted tables stand.
#[derive(Debug, Default)]
pub struct AdoptedWiring {
    /// By their numbers: the transactions whose rows are published.
    pub passed: Vec<Snapshot>,
    /// Transactions of which the snapshots alone do not prove it.
    pub proven: Vec<TransactionId>,
    /// The rows that come before the stream.
    pub copy: Option<AdoptedCopy>,
}

/// Where a page ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogPlace {
    pub(super) end: Lsn,
    /// The tick whose commit this is.
    pub(super) tick: Option<u64>,
}

impl LogPlace {
    /// Where there are ticks, only theirs are needed.
    pub(super) fn is_covered_by(&self, later: &Self) -> bool {
        later.tick.is_some() || self.tick.is_none()
    }
}

/// What the stream has led to.
#[derive(Debug)]
pub(super) enum LogProgress {
    /// Of messages: each place can be saved as it is.
    Places,
    /// Of a table: a place is saved with the cursor that says the same, and so only those of ticks are.
    Ticks(Box<TableProgress>),
}

impl LogProgress {
    pub(super) fn new(progress_line: Option<TableWiring>, begins: Lsn) -> Self {
        match progress_line {
            None => Self::Places,
            Some(progress_line) => Self::Ticks(Box::new(TableProgress::new(progress_line, begins))),
        }
    }

    /// The table's, if it is one.
    pub(super) fn table(&mut self) -> Option<&mut TableProgress> {
        match self {
            Self::Places => None,
            Self::Ticks(table) => Some(table),
        }
    }

    /// Whether a page may end wherever no transaction is open.
    pub(super) fn ends_anywhere(&self) -> bool {
        matches!(self, Self::Places)
    }

    /// Whether an event's transaction was published before this stream began. `seq` is its row's.
    pub(super) fn has_passed(
        &mut self,
        transaction: &mut Transaction,
        origin: EventOrigin,
        seq: i64,
    ) -> bool {
        let Self::Ticks(table) = self else { return false };
        match origin {
            EventOrigin::Row(bucket, claimed) => {
                let txid = table.whole(transaction.xid);
                transaction.txid = Some(txid);
                table.claims.note(claimed, txid, seq);
                table.recent.insert(seq);
                table.has_passed(bucket, txid, seq)
            }
            EventOrigin::Adopted(number) => {
                let txid = table.whole(transaction.xid);
                transaction.txid = Some(txid);
                table.proven.bring(txid);
                table.has_passed_adopted(number, txid)
            }
            EventOrigin::Message | EventOrigin::Copy => false,
        }
    }

    /// Takes note of a transaction's commit; which tick it is, if it is one.
    pub(super) fn commit(&mut self, transaction: &Transaction, end: Lsn) -> Option<TransactionId> {
        let table = self.table()?;
        if let Some(txid) = transaction.txid {
            table.streamed.bring(txid);
        }
        (transaction.kind == Kind::Tick).then(|| table.mark(transaction.xid, end))
    }

    /// A page has landed: what can be saved of it at once.
    pub(super) fn land(&mut self, page: LogPlace) -> Option<Landing> {
        match (self, page.tick) {
            (Self::Places, _) => Some(Landing::at(page.end)),
            (Self::Ticks(table), Some(tick)) => {
                table.landed.push_back((tick, page.end));
                None
            }
            (Self::Ticks(_), None) => None,
        }
    }

    /// What can be saved of the pages before it.
    pub(super) fn next_landing(&mut self) -> Option<Landing> {
        self.table()?.next_landing()
    }

    /// Whether everything that has landed was handed on, and nothing came since the last tick.
    pub(super) fn is_at_rest(&self) -> bool {
        match self {
            Self::Places => true,
            Self::Ticks(table) => table.landed.is_empty() && !table.streamed.has_recent(),
        }
    }

    /// Whether something that has landed waits for its tick to be told.
    pub(super) fn awaits_ticks(&self) -> bool {
        match self {
            Self::Places => false,
            Self::Ticks(table) => !table.landed.is_empty(),
        }
    }
}

/// What the stream has led to, where it is a table's.
#[derive(Debug)]
pub(super) struct TableProgress {
    passed: HashMap<Bucket, Cursor>,
    /// Transactions from here on were passed by no cursor.
    horizon: u64,
    streamed: Streamed,
    ticks: mpsc::Receiver<Arc<Tick>>,
    waiting: VecDeque<Arc<Tick>>,
    /// Places of ticks that are not there yet.
    landed: VecDeque<(u64, Lsn)>,
    /// The last tick, or what was the present when the stream began.
    near: TransactionId,
    /// Where in the log that was.
    near_at: Lsn,
    pub(super) adopted: AdoptedWiring,
    pub(super) proven: Proven,
    claims: Claims,
    brought: BroughtRows,
    /// Rows of the outbox that came since the last tick.
    recent: SeqRanges,
    /// The last tick that was handed on.
    handed: Option<u64>,
    nudge: Arc<Notify>,
    is_asked: bool,
}

impl TableProgress {
    fn new(progress_line: TableWiring, begins: Lsn) -> Self {
        let TableWiring { cursors, near, ticks, nudge, mut adopted, brought } = progress_line;
        let streamed = Streamed::new(cursors.iter().map(|(_, cursor)| cursor));
        let horizon = |cursor: &Cursor| cursor.from().xmax().max(cursor.upto().snapshot.xmax());
        let latest = cursors.iter().map(|(_, cursor)| cursor.upto().next).max();
        brought.begin(cursors.iter().cloned());
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
            claims: Claims::default(),
            brought,
            recent: SeqRanges::default(),
            handed: None,
            nudge,
            is_asked: false,
        }
    }

    /// The whole id of a transaction that the stream begins.
    fn whole(&self, xid: u32) -> TransactionId {
        widen(xid, self.near)
    }

    /// The commit of a tick: the transactions to come are close to it.
    fn mark(&mut self, xid: u32, end: Lsn) -> TransactionId {
        (self.near, self.near_at) = (self.whole(xid), end);
        self.streamed.mark(self.near);
        self.brought.mark(end, std::mem::take(&mut self.recent));
        self.proven.mark(self.near);
        self.near
    }

    /// The tick that came last.
    pub(super) fn last_tick(&self) -> TransactionId {
        self.near
    }

    fn has_passed(&self, bucket: Bucket, txid: u64, seq: i64) -> bool {
        txid < self.horizon
            && self.passed.get(&bucket).is_some_and(|cursor| cursor.has_passed(txid, seq))
    }

    fn has_passed_adopted(&self, table: usize, txid: u64) -> bool {
        self.adopted.passed[table].sees(txid)
    }

    /// Asks once.
    pub(super) fn ask_for_tick(&mut self) {
        if !std::mem::replace(&mut self.is_asked, true) {
            self.nudge.notify_one();
        }
    }

    /// Asks, however often it was asked before.
    pub(super) fn ask_again_for_tick(&self) {
        self.nudge.notify_one();
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
    fn next_landing(&mut self) -> Option<Landing> {
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
