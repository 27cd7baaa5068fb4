//! How long a test waits for a condition.

use std::time::{Duration, Instant};

/// Longer than anything takes on a machine that is busy with other tests.
const LONGEST: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(20);

/// Waits for something, and not for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    what: &'static str,
    deadline: Instant,
}

impl Patience {
    /// Begins to wait for `what`; it is said when that never comes.
    pub(crate) fn until(what: &'static str) -> Self {
        Self { what, deadline: Instant::now() + LONGEST }
    }

    /// Time until the next look.
    pub(crate) async fn pause(self) {
        assert!(Instant::now() < self.deadline, "it never came: {}", self.what);
        tokio::time::sleep(PAUSE).await;
    }
}
