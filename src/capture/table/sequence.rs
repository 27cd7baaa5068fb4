//! The outbox's sequence, as the ticker reads it.
//!
//! Promises: no value is handed on of a sequence that breaks the law of ticks. Must not: know what a tick is.
//! Fails: with [`ErrorKind::Schema`] for such a sequence; where the role may not read it.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Row;

use crate::error::{Error, ErrorKind, Result};
use crate::order::tick::Storage;
use crate::outbox::{Outbox, check_sequence};
use crate::postgres::{Connection, classify};

const SEQUENCE: &str = include_str!("../../../sql/queries/sequence_number.sql");

/// A statement about the sequence with this number.
pub(super) fn of_sequence(sql: &str, number: u32) -> String {
    sql.replace("{sequence}", &escape_literal(&number.to_string()))
}

/// The sequence's number, by which it is known also when somebody gives it another name.
pub(super) async fn find(connection: &Connection, outbox: &Outbox) -> Result<u32> {
    let found = connection.client().query_one(SEQUENCE, &[&outbox.sequence]).await;
    Ok(found.map_err(|cause| classify("find the outbox's sequence", cause))?.get("number"))
}

/// What leads the sequence behind its rows; of a number that no sequence gave out it would leave none.
pub(super) fn lead_on(sequence: &str, highest: i64) -> String {
    if highest < i64::MAX / 2 {
        format!(
            "run: select setval('{sequence}', {highest}); where it can go no higher, first: alter sequence {sequence} \
             as bigint no maxvalue no cycle"
        )
    } else {
        format!(
            "insert the event of the row with seq {highest} anew without a seq, and delete the row"
        )
    }
}

/// The sequence at one moment, after the look whether it keeps the law.
#[derive(Clone, Copy, Debug)]
pub(super) struct SequenceState {
    pub(super) drawn: i64,
    pub(super) storage: Storage,
}

impl SequenceState {
    pub(super) fn lawful(row: Option<&Row>, sequence: &str) -> Result<Self> {
        let row = row.ok_or_else(|| remade(sequence))?;
        let (cache, increment): (i64, i64) = (row.get("cache"), row.get("increment"));
        check_sequence(sequence, cache, increment)?;
        Ok(Self { drawn: drawn(row, sequence)?, storage: row.get("storage") })
    }
}

/// It is not the one any more that was looked at before: whoever begins anew looks which one there is.
pub(super) fn remade(sequence: &str) -> Error {
    Error::new(
        ErrorKind::SetBack,
        format!("the outbox's sequence {sequence} was dropped or made anew"),
    )
}

/// Its value, if the role may read it.
pub(super) fn drawn(row: &Row, sequence: &str) -> Result<i64> {
    if row.get::<_, Option<Storage>>("storage").is_none() {
        return Err(remade(sequence));
    }
    row.get::<_, Option<i64>>("drawn").ok_or_else(|| {
        let cause = format!("the role may not read the sequence {sequence}");
        Error::new(ErrorKind::PostgresRefused, cause)
            .with_remedy(format!("Run: grant select on sequence {sequence} to the relay's role"))
    })
}
