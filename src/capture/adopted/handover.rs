//! Takes a table over, and gives it back.
//!
//! Promises: what is asked for is checked against the table before anything is changed; a table that is given
//! back is so in one transaction with the marks of what is published of it, by one state of the table. Must not:
//! read an event, ask or print. Fails: when the table does not fit, rights are missing, or an instance still
//! reads it; then nothing was changed.

use tokio_postgres::types::ToSql;
use tokio_postgres::{IsolationLevel, Transaction};

use crate::capture::adopted::mapping::{
    Adopted, ColumnMap, Form, Mapping, Part, PartOrigin, TableColumn,
};
use crate::capture::adopted::registry::{adopted_tables, table_columns, unpublished};
use crate::capture::mode::Mode;
use crate::capture::mode::{ADOPTED_PUBLICATION, adopted_publication};
use crate::capture::slot::SlotKeeper;
use crate::error::{Error, ErrorKind, Result};
use crate::legible;
use crate::order::snapshot::Snapshot;
use crate::outbox::OutboxName;
use crate::postgres::{Connection, DatabaseConfig, PgSnapshot, Sql, classify, connect, fill};
use crate::schema;

const OWNER: &str = include_str!("../../../sql/queries/outbox_owner.sql");
const ELSEWHERE: &str = include_str!("../../../sql/queries/adopted_elsewhere.sql");
static INSERT: Sql = Sql::of(include_str!("../../../sql/queries/adopted_insert.sql"));
static DELETE: Sql = Sql::of(include_str!("../../../sql/queries/adopted_delete.sql"));
const CHECK: &str = include_str!("../../../sql/queries/adopted_check.sql");
const MARK: &str = include_str!("../../../sql/queries/adopted_mark.sql");
const NEAR: &str = include_str!("../../../sql/queries/adopted_near.sql");
const COUNT: &str = include_str!("../../../sql/queries/adopted_count.sql");
const CHANGES: &str = include_str!("../../../sql/queries/adopted_changes.sql");
const TRIGGERS: &str = include_str!("../../../sql/queries/adopted_triggers.sql");
const PARTITION_KEYS: &str = include_str!("../../../sql/queries/adopted_partition_keys.sql");
static END_PUBLICATION: Sql =
    Sql::of(include_str!("../../../sql/queries/adopted_publication_end.sql"));

/// How a table is to be read, as far as somebody says so.
#[derive(Debug)]
pub struct HandoverRequest {
    /// Where parts of an event come from.
    pub columns: Vec<Mapping>,
    /// Which of the rows that are there are to be published.
    pub pending: Option<String>,
    /// What was published before.
    pub since: Option<Snapshot>,
    /// In which order they are.
    pub order_by: Option<String>,
}

/// Whether a change is to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoverRun {
    /// It is made.
    Make,
    /// It is tried, and rolled back.
    Rehearse,
}

/// What was found when a table was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenBack {
    /// Rows that are not known to be published.
    pub unpublished: i64,
    /// Rows that are, and were marked; none where nothing was to be marked.
    pub marked: Option<u64>,
}

/// Changes of rows that are not published, since the table's statistics were reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IgnoredChanges {
    /// Rows that were updated.
    pub updates: i64,
    /// Rows that were deleted.
    pub deletes: i64,
}

/// How the table is to be read, by what is asked for and by its columns.
///
/// # Errors
/// When the table is not there, or does not have what is needed.
pub async fn resolve(
    connection: &Connection,
    outbox: &OutboxName,
    table: &OutboxName,
    request: HandoverRequest,
) -> Result<Adopted> {
    if table == outbox {
        let cause = format!("{table} is postrider's own outbox");
        return Err(Error::new(ErrorKind::Config, cause).with_remedy("it is published as it is"));
    }
    refuse_of_other_schemas(connection, table).await?;
    let columns = table_columns(connection, table).await?;
    let map = ColumnMap::resolve(&request.columns, &columns)?;
    let copy_order = match request.order_by {
        Some(order) => order,
        None => default_order(&map, &columns)?,
    };
    Ok(Adopted {
        name: table.clone(),
        columns: map,
        pending: request.pending,
        copy_order,
        passed: request.since,
        streamed: None,
    })
}

/// What two sets of control tables publish arrives twice.
async fn refuse_of_other_schemas(connection: &Connection, table: &OutboxName) -> Result<()> {
    let failed = |cause| classify("look who else publishes the table", cause);
    let client = connection.client();
    let owner = client.query_opt(OWNER, &[&table.quoted()]).await.map_err(failed)?;
    if let Some(owner) = owner {
        let owner: String = owner.get("schema_name");
        let cause = format!("{table} is the outbox of schema {owner}");
        let remedy = format!("it is published as it is, by an instance with --schema '{owner}'");
        return Err(Error::new(ErrorKind::Config, cause).with_remedy(remedy));
    }
    let names: [&(dyn ToSql + Sync); 3] =
        [&table.quoted(), &adopted_publication(), &ADOPTED_PUBLICATION];
    let Some(other) = client.query_opt(ELSEWHERE, &names).await.map_err(failed)? else {
        return Ok(());
    };
    let publication: String = other.get("publication");
    let cause = format!("{table} is adopted by another schema already: publication {publication}");
    Err(Error::new(ErrorKind::Config, cause).with_remedy(format!(
        "give it back there first: postrider adopt {table} --end, with the other --schema; if no such schema is left, \
         drop publication {publication}"
    )))
}

