//! How fast things went lately.
//!
//! Promises: a rate is of what was counted, over the time between two looks at the counters; nothing counted is no time.
//! Takes a few kilobytes. Must not: read a clock, or count anything itself.

use std::collections::VecDeque;

use crate::metrics::histogram::Counted;

/// Looks that come sooner than so after the last are left out.
const STEP_MILLIS: u64 = 1_000;
/// Of how long rates are.
const RATE_MILLIS: u64 = 10_000;
/// Of how long ages and times are.
const AGE_MILLIS: u64 = 60_000;

/// What was counted up to a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CountedSoFar {
    /// Since some moment that stays the same.
    pub at_millis: u64,
    /// Acknowledged, by shard.
    pub published: Vec<u64>,
    /// Ages of events.
    pub event_age: Option<Counted>,
    /// Times of claims.
    pub claim: Option<Counted>,
    /// Times from sending to acknowledgement.
    pub publish: Option<Counted>,
}

/// What waited at a moment, where all of it was counted, and what had gone until then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExactBacklog {
    /// When.
    pub at_millis: u64,
    /// In which buckets.
    pub buckets: Vec<u16>,
    /// How many events waited.
    pub events: u64,
    /// How many were published or parked until then.
    pub gone: u64,
}

/// The last minute.
#[derive(Debug, Default)]
pub struct Recent {
    now_millis: u64,
    looks: VecDeque<CountedSoFar>,
    backlog: Option<ExactBacklog>,
    rate_in: Option<f64>,
}

impl Recent {
    /// Moves the time, and takes note of what was counted if a second has passed.
    pub fn look(&mut self, now_millis: u64, count: impl FnOnce() -> CountedSoFar) {
        self.now_millis = now_millis;
        if self.looks.back().is_some_and(|last| now_millis < last.at_millis + STEP_MILLIS) {
            return;
        }
        self.looks.push_back(CountedSoFar { at_millis: now_millis, ..count() });
        // One that is older than the window is kept: from there on the window is counted.
        while self.looks.get(1).is_some_and(|second| second.at_millis + AGE_MILLIS <= now_millis) {
            self.looks.pop_front();
        }
    }

    /// Takes note of what waits; none where not all was counted.
    pub fn look_at_backlog(&mut self, backlog: Option<ExactBacklog>) {
        let before = std::mem::replace(&mut self.backlog, backlog);
        self.rate_in = before.zip(self.backlog.as_ref()).and_then(|(before, now)| {
            let seconds = seconds(now.at_millis.checked_sub(before.at_millis)?);
            let came = (now.events + now.gone) as f64 - (before.events + before.gone) as f64;
            (now.buckets == before.buckets && seconds > 0.0).then(|| came.max(0.0) / seconds)
        });
    }

    /// Since some moment that stays the same.
    pub fn now_millis(&self) -> u64 {
        self.now_millis
    }

    /// Events that came in a second; none where not all that waits was counted.
    pub fn rate_in(&self) -> Option<f64> {
        self.rate_in
    }

    /// Events that were acknowledged in a second.
    pub fn rate_out(&self) -> Option<f64> {
        self.rate(|look| look.published.iter().sum())
    }

    /// The same of one shard.
    pub fn rate_of_shard(&self, shard: usize) -> Option<f64> {
        self.rate(|look| look.published.get(shard).copied().unwrap_or(0))
    }

    /// Below which so many of a hundred ages were, in seconds.
    pub fn age_seconds(&self, percentile: f64) -> Option<f64> {
        let counts = self.difference(|look| look.event_age.as_ref())?;
        quantile(&counts, percentile / 100.0)
    }

    /// The same of so short a time as rates are of: how things are, and not how they were a minute ago.
    pub fn age_seconds_now(&self, percentile: f64) -> Option<f64> {
        let last = self.looks.back()?;
        let since = last.at_millis.saturating_sub(RATE_MILLIS);
        let first = self.looks.iter().find(|look| look.at_millis >= since)?;
        let counts = between(first.event_age.as_ref()?, last.event_age.as_ref()?);
        quantile(&counts, percentile / 100.0)
    }

    /// How long a claim took, on average, in milliseconds.
    pub fn claim_ms(&self) -> Option<f64> {
        mean_ms(&self.difference(|look| look.claim.as_ref())?)
    }

    /// How long an acknowledgement took, on average, in milliseconds.
    pub fn ack_ms(&self) -> Option<f64> {
        mean_ms(&self.difference(|look| look.publish.as_ref())?)
    }

    /// Of how long ages are, up to now.
    pub fn age_window_seconds(&self) -> f64 {
        let first = self.looks.front().map_or(self.now_millis, |look| look.at_millis);
        seconds(self.now_millis.saturating_sub(first))
    }

    fn rate(&self, count: impl Fn(&CountedSoFar) -> u64) -> Option<f64> {
        let last = self.looks.back()?;
        let since = last.at_millis.saturating_sub(RATE_MILLIS);
        let first = self.looks.iter().find(|look| look.at_millis >= since)?;
        let seconds = seconds(last.at_millis - first.at_millis);
        let counted = count(last).saturating_sub(count(first));
        (seconds > 0.0).then(|| counted as f64 / seconds)
    }

