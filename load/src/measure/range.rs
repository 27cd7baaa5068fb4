//! The range of a figure over repeated runs.
//!
//! Promises: minimum, median and maximum of what was measured, nothing smoothed. Must not: drop
//! outliers. Fails: a range of nothing is `None`.

use serde::{Deserialize, Serialize};

/// Minimum, median and maximum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Range {
    /// The smallest figure.
    pub(crate) min: f64,
    /// The middle figure; of an even number of figures, the mean of the two in the middle.
    pub(crate) median: f64,
    /// The largest figure.
    pub(crate) max: f64,
}

impl Range {
    /// The range of these figures.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { min, median: f64::midpoint(low, high), max })
    }

    /// `min–median–max` with so many decimals.
    pub(crate) fn show(&self, decimals: usize) -> String {
        format!("{:.decimals$}–{:.decimals$}–{:.decimals$}", self.min, self.median, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::Range;

    #[test]
    fn median_of_odd_and_even_counts() {
        let odd = Range::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.min, odd.median, odd.max), (1.0, 2.0, 3.0));
        assert_eq!(Range::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Range::of([]), None);
        assert_eq!(odd.show(1), "1.0–2.0–3.0");
    }
}
