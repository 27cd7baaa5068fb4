//! `postrider replay`: published events are sent once more.
//!
//! Promises: says how many events it is about, where they go, and what is not retained any more, before anything is
//! sent; the topics as before are used only where that is asked for. Must not: send; the owners of the buckets do.
//! Fails: when PostgreSQL cannot be read, rights are missing, or events are messages.

use std::process::ExitCode;

use clap::{ArgGroup, Args, Subcommand};
use tokio_postgres::IsolationLevel;
use uuid::Uuid;

use crate::capture::mode::{Mode, read_state};
use crate::capture::replay::{
    FilterColumns, FoundEvents, ReplayFilter, ReplayWay, ask, find, times,
};
use crate::cli::parked::aggregate;
use crate::cli::{block_on, for_lookers, output, prepare};
use crate::config;
use crate::config::settings::{CommonSettings, RelaySettings};
use crate::control::migrate;
use crate::control::migrate::Outbox;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Connection, classify, connect};
use crate::record::topic::TopicTemplate;

mod list;
mod words;

use crate::cli::replay::words::found_words;

/// What the topics of a replay end with, if no others are named.
const REPLAY_SUFFIX: &str = ".replay";

/// Sends published events once more: to topics of their own, unless --same-topic is given.
///
/// The relays send them in the background, in the order of each aggregate, with their old ids and a header
/// postrider.replay. What was truncated is gone, what is parked is left out. Several conditions all hold; one that is
/// given several times holds for any of its values.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
#[command(
    override_usage = "postrider replay [OPTIONS] <--aggregate, --aggregate-type, --type, --event, --seq, --since, --until>
       postrider replay list | cancel <REPLAY>"
)]
#[command(after_help = "\
Examples:
  postrider replay --aggregate order/4711 --dry-run
  postrider replay --since '2026-11-30 06:00' --until '2026-11-30 07:00' --to-topic orders.again --rate 500/s
  postrider replay --seq 100000..200000 --type OrderPlaced
  postrider replay --aggregate-type shop/order --aggregate-id 4711
  postrider replay list
  postrider replay cancel 7")]
pub(super) struct ReplayArguments {
    #[command(subcommand)]
    command: Option<ReplayCommand>,

    #[command(flatten)]
    ask: AskArguments,
}

#[derive(Debug, Subcommand)]
enum ReplayCommand {
    List(list::ReplayListArguments),
    Cancel(list::CancelArguments),
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("chosen")
    .required(true)
    .multiple(true)
    .args(["aggregate", "aggregate_type", "kind", "event", "seq", "since", "until"]))]
struct AskArguments {
    /// Chooses an aggregate: its type up to the first slash, its id behind it.
    #[arg(long, value_name = "TYPE/ID", value_parser = aggregate)]
    aggregate: Vec<(String, String)>,

    /// Chooses aggregates of this type, also of one with a slash in it.
    #[arg(long, value_name = "TYPE")]
    aggregate_type: Vec<String>,

    /// Of the one --aggregate-type, chooses the aggregate of this id alone.
    #[arg(long, value_name = "ID", requires = "aggregate_type")]
    aggregate_id: Vec<String>,

    /// Chooses events of this type: what their header `type` says.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Vec<String>,

    /// Chooses an event by its id.
    #[arg(long, value_name = "ID")]
    event: Vec<Uuid>,

    /// Chooses a range of `seq`, both ends included: 5..9, 5.., ..9 or 7.
    #[arg(long, value_name = "A..B", value_parser = seqs, allow_hyphen_values = true)]
    seq: Option<(i64, i64)>,

    /// Chooses events that were written at this time or later: a time as PostgreSQL reads it, UTC without a zone.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,

    /// Chooses events that were written before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,

    /// Sends them to this topic, or by this template [default: the topic of each as before, with .replay at its end].
    #[arg(long, value_name = "NAME", value_parser = str::parse::<TopicTemplate>)]
    to_topic: Option<TopicTemplate>,

    /// Sends them to the topics as before: consumers get old events behind new ones.
    #[arg(long, conflicts_with = "to_topic")]
    same_topic: bool,

