//! `postrider replay list` and `postrider replay cancel`.
//!
//! Promises: each replay with how far it is and what it waits for; a cancelled one sends no further page.
//! Must not: take away what was sent. Fails: as its parent.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use tokio_postgres::Row;

use crate::cli::output::show_age;
use crate::cli::{block_on, open_outbox, output};
use crate::config::settings::CommonSettings;
use crate::error::{Error, ErrorKind, Result};
use crate::legible;
use crate::postgres::{Connection, classify};

const LIST: &str = include_str!("../../../sql/queries/replay_list.sql");
const CANCEL: &str = include_str!("../../../sql/queries/replay_cancel.sql");

/// Lists replays, the latest first.
#[derive(Args, Debug)]
pub(super) struct ReplayListArguments {
    /// Lists so many at most.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    limit: u32,

    /// Prints JSON instead of a table.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    common: CommonSettings,
}

/// Cancels a replay; what it has sent stays sent.
#[derive(Args, Debug)]
pub(super) struct CancelArguments {
    /// Its number.
    #[arg(value_name = "REPLAY")]
    replay: i64,

    #[command(flatten)]
    common: CommonSettings,
}

/// A replay, and how far it is.
#[derive(Debug, Serialize)]
struct ListedReplay {
    replay: i64,
    /// `waits`, `runs`, `done` or `cancelled`.
    state: String,
    /// How many events it is about.
    events: i64,
    /// How many were sent; what was sent again counts again.
    sent: i64,
    /// How many can never be records.
    left_out: i64,
    /// Null for the topics as before.
    to_topic: Option<String>,
    /// Null for as fast as it goes.
    events_per_second: Option<i32>,
    /// Buckets that are not at their end.
    buckets_open: i64,
    requested_by: String,
    age_seconds: f64,
    cancelled_by: Option<String>,
    /// What it waits for.
    trouble: Option<String>,
}

#[derive(Debug, Serialize)]
struct ReplayList {
    replays: Vec<ListedReplay>,
}

pub(super) fn run(arguments: ReplayListArguments) -> Result<ExitCode> {
    let list = block_on(async move {
        let connection = open_outbox(arguments.common, "replay").await?;
        read(&connection, arguments.limit).await
    })?;
    if arguments.json {
        output::answer_json(&list)?;
    } else {
        output::answer(&list.table())?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn cancel(arguments: &CancelArguments) -> Result<ExitCode> {
    let (replay, common) = (arguments.replay, arguments.common.clone());
    let known = block_on(async move {
        let connection = open_outbox(common, "replay").await?;
        let cancelled = connection.client().query_opt(CANCEL, &[&replay]).await;
        cancelled.map_err(|cause| classify("cancel a replay", cause))
    })?;
    let Some(row) = known else {
        return Err(Error::new(ErrorKind::Config, format!("there is no replay {replay}"))
            .with_remedy("see `postrider replay list`"));
    };
    output::answer(&match (row.get("was_open"), row.get("was_cancelled")) {
        (true, _) => format!("replay {replay} is cancelled; what it has sent stays sent"),
        (false, true) => format!("replay {replay} was cancelled before"),
        (false, false) => format!("replay {replay} is done; nothing was changed"),
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn read(connection: &Connection, limit: u32) -> Result<ReplayList> {
    let rows = connection.client().query(LIST, &[&i64::from(limit)]).await;
    let rows = rows.map_err(|cause| classify("list replays", cause))?;
    Ok(ReplayList { replays: rows.iter().map(ListedReplay::read).collect() })
}

impl ListedReplay {
    fn read(row: &Row) -> Self {
        Self {
            replay: row.get("replay"),
            state: row.get("state"),
            events: row.get("found"),
            sent: row.get("sent"),
            left_out: row.get("left_out"),
            to_topic: row.get("to_topic"),
            events_per_second: row.get("events_per_second"),
            buckets_open: row.get("buckets_open"),
            requested_by: row.get("requested_by"),
            age_seconds: row.get("age_seconds"),
            cancelled_by: row.get("cancelled_by"),
            trouble: row.get("trouble"),
        }
    }

    fn line(&self) -> String {
        let topic = self.to_topic.as_deref().map_or("(as before)".to_owned(), legible::name);
        let mut line = format!(
            "{:>6}  {:<9}  {:>10}  {:>10}  {:>8}  {:>8}  {topic}\n",
            self.replay,
            self.state,
            self.events,
            self.sent,
            self.left_out,
            show_age(Some(self.age_seconds)),
        );
        if let Some(trouble) = &self.trouble {
            line.push_str(&format!("{:>8}{}\n", "", legible::name(trouble)));
        }
        line
    }
}

impl ReplayList {
    fn table(&self) -> String {
        if self.replays.is_empty() {
            return "nothing was replayed\n".to_owned();
        }
        let mut text = format!(
            "{:>6}  {:<9}  {:>10}  {:>10}  {:>8}  {:>8}  to\n",
            "replay", "state", "events", "sent", "left out", "asked"
        );
        text.extend(self.replays.iter().map(ListedReplay::line));
        text
    }
}
