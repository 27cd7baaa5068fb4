//! postrider: a transactional-outbox relay from PostgreSQL to Kafka.
//!
//! Applications insert events into an outbox table, in the transaction that changes their business
//! rows. postrider carries every committed event to Kafka, in order per aggregate. It is a program: `cargo install
//! postrider`. The README and `docs/` of the sources are for those who run it.
//!
//! **What your program may use is [`inbox`]**: a consumer asks it, in the transaction of its effects, which records of a poll are
//! new. `postrider = { version = "0.1", default-features = false, features = ["inbox"] }` brings it alone. All else that the
//! library exports is there for the binary, the tests and the benchmarks, and may change with any version; what users may rely
//! on stands in CHANGELOG.md: flags, metrics, SQL, the form of records, delivery, and `postrider::inbox`.
//!
//! Features, both on by default: `inbox`, which nothing of the relay needs; and `demo`, which brings `postrider demo` and the
//! servers that it and the tests start. What is deployed is built without `demo`.
//!
//! What follows is the map for those who change it.
#![cfg_attr(not(feature = "inbox"), doc = "")]
#![cfg_attr(not(feature = "inbox"), doc = "[`inbox`]: https://docs.rs/postrider")]
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
