//! A client beside the producer, which finds out what brokers take.
//!
//! Promises: the fate of each record is known in the end, and what was refused alone is told with the broker's own
//! words; where records are parts of transactions, nothing of what is tried stays. Must not: choose what goes where.
//! Fails: when the client cannot be made, or a record has no answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext, PurgeConfig};

use crate::error::{Error, ErrorKind, Result};
use crate::publish::kafka::clients::ProducerConfig;
use crate::publish::kafka::config::MESSAGE_BYTES_MAX;
use crate::publish::kafka::errors::unavailable;
use crate::publish::kafka::sizes::LARGEST_MESSAGE_BYTES;
use crate::publish::kafka::transactional_id::{TRANSACTIONAL_ID, take_id, transactional};
use crate::publish::kafka::verdict::{
    CodeVerdict, KeptOut, called_a_repeat, is_called_a_repeat, kept_out, unknown, words,
};
use crate::publish::kafka::way_fates::{Gathered, RecordFate, WayFates};
use crate::publish::{Company, Haste};

/// What differs from other producers. It may have one request in flight at a broker, and gives up after a
/// few tries; a broker that takes longer than this to answer may still append what it was sent: a repeat.
const PROPERTIES: &[(&str, &str)] = &[
    ("enable.idempotence", "false"),
    ("enable.gapless.guarantee", "false"),
    ("max.in.flight.requests.per.connection", "1"),
    ("retries", "3"),
    // A record for which a connection is cut is soon known.
    ("reconnect.backoff.max.ms", "500"),
    // Only librdkafka's log tells what a broker answered to a request that was tried again.
    ("debug", "msg"),
];
/// The same of one that is part of transactions: it can only do what idempotence allows. Nothing of it is ever
/// committed: it finds out what brokers take, and who reads committed records sees none of that.
const PROBING: &[(&str, &str)] = &[
    ("enable.gapless.guarantee", "false"),
    // A refusal ends all that is not on the wire yet: so each partition tells of its own.
    ("max.in.flight.requests.per.connection", "5"),
    // What is gathered is sent when it is confirmed: a refusal before that would keep out the rest of it.
    ("linger.ms", "1000"),
    ("reconnect.backoff.max.ms", "500"),
    ("debug", "msg"),
];
/// For so long after a refusal what is on the wire is waited for, where no more is sent.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// What a process that died has tried is ended by the coordinator so long after the last answer that it waited for.
const TRIAL_MARGIN: Duration = Duration::from_secs(5);
/// How long a broker's first answer is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the end of what was tried is waited for. Whoever has the id next ends it, too.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// A broker that refuses a record so many times, for a reason after which librdkafka tries again, goes on so.
const REFUSALS_MAX: u32 = 3;
/// How long a record may have no answer.
const MESSAGE_TIMEOUT: &str = "message.timeout.ms";
/// How librdkafka begins what no broker said.
const OWN: &str = "Local: ";
/// What it says of a request that had no answer when its connection ended.
const CUT: &str = "Local: Broker transport failure";
/// What it says of a partition with fewer copies in step than it asks for.
const TOO_FEW: &str = "Broker: Not enough in-sync replicas";

/// The settings of clients beside a producer with these, and how their transactional ids begin, where they only try
/// what is to be sent by another.
pub(super) fn beside(config: &ProducerConfig) -> (ProducerConfig, Option<String>) {
    let mut config = config.clone();
    let id = config.get(TRANSACTIONAL_ID).map(|id| format!("{id}-apart"));
    for (name, value) in if id.is_some() { PROBING } else { PROPERTIES } {
        config.set(name, *value);
    }
    config.set_log_level(RDKafkaLogLevel::Debug);
    config.set(MESSAGE_BYTES_MAX.0, LARGEST_MESSAGE_BYTES.to_string());
    (config, id)
}

/// How long a record is waited for. The longer its topic has had no answer, the less.
fn timeout(haste: Haste) -> Duration {
    Duration::from_secs(match haste {
        Haste::Calm => 10,
        Haste::Overdue => 4,
        Haste::Again => 2,
    })
}

