//! What the servers are started from, for scripts that start them in a way of their own.
//!
//! Promises: the very programs that [`Postgres`](crate::servers::Postgres) and
//! [`Kafka`](crate::servers::Kafka) would start, fetched where they are missing. Must not: start a
//! server. Fails: as they do.

use crate::servers::error::EmbeddedError;
use crate::servers::host::Host;
use crate::servers::java::Java;
use crate::servers::kafka_files;
use crate::servers::postgres_binaries::{Binaries, PostgresSource};
use std::ffi::OsString;
use std::path::PathBuf;

/// Where programs and jars are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The folder of `postgres`, `initdb`, `pg_ctl` and `pg_basebackup`.
    pub postgres_folder: PathBuf,
    /// Java's program.
    pub java: PathBuf,
    /// What `java -classpath` needs for `kafka.Kafka` and `kafka.tools.StorageTool`.
    pub kafka_class_path: OsString,
}

impl Parts {
    /// Finds or fetches them.
    ///
    /// # Errors
    /// When PostgreSQL, Java or Kafka's jars are neither there nor fetched.
    pub fn find(host: &Host, progress: &dyn Fn(&str)) -> Result<Self, EmbeddedError> {
        let postgres = Binaries::find(host, PostgresSource::default(), progress)?;
        let java = Java::find(host)?;
        let jars = kafka_files::jars(host, progress)?;
        Ok(Self {
            postgres_folder: postgres.folder,
            java: java.program,
            kafka_class_path: kafka_files::class_path(&jars)?,
        })
    }
}
