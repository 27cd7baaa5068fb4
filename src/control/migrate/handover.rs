//! The outbox goes to another server, with nothing lost and nothing sent twice.
//!
//! Promises: a record says that everything retained was published when it was made; cursors are led behind retained
//! events only where these are the ones of the record. Must not: wait for writers, or copy anything.
//! Fails: [`ErrorKind::History`] where events were written meanwhile, or the copy is another one; nothing is changed
//! then.
//!
//! Why nothing is lost. The record is made under a lock that no open writer leaves: each retained row belongs to a
//! transaction that has ended, and is published or parked. In the copy the same rows are told by their count, their
//! highest `seq` and a digest of each one's `seq` and `id`. They are made rows of one transaction, and the cursors' snapshot sees exactly
//! that one and what has ended beside it: whoever writes from then on is not seen, and comes next.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, GenericClient};

use crate::control::migrate::reanchor::{LEAD, REANCHOR};
use crate::error::{Error, ErrorKind, Result};
use crate::outbox::{Outbox, OutboxName};
use crate::postgres::{Sql, classify, without_head};

static LOCK: Sql = Sql::of(include_str!("../../../sql/queries/handover_lock.sql"));
static LOOK: Sql = Sql::of(include_str!("../../../sql/queries/handover_look.sql"));
static NOTE: Sql = Sql::of(include_str!("../../../sql/queries/handover_note.sql"));
static COMPARE: Sql = Sql::of(include_str!("../../../sql/queries/handover_compare.sql"));
static PASS: Sql = Sql::of(include_str!("../../../sql/queries/handover_pass.sql"));
const DIGEST: &str = include_str!("../../../sql/queries/handover_digest.sql");
static NONE: Sql = Sql::of(include_str!("../../../sql/queries/handover_none.sql"));
static SEQUENCES: Sql = Sql::of(include_str!("../../../sql/queries/handover_sequences.sql"));

/// What a hand-over has written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// How many events the outbox retains.
    pub events: i64,
    /// The highest `seq` among them.
    pub highest_seq: Option<i64>,
}

/// How many retained events are neither published nor parked, as the saved cursors tell.
///
/// # Errors
/// When the connection fails.
pub async fn unpublished(client: &impl GenericClient) -> Result<i64> {
    let looked = client.query_one(LOOK.text(), &[]).await;
    looked
        .map(|row| row.get("waiting"))
        .map_err(|cause| classify("look at what is retained", cause))
}

/// Writes down that all retained events are published or parked. No instance publishes meanwhile.
///
/// # Errors
/// [`ErrorKind::History`] when events were written since; the connection's error.
pub async fn record(client: &mut Client, outbox: &Outbox) -> Result<Recorded> {
    let failed = |cause| classify("record the hand-over", cause);
    let transaction = client.transaction().await.map_err(failed)?;
    lock(&transaction, outbox).await?;
    let written = unpublished(&transaction).await?;
    if written > 0 {
        let cause = format!("{written} events were written meanwhile, and are not published");
        return Err(Error::new(ErrorKind::History, cause)
            .with_remedy("stop all writers, then run `postrider migrate handover` again"));
    }
    let noted = transaction.query_one(&named(NOTE.text(), outbox), &[]).await.map_err(failed)?;
    let recorded = Recorded { events: noted.get("events"), highest_seq: noted.get("highest_seq") };
    transaction.commit().await.map_err(failed)?;
    Ok(recorded)
}

/// In the copy: all retained events count as published, which they were when the hand-over was recorded. How many
/// there are. A dry run only compares.
///
/// # Errors
/// [`ErrorKind::History`] when nothing was recorded, or other events are retained than then; the connection's error.
pub async fn reanchor_handover(client: &mut Client, outbox: &Outbox, dry_run: bool) -> Result<i64> {
    let failed = |cause| classify("set the cursors behind what is retained", cause);
    let transaction = client.transaction().await.map_err(failed)?;
    lock(&transaction, outbox).await?;
    let compared =
        transaction.query_opt(&named(COMPARE.text(), outbox), &[]).await.map_err(failed)?;
    let compared = compared.map(|row| ComparedCopy {
        recorded: row.get("recorded"),
        events: row.get("events"),
        above: row.get("above"),
        is_same_digest: row.get("is_same_digest"),
        drawn: row.get("drawn"),
    });
    let copy = match compared {
        Some(copy) => check(copy)?,
        None => return Err(no_record(&transaction).await?),
    };
    if dry_run {
        return Ok(copy.events);
    }
    if copy.drawn > 0 {
        let lead = named(LEAD, outbox);
        transaction.query_one(&lead, &[&copy.drawn]).await.map_err(failed)?;
    }
    for step in [REANCHOR.text(), SEQUENCES.text(), PASS.text()] {
        transaction.batch_execute(step).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)?;
    Ok(copy.events)
}

