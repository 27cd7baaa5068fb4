//! How events are read: what was asked for, what the database says, and when that changes.
//!
//! Promises: all instances read in the one way that `postrider.capture` names; when it changes, a session
//! ends well, so that the next begins exactly where it stopped. Must not: read an event.
//! Fails: with [`ErrorKind::Config`] where a flag and running instances disagree; with the connection's
//! error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::capture::mode::{CaptureState, Mode, Way, change_mode, leave_slot, read_state};
use crate::capture::mode_change::{Loss, check_change};
use crate::capture::slot::SlotKeeper;
use crate::capture::slot::reader_lock::{try_lock, unlock};
use crate::capture::slot::requirements::{Readers, check_needs};
use crate::capture::table::past_ticks::{Remembered, remember_tick};
use crate::control::lease::live_instances;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Connection, DatabaseConfig, connect};
use crate::relay::poll_session::{Ended, Opened};

/// How often an instance looks whether the way of reading was changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// An instance that has died is known to be dead within this.
const DEAD_WITHIN: Duration = Duration::from_secs(3);

/// What ends a session well.
pub(super) struct Turn {
    /// How this session reads.
    pub(super) way: Way,
    /// The word of the whole process.
    pub(super) stop: watch::Receiver<bool>,
    /// The word of this session.
    pub(super) end: Arc<watch::Sender<bool>>,
}

/// Makes the flag and the database agree. The first instance may change the way; afterwards only
/// `postrider capture switch` does, and all follow.
///
/// # Errors
/// [`ErrorKind::Config`] when other instances read in another way than the flag asks for.
pub(super) async fn agree(
    opened: &Opened,
    database: &DatabaseConfig,
    asked: Option<Mode>,
    started: bool,
) -> Result<CaptureState> {
    let now = opened.state.mode;
    let Some(asked) = asked.filter(|asked| *asked != now && !started) else {
        return Ok(opened.state.clone());
    };
    let live = wait_for_the_dead(&opened.control).await?;
    if live > 0 {
        let cause = format!(
            "--capture {} does not fit: {live} running instances read by {}",
            asked.name(),
            now.name()
        );
        let remedy =
            format!("run `postrider capture switch {}`, or leave --capture out", asked.name());
        return Err(Error::new(ErrorKind::Config, cause).with_remedy(remedy));
    }
    let connection = connect(database, "slot").await?;
    let name = opened.outbox.name();
    let messages = SlotKeeper::open(connection, database, name.clone(), Mode::Message).await?;
    if asked != Mode::Poll {
        let connection = connect(database, "slot").await?;
        let reader = SlotKeeper::open(connection, database, name, asked).await?;
        check_needs(&reader, Readers::ThisRole).await?;
    }
    check_change(&messages, now, asked, Loss::Refused).await?;
    let is_locked = asked == Mode::Message;
    if !is_locked || wait_for_lock(&opened.control, asked).await? {
        if is_locked {
            // The slot first: what is written before there is one is never read.
            messages.make().await?;
        }
        // The session that keeps the lock only reads.
        change_mode(messages.connection(), now, asked).await?;
        tracing::info!(before = now.name(), now = asked.name(), "the way of reading was changed");
        if is_locked {
            unlock(&opened.control).await?;
        }
    }
    read_state(&opened.control).await
}

/// Of two instances that start at once, one makes the slot; false when another has made it.
async fn wait_for_lock(control: &Connection, asked: Mode) -> Result<bool> {
    loop {
        let is_ours = try_lock(control).await?;
        if read_state(control).await?.mode == asked {
            if is_ours {
                unlock(control).await?;
            }
            return Ok(false);
        }
        if is_ours {
            return Ok(true);
        }
        tokio::time::sleep(LOOK_INTERVAL / 4).await;
    }
}

/// One that has just died counts as alive for a moment.
async fn wait_for_the_dead(control: &Connection) -> Result<usize> {
    let patience = Instant::now() + DEAD_WITHIN;
    loop {
        let live = live_instances(control).await?;
        if live == 0 || Instant::now() > patience {
            return Ok(live);
        }
        tokio::time::sleep(LOOK_INTERVAL / 4).await;
    }
}

/// Ends the session when the process is to stop, or the way of reading was changed. While the table is
/// polled, a slot is dropped as soon as nobody reads it: it would keep the log for ever.
pub(super) async fn watch_mode(mut turn: Turn, mut control: Connection) -> Result<Ended> {
    let mut said = false;
    let mut remembers = turn.way.mode == Mode::Poll;
    loop {
        tokio::select! {
            _ = turn.stop.changed() => {}
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        let state = read_state(&control).await?;
        if *turn.stop.borrow() || state.way() != turn.way {
            turn.end.send_replace(true);
            return Ok(Ended::Aide);
        }
        remembers = remembers && remember_tick(&control).await? == Remembered::Yes;
        let Some(slot) = state.slot_name.filter(|_| state.mode == Mode::Poll) else { continue };
        match leave_slot(&mut control, &slot).await {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(slot, "the slot that is not read any more was dropped");
            }
            // Polling needs no right on slots; somebody else may have it.
            Err(error) if error.kind() == ErrorKind::PostgresRefused => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(
                        slot,
                        cause = error.message(),
                        remedy = error.remedy(),
                        "the slot that is not read any more cannot be dropped; it keeps the server's log"
                    );
                }
            }
            Err(error) => return Err(error),
        }
    }
}
