//! Retention: gives the space of past generations back, by truncation, and never blocks a writer.
//!
//! Promises: a partition is emptied only when the saved cursor of its bucket has passed every row in it, no replay is
//! to send any of them, and its newest row is older than the replay window; a writer never waits for a lock that retention is
//! waiting for. Must not: move a cursor, know Kafka, or end the session: relaying goes on without it.
//! Fails: says in the log what is in the way, and tries again at the next pass.
//!
//! Why nothing can be lost. An attempt is one transaction: lock the partition against everybody, then look
//! for rows that the saved cursor has not passed, then truncate (`sql/queries/retention_attempt.sql`).
//!
//! * *No row is overlooked because its transaction is open.* Whoever inserts into a partition holds a lock
//!   on it to the end of its transaction; a prepared transaction holds it until it is committed or
//!   rolled back, through restarts too. The exclusive lock, asked for with `nowait`, is not had then.
//!   With the lock, every row of the partition belongs to a transaction that has ended. A transaction is
//!   visible to new snapshots before it lets go of its locks, and the check is a statement after the
//!   lock, so it sees all committed rows.
//! * *Nobody adds a row unseen.* A writer that has drawn its `seq` but not reached the partition waits for
//!   the lock and inserts into the emptied partition. This holds for a REPEATABLE READ writer that is older
//!   than a generation: it fills an old partition, and all partitions are read, always.
//! * *Every row is judged by itself.* A partition may hold rows of several rounds of the ring, as after a
//!   relay was away for longer than the ring. One row that the cursor has not passed keeps the partition.
//! * *The index may be used.* A row that the cursor has not passed is either in the cursor's range
//!   above its position, or its transaction had not ended at the tick. If that transaction lies above
//!   the tick's own, its rows lie above the tick's floor, else above its carry floor (`src/order/tick.rs`).
//!   The smallest of these bounds all of them. A carried transaction that is still open is left out:
//!   it has no row here, or the lock had not been had. So one long transaction does not make the check
//!   read a whole partition.
//! * *The cursor is one that was saved, and it counts.* It is read in the same transaction, with the
//!   epoch under which this instance took it and on the history on which it was saved. It moves only
//!   behind Kafka's acknowledgements. That its save does not wait for the disk does no harm: the
//!   truncation's commit comes later in the log, and a crash that takes back the save takes back the
//!   truncation.
//!
//! A writer meets the lock only if it writes into a past generation in the few milliseconds of an
//! attempt that has found nothing in its way. The current generation is never locked.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio::sync::watch;
use tokio_postgres::{Row, SimpleQueryMessage};

use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::metrics::counters::Figures;
use crate::postgres::{Connection, DatabaseConfig, Sql, classify, connect, without_head};
use crate::schema;

const SESSION: &str = include_str!("../../sql/queries/leaf_session.sql");
const LEAVES: &str = include_str!("../../sql/queries/retention_leaves.sql");
static ATTEMPT: Sql = Sql::of(include_str!("../../sql/queries/retention_attempt.sql"));
static FLOOR: Sql = Sql::of(include_str!("../../sql/queries/cursor_floor.sql"));
static FORGET: Sql = Sql::of(include_str!("../../sql/queries/emitting_forget.sql"));

/// The longest pause between two passes.
const PASS_INTERVAL_MAX: Duration = Duration::from_secs(10);
/// Passes in one generation, at least: each partition must be met while its generation is past.
const PASSES_PER_GENERATION: u32 = 4;
/// Attempts in one pass at a partition whose lock is not to be had.
const ATTEMPTS: u32 = 5;
/// The pause between two of them is longer than this and shorter than twice this: shards hold the
/// leaves while they read a page.
const ATTEMPT_PAUSE_MILLIS: u64 = 10;
/// A partition that could not be emptied for so many generations is worth a warning.
const OVERDUE_GENERATIONS: u32 = 2;
/// A cause is said again after this.
const WARNING_INTERVAL: Duration = Duration::from_secs(600);
/// Longer replay windows mean this one: PostgreSQL's dates end.
const REPLAY_WINDOW_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// What is cleaned: the ring of generations in each bucket.
#[derive(Clone, Debug)]
pub struct Ring {
    /// How long a generation lasts.
    pub generation_seconds: u32,
    /// Each bucket's table, quoted and qualified.
    pub tables: Vec<(Bucket, String)>,
}

