//! The configuration: what the relay was told, checked and complete.
//!
//! Promises: whoever holds a [`Config`] need not look at a flag, a file or the environment again; of
//! two layers that name the same setting the nearer one wins: flag, environment `POSTRIDER_...`,
//! TOML file, default. Must not: connect. Fails: with [`ErrorKind::Config`], naming the setting.

use std::env::VarError;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::Path;
use std::time::Duration;

use crate::capture::mode::Mode;
use crate::capture::table::ticker::Cadence;
use crate::control::cursors::OnPromotion;
use crate::error::{Error, ErrorKind, Result};
use crate::outbox::OutboxName;
use crate::postgres::{DatabaseConfig, PasswordSource};
use crate::publish::OnPoison;
use crate::publish::kafka::passwords::LoginFiles;
use crate::publish::kafka::producer::RecordTimestamp;
use crate::publish::kafka::tokens;
use crate::record::cloud_events::default_source;
use crate::record::encode::AddedHeaders;
use crate::record::topic::{DEFAULT_TOPIC_TEMPLATE, TopicTemplate};
use crate::record::topic_rules::TopicRules;
use crate::schema::Schema;
use crate::secret::{self, SecretCommand};

pub mod admin_hosts;
pub mod admin_token;
mod brokers;
pub mod catalogue;
pub mod environment;
pub mod file;
mod kafka;
mod property;
pub mod records;
pub mod settings;
pub mod topics;
pub mod units;

use crate::config::admin_hosts::AdminHosts;
use crate::config::admin_token::AdminToken;
use crate::config::records::{RecordKind, TimestampSource};
use crate::config::settings::{CommonSettings, Delivery, PoisonPolicy, Promotion, RelaySettings};

/// Everything that `run` works by.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the outbox is.
    pub database: DatabaseConfig,
    /// What to do on a server that was promoted since the cursors were saved.
    pub on_promotion: OnPromotion,
    /// The table.
    pub outbox: OutboxName,
    /// How events are read, if that was said; else as the database says.
    pub capture: Option<Mode>,
    /// How they have to be delivered, if that was said; the database says how they are.
    pub delivery: Option<Delivery>,
    /// Claim loops in this instance; `None` is one per core.
    pub shards: Option<NonZeroU16>,
    /// Within how many seconds a dead instance's buckets are taken.
    pub lease_seconds: u32,
    /// The pauses between two looks at the database.
    pub cadence: Cadence,
    /// Rows that are claimed at a time, per shard.
    pub page_rows: u32,
    /// Bytes between claim and acknowledgement, over all shards.
    pub max_in_flight_bytes: usize,
    /// Events of more bytes are parked without being read.
    pub max_event_bytes: u64,
    /// How often cursors are saved.
    pub save_interval: Duration,
    /// How long published rows stay; `None` is one generation.
    pub replay_window: Option<Duration>,
    /// Where figures are asked for.
    pub admin_listen: AdminListen,
    /// By which names it may be asked for there.
    pub admin_hosts: AdminHosts,
    /// What those have to show who would steer it there; none: nobody may.
    pub admin_token: Option<AdminToken>,
    /// How long a stop may wait for acknowledgements.
    pub shutdown_timeout: Duration,
    /// Where the events go.
    pub kafka: KafkaConfig,
}

/// Where an instance answers questions about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminListen {
    /// Nowhere.
    Off,
    /// Where it does if nobody says otherwise; the address may be taken.
    Default(SocketAddr),
    /// Where it was told to.
    On(SocketAddr),
}

/// What becomes of a topic that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMissingTopic {
    /// The brokers make it, or its events wait until somebody does.
    #[default]
    Leave,
    /// It is made before its first event is sent.
    Make,
}

/// The Kafka side of the configuration.
#[derive(Clone)]
pub struct KafkaConfig {
    /// Bootstrap servers, separated by commas.
    pub brokers: String,
    /// Which topic an event goes to.
    pub topic: TopicTemplate,
    /// Where a record's timestamp comes from.
    pub record_timestamp: RecordTimestamp,
    /// Whether records carry the row's time as a header.
    pub added_headers: AddedHeaders,
    /// What to do with an event that cannot become a record.
    pub on_poison: OnPoison,
    /// What every record is.
    pub record_kind: RecordKind,
    /// How topics are made.
    pub topic_rules: TopicRules,
    /// What is done about a topic that is not there.
    pub on_missing_topic: OnMissingTopic,
    /// librdkafka's properties, in the order in which they are set; a later one wins.
    pub properties: Vec<(String, String)>,
    /// Which of them are read again while the relay runs, and from where.
    pub login_files: LoginFiles,
    /// What writes the tokens for OAUTHBEARER.
    pub token_command: Option<SecretCommand>,
}

