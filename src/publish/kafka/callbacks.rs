//! What librdkafka calls back: acknowledgements, refusals, trouble.
//!
//! Promises: each record's fate is reported once; what a refusal teaches is kept for the producer that
//! comes next. Must not: block the thread that polls.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use hashbrown::HashSet;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::metadata::Metadata;
use rdkafka::producer::ProducerContext;

use crate::error::{Error, ErrorKind, Result};
use crate::metrics::counters::Figures;
use crate::publish::in_flight_batch::AppendedAt;
use crate::publish::kafka::clients::LoginSource;
use crate::publish::kafka::errors::{Trouble, refused};
use crate::publish::kafka::in_flight::OnWay;
use crate::publish::kafka::learned_limits::LearnedLimits;
use crate::publish::kafka::producer::Warnings;
use crate::publish::kafka::quota::Throttle;
use crate::publish::kafka::topic_list::Listing;
use crate::publish::kafka::verdict::{
    CodeVerdict, KeptOut, called_a_repeat, is_called_a_repeat, kept_out, refused_by_unknown,
};
use crate::publish::{InFlightBatch, Reports};

/// Producers that fail within so long of each other fail for what was sent together.
const AGAIN: Duration = Duration::from_secs(10);
/// The same where each one first takes its id, ends what was open, and reads how far that led.
const AGAIN_IN_TRANSACTIONS: Duration = Duration::from_secs(40);
/// Under this name librdkafka logs which partitions were not let into a transaction.
const ADD_PARTITIONS: &str = "ADDPARTS";

/// A shorter pause is no trouble.
const QUOTA_PAUSE: Duration = Duration::from_secs(1);

/// Callbacks of one producer, called on the thread that polls it.
pub(super) struct Context {
    pub(super) reports: Reports,
    /// What librdkafka said last.
    pub(super) trouble: Mutex<Option<Trouble>>,
    /// Why the producer is no longer usable, until that is reported.
    pub(super) failure: Mutex<Option<Error>>,
    /// The one before it failed as well, a moment ago.
    pub(super) has_failed_again: AtomicBool,
    pub(super) warnings: Arc<Warnings>,
    pub(super) learned_limits: Arc<LearnedLimits>,
    /// A record's fate was told since this was last looked at.
    pub(super) has_heard: AtomicBool,
    /// Topics that were found usable, to which records may be on their way.
    pub(super) met: Mutex<HashSet<String>>,
    pub(super) waiting_for_space: AtomicBool,
    pub(super) space: Sender<()>,
    /// Bytes of a batch, as the producer was made.
    pub(super) batch_bytes: usize,
    pub(super) on_way: OnWay,
    pub(super) throttle: Throttle,
    pub(super) login: Option<LoginSource>,
    pub(super) is_transactional: bool,
    /// The producer's transaction is over, as another one has its id or its time was up.
    pub(super) is_fenced: AtomicBool,
    /// It is known for which topic that was answered first.
    pub(super) has_learnt_of_fence: AtomicBool,
    /// When the coordinator ends the producer's transaction, whatever is in it.
    pub(super) transaction_expires: Mutex<Option<Instant>>,
    /// A record was called delivered that a broker called a repeat: what is called so from then on may be of its batch.
    pub(super) is_misled: AtomicBool,
    /// The producer is done with: what it still held is purged, and that is no trouble.
    pub(super) ended: Arc<AtomicBool>,
}

impl Context {
    /// What a refused record teaches the producer that comes next. All records of a batch teach the same.
    fn learn(&self, cause: &KafkaError, topic: &str, batch: &Arc<InFlightBatch>) {
        let (code, now) = (cause.rdkafka_error_code(), Instant::now());
        if self.note_fence(code) {
            return self.learn_of_fence(code, topic, now);
        }
        match CodeVerdict::of(code) {
            // No record of it was refused, but one of them may be why nothing was answered.
            CodeVerdict::BrokenOff if self.on_way.is_given_up(batch) => {
                return self.learned_limits.overdue(topic, now);
            }
            // Topic after topic refuses what was sent together, and a producer hears of a few only: no other one is
            // to fail for the rest.
            CodeVerdict::BrokenOff if self.has_failed_again.load(Ordering::Relaxed) => {}
            CodeVerdict::BrokenOff => return,
            CodeVerdict::Away if !CodeVerdict::is_told(code) => return,
            CodeVerdict::Size => {
                self.learned_limits.with_sizes(|sizes| sizes.refused_batch(self.batch_bytes, now));
            }
            CodeVerdict::Topic => {
                let error = refused(cause, topic);
                self.learned_limits.refused_topic(topic, error.message(), now);
            }
            CodeVerdict::Away
            | CodeVerdict::Cut
            | CodeVerdict::TooFew
            | CodeVerdict::Unclear
            | CodeVerdict::Record
            | CodeVerdict::Beside => {}
        }
        self.learned_limits.suspect(topic, now);
    }

