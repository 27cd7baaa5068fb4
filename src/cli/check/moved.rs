//! Rows of the outbox of which nobody knows whether they were published, as their aggregate was changed.
//!
//! Promises: a bounded time; nobody is told to write a row again without a word on what that repeats. Must not: change
//! anything. Fails: with the connection's error.

use std::time::Duration;

use crate::capture::mode::{Mode, read_state};
use crate::cli::check::findings::Findings;
use crate::cli::output::count;
use crate::control::moved;
use crate::error::Result;
use crate::outbox::{Outbox, OutboxName};
use crate::postgres::{Connection, fill, without_head};

const WRITE_ANEW: &str = include_str!("../../../sql/queries/write_anew.sql");
/// What is written anew is published, also if it was before.
const WRITE_WHAT_LACKS: &str = "look first whether its topic has it, as one that was published comes again; \
                                           if not, write each anew, like: ";
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks for them where the table is polled; the log brings a row again that moves.
pub(super) async fn look(
    findings: &mut Findings,
    connection: &mut Connection,
    outbox: &Outbox,
) -> Result<()> {
    if read_state(connection).await?.mode != Mode::Poll {
        return Ok(());
    }
    let found = moved::look(connection, outbox, PATIENCE).await?;
    if let Some((seq, id)) = found.first {
        let rows = count(found.at_most, "row");
        let cause = format!(
            "up to {rows} may have come into other buckets after they were written, behind the cursors there: if their \
             aggregateid was changed before they were published, they are not, which cannot be told; one of them: seq \
             {seq} (id {id})"
        );
        findings.warned("events", cause, &write_what_lacks(&outbox.name(), seq, &id));
    }
    Ok(())
}

/// What publishes rows that their topic lacks, with the command for one of them.
pub(super) fn write_what_lacks(outbox: &OutboxName, seq: i64, id: &str) -> String {
    let (outbox, seq) = (outbox.quoted(), seq.to_string());
    let places =
        [("{outbox}", outbox.as_str()), ("{seq}", &seq), ("{id}", id), ("{outbox}", &outbox)];
    format!("{WRITE_WHAT_LACKS}{}", fill(without_head(WRITE_ANEW).trim(), &places))
}
