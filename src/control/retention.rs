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
//! * *What the cursor has passed was read.* Whoever owns the table can write a `seq` that was not drawn, and ranges
//!   are not read below their bounds. So before the lock is taken each row is judged, once: `proof`. Nobody writes
//!   into the partition between the proof and the truncation.
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
use tokio_postgres::SimpleQueryMessage;

use crate::control::parked::Asks;
use crate::control::retention::allowance::Sweep;
use crate::control::retention::outcome::AttemptOutcome;
use crate::control::retention::warnings::{OVERDUE_GENERATIONS, RetentionWarnings};
use crate::control::unread;
use crate::control::unread::BucketPartition;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::metrics::counters::Figures;
use crate::postgres::{Connection, DatabaseConfig, Sql, classify, connect, without_head};

mod allowance;
mod outcome;
mod proof;
mod sweep;
mod warnings;

const SESSION: &str = include_str!("../../sql/queries/leaf_session.sql");
static ATTEMPT: Sql = Sql::of(include_str!("../../sql/queries/retention_attempt.sql"));
static FLOOR: Sql = Sql::of(include_str!("../../sql/queries/cursor_floor.sql"));
static FORGET: Sql = Sql::of(include_str!("../../sql/queries/emitting_forget.sql"));
static LAW_FORGET: Sql = Sql::of(include_str!("../../sql/queries/law_forget.sql"));
static MAY_NOTE: Sql = Sql::of(include_str!("../../sql/queries/may_note.sql"));

const BEGIN: &str = "begin isolation level read committed";

/// The longest pause between two passes.
const PASS_INTERVAL_MAX: Duration = Duration::from_secs(10);
/// Passes in one generation, at least: each partition must be met while its generation is past.
const PASSES_PER_GENERATION: u32 = 4;
/// Attempts in one pass at a partition whose lock is not to be had.
const ATTEMPTS: u32 = 5;
/// The pause between two of them is longer than this and shorter than twice this: shards hold the
/// leaves while they read a page.
const ATTEMPT_PAUSE_MILLIS: u64 = 10;
/// How seldom it is forgotten what rows are not judged by any more, once all that is retained was looked through.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);
/// When it is forgotten although not all was looked through: what is written by so many takes more than looks may.
const FORGET_LATEST: Duration = Duration::from_secs(600);
/// Longer replay windows mean this one: PostgreSQL's dates end.
const REPLAY_WINDOW_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The buckets that this instance owns, each with the epoch under which it was taken.
pub type OwnBuckets = BTreeMap<Bucket, i64>;

/// Empties partitions, pass by pass.
#[derive(Debug)]
pub struct Retention {
    database: DatabaseConfig,
    generation_seconds: u32,
    own: watch::Receiver<OwnBuckets>,
    asks: Asks,
    replay_window: Duration,
    session: Option<RetentionSession>,
    /// Since when each partition could have been emptied but for something in the way, by its oid.
    hindered: HashMap<u32, Instant>,
    /// When it was forgotten last what rows are not judged by any more.
    forgot_at: Instant,
    sweep: Sweep,
    warnings: RetentionWarnings,
    figures: Arc<Figures>,
}

impl Retention {
    /// Rows younger than `replay_window` are kept; by default for one generation.
    pub fn new(
        database: DatabaseConfig,
        generation_seconds: u32,
        own: watch::Receiver<OwnBuckets>,
        asks: Asks,
        replay_window: Option<Duration>,
    ) -> Self {
        let generation = Duration::from_secs(generation_seconds.into());
        let replay_window = replay_window.unwrap_or(generation).min(REPLAY_WINDOW_MAX);
        Self {
            database,
            generation_seconds,
            own,
            asks,
            replay_window,
            session: None,
            hindered: HashMap::new(),
            forgot_at: Instant::now(),
            sweep: Sweep::default(),
            warnings: RetentionWarnings::default(),
            figures: Arc::default(),
        }
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
        Duration::from_secs(self.generation_seconds.into())
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
            None => RetentionSession::open(&self.database).await?,
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
        self.sweep(&session, &own).await?;
        session.forget_emitting().await?;
        let pause = if self.sweep.is_complete { FORGET_INTERVAL } else { FORGET_LATEST };
        if self.forgot_at.elapsed() >= pause {
            self.forgot_at = Instant::now();
            session.forget_law().await?;
        }
        self.session = Some(session);
        Ok(())
    }

