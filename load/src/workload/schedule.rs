//! The open loop's schedule: when which transaction is to be sent.
//!
//! Promises: the intended times depend on the rate alone, not on how fast the database answers; the
//! writers take turns evenly. Must not: read a clock.

/// An even schedule over all writers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// Events per second, over all writers.
    pub(crate) events_per_second: f64,
    /// Events per transaction.
    pub(crate) tx_size: u32,
    /// Number of writers.
    pub(crate) writers: u16,
    /// How long the schedule lasts, in microseconds.
    pub(crate) length_us: u64,
}

impl Schedule {
    /// When `writer` is to begin its `iteration`-th transaction (from 0), in microseconds from the start;
    /// none when that lies behind the end.
    pub(crate) fn intended_us(&self, writer: u16, iteration: u64) -> Option<u64> {
        let index = iteration * u64::from(self.writers) + u64::from(writer);
        let seconds = index as f64 * f64::from(self.tx_size) / self.events_per_second;
        let microseconds = (seconds * 1e6) as u64;
        (microseconds < self.length_us).then_some(microseconds)
    }

    /// How many events the schedule has.
    pub(crate) fn events(&self) -> u64 {
        let between_us = f64::from(self.tx_size) / self.events_per_second * 1e6;
        (self.length_us as f64 / between_us).ceil() as u64 * u64::from(self.tx_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_take_turns_at_the_rate() {
        let schedule =
            Schedule { events_per_second: 1_000.0, tx_size: 10, writers: 2, length_us: 100_000 };
        let times = |writer| {
            (0..)
                .map_while(move |iteration| schedule.intended_us(writer, iteration))
                .collect::<Vec<_>>()
        };
        assert_eq!(times(0), [0, 20_000, 40_000, 60_000, 80_000]);
        assert_eq!(times(1), [10_000, 30_000, 50_000, 70_000, 90_000]);
        assert_eq!(schedule.events(), 100);
    }
}
