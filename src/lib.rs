//! postrider: a transactional-outbox relay from PostgreSQL to Kafka.
//!
//! Applications insert events into an outbox table, in the transaction that changes their business
//! rows. postrider carries every committed event to Kafka, in order per aggregate. The README is for
//! those who run it; what follows is the map for those who change it.
//!
//! The feature `demo`, on by default, brings `postrider demo` and the servers that it and the tests start.
//! What is deployed is built without it.
//!
#![doc = include_str!("../ARCHITECTURE.md")]

pub mod admin;
pub mod adopted;
#[cfg(feature = "demo")]
pub mod audit;
pub mod capture;
pub mod cli;
pub mod config;
pub mod cursor;
pub mod cursors;
#[cfg(feature = "demo")]
pub mod embedded;
pub mod encode;
pub mod error;
pub mod event;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod hold;
pub mod large;
pub mod lease;
pub mod ledger;
pub mod legible;
pub mod logging;
pub mod migrate;
pub mod monitor;
pub mod outbox;
pub mod parked;
pub mod postgres;
pub mod publish;
pub mod relay;
pub mod repeats;
pub mod retention;
pub mod route;
pub mod secret;
pub mod shard;
pub mod snapshot;
pub mod streamed;
pub mod tick;
