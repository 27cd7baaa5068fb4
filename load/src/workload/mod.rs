//! The events: what they look like, when they are due, and how they are written.
//!
//! Promises: every event can be told from every other and says what became of it. Must not: know the
//! relay or the topic. Fails: when PostgreSQL refuses.

pub(crate) mod backlog;
pub(crate) mod batch;
pub(crate) mod commit_log;
pub(crate) mod event;
pub(crate) mod key_distribution;
pub(crate) mod message;
pub(crate) mod outbox;
pub(crate) mod pg_array;
pub(crate) mod plan;
pub(crate) mod schedule;
pub(crate) mod session;
pub(crate) mod writer;
