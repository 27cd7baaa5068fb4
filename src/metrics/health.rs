//! Whether a relay is well: alive, and getting on with what it has to do.
//!
//! Promises: whoever has work and does not get on is not ready, whatever the reason; whoever has nothing to do, stands
//! by, is paused, or lets the last things land is well. What is judged is what was seen at looks that follow each
//! other closely: a process that was stopped for a while is not blamed for that time. Must not: read a clock, ask
//! anybody, or do anything about it.
//!
//! | not ready when | it shows as |
//! |---|---|
//! | there is no session with PostgreSQL, or none gets an answer | `postgres` |
//! | the lease has run out | `lease` |
//! | something is in flight and nothing is acknowledged | `kafka` |
//! | the last transaction took longer than it may | `kafka` |
//! | a shard has work, and the same events come again, or none | `shards` |
//! | buckets are free, and the database does not let this instance take them | `shards` |

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::metrics::beats::Beat;
use crate::metrics::estimate::Estimate;
pub use crate::metrics::health_check::{HealthCheck, HealthOutcome};
use crate::metrics::overlong::OverlongTransaction;
pub use crate::metrics::session_state::{LockInTheWay, LogRefusal, SessionEnd, SessionState};
use crate::metrics::still_count::StillCount;

/// A thread that gives no sign of life for so long is dead.
const LIVE_LIMIT_MILLIS: u64 = 30_000;
/// How the check of PostgreSQL begins where there is no session.
pub const NO_SESSION: &str = "no session";
/// Something in flight is acknowledged within this: longer than a broker takes to answer, or to hand its partitions over in
/// order. With the looks behind it, Kafka's silence is seen within ten seconds.
pub const KAFKA_SILENCE_MILLIS: u64 = 8_000;
/// Who has work gets on within this, or within four fifths of a lease if that is longer.
const READY_LIMIT_MIN_MILLIS: u64 = 8_000;
/// A task that gets no answer for so long, while it is known who holds a lock in its way, gets none before that is gone.
const LOCKED_OUT_MILLIS: u64 = 4_000;
/// Between two looks no more than this counts: nobody looked, so nobody else could do anything, either.
const STEP_MAX_MILLIS: u64 = 2_000;
/// Nothing moves where nothing of what is in flight was acknowledged for so long: an acknowledgement takes less.
const STANDS_STILL_MILLIS: u64 = 3_000;
/// A shard that begins anew so many times in [`ANEW_WINDOW_MILLIS`] does not get on, whatever it has sent meanwhile.
const ANEW_MAX: u64 = 5;
const ANEW_WINDOW_MILLIS: u64 = 60_000;

/// What is seen of a shard at a look; counts are of the whole life of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardReading {
    /// Whether anything is in flight, or to be claimed, or to be begun with.
    pub has_work: bool,
    /// Bytes between claim and acknowledgement.
    pub in_flight_bytes: u64,
    /// Whether Kafka has answered all that is in flight: what still waits, waits for PostgreSQL.
    pub is_answered: bool,
    /// Batches that Kafka has acknowledged.
    pub acknowledged: u64,
    /// How often it got further than ever.
    pub advanced: u64,
    /// How often it began anew.
    pub begun_anew: u64,
    /// How far it is, on a scale of its own.
    pub position: i64,
    /// How much of that scale lies before it.
    pub remaining: u64,
    /// The last transaction, where it took longer than it may.
    pub overlong: Option<OverlongTransaction>,
}

/// What is seen at one look.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// Since some moment that stays the same.
    pub now_millis: u64,
    /// What the session is at.
    pub session: SessionState,
    /// Whether the process is to stop.
    pub is_stopping: bool,
    /// Until everything that rests on the lease has to have stopped; below zero when that is over. None without one.
    pub lease_left_millis: Option<i64>,
    /// How long a lease lasts.
    pub lease_millis: u64,
    /// Free buckets that were asked for at the last look and not had.
    pub buckets_untaken: u64,
    /// All shards, by their number.
    pub shards: Vec<ShardReading>,
    /// Threads that publish and poll.
    pub threads: Vec<Beat>,
    /// Tasks that ask PostgreSQL.
    pub tasks: Vec<Beat>,
    /// Who keeps one of them waiting, as far as is known.
    pub lock: Option<LockInTheWay>,
    /// What waits for somebody where the log is to be read.
    pub log_refusal: Option<LogRefusal>,
}

