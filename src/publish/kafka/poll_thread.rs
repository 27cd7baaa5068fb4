//! The thread that serves librdkafka's callbacks, and sees when none come any more.
//!
//! Promises: when a record is refused, what became of the others in flight is heard before that is reported: each
//! topic that refuses is known to whoever comes next. A producer that hears nothing, though the brokers answer another client, is reported as
//! failed, and so is one whose oldest batch gets no answer, though others do; what goes to the topics of such
//! batches is sent apart from then on, by whoever comes next. Must not: do that while Kafka is away:
//! everything waits then. Fails: when it cannot be started.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::{Client, ClientContext};
use rdkafka::producer::{BaseProducer, Producer, PurgeConfig};

use crate::error::{Error, ErrorKind, Result};
use crate::metrics::beats::Pulse;
use crate::publish::kafka::callbacks::Context;
use crate::publish::kafka::clients::ProducerConfig;
use crate::publish::kafka::errors::replaced;
use crate::publish::kafka::stall::{
    BatchLateness, CONNECTED_FACTOR, Laggard, PATIENCE_MIN, Silence, Standstill,
};

/// The thread looks this often whether it should end. Each time it is busy for the last millisecond
/// of the timeout: librdkafka counts in whole ones, and the client polls on until the time is over.
const POLL_TIMEOUT: Duration = Duration::from_secs(1);
/// What is in flight when a record is refused is answered within this, as a rule.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// A topic is in doubt for so much longer than a producer may hear nothing.
const SUSPENSE_MORE: Duration = Duration::from_secs(15);
/// What a producer that ends has still to hear: what was purged.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// The same, while nobody takes its place before all is heard; in steps.
const LESSON_TIMEOUT: Duration = Duration::from_secs(5);
const LESSON_STEP: Duration = Duration::from_millis(20);
/// One question whether this client's brokers answer; no callback is served meanwhile.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// The same of a client that has yet to connect, on a machine that is busy.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What the thread works with.
struct PollThread {
    producer: Arc<BaseProducer<Context>>,
    config: ProducerConfig,
    ended: Arc<AtomicBool>,
    standstill: Standstill,
    laggard: Laggard,
    /// When the fate of any record was told.
    heard: Option<Instant>,
}

/// Polls until `ended`.
pub(super) fn start(
    name: &str,
    producer: Arc<BaseProducer<Context>>,
    config: &ProducerConfig,
    ended: Arc<AtomicBool>,
) -> Result<()> {
    let config = config.clone();
    let (standstill, laggard) = (Standstill::default(), Laggard::default());
    let mut poller = PollThread { producer, config, ended, standstill, laggard, heard: None };
    let threads = &poller.producer.context().figures().threads;
    let pulse = threads.expect(format!("poll-{name}"));
    std::thread::Builder::new()
        .name(format!("poll-{name}"))
        .spawn(move || poller.run(&pulse))
        .map(|_| ())
        .map_err(|cause| Error::new(ErrorKind::Internal, format!("no thread to poll: {cause}")))
}

impl PollThread {
    fn run(&mut self, pulse: &Pulse) {
        while !self.ended.load(Ordering::Acquire) {
            pulse.beat();
            self.producer.poll(POLL_TIMEOUT);
            let reports = &self.producer.context().reports;
            if let Some(cause) = self.producer.context().take_failure() {
                self.hear_out(REFUSAL_TIMEOUT);
                reports.end_failure(cause);
            }
            if !reports.has_failed() {
                self.look();
            }
        }
        self.producer.poll(LAST_WORDS);
    }

    /// Looks whether all that is on its way can arrive, and ends the producer if it cannot.
    fn look(&mut self) {
        if self.waits_in_vain() {
            let cause = "a topic takes nothing, nor does any other: Kafka may be away";
            return self.producer.context().reports.failed(replaced(cause.to_owned()));
        }
        let lateness = self.look_at_oldest();
        if lateness != BatchLateness::InTime
            && let Some(cause) = self.lost_leader()
        {
            return self.producer.context().reports.failed(cause);
        }
        if self.stands_still() {
            self.fail("nothing is acknowledged, though the brokers answer others");
        } else if lateness == BatchLateness::TooLate {
            self.give_up_oldest();
            self.fail("a batch is not acknowledged, though others are");
        }
    }

    /// Ends the producer. Which topics its successor has to be careful with is known before there is one.
    fn fail(&self, cause: &str) {
        let context = self.producer.context();
        if !context.reports.begin_failure() {
            return;
        }
        self.producer.purge(PurgeConfig::default().queue().inflight());
        self.hear_out(LESSON_TIMEOUT);
        context.reports.end_failure(replaced(cause.to_owned()));
    }

