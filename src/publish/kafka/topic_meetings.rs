//! How the publishing thread gets to know topics: several of a batch together, and not too many one by one.
//!
//! Promises: topics that are there cost a few requests per batch, however many are new; those that are not
//! are asked for one by one only so often, then left to the watcher; a topic that is known is never
//! waited for: the watcher looks at it again. Must not: send. Fails: as [`TopicRegistry`] does.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashSet;
use rdkafka::metadata::Metadata;
use rdkafka::producer::Producer;

use crate::error::{Error, ErrorKind, Result};
use crate::publish::kafka::errors::{
    as_outage, colliding, collision, copies, ready_partitions, unavailable,
};
use crate::publish::kafka::poll_thread;
use crate::publish::kafka::topic_cache::KnownTopic;
use crate::publish::kafka::topic_creation::{Absence, Presence, is_listed};
use crate::publish::kafka::topic_list::Listing;
use crate::publish::kafka::topic_registry::TopicRegistry;
use crate::publish::kafka::topic_survey::{FoundTopic, Refreshed};

/// One request for metadata.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);
/// How long no broker may answer at the start; later it is then looked whether they answer others.
pub(super) const LEADER_DEADLINE: Duration = Duration::from_secs(10);

/// A broker that creates topics needs a moment until each partition has a leader. The publishing
/// thread waits for no second topic as long as one is in trouble.
const TOPIC_PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two looks at a topic that is not ready.
const LEADER_PAUSE: Duration = Duration::from_millis(100);
/// So many new topics may be asked for one by one at any moment ...
const MEETINGS_MAX: f64 = 100.0;
/// ... and so many more each second.
const MEETINGS_PER_SECOND: f64 = 5.0;
/// After a new topic was met more are likely for so long: the topics of each batch are looked through.
const LIKELY_FOR: Duration = Duration::from_secs(10);
/// So many topics are made by one request.
const MADE_MAX: usize = 50;
/// How often it is looked which topics in use are to be looked at again.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);

/// How many topics a producer has met lately.
#[derive(Debug)]
pub(super) struct Meetings {
    left: f64,
    counted: Instant,
    likely_until: Instant,
    next_refresh: Instant,
}

impl Meetings {
    /// At the start every topic is new.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: MEETINGS_MAX,
            counted: now,
            likely_until: now + LIKELY_FOR,
            next_refresh: now + REFRESH_PAUSE,
        }
    }

    /// Whether new topics are to be expected.
    fn are_likely(&self, now: Instant) -> bool {
        now < self.likely_until
    }

    /// A new topic is met; whether it may be asked for now.
    fn take_one(&mut self, now: Instant) -> bool {
        self.likely_until = now + LIKELY_FOR;
        let seconds = now.saturating_duration_since(self.counted).as_secs_f64();
        self.left = (self.left + seconds * MEETINGS_PER_SECOND).min(MEETINGS_MAX);
        self.counted = now;
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }

    /// Whether it is time to look which topics are to be looked at again.
    fn is_refresh_due(&mut self, now: Instant) -> bool {
        let is_due = now >= self.next_refresh;
        if is_due {
            self.next_refresh = now + REFRESH_PAUSE;
        }
        is_due
    }
}

impl TopicRegistry {
    /// Asks the brokers about a topic.
    pub(super) fn meet(&mut self, topic: &str) -> Result<KnownTopic> {
        if let Some(detail) = self.context().learned_limits.is_refused(topic, Instant::now()) {
            return Err(Error::new(ErrorKind::TopicUnavailable, detail));
        }
        let patience = if self.held.is_empty() { TOPIC_PATIENCE } else { Duration::ZERO };
        // Giving up ends a session, and what is in flight would be sent again. Ours is asked last: they may
        // have come back meanwhile.
        let is_muted = || self.context().throttle.is_on(Instant::now());
        let is_forgotten = || {
            !is_muted()
                && poll_thread::others_have_brokers(&self.config)
                && !poll_thread::has_brokers(self.producer.client(), poll_thread::ASK_TIMEOUT)
        };
        let found = self.look_up(topic, patience, is_forgotten);
        let (partitions, copies) =
            found.map_err(|cause| as_outage(self.name_collision(topic, cause)))?;
        let warnings = Arc::clone(&self.context().warnings);
        let told = self.limits.lock().ask(topic, Instant::now(), &warnings);
        self.learn(topic, FoundTopic { partitions, copies, told })
    }

