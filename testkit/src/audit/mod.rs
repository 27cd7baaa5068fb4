//! Was every committed event delivered, none invented, each aggregate in order?
//!
//! Promises: one set of words for what is found. Two auditors find it: [`exact::Auditor`] remembers every event,
//! [`versions::VersionAuditor`] a few bytes per aggregate, where events are counted. Must not: know where either
//! history comes from.

pub mod exact;
pub mod verdict;
pub mod versions;

pub use crate::audit::exact::{Auditor, Fate};
pub use crate::audit::verdict::{FaultCount, Verdict};
