//! The migrations that this program knows, and those that a database has.
//!
//! Promises: a database whose list differs from ours in any way but its end is refused.
//! Must not: change anything.
//! Fails: [`ErrorKind::Schema`] for an edited or an unknown migration.

use tokio_postgres::error::SqlState;
use tokio_postgres::{GenericClient, Row};

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Sql, classify};
use crate::schema::{self, Schema};

/// The last migration of the version before this one: its relays work with the schema of this one, as each migration
/// leaves room for them. It moves with each version: docs/releasing.md.
pub(super) const RELAYS_FROM: i32 = 12;
/// Around the numbers, in the comment on the registry.
const FLOOR: [&str; 2] = ["relays that know migration ", " work with the schema as of "];

static REGISTRY_FLOOR: Sql = Sql::of(include_str!("../../../sql/queries/registry_floor.sql"));
static REGISTRY_READ: Sql = Sql::of(include_str!("../../../sql/queries/registry_read.sql"));

/// One forward step of the schema.
#[derive(Debug)]
pub(super) struct Migration {
    pub(super) version: i32,
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
}

/// All steps; a version is its place in this list. Applied ones never change.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 0,
        name: "registry",
        sql: include_str!("../../../sql/migrations/0000_registry.sql"),
    },
    Migration {
        version: 1,
        name: "control",
        sql: include_str!("../../../sql/migrations/0001_control.sql"),
    },
    Migration {
        version: 2,
        name: "outbox",
        sql: include_str!("../../../sql/migrations/0002_outbox.sql"),
    },
    Migration {
        version: 3,
        name: "interface",
        sql: include_str!("../../../sql/migrations/0003_interface.sql"),
    },
    Migration {
        version: 4,
        name: "tier",
        sql: include_str!("../../../sql/migrations/0004_tier.sql"),
    },
    Migration {
        version: 5,
        name: "parked",
        sql: include_str!("../../../sql/migrations/0005_parked.sql"),
    },
    Migration {
        version: 6,
        name: "log",
        sql: include_str!("../../../sql/migrations/0006_log.sql"),
    },
    Migration {
        version: 7,
        name: "adopted",
        sql: include_str!("../../../sql/migrations/0007_adopted.sql"),
    },
    Migration {
        version: 8,
        name: "arrival",
        sql: include_str!("../../../sql/migrations/0008_arrival.sql"),
    },
    Migration {
        version: 9,
        name: "law",
        sql: include_str!("../../../sql/migrations/0009_law.sql"),
    },
    Migration {
        version: 10,
        name: "parked_key",
        sql: include_str!("../../../sql/migrations/0010_parked_key.sql"),
    },
    Migration {
        version: 11,
        name: "held_names",
        sql: include_str!("../../../sql/migrations/0011_held_names.sql"),
    },
    Migration {
        version: 12,
        name: "adopted_rows",
        sql: include_str!("../../../sql/migrations/0012_adopted_rows.sql"),
    },
    Migration {
        version: 13,
        name: "printed",
        sql: include_str!("../../../sql/migrations/0013_printed.sql"),
    },
    Migration {
        version: 14,
        name: "past_tick",
        sql: include_str!("../../../sql/migrations/0014_past_tick.sql"),
    },
    Migration {
        version: 15,
        name: "strangers",
        sql: include_str!("../../../sql/migrations/0015_strangers.sql"),
    },
    Migration {
        version: 16,
        name: "window",
        sql: include_str!("../../../sql/migrations/0016_window.sql"),
    },
    Migration {
        version: 17,
        name: "pause",
        sql: include_str!("../../../sql/migrations/0017_pause.sql"),
    },
    Migration {
        version: 18,
        name: "health",
        sql: include_str!("../../../sql/migrations/0018_health.sql"),
    },
    Migration {
        version: 19,
        name: "delivery",
        sql: include_str!("../../../sql/migrations/0019_delivery.sql"),
    },
    Migration {
        version: 20,
        name: "steer",
        sql: include_str!("../../../sql/migrations/0020_steer.sql"),
    },
    Migration {
        version: 21,
        name: "proof",
        sql: include_str!("../../../sql/migrations/0021_proof.sql"),
    },
    Migration {
        version: 22,
        name: "whereabouts",
        sql: include_str!("../../../sql/migrations/0022_whereabouts.sql"),
    },
    Migration {
        version: 23,
        name: "large_part",
        sql: include_str!("../../../sql/migrations/0023_large_part.sql"),
    },
];

