//! Leases: which instance owns which bucket, in the database and by its clock.
//!
//! Promises: a bucket is taken only under the epoch under which it was seen to be free, so that of
//! two instances one gets it; whoever could not renew in time learns so by its own clock before the
//! lease can be taken. Must not: know events or cursors, or decide who should own what.
//! Fails: with the connection's error; [`ErrorKind::Fenced`] when the lease ran out.
//!
//! ```text
//!  0 ───────── renewed each tenth ─────────── 0.7 ───────── 0.85 ──────── 1.0 of --lease-seconds
//!  sent         the owner's own deadline,      │             │             │
//!               counted from the sending ──────┘             │             │
//!               the database's: others may take ─────────────┘             │
//!               by then somebody else has taken ───────────────────────────┘
//! ```
//!
//! The owner counts from the moment before it *sends* a renewal, the database from the moment at
//! which it carries it out, which is later. Neither reads the other's clock.
//!
//! No lease covers a process that is stopped and goes on later, nor a record that is already on its
//! way to Kafka. Two things make that harmless. The epoch: a former owner saves no cursor. And order:
//! a former owner sends only what follows, without a gap, on what was acknowledged before; its
//! successor starts at the saved cursor, which lies at or before that. So whichever of the two brings
//! an event first, all earlier events of its aggregate are in the topic already.
//!
//! An instance that dies leaves a session that the server ends with it, and with the session the
//! lock under the instance's name. Others then need not wait for the lease: silence for a fifth of
//! `--lease-seconds` is enough. What else is owned, and by whom, is told at the head of `src/relay/mod.rs`.

pub mod plan;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio_postgres::Statement;

use crate::control::lease::plan::{Holding, Tier};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::postgres::{Connection, Sql, classify};

static JOIN: Sql = Sql::of(include_str!("../../../sql/queries/lease_join.sql"));
static RENEW: Sql = Sql::of(include_str!("../../../sql/queries/lease_renew.sql"));
static LIVE: Sql = Sql::of(include_str!("../../../sql/queries/lease_live.sql"));
static OWNERS: Sql = Sql::of(include_str!("../../../sql/queries/lease_owners.sql"));
static TAKE: Sql = Sql::of(include_str!("../../../sql/queries/lease_take.sql"));
static RELEASE: Sql = Sql::of(include_str!("../../../sql/queries/lease_release.sql"));
static LISTED: Sql = Sql::of(include_str!("../../../sql/queries/instances_listed.sql"));
static FORGET: Sql = Sql::of(include_str!("../../../sql/queries/lease_forget.sql"));
static LEAVE: Sql = Sql::of(include_str!("../../../sql/queries/lease_leave.sql"));

/// The moments in the life of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Between two renewals, and two looks at the tier.
    pub interval: Duration,
    /// Silence after which an instance without a session counts as dead.
    pub silence: Duration,
    /// From the sending of a renewal to the moment at which the owner has stopped.
    pub own: Duration,
    /// From a renewal to the moment at which others may take.
    pub lease: Duration,
}

impl Terms {
    /// The terms under which a dead owner's buckets are taken within `seconds`.
    pub fn new(seconds: u32) -> Self {
        let whole = Duration::from_secs(seconds.into());
        Self {
            interval: whole / 10,
            silence: whole / 5,
            own: whole * 7 / 10,
            lease: whole * 17 / 20,
        }
    }
}

/// A bucket and the epoch under which it is owned.
pub type Owned = (Bucket, i64);

/// Silence after which an instance without a session counts as dead for whoever knows no terms.
const SILENCE_MILLIS: i64 = 2_000;

/// Clocks are compared by round trips that are not longer.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(500);

/// How many instances have a lease and are alive.
///
/// # Errors
/// When the connection fails.
pub async fn live_instances(connection: &Connection) -> Result<usize> {
    let live = connection.client().query(LIVE.text(), &[&"", &SILENCE_MILLIS]).await;
    live.map(|rows| rows.len()).map_err(|cause| classify("look for other instances", cause))
}

/// One instance's membership of the tier.
#[derive(Debug)]
pub struct Lease {
    connection: Connection,
    name: String,
    shards: i16,
    terms: Terms,
    statements: LeaseStatements,
    /// Whether the session holds the lock under our name.
    announced: bool,
    /// When the owner has to have stopped.
    deadline: Instant,
    database_ahead_micros: i64,
}

#[derive(Debug)]
struct LeaseStatements {
    renew: Statement,
    live: Statement,
    owners: Statement,
    take: Statement,
    release: Statement,
}

impl LeaseStatements {
    async fn prepare(connection: &Connection) -> std::result::Result<Self, tokio_postgres::Error> {
        let client = connection.client();
        let (renew, live, owners, take, release) = tokio::try_join!(
            client.prepare(RENEW.text()),
            client.prepare(LIVE.text()),
            client.prepare(OWNERS.text()),
            client.prepare(TAKE.text()),
            client.prepare(RELEASE.text()),
        )?;
        Ok(Self { renew, live, owners, take, release })
    }
}

impl Lease {
    /// Joins the tier. Nothing is owned yet, but what was owned under this name before.
    ///
    /// # Errors
    /// When the connection fails, or the role lacks a right on `postrider.instance`.
    pub async fn join(
        connection: Connection,
        name: &str,
        shards: usize,
        terms: Terms,
    ) -> Result<Self> {
        let failed = |cause| classify("join the relay tier", cause);
        connection.client().execute(JOIN.text(), &[]).await.map_err(failed)?;
        let statements = LeaseStatements::prepare(&connection).await.map_err(failed)?;
        let mut lease = Self {
            connection,
            name: name.to_owned(),
            shards: i16::try_from(shards).expect("there are at most as many shards as buckets"),
            terms,
            statements,
            announced: false,
            deadline: Instant::now() + terms.own,
            database_ahead_micros: 0,
        };
        lease.renew().await?;
        Ok(lease)
    }

