//! What becomes of the slot when a standby is promoted.
//!
//! Promises: tells what the primary can know of it: whether the slot is synchronised, and whether the server holds
//! back what its standbys do not have. Must not: change anything; correctness rests on [`SlotKeeper::gap`]
//! alone. Fails: with the connection's error.
//!
//! Source: PostgreSQL documentation, "Logical Replication Failover" and `synchronized_standby_slots`.

use crate::capture::mode::Mode;
use crate::capture::slot::{FAILOVER_VERSION, SlotKeeper};
use crate::error::Result;
use crate::postgres::classify;

const FAILOVER: &str = include_str!("../../../sql/queries/slot_failover.sql");

/// What the server says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailoverSight {
    /// Whether it is synchronised; none where no server could take it along, or none is there to be promoted.
    pub failover: Option<Failover>,
    /// Whether it came to this server by a promotion.
    pub has_followed: bool,
    /// Why the server has given it up, from PostgreSQL 17 on.
    pub invalidation_reason: Option<String>,
}

/// Whether the slot is synchronised with a promotion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failover {
    /// It does not.
    StaysBehind,
    /// It does, and may be ahead of the standby.
    Unguarded,
    /// It does; the server sends nothing until the standbys of these slots have it, and they are away.
    Waits(String),
    /// It does; nothing is sent that the standbys of these slots do not have.
    Guarded(String),
}

impl SlotKeeper {
    /// What the server says of the slot's failover; none when there is no slot.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn failover(&self) -> Result<Option<FailoverSight>> {
        let row = self.connection().client().query_opt(FAILOVER, &[&self.name()]).await;
        let row = row.map_err(|cause| classify("look at the slot's failover", cause))?;
        Ok(row.map(|row| {
            let (guards, absent) = (row.get("guards"), row.get("absent_guards"));
            let follows = row.get::<_, Option<bool>>("follows") == Some(true);
            FailoverSight {
                failover: judge(follows, guards, absent, row.get("has_standby")),
                has_followed: row.get("has_followed"),
                invalidation_reason: row.get("invalidation_reason"),
            }
        }))
    }

    /// What to do about it, where anything is to be done.
    pub fn failover_remedy(&self, failover: &Failover) -> Option<String> {
        let name = self.name();
        match failover {
            Failover::StaysBehind if self.server_version() < FAILOVER_VERSION => {
                Some("use PostgreSQL 17 or later, where a slot can go along".to_owned())
            }
            Failover::StaysBehind => Some(format!(
                "stop the relay, then, in a session with replication=database: \
                 ALTER_REPLICATION_SLOT {name} (FAILOVER true)"
            )),
            Failover::Unguarded => Some(
                "name the standby's slot in synchronized_standby_slots, and set \
                 sync_replication_slots = on at the standby"
                    .to_owned(),
            ),
            Failover::Waits(_) => Some(
                "start the standbys, or take their slots out of synchronized_standby_slots"
                    .to_owned(),
            ),
            Failover::Guarded(_) => None,
        }
    }
}

fn judge(
    follows: bool,
    guards: Option<String>,
    absent: Option<String>,
    has_standby: bool,
) -> Option<Failover> {
    match (follows, guards, absent) {
        (true, Some(_), Some(absent)) => Some(Failover::Waits(absent)),
        (true, Some(guards), None) => Some(Failover::Guarded(guards)),
        (true, None, _) if has_standby => Some(Failover::Unguarded),
        (false, ..) if has_standby => Some(Failover::StaysBehind),
        _ => None,
    }
}

impl Failover {
    /// In words.
    pub fn words(&self) -> String {
        match self {
            Self::StaysBehind => "a standby that is promoted does not have the slot".to_owned(),
            Self::Unguarded => {
                "the slot goes along with a promotion, but events may be published that \
                 the standby does not have"
                    .to_owned()
            }
            Self::Waits(slots) => format!(
                "the server sends nothing while these slots of standbys are not read: {slots} \
                 (synchronized_standby_slots)"
            ),
            Self::Guarded(slots) => format!(
                "the slot goes along with a promotion, and nothing is sent before these slots of \
                 standbys have it: {slots}"
            ),
        }
    }

    /// Whether an operator is to be told: rows come from the table where a slot is missing.
    pub fn is_trouble(&self, mode: Mode) -> bool {
        match self {
            Self::StaysBehind => mode == Mode::Message,
            Self::Unguarded | Self::Waits(_) => true,
            Self::Guarded(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_a_standby_could_be_promoted_is_there_anything_to_say() {
        let text = |text: &str| Some(text.to_owned());
        for (follows, guards, absent, has_standby, expected) in [
            (false, None, None, false, None),
            (true, None, None, false, None),
            (false, None, None, true, Some(Failover::StaysBehind)),
            (false, text("one"), None, true, Some(Failover::StaysBehind)),
            (true, None, None, true, Some(Failover::Unguarded)),
            (true, text("one"), None, true, Some(Failover::Guarded("one".to_owned()))),
            (true, text("one"), text("one"), false, Some(Failover::Waits("one".to_owned()))),
        ] {
            assert_eq!(judge(follows, guards, absent, has_standby), expected);
        }
    }
}
