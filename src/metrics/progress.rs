//! Whether a shard gets further, or does the same again and again.
//!
//! Promises: what was acknowledged before, and is sent anew after a failure, is no progress. Must not: know a clock.
//!
//! ```text
//!   life 1   page ✓   page: batch ✓ batch ✓ batch ✗     3 steps
//!   life 2            page: batch ✓ batch ✓ batch ✗     none: it was there before
//!   life 3            page: batch ✓ batch ✓ batch ✓     1 step
//! ```

/// How far one shard ever got since its last page was done.
#[derive(Debug, Default)]
pub struct ShardProgress {
    /// Batches acknowledged in this life since the last page was done.
    now: u64,
    /// The most of any life.
    most: u64,
}

/// Whether something led further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressStep {
    /// It led further than ever.
    Further,
    /// It was there before.
    Again,
}

impl ShardProgress {
    /// The shard begins anew.
    pub fn begin(&mut self) {
        self.now = 0;
    }

    /// A batch was acknowledged.
    pub fn acknowledge(&mut self) -> ProgressStep {
        self.now += 1;
        if self.now > self.most {
            self.most = self.now;
            ProgressStep::Further
        } else {
            ProgressStep::Again
        }
    }

    /// A page with events is done: the cursor has moved, and what lies before it is not sent again.
    pub fn finish_page(&mut self) -> ProgressStep {
        (self.now, self.most) = (0, 0);
        ProgressStep::Further
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_anew_is_no_progress() {
        let mut progress = ShardProgress::default();
        assert_eq!(progress.finish_page(), ProgressStep::Further);
        assert_eq!(progress.acknowledge(), ProgressStep::Further);
        assert_eq!(progress.acknowledge(), ProgressStep::Further);
        for _ in 0..9 {
            progress.begin();
            assert_eq!(progress.acknowledge(), ProgressStep::Again);
            assert_eq!(progress.acknowledge(), ProgressStep::Again);
        }
        assert_eq!(progress.acknowledge(), ProgressStep::Further, "and one more");
        progress.begin();
        assert_eq!(progress.finish_page(), ProgressStep::Further);
        assert_eq!(progress.acknowledge(), ProgressStep::Further);
    }
}
