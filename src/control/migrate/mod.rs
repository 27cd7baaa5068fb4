//! The schema: applies `sql/migrations`, prints them, says which are there, describes the outbox.
//!
//! Promises: forward only, each migration one statement and all or nothing, one at a time per
//! database; doing it again does nothing; [`print()`] and [`up`] run the same text.
//! Must not: change a table that it did not make.
//! Fails: [`ErrorKind::Schema`] when what is there does not fit; [`ErrorKind::Config`] for a request
//! without meaning.

pub mod handover;
pub mod inbox;
mod load;
mod reanchor;
mod registry;
mod status;
mod vacancy;

use std::fmt;

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, GenericClient, IsolationLevel, Transaction};

pub use crate::control::migrate::load::{LoadedOutbox, load, load_with, misnamed, moved_parts};
pub use crate::control::migrate::reanchor::reanchor;
pub use crate::control::migrate::registry::LaterMigrations;
pub use crate::control::migrate::status::{MigrationStatus, SchemaStatus, status};
pub use crate::outbox::{Outbox, OutboxName, PayloadType};

use crate::control::migrate::registry::{MIGRATIONS, Migration};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Sql, classify, fill, render};
use crate::schema;

static BEGIN: Sql = Sql::of(include_str!("../../../sql/queries/migrate_begin.sql"));
static STRANGERS: Sql = Sql::of(include_str!("../../../sql/queries/migrate_strangers.sql"));
static OWN: Sql = Sql::of(include_str!("../../../sql/queries/migrate_own.sql"));
static STATE: Sql = Sql::of(include_str!("../../../sql/queries/migrate_state.sql"));
static OUTBOX_SETTINGS: Sql = Sql::of(include_str!("../../../sql/queries/outbox_settings.sql"));
static STEP: Sql = Sql::of(include_str!("../../../sql/queries/migrate_step.sql"));
static OUTBOX_STEP: Sql = Sql::of(include_str!("../../../sql/queries/migrate_outbox.sql"));

/// The migration that makes the outbox; its statement also fixes how.
const OUTBOX_VERSION: i32 = 2;
/// The first release with everything that the relay uses.
const OLDEST_SERVER_VERSION: i32 = 140_000;

const DEFAULT_BUCKETS: u16 = 16;
const DEFAULT_GENERATION_SECONDS: u32 = 600;
const MOST_BUCKETS: u16 = 64;
const LONGEST_GENERATION_SECONDS: u32 = 604_800;

/// What is asked for. None: the default on the first run, whatever it is on later runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigrationRequest {
    /// The table.
    pub outbox: OutboxName,
    /// How many hash partitions, 1 to 64; 16 by default.
    pub buckets: Option<u16>,
    /// The type of the column `payload`; `json` by default.
    pub payload: Option<PayloadType>,
    /// How long a generation lasts, 1 second to 7 days; 600 by default.
    pub generation_seconds: Option<u32>,
}

/// How the outbox was or is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The table.
    pub outbox: OutboxName,
    /// How many hash partitions.
    pub buckets: u16,
    /// The type of the column `payload`.
    pub payload: PayloadType,
    /// How long a generation lasts.
    pub generation_seconds: u32,
}

impl fmt::Display for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outbox, buckets, payload, generation_seconds } = self;
        write!(
            formatter,
            "outbox {outbox}: {buckets} buckets, payload {payload}, \
             a new generation every {generation_seconds} s"
        )
    }
}

impl MigrationRequest {
    /// The settings of a first run.
    fn settings(&self) -> Result<Settings> {
        vacancy::check_apart(schema::chosen(), &self.outbox)?;
        let settings = Settings {
            outbox: self.outbox.clone(),
            buckets: self.buckets.unwrap_or(DEFAULT_BUCKETS),
            payload: self.payload.unwrap_or_default(),
            generation_seconds: self.generation_seconds.unwrap_or(DEFAULT_GENERATION_SECONDS),
        };
        let refuse = |cause: String, remedy: String| {
            Err(Error::new(ErrorKind::Config, cause).with_remedy(remedy))
        };
        if !(1..=MOST_BUCKETS).contains(&settings.buckets) {
            let remedy = format!("give --buckets between 1 and {MOST_BUCKETS}");
            return refuse(format!("{} buckets cannot be made", settings.buckets), remedy);
        }
        if !(1..=LONGEST_GENERATION_SECONDS).contains(&settings.generation_seconds) {
            let remedy =
                format!("give --generation-seconds from 1 to {LONGEST_GENERATION_SECONDS}");
            let cause = format!("a generation cannot last {} s", settings.generation_seconds);
            return refuse(cause, remedy);
        }
        Ok(settings)
    }

