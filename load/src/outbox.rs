//! The outbox table, as an application knows it: where it is, and how events are written to it.
//!
//! Promises: an event is inserted with nothing but `aggregatetype, aggregateid, type, payload` (and
//! `headers` when asked for), so that any relay's table will do. Must not: read or change what a
//! relay keeps. Fails: when the server refuses, with the server's words.

use anyhow::{Context, Result, bail};
use tokio_postgres::{Client, NoTls, Statement};

use crate::event::{Fate, Mark};
use crate::pick::{Dice, Pick};
use crate::{process, screen};

/// The aggregate type of every load event; the default topic ends in it.
const AGGREGATE_TYPE: &str = "order";

/// The type of every load event.
const EVENT_TYPE: &str = "OrderChanged";

/// Opens a connection and keeps it going in the background.
///
/// # Errors
/// When the server cannot be reached or refuses. Connections are without TLS.
pub(crate) async fn connect(database_url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(database_url, NoTls)
        .await
        .context("PostgreSQL cannot be reached with --database-url")?;
    tokio::spawn(async move {
        // Whoever uses the client gets the same error from its next call.
        connection.await.ok();
    });
    Ok(client)
}

/// The table of events and how its payload is stored.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    table: String,
    payload_expression: &'static str,
}

impl Outbox {
    /// Looks the table up.
    ///
    /// # Errors
    /// When it does not exist, or its payload column has a type that is not known.
    pub(crate) async fn find(client: &Client, table: &str) -> Result<Self> {
        let row = client
            .query_opt(
                "select c.oid::regclass::text, format_type(a.atttypid, null) from pg_class c \
                 join pg_attribute a on a.attrelid = c.oid and a.attname = 'payload' \
                 where c.oid = to_regclass($1)",
                &[&table],
            )
            .await
            .context("the outbox table cannot be looked up")?;
        let Some(row) = row else {
            bail!("there is no table {table} with a column payload; make the outbox first");
        };
        let payload_type: String = row.get(1);
        let payload_expression = match payload_type.as_str() {
            "json" => "p::json",
            "jsonb" => "p::jsonb",
            "text" | "character varying" => "p",
            "bytea" => "convert_to(p, 'UTF8')",
            other => {
                bail!("the payload of {table} is {other}; json, jsonb, text or bytea is needed")
            }
        };
        Ok(Self { table: row.get(0), payload_expression })
    }

    /// Whether the table has any row, published or not.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub(crate) async fn has_rows(&self, client: &Client) -> Result<bool> {
        let sql = format!("select exists (select from {})", self.table);
        Ok(client.query_one(&sql, &[]).await.context("the outbox cannot be read")?.get(0))
    }

    /// Empties the table.
    ///
    /// # Errors
    /// When the role may not, or somebody holds the table for 10 s.
    pub(crate) async fn truncate(&self, client: &Client) -> Result<()> {
        let sql = format!("begin; set local lock_timeout = '10s'; truncate {}; commit", self.table);
        client.batch_execute(&sql).await.context("the outbox cannot be truncated")
    }

    /// Gives the planner its statistics and the disk its pages, so that neither falls into the
    /// measurement. A role that may not do so is told, and the measurement goes on.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(crate) async fn settle(&self, client: &Client) -> Result<()> {
        for statement in [format!("analyze {}", self.table), "checkpoint".to_owned()] {
            match client.batch_execute(&statement).await {
                Ok(()) => {}
                Err(error) if error.as_db_error().is_some() => {
                    screen::talk(&format!("{statement} is not possible here, going on: {error}"));
                }
                Err(error) => return Err(error).context("the connection to PostgreSQL was lost"),
            }
        }
        Ok(())
    }

    /// The statement that writes one batch of events.
    ///
    /// # Errors
    /// When the table lacks a column that an event needs.
    pub(crate) async fn prepare_insert(
        &self,
        client: &Client,
        headers: &RowHeaders,
    ) -> Result<Statement> {
        let (column, value) =
            if headers.0.is_some() { (", headers", ", $3::text::jsonb") } else { ("", "") };
        let sql = format!(
            "insert into {} (aggregatetype, aggregateid, type, payload{column}) \
             select '{AGGREGATE_TYPE}', k, '{EVENT_TYPE}', {}{value} \
             from unnest($1::text[], $2::text[]) as e(k, p)",
            self.table, self.payload_expression,
        );
        client.prepare(&sql).await.with_context(|| format!("{} is no outbox", self.table))
    }
}

/// The process id of the server, when it runs on this machine.
///
/// # Errors
/// When the server does not answer.
pub(crate) async fn server_pid(client: &Client) -> Result<Option<u32>> {
    let row = client.query_one("select pg_backend_pid()", &[]).await;
    let backend: i32 = row.context("PostgreSQL does not answer")?.get(0);
    Ok(u32::try_from(backend).ok().and_then(|pid| process::parent_if_named(pid, "postgres")))
}

/// The headers that every row carries, as one JSON object.
#[derive(Clone, Debug)]
pub(crate) struct RowHeaders(Option<String>);