fn default_order(map: &ColumnMap, columns: &[TableColumn]) -> Result<String> {
    let column = |part| match map.origin(part) {
        Some(PartOrigin::Column(name)) => columns.iter().find(|column| column.name == *name),
        Some(PartOrigin::Constant(_)) | None => None,
    };
    let quoted = |column: &TableColumn| postgres_protocol::escape::escape_identifier(&column.name);
    match (column(Part::Id), column(Part::CreatedAt)) {
        (Some(id), _) if matches!(id.form, Some(Form::Integer | Form::Numeric)) => Ok(quoted(id)),
        (Some(id), Some(created_at)) => Ok(format!("{}, {}", quoted(created_at), quoted(id))),
        _ => Err(Error::new(
            ErrorKind::Config,
            "the table does not tell in which order its rows were written",
        )
        .with_remedy("give --order-by, like --order-by written_at")),
    }
}

/// How many rows are pending. Its condition and its order run with the caller's rights.
///
/// # Errors
/// When the condition or the order is none.
pub async fn count_pending(connection: &mut Connection, adopted: &Adopted) -> Result<i64> {
    let (transaction, near) = one_snapshot(connection).await?;
    let (quoted, condition) = (adopted.name.quoted(), unpublished(adopted, &near));
    let places = [
        ("{table}", quoted.as_str()),
        ("{condition}", condition.as_str()),
        ("{order}", &adopted.copy_order),
    ];
    let row = transaction.query_one(&fill(CHECK, &places), &[]).await;
    let row = row.map_err(|cause| {
        let error = classify("read the rows that are pending", cause);
        Error::new(ErrorKind::Config, error.message().to_owned())
            .with_remedy("--pending is a condition of SQL, --order-by what follows `order by`")
    })?;
    Ok(row.get(0))
}

/// The columns by which the table is partitioned and which the condition of pending rows names: a row that moves
/// to another partition is a new one in the log.
///
/// # Errors
/// When the connection fails.
pub async fn moving_columns(connection: &Connection, adopted: &Adopted) -> Result<Option<String>> {
    let Some(pending) = &adopted.pending else { return Ok(None) };
    let row =
        connection.client().query_one(PARTITION_KEYS, &[&adopted.name.quoted(), pending]).await;
    let row = row.map_err(|cause| classify("look at the table's partitions", cause))?;
    Ok(row.get("columns"))
}

/// Takes the table over. The publication is made here: the relay's role need not own the table.
///
/// # Errors
/// When the table is adopted already, or its publication cannot be made; it is then not adopted.
pub async fn take_over(
    database: &DatabaseConfig,
    outbox: &OutboxName,
    adopted: &Adopted,
) -> Result<()> {
    let connection = connect(database, "slot").await?;
    let mut keeper = SlotKeeper::open(connection, database, outbox.clone(), Mode::Wal).await?;
    // Whoever reads sees both or nothing. What fails ends with the session.
    keeper.say("begin").await?;
    let (before, table) = (keeper.publication_before().await?, &adopted.name);
    if !insert(keeper.connection(), adopted).await? {
        let cause = format!("{table} is adopted already");
        return Err(Error::new(ErrorKind::Config, cause)
            .with_remedy(format!("give it back first: postrider adopt {table} --end")));
    }
    let tables = adopted_tables(keeper.connection()).await?;
    keeper.change_publication(tables, before).await?;
    keeper.say("commit").await
}

async fn insert(connection: &Connection, adopted: &Adopted) -> Result<bool> {
    let OutboxName { schema, table } = &adopted.name;
    let columns: Vec<String> = adopted.columns.mappings().iter().map(ToString::to_string).collect();
    let passed = adopted.passed.clone().map(PgSnapshot);
    let inserted = connection
        .client()
        .execute(
            INSERT.text(),
            &[schema, table, &columns, &adopted.pending, &adopted.copy_order, &passed],
        )
        .await;
    Ok(inserted.map_err(|cause| classify("adopt the table", cause))? == 1)
}

/// The adopted table of this name, which is to be given back while so many instances run.
///
/// # Errors
/// When it is not adopted, an instance runs, or another condition is recorded than the caller expects.
pub async fn find_ended(
    connection: &Connection,
    table: &OutboxName,
    running: usize,
    expected_pending: Option<&str>,
) -> Result<Adopted> {
    let tables = adopted_tables(connection).await?;
    let Some(adopted) = tables.into_iter().find(|adopted| adopted.name == *table) else {
        let cause = format!("{table} is not adopted");
        return Err(Error::new(ErrorKind::Config, cause)
            .with_remedy("see `postrider capture show` for the tables that are"));
    };
    if running > 0 {
        let cause = format!("instances are running ({running}), and publish more of {table}");
        return Err(Error::new(ErrorKind::Config, cause)
            .with_remedy("stop them; they save how far they have come"));
    }
    expect_pending(&adopted, expected_pending)?;
    Ok(adopted)
}

