//! The table of those who read the WAL: Debezium's columns, a publication, and slots.
//!
//! Promises: created for each run and dropped after it, for a slot that nobody reads holds the
//! WAL back. Must not: touch the outbox. Fails: when the server does not write the WAL for logical
//! decoding, or the role may not.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio_postgres::Client;

/// The table.
pub(crate) const TABLE: &str = "postrider_load_logged";

/// What it publishes.
pub(crate) const PUBLICATION: &str = "postrider_load_logged";

/// The role that Debezium logs in as: a halted reader must not be cut off after a minute.
pub(crate) const ROLE: &str = "postrider_load_reader";

/// Its password; the role exists as long as a run does.
pub(crate) const PASSWORD: &str = "postrider-load";

/// How often to look whether a slot is free, and the pause between: five seconds in all.
const RELEASE_TRIES: u32 = 50;
const RELEASE_PAUSE: Duration = Duration::from_millis(100);

/// Whether the server can decode its WAL.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn is_possible(client: &Client) -> Result<bool> {
    let row = client.query_one("select current_setting('wal_level') = 'logical'", &[]).await;
    Ok(row.context("PostgreSQL does not answer")?.get(0))
}

/// Creates table, publication, role and these slots, and drops earlier ones first.
///
/// # Errors
/// As the module says.
pub(crate) async fn make(client: &Client, slots: &[&str]) -> Result<()> {
    ensure!(
        is_possible(client).await?,
        "the WAL cannot be decoded; set wal_level = logical and start PostgreSQL again"
    );
    remove(client, slots).await?;
    let sql = format!(
        "create table {TABLE} (
             id uuid primary key default gen_random_uuid(),
             aggregatetype varchar(255) not null,
             aggregateid varchar(255) not null,
             type varchar(255) not null,
             payload text
         );
         create publication {PUBLICATION} for table {TABLE} with (publish = 'insert');
         create role {ROLE} login replication password '{PASSWORD}';
         alter role {ROLE} set wal_sender_timeout = 0;
         grant select on {TABLE} to {ROLE};"
    );
    client.batch_execute(&sql).await.context("the CDC table cannot be created")?;
    for slot in slots {
        client
            .execute("select pg_create_logical_replication_slot($1, 'pgoutput')", &[slot])
            .await
            .context("a replication slot cannot be made")?;
    }
    Ok(())
}

/// Takes all of it away.
///
/// # Errors
/// When a slot is still being read, or the role may not.
pub(crate) async fn remove(client: &Client, slots: &[&str]) -> Result<()> {
    drop_slots(client, slots).await?;
    let sql = format!(
        "drop publication if exists {PUBLICATION}; drop table if exists {TABLE};
         drop role if exists {ROLE};"
    );
    client.batch_execute(&sql).await.context("the CDC table cannot be dropped")
}

/// Drops these slots, as far as there are any.
///
/// # Errors
/// When one is still being read, or the role may not.
pub(crate) async fn drop_slots(client: &Client, slots: &[&str]) -> Result<()> {
    let names: Vec<&str> = slots.to_vec();
    // The server notices a little later that a reader has gone.
    for _ in 0..RELEASE_TRIES {
        let read = "select exists (select from pg_replication_slots \
                    where slot_name = any($1) and active)";
        let row = client.query_one(read, &[&names]).await.context("PostgreSQL does not answer")?;
        if !row.get::<_, bool>(0) {
            break;
        }
        tokio::time::sleep(RELEASE_PAUSE).await;
    }
    client
        .execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots \
             where slot_name = any($1)",
            &[&names],
        )
        .await
        .context("a replication slot cannot be dropped")?;
    Ok(())
}
