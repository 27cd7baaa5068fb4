//! A stream that ends again and again at one place, because the server cannot hand on what comes next.
//!
//! Promises: it is noticed after a few attempts, and not for anything else. Must not: know a connection.
//! Fails: never.
//!
//! A row of more than 1 GB, a text that does not convert: the server's own error, at the same place each time.
//! The table is read row by row, and can part with one.

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::wal::unusable;

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
