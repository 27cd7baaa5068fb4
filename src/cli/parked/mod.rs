//! `postrider parked`: what cannot be published, and what people do about it.
//!
//! Promises: works without a running relay; a dry run changes nothing; nothing is discarded that was
//! not named. Must not: publish; the owner of the bucket does, when it finds the request.
//! Fails: when PostgreSQL cannot be read, or the outbox is not there.

use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use uuid::Uuid;

use crate::cli::for_lookers;
use crate::cli::output::count;
use crate::error::Result;
use crate::order::holds::Reason;

mod change;
pub(super) mod list;
mod show;

/// Shows what is parked; tries it again, or discards it.
#[derive(Args, Debug)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "\
Examples:
  postrider parked list --reason too-large
  postrider parked show 018f4e6a-5b1c-7def-8a00-0123456789ab
  postrider parked retry --aggregate order/4711
  postrider parked discard --event 018f4e6a-5b1c-7def-8a00-0123456789ab --dry-run")]
pub(super) struct ParkedArguments {
    #[command(subcommand)]
    command: ParkedCommand,
}

#[derive(Debug, Subcommand)]
enum ParkedCommand {
    List(list::ListArguments),
    Show(show::ShowArguments),
    Retry(change::RetryArguments),
    Discard(change::DiscardArguments),
}

pub(super) fn run(arguments: ParkedArguments) -> Result<ExitCode> {
    match arguments.command {
        ParkedCommand::List(arguments) => list::run(arguments),
        ParkedCommand::Show(arguments) => show::run(arguments),
        ParkedCommand::Retry(arguments) => change::retry(arguments),
        ParkedCommand::Discard(arguments) => change::discard(arguments),
    }
    .map_err(|error| {
        let remedy = "do it as a role that may read and change what is parked: the relay's, or the tables' owner";
        for_lookers(error, remedy)
    })
}

/// Which parked events are meant; several conditions all hold.
#[derive(Args, Clone, Debug)]
struct Selection {
    /// Chooses an aggregate: its type up to the first slash, its id behind it.
    #[arg(long, value_name = "TYPE/ID", value_parser = aggregate)]
    aggregate: Option<(String, String)>,

    /// Chooses aggregates of this type, also of one with a slash in it.
    #[arg(long, value_name = "TYPE", conflicts_with = "aggregate")]
    aggregate_type: Option<String>,

    /// Chooses aggregates of this id.
    #[arg(long, value_name = "ID", conflicts_with = "aggregate")]
    aggregate_id: Option<String>,

    /// Chooses an event by its id.
    #[arg(long, value_name = "ID")]
    event: Option<Uuid>,

    /// Chooses events that are parked for this reason.
    #[arg(long, value_parser = reasons())]
    reason: Option<Reason>,
}

pub(super) fn aggregate(text: &str) -> std::result::Result<(String, String), String> {
    let (aggregate_type, aggregate_id) = text.split_once('/').ok_or(
        "write an aggregate as type/id, like order/4711; where the type has a slash: --aggregate-type and --aggregate-id",
    )?;
    Ok((aggregate_type.to_owned(), aggregate_id.to_owned()))
}

fn reasons() -> impl TypedValueParser<Value = Reason> {
    PossibleValuesParser::new(Reason::ALL.map(Reason::name)).try_map(|name| name.parse::<Reason>())
}

/// Why nothing may have been chosen by this id; empty where it has no slash.
pub(super) fn slash_words(aggregate_id: Option<&str>) -> &'static str {
    match aggregate_id {
        Some(id) if id.contains('/') => {
            " (a type with a slash: --aggregate-type and --aggregate-id)"
        }
        Some(_) | None => "",
    }
}

/// Nothing was chosen, and why that may be.
fn nothing_chosen(chosen: &Chosen) -> String {
    format!("nothing is parked that was chosen{}\n", slash_words(chosen.aggregate_id.as_deref()))
}

/// The selection as a statement's first parameters.
#[derive(Default)]
pub(super) struct Chosen {
    aggregate_type: Option<String>,
    aggregate_id: Option<String>,
    event: Option<Uuid>,
    reason: Option<&'static str>,
}

impl From<Selection> for Chosen {
    fn from(selection: Selection) -> Self {
        let (aggregate_type, aggregate_id) = match selection.aggregate {
            Some((aggregate_type, aggregate_id)) => (Some(aggregate_type), Some(aggregate_id)),
            None => (selection.aggregate_type, selection.aggregate_id),
        };
        let (event, reason) = (selection.event, selection.reason.map(Reason::name));
        Self { aggregate_type, aggregate_id, event, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aggregate_is_cut_at_its_first_slash() {
        assert_eq!(aggregate("order/a/b"), Ok(("order".to_owned(), "a/b".to_owned())));
        let refused = aggregate("order").expect_err("it is none");
        assert!(refused.contains("--aggregate-id"), "{refused}");
        assert_eq!(slash_words(Some("b")), "");
        assert!(slash_words(Some("b/7")).contains("--aggregate-type"));
    }
}
