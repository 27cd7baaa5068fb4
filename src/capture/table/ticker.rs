//! The ticker: looks at the database again and again, and hands ticks to all shards.
//!
//! Promises: a tick is handed on only after its commit has returned, so that what its snapshot sees
//! is as durable as the server makes commits, and only after the law was looked at on which it rests: that
//! the sequence gives out one value at a time, upwards; an outbox at rest gets few ticks, else only probes.
//! Must not: know what the shards do with a tick. Fails: with the connection's error, with
//! [`ErrorKind::Schema`] for a sequence that breaks the law, or when the database went back behind the
//! last tick.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hashbrown::HashSet;
use tokio::sync::{Notify, mpsc, watch};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use crate::capture::table::past_ticks::{Remembered, remember_tick};
use crate::capture::table::rest::rest;
use crate::capture::table::sequence::{SequenceState, drawn, find, lead_on, of_sequence};
use crate::capture::table::tick_memory::TickMemory;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::metrics::beats::Pulse;
use crate::metrics::counters::Figures;
use crate::metrics::histogram::micros;
use crate::order::snapshot::{Snapshot, TransactionId};
use crate::order::tick::{Observation, Probe, Tick};
use crate::outbox::Outbox;
use crate::postgres::{
    Connection, DatabaseConfig, PgSnapshot, Sql, Xid8, classify, connect, with_timeout,
};

const DRAWN: &str = include_str!("../../../sql/queries/drawn.sql");
const PROBE: &str = include_str!("../../../sql/queries/probe.sql");
const NEWEST: &str = include_str!("../../../sql/queries/newest_rows.sql");
const NEWEST_ARM: &str = include_str!("../../../sql/queries/newest_rows_arm.sql");
const LEAF_SESSION: &str = include_str!("../../../sql/queries/leaf_session.sql");
static HOLD_ALL: Sql = Sql::of(include_str!("../../../sql/queries/parked_hold_all.sql"));
static TICK: Sql = Sql::of(include_str!("../../../sql/queries/tick.sql"));
const UNDRAWN: &str = include_str!("../../../sql/queries/undrawn.sql");

/// How seldom it is looked who of those that stay open for long has drawn.
const UNDRAWN_INTERVAL: Duration = Duration::from_secs(1);

/// How seldom it is looked, while nothing is drawn, whether rows were written whose numbers nobody drew.
const NEWEST_INTERVAL: Duration = Duration::from_secs(5);

/// How seldom a tick is made although nothing is drawn, as others write: a row may have a number of long ago.
const REST_INTERVAL: Duration = Duration::from_secs(5);

/// How long the pauses between two looks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    /// While traffic is thin.
    pub min: Duration,
    /// Under load, where larger pages pay, and at rest, where nothing waits.
    pub max: Duration,
}

/// At this rate of events the pause is the longest.
const BUSY_EVENTS_PER_SECOND: f64 = 200_000.0;

/// Who is told of ticks.
#[derive(Debug)]
pub enum Audience {
    /// Those who need the latest only.
    Latest(watch::Sender<Arc<Tick>>),
    /// One who needs every tick.
    Every(mpsc::Sender<Arc<Tick>>),
}

impl Audience {
    fn has_gone(&self) -> bool {
        match self {
            Self::Latest(ticks) => ticks.is_closed(),
            Self::Every(ticks) => ticks.is_closed(),
        }
    }

    async fn gone(&self) {
        match self {
            Self::Latest(ticks) => ticks.closed().await,
            Self::Every(ticks) => ticks.closed().await,
        }
    }

    /// Who needs every tick makes the ticker wait until there is room for it.
    async fn tell(&self, tick: Arc<Tick>) {
        match self {
            Self::Latest(ticks) => {
                ticks.send_replace(tick);
            }
            // Nobody is there any more: the next look notices it.
            Self::Every(ticks) => drop(ticks.send(tick).await),
        }
    }
}

/// What rows with transaction ids of another cluster mean, which were copied in or came by a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignRows {
    /// They cannot be compared with the cursors.
    Refused,
    /// The log itself tells which transaction wrote a row.
    Told,
}

/// One session that ticks.
#[derive(Debug)]
pub struct Ticker {
    connection: Connection,
    drawn: Statement,
    probe: Statement,
    tick: Statement,
    memory: Option<TickMemory>,
    undrawn: Statement,
    undrawn_at: Option<Instant>,
    newest: String,
    newest_at: Instant,
    /// The highest `seq` of all rows, as it was seen last.
    highest: Option<i64>,
    sequence: String,
    sequence_number: u32,
    cadence: Cadence,
    pause: Duration,
    last: Arc<Tick>,
    last_at: Instant,
    /// Parked events hold their aggregates across what the first tick will see.
    is_marked: bool,
    /// The oldest transaction that may be open, and since when it is known.
    oldest_open: Option<(TransactionId, Instant)>,
    figures: Arc<Figures>,
}

