//! The outbox and the shop's tables, in an empty database.
//!
//! Promises: the outbox is made by the same migrations as `postrider migrate up` applies.
//! Must not: touch a database that is not the demo's. Fails: with PostgreSQL's words.

use tokio_postgres::NoTls;

use super::shop;
use crate::error::Result;
use crate::postgres::classify;

const MIGRATIONS: [&str; 3] = [
    include_str!("../../../sql/migrations/0001_control.sql"),
    include_str!("../../../sql/migrations/0002_outbox.sql"),
    include_str!("../../../sql/migrations/0003_interface.sql"),
];

/// Makes all of them.
pub(super) async fn make(url: &str) -> Result<()> {
    migrate(url).await?;
    shop::build(url).await
}

async fn migrate(url: &str) -> Result<()> {
    let failed = |cause| classify("making the outbox", cause);
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(failed)?;
    let task = tokio::spawn(connection);
    for (number, file) in MIGRATIONS.iter().enumerate() {
        client.batch_execute(file).await.map_err(failed)?;
        if number == 0 {
            let settings =
                "insert into postrider.outbox values (true, 'public', 'outbox', 16, 'json', 600)";
            client.batch_execute(settings).await.map_err(failed)?;
        }
    }
    task.abort();
    Ok(())
}
