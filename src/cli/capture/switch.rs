//! `postrider capture switch`: changes how events are read.
//!
//! Promises: everything is checked before anything is changed; a change takes one row, and whatever is
//! killed afterwards, the instances find their way from there. Must not: read an event.
//! Fails: when the server cannot do what is asked for, or events would be lost by it.

use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::capture::mode::{Mode, change_mode, leave_slot, read_state};
use crate::capture::mode_change::{Loss, check_change, loss, messages_lost};
use crate::capture::slot::requirements::{
    AdoptedReaders, CLOSE_MESSAGES, Readers, check_needs, messages_are_open,
};
use crate::capture::slot::{Slot, SlotKeeper};
use crate::cli::capture::{LOOK_INTERVAL, Place, SwitchArguments};
use crate::cli::output;
use crate::control::lease::live_instances;
use crate::error::{Error, ErrorKind, Result};
use crate::legible;
use crate::postgres::Connection;

/// How long a switch is watched.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn switch(place: &mut Place, arguments: &SwitchArguments) -> Result<ExitCode> {
    let to = Mode::from(arguments.to);
    let from = read_state(&place.connection).await?.mode;
    let messages = place.keeper(Mode::Message).await?;
    if from == to {
        return stay(place, &messages, to, arguments).await;
    }
    let loss = if arguments.accept_loss { Loss::Accepted } else { Loss::Refused };
    check_change(&messages, from, to, loss).await?;
    let keeper = match to {
        Mode::Poll => None,
        Mode::Wal => Some(place.keeper(to).await?),
        Mode::Message => Some(messages),
    };
    if let Some(keeper) = &keeper {
        // For messages the slot is made here.
        let readers = if to == Mode::Message { Readers::All } else { Readers::Instances };
        check_needs(keeper, readers).await?;
        say_what_the_group_lacks(keeper).await?;
        if to == Mode::Message && messages_are_open(keeper).await? {
            output::answer(&format!(
                "every login of this database may write messages, and so events: {CLOSE_MESSAGES}"
            ))?;
        }
    }
    if arguments.dry_run {
        output::answer(&format!("can be switched from {} to {}", from.name(), to.name()))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(keeper) = &keeper {
        // The relay's role may not own the table; whoever types this may.
        keeper.make_publication().await?;
        output::answer("the publication is there")?;
    }
    match (&keeper, to) {
        (Some(keeper), Mode::Message) => {
            let from = free_slot(place, keeper, from).await?;
            begin_messages(place, keeper, from).await?;
        }
        _ => change(place, from, to).await?,
    }
    if to == Mode::Poll {
        say_what_stays(place, from).await?;
    }
    match keeper {
        _ if arguments.no_wait => Ok(ExitCode::SUCCESS),
        Some(keeper) => wait_for_reader(place, &keeper).await,
        None => wait_for_pollers(place).await,
    }
}

/// Where no instance runs, nobody knows by which role the next one will read; it may be one of the group.
async fn say_what_the_group_lacks(keeper: &SlotKeeper) -> Result<()> {
    let whose = AdoptedReaders { this_role: false, instances: false, group: true };
    for table in keeper.adopted() {
        for missing in keeper.missing_rights(table, whose).await? {
            output::answer(&format!("note: {}; {}", missing.cause, missing.remedy))?;
        }
    }
    Ok(())
}

/// The publication outlives the way of reading: others may read by it, and who may go back to the log need not own
/// the table.
async fn say_what_stays(place: &Place, from: Mode) -> Result<()> {
    if place.keeper(from).await?.publication().await?.is_none() {
        return Ok(());
    }
    let name = from.publication();
    output::answer(&format!(
        "the publication {name} stays, and costs nothing; if nobody reads by it: drop publication {name}"
    ))
}

