//! How `run` would read events, and whether it can.
//!
//! Promises: what would stop a reader of the log is a finding. Must not: change anything.
//! Fails: with the first of them.

use crate::capture::adopted::registry::{adopted_columns, owner_below};
use crate::capture::mode::Mode;
use crate::capture::mode_change::{Loss, check_change, loss, messages_lost};
use crate::capture::slot::SlotKeeper;
use crate::capture::slot::requirements::{
    AdoptedReaders, CLOSE_MESSAGES, MissingRight, Readers, check_needs, messages_are_open,
};
use crate::cli::capture::show::{HEALS, in_the_way};
use crate::cli::check::findings::Findings;
use crate::cli::check::forms;
use crate::cli::check::headers;
use crate::cli::output::count;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::legible;
use crate::postgres::connect;

const NAME: &str = "capture";
const ADOPTED: &str = "adopted";

/// Looks at the way of reading that `run` would take.
pub(super) async fn look(findings: &mut Findings, config: &Config) -> Result<()> {
    let messages = keeper(config, Mode::Message).await?;
    let state = messages.state().await?;
    let asked = config.capture.unwrap_or(state.mode);
    for (cause, remedy) in headers::gaps(config.kafka.added_headers, &config.kafka.topic, asked) {
        findings.warned("headers", cause, remedy);
    }
    look_at_adopted(findings, config, asked).await?;
    check_change(&messages, state.mode, asked, Loss::Refused).await?;
    match asked {
        Mode::Poll => {
            look_for_unlogged(findings, &keeper(config, Mode::Wal).await?).await?;
            let log = match check_needs(&keeper(config, Mode::Wal).await?, Readers::ThisRole).await
            {
                Ok(()) => "; the log could be read, too",
                Err(error) if error.kind() == ErrorKind::PostgresRefused => "",
                Err(error) => return Err(error),
            };
            findings.passed(NAME, format!("poll: the table is read{log}"));
        }
        Mode::Wal => {
            let reader = keeper(config, asked).await?;
            check_needs(&reader, Readers::ThisRole).await?;
            match state.mode {
                Mode::Wal => look_whether_the_log_is_read(findings, &reader).await?,
                Mode::Poll | Mode::Message => findings.passed(
                    NAME,
                    format!("wal: the table's log can be read, by {}", reader.name()),
                ),
            }
            if !reader.adopted().is_empty() {
                forms::look(findings, &reader).await?;
            }
            look_at_failover(findings, &reader).await?;
        }
        Mode::Message => {
            check_needs(&messages, Readers::ThisRole).await?;
            if state.mode == Mode::Message
                && let Some(gap) = loss(&messages).await?
            {
                return Err(messages_lost(gap, asked));
            }
            findings.passed(NAME, format!("message: messages are read, by {}", messages.name()));
            if messages_are_open(&messages).await? {
                let cause = "every login of this database may write messages, and so events";
                findings.warned("messages", cause, CLOSE_MESSAGES);
            }
            look_at_failover(findings, &messages).await?;
        }
    }
    Ok(())
}

/// Where the slot does not bring everything the table is polled, whatever the mode says.
async fn look_whether_the_log_is_read(findings: &mut Findings, reader: &SlotKeeper) -> Result<()> {
    let name = reader.name();
    let Some(gap) = reader.gap_beside_doubt(&reader.state().await?).await? else {
        findings.passed(NAME, format!("wal: the table's log is read, by {name}"));
        return Ok(());
    };
    let remedy = in_the_way(reader).await?.unwrap_or_else(|| HEALS.to_owned());
    let cause =
        format!("wal: the table is polled until its log can be read, by {name}: {}", gap.words());
    findings.warned(NAME, cause, &remedy);
    Ok(())
}

/// A crash of PostgreSQL empties an unlogged table; where the log is read it is more than a warning.
async fn look_for_unlogged(findings: &mut Findings, keeper: &SlotKeeper) -> Result<()> {
    if let Some(part) = keeper.unlogged_part().await? {
        let (cause, remedy) = part.words();
        findings.warned(NAME, format!("{cause}; a crash of PostgreSQL may take them"), &remedy);
    }
    Ok(())
}

/// Adopted tables are read from the log alone, and before it in their own right.
async fn look_at_adopted(findings: &mut Findings, config: &Config, asked: Mode) -> Result<()> {
    let keeper = keeper(config, Mode::Wal).await?;
    if keeper.adopted().is_empty() {
        return Ok(());
    }
    let whose = AdoptedReaders { this_role: true, instances: false, group: false };
    let mut may_read_all = true;
    for table in keeper.adopted() {
        let missing = keeper.missing_rights(table, whose).await?;
        // In a schema that the role may not use no table can be looked at.
        if !missing.iter().any(|right| right.is_of_schema) {
            match adopted_columns(keeper.connection(), &table.name).await {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Schema => {
                    findings.failed(ADOPTED, &error);
                    may_read_all = false;
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(owner) = owner_below(keeper.connection(), &table.name).await? {
            let owner = legible::name(&owner);
            let found =
                format!("{}: functions of {owner} would run as a superuser, this role", table.name);
            findings.warned(ADOPTED, found, "let a role relay that is no superuser");
        }
        for MissingRight { cause, remedy, .. } in missing {
            let error = Error::new(ErrorKind::PostgresRefused, cause).with_remedy(remedy);
            findings.failed(ADOPTED, &error);
            may_read_all = false;
        }
    }
    if may_read_all {
        let tables = count(keeper.adopted().len() as i64, "table");
        findings.passed(ADOPTED, format!("{tables} can be read"));
    }
    if asked != Mode::Wal {
        let found = format!("by {} no adopted table is read", asked.name());
        findings.warned(ADOPTED, found, "run `postrider capture switch wal`");
    }
    Ok(())
}

/// What becomes of the slot when a standby is promoted, where there is one.
async fn look_at_failover(findings: &mut Findings, keeper: &SlotKeeper) -> Result<()> {
    let Some(failover) = keeper.failover().await?.and_then(|sight| sight.failover) else {
        return Ok(());
    };
    match keeper.failover_remedy(&failover).filter(|_| failover.is_trouble(keeper.mode())) {
        Some(remedy) => findings.warned("failover", failover.words(), &remedy),
        None => findings.passed("failover", failover.words()),
    }
    Ok(())
}

async fn keeper(config: &Config, mode: Mode) -> Result<SlotKeeper> {
    let connection = connect(&config.database, "slot").await?;
    SlotKeeper::open(connection, &config.database, config.outbox.clone(), mode).await
}
