//! What of PostgreSQL matters to a cursor: transaction ids, snapshots, a sequence, rows.
//!
//! Promises: ids are given one by one to whoever asks, subtransactions included; a snapshot is built
//! as the server builds it, `xmax` from the latest id that ended. Must not: know ticks or cursors.
//! Fails: ending a transaction twice is a broken invariant and panics.
//!
//! A draw is worth more than the margin by which the relay looks below a bound, so that the margin hides
//! nothing. `setval` takes the sequence further down than a script can draw: what passes its former value
//! between two looks is what the margin is for.

use std::collections::BTreeSet;

use postrider::order::snapshot::{Snapshot, TransactionId};

pub(crate) type Aggregate = usize;

/// What one draw adds.
const STRIDE: i64 = 20_001;
/// Setting the sequence back takes away more than this; and from where it begins.
pub(crate) const BACK: i64 = 1 << 40;
const BEGINNING: i64 = BACK << 10;

/// No script draws so far.
const FORGED: i64 = BEGINNING << 1;

/// A number that nobody drew.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Forged {
    /// Far above all that the sequence gives out.
    AboveAll,
    /// Far below.
    BelowAll,
    /// A little below what it gives out.
    Behind,
}

/// A row of the outbox, whatever became of its transaction.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) seq: i64,
    /// The top transaction: what the column `txid` holds.
    pub(crate) xid: TransactionId,
    pub(crate) aggregate: Aggregate,
    pub(crate) fate: Fate,
    /// How often the sequence had been set back when `seq` was drawn.
    pub(crate) set_back: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Open,
    /// The how-manieth commit of the database made it visible.
    Committed(u64),
    RolledBack,
}

/// One writer's open transaction.
#[derive(Debug)]
struct Transaction {
    xid: TransactionId,
    savepoints: Vec<Savepoint>,
    /// The highest id of its subtransactions that are still to end with it.
    highest: TransactionId,
}

#[derive(Debug)]
struct Savepoint {
    xid: TransactionId,
    /// How many rows the outbox had when it was set.
    rows: usize,
}

#[derive(Debug)]
pub(crate) struct Database {
    next_xid: TransactionId,
    latest_ended: TransactionId,
    running: BTreeSet<TransactionId>,
    writers: Vec<Option<Transaction>>,
    /// Who holds the lock of an aggregate; writers of one aggregate are serialised by it.
    locks: Vec<Option<usize>>,
    drawn: i64,
    /// What stores the sequence.
    storage: i64,
    set_back: usize,
    commits: u64,
    rows: Vec<Row>,
}

impl Database {
    pub(crate) fn new(writers: usize, aggregates: usize) -> Self {
        Self {
            next_xid: 4,
            latest_ended: 3,
            running: BTreeSet::new(),
            writers: (0..writers).map(|_| None).collect(),
            locks: vec![None; aggregates],
            drawn: BEGINNING,
            storage: 1,
            set_back: 0,
            commits: 0,
            rows: Vec::new(),
        }
    }

    /// The sequence's last value.
    pub(crate) fn drawn(&self) -> i64 {
        self.drawn
    }

    /// What stores the sequence.
    pub(crate) fn storage(&self) -> i64 {
        self.storage
    }

    /// `setval`: at once, whoever has drawn and is still open.
    pub(crate) fn set_back(&mut self) {
        self.set_back += 1;
        self.drawn -= 2 * BACK;
    }

    /// `alter sequence … restart` waits until all that drew have ended; it does nothing where it would wait. It
    /// takes so little away that a few draws pass the former value, and no draw gives a value out twice.
    pub(crate) fn restart_sequence(&mut self) {
        if self.rows.iter().all(|row| row.fate != Fate::Open) {
            self.set_back += 1;
            self.drawn -= 3 * STRIDE - 1;
            self.storage += 1;
        }
    }

