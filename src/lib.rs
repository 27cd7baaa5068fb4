//! postrider: a transactional-outbox relay from PostgreSQL to Kafka.

pub mod audit;
pub mod capture;
pub mod cli;
pub mod config;
pub mod cursor;
pub mod cursors;
pub mod embedded;
pub mod encode;
pub mod error;
pub mod event;
pub mod ledger;
pub mod migrate;
pub mod monitor;
pub mod postgres;
pub mod publish;
pub mod relay;
pub mod route;
pub mod shard;
pub mod snapshot;
pub mod tick;
