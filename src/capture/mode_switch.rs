//! Changes how events are read, while everything runs.
//!
//! Promises: everything is checked before anything is changed; a change takes one row, and whatever is
//! killed afterwards, the instances find their way from there. Must not: read an event, or talk to people.
//! Fails: when the server cannot do what is asked for, or events would be lost by it.
//!
//! ```text
//!  poll ◄──────► wal              the publication is made, one row is changed, the instances follow
//!  poll, wal ──► message          the slot that is read is left by way of poll; a slot is made; the row is changed
//!  message ────► poll, wal        nothing may wait; the row is changed
//!  message ────► message          a slot that is lost is made again, where the loss is accepted
//! ```

use std::pin::pin;
use std::time::{Duration, Instant};

use crate::capture::mode::{Mode, change_mode, leave_slot, read_state};
use crate::capture::mode_change::{Loss, check_change, loss, messages_lost};
use crate::capture::slot::reader_lock::try_lock;
use crate::capture::slot::requirements::{Readers, check_needs};
use crate::capture::slot::{Gap, Slot, SlotKeeper};
use crate::error::{Error, ErrorKind, Result};
use crate::outbox::OutboxName;
use crate::postgres::{Connection, DatabaseConfig, connect};

/// How long it is waited for others to follow.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether they have.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long others may take to drop a slot that this session may not drop.
const REFUSED_PATIENCE: Duration = Duration::from_secs(20);
/// How long another session may make or drop the slot.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// A session on the outbox's database, for whoever looks after the way of reading.
#[derive(Debug)]
pub struct CaptureSession {
    /// The session.
    pub connection: Connection,
    /// For further ones.
    pub database: DatabaseConfig,
    /// Whose capture it is.
    pub outbox: OutboxName,
}

/// What there is to do, after all checks.
#[derive(Debug)]
pub enum Change {
    /// Nothing: events are read so already.
    Nothing,
    /// The publication is made again where it is missing: instances whose role does not own the table wait for
    /// whoever does.
    Publication(SlotKeeper),
    /// A slot for messages is made in place of one that is lost.
    NewSlot(SlotKeeper, Gap),
    /// The table is polled next, the way before being this one.
    ToPoll(Mode),
    /// The log is read next.
    ToWal(Mode, SlotKeeper),
    /// Messages are read next; the slot is made here.
    ToMessages(Mode, SlotKeeper),
}

impl Change {
    /// Whoever looks after the slot by which events are read next, where the way changes.
    pub fn next_reader(&self) -> Option<&SlotKeeper> {
        match self {
            Self::ToWal(_, keeper) | Self::ToMessages(_, keeper) => Some(keeper),
            Self::Nothing | Self::Publication(_) | Self::NewSlot(..) | Self::ToPoll(_) => None,
        }
    }
}

/// A step that is done, or that takes long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwitchStep {
    /// The publication is there.
    Publication,
    /// The slot cannot be made before these transactions have ended.
    SlotWaits(String),
    /// The slot is there.
    Slot,
    /// It is there in place of a lost one.
    NewSlot,
    /// The row is changed.
    Changed {
        /// How events were read.
        from: Mode,
        /// How they are read from here on.
        to: Mode,
    },
    /// The slot that was read is dropped.
    SlotDropped,
}

/// Who hears of steps.
pub type Tell<'a> = &'a mut dyn FnMut(SwitchStep) -> Result<()>;

/// How waiting for the instances has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// They have followed.
    Yes,
    /// Not in time; they follow when they can.
    NotYet,
    /// Nobody reads this slot, this session's role may not drop it, and no instance did.
    SlotStays(String),
}

impl CaptureSession {
    /// Looks after the slot for this mode.
    ///
    /// # Errors
    /// As [`SlotKeeper::open`].
    pub async fn keeper(&self, mode: Mode) -> Result<SlotKeeper> {
        let connection = connect(&self.database, "slot").await?;
        SlotKeeper::open(connection, &self.database, self.outbox.clone(), mode).await
    }

    /// Checks whether events can be read so from here on, and what that takes.
    ///
    /// # Errors
    /// When the server cannot do it, or events would be lost by it.
    pub async fn plan(&self, to: Mode, accepted: Loss) -> Result<Change> {
        let from = read_state(&self.connection).await?.mode;
        let messages = self.keeper(Mode::Message).await?;
        if from == to {
            return self.plan_to_stay(to, messages, accepted).await;
        }
        check_change(&messages, from, to, accepted).await?;
        match to {
            Mode::Poll => Ok(Change::ToPoll(from)),
            Mode::Wal => {
                let keeper = self.keeper(to).await?;
                check_needs(&keeper, Readers::Instances).await?;
                keeper.check_publication_rights().await?;
                Ok(Change::ToWal(from, keeper))
            }
            Mode::Message => {
                // The slot is made here.
                check_needs(&messages, Readers::All).await?;
                messages.check_publication_rights().await?;
                Ok(Change::ToMessages(from, messages))
            }
        }
    }

    /// Nothing is to be changed; but a slot for messages that is lost can be made again.
    async fn plan_to_stay(
        &self,
        mode: Mode,
        messages: SlotKeeper,
        accepted: Loss,
    ) -> Result<Change> {
        let lost = match mode {
            Mode::Poll => return Ok(Change::Nothing),
            Mode::Wal => {
                let keeper = self.keeper(mode).await?;
                keeper.check_logged().await?;
                keeper.check_publication_rights().await?;
                return Ok(Change::Publication(keeper));
            }
            Mode::Message => loss(&messages).await?,
        };
        let Some(gap) = lost else { return Ok(Change::Nothing) };
        if accepted == Loss::Refused {
            return Err(messages_lost(gap, mode));
        }
        check_needs(&messages, Readers::All).await?;
        Ok(Change::NewSlot(messages, gap))
    }