/// The buckets that this instance owns, each with the epoch under which it was taken.
pub type OwnBuckets = BTreeMap<Bucket, i64>;

/// Empties partitions, pass by pass.
#[derive(Debug)]
pub struct Retention {
    database: DatabaseConfig,
    ring: Ring,
    own: watch::Receiver<OwnBuckets>,
    replay_window: Duration,
    session: Option<RetentionSession>,
    /// Since when each partition could have been emptied but for something in the way, by its oid.
    hindered: HashMap<u32, Instant>,
    warnings: RetentionWarnings,
    figures: Arc<Figures>,
}

impl Retention {
    /// Rows younger than `replay_window` are kept; by default for one generation.
    pub fn new(
        database: DatabaseConfig,
        ring: Ring,
        own: watch::Receiver<OwnBuckets>,
        replay_window: Option<Duration>,
    ) -> Self {
        let generation = Duration::from_secs(ring.generation_seconds.into());
        let replay_window = replay_window.unwrap_or(generation).min(REPLAY_WINDOW_MAX);
        let (hindered, warnings) = (HashMap::new(), RetentionWarnings::default());
        let figures = Arc::default();
        Self { database, ring, own, replay_window, session: None, hindered, warnings, figures }
    }

    /// Counts what is in the way, and how many generations hold rows.
    #[must_use]
    pub fn with_figures(self, figures: Arc<Figures>) -> Self {
        Self { figures, ..self }
    }

    /// Cleans until it is dropped.
    pub async fn run(mut self) -> Infallible {
        self.warn_of_a_long_window();
        loop {
            if let Err(error) = self.pass().await {
                self.session = None;
                self.warnings.trouble(&error);
            }
            tokio::time::sleep(self.interval()).await;
        }
    }

    fn generation(&self) -> Duration {
        Duration::from_secs(self.ring.generation_seconds.into())
    }

    fn interval(&self) -> Duration {
        PASS_INTERVAL_MAX.min(self.generation() / PASSES_PER_GENERATION)
    }

    /// A partition is past for two generations before it is filled again.
    fn warn_of_a_long_window(&self) {
        let longest = self.generation() * OVERDUE_GENERATIONS - self.interval();
        if self.replay_window > longest {
            tracing::warn!(
                replay_window = ?self.replay_window,
                longest = ?longest,
                remedy = "shorten --replay-window, or make the outbox with longer generations",
                "the replay window is as long as the ring of generations: space comes back only \
                 after a pause of all writers as long as the window"
            );
        }
    }

    /// Tries every partition of the buckets that are owned now once.
    async fn pass(&mut self) -> Result<()> {
        let session = match self.session.take() {
            Some(session) => session,
            None => RetentionSession::open(&self.database, &self.ring).await?,
        };
        let (mut truncated, mut filled) = (0_u32, BTreeSet::new());
        let own = self.own.borrow().clone();
        for leaf in &session.leaves {
            let Some(epoch) = own.get(&leaf.bucket) else {
                self.hindered.remove(&leaf.oid);
                continue;
            };
            match self.clean(&session, leaf, *epoch).await {
                Ok(outcome) => {
                    truncated += u32::from(outcome.gives_space());
                    if outcome.leaves_rows() {
                        filled.insert(leaf.generation);
                    }
                    self.note(leaf, outcome);
                }
                Err(error) => {
                    session.end_transaction().await?;
                    self.warnings.trouble(&error);
                }
            }
        }
        // Of none of its leaves nothing is known.
        let known = if own.is_empty() { -1 } else { i64::try_from(filled.len()).unwrap_or(-1) };
        self.figures.generations_filled.store(known, Ordering::Relaxed);
        if truncated > 0 {
            tracing::info!(leaves = truncated, "truncated old partitions");
        }
        session.forget_emitting().await?;
        self.session = Some(session);
        Ok(())
    }

