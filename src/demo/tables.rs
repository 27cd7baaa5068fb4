//! The outbox and the shop's tables, in an empty database.
//!
//! Promises: the outbox is made by the same migrations as `postrider migrate up` applies.
//! Must not: touch a database that is not the demo's. Fails: with PostgreSQL's words.

use crate::control::migrate;
use crate::control::migrate::MigrationRequest;
use crate::demo::shop;
use crate::error::Result;
use crate::postgres::{DatabaseConfig, connect};

/// Makes all of them.
pub(super) async fn make(url: &str) -> Result<()> {
    let mut connection = connect(&DatabaseConfig::parse(url)?, "migrate").await?;
    migrate::up(connection.client_mut(), &MigrationRequest::default()).await?;
    shop::build(url).await
}
