//! The cursors in PostgreSQL: loaded under an epoch, saved in small updates for many buckets.
//!
//! Promises: a cursor is handed out only on the history on which it was saved, and under the epoch
//! under which its bucket was taken; a save by a former owner changes nothing and is noticed.
//! Must not: decide how far a cursor may move, or who owns a bucket.
//! Fails: [`ErrorKind::History`] on another cluster, timeline or an older state; [`ErrorKind::Standby`]
//! on a standby; [`ErrorKind::Fenced`] when another instance has taken a bucket.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use crate::control::cursors::copied::accept_place;
use crate::control::cursors::row::{bucket, restore, saved_history};
use crate::control::cursors::windows::{ClosedWindow, ClosedWindows, WindowColumns};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::metrics::counters::Figures;
use crate::metrics::histogram::micros;
use crate::order::cursor::{Cursor, CursorGroup, GroupCursor, Window};
pub use crate::order::history::History;
use crate::order::ledger::Finished;
use crate::order::snapshot::Snapshot;
use crate::order::tick::{Carry, Tick};
use crate::postgres::{Connection, Lsn, PgSnapshot, Sql, Xid8, classify, fill, without_head};

mod copied;
pub mod exactly;
pub mod look;
mod row;
mod windows;

const HISTORY: &str = include_str!("../../sql/queries/history.sql");
static LOAD: Sql = Sql::of(include_str!("../../sql/queries/cursor_load.sql"));
static SAVE: Sql = Sql::of(include_str!("../../sql/queries/cursor_save.sql"));
static WINDOW_NOTE: Sql = Sql::of(include_str!("../../sql/queries/window_note.sql"));
static MAY_NOTE: Sql = Sql::of(include_str!("../../sql/queries/may_note.sql"));

/// A cursor that only moved over nothing is saved this seldom.
const IDLE_SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// The pause behind a save is at least this many times as long as the save was: while somebody holds an old
/// snapshot no version of a cursor's row can go, and each save reads all of them.
const PAUSE_PER_SAVE: u32 = 10;
/// At most so long: a server that was frozen during a save is no reason to stop saving.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What to do on a server that was promoted since a cursor was saved.
///
/// To go on is sound. The cursor was read from the promoted server, so it reached it by the log, and with
/// it everything that the log held before: the commits of all transactions that its snapshot sees, and
/// the tick's own record, behind which new transaction ids and new values of the sequence begin. What
/// was published and did not reach the promoted server stays published; nobody can take that back.
/// A restored backup looks the same, though, and may be connected to by mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPromotion {
    /// Go on, and say so.
    Follow,
    /// Refuse, until an operator has said that this is the server.
    Refuse,
}

impl History {
    /// Reads the server's history.
    ///
    /// # Errors
    /// [`ErrorKind::Standby`] when the server is in recovery.
    pub async fn read(connection: &Connection) -> Result<Self> {
        Self::read_upto(connection, "lsn").await
    }

    async fn read_upto(connection: &Connection, end: &str) -> Result<Self> {
        let failed = |cause| classify("read the server's history", cause);
        let row = connection.client().query_one(HISTORY, &[]).await.map_err(failed)?;
        if row.get("standby") {
            return Err(Error::new(
                ErrorKind::Standby,
                "the server is a standby: its snapshots do not list running transactions, so events would be lost",
            )
            .with_remedy("name the primary; with several hosts add target_session_attrs=read-write to the URL"));
        }
        let lsn: Lsn = row.get(end);
        Ok(Self {
            system_identifier: row.get("system_identifier"),
            timeline: row.get("timeline"),
            lsn: lsn.0,
        })
    }

    /// Whether a cursor that was saved on `saved` means something here.
    fn accept(&self, bucket: Bucket, saved: &Self, on_promotion: OnPromotion) -> Result<()> {
        let follows = on_promotion == OnPromotion::Follow && saved.timeline < self.timeline;
        let reason = if saved.system_identifier != self.system_identifier {
            format!("cluster {} and not {}", saved.system_identifier, self.system_identifier)
        } else if saved.timeline != self.timeline && !follows {
            format!("timeline {} and not {}", saved.timeline, self.timeline)
        } else if saved.lsn > self.lsn {
            format!("a later state (log position {:X}, the server is at {:X})", saved.lsn, self.lsn)
        } else {
            return Ok(());
        };
        Err(Error::new(
            ErrorKind::History,
            format!("the cursor of bucket {bucket} belongs to {reason}: snapshots cannot be compared"),
        )
        .with_remedy("connect to the server that postrider published from, or run `postrider migrate reanchor` if this is the one (it repeats all retained events); --on-promotion follow goes on after a promotion"))
    }
}

