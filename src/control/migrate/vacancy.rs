//! Whether an outbox can be made where it is asked for.
//!
//! Promises: nothing that is there already is taken for ours, and no table is the outbox of two schemas. Must not:
//! change anything. Fails: [`ErrorKind::Schema`] with what is in the way.

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::GenericClient;

use crate::control::migrate::MigrationState;
use crate::error::{Error, ErrorKind, Result};
use crate::outbox::OutboxName;
use crate::postgres::{Sql, classify};
use crate::schema::{self, Schema};

const OWNER: &str = include_str!("../../../sql/queries/outbox_owner.sql");
static STRANGER: Sql = Sql::of(include_str!("../../../sql/queries/schema_stranger.sql"));

/// The table's names and those of the control tables do not meet.
///
/// # Errors
/// [`ErrorKind::Config`] when the outbox would lie in the schema of its control tables; the usual one has always let it.
pub(super) fn check_apart(schema: &Schema, outbox: &OutboxName) -> Result<()> {
    if schema.unusual() != Some(&*outbox.schema) {
        return Ok(());
    }
    let cause = format!("the outbox {outbox} would lie in the schema of its control tables");
    Err(Error::new(ErrorKind::Config, cause).with_remedy(format!(
        "give --outbox a table in another schema, such as public.{}_outbox",
        schema.tag()
    )))
}

/// The list of migrations has a row as soon as there is anything else.
///
/// # Errors
/// [`ErrorKind::Schema`] when the tables are there without what postrider writes into them.
pub(super) fn check_rows(state: &MigrationState, applied: usize) -> Result<()> {
    if applied > 0 || !state.has_registry || !state.has_control {
        return Ok(());
    }
    let schema = schema::chosen();
    let cause = format!("schema {schema} was copied without its rows, as by pg_dump --schema-only");
    Err(Error::new(ErrorKind::Schema, cause).with_remedy(format!(
        "drop the copied outbox and the schema (drop schema {} cascade), and run `postrider migrate up`; or leave both out \
         of the dump (--exclude-schema, --exclude-table)",
        schema.quoted()
    )))
}

/// Before the outbox is made, nothing may stand in its place.
///
/// # Errors
/// [`ErrorKind::Schema`] when something does; when the connection fails.
pub(super) async fn check(
    client: &impl GenericClient,
    state: &MigrationState,
    outbox: &OutboxName,
) -> Result<()> {
    let refuse = |cause: String, remedy: String| {
        Err(Error::new(ErrorKind::Schema, cause).with_remedy(remedy))
    };
    let schema = schema::chosen();
    if state.has_control && !state.has_registry {
        let cause = format!("schema {schema} has tables, but no list of migrations");
        return refuse(cause, format!("drop the schema {} if nothing uses it", schema.quoted()));
    }
    if let Some(thing) = stranger(client, state, schema).await? {
        let cause = format!("schema {schema} holds {thing}, which postrider did not make");
        let remedy = "name a schema with --schema that holds nothing else; migrate up makes it";
        return refuse(cause, remedy.to_owned());
    }
    if !state.has_schema {
        let remedy = format!("Run: create schema {}", escape_identifier(&outbox.schema));
        return refuse(format!("the schema of {outbox} does not exist"), remedy);
    }
    if !state.has_table {
        return Ok(());
    }
    match owner(client, outbox).await? {
        Some(other) if other != schema.name() => refuse(
            format!("{outbox} is the outbox of schema {other} already"),
            format!(
                "give schema {schema} a table of its own with --outbox, or work with the other by --schema '{other}'"
            ),
        ),
        Some(_) | None => refuse(
            format!("{outbox} exists already, and postrider did not make it"),
            "choose another name with --outbox, or rename what is there".to_owned(),
        ),
    }
}

/// The usual schema has a name that is nobody else's.
async fn stranger(
    client: &impl GenericClient,
    state: &MigrationState,
    schema: &Schema,
) -> Result<Option<String>> {
    if schema.is_usual() || state.has_registry {
        return Ok(None);
    }
    let found = client.query_opt(STRANGER.text(), &[]).await;
    let found = found.map_err(|cause| classify("look what is in the schema", cause))?;
    Ok(found.map(|row| row.get("thing")))
}

/// With which control tables the table was made, if it is an outbox.
///
/// # Errors
/// When the connection fails.
async fn owner(client: &impl GenericClient, table: &OutboxName) -> Result<Option<String>> {
    let found = client.query_opt(OWNER, &[&table.quoted()]).await;
    let found = found.map_err(|cause| classify("look whose outbox the table is", cause))?;
    Ok(found.map(|row| row.get("schema_name")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outbox_lies_beside_its_control_tables() {
        let outbox = |text: &str| text.parse::<OutboxName>().expect("it is a name");
        let schema = |text: &str| text.parse::<Schema>().expect("it is a name");
        for (name, table) in [("billing", "billing.outbox"), ("Billing-2", "\"Billing-2\".events")]
        {
            let error = check_apart(&schema(name), &outbox(table)).expect_err(table);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.remedy().is_some_and(|remedy| remedy.contains("--outbox")), "{error}");
        }
        for (name, table) in [
            ("billing", "public.outbox"),
            ("billing", "\"Billing\".outbox"),
            ("postrider", "postrider.events_2"),
        ] {
            check_apart(&schema(name), &outbox(table)).expect(table);
        }
    }
}
