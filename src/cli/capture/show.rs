//! `postrider capture show`: how events are read, and the state of the slot.
//!
//! Promises: tells of whatever is there, also where nothing can be read from it. Must not: change
//! anything. Fails: when PostgreSQL cannot be read, or the outbox is not there.

use serde::Serialize;

use crate::capture::mode::{Mode, read_state};
use crate::capture::mode_switch::CaptureSession;
use crate::capture::slot::failover::Failover;
use crate::capture::slot::requirements::{AdoptedReaders, Readers, check_needs};
use crate::capture::slot::{Gap, Slot, SlotKeeper};
use crate::cli::adopt;
use crate::cli::adopt::ShownAdopted;
use crate::cli::output::show_age;
use crate::config::units::show_bytes;
use crate::control::lease::live_instances;
use crate::error::{ErrorKind, Result};
use crate::legible;
use crate::postgres::{Sql, classify};

/// Longer than anything of ours.
const LINE_CHARACTERS: usize = 4_000;
/// A gap in the log of a table is no loss.
pub(in crate::cli) const HEALS: &str =
    "nothing needs to be done: whoever reads next polls the table until a new slot is there";
/// The relay's role need not own the tables.
const PUBLISH: &str = "the table is polled meanwhile; if the relay's role does not own the tables, run \
                       `postrider capture switch wal` as a role that does";
static SHOW: Sql = Sql::of(include_str!("../../../sql/queries/capture_show.sql"));

/// What `show` tells.
#[derive(Debug, Default, Serialize)]
pub(in crate::cli) struct ShownCapture {
    pub(in crate::cli) mode: &'static str,
    pub(in crate::cli) changed_at: String,
    pub(in crate::cli) changed_by: String,
    /// Instances that hold a lease: all that poll, or the one that reads the log.
    pub(in crate::cli) instances: usize,
    pub(in crate::cli) slot: Option<ShownSlot>,
    pub(in crate::cli) adopted: Vec<ShownAdopted>,
}

/// The slot, where one is known.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct ShownSlot {
    name: String,
    state: &'static str,
    reader_pid: Option<i32>,
    /// What the server keeps of its log for it.
    retained_bytes: Option<u64>,
    /// What may be written until it is lost; none where there is no limit.
    safe_bytes: Option<u64>,
    /// What was written since the place that is confirmed.
    behind_bytes: Option<u64>,
    /// Since nobody reads it; only PostgreSQL 17 and later know.
    inactive_seconds: Option<f64>,
    confirmed_lsn: Option<String>,
    delivered_lsn: Option<String>,
    /// What becomes of it when a standby is promoted, where there is one.
    failover: Option<String>,
    failover_remedy: Option<String>,
    /// Whether it came to this server by a promotion.
    has_followed: bool,
    /// Why the server has given it up; only PostgreSQL 17 and later know.
    invalidation_reason: Option<String>,
    /// Why it cannot be used as it is.
    gap: Option<&'static str>,
    remedy: Option<String>,
}

pub(super) async fn look(session: &CaptureSession) -> Result<ShownCapture> {
    let row = session.connection.client().query_one(SHOW.text(), &[]).await;
    let row = row.map_err(|cause| classify("read how events are captured", cause))?;
    let state = read_state(&session.connection).await?;
    let slot = match (&state.slot_name, state.mode) {
        (None, Mode::Poll) => None,
        (Some(_), Mode::Poll) => Some(show_slot(session, Mode::Wal).await?),
        (_, mode) => Some(show_slot(session, mode).await?),
    };
    Ok(ShownCapture {
        mode: state.mode.name(),
        changed_at: row.get("changed_at"),
        changed_by: row.get("changed_by"),
        instances: live_instances(&session.connection).await?,
        slot,
        adopted: adopt::shown(&session.connection).await?,
    })
}

async fn show_slot(session: &CaptureSession, mode: Mode) -> Result<ShownSlot> {
    let keeper = session.keeper(mode).await?;
    let state = keeper.state().await?;
    let gap = keeper.gap_beside_doubt(&state).await?.map(Gap::words);
    let mut shown = ShownSlot {
        name: keeper.name().to_owned(),
        state: "missing",
        reader_pid: None,
        retained_bytes: None,
        safe_bytes: None,
        behind_bytes: None,
        inactive_seconds: None,
        confirmed_lsn: None,
        delivered_lsn: state.delivered.map(|lsn| lsn.to_string()),
        failover: None,
        failover_remedy: None,
        has_followed: false,
        invalidation_reason: None,
        gap,
        remedy: None,
    };
    match keeper.look().await? {
        Slot::Missing => {}
        Slot::Foreign => {
            shown.state = "foreign";
            shown.gap = Some(Gap::Foreign.words());
            shown.remedy = keeper.foreign().remedy().map(str::to_owned);
            return Ok(shown);
        }
        Slot::Lost => shown.state = "lost",
        Slot::Making { maker } => {
            shown.state = "being made";
            shown.reader_pid = Some(maker);
        }
        Slot::Ready { confirmed, reader, .. } => {
            shown.state = if reader.is_some() { "read" } else { "waiting" };
            shown.reader_pid = reader;
            shown.confirmed_lsn = Some(confirmed.to_string());
        }
    }
    if shown.gap.is_some() && mode == Mode::Wal {
        shown.remedy = Some(in_the_way(&keeper).await?.unwrap_or_else(|| HEALS.to_owned()));
    }
    if let Some(sight) = keeper.sight().await? {
        shown.retained_bytes = Some(sight.retained_bytes);
        shown.safe_bytes = sight.safe_bytes;
        shown.behind_bytes = Some(sight.behind_bytes);
        shown.inactive_seconds = sight.inactive_seconds;
    }
    if let Some(sight) = keeper.failover().await? {
        shown.failover = sight.failover.as_ref().map(Failover::words);
        shown.failover_remedy =
            sight.failover.as_ref().and_then(|failover| keeper.failover_remedy(failover));
        shown.has_followed = sight.has_followed;
        shown.invalidation_reason = sight.invalidation_reason;
    }
    Ok(shown)
}

