//! The relay's side of the model: tick chains and cursors, and what they must never do.
//!
//! Promises: drives the real `Tick::follow`, `Tick::is_stale` and `Cursor`; a mutant differs in what
//! its [`Policy`] names and in nothing else. Must not: repair what the code under test gets wrong.
//! Fails: the first broken promise comes back as a [`Violation`].

use std::collections::BTreeSet;
use std::sync::Arc;

use postrider::order::cursor::Cursor;
use postrider::order::snapshot::{Snapshot, TransactionId};
use postrider::order::tick::{Lineage, Observation, Probe, Tick};

use crate::bucket::{Bucket, WindowRule};
use crate::database::{BACK, Database, Fate, Row};

/// More than any range of a script holds.
const PAGE_ROWS_MAX: usize = usize::MAX;
/// Ticks after which a database at rest must be known to be at rest.
const SETTLING_TICKS_MAX: usize = 3;

/// How the relay does each of the steps that the design gives a reason for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub(crate) tick_order: TickOrder,
    pub(crate) carry: CarryRule,
    pub(crate) claim: ClaimRule,
    pub(crate) enter: EnterRule,
    pub(crate) idle: IdleRule,
    pub(crate) lineage: LineageRule,
    pub(crate) undrawn: UndrawnRule,
    pub(crate) window: WindowRule,
}

impl Policy {
    /// What the design says.
    pub(crate) const SOUND: Self = Self {
        tick_order: TickOrder::SnapshotThenId,
        carry: CarryRule::Whole,
        claim: ClaimRule::BySeq,
        enter: EnterRule::SeesTheLast,
        idle: IdleRule::IsStale,
        lineage: LineageRule::Followed,
        undrawn: UndrawnRule::NotAsked,
        window: WindowRule::LookedBelow,
    };

    fn reads(self) -> Vec<Read> {
        let mut reads = self.tick_order.reads().to_vec();
        match self.undrawn {
            UndrawnRule::NotAsked => {}
            UndrawnRule::Asked | UndrawnRule::WhoHoldsNoLock => reads.push(Read::Undrawn),
            UndrawnRule::BeforeTheFloor => reads.insert(0, Read::Undrawn),
        }
        reads
    }
}

/// In which order a tick reads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TickOrder {
    SnapshotThenId,
    IdThenSnapshot,
    CeilingAfterCommit,
    /// Mutant: the floor is read when the tick's id is assigned already.
    FloorLast,
}

impl TickOrder {
    pub(crate) const SOUND: &'static [Self] =
        &[Self::SnapshotThenId, Self::IdThenSnapshot, Self::CeilingAfterCommit];

    fn reads(self) -> [Read; 5] {
        use Read::{Ceiling, Commit, Floor, Id, Snapshot};
        match self {
            Self::SnapshotThenId => [Floor, Snapshot, Id, Ceiling, Commit],
            Self::IdThenSnapshot => [Floor, Id, Snapshot, Ceiling, Commit],
            Self::CeilingAfterCommit => [Floor, Snapshot, Id, Commit, Ceiling],
            Self::FloorLast => [Snapshot, Id, Floor, Ceiling, Commit],
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Read {
    Floor,
    Snapshot,
    Id,
    Ceiling,
    Commit,
    Undrawn,
}

/// What of the carry a tick keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CarryRule {
    Whole,
    /// Mutant: the lower bound is the tick's floor alone.
    None,
    /// Mutant: `xmax` is taken for the next id to be assigned; nothing runs at or above it.
    BelowXmax,
}

/// Which rows a page has, and in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClaimRule {
    BySeq,
    /// Mutant: a range is read in the order of transaction ids.
    ByXid,
    /// Mutant: a range is cut into windows of transaction ids, each in the order of `seq`.
    ByXidWindow,
    /// Mutant: the cursor is the last `seq` that was seen.
    AfterLastSeq,
}

/// When a cursor may go on to a tick.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EnterRule {
    /// When the tick's snapshot sees the transaction of the tick that the cursor stands on.
    SeesTheLast,
    /// Mutant: when the tick's own id is higher, although its snapshot may be the older one.
    HigherId,
}

/// When a tick is not due.
#[derive(Clone, Copy, Debug)]
pub(crate) enum IdleRule {
    IsStale,
    /// Mutant: when nothing was drawn since the last tick.
    SequenceAtRest,
}

