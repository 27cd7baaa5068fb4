//! A stream that ends again and again at one place, because the server cannot hand on what comes next.
//!
//! Promises: it is noticed after a few attempts, and not for anything else. Must not: know a connection.
//!
//! A row of more than 1 GB, a value that cannot be printed: the server's own error, at the same place each time.
//! The outbox's table is read row by row, and can part with one. A message is nowhere but in the log, and a row of an
//! adopted table may be gone from there: to give such a place up is for people to decide, who are told how.

use crate::capture::log::misformed::is_misformed;
use crate::capture::mode::Mode;
use crate::capture::slot::Gap;
use crate::error::{Error, ErrorKind};
use crate::postgres::Lsn;

/// So many attempts in a row.
const ATTEMPTS: u32 = 3;

/// Where streams have ended.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    place: Option<Lsn>,
    times: u32,
    /// Whether it ended by what was read there, which is the same each time.
    is_misformed: bool,
}

impl Stuck {
    /// Takes note of how a stream ended that had begun at this place.
    pub(super) fn note(&mut self, place: Option<Lsn>, error: &Error) {
        let source = std::error::Error::source(error);
        let cause = source.and_then(|source| source.downcast_ref::<Error>());
        let is_refused = error.kind() == ErrorKind::SlotUnusable
            && cause.is_some_and(|cause| cause.kind() == ErrorKind::PostgresRefused);
        let is_misformed = is_misformed(error);
        if !(is_refused || is_misformed) || place.is_none() {
            return;
        }
        self.times = if self.place == place { self.times + 1 } else { 1 };
        (self.place, self.is_misformed) = (place, is_misformed);
    }

    /// Why a stream that begins there would end there; none where it would not.
    pub(super) fn at(&self, place: Option<Lsn>) -> Option<Gap> {
        if place.is_none() || self.place != place {
            return None;
        }
        if self.is_misformed {
            return Some(Gap::Form);
        }
        (self.times >= ATTEMPTS).then_some(Gap::Stuck)
    }
}

/// What people are told of a stream that would end there for ever.
pub(super) fn stands_still(slot: &str, place: Option<Lsn>, mode: Mode, error: Error) -> Error {
    let place = place.map(|place| format!(" behind {place}")).unwrap_or_default();
    let who =
        if is_misformed(&error) { "postrider cannot read" } else { "the server cannot hand on" };
    let cause =
        format!("{who} what comes next in the log{place}, and events wait: {}", error.message());
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
    use crate::capture::log::misformed::misformed;

    #[test]
    fn refusals_at_one_place_are_counted() {
        let refused = || unusable(Error::new(ErrorKind::PostgresRefused, "no equivalent"));
        let (mut stuck, place) = (Stuck::default(), Some(Lsn(7)));
        for _ in 0..ATTEMPTS {
            assert_eq!(stuck.at(place), None);
            stuck.note(place, &refused());
        }
        assert_eq!(stuck.at(place), Some(Gap::Stuck));
        assert_eq!((stuck.at(Some(Lsn(8))), stuck.at(None)), (None, None));
        // It got further.
        stuck.note(Some(Lsn(8)), &refused());
        assert_eq!((stuck.at(place), stuck.at(Some(Lsn(8)))), (None, None));
    }

    #[test]
    fn what_is_read_there_is_the_same_each_time() {
        let (mut stuck, place) = (Stuck::default(), Some(Lsn(7)));
        stuck.note(place, &misformed(Error::new(ErrorKind::Schema, "no column"), None));
        assert_eq!((stuck.at(place), stuck.at(Some(Lsn(8)))), (Some(Gap::Form), None));
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
        assert_eq!(stuck.at(place), None);
    }
}
