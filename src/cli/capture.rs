//! `postrider capture`: how events are read, and how to change that while writers write.
//!
//! Promises: a change takes one row; whatever is killed afterwards, the instances find their way from
//! there. Must not: read an event. Fails: when the server cannot do what is asked for, or events would
//! be lost by it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::adopt::{self, ShownAdopted};
use super::{block_on, output, prepare};
use crate::capture::mode::{Mode, change_mode, check_change, forget_slot, leave_slot, read_state};
use crate::capture::slot::{Gap, Slot, SlotKeeper};
use crate::config;
use crate::config::settings::{Capture, CommonSettings, RelaySettings};
use crate::error::{Error, ErrorKind, Result};
use crate::lease::live_instances;
use crate::migrate;
use crate::outbox::OutboxName;
use crate::postgres::{Connection, DatabaseConfig, classify, connect};

const SHOW: &str = include_str!("../../sql/queries/capture_show.sql");
/// How long a switch is watched.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Shows how events are read, or changes it while everything runs.
#[derive(Args, Debug)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "\
Examples:
  postrider capture show
  postrider capture switch wal --database-url postgres://owner@db/shop
  postrider capture switch poll")]
pub(super) struct CaptureArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows how events are read, and the state of the slot.
    Show {
        #[command(flatten)]
        common: CommonSettings,

        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Changes how events are read. Running instances follow within a second or two.
    ///
    /// Between poll and wal nothing is lost and, without a fault, nothing sent twice; aborting it is
    /// safe at any moment, and so is switching back. To and from message nothing may wait, and no writer
    /// may be in the middle of a transaction: rows are not read as messages, nor messages as rows.
    Switch(SwitchArguments),
}

#[derive(Args, Debug)]
struct SwitchArguments {
    /// How events are to be read.
    #[arg(value_enum)]
    to: Capture,

    /// Only checks whether it can be done.
    #[arg(long)]
    dry_run: bool,

    /// Does not wait until an instance has followed.
    #[arg(long)]
    no_wait: bool,

    /// Begins anew with a slot for messages where the old one is lost, and with it what it had kept.
    #[arg(long)]
    accept_loss: bool,

    #[command(flatten)]
    common: CommonSettings,
}

/// A session on the outbox's database.
struct Place {
    connection: Connection,
    database: DatabaseConfig,
    outbox: OutboxName,
}

impl Place {
    async fn open(common: &CommonSettings) -> Result<Self> {
        let (database, outbox) = (config::database(common)?, config::outbox(common)?);
        let connection = connect(&database, "capture").await?;
        migrate::load(connection.client(), &outbox).await?;
        Ok(Self { connection, database, outbox })
    }

    async fn keeper(&self, mode: Mode) -> Result<SlotKeeper> {
        let connection = connect(&self.database, "slot").await?;
        SlotKeeper::open(connection, &self.database, self.outbox.clone(), mode).await
    }
}

