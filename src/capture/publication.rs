//! The publications by which the log's reader reads: of the outbox, of adopted tables, of messages.
//!
//! Promises: one that does not bring everything is as good as none; whatever anybody does to one changes
//! its fingerprint; what is right is left alone. Must not: touch a slot. Fails: with the connection's error;
//! when rights are missing.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::mode::Mode;
use super::slot::SlotKeeper;
use crate::adopted::Adopted;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::classify;

const LOOK: &str = include_str!("../../sql/queries/publication_look.sql");
const MAKE: &str = include_str!("../../sql/queries/publication_make.sql");
const MAKE_EMPTY: &str = include_str!("../../sql/queries/publication_make_empty.sql");
const ADOPTED_LOOK: &str = include_str!("../../sql/queries/adopted_publication_look.sql");
const ADOPTED_MAKE: &str = include_str!("../../sql/queries/adopted_publication.sql");
/// The publication of adopted tables.
pub(super) const ADOPTED_PUBLICATION: &str = "postrider_adopted";

/// What there is of publications, each by its fingerprint.
struct Found {
    /// That of the outbox or of messages; none when it does not bring all of it.
    own: Option<String>,
    adopted: FoundAdopted,
}

enum FoundAdopted {
    /// None is needed.
    Needless,
    Whole(String),
    /// It is missing, or lacks a table.
    Lacking,
}

impl SlotKeeper {
    /// What the publication is now; none when it is missing or does not bring everything.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn publication(&self) -> Result<Option<String>> {
        let Found { own, adopted } = self.find_publications().await?;
        Ok(match adopted {
            FoundAdopted::Needless => own,
            FoundAdopted::Whole(adopted) => own.map(|own| format!("{own}; {adopted}")),
            FoundAdopted::Lacking => None,
        })
    }

    async fn find_publications(&self) -> Result<Found> {
        let client = self.connection.client();
        let failed = |cause| classify("look at the publication", cause);
        let publication = self.mode.publication();
        let parameters: [&(dyn ToSql + Sync); 2] = [&publication, &self.outbox.quoted()];
        let own = client.query_opt(LOOK, &parameters).await.map_err(failed)?;
        let is_whole = |row: &Row| self.mode == Mode::Message || row.get("is_whole");
        let adopted =
            client.query_opt(ADOPTED_LOOK, &[&ADOPTED_PUBLICATION]).await.map_err(failed)?;
        Ok(Found {
            own: own.filter(is_whole).map(|row| row.get("fingerprint")),
            adopted: match adopted {
                Some(row) if row.get("is_whole") && self.brings_adopted(&row) => {
                    FoundAdopted::Whole(row.get("fingerprint"))
                }
                Some(_) | None if self.adopted.is_empty() => FoundAdopted::Needless,
                Some(_) | None => FoundAdopted::Lacking,
            },
        })
    }

    fn brings_adopted(&self, row: &Row) -> bool {
        let tables: Vec<&str> = row.get("tables");
        let plain = |name: &str| name.replace('"', "");
        let brings = |adopted: &Adopted| {
            tables.iter().any(|table| plain(table) == plain(&adopted.name.quoted()))
        };
        self.mode == Mode::Message || self.adopted.iter().all(brings)
    }

    /// Makes the publication, where it is not there as it should be; gives its fingerprint.
    ///
    /// # Errors
    /// When rights are missing, or the connection fails.
    pub async fn make_publication(&self) -> Result<String> {
        if let Some(publication) = self.publication().await? {
            return Ok(publication);
        }
        let statements = self.missing(&self.find_publications().await?);
        let made = self.connection.client().batch_execute(&statements).await;
        made.map_err(|cause| {
            let refused = classify("make the publication", cause);
            Error::new(refused.kind(), refused.message().to_owned()).with_remedy(format!(
                "run `postrider capture switch {}` as the owner of the outbox",
                self.mode.name()
            ))
        })?;
        let name = self.mode.publication();
        self.publication().await?.ok_or_else(|| {
            Error::new(
                ErrorKind::Schema,
                format!("the publication {name} does not bring the outbox"),
            )
            .with_remedy(format!("drop it: drop publication {name}"))
        })
    }

    /// The statements that make what is not as it should be.
    fn missing(&self, found: &Found) -> String {
        let anew =
            |name: &str, make: String| format!("drop publication if exists {name};\n{make};\n");
        let mut statements = String::new();
        if found.own.is_none() {
            let name = self.mode.publication();
            let make = if self.mode == Mode::Message { MAKE_EMPTY } else { MAKE };
            let make =
                make.replace("{publication}", name).replace("{outbox}", &self.outbox.quoted());
            statements += &anew(name, make);
        }
        if matches!(found.adopted, FoundAdopted::Lacking) {
            let tables: Vec<String> =
                self.adopted.iter().map(|table| table.name.quoted()).collect();
            let make = ADOPTED_MAKE
                .replace("{publication}", ADOPTED_PUBLICATION)
                .replace("{tables}", &tables.join(", "));
            statements += &anew(ADOPTED_PUBLICATION, make);
        }
        statements
    }
}
