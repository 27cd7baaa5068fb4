//! PostgreSQL, Apache Kafka and Debezium that the demo, the tests and the load generator start themselves.
//!
//! Promises: a server is ready when `start` returns; it listens on 127.0.0.1 only, in a folder of
//! its own; server and folder are gone when the handle is dropped, and also when this process ends
//! without dropping it (Ctrl-C, `process::exit`, `kill -9`), because a guardian process outlives us.
//! One exception: PostgreSQL's shared memory stays when we are killed between `kill` and the next start.
//! Must not: touch a server or a folder that it did not make, change the environment of this
//! process, or keep state outside the handles and the cache folder.
//! Fails: with an [`EmbeddedError`] that names the missing part and its package, or that ends with
//! the last lines of the server's own log.

mod account;
mod archive;
mod broker;
mod cache;
mod cluster;
mod connect;
mod error;
mod folder;
mod guardian;
mod hashes;
mod host;
mod java;
mod java_programs;
mod kafka;
mod kafka_classes;
mod kafka_files;
mod maven;
mod mock;
mod parts;
mod port;
mod postgres;
mod postgres_binaries;
mod process_table;
mod server;
mod signal;
mod standby;

pub use crate::servers::broker::Broker;
pub use crate::servers::cluster::KafkaCluster;
pub use crate::servers::connect::{Connect, ConnectOptions, Connector};
pub use crate::servers::error::EmbeddedError;
pub use crate::servers::host::Host;
pub use crate::servers::java_programs::{fetched_archive, fetched_jars, newest_java};
pub use crate::servers::kafka::{Heap, JavaCompiler, Kafka, KafkaOptions, Listener, TopicCreation};
pub use crate::servers::kafka_classes::kafka_classes;
pub use crate::servers::mock::{MockKafka, MockOptions};
pub use crate::servers::parts::Parts;
pub use crate::servers::postgres::{Postgres, PostgresOptions, StopMode};
pub use crate::servers::postgres_binaries::PostgresSource;