/// Nothing is to be changed; but a slot for messages that is lost can be made anew.
async fn stay(
    place: &Place,
    messages: &SlotKeeper,
    mode: Mode,
    arguments: &SwitchArguments,
) -> Result<ExitCode> {
    let lost = match mode {
        Mode::Poll => None,
        Mode::Wal if arguments.dry_run => None,
        Mode::Wal => {
            // Instances whose role does not own the table wait for whoever does.
            place.keeper(mode).await?.make_publication().await?;
            None
        }
        Mode::Message => loss(messages).await?,
    };
    let Some(gap) = lost else {
        output::answer(&format!("events are read by {} already; nothing is lost", mode.name()))?;
        return Ok(ExitCode::SUCCESS);
    };
    if !arguments.accept_loss {
        return Err(messages_lost(gap, mode));
    }
    check_needs(messages, Readers::All).await?;
    if arguments.dry_run {
        output::answer(&format!("a new slot can be made: {}", gap.words()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let lock = place.lock().await?;
    // Somebody else may have made one meanwhile, and it keeps messages.
    if loss(messages).await?.is_some() {
        make(messages, &lock).await?;
    }
    output::answer("a new slot is there; what the lost one had kept is given up")?;
    Ok(ExitCode::SUCCESS)
}

/// The slot that messages need may be the one by which rows are read. Its reader gives it up where the
/// table is polled; what was written until then is published by that. Says how events are read now.
async fn free_slot(place: &mut Place, keeper: &SlotKeeper, from: Mode) -> Result<Mode> {
    let Slot::Ready { reader: Some(_), .. } = keeper.look().await? else { return Ok(from) };
    change(place, from, Mode::Poll).await?;
    let remedy =
        "look at `postrider capture show`, then run `postrider capture switch message` again";
    if !is_slot_left(place).await? {
        return Err(Error::new(
            ErrorKind::Config,
            "the slot is still read; the table is polled next",
        )
        .with_remedy(remedy));
    }
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = check_change(keeper, Mode::Poll, Mode::Message, Loss::Refused).await {
        if error.kind() != ErrorKind::Config || Instant::now() > deadline {
            return Err(error);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(Mode::Poll)
}

/// The slot first: what is written before there is one is never read.
async fn begin_messages(place: &Place, keeper: &SlotKeeper, from: Mode) -> Result<()> {
    let lock = place.lock().await?;
    // The slot of somebody who was faster keeps messages.
    if read_state(&place.connection).await?.mode != from {
        return Err(overtaken());
    }
    make(keeper, &lock).await?;
    output::answer("the slot is there")?;
    change(place, from, Mode::Message).await
}

/// Makes the slot. Whoever holds the lock and is silent is taken for gone.
async fn make(keeper: &SlotKeeper, lock: &Connection) -> Result<()> {
    let (mut making, mut said) = (pin!(keeper.make()), None);
    loop {
        tokio::select! {
            made = &mut making => return made.map(|_| ()),
            () = tokio::time::sleep(LOOK_INTERVAL) => {
                read_state(lock).await?;
                let who = keeper.waits_for().await?;
                if let Some(who) = who.as_ref().filter(|_| said != who) {
                    let who = legible::name(who);
                    output::answer(&format!("the slot waits for older transactions: {who}"))?;
                }
                said = who;
            }
        }
    }
}

async fn change(place: &Place, from: Mode, to: Mode) -> Result<()> {
    if !change_mode(&place.connection, from, to).await? {
        return Err(overtaken());
    }
    output::answer(&format!("switched from {} to {}", from.name(), to.name()))
}

fn overtaken() -> Error {
    Error::new(ErrorKind::Config, "somebody else has switched at the same time")
        .with_remedy("look at `postrider capture show`")
}

/// The first instance to follow makes the slot, polls until its cursors cover it, and reads on.
async fn wait_for_reader(place: &Place, keeper: &SlotKeeper) -> Result<ExitCode> {
    let deadline = Instant::now() + PATIENCE;
    let mut said = None;
    while Instant::now() < deadline {
        if let Slot::Ready { reader: Some(pid), .. } = keeper.look().await?
            && keeper.gap(&keeper.state().await?).await?.is_none()
        {
            output::answer(&format!("the log is read, by backend {pid}"))?;
            return Ok(ExitCode::SUCCESS);
        }
        let instances = live_instances(&place.connection).await?;
        let waits = keeper.waits_for().await?;
        let step = match waits {
            Some(who) => format!("the slot waits for older transactions: {}", legible::name(&who)),
            None if instances == 0 => {
                "no instance has a lease now; the next one reads the log".to_owned()
            }
            None => "the table is polled until the slot can take over".to_owned(),
        };
        if said.as_ref() != Some(&step) {
            output::answer(&step)?;
            said = Some(step);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    still("no instance reads the log yet")
}

async fn wait_for_pollers(place: &mut Place) -> Result<ExitCode> {
    if is_slot_left(place).await? { Ok(ExitCode::SUCCESS) } else { still("the slot is still read") }
}

/// Waits until nobody reads the slot, and it is dropped; false when that takes too long.
async fn is_slot_left(place: &mut Place) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let Some(slot) = read_state(&place.connection).await?.slot_name else {
            output::answer("the table is polled; the slot is dropped")?;
            return Ok(true);
        };
        // Running instances do it themselves; where none runs, nobody else would.
        leave_slot(&mut place.connection, &slot).await?;
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(false)
}

fn still(what: &str) -> Result<ExitCode> {
    output::answer(&format!(
        "{what}; the switch stands, instances follow when they can: see `postrider capture show`"
    ))?;
    Ok(ExitCode::FAILURE)
}
