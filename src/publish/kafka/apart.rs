//! Sends records apart from all others, to find the one that a broker refuses.
//!
//! Promises: what is gathered is sent together, and each record's fate is known, one way or the other, before
//! anything else is sent; a refusal costs no more than itself. Must not: keep an order among what is gathered:
//! the caller gathers one record of an aggregate at most, and nothing of the topic is in flight elsewhere.
//! Fails: when the client cannot be made, or the shard has gone.
//!
//! Why clients of its own: after a refusal a gapless producer is no longer usable, and everything that it had
//! in flight is sent again. These promise no order, need none, and go on. They try a few times and not
//! for ever, so that a record that brokers never answer is told from a broker that never answers. Each topic has one to
//! itself as long as there are enough: what waits for an answer holds up all that goes the same way.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::metadata::{MetadataBroker, MetadataTopic};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};

use crate::error::{Error, ErrorKind, Result};
use crate::publish::kafka::clients::ProducerConfig;
use crate::publish::kafka::config::{BROKERS, MESSAGE_BYTES_MAX};
use crate::publish::kafka::poll_thread;
use crate::publish::kafka::sizes::LARGEST_MESSAGE_BYTES;
use crate::publish::kafka::verdict::{CodeVerdict, unknown, words};
use crate::publish::{Company, Haste, WAYS_MAX};

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
/// A broker that refuses a record so many times, for a reason after which librdkafka tries again, goes on so.
const REFUSALS_MAX: u32 = 3;
/// Waiting for answers goes in steps, shared by all ways.
const STEP: Duration = Duration::from_millis(20);
const STEP_MIN: Duration = Duration::from_millis(2);
/// How long a record may have no answer.
const MESSAGE_TIMEOUT: &str = "message.timeout.ms";
/// One question to the leader of a partition.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// How librdkafka begins what no broker said.
const OWN: &str = "Local: ";
/// What it says of a request that had no answer when its connection ended.
const CUT: &str = "Local: Broker transport failure";
/// What it says of a partition with fewer copies in step than it asks for.
const TOO_FEW: &str = "Broker: Not enough in-sync replicas";

/// How long a record is waited for. The longer its topic has had no answer, the less.
fn timeout(haste: Haste) -> Duration {
    Duration::from_secs(match haste {
        Haste::Calm => 10,
        Haste::Overdue => 4,
        Haste::Again => 2,
    })
}

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RecordFate {
    /// It is in Kafka.
    Appended,
    /// It is not, or nobody knows: what was said, and whose trouble it is.
    Refused { words: String, verdict: CodeVerdict },
}

/// A record that was gathered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gathered {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) bytes: usize,
}

/// A record of the producer with the number that it has here.
pub(super) type ApartRecord<'a> = BaseRecord<'a, str, [u8], usize>;

/// Sends apart; each way is made when the first record needs it.
pub(super) struct Apart {
    config: ProducerConfig,
    ways: Vec<SideClient>,
    /// Which way a topic went last.
    homes: HashMap<String, usize>,
    gathered: Vec<(Gathered, Place)>,
    /// How many records went through, by partition.
    appended: HashMap<(String, i32), u64>,
    /// How many of these did with what was sent last.
    appended_last: HashMap<(String, i32), u64>,
    /// How long it took to know the fate of what was sent last.
    last_took: Duration,
}

/// Where a record goes: its way, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    way: usize,
    pub(super) number: usize,
}

/// A client with its connections: a topic that gets no answer there holds up no other one.
struct SideClient {
    client: Arc<BaseProducer<Answers>>,
    haste: Haste,
    /// Where what was gathered goes.
    topics: Vec<String>,
    count: usize,
}

impl SideClient {
    fn new(config: &ProducerConfig, haste: Haste) -> Result<Self> {
        let mut config = config.clone();
        config.set(MESSAGE_TIMEOUT, timeout(haste).as_millis().to_string());
        let client = config.producer(Answers::default())?;
        Ok(Self { client, haste, topics: Vec::new(), count: 0 })
    }

    fn is_free_for(&self, haste: Haste) -> bool {
        self.count == 0 && self.haste == haste
    }
}

impl Apart {
    /// Sends with the connection settings of another producer.
    pub(super) fn new(config: &ProducerConfig) -> Self {
        let mut config = config.clone();
        for (name, value) in PROPERTIES {
            config.set(name, *value);
        }
        config.set_log_level(RDKafkaLogLevel::Debug);
        config.set(MESSAGE_BYTES_MAX.0, LARGEST_MESSAGE_BYTES.to_string());
        Self {
            config,
            ways: Vec::new(),
            homes: HashMap::new(),
            gathered: Vec::new(),
            appended: HashMap::new(),
            appended_last: HashMap::new(),
            last_took: Duration::ZERO,
        }
    }

    /// How many records are gathered.
    pub(super) fn count(&self) -> usize {
        self.gathered.len()
    }