impl Config {
    /// Ways to a server beyond this machine on which somebody may listen or answer in its place.
    pub fn open_ways(&self) -> Vec<String> {
        let database = self.database.weakness().map(|weakness| {
            let name = self.database.display_name();
            format!(
                "the way to PostgreSQL ({name}) is open: {weakness}; sslmode=verify-full closes it"
            )
        });
        let kafka = self.kafka.weakness().map(|weakness| {
            let brokers = &self.kafka.brokers;
            format!(
                "the way to Kafka ({brokers}) is open: {weakness}; see security.protocol and ssl.*"
            )
        });
        database.into_iter().chain(kafka).collect()
    }
}

/// Within how many seconds a dead instance's buckets are taken, if nothing else is said.
pub const DEFAULT_LEASE_SECONDS: u32 = 10;

/// Events of more bytes are parked without being read, if nothing else is said: eight times what a topic
/// takes by default, and little enough to be held several times over.
pub const DEFAULT_EVENT_BYTES_MAX: u64 = 8 << 20;

/// Where dead letters go, if nothing else is said.
pub const DEFAULT_DEAD_LETTER_TOPIC: &str = "outbox.dead-letter";

/// The environment variable that many tools read; postrider's own name and its file come first.
const DATABASE_URL: &str = "DATABASE_URL";

impl Config {
    /// The meaning of what was typed.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] with the setting's name when a value has no meaning, or two contradict
    /// each other.
    pub fn resolve(common: &CommonSettings, relay: &RelaySettings) -> Result<Self> {
        let lease_seconds = lease_seconds(relay)?;
        // Others have the lease for as long: whoever changes a password has so much time for both sides.
        let patience = Duration::from_secs(u64::from(lease_seconds));
        let database = database(common)?.patient_with_refusals(patience);
        let outbox = outbox(common)?;
        let usual = || default_source(database.database_name(), &outbox);
        let record_kind = relay.records.kind(usual)?;
        Ok(Self {
            on_promotion: on_promotion(relay, &database),
            database,
            outbox,
            capture: relay.capture.map(Mode::from),
            delivery: relay.delivery,
            shards: relay.shards,
            lease_seconds,
            cadence: cadence(relay)?,
            page_rows: relay.page_rows.map_or(5_000, std::num::NonZeroU32::get),
            max_in_flight_bytes: relay.max_in_flight_bytes.map_or(6 << 20, |size| size.bytes()),
            max_event_bytes: relay
                .max_event_bytes
                .map_or(DEFAULT_EVENT_BYTES_MAX, |size| size.bytes() as u64),
            save_interval: relay.save_interval.unwrap_or_else(|| millis(100)).into(),
            replay_window: relay.replay_window.map(Duration::from),
            admin_listen: admin_listen(relay)?,
            admin_hosts: AdminHosts::new(
                relay.admin_hosts.as_deref().unwrap_or_default(),
                whoami::hostname().ok(),
            )?,
            admin_token: relay.admin_token_file.clone().map(AdminToken::open).transpose()?,
            shutdown_timeout: relay.shutdown_timeout.unwrap_or_else(|| millis(25_000)).into(),
            kafka: kafka(relay, record_kind)?,
        })
    }
}