pub(super) fn run(arguments: CaptureArguments) -> Result<ExitCode> {
    match arguments.command {
        Command::Show { common, json } => {
            let (common, ..) = prepare(common, RelaySettings::default(), "warn")?;
            let shown = block_on(async { show(&Place::open(&common).await?).await })?;
            if json {
                output::answer_json(&shown)?
            } else {
                output::answer(&shown.text())?
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Switch(arguments) => {
            let (common, ..) = prepare(arguments.common.clone(), RelaySettings::default(), "warn")?;
            block_on(async { switch(&Place::open(&common).await?, &arguments).await })
        }
    }
}

/// What `show` tells.
#[derive(Debug, Serialize)]
struct Shown {
    mode: &'static str,
    changed_at: String,
    changed_by: String,
    /// Instances that hold a lease: all that poll, or the one that reads the log.
    instances: usize,
    slot: Option<ShownSlot>,
    adopted: Vec<ShownAdopted>,
}

/// The slot, where one is known.
#[derive(Debug, Serialize)]
struct ShownSlot {
    name: String,
    state: &'static str,
    reader_pid: Option<i32>,
    retained_bytes: Option<i64>,
    confirmed_lsn: Option<String>,
    delivered_lsn: Option<String>,
    /// Why it cannot be used as it is.
    gap: Option<&'static str>,
}

async fn show(place: &Place) -> Result<Shown> {
    let row = place.connection.client().query_one(SHOW, &[]).await;
    let row = row.map_err(|cause| classify("read how events are captured", cause))?;
    let state = read_state(&place.connection).await?;
    let slot = match (&state.slot, state.mode) {
        (None, Mode::Poll) => None,
        (Some(_), Mode::Poll) => Some(show_slot(place, Mode::Wal).await?),
        (_, mode) => Some(show_slot(place, mode).await?),
    };
    Ok(Shown {
        mode: state.mode.name(),
        changed_at: row.get("changed_at"),
        changed_by: row.get("changed_by"),
        instances: live_instances(&place.connection).await?,
        slot,
        adopted: adopt::shown(&place.connection).await?,
    })
}

async fn show_slot(place: &Place, mode: Mode) -> Result<ShownSlot> {
    let keeper = place.keeper(mode).await?;
    let state = keeper.state().await?;
    let gap = keeper.gap(&state).await?.map(Gap::words);
    let mut shown = ShownSlot {
        name: keeper.name().to_owned(),
        state: "missing",
        reader_pid: None,
        retained_bytes: None,
        confirmed_lsn: None,
        delivered_lsn: state.delivered.map(|lsn| lsn.to_string()),
        gap,
    };
    match keeper.look().await? {
        Slot::Missing => {}
        Slot::Foreign => shown.state = "foreign",
        Slot::Lost => shown.state = "lost",
        Slot::Ready { confirmed, reader, retained_bytes } => {
            shown.state = if reader.is_some() { "read" } else { "waiting" };
            shown.reader_pid = reader;
            shown.retained_bytes = Some(retained_bytes);
            shown.confirmed_lsn = Some(confirmed.to_string());
        }
    }
    Ok(shown)
}

impl Shown {
    fn text(&self) -> String {
        let mut lines = vec![format!(
            "capture     {}, since {} by {}; {} with a lease",
            self.mode,
            self.changed_at,
            self.changed_by,
            match self.instances {
                1 => "1 instance".to_owned(),
                count => format!("{count} instances"),
            }
        )];
        if let Some(slot) = &self.slot {
            let reader = slot.reader_pid.map_or(String::new(), |pid| format!(" by backend {pid}"));
            let kept = slot.retained_bytes.map_or(String::new(), |bytes| {
                format!("; the server keeps {:.1} MB of the log for it", bytes as f64 / 1e6)
            });
            lines.push(format!("slot        {}: {}{reader}{kept}", slot.name, slot.state));
            let place = |lsn: &Option<String>| lsn.clone().unwrap_or_else(|| "nowhere".to_owned());
            lines.push(format!(
                "place       published up to {}, confirmed up to {}",
                place(&slot.delivered_lsn),
                place(&slot.confirmed_lsn)
            ));
            if let Some(gap) = slot.gap {
                lines.push(format!("gap         {gap}"));
            }
        }
        lines.extend(self.adopted.iter().map(ShownAdopted::text));
        lines.join("\n")
    }
}

async fn switch(place: &Place, arguments: &SwitchArguments) -> Result<ExitCode> {
    let to = Mode::from(arguments.to);
    let from = read_state(&place.connection).await?.mode;
    if from == to && !(arguments.accept_loss && to == Mode::Message) {
        output::answer(&format!("events are read by {} already", to.name()))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.accept_loss {
        check_change(&place.connection, from, to).await?;
    }
    let keeper = match to {
        Mode::Poll => None,
        Mode::Wal | Mode::Message => Some(place.keeper(to).await?),
    };
    if arguments.dry_run {
        output::answer(&format!("can be switched from {} to {}", from.name(), to.name()))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(keeper) = &keeper {
        // The relay's role may not own the table; whoever types this may.
        keeper.make_publication().await?;
        output::answer("the publication is there")?;
    }
    if from == to {
        forget_slot(&place.connection).await?;
        output::answer("the lost slot is forgotten; a relay that starts now makes a new one")?;
        return Ok(ExitCode::SUCCESS);
    }
    if let (Some(keeper), Mode::Message) = (&keeper, to) {
        // What is written before there is a slot is never read.
        keeper.make().await?;
        output::answer("the slot is there")?;
    }
    if !change_mode(&place.connection, from, to).await? {
        return Err(Error::new(ErrorKind::Config, "somebody else has switched at the same time")
            .with_remedy("look at `postrider capture show`"));
    }
    output::answer(&format!("switched from {} to {}", from.name(), to.name()))?;
    match keeper {
        _ if arguments.no_wait => Ok(ExitCode::SUCCESS),
        Some(keeper) => wait_for_reader(place, &keeper).await,
        None => wait_for_pollers(place).await,
    }
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
            Some(who) => format!("the slot waits for older transactions: {who}"),
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

async fn wait_for_pollers(place: &Place) -> Result<ExitCode> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let Some(slot) = read_state(&place.connection).await?.slot else {
            output::answer("the table is polled; the slot is dropped")?;
            return Ok(ExitCode::SUCCESS);
        };
        // Running instances do it themselves; where none runs, nobody else would.
        leave_slot(&place.connection, &slot.name).await?;
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    still("the slot is still read")
}

fn still(what: &str) -> Result<ExitCode> {
    output::answer(&format!(
        "{what}; the switch stands, instances follow when they can: see `postrider capture show`"
    ))?;
    Ok(ExitCode::FAILURE)
}