    /// The place of the next record for this topic. As long as there are ways that nobody goes, it has one of
    /// its own.
    pub(super) fn place(&mut self, topic: &str, haste: Haste) -> Result<Place> {
        let way = self.choose(topic, haste);
        if way == self.ways.len() {
            self.ways.push(SideClient::new(&self.config, haste)?);
        } else if self.ways[way].count == 0 && self.ways[way].haste != haste {
            self.ways[way] = SideClient::new(&self.config, haste)?;
        }
        self.homes.insert(topic.to_owned(), way);
        let chosen = &mut self.ways[way];
        if !chosen.topics.iter().any(|known| known == topic) {
            chosen.topics.push(topic.to_owned());
        }
        chosen.count += 1;
        Ok(Place { way, number: chosen.count - 1 })
    }

    /// The one that the topic goes already, or went before, or one that nobody goes; of these one that waits as long.
    fn choose(&self, topic: &str, haste: Haste) -> usize {
        let home = self.homes.get(topic).and_then(|home| Some((*home, self.ways.get(*home)?)));
        if let Some((home, way)) = home
            && (way.topics.iter().any(|at| at == topic) || way.is_free_for(haste))
        {
            return home;
        }
        let like = self.ways.iter().position(|way| way.is_free_for(haste));
        like.unwrap_or_else(|| {
            if self.ways.len() < WAYS_MAX {
                return self.ways.len();
            }
            let free = self.ways.iter().position(|way| way.count == 0);
            free.unwrap_or(self.gathered.len() % WAYS_MAX)
        })
    }

    /// Takes a record over; `record` has its number as its opaque.
    pub(super) fn gather(&mut self, one: Gathered, place: Place, record: ApartRecord<'_>) {
        let client = &self.ways[place.way].client;
        self.gathered.push((one, place));
        client.context().expect_one_more();
        if let Err((cause, _)) = client.send(record) {
            client.context().answer(place.number, Some(&cause));
        }
    }

    /// Sends what was gathered, and waits until the fate of each record is known, in their order.
    pub(super) fn confirm(
        &mut self,
        check_alive: impl Fn() -> Result<()>,
    ) -> Result<Vec<(Gathered, RecordFate, Company)>> {
        let (gathered, began) = (std::mem::take(&mut self.gathered), Instant::now());
        self.wait_for_answers(&gathered, check_alive)?;
        self.last_took = began.elapsed();
        let mut answered = Vec::with_capacity(self.ways.len());
        for way in &mut self.ways {
            answered.push(way.take_fates()?);
        }
        let told: Vec<(Gathered, RecordFate, Company)> = gathered
            .into_iter()
            .map(|(one, place)| {
                let (fates, company) = &mut answered[place.way];
                let fate = fates[place.number].take().expect("each record has one fate");
                (one, fate, *company)
            })
            .collect();
        self.take_note(&told);
        Ok(told)
    }

    fn wait_for_answers(
        &self,
        gathered: &[(Gathered, Place)],
        check_alive: impl Fn() -> Result<()>,
    ) -> Result<()> {
        let used: Vec<(usize, &SideClient)> =
            self.ways.iter().enumerate().filter(|(_, way)| way.count > 0).collect();
        let Ok(many) = u32::try_from(used.len().max(1)) else { unreachable!("ways are few") };
        let step = (STEP / many).max(STEP_MIN);
        loop {
            let mut is_any_open = false;
            for (number, way) in &used {
                if way.client.flush(step).is_ok() {
                    continue;
                }
                is_any_open = true;
                let here = gathered.iter().filter(|(_, place)| place.way == *number);
                if way.client.context().are_all_refused(here.map(|(one, _)| one), way.haste) {
                    // What is on the wire is waited for.
                    way.client.purge(PurgeConfig::default().queue());
                }
            }
            if !is_any_open {
                return Ok(());
            }
            check_alive()?;
        }
    }

    /// How long it took to know the fate of what was sent last.
    pub(super) fn last_took(&self) -> Duration {
        self.last_took
    }

    fn take_note(&mut self, told: &[(Gathered, RecordFate, Company)]) {
        let mut denied = HashSet::new();
        self.appended_last.clear();
        for (one, fate, _) in told {
            match fate {
                RecordFate::Appended => {
                    let place = (one.topic.clone(), one.partition);
                    *self.appended_last.entry(place.clone()).or_default() += 1;
                    *self.appended.entry(place).or_default() += 1;
                }
                RecordFate::Refused { verdict: CodeVerdict::Topic, .. } => {
                    denied.extend(self.homes.remove(&one.topic));
                }
                RecordFate::Refused { .. } => {}
            }
        }
        // librdkafka lets nothing pass to a topic of which it was told so, whatever the record.
        if !denied.is_empty() {
            self.homes.clear();
            let mut number = 0;
            self.ways.retain(|_| {
                number += 1;
                !denied.contains(&(number - 1))
            });
        }
    }

