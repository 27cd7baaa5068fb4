//! Cursors of a database of which this one is a copy.
//!
//! Promises: a cursor that was saved in another database, or in a table that was made anew since, is refused. Must not:
//! judge the server. Fails: with [`ErrorKind::History`].
//!
//! A dump that is restored where it was taken, and a database made from a template, have the server's history, and
//! none of their own: what was published since is not known there, and its numbers are given out a second time.

use tokio_postgres::Row;

use crate::error::{Error, ErrorKind, Result};
use crate::event::Bucket;

/// Whether the cursor of this row was saved here.
///
/// # Errors
/// [`ErrorKind::History`] when it was not.
pub(super) fn accept_place(bucket: Bucket, row: &Row) -> Result<()> {
    if row.get("is_saved_here") {
        return Ok(());
    }
    let cause = format!(
        "the cursor of bucket {bucket} was saved in another database, of which this is a copy or a restore: what was \
         published from there since is not known here"
    );
    Err(Error::new(ErrorKind::History, cause).with_remedy(
        "connect to the database that postrider published from, or run `postrider migrate reanchor` if this is the one \
         that goes on (it repeats all retained events), and stop every relay of the other",
    ))
}