impl Migration {
    /// Tells an edited file from the applied one; proves nothing against intent.
    ///
    /// Source: Fowler, Noll, Vo, "FNV-1a", 64 bits.
    pub(super) fn checksum(&self) -> String {
        let hash = self.sql.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
    }

    /// `0002 outbox`.
    pub(super) fn title(&self) -> String {
        format!("{:04} {}", self.version, self.name)
    }
}

/// One row of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) version: i32,
    pub(super) name: String,
    pub(super) checksum: String,
    pub(super) applied_at: String,
    pub(super) applied_by: String,
}

impl Applied {
    /// `0002 outbox`.
    pub(super) fn title(&self) -> String {
        format!("{:04} {}", self.version, self.name)
    }

    fn read(row: &Row) -> std::result::Result<Self, tokio_postgres::Error> {
        Ok(Self {
            version: row.try_get("version")?,
            name: row.try_get("name")?,
            checksum: row.try_get("checksum")?,
            applied_at: row.try_get("applied_at")?,
            applied_by: row.try_get("applied_by")?,
        })
    }
}

/// What is done about migrations of a later version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaterMigrations {
    /// Nobody knows what they are.
    Refused,
    /// Whoever worked before they came works on: each leaves room for those of the version before.
    Borne,
    /// Whoever begins now works with them, if whoever made them has said so.
    AsTold,
}

/// What is written beside the registry for relays of the version before, with this migration.
pub(super) fn floor_words(floor: i32, raised_to: i32) -> String {
    let [before, between] = FLOOR;
    format!("{before}{floor:04}{between}{raised_to:04}")
}

/// Whether relays that know so many migrations work with a schema that so many were applied to, as these words tell.
/// Of a schema that was raised by something else since they say nothing.
fn is_floor_reached(words: Option<&str>, known: usize, latest: i32) -> bool {
    let [before, between] = FLOOR;
    let numbers = words.and_then(|words| words.strip_prefix(before)?.split_once(between));
    let is_told = |(floor, raised_to): (&str, &str)| {
        // The version of a migration is its place.
        floor.parse::<usize>().is_ok_and(|floor| floor < known) && raised_to.parse() == Ok(latest)
    };
    numbers.is_some_and(is_told)
}

/// Whether the version that raised the schema has left room for this one.
async fn has_room(client: &impl GenericClient, latest: i32) -> Result<bool> {
    let told = client.query_one(REGISTRY_FLOOR.text(), &[]).await;
    let told = told.map_err(|cause| classify("look which relays the schema is for", cause))?;
    Ok(is_floor_reached(told.get("words"), MIGRATIONS.len(), latest))
}

/// Reads the registry, which must be there, and compares it with [`MIGRATIONS`].
pub(super) async fn read(client: &impl GenericClient) -> Result<Vec<Applied>> {
    read_with(client, LaterMigrations::Refused).await
}

/// The same, where later ones may be borne; all are in the answer.
pub(super) async fn read_with(
    client: &impl GenericClient,
    later: LaterMigrations,
) -> Result<Vec<Applied>> {
    let failed = |cause| classify("read the list of migrations", cause);
    let rows = client.query(REGISTRY_READ.text(), &[]).await.map_err(|cause| {
        let is_other_table = cause.code() == Some(&SqlState::UNDEFINED_COLUMN);
        if is_other_table { no_registry(schema::chosen()) } else { failed(cause) }
    })?;
    let applied: Vec<Applied> =
        rows.iter().map(Applied::read).collect::<std::result::Result<_, _>>().map_err(failed)?;
    let is_borne = match later {
        LaterMigrations::Refused => false,
        LaterMigrations::Borne => true,
        LaterMigrations::AsTold => match applied.last() {
            Some(latest) if applied.len() > MIGRATIONS.len() => {
                has_room(client, latest.version).await?
            }
            Some(_) | None => false,
        },
    };
    verify(if is_borne { &applied[..applied.len().min(MIGRATIONS.len())] } else { &applied })?;
    Ok(applied)
}