    /// Sends no more than so many events per second, over all instances.
    #[arg(long, value_name = "COUNT/s", value_parser = rate)]
    rate: Option<i32>,

    /// Only says what would be sent.
    #[arg(long)]
    dry_run: bool,

    /// The template of topics that the relays have.
    #[arg(
        long,
        value_name = "TEMPLATE",
        env = "POSTRIDER_TOPIC",
        hide_env = true,
        help_heading = "Kafka"
    )]
    topic: Option<String>,

    #[command(flatten)]
    common: CommonSettings,
}

fn seqs(text: &str) -> std::result::Result<(i64, i64), String> {
    let number = |text: &str, open: i64| {
        if text.is_empty() { Ok(open) } else { text.parse::<i64>().map_err(|_| ()) }
    };
    let range = match text.split_once("..") {
        Some((first, last)) => number(first, i64::MIN).and_then(|first| {
            number(last.strip_prefix('=').unwrap_or(last), i64::MAX).map(|last| (first, last))
        }),
        None => text.parse::<i64>().map(|only| (only, only)).map_err(|_| ()),
    };
    match range {
        Ok((i64::MIN, i64::MAX)) => Err("name one end at least, like 5..".to_owned()),
        Ok((first, last)) if first <= last => Ok((first, last)),
        _ => {
            Err("write two numbers, the lower one first, like 5..9; one may be left out".to_owned())
        }
    }
}

fn rate(text: &str) -> std::result::Result<i32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).trim();
    match number.parse::<i32>() {
        Ok(rate) if rate > 0 => Ok(rate),
        _ => Err("write a whole number of events per second, like 500/s".to_owned()),
    }
}

pub(super) fn run(arguments: ReplayArguments) -> Result<ExitCode> {
    match arguments.command {
        Some(ReplayCommand::List(arguments)) => list::run(arguments),
        Some(ReplayCommand::Cancel(arguments)) => list::cancel(&arguments),
        None => run_ask(arguments.ask),
    }
    .map_err(|error| {
        let remedy = "do it as a role that may read the outbox and ask for replays: the relay's, or the tables' owner";
        for_lookers(error, remedy)
    })
}

fn run_ask(arguments: AskArguments) -> Result<ExitCode> {
    let (own, is_dry_run) = (arguments.topic.clone(), arguments.dry_run);
    let relay = RelaySettings { topic: own, ..RelaySettings::default() };
    let (common, relay, _) = prepare(arguments.common.clone(), relay, "warn")?;
    let own = config::topic(&relay)?;
    let (template, to_topic) = match (&arguments.to_topic, arguments.same_topic) {
        (Some(to_topic), _) => (to_topic.clone(), Some(to_topic.to_string())),
        (None, true) => (own, None),
        (None, false) => {
            let template = with_suffix(&own)?;
            (template.clone(), Some(template.to_string()))
        }
    };
    let way = ReplayWay { to_topic, events_per_second: arguments.rate };
    let aggregates = aggregates(&arguments)?;
    let (replay, found, filter, waits_for) = block_on(async move {
        let mut connection = connect(&config::database(&common)?, "replay").await?;
        let outbox = migrate::load(connection.client(), &config::outbox(&common)?).await?;
        check_mode(read_state(&connection).await?.mode)?;
        let filter = filter(&connection, arguments, aggregates).await?;
        let (replay, found) = look(&mut connection, &outbox, &filter, &way, is_dry_run).await?;
        let waits_for = match replay {
            Some(replay) => list::waits_for(&connection, replay).await?,
            None => String::new(),
        };
        Ok((replay, found, filter, waits_for))
    })?;
    let said = found_words(replay, &found, &filter, &template);
    output::answer(&(said + &waits_for))?;
    Ok(ExitCode::SUCCESS)
}