    /// Compares what is asked for with what was made.
    fn compare(&self, made: &Settings) -> Result<()> {
        same("table", &made.outbox, Some(&self.outbox))?;
        same("number of buckets", &made.buckets, self.buckets.as_ref())?;
        same("payload type", &made.payload, self.payload.as_ref())?;
        let seconds = self.generation_seconds.as_ref();
        same("generation in seconds", &made.generation_seconds, seconds)
    }
}

fn same<T: PartialEq + fmt::Display>(what: &str, made: &T, asked: Option<&T>) -> Result<()> {
    match asked {
        Some(asked) if asked != made => {
            let cause = format!("the outbox's {what} is {made}, not {asked}");
            Err(Error::new(ErrorKind::Schema, cause)
                .with_remedy(format!("ask for {made}: this is fixed when the outbox is made")))
        }
        _ => Ok(()),
    }
}

/// What [`up`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationReport {
    /// The migrations that were applied now, as `0002 outbox`; none when there was nothing to do.
    pub applied: Vec<String>,
    /// How the outbox is made.
    pub settings: Settings,
}

impl fmt::Display for MigrationReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for title in &self.applied {
            writeln!(formatter, "applied {title}")?;
        }
        if self.applied.is_empty() {
            formatter.write_str("nothing to do\n")?;
        }
        write!(formatter, "{}", self.settings)
    }
}

/// Applies the migrations that are pending.
///
/// # Errors
/// [`ErrorKind::Schema`] when the database has other settings, edited or unknown migrations, or a
/// table of that name that postrider did not make; else what PostgreSQL says.
pub async fn up(client: &mut Client, request: &MigrationRequest) -> Result<MigrationReport> {
    request.settings()?;
    let mut applied = Vec::new();
    loop {
        match step(client, request).await? {
            MigrationStep::Applied(migration) => applied.push(migration.title()),
            MigrationStep::Overtaken => {}
            MigrationStep::Done(settings) => return Ok(MigrationReport { applied, settings }),
        }
    }
}

enum MigrationStep {
    Applied(&'static Migration),
    /// Somebody else has begun with the schema at the same moment, and has ended.
    Overtaken,
    Done(Settings),
}

/// Applies the first migration that is pending, if there is one.
async fn step(client: &mut Client, request: &MigrationRequest) -> Result<MigrationStep> {
    let failed = |cause| classify("begin a migration", cause);
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .read_only(false)
        .start()
        .await
        .map_err(failed)?;
    check_owners(&transaction).await?;
    transaction.batch_execute(BEGIN.text()).await.map_err(failed)?;
    let state = MigrationState::read(&transaction, &request.outbox).await?;
    state.check_server()?;
    let next = if state.has_registry { registry::read(&transaction).await?.len() } else { 0 };
    vacancy::check_rows(&state, next)?;
    let made = if state.has_control && state.has_registry {
        read_settings(&transaction).await?
    } else {
        None
    };
    match &made {
        Some(made) => request.compare(made)?,
        None => vacancy::check(&transaction, &state, &request.outbox).await?,
    }
    match (MIGRATIONS.get(next), made) {
        (Some(migration), _) => apply(transaction, migration, request).await,
        (None, Some(settings)) => Ok(MigrationStep::Done(settings)),
        (None, None) => Err(Error::new(
            ErrorKind::Schema,
            format!("the table {} is empty", schema::chosen().of("outbox")),
        )
        .with_remedy("restore its row from a backup: it says how the outbox was made")),
    }
}

/// Whoever owns the schema or a thing in it can change it under those who use it.
async fn check_owners(client: &impl GenericClient) -> Result<()> {
    let stranger = client.query_opt(STRANGERS.text(), &[]).await;
    let Some(row) = stranger.map_err(|cause| classify("look who owns the schema", cause))? else {
        return Ok(());
    };
    let (thing, owner): (String, String) = (row.get("thing"), row.get("owner"));
    let cause = format!("{thing} belongs to {owner}, who could change it under the relay");
    let owner = escape_identifier(&owner);
    Err(Error::new(ErrorKind::Schema, cause).with_remedy(format!(
        "if {owner} is trusted, connect as that role, or as one that was granted it; else give it to a role of \
         yours (alter … owner to), or drop it"
    )))
}

async fn apply(
    transaction: Transaction<'_>,
    migration: &'static Migration,
    request: &MigrationRequest,
) -> Result<MigrationStep> {
    let sql = statement(migration, &request.settings()?);
    // The first migration finds nothing of ours to lock; all others are alone.
    let is_first = migration.version == 0;
    let applied = match transaction.batch_execute(&sql).await {
        Ok(()) if is_first && !is_own(&transaction).await? => return Ok(MigrationStep::Overtaken),
        Ok(()) => transaction.commit().await,
        Err(cause) if is_first && is_overtaken(&cause) => return Ok(MigrationStep::Overtaken),
        Err(cause) => Err(cause),
    };
    applied.map(|()| MigrationStep::Applied(migration)).map_err(|cause| {
        let forbidden = cause.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE);
        let error = classify(&format!("apply migration {}", migration.title()), cause);
        if !forbidden {
            return error;
        }
        error.with_remedy(
            "use a role that may create schemas here, and tables in the outbox's schema",
        )
    })
}

