//! Signs of life of threads and tasks.
//!
//! Promises: a beat costs one addition; one that ends in order is forgotten, one that panics is not: it is
//! silent from then on. Must not: read a clock, or judge how long a silence may be.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whoever is expected to give signs of life.
#[derive(Debug, Default)]
pub struct Beats(Mutex<Vec<Arc<Beater>>>);

#[derive(Debug)]
struct Beater {
    name: String,
    number: u64,
    beats: AtomicU64,
}

/// What was heard of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// For people.
    pub name: String,
    /// Tells it from others of its name.
    pub number: u64,
    /// How many signs it has given.
    pub beats: u64,
}

/// Gives the signs. Who drops it is not listened for any more.
#[derive(Debug)]
pub struct Pulse {
    beater: Arc<Beater>,
    beats: Arc<Beats>,
}

impl Beats {
    /// From here on this one is expected to give signs of life.
    pub fn expect(self: &Arc<Self>, name: impl Into<String>) -> Pulse {
        let mut beaters = self.beaters();
        let number = beaters.last().map_or(0, |last| last.number + 1);
        let beater = Arc::new(Beater { name: name.into(), number, beats: AtomicU64::new(0) });
        beaters.push(Arc::clone(&beater));
        drop(beaters);
        Pulse { beater, beats: Arc::clone(self) }
    }

    /// What was heard of each.
    pub fn heard(&self) -> Vec<Beat> {
        let heard = |beater: &Arc<Beater>| Beat {
            name: beater.name.clone(),
            number: beater.number,
            beats: beater.beats.load(Ordering::Relaxed),
        };
        self.beaters().iter().map(heard).collect()
    }

    fn beaters(&self) -> MutexGuard<'_, Vec<Arc<Beater>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pulse {
    /// A sign of life.
    pub fn beat(&self) {
        self.beater.beats.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.beats.beaters().retain(|other| !Arc::ptr_eq(other, &self.beater));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ends_is_forgotten_unless_by_a_panic() {
        let beats = Arc::new(Beats::default());
        let (first, second) = (beats.expect("publish-0"), beats.expect("poll-0"));
        second.beat();
        let heard = beats.heard();
        let names: Vec<(&str, u64)> =
            heard.iter().map(|beat| (beat.name.as_str(), beat.beats)).collect();
        assert_eq!(names, [("publish-0", 0), ("poll-0", 1)]);
        drop(first);
        let third = beats.expect("poll-0");
        assert_ne!(beats.heard()[0].number, beats.heard()[1].number, "a name may be given again");
        let ended = std::thread::spawn(move || {
            let _third = third;
            panic!("on purpose");
        });
        assert!(ended.join().is_err());
        drop(second);
        assert_eq!(beats.heard().len(), 1, "a thread that has panicked is silent, not forgotten");
    }
}