    /// Does what the plan says. Instances follow by themselves.
    ///
    /// # Errors
    /// When somebody else changes the way at the same time, or the slot is not left; the connection's error.
    pub async fn carry_out(&mut self, change: &Change, tell: Tell<'_>) -> Result<()> {
        match change {
            Change::Nothing => Ok(()),
            Change::Publication(keeper) => {
                keeper.make_publication().await?;
                tell(SwitchStep::Publication)
            }
            Change::NewSlot(keeper, _) => self.make_anew(keeper, tell).await,
            Change::ToPoll(from) => self.change(*from, Mode::Poll, tell).await,
            Change::ToWal(from, keeper) => {
                // The relay's role may not own the table; whoever asks for this may.
                keeper.make_publication().await?;
                tell(SwitchStep::Publication)?;
                self.change(*from, Mode::Wal, tell).await
            }
            Change::ToMessages(from, keeper) => {
                keeper.make_publication().await?;
                tell(SwitchStep::Publication)?;
                let from = self.free_slot(keeper, *from, tell).await?;
                self.begin_messages(keeper, from, tell).await
            }
        }
    }

    async fn make_anew(&self, keeper: &SlotKeeper, tell: Tell<'_>) -> Result<()> {
        let lock = self.lock().await?;
        // Somebody else may have made one meanwhile, and it keeps messages.
        if loss(keeper).await?.is_some() {
            make(keeper, &lock, tell).await?;
        }
        tell(SwitchStep::NewSlot)
    }

    /// The slot that messages need may be the one by which rows are read. Its reader gives it up where the
    /// table is polled; what was written until then is published by that. Says how events are read now.
    async fn free_slot(&mut self, keeper: &SlotKeeper, from: Mode, tell: Tell<'_>) -> Result<Mode> {
        let Slot::Ready { reader: Some(_), .. } = keeper.look().await? else { return Ok(from) };
        self.change(from, Mode::Poll, tell).await?;
        let remedy =
            "look at `postrider capture show`, then run `postrider capture switch message` again";
        if self.wait_until_slot_is_left(tell).await? != Followed::Yes {
            return Err(Error::new(
                ErrorKind::Config,
                "the slot is still read; the table is polled next",
            )
            .with_remedy(remedy));
        }
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = check_change(keeper, Mode::Poll, Mode::Message, Loss::Refused).await
        {
            if error.kind() != ErrorKind::Config || Instant::now() > deadline {
                return Err(error);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(Mode::Poll)
    }

    /// The slot first: what is written before there is one is never read.
    async fn begin_messages(&self, keeper: &SlotKeeper, from: Mode, tell: Tell<'_>) -> Result<()> {
        let lock = self.lock().await?;
        // The slot of somebody who was faster keeps messages.
        if read_state(&self.connection).await?.mode != from {
            return Err(overtaken());
        }
        make(keeper, &lock, tell).await?;
        tell(SwitchStep::Slot)?;
        self.change(from, Mode::Message, tell).await
    }

    async fn change(&self, from: Mode, to: Mode, tell: Tell<'_>) -> Result<()> {
        if !change_mode(&self.connection, from, to).await? {
            return Err(overtaken());
        }
        tell(SwitchStep::Changed { from, to })
    }

    /// Waits until nobody reads the slot, and it is dropped. Running instances drop it themselves; where none runs,
    /// nobody else would.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn wait_until_slot_is_left(&mut self, tell: Tell<'_>) -> Result<Followed> {
        let (began, mut is_refused) = (Instant::now(), false);
        while began.elapsed() < PATIENCE {
            let Some(slot) = read_state(&self.connection).await?.slot_name else {
                tell(SwitchStep::SlotDropped)?;
                return Ok(Followed::Yes);
            };
            if !is_refused {
                is_refused = match leave_slot(&mut self.connection, &slot).await {
                    Ok(_) => false,
                    // The owner of the outbox may switch; only who may replicate drops slots.
                    Err(error) if error.kind() == ErrorKind::PostgresRefused => true,
                    Err(error) => return Err(error),
                };
            } else if began.elapsed() > REFUSED_PATIENCE {
                return Ok(Followed::SlotStays(slot));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(Followed::NotYet)
    }

    /// Keeps everybody else from making or dropping the slot, as long as the session is held.
    async fn lock(&self) -> Result<Connection> {
        let connection = connect(&self.database, "capture").await?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        while !try_lock(&connection).await? {
            if Instant::now() > deadline {
                return Err(Error::new(
                    ErrorKind::Config,
                    "the slot is read or made by another session",
                )
                .with_remedy("look at `postrider capture show`"));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(connection)
    }
}

/// Makes the slot. Whoever holds the lock and is silent is taken for gone.
async fn make(keeper: &SlotKeeper, lock: &Connection, tell: Tell<'_>) -> Result<()> {
    let (mut making, mut said) = (pin!(keeper.make()), None);
    loop {
        tokio::select! {
            made = &mut making => return made.map(|_| ()),
            () = tokio::time::sleep(LOOK_INTERVAL) => {
                read_state(lock).await?;
                let who = keeper.waits_for().await?;
                if let Some(who) = who.as_ref().filter(|_| said != who) {
                    tell(SwitchStep::SlotWaits(who.clone()))?;
                }
                said = who;
            }
        }
    }
}

fn overtaken() -> Error {
    Error::new(ErrorKind::Config, "somebody else has switched at the same time")
        .with_remedy("look at `postrider capture show`")
}
