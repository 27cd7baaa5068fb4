//! Free buckets that were asked for and not had.
//!
//! Promises: that another instance was quicker is no trouble; that nobody was, and the database has not changed a row
//! all the same, is told once. Must not: take anything.

use crate::control::lease::Owned;
use crate::schema;

/// What was not had at the last look.
#[derive(Debug, Default)]
pub(super) struct Untaken {
    /// Each under the epoch under which it was asked for.
    asked: Vec<Owned>,
    is_told: bool,
}

impl Untaken {
    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.asked.len() as u64
    }

    /// Takes note of what was asked for, and of what was had.
    pub(super) fn note(&mut self, asked: &[Owned], taken: &[Owned]) {
        let is_had = |bucket| taken.iter().any(|(had, _)| *had == bucket);
        let missing: Vec<Owned> =
            asked.iter().filter(|(bucket, _)| !is_had(*bucket)).copied().collect();
        // Whoever takes a bucket raises its epoch.
        let are_free_still = missing.iter().any(|owned| self.asked.contains(owned));
        if are_free_still && !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(
                buckets = missing.len(),
                remedy = format!(
                    "look for triggers and rules on it, and drop them: \\d {}",
                    schema::chosen().of("cursor")
                ),
                "free buckets cannot be taken: nobody else takes them, and the database does not change their rows"
            );
        }
        self.is_told &= !missing.is_empty();
        self.asked = missing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Bucket;

    #[test]
    fn only_what_stays_free_is_trouble() {
        let (first, second) = ((Bucket(0), 7), (Bucket(1), 3));
        let mut untaken = Untaken::default();
        untaken.note(&[first, second], &[(Bucket(0), 8), (Bucket(1), 4)]);
        assert_eq!((untaken.count(), untaken.is_told), (0, false));
        untaken.note(&[first, second], &[(Bucket(0), 8)]);
        assert_eq!((untaken.count(), untaken.is_told), (1, false));
        // Another instance was quicker, and has given it back.
        untaken.note(&[(Bucket(1), 5)], &[]);
        assert_eq!((untaken.count(), untaken.is_told), (1, false));
        untaken.note(&[(Bucket(1), 5)], &[]);
        assert_eq!((untaken.count(), untaken.is_told), (1, true));
        untaken.note(&[], &[]);
        assert_eq!((untaken.count(), untaken.is_told), (0, false));
    }
}