/// What whoever reads next cannot mend, or not at once.
pub(in crate::cli) async fn in_the_way(keeper: &SlotKeeper) -> Result<Option<String>> {
    // Where instances run, theirs are the roles that count.
    for (instances, group) in [(true, false), (false, true)] {
        let whose = AdoptedReaders { this_role: false, instances, group };
        for table in keeper.adopted() {
            if let Some(missing) = keeper.missing_rights(table, whose).await?.into_iter().next() {
                return Ok(Some(format!("{}; {}", missing.cause, missing.remedy)));
            }
        }
        if live_instances(keeper.connection()).await? > 0 {
            break;
        }
    }
    if let Some(part) = keeper.unlogged_part().await? {
        let (cause, remedy) = part.words();
        return Ok(Some(format!("{cause}; {remedy}")));
    }
    if let Some(who) = keeper.waits_for().await? {
        let who = legible::name(&who);
        return Ok(Some(format!(
            "the table is polled meanwhile; the slot waits for the end of {who}"
        )));
    }
    match check_needs(keeper, Readers::Instances).await {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::PostgresRefused => {
            let remedy = error.remedy().unwrap_or_default();
            return Ok(Some(format!("{}; {remedy}", error.message())));
        }
        Err(error) => return Err(error),
    }
    Ok(keeper.publication().await?.is_none().then(|| PUBLISH.to_owned()))
}

impl ShownCapture {
    /// What of the events that wait cannot be seen: messages, by anybody but their reader.
    pub(in crate::cli) fn unseen(&self) -> Option<String> {
        if self.mode != Mode::Message.name() {
            return None;
        }
        let behind = self.slot.as_ref().and_then(|slot| slot.behind_bytes).map(show_bytes);
        let behind = behind.map_or(String::new(), |bytes| {
            format!("; {bytes} of the log lie behind the last place that is confirmed")
        });
        Some(format!("messages in the log are not counted, as only their reader sees them{behind}"))
    }

    pub(in crate::cli) fn text(&self) -> String {
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
            lines.push(format!(
                "slot        {}: {}{reader}{}",
                slot.name,
                slot.state,
                slot.figures()
            ));
            let place = |what: &str, lsn: &Option<String>| match lsn {
                Some(lsn) => format!("{what} up to {lsn}"),
                None => format!("nothing is {what} yet"),
            };
            lines.push(format!(
                "place       {}, {}",
                place("published", &slot.delivered_lsn),
                place("confirmed", &slot.confirmed_lsn)
            ));
            lines.extend(slot.troubles());
        }
        lines.extend(self.adopted.iter().map(ShownAdopted::text));
        let lines: Vec<String> =
            lines.iter().map(|line| legible::shown(line, LINE_CHARACTERS)).collect();
        lines.join("\n")
    }
}

impl ShownSlot {
    /// What a promotion would bring, and what is in the way.
    fn troubles(&self) -> impl Iterator<Item = String> {
        let fix =
            |remedy: &Option<String>| remedy.as_ref().map(|fix| format!("            fix: {fix}"));
        let reason =
            self.invalidation_reason.as_ref().map_or(String::new(), |why| format!(" ({why})"));
        [
            self.has_followed.then(|| "origin      it came with a promotion".to_owned()),
            self.failover.as_ref().map(|failover| format!("failover    {failover}")),
            fix(&self.failover_remedy),
            self.gap.map(|gap| format!("gap         {gap}{reason}")),
            fix(&self.remedy),
        ]
        .into_iter()
        .flatten()
    }

    fn figures(&self) -> String {
        let parts = [
            self.inactive_seconds.map(|age| format!("read by nobody for {}", show_age(Some(age)))),
            self.retained_bytes
                .map(|bytes| format!("the server keeps {} of the log for it", show_bytes(bytes))),
            self.behind_bytes.map(|bytes| format!("{} behind", show_bytes(bytes))),
            self.safe_bytes.map(|bytes| format!("lost after {} more", show_bytes(bytes))),
        ];
        parts.into_iter().flatten().map(|part| format!("; {part}")).collect()
    }
}