/// A client with its connections: a topic that gets no answer there holds up no other one.
pub(super) struct SideClient {
    pub(super) client: Arc<BaseProducer<Answers>>,
    pub(super) haste: Haste,
    /// Where what was gathered goes.
    pub(super) topics: Vec<String>,
    pub(super) count: usize,
    trial: TrialState,
    pub(super) name: WayName,
}

/// Names a way among those that are there, for transactional ids of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WayName {
    pub(super) number: usize,
    turn: WayTurn,
}

/// Each way has two ids: right after a trial its end is not written everywhere, and its id is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WayTurn {
    First,
    Second,
}

impl WayName {
    /// Of a way that is there for the first time.
    pub(super) fn new(number: usize) -> Self {
        Self { number, turn: WayTurn::First }
    }

    /// Of the client that takes the place of the one of this name.
    pub(super) fn next(self) -> Self {
        let turn = match self.turn {
            WayTurn::First => WayTurn::Second,
            WayTurn::Second => WayTurn::First,
        };
        Self { turn, ..self }
    }

    /// A transactional id that begins so.
    fn id(self, prefix: &str) -> String {
        let Self { number, turn } = self;
        match turn {
            WayTurn::First => format!("{prefix}-{number}"),
            WayTurn::Second => format!("{prefix}-{number}-next"),
        }
    }
}

/// Whether what is sent is to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TrialState {
    /// It is.
    No,
    /// It is taken back: it only shows what brokers take.
    Open,
    /// All of it was taken, and taken back: the next one can begin.
    Between,
    /// It was taken back, or nobody knows whether it was: the client only answers questions.
    Ended,
}

impl SideClient {
    /// One for records of which the first goes to this topic.
    ///
    /// # Errors
    /// When it cannot be made, or its transactional id not be taken.
    pub(super) fn new(
        config: &ProducerConfig,
        id: Option<&String>,
        name: WayName,
        (topic, haste): (&str, Haste),
    ) -> Result<Self> {
        let (topics, mut trial) = (Vec::new(), TrialState::No);
        let id = id.map(|id| name.id(id));
        let mut config = match &id {
            None => config.clone(),
            Some(id) => transactional(config, id, timeout(haste) + TRIAL_MARGIN),
        };
        config.set(MESSAGE_TIMEOUT, timeout(haste).as_millis().to_string());
        let client = config.producer(Answers::default())?;
        if let Some(id) = &id {
            // Where no broker is connected when the id is asked for, it is asked for again half a second later.
            if let Err(cause) = client.client().fetch_watermarks(topic, 0, CONNECT_TIMEOUT) {
                tracing::debug!(%cause, id, "no leader has answered yet");
            }
            take_id(&*client, id)?;
            client.begin_transaction().map_err(|cause| unavailable(&cause, None))?;
            trial = TrialState::Open;
        }
        Ok(Self { client, haste, topics, count: 0, trial, name })
    }

    /// Something is to be sent.
    ///
    /// # Errors
    /// When no transaction can begin.
    pub(super) fn open(&mut self) -> Result<()> {
        if self.trial == TrialState::Between {
            self.client.begin_transaction().map_err(|cause| unavailable(&cause, None))?;
            self.trial = TrialState::Open;
        }
        Ok(())
    }

    pub(super) fn is_to_be_replaced(&self, haste: Haste) -> bool {
        self.count == 0 && (self.haste != haste || self.trial == TrialState::Ended)
    }

    pub(super) fn is_free_for(&self, haste: Haste) -> bool {
        self.count == 0 && self.haste == haste
    }
}

/// What the brokers answered, by the records' numbers.
#[derive(Default)]
pub(super) struct Answers {
    fates: Mutex<Vec<Option<RecordFate>>>,
    /// What a broker answered last, as the log has it.
    told: Mutex<Option<String>>,
    /// The partitions of which a broker called a record a repeat.
    misled: Mutex<HashSet<(String, i32)>>,
    /// How often a broker said no, by partition, and what it said last. After some reasons librdkafka tries again.
    refusals: Mutex<HashMap<(String, i32), PartitionRefusals>>,
}

