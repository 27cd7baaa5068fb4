//! The publications by which the log's reader reads: of the outbox, of adopted tables, of messages.
//!
//! Promises: one that does not bring everything is as good as none; whatever anybody does to one, or to the tables
//! whose rows it is to bring, changes its fingerprint; what is right is left alone. Must not: touch a slot. Fails: with
//! the connection's error; when rights are missing.

use std::fmt;

use tokio_postgres::types::ToSql;

use crate::capture::adopted::mapping::Adopted;
use crate::capture::adopted::registry::adopted_tables;
use crate::capture::mode::{CaptureState, KnownSlot, Mode, adopted_publication};
use crate::capture::slot::{Gap, OPTIONS_VERSION, SlotKeeper};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{classify, fill, without_head};

const LOOK: &str = include_str!("../../../sql/queries/publication_look.sql");
const MAKE: &str = include_str!("../../../sql/queries/publication_make.sql");
const CHANGE: &str = include_str!("../../../sql/queries/publication_change.sql");
const MAKE_EMPTY: &str = include_str!("../../../sql/queries/publication_make_empty.sql");
const FLUSH: &str = include_str!("../../../sql/queries/statistics_flush.sql");
/// What stands before the publication of adopted tables, and before the course.
const ADOPTED: &str = "; ";
const COURSE: &str = " @ ";
/// In place of the course of tables of which the log lacks a part.
const NO_COURSE: &str = "-";

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

/// On what it depends whether the log brings everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The publication of the outbox or of messages.
    own: String,
    /// That of adopted tables, where there are any.
    adopted: Option<String>,
    /// What becomes of the outbox's rows on their way into the log; none while some are not in it, and where it was
    /// never noted.
    course: Option<String>,
}

impl Fingerprint {
    /// As [`fmt::Display`] writes it, or as former versions did, which knew no course.
    fn read(noted: &str) -> Self {
        let (publication, course) = noted.split_once(COURSE).unwrap_or((noted, NO_COURSE));
        let course = (course != NO_COURSE).then(|| course.to_owned());
        let (own, adopted) = match publication.split_once(ADOPTED) {
            Some((own, adopted)) => (own, Some(adopted.to_owned())),
            None => (publication, None),
        };
        Self { own: own.to_owned(), adopted, course }
    }

    /// The course once so many members of publications were added and others removed: the server counts them behind the
    /// commit.
    fn course_with(&self, added: i64, removed: i64) -> Option<String> {
        let mut words = self.course.as_ref()?.split(' ');
        let (tables, inserted, deleted) = (words.next()?, words.next()?, words.next()?);
        let inserted: i64 = inserted.parse().ok()?;
        let deleted: i64 = deleted.parse().ok()?;
        Some(format!("{tables} {} {}", inserted + added, deleted + removed))
    }

    /// What the log would lack that was read by `noted` before.
    pub fn gap_since(&self, noted: &str) -> Option<Gap> {
        let noted = Self::read(noted);
        // Where no table is adopted, their publication brings nothing that is missed.
        let is_adopted_as_noted = self.adopted.is_none() || self.adopted == noted.adopted;
        if self.own != noted.own || !is_adopted_as_noted {
            return Some(Gap::Publication);
        }
        (self.course.is_none() || self.course != noted.course).then_some(Gap::Course)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let course = self.course.as_deref().unwrap_or(NO_COURSE);
        write!(formatter, "{}", self.own)?;
        if let Some(adopted) = &self.adopted {
            write!(formatter, "{ADOPTED}{adopted}")?;
        }
        write!(formatter, "{COURSE}{course}")
    }
}

/// What there is of publications, each by its fingerprint.
struct FoundPublications {
    /// That of the outbox or of messages; none when it does not bring all of it.
    own: Option<String>,
    /// How that one is mended.
    own_mend: Mend,
    /// That of the outbox's tables.
    course: Option<String>,
    adopted: FoundAdopted,
}

