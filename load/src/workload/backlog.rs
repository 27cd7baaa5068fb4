//! A backlog: so many events, written by several connections as fast as the database takes them.
//!
//! Promises: each aggregate has about five events close together; returns what was committed. Must
//! not: measure. Fails: with the first error of the database.

use anyhow::{Context, Result};

use crate::measure::clock;
use crate::workload::batch::{self, BatchBuilder, EventShape};
use crate::workload::event::Intent;
use crate::workload::key_distribution::KeyDistribution;
use crate::workload::session::{Target, Workload, WriterSession};

/// What is to be written, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backlog<'a> {
    /// The database.
    pub(crate) database_url: &'a str,
    /// Where in it.
    pub(crate) target: &'a Target,
    /// Events that commit.
    pub(crate) events: u64,
    /// Events per transaction.
    pub(crate) tx_size: u32,
    /// Seed of the choices of aggregates.
    pub(crate) seed: u64,
}

impl Backlog<'_> {
    /// Writes it; returns the last committed version of every aggregate.
    ///
    /// # Errors
    /// As the module says.
    pub(crate) async fn fill(&self, shape: &EventShape) -> Result<Vec<u32>> {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..shape.writers {
            let builder =
                BatchBuilder::new(shape, writer, KeyDistribution::Walk { step: 0 }, self.seed);
            let (url, headers) = (self.database_url, &shape.headers);
            let session =
                WriterSession::open(url, self.target, headers, Workload::Events, shape.writers)
                    .await?;
            writers.spawn(write(builder, session, self.share(shape, writer), self.tx_size));
        }
        let mut builders = Vec::new();
        while let Some(joined) = writers.join_next().await {
            builders.push(joined.context("a writer broke")??);
        }
        Ok(batch::committed_versions(shape, &builders))
    }

    /// How many of the events this writer writes.
    fn share(&self, shape: &EventShape, writer: u16) -> u64 {
        let writers = u64::from(shape.writers);
        (self.events + writers - 1 - u64::from(writer)) / writers
    }
}

async fn write(
    mut builder: BatchBuilder,
    mut session: WriterSession,
    events: u64,
    tx_size: u32,
) -> Result<BatchBuilder> {
    let mut left = events;
    while left > 0 {
        let rows = left.min(u64::from(tx_size));
        let intent = builder.next_intent();
        let now = clock::unix_us(std::time::SystemTime::now())?;
        session.write(builder.compose(rows as u32, intent, now), intent).await?;
        left -= if intent == Intent::Commit { rows } else { 0 };
    }
    Ok(builder)
}
