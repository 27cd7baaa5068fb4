//! Which records a Kafka producer sends apart, and what their fates mean.
//!
//! Promises: what goes to a topic that is suspected, or is too large to be sure that its topic takes it, is
//! sent apart, behind everything that was sent before it; a topic that refuses record after record is in
//! trouble itself. A topic with fewer copies than it asks for is tried so, too: older brokers refuse what goes
//! there, newer ones (seen with 4.4) take it. Must not: know events. Fails: as sending apart does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseRecord, Producer};

use crate::error::Result;
use crate::event::EventId;
use crate::order::holds::{Reason, Refusal};
use crate::publish::kafka::apart::{Gathered, RecordFate};
use crate::publish::kafka::errors::refused_topic;
use crate::publish::kafka::producer::KafkaProducer;
use crate::publish::kafka::verdict::CodeVerdict;
use crate::publish::{Answer, Company, Ground, Haste, InFlightBatch, Proof, Suspect};
use crate::record::encode::Record;
use crate::record::encode::size_bytes;

/// A Kafka that has taken nothing for longer may be in trouble as a whole. Shorter than a standstill.
const RECENTLY: Duration = Duration::from_secs(20);
/// The same where the topic is given up sooner: Kafka may have gone away since.
const OVERDUE_RECENTLY: Duration = Duration::from_secs(5);

impl KafkaProducer {
    /// Takes a record over that is to be sent apart.
    pub(super) fn gather(&mut self, record: &Record<'_>, partition: i32) -> Result<()> {
        let is_in_doubt = self.topics.doubts.has(record.topic);
        // Of others, any earlier record of the aggregate may be in flight.
        if !is_in_doubt || !self.topics.doubts.is_settled() {
            self.topics.settle()?;
        }
        if is_in_doubt {
            self.topics.doubts.settle();
        }
        let (topic, bytes) = (record.topic.to_owned(), size_bytes(record));
        let one = Gathered { topic, partition, bytes };
        let haste = self.haste(record.topic);
        let place = self.apart.place(record.topic, haste)?;
        let base = BaseRecord::with_opaque_to(record.topic, place.number);
        let base = self.fill(base, record, partition);
        self.keep_tried(&base);
        self.apart.gather(one, place, base);
        Ok(())
    }

    /// Sends what was gathered, and says what became of it.
    pub(super) fn send_apart(&mut self, batch: &Arc<InFlightBatch>) -> Result<Vec<Answer>> {
        if self.apart.count() == 0 {
            return Ok(Vec::new());
        }
        let producer = Arc::clone(&self.producer);
        let fates = self.apart.confirm(|| {
            producer.context().beat();
            producer.context().check_alive()
        })?;
        let mut answers = Vec::with_capacity(fates.len());
        let tried = self.take_tried();
        for (number, (one, fate, company)) in fates.into_iter().enumerate() {
            answers.push(match fate {
                RecordFate::Appended => {
                    match tried.get(number) {
                        Some(tried) => self.send_tried(tried, one.bytes, batch)?,
                        None => self.context().reports.acknowledged(batch),
                    }
                    self.appended(&one);
                    Answer::Appended
                }
                RecordFate::Refused { words, verdict } => {
                    let (refusal, proof) = self.judge(&one, &words, verdict, company)?;
                    Answer::Refused(refusal, proof, company)
                }
            });
        }
        Ok(answers)
    }

    fn appended(&mut self, one: &Gathered) {
        self.topics.doubts.taken(&one.topic);
        self.context().learned_limits.note_taken();
        if self.topics.doubts.has(&one.topic) {
            self.context().learned_limits.went_through(&one.topic);
        }
    }

    fn judge(
        &mut self,
        one: &Gathered,
        words: &str,
        verdict: CodeVerdict,
        company: Company,
    ) -> Result<(Refusal, Proof)> {
        let is_alone = company == Company::Alone;
        let Gathered { topic, bytes, .. } = one;
        let refused = |reason, detail| Refusal { reason, detail, topic: Some(topic.clone()) };
        let told = Proof::Alone { tries: verdict.tries() };
        Ok(match verdict {
            CodeVerdict::Size => {
                if is_alone {
                    let learned_limits = &self.context().learned_limits;
                    learned_limits
                        .with_sizes(|sizes| sizes.refused_record(topic, *bytes, Instant::now()));
                }
                let detail =
                    format!("it takes {bytes} bytes, and topic {topic} refuses it: {words}");
                (refused(Reason::TooLarge, detail), told)
            }
            CodeVerdict::Topic if is_alone && self.topics.doubts.deny(topic) => {
                self.topics.hold_refused(topic, &refused_topic(topic, words))?;
                (self.topics.refusal(topic), Proof::Alone { tries: 1 })
            }
            CodeVerdict::TooFew if self.topics.doubts.lacks(topic).is_some() => {
                self.topics.hold_lacking(topic)?;
                (self.topics.refusal(topic), Proof::Alone { tries: 1 })
            }
            CodeVerdict::Topic
            | CodeVerdict::Away
            | CodeVerdict::Cut
            | CodeVerdict::TooFew
            | CodeVerdict::BrokenOff => {
                let proof = self.witness(one, verdict, company);
                (refused(Reason::Refused, words.to_owned()), proof)
            }
            CodeVerdict::Unclear | CodeVerdict::Record | CodeVerdict::Beside => {
                let detail = format!("topic {topic} refused it alone: {words}");
                (refused(Reason::Refused, detail), told)
            }
        })
    }

