//! The PostgreSQL side of `check`.
//!
//! Promises: stops at the first trouble that hides what follows it; every trouble is a finding.
//! Must not: change anything. Fails: never; what PostgreSQL refuses is a finding.

use std::time::{Duration, Instant};

use tokio_postgres::Row;

use crate::capture::mode::{Mode, read_state};
use crate::capture::mode_change::rows_remedy;
use crate::cli::backlog::{Onlooker, WaitingKinds};
use crate::cli::check::findings::Findings;
use crate::cli::check::{access, capture, functions, held, moved, reach, ring, server};
use crate::cli::for_lookers;
use crate::config::Config;
use crate::control::cursors::History;
use crate::control::cursors::look::accept_all;
use crate::control::migrate;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;
use crate::outbox::Outbox;
use crate::postgres::{Connection, classify, connect, may_copy_server};
use crate::schema;

const SERVER: &str = include_str!("../../../sql/queries/server.sql");
const MISSING_RIGHTS: &str = include_str!("../../../sql/queries/missing_rights.sql");
const ROW_SECURITY: &str = include_str!("../../../sql/queries/row_security.sql");

/// The oldest server that has what the relay needs.
const VERSION_MIN: i32 = 140_000;

/// Looks at all that `run` needs of PostgreSQL; gives the kinds of events that wait, where they can
/// be read.
pub(super) async fn look(findings: &mut Findings, config: &Config) -> Option<WaitingKinds> {
    let mut connection = noted(findings, "postgres", connect(&config.database, "check").await)?;
    let described = describe_server(findings, config, &connection).await;
    let round_trip = noted(findings, "postgres", described)?;
    let lease_seconds = config.lease_seconds;
    let timeouts = server::timeouts(findings, &connection, lease_seconds, round_trip).await;
    noted(findings, "timeouts", timeouts);
    if let Some(history) = noted(findings, "primary", History::read(&connection).await) {
        let (cluster, timeline) = (history.system_identifier, history.timeline);
        findings.passed("primary", format!("cluster {cluster}, timeline {timeline}"));
    }
    let loaded = migrate::load(connection.client(), &config.outbox).await;
    let outbox = noted(findings, "tables", loaded)?;
    let connections = access::connections(findings, config, &connection, &outbox).await;
    noted(findings, "connections", connections);
    findings.passed("tables", format!("{}, {} buckets", config.outbox, outbox.buckets));
    let triggers = access::triggers(findings, &connection).await;
    noted(findings, "tables", triggers);
    look_behind(findings, &connection, &outbox).await;
    let rights = rights(findings, config, &connection, &outbox).await;
    noted(findings, "rights", rights)?;
    let row_security = row_security(findings, &connection, &outbox).await;
    let hidden = noted(findings, "row-security", row_security)?;
    if let Some(()) = noted(findings, "cursors", accept_all(&connection, config.on_promotion).await)
    {
        findings.passed("cursors", "were saved in this database, or nowhere yet".to_owned());
    }
    let needless = access::needless(findings, &connection).await;
    noted(findings, "rights", needless);
    let capture = Box::pin(capture::look(findings, config)).await;
    noted(findings, "capture", capture);
    if hidden == HiddenRows::None {
        let reached = reach::look(findings, &mut connection, &config.outbox).await;
        noted(findings, "events", reached);
    }
    let moved = moved::look(findings, &mut connection, &outbox).await;
    noted(findings, "events", moved);
    let waiting = waiting(findings, &connection, outbox.buckets).await;
    noted(findings, "events", waiting)
}

/// What disturbs a relay only after a while.
async fn look_behind(findings: &mut Findings, connection: &Connection, outbox: &Outbox) {
    let partitions = ring::partitions(findings, connection, outbox).await;
    noted(findings, "index", partitions);
    let sequence = ring::sequence(findings, connection, outbox).await;
    noted(findings, "sequence", sequence);
    let ring = ring::ring(findings, connection, outbox).await;
    noted(findings, "ring", ring);
    let autovacuum = server::autovacuum(findings, connection).await;
    noted(findings, "autovacuum", autovacuum);
    let writers = server::writers(findings, connection).await;
    noted(findings, "writers", writers);
}

/// The value, or `None` and the trouble among the findings.
fn noted<T>(findings: &mut Findings, name: &'static str, result: Result<T>) -> Option<T> {
    let remedy = "run `check` as the relay's role; if this is that role, grant it the rights of sql/roles.sql";
    result.map_err(|error| findings.failed(name, &for_lookers(error, remedy))).ok()
}