#[derive(Debug)]
struct CursorProgress {
    cursor: Cursor,
    /// Rises with every note, so that a save knows whether what it has saved is still the latest.
    revision: u64,
    /// Whether rows were passed since the last save.
    moved: bool,
    saved_at: Instant,
}

/// The cursors of one instance, and the session that saves them.
#[derive(Debug)]
pub struct CursorStore {
    connection: Connection,
    save: Statement,
    /// Windows that were closed since the last save, in their order; none where the role may not note them.
    closed: Option<ClosedWindows>,
    history: History,
    on_promotion: OnPromotion,
    epochs: Mutex<HashMap<Bucket, i64>>,
    progress: Mutex<HashMap<Bucket, CursorProgress>>,
    /// One save at a time: whoever has saved knows that no earlier save is on its way.
    saving: tokio::sync::Mutex<()>,
    figures: Arc<Figures>,
}

/// How long to wait after a save that took so long.
pub fn pause_after_save(interval: Duration, took: Duration) -> Duration {
    interval.max((took * PAUSE_PER_SAVE).min(PAUSE_MAX))
}

impl CursorStore {
    /// Opens the store; no bucket is owned yet.
    ///
    /// # Errors
    /// When the server is a standby, or the connection fails.
    pub async fn open(connection: Connection, on_promotion: OnPromotion) -> Result<Self> {
        let history = History::read(&connection).await?;
        // Losing a save repeats events and never loses one: it need not wait for the disk.
        let relax = include_str!("../../sql/queries/cursor_session.sql");
        let relaxed = connection.client().batch_execute(relax).await;
        relaxed.map_err(|cause| classify("set up the cursors' session", cause))?;
        let failed = |cause| classify("prepare to save the cursors", cause);
        let may = connection.client().query_one(MAY_NOTE.text(), &[]).await.map_err(failed)?;
        let closed = may.get::<_, bool>("may_note").then(ClosedWindows::default);
        let noted = if closed.is_some() { without_head(WINDOW_NOTE.text()) } else { "" };
        let save = fill(without_head(SAVE.text()), &[("{noted}", noted)]);
        let save = connection.client().prepare(&save).await.map_err(failed)?;
        let (epochs, progress) = (Mutex::default(), Mutex::default());
        let (saving, figures) = (tokio::sync::Mutex::default(), Arc::default());
        Ok(Self {
            connection,
            save,
            closed,
            history,
            on_promotion,
            epochs,
            progress,
            saving,
            figures,
        })
    }

    /// Counts how long saves take.
    #[must_use]
    pub fn with_figures(self, figures: Arc<Figures>) -> Self {
        Self { figures, ..self }
    }

    /// The session, for a short look at what concerns owned buckets.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The server's timeline, as it was when this session began.
    pub fn timeline(&self) -> i32 {
        self.history.timeline
    }

    /// The latest tick among all cursors, whoever owns them: with it the chain of ticks goes on.
    ///
    /// # Errors
    /// [`ErrorKind::History`] when any cursor was saved on another history; the connection's error.
    pub async fn latest_tick(&self) -> Result<Arc<Tick>> {
        let cursors = self.read(None).await?;
        let timelines = cursors.iter().filter_map(|row| row.get::<_, Option<i32>>("timeline"));
        if let Some(before) = timelines.min().filter(|before| *before < self.history.timeline) {
            tracing::warn!(
                before,
                now = self.history.timeline,
                "the server was promoted; going on from the cursors that reached it"
            );
        }
        let ticks = cursors.iter().map(|row| Arc::clone(restore(row).upto()));
        Ok(ticks.max_by_key(|tick| tick.next).unwrap_or_else(|| Arc::new(Tick::first())))
    }

    /// Takes note of buckets that were taken, each with its epoch.
    pub fn own(&self, taken: &[(Bucket, i64)]) {
        self.epochs().extend(taken.iter().copied());
    }

    /// Forgets buckets that were let go.
    pub fn disown(&self, buckets: &[Bucket]) {
        let mut epochs = self.epochs();
        let mut progress = self.progress();
        for bucket in buckets {
            epochs.remove(bucket);
            progress.remove(bucket);
        }
        self.closed.iter().for_each(|closed| closed.disown(buckets));
    }

    /// What is owned, each bucket with its epoch.
    pub fn owned(&self) -> Vec<(Bucket, i64)> {
        self.epochs().iter().map(|(bucket, epoch)| (*bucket, *epoch)).collect()
    }

