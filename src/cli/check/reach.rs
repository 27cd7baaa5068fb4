//! Rows of the outbox that no cursor will ever reach.
//!
//! Promises: a bounded time; a row is named only if it breaks a law by which the cursors go, as a remembered tick
//! shows. Must not: change anything. Fails: with the connection's error.
//!
//! Whoever owns the outbox can write a `seq` that was not drawn, or copy rows with the transaction ids of another
//! cluster. Where the table is polled such rows may lie where no cursor looks, and count as published.

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use crate::capture::mode::{Mode, read_state};
use crate::cli::check::findings::Findings;
use crate::cli::check::moved::write_what_lacks;
use crate::control::unread;
use crate::error::{Error, ErrorKind, Result};
use crate::outbox::OutboxName;
use crate::postgres::{Connection, Sql, classify, fill};
use crate::schema;

static MAY_NOTE: Sql = Sql::of(include_str!("../../../sql/queries/may_note.sql"));
static TXID: Sql = Sql::of(include_str!("../../../sql/queries/unreachable_txid.sql"));
const NAME: &str = "events";
/// So many rows are named.
const NAMED_MAX: usize = 5;
/// For how long the retained rows may be read, for each law.
const PATIENCE: Duration = Duration::from_secs(10);
const TIMEOUT: &str = "set local statement_timeout = '10s'";

/// A law of rows, as people are told of those that break it.
struct Law {
    broken: &'static str,
    /// What to do first.
    first: &'static str,
}

const SEQ_LAW: Law = Law {
    broken: "their seq was not drawn when they were written",
    first: "a relay publishes them by itself, at the latest before their partition is emptied; to have it now, ",
};

const TXID_LAW: Law = Law {
    broken: "their txid is not that of the transaction that wrote them",
    first: "if this is a restored or copied database, most of them may be published: run `postrider migrate reanchor \
            --handover` after a hand-over (it repeats nothing), `postrider migrate reanchor` else (it repeats what is \
            retained); if not, ",
};

/// A row that breaks a law.
struct Unlawful {
    seq: i64,
    id: String,
}

enum Reached {
    /// All that there are.
    Rows(Vec<Unlawful>),
    /// There are too many rows to look at; these were found till then.
    TookTooLong(Vec<Unlawful>),
}

const NOT_WHOLE: &str = "not all retained rows could be looked at in time";

/// Looks for them. The log brings every row, whatever it says of itself, but the table may have been polled before.
pub(super) async fn look(
    findings: &mut Findings,
    connection: &mut Connection,
    outbox: &OutboxName,
) -> Result<()> {
    let mut all_are_reached = tell_of_rights(findings, connection).await?;
    let by_seq = breaks_seq_law(connection).await?;
    let by_txid = match read_state(connection).await?.mode {
        Mode::Poll => breaks_txid_law(connection, outbox).await?,
        Mode::Wal | Mode::Message => Reached::Rows(Vec::new()),
    };
    for (law, found) in [(SEQ_LAW, by_seq), (TXID_LAW, by_txid)] {
        let (rows, is_whole) = match found {
            Reached::Rows(rows) => (rows, true),
            Reached::TookTooLong(rows) => (rows, false),
        };
        all_are_reached &= is_whole && rows.is_empty();
        if !rows.is_empty() {
            findings.failed(NAME, &unreached(&rows, outbox, &law));
        }
        if !is_whole {
            findings.warned(NAME, NOT_WHOLE, "check again when fewer rows wait");
        }
    }
    if all_are_reached {
        findings.passed(NAME, "no row lies where no cursor looks");
    }
    Ok(())
}

/// By what ticks saw, and by what was read, rows are judged.
async fn tell_of_rights(findings: &mut Findings, connection: &Connection) -> Result<bool> {
    let may = connection.client().query_one(MAY_NOTE.text(), &[]).await;
    let may =
        may.map_err(|cause| classify("look at the rights on what rows are judged by", cause))?;
    let is_whole = may.get::<_, bool>("may_note") && may.get::<_, bool>("may_remember");
    if !is_whole {
        let (ticks, ranges) =
            (schema::chosen().of("past_tick"), schema::chosen().of("whole_range"));
        let cause = format!(
            "the role may not write {ticks} and {ranges}: a row whose seq nobody drew may be emptied with its partition, \
             and one that was published may be called unpublished"
        );
        findings.warned(NAME, cause, "run sql/roles.sql again, as the role that migrates");
    }
    Ok(is_whole)
}

/// Of those that are not passed yet a cursor may come by.
async fn breaks_seq_law(connection: &Connection) -> Result<Reached> {
    let found = unread::look(connection, Instant::now() + PATIENCE).await?;
    let passed = found.rows.into_iter().filter(|(_, row)| row.is_passed);
    let mut rows: Vec<Unlawful> =
        passed.map(|(_, row)| Unlawful { seq: row.seq, id: row.id.to_string() }).collect();
    rows.sort_by_key(|row| row.seq);
    Ok(if found.is_whole { Reached::Rows(rows) } else { Reached::TookTooLong(rows) })
}

async fn breaks_txid_law(connection: &mut Connection, outbox: &OutboxName) -> Result<Reached> {
    let failed = |cause| classify("look for rows that no cursor reaches", cause);
    let transaction = connection.client_mut().build_transaction().read_only(true);
    let transaction = transaction.start().await.map_err(failed)?;
    transaction.batch_execute(TIMEOUT).await.map_err(failed)?;
    let sql = fill(TXID.text(), &[("{outbox}", &outbox.quoted())]);
    let rows = transaction.query(&sql, &[&(NAMED_MAX as i64 + 1)]).await;
    transaction.rollback().await.map_err(failed)?;
    match rows {
        Ok(rows) => {
            let unlawful = |row: &tokio_postgres::Row| Unlawful {
                seq: row.get("seq"),
                id: row.get::<_, String>("id"),
            };
            Ok(Reached::Rows(rows.iter().map(unlawful).collect()))
        }
        Err(cause) if cause.code() == Some(&SqlState::QUERY_CANCELED) => {
            Ok(Reached::TookTooLong(Vec::new()))
        }
        Err(cause) => Err(failed(cause)),
    }
}

fn unreached(rows: &[Unlawful], outbox: &OutboxName, law: &Law) -> Error {
    let name = |row: &Unlawful| format!("{} (id {})", row.seq, row.id);
    let named: Vec<String> = rows.iter().take(NAMED_MAX).map(name).collect();
    let more = if rows.len() > NAMED_MAX { ", and more" } else { "" };
    let cause = format!(
        "rows of {outbox} lie where no cursor looks, and may not be published: seq {}{more}; {}",
        named.join(", "),
        law.broken
    );
    let first = rows.first().expect("there is one");
    let write = write_what_lacks(outbox, first.seq, &first.id);
    Error::new(ErrorKind::Unpublishable, cause).with_remedy(format!("{}{write}", law.first))
}
