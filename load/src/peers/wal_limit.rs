//! The limit of everybody who reads the WAL: `pg_recvlogical` to the null device.
//!
//! Promises: the rows of the backlog, in binary `pgoutput`, at each endpoint of the server, each
//! with a slot of its own over the same WAL. Must not: be counted when the server cannot decode its
//! WAL or the program is not there; that is said. Fails: when the program does.

use anyhow::Result;
use tokio_postgres::Client;

use super::cdc_table;
use super::endpoints::Endpoints;
use super::peer::RELAY;
use super::plan::PeersPlan;
use super::recvlogical::{self, ReceivedReading};
use super::table::MeasuredLimit;
use crate::measure::clock;
use crate::output;
use crate::workload::backlog::Backlog;
use crate::workload::outbox::EventTable;
use crate::workload::plan::EventPlan;
use crate::workload::session::Target;

const SLOTS: [&str; 2] = ["postrider_load_tcp", "postrider_load_socket"];

/// What is read, and from where.
pub(crate) struct WalLimit<'a> {
    /// How much is written.
    pub(crate) plan: &'a PeersPlan,
    /// A connection.
    pub(crate) client: &'a Client,
    /// The endpoints to read.
    pub(crate) endpoints: &'a Endpoints,
}

impl WalLimit<'_> {
    /// Writes the rows and reads their WAL at each endpoint.
    ///
    /// # Errors
    /// As the module says.
    pub(crate) async fn measure(&self) -> Result<Vec<MeasuredLimit>> {
        if let Some(reason) = recvlogical::obstacle(self.client).await? {
            output::talk(&format!("the WAL is not read: {reason}"));
            return Ok(Vec::new());
        }
        cdc_table::make(self.client, &SLOTS).await?;
        let limits = self.write_and_read().await;
        cdc_table::remove(self.client, &SLOTS).await?;
        limits
    }

    async fn write_and_read(&self) -> Result<Vec<MeasuredLimit>> {
        self.write().await?;
        let end = &recvlogical::end_of_log(self.client).await?;
        let endpoints = [
            ("limit: `pg_recvlogical` to nowhere, TCP", &self.endpoints.tcp_host, SLOTS[0]),
            (
                "limit: `pg_recvlogical` to nowhere, unix socket",
                &self.endpoints.socket_folder,
                SLOTS[1],
            ),
        ];
        let mut limits = Vec::new();
        for (name, host, slot) in endpoints {
            if let Some(host) = host {
                let read = ReceivedReading { slot, publications: cdc_table::PUBLICATION, end };
                let took =
                    tokio::task::block_in_place(|| read.to_nowhere(&self.endpoints.login, host))?;
                let per_second = self.plan.events as f64 / took.as_secs_f64();
                limits.push(MeasuredLimit { name, beside: RELAY, per_second });
            }
        }
        Ok(limits)
    }

    async fn write(&self) -> Result<()> {
        let shape = &self.plan.shape;
        let table = EventTable::find(self.client, cdc_table::TABLE).await?.with_ids(shape.ids);
        let backlog = Backlog {
            database_url: &self.plan.source.database_url,
            target: &Target::Table(table),
            events: self.plan.events,
            tx_size: shape.tx_size,
            seed: shape.seed,
        };
        let written = EventPlan { headers: 0, rollback_percent: 0, ..shape.clone() };
        let written = written.shape(clock::new_run_id()?);
        backlog.fill(&written).await?;
        Ok(())
    }
}