    /// Attempts at one partition: again after a short pause while a shard reads it.
    async fn clean(
        &self,
        session: &RetentionSession,
        leaf: &BucketPartition,
        epoch: i64,
    ) -> Result<AttemptOutcome> {
        let attempt = self.attempt_sql(leaf, epoch);
        let mut outcome = session.attempt(&attempt).await?;
        for _ in 1..ATTEMPTS {
            if outcome != AttemptOutcome::Locked {
                break;
            }
            tokio::time::sleep(attempt_pause()).await;
            outcome = session.attempt(&attempt).await?;
        }
        tracing::debug!(leaf = leaf.name, ?outcome, "looked at a leaf");
        Ok(outcome)
    }

    fn attempt_sql(&self, leaf: &BucketPartition, epoch: i64) -> String {
        ATTEMPT
            .text()
            .replace("{floor}", without_head(FLOOR.text()))
            .replace("{leaf}", &leaf.oid.to_string())
            .replace("{generation_seconds}", &self.ring.generation_seconds.to_string())
            .replace("{generation}", &leaf.generation.to_string())
            .replace("{bucket}", &leaf.bucket.0.to_string())
            .replace("{epoch}", &epoch.to_string())
            .replace("{replay_window_micros}", &self.replay_window.as_micros().to_string())
    }

    /// Remembers what is in the way, and says so when it has been for too long.
    fn note(&mut self, leaf: &BucketPartition, outcome: AttemptOutcome) {
        if let Some(cause) = outcome.blocks() {
            self.figures.retention_blocked.add(cause, 1);
        }
        match outcome {
            AttemptOutcome::TruncatedAhead => {
                self.hindered.remove(&leaf.oid);
                self.warnings.ahead(leaf);
            }
            // Of a young one the cursor has passed all rows.
            AttemptOutcome::Empty | AttemptOutcome::Young | AttemptOutcome::Truncated => {
                self.hindered.remove(&leaf.oid);
            }
            AttemptOutcome::Current | AttemptOutcome::Taken => {}
            AttemptOutcome::Refused => self.warnings.missing_right(leaf),
            AttemptOutcome::Waiting
            | AttemptOutcome::Replayed
            | AttemptOutcome::Locked
            | AttemptOutcome::Slow => {
                let since = *self.hindered.entry(leaf.oid).or_insert_with(Instant::now);
                if since.elapsed() > self.generation() * OVERDUE_GENERATIONS {
                    self.warnings.overdue(leaf, outcome, since.elapsed());
                }
            }
        }
    }
}

fn attempt_pause() -> Duration {
    let jitter = RandomState::new().hash_one(ATTEMPT_PAUSE_MILLIS) % ATTEMPT_PAUSE_MILLIS;
    Duration::from_millis(ATTEMPT_PAUSE_MILLIS + jitter)
}