/// Refuses to run another condition than the caller expects.
fn expect_pending(adopted: &Adopted, expected: Option<&str>) -> Result<()> {
    let recorded = adopted.pending.as_deref();
    if expected.is_none() || expected == recorded {
        return Ok(());
    }
    let shown = recorded.map_or_else(|| "none".to_owned(), whole);
    let cause = format!("another --pending is recorded for {}: {shown}", adopted.name);
    Err(Error::new(ErrorKind::Config, cause).with_remedy(format!(
        "find out who wrote it into {}; to run it all the same, give it as it stands there",
        schema::chosen().of("adopted")
    )))
}

/// SQL that will run is shown to its last letter: what is cut off may be what matters.
pub fn whole(sql: &str) -> String {
    legible::shown(sql, usize::MAX)
}

/// The triggers that fire with the caller's rights for each row that is marked.
///
/// # Errors
/// When the connection fails.
pub async fn triggers(connection: &Connection, adopted: &Adopted) -> Result<Vec<String>> {
    let triggers = connection.client().query(TRIGGERS, &[&adopted.name.quoted()]).await;
    let triggers = triggers.map_err(|cause| classify("look at the table's triggers", cause))?;
    Ok(triggers.iter().map(|row| row.get("name")).collect())
}

/// Gives the table back, and marks what is published of it where `mark` says how. `keeper` looks after the slot, by
/// which all else goes on to be read. The recorded condition runs with
/// the caller's rights, and so do the table's triggers.
///
/// # Errors
/// When a condition or a mark is none, or the connection fails; nothing was changed then.
pub async fn give_back(
    connection: &mut Connection,
    keeper: &mut SlotKeeper,
    adopted: &Adopted,
    mark: Option<&str>,
    change: HandoverRun,
) -> Result<GivenBack> {
    let before = keeper.publication_before().await?;
    let failed = |cause| classify("give the table back", cause);
    let (transaction, near) = one_snapshot(connection).await?;
    let (table, condition) = (adopted.name.quoted(), unpublished(adopted, &near));
    let count = fill(COUNT, &[("{table}", &table), ("{condition}", &condition)]);
    let unpublished: i64 = transaction.query_one(&count, &[]).await.map_err(failed)?.get(0);
    let mut marked = None;
    if let Some(mark) = mark {
        let places = [
            ("{table}", table.as_str()),
            ("{mark}", mark),
            ("{pending}", adopted.pending.as_deref().unwrap_or("true")),
            ("{condition}", &condition),
        ];
        marked = Some(transaction.execute(&fill(MARK, &places), &[]).await.map_err(failed)?);
    }
    let OutboxName { schema, table } = &adopted.name;
    transaction.execute(DELETE.text(), &[schema, table]).await.map_err(failed)?;
    transaction.batch_execute(END_PUBLICATION.text()).await.map_err(failed)?;
    match change {
        HandoverRun::Make => transaction.commit().await.map_err(failed)?,
        HandoverRun::Rehearse => transaction.rollback().await.map_err(failed)?,
    }
    if let (HandoverRun::Make, Some(before)) = (change, before) {
        let left = adopted_tables(keeper.connection()).await?;
        if let Err(error) = keeper.change_publication(left, Some(before)).await {
            tracing::warn!(
                cause = error.message(),
                remedy = error.remedy(),
                "the publication of the adopted tables that are left cannot be made: the reader will make a new slot, and \
                 poll the table until then"
            );
        }
    }
    Ok(GivenBack { unpublished, marked })
}

/// A transaction that sees one state of the table, and a transaction id at or above all that it sees.
async fn one_snapshot(connection: &mut Connection) -> Result<(Transaction<'_>, String)> {
    let failed = |cause| classify("begin a transaction", cause);
    let begun = connection.client_mut().build_transaction();
    let begun = begun.isolation_level(IsolationLevel::RepeatableRead).start().await;
    let transaction = begun.map_err(failed)?;
    let near: i64 = transaction.query_one(NEAR, &[]).await.map_err(failed)?.get(0);
    Ok((transaction, near.to_string()))
}

/// The changes of an adopted table that nobody publishes.
///
/// # Errors
/// When the connection fails.
pub async fn ignored(connection: &Connection, adopted: &Adopted) -> Result<IgnoredChanges> {
    let OutboxName { schema, table } = &adopted.name;
    let row = connection.client().query_one(CHANGES, &[schema, table]).await;
    let row = row.map_err(|cause| classify("look at a table's statistics", cause))?;
    Ok(IgnoredChanges { updates: row.get("updates"), deletes: row.get("deletes") })
}