    /// Until the fate of all that is in flight is known, or for so long.
    fn hear_out(&self, timeout: Duration) {
        let begin = Instant::now();
        while self.producer.in_flight_count() > 0 && begin.elapsed() < timeout {
            self.producer.poll(LESSON_STEP);
        }
    }

    /// Whether a topic is in doubt, and nothing was taken from anybody for so long that whoever else takes nothing
    /// would have been found out.
    fn waits_in_vain(&self) -> bool {
        let (context, now) = (self.producer.context(), Instant::now());
        let suspense = &context.reports.suspense;
        let Some(since) = suspense.since() else { return false };
        let patience = context.learned_limits.patience(now) * CONNECTED_FACTOR + SUSPENSE_MORE;
        let is_long = now.saturating_duration_since(since) > patience;
        let taken =
            context.learned_limits.last_taken(now).filter(|taken| suspense.is_ended_by(*taken));
        let sign = taken.or_else(|| {
            let is_silent = is_long && self.producer.in_flight_count() == 0;
            (is_silent && suspense.is_ended_by_silence()).then_some(now)
        });
        if let Some(sign) = sign {
            context.learned_limits.decide_doubts(sign);
            context.reports.end_suspense();
        }
        is_long && sign.is_none()
    }

    /// How late the oldest batch is. Only where others were acknowledged meanwhile it is too late for it: without
    /// these, nothing is known of Kafka.
    fn look_at_oldest(&mut self) -> BatchLateness {
        let (context, now) = (self.producer.context(), Instant::now());
        let is_heard = self.heard.is_some_and(|heard| now.duration_since(heard) < PATIENCE_MIN);
        let others_go_on = is_heard && self.waits(now);
        let patience = context.learned_limits.patience(now);
        self.laggard.look(context.on_way.oldest_since(), others_go_on, patience, now)
    }

    /// The oldest batch is why the producer ends, or one of those that were sent soon after it.
    fn give_up_oldest(&self) {
        let (context, now) = (self.producer.context(), Instant::now());
        context.on_way.give_up(now.checked_sub(PATIENCE_MIN).unwrap_or(now));
        context.learned_limits.stood_still(now);
    }

    /// librdkafka waits for ever for a partition that has lost its leader, and no cursor moves past what it
    /// waits for. A producer that begins again finds the topic so, and holds it.
    fn lost_leader(&self) -> Option<Error> {
        let metadata = self.producer.client().fetch_metadata(None, ASK_TIMEOUT).ok()?;
        let cause = self.producer.context().lost_leader(&metadata)?;
        Some(replaced(format!("a record waits for very long, and {}", cause.message())))
    }

    /// Whether anything is to be heard of now: not while a quota keeps the brokers from reading what was sent.
    fn waits(&self, now: Instant) -> bool {
        self.producer.in_flight_count() > 0 && !self.producer.context().throttle.is_on(now)
    }

    /// Whether another producer would do better.
    fn stands_still(&mut self) -> bool {
        let (context, now) = (self.producer.context(), Instant::now());
        let has_heard = context.has_heard.swap(false, Ordering::Relaxed);
        if has_heard {
            self.heard = Some(now);
            // Here it costs the records nothing.
            context.learned_limits.last_taken(now);
        }
        let waits = self.waits(now);
        let patience = context.learned_limits.patience(now);
        let is_alone = match self.standstill.look(waits, has_heard, patience, now) {
            Silence::Short => false,
            Silence::Long => !has_brokers(self.producer.client(), ASK_TIMEOUT),
            Silence::TooLong => true,
        };
        let stands_still = is_alone && others_have_brokers(&self.config);
        if stands_still {
            context.learned_limits.stood_still(now);
            // A record for which each connection is cut looks like brokers that are lost, and takes along
            // whatever else is on its way.
            context.on_way.give_up(now);
        }
        stands_still
    }
}

/// Whether a client that knows nothing yet hears of brokers.
pub(super) fn others_have_brokers(config: &ProducerConfig) -> bool {
    let other = match config.asker() {
        Ok(other) => other,
        Err(error) => {
            tracing::warn!(cause = error.message(), "cannot create a client to probe the brokers");
            return false;
        }
    };
    has_brokers(other.client(), CONNECT_TIMEOUT)
}

/// Whether a broker answers, and says that there are any.
pub(super) fn has_brokers(client: &Client<impl ClientContext>, timeout: Duration) -> bool {
    client.fetch_metadata(None, timeout).is_ok_and(|metadata| !metadata.brokers().is_empty())
}