/// One partition of a bucket.
#[derive(Debug)]
struct BucketPartition {
    oid: u32,
    name: String,
    bucket: Bucket,
    generation: i32,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum AttemptOutcome {
    /// It holds no page.
    Empty,
    /// Its generation is being filled, or is about to be.
    Current,
    /// Its newest row lies inside the replay window.
    Young,
    /// It holds a row that the saved cursor has not passed.
    Waiting,
    /// It holds a row that a replay is to send once more.
    Replayed,
    /// Somebody holds a lock on it.
    Locked,
    /// The check would hold the lock for too long.
    Slow,
    /// The bucket is another instance's, or the cursor another history's.
    Taken,
    /// The role has no right to truncate it.
    Refused,
    /// Its space came back.
    Truncated,
    /// So it did, although the time of its newest row lies ahead of the clock.
    TruncatedAhead,
}

impl AttemptOutcome {
    fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "empty" => Self::Empty,
            "current" => Self::Current,
            "young" => Self::Young,
            "waiting" => Self::Waiting,
            "replayed" => Self::Replayed,
            "locked" => Self::Locked,
            "slow" => Self::Slow,
            "taken" => Self::Taken,
            "refused" => Self::Refused,
            "truncated" => Self::Truncated,
            "ahead" => Self::TruncatedAhead,
            _ => return None,
        })
    }

    /// The word by which it is counted, if it is in the way of truncation.
    fn blocks(self) -> Option<&'static str> {
        match self {
            Self::Waiting => Some("waiting"),
            Self::Replayed => Some("replayed"),
            Self::Locked => Some("locked"),
            Self::Slow => Some("slow"),
            Self::Refused => Some("refused"),
            Self::Empty
            | Self::Current
            | Self::Young
            | Self::Taken
            | Self::Truncated
            | Self::TruncatedAhead => None,
        }
    }

    /// Whether it holds rows behind this, or is about to.
    fn leaves_rows(self) -> bool {
        self != Self::Empty && !self.gives_space()
    }

    fn gives_space(self) -> bool {
        matches!(self, Self::Truncated | Self::TruncatedAhead)
    }

    /// What is in the way, and what an operator can do about it.
    fn explanation(self) -> (&'static str, &'static str) {
        match self {
            Self::Locked => (
                "a transaction holds a lock on it",
                "end the transaction: see pg_locks, pg_stat_activity and pg_prepared_xacts",
            ),
            Self::Waiting => {
                ("it holds rows that are not published", "see `postrider status` for what waits")
            }
            Self::Replayed => (
                "a replay is to send rows of it",
                "see `postrider replay list`; `postrider replay cancel` lets it go",
            ),
            _ => (
                "checking its rows takes too long",
                "end long transactions; if there are none, give the server's disk time or memory",
            ),
        }
    }
}

/// The session with PostgreSQL, and the partitions that it found.
#[derive(Debug)]
struct RetentionSession {
    connection: Connection,
    leaves: Vec<BucketPartition>,
}

impl RetentionSession {
    async fn open(database: &DatabaseConfig, ring: &Ring) -> Result<Self> {
        let failed = |cause| classify("prepare the clean-up", cause);
        let connection = connect(database, "retention").await?;
        connection.client().batch_execute(SESSION).await.map_err(failed)?;
        let tables: Vec<&str> = ring.tables.iter().map(|(_, table)| table.as_str()).collect();
        let rows = connection.client().query(LEAVES, &[&tables]).await.map_err(failed)?;
        let place =
            |row: &Row| usize::try_from(row.get::<_, i64>("place")).expect("places begin at 0");
        let leaves = rows
            .iter()
            .map(|row| BucketPartition {
                oid: row.get("oid"),
                name: row.get("name"),
                bucket: ring.tables[place(row)].0,
                generation: row.get("generation"),
            })
            .collect();
        Ok(Self { connection, leaves })
    }

    async fn attempt(&self, sql: &str) -> Result<AttemptOutcome> {
        let failed = |cause| classify("truncate a past generation", cause);
        let answer = self.connection.client().simple_query(sql).await.map_err(failed)?;
        let word = answer.iter().rev().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        word.and_then(AttemptOutcome::from_word).ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("an attempt to truncate ended in {word:?}"))
        })
    }

    /// Removes what emit has noted of aggregates, when there is much of it.
    async fn forget_emitting(&self) -> Result<()> {
        let removed = self.connection.client().batch_execute(FORGET.text()).await;
        removed.map_err(|cause| classify("remove what emit has noted of aggregates", cause))
    }

    /// Leaves the transaction that an error has broken.
    async fn end_transaction(&self) -> Result<()> {
        let ended = self.connection.client().batch_execute("rollback").await;
        ended.map_err(|cause| classify("go on with the clean-up", cause))
    }
}

/// When each cause was last said.
#[derive(Debug, Default)]
struct RetentionWarnings {
    trouble: Option<Instant>,
    missing_right: Option<Instant>,
    ahead: Option<Instant>,
    /// By what is in the way.
    overdue: HashMap<AttemptOutcome, Option<Instant>>,
}

impl RetentionWarnings {
    fn trouble(&mut self, error: &Error) {
        if is_due(&mut self.trouble) {
            tracing::warn!(
                cause = error.message(),
                remedy = error.remedy(),
                "the clean-up has failed; relaying goes on, and it is tried again"
            );
        }
    }

