//! Who may do what: whether the relay gets its sessions, and who has more rights than that takes.
//!
//! Promises: says how many sessions `run` opens, and each right on postrider's own objects that none of its roles
//! needs, with what takes it back, and what others have put on these objects. Must not: change anything. Fails: as the connection.

use crate::capture::mode::{Mode, read_state};
use crate::cli::check::findings::Findings;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::outbox::Outbox;
use crate::postgres::{Connection, Sql, classify};

static LIMITS: Sql = Sql::of(include_str!("../../../sql/queries/connection_limits.sql"));
static NEEDLESS: Sql = Sql::of(include_str!("../../../sql/queries/needless_rights.sql"));
static TRIGGERS: Sql = Sql::of(include_str!("../../../sql/queries/check_triggers.sql"));

/// Whatever is read: cursors, capture, ticks, parked events, the lease, clean-up, figures.
const SESSIONS: i64 = 7;
/// And to read the log: two for the slot, one for the stream, one for what is durable.
const LOG_SESSIONS: i64 = 4;

/// Whether as many sessions are allowed as `run` opens.
pub(super) async fn connections(
    findings: &mut Findings,
    config: &Config,
    connection: &Connection,
    outbox: &Outbox,
) -> Result<()> {
    let mode = match config.capture {
        Some(mode) => mode,
        None => read_state(connection).await?.mode,
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shards = config.shards.map_or(cores, |shards| usize::from(shards.get()));
    let shards = i64::try_from(shards.min(usize::from(outbox.buckets))).unwrap_or(i64::MAX);
    let needed = SESSIONS + shards + if mode == Mode::Poll { 0 } else { LOG_SESSIONS };
    let limits = connection.client().query(LIMITS.text(), &[]).await;
    let limits = limits.map_err(|cause| classify("look how many sessions are allowed", cause))?;
    for limit in limits {
        let (allowed, whose): (i64, &str) = (limit.get("allowed"), limit.get("whose"));
        let taken: i64 = limit.get("taken");
        if allowed < needed {
            let cause = format!(
                "run opens {needed} sessions with {shards} shards by {}; {whose} allows {allowed}",
                mode.name()
            );
            let remedy = format!("raise it to {needed} for each instance, or lower --shards");
            return Err(Error::new(ErrorKind::PostgresRefused, cause).with_remedy(remedy));
        }
        if allowed - taken < needed {
            let found = format!(
                "run opens {needed} sessions with {shards} shards by {}; {whose} allows {allowed}, and others have {taken}",
                mode.name()
            );
            let remedy =
                format!("raise it by {} at least, or lower --shards", needed - (allowed - taken));
            findings.warned("connections", found, &remedy);
            return Ok(());
        }
    }
    findings.passed("connections", format!("run opens up to {needed} of them"));
    Ok(())
}

/// Triggers and rules on postrider's own tables: what a relay writes there may become something else, or nothing.
pub(super) async fn triggers(findings: &mut Findings, connection: &Connection) -> Result<()> {
    let found = connection.client().query(TRIGGERS.text(), &[]).await;
    let found =
        found.map_err(|cause| classify("look for triggers on postrider's tables", cause))?;
    for row in found {
        let (table, what): (String, String) = (row.get("table_name"), row.get("what"));
        let found =
            format!("{table} has the {what}, which may change or take away what a relay writes");
        findings.warned("tables", found, &format!("run: drop {what} on {table}"));
    }
    Ok(())
}

/// Rights that others have been given, or that default privileges have left them.
pub(super) async fn needless(findings: &mut Findings, connection: &Connection) -> Result<()> {
    let found = connection.client().query(NEEDLESS.text(), &[]).await;
    let found = found.map_err(|cause| classify("look who has which rights", cause))?;
    for row in found {
        let (role, rights): (String, String) = (row.get("role"), row.get("rights"));
        let taken_back: String = row.get("taken_back");
        let found = format!("{role} may {rights}, which neither a writer nor a relay needs");
        findings.warned("rights", found, &format!("run: {taken_back}"));
    }
    Ok(())
}