/// The database that was named, or the one that libpq's environment variables name.
///
/// # Errors
/// [`ErrorKind::Config`] when the name cannot be understood.
pub fn database(common: &CommonSettings) -> Result<DatabaseConfig> {
    let database = match database_url(common)? {
        Some(url) if url.trim().is_empty() => {
            return Err(Error::new(ErrorKind::Config, "--database-url is empty").with_remedy(
                "give postgres://user@host/database, or leave it out to use PGHOST and the like",
            ));
        }
        Some(url) => DatabaseConfig::parse(&url)?,
        None => match std::env::var(DATABASE_URL) {
            Ok(url) if !url.trim().is_empty() => DatabaseConfig::parse(&url)?,
            Err(VarError::NotUnicode(_)) => {
                return Err(Error::new(ErrorKind::Config, format!("{DATABASE_URL} is not UTF-8"))
                    .with_remedy("correct or unset it, or give --database-url"));
            }
            _ => DatabaseConfig::from_environment()?,
        },
    };
    match (&common.database_password_file, &common.database_password_command) {
        (None, None) => Ok(match &common.database_url_file {
            Some(file) => database.of_file(file.clone()),
            None => database,
        }),
        (Some(file), None) => Ok(database.with_password(PasswordSource::File(file.clone()))),
        (None, Some(command)) => Ok(database.with_password(PasswordSource::command(command)?)),
        (Some(_), Some(_)) => {
            Err(one_of("--database-password-file", "--database-password-command"))
        }
    }
}

fn database_url(common: &CommonSettings) -> Result<Option<String>> {
    match (&common.database_url, &common.database_url_file) {
        (Some(_), Some(_)) => Err(one_of("--database-url", "--database-url-file")),
        (Some(url), None) => Ok(Some(url.expose().to_owned())),
        (None, None) => Ok(None),
        (None, Some(file)) => secret::read_file(file).map(Some).map_err(|cause| {
            let cause = format!("the file {} cannot be read: {cause}", file.display());
            Error::new(ErrorKind::Config, cause)
                .with_remedy("check --database-url-file and the file's permissions")
        }),
    }
}

fn one_of(one: &str, other: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{one} and {other} are both given"))
        .with_remedy("give one of them, be it as a flag, a variable or a key of the file")
}

/// The outbox that was named, or `public.outbox`.
///
/// # Errors
/// [`ErrorKind::Config`] when the name is not one.
pub fn outbox(common: &CommonSettings) -> Result<OutboxName> {
    common.outbox.as_deref().unwrap_or("public.outbox").parse()
}

/// The schema that was named, or `postrider`.
///
/// # Errors
/// [`ErrorKind::Config`] when no schema of ours can have the name.
pub fn schema(common: &CommonSettings) -> Result<Schema> {
    common.schema.as_deref().map_or_else(|| Ok(Schema::default()), str::parse)
}

/// What --admin-listen says for no address.
pub const ADMIN_OFF: &str = "off";
/// Where an instance answers if nobody says otherwise: a port that no exporter has.
pub const DEFAULT_ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9786);

fn admin_listen(relay: &RelaySettings) -> Result<AdminListen> {
    match relay.admin_listen.as_deref() {
        None => Ok(AdminListen::Default(DEFAULT_ADMIN_LISTEN)),
        Some(ADMIN_OFF) => Ok(AdminListen::Off),
        Some(text) => text.parse().map(AdminListen::On).map_err(|_| {
            Error::new(ErrorKind::Config, format!("--admin-listen {text:?} is no address"))
                .with_remedy("write it as 127.0.0.1:9786, [::]:9786 or off")
        }),
    }
}

fn on_promotion(relay: &RelaySettings, database: &DatabaseConfig) -> OnPromotion {
    match relay.on_promotion {
        Some(Promotion::Follow) => OnPromotion::Follow,
        Some(Promotion::Refuse) => OnPromotion::Refuse,
        None if database.names_several_servers() => OnPromotion::Follow,
        None => OnPromotion::Refuse,
    }
}

/// The file has no parser of its own that knows the range.
fn lease_seconds(relay: &RelaySettings) -> Result<u32> {
    match relay.lease_seconds.unwrap_or(DEFAULT_LEASE_SECONDS) {
        seconds @ 1..=3_600 => Ok(seconds),
        seconds => {
            Err(Error::new(ErrorKind::Config, format!("a lease cannot last {seconds} seconds"))
                .with_remedy("give --lease-seconds between 1 and 3600"))
        }
    }
}

fn cadence(relay: &RelaySettings) -> Result<Cadence> {
    let min: Duration = relay.tick_min.unwrap_or_else(|| millis(5)).into();
    let max: Duration = match relay.tick_max {
        Some(max) => max.into(),
        None => min.max(Duration::from_millis(50)),
    };
    if min > max {
        return Err(Error::new(
            ErrorKind::Config,
            format!("--tick-min {min:?} is longer than --tick-max {max:?}"),
        )
        .with_remedy("lower --tick-min or raise --tick-max"));
    }
    Ok(Cadence { min, max })
}

