//! `postrider topics`: what each topic is to be like, what it is like, and what would be done about it.
//!
//! Promises: without `apply` nothing is changed; partitions are raised only by a flag that names what it costs.
//! Must not: publish, or take anything away from a topic. Fails: for what the brokers refuse, after all else was tried.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::backlog::{EventKind, Onlooker};
use crate::cli::topics::apply::{OnMovingKeys, apply};
use crate::cli::topics::plan::{TopicPlan, list};
use crate::cli::{block_on, output, prepare};
use crate::config::Config;
use crate::config::settings::{CommonSettings, RelaySettings};
use crate::control::migrate::load;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Connection, Sql, classify, connect, fill};
use crate::publish::OnPoison;
use crate::publish::kafka::config;
use crate::publish::kafka::config::ProducerConfig;
use crate::publish::kafka::topic_check;
use crate::record::topic::TopicTemplate;
use crate::record::topic_rules::TopicRules;

mod apply;
mod plan;

static SEEN: Sql = Sql::of(include_str!("../../../sql/queries/kinds_seen.sql"));
/// How long the brokers may take for the list of all topics.
const PATIENCE: Duration = Duration::from_secs(10);

/// Shows what topics are to be like, and makes them so.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
#[command(after_help = "\
What a topic is to be like stands in the file, the first pattern that fits holds:

  [topics.\"outbox.event.*\"]
  partitions = 32
  replication-factor = 3
  config = { \"min.insync.replicas\" = \"2\" }

Looks at the topics of events that wait or were written last, at those named in the file, and at those
that are there and fit a pattern. Changes nothing, but for `apply`.

Examples:
  postrider topics
  postrider topics plan --json outbox.event.order
  postrider topics apply")]
pub(super) struct TopicsArguments {
    #[command(subcommand)]
    command: Option<TopicsCommand>,

    #[command(flatten)]
    plan: PlanArguments,
}

#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// Shows what is, and what would be done; changes nothing.
    Plan(Box<PlanArguments>),
    /// Makes the topics that are missing, and changes settings as the file says.
    Apply(Box<ApplyArguments>),
}

#[derive(Args, Debug)]
struct PlanArguments {
    /// Looks at these topics, too.
    #[arg(value_name = "TOPIC", value_parser = topic_name)]
    topics: Vec<String>,

    #[command(flatten)]
    relay: RelaySettings,
    #[command(flatten)]
    common: CommonSettings,

    /// Prints JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ApplyArguments {
    #[command(flatten)]
    plan: PlanArguments,

    /// Raises the number of partitions, too: keys move to other partitions, and the order of their aggregates across
    /// the change is lost for consumers.
    #[arg(long)]
    move_keys: bool,
}

/// A name that a topic can have.
fn topic_name(text: &str) -> std::result::Result<String, String> {
    match text.parse::<TopicTemplate>() {
        Ok(name) if name.is_fixed() => Ok(name.to_string()),
        Ok(_) => Err("name a topic, not a template".to_owned()),
        Err(cause) => Err(cause.to_string()),
    }
}

pub(super) fn run(arguments: TopicsArguments) -> Result<ExitCode> {
    let (plan, on_moving_keys) = match arguments.command {
        None => (arguments.plan, None),
        Some(TopicsCommand::Plan(plan)) => (*plan, None),
        Some(TopicsCommand::Apply(apply)) => {
            let moves = if apply.move_keys { OnMovingKeys::Move } else { OnMovingKeys::Refuse };
            (apply.plan, Some(moves))
        }
    };
    let PlanArguments { topics, relay, common, json } = plan;
    let (common, relay, _) = prepare(common, relay, "warn")?;
    let config = Config::resolve(&common, &relay)?;
    let plans = block_on(async move {
        let kafka = &config.kafka;
        let (command, files) = (kafka.token_command.as_ref(), &kafka.login_files);
        let producer = config::producer_config(&kafka.brokers, &kafka.properties, command, files)?;
        let wanted = wanted(&config, topics).await?;
        let mut plans = look(&producer, &kafka.topic_rules, wanted).await?;
        if let Some(on_moving_keys) = on_moving_keys {
            apply(&producer, &kafka.topic_rules, on_moving_keys, &mut plans).await?;
        }
        Ok(plans)
    })?;
    if json {
        output::answer_json(&plan::TopicsAnswer { topics: &plans })?;
    } else {
        output::answer(&list(&plans))?;
    }
    Ok(plans.iter().find_map(TopicPlan::exit_code).unwrap_or(ExitCode::SUCCESS))
}

/// The topics that events go to, as far as can be seen, and those that somebody has named.
async fn wanted(config: &Config, named: Vec<String>) -> Result<BTreeSet<String>> {
    let mut topics: BTreeSet<String> = named.into_iter().collect();
    topics.extend(config.kafka.topic_rules.names().map(str::to_owned));
    if let OnPoison::DeadLetter(topic) = &config.kafka.on_poison {
        topics.insert(topic.clone());
    }
    let connection = connect(&config.database, "topics").await?;
    load(connection.client(), &config.outbox).await?;
    if config.kafka.topic.is_fixed() {
        topics.insert(config.kafka.topic.to_string());
    }
    for kind in kinds(config, &connection, &mut topics).await? {
        match kind.topic(&config.kafka.topic) {
            Ok(topic) => {
                topics.insert(topic);
            }
            Err(cause) => tracing::warn!("{}", cause.message()),
        }
    }
    Ok(topics)
}

/// The kinds of events that wait or were written last; topics of parked ones are added.
async fn kinds(
    config: &Config,
    connection: &Connection,
    topics: &mut BTreeSet<String>,
) -> Result<BTreeSet<EventKind>> {
    let failed = |cause| classify("look which kinds of events there are", cause);
    let mut kinds = Onlooker::new(connection).await?.kinds().await?.kinds;
    let sql = fill(SEEN.text(), &[("{outbox}", &config.outbox.quoted())]);
    for row in connection.client().query(&sql, &[]).await.map_err(failed)? {
        topics.extend(row.get::<_, Option<String>>("topic"));
        let (aggregate_type, kind) = (row.get("aggregatetype"), row.get("type"));
        if let (Some(aggregate_type), Some(kind)) = (aggregate_type, kind) {
            kinds.insert(EventKind { aggregate_type, kind });
        }
    }
    Ok(kinds)
}

async fn look(
    producer: &ProducerConfig,
    rules: &TopicRules,
    mut wanted: BTreeSet<String>,
) -> Result<Vec<TopicPlan>> {
    let (asked, governed) = (producer.clone(), rules.clone());
    let existing = tokio::task::spawn_blocking(move || {
        let listed = topic_check::listed(&asked, PATIENCE)?;
        wanted.extend(listed.into_iter().filter(|topic| governed.govern(topic)));
        topic_check::look(&asked, &wanted, PATIENCE)
    });
    let failed = |cause: tokio::task::JoinError| Error::new(ErrorKind::Internal, cause.to_string());
    let existing = existing.await.map_err(failed)??;
    let settings = topic_check::settings(producer, existing.ready.keys()).await?;
    Ok(plan::of(rules, &existing, &settings))
}
