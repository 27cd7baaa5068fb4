//! What a session is to do, by what it has found.
//!
//! Promises: the stream is chosen only where nothing is missing before it; a gap is closed from the table first,
//! where there is one. Must not: change anything. Fails: with the connection's error. Messages whose slot is
//! lost are lost, and are said to be.
//!
//! ```text
//!  paused ────────────────────────────────────────────────► Paused
//!  poll ──────────────────────────────────────────────────► Poll
//!  wal, message ─► StandBy ─► the lock is ours ─┬─ a gap ──► PollWhileRecovering, then the next session
//!                                               └─ none ──► Stream
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::capture::adopted::copy::SlotSession;
use crate::capture::mode::{CaptureState, Flow, Mode};
use crate::capture::mode_change::messages_lost;
use crate::capture::slot::{Gap, SlotKeeper};
use crate::error::Result;
use crate::metrics::counters::Monitor;
use crate::postgres::{connect, with_timeout};
use crate::relay::adopted_tables::can_copy;
use crate::relay::copy_preparation::Preparation;
use crate::relay::instance::Instance;
use crate::relay::slot_recovery::{Access, Recovery, access, may_pass};
use crate::relay::tasks::Opened;

/// What a session does next.
pub(super) enum SessionPlan {
    /// Publishing is paused: wait for the end of the pause.
    Paused(Opened),
    /// The table is polled, as that is how events are read.
    Poll(Opened),
    /// The table is polled until the log can take over: there is no slot, or it does not bring everything, or
    /// nobody is let in. The lock of the log's reader is ours.
    PollWhileRecovering(Opened, Box<Recovery>),
    /// The log is read. The lock is ours.
    Stream(Opened, Box<Stream>),
    /// Events are read from the log, by one instance: wait for the lock.
    StandBy(Opened),
    /// The capture mode was changed meanwhile: the next session goes by that.
    End,
}

/// The lock that one instance has, which reads the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReaderLock {
    /// Another instance may have it.
    Unknown,
    /// This one has it.
    Ours,
}

/// What the log is read by.
pub(super) struct Stream {
    pub(super) keeper: SlotKeeper,
    /// By which rows of adopted tables are copied that no stream brings.
    pub(super) held: Option<SlotSession>,
    pub(super) beginning: Beginning,
    pub(super) copies: EventCopies,
    /// Where rows of adopted tables are to be copied that this stream does not bring.
    pub(super) preparation: Option<Box<Preparation>>,
}

/// What comes before the stream of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// Nothing: it goes on where it ended.
    GoOn,
    /// A slot is made: there was none yet.
    MakeSlot,
    /// The slot that was just made is taken as the place where all begins.
    Cover,
}

/// Where events are that the log brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventCopies {
    /// In the outbox's table, too: what the server cannot hand on is read from there.
    InTable,
    /// Nowhere else, or they may be gone from their table: nothing is given up for one event.
    InLogAlone,
}

/// What is found of the slot.
struct FoundSlot {
    state: CaptureState,
    held: Option<SlotSession>,
    gap: Option<Gap>,
    access: Access,
}

impl Instance {
    /// What to do with what was opened.
    pub(super) async fn plan(&self, opened: Opened, lock: ReaderLock) -> Result<SessionPlan> {
        if opened.way.flow == Flow::Paused {
            return Ok(SessionPlan::Paused(opened));
        }
        match (opened.way.mode, lock) {
            (Mode::Poll, _) => Ok(SessionPlan::Poll(opened)),
            (Mode::Wal | Mode::Message, ReaderLock::Unknown) => Ok(SessionPlan::StandBy(opened)),
            // It is too large to lie in this one.
            (Mode::Wal | Mode::Message, ReaderLock::Ours) => {
                Box::pin(self.plan_to_read(opened)).await
            }
        }
    }

    async fn plan_to_read(&self, opened: Opened) -> Result<SessionPlan> {
        let mode = opened.way.mode;
        let connection = connect(&self.config.database, "slot").await?;
        let name = self.config.outbox.clone();
        let keeper = SlotKeeper::open(connection, &self.config.database, name, mode).await?;
        let FoundSlot { state, held, gap, access } = self.look_at_slot(&keeper).await?;
        if state.way() != opened.way {
            // Changed before the lock was ours: from here on it might make a slot in place of another's.
            return Ok(SessionPlan::End);
        }
        let opened = Opened { state, ..opened };
        if wants_copy(&keeper, gap, access)
            && let Some(beside) = self.keeper_beside_copy(&opened).await?
        {
            let stream = Stream::beside_copy(beside, keeper, &self.monitor);
            return Ok(SessionPlan::Stream(opened, Box::new(stream)));
        }
        let copies = match mode {
            Mode::Poll | Mode::Wal if keeper.adopted().is_empty() => EventCopies::InTable,
            Mode::Poll | Mode::Wal | Mode::Message => EventCopies::InLogAlone,
        };
        let stuck =
            self.stuck_at(opened.state.delivered).filter(|_| copies == EventCopies::InTable);
        let gap = gap.or(stuck);
        let beginning = match (gap, mode) {
            (None, Mode::Message) => Beginning::GoOn,
            (Some(Gap::New), Mode::Message) => Beginning::MakeSlot,
            (Some(Gap::Uncovered), Mode::Message) => Beginning::Cover,
            (Some(gap), Mode::Message) => return Err(messages_lost(gap, mode)),
            (None, Mode::Wal | Mode::Poll)
                if access == Access::Given && is_let_in(&keeper).await? =>
            {
                Beginning::GoOn
            }
            (gap, Mode::Wal | Mode::Poll) => {
                if has_changed(&keeper, &opened).await? {
                    return Ok(SessionPlan::End);
                }
                let (known, held) = (opened.state.slot.clone(), self.held.clone());
                let monitor = Arc::clone(&self.monitor);
                let recovery = Recovery { keeper, gap, known, held, monitor };
                return Ok(SessionPlan::PollWhileRecovering(opened, Box::new(recovery)));
            }
        };
        let stream = Stream { keeper, held, beginning, copies, preparation: None };
        Ok(SessionPlan::Stream(opened, Box::new(stream)))
    }