/// Whether a tick looks for a sequence that was set back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LineageRule {
    Followed,
    /// Mutant: bounds hold whatever the sequence does.
    Ignored,
    /// Mutant: only a sequence that was made again is noticed.
    ByStorage,
    /// Mutant: what was open when it was set back is looked for above the last floor.
    BelowTheLast,
}

/// Whether a tick looks who of those that are open has drawn nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UndrawnRule {
    NotAsked,
    /// Who runs and holds no lock on the sequence, asked after the tick has read all.
    Asked,
    /// Mutant: asked before the floor is read.
    BeforeTheFloor,
    /// Mutant: whoever holds no lock, whether it still runs or not.
    WhoHoldsNoLock,
}

impl UndrawnRule {
    pub(crate) const SOUND: &'static [Self] = &[Self::NotAsked, Self::Asked];
}

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A committed row was passed and not delivered.
    Lost { seq: i64 },
    /// A row was delivered twice, or will be.
    Repeated { seq: i64 },
    /// A row was delivered that is not committed.
    NotCommitted { seq: i64 },
    /// A row was delivered after one of its aggregate that was committed later.
    OutOfOrder { seq: i64 },
    /// A row was committed before the look that called the outbox idle, and no tick sees it.
    Hidden { seq: i64 },
    /// A database at rest goes on making ticks.
    Restless,
}

/// One line of ticks, as an instance of the relay makes it.
#[derive(Debug)]
struct Chain {
    latest: Arc<Tick>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Idle,
    /// The sequence was read, the snapshot of the probe was not.
    Probing {
        drawn: i64,
        commits: u64,
    },
    /// So many of the tick's reads were made.
    Ticking {
        done: usize,
        seen: Seen,
    },
}

#[derive(Clone, Debug, Default)]
struct Seen {
    floor: i64,
    ceiling: i64,
    storage: i64,
    storage_after: i64,
    snapshot: Option<Snapshot>,
    next: Option<TransactionId>,
    undrawn: BTreeSet<TransactionId>,
    holders: BTreeSet<TransactionId>,
}

impl Seen {
    /// As `capture::ticker` judges, where a mutant has not changed the order of reading.
    fn is_void(&self) -> bool {
        self.storage != self.storage_after || self.floor - self.ceiling >= BACK
    }
}

#[derive(Debug)]
pub(crate) struct Relay {
    policy: Policy,
    chains: Vec<Chain>,
    buckets: Vec<Bucket>,
    saved: Vec<Vec<Bucket>>,
}

impl Relay {
    pub(crate) fn new(policy: Policy, chains: usize, buckets: usize) -> Self {
        let chain = || Chain { latest: Arc::new(Tick::first()), stage: Stage::Idle };
        let bucket = Bucket { cursor: Cursor::initial(), last_seq: 0, delivered: Vec::new() };
        Self {
            policy,
            chains: (0..chains).map(|_| chain()).collect(),
            saved: vec![vec![bucket.clone()]; buckets],
            buckets: vec![bucket; buckets],
        }
    }

    /// One read of a chain's next probe or tick; anything may happen before the next read.
    pub(crate) fn look(&mut self, database: &mut Database, chain: usize) -> Result<(), Violation> {
        let policy = self.policy;
        let Chain { latest, stage } = &mut self.chains[chain];
        match stage {
            Stage::Idle => {
                *stage = Stage::Probing { drawn: database.drawn(), commits: database.commits() };
            }
            Stage::Probing { drawn, commits } => {
                let (probe, commits) =
                    (Probe { drawn: *drawn, snapshot: database.snapshot(None) }, *commits);
                if is_due(policy, latest, &probe) {
                    *stage = Stage::Ticking { done: 0, seen: Seen::default() };
                } else {
                    *stage = Stage::Idle;
                    check_nothing_hidden(database, latest, commits)?;
                }
            }
            Stage::Ticking { done, seen } => {
                let reads = policy.reads();
                read(database, reads[*done], seen);
                *done += 1;
                if *done == reads.len() {
                    if !seen.is_void() {
                        *latest = Arc::new(follow(policy, latest, seen));
                    }
                    *stage = Stage::Idle;
                }
            }
        }
        Ok(())
    }

    /// A whole tick, due or not.
    pub(crate) fn tick(&mut self, database: &mut Database, chain: usize) -> Result<(), Violation> {
        if !matches!(self.chains[chain].stage, Stage::Ticking { .. }) {
            self.chains[chain].stage = Stage::Ticking { done: 0, seen: Seen::default() };
        }
        while !matches!(self.chains[chain].stage, Stage::Idle) {
            self.look(database, chain)?;
        }
        Ok(())
    }

