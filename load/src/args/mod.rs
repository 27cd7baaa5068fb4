//! The flags of each command, and the plan that each makes of them.
//!
//! Promises: every flag has a default that works on one machine, or is required; a plan is made once,
//! here, and no command sees a flag. Must not: do anything. Fails: clap names the flag, the value and
//! the remedy; exit code 2.

mod bench;
mod drain;
mod peers;
mod report;
mod run;
mod shared;
mod verify;

pub(crate) use bench::BenchArgs;
pub(crate) use drain::DrainArgs;
pub(crate) use peers::{CopyArgs, PeersArgs, PollerArgs};
pub(crate) use report::ReportArgs;
pub(crate) use run::RunArgs;
pub(crate) use verify::VerifyArgs;
