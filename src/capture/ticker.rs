//! The ticker: looks at the database again and again, and hands ticks to all shards.
//!
//! Promises: a tick is handed on only after its commit has returned, so that what its snapshot sees
//! is as durable as the server makes commits; an outbox at rest gets no ticks, only probes.
//! Must not: know what the shards do with a tick. Fails: with the connection's error, or when the
//! database went back behind the last tick.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres_protocol::escape::escape_literal;
use tokio::sync::{Notify, mpsc, watch};
use tokio_postgres::Statement;

use crate::error::{Error, ErrorKind, Result};
use crate::outbox::Outbox;
use crate::postgres::{Connection, DatabaseConfig, PgSnapshot, Xid8, classify, connect, patiently};
use crate::tick::{Observation, Probe, Tick};

const DRAWN: &str = include_str!("../../sql/queries/drawn.sql");
const PROBE: &str = include_str!("../../sql/queries/probe.sql");
const TICK: &str = include_str!("../../sql/queries/tick.sql");

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

/// One session that ticks.
#[derive(Debug)]
pub struct Ticker {
    connection: Connection,
    drawn: Statement,
    probe: Statement,
    tick: Statement,
    cadence: Cadence,
    pause: Duration,
    last: Arc<Tick>,
    last_at: Instant,
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
    ) -> Result<Self> {
        let connection = connect(database, "ticker").await?;
        let client = connection.client();
        let named = |sql: &str| sql.replace("{sequence}", &escape_literal(&outbox.sequence));
        let (drawn, probe) = (named(DRAWN), named(PROBE));
        let (drawn, probe, tick) = patiently(database, "prepare the ticks", async {
            let prepared = tokio::try_join!(
                client.prepare(&drawn),
                client.prepare(&probe),
                client.prepare(TICK)
            );
            prepared.map_err(|cause| classify("prepare the ticks", cause))
        })
        .await?;
        Ok(Self {
            connection,
            drawn,
            probe,
            tick,
            cadence,
            pause: cadence.min,
            last,
            last_at: Instant::now(),
        })
    }

    /// Ticks until nobody listens any more; at once whenever it is nudged.
    ///
    /// # Errors
    /// When the connection fails, or the database went back.
    pub async fn run(mut self, audience: Audience, nudge: Arc<Notify>) -> Result<()> {
        // While events come, a look of its own whether a tick is due would only cost time.
        let mut is_due = false;
        while !audience.has_gone() {
            if is_due || self.is_due().await? {
                let tick = Arc::new(self.observe().await?);
                is_due = tick.ceiling != self.last.ceiling;
                self.adapt(&tick);
                self.last = Arc::clone(&tick);
                audience.tell(tick).await;
            } else {
                self.pause = (self.pause * 2).min(self.cadence.max);
            }
            tokio::select! {
                () = tokio::time::sleep(self.pause) => {}
                () = nudge.notified() => is_due = true,
                () = audience.gone() => {}
            }
        }
        Ok(())
    }

    async fn is_due(&self) -> Result<bool> {
        let row = self
            .connection
            .client()
            .query_one(&self.probe, &[])
            .await
            .map_err(|cause| classify("look at the outbox", cause))?;
        let snapshot: PgSnapshot = row.get(1);
        Ok(self.last.is_stale(&Probe { drawn: row.get(0), snapshot: snapshot.0 }))
    }

    /// One observation. The statements run in this order on one connection, in one round trip; the
    /// tick is a transaction of its own, and its answer is complete when its commit has returned.
    async fn observe(&self) -> Result<Tick> {
        let client = self.connection.client();
        let (floor, tick, ceiling) = tokio::try_join!(
            biased;
            client.query_one(&self.drawn, &[]),
            client.query_one(&self.tick, &[]),
            client.query_one(&self.drawn, &[]),
        )
        .map_err(|cause| classify("tick", cause))?;
        let snapshot: PgSnapshot = tick.get(0);
        let next: Xid8 = tick.get(1);
        let observed = Observation {
            floor: floor.get(0),
            snapshot: snapshot.0,
            next: next.0,
            ceiling: ceiling.get(0),
        };
        Tick::follow(&self.last, observed).map_err(|cause| {
            Error::new(ErrorKind::History, cause.to_string())
                .with_remedy("the server was replaced by an older copy; see `postrider status`")
                .with_source(cause)
        })
    }

    /// The busier the outbox, the longer the pause: a tick costs the same for one event as for many.
    fn adapt(&mut self, tick: &Tick) {
        let events = (tick.ceiling - self.last.ceiling).max(0) as f64;
        let rate = events / self.last_at.elapsed().as_secs_f64().max(1e-3);
        self.last_at = Instant::now();
        let share = (rate / BUSY_EVENTS_PER_SECOND).min(1.0);
        let Cadence { min, max } = self.cadence;
        self.pause = min + max.saturating_sub(min).mul_f64(share);
    }
}
