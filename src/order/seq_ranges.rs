//! A set of `seq`, kept as ranges.
//!
//! Promises: whatever was inserted is in it, or it says that it knows no more which are. Must not: know what the
//! numbers stand for. Fails: never; of more ranges than 262,144 nothing is kept.

use std::fmt::Write as _;

/// So many ranges are kept: 4 MiB.
const RANGES_MAX: usize = 262_144;
/// Ranges are put in order when so many have come.
const LOOSE_MAX: usize = 4_096;

/// A set of `seq`. Numbers that are drawn one after the other take no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeqRanges {
    /// The first and the last of each; none where there were too many.
    ranges: Option<Vec<(i64, i64)>>,
    /// When they are put in order.
    loose_at: usize,
}

impl Default for SeqRanges {
    fn default() -> Self {
        Self { ranges: Some(Vec::new()), loose_at: LOOSE_MAX }
    }
}

impl SeqRanges {
    /// Adds a number.
    pub fn insert(&mut self, seq: i64) {
        self.add((seq, seq));
    }

    /// Adds all numbers of another set.
    pub fn extend(&mut self, other: &Self) {
        match &other.ranges {
            Some(ranges) => ranges.iter().for_each(|range| self.add(*range)),
            None => self.ranges = None,
        }
    }

    /// Whether nothing was inserted.
    pub fn is_empty(&self) -> bool {
        self.ranges.as_ref().is_some_and(Vec::is_empty)
    }

    /// As PostgreSQL reads a multirange of `int8`; none where there were too many ranges.
    pub fn multirange(&mut self) -> Option<String> {
        self.put_in_order();
        let ranges = self.ranges.as_ref()?;
        let mut text = String::with_capacity(ranges.len() * 24 + 2);
        for (number, (first, last)) in ranges.iter().enumerate() {
            text.push(if number == 0 { '{' } else { ',' });
            write!(text, "[{first},{last}]").expect("a string takes everything");
        }
        text.push_str(if ranges.is_empty() { "{}" } else { "}" });
        Some(text)
    }

    fn add(&mut self, (first, last): (i64, i64)) {
        let Some(ranges) = &mut self.ranges else { return };
        if let Some((_, end)) = ranges.last_mut()
            && end.checked_add(1) == Some(first)
        {
            *end = last;
            return;
        }
        ranges.push((first, last));
        if ranges.len() >= self.loose_at {
            self.put_in_order();
        }
    }

    fn put_in_order(&mut self) {
        let Some(ranges) = &mut self.ranges else { return };
        ranges.sort_unstable();
        ranges.dedup_by(|next, kept| {
            let is_near = next.0 <= kept.1.saturating_add(1);
            if is_near {
                kept.1 = kept.1.max(next.1);
            }
            is_near
        });
        self.loose_at = ranges.len() * 2 + LOOSE_MAX;
        if ranges.len() > RANGES_MAX {
            self.ranges = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(numbers: impl IntoIterator<Item = i64>) -> SeqRanges {
        let mut ranges = SeqRanges::default();
        numbers.into_iter().for_each(|seq| ranges.insert(seq));
        ranges
    }

    #[test]
    fn numbers_become_ranges_in_whatever_order_they_come() {
        assert_eq!(of([]).multirange().unwrap(), "{}");
        assert_eq!(of([7, 8, 9, 5, 3, 4, 9, 20]).multirange().unwrap(), "{[3,5],[7,9],[20,20]}");
        let ends = of([i64::MAX, i64::MIN, i64::MAX]);
        assert_eq!(
            ends.clone().multirange().unwrap(),
            format!("{{[{0},{0}],[{1},{1}]}}", i64::MIN, i64::MAX)
        );
        let mut both = of([1, 2]);
        both.extend(&of([3, 4, 8]));
        assert_eq!(both.multirange().unwrap(), "{[1,4],[8,8]}");
        assert!(of([]).is_empty() && !both.is_empty());
    }

    #[test]
    fn shuffled_numbers_take_no_room() {
        let count = 400_000;
        // 7 and the count have no common divisor: each number comes once.
        let mut ranges = of((0..count).map(|number| number * 7 % count));
        assert!(ranges.ranges.as_ref().unwrap().len() < 2 * RANGES_MAX);
        assert_eq!(ranges.multirange().unwrap(), format!("{{[0,{}]}}", count - 1));
    }

    #[test]
    fn of_too_many_ranges_nothing_is_said() {
        let scattered = i64::try_from(RANGES_MAX).unwrap() + LOOSE_MAX as i64;
        let mut ranges = of((0..scattered).map(|number| number * 2));
        assert_eq!(ranges.multirange(), None);
        let mut other = of([1]);
        other.extend(&ranges);
        assert_eq!(other.multirange(), None, "nor of what they were added to");
        assert!(!other.is_empty());
    }
}
