//! `postrider replay list` and `postrider replay cancel`.
//!
//! Promises: each replay with how far it is and what it waits for, also where none gets on; a cancelled one sends no
//! further page.
//! Must not: take away what was sent. Fails: as its parent.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use tokio_postgres::Row;

use crate::capture::mode::read_state;
use crate::capture::replay::TURNS_MAX;
use crate::cli::output::show_age;
use crate::cli::pause::words;
use crate::cli::{block_on, open_outbox, output};
use crate::config::settings::CommonSettings;
use crate::control::lease::live_instances;
use crate::error::{Error, ErrorKind, Result};
use crate::legible;
use crate::postgres::{Connection, Sql, classify};

static LIST: Sql = Sql::of(include_str!("../../../sql/queries/replay_list.sql"));
static CANCEL: Sql = Sql::of(include_str!("../../../sql/queries/replay_cancel.sql"));

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
    /// Earlier replays that have not ended.
    earlier_open: i64,
    /// What is in its way.
    trouble: Option<String>,
}

#[derive(Debug, Serialize)]
struct ReplayList {
    /// Why none gets on: publishing is paused, or nobody publishes.
    hindrance: Option<String>,
    replays: Vec<ListedReplay>,
}

/// What a replay waits for that was asked for just now, in lines; empty where it begins at once.
pub(super) async fn waits_for(connection: &Connection, replay: i64) -> Result<String> {
    let list = read(connection, (1, Some(replay))).await?;
    let mut text = list.hindrance.map(|hindrance| format!("{hindrance}\n")).unwrap_or_default();
    text.extend(list.replays.first().and_then(ListedReplay::behind).map(|words| words + "\n"));
    Ok(text)
}

pub(super) fn run(arguments: ReplayListArguments) -> Result<ExitCode> {
    let list = block_on(async move {
        let connection = open_outbox(arguments.common, "replay").await?;
        read(&connection, (arguments.limit, None)).await
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
        let cancelled = connection.client().query_opt(CANCEL.text(), &[&replay]).await;
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

/// So many at most; only one, if it is named.
async fn read(connection: &Connection, (limit, only): (u32, Option<i64>)) -> Result<ReplayList> {
    let rows = connection.client().query(LIST.text(), &[&i64::from(limit), &only]).await;
    let rows = rows.map_err(|cause| classify("list replays", cause))?;
    let replays: Vec<ListedReplay> = rows.iter().map(ListedReplay::read).collect();
    let hindrance = match replays.iter().any(|replay| replay.buckets_open > 0) {
        true => hindrance(connection).await?,
        false => None,
    };
    Ok(ReplayList { hindrance, replays })
}

/// Why nobody sends a replay.
async fn hindrance(connection: &Connection) -> Result<Option<String>> {
    if let Some(pause) = read_state(connection).await?.pause {
        return Ok(Some(format!("no replay is sent: publishing is {}", words(&pause))));
    }
    let is_nobody = live_instances(connection).await? == 0;
    Ok(is_nobody.then(|| "no replay is sent: no instance of postrider runs".to_owned()))
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
            earlier_open: row.get("earlier_open"),
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
        if let Some(words) = self.waits_for() {
            line.push_str(&format!("{:>8}{words}\n", ""));
        }
        line
    }

    /// What it waits for, if it does.
    fn waits_for(&self) -> Option<String> {
        if self.state != "waits" {
            return None;
        }
        let committed = || "begins when all that was committed before it is published".to_owned();
        let trouble = self.trouble.as_deref().map(legible::name);
        Some(trouble.or_else(|| self.behind()).unwrap_or_else(committed))
    }

    /// Whether it has to wait for others.
    fn behind(&self) -> Option<String> {
        let is_behind = self.earlier_open >= TURNS_MAX as i64;
        let earlier = self.earlier_open;
        is_behind.then(|| {
            format!(
                "takes turns with {earlier} earlier replays: an instance sends {TURNS_MAX} at a time"
            )
        })
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
        text.extend(self.hindrance.as_ref().map(|hindrance| format!("{hindrance}\n")));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(state: &str, earlier_open: i64, trouble: Option<&str>) -> ListedReplay {
        ListedReplay {
            replay: 7,
            state: state.to_owned(),
            events: 10,
            sent: 0,
            left_out: 0,
            to_topic: None,
            events_per_second: None,
            buckets_open: 1,
            requested_by: "operator".to_owned(),
            age_seconds: 1.0,
            cancelled_by: None,
            earlier_open,
            trouble: trouble.map(str::to_owned),
        }
    }

    #[test]
    fn what_waits_says_what_for() {
        for (replay, said) in [
            (listed("waits", 0, None), "begins when all that was committed"),
            (listed("waits", 3, None), "begins when all that was committed"),
            (listed("waits", 4, None), "takes turns with 4 earlier replays"),
            (listed("waits", 9, Some("topic x is away")), "topic x is away"),
        ] {
            assert!(replay.line().contains(said), "{}", replay.line());
        }
        assert_eq!(listed("runs", 9, None).line().lines().count(), 1);
        let hindrance = Some("no replay is sent: no instance of postrider runs".to_owned());
        let table = ReplayList { hindrance, replays: vec![listed("waits", 0, None)] }.table();
        assert!(table.ends_with("no instance of postrider runs\n"), "{table}");
    }
}
