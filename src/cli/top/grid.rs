//! A table that can be sorted and filtered.
//!
//! Promises: rows that are equal keep their order; numbers are sorted as numbers. Must not: know what they mean, or a
//! terminal.

use std::cmp::Ordering;

use crate::metrics::sentence::{seconds, whole};

/// How something is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    Warning,
    Bad,
}

/// By what a cell is sorted.
#[derive(Clone, Debug, PartialEq)]
enum SortKey {
    Text,
    Number(f64),
}

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct GridCell {
    pub(super) text: String,
    pub(super) tone: Tone,
    key: SortKey,
}

impl GridCell {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain, key: SortKey::Text }
    }

    pub(super) fn number(text: impl Into<String>, number: f64) -> Self {
        Self { text: text.into(), tone: Tone::Plain, key: SortKey::Number(number) }
    }

    pub(super) fn whole(number: u64) -> Self {
        Self::number(whole(number), number as f64)
    }

    /// In a second; a dash where it is not known.
    pub(super) fn rate(rate: Option<f64>) -> Self {
        match rate {
            Some(rate) => Self::number(whole(rate.max(0.0).round() as u64), rate),
            None => Self::number("-", -1.0),
        }
    }

    /// A time; a dash where it is not known.
    pub(super) fn span(known: Option<f64>) -> Self {
        match known {
            Some(known) => Self::number(seconds(known), known),
            None => Self::number("-", -1.0),
        }
    }

    pub(super) fn toned(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }

    pub(super) fn is_number(&self) -> bool {
        matches!(self.key, SortKey::Number(_))
    }

    fn order(&self, other: &Self) -> Ordering {
        match (&self.key, &other.key) {
            (SortKey::Number(one), SortKey::Number(other)) => one.total_cmp(other),
            _ => self.text.cmp(&other.text),
        }
    }
}

/// By which column, and in which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SortOrder {
    pub(super) column: usize,
    pub(super) direction: SortDirection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SortDirection {
    Rising,
    Falling,
}

impl SortDirection {
    pub(super) fn turned(self) -> Self {
        match self {
            Self::Rising => Self::Falling,
            Self::Falling => Self::Rising,
        }
    }
}

/// Heads and rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Grid {
    pub(super) heads: Vec<&'static str>,
    pub(super) rows: Vec<Vec<GridCell>>,
    /// What is said where there is no row.
    pub(super) none: &'static str,
}

impl Grid {
    pub(super) fn new(
        heads: &[&'static str],
        rows: Vec<Vec<GridCell>>,
        none: &'static str,
    ) -> Self {
        assert!(rows.iter().all(|row| row.len() == heads.len()), "each cell has a head");
        Self { heads: heads.to_vec(), rows, none }
    }

    /// Rows that have all these words, in this order.
    #[must_use]
    pub(super) fn arranged(mut self, filter: &str, order: Option<SortOrder>) -> Self {
        let words: Vec<String> = filter.split_whitespace().map(str::to_lowercase).collect();
        self.rows.retain(|row| {
            let all = row.iter().map(|cell| cell.text.to_lowercase()).collect::<Vec<_>>().join(" ");
            words.iter().all(|word| all.contains(word))
        });
        if let Some(SortOrder { column, direction }) = order
            && column < self.heads.len()
        {
            self.rows.sort_by(|one, other| {
                let order = one[column].order(&other[column]);
                if direction == SortDirection::Falling { order.reverse() } else { order }
            });
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let row = |name: &str, count| vec![GridCell::text(name), GridCell::whole(count)];
        let rows = vec![row("b order", 9), row("a order", 10), row("c bill", 9)];
        Grid::new(&["name", "count"], rows, "nothing")
    }

    fn names(grid: &Grid) -> Vec<&str> {
        grid.rows.iter().map(|row| row[0].text.as_str()).collect()
    }

    #[test]
    fn numbers_are_sorted_as_numbers_and_equals_stay() {
        let by = |column, direction| Some(SortOrder { column, direction });
        let sorted = grid().arranged("", by(1, SortDirection::Rising));
        assert_eq!(names(&sorted), ["b order", "c bill", "a order"]);
        let sorted = grid().arranged("", by(1, SortDirection::Falling));
        assert_eq!(names(&sorted), ["a order", "b order", "c bill"]);
        let sorted = grid().arranged("", by(0, SortDirection::Rising));
        assert_eq!(names(&sorted), ["a order", "b order", "c bill"]);
        assert_eq!(grid().arranged("", by(7, SortDirection::Rising)), grid(), "no such column");
    }

    #[test]
    fn a_row_is_shown_that_has_all_words() {
        assert_eq!(names(&grid().arranged("ORDER 9", None)), ["b order"]);
        assert_eq!(names(&grid().arranged("  ", None)).len(), 3);
        assert!(grid().arranged("none", None).rows.is_empty());
    }
}