/// What a broker said of a partition.
#[derive(Debug, Default)]
struct PartitionRefusals {
    count: u32,
    words: String,
}

impl SideClient {
    /// What became of all that was gathered for it, by their numbers, and whether that was one alone.
    pub(super) fn take_fates(&mut self) -> Result<WayFates> {
        self.topics.clear();
        let count = std::mem::take(&mut self.count);
        let company = if count == 1 { Company::Alone } else { Company::Others };
        let Some(mut fates) = self.client.context().take() else {
            return Err(Error::new(
                ErrorKind::DeliveryUncertain,
                "a record sent apart has no answer",
            ));
        };
        assert_eq!(fates.len(), count, "each record has one fate");
        let (told, mut words) = self.client.context().take_told();
        if self.trial == TrialState::No {
            words.clear();
        }
        let is_any_refused = fates.iter().any(|fate| matches!(fate, RecordFate::Refused { .. }));
        self.take_back(is_any_refused);
        if let ([RecordFate::Refused { words, verdict }], Some(told)) = (fates.as_mut_slice(), told)
        {
            (*words, *verdict) = explained(words, *verdict, &told);
        }
        Ok(WayFates { fates: fates.into_iter().map(Some).collect(), company, words })
    }

    /// Whether something was refused in a transaction: nothing more of it is sent.
    pub(super) fn is_broken_off(&self) -> bool {
        self.trial == TrialState::Open && self.client.context().is_any_refused()
    }

    /// It was broken off so long ago: what is on the wire may be answered yet.
    pub(super) fn give_up_refused(&self, ago: Duration) {
        let queued = PurgeConfig::default().queue();
        self.client.purge(if ago < LAST_ANSWERS { queued } else { queued.inflight() });
    }

    /// What was tried is not to stay. A client that met no refusal goes on: to make another one takes longer. After a
    /// refusal its count of what it has sent is not the broker's any more, and the next trial would fail for that. No
    /// late word that ends a trial does harm.
    fn take_back(&mut self, is_any_refused: bool) {
        if self.trial != TrialState::Open {
            return;
        }
        self.trial = match self.client.abort_transaction(END_TIMEOUT) {
            Ok(()) if !is_any_refused => TrialState::Between,
            Ok(()) => TrialState::Ended,
            Err(cause) => {
                tracing::debug!(%cause, "what was tried is ended by whoever tries next");
                TrialState::Ended
            }
        };
    }
}

impl Answers {
    fn fates(&self) -> MutexGuard<'_, Vec<Option<RecordFate>>> {
        lock(&self.fates)
    }

    pub(super) fn expect_one_more(&self) {
        self.fates().push(None);
    }

    pub(super) fn answer(&self, number: usize, cause: Option<&KafkaError>) {
        let fate = match cause {
            None => RecordFate::Appended,
            Some(cause) => {
                let verdict = CodeVerdict::of(cause.rdkafka_error_code());
                RecordFate::Refused { words: words(cause), verdict }
            }
        };
        self.fates()[number] = Some(fate);
    }

    /// A record is called delivered, and is at this offset of a partition.
    fn vouch(&self, number: usize, offset: i64, place: impl FnOnce() -> (String, i32)) {
        let mut misled = lock(&self.misled);
        if !is_called_a_repeat(offset) && misled.is_empty() {
            return self.answer(number, None);
        }
        let place = place();
        let is_of_repeats = is_called_a_repeat(offset) || misled.contains(&place);
        self.answer(number, is_of_repeats.then(called_a_repeat).as_ref());
        if is_of_repeats {
            misled.insert(place);
        }
    }

    /// Whether brokers have refused all that has no fate yet again and again: more tries tell nothing new.
    pub(super) fn are_all_refused<'a>(
        &self,
        gathered: impl Iterator<Item = &'a Gathered>,
        haste: Haste,
    ) -> bool {
        let (fates, refusals) = (self.fates(), lock(&self.refusals));
        let most = if haste == Haste::Again { 1 } else { REFUSALS_MAX };
        let mut open = fates.iter().zip(gathered).filter(|(fate, _)| fate.is_none()).peekable();
        let refusals_of = |one: &Gathered| {
            let known = refusals.get(&(one.topic.clone(), one.partition));
            known.map_or(0, |known| known.count)
        };
        open.peek().is_some() && open.all(|(_, one)| refusals_of(one) >= most)
    }

    fn is_any_refused(&self) -> bool {
        self.fates().iter().any(|fate| matches!(fate, Some(RecordFate::Refused { .. })))
    }

    /// What was said last, and what was said last of each partition.
    fn take_told(&self) -> (Option<String>, HashMap<(String, i32), String>) {
        let refusals = std::mem::take(&mut *lock(&self.refusals));
        let words = refusals.into_iter().map(|(place, known)| (place, known.words)).collect();
        (lock(&self.told).take(), words)
    }

    /// All of them; none if one is missing.
    fn take(&self) -> Option<Vec<RecordFate>> {
        std::mem::take(&mut *self.fates()).into_iter().collect()
    }
}