async fn is_own(client: &impl GenericClient) -> Result<bool> {
    let own = client.query_one(OWN.text(), &[]).await;
    own.map(|row| row.get(0)).map_err(|cause| classify("look who has begun with the schema", cause))
}

/// Two that begin with the schema at once meet at its name.
fn is_overtaken(cause: &tokio_postgres::Error) -> bool {
    let states =
        [SqlState::UNIQUE_VIOLATION, SqlState::DUPLICATE_SCHEMA, SqlState::DUPLICATE_TABLE];
    cause.code().is_some_and(|state| states.contains(state))
}

/// A migration as the one statement that applies it and notes it as applied.
fn statement(migration: &Migration, settings: &Settings) -> String {
    let outbox = match migration.version {
        OUTBOX_VERSION => fill(
            OUTBOX_STEP.text().trim_end(),
            &[
                ("{schema}", &literal(&settings.outbox.schema)),
                ("{table}", &literal(&settings.outbox.table)),
                ("{buckets}", &settings.buckets.to_string()),
                ("{payload}", &literal(settings.payload.name())),
                ("{generation_seconds}", &settings.generation_seconds.to_string()),
            ],
        ),
        _ => String::new(),
    };
    fill(
        STEP.text(),
        &[
            ("{version}", &migration.version.to_string()),
            ("{name}", &literal(migration.name)),
            ("{checksum}", &literal(&migration.checksum())),
            ("{strangers}", STRANGERS.text().trim_end()),
            ("{outbox}", &outbox),
            ("{file}", &render(migration.sql.trim_end(), schema::chosen())),
            ("{floor}", &literal(&registry::floor_words(registry::RELAYS_FROM, migration.version))),
        ],
    )
}

/// A text as SQL reads it, without a dollar sign: it stands between dollar quotes.
fn literal(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "''").replace('$', "\\044");
    let mark = if escaped.contains('\\') { "E" } else { "" };
    format!("{mark}'{escaped}'")
}

/// All migrations as one SQL text, for other migration tools; leads to the same state as [`up`].
///
/// # Errors
/// [`ErrorKind::Config`] when the request has no meaning.
pub fn print(request: &MigrationRequest) -> Result<String> {
    let settings = request.settings()?;
    let version = env!("CARGO_PKG_VERSION");
    let mut sql = format!(
        "-- postrider {version}, all migrations.\n-- {}\n\
         -- Each migration is one statement, which is undone as a whole if it fails, and which does\n\
         -- nothing if it was applied before. Run it with: psql -v ON_ERROR_STOP=1 -f this_file\n",
        settings.to_string().replace(['\n', '\r'], " ")
    );
    for migration in MIGRATIONS {
        sql.push_str(&format!("\n-- Migration {}\n", migration.title()));
        sql.push_str(&statement(migration, &settings));
    }
    Ok(sql)
}

/// What is there before a migration.
struct MigrationState {
    server_version: i32,
    standby: bool,
    has_registry: bool,
    has_control: bool,
    has_schema: bool,
    has_table: bool,
}

impl MigrationState {
    async fn read(client: &impl GenericClient, outbox: &OutboxName) -> Result<Self> {
        let failed = |cause| classify("look at the schema", cause);
        let schema = escape_identifier(&outbox.schema);
        let row =
            client.query_one(STATE.text(), &[&schema, &outbox.quoted()]).await.map_err(failed)?;
        let flag = |name: &str| row.try_get(name).map_err(failed);
        Ok(Self {
            server_version: row.try_get("server_version").map_err(failed)?,
            standby: flag("standby")?,
            has_registry: flag("has_registry")?,
            has_control: flag("has_control")?,
            has_schema: flag("has_schema")?,
            has_table: flag("has_table")?,
        })
    }

