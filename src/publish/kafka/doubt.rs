//! Which records a Kafka producer sends apart, and what their fates mean.
//!
//! Promises: what goes to a topic that is suspected, or is too large to be sure that its topic takes it, is
//! sent apart, behind everything that was sent before it; a topic that refuses record after record is in
//! trouble itself. A topic with fewer copies than it asks for is tried so, too: older brokers refuse what goes
//! there, newer ones (seen with 4.4) take it. Must not: know events. Fails: as sending apart does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};
use rdkafka::producer::{BaseRecord, Producer};

use crate::error::Result;
use crate::event::EventId;
use crate::order::holds::{Reason, Refusal};
use crate::publish::kafka::apart::{Apart, Fate, Gathered};
use crate::publish::kafka::clients::ProducerConfig;
use crate::publish::kafka::errors::{refused_topic, too_few_copies};
use crate::publish::kafka::producer::KafkaProducer;
use crate::publish::kafka::verdict::Verdict;
use crate::publish::{Answer, Ground, InFlightBatch, Proof, Suspect};
use crate::record::encode::Record;
use crate::record::encode::size_bytes;

/// So many records are refused alone for their topic's sake, and none goes through: it is the topic.
const DENIED_MAX: u32 = 2;
/// A Kafka that has taken nothing for longer may be in trouble as a whole. Shorter than a standstill.
const RECENTLY: Duration = Duration::from_secs(20);

/// How many copies a topic has, and how many of them it wants to be in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Copies {
    there: usize,
    needed: usize,
}

/// What a producer doubts.
pub(super) struct Doubt {
    apart: Apart,
    /// The topics whose records are sent apart, as this producer knows them.
    suspects: HashSet<String>,
    /// Topics with fewer copies than they ask for, of which nobody knows yet whether they take anything.
    lacking: HashMap<String, Copies>,
    /// Those of them that did take something.
    enough: HashSet<String>,
    /// Whether all was acknowledged that was sent to them as usual.
    is_settled: bool,
    /// How often a topic was refused to a record alone, since one went through.
    denied: HashMap<String, u32>,
}

impl Doubt {
    pub(super) fn new(config: &ProducerConfig) -> Self {
        Self {
            apart: Apart::new(config),
            suspects: HashSet::new(),
            lacking: HashMap::new(),
            enough: HashSet::new(),
            is_settled: false,
            denied: HashMap::new(),
        }
    }

    /// Takes over which topics are suspected now.
    pub(super) fn follow(&mut self, suspects: Vec<String>) {
        if suspects.is_empty() && self.suspects.is_empty() {
            return;
        }
        if suspects.is_empty() {
            self.apart.rest();
            self.denied.clear();
        }
        // One that comes anew may have records in flight.
        self.is_settled &= suspects.iter().all(|topic| self.suspects.contains(topic));
        self.suspects = suspects.into_iter().collect();
    }

    /// Takes note of the copies that a topic has, and of those that it asks for.
    pub(super) fn note_copies(&mut self, topic: &str, there: usize, needed: Option<usize>) {
        let Some(needed) = needed.filter(|needed| there < *needed) else {
            self.lacking.remove(topic);
            self.enough.remove(topic);
            return;
        };
        if self.enough.contains(topic) {
            return;
        }
        if self.lacking.insert(topic.to_owned(), Copies { there, needed }).is_none() {
            // It may have had enough until now, and records in flight.
            self.is_settled = false;
        }
    }

    /// A record went through.
    fn taken(&mut self, topic: &str) {
        self.denied.remove(topic);
        if self.lacking.remove(topic).is_some() {
            self.enough.insert(topic.to_owned());
        }
    }

    /// Whether what goes to this topic is sent apart.
    pub(super) fn suspects(&self, topic: &str) -> bool {
        let is_among = !self.suspects.is_empty() && self.suspects.contains(topic);
        is_among || (!self.lacking.is_empty() && self.lacking.contains_key(topic))
    }
}

impl KafkaProducer {
    /// Takes a record over that is to be sent apart.
    pub(super) fn gather(&mut self, record: &Record<'_>, partition: i32) -> Result<()> {
        let is_suspect = self.doubt.suspects(record.topic);
        // Of others, any earlier record of the aggregate may be in flight.
        if !is_suspect || !self.doubt.is_settled {
            self.settle()?;
        }
        self.doubt.is_settled |= is_suspect;
        let (topic, bytes) = (record.topic.to_owned(), size_bytes(record));
        let one = Gathered { topic, partition, bytes };
        let base = BaseRecord::with_opaque_to(record.topic, self.doubt.apart.count());
        let base = self.fill(base, record, partition);
        self.doubt.apart.gather(one, base)
    }