    /// What was counted within the window.
    fn difference(&self, of: impl Fn(&CountedSoFar) -> Option<&Counted>) -> Option<Counted> {
        Some(between(of(self.looks.front()?)?, of(self.looks.back()?)?))
    }
}

/// What was counted from one look to another.
fn between(first: &Counted, last: &Counted) -> Counted {
    let both = first.buckets.iter().zip(&last.buckets);
    let buckets: Vec<(f64, u64)> =
        both.map(|((_, before), (end, now))| (*end, now.saturating_sub(*before))).collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    Counted { buckets, count, sum_seconds: (last.sum_seconds - first.sum_seconds).max(0.0) }
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1_000.0
}

fn mean_ms(counted: &Counted) -> Option<f64> {
    (counted.count > 0).then(|| counted.sum_seconds * 1_000.0 / counted.count as f64)
}

/// As if those of a bucket lay evenly in it; what lies in the last one, which has no end, at its beginning.
fn quantile(counted: &Counted, quantile: f64) -> Option<f64> {
    if counted.count == 0 {
        return None;
    }
    let wanted = quantile * counted.count as f64;
    let (mut below, mut begin) = (0.0, 0.0);
    for (end, count) in &counted.buckets {
        let count = *count as f64;
        if count > 0.0 && below + count >= wanted {
            let part = (wanted - below) / count;
            return Some(if end.is_finite() { begin + (end - begin) * part } else { begin });
        }
        below += count;
        if end.is_finite() {
            begin = *end;
        }
    }
    Some(begin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::histogram::Histogram;

    fn at(published: u64, ages: &Histogram) -> CountedSoFar {
        CountedSoFar {
            published: vec![published / 4, published - published / 4],
            event_age: Some(ages.counted()),
            claim: Some(ages.counted()),
            ..CountedSoFar::default()
        }
    }

    #[test]
    fn rates_are_of_ten_seconds_and_ages_of_a_minute() {
        let (mut recent, ages) = (Recent::default(), Histogram::default());
        assert_eq!((recent.rate_out(), recent.age_seconds(50.0)), (None, None));
        for second in 0..=100_u64 {
            // A thousand in each of the first fifty seconds, a hundred in each of the others.
            let published = second.min(50) * 1_000 + second.saturating_sub(50) * 100;
            ages.record(if second < 50 { 20_000 } else { 4_000_000 }, 10);
            recent.look(second * 1_000, || at(published, &ages));
            recent.look(second * 1_000 + 500, || panic!("it is asked once a second"));
            if second == 50 {
                assert_eq!(recent.rate_out(), Some(1_000.0));
                assert_eq!(recent.rate_of_shard(0), Some(250.0));
                let p50 = recent.age_seconds(50.0).expect("something was published");
                assert!((0.01..0.025).contains(&p50), "{p50}");
            }
        }
        assert_eq!(recent.rate_out(), Some(100.0));
        assert!(recent.looks.len() <= 62, "{}", recent.looks.len());
        assert!((59.0..=61.0).contains(&recent.age_window_seconds()));
        let p99 = recent.age_seconds(99.0).expect("something was published");
        assert!((2.5..=5.0).contains(&p99), "{p99}");
        // A backlog that has gone is no backlog of now.
        for second in 101..=112_u64 {
            ages.record(20_000, 1);
            recent.look(second * 1_000, || at(second, &ages));
        }
        let (minute, now) = (recent.age_seconds(50.0), recent.age_seconds_now(50.0));
        assert!(minute > Some(2.5) && now < Some(0.025), "{minute:?} {now:?}");
        let claim = recent.claim_ms().expect("something was claimed");
        assert!((3_000.0..=4_000.0).contains(&claim), "{claim}");
    }

    #[test]
    fn where_nothing_was_published_no_age_is_known() {
        let (mut recent, ages) = (Recent::default(), Histogram::default());
        recent.look(0, || at(0, &ages));
        assert_eq!(recent.rate_out(), None, "one look is no rate");
        recent.look(1_000, || at(0, &ages));
        assert_eq!(recent.rate_out(), Some(0.0));
        assert_eq!(
            (recent.age_seconds(99.0), recent.claim_ms(), recent.ack_ms()),
            (None, None, None)
        );
    }

    #[test]
    fn what_is_older_than_the_last_end_is_at_least_so_old() {
        let ages = Histogram::default();
        ages.record(u64::from(u32::MAX) * 1_000, 1);
        assert_eq!(quantile(&ages.counted(), 0.5), Some(3_600.0));
    }

    #[test]
    fn what_comes_is_known_where_all_that_waits_was_counted() {
        let backlog = |second: u64, buckets: &[u16], events, gone| {
            let buckets = buckets.to_vec();
            Some(ExactBacklog { at_millis: second * 1_000, buckets, events, gone })
        };
        let mut recent = Recent::default();
        recent.look_at_backlog(backlog(0, &[0, 1], 100, 0));
        assert_eq!(recent.rate_in(), None);
        recent.look_at_backlog(backlog(5, &[0, 1], 50, 550));
        assert_eq!(recent.rate_in(), Some(100.0));
        recent.look_at_backlog(backlog(10, &[0], 50, 600));
        assert_eq!(recent.rate_in(), None, "other buckets");
        recent.look_at_backlog(None);
        recent.look_at_backlog(backlog(20, &[0], 0, 600));
        assert_eq!(recent.rate_in(), None, "a look that was cut short lies between");
    }
}
