//! The one error of the relay, and the one table of what each kind means.
//!
//! Promises: every error says the cause and what to do about it, in one or two lines; every kind has
//! one [`Disposition`] and one exit code. Must not: name a driver. Fails: never; it is the failure.

use std::fmt;

/// What goes wrong, by the outside system and what can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A flag, an environment variable or the configuration file has no meaning.
    Config,
    /// PostgreSQL cannot be reached, or ended the connection.
    PostgresUnavailable,
    /// PostgreSQL says no: password, database, rights, row security.
    PostgresRefused,
    /// The server is a standby: snapshots there do not list running transactions.
    Standby,
    /// The cursor belongs to another cluster, another timeline or a later state of this one.
    History,
    /// The sequence was set back or altered while events are parked: which aggregates they hold has to be read anew.
    SetBack,
    /// The outbox or its control tables are missing, or were made by another version.
    Schema,
    /// The replication slot or its stream cannot be used as it is.
    SlotUnusable,
    /// No broker can be reached.
    KafkaUnavailable,
    /// Kafka says no: authentication, authorisation, a property that librdkafka refuses.
    KafkaRefused,
    /// A topic is missing, or has no leader yet.
    TopicUnavailable,
    /// A record was refused, or its fate is unknown: the producer is no longer usable.
    DeliveryUncertain,
    /// The event cannot become a record, today or later.
    Unpublishable,
    /// Another instance took the bucket.
    Fenced,
    /// The flush took longer than `--shutdown-timeout`.
    ShutdownTimeout,
    /// A broken promise of our own, or of the operating system.
    Internal,
}

/// What the relay does about an error while it runs. At the start every error ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Go back to the saved cursor and try again after a pause.
    Retry,
    /// Let go of the buckets; another instance has them.
    StepDown,
    /// Set the event aside, with its aggregate's later events.
    Park,
    /// End the process with the kind's exit code.
    Stop,
}

impl ErrorKind {
    /// Every kind, in the order of their definition: for pages and tests that go through all of them.
    pub const ALL: [Self; 16] = [
        Self::Config,
        Self::PostgresUnavailable,
        Self::PostgresRefused,
        Self::Standby,
        Self::History,
        Self::SetBack,
        Self::Schema,
        Self::SlotUnusable,
        Self::KafkaUnavailable,
        Self::KafkaRefused,
        Self::TopicUnavailable,
        Self::DeliveryUncertain,
        Self::Unpublishable,
        Self::Fenced,
        Self::ShutdownTimeout,
        Self::Internal,
    ];

    /// The table: kind, disposition, exit code of the process when it ends for it.
    const fn row(self) -> (Disposition, u8) {
        match self {
            Self::Config => (Disposition::Stop, 3),
            Self::PostgresUnavailable => (Disposition::Retry, 4),
            Self::PostgresRefused => (Disposition::Stop, 4),
            Self::Standby => (Disposition::Retry, 4),
            Self::History => (Disposition::Stop, 4),
            Self::SetBack => (Disposition::Retry, 4),
            Self::Schema => (Disposition::Stop, 6),
            Self::SlotUnusable => (Disposition::Retry, 4),
            Self::KafkaUnavailable => (Disposition::Retry, 5),
            Self::KafkaRefused => (Disposition::Stop, 5),
            Self::TopicUnavailable => (Disposition::Retry, 5),
            Self::DeliveryUncertain => (Disposition::Retry, 5),
            Self::Unpublishable => (Disposition::Park, 1),
            Self::Fenced => (Disposition::StepDown, 1),
            Self::ShutdownTimeout => (Disposition::Stop, 1),
            Self::Internal => (Disposition::Stop, 1),
        }
    }

    /// Its name, by which it is counted.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::PostgresUnavailable => "postgres-unavailable",
            Self::PostgresRefused => "postgres-refused",
            Self::Standby => "standby",
            Self::History => "history",
            Self::SetBack => "set-back",
            Self::Schema => "schema",
            Self::SlotUnusable => "slot-unusable",
            Self::KafkaUnavailable => "kafka-unavailable",
            Self::KafkaRefused => "kafka-refused",
            Self::TopicUnavailable => "topic-unavailable",
            Self::DeliveryUncertain => "delivery-uncertain",
            Self::Unpublishable => "unpublishable",
            Self::Fenced => "fenced",
            Self::ShutdownTimeout => "shutdown-timeout",
            Self::Internal => "internal",
        }
    }

    /// What the relay does about it while it runs.
    pub const fn disposition(self) -> Disposition {
        self.row().0
    }

    /// The exit code of a process that ends for it.
    pub const fn exit_code(self) -> u8 {
        self.row().1
    }
}

/// A cause, what to do about it, and where it came from.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    remedy: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What fallible functions of the relay return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with its cause in words: lower case, no full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), remedy: None, source: None }
    }

    /// Somebody else owns what this instance took for its own.
    pub fn fenced() -> Self {
        Self::new(ErrorKind::Fenced, "another instance has taken buckets of this one")
    }

    /// What was written of this instance's cursors did not change them all.
    pub fn unsaved() -> Self {
        let cause = "the cursors were not saved: another instance has taken buckets of this one, or something keeps \
                     their rows from being changed";
        Self::new(ErrorKind::Fenced, cause)
    }

    /// Adds what the operator can do: an imperative sentence without full stop.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Keeps the error of the outside system, for logs at debug level.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// The same, to be met as one of another kind.
    #[must_use]
    pub fn with_kind(self, kind: ErrorKind) -> Self {
        Self { kind, ..self }
    }

    /// The kind, by which the relay decides.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The cause.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What the operator can do, where something can be said.
    pub fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref()
    }
}

impl fmt::Display for Error {
    /// The cause on one line, the remedy on a second.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        match &self.remedy {
            Some(remedy) => write!(formatter, "\n  {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
