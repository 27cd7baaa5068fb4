//! Rows that no cursor has read, though their bucket's may have passed them.
//!
//! Promises: whatever a range has left out since ticks are remembered is found; no statement is long; one that was read
//! all the same is not named where it is known. Must not: change anything. Fails: with the connection's error.
//!
//! `src/control/retention/proof.rs` says by which law, and why that is all there is.

use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::error::Result;
use crate::event::Bucket;
use crate::postgres::{Connection, Sql, Xid8, classify};

static LEAVES: Sql = Sql::of(include_str!("../../sql/queries/retention_leaves.sql"));
static LAW: Sql = Sql::of(include_str!("../../sql/queries/law.sql"));
static UNREAD: Sql = Sql::of(include_str!("../../sql/queries/unread.sql"));
static STATE: Sql = Sql::of(include_str!("../../sql/queries/unread_state.sql"));

/// 4 MiB, in which some 20,000 rows lie: a statement takes some 5 ms, if the blocks are at hand, and some seconds where
/// each row breaks the law in a transaction of its own, with ten thousand notes.
pub const CHUNK_BLOCKS: i64 = 512;
/// For how long whoever looks on looks.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// Rows that one statement names.
pub const ROWS_MAX: i64 = 500;

/// One partition of a bucket.
#[derive(Clone, Debug)]
pub struct BucketPartition {
    /// Its number.
    pub oid: u32,
    /// Its name, quoted.
    pub name: String,
    /// Whose rows lie there.
    pub bucket: Bucket,
    /// Which part of the ring.
    pub generation: i32,
}

/// How a partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// How many blocks it has.
    pub blocks: i64,
    /// How many rows were written into it, committed or not, as far as the server has counted.
    pub written: i64,
}

/// A row that nobody has read.
#[derive(Clone, Debug)]
pub struct UnreadRow {
    /// Its number, which nobody drew.
    pub seq: i64,
    /// Its event.
    pub id: Uuid,
    /// Whether the cursor has passed it; else it may be read yet.
    pub is_passed: bool,
}

/// What was found in some time.
#[derive(Debug, Default)]
pub struct UnreadLook {
    /// With their buckets.
    pub rows: Vec<(Bucket, UnreadRow)>,
    /// Whether everything was looked at.
    pub is_whole: bool,
}

/// The partitions of the outbox.
///
/// # Errors
/// When the connection fails.
pub async fn partitions(connection: &Connection) -> Result<Vec<BucketPartition>> {
    let rows = connection.client().query(LEAVES.text(), &[]).await;
    let rows = rows.map_err(|cause| classify("list the partitions of the outbox", cause))?;
    let bucket = |row: &Row| u16::try_from(row.get::<_, i16>("bucket")).expect("at most 64");
    let partition = |row: &Row| BucketPartition {
        oid: row.get("oid"),
        name: row.get("name"),
        bucket: Bucket(bucket(row)),
        generation: row.get("generation"),
    };
    Ok(rows.iter().map(partition).collect())
}

/// How partitions stand, by their numbers.
///
/// # Errors
/// When the connection fails.
pub async fn states(
    connection: &Connection,
    leaves: &[BucketPartition],
) -> Result<HashMap<u32, PartitionState>> {
    let numbers: Vec<u32> = leaves.iter().map(|leaf| leaf.oid).collect();
    let rows = connection.client().query(STATE.text(), &[&numbers]).await;
    let rows = rows.map_err(|cause| classify("look at the partitions", cause))?;
    let state =
        |row: &Row| PartitionState { blocks: row.get("blocks"), written: row.get("written") };
    Ok(rows.iter().map(|row| (row.get("leaf"), state(row))).collect())
}

/// By what the rows of a partition are judged.
#[derive(Debug)]
pub struct TickLaw {
    nexts: Vec<Xid8>,
    uptos: Vec<i64>,
    undrawn: Vec<Xid8>,
    undrawn_uptos: Vec<i64>,
}

impl TickLaw {
    /// Whether the log brought every row, as far as is remembered.
    pub fn judges_nothing(&self) -> bool {
        self.undrawn.is_empty() && self.uptos.iter().all(|upto| *upto == i64::MIN)
    }
}

/// The law for all rows that are written so far.
///
/// # Errors
/// When the connection fails.
pub async fn law(connection: &Connection) -> Result<TickLaw> {
    let row = connection.client().query_one(LAW.text(), &[]).await;
    let row = row.map_err(|cause| classify("read what ticks saw", cause))?;
    Ok(TickLaw {
        nexts: row.get("nexts"),
        uptos: row.get("uptos"),
        undrawn: row.get("undrawn"),
        undrawn_uptos: row.get("undrawn_uptos"),
    })
}

/// The first rows of a chunk that nobody has read, from this block on.
///
/// # Errors
/// When the connection fails.
pub async fn chunk(
    connection: &Connection,
    leaf: &BucketPartition,
    law: &TickLaw,
    first: i64,
) -> Result<Vec<UnreadRow>> {
    let sql =
        UNREAD.text().replace("{table}", &leaf.name).replace("{bucket}", &leaf.bucket.to_string());
    let end = first + CHUNK_BLOCKS;
    let TickLaw { nexts, uptos, undrawn, undrawn_uptos } = law;
    let parameters: [&(dyn ToSql + Sync); 7] =
        [&first, &end, &ROWS_MAX, nexts, uptos, undrawn, undrawn_uptos];
    let rows = connection.client().query(&sql, &parameters).await;
    let rows = rows.map_err(|cause| classify("look for rows that nobody has read", cause))?;
    let unread = rows.iter().map(|row| UnreadRow {
        seq: row.get("seq"),
        id: row.get("id"),
        is_passed: row.get("is_passed"),
    });
    Ok(unread.collect())
}

/// Looks through the whole outbox, as far as the time goes.
///
/// # Errors
/// When the connection fails.
pub async fn look(connection: &Connection, deadline: Instant) -> Result<UnreadLook> {
    let mut found = UnreadLook::default();
    let leaves = partitions(connection).await?;
    let states = states(connection, &leaves).await?;
    let law = law(connection).await?;
    for leaf in leaves.iter().filter(|_| !law.judges_nothing()) {
        let blocks = states[&leaf.oid].blocks;
        for first in (0..blocks).step_by(CHUNK_BLOCKS as usize) {
            if Instant::now() >= deadline {
                return Ok(found);
            }
            let rows = chunk(connection, leaf, &law, first).await?;
            found.rows.extend(rows.into_iter().map(|row| (leaf.bucket, row)));
        }
    }
    found.is_whole = true;
    Ok(found)
}
