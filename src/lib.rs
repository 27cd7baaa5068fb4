//! postrider: a transactional-outbox relay from PostgreSQL to Kafka.
//!
//! Applications insert events into an outbox table, in the transaction that changes their business
//! rows. postrider carries every committed event to Kafka, in order per aggregate. The README and `docs/` are for
//! those who run it; what follows is the map for those who change it.
//!
//! The feature `demo`, on by default, brings `postrider demo` and the servers that it and the tests start.
//! What is deployed is built without it. The feature `inbox`, also on by default, brings what a consumer written in Rust
//! uses; nothing of the relay needs it.
//!
//! The library is there for the binary, the tests and the benchmarks: what it exports may change with any version.
//! What users may rely on stands in CHANGELOG.md: flags, metrics, SQL, the form of records, delivery, and `postrider::inbox`.
#![doc = include_str!("../ARCHITECTURE.md")]

// In the order in which an event passes, from below: what is pure, what PostgreSQL and Kafka are to us, who brings
// both together, and what people start and see.
pub mod error;
pub mod event;
pub mod outbox;
pub mod schema;

pub mod order;
pub mod record;

pub mod postgres;
pub mod secret;

pub mod capture;
pub mod control;
pub mod publish;

#[cfg(feature = "inbox")]
pub mod inbox;

pub mod shard;

pub mod relay;

pub mod config;

pub mod cli;
#[cfg(feature = "demo")]
pub mod demo;

pub mod logging;
pub mod metrics;

pub mod backoff;
pub mod legible;
pub mod throttle;

#[cfg(any(test, fuzzing))]
pub mod fuzz;