/// The Kafka side alone, for whoever asks nothing but brokers.
///
/// # Errors
/// [`ErrorKind::Config`] when a setting has no meaning.
pub fn kafka_side(relay: &RelaySettings) -> Result<KafkaConfig> {
    kafka(relay, RecordKind::Plain)
}

fn kafka(relay: &RelaySettings, record_kind: RecordKind) -> Result<KafkaConfig> {
    let brokers = brokers::checked(relay.brokers.as_deref().unwrap_or("localhost:9092"))?;
    let add = relay.add_headers.as_deref().unwrap_or_default();
    let mut properties: Vec<(String, String)> =
        relay.properties.iter().map(|property| property.clone().into_pair()).collect();
    let mut login_files = LoginFiles::default();
    for property in &relay.property_files {
        let (name, path) = property.clone().into_pair();
        login_files.note(&name, Some(Path::new(&path)));
        properties.push(value_of_file((name, path))?);
    }
    for property in &relay.property {
        let (name, value) = property.clone().into_pair();
        login_files.note(&name, None);
        properties.push((name, value));
    }
    Ok(KafkaConfig {
        brokers,
        topic: topic(relay)?,
        record_timestamp: match relay.record_timestamp {
            None | Some(TimestampSource::Send) => RecordTimestamp::Send,
            Some(TimestampSource::Created) => RecordTimestamp::Created,
        },
        added_headers: add.iter().copied().map(Into::into).collect(),
        on_poison: on_poison(relay)?,
        record_kind,
        topic_rules: relay.creation.rules(),
        on_missing_topic: match relay.creation.create_topics {
            Some(true) => OnMissingTopic::Make,
            Some(false) | None => OnMissingTopic::Leave,
        },
        properties,
        login_files,
        token_command: relay
            .kafka_token_command
            .as_deref()
            .map(|typed| SecretCommand::parse(tokens::COMMAND, typed))
            .transpose()?,
    })
}

/// A property whose value stands in a file.
fn value_of_file((name, path): (String, String)) -> Result<(String, String)> {
    let value = secret::read_value(Path::new(&path)).map_err(|cause| {
        let cause = format!("the file {path} for the property {name} cannot be read: {cause}");
        Error::new(ErrorKind::Config, cause)
            .with_remedy("check [librdkafka-files], POSTRIDER_X_…_FILE and the file's permissions")
    })?;
    if value.is_empty() {
        let cause = format!("the file {path} for the property {name} is empty");
        return Err(Error::new(ErrorKind::Config, cause)
            .with_remedy("write the value into it, or take the file's setting away"));
    }
    Ok((name, value))
}

fn on_poison(relay: &RelaySettings) -> Result<OnPoison> {
    let name = relay.dead_letter_topic.as_deref().unwrap_or(DEFAULT_DEAD_LETTER_TOPIC);
    let refused = |cause: String| {
        Error::new(ErrorKind::Config, format!("--dead-letter-topic: {cause}"))
            .with_remedy(format!("name one topic; the default is {DEFAULT_DEAD_LETTER_TOPIC}"))
    };
    let topic: TopicTemplate = name.parse().map_err(|cause| refused(format!("{cause}")))?;
    if !topic.is_fixed() {
        return Err(refused(format!("{name} depends on the event")));
    }
    Ok(match relay.on_poison {
        None | Some(PoisonPolicy::Park) => OnPoison::Park,
        Some(PoisonPolicy::DeadLetter) => OnPoison::DeadLetter(name.to_owned()),
        Some(PoisonPolicy::Stop) => OnPoison::Stop,
    })
}

/// The template of topics.
///
/// # Errors
/// [`ErrorKind::Config`] for one that names no topic.
pub fn topic(relay: &RelaySettings) -> Result<TopicTemplate> {
    let text = relay.topic.as_deref().unwrap_or(DEFAULT_TOPIC_TEMPLATE);
    text.parse().map_err(|cause| {
        Error::new(ErrorKind::Config, format!("--topic: {cause}"))
            .with_remedy(format!("the default is {DEFAULT_TOPIC_TEMPLATE}"))
    })
}

fn millis(count: u64) -> units::Span {
    units::Span::from(Duration::from_millis(count))
}

#[cfg(test)]
mod tests;
