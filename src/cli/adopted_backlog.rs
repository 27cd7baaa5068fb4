//! What waits in the adopted tables, seen from outside the relay.
//!
//! Promises: a bounded time for each table; one that cannot be looked at is unknown, with the reason, and ends
//! nothing; a superuser's session does not read what others own. Must not: change anything. Fails: as the connection.

use postgres_protocol::escape::escape_identifier;
use serde::Serialize;
use tokio_postgres::error::SqlState;
use tokio_postgres::{IsolationLevel, Transaction};

use crate::capture::adopted::mapping::{Adopted, Form, Part, PartOrigin, TableColumn};
use crate::capture::adopted::registry::{
    adopted_columns, adopted_tables, owner_below, unpublished,
};
use crate::cli::waiting::{LookState, Waiting};
use crate::error::{ErrorKind, Result};
use crate::legible;
use crate::postgres::{Connection, classify, fill};

/// Longer than anything of ours.
const LINE_CHARACTERS: usize = 1_000;
const NEAR: &str = include_str!("../../sql/queries/adopted_near.sql");
const BACKLOG: &str = include_str!("../../sql/queries/adopted_backlog.sql");
/// For how long one table may be read. A time without a zone is taken for UTC, as the relay takes it.
const SESSION: &str = "set local statement_timeout = '5s'; set local timezone = 'UTC'";

/// What waits in one adopted table.
#[derive(Debug, Serialize)]
pub(super) struct AdoptedWaiting {
    pub(super) table: String,
    #[serde(flatten)]
    pub(super) waiting: Waiting,
    /// Why it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

impl AdoptedWaiting {
    pub(super) fn line(&self) -> String {
        let trouble = self.trouble.as_ref().map_or(String::new(), |why| format!(": {why}"));
        let line =
            format!("adopted {}: unpublished: {}{trouble}", self.table, self.waiting.sentence());
        legible::shown(&line, LINE_CHARACTERS) + "\n"
    }
}

/// What waits in each of them.
///
/// # Errors
/// When the connection fails.
pub(super) async fn look(connection: &mut Connection) -> Result<Vec<AdoptedWaiting>> {
    let mut found = Vec::new();
    for adopted in adopted_tables(connection).await? {
        if let Some(owner) = owner_below(connection, &adopted.name).await? {
            let trouble = format!(
                "not looked at: run it as the relay's role; functions of {owner} would run as a superuser"
            );
            let (table, waiting) = (adopted.name.to_string(), Waiting::unknown());
            found.push(AdoptedWaiting { table, waiting, trouble: Some(trouble) });
            continue;
        }
        let (waiting, trouble) = match count(connection, &adopted).await {
            Ok(Some(waiting)) => (waiting, None),
            Ok(None) => (Waiting::unknown(), Some("it took too long to count its rows".to_owned())),
            Err(error) if error.kind() == ErrorKind::PostgresUnavailable => return Err(error),
            Err(error) => (Waiting::unknown(), Some(error.message().to_owned())),
        };
        found.push(AdoptedWaiting { table: adopted.name.to_string(), waiting, trouble });
    }
    Ok(found)
}

/// The time of a row, as an expression; null where it has none. A column that was given another type since has none
/// either: a cast to a time might be one that the table's owner has made, and would run with our rights.
fn created_at(adopted: &Adopted, columns: &[TableColumn]) -> String {
    let is_time =
        |name: &str| columns.iter().any(|one| one.name == name && one.form == Some(Form::Time));
    match adopted.columns.origin(Part::CreatedAt) {
        Some(PartOrigin::Column(name)) if is_time(name) => {
            format!("adopted_row.{}::timestamptz", escape_identifier(name))
        }
        Some(_) | None => "null::timestamptz".to_owned(),
    }
}

/// None when it took too long.
async fn count(connection: &mut Connection, adopted: &Adopted) -> Result<Option<Waiting>> {
    let failed = |cause| classify("look for rows that wait", cause);
    let columns = adopted_columns(connection, &adopted.name).await?;
    let transaction = connection
        .client_mut()
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(failed)?;
    let counted = count_within(&transaction, adopted, &created_at(adopted, &columns)).await;
    transaction.rollback().await.map_err(failed)?;
    match counted {
        Ok(waiting) => Ok(Some(waiting)),
        Err(cause) if cause.code() == Some(&SqlState::QUERY_CANCELED) => Ok(None),
        Err(cause) => Err(failed(cause)),
    }
}

async fn count_within(
    transaction: &Transaction<'_>,
    adopted: &Adopted,
    created_at: &str,
) -> std::result::Result<Waiting, tokio_postgres::Error> {
    transaction.batch_execute(SESSION).await?;
    let near: i64 = transaction.query_one(NEAR, &[]).await?.get(0);
    let (table, condition) = (adopted.name.quoted(), unpublished(adopted, &near.to_string()));
    let places = [
        ("{created_at}", created_at),
        ("{created_at}", created_at),
        ("{table}", table.as_str()),
        ("{condition}", condition.as_str()),
    ];
    let row = transaction.query_one(&fill(BACKLOG, &places), &[]).await?;
    Ok(Waiting::seen(row.get("unpublished"), row.get("oldest_age_seconds"), LookState::Whole))
}
