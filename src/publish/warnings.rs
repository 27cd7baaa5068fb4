//! Which warnings of publishing were said.
//!
//! Promises: all that share them say a cause once for all, and again while it goes on. Must not: decide what is said.

use std::time::{Duration, Instant};

use crate::throttle::Repeats;

/// How often a warning is repeated while its cause goes on.
pub const WARNING_PAUSE: Duration = Duration::from_secs(30);

/// Which troubles were said in the log; a producer's successor takes it over.
pub type Warnings = Repeats<Instant, Duration>;
