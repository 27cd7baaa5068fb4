//! postrider: a transactional-outbox relay from PostgreSQL to Kafka.

pub mod cursor;
pub mod embedded;
pub mod encode;
pub mod error;
pub mod event;
pub mod route;
pub mod snapshot;
pub mod tick;