    /// Sends what was gathered, and says what became of it.
    pub(super) fn send_apart(&mut self, batch: &Arc<InFlightBatch>) -> Result<Vec<Answer>> {
        if self.doubt.apart.count() == 0 {
            return Ok(Vec::new());
        }
        let producer = Arc::clone(&self.producer);
        let fates = self.doubt.apart.confirm(|| producer.context().check_alive())?;
        let is_alone = fates.len() == 1;
        let mut answers = Vec::with_capacity(fates.len());
        for (one, fate) in fates {
            answers.push(match fate {
                Fate::Appended => {
                    self.context().reports.acknowledged(batch);
                    self.appended(&one);
                    Answer::Appended
                }
                Fate::Refused { words, verdict } => self.judge(&one, &words, verdict, is_alone)?,
            });
        }
        Ok(answers)
    }

    fn appended(&mut self, one: &Gathered) {
        self.doubt.taken(&one.topic);
        self.context().lessons.note_taken();
        if self.doubt.suspects(&one.topic) {
            self.context().lessons.went_through(&one.topic);
        }
    }

    fn judge(
        &mut self,
        one: &Gathered,
        words: &str,
        verdict: Verdict,
        is_alone: bool,
    ) -> Result<Answer> {
        let Gathered { topic, bytes, .. } = one;
        let refused = |reason, detail| Refusal { reason, detail, topic: Some(topic.clone()) };
        let told = Proof::Alone { tries: verdict.tries() };
        Ok(match verdict {
            Verdict::Size => {
                if is_alone {
                    let lessons = &self.context().lessons;
                    lessons.with_sizes(|sizes| sizes.refused_record(topic, *bytes, Instant::now()));
                }
                let detail =
                    format!("it takes {bytes} bytes, and topic {topic} refuses it: {words}");
                Answer::Refused(refused(Reason::TooLarge, detail), told)
            }
            Verdict::Topic if is_alone && self.is_denied(topic) => {
                self.hold_refused(topic, words)?;
                Answer::Refused(self.refuse_topic(topic), Proof::Alone { tries: 1 })
            }
            Verdict::TooFew if self.doubt.lacking.contains_key(topic) => {
                self.hold_lacking(topic)?;
                Answer::Refused(self.refuse_topic(topic), Proof::Alone { tries: 1 })
            }
            Verdict::Topic | Verdict::Away | Verdict::Cut | Verdict::TooFew | Verdict::Course => {
                let proof = self.witness(one, verdict, is_alone);
                Answer::Refused(refused(Reason::Refused, words.to_owned()), proof)
            }
            Verdict::Unclear | Verdict::Record => {
                let detail = format!("topic {topic} refused it alone: {words}");
                Answer::Refused(refused(Reason::Refused, detail), told)
            }
        })
    }

    /// What it takes until a refusal is the record's own that may as well be Kafka's.
    fn witness(&self, one: &Gathered, verdict: Verdict, is_alone: bool) -> Proof {
        let Gathered { topic, partition, .. } = one;
        // A leader that does not answer anybody says nothing of a record.
        let answers = !is_alone
            || verdict == Verdict::Topic
            || self.doubt.apart.leader_answers(topic, *partition);
        // While records are sent apart nothing else is: what was taken before they were is what counts.
        let taken = self.context().lessons.last_taken(Instant::now());
        let is_working = taken.is_some_and(|taken| taken + RECENTLY >= self.now);
        let suspect = match verdict {
            _ if !answers => Suspect::Kafka,
            Verdict::Cut if is_working => Suspect::Record,
            // Where nothing is taken at all, something may stand between that lets no record pass.
            Verdict::Cut | Verdict::Topic => Suspect::Topic,
            _ if is_working => Suspect::Topic,
            _ => Suspect::Kafka,
        };
        let others = self.doubt.apart.appended(topic, *partition);
        Proof::Witness { tries: verdict.tries(), others, suspect }
    }

    fn is_denied(&mut self, topic: &str) -> bool {
        let denied = self.doubt.denied.entry_ref(topic).or_default();
        *denied += 1;
        *denied >= DENIED_MAX
    }

