//! The atomics of this folder: `tests/loom` puts its own in their place.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
pub(super) use std::sync::{Mutex, PoisonError};
