//! Transactions that have written and stay open, for `check` and `status`.
//!
//! Promises: of sessions whose times are hidden from this role the ticks of the last day tell since when, at least. Must
//! not: change anything. Fails: as the connection.

use tokio_postgres::Row;

use crate::cli::output::show_age;
use crate::error::{ErrorKind, Result};
use crate::legible;
use crate::postgres::{Connection, Sql, classify};

const WRITERS: &str = include_str!("../../sql/queries/check_writers.sql");
static HIDDEN: Sql = Sql::of(include_str!("../../sql/queries/check_hidden_writers.sql"));

/// A transaction that has written and is open for longer than this is told.
const OPEN_SECONDS: f64 = 60.0;

/// A transaction that has written and is open for long.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OpenTransaction {
    /// Which session, or which prepared transaction.
    what: String,
    role: Option<String>,
    database: Option<String>,
    seconds: Option<f64>,
    /// Whether it may be open for longer.
    is_at_least: bool,
}

/// What is known of such transactions.
#[derive(Debug, Default)]
pub(super) struct OpenTransactions {
    /// The oldest of them.
    pub(super) oldest: Vec<OpenTransaction>,
    /// How many more there are.
    pub(super) more: i64,
    /// Sessions that do not show for how long they are open.
    pub(super) hidden: i64,
}

impl OpenTransaction {
    fn of(row: &Row, is_at_least: bool) -> Option<Self> {
        Some(Self {
            what: row.get::<_, Option<String>>("what")?,
            role: row.get("role"),
            database: row.get("database"),
            seconds: row.get("seconds"),
            is_at_least,
        })
    }

    /// `session 7 of shop in shop has written, and is open for 5.0min`.
    pub(super) fn words(&self) -> String {
        let name = |name: &Option<String>| legible::name(name.as_deref().unwrap_or("-"));
        let least = if self.is_at_least { "at least " } else { "" };
        format!(
            "{} of {} in {} has written, and is open for {least}{}: its events wait, and space of the outbox stays \
             taken",
            legible::name(&self.what),
            name(&self.role),
            name(&self.database),
            show_age(self.seconds),
        )
    }
}

/// Looks for them.
///
/// # Errors
/// When the connection fails.
pub(super) async fn open_transactions(connection: &Connection) -> Result<OpenTransactions> {
    let failed = |cause| classify("look for transactions that stay open", cause);
    let rows = connection.client().query(WRITERS, &[&OPEN_SECONDS]).await.map_err(failed)?;
    let number = |name| rows.first().map_or(0, |row| row.get::<_, i64>(name));
    let mut oldest: Vec<OpenTransaction> =
        rows.iter().filter_map(|row| OpenTransaction::of(row, false)).collect();
    let (more, hidden) = (number("all_open") - oldest.len() as i64, number("hidden"));
    if hidden > 0 {
        match connection.client().query(HIDDEN.text(), &[&OPEN_SECONDS]).await.map_err(failed) {
            Ok(rows) => {
                oldest.extend(rows.iter().filter_map(|row| OpenTransaction::of(row, true)));
            }
            // Whoever may not read the ticks sees what it may see.
            Err(error) if error.kind() == ErrorKind::PostgresRefused => {}
            Err(error) => return Err(error),
        }
    }
    Ok(OpenTransactions { oldest, more, hidden })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_ticks_tell_is_a_lower_bound() {
        let open = OpenTransaction {
            what: "session 7".to_owned(),
            role: Some("shop\n".to_owned()),
            database: None,
            seconds: Some(300.0),
            is_at_least: true,
        };
        let words = open.words();
        assert!(words.starts_with("session 7 of shop\\n in - has written"), "{words}");
        assert!(words.contains("open for at least 5.0min"), "{words}");
        let exact = OpenTransaction { is_at_least: false, ..open };
        assert!(exact.words().contains("open for 5.0min"), "{}", exact.words());
    }
}
