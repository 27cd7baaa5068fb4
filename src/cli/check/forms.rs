//! Whether the reader of the log may stand at rows of which it cannot know what they are.
//!
//! Promises: what `run` tells then is told here, too, with the way out. Must not: read the log. Fails: as the connection.

use crate::capture::adopted::changed::changed_since;
use crate::capture::slot::{Slot, SlotKeeper};
use crate::cli::check::findings::Findings;
use crate::error::Result;
use crate::legible;
use crate::outbox::OutboxName;

const NAME: &str = "log";

/// Looks at adopted tables and what is read with them. Where there are none, the outbox's table is read in place of the
/// log.
pub(super) async fn look(findings: &mut Findings, reader: &SlotKeeper) -> Result<()> {
    let is_read = !matches!(reader.look().await?, Slot::Ready { reader: None, .. });
    let passed = reader.adopted().iter().find_map(|table| table.passed.as_ref());
    let Some(passed) = passed.filter(|_| !is_read) else { return Ok(()) };
    let adopted = reader.adopted().iter().map(|table| &table.name);
    for name in std::iter::once(reader.outbox()).chain(adopted) {
        let changed = changed_since(reader.connection(), name, passed).await?;
        if !changed.is_empty() {
            findings.warned(NAME, cause(name, &changed), &remedy(reader.name()));
        }
    }
    Ok(())
}

fn cause(name: &OutboxName, columns: &[String]) -> String {
    let columns: Vec<String> = columns.iter().map(|column| legible::name(column)).collect();
    format!(
        "columns of {name} were changed behind the place up to which the log is read: {}; what was written meanwhile may \
         come in a form that cannot be read",
        columns.join(", ")
    )
}

fn remedy(slot: &str) -> String {
    let drop = format!("select pg_drop_replication_slot('{slot}')");
    format!(
        "nothing, unless the relay says that postrider cannot read what comes next in the log: have the tables read in \
         place of it then: {drop}; only rows that were deleted from adopted tables before they were read are not \
         published"
    )
}