enum FoundAdopted {
    /// None is needed.
    Needless,
    Whole(String),
    /// It is missing, or lacks a table.
    Lacking(Mend),
}

/// How a publication becomes what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mend {
    /// It is changed.
    Change,
    /// It is made in the place of what is there, if anything is.
    Anew,
}

impl Mend {
    fn of(found: Option<&Publication>) -> Self {
        match found {
            Some(found) if !found.is_of_all => Self::Change,
            Some(_) | None => Self::Anew,
        }
    }

    /// The statements that make it one of these tables.
    fn of_tables(self, name: &str, tables: &str, partitions: PartitionName) -> String {
        let via_root = partitions.is_root().to_string();
        let (publication, tables) = (("{publication}", name), ("{tables}", tables));
        let via_root = ("{via_root}", via_root.as_str());
        match self {
            Self::Change => {
                let places = [publication, tables, publication, via_root];
                format!("{};\n", fill(without_head(CHANGE), &places))
            }
            Self::Anew => anew(name, &fill(MAKE, &[publication, tables, via_root])),
        }
    }
}

impl FoundPublications {
    /// All of it; none when something is missing.
    fn fingerprint(self) -> Option<Fingerprint> {
        let adopted = match self.adopted {
            FoundAdopted::Needless => None,
            FoundAdopted::Whole(adopted) => Some(adopted),
            FoundAdopted::Lacking(_) => return None,
        };
        self.own.map(|own| Fingerprint { own, adopted, course: self.course })
    }
}