/// Kafka acknowledges nothing of what is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KafkaSilence {
    /// For so long.
    pub millis: u64,
    /// How much waits.
    pub in_flight_bytes: u64,
}

/// How things are, as seen by all looks so far.
#[derive(Debug, Default)]
pub struct Health {
    looks: u64,
    last_look_millis: Option<u64>,
    /// The time that counts, see [`STEP_MAX_MILLIS`].
    clock_millis: u64,
    latest: Readings,
    session_since_millis: u64,
    /// Since when whatever was asked for was had.
    untaken_since_millis: u64,
    threads: HashMap<u64, StillCount>,
    tasks: HashMap<u64, StillCount>,
    shards: Vec<ShardHealth>,
    time_to_empty_seconds: Option<f64>,
}

/// What is known of a shard.
#[derive(Debug, Default)]
struct ShardHealth {
    /// Since it got further, or had no work.
    standing: StillCount,
    /// Since something was acknowledged, or nothing was in flight.
    unacknowledged: StillCount,
    begun_anew: u64,
    /// When it began anew lately.
    anew: VecDeque<u64>,
    estimate: Estimate,
}

impl ShardHealth {
    fn new(reading: &ShardReading, now_millis: u64) -> Self {
        Self {
            standing: StillCount::begin(reading.advanced, now_millis),
            unacknowledged: StillCount::begin(reading.acknowledged, now_millis),
            begun_anew: reading.begun_anew,
            ..Self::default()
        }
    }

    fn look(&mut self, reading: &ShardReading, step_millis: u64, now_millis: u64) {
        self.standing.look(reading.advanced, now_millis);
        self.unacknowledged.look(reading.acknowledged, now_millis);
        if !reading.has_work {
            self.standing.since_millis = now_millis;
            self.unacknowledged.since_millis = now_millis;
        } else if reading.in_flight_bytes == 0 {
            // Between two producers: not Kafka's time, and no end of its silence.
            self.unacknowledged.since_millis += step_millis;
        } else if reading.is_answered {
            self.unacknowledged.since_millis = now_millis;
        }
        for _ in self.begun_anew..reading.begun_anew.min(self.begun_anew + ANEW_MAX) {
            self.anew.push_back(now_millis);
        }
        self.begun_anew = reading.begun_anew;
        while self.anew.front().is_some_and(|at| at + ANEW_WINDOW_MILLIS < now_millis) {
            self.anew.pop_front();
        }
    }

    /// By how fast it claims; but what is claimed is not published before Kafka acknowledges it.
    fn time_to_empty(&mut self, reading: &ShardReading, now_millis: u64) -> f64 {
        let claimed = self.estimate.look(now_millis, reading.position, reading.remaining);
        match self.unacknowledged.lasts_millis(now_millis) {
            STANDS_STILL_MILLIS.. => f64::INFINITY,
            waits => claimed.max(waits as f64 / 1_000.0),
        }
    }

    /// What keeps it from getting on, but for Kafka's silence.
    fn trouble(&self, limit_millis: u64, now_millis: u64) -> Option<String> {
        let stands = self.standing.lasts_millis(now_millis);
        if self.unacknowledged.lasts_millis(now_millis) >= KAFKA_SILENCE_MILLIS {
            None
        } else if stands >= limit_millis {
            Some(format!("has work and did not get on for {}", show_seconds(stands)))
        } else if self.anew.len() as u64 >= ANEW_MAX {
            Some(format!("began anew {} times within a minute", self.anew.len()))
        } else {
            None
        }
    }
}

