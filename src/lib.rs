//! postrider: a transactional-outbox relay from PostgreSQL to Kafka.

pub mod embedded;