    /// The epoch under which all buckets are owned, by the instance that reads the log.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] when they are not owned any more.
    pub fn epoch_of_all(&self) -> Result<i64> {
        self.epochs().get(&Bucket(0)).copied().ok_or_else(Error::fenced)
    }

    /// The cursors of these buckets as they were saved, by rising bucket.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] when one is not owned under the epoch that is known here;
    /// [`ErrorKind::History`] when one was saved on another history; the connection's error.
    pub async fn load(&self, buckets: &[Bucket]) -> Result<Vec<(Bucket, Cursor)>> {
        let rows = self.read(Some(buckets)).await?;
        let epochs = self.epochs();
        for row in &rows {
            if epochs.get(&bucket(row)) != Some(&row.get("epoch")) {
                return Err(Error::fenced());
            }
        }
        Ok(rows.iter().map(|row| (bucket(row), restore(row))).collect())
    }

    /// All cursors as they were saved, whoever owns them.
    ///
    /// # Errors
    /// As [`CursorStore::load`], but for the epochs.
    pub async fn all(&self) -> Result<Vec<Cursor>> {
        Ok(self.read(None).await?.iter().map(restore).collect())
    }

    /// Reads cursors, all of them without a list, and makes sure that they mean something here.
    async fn read(&self, buckets: Option<&[Bucket]>) -> Result<Vec<Row>> {
        let numbers: Option<Vec<i16>> =
            buckets.map(|buckets| buckets.iter().copied().map(bucket_number).collect());
        let rows = self.connection.client().query(LOAD.text(), &[&numbers]).await;
        let rows = rows.map_err(|cause| classify("load the cursors", cause))?;
        for row in &rows {
            if let Some(saved) = saved_history(row) {
                accept_place(bucket(row), row)?;
                self.accept(bucket(row), &saved).await?;
            }
        }
        Ok(rows)
    }

    /// The log goes on while we work: what was saved since the start is not a later state.
    async fn accept(&self, bucket: Bucket, saved: &History) -> Result<()> {
        if self.history.accept(bucket, saved, self.on_promotion).is_ok() {
            return Ok(());
        }
        History::read(&self.connection).await?.accept(bucket, saved, self.on_promotion)
    }

    fn epochs(&self) -> MutexGuard<'_, HashMap<Bucket, i64>> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> MutexGuard<'_, HashMap<Bucket, CursorProgress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a finished page. It is saved with the next save.
    pub fn note(&self, finished: &Finished<GroupCursor>) {
        let GroupCursor { cursor_group, cursor } = &finished.place;
        self.closed.iter().for_each(|closed| closed.release(cursor_group, cursor.window()));
        let mut progress = self.progress();
        for bucket in cursor_group.iter() {
            let moved = finished.events > 0;
            progress
                .entry(*bucket)
                .and_modify(|known| {
                    known.cursor = cursor.clone();
                    known.revision += 1;
                    known.moved |= moved;
                })
                .or_insert_with(|| CursorProgress {
                    cursor: cursor.clone(),
                    revision: 0,
                    moved,
                    saved_at: Instant::now(),
                });
        }
    }

    /// Takes note of a window that was closed, before any cursor behind it is noted. It is saved with them.
    pub fn note_closed(&self, cursor_group: &CursorGroup, window: &Window, upto: &Snapshot) {
        let window = ClosedWindow::bounded(cursor_group, window, upto);
        self.closed.iter().for_each(|closed| closed.push(window.clone()));
    }

    /// Takes note of a window that was read whole. It is saved once its rows are acknowledged.
    pub fn note_whole(&self, cursor_group: &CursorGroup, window: &Window, upto: &Snapshot) {
        let window = ClosedWindow::whole(cursor_group, window, upto);
        self.closed.iter().for_each(|closed| closed.hold(window.clone()));
    }

    /// Keeps saves waiting as long as the guard lives. Whoever locks several cursors as well might
    /// otherwise meet a save that locks the same ones in another order.
    pub async fn pause_saves(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.saving.lock().await
    }

    /// Saves what moved over events, and now and then what moved over nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] when another instance has taken a bucket; the connection's error.
    pub async fn save(&self) -> Result<()> {
        self.save_where(|progress| {
            progress.moved || progress.saved_at.elapsed() > IDLE_SAVE_INTERVAL
        })
        .await
    }

    /// Saves everything that moved.
    ///
    /// # Errors
    /// As [`CursorStore::save`].
    pub async fn save_all(&self) -> Result<()> {
        self.save_where(|_| true).await
    }