    /// How soon a topic is given up. After a standstill any that has taken nothing since may be why.
    fn haste(&self, topic: &str) -> Haste {
        match self.context().learned_limits.haste(topic) {
            Haste::Calm if self.topics.doubts.is_unproven(topic) => Haste::Overdue,
            haste => haste,
        }
    }

    /// What it takes until a refusal is the record's own that may as well be Kafka's.
    fn witness(&self, one: &Gathered, verdict: CodeVerdict, company: Company) -> Proof {
        let Gathered { topic, partition, .. } = one;
        let learned_limits = &self.context().learned_limits;
        let haste = self.haste(topic);
        // Of one that was given up it is known that it is not Kafka.
        let is_asked =
            company == Company::Alone && verdict != CodeVerdict::Topic && haste != Haste::Again;
        // A leader that does not answer anybody says nothing of a record.
        let answers = !is_asked || self.apart.leader_answers(topic, *partition);
        // While records are sent apart nothing else is: what was taken before they were is what counts.
        let taken = learned_limits.last_taken(Instant::now());
        let recently = if haste == Haste::Overdue { OVERDUE_RECENTLY } else { RECENTLY };
        let is_working = taken.is_some_and(|taken| taken + recently >= self.topics.now);
        let suspect = match verdict {
            _ if !answers => Suspect::Kafka,
            CodeVerdict::Cut if is_working && !learned_limits.is_cut(topic) => Suspect::Record,
            // Where nothing is taken at all, something may stand between that lets no record pass.
            CodeVerdict::Cut | CodeVerdict::Topic => Suspect::Topic,
            _ if is_working || haste == Haste::Again => Suspect::Topic,
            _ => Suspect::Kafka,
        };
        // Those that went through beside it say something, too: what is sent together need not go in one request.
        let others = match company {
            Company::Alone => self.apart.appended(topic, *partition),
            Company::Others | Company::Named => self.apart.appended_before(topic, *partition),
        };
        Proof::Witness { tries: verdict.tries(), others, suspect, haste }
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
        let (learned_limits, is_cut, now) =
            (&self.context().learned_limits, ground == Ground::Cut, Instant::now());
        if learned_limits.refused_alone(topic, is_cut, now) {
            learned_limits.give_up(topic, Duration::ZERO, is_cut, now);
            self.topics.hold_refused(topic, &refused_topic(topic, &detail))?;
        }
        Ok(Refusal { detail, ..refusal })
    }

    /// Holds the topic of an event that was refused, as nothing goes through to it; unless that was so before
    /// with this event, and others went through when it was away.
    pub(super) fn blame(&mut self, refusal: Refusal, event: EventId) -> Result<Refusal> {
        let Some(topic) = &refusal.topic else { return Ok(refusal) };
        let (learned_limits, now) = (&self.context().learned_limits, Instant::now());
        if learned_limits.is_blamed_again(topic, event, now) {
            return self.note_refused(refusal, Ground::Others);
        }
        // The first try takes its time; it is the others that are to be seldom.
        let is_again = learned_limits.haste(topic) == Haste::Again;
        let took = if is_again { self.apart.last_took() } else { Duration::ZERO };
        learned_limits.give_up(topic, took, false, now);
        self.topics.hold_refused(topic, &refused_topic(topic, &refusal.detail))?;
        Ok(self.topics.refusal(topic))
    }

    /// Holds the topic of an event that gets no answer where nobody knows whether it is the topic or Kafka. What
    /// was set aside is parked when something is taken elsewhere.
    pub(super) fn suspend(&mut self, refusal: Refusal) -> Result<Refusal> {
        let Some(topic) = &refusal.topic else { return Ok(refusal) };
        let is_whole = self.apart.is_whole(topic);
        let (now, error) = (Instant::now(), refused_topic(topic, &refusal.detail));
        self.context().learned_limits.doubt(topic, now);
        self.context().learned_limits.renew(self.topics.doubts.suspects(), now);
        // What was taken until now is no sign.
        self.context().learned_limits.last_taken(now);
        self.context().reports.suspense.begin(now, is_whole);
        self.topics.hold_silently(topic, error.message())?;
        Ok(self.topics.refusal(topic))
    }

    /// Nothing can be found out: what goes to these topics is sent as usual.
    pub(super) fn trust_suspects(&self) {
        for topic in self.topics.doubts.suspects() {
            self.context().learned_limits.trust(topic, Instant::now());
        }
    }
}
