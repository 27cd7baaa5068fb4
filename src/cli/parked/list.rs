//! `postrider parked list`.
//!
//! Promises: one line per event, by rising `seq`. Must not: change anything. Fails: as its parent.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::cli::output::show_age;
use crate::cli::parked::{Chosen, Selection, count};
use crate::cli::{block_on, open_outbox, output};
use crate::config::settings::CommonSettings;
use crate::config::units::show_bytes;
use crate::error::Result;
use crate::legible;
use crate::postgres::{Connection, Sql, classify};

static LIST: Sql = Sql::of(include_str!("../../../sql/queries/parked_list.sql"));

/// Lists parked events.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  postrider parked list
  postrider parked list --aggregate order/4711 --json")]
pub(in crate::cli) struct ListArguments {
    #[command(flatten)]
    selection: Selection,

    /// Lists so many at most.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: u32,

    /// Prints JSON instead of a table.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    common: CommonSettings,
}

/// A parked event without its payload.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Listed {
    pub(in crate::cli) seq: i64,
    pub(in crate::cli) id: String,
    pub(in crate::cli) aggregatetype: String,
    pub(in crate::cli) aggregateid: String,
    r#type: String,
    pub(in crate::cli) reason: String,
    detail: String,
    topic: Option<String>,
    attempts: i32,
    payload_bytes: i64,
    parked_age_seconds: f64,
    /// Whether its aggregate is to be tried again.
    is_requested: bool,
}

#[derive(Debug, Serialize)]
pub(in crate::cli) struct List {
    /// How many were chosen; those that are listed may be fewer.
    pub(in crate::cli) total: i64,
    pub(in crate::cli) events: Vec<Listed>,
}

pub(in crate::cli) fn run(arguments: ListArguments) -> Result<ExitCode> {
    let list = block_on(async move {
        let connection = open_outbox(arguments.common, "parked").await?;
        read(&connection, &arguments.selection.into(), Some(arguments.limit.into())).await
    })?;
    if arguments.json {
        output::answer_json(&list)?;
    } else {
        output::answer(&list.table())?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(in crate::cli) async fn read(
    connection: &Connection,
    chosen: &Chosen,
    limit: Option<i64>,
) -> Result<List> {
    let Chosen { aggregate_type, aggregate_id, event, reason } = chosen;
    let rows = connection
        .client()
        .query(LIST.text(), &[aggregate_type, aggregate_id, event, reason, &limit])
        .await
        .map_err(|cause| classify("list parked events", cause))?;
    Ok(List {
        total: rows.first().map_or(0, |row| row.get("total")),
        events: rows.iter().map(Listed::read).collect(),
    })
}

impl Listed {
    fn read(row: &Row) -> Self {
        Self {
            seq: row.get("seq"),
            id: row.get::<_, Uuid>("id").to_string(),
            aggregatetype: row.get("aggregatetype"),
            aggregateid: row.get("aggregateid"),
            r#type: row.get("type"),
            reason: row.get("reason"),
            detail: row.get("detail"),
            topic: row.get("topic"),
            attempts: row.get("attempts"),
            payload_bytes: row.get("payload_bytes"),
            parked_age_seconds: row.get("parked_age_seconds"),
            is_requested: row.get("is_requested"),
        }
    }

    fn line(&self) -> String {
        let mut line = format!(
            "{:>10}  {}  {:<17}  {:>8}  {:>8}  {:>10}  {}",
            self.seq,
            self.id,
            self.reason,
            self.attempts,
            show_age(Some(self.parked_age_seconds)),
            show_bytes(self.payload_bytes.unsigned_abs()),
            legible::aggregate(&self.aggregatetype, &self.aggregateid),
        );
        if self.is_requested {
            line.push_str("  (to be tried again)");
        }
        if !self.detail.is_empty() {
            line.push_str(&format!("\n{:>12}{}", "", legible::name(&self.detail)));
        }
        line + "\n"
    }
}

impl List {
    pub(in crate::cli) fn table(&self) -> String {
        if self.events.is_empty() {
            return "nothing is parked\n".to_owned();
        }
        let [seq, reason, attempts, parked, payload] =
            ["seq", "reason", "attempts", "parked", "payload"];
        let mut text = format!(
            "{seq:>10}  {:<36}  {reason:<17}  {attempts:>8}  {parked:>8}  {payload:>10}  aggregate\n",
            "event"
        );
        text.extend(self.events.iter().map(Listed::line));
        let listed = i64::try_from(self.events.len()).unwrap_or(i64::MAX);
        if listed < self.total {
            text.push_str(&format!(
                "({listed} of {}; --limit shows more)\n",
                count(self.total, "event")
            ));
        }
        text
    }
}
