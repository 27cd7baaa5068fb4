//! How events are read, while a session works: when that changes, the session ends well.
//!
//! Promises: the next session begins exactly where this one stopped; a slot that nobody reads any more is dropped.
//! Must not: read an event. Fails: with the connection's error.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, watch};

use crate::capture::mode::{Mode, Way, leave_slot, read_state};
use crate::capture::table::past_ticks::{Remembered, remember_tick};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::Connection;
use crate::relay::instance::Instance;
use crate::relay::tasks::{Ended, SessionTasks};

/// How often an instance looks whether the capture mode was changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What ends a session well.
struct ModeWatch {
    /// How this session reads.
    way: Way,
    /// The word of the whole process.
    stop: watch::Receiver<bool>,
    /// The word of this session.
    end: Arc<watch::Sender<bool>>,
    left: LeftSlot,
}

/// What people were told of a slot that is not read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeftSlot {
    /// Nothing is in the way of dropping it, as far as is known.
    Droppable,
    /// This instance may not; that was said once.
    Refused,
}

/// Ends the session well when the process is to stop, or the capture mode was changed. `control` may keep the lock of the
/// log's reader, and is its owner's again once the session has ended.
pub(super) fn spawn_mode_watch(
    instance: &Instance,
    session_tasks: &mut SessionTasks,
    way: Way,
    control: Arc<AsyncMutex<Connection>>,
) {
    let (stop, end) = (instance.stop.clone(), session_tasks.end());
    let watch = ModeWatch { way, stop, end, left: LeftSlot::Droppable };
    session_tasks.tasks.spawn(watch.run(control));
}

impl ModeWatch {
    async fn run(mut self, control: Arc<AsyncMutex<Connection>>) -> Result<Ended> {
        let mut remembers = self.way.mode == Mode::Poll;
        loop {
            tokio::select! {
                _ = self.stop.changed() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            let mut control = control.lock().await;
            let state = read_state(&control).await?;
            if *self.stop.borrow() || state.way() != self.way {
                self.end.send_replace(true);
                return Ok(Ended::Helper);
            }
            remembers = remembers && remember_tick(&control).await? == Remembered::Yes;
            if let Some(slot) = state.slot_name.filter(|_| state.mode == Mode::Poll) {
                self.leave_slot(&mut control, &slot).await?;
            }
        }
    }

    /// While the table is polled, a slot is dropped as soon as nobody reads it: it would keep the log for ever.
    async fn leave_slot(&mut self, control: &mut Connection, slot: &str) -> Result<()> {
        match leave_slot(control, slot).await {
            Ok(false) => Ok(()),
            Ok(true) => {
                tracing::info!(slot, "the slot that is not read any more was dropped");
                Ok(())
            }
            // Polling needs no right on slots; somebody else may have it.
            Err(error) if error.kind() == ErrorKind::PostgresRefused => {
                if self.left == LeftSlot::Droppable {
                    tell_refusal(slot, &error);
                }
                self.left = LeftSlot::Refused;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

fn tell_refusal(slot: &str, error: &Error) {
    tracing::warn!(
        slot,
        cause = error.message(),
        remedy = error.remedy(),
        "the slot that is not read any more cannot be dropped; it keeps the server's log"
    );
}
