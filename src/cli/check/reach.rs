//! Rows of the outbox that no cursor will ever reach.
//!
//! Promises: a bounded time; a row is named only if it breaks a law by which the cursors go, as a remembered tick
//! shows. Must not: change anything. Fails: with the connection's error.
//!
//! Whoever owns the outbox can write a `seq` that was not drawn, or copy rows with the transaction ids of another
//! cluster. Where the table is polled such rows may lie where no cursor looks, and count as published.

use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use crate::capture::mode::{Mode, read_state};
use crate::cli::check::findings::Findings;
use crate::cli::check::moved::write_what_lacks;
use crate::error::{Error, ErrorKind, Result};
use crate::outbox::OutboxName;
use crate::postgres::{Connection, Sql, classify, fill};

static SEQ: Sql = Sql::of(include_str!("../../../sql/queries/unreachable_seq.sql"));
static TXID: Sql = Sql::of(include_str!("../../../sql/queries/unreachable_txid.sql"));
const LEAF_SESSION: &str = include_str!("../../../sql/queries/leaf_session.sql");
const NAME: &str = "events";
/// So many rows are named.
const NAMED_MAX: usize = 5;
/// For how long the retained rows may be read.
const PATIENCE: &str = "set local statement_timeout = '10s'";

/// A law of rows, and the statement that finds those that break it.
struct Law {
    look: &'static Sql,
    /// How its session plans.
    session: &'static str,
    broken: &'static str,
    /// What to do first.
    first: &'static str,
}

static LAWS: [Law; 2] = [
    Law {
        look: &SEQ,
        session: LEAF_SESSION,
        broken: "their seq was not drawn when they were written",
        first: "",
    },
    Law {
        look: &TXID,
        session: "",
        broken: "their txid is not that of the transaction that wrote them",
        first: "if this is a restored or copied database, most of them may be published: run `postrider migrate reanchor \
                --handover` after a hand-over (it repeats nothing), `postrider migrate reanchor` else (it repeats what is \
                retained); if not, ",
    },
];

enum Reached {
    Rows(Vec<Row>),
    /// There are too many rows to look at.
    TookTooLong,
}

/// Looks for them where the table is polled; the log brings every row.
pub(super) async fn look(
    findings: &mut Findings,
    connection: &mut Connection,
    outbox: &OutboxName,
) -> Result<()> {
    if read_state(connection).await?.mode != Mode::Poll {
        return Ok(());
    }
    let mut all_are_reached = true;
    for law in &LAWS {
        match broken(connection, outbox, law).await? {
            Reached::Rows(rows) if rows.is_empty() => {}
            Reached::Rows(rows) => {
                findings.failed(NAME, &unreached(&rows, outbox, law));
                all_are_reached = false;
            }
            Reached::TookTooLong => {
                let found = "not all retained rows could be looked at in time";
                findings.warned(NAME, found, "check again when fewer rows wait");
                all_are_reached = false;
            }
        }
    }
    if all_are_reached {
        findings.passed(NAME, "no row lies where no cursor looks");
    }
    Ok(())
}

async fn broken(connection: &mut Connection, outbox: &OutboxName, law: &Law) -> Result<Reached> {
    let failed = |cause| classify("look for rows that no cursor reaches", cause);
    let transaction = connection.client_mut().build_transaction().read_only(true);
    let transaction = transaction.start().await.map_err(failed)?;
    transaction.batch_execute(PATIENCE).await.map_err(failed)?;
    transaction.batch_execute(law.session).await.map_err(failed)?;
    let sql = fill(law.look.text(), &[("{outbox}", &outbox.quoted())]);
    let rows = transaction.query(&sql, &[&(NAMED_MAX as i64 + 1)]).await;
    transaction.rollback().await.map_err(failed)?;
    match rows {
        Ok(rows) => Ok(Reached::Rows(rows)),
        Err(cause) if cause.code() == Some(&SqlState::QUERY_CANCELED) => Ok(Reached::TookTooLong),
        Err(cause) => Err(failed(cause)),
    }
}

fn unreached(rows: &[Row], outbox: &OutboxName, law: &Law) -> Error {
    let name =
        |row: &Row| format!("{} (id {})", row.get::<_, i64>("seq"), row.get::<_, &str>("id"));
    let named: Vec<String> = rows.iter().take(NAMED_MAX).map(name).collect();
    let more = if rows.len() > NAMED_MAX { ", and more" } else { "" };
    let cause = format!(
        "rows of {outbox} lie where no cursor looks, and may never be published: seq {}{more}; {}",
        named.join(", "),
        law.broken
    );
    let first = rows.first().expect("there is one");
    let write = write_what_lacks(outbox, first.get("seq"), first.get("id"));
    Error::new(ErrorKind::Unpublishable, cause).with_remedy(format!("{}{write}", law.first))
}