impl Health {
    /// Takes note of what is seen now.
    pub fn look(&mut self, mut readings: Readings) {
        if matches!(readings.session, SessionState::Paused { .. }) {
            // Whatever the last session left undone is not to be done now.
            readings.shards.iter_mut().for_each(|shard| shard.has_work = false);
        }
        let step = self.last_look_millis.map_or(0, |last| readings.now_millis.saturating_sub(last));
        let step = step.min(STEP_MAX_MILLIS);
        self.looks += 1;
        self.last_look_millis = Some(readings.now_millis);
        self.clock_millis += step;
        let now = self.clock_millis;
        if readings.session.is_working() != self.latest.session.is_working() {
            self.session_since_millis = now;
        }
        if readings.buckets_untaken == 0 || readings.session != SessionState::Working {
            self.untaken_since_millis = now;
        }
        listen(&mut self.threads, &readings.threads, now);
        listen(&mut self.tasks, &readings.tasks, now);
        for (number, reading) in readings.shards.iter().enumerate() {
            match self.shards.get_mut(number) {
                Some(shard) => shard.look(reading, step, now),
                None => self.shards.push(ShardHealth::new(reading, now)),
            }
        }
        self.time_to_empty_seconds = self.estimate(&readings, now);
        self.latest = readings;
    }

    /// The slowest shard's. None without a session that works.
    fn estimate(&mut self, readings: &Readings, now_millis: u64) -> Option<f64> {
        let shards = self.shards.iter_mut().zip(&readings.shards);
        let estimates = shards.map(|(shard, reading)| shard.time_to_empty(reading, now_millis));
        let slowest = estimates.fold(0.0, f64::max);
        (readings.session == SessionState::Working).then_some(slowest)
    }

    /// When all that is there now will be published, by the speed of the last half minute.
    pub fn time_to_empty_seconds(&self) -> Option<f64> {
        self.time_to_empty_seconds
    }

    /// For how long nothing of what is in flight was acknowledged, of the shard that waits longest.
    pub fn silence(&self) -> Option<KafkaSilence> {
        let waiting = self.shards.iter().zip(&self.latest.shards);
        let silent = waiting.filter(|(_, reading)| reading.has_work);
        let longest = silent.map(|(shard, _)| shard.unacknowledged.lasts_millis(self.clock_millis));
        let in_flight_bytes = self.latest.shards.iter().map(|shard| shard.in_flight_bytes).sum();
        longest.max().map(|millis| KafkaSilence { millis, in_flight_bytes })
    }

    /// How long the lease lasts still, in a session that works.
    pub fn lease_left_millis(&self) -> Option<i64> {
        self.latest.lease_left_millis.filter(|_| self.latest.session == SessionState::Working)
    }

    /// How long whoever has work may take to get on.
    fn limit_millis(&self) -> u64 {
        (self.latest.lease_millis / 5 * 4).max(READY_LIMIT_MIN_MILLIS)
    }

    /// How many looks there were.
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// Whether somebody looks, who has not done so for so long; and whether the threads are alive.
    pub fn live(&self, unlooked_millis: u64) -> Vec<HealthCheck> {
        let runtime = if unlooked_millis >= LIVE_LIMIT_MILLIS {
            HealthCheck::ill(
                "runtime",
                format!("nobody has looked for {}", show_seconds(unlooked_millis)),
            )
        } else {
            HealthCheck::well("runtime", "ok")
        };
        let threads = self.latest.threads.iter().map(|beat| self.thread(beat));
        std::iter::once(runtime).chain(threads).collect()
    }

    fn thread(&self, beat: &Beat) -> HealthCheck {
        let silent = self.silent_millis(&self.threads, beat);
        if silent >= LIVE_LIMIT_MILLIS {
            HealthCheck::ill(&beat.name, format!("silent for {}", show_seconds(silent)))
        } else {
            HealthCheck::well(&beat.name, "ok")
        }
    }

    fn silent_millis(&self, quiet: &HashMap<u64, StillCount>, beat: &Beat) -> u64 {
        quiet.get(&beat.number).map_or(0, |quiet| quiet.lasts_millis(self.clock_millis))
    }