    /// A topic that is not there may be one that cannot be made.
    fn name_collision(&self, topic: &str, cause: Error) -> Error {
        if cause.kind() != ErrorKind::TopicUnavailable {
            return cause;
        }
        let listed = self.producer.client().fetch_metadata(None, METADATA_TIMEOUT);
        let other = listed.ok().and_then(|listed| {
            let names = listed.topics().iter().map(|topic| topic.name());
            colliding(topic, names).map(str::to_owned)
        });
        other.map_or(cause, |other| collision(topic, &other))
    }

    /// Asks until every partition has a leader: how many there are, and how many copies each has at
    /// least. `patience` is for what the brokers answer, and begins with their first answer: a broker that
    /// says nothing says nothing about the topic either. Hearing nothing, it asks now and then whether to give up.
    pub(super) fn look_up(
        &self,
        topic: &str,
        patience: Duration,
        gives_up: impl Fn() -> bool,
    ) -> Result<(NonZeroU32, usize)> {
        let begin = Instant::now();
        let (mut answered, mut presence) = (None, None);
        loop {
            self.context().beat();
            let answer = match self.ensure(topic, &mut presence) {
                Ok(()) => self.producer.client().fetch_metadata(Some(topic), METADATA_TIMEOUT),
                Err(Absence::Refused(cause)) => return Err(cause),
                Err(Absence::Unanswered(cause)) => Err(cause),
            };
            // Whoever has made it waits for its leaders.
            let patience = if presence == Some(Presence::Made) { TOPIC_PATIENCE } else { patience };
            let (problem, is_over) = match answer {
                Ok(metadata) => match ready_partitions(topic, &metadata) {
                    Ok(partitions) => {
                        // The wait may have been long.
                        self.context().check_alive()?;
                        return Ok((partitions, copies(topic, &metadata)));
                    }
                    Err(problem) => {
                        let first = *answered.get_or_insert_with(Instant::now);
                        (problem, first.elapsed() >= patience)
                    }
                },
                Err(cause) => {
                    let problem = unavailable(&cause, self.context().last_trouble());
                    (problem, begin.elapsed() >= LEADER_DEADLINE && gives_up())
                }
            };
            if is_over || self.context().reports.has_failed() {
                return Err(problem);
            }
            std::thread::park_timeout(LEADER_PAUSE);
        }
    }

    /// Makes the topic if it is missing and that is wanted; once it was seen, nothing more.
    fn ensure(
        &self,
        topic: &str,
        presence: &mut Option<Presence>,
    ) -> std::result::Result<(), Absence> {
        if let (Some(creator), None) = (&self.creator, &presence) {
            *presence = Some(creator.ensure(self.producer.client(), topic)?);
        }
        Ok(())
    }

    /// Makes those of these topics that are not listed, and waits a moment until they are.
    fn make_missing(&self, topics: &HashSet<String>, listed: Metadata) -> Metadata {
        let Some(creator) = &self.creator else { return listed };
        let missing: Vec<&str> = topics
            .iter()
            .map(String::as_str)
            .filter(|topic| !is_listed(&listed, topic))
            .take(MADE_MAX)
            .collect();
        if missing.len() < 2 {
            return listed;
        }
        // What is refused is told where the topic is met alone.
        let made = creator.make(&missing);
        let made: Vec<&str> = missing
            .into_iter()
            .filter(|topic| made.get(*topic).is_some_and(std::result::Result::is_ok))
            .collect();
        let (begin, mut listed) = (Instant::now(), listed);
        while begin.elapsed() < TOPIC_PATIENCE {
            self.context().beat();
            if let Ok(now) = self.producer.client().fetch_metadata(None, METADATA_TIMEOUT) {
                listed = now;
            }
            let is_ready = |topic: &&str| ready_partitions(topic, &listed).is_ok();
            if made.iter().all(is_ready) {
                break;
            }
            std::thread::park_timeout(LEADER_PAUSE);
        }
        listed
    }

