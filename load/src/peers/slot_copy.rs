//! What `pg_recvlogical` reads of the very slot that a relay reads: the slot is copied while nobody reads
//! it, and the copies bring the same rows as the relay gets.
//!
//! Promises: the same LSN to begin at, the same publication, the same rows. Must not: move the relay's
//! slot. Fails: when the server refuses, or `pg_recvlogical` does.

use anyhow::{Context, Result, ensure};
use tokio_postgres::Client;

use super::cdc_table;
use super::endpoints::Endpoints;
use super::peer::WAL_RELAY;
use super::recvlogical::{self, ReceivedReading};
use super::table::MeasuredLimit;

const COPIES: [&str; 2] = ["postrider_load_copy_tcp", "postrider_load_copy_socket"];

/// The publications of the outbox.
const PUBLICATIONS: &str = "
    select string_agg(p.pubname, ',') from pg_publication p
      join pg_publication_rel r on r.prpubid = p.oid
     where r.prrelid = to_regclass($1)";

/// Copies of a relay's slot.
pub(super) struct SlotCopies<'a> {
    client: &'a Client,
    publications: String,
}

impl<'a> SlotCopies<'a> {
    /// Copies the slot, which nobody may read now.
    ///
    /// # Errors
    /// When the server refuses, or the outbox has no publication.
    pub(super) async fn make(client: &'a Client, slot: &str, outbox: &str) -> Result<Self> {
        cdc_table::drop_slots(client, &COPIES).await?;
        let row = client.query_one(PUBLICATIONS, &[&outbox]).await;
        let publications: Option<String> = row.context("PostgreSQL does not answer")?.get(0);
        let publications = publications
            .with_context(|| format!("no publication holds {outbox}; what does the relay read?"))?;
        for copy in COPIES {
            client
                .execute("select pg_copy_logical_replication_slot($1, $2)", &[&slot, &copy])
                .await
                .with_context(|| format!("the slot {slot} cannot be copied"))?;
        }
        Ok(Self { client, publications })
    }

    /// Reads the copies at each endpoint, and drops them.
    ///
    /// # Errors
    /// As the module says.
    pub(super) async fn read(
        self,
        endpoints: &Endpoints,
        events: u64,
    ) -> Result<Vec<MeasuredLimit>> {
        let limits = self.read_each(endpoints, events).await;
        cdc_table::drop_slots(self.client, &COPIES).await?;
        limits
    }

    async fn read_each(&self, endpoints: &Endpoints, events: u64) -> Result<Vec<MeasuredLimit>> {
        ensure!(
            recvlogical::obstacle(self.client).await?.is_none(),
            "pg_recvlogical is needed to read a relay's slot"
        );
        let end = recvlogical::end_of_log(self.client).await?;
        let hosts = [
            ("limit: `pg_recvlogical` of the same slot, TCP", &endpoints.tcp_host, COPIES[0]),
            (
                "limit: `pg_recvlogical` of the same slot, unix socket",
                &endpoints.socket_folder,
                COPIES[1],
            ),
        ];
        let mut limits = Vec::new();
        for (name, host, slot) in hosts {
            if let Some(host) = host {
                let reading = ReceivedReading { slot, publications: &self.publications, end: &end };
                let took =
                    tokio::task::block_in_place(|| reading.to_nowhere(&endpoints.login, host))?;
                let per_second = events as f64 / took.as_secs_f64();
                limits.push(MeasuredLimit { name, beside: WAL_RELAY, per_second });
            }
        }
        Ok(limits)
    }
}