impl Ticker {
    /// Opens the session. `last` is the latest saved tick, with which the chain goes on.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or refuses the session.
    pub async fn connect(
        database: &DatabaseConfig,
        outbox: &Outbox,
        cadence: Cadence,
        last: Arc<Tick>,
        foreign: ForeignRows,
    ) -> Result<Self> {
        let connection = connect(database, "ticker").await?;
        let client = connection.client();
        let sequence_number =
            with_timeout(database, "find the sequence", find(&connection, outbox)).await?;
        let named = |sql: &str| of_sequence(sql, sequence_number);
        let (drawn, probe, undrawn) = (named(DRAWN), named(PROBE), named(UNDRAWN));
        let (drawn, probe, tick, undrawn) = with_timeout(database, "prepare the ticks", async {
            let prepared = tokio::try_join!(
                client.prepare(&drawn),
                client.prepare(&probe),
                client.prepare(TICK.text()),
                client.prepare(&undrawn)
            );
            prepared.map_err(|cause| classify("prepare the ticks", cause))
        })
        .await?;
        let mut ticker = Self {
            connection,
            drawn,
            probe,
            tick,
            memory: None,
            undrawn,
            undrawn_at: None,
            newest: newest_sql(outbox),
            newest_at: Instant::now(),
            highest: None,
            sequence: outbox.sequence.clone(),
            sequence_number,
            cadence,
            pause: cadence.min,
            last,
            last_at: Instant::now(),
            is_marked: false,
            oldest_open: None,
            figures: Arc::default(),
        };
        with_timeout(database, "look at the newest rows", ticker.look_at_rows(foreign)).await?;
        Ok(ticker)
    }

    /// Counts how long looks take.
    #[must_use]
    pub fn with_figures(self, figures: Arc<Figures>) -> Self {
        Self { figures, ..self }
    }