    /// A record was refused alone, and is given up: so many in a row are their topic's trouble.
    pub(super) fn note_refused(&mut self, refusal: Refusal, ground: Ground) -> Result<Refusal> {
        let Some(topic) = &refusal.topic else { return Ok(refusal) };
        if refusal.reason != Reason::Refused {
            return Ok(refusal);
        }
        let words = &refusal.detail;
        let detail = match ground {
            Ground::Told => words.clone(),
            Ground::Others => {
                format!("topic {topic} takes others meanwhile, but not this one: {words}")
            }
            Ground::Cut => format!(
                "each time that it is sent its connection ends, and topic {topic} answers right after: {words}"
            ),
        };
        if self.context().lessons.refused_alone(topic, Instant::now()) {
            self.hold_refused(topic, &detail)?;
        }
        Ok(Refusal { detail, ..refusal })
    }

    /// Holds the topic of an event that was refused, as nothing goes through to it; unless that was so before
    /// with this event, and others went through when it was away.
    pub(super) fn blame(&mut self, refusal: Refusal, event: EventId) -> Result<Refusal> {
        let Some(topic) = &refusal.topic else { return Ok(refusal) };
        if self.context().lessons.is_blamed_again(topic, event, Instant::now()) {
            return self.note_refused(refusal, Ground::Others);
        }
        self.hold_refused(topic, &refusal.detail)?;
        Ok(self.refuse_topic(topic))
    }

    fn hold_refused(&mut self, topic: &str, words: &str) -> Result<()> {
        self.doubt.denied.remove(topic);
        let (error, now) = (refused_topic(topic, words), Instant::now());
        self.context().lessons.refused_topic(topic, error.message(), now);
        // When it is tried again, a refusal is not to end the producer.
        self.context().lessons.suspect(topic, now);
        self.context().lessons.renew(self.doubt.suspects.iter(), now);
        self.hold_topic(topic, &error)
    }

    /// Holds a topic that has too few copies for the brokers, as they said of a record.
    fn hold_lacking(&mut self, topic: &str) -> Result<()> {
        let Copies { there, needed } = self.doubt.lacking[topic];
        let error = too_few_copies(topic, there, needed);
        self.context().lessons.refused_topic(topic, error.message(), Instant::now());
        self.hold_topic(topic, &error)
    }

    /// Holds the topic of an event that gets no answer where nobody knows whether it is the topic or Kafka. What
    /// was set aside is parked when something is taken elsewhere.
    pub(super) fn suspend(&mut self, refusal: Refusal) -> Result<Refusal> {
        let Some(topic) = &refusal.topic else { return Ok(refusal) };
        let is_whole = self.doubt.apart.is_whole(topic);
        let (now, error) = (Instant::now(), refused_topic(topic, &refusal.detail));
        self.context().lessons.doubt(topic, now);
        self.context().lessons.renew(self.doubt.suspects.iter(), now);
        // What was taken until now is no sign.
        self.context().lessons.last_taken(now);
        self.context().reports.suspense.begin(now, is_whole);
        self.watch_topic(topic, error.message())?;
        Ok(self.refuse_topic(topic))
    }

    /// Nothing can be found out: what goes to these topics is sent as usual.
    pub(super) fn trust_suspects(&self) {
        for topic in &self.doubt.suspects {
            self.context().lessons.trust(topic, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::config::ClientConfig;

    use super::*;

    #[test]
    fn a_topic_that_lacks_copies_is_tried_until_it_takes_one() {
        let mut doubt = Doubt::new(&ClientConfig::new().into());
        doubt.note_copies("t", 1, Some(1));
        doubt.note_copies("untold", 1, None);
        assert!(!doubt.suspects("t") && !doubt.suspects("untold"));
        doubt.is_settled = true;
        doubt.note_copies("t", 1, Some(2));
        assert!(doubt.suspects("t") && !doubt.is_settled, "others may be in flight");
        doubt.is_settled = true;
        doubt.note_copies("t", 1, Some(2));
        assert!(doubt.is_settled, "that was known");
        doubt.taken("t");
        doubt.note_copies("t", 1, Some(2));
        assert!(!doubt.suspects("t"), "it takes what goes there all the same");
        doubt.note_copies("t", 2, Some(2));
        doubt.note_copies("t", 2, Some(3));
        assert!(doubt.suspects("t"), "things have changed");
        doubt.note_copies("t", 3, Some(3));
        assert!(!doubt.suspects("t"));
    }
}
