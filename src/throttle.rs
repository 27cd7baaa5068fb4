//! Warnings that repeat: each cause is said at once, then now and then with a count.
//!
//! Promises: a cause that was not met before is said at once; while it goes on, one line per pause
//! says how often it was met. Must not: grow with the number of causes; read a clock.
//! Fails: never; of very many causes the one said longest ago is forgotten, and then said anew.

use std::collections::VecDeque;
use std::ops::Add;
use std::sync::{Mutex, PoisonError};

/// So many causes are told apart.
const CAUSES_MAX: usize = 64;

/// What was said, and when. `T` is a time and `P` the length of a pause; callers share one.
#[derive(Debug)]
pub struct Repeats<T, P> {
    pause: P,
    /// The one said last is at the end.
    said: Mutex<VecDeque<Said<T>>>,
}

#[derive(Debug)]
struct Said<T> {
    cause: String,
    at: T,
    unsaid: u64,
}

impl<T, P> Repeats<T, P>
where
    T: Copy + PartialOrd + Add<P, Output = T>,
    P: Copy,
{
    /// Says each cause once per pause.
    pub fn new(pause: P) -> Self {
        Self { pause, said: Mutex::default() }
    }

    /// The cause is met: how many times it went unsaid before, if it is to be said now.
    pub fn note(&self, cause: &str, now: T) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unsaid = 0;
        if let Some(place) = said.iter().position(|known| known.cause == cause) {
            let known = &mut said[place];
            if now < known.at + self.pause {
                known.unsaid += 1;
                return None;
            }
            unsaid = known.unsaid;
            said.remove(place);
        } else if said.len() == CAUSES_MAX {
            said.pop_front();
        }
        said.push_back(Said { cause: cause.to_owned(), at: now, unsaid: 0 });
        Some(unsaid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_at_once_and_the_rest_counted() {
        let repeats = Repeats::new(10);
        for (now, said) in
            [(0, Some(0)), (1, None), (9, None), (10, Some(2)), (19, None), (30, Some(1))]
        {
            assert_eq!(repeats.note("refused", now), said, "{now}");
        }
    }

    #[test]
    fn each_cause_has_its_own_pause() {
        let repeats = Repeats::new(10);
        assert_eq!(repeats.note("refused", 0), Some(0));
        assert_eq!(repeats.note("starting", 1), Some(0));
        assert_eq!(repeats.note("refused", 2), None);
        assert_eq!(repeats.note("starting", 10), None);
        assert_eq!(repeats.note("refused", 10), Some(1));
        assert_eq!(repeats.note("starting", 11), Some(1));
    }

    #[test]
    fn of_many_causes_the_oldest_is_forgotten() {
        let repeats = Repeats::new(1_000);
        for cause in 0..CAUSES_MAX {
            assert_eq!(repeats.note(&cause.to_string(), cause), Some(0));
        }
        assert_eq!(repeats.note("one more", 20), Some(0));
        assert_eq!(repeats.note("1", 21), None, "it is still known");
        assert_eq!(repeats.note("0", 22), Some(0), "it is said anew");
        assert_eq!(repeats.said.lock().unwrap().len(), CAUSES_MAX);
    }
}
