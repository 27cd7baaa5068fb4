//! Faults of the machines and the network around a running relay. Each test ends with the auditor.
//!
//! Promises: each fault is really injected, and work goes on when it has passed. Must not: repeat what
//! `crash`, `retention` and `refusals` show. Fails: with the auditor's verdict, or with what did not
//! go on.

mod access;
mod cluster;
mod culprit;
mod discard;
mod disk;
mod fencing;
mod moves;
pub(crate) mod network;
mod poison;
mod probe;
pub(crate) mod promotion;
mod refusal;
mod schedule;
mod servers;
