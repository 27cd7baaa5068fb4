//! What tests of a relay need, the demo and the load generator: servers of their own, and auditors.
//!
//! Promises: a PostgreSQL, a Kafka and a Debezium that end with whoever started them, and a verdict on what was written
//! and what arrived. Must not: know the relay, its tables or its records. Fails: each in its own words.

pub mod audit;
pub mod figures;
pub mod servers;