    /// Who looks after the stream of all but the tables of which rows are to be copied first; none where the slot does not
    /// bring all of that.
    async fn keeper_beside_copy(&self, opened: &Opened) -> Result<Option<SlotKeeper>> {
        let (database, state) = (&self.config.database, &opened.state);
        let Some(known) = &state.slot else { return Ok(None) };
        let connection = connect(database, "slot").await?;
        let name = self.config.outbox.clone();
        let mut keeper = SlotKeeper::open(connection, database, name, Mode::Wal).await?;
        let is_whole = with_timeout(database, "look at the slot", async {
            keeper.leave_out_uncopied(known).await?;
            Ok(keeper.gap(state).await?.is_none()
                && access(&keeper, state).await? == Access::Given
                && is_let_in(&keeper).await?)
        })
        .await?;
        Ok(Some(keeper).filter(|_| is_whole))
    }

    /// Why the stream cannot be begun. Where it may have lacked rows, it is begun all the same, and the table tells; where
    /// that has told so, the table is polled.
    async fn gap_for_stream(
        &self,
        keeper: &SlotKeeper,
        state: &CaptureState,
    ) -> Result<Option<Gap>> {
        let gap = keeper.gap(state).await?;
        if gap.is_none() {
            self.lacks_rows.store(false, Ordering::Relaxed);
        }
        match gap {
            Some(Gap::Publication | Gap::Course) if !self.lacks_rows.load(Ordering::Relaxed) => {
                keeper.gap_beside_doubt(state).await
            }
            gap => Ok(gap),
        }
    }

    async fn look_at_slot(&self, keeper: &SlotKeeper) -> Result<FoundSlot> {
        let held = self.held.take();
        with_timeout(&self.config.database, "look at the slot", async {
            let state = keeper.state().await?;
            let held = held.filter(|held| state.slot.as_ref().is_some_and(|slot| held.made(slot)));
            let access = access(keeper, &state).await?;
            let gap = match (access, can_copy(keeper.adopted(), &state, &held)) {
                (Access::Barred, _) => state.slot.is_none().then_some(Gap::New),
                (Access::Given, false) => Some(Gap::Uncopied),
                (Access::Given, true) => self.gap_for_stream(keeper, &state).await?,
            };
            Ok(FoundSlot { state, held, gap, access })
        })
        .await
    }
}

impl Stream {
    /// All but the tables that are copied first.
    fn beside_copy(beside: SlotKeeper, keeper: SlotKeeper, monitor: &Arc<Monitor>) -> Self {
        let streamed = beside.adopted().iter().map(|table| table.name.clone()).collect();
        let preparation = Preparation { keeper, streamed, monitor: Arc::clone(monitor) };
        Self {
            keeper: beside,
            held: None,
            beginning: Beginning::GoOn,
            copies: EventCopies::InLogAlone,
            preparation: Some(Box::new(preparation)),
        }
    }
}

/// Whether something is amiss with adopted tables alone, as far as is known.
fn wants_copy(keeper: &SlotKeeper, gap: Option<Gap>, access: Access) -> bool {
    let is_of_adopted = match gap {
        Some(gap) => matches!(gap, Gap::Uncopied | Gap::Attached | Gap::Publication),
        None => access == Access::Barred,
    };
    is_of_adopted && keeper.mode() == Mode::Wal && !keeper.adopted().is_empty()
}

/// Whether somebody has changed what is to be read while it was looked at: what seems to be a gap may be none.
async fn has_changed(keeper: &SlotKeeper, opened: &Opened) -> Result<bool> {
    let now = keeper.state().await?;
    let publication = |state: &CaptureState| state.slot.clone().map(|slot| slot.publication);
    Ok(now.way() != opened.way || publication(&now) != publication(&opened.state))
}

/// Whether the server lets a reader in now.
async fn is_let_in(keeper: &SlotKeeper) -> Result<bool> {
    match keeper.knock().await {
        Ok(()) => Ok(true),
        Err(error) if may_pass(&error) && keeper.is_connected() => Ok(false),
        Err(error) => Err(error),
    }
}