/// What a record was refused for that was alone, given what the log says of it.
fn explained(words: &str, verdict: CodeVerdict, told: &str) -> (String, CodeVerdict) {
    match (unknown(told), verdict) {
        (Some(code), _) => {
            (format!("code {code}, which librdkafka does not know"), CodeVerdict::Record)
        }
        (None, CodeVerdict::Away) if told == CUT => (words.to_owned(), CodeVerdict::Cut),
        // It was purged, as the coordinator let its topic into no transaction.
        (None, CodeVerdict::BrokenOff) if is_denied(told) => (told.to_owned(), CodeVerdict::Topic),
        // What librdkafka says of its own accord is nobody's answer.
        (None, CodeVerdict::Away) if !told.starts_with(OWN) => {
            let verdict = if told == TOO_FEW { CodeVerdict::TooFew } else { verdict };
            (format!("{words}; the last answer was: {told}"), verdict)
        }
        // It was given up here, as the same answer came again and again.
        (None, CodeVerdict::BrokenOff) if !told.starts_with(OWN) => {
            let verdict = if told == TOO_FEW { CodeVerdict::TooFew } else { CodeVerdict::Away };
            (format!("each time the answer was: {told}"), verdict)
        }
        (None, _) => (words.to_owned(), verdict),
    }
}

