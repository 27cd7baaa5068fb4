//! The relay's warnings while the demo runs.
//!
//! Promises: none is lost and none disturbs the live view: they wait, the last one is shown in the
//! view, and all that are kept are printed at the end. Must not: grow without bound.
//! Fails: never; a log that is set up already keeps the warnings instead.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The relay puts librdkafka's words into its own warnings; the consumer's errors are returned.
const FILTER: &str = "warn,librdkafka=off,rdkafka=off";
const KEPT_LINES: usize = 20;

/// The warnings so far.
#[derive(Clone, Debug, Default)]
pub(super) struct DemoWarnings(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    dropped: u64,
}

impl DemoWarnings {
    /// Collects from now on.
    pub(super) fn collect() -> Self {
        let warnings = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(FILTER))
            .with_writer(warnings.clone())
            .with_ansi(false)
            .without_time()
            .with_target(false);
        if let Err(cause) = subscriber.try_init() {
            tracing::debug!("warnings go to the log that is there already: {cause}");
        }
        warnings
    }

    /// The last one.
    pub(super) fn last(&self) -> Option<String> {
        self.kept().lines.back().cloned()
    }

    /// Takes what is kept, as lines to print.
    pub(super) fn take(&self) -> Vec<String> {
        let kept = std::mem::take(&mut *self.kept());
        let dropped = (kept.dropped > 0).then(|| format!("({} earlier warnings)", kept.dropped));
        dropped.into_iter().chain(kept.lines).collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for DemoWarnings {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl io::Write for DemoWarnings {
    /// One call per event, as `tracing_subscriber` makes them.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.kept();
        for line in String::from_utf8_lossy(bytes).lines().filter(|line| !line.trim().is_empty()) {
            if kept.lines.len() == KEPT_LINES {
                kept.lines.pop_front();
                kept.dropped += 1;
            }
            kept.lines.push_back(line.trim().to_owned());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn keeps_the_last_ones_and_counts_the_others() {
        let mut warnings = DemoWarnings::default();
        for number in 0..25 {
            warnings.write_all(format!("warning {number}\n").as_bytes()).unwrap();
        }
        assert_eq!(warnings.last().as_deref(), Some("warning 24"));
        let lines = warnings.take();
        assert_eq!(lines.len(), KEPT_LINES + 1);
        assert!(lines[1].ends_with(" 5"), "{lines:?}");
        assert!(warnings.take().is_empty());
    }
}
