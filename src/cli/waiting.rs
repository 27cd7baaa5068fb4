//! Whether events wait, as far as could be seen.
//!
//! Promises: nobody reads "nothing waits" where that is not known, also of a sum with one unknown part.
//! Must not: know a session.

use serde::Serialize;

use crate::cli::output::show_age;

/// Whether anything waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Waits {
    #[default]
    No,
    /// Nothing that waits was seen, and not everything was looked at.
    Unknown,
    Yes,
}

/// How far a look has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookState {
    /// Everything was looked at.
    Whole,
    /// The oldest that can wait were looked at, and not all later ones.
    CutBehind,
    /// Older ones than were looked at may wait.
    CutBefore,
    /// Nothing could be looked at.
    Blind,
}

/// How many events wait, and since when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Waiting {
    pub(super) waits: Waits,
    /// None where it is not known.
    pub(super) unpublished: Option<i64>,
    /// Whether the count stopped early.
    pub(super) unpublished_is_lower_bound: bool,
    /// None where nothing waits, and where it is not known.
    pub(super) oldest_unpublished_age_seconds: Option<f64>,
    /// Whether older events than that may wait.
    pub(super) oldest_unpublished_age_is_lower_bound: bool,
}

impl Waiting {
    /// What a look has found.
    pub(super) fn seen(count: i64, oldest_age_seconds: Option<f64>, look: LookState) -> Self {
        let waits = match (count, look) {
            (1.., _) => Waits::Yes,
            (_, LookState::Whole) => Waits::No,
            (_, LookState::CutBehind | LookState::CutBefore | LookState::Blind) => Waits::Unknown,
        };
        Self {
            waits,
            unpublished: (waits != Waits::Unknown).then_some(count),
            unpublished_is_lower_bound: look != LookState::Whole,
            oldest_unpublished_age_seconds: oldest_age_seconds,
            oldest_unpublished_age_is_lower_bound: matches!(
                look,
                LookState::CutBefore | LookState::Blind
            ),
        }
    }

    /// Nothing could be looked at.
    pub(super) fn unknown() -> Self {
        Self::seen(0, None, LookState::Blind)
    }

    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        let waits = self.waits.max(other.waits);
        let ages = [self.oldest_unpublished_age_seconds, other.oldest_unpublished_age_seconds];
        let count = self.unpublished.unwrap_or(0) + other.unpublished.unwrap_or(0);
        Self {
            waits,
            unpublished: (waits != Waits::Unknown).then_some(count),
            unpublished_is_lower_bound: self.unpublished_is_lower_bound
                || other.unpublished_is_lower_bound,
            oldest_unpublished_age_seconds: ages.into_iter().flatten().reduce(f64::max),
            oldest_unpublished_age_is_lower_bound: self.oldest_unpublished_age_is_lower_bound
                || other.oldest_unpublished_age_is_lower_bound,
        }
    }

    /// The count, as people read it.
    pub(super) fn count(&self) -> String {
        match self.unpublished {
            None => "?".to_owned(),
            Some(count) if self.unpublished_is_lower_bound => format!("\u{2265}{count}"),
            Some(count) => count.to_string(),
        }
    }

    /// The oldest one's age, as people read it.
    pub(super) fn age(&self) -> String {
        match (self.waits, self.oldest_unpublished_age_seconds) {
            (Waits::No, _) => "-".to_owned(),
            (_, None) => "?".to_owned(),
            (_, age) if self.oldest_unpublished_age_is_lower_bound => {
                format!("\u{2265}{}", show_age(age))
            }
            (_, age) => show_age(age),
        }
    }

    /// All of it in a sentence.
    pub(super) fn sentence(&self) -> String {
        match (self.waits, self.oldest_unpublished_age_seconds) {
            (Waits::No, _) => "0; nothing waits".to_owned(),
            (Waits::Unknown, _) => "it is not known whether anything waits".to_owned(),
            (Waits::Yes, None) => format!("{}; since when is not known", self.count()),
            (Waits::Yes, Some(_)) => {
                format!("{}; the oldest has waited for {}", self.count(), self.age())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_looked_at_is_not_known() {
        for look in [LookState::CutBehind, LookState::CutBefore, LookState::Blind] {
            let nothing = Waiting::seen(0, None, look);
            assert_eq!((nothing.waits, nothing.unpublished), (Waits::Unknown, None), "{look:?}");
            assert!(nothing.sentence().contains("not known"), "{}", nothing.sentence());
            assert_eq!((nothing.count(), nothing.age()), ("?".to_owned(), "?".to_owned()));
        }
        assert_eq!(Waiting::seen(0, None, LookState::Whole).sentence(), "0; nothing waits");
    }

    #[test]
    fn one_unknown_part_leaves_the_sum_unknown_or_a_lower_bound() {
        let none = Waiting::seen(0, None, LookState::Whole);
        let some = Waiting::seen(3, Some(9.0), LookState::Whole);
        let sum = none.and(Waiting::unknown());
        assert_eq!((sum.waits, sum.unpublished), (Waits::Unknown, None));
        let sum = Waiting::unknown().and(some).and(none);
        assert_eq!(sum.sentence(), "\u{2265}3; the oldest has waited for \u{2265}9.0s");
        let older = Waiting::seen(2, Some(60.0), LookState::CutBehind);
        let sum = some.and(older);
        assert_eq!(sum.sentence(), "\u{2265}5; the oldest has waited for 1.0min");
        assert_eq!(Waiting::default().and(none), Waiting { unpublished: Some(0), ..none });
    }

    #[test]
    fn an_age_that_is_not_known_is_not_left_out() {
        let waiting = Waiting::seen(1, None, LookState::Whole);
        assert_eq!(waiting.sentence(), "1; since when is not known");
    }
}
