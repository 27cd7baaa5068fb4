//! The outbox table, as an application knows it: where it is, and how events are written to it.
//!
//! Promises: an event is inserted with nothing but `aggregatetype, aggregateid, type, payload`, `id`
//! where it is a UUID, and `headers` when asked for, so that any relay's table will do. Must not: read or change what a
//! relay keeps. Fails: when the server refuses, with the server's words.

use anyhow::{Context, Result, bail};
use tokio_postgres::{Client, NoTls, Statement};

use crate::measure::process;
use crate::output;
use crate::workload::batch::RowHeaders;

/// The aggregate type of every load event; the default topic ends in it.
pub(crate) const AGGREGATE_TYPE: &str = "order";

/// The type of every load event.
pub(crate) const EVENT_TYPE: &str = "OrderChanged";

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

/// Where the events go in.
#[derive(Clone, Debug)]
pub(crate) struct EventSource {
    /// The database with the outbox.
    pub(crate) database_url: String,
    /// The outbox table.
    pub(crate) outbox: String,
}

/// Where an event's id comes from, in a table whose `id` is a UUID.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ids {
    /// The writer makes it, as applications do.
    Given,
    /// The column's default makes it.
    Default,
}

/// The table of events and how its payload is stored.
#[derive(Clone, Debug)]
pub(crate) struct EventTable {
    table: String,
    payload_expression: &'static str,
    takes_ids: bool,
}

impl EventTable {
    /// Looks the table up.
    ///
    /// # Errors
    /// When it does not exist, or its payload column has a type that is not known.
    pub(crate) async fn find(client: &Client, table: &str) -> Result<Self> {
        let row = client
            .query_opt(
                "select c.oid::regclass::text, format_type(a.atttypid, null), exists ( \
                     select from pg_attribute i \
                     where i.attrelid = c.oid and i.attname = 'id' and i.atttypid = 'uuid'::regtype) \
                 from pg_class c \
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
        Ok(Self { table: row.get(0), payload_expression, takes_ids: row.get(2) })
    }

    /// The same table, whose ids come from where `ids` says.
    pub(crate) fn with_ids(self, ids: Ids) -> Self {
        Self { takes_ids: self.takes_ids && ids == Ids::Given, ..self }
    }

    /// Whether the writer gives each event its id.
    pub(crate) fn takes_ids(&self) -> bool {
        self.takes_ids
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
                    output::talk(&format!("{statement} is not possible here, going on: {error}"));
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
        let (id, value, given, name) =
            if self.takes_ids { (", id", ", i", ", $3::uuid[]", ", i") } else { ("", "", "", "") };
        let at = if self.takes_ids { 4 } else { 3 };
        let (headers, json) = match headers.json() {
            Some(_) => (", headers", format!(", ${at}::text::jsonb")),
            None => ("", String::new()),
        };
        let sql = format!(
            "insert into {} (aggregatetype, aggregateid, type, payload{id}{headers}) \
             select '{AGGREGATE_TYPE}', k, '{EVENT_TYPE}', {}{value}{json} \
             from unnest($1::text[], $2::text[]{given}) as e(k, p{name})",
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
