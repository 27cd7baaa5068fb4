//! What was asked for by --capture, and how events are read.
//!
//! Promises: all instances read in the one way that `postrider.capture` names; the first that starts may change it,
//! and of two that start at once one makes the slot. Must not: read an event.
//! Fails: with [`ErrorKind::Config`] where a flag and running instances disagree; with the connection's error.

use std::time::{Duration, Instant};

use crate::capture::mode::{CaptureState, DeliveryMode, Mode, change_mode, read_state};
use crate::capture::mode_change::{Loss, check_change};
use crate::capture::slot::SlotKeeper;
use crate::capture::slot::reader_lock::{try_lock, unlock};
use crate::capture::slot::requirements::{Readers, check_needs};
use crate::config::settings::Delivery;
use crate::control::lease::live_instances;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Connection, DatabaseConfig, connect};
use crate::relay::stages::Progress;
use crate::relay::tasks::{Opened, stay};

/// How often it is looked again.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// An instance that has died is known to be dead within this.
const DEAD_WITHIN: Duration = Duration::from_secs(3);

/// Makes the flag and the database agree. The first instance may change the way; afterwards only
/// `postrider capture switch` does, and all follow.
///
/// # Errors
/// [`ErrorKind::Config`] when other instances read in another way than the flag asks for.
pub(super) async fn agree(
    opened: &Opened,
    database: &DatabaseConfig,
    asked: Option<Mode>,
    progress: Progress,
) -> Result<CaptureState> {
    let now = opened.state.mode;
    let may_change = progress == Progress::Starting;
    let Some(asked) = asked.filter(|asked| *asked != now && may_change) else {
        return Ok(opened.state.clone());
    };
    if opened.state.pause.is_some() {
        return Err(refuse_while_paused(now, asked));
    }
    refuse_beside_others(&opened.control, now, asked).await?;
    let messages = keeper(opened, database, Mode::Message).await?;
    if asked != Mode::Poll {
        let reader = keeper(opened, database, asked).await?;
        check_needs(&reader, Readers::ThisRole).await?;
    }
    check_change(&messages, now, asked, Loss::Refused).await?;
    match asked {
        Mode::Poll | Mode::Wal => change(&messages, now, asked).await?,
        Mode::Message => begin_messages(&opened.control, database, &messages, now).await?,
    }
    read_state(&opened.control).await
}

/// Refuses to deliver otherwise than the flag insists.
///
/// # Errors
/// [`ErrorKind::Config`] when the database says otherwise.
pub(super) fn insist(asked: Option<Delivery>, now: DeliveryMode) -> Result<()> {
    let Some(asked) = asked.filter(|asked| asked.name() != now.name()) else { return Ok(()) };
    let (asked, now) = (asked.name(), now.name());
    let cause = format!("--delivery {asked} does not fit: the database says {now}");
    let remedy = format!("run `postrider delivery switch {asked}`, or leave --delivery out");
    Err(Error::new(ErrorKind::Config, cause).with_remedy(remedy))
}

/// Instances that wait for the end of the pause have no lease, and cannot be seen.
fn refuse_while_paused(now: Mode, asked: Mode) -> Error {
    let (now, asked) = (now.name(), asked.name());
    let cause = format!(
        "--capture {asked} does not fit: events are read by {now}, and publishing is paused"
    );
    let remedy = format!("run `postrider capture switch {asked}`, or leave --capture out");
    Error::new(ErrorKind::Config, cause).with_remedy(remedy)
}

/// Running instances would be taken along by a flag that they do not know.
async fn refuse_beside_others(control: &Connection, now: Mode, asked: Mode) -> Result<()> {
    let live = wait_for_the_dead(control).await?;
    if live == 0 {
        return Ok(());
    }
    let cause = format!(
        "--capture {} does not fit: {live} running instances read by {}",
        asked.name(),
        now.name()
    );
    let remedy = format!("run `postrider capture switch {}`, or leave --capture out", asked.name());
    Err(Error::new(ErrorKind::Config, cause).with_remedy(remedy))
}

async fn keeper(opened: &Opened, database: &DatabaseConfig, mode: Mode) -> Result<SlotKeeper> {
    let connection = connect(database, "slot").await?;
    SlotKeeper::open(connection, database, opened.outbox.name(), mode).await
}

/// The slot first: what is written before there is one is never read.
async fn begin_messages(
    control: &Connection,
    database: &DatabaseConfig,
    messages: &SlotKeeper,
    now: Mode,
) -> Result<()> {
    if !wait_for_lock(control, Mode::Message).await? {
        return Ok(());
    }
    stay(control, database, messages.make()).await?;
    // The session that keeps the lock only reads.
    change(messages, now, Mode::Message).await?;
    unlock(control).await
}

async fn change(keeper: &SlotKeeper, now: Mode, asked: Mode) -> Result<()> {
    change_mode(keeper.connection(), now, asked).await?;
    tracing::info!(before = now.name(), now = asked.name(), "capture mode changed");
    Ok(())
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
        tokio::time::sleep(LOOK_INTERVAL).await;
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
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
