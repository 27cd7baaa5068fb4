//! The publications by which the log's reader reads: of the outbox, of adopted tables, of messages.
//!
//! Promises: one that does not bring everything is as good as none; whatever anybody does to one changes
//! its fingerprint; what is right is left alone. Must not: touch a slot. Fails: with the connection's error;
//! when rights are missing.

use tokio_postgres::types::ToSql;

use crate::capture::mode::Mode;
use crate::capture::slot::SlotKeeper;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{classify, fill};
use crate::schema;

const LOOK: &str = include_str!("../../../sql/queries/publication_look.sql");
const MAKE: &str = include_str!("../../../sql/queries/publication_make.sql");
const MAKE_EMPTY: &str = include_str!("../../../sql/queries/publication_make_empty.sql");
/// How publications of adopted tables are called, before the schema's name.
pub(in crate::capture) const ADOPTED_PUBLICATION: &str = "postrider_adopted";

/// The publication of adopted tables.
pub(in crate::capture) fn adopted_publication() -> String {
    schema::chosen().tagged(ADOPTED_PUBLICATION)
}

/// Under which name the rows of a partitioned table come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartitionName {
    Own,
    Root,
}

impl PartitionName {
    fn is_root(self) -> bool {
        self == Self::Root
    }
}

/// What there is of publications, each by its fingerprint.
struct FoundPublications {
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

impl FoundPublications {
    /// All of it; none when something is missing.
    fn fingerprint(self) -> Option<String> {
        match self.adopted {
            FoundAdopted::Needless => self.own,
            FoundAdopted::Whole(adopted) => self.own.map(|own| format!("{own}; {adopted}")),
            FoundAdopted::Lacking => None,
        }
    }
}

impl SlotKeeper {
    /// What the publication is now; none when it is missing or does not bring everything.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn publication(&self) -> Result<Option<String>> {
        Ok(self.find_publications().await?.fingerprint())
    }

    async fn find_publications(&self) -> Result<FoundPublications> {
        let own = [self.outbox().quoted()];
        let (own, adopted) = (
            self.look_at(&self.mode().publication(), &own, PartitionName::Own).await?,
            self.look_at(&adopted_publication(), &self.adopted_names(), PartitionName::Root)
                .await?,
        );
        let is_messages = self.mode() == Mode::Message;
        Ok(FoundPublications {
            own: own.filter(|found| is_messages || found.is_whole).map(|found| found.fingerprint),
            adopted: match adopted.filter(|found| found.is_whole) {
                Some(found) => FoundAdopted::Whole(found.fingerprint),
                None if self.adopted().is_empty() => FoundAdopted::Needless,
                None => FoundAdopted::Lacking,
            },
        })
    }

    /// Those that are not as they should be, each with the tables that it is to bring.
    pub(super) async fn missing_publications(&self) -> Result<Vec<(String, Vec<String>)>> {
        let found = self.find_publications().await?;
        let mut missing = Vec::new();
        if found.own.is_none() {
            let tables = match self.mode() {
                Mode::Message => Vec::new(),
                Mode::Poll | Mode::Wal => vec![self.outbox().quoted()],
            };
            missing.push((self.mode().publication(), tables));
        }
        if matches!(found.adopted, FoundAdopted::Lacking) {
            missing.push((adopted_publication(), self.adopted_names()));
        }
        Ok(missing)
    }

    fn adopted_names(&self) -> Vec<String> {
        self.adopted().iter().map(|table| table.name.quoted()).collect()
    }

    async fn look_at(
        &self,
        name: &str,
        tables: &[String],
        partitions: PartitionName,
    ) -> Result<Option<Publication>> {
        let parameters: [&(dyn ToSql + Sync); 3] = [&name, &tables, &partitions.is_root()];
        let row = self.connection().client().query_opt(LOOK, &parameters).await;
        let row = row.map_err(|cause| classify("look at the publication", cause))?;
        Ok(row.map(|row| Publication {
            fingerprint: row.get("fingerprint"),
            is_whole: row.get("is_whole"),
        }))
    }

    /// Makes the publication, where it is not there as it should be; gives its fingerprint.
    ///
    /// # Errors
    /// When rights are missing, or the connection fails.
    pub async fn make_publication(&self) -> Result<String> {
        let found = self.find_publications().await?;
        let statements = self.missing(&found);
        if let Some(publication) = found.fingerprint() {
            return Ok(publication);
        }
        let made = self.connection().client().batch_execute(&statements).await;
        made.map_err(|cause| {
            let refused = classify("make the publication", cause);
            Error::new(refused.kind(), refused.message().to_owned()).with_remedy(format!(
                "run `postrider capture switch {}` as the owner of the outbox",
                self.mode().name()
            ))
        })?;
        let name = self.mode().publication();
        self.publication().await?.ok_or_else(|| {
            Error::new(
                ErrorKind::Schema,
                format!("the publication {name} does not bring the outbox"),
            )
            .with_remedy(format!("drop it: drop publication {name}"))
        })
    }

    /// The statements that make what is not as it should be.
    fn missing(&self, found: &FoundPublications) -> String {
        let mut statements = String::new();
        if found.own.is_none() {
            let name = &self.mode().publication();
            statements += &match self.mode() {
                Mode::Message => anew(name, &fill(MAKE_EMPTY, &[("{publication}", name)])),
                Mode::Poll | Mode::Wal => of(name, &self.outbox().quoted(), PartitionName::Own),
            };
        }
        if matches!(found.adopted, FoundAdopted::Lacking) {
            let tables = self.adopted_names().join(", ");
            statements += &of(&adopted_publication(), &tables, PartitionName::Root);
        }
        statements
    }
}

/// A publication as it is there.
struct Publication {
    fingerprint: String,
    is_whole: bool,
}

/// Makes a publication of tables.
fn of(name: &str, tables: &str, partitions: PartitionName) -> String {
    let via_root = partitions.is_root().to_string();
    let places = [("{publication}", name), ("{tables}", tables), ("{via_root}", &via_root)];
    anew(name, &fill(MAKE, &places))
}

fn anew(name: &str, make: &str) -> String {
    format!("drop publication if exists {name};\n{make};\n")
}