/// A copy beside the record of its hand-over.
#[derive(Clone, Copy, Debug)]
struct ComparedCopy {
    /// How many events were retained then.
    recorded: i64,
    /// How many are here.
    events: i64,
    /// How many of these have a higher `seq` than any had then.
    above: i64,
    /// Whether these have the same numbers and ids.
    is_same_digest: bool,
    /// What the sequence had given out then.
    drawn: i64,
}

const REPEAT: &str = "or run `postrider migrate reanchor` without --handover, which publishes all retained events again";

/// Why there is no record: the copy was made too early, or nothing is to be done.
async fn no_record(client: &impl GenericClient) -> Result<Error> {
    let looked = client.query_one(NONE.text(), &[]).await;
    let is_here: bool =
        looked.map_err(|cause| classify("look at the cursors", cause))?.get("is_here");
    Ok(if is_here {
        let cause = "no hand-over is recorded, and the cursors are of this server: a record was used up here before, or \
                     none was made";
        Error::new(ErrorKind::History, cause).with_remedy(
            "nothing is to be done after `reanchor --handover`: start the relays, then run `postrider resume`; \
             `postrider migrate handover` makes a record",
        )
    } else {
        let cause = "no hand-over was recorded before this copy was made";
        Error::new(ErrorKind::History, cause).with_remedy(format!(
            "run `postrider migrate handover` on the former server, and copy the database again, {REPEAT}"
        ))
    })
}

/// The copy, if it holds what was recorded and nothing else.
fn check(copy: ComparedCopy) -> Result<ComparedCopy> {
    let refuse = |cause: String, remedy: &str| {
        Err(Error::new(ErrorKind::History, cause).with_remedy(format!("{remedy}, {REPEAT}")))
    };
    let ComparedCopy { recorded, events, above, is_same_digest, .. } = copy;
    if above > 0 {
        let cause = format!(
            "{above} retained events were written after the hand-over was recorded: they are not published"
        );
        let remedy = "stop the writers, hand over again on the former server, and copy it again";
        return refuse(cause, remedy);
    }
    if events != recorded || !is_same_digest {
        let cause = if events == recorded {
            format!(
                "the outbox retains {events} events here, and others than when the hand-over was recorded"
            )
        } else {
            format!(
                "the outbox retains {events} events here, and {recorded} when the hand-over was recorded"
            )
        };
        let remedy = "wait until the copy is complete, or copy the database again";
        return refuse(cause, remedy);
    }
    Ok(copy)
}

/// Locks writers out until the end of the transaction.
async fn lock(client: &impl GenericClient, outbox: &Outbox) -> Result<()> {
    let Err(cause) = client.batch_execute(&named(LOCK.text(), outbox)).await else { return Ok(()) };
    if cause.code() != Some(&SqlState::LOCK_NOT_AVAILABLE) {
        return Err(classify("lock writers out", cause));
    }
    let cause = "a transaction that has written events is open, or another hand-over is under way";
    Err(Error::new(ErrorKind::History, cause).with_remedy(
        "stop all writers, end their transactions (see pg_stat_activity), and run it again",
    ))
}

/// A statement about this outbox.
fn named(statement: &str, outbox: &Outbox) -> String {
    let name = OutboxName { schema: outbox.schema.clone(), table: outbox.table.clone() }.quoted();
    let text = name.replace('\'', "''");
    let statement = statement.replace("{digest}", without_head(DIGEST).trim());
    let mut parts = statement.split("{outbox}");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // Within quotes of its own the name is text.
        filled.push_str(if filled.ends_with('\'') { &text } else { &name });
        filled.push_str(part);
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    const COPY: ComparedCopy =
        ComparedCopy { recorded: 7, events: 7, above: 0, is_same_digest: true, drawn: 9 };

    #[test]
    fn a_copy_is_taken_only_as_it_was_recorded() {
        assert_eq!(check(COPY).expect("it is the same").events, 7);
        for (compared, word) in [
            (ComparedCopy { events: 8, above: 1, ..COPY }, "1 retained events were written after"),
            (ComparedCopy { events: 6, ..COPY }, "retains 6 events here, and 7 when"),
            (ComparedCopy { is_same_digest: false, ..COPY }, "7 events here, and others than"),
        ] {
            let error = check(compared).expect_err("it is another");
            assert_eq!(error.kind(), ErrorKind::History);
            assert!(error.message().contains(word), "{error}");
            assert!(error.remedy().is_some_and(|remedy| remedy.contains("without --handover")));
        }
    }

    #[test]
    fn names_are_quoted_as_names_and_as_text() {
        let (schema, table) = ("public".to_owned(), "it's".to_owned());
        let outbox = Outbox {
            schema,
            table,
            buckets: 1,
            payload: crate::outbox::PayloadType::Json,
            generation_seconds: 1,
            sequence: String::new(),
        };
        let filled = named("f('{outbox}') from {outbox}", &outbox);
        assert_eq!(filled, "f('\"public\".\"it''s\"') from \"public\".\"it's\"");
    }
}