/// Who the server is; how long a round trip to it takes.
async fn describe_server(
    findings: &mut Findings,
    config: &Config,
    connection: &Connection,
) -> Result<Duration> {
    let failed = |cause| classify("ask for the server's version", cause);
    // The first round trip fills the server's caches.
    connection.client().query_one(SERVER, &[]).await.map_err(failed)?;
    let begin = Instant::now();
    let row = connection.client().query_one(SERVER, &[]).await.map_err(failed)?;
    let round_trip = begin.elapsed();
    let millis = round_trip.as_secs_f64() * 1_000.0;
    let (version, role): (String, String) = (row.get("version"), row.get("role"));
    let tls = row.get::<_, Option<String>>("tls").unwrap_or_else(|| "no TLS".to_owned());
    let place = config.database.display_name();
    findings.passed("postgres", format!("{place} as {role}, {tls}, round trip {millis:.1} ms"));
    check_version(findings, &row, &version);
    server::clock(findings, row.get("clock_seconds"), round_trip);
    if row.get::<_, bool>("may_replicate") && may_copy_server(&config.database).await? {
        findings.warned(
            "copying",
            format!("pg_hba.conf has a line for replication that lets {role} copy the whole server"),
            "reads of the log need no such line: let an earlier one refuse this login (host replication … reject)",
        );
    }
    if !row.get::<_, bool>("durable") {
        findings.warned(
            "durability",
            "fsync is off: a crash of the server loses commits that were published",
            "set fsync = on in postgresql.conf, unless the data may be lost",
        );
    }
    Ok(round_trip)
}

fn check_version(findings: &mut Findings, row: &Row, version: &str) {
    if row.get::<_, i32>("version_number") >= VERSION_MIN {
        return findings.passed("version", format!("PostgreSQL {version}"));
    }
    let error =
        Error::new(ErrorKind::Schema, format!("PostgreSQL {version}: postrider needs 14 or later"))
            .with_remedy("upgrade the server");
    findings.failed("version", &error);
}

/// What the relay's role needs, object by object.
fn needed(outbox: &Outbox) -> Vec<(String, &'static str)> {
    let control = [
        ("migration", "SELECT"),
        ("outbox", "SELECT"),
        ("cursor", "SELECT"),
        ("cursor", "UPDATE"),
        ("instance", "SELECT"),
        ("instance", "INSERT"),
        ("instance", "UPDATE"),
        ("instance", "DELETE"),
        ("parked", "SELECT"),
        ("parked", "INSERT"),
        ("parked", "UPDATE"),
        ("parked", "DELETE"),
        ("parked_request", "SELECT"),
        ("parked_request", "INSERT"),
        ("parked_request", "DELETE"),
        ("large_part", "SELECT"),
        ("large_part", "INSERT"),
        ("large_part", "DELETE"),
        ("replay", "SELECT"),
        ("replay_bucket", "SELECT"),
        ("replay_bucket", "UPDATE"),
        ("capture", "SELECT"),
        ("capture", "UPDATE"),
        ("capture_slot", "SELECT"),
        ("capture_slot", "UPDATE"),
        ("adopted", "SELECT"),
        ("adopted", "UPDATE (passed)"),
        ("adopted", "UPDATE (streamed)"),
    ];
    let control = control.map(|(table, privilege)| (schema::chosen().of(table), privilege));
    let buckets = bucket_tables(outbox).into_iter().map(|table| (table, "SELECT"));
    let sequence = std::iter::once((outbox.sequence.clone(), "SELECT"));
    let locks = [("log_reader", "UPDATE"), ("emitting", "DELETE")];
    let locks = locks.map(|(table, privilege)| (schema::chosen().of(table), privilege));
    control.into_iter().chain(sequence).chain(buckets).chain(locks).collect()
}

fn bucket_tables(outbox: &Outbox) -> Vec<String> {
    (0..outbox.buckets).map(|bucket| outbox.bucket_table(Bucket(bucket))).collect()
}

