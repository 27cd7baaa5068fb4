//! Whether a table is now what it was not where the log was read.
//!
//! Promises: who has changed an adopted table reads what leads it back, as long as it is changed. Must not: read a row.
//! Fails: never; where the look tells nothing, the first error stands.

use crate::capture::adopted::mapping::ColumnMap;
use crate::capture::adopted::registry::{adopted_columns, adopted_tables};
use crate::capture::log::misformed::{as_table_is, misformed_table};
use crate::error::{Error, ErrorKind, Result};
use crate::outbox::OutboxName;
use crate::postgres::{connect, with_timeout};
use crate::relay::instance::Instance;

/// What the catalog says of a table's form.
enum TableForm {
    /// As it was adopted, or given back.
    Fits,
    /// A column of its map is missing, or has another type.
    Differs,
}

impl Instance {
    /// The error, or where an adopted table is not of its form now what that is. The next session looks at the outbox.
    pub(super) async fn as_tables_are(&self, error: Error) -> Error {
        let Some(table) = misformed_table(&error) else { return error };
        match self.form_of(table).await {
            Ok(TableForm::Differs) => as_table_is(&error).unwrap_or(error),
            Err(now) if now.kind() == ErrorKind::Schema => now,
            Ok(TableForm::Fits) | Err(_) => error,
        }
    }

    async fn form_of(&self, name: &OutboxName) -> Result<TableForm> {
        let database = &self.config.database;
        let connection = connect(database, "adopted").await?;
        with_timeout(database, "look at the adopted table", async {
            let tables = adopted_tables(&connection).await?;
            let Some(table) = tables.iter().find(|table| table.name == *name) else {
                return Ok(TableForm::Fits);
            };
            let columns = adopted_columns(&connection, name).await?;
            let resolved = ColumnMap::resolve(table.columns.mappings(), &columns);
            Ok(if resolved.is_ok() { TableForm::Fits } else { TableForm::Differs })
        })
        .await
    }
}
