//! What tests of a relay need, and the demo: servers of their own, and an auditor.
//!
//! Promises: a PostgreSQL, a Kafka and a Debezium that end with whoever started them, and a verdict on what was written
//! and what arrived. Must not: know the relay, its tables or its records. Fails: each in its own words.

pub mod audit;
pub mod servers;
