//! Sets the cursors again, on a database of which the saved ones say nothing.
//!
//! Promises: afterwards every retained event is published again, with its old id; nothing is lost.
//! Must not: run by itself; only an operator knows which server is the one.
//! Fails: with the connection's error; nothing is changed then.

use tokio_postgres::Client;

use crate::error::Result;
use crate::outbox::{Outbox, OutboxName};
use crate::postgres::{Sql, classify};

pub(super) static REANCHOR: Sql = Sql::of(include_str!("../../../sql/reanchor.sql"));
pub(super) const LEAD: &str = include_str!("../../../sql/queries/lead_sequence.sql");
const RETAINED: &str = include_str!("../../../sql/queries/retained.sql");

/// Sets all cursors again; how many events that publishes again. A dry run only counts. New events get a `seq`
/// above `seq_above`, which consumers may have seen.
///
/// # Errors
/// When the connection fails, or the role may not update the outbox.
pub async fn reanchor(
    client: &Client,
    outbox: &Outbox,
    seq_above: Option<i64>,
    dry_run: bool,
) -> Result<i64> {
    let name = OutboxName { schema: outbox.schema.clone(), table: outbox.table.clone() }.quoted();
    if !dry_run {
        if let Some(number) = seq_above {
            // Before the cursors: should these fail, numbers are passed over, and that is all.
            let lead = LEAD.replace("{outbox}", &name.replace('\'', "''"));
            let led = client.query_one(&lead, &[&number]).await;
            led.map_err(|cause| classify("lead the sequence on", cause))?;
        }
        let done = client.batch_execute(REANCHOR.text()).await;
        done.map_err(|cause| classify("set the cursors anew", cause))?;
    }
    let counted = client.query_one(&RETAINED.replace("{outbox}", &name), &[]).await;
    Ok(counted.map_err(|cause| classify("count the retained events", cause))?.get(0))
}