    /// One page of a bucket, of the chain's latest tick if the range before it is done.
    pub(crate) fn claim(
        &mut self,
        database: &Database,
        bucket: usize,
        chain: usize,
        page_rows: usize,
    ) -> Result<(), Violation> {
        let buckets = self.buckets.len();
        let in_bucket = |row: &&Row| row.aggregate % buckets == bucket;
        let rows: Vec<&Row> = database.rows().iter().filter(in_bucket).collect();
        let latest = &self.chains[chain].latest;
        let bucket = &mut self.buckets[bucket];
        if self.policy.claim == ClaimRule::AfterLastSeq {
            return bucket.claim_after_last_seq(&rows, page_rows);
        }
        if bucket.cursor.is_finished() && may_enter(self.policy, &bucket.cursor, latest) {
            // As if the last look were long ago, now and then.
            if page_rows.is_multiple_of(2) || bucket.cursor.leaves_window(latest) {
                bucket.close_window(self.policy, &rows);
            }
            if bucket.cursor.is_finished() {
                bucket.cursor.enter(latest);
            }
        }
        bucket.claim(self.policy, &rows, page_rows)?;
        bucket.check_passed(&rows)
    }

    pub(crate) fn save(&mut self, bucket: usize) {
        let kept = self.buckets[bucket].clone();
        self.saved[bucket].push(kept);
    }

    /// Goes back to a saved cursor, not always the last; with it to what was delivered then.
    pub(crate) fn restore(&mut self, bucket: usize, back: usize) {
        let saved = &self.saved[bucket];
        let mut kept = saved[saved.len().saturating_sub(1 + back)].clone();
        let from = kept.cursor.range_from().to_string().parse().expect("it was written by us");
        let upto = Tick::clone(kept.cursor.upto());
        let Bucket { cursor, .. } = &kept;
        kept.cursor =
            Cursor::restore(from, upto, cursor.position(), cursor.end(), cursor.window().cloned());
        self.buckets[bucket] = kept;
    }

    /// Starts a chain again from the tick of a saved cursor; a tick that was under way is void.
    pub(crate) fn restart(
        &mut self,
        database: &mut Database,
        chain: usize,
        bucket: usize,
        back: usize,
    ) {
        let saved = &self.saved[bucket];
        let kept = &saved[saved.len().saturating_sub(1 + back)];
        let stage = std::mem::replace(&mut self.chains[chain].stage, Stage::Idle);
        if let Stage::Ticking { done, seen: Seen { next: Some(next), .. } } = stage {
            let reads = &self.policy.reads()[..done];
            if !reads.iter().any(|read| matches!(read, Read::Commit)) {
                database.end(next);
            }
        }
        self.chains[chain].latest = Arc::clone(kept.cursor.upto());
    }

    /// With nobody writing any more: looks until a look says idle, and reads what there is.
    pub(crate) fn settle(&mut self, database: &mut Database) -> Result<(), Violation> {
        for chain in 0..self.chains.len() {
            while !matches!(self.chains[chain].stage, Stage::Idle) {
                self.look(database, chain)?;
            }
        }
        for bucket in 0..self.buckets.len() {
            self.drain(database, bucket)?;
            // A cursor that came from another chain needs a tick that was begun after it came.
            if self.buckets[bucket].cursor.awaits_more_than(&self.chains[0].latest) {
                self.tick(database, 0)?;
            }
        }
        self.rest(database)?;
        for bucket in 0..self.buckets.len() {
            self.drain(database, bucket)?;
            self.check_complete(database, bucket)?;
        }
        Ok(())
    }

    /// Ticks while a tick is due.
    fn rest(&mut self, database: &mut Database) -> Result<(), Violation> {
        for _ in 0..=SETTLING_TICKS_MAX {
            self.look(database, 0)?;
            self.look(database, 0)?;
            if matches!(self.chains[0].stage, Stage::Idle) {
                return Ok(());
            }
            self.tick(database, 0)?;
        }
        Err(Violation::Restless)
    }