/// Counts, and asks for it unless nothing is to be done: in one transaction, of one snapshot.
async fn look(
    connection: &mut Connection,
    outbox: &Outbox,
    filter: &ReplayFilter,
    way: &ReplayWay,
    is_dry_run: bool,
) -> Result<(Option<i64>, FoundEvents)> {
    let failed = |cause| classify("ask for a replay", cause);
    let transaction = connection.client_mut().build_transaction();
    let transaction = transaction
        .isolation_level(IsolationLevel::RepeatableRead)
        .start()
        .await
        .map_err(failed)?;
    let columns = FilterColumns::from(filter);
    let found = find(&transaction, outbox, &columns, filter.seqs).await?;
    let replay = match is_dry_run || found.parts.is_empty() {
        true => None,
        false => Some(ask(&transaction, &columns, way, &found.parts).await?),
    };
    transaction.commit().await.map_err(failed)?;
    Ok((replay, found))
}

/// A topic beside each of the template's.
fn with_suffix(own: &TopicTemplate) -> Result<TopicTemplate> {
    format!("{own}{REPLAY_SUFFIX}").parse().map_err(|cause| {
        Error::new(ErrorKind::Config, format!("no topic for the replay: {cause}"))
            .with_remedy("name one by --to-topic")
    })
}

fn check_mode(mode: Mode) -> Result<()> {
    match mode {
        Mode::Poll | Mode::Wal => Ok(()),
        Mode::Message => {
            let cause = "events are read from messages in the log, and no table retains them";
            Err(Error::new(ErrorKind::Config, cause).with_remedy(
                "only what is written in capture poll or wal can be replayed: see `postrider capture show`",
            ))
        }
    }
}

/// Types of aggregates, each with an id, or none for all of the type.
fn aggregates(arguments: &AskArguments) -> Result<Vec<(String, Option<String>)>> {
    let AskArguments { aggregate, aggregate_type, aggregate_id, .. } = arguments;
    let single = aggregate.iter().map(|(kind, id)| (kind.clone(), Some(id.clone())));
    let named: Vec<_> = match aggregate_type.as_slice() {
        kinds if aggregate_id.is_empty() => kinds.iter().map(|kind| (kind.clone(), None)).collect(),
        [kind] => aggregate_id.iter().map(|id| (kind.clone(), Some(id.clone()))).collect(),
        _ => {
            let cause = "--aggregate-id belongs to one --aggregate-type, and there are several";
            return Err(Error::new(ErrorKind::Config, cause)
                .with_remedy("ask for a replay of each, or use --aggregate TYPE/ID"));
        }
    };
    Ok(single.chain(named).collect())
}

async fn filter(
    connection: &Connection,
    arguments: AskArguments,
    aggregates: Vec<(String, Option<String>)>,
) -> Result<ReplayFilter> {
    let AskArguments { kind, event, seq, since, until, .. } = arguments;
    let (since, until) = times(connection, since, until).await?;
    Ok(ReplayFilter {
        aggregates,
        types: kind,
        ids: event,
        seqs: seq.unwrap_or((i64::MIN, i64::MAX)),
        since,
        until,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_two_ends_and_one_may_be_open() {
        for (text, range) in [
            ("5..9", (5, 9)),
            ("5..=9", (5, 9)),
            ("5..", (5, i64::MAX)),
            ("..9", (i64::MIN, 9)),
            ("7", (7, 7)),
            ("-3..-1", (-3, -1)),
        ] {
            assert_eq!(seqs(text), Ok(range), "{text}");
        }
        for text in ["9..5", "", "..", "a..b", "1...2", "1-2", "5..9..11"] {
            assert!(seqs(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_a_count_per_second() {
        assert_eq!((rate("500/s"), rate("7")), (Ok(500), Ok(7)));
        for text in ["0/s", "-1/s", "500/min", "x", "1.5/s", ""] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn topics_of_a_replay_stand_beside_the_own() {
        let own: TopicTemplate = "shop.{aggregatetype}".parse().expect("it is one");
        assert_eq!(
            with_suffix(&own).expect("it is one").to_string(),
            "shop.{aggregatetype}.replay"
        );
        let long: TopicTemplate = "x".repeat(248).parse().expect("it is one");
        assert_eq!(with_suffix(&long).expect_err("it is too long").kind(), ErrorKind::Config);
    }

    #[test]
    fn messages_are_not_replayed() {
        assert!(check_mode(Mode::Poll).is_ok() && check_mode(Mode::Wal).is_ok());
        assert!(check_mode(Mode::Message).is_err());
    }
}