    /// Remembers the latest saved tick, before it is overtaken, and each tick from here on, if the role may.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn with_memory(mut self) -> Result<(Self, Remembered)> {
        let remembered = remember_tick(&self.connection).await?;
        if remembered == Remembered::Yes {
            let client = self.connection.client();
            self.memory = Some(TickMemory::prepare(client, self.sequence_number).await?);
        }
        Ok((self, remembered))
    }

    /// Whether the rows are such as the sequence and this cluster's transactions wrote. What was copied in,
    /// or came by a subscription, may not be.
    async fn look_at_rows(&mut self, foreign: ForeignRows) -> Result<()> {
        let client = self.connection.client();
        client
            .batch_execute(LEAF_SESSION)
            .await
            .map_err(|cause| classify("look at the newest rows", cause))?;
        let newest = self.look_at_newest().await?;
        let state = self.connection.client().query_one(&self.probe, &[]).await;
        let state = state.map_err(|cause| classify("look at the outbox", cause))?;
        let drawn = drawn(&state, &self.sequence)?;
        if let Some(Xid8(txid)) = newest.get("foreign_txid") {
            judge_foreign(txid, foreign)?;
        }
        if self.highest > Some(drawn) {
            self.warn_behind(drawn);
            self.last = Arc::new(Tick::clone(&self.last).without_lineage());
        }
        // Before anybody reads which aggregates are held.
        self.is_marked = self.last.is_set_back(state.get("storage"), drawn);
        if self.is_marked && *self.last != Tick::first() {
            self.hold_all().await?;
        }
        Ok(())
    }

    async fn look_at_newest(&mut self) -> Result<Row> {
        let newest = self.connection.client().query_one(&self.newest, &[]).await;
        let newest = newest.map_err(|cause| classify("look at the newest rows", cause))?;
        (self.highest, self.newest_at) = (newest.get("highest"), Instant::now());
        Ok(newest)
    }

    /// Whether a row was written whose number nobody drew: no draw tells of it. Of a row that is new since the
    /// latest tick only the sequence as it is after the look can tell.
    async fn has_undrawn_row(&mut self) -> Result<bool> {
        if self.newest_at.elapsed() < NEWEST_INTERVAL {
            return Ok(false);
        }
        let before = self.highest;
        self.look_at_newest().await?;
        let is_new = self.highest > Some(self.last.ceiling) && self.highest != before;
        if is_new {
            let drawn = self.drawn_now().await?;
            if self.highest > Some(drawn) {
                self.warn_behind(drawn);
            }
        }
        Ok(is_new)
    }

    async fn drawn_now(&self) -> Result<i64> {
        let row = self.connection.client().query_one(&self.drawn, &[]).await;
        drawn(&row.map_err(|cause| classify("look at the sequence", cause))?, &self.sequence)
    }

    fn warn_behind(&self, drawn: i64) {
        let (sequence, highest) = (&self.sequence, self.highest.unwrap_or_default());
        tracing::warn!(
            sequence,
            drawn,
            highest,
            remedy = lead_on(sequence, highest),
            "the outbox's sequence is behind its rows and gives out their numbers again; nothing is \
             lost, but waiting events are published in the order of their numbers"
        );
    }

    /// What was parked before the sequence was set back comes before all that it gives out from here on.
    /// Whether anything is parked.
    async fn hold_all(&self) -> Result<bool> {
        let marked = self.connection.client().query_one(HOLD_ALL.text(), &[]).await;
        let failed = |cause| classify("hold what comes after parked events", cause);
        Ok(marked.map_err(failed)?.get(0))
    }

    /// Ticks until nobody listens any more; at once whenever it is nudged.
    ///
    /// # Errors
    /// When the connection fails, or the database went back.
    pub async fn run(mut self, audience: Audience, nudge: Arc<Notify>) -> Result<()> {
        // Who needs every tick makes the ticker wait while Kafka is away.
        let listens = matches!(audience, Audience::Latest(_));
        let pulse = listens.then(|| self.figures.tasks.expect("ticker"));
        // While events come, a look of its own whether a tick is due would only cost time.
        let mut is_due = false;
        while !audience.has_gone() {
            pulse.iter().for_each(Pulse::beat);
            if is_due || self.is_due(&audience).await? {
                let tick = Arc::new(self.observe().await?);
                is_due = tick.ceiling != self.last.ceiling;
                self.adapt(&tick);
                self.last = Arc::clone(&tick);
                audience.tell(tick).await;
            } else {
                is_due = self.has_undrawn_row().await?;
                self.pause = (self.pause * 2).min(self.cadence.max);
            }
            let pause = self.pause;
            let rested = async {
                match &pulse {
                    Some(pulse) => rest(pause, pulse).await,
                    None => tokio::time::sleep(pause).await,
                }
            };
            tokio::select! {
                () = rested => {}
                () = nudge.notified() => is_due = true,
                () = audience.gone() => {}
            }
        }
        Ok(())
    }

    async fn is_due(&mut self, audience: &Audience) -> Result<bool> {
        let row = self
            .connection
            .client()
            .query_one(&self.probe, &[])
            .await
            .map_err(|cause| classify("look at the outbox", cause))?;
        let snapshot: PgSnapshot = row.get("snapshot");
        let drawn = drawn(&row, &self.sequence)?;
        self.note_open(&snapshot.0);
        // Of the log each row comes by itself.
        let looks = matches!(audience, Audience::Latest(_));
        let has_rested = looks && self.last_at.elapsed() >= REST_INTERVAL;
        if has_rested && self.last.is_behind(&snapshot.0) {
            return Ok(true);
        }
        Ok(self.last.is_stale(&Probe { drawn, snapshot: snapshot.0 }))
    }

    /// The next tick. A look during which the sequence was set back is void.
    async fn observe(&mut self) -> Result<Tick> {
        let began = Instant::now();
        let observed = loop {
            if let Some(observed) = self.look().await? {
                break observed;
            }
        };
        self.figures.tick.record(micros(began.elapsed().as_micros()), 1);
        self.note_open(&observed.snapshot);
        let tick = Tick::follow(&self.last, observed).map_err(|cause| {
            Error::new(ErrorKind::History, cause.to_string())
                .with_remedy("the server was replaced by an older copy; see `postrider status`")
                .with_source(cause)
        })?;
        if tick.lineage != self.last.lineage {
            if let Some(memory) = &self.memory {
                memory.relabel(&self.connection, tick.next, Some(tick.lineage.began)).await?;
            }
            self.note_set_back(&tick).await?;
        }
        let is_due = self.undrawn_at.is_none_or(|at| at.elapsed() >= UNDRAWN_INTERVAL);
        if is_due && tick.reaches_far_back() { self.look_who_drew(tick).await } else { Ok(tick) }
    }

    /// Since when the oldest open transaction is known. It holds back its own events, and the vacuum.
    fn note_open(&mut self, snapshot: &Snapshot) {
        let oldest = snapshot.in_progress().first().copied();
        let known = self.oldest_open.filter(|(xid, _)| Some(*xid) == oldest);
        self.oldest_open = known.or_else(|| oldest.map(|xid| (xid, Instant::now())));
        let age = self.oldest_open.map_or(Duration::ZERO, |(_, since)| since.elapsed());
        let millis = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.figures.open_transaction_millis.store(millis, Ordering::Relaxed);
    }

    /// Whoever is open for long and has drawn nothing makes nothing be looked at again when it ends. It has to be
    /// asked after the tick's floor was read.
    async fn look_who_drew(&mut self, tick: Tick) -> Result<Tick> {
        let rows = self.connection.client().query(&self.undrawn, &[]).await;
        let rows = rows.map_err(|cause| classify("look who has drawn", cause))?;
        self.undrawn_at = Some(Instant::now());
        let undrawn: HashSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        // Ids of running transactions lie within half of what 32 bits can tell apart.
        let known = tick.clone().with_undrawn(|xid| undrawn.contains(&i64::from(xid as u32)));
        if let Some(memory) = &self.memory {
            memory.note_undrawn(&self.connection, &known, &tick.raised_in(&known)).await?;
        }
        Ok(known)
    }

    /// Before the tick is handed on, parked events hold whatever it will bring. Where that was not known when
    /// this session read what is held, it ends.
    async fn note_set_back(&mut self, tick: &Tick) -> Result<()> {
        if self.last.lineage.storage.is_some() {
            let (sequence, before, now) = (&self.sequence, self.last.ceiling, tick.ceiling);
            // Each ALTER SEQUENCE stores it anew, and may have set it back; the rows tell.
            if now < before {
                tracing::warn!(
                    sequence,
                    before,
                    now,
                    "the outbox's sequence was set back or made anew: all retained rows are looked at once, \
                     nothing is lost; events that waited are published in the order of their numbers"
                );
            } else {
                tracing::warn!(
                    sequence,
                    before,
                    now,
                    "the outbox's sequence was altered: all retained rows are looked at once, nothing is lost"
                );
            }
        }
        if std::mem::take(&mut self.is_marked) || !self.hold_all().await? {
            return Ok(());
        }
        let cause = "the sequence was set back or altered while events are parked; what they hold is read anew";
        Err(Error::new(ErrorKind::SetBack, cause))
    }

    /// One observation. The statements run in this order on one connection, in one round trip; the
    /// tick is a transaction of its own, and its answer is complete when its commit has returned.
    async fn look(&mut self) -> Result<Option<Observation>> {
        let client = self.connection.client();
        let began = Xid8(self.last.lineage.began);
        let remembered = self.memory.as_ref().and_then(|memory| memory.floor);
        let remember: [&(dyn ToSql + Sync); 2] = [&remembered, &began];
        let (statement, parameters) = match &self.memory {
            Some(memory) => (&memory.tick, &remember[..]),
            None => (&self.tick, &[][..]),
        };
        let (floor, tick, ceiling) = tokio::try_join!(
            biased;
            client.query_opt(&self.drawn, &[]),
            client.query_one(statement, parameters),
            client.query_opt(&self.drawn, &[]),
        )
        .map_err(|cause| classify("tick", cause))?;
        let floor = SequenceState::lawful(floor.as_ref(), &self.sequence)?;
        let ceiling = SequenceState::lawful(ceiling.as_ref(), &self.sequence)?;
        let snapshot: PgSnapshot = tick.get(0);
        let next: Xid8 = tick.get(1);
        let is_void = floor.storage != ceiling.storage || ceiling.drawn < floor.drawn;
        if let Some(memory) = &mut self.memory {
            memory.note(&tick);
            if is_void {
                memory.relabel(&self.connection, next.0, None).await?;
            }
        }
        Ok((!is_void).then_some(Observation {
            floor: floor.drawn,
            snapshot: snapshot.0,
            next: next.0,
            ceiling: ceiling.drawn,
            storage: ceiling.storage,
        }))
    }

    /// The busier the outbox, the longer the pause: a tick costs the same for one event as for many.
    fn adapt(&mut self, tick: &Tick) {
        let events = tick.ceiling.saturating_sub(self.last.ceiling).max(0) as f64;
        let rate = events / self.last_at.elapsed().as_secs_f64().max(1e-3);
        self.last_at = Instant::now();
        let share = (rate / BUSY_EVENTS_PER_SECOND).min(1.0);
        let Cadence { min, max } = self.cadence;
        self.pause = min + max.saturating_sub(min).mul_f64(share);
    }
}

fn judge_foreign(txid: u64, foreign: ForeignRows) -> Result<()> {
    let cause = format!(
        "rows of the outbox have transaction ids of another cluster (the highest is {txid}): they were \
         copied in, and cannot be compared with the cursors"
    );
    let remedy =
        "run `postrider migrate reanchor`: it makes them new, and repeats all retained events";
    match foreign {
        ForeignRows::Refused => Err(Error::new(ErrorKind::History, cause).with_remedy(remedy)),
        ForeignRows::Told => {
            tracing::warn!(cause, remedy, "what the log brings is published all the same");
            Ok(())
        }
    }
}

fn newest_sql(outbox: &Outbox) -> String {
    let arm = |bucket| NEWEST_ARM.replace("{bucket_table}", &outbox.bucket_table(Bucket(bucket)));
    let arms: Vec<String> = (0..outbox.buckets).map(arm).collect();
    NEWEST.replace("{bucket_arms}", &arms.join("union all\n"))
}