    async fn save_where(&self, due: impl Fn(&CursorProgress) -> bool) -> Result<()> {
        let _one_at_a_time = self.saving.lock().await;
        let due = self.due(due);
        if due.is_empty() {
            return Ok(());
        }
        // Behind the cursors: of none of them a window is missing.
        let closed = self.closed.as_ref().map_or_else(Vec::new, ClosedWindows::waiting);
        let cursors: Vec<(Bucket, Cursor)> =
            due.iter().map(|(bucket, cursor, _)| (*bucket, cursor.clone())).collect();
        let began = Instant::now();
        let saved = self.write(&cursors, &closed).await?;
        self.figures.cursor_save.record(micros(began.elapsed().as_micros()), 1);
        if saved != cursors.len() as u64 {
            return Err(Error::unsaved());
        }
        self.forget_saved(&due);
        self.closed.iter().for_each(|windows| windows.forget(closed.len()));
        Ok(())
    }

    /// What is to be saved, with its revision. It stays noted until it is saved: a save that is cut
    /// off in the middle loses nothing.
    fn due(&self, due: impl Fn(&CursorProgress) -> bool) -> Vec<(Bucket, Cursor, u64)> {
        let progress = self.progress();
        progress
            .iter()
            .filter(|(_, known)| due(known))
            .map(|(bucket, known)| (*bucket, known.cursor.clone(), known.revision))
            .collect()
    }

    fn forget_saved(&self, saved: &[(Bucket, Cursor, u64)]) {
        let mut progress = self.progress();
        for (bucket, _, revision) in saved {
            if progress.get(bucket).is_some_and(|known| known.revision == *revision) {
                progress.remove(bucket);
            }
        }
    }

    fn epochs_of(&self, cursors: &[(Bucket, Cursor)]) -> Vec<i64> {
        let epochs = self.epochs();
        cursors.iter().map(|(bucket, _)| epochs[bucket]).collect()
    }

    async fn write(&self, cursors: &[(Bucket, Cursor)], closed: &[ClosedWindow]) -> Result<u64> {
        fn column<T>(cursors: &[(Bucket, Cursor)], value: impl Fn(&Cursor) -> T) -> Vec<T> {
            cursors.iter().map(|(_, cursor)| value(cursor)).collect()
        }
        let buckets: Vec<i16> = cursors.iter().map(|(bucket, _)| bucket_number(*bucket)).collect();
        let epochs = self.epochs_of(cursors);
        let from = column(cursors, |cursor| PgSnapshot(cursor.range_from().clone()));
        let upto = column(cursors, |cursor| PgSnapshot(cursor.upto().snapshot.clone()));
        let next = column(cursors, |cursor| Xid8(cursor.upto().next));
        let floor = column(cursors, |cursor| cursor.upto().floor);
        let ceiling = column(cursors, Cursor::end);
        let since = column(cursors, |cursor| {
            cursor.window().map(|window| PgSnapshot(window.since.clone()))
        });
        let bound = column(cursors, |cursor| cursor.window().map(|window| window.bound));
        let carry = column(cursors, |cursor| carry_text(&cursor.upto().carry));
        let position = column(cursors, Cursor::position);
        let storage = column(cursors, |cursor| cursor.upto().lineage.storage);
        let began = column(cursors, |cursor| Xid8(cursor.upto().lineage.began));
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![
            &buckets,
            &epochs,
            &from,
            &upto,
            &next,
            &floor,
            &ceiling,
            &carry,
            &position,
            &self.history.system_identifier,
            &self.history.timeline,
            &storage,
            &began,
            &since,
            &bound,
        ];
        let windows = WindowColumns::of(closed);
        if self.closed.is_some() {
            parameters.extend(windows.parameters());
        }
        let saved = self.connection.client().execute(&self.save, &parameters).await;
        saved.map_err(|cause| classify("save the cursors", cause))
    }
}

fn bucket_number(bucket: Bucket) -> i16 {
    i16::try_from(bucket.0).expect("there are at most 64 buckets")
}

/// The carry as PostgreSQL's array text: arrays of different length cannot be one array of arrays.
fn carry_text(carry: &[Carry]) -> String {
    let triples: Vec<String> =
        carry.iter().map(|open| format!("{},{},{}", open.first, open.last, open.floor)).collect();
    format!("{{{}}}", triples.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dear_save_is_followed_by_a_long_pause() {
        let pause = |interval, took| {
            let [interval, took] = [interval, took].map(Duration::from_millis);
            pause_after_save(interval, took).as_millis()
        };
        assert_eq!(pause(100, 1), 100);
        assert_eq!(pause(100, 90), 900);
        assert_eq!(pause(100, 60_000), 2_000, "the server was frozen");
        assert_eq!(pause(5_000, 60_000), 5_000, "as it was asked for");
    }
}