/// Another tool has a table of the same name.
fn no_registry(schema: &Schema) -> Error {
    let cause = format!("{} is no list of postrider's migrations", schema.of("migration"));
    Error::new(ErrorKind::Schema, cause)
        .with_remedy("name a schema with --schema that holds nothing else; migrate up makes it")
}

/// What was applied must be the beginning of what we know.
fn verify(applied: &[Applied]) -> Result<()> {
    for (place, row) in applied.iter().enumerate() {
        let title = row.title();
        let Some(known) = MIGRATIONS.get(place) else {
            let cause = format!("the database has migration {title}, which this version knows not");
            return Err(Error::new(ErrorKind::Schema, cause)
                .with_remedy("use the version of postrider that applied it, or a later one"));
        };
        if known.version != row.version {
            let table = schema::chosen().of("migration");
            let cause = format!("migration {} is missing below {title}", known.title());
            return Err(Error::new(ErrorKind::Schema, cause)
                .with_remedy(format!("restore {table} from a backup; do not edit it")));
        }
        if known.checksum() != row.checksum {
            let cause = format!("migration {title} was applied with another text than ours");
            return Err(Error::new(ErrorKind::Schema, cause).with_remedy(
                "use the version of postrider that applied it; `postrider migrate print` shows ours",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(count: usize) -> Vec<Applied> {
        let row = |known: &Migration| Applied {
            version: known.version,
            name: known.name.to_owned(),
            checksum: known.checksum(),
            applied_at: String::new(),
            applied_by: String::new(),
        };
        MIGRATIONS.iter().take(count).map(row).collect()
    }

    #[test]
    fn versions_are_places() {
        for (place, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(usize::try_from(migration.version).unwrap(), place);
        }
    }

    #[test]
    fn a_later_schema_is_for_relays_that_know_its_floor() {
        let told = floor_words(12, 41);
        assert!(is_floor_reached(Some(&told), 13, 41) && is_floor_reached(Some(&told), 40, 41));
        assert!(!is_floor_reached(Some(&told), 12, 41), "0012 is the thirteenth");
        assert!(!is_floor_reached(Some(&told), 40, 42), "it was raised again, by who told nothing");
        for words in [None, Some(""), Some("12"), Some("relays that know migration 0012")] {
            assert!(!is_floor_reached(words, 40, 41), "{words:?}");
        }
        assert!(usize::try_from(RELAYS_FROM).expect("it is a place") < MIGRATIONS.len());
    }

    #[test]
    fn the_checksum_is_fnv_1a() {
        let of = |sql| Migration { version: 0, name: "", sql }.checksum();
        assert_eq!(of(""), "cbf29ce484222325");
        assert_eq!(of("foobar"), "85944171f73967e8");
    }

    #[test]
    fn only_a_beginning_of_our_list_is_taken() {
        for count in 0..=MIGRATIONS.len() {
            assert!(verify(&applied(count)).is_ok(), "{count}");
        }
        let mut edited = applied(2);
        edited[1].checksum.push('0');
        let mut newer = applied(MIGRATIONS.len());
        newer.push(Applied { version: 99, name: "later".into(), ..newer[0].clone() });
        assert!(verify(&newer[..MIGRATIONS.len()]).is_ok(), "what came later is borne");
        let mut gap = applied(3);
        gap.remove(1);
        for (list, word) in [(edited, "another text"), (newer, "0099 later"), (gap, "missing")] {
            let error = verify(&list).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Schema);
            assert!(error.message().contains(word), "{error}");
            assert!(error.remedy().is_some());
        }
    }
}