    /// Whether it does what it is there for.
    pub fn ready(&self) -> Vec<HealthCheck> {
        vec![self.postgres(), self.lease(), self.kafka(), self.get_on()]
    }

    fn postgres(&self) -> HealthCheck {
        const NAME: &str = "postgres";
        let since_millis = self.clock_millis.saturating_sub(self.session_since_millis);
        let since = show_seconds(since_millis);
        match &self.latest.session {
            SessionState::Between(None) => {
                HealthCheck::ill(NAME, format!("{NO_SESSION} for {since}")).since(since_millis)
            }
            SessionState::Between(Some(SessionEnd { cause, remedy })) => {
                HealthCheck::ill(NAME, format!("{NO_SESSION} for {since}: {cause}"))
                    .since(since_millis)
                    .with_remedy(remedy.clone())
            }
            SessionState::Obstructed => HealthCheck::ill(
                NAME,
                format!(
                    "for {since} a session that is no instance keeps the lock of the log's reader"
                ),
            )
            .since(since_millis),
            SessionState::StandingBy => {
                HealthCheck::well(NAME, "ok, standing by: another instance reads the log")
            }
            SessionState::Paused { reason } => {
                HealthCheck::well(NAME, format!("ok, publishing is paused: {reason}"))
            }
            SessionState::Working => self.tasks_check(NAME),
        }
    }

    /// Whether those get answers that ask PostgreSQL again and again.
    fn tasks_check(&self, name: &str) -> HealthCheck {
        let lock = self.latest.lock.as_ref();
        let limit = lock.map_or(self.limit_millis(), |_| LOCKED_OUT_MILLIS);
        match self.longest_waiting() {
            Some((silent, task)) if silent >= limit => {
                let shown = show_seconds(silent);
                let behind = lock.map(|lock| format!(", it waits for {}", lock.words));
                let behind = behind.unwrap_or_default();
                HealthCheck::ill(name, format!("the {task} has had no answer for {shown}{behind}"))
                    .since(silent)
                    .with_remedy(lock.map(|lock| lock.remedy.clone()))
            }
            Some(_) | None => HealthCheck::well(name, "ok"),
        }
    }

    /// The task that has had no answer for longest.
    fn longest_waiting(&self) -> Option<(u64, &str)> {
        let silent = |beat: &Beat| self.silent_millis(&self.tasks, beat);
        let tasks = self.latest.tasks.iter().map(|beat| (silent(beat), beat.name.as_str()));
        tasks.max_by_key(|(silent, _)| *silent)
    }

    /// For how long a task has had no answer of PostgreSQL, of the one that waits longest.
    pub fn unanswered_millis(&self) -> u64 {
        self.longest_waiting().map_or(0, |(silent, _)| silent)
    }

    fn lease(&self) -> HealthCheck {
        const NAME: &str = "lease";
        match (&self.latest.session, self.latest.lease_left_millis) {
            (SessionState::Working, Some(left)) if left <= 0 => {
                let since = left.unsigned_abs();
                HealthCheck::ill(NAME, format!("ran out {} ago", show_seconds(since))).since(since)
            }
            (SessionState::Working, Some(left)) => {
                HealthCheck::well(NAME, format!("{} left", show_seconds(left.unsigned_abs())))
            }
            (SessionState::Working, None) => HealthCheck::well(NAME, "being taken"),
            (SessionState::StandingBy | SessionState::Obstructed, _) => {
                HealthCheck::well(NAME, "none is needed to stand by")
            }
            (SessionState::Paused { .. }, _) => {
                HealthCheck::well(NAME, "none is needed while paused")
            }
            (SessionState::Between(_), _) => HealthCheck::ill(NAME, "none without a session"),
        }
    }