    /// Reads a bucket to the end of the first chain's latest tick, from wherever it is.
    fn drain(&mut self, database: &Database, bucket: usize) -> Result<(), Violation> {
        self.claim(database, bucket, 0, PAGE_ROWS_MAX)?;
        self.claim(database, bucket, 0, PAGE_ROWS_MAX)?;
        let buckets = self.buckets.len();
        let in_bucket = |row: &&Row| row.aggregate % buckets == bucket;
        let rows: Vec<&Row> = database.rows().iter().filter(in_bucket).collect();
        self.buckets[bucket].close_window(self.policy, &rows);
        if self.buckets[bucket].cursor.is_finished() {
            return Ok(());
        }
        self.claim(database, bucket, 0, PAGE_ROWS_MAX)
    }

    fn check_complete(&self, database: &Database, bucket: usize) -> Result<(), Violation> {
        let delivered = &self.buckets[bucket].delivered;
        let lost = database.rows().iter().find(|row| {
            row.aggregate % self.buckets.len() == bucket
                && matches!(row.fate, Fate::Committed(_))
                && !delivered.contains(&row.seq)
        });
        lost.map_or(Ok(()), |row| Err(Violation::Lost { seq: row.seq }))
    }
}

fn may_enter(policy: Policy, cursor: &Cursor, tick: &Tick) -> bool {
    match policy.enter {
        EnterRule::SeesTheLast => tick.is_later_than(cursor.upto()),
        EnterRule::HigherId => tick.next > cursor.upto().next,
    }
}

fn is_due(policy: Policy, latest: &Tick, probe: &Probe) -> bool {
    match policy.idle {
        IdleRule::IsStale => latest.is_stale(probe),
        IdleRule::SequenceAtRest => probe.drawn != latest.ceiling,
    }
}

/// Called idle: then the tick sees all that was committed when the look began.
fn check_nothing_hidden(database: &Database, tick: &Tick, commits: u64) -> Result<(), Violation> {
    let hidden = database.rows().iter().find(|row| {
        matches!(row.fate, Fate::Committed(commit) if commit <= commits)
            && !tick.snapshot.sees(row.xid)
    });
    hidden.map_or(Ok(()), |row| Err(Violation::Hidden { seq: row.seq }))
}

fn read(database: &mut Database, read: Read, seen: &mut Seen) {
    match read {
        Read::Floor => {
            seen.floor = database.drawn();
            seen.storage = database.storage();
        }
        Read::Snapshot => seen.snapshot = Some(database.snapshot(seen.next)),
        Read::Id => seen.next = Some(database.assign()),
        Read::Ceiling => {
            seen.ceiling = database.drawn();
            seen.storage_after = database.storage();
        }
        Read::Commit => database.end(seen.next.expect("the id comes before the commit")),
        Read::Undrawn => {
            seen.undrawn = database.undrawn();
            seen.holders = database.holders();
        }
    }
}

fn follow(policy: Policy, previous: &Tick, seen: &Seen) -> Tick {
    let Seen { floor, ceiling, storage, snapshot: Some(snapshot), next: Some(next), .. } =
        seen.clone()
    else {
        unreachable!("every read was made");
    };
    let observation = Observation { floor, snapshot, next, ceiling, storage };
    let previous = &match policy.lineage {
        LineageRule::Followed | LineageRule::BelowTheLast => previous.clone(),
        LineageRule::ByStorage => Tick { ceiling: 0, ..previous.clone() },
        LineageRule::Ignored => {
            let lineage = Lineage { storage: Some(storage), ..previous.lineage };
            Tick { ceiling: 0, lineage, ..previous.clone() }
        }
    };
    let mut tick = Tick::follow(previous, observation).expect("the model has one history");
    if matches!(policy.lineage, LineageRule::BelowTheLast) {
        tick.carry.iter_mut().for_each(|open| open.floor = open.floor.max(tick.floor));
    }
    let tick = match policy.undrawn {
        UndrawnRule::NotAsked => tick,
        UndrawnRule::Asked | UndrawnRule::BeforeTheFloor => {
            tick.with_undrawn(|xid| seen.undrawn.contains(&xid))
        }
        UndrawnRule::WhoHoldsNoLock => tick.with_undrawn(|xid| !seen.holders.contains(&xid)),
    };
    with_carry(policy.carry, tick)
}

fn with_carry(rule: CarryRule, mut tick: Tick) -> Tick {
    match rule {
        CarryRule::Whole => {}
        CarryRule::None => tick.carry.clear(),
        CarryRule::BelowXmax => {
            let xmax = tick.snapshot.xmax();
            tick.carry.retain(|open| open.first < xmax);
            tick.carry.iter_mut().for_each(|open| open.last = open.last.min(xmax - 1));
        }
    }
    tick
}
