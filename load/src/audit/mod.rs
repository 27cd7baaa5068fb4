//! The audit: what the topic holds, held against what was committed.
//!
//! Promises: one set of words for what is found, whether it is looked for while a run goes on or
//! afterwards. Must not: know how events are written. Fails: when the topic cannot be read.

pub(crate) mod auditor;
pub(crate) mod consumer;
pub(crate) mod manifest;
pub(crate) mod topic;