    /// Asks the brokers about a topic, unless too many were new just now.
    pub(super) fn meet_in_turn(&mut self, topic: &str) -> Result<KnownTopic> {
        if self.meetings.take_one(self.now) {
            return self.meet(topic);
        }
        Err(Error::new(
            ErrorKind::TopicUnavailable,
            format!("topic {topic} is new, as are many others; it is looked at in its turn"),
        )
        .with_remedy("wait, or look whether so many topics are meant: `postrider parked list`"))
    }

    /// Gets to know those of these topics that are new and there, by one list of all.
    pub(super) fn meet_many(&mut self, mut topics: HashSet<String>) -> Result<()> {
        topics.retain(|topic| {
            let is_known =
                self.held.contains_key(topic) || self.cache.get(topic, self.now).is_some();
            !is_known && self.context().learned_limits.is_refused(topic, self.now).is_none()
        });
        if topics.len() < 2 {
            return Ok(());
        }
        let Ok(metadata) = self.producer.client().fetch_metadata(None, METADATA_TIMEOUT) else {
            // Whoever meets them one by one waits until there is an answer.
            return Ok(());
        };
        let metadata = self.make_missing(&topics, metadata);
        let listing = Listing::of(&metadata);
        let there: Vec<&str> = topics.iter().map(String::as_str).collect();
        let there = there.into_iter().filter_map(|topic| Some((topic, listing.get(topic)?.ok()?)));
        let there: Vec<_> = there.collect();
        let names: Vec<&str> = there.iter().map(|(topic, _)| *topic).collect();
        let warnings = Arc::clone(&self.context().warnings);
        let told = self.limits.lock().ask_many(&names, Instant::now(), &warnings);
        for (topic, (partitions, copies)) in there {
            let told = told.get(topic).copied().unwrap_or_default();
            self.learn_or_hold(topic, FoundTopic { partitions, copies, told })?;
        }
        Ok(())
    }

    fn learn_or_hold(&mut self, topic: &str, found: FoundTopic) -> Result<()> {
        match self.learn(topic, found) {
            Ok(_) => Ok(()),
            Err(cause) if cause.kind() == ErrorKind::TopicUnavailable => self.hold(topic, &cause),
            Err(cause) => Err(cause),
        }
    }

    /// Takes what the watcher has found out; whether it is worth while to tell the topics of a batch first.
    pub(super) fn wants_more(&mut self) -> Result<bool> {
        self.follow_watcher()?;
        Ok(self.meetings.are_likely(self.now))
    }

    /// Takes what the watcher has found out, and tells it what to look at next.
    fn follow_watcher(&mut self) -> Result<()> {
        for Refreshed { topic, seen } in self.refreshed.take_all() {
            match seen {
                Ok(found) => self.learn_or_hold(&topic, found)?,
                Err(cause) => {
                    self.cache.doubt(&topic, self.now);
                    self.hold(&topic, &cause)?;
                }
            }
        }
        if self.meetings.is_refresh_due(self.now) {
            let due = self.cache.take_due(self.now);
            if !due.is_empty() {
                self.watcher()?.refresh(due)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_topics_are_met_at_once_and_more_in_their_turn() {
        let start = Instant::now();
        let mut meetings = Meetings::new(start);
        assert!(meetings.are_likely(start) && !meetings.are_likely(start + LIKELY_FOR));
        let later = start + LIKELY_FOR;
        let met = (0..1_000).filter(|_| meetings.take_one(later)).count();
        assert_eq!(met, 100);
        assert!(meetings.are_likely(later + LIKELY_FOR / 2));
        let met = (0..1_000).filter(|_| meetings.take_one(later + Duration::from_secs(2))).count();
        assert_eq!(met, 10);
    }

    #[test]
    fn topics_in_use_are_looked_through_once_a_second() {
        let start = Instant::now();
        let mut meetings = Meetings::new(start);
        let due: Vec<u64> = (0..30)
            .filter(|tenth| meetings.is_refresh_due(start + Duration::from_millis(tenth * 100)))
            .collect();
        assert_eq!(due, [10, 20]);
    }
}
