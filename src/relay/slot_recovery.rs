//! Closes the gap before a slot: the table is polled until what is published covers where it begins.
//!
//! Promises: the stream takes over only when every transaction that it does not bring is published; a
//! right, a place or an object that is missing is waited for. Must not: stop polling before.
//! Fails: with the connection's error.
//!
//! The slot comes first, then the cursors pass the snapshot of what had committed where it begins. A
//! comparison of log positions would not do: a transaction becomes visible after its commit is in the
//! log, and in another order.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::backoff::Backoff;
use crate::capture::mode::{CaptureState, KnownSlot};
use crate::capture::slot::{Gap, SlotKeeper};
use crate::control::cursors::CursorStore;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::counters::Monitor;
use crate::metrics::health::LogRefusal;
use crate::order::cursor::Cursor;
use crate::order::snapshot::Snapshot;
use crate::relay::held::HeldSession;
use crate::relay::tasks::Ended;

/// How often the cursors are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// The pauses after a refusal.
const REFUSAL: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));

/// What is in the way of the stream, and who can clear it.
pub(super) struct Recovery {
    pub(super) keeper: SlotKeeper,
    /// None when nothing would be missing, but the server lets no reader in.
    pub(super) gap: Option<Gap>,
    pub(super) known: Option<KnownSlot>,
    /// Where the session that makes the slot waits for the reader, who copies by it.
    pub(super) held: HeldSession,
    /// Who tells that the table is polled.
    pub(super) monitor: Arc<Monitor>,
}

/// Makes a slot where the one that is there is of no use, waits until the cursors cover it, and ends the
/// session.
pub(super) async fn recover(
    recovery: Recovery,
    store: Arc<CursorStore>,
    nudge: Arc<Notify>,
    end: Arc<watch::Sender<bool>>,
) -> Result<Ended> {
    let coverage = look_until_answered(&recovery).await?;
    let keeper = recovery.keeper;
    loop {
        store.save_all().await?;
        let cursors = store.all().await?;
        if cursors.iter().all(|cursor| covers(cursor, &coverage.snapshot)) {
            break;
        }
        // An outbox at rest does not tick by itself.
        nudge.notify_one();
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    tracing::info!(slot = keeper.name(), "backlog published; streaming from the replication slot");
    if let Some(course) = coverage.course {
        keeper.note_course(&course.now, &course.before).await?;
    }
    keeper.cover().await?;
    end.send_replace(true);
    Ok(Ended::Helper)
}

/// What is to be published before the stream can begin.
struct Coverage {
    snapshot: Snapshot,
    /// What is noted then, where the slot stays although the log lacked rows.
    course: Option<NewCourse>,
}

/// The course of the outbox's tables, with the publication's fingerprint.
struct NewCourse {
    now: String,
    before: String,
}

impl Coverage {
    /// All from before the slot.
    fn of(known: KnownSlot) -> Self {
        Self { snapshot: known.snapshot, course: None }
    }
}

/// What has to be published until the stream can begin. What the server refuses, it may allow later: events are
/// published meanwhile, as the table is polled.
async fn look_until_answered(recovery: &Recovery) -> Result<Coverage> {
    let (mut refusals, mut backoff) = (0_u64, REFUSAL);
    loop {
        let refusal = match attempt(recovery).await {
            Ok(coverage) => {
                recovery.monitor.set_log_refusal(None);
                return Ok(coverage);
            }
            Err(error) if may_pass(&error) && recovery.keeper.is_connected() => error,
            Err(error) => return Err(error),
        };
        refusals += 1;
        recovery.monitor.set_log_refusal(Some(LogRefusal::Log(refusal.message().to_owned())));
        if refusals.is_power_of_two() {
            tracing::warn!(
                cause = refusal.message(),
                remedy = refusal.remedy(),
                refusals,
                "the log cannot be read; the table is polled until it can"
            );
        }
        tokio::time::sleep(backoff.take()).await;
    }
}

async fn attempt(recovery: &Recovery) -> Result<Coverage> {
    let Recovery { keeper, gap, known, held, .. } = recovery;
    let is_kept = matches!(gap, None | Some(Gap::Uncovered | Gap::Course));
    keeper.check_logged().await?;
    keeper.check_adopted(known.as_ref().filter(|_| is_kept)).await?;
    let kept = known.as_ref().filter(|_| is_kept);
    if let (Some(Gap::Course), Some(known)) = (gap, kept) {
        if let Some(coverage) = coverage_of_course(keeper, known).await? {
            return Ok(coverage);
        }
    } else if let Some(known) = kept {
        keeper.knock().await?;
        return Ok(Coverage::of(known.clone()));
    }
    keeper.check_adopted_logged().await?;
    let reason = gap.map_or("the slot is not known", Gap::words);
    if recovery.known.is_some() {
        tracing::warn!(
            slot = keeper.name(),
            reason,
            "polling, while a slot is made: of rows that are deleted before they are read nothing comes"
        );
    } else {
        tracing::info!(slot = keeper.name(), reason, "polling, while a slot is made");
    }
    keeper.free().await?;
    let (known, session) = keeper.make().await?;
    held.put(Some(session).filter(|_| !keeper.adopted().is_empty()));
    Ok(Coverage::of(known))
}

/// The slot stays: the table is polled until all is published that was written before the tables became what they are.
/// None when the publication was changed, too.
async fn coverage_of_course(keeper: &SlotKeeper, known: &KnownSlot) -> Result<Option<Coverage>> {
    keeper.knock().await?;
    // In this order: what is written after the look was written under what is noted.
    let Some(now) = keeper.publication().await? else { return Ok(None) };
    if now.gap_since(&known.publication) == Some(Gap::Publication) {
        return Ok(None);
    }
    let snapshot = keeper.written_so_far().await?;
    let reason = Gap::Course.words();
    tracing::warn!(
        slot = keeper.name(),
        reason,
        "polling what the log does not bring: of rows that were deleted meanwhile nothing comes"
    );
    let course = Some(NewCourse { now: now.to_string(), before: known.publication.clone() });
    Ok(Some(Coverage { snapshot, course }))
}

/// Whether adopted tables may be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Given,
    /// A right is missing, and waited for where the table is polled.
    Barred,
}

/// What the role may do with adopted tables.
///
/// # Errors
/// When the connection fails.
pub(super) async fn access(keeper: &SlotKeeper, state: &CaptureState) -> Result<Access> {
    match keeper.check_adopted(state.slot.as_ref()).await {
        Ok(()) => Ok(Access::Given),
        Err(error) if may_pass(&error) && keeper.is_connected() => Ok(Access::Barred),
        Err(error) => Err(error),
    }
}

/// Whether the server or whoever looks after it may think better of it.
pub(super) fn may_pass(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PostgresRefused
            | ErrorKind::PostgresUnavailable
            | ErrorKind::SlotUnusable
            | ErrorKind::Schema
    )
}

/// Whether a cursor has passed everything that the snapshot sees.
pub(super) fn covers(cursor: &Cursor, snapshot: &Snapshot) -> bool {
    // What lies below an open window was not looked for yet.
    let is_looked_at = cursor.window().is_none_or(|window| window.since.covers(snapshot));
    let is_read = cursor.range_from().covers(snapshot)
        || (cursor.is_finished() && cursor.upto().snapshot.covers(snapshot));
    is_looked_at && is_read
}