    /// The name of its owner.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Between two renewals, and two looks at the tier.
    pub fn interval(&self) -> Duration {
        self.terms.interval
    }

    /// The moment at which everything that rests on the lease has to have stopped.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Renews the lease.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] when there was no answer in time; the connection's error.
    pub async fn renew(&mut self) -> Result<()> {
        let sent = Instant::now();
        let lasts = millis(self.terms.lease);
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&self.name, &self.shards, &lasts, &self.announced];
        let answer = self.connection.client().query_one(&self.statements.renew, &parameters);
        let answer = tokio::time::timeout_at(self.deadline.into(), answer).await;
        let row = answer
            .map_err(|_| run_out(&self.name))?
            .map_err(|cause| classify("renew the lease", cause))?;
        self.announced = row.get("announced");
        self.deadline = sent + self.terms.own;
        self.compare_clocks(sent.elapsed(), row.get("now_micros"));
        Ok(())
    }

    /// What the database's clock showed in the middle of a round trip. A long one tells too little.
    fn compare_clocks(&mut self, round_trip: Duration, database_micros: i64) {
        if round_trip > ROUND_TRIP_MAX {
            return;
        }
        let middle = SystemTime::now() - round_trip / 2;
        let since = middle.duration_since(UNIX_EPOCH).unwrap_or_default();
        let own_micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        self.database_ahead_micros = database_micros.saturating_sub(own_micros);
    }

    /// Looks at the tier.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn look(&self) -> Result<Tier> {
        let failed = |cause| classify("look at the relay tier", cause);
        let silence = millis(self.terms.silence);
        let client = self.connection.client();
        // An owner that is seen here was alive when it took: its row is there for the second look.
        let owners = client.query(&self.statements.owners, &[]).await.map_err(failed)?;
        let live = client.query(&self.statements.live, &[&self.name, &silence]).await;
        Ok(Tier {
            live: live.map_err(failed)?.iter().map(|row| row.get("name")).collect(),
            holdings: owners
                .iter()
                .map(|row| Holding {
                    bucket: bucket(row),
                    epoch: row.get("epoch"),
                    owner: row.get("owner"),
                })
                .collect(),
        })
    }

    /// Takes buckets that were seen to be free; those that another instance took first are missing
    /// in the answer.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn take(&self, free: &[Owned]) -> Result<Vec<Owned>> {
        let (buckets, epochs) = columns(free);
        let taken = self
            .connection
            .client()
            .query(&self.statements.take, &[&self.name, &buckets, &epochs])
            .await
            .map_err(|cause| classify("take buckets", cause))?;
        Ok(taken.iter().map(|row| (bucket(row), row.get("epoch"))).collect())
    }

    /// Lets buckets go whose last cursors are saved.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn release(&self, owned: &[Owned]) -> Result<()> {
        let (buckets, epochs) = columns(owned);
        self.connection
            .client()
            .execute(&self.statements.release, &[&self.name, &buckets, &epochs])
            .await
            .map(|_| ())
            .map_err(|cause| classify("let buckets go", cause))
    }

    /// Which of these names are in the list of instances.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn listed(&self, names: &[String]) -> Result<Vec<String>> {
        let listed = self.connection.client().query(LISTED.text(), &[&names]).await;
        let listed = listed.map_err(|cause| classify("look for other instances", cause))?;
        Ok(listed.iter().map(|row| row.get("name")).collect())
    }

    /// Takes those from the list of instances whose lease has run out a lease ago.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn forget_the_dead(&self) -> Result<()> {
        let since = millis(self.terms.lease);
        let forgotten =
            self.connection.client().execute(FORGET.text(), &[&self.name, &since]).await;
        forgotten.map(|_| ()).map_err(|cause| classify("forget dead instances", cause))
    }

    /// By how much the database's clock is ahead of ours, as the last renewal showed it.
    pub fn database_ahead_micros(&self) -> i64 {
        self.database_ahead_micros
    }

    /// Leaves the tier, with no bucket owned any more.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn leave(self) -> Result<()> {
        let left = self.connection.client().execute(LEAVE.text(), &[&self.name]).await;
        left.map(|_| ()).map_err(|cause| classify("leave the relay tier", cause))
    }
}

fn run_out(name: &str) -> Error {
    Error::new(
        ErrorKind::Fenced,
        format!(
            "PostgreSQL gave no answer before the lease of {name} ran out, or this process stood still: others may \
             take its buckets"
        ),
    )
    .with_remedy(
        "look at the database's load and the network; --lease-seconds sets how long a lease lasts",
    )
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).expect("a lease does not last for ages")
}

fn bucket(row: &tokio_postgres::Row) -> Bucket {
    let number: i16 = row.get("bucket");
    Bucket(u16::try_from(number).expect("a bucket is not negative"))
}

fn columns(owned: &[Owned]) -> (Vec<i16>, Vec<i64>) {
    let number = |bucket: Bucket| i16::try_from(bucket.0).expect("there are at most 64 buckets");
    owned.iter().map(|(bucket, epoch)| (number(*bucket), *epoch)).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_has_stopped_before_others_may_take() {
        for seconds in [1, 5, 10, 3_600] {
            let terms = Terms::new(seconds);
            assert!(terms.own < terms.lease && terms.interval * 3 < terms.own, "{terms:?}");
            let taken = terms.lease + terms.interval;
            assert!(taken < Duration::from_secs(seconds.into()), "{terms:?}");
        }
    }
}