impl RowHeaders {
    /// So many headers with short names and values; 0 leaves the column out.
    pub(crate) fn of_count(count: u32) -> Self {
        let pairs: Vec<String> =
            (1..=count).map(|at| format!(r#""header-{at}":"value-{at}""#)).collect();
        Self((count > 0).then(|| format!("{{{}}}", pairs.join(","))))
    }
}

/// What the events of a run have in common.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Tells this run's events from others.
    pub(crate) run: u32,
    /// Number of aggregates over all writers.
    pub(crate) aggregates: u32,
    /// Number of writers.
    pub(crate) writers: u16,
    /// Length of each payload.
    pub(crate) payload_bytes: u32,
    /// The rows' headers.
    pub(crate) headers: RowHeaders,
    /// Of 100 transactions, how many are rolled back.
    pub(crate) rollback_percent: u32,
}

impl Shape {
    /// How many aggregates a writer owns: `writer`, `writer + writers`, ...
    fn slots(&self, writer: u16) -> u32 {
        let (aggregates, writers) = (self.aggregates, u32::from(self.writers));
        (aggregates + writers - 1 - u32::from(writer)) / writers
    }
}

/// One writer's events: composes them and remembers what was committed.
#[derive(Debug)]
pub(crate) struct Pen {
    shape: Shape,
    writer: u16,
    versions: Vec<u32>,
    transaction: u32,
    dice: Dice,
    pick: Pick,
    keys: Vec<String>,
    payloads: Vec<String>,
}

impl Pen {
    /// The pen of one writer; `seed` makes its choices repeatable.
    pub(crate) fn new(shape: &Shape, writer: u16, pick: Pick, seed: u64) -> Self {
        Self {
            versions: vec![0; shape.slots(writer) as usize],
            shape: shape.clone(),
            writer,
            transaction: 0,
            dice: Dice::new(seed ^ (u64::from(writer) << 48)),
            pick,
            keys: Vec::new(),
            payloads: Vec::new(),
        }
    }

    /// Decides whether the next transaction commits.
    pub(crate) fn next_fate(&mut self) -> Fate {
        if self.dice.below(100) < self.shape.rollback_percent {
            Fate::RollBack
        } else {
            Fate::Commit
        }
    }

    /// Writes one transaction of `rows` events and ends it as `fate` says.
    ///
    /// # Errors
    /// When the server refuses; what became of the transaction is not known then, so the run ends.
    pub(crate) async fn write(
        &mut self,
        client: &Client,
        insert: &Statement,
        rows: u32,
        fate: Fate,
        intended_unix_us: u64,
    ) -> Result<()> {
        self.compose(rows, fate, intended_unix_us);
        if fate == Fate::Commit {
            return self.insert(client, insert).await;
        }
        client.batch_execute("begin").await.context("a transaction cannot be started")?;
        self.insert(client, insert).await?;
        client.batch_execute("rollback").await.context("a transaction cannot be rolled back")
    }

    async fn insert(&self, client: &Client, insert: &Statement) -> Result<()> {
        let sent = match &self.shape.headers.0 {
            Some(headers) => client.execute(insert, &[&self.keys, &self.payloads, headers]).await,
            None => client.execute(insert, &[&self.keys, &self.payloads]).await,
        };
        sent.context("the insert into the outbox failed").map(drop)
    }

    fn compose(&mut self, rows: u32, fate: Fate, intended_unix_us: u64) {
        self.transaction += 1;
        self.keys.resize_with(rows as usize, String::new);
        self.payloads.resize_with(rows as usize, String::new);
        for row in 0..rows as usize {
            let slot = self.pick.next(self.versions.len() as u32, &mut self.dice);
            let version = self.versions[slot as usize] + 1;
            if fate == Fate::Commit {
                self.versions[slot as usize] = version;
            }
            let mark = Mark {
                run: self.shape.run,
                aggregate: slot * u32::from(self.shape.writers) + u32::from(self.writer),
                version,
                writer: self.writer,
                transaction: self.transaction,
                intended_unix_us,
                fate,
            };
            mark.write_key(&mut self.keys[row]);
            mark.write_payload(self.shape.payload_bytes, &mut self.payloads[row]);
        }
    }
}

/// The last committed version of every aggregate: what the topic must hold in the end.
pub(crate) fn committed_versions(shape: &Shape, pens: &[Pen]) -> Vec<u32> {
    let mut versions = vec![0; shape.aggregates as usize];
    for pen in pens {
        for (slot, &version) in pen.versions.iter().enumerate() {
            versions[slot * usize::from(shape.writers) + usize::from(pen.writer)] = version;
        }
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(aggregates: u32, writers: u16) -> Shape {
        Shape {
            run: 1,
            aggregates,
            writers,
            payload_bytes: 200,
            headers: RowHeaders::of_count(0),
            rollback_percent: 0,
        }
    }

    #[test]
    fn every_aggregate_has_one_writer() {
        for (aggregates, writers) in [(10, 4), (4, 4), (7, 3), (1, 1)] {
            let shape = shape(aggregates, writers);
            let total: u32 = (0..writers).map(|writer| shape.slots(writer)).sum();
            assert_eq!(total, aggregates, "{aggregates} over {writers}");
        }
    }

    #[test]
    fn versions_count_what_was_committed_only() {
        let shape = shape(10, 2);
        let pens: Vec<Pen> = (0..2)
            .map(|writer| {
                let mut pen = Pen::new(&shape, writer, Pick::Walk { step: 0 }, 1);
                pen.compose(30, Fate::Commit, 1);
                pen.compose(30, Fate::RollBack, 1);
                pen
            })
            .collect();
        let versions = committed_versions(&shape, &pens);
        assert_eq!(versions.iter().sum::<u32>(), 60);
    }

    #[test]
    fn headers_are_one_json_object() {
        assert_eq!(RowHeaders::of_count(0).0, None);
        let text = RowHeaders::of_count(2).0.unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["header-2"], "value-2");
    }
}
