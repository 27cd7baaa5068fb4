//! `postrider capture switch`: changes how events are read.
//!
//! Promises: tells of each step, and waits until an instance has followed, where one has a lease. Must not: know how a change is made
//! (`crate::capture::mode_switch` does). Fails: as the change does.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::capture::mode::Mode;
use crate::capture::mode_change::Loss;
use crate::capture::mode_switch::{
    CaptureSession, Change, Followed, LOOK_INTERVAL, PATIENCE, SwitchStep,
};
use crate::capture::slot::requirements::{AdoptedReaders, CLOSE_MESSAGES, messages_are_open};
use crate::capture::slot::{Slot, SlotKeeper};
use crate::cli::output;
use crate::config::settings::Capture;
use crate::control::lease::live_instances;
use crate::error::Result;
use crate::legible;

/// So long an instance may be without a lease while it follows.
const CHANGEOVER: Duration = Duration::from_secs(5);
/// Then there is nobody to wait for.
const NOBODY: &str = "no instance has a lease now; the next one reads the log";

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) to: Capture,
    pub(super) dry_run: bool,
    pub(super) no_wait: bool,
    pub(super) accept_loss: bool,
}

pub(super) async fn switch(session: &mut CaptureSession, asked: Asked) -> Result<ExitCode> {
    let to = Mode::from(asked.to);
    let loss = if asked.accept_loss { Loss::Accepted } else { Loss::Refused };
    let change = session.plan(to, loss).await?;
    if let Some(keeper) = change.next_reader() {
        say_what_the_group_lacks(keeper).await?;
        if to == Mode::Message && messages_are_open(keeper).await? {
            output::answer(&format!(
                "every login of this database may write messages, and so events: {CLOSE_MESSAGES}"
            ))?;
        }
    }
    if asked.dry_run {
        output::answer(&what_can_be_done(&change, to))?;
        return Ok(ExitCode::SUCCESS);
    }
    session.carry_out(&change, &mut |step| output::answer(&words(&step))).await?;
    if let Change::ToPoll(from) = change {
        say_what_stays(session, from).await?;
    }
    match change {
        Change::Nothing | Change::Publication(_) => {
            output::answer(&stays(to))?;
            Ok(ExitCode::SUCCESS)
        }
        Change::NewSlot(..) => Ok(ExitCode::SUCCESS),
        _ if asked.no_wait => Ok(ExitCode::SUCCESS),
        Change::ToWal(_, keeper) | Change::ToMessages(_, keeper) => {
            wait_for_reader(session, &keeper).await
        }
        Change::ToPoll(_) => wait_for_pollers(session).await,
    }
}

fn stays(mode: Mode) -> String {
    format!("events are read by {} already; nothing is lost", mode.name())
}

fn what_can_be_done(change: &Change, to: Mode) -> String {
    match change {
        Change::Nothing | Change::Publication(_) => stays(to),
        Change::NewSlot(_, gap) => format!("a new slot can be made: {}", gap.words()),
        Change::ToPoll(from) | Change::ToWal(from, _) | Change::ToMessages(from, _) => {
            format!("can be switched from {} to {}", from.name(), to.name())
        }
    }
}

fn words(step: &SwitchStep) -> String {
    match step {
        SwitchStep::Publication => "the publication is there".to_owned(),
        SwitchStep::SlotWaits(who) => slot_waits(who),
        SwitchStep::Slot => "the slot is there".to_owned(),
        SwitchStep::NewSlot => {
            "a new slot is there; what the lost one had kept is given up".to_owned()
        }
        SwitchStep::Changed { from, to } => {
            format!("switched from {} to {}", from.name(), to.name())
        }
        SwitchStep::SlotDropped => "the table is polled; the slot is dropped".to_owned(),
    }
}

fn slot_waits(who: &str) -> String {
    format!("the slot waits for older transactions: {}", legible::name(who))
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
async fn say_what_stays(session: &CaptureSession, from: Mode) -> Result<()> {
    if session.keeper(from).await?.publication().await?.is_none() {
        return Ok(());
    }
    let name = from.publication();
    output::answer(&format!(
        "the publication {name} stays, and costs nothing; if nobody reads by it: drop publication {name}"
    ))
}

/// The first instance to follow makes the slot, polls until its cursors cover it, and reads on.
async fn wait_for_reader(session: &CaptureSession, keeper: &SlotKeeper) -> Result<ExitCode> {
    let deadline = Instant::now() + PATIENCE;
    let (mut said, mut seen_at) = (None, Instant::now());
    while Instant::now() < deadline {
        if let Slot::Ready { reader: Some(pid), .. } = keeper.look().await?
            && keeper.gap(&keeper.state().await?).await?.is_none()
        {
            output::answer(&format!("the log is read, by backend {pid}"))?;
            return Ok(ExitCode::SUCCESS);
        }
        let instances = live_instances(&session.connection).await?;
        let is_made = matches!(keeper.look().await?, Slot::Making { .. });
        if instances > 0 || is_made {
            seen_at = Instant::now();
        }
        let step = match keeper.waits_for().await? {
            Some(who) => Some(slot_waits(&who)),
            None => meanwhile(is_made, instances).map(str::to_owned),
        };
        if let Some(step) = step.filter(|step| said.as_ref() != Some(step)) {
            output::answer(&step)?;
            said = Some(step);
        }
        if is_nobody_there(seen_at.elapsed()) {
            output::answer(NOBODY)?;
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    still("no instance reads the log yet")
}

/// Nothing is made of a moment without an instance: one that changes over has no lease then.
fn is_nobody_there(unseen: Duration) -> bool {
    unseen >= CHANGEOVER
}

/// What goes on while the slot waits for nobody.
fn meanwhile(is_made: bool, instances: usize) -> Option<&'static str> {
    if is_made {
        Some("the slot is being made")
    } else if instances > 0 {
        Some("the table is polled until the slot can take over")
    } else {
        None
    }
}

async fn wait_for_pollers(session: &mut CaptureSession) -> Result<ExitCode> {
    let mut tell = |step: SwitchStep| output::answer(&words(&step));
    match session.wait_until_slot_is_left(&mut tell).await? {
        Followed::Yes => Ok(ExitCode::SUCCESS),
        Followed::NotYet => still("the slot is still read"),
        Followed::SlotStays(slot) => {
            output::answer(&format!(
                "the switch stands, and the table is polled; but the slot {slot} stays, and keeps the server's log: \
                 this role may not drop it, and no instance did. Run as one with the attribute replication: select \
                 pg_drop_replication_slot('{slot}')"
            ))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn still(what: &str) -> Result<ExitCode> {
    output::answer(&format!(
        "{what}; the switch stands, instances follow when they can: see `postrider capture show`"
    ))?;
    Ok(ExitCode::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_that_changes_over_is_not_called_missing() {
        assert!(!is_nobody_there(CHANGEOVER.checked_sub(Duration::from_millis(1)).unwrap()));
        assert!(is_nobody_there(CHANGEOVER));
        assert_eq!(meanwhile(false, 0), None);
        let polled = meanwhile(false, 1).unwrap();
        assert!(polled.contains("is polled"), "{polled}");
        assert_eq!(meanwhile(true, 0), Some("the slot is being made"));
    }
}