    /// Said once: it stays so until somebody grants the right.
    fn missing_right(&mut self, leaf: &BucketPartition) {
        if self.missing_right.is_none() {
            self.missing_right = Some(Instant::now());
            tracing::warn!(
                leaf = leaf.name,
                remedy = format!(
                    "grant truncate on the outbox's leaves, and select on {}, to the role: run sql/roles.sql again",
                    schema::chosen().of("replay_bucket")
                ),
                "the role may not truncate, or not see what is replayed: published rows stay; relaying goes on"
            );
        }
    }

    fn ahead(&mut self, leaf: &BucketPartition) {
        if is_due(&mut self.ahead) {
            tracing::warn!(
                leaf = leaf.name,
                remedy = "leave created_at to its default, or write it with its time zone",
                "rows bear a created_at that lies ahead of the clock: their generation counts instead"
            );
        }
    }

    fn overdue(&mut self, leaf: &BucketPartition, outcome: AttemptOutcome, since: Duration) {
        if is_due(self.overdue.entry(outcome).or_default()) {
            let (cause, remedy) = outcome.explanation();
            tracing::warn!(
                leaf = leaf.name,
                seconds = since.as_secs(),
                cause,
                remedy,
                "a past generation could not be truncated for more than {OVERDUE_GENERATIONS} generations"
            );
        }
    }
}

/// Whether a cause may be said now; then it counts as said.
fn is_due(said: &mut Option<Instant>) -> bool {
    let due = said.is_none_or(|at| at.elapsed() > WARNING_INTERVAL);
    if due {
        *said = Some(Instant::now());
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retention(generation_seconds: u32, replay_window: Option<Duration>) -> Retention {
        let tables = vec![(Bucket(7), "public.outbox_b07".to_owned())];
        let (_sender, own) = watch::channel(OwnBuckets::from([(Bucket(7), 41)]));
        let ring = Ring { generation_seconds, tables };
        let database = DatabaseConfig::parse("postgres://u@h/d").unwrap();
        Retention::new(database, ring, own, replay_window)
    }

    #[test]
    fn an_attempt_is_complete() {
        let name = "public.outbox_b07_g2".to_owned();
        let leaf = BucketPartition { oid: 4_711, name, bucket: Bucket(7), generation: 2 };
        let sql = retention(600, None).attempt_sql(&leaf, 41);
        for part in ["4711::oid", "integer := 600", "if 2 in", "bucket = 7", "epoch = 41"] {
            assert!(sql.contains(part), "{part} is missing in {sql}");
        }
        assert!(sql.contains("interval '600000000 microseconds'"), "one generation is kept: {sql}");
        assert!(!sql.contains('{'), "{sql}");
        let sql = retention(600, Some(Duration::ZERO)).attempt_sql(&leaf, 41);
        assert!(sql.contains("interval '0 microseconds'"), "{sql}");
        let sql = retention(600, Some(Duration::MAX)).attempt_sql(&leaf, 41);
        assert!(sql.contains("interval '3153600000000000 microseconds'"), "{sql}");
    }

    #[test]
    fn every_generation_is_met_by_several_passes() {
        assert_eq!(retention(1, None).interval(), Duration::from_millis(250));
        assert_eq!(retention(600, None).interval(), PASS_INTERVAL_MAX);
    }

    #[test]
    fn every_outcome_of_the_attempt_is_known() {
        let code = ATTEMPT.text().lines().filter(|line| !line.trim_start().starts_with("--"));
        let code: String = code.collect::<Vec<_>>().join("\n");
        let assigned = code.split("outcome := '").skip(1);
        let noted = code.split("outcome text := '").skip(1);
        let set = code.split("'postrider.retention', '").skip(1);
        let mut words: Vec<&str> =
            assigned.chain(noted).chain(set).map(|rest| rest.split('\'').next().unwrap()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 11, "{words:?}");
        for word in words {
            assert!(AttemptOutcome::from_word(word).is_some(), "{word}");
        }
        assert_eq!(AttemptOutcome::from_word("done"), None);
    }

    #[test]
    fn warnings_are_rare() {
        let mut said = None;
        assert!(is_due(&mut said));
        assert!(!is_due(&mut said));
    }
}