    /// Takes note of the end of the producer's transaction; whether it has ended so that no refusal says anything.
    fn note_fence(&self, code: Option<RDKafkaErrorCode>) -> bool {
        if self.is_transactional && CodeVerdict::is_fence(code) {
            self.is_fenced.store(true, Ordering::Relaxed);
        }
        self.is_fenced.load(Ordering::Relaxed)
    }

    /// A transaction has begun, which its coordinator ends then.
    pub(super) fn note_transaction(&self, expires: Instant) {
        *self.transaction_expires.lock().unwrap_or_else(PoisonError::into_inner) = Some(expires);
    }

    fn is_transaction_expired(&self, now: Instant) -> bool {
        let expires = *self.transaction_expires.lock().unwrap_or_else(PoisonError::into_inner);
        expires.is_some_and(|expires| expires <= now)
    }

    /// The first record that is answered so, of a producer's, says nothing yet. Where transaction after transaction ends for
    /// what goes to one topic, it may be a record that is always answered so. One whose time was over was ended for that alone.
    fn learn_of_fence(&self, code: Option<RDKafkaErrorCode>, topic: &str, now: Instant) {
        if CodeVerdict::is_fence(code)
            && !self.is_transaction_expired(now)
            && !self.has_learnt_of_fence.swap(true, Ordering::Relaxed)
            && self.learned_limits.fenced(topic, now, AGAIN_IN_TRANSACTIONS)
        {
            self.learned_limits.suspect(topic, now);
        }
    }

    /// What a topic that is kept out of transactions teaches the producer that comes next.
    fn note_kept_out(&self, KeptOut { topic, code, .. }: KeptOut<'_>) {
        let (learned_limits, now) = (&self.learned_limits, Instant::now());
        if let Some(code) = code {
            let error = refused(&KafkaError::MessageProduction(code), topic);
            learned_limits.refused_topic(topic, error.message(), now);
        }
        learned_limits.suspect(topic, now);
    }

    /// A record is called delivered, and is at this offset.
    fn vouch<'a>(
        &self,
        at: AppendedAt,
        topic: impl FnOnce() -> &'a str,
        batch: &Arc<InFlightBatch>,
    ) {
        if is_called_a_repeat(at.offset) {
            self.is_misled.store(true, Ordering::Relaxed);
            return self.refuse(&called_a_repeat(), topic(), batch);
        }
        if self.is_misled.load(Ordering::Relaxed) {
            return;
        }
        self.learned_limits.note_taken();
        batch.note_appended(at);
        self.reports.acknowledged(batch);
    }

    /// A record was refused, or its fate is unknown.
    fn refuse(&self, cause: &KafkaError, topic: &str, batch: &Arc<InFlightBatch>) {
        self.figures().kafka_errors.add(&code_name(cause.rdkafka_error_code()), 1);
        self.learn(cause, topic, batch);
        self.fail(refused(cause, topic));
    }

    /// Nothing more is sent from here on. Why, is reported by the thread that polls, once it has heard what
    /// became of all that is in flight: others may be refused, too.
    fn fail(&self, error: Error) {
        if self.reports.begin_failure() {
            let within = if self.is_transactional { AGAIN_IN_TRANSACTIONS } else { AGAIN };
            let is_again = !self.is_fenced.load(Ordering::Relaxed)
                && self.learned_limits.failed(Instant::now(), within);
            self.has_failed_again.store(is_again, Ordering::Relaxed);
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }

    pub(super) fn take_failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The publishing thread waits, and is alive.
    pub(super) fn beat(&self) {
        self.reports.gauge().pulse.beat();
    }

    /// What all shards count together.
    pub(super) fn figures(&self) -> &Figures {
        &self.reports.gauge().shard.instance
    }

    pub(super) fn check_alive(&self) -> Result<()> {
        if self.reports.has_failed() {
            return Err(Error::new(ErrorKind::DeliveryUncertain, "the producer has failed"));
        }
        Ok(())
    }

    pub(super) fn note_met(&self, topic: &str) {
        self.met
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(topic, str::to_owned);
    }

    /// Why one of the topics that were met can take no record now, if there is such a one.
    pub(super) fn lost_leader(&self, metadata: &Metadata) -> Option<Error> {
        let (met, listing) =
            (self.met.lock().unwrap_or_else(PoisonError::into_inner), Listing::of(metadata));
        met.iter().find_map(|topic| listing.get(topic)?.err())
    }

    pub(super) fn last_trouble(&self) -> Option<Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Causes are told apart by librdkafka's code: its words differ from one attempt to the next.
    fn note_trouble(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        {
            let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            // That all brokers are away is what follows from the trouble, and says less.
            if trouble.is_none() || code != Some(RDKafkaErrorCode::AllBrokersDown) {
                *trouble = Some(Trouble { code, reason: reason.to_owned() });
            }
        }
        self.figures().kafka_errors.add(&code_name(code), 1);
        if code != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.figures().note_trouble(reason);
        }
        let cause = format!("librdkafka: {code:?}");
        if let Some(unsaid) = self.warnings.note(&cause, Instant::now()) {
            tracing::warn!(reason, unsaid, "trouble with Kafka; librdkafka retries");
        }
    }
}