    fn check_server(&self) -> Result<()> {
        check_version(self.server_version)?;
        if self.standby {
            return Err(Error::new(
                ErrorKind::Standby,
                "the server is a standby: nothing can be made",
            )
            .with_remedy("connect to the primary"));
        }
        Ok(())
    }
}

fn check_version(server_version: i32) -> Result<()> {
    if server_version >= OLDEST_SERVER_VERSION {
        return Ok(());
    }
    let (major, oldest) = (server_version / 10_000, OLDEST_SERVER_VERSION / 10_000);
    let cause = format!("the server is PostgreSQL {major}; postrider needs {oldest} or later");
    Err(Error::new(ErrorKind::PostgresRefused, cause).with_remedy("upgrade the server"))
}

/// How the outbox was made; none before that was fixed.
async fn read_settings(client: &impl GenericClient) -> Result<Option<Settings>> {
    let failed = |cause| classify("read how the outbox was made", cause);
    let Some(row) = client.query_opt(OUTBOX_SETTINGS.text(), &[]).await.map_err(failed)? else {
        return Ok(None);
    };
    let buckets: i16 = row.try_get("buckets").map_err(failed)?;
    let generation_seconds: i32 = row.try_get("generation_seconds").map_err(failed)?;
    let payload: &str = row.try_get("payload").map_err(failed)?;
    Ok(Some(Settings {
        outbox: OutboxName {
            schema: row.try_get("schema_name").map_err(failed)?,
            table: row.try_get("table_name").map_err(failed)?,
        },
        buckets: u16::try_from(buckets).expect("the table has a check"),
        payload: payload.parse()?,
        generation_seconds: u32::try_from(generation_seconds).expect("the table has a check"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_outside_its_bounds_is_refused() {
        for request in [
            MigrationRequest { buckets: Some(0), ..MigrationRequest::default() },
            MigrationRequest { buckets: Some(65), ..MigrationRequest::default() },
            MigrationRequest { generation_seconds: Some(0), ..MigrationRequest::default() },
            MigrationRequest { generation_seconds: Some(604_801), ..MigrationRequest::default() },
        ] {
            assert_eq!(print(&request).unwrap_err().kind(), ErrorKind::Config, "{request:?}");
        }
    }

    #[test]
    fn the_printed_sql_quotes_the_name() {
        let outbox = "app.\"it's {buckets} \\ \n$\"".parse().unwrap();
        let sql =
            print(&MigrationRequest { outbox, buckets: Some(3), ..MigrationRequest::default() })
                .unwrap();
        for line in [
            "asked_schema constant text := 'app';\n",
            "asked_table constant text := E'it''s {buckets} \\\\ \n\\044';\n",
            "asked_buckets constant smallint := 3;\n",
            "asked_payload constant text := 'json';\n",
            "asked_seconds constant integer := 600;\n",
        ] {
            assert!(sql.contains(line), "{line} in {sql}");
        }
        assert!(sql.lines().nth(1).unwrap().contains("3 buckets"), "the comment is one line");
    }

    #[test]
    fn each_migration_is_one_statement() {
        let name = "\"$postrider_step$;\"".parse().unwrap();
        let sql = print(&MigrationRequest { outbox: name, ..MigrationRequest::default() }).unwrap();
        let commentless: String =
            sql.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
        for quote in ["$postrider_step$", "$postrider_file$"] {
            assert_eq!(commentless.matches(quote).count(), 2 * MIGRATIONS.len(), "{quote}");
            assert!(MIGRATIONS.iter().all(|migration| !migration.sql.contains(quote)));
        }
        assert_eq!(commentless.matches("\ndo $postrider_step$\n").count(), MIGRATIONS.len());
    }

    #[test]
    fn other_settings_are_named_with_those_that_hold() {
        let made = MigrationRequest::default().settings().unwrap();
        assert!(MigrationRequest::default().compare(&made).is_ok());
        let other = MigrationRequest { buckets: Some(8), ..MigrationRequest::default() };
        let error = other.compare(&made).unwrap_err();
        assert_eq!(error.message(), "the outbox's number of buckets is 16, not 8");
        assert_eq!(error.kind(), ErrorKind::Schema);
        let other = MigrationRequest {
            outbox: "app.events".parse().unwrap(),
            ..MigrationRequest::default()
        };
        let error = other.compare(&made).unwrap_err();
        assert_eq!(error.message(), "the outbox's table is public.outbox, not app.events");
    }

    #[test]
    fn an_old_server_is_refused() {
        assert!(check_version(140_000).is_ok());
        let error = check_version(130_014).unwrap_err();
        assert!(error.message().contains("PostgreSQL 13"), "{error}");
    }
}
