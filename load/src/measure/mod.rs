//! What is read off the machine, the processes and the clocks.
//!
//! Promises: figures with their unit in the name. Must not: judge them. Fails: when what is measured
//! has ended or does not answer.

pub(crate) mod clock;
pub(crate) mod environment;
pub(crate) mod latency;
pub(crate) mod process;
pub(crate) mod range;
pub(crate) mod slot;