    /// Attempts at one partition: if it is due, its rows are judged first.
    async fn clean(
        &mut self,
        session: &RetentionSession,
        leaf: &BucketPartition,
        epoch: i64,
    ) -> Result<AttemptOutcome> {
        let look = format!("{BEGIN};{}", self.attempt_sql(leaf, epoch, Steps::Look));
        let mut outcome = session.attempt(&look).await?;
        if outcome == AttemptOutcome::Due {
            outcome = self.prove_and_empty(session, leaf, epoch).await?;
        }
        tracing::debug!(leaf = leaf.name, ?outcome, "looked at a leaf");
        Ok(outcome)
    }

    fn attempt_sql(&self, leaf: &BucketPartition, epoch: i64, steps: Steps) -> String {
        without_head(ATTEMPT.text())
            .replace("{steps}", steps.words())
            .replace("{attempts}", &ATTEMPTS.to_string())
            .replace("{floor}", without_head(FLOOR.text()))
            .replace("{leaf}", &leaf.oid.to_string())
            .replace("{generation_seconds}", &self.generation_seconds.to_string())
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
            AttemptOutcome::Current | AttemptOutcome::Taken | AttemptOutcome::Due => {}
            AttemptOutcome::Refused => self.warnings.missing_right(leaf),
            AttemptOutcome::Waiting
            | AttemptOutcome::Replayed
            | AttemptOutcome::Locked
            | AttemptOutcome::Unread
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

/// How far an attempt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Steps {
    /// It says whether the partition is due.
    Look,
    /// It empties it.
    Act,
}

impl Steps {
    fn words(self) -> &'static str {
        match self {
            Self::Look => "'look'",
            Self::Act => "'look', 'act'",
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
    async fn open(database: &DatabaseConfig) -> Result<Self> {
        let failed = |cause| classify("prepare the clean-up", cause);
        let connection = connect(database, "retention").await?;
        connection.client().batch_execute(SESSION).await.map_err(failed)?;
        let leaves = unread::partitions(&connection).await?;
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

    /// Forgets what no retained row is judged by any more. Of a role that may not, `postrider check` tells.
    async fn forget_law(&self) -> Result<()> {
        let failed = |cause| classify("forget what rows are not judged by any more", cause);
        let client = self.connection.client();
        let may = client.query_one(MAY_NOTE.text(), &[]).await.map_err(failed)?;
        if may.get("may_note") && may.get("may_remember") {
            client.batch_execute(LAW_FORGET.text()).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Leaves the transaction that an error has broken.
    async fn end_transaction(&self) -> Result<()> {
        let ended = self.connection.client().batch_execute("rollback").await;
        ended.map_err(|cause| classify("go on with the clean-up", cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retention(generation_seconds: u32, replay_window: Option<Duration>) -> Retention {
        let (_sender, own) = watch::channel(OwnBuckets::from([(Bucket(7), 41)]));
        let database = DatabaseConfig::parse("postgres://u@h/d").unwrap();
        Retention::new(database, generation_seconds, own, Asks::default(), replay_window)
    }

    #[test]
    fn an_attempt_is_complete() {
        let name = "public.outbox_b07_g2".to_owned();
        let leaf = BucketPartition { oid: 4_711, name, bucket: Bucket(7), generation: 2 };
        let sql = retention(600, None).attempt_sql(&leaf, 41, Steps::Act);
        for part in ["4711::oid", "integer := 600", "if 2 in", "bucket = 7", "epoch = 41"] {
            assert!(sql.contains(part), "{part} is missing in {sql}");
        }
        assert!(sql.contains("interval '600000000 microseconds'"), "one generation is kept: {sql}");
        assert!(!sql.contains('{'), "{sql}");
        let sql = retention(600, Some(Duration::ZERO)).attempt_sql(&leaf, 41, Steps::Look);
        assert!(sql.contains("interval '0 microseconds'"), "{sql}");
        let sql = retention(600, Some(Duration::MAX)).attempt_sql(&leaf, 41, Steps::Look);
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
        assert_eq!(words.len(), 12, "{words:?}");
        for word in words {
            assert!(AttemptOutcome::from_word(word).is_some(), "{word}");
        }
        assert_eq!(AttemptOutcome::from_word("done"), None);
    }
}