/// As librdkafka's binding names it.
fn code_name(code: Option<RDKafkaErrorCode>) -> String {
    code.map_or_else(|| "unknown".to_owned(), |code| format!("{code:?}"))
}

impl ClientContext for Context {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, message);
        if facility == ADD_PARTITIONS
            && let Some(kept_out) = kept_out(message)
        {
            self.note_kept_out(kept_out);
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let now = Instant::now();
        if let Some(pause) = self.throttle.told(statistics, now)
            && pause > QUOTA_PAUSE
            && let Some(unsaid) = self.warnings.note("quota", now)
        {
            self.figures().note_trouble("a quota of the brokers holds the producer up");
            tracing::warn!(
                pause_ms = pause.as_millis() as u64,
                unsaid,
                remedy =
                    "raise producer_byte_rate for this user and client.id, if that is too slow",
                "a quota of the brokers holds the producer up: events are published more slowly"
            );
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if self.ended.load(Ordering::Acquire) {
            tracing::debug!(target: "librdkafka", %error, reason);
            return;
        }
        if let (Some(RDKafkaErrorCode::Authentication), Some(login)) =
            (error.rdkafka_error_code(), &self.login)
        {
            login.doubt();
        }
        self.note_fence(error.rdkafka_error_code());
        if let Some(topic) = refused_by_unknown(reason) {
            self.learned_limits.suspect(topic, Instant::now());
        }
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.fail(Error::new(
                ErrorKind::DeliveryUncertain,
                format!("the producer failed: {reason}"),
            ));
        } else {
            self.note_trouble(&error, reason);
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<InFlightBatch>;

    fn delivery(&self, result: &DeliveryResult<'_>, batch: Arc<InFlightBatch>) {
        self.has_heard.store(true, Ordering::Relaxed);
        match result {
            Ok(message) => {
                let (partition, offset) = (message.partition(), message.offset());
                self.vouch(AppendedAt { partition, offset }, || message.topic(), &batch);
            }
            Err((cause, message)) => self.refuse(cause, message.topic(), &batch),
        }
        if self.waiting_for_space.load(Ordering::Relaxed) && self.space.try_send(()).is_err() {
            tracing::trace!("the wake-up is there already");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::counters::PublisherGauge;
    use crate::order::ledger::BatchNumber;
    use crate::publish::kafka::producer::WARNING_PAUSE;

    /// Of a producer that is part of transactions, where one has failed a moment ago.
    fn context() -> Context {
        let (sender, _reports) = crossbeam_channel::bounded(1);
        let (space, _woken) = crossbeam_channel::bounded(1);
        let gauge = PublisherGauge::new("0", Arc::default());
        Context {
            reports: Reports::new(sender, Arc::default(), gauge),
            trouble: Mutex::default(),
            failure: Mutex::default(),
            has_failed_again: AtomicBool::new(true),
            warnings: Arc::new(Warnings::new(WARNING_PAUSE)),
            learned_limits: Arc::new(LearnedLimits::new(&[])),
            has_heard: AtomicBool::new(false),
            met: Mutex::default(),
            waiting_for_space: AtomicBool::new(false),
            space,
            batch_bytes: 1,
            on_way: OnWay::default(),
            throttle: Throttle::default(),
            login: None,
            is_transactional: true,
            is_fenced: AtomicBool::new(false),
            has_learnt_of_fence: AtomicBool::new(false),
            transaction_expires: Mutex::default(),
            is_misled: AtomicBool::new(false),
            ended: Arc::default(),
        }
    }

    /// A record for this topic was refused so.
    fn refuse(context: &Context, code: RDKafkaErrorCode, topic: &str) {
        let batch = Arc::new(InFlightBatch::new(BatchNumber(0), 1, Instant::now()));
        context.learn(&KafkaError::MessageProduction(code), topic, &batch);
    }

    fn suspects(context: &Context) -> Vec<String> {
        context.learned_limits.suspects(Instant::now())
    }

    #[test]
    fn the_end_of_a_transaction_says_nothing_of_a_topic() {
        let purged = RDKafkaErrorCode::PurgeQueue;
        for fence in [RDKafkaErrorCode::InvalidProducerEpoch, RDKafkaErrorCode::Fenced] {
            let context = context();
            refuse(&context, fence, "t");
            refuse(&context, purged, "u");
            assert_eq!(suspects(&context), [""; 0], "{fence}");
            let told = self::context();
            ClientContext::error(&told, KafkaError::Global(fence), "fenced by a newer instance");
            refuse(&told, purged, "u");
            assert_eq!(suspects(&told), [""; 0], "{fence}");
        }
        let context = context();
        refuse(&context, purged, "u");
        assert_eq!(suspects(&context), ["u"], "any of those that were purged may be why");
    }

    #[test]
    fn a_transaction_whose_time_is_over_says_nothing_of_a_topic_however_often_it_ends() {
        let learned_limits = Arc::new(LearnedLimits::new(&[]));
        for _ in 0..3 {
            let context = Context { learned_limits: Arc::clone(&learned_limits), ..context() };
            context.note_transaction(Instant::now());
            refuse(&context, RDKafkaErrorCode::InvalidProducerEpoch, "t");
            assert_eq!(suspects(&context), [""; 0]);
        }
    }

    /// Each producer of a row, which knows what was learnt before it, is answered so.
    #[test]
    fn a_topic_for_whose_sake_transaction_after_transaction_ends_is_suspected() {
        let learned_limits = Arc::new(LearnedLimits::new(&[]));
        let fence = RDKafkaErrorCode::InvalidProducerEpoch;
        let mut suspected = Vec::new();
        for topic in ["t", "u", "u"] {
            let context = Context { learned_limits: Arc::clone(&learned_limits), ..context() };
            // All records of a batch are answered alike.
            (0..2).for_each(|_| refuse(&context, fence, topic));
            refuse(&context, RDKafkaErrorCode::PurgeQueue, "v");
            suspected.push(suspects(&context));
        }
        assert_eq!(suspected, [vec![], vec![], vec!["u".to_owned()]]);
    }

    #[test]
    fn what_a_broker_calls_a_repeat_is_not_delivered_nor_is_what_comes_with_it() {
        let (context, now) = (context(), Instant::now());
        let batch = Arc::new(InFlightBatch::new(BatchNumber(0), 4, now).that_is_located());
        let vouch = |offset| {
            let at = AppendedAt { partition: 0, offset };
            context.vouch(at, || "t", &batch);
        };
        // Acknowledged by what came later, as librdkafka says it, or by its own answer.
        [-1_001, 7].into_iter().for_each(vouch);
        assert!(!context.reports.has_failed() && suspects(&context).is_empty());
        // A batch of two: the first is where the broker said, which is nowhere, and the second behind it.
        [-1, 0].into_iter().for_each(vouch);
        assert!(context.reports.has_failed() && !batch.is_done());
        assert_eq!(suspects(&context), ["t"]);
        assert_eq!(batch.appended().len(), 2, "those before it");
    }

    #[test]
    fn a_topic_that_is_kept_out_of_a_transaction_is_known_by_name() {
        let context = context();
        let denied = RDKafkaErrorCode::TopicAuthorizationFailed.to_string();
        let line = format!("Failed to add partition \"t\" [0] to transaction: {denied}");
        ClientContext::log(&context, RDKafkaLogLevel::Error, ADD_PARTITIONS, &line);
        assert_eq!(suspects(&context), ["t"]);
        let refused = context.learned_limits.is_refused("t", Instant::now());
        assert!(refused.is_some_and(|detail| detail.contains('t')), "it is left alone for a while");
    }
}