impl SlotKeeper {
    /// What the publication is now; none when it is missing or does not bring everything.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn publication(&self) -> Result<Option<Fingerprint>> {
        Ok(self.find_publications().await?.fingerprint())
    }

    /// Why the log does not bring what it brought when this was noted; none when it does. Messages pass through any
    /// publication.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn gap_since(&self, known: &KnownSlot) -> Result<Option<Gap>> {
        if self.mode() == Mode::Message {
            return Ok(None);
        }
        Ok(match self.publication().await? {
            None => Some(Gap::Publication),
            Some(now) => now.gap_since(&known.publication),
        })
    }

    /// What is published now, where the table tells which rows did not come since this was known: all of the outbox comes,
    /// and adopted tables come as they did.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn provable(&self, known: &KnownSlot) -> Result<Option<Fingerprint>> {
        if self.mode() != Mode::Wal {
            return Ok(None);
        }
        let noted = Fingerprint::read(&known.publication);
        Ok(self.publication().await?.filter(|now| {
            now.course.is_some() && (now.adopted.is_none() || now.adopted == noted.adopted)
        }))
    }

    /// As [`SlotKeeper::gap`], but for what the table can tell while the stream goes on.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn gap_beside_doubt(&self, state: &CaptureState) -> Result<Option<Gap>> {
        let gap = self.gap(state).await?;
        let (Some(Gap::Publication | Gap::Course), Some(known)) = (gap, &state.slot) else {
            return Ok(gap);
        };
        let Some(now) = self.provable(known).await? else { return Ok(gap) };
        let known = KnownSlot { publication: now.to_string(), ..known.clone() };
        self.gap(&CaptureState { slot: Some(known), ..state.clone() }).await
    }

    async fn find_publications(&self) -> Result<FoundPublications> {
        let own = [self.outbox().quoted()];
        let (own, adopted) = (
            self.look_at(&self.mode().publication(), &own, PartitionName::Own).await?,
            self.look_at(&adopted_publication(), &self.adopted_names(), PartitionName::Root)
                .await?,
        );
        let is_messages = self.mode() == Mode::Message;
        let course = own.as_ref().and_then(|found| found.course.clone());
        let (own_mend, adopted_mend) = (Mend::of(own.as_ref()), Mend::of(adopted.as_ref()));
        Ok(FoundPublications {
            course,
            own_mend,
            own: own.filter(|found| is_messages || found.is_whole).map(|found| found.fingerprint),
            adopted: match adopted.filter(|found| found.is_whole) {
                _ if self.adopted().is_empty() => FoundAdopted::Needless,
                Some(found) => FoundAdopted::Whole(found.fingerprint),
                None => FoundAdopted::Lacking(adopted_mend),
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
        if matches!(found.adopted, FoundAdopted::Lacking(_)) {
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
            course: row.get("course"),
            is_whole: row.get("is_whole"),
            members: row.get("members"),
            is_of_all: row.get("is_of_all"),
        }))
    }

    /// What was right so far, with the number of members that the adopted tables' publication has: by which a change
    /// of it can be noted as no gap.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn publication_before(&self) -> Result<Option<PublicationBefore>> {
        let Some(noted) = self.state().await?.slot.map(|slot| slot.publication) else {
            return Ok(None);
        };
        let fingerprint = self.publication().await?;
        let Some(fingerprint) = fingerprint.filter(|now| now.gap_since(&noted).is_none()) else {
            return Ok(None);
        };
        let adopted = self.look_at(&adopted_publication(), &[], PartitionName::Root).await?;
        Ok(Some(PublicationBefore { noted, fingerprint, adopted }))
    }

    /// Makes the publication of adopted tables anew where it does not bring all of them. Those that count as streamed are
    /// brought as they were.
    ///
    /// # Errors
    /// As [`SlotKeeper::make_publication`]; [`ErrorKind::SlotUnusable`] where the log does not bring the outbox either.
    pub async fn mend_adopted_publication(&mut self) -> Result<()> {
        if self.publication_before().await?.is_some() {
            return Ok(());
        }
        let adopted = adopted_tables(self.connection()).await?;
        self.set_adopted(adopted.iter().filter(|table| table.is_streamed()).cloned().collect());
        let before = self.publication_before().await?;
        if before.is_none() {
            self.set_adopted(adopted);
            return Err(Error::new(ErrorKind::SlotUnusable, Gap::Publication.words()));
        }
        // Whoever reads sees both or nothing.
        self.say("begin").await?;
        match self.change_publication(adopted, before).await {
            Ok(()) => self.say("commit").await,
            Err(error) => {
                self.say("rollback").await?;
                Err(error)
            }
        }
    }

    /// Begins or ends a transaction.
    pub(in crate::capture) async fn say(&self, statement: &str) -> Result<()> {
        let said = self.connection().client().batch_execute(statement).await;
        said.map_err(|cause| classify("change the publication", cause))
    }

    /// Makes the publication for the tables that are adopted now, and notes that the log brings of all others what it
    /// brought `before`.
    ///
    /// # Errors
    /// As [`SlotKeeper::make_publication`].
    pub async fn change_publication(
        &mut self,
        adopted: Vec<Adopted>,
        before: Option<PublicationBefore>,
    ) -> Result<()> {
        self.set_adopted(adopted);
        let now = self.make_publication().await?;
        let Some(before) = before else { return Ok(()) };
        let adopted = self.look_at(&adopted_publication(), &[], PartitionName::Root).await?;
        let members = |found: Option<Publication>| found.map(|found| found.members);
        let [now_there, there] =
            [adopted, before.adopted].map(|found| members(found).unwrap_or_default());
        let beside = |some: &[u32], others: &[u32]| -> i64 {
            some.iter().filter(|member| !others.contains(member)).map(|_| 1).sum()
        };
        let (added, removed) = (beside(&now_there, &there), beside(&there, &now_there));
        let course = before.fingerprint.course_with(added, removed);
        let now = Fingerprint { course, ..now };
        self.note_course(&now.to_string(), &before.noted).await
    }

    /// Makes the publication, where it is not there as it should be; gives its fingerprint.
    ///
    /// # Errors
    /// When rights are missing, or the connection fails.
    pub async fn make_publication(&self) -> Result<Fingerprint> {
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
        self.flush_statistics().await?;
        let name = self.mode().publication();
        self.publication().await?.ok_or_else(|| {
            Error::new(
                ErrorKind::Schema,
                format!("the publication {name} does not bring the outbox"),
            )
            .with_remedy(format!("drop it: drop publication {name}"))
        })
    }

    /// What was just made belongs to what is noted.
    async fn flush_statistics(&self) -> Result<()> {
        if self.server_version() < OPTIONS_VERSION {
            return Ok(());
        }
        let flushed = self.connection().client().query(FLUSH, &[]).await;
        flushed.map(drop).map_err(|cause| classify("count what was made", cause))
    }

    /// The statements that make what is not as it should be.
    fn missing(&self, found: &FoundPublications) -> String {
        let mut statements = String::new();
        if found.own.is_none() {
            let name = &self.mode().publication();
            statements += &match self.mode() {
                Mode::Message => anew(name, &fill(MAKE_EMPTY, &[("{publication}", name)])),
                Mode::Poll | Mode::Wal => {
                    found.own_mend.of_tables(name, &self.outbox().quoted(), PartitionName::Own)
                }
            };
        }
        if let FoundAdopted::Lacking(mend) = &found.adopted {
            let tables = self.adopted_names().join(", ");
            statements += &mend.of_tables(&adopted_publication(), &tables, PartitionName::Root);
        }
        statements
    }
}

