//! The schema of a consumer's inbox, in the consumer's own database: `postrider migrate inbox`.
//!
//! Promises: as the outbox's migrations: forward only, each all or nothing, one at a time; [`print()`] and [`up`] run
//! the same text. Must not: need the outbox, or touch it. Fails: [`ErrorKind::Schema`] when what is there does not fit;
//! else what PostgreSQL says.

use tokio_postgres::Client;

use crate::control::migrate::registry::Migration;
use crate::control::migrate::{check_version, is_overtaken, literal};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{classify, fill};

const STEP: &str = include_str!("../../../sql/inbox/step.sql");
const IS_THERE: &str = include_str!("../../../sql/inbox/is_there.sql");
const APPLIED: &str = include_str!("../../../sql/inbox/applied.sql");
const SERVER_VERSION: &str = include_str!("../../../sql/inbox/server_version.sql");

/// All steps; a version is its place in this list. Applied ones never change.
const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 0,
        name: "registry",
        sql: include_str!("../../../sql/inbox/0000_registry.sql"),
    },
    Migration { version: 1, name: "inbox", sql: include_str!("../../../sql/inbox/0001_inbox.sql") },
];

/// How often a step is tried that somebody else has begun at the same moment.
const TRIES: usize = 3;

/// Applies the migrations that are pending; their titles.
///
/// # Errors
/// [`ErrorKind::Schema`] when the database has edited or unknown migrations; else what PostgreSQL says.
pub async fn up(client: &Client) -> Result<Vec<String>> {
    let failed = |cause| classify("look at the inbox", cause);
    let version = client.query_one(SERVER_VERSION, &[]).await.map_err(failed)?;
    check_version(version.get("server_version"))?;
    let before = applied(client).await?;
    for migration in MIGRATIONS {
        apply(client, migration).await?;
    }
    Ok(MIGRATIONS.iter().skip(before).map(Migration::title).collect())
}

/// How many are applied.
async fn applied(client: &Client) -> Result<usize> {
    let failed = |cause| classify("read the list of the inbox's migrations", cause);
    if !client.query_one(IS_THERE, &[]).await.map_err(failed)?.get::<_, bool>("is_there") {
        return Ok(0);
    }
    let rows = client.query(APPLIED, &[]).await.map_err(failed)?;
    if let Some(row) = rows.get(MIGRATIONS.len()) {
        let (version, name): (i32, String) = (row.get("version"), row.get("name"));
        let cause =
            format!("the inbox has migration {version:04} {name}, which this version knows not");
        return Err(Error::new(ErrorKind::Schema, cause)
            .with_remedy("use the version of postrider that applied it, or a later one"));
    }
    Ok(rows.len())
}

async fn apply(client: &Client, migration: &Migration) -> Result<()> {
    let sql = statement(migration);
    for is_last in (1..=TRIES).map(|number| number == TRIES) {
        match client.batch_execute(&sql).await {
            Ok(()) => return Ok(()),
            Err(cause) if is_overtaken(&cause) && !is_last => {}
            Err(cause) => {
                return Err(classify(
                    &format!("apply migration {} of the inbox", migration.title()),
                    cause,
                ));
            }
        }
    }
    unreachable!("the last try returns")
}

fn statement(migration: &Migration) -> String {
    fill(
        STEP,
        &[
            ("{version}", &migration.version.to_string()),
            ("{name}", &literal(migration.name)),
            ("{checksum}", &literal(&migration.checksum())),
            ("{file}", migration.sql.trim_end()),
        ],
    )
}

/// All migrations as one SQL text, for other migration tools; leads to the same state as [`up`].
pub fn print() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut sql = format!(
        "-- postrider {version}, the inbox of consumers: for the consumer's database.\n\
         -- Each migration is one statement, which is undone as a whole if it fails, and which does\n\
         -- nothing if it was applied before. Run it with: psql -v ON_ERROR_STOP=1 -f this_file\n"
    );
    for migration in MIGRATIONS {
        sql.push_str(&format!("\n-- Migration {}\n", migration.title()));
        sql.push_str(&statement(migration));
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_migration_is_one_statement() {
        let sql = print();
        for quote in ["$postrider_step$", "$postrider_file$"] {
            assert!(MIGRATIONS.iter().all(|migration| !migration.sql.contains(quote)));
        }
        assert_eq!(sql.matches("\ndo $postrider_step$\n").count(), MIGRATIONS.len());
        for (place, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(usize::try_from(migration.version).unwrap(), place, "versions are places");
        }
    }
}
