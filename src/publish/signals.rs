//! What the threads around a producer tell each other without a lock.
//!
//! Promises: exactly one thread learns that it was the last, or the first; who learns it sees what the others did
//! before. Nothing that was put in is lost. `tests/loom` tries every order in which threads can do this.
//! Must not: wait, or know what is counted.

use crate::publish::atomics::{AtomicBool, AtomicU32, Mutex, Ordering, PoisonError};

/// How many are still to come.
#[derive(Debug)]
pub(super) struct Countdown(AtomicU32);

impl Countdown {
    pub(super) fn new(count: u32) -> Self {
        Self(AtomicU32::new(count))
    }

    /// One has come; true for the last one.
    pub(super) fn count(&self) -> bool {
        let before = self.0.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "each is counted once");
        before == 1
    }

    /// Whether none is still to come.
    pub(super) fn is_over(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

/// Something that is so from some moment on.
#[derive(Debug)]
pub(super) struct Latch(AtomicBool);

impl Latch {
    pub(super) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// From now on it is so; true for the first who says it.
    pub(super) fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// From now on it is so, whoever said it first.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_taken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Things that one thread puts in and another takes out, mostly none: an empty look takes no lock.
#[derive(Debug)]
pub(super) struct Letterbox<T> {
    /// Changed under the lock alone, so that it and the letters change in one order.
    any: AtomicBool,
    letters: Mutex<Vec<T>>,
}

impl<T> Letterbox<T> {
    pub(super) fn new() -> Self {
        Self { any: AtomicBool::new(false), letters: Mutex::new(Vec::new()) }
    }

    /// Whoever wakes the taker does it behind this.
    pub(super) fn put(&self, letter: T) {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        letters.push(letter);
        self.any.store(true, Ordering::Relaxed);
    }

    pub(super) fn take(&self) -> Vec<T> {
        if !self.any.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        self.any.store(false, Ordering::Relaxed);
        std::mem::take(&mut *letters)
    }
}