/// Whether this user may not write to the topic, as a broker says it.
fn is_denied(told: &str) -> bool {
    told == RDKafkaErrorCode::TopicAuthorizationFailed.to_string()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a line of librdkafka's log says that a broker answered to records.
fn answer_in(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(" encountered error: ")?;
    rest.split_once(" (actions ").map(|(words, _)| words)
}

/// To which partition such a line belongs.
fn partition_in(line: &str) -> Option<(String, i32)> {
    let (head, _) = line.split_once(": MessageSet with ")?;
    let (_, name) = head.rsplit_once(": ")?;
    let (topic, number) = name.rsplit_once(" [")?;
    Some((topic.to_owned(), number.strip_suffix(']')?.parse().ok()?))
}

impl ClientContext for Answers {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        if let Some(words) = answer_in(message) {
            if let (false, Some(partition)) = (words.starts_with(OWN), partition_in(message)) {
                let mut refusals = lock(&self.refusals);
                let known = refusals.entry(partition).or_default();
                known.count += 1;
                words.clone_into(&mut known.words);
            }
            *lock(&self.told) = Some(words.to_owned());
            tracing::debug!(target: "librdkafka", facility, message);
        } else if let Some(KeptOut { words, .. }) = kept_out(message) {
            *lock(&self.told) = Some(words.to_owned());
            tracing::debug!(target: "librdkafka", facility, message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason);
    }
}

impl ProducerContext for Answers {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        match result {
            Ok(message) => {
                let place = || (message.topic().to_owned(), message.partition());
                self.vouch(number, message.offset(), place);
            }
            Err((cause, _)) => self.answer(number, Some(cause)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_what_was_answered() {
        let line = "[thrd:b:1/1]: b:1/1: t [0]: MessageSet with 1 message(s) (MsgId 0, BaseSeq -1) \
                    encountered error: Err-999? (actions Permanent,MsgNotPersisted)";
        let told = answer_in(line).expect("there is one");
        let (words, verdict) = explained("NoError (Success)", CodeVerdict::BrokenOff, told);
        assert_eq!((verdict, words.contains("999")), (CodeVerdict::Record, true), "{words}");
        let denied = RDKafkaErrorCode::TopicAuthorizationFailed.to_string();
        let explanation = explained("Local: Purged in queue", CodeVerdict::BrokenOff, &denied);
        assert_eq!(explanation, (denied, CodeVerdict::Topic), "a purge says nothing by itself");
        let (words, verdict) = explained("timed out", CodeVerdict::Away, "Broker: Not leader");
        assert_eq!((verdict, words.contains("Not leader")), (CodeVerdict::Away, true), "{words}");
        let (words, verdict) = explained("timed out", CodeVerdict::Away, TOO_FEW);
        assert_eq!((verdict, words.contains("in-sync")), (CodeVerdict::TooFew, true), "{words}");
        let (words, verdict) = explained("timed out", CodeVerdict::Away, CUT);
        assert_eq!((verdict, words.as_str()), (CodeVerdict::Cut, "timed out"));
        let (words, verdict) = explained("timed out", CodeVerdict::Away, "Local: Timed out");
        assert_eq!((verdict, words.as_str()), (CodeVerdict::Away, "timed out"), "nobody answered");
        assert_eq!(answer_in("[thrd:b:1/1]: b:1/1: Connected"), None);
        assert_eq!(partition_in(line), Some(("t".to_owned(), 0)));
        let (words, verdict) = explained("purged", CodeVerdict::BrokenOff, "Broker: Not leader");
        assert_eq!((verdict, words.contains("Not leader")), (CodeVerdict::Away, true), "{words}");
        let (words, verdict) = explained("purged", CodeVerdict::BrokenOff, TOO_FEW);
        assert_eq!((verdict, words.contains("in-sync")), (CodeVerdict::TooFew, true), "{words}");
    }

    #[test]
    fn what_a_broker_calls_a_repeat_is_refused_with_all_that_comes_behind_it() {
        let answers = Answers::default();
        (0..4).for_each(|_| answers.expect_one_more());
        let place = |partition| move || ("t".to_owned(), partition);
        answers.vouch(0, 5, place(0));
        answers.vouch(1, -1, place(1));
        answers.vouch(2, 0, place(1));
        answers.vouch(3, 6, place(0));
        let fates = answers.take().expect("each has one");
        let is_refused = |fate: &RecordFate| *fate != RecordFate::Appended;
        assert_eq!(fates.iter().map(is_refused).collect::<Vec<_>>(), [false, true, true, false]);
        let RecordFate::Refused { words, verdict } = &fates[1] else { unreachable!("it is") };
        assert!(words.contains("uplicate") && *verdict == CodeVerdict::Unclear, "{words}");
    }

    #[test]
    fn what_is_refused_again_and_again_is_not_waited_for_where_nothing_else_is() {
        let one = |topic: &str| Gathered { topic: topic.to_owned(), partition: 0, bytes: 9 };
        let (gathered, answers) = ([one("t"), one("u")], Answers::default());
        let refuse = |topic: &str| {
            let line = format!(
                "[thrd:b]: b/1: {topic} [0]: MessageSet with 1 message(s) (MsgId 0, BaseSeq -1) \
                 encountered error: Broker: Not leader (actions Refresh,Retry)"
            );
            answers.log(RDKafkaLogLevel::Debug, "MSGSET", &line);
        };
        assert!(!answers.are_all_refused(gathered.iter(), Haste::Calm), "nothing was sent");
        gathered.iter().for_each(|_| answers.expect_one_more());
        (0..REFUSALS_MAX).for_each(|_| refuse("t"));
        assert!(
            !answers.are_all_refused(gathered.iter(), Haste::Calm),
            "the other one may be answered yet"
        );
        answers.answer(1, None);
        assert!(answers.are_all_refused(gathered.iter(), Haste::Calm));
        answers.take_told();
        assert!(!answers.are_all_refused(gathered.iter(), Haste::Calm));
    }
}
