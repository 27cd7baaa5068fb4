//! The threads of the writers, and how all threads of a run are told to stop.
//!
//! Promises: a writer that fails stops the others; all are joined before the first error is reported.
//! Fails: with the first error of a writer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};

use anyhow::{Context, Result, anyhow};

use crate::workload::batch::BatchBuilder;
use crate::workload::writer::{Epoch, Writer, WriterTotals};

/// Tells threads to stop when the scope is left, however that comes: the scope waits for them.
pub(super) struct StopOnDrop<'a>(pub(super) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The writers' threads.
pub(super) struct WriterThreads<'scope> {
    handles: Vec<ScopedJoinHandle<'scope, Result<BatchBuilder>>>,
}

impl<'scope> WriterThreads<'scope> {
    /// Starts one for each writer.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(super) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        writers: Vec<Writer>,
        epoch: Epoch,
        written: &'scope WriterTotals,
    ) -> Result<Self> {
        let start = |writer: Writer| {
            let thread = std::thread::Builder::new().name(format!("writer-{}", writer.number));
            let started = thread.spawn_scoped(scope, move || {
                let result = writer.write(epoch, written);
                if result.is_err() {
                    written.stop.store(true, Ordering::Relaxed);
                }
                result
            });
            started.context("a writer's thread cannot be started")
        };
        Ok(Self { handles: writers.into_iter().map(start).collect::<Result<_>>()? })
    }

    /// Whether all of them have ended.
    pub(super) fn is_finished(&self) -> bool {
        self.handles.iter().all(ScopedJoinHandle::is_finished)
    }

    /// Waits for all of them.
    ///
    /// # Errors
    /// With the first error of a writer.
    pub(super) fn join(self) -> Result<Vec<BatchBuilder>> {
        let join = |handle: ScopedJoinHandle<'_, Result<BatchBuilder>>| {
            handle.join().unwrap_or_else(|_| Err(anyhow!("a writer broke")))
        };
        // All are joined before the first error is reported.
        let results: Vec<Result<BatchBuilder>> = self.handles.into_iter().map(join).collect();
        results.into_iter().collect()
    }
}
