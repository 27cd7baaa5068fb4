//! The settings: what was typed, per layer, before it means anything.
//!
//! Promises: one struct is both the flags (with their environment variables) and the keys of the
//! TOML file, so that the two cannot drift apart. Must not: give a value a meaning.
//! Fails: clap and serde refuse a value of the wrong form.

use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::capture::mode::Mode;
pub use crate::config::property::Property;
use crate::config::property::PropertyParser;
use crate::config::records::{HeaderName, RecordSettings, TimestampSource};
use crate::config::topics::TopicCreationSettings;
use crate::config::units::{ByteSize, Secret, Span, SpanOrZero};

/// Settings of every command that talks to the database.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct CommonSettings {
    /// Reads settings from this TOML file [default: postrider.toml where there is one].
    #[arg(long, value_name = "FILE", env = "POSTRIDER_CONFIG", hide_env = true)]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Names the database by URL or DSN [default: DATABASE_URL, then PGHOST and the like].
    #[arg(
        long,
        value_name = "URL",
        env = "POSTRIDER_DATABASE_URL",
        hide_env = true,
        help_heading = "Source"
    )]
    pub database_url: Option<Secret>,

    /// Reads the database's URL from this file.
    #[arg(
        long,
        value_name = "FILE",
        env = "POSTRIDER_DATABASE_URL_FILE",
        hide_env = true,
        help_heading = "Source"
    )]
    pub database_url_file: Option<PathBuf>,

    /// Reads the password from the first line of this file, anew for each session.
    #[arg(
        long,
        value_name = "FILE",
        env = "POSTRIDER_DATABASE_PASSWORD_FILE",
        hide_env = true,
        help_heading = "Source"
    )]
    pub database_password_file: Option<PathBuf>,

    /// Runs this program, without a shell, for the password of each session: the first line it writes.
    #[arg(
        long,
        value_name = "COMMAND",
        env = "POSTRIDER_DATABASE_PASSWORD_COMMAND",
        hide_env = true,
        help_heading = "Source"
    )]
    pub database_password_command: Option<String>,

    /// Names the outbox table [default: public.outbox].
    #[arg(
        long,
        value_name = "TABLE",
        env = "POSTRIDER_OUTBOX",
        hide_env = true,
        help_heading = "Source"
    )]
    pub outbox: Option<String>,

    /// Names the schema of the control tables: one per outbox, where a database has several [default: postrider].
    #[arg(
        long,
        value_name = "SCHEMA",
        env = "POSTRIDER_SCHEMA",
        hide_env = true,
        help_heading = "Source"
    )]
    pub schema: Option<String>,

    /// Logs in this format [default: text on a terminal, else json].
    #[arg(long, env = "POSTRIDER_LOG_FORMAT", hide_env = true, help_heading = "Logging")]
    pub log_format: Option<LogFormat>,

    /// Logs from this level on; also per module: info,librdkafka=debug [default: info for run, else warn].
    #[arg(
        long,
        value_name = "LEVEL",
        env = "POSTRIDER_LOG_LEVEL",
        hide_env = true,
        help_heading = "Logging"
    )]
    pub log_level: Option<String>,
}