/// A publication as it is there.
#[derive(Debug, PartialEq, Eq)]
struct Publication {
    fingerprint: String,
    /// None while the log lacks rows of the tables.
    course: Option<String>,
    is_whole: bool,
    /// By their object identifiers in the catalog.
    members: Vec<u32>,
    is_of_all: bool,
}

/// A publication that was right before it is changed.
#[derive(Debug)]
pub struct PublicationBefore {
    /// As the slot has it noted.
    noted: String,
    fingerprint: Fingerprint,
    /// The adopted tables' publication.
    adopted: Option<Publication>,
}

fn anew(name: &str, make: &str) -> String {
    format!("drop publication if exists {name};\n{make};\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_what_was_changed() {
        let of = |publication: &str, course: Option<&str>| {
            Fingerprint::read(&format!("{publication}{COURSE}{}", course.unwrap_or(NO_COURSE)))
        };
        let noted = of("7 9 t f 1:2; 8 3", Some("ab 1 0"));
        assert_eq!(noted.gap_since(&noted.to_string()), None);
        assert_eq!(
            of("7 9 t f 1:3; 8 3", Some("ab 1 0")).gap_since(&noted.to_string()),
            Some(Gap::Publication)
        );
        let now = of("7 9 t f 1:2; 8 3", Some("ab 2 1"));
        assert_eq!(now.gap_since(&noted.to_string()), Some(Gap::Course));
        // Of adopted tables where there are none any more.
        assert_eq!(of("7 9 t f 1:2", Some("ab 1 0")).gap_since(&noted.to_string()), None);
        assert_eq!(
            of("7 9 t f 1:2; 8 4", Some("ab 1 0")).gap_since(&noted.to_string()),
            Some(Gap::Publication)
        );
        // As former versions noted it.
        assert_eq!(now.gap_since("7 9 t f 1:2; 8 3"), Some(Gap::Course));
    }

    #[test]
    fn members_that_come_and_go_are_counted() {
        let before = Fingerprint::read("7 @ ab 2 1");
        assert_eq!(before.course_with(3, 2).as_deref(), Some("ab 5 3"));
        let lacking = Fingerprint { course: None, ..before };
        assert_eq!(lacking.course_with(3, 2), None);
    }

    #[test]
    fn tables_of_which_the_log_lacks_a_part_are_never_as_they_were() {
        let lacking = Fingerprint::read("7 @ -");
        assert_eq!(lacking.gap_since(&lacking.to_string()), Some(Gap::Course));
    }
}