    /// How many transactions committed.
    pub(crate) fn commits(&self) -> u64 {
        self.commits
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// A snapshot as `owner` takes it: its own id bounds `xmin`, and is in no list.
    pub(crate) fn snapshot(&self, owner: Option<TransactionId>) -> Snapshot {
        let xmax = self.latest_ended + 1;
        let below = || self.running.iter().copied().filter(|xid| *xid < xmax);
        let xmin = below().next().unwrap_or(xmax);
        let listed = below().filter(|xid| Some(*xid) != owner).collect();
        Snapshot::new(xmin, xmax, listed).expect("a snapshot of the model is well-formed")
    }

    /// Who runs and holds no lock on the sequence. A draw that was taken back keeps its lock.
    pub(crate) fn undrawn(&self) -> BTreeSet<TransactionId> {
        let drawn = self.drawn_by();
        self.running.iter().copied().filter(|xid| !drawn.contains(xid)).collect()
    }

    /// Who ever drew, running or not.
    pub(crate) fn drawn_by(&self) -> BTreeSet<TransactionId> {
        self.rows.iter().map(|row| row.xid).collect()
    }

    /// Who holds a lock on the sequence.
    pub(crate) fn holders(&self) -> BTreeSet<TransactionId> {
        self.drawn_by().intersection(&self.running).copied().collect()
    }

    /// Gives the next transaction id to a transaction that is not a writer's.
    pub(crate) fn assign(&mut self) -> TransactionId {
        let xid = self.next_xid;
        self.next_xid += 1;
        self.running.insert(xid);
        xid
    }

    /// Ends a transaction that is not a writer's.
    pub(crate) fn end(&mut self, xid: TransactionId) {
        assert!(self.running.remove(&xid), "{xid} runs");
        self.latest_ended = self.latest_ended.max(xid);
    }

    /// The writer's transaction gets its id, unless it has one.
    pub(crate) fn begin(&mut self, writer: usize) {
        if self.writers[writer].is_none() {
            let xid = self.assign();
            self.writers[writer] = Some(Transaction { xid, savepoints: Vec::new(), highest: xid });
        }
    }

    /// Inserts a row, unless another writer holds the aggregate: then the writer waits.
    pub(crate) fn write(&mut self, writer: usize, aggregate: Aggregate) {
        self.begin(writer);
        if *self.locks[aggregate].get_or_insert(writer) != writer {
            return;
        }
        let Some(Transaction { xid, .. }) = self.writers[writer] else { unreachable!("begun") };
        self.drawn += STRIDE;
        let (seq, set_back) = (self.drawn, self.set_back);
        self.rows.push(Row { seq, xid, aggregate, fate: Fate::Open, set_back });
    }

    /// The table's owner writes a row with a number that nobody drew, for an aggregate of its own: of its place in
    /// an order nothing is promised.
    pub(crate) fn forge(&mut self, writer: usize, number: Forged) {
        self.begin(writer);
        let Some(Transaction { xid, .. }) = self.writers[writer] else { unreachable!("begun") };
        // Whoever forges alone is found by the next draw of anybody: this is it.
        self.drawn += STRIDE;
        let place = self.rows.len();
        let aggregate = self.locks.len() + place;
        let seq = place as i64
            + match number {
                Forged::AboveAll => FORGED,
                Forged::BelowAll => -FORGED,
                // Between two that were drawn.
                Forged::Behind => self.drawn - 3 * STRIDE - STRIDE / 2,
            };
        let set_back = self.set_back;
        self.rows.push(Row { seq, xid, aggregate, fate: Fate::Open, set_back });
    }

    /// A subtransaction of the writer takes an id of its own; it is listed in no `pg_snapshot`.
    pub(crate) fn savepoint(&mut self, writer: usize) {
        self.begin(writer);
        let xid = self.next_xid;
        self.next_xid += 1;
        let rows = self.rows.len();
        if let Some(transaction) = &mut self.writers[writer] {
            transaction.highest = xid;
            transaction.savepoints.push(Savepoint { xid, rows });
        }
    }

    /// Takes back the rows since the writer's last savepoint; its id counts as ended.
    pub(crate) fn rollback_to_savepoint(&mut self, writer: usize) {
        let Some(transaction) = &mut self.writers[writer] else { return };
        let Some(savepoint) = transaction.savepoints.pop() else { return };
        let top = transaction.xid;
        self.latest_ended = self.latest_ended.max(savepoint.xid);
        for row in self.rows[savepoint.rows..].iter_mut().filter(|row| row.xid == top) {
            row.fate = Fate::RolledBack;
        }
    }

    pub(crate) fn commit(&mut self, writer: usize) {
        let Some(transaction) = self.writers[writer].take() else { return };
        self.commits += 1;
        self.finish(writer, &transaction, Fate::Committed(self.commits));
    }

    pub(crate) fn roll_back(&mut self, writer: usize) {
        let Some(transaction) = self.writers[writer].take() else { return };
        self.finish(writer, &transaction, Fate::RolledBack);
    }

    fn finish(&mut self, writer: usize, transaction: &Transaction, fate: Fate) {
        self.end(transaction.xid);
        self.latest_ended = self.latest_ended.max(transaction.highest);
        let open = |row: &&mut Row| row.xid == transaction.xid && row.fate == Fate::Open;
        for row in self.rows.iter_mut().filter(open) {
            row.fate = fate;
        }
        for holder in self.locks.iter_mut().filter(|holder| **holder == Some(writer)) {
            *holder = None;
        }
    }
}