    /// How many records went through to this partition.
    pub(super) fn appended(&self, topic: &str, partition: i32) -> u64 {
        self.appended.get(&(topic.to_owned(), partition)).copied().unwrap_or_default()
    }

    /// The same, before what was sent last.
    pub(super) fn appended_before(&self, topic: &str, partition: i32) -> u64 {
        let last = self.appended_last.get(&(topic.to_owned(), partition)).copied();
        self.appended(topic, partition) - last.unwrap_or_default()
    }

    /// Whether the partition's leader answers.
    pub(super) fn leader_answers(&self, topic: &str, partition: i32) -> bool {
        let client = self.client_for(topic).map(|client| client.client());
        client.is_some_and(|client| client.fetch_watermarks(topic, partition, ASK_TIMEOUT).is_ok())
    }

    fn client_for(&self, topic: &str) -> Option<&BaseProducer<Answers>> {
        let home = self.homes.get(topic).and_then(|home| self.ways.get(*home));
        home.or_else(|| self.ways.first()).map(|way| &*way.client)
    }

    /// Whether no broker is away that the topic needs: all its copies are in step, and each broker that has
    /// one answers by itself. What one of them says of the others may be old.
    pub(super) fn is_whole(&self, topic: &str) -> bool {
        let Some(client) = self.client_for(topic).map(|client| client.client()) else {
            return false;
        };
        client.fetch_metadata(Some(topic), ASK_TIMEOUT).is_ok_and(|metadata| {
            let topics = metadata.topics().iter().filter(|found| found.name() == topic);
            let partitions: Vec<_> = topics.flat_map(MetadataTopic::partitions).collect();
            let ids = partitions.iter().flat_map(|found| found.replicas().iter().copied());
            let needed: HashSet<i32> = ids.collect();
            let broker = |id: &i32| metadata.brokers().iter().find(|broker| broker.id() == *id);
            !needed.is_empty()
                && partitions.iter().all(|found| found.isr().len() == found.replicas().len())
                && needed.iter().all(|id| broker(id).is_some_and(|one| self.answers(one)))
        })
    }

    fn answers(&self, broker: &MetadataBroker) -> bool {
        let host = broker.host();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let mut config = self.config.clone();
        config.set(BROKERS, format!("{host}:{}", broker.port()));
        poll_thread::others_have_brokers(&config)
    }

    /// Nothing is to be sent apart for now.
    pub(super) fn rest(&mut self) {
        self.ways.clear();
        self.homes.clear();
        self.appended.clear();
        self.appended_last.clear();
    }
}

/// What the brokers answered, by the records' numbers.
#[derive(Default)]
struct Answers {
    fates: Mutex<Vec<Option<RecordFate>>>,
    /// What a broker answered last, as the log has it.
    told: Mutex<Option<String>>,
    /// How often a broker said no, by partition, and gave a reason after which librdkafka tries again.
    refusals: Mutex<HashMap<(String, i32), u32>>,
}

impl SideClient {
    /// What became of all that was gathered for it, by their numbers, and whether that was one alone.
    fn take_fates(&mut self) -> Result<(Vec<Option<RecordFate>>, Company)> {
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
        let told = self.client.context().take_told();
        if let ([RecordFate::Refused { words, verdict }], Some(told)) = (fates.as_mut_slice(), told)
        {
            (*words, *verdict) = explained(words, *verdict, &told);
        }
        Ok((fates.into_iter().map(Some).collect(), company))
    }
}

impl Answers {
    fn fates(&self) -> MutexGuard<'_, Vec<Option<RecordFate>>> {
        lock(&self.fates)
    }

    fn expect_one_more(&self) {
        self.fates().push(None);
    }

    fn answer(&self, number: usize, cause: Option<&KafkaError>) {
        let fate = match cause {
            None => RecordFate::Appended,
            Some(cause) => {
                let verdict = CodeVerdict::of(cause.rdkafka_error_code());
                RecordFate::Refused { words: words(cause), verdict }
            }
        };
        self.fates()[number] = Some(fate);
    }

    /// Whether brokers have refused all that has no fate yet again and again: more tries tell nothing new.
    fn are_all_refused<'a>(
        &self,
        gathered: impl Iterator<Item = &'a Gathered>,
        haste: Haste,
    ) -> bool {
        let (fates, refusals) = (self.fates(), lock(&self.refusals));
        let most = if haste == Haste::Again { 1 } else { REFUSALS_MAX };
        let mut open = fates.iter().zip(gathered).filter(|(fate, _)| fate.is_none()).peekable();
        let refusals_of = |one: &Gathered| {
            refusals.get(&(one.topic.clone(), one.partition)).copied().unwrap_or_default()
        };
        open.peek().is_some() && open.all(|(_, one)| refusals_of(one) >= most)
    }

    fn take_told(&self) -> Option<String> {
        lock(&self.refusals).clear();
        lock(&self.told).take()
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
                *lock(&self.refusals).entry(partition).or_default() += 1;
            }
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
        self.answer(number, result.as_ref().err().map(|(cause, _)| cause));
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
