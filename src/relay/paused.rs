//! While publishing is paused.
//!
//! Promises: nothing is claimed and no lease is kept; work goes on within a second of the end of the pause, also of
//! one that ends by itself. Must not: end a pause. Fails: when PostgreSQL gives no answer for a lease; with the
//! connection's error.

use std::time::Duration;

use crate::capture::mode::{Pause, read_state};
use crate::error::Result;
use crate::legible;
use crate::metrics::health::SessionState;
use crate::postgres::with_timeout;
use crate::relay::instance::Instance;
use crate::relay::tasks::Opened;

/// How often it is looked whether the pause has ended.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl Instance {
    /// Waits until the pause is over, the way of reading was changed, or the process is to stop.
    pub(super) async fn wait_for_resume(&self, opened: Opened) -> Result<()> {
        if let Some(pause) = &opened.state.pause {
            self.tell(pause);
        }
        let (mut stop, mut known) = (self.stop.clone(), opened.state.pause);
        let database = &self.config.database;
        while !*stop.borrow() {
            tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
                _ = stop.changed() => return Ok(()),
            }
            let look = read_state(&opened.control);
            let state = with_timeout(database, "look whether publishing is paused", look).await?;
            if state.way() != opened.way {
                tracing::info!("publishing goes on");
                return Ok(());
            }
            let is_same =
                |known: &Pause, now: &Pause| (&known.reason, &known.by) == (&now.reason, &now.by);
            if let Some(now) = state.pause
                && !known.as_ref().is_some_and(|known| is_same(known, &now))
            {
                self.tell(&now);
                known = Some(now);
            }
        }
        Ok(())
    }

    /// To whoever reads the log, and to whoever asks whether all is well.
    fn tell(&self, pause: &Pause) {
        say(pause);
        self.monitor.set_session(SessionState::Paused { reason: legible::name(&pause.reason) });
    }
}

fn say(pause: &Pause) {
    tracing::warn!(
        reason = pause.reason,
        by = pause.by,
        ends_in_seconds = pause.left_seconds.map(f64::round),
        remedy = "run `postrider resume` when it may go on",
        "publishing is paused: events wait in the outbox"
    );
}
