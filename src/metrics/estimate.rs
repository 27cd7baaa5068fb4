//! When a backlog will be empty, by how fast it was passed lately.
//!
//! Promises: nothing left is no time, and no progress is for ever. What is passed may have gaps: as what is left
//! has them, too, they do not count. Must not: read a clock, or ask anybody.

use std::collections::VecDeque;

/// The speed is that of so long, in milliseconds: longer than a page takes, or a replaced producer.
const WINDOW_MILLIS: u64 = 30_000;
/// So many places are kept of it at most.
const PLACES_MAX: usize = 64;

/// Where somebody was lately.
#[derive(Debug, Default)]
pub struct Estimate {
    places: VecDeque<(u64, i64)>,
}

impl Estimate {
    /// Takes note of a place, and gives the seconds until `remaining` is passed; infinite where it stands still.
    pub fn look(&mut self, now_millis: u64, position: i64, remaining: u64) -> f64 {
        let is_back = self.places.back().is_some_and(|(_, before)| *before > position);
        if is_back {
            // It began anew, or another scale counts.
            self.places.clear();
        }
        self.places.push_back((now_millis, position));
        while self.places.len() > PLACES_MAX
            || self.places.front().is_some_and(|(at, _)| at + WINDOW_MILLIS < now_millis)
        {
            self.places.pop_front();
        }
        if remaining == 0 {
            return 0.0;
        }
        let (began, first) = self.places.front().copied().unwrap_or((now_millis, position));
        let passed = position.saturating_sub(first) as f64;
        let seconds = now_millis.saturating_sub(began) as f64 / 1_000.0;
        if passed > 0.0 { remaining as f64 * seconds / passed } else { f64::INFINITY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_what_is_left_by_the_speed() {
        let mut estimate = Estimate::default();
        assert_eq!(estimate.look(0, 1_000, 0), 0.0);
        assert_eq!(estimate.look(500, 1_000, 7_000), f64::INFINITY, "nothing was passed yet");
        assert_eq!(estimate.look(1_000, 2_000, 6_000), 6.0);
        assert_eq!(estimate.look(2_000, 3_000, 5_000), 5.0);
        // Back at a saved cursor.
        assert_eq!(estimate.look(2_500, 500, 7_500), f64::INFINITY);
        assert_eq!(estimate.look(3_500, 1_250, 7_500), 10.0);
        // Long ago does not count.
        assert_eq!(estimate.look(90_000, 1_250, 7_500), f64::INFINITY);
        assert_eq!(estimate.look(90_500, 1_250, 0), 0.0);
    }
}
