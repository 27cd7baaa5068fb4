//! A stream that ends again and again at one place, because the server cannot hand on what comes next.
//!
//! Promises: it is noticed after a few attempts, and not for anything else. Must not: know a connection.
//!
//! A row of more than 1 GB, a value that cannot be printed: the server's own error, at the same place each time.
//! The outbox's table is read row by row, and can part with one. A message is nowhere but in the log, and a row of an
//! adopted table may be gone from there: to give such a place up is for people to decide, who are told how.

use crate::capture::mode::Mode;
use crate::error::{Error, ErrorKind};
use crate::postgres::Lsn;

/// So many attempts in a row.
const ATTEMPTS: u32 = 3;

/// Where streams have ended.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    place: Option<Lsn>,
    times: u32,
}

impl Stuck {
    /// Takes note of how a stream ended that had begun at this place.
    pub(super) fn note(&mut self, place: Option<Lsn>, error: &Error) {
        let source = std::error::Error::source(error);
        let cause = source.and_then(|source| source.downcast_ref::<Error>());
        let is_refused = error.kind() == ErrorKind::SlotUnusable
            && cause.is_some_and(|cause| cause.kind() == ErrorKind::PostgresRefused);
        if !is_refused || place.is_none() {
            return;
        }
        self.times = if self.place == place { self.times + 1 } else { 1 };
        self.place = place;
    }

    /// Whether a stream that begins there would end there.
    pub(super) fn is_at(&self, place: Option<Lsn>) -> bool {
        place.is_some() && self.place == place && self.times >= ATTEMPTS
    }
}

/// What people are told of a stream that would end there for ever.
pub(super) fn stands_still(slot: &str, place: Option<Lsn>, mode: Mode, error: Error) -> Error {
    let place = place.map(|place| format!(" behind {place}")).unwrap_or_default();
    let cause = format!(
        "the server cannot hand on what comes next in the log{place}, and events wait: {}",
        error.message()
    );
    let drop = format!("select pg_drop_replication_slot('{slot}')");
    let remedy = match mode {
        Mode::Message => format!(
            "give up the messages that wait: {drop}, then `postrider capture switch message --accept-loss`"
        ),
        Mode::Poll | Mode::Wal => format!(
            "have the tables read in place of this part of the log: {drop}; only rows that were deleted from adopted \
             tables before they were read are not published then"
        ),
    };
    Error::new(ErrorKind::SlotUnusable, cause).with_remedy(remedy).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::log::decode::unusable;

    #[test]
    fn refusals_at_one_place_are_counted() {
        let refused = || unusable(Error::new(ErrorKind::PostgresRefused, "no equivalent"));
        let (mut stuck, place) = (Stuck::default(), Some(Lsn(7)));
        for _ in 0..ATTEMPTS {
            assert!(!stuck.is_at(place));
            stuck.note(place, &refused());
        }
        assert!(stuck.is_at(place) && !stuck.is_at(Some(Lsn(8))) && !stuck.is_at(None));
        // It got further.
        stuck.note(Some(Lsn(8)), &refused());
        assert!(!stuck.is_at(place) && !stuck.is_at(Some(Lsn(8))));
    }

    #[test]
    fn people_are_told_what_helps() {
        for (mode, helps) in [(Mode::Wal, "deleted from adopted"), (Mode::Message, "--accept-loss")]
        {
            let refused = unusable(Error::new(ErrorKind::PostgresRefused, "too long"));
            let told = stands_still("postrider_7", Some(Lsn(7)), mode, refused);
            assert_eq!(told.kind(), ErrorKind::SlotUnusable, "it is tried again");
            assert!(told.message().contains("0/7") && told.message().contains("too long"));
            let remedy = told.remedy().expect("there is one");
            assert!(remedy.contains("pg_drop_replication_slot('postrider_7')"), "{remedy}");
            assert!(remedy.contains(helps), "{remedy}");
        }
    }

    #[test]
    fn what_passes_is_not_counted() {
        let (mut stuck, place) = (Stuck::default(), Some(Lsn(7)));
        for kind in [ErrorKind::PostgresUnavailable, ErrorKind::Schema, ErrorKind::Fenced] {
            for _ in 0..2 * ATTEMPTS {
                stuck.note(place, &unusable(Error::new(kind, "")));
            }
        }
        assert!(!stuck.is_at(place));
    }
}