/// Settings of the commands that need the whole configuration.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RelaySettings {
    /// How to read events: poll, wal or message [default: as the database says, poll at first].
    #[arg(
        long,
        env = "POSTRIDER_CAPTURE",
        hide_env = true,
        help_heading = "Source",
        display_order = 100
    )]
    pub capture: Option<Capture>,

    /// Names the Kafka bootstrap servers [default: localhost:9092].
    #[arg(
        long,
        value_name = "HOST:PORT,...",
        env = "POSTRIDER_BROKERS",
        hide_env = true,
        help_heading = "Kafka"
    )]
    pub brokers: Option<String>,

    /// Makes an event's topic; {aggregatetype} and {type} stand for its columns [default:
    /// outbox.event.{aggregatetype}].
    #[arg(
        long,
        value_name = "TEMPLATE",
        env = "POSTRIDER_TOPIC",
        hide_env = true,
        help_heading = "Kafka"
    )]
    pub topic: Option<String>,

    /// Insists on how often an event may arrive: does not start where the database says otherwise, see
    /// `postrider delivery` [default: as the database says].
    #[arg(long, env = "POSTRIDER_DELIVERY", hide_env = true, help_heading = "Kafka")]
    pub delivery: Option<Delivery>,

    /// Stamps records with the time of sending, or of the row [default: send]. Kafka removes by this
    /// time: with `created`, an event older than its topic's `retention.ms` may be removed at once.
    #[arg(long, env = "POSTRIDER_RECORD_TIMESTAMP", hide_env = true, help_heading = "Kafka")]
    pub record_timestamp: Option<TimestampSource>,

    /// Adds these headers to each record that has such a value, separated by commas. By `seq` (of the
    /// outbox's row) or `position` (in the log) a consumer drops repeats: both grow per aggregate.
    #[arg(
        long,
        value_name = "HEADER,...",
        value_delimiter = ',',
        env = "POSTRIDER_ADD_HEADERS",
        hide_env = true,
        help_heading = "Kafka"
    )]
    pub add_headers: Option<Vec<HeaderName>>,

    /// What to do with an event that cannot be published [default: park].
    #[arg(long, env = "POSTRIDER_ON_POISON", hide_env = true, help_heading = "Kafka")]
    pub on_poison: Option<PoisonPolicy>,

    /// Names the topic for dead letters [default: outbox.dead-letter].
    #[arg(
        long,
        value_name = "TOPIC",
        env = "POSTRIDER_DEAD_LETTER_TOPIC",
        hide_env = true,
        help_heading = "Kafka"
    )]
    pub dead_letter_topic: Option<String>,

    /// Whether missing topics are made, and how.
    #[command(flatten)]
    #[serde(skip)]
    pub creation: TopicCreationSettings,

    /// The form of records.
    #[command(flatten)]
    #[serde(skip)]
    pub records: RecordSettings,

    /// Sets a librdkafka property, like linger.ms=20; may be given many times. Better for a secret:
    /// POSTRIDER_X_SASL_PASSWORD, or POSTRIDER_X_SASL_PASSWORD_FILE with a file's path.
    #[arg(
        short = 'X',
        value_name = "NAME=VALUE",
        id = "property",
        value_parser = PropertyParser,
        help_heading = "Kafka"
    )]
    #[serde(skip)]
    pub property: Vec<Property>,

    /// Runs this program, without a shell, for tokens (OAUTHBEARER): it writes {"token": "…",
    /// "expires_at_ms": …}, and is run again before the token ends.
    #[arg(
        long,
        value_name = "COMMAND",
        env = "POSTRIDER_KAFKA_TOKEN_COMMAND",
        hide_env = true,
        help_heading = "Kafka"
    )]
    pub kafka_token_command: Option<String>,

    /// The file's table of librdkafka properties.
    #[arg(skip)]
    #[serde(rename = "librdkafka", deserialize_with = "crate::config::file::properties")]
    pub properties: Vec<Property>,

    /// The file's table of files that hold the values of librdkafka properties.
    #[arg(skip)]
    #[serde(rename = "librdkafka-files", deserialize_with = "crate::config::file::properties")]
    pub property_files: Vec<Property>,

    /// Runs this many claim loops [default: one per core, at most one per bucket], or, for the one
    /// stream of the WAL, this many publishers [default: 1].
    #[arg(
        long,
        value_name = "COUNT",
        env = "POSTRIDER_SHARDS",
        hide_env = true,
        help_heading = "Tuning"
    )]
    pub shards: Option<NonZeroU16>,

    /// Takes a dead instance's buckets within this time [default: 10].
    #[arg(
        long,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u32).range(1..=3600),
        env = "POSTRIDER_LEASE_SECONDS",
        hide_env = true,
        help_heading = "Tuning"
    )]
    pub lease_seconds: Option<u32>,

    /// What to do when the server was promoted since the cursors were saved [default: follow where the URL
    /// names several servers, else refuse].
    #[arg(long, env = "POSTRIDER_ON_PROMOTION", hide_env = true, help_heading = "Source")]
    pub on_promotion: Option<Promotion>,

    /// Looks at the database at most this often, while traffic is thin [default: 5ms].
    #[arg(
        long,
        value_name = "TIME",
        env = "POSTRIDER_TICK_MIN",
        hide_env = true,
        help_heading = "Tuning"
    )]
    pub tick_min: Option<Span>,

    /// Looks at the database at least this often [default: 50ms].
    #[arg(
        long,
        value_name = "TIME",
        env = "POSTRIDER_TICK_MAX",
        hide_env = true,
        help_heading = "Tuning"
    )]
    pub tick_max: Option<Span>,

    /// Claims this many rows at a time, per claim loop [default: 5000].
    #[arg(
        long,
        value_name = "ROWS",
        env = "POSTRIDER_PAGE_ROWS",
        hide_env = true,
        help_heading = "Tuning"
    )]
    pub page_rows: Option<NonZeroU32>,

    /// Holds at most this much between claim and acknowledgement [default: 6MiB].
    #[arg(
        long,
        value_name = "SIZE",
        env = "POSTRIDER_MAX_IN_FLIGHT_BYTES",
        hide_env = true,
        help_heading = "Tuning"
    )]
    pub max_in_flight_bytes: Option<ByteSize>,

    /// Parks events of more bytes without reading them [default: 8MiB]. Where a topic's max.message.bytes is
    /// larger, raise this too.
    #[arg(
        long,
        value_name = "SIZE",
        env = "POSTRIDER_MAX_EVENT_BYTES",
        hide_env = true,
        help_heading = "Tuning"
    )]
    pub max_event_bytes: Option<ByteSize>,

    /// Saves cursors this often, less often where a save takes long; a crash repeats at most what was published
    /// since [default: 100ms].
    #[arg(
        long,
        value_name = "TIME",
        env = "POSTRIDER_SAVE_INTERVAL",
        hide_env = true,
        help_heading = "Tuning"
    )]
    pub save_interval: Option<Span>,

    /// Keeps published rows for this long, then their space comes back; 0s is allowed [default: one
    /// generation, as the outbox was made].
    #[arg(
        long,
        value_name = "TIME",
        env = "POSTRIDER_REPLAY_WINDOW",
        hide_env = true,
        help_heading = "Source"
    )]
    pub replay_window: Option<SpanOrZero>,

    /// Answers a page, /metrics, /livez, /readyz and /api/v1/… at this address; off for none [default: 127.0.0.1:9786].
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "POSTRIDER_ADMIN_LISTEN",
        hide_env = true,
        help_heading = "Observability"
    )]
    pub admin_listen: Option<String>,

    /// Answers the page and /api/v1/… also by these names, or any (*); by addresses, names without a dot and
    /// private ones it does anyway.
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        env = "POSTRIDER_ADMIN_HOSTS",
        hide_env = true,
        help_heading = "Observability"
    )]
    pub admin_hosts: Option<Vec<String>>,

    /// Lets whoever shows the token in this file pause, resume, retry and discard there; without it they can
    /// only look.
    #[arg(
        long,
        value_name = "FILE",
        env = "POSTRIDER_ADMIN_TOKEN_FILE",
        hide_env = true,
        help_heading = "Observability"
    )]
    pub admin_token_file: Option<PathBuf>,

    /// Waits this long for acknowledgements when it stops [default: 25s].
    #[arg(
        long,
        value_name = "TIME",
        env = "POSTRIDER_SHUTDOWN_TIMEOUT",
        hide_env = true,
        help_heading = "Tuning"
    )]
    pub shutdown_timeout: Option<Span>,
}