    fn kafka(&self) -> HealthCheck {
        const NAME: &str = "kafka";
        let Some(KafkaSilence { millis, in_flight_bytes }) = self.silence() else {
            return HealthCheck::well(NAME, "ok");
        };
        if let Some(overlong) = self.overlong() {
            return HealthCheck::ill(NAME, overlong.to_string()).since(millis);
        }
        let (silent, bytes) = (show_seconds(millis), show_mebibytes(in_flight_bytes));
        if millis >= KAFKA_SILENCE_MILLIS {
            let words = format!("nothing acknowledged for {silent}, {bytes} in flight");
            return HealthCheck::ill(NAME, words).since(millis);
        }
        HealthCheck::well(NAME, format!("ok, {bytes} in flight"))
    }

    /// A transaction that took longer than it may, of a shard that has ended none since.
    fn overlong(&self) -> Option<OverlongTransaction> {
        self.latest.shards.iter().filter(|shard| shard.has_work).find_map(|shard| shard.overlong)
    }

    /// What keeps each shard from getting on, but for Kafka's silence.
    pub fn shard_troubles(&self) -> Vec<Option<String>> {
        let (limit, now) = (self.limit_millis(), self.clock_millis);
        self.shards.iter().map(|shard| shard.trouble(limit, now)).collect()
    }

    /// The same with Kafka's silence, for whoever looks at a shard by itself.
    pub fn shard_words(&self) -> Vec<Option<String>> {
        let silent = |shard: &ShardHealth| {
            let millis = shard.unacknowledged.lasts_millis(self.clock_millis);
            (millis >= KAFKA_SILENCE_MILLIS)
                .then(|| format!("nothing acknowledged for {}", show_seconds(millis)))
        };
        let troubles = self.shard_troubles().into_iter().zip(&self.shards);
        troubles.map(|(trouble, shard)| trouble.or_else(|| silent(shard))).collect()
    }

    fn untaken_millis(&self) -> u64 {
        self.clock_millis.saturating_sub(self.untaken_since_millis)
    }

    fn get_on(&self) -> HealthCheck {
        const NAME: &str = "shards";
        let troubles = self.shard_troubles().into_iter().enumerate();
        let ill = troubles.filter_map(|(number, words)| Some((number, words?))).next();
        match ill {
            Some((number, words)) => {
                let since = self.shards[number].standing.lasts_millis(self.clock_millis);
                HealthCheck::ill(NAME, format!("shard {number} {words}")).since(since)
            }
            None if self.latest.is_stopping => {
                HealthCheck::well(NAME, "ok, stopping: what is in flight lands")
            }
            None if !self.latest.session.is_working() => {
                HealthCheck::well(NAME, "none works without a session; what waits is not known")
            }
            None if self.untaken_millis() >= self.limit_millis() => {
                let (buckets, since) = (self.latest.buckets_untaken, self.untaken_millis());
                let words =
                    format!("free buckets cannot be taken for {}: {buckets}", show_seconds(since));
                HealthCheck::ill(NAME, words).since(since)
            }
            None if self.latest.buckets_untaken > 0 => {
                HealthCheck::well(NAME, "ok, buckets are being taken")
            }
            None if self.latest.shards.iter().any(|shard| shard.has_work) => {
                HealthCheck::well(NAME, "ok")
            }
            None => match &self.latest.log_refusal {
                Some(LogRefusal::Copy(cause)) => {
                    HealthCheck::well(NAME, format!("ok, but rows of adopted tables wait: {cause}"))
                }
                Some(LogRefusal::Log(_)) | None => HealthCheck::well(NAME, "ok, nothing waits"),
            },
        }
    }
}

/// Listens for signs of life; forgets those that nobody expects any more.
fn listen(known: &mut HashMap<u64, StillCount>, heard: &[Beat], now_millis: u64) {
    known.retain(|number, _| heard.iter().any(|beat| beat.number == *number));
    for beat in heard {
        known
            .entry(beat.number)
            .and_modify(|quiet| quiet.look(beat.beats, now_millis))
            .or_insert_with(|| StillCount::begin(beat.beats, now_millis));
    }
}

/// `6.1s`, and `34s` from ten on.
fn show_seconds(millis: u64) -> String {
    if millis < 10_000 {
        format!("{:.1}s", millis as f64 / 1_000.0)
    } else {
        format!("{}s", millis / 1_000)
    }
}

fn show_mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
