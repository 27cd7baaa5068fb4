//! `postrider capture show`: how events are read, and the state of the slot.
//!
//! Promises: tells of whatever is there, also where nothing can be read from it. Must not: change
//! anything. Fails: when PostgreSQL cannot be read, or the outbox is not there.

use serde::Serialize;

use super::Place;
use crate::capture::mode::{Mode, read_state};
use crate::capture::slot::{Gap, Slot};
use crate::cli::adopt::{self, ShownAdopted};
use crate::error::Result;
use crate::lease::live_instances;
use crate::postgres::classify;

const SHOW: &str = include_str!("../../../sql/queries/capture_show.sql");

/// What `show` tells.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
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

pub(super) async fn look(place: &Place) -> Result<Shown> {
    let row = place.connection.client().query_one(SHOW, &[]).await;
    let row = row.map_err(|cause| classify("read how events are captured", cause))?;
    let state = read_state(&place.connection).await?;
    let slot = match (&state.slot_name, state.mode) {
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
    pub(super) fn text(&self) -> String {
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