async fn rights(
    findings: &mut Findings,
    config: &Config,
    connection: &Connection,
    outbox: &Outbox,
) -> Result<()> {
    let (objects, privileges): (Vec<String>, Vec<&str>) = needed(outbox).into_iter().unzip();
    let missing = connection
        .client()
        .query(MISSING_RIGHTS, &[&objects, &privileges])
        .await
        .map_err(|cause| classify("look at the role's rights", cause))?;
    let Some(first) = missing.first() else {
        return functions(findings, config, connection, objects.len()).await;
    };
    let (object, privilege): (String, String) = (first.get("object"), first.get("privilege"));
    let more = match missing.len() {
        1 => String::new(),
        2 => "; one more right is missing".to_owned(),
        count => format!("; {} more rights are missing", count - 1),
    };
    let kind = if first.get("is_sequence") { "sequence " } else { "" };
    let message = format!("the role may not {privilege} {kind}{object}{more}");
    let remedy = format!(
        "run `check` as the relay's role; if this is that role, grant {privilege} on {kind}{object} to it \
                 (sql/roles.sql has all grants)"
    );
    Err(Error::new(ErrorKind::PostgresRefused, message).with_remedy(remedy))
}

/// Whether the role may call what the statements of `run` call, where it has the rights on all objects.
async fn functions(
    findings: &mut Findings,
    config: &Config,
    connection: &Connection,
    rights: usize,
) -> Result<()> {
    let mode = match config.capture {
        Some(mode) => mode,
        None => read_state(connection).await?.mode,
    };
    let (called, missing) = functions::missing(connection, mode).await?;
    let Some(first) = missing.first() else {
        findings.passed("rights", format!("all {} that run needs", rights + called));
        return Ok(());
    };
    let more = match missing.len() {
        1 => String::new(),
        count => format!(", nor {} more that run calls", count - 1),
    };
    let name = &first.name;
    let message = format!("the role may not call the function {name}{more}");
    let remedy = format!(
        "run sql/roles.sql as a superuser, and `check` as a member of the relay's group; or: grant execute on function \
         {name} to the role"
    );
    Err(Error::new(ErrorKind::PostgresRefused, message).with_remedy(remedy))
}

/// What row security keeps from this role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HiddenRows {
    None,
    /// Those of whoever reads the outbox by its own name, as no relay does.
    OfTheWhole,
}

async fn row_security(
    findings: &mut Findings,
    connection: &Connection,
    outbox: &Outbox,
) -> Result<HiddenRows> {
    let mut tables = bucket_tables(outbox);
    tables.extend(["outbox", "cursor"].map(|table| schema::chosen().of(table)));
    let hidden = connection
        .client()
        .query(ROW_SECURITY, &[&tables])
        .await
        .map_err(|cause| classify("look at row security", cause))?;
    let Some(first) = hidden.first() else {
        return row_security_of_whole(findings, connection, outbox).await;
    };
    let (table, role): (String, String) = (first.get("object"), first.get("role"));
    let message = format!("row security may hide rows of {table} from this role");
    Err(Error::new(ErrorKind::PostgresRefused, message).with_remedy(format!(
        "alter table {table} disable row level security, or: alter role {role} bypassrls"
    )))
}

/// A relay reads the partitions, each by its name, so that what is set for the whole hides nothing from it.
async fn row_security_of_whole(
    findings: &mut Findings,
    connection: &Connection,
    outbox: &Outbox,
) -> Result<HiddenRows> {
    let whole = vec![outbox.name().quoted()];
    let hidden = connection
        .client()
        .query_opt(ROW_SECURITY, &[&whole])
        .await
        .map_err(|cause| classify("look at row security", cause))?;
    let Some(row) = hidden else {
        findings.passed("row-security", "hides nothing from this role");
        return Ok(HiddenRows::None);
    };
    let (table, role): (String, String) = (row.get("object"), row.get("role"));
    let found = format!(
        "run reads the partitions of {table}, where none is on; on {table} itself it is, so that rows which no cursor \
         reaches cannot be looked for"
    );
    findings.warned("row-security", found, &format!("alter role {role} bypassrls"));
    Ok(HiddenRows::OfTheWhole)
}

async fn waiting(
    findings: &mut Findings,
    connection: &Connection,
    buckets: u16,
) -> Result<WaitingKinds> {
    let mut waiting = Onlooker::new(connection).await?.kinds().await?;
    let state = read_state(connection).await?;
    waiting.parked_topics = held::look(findings, connection, &state, buckets).await?;
    if state.mode == Mode::Message && !waiting.kinds.is_empty() {
        let found = "rows of the outbox wait, which capture message does not read";
        findings.warned("events", found, &rows_remedy());
    }
    waiting.may_be_more |= state.mode == Mode::Message || state.adopted > 0;
    Ok(waiting)
}