impl CommonSettings {
    /// What is typed here, and where it is silent what `below` says.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            config: self.config.or(below.config),
            database_url: self.database_url.or(below.database_url),
            database_url_file: self.database_url_file.or(below.database_url_file),
            database_password_file: self.database_password_file.or(below.database_password_file),
            database_password_command: self
                .database_password_command
                .or(below.database_password_command),
            outbox: self.outbox.or(below.outbox),
            schema: self.schema.or(below.schema),
            log_format: self.log_format.or(below.log_format),
            log_level: self.log_level.or(below.log_level),
        }
    }
}

impl RelaySettings {
    /// What is typed here, and where it is silent what `below` says. Properties add up.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            capture: self.capture.or(below.capture),
            brokers: self.brokers.or(below.brokers),
            topic: self.topic.or(below.topic),
            delivery: self.delivery.or(below.delivery),
            record_timestamp: self.record_timestamp.or(below.record_timestamp),
            add_headers: self.add_headers.or(below.add_headers),
            on_poison: self.on_poison.or(below.on_poison),
            dead_letter_topic: self.dead_letter_topic.or(below.dead_letter_topic),
            kafka_token_command: self.kafka_token_command.or(below.kafka_token_command),
            creation: self.creation.over(below.creation),
            records: self.records.over(below.records),
            property: [below.property, self.property].concat(),
            properties: [below.properties, self.properties].concat(),
            property_files: [below.property_files, self.property_files].concat(),
            shards: self.shards.or(below.shards),
            lease_seconds: self.lease_seconds.or(below.lease_seconds),
            on_promotion: self.on_promotion.or(below.on_promotion),
            tick_min: self.tick_min.or(below.tick_min),
            tick_max: self.tick_max.or(below.tick_max),
            page_rows: self.page_rows.or(below.page_rows),
            max_in_flight_bytes: self.max_in_flight_bytes.or(below.max_in_flight_bytes),
            max_event_bytes: self.max_event_bytes.or(below.max_event_bytes),
            save_interval: self.save_interval.or(below.save_interval),
            replay_window: self.replay_window.or(below.replay_window),
            admin_listen: self.admin_listen.or(below.admin_listen),
            admin_hosts: self.admin_hosts.or(below.admin_hosts),
            admin_token_file: self.admin_token_file.or(below.admin_token_file),
            shutdown_timeout: self.shutdown_timeout.or(below.shutdown_timeout),
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// How events are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capture {
    /// From the table.
    Poll,
    /// From the table's logical replication.
    Wal,
    /// From logical messages, without a table.
    Message,
}

impl From<Capture> for Mode {
    fn from(capture: Capture) -> Self {
        match capture {
            Capture::Poll => Self::Poll,
            Capture::Wal => Self::Wal,
            Capture::Message => Self::Message,
        }
    }
}

/// How often an event may arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// After a crash an event may be sent again, with the same id.
    AtLeastOnce,
    /// By Kafka's transactions: whoever reads committed records alone sees each event once.
    ExactlyOnce,
}

impl Delivery {
    /// The name of the setting.
    pub fn name(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at-least-once",
            Self::ExactlyOnce => "exactly-once",
        }
    }
}

/// What to do when the server was promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promotion {
    /// Go on from the cursors that reached the promoted server.
    Follow,
    /// Wait for an operator: it may be a restored backup.
    Refuse,
}

/// What becomes of an event that cannot become a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoisonPolicy {
    /// Set aside, with its aggregate's later events.
    Park,
    /// Sent to the dead-letter topic; its aggregate goes on.
    DeadLetter,
    /// The relay ends.
    Stop,
}
