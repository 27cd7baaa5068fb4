//! What the brokers say of many topics at once.
//!
//! Promises: any number of topics costs one list of all topics, one question for the settings of those that
//! are there, and a few questions by name for those that are not: asked so, a broker may create them, or they are
//! made before, where that is wanted.
//! Must not: hold up a publishing thread but for topics that it has not met. Fails: never; no answer is
//! an answer.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, Producer};

use crate::error::{Error, ErrorKind, Result};
use crate::publish::kafka::callbacks::Context;
use crate::publish::kafka::errors;
use crate::publish::kafka::topic_config::{Limits, TopicSettings};
use crate::publish::kafka::topic_creation::{Absence, Presence, TopicCreator};
use crate::publish::kafka::topic_list::Listing;
use crate::publish::kafka::topic_watcher::{LookAtTopics, Sight, Tray};

/// The watcher's requests for metadata; a producer that ends waits for them.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Up to so many topics are asked for by name; of more the list of all is read.
const NAMES_MAX: usize = 2;
/// So many of the topics that are not in the list are asked for by name in one look: a broker that creates
/// topics creates no more than that.
const ABSENT_MAX: usize = 20;

/// What is known of a topic that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoundTopic {
    pub(super) partitions: NonZeroU32,
    /// How many copies its partitions have; the fewest of them.
    pub(super) copies: usize,
    pub(super) told: TopicSettings,
}

/// What a watcher has found out about a topic in use.
#[derive(Debug)]
pub(super) struct Refreshed {
    pub(super) topic: String,
    pub(super) seen: Result<FoundTopic>,
}

/// Limits that the publishing thread and its watcher ask for.
#[derive(Clone)]
pub(super) struct SharedLimits(Arc<Mutex<Limits>>);

impl SharedLimits {
    pub(super) fn new(limits: Limits) -> Self {
        Self(Arc::new(Mutex::new(limits)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Limits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at topics with the producer's own connections.
pub(super) struct TopicLook {
    pub(super) producer: Arc<BaseProducer<Context>>,
    pub(super) limits: SharedLimits,
    pub(super) creator: Option<Arc<TopicCreator>>,
    pub(super) refreshed: Arc<Tray<Refreshed>>,
}

impl TopicLook {
    fn context(&self) -> &Context {
        self.producer.context()
    }

    /// Asked for by its name a broker might make one in its own way, so it is made before, where that is wanted.
    fn by_name(&self, topic: &str) -> Sight<(NonZeroU32, usize)> {
        if let Some(creator) = &self.creator {
            match creator.ensure(self.producer.client(), topic) {
                Ok(Presence::Found) => {}
                // Its leaders are chosen in a moment.
                Ok(Presence::Made) => return Sight::NotYet,
                Err(Absence::Refused(cause)) => return Sight::Unusable(cause),
                Err(Absence::Unanswered(_)) => return Sight::Unseen,
            }
        }
        let Ok(metadata) = self.producer.client().fetch_metadata(Some(topic), TIMEOUT) else {
            return Sight::Unseen;
        };
        match errors::ready_partitions(topic, &metadata) {
            Ok(partitions) => Sight::Usable((partitions, errors::copies(topic, &metadata))),
            Err(cause) => Sight::Unusable(cause),
        }
    }

    fn by_list(&self, topics: &[String]) -> Vec<Sight<(NonZeroU32, usize)>> {
        let Ok(metadata) = self.producer.client().fetch_metadata(None, TIMEOUT) else {
            return topics.iter().map(|_| Sight::Unseen).collect();
        };
        let (listing, mut asked) = (Listing::of(&metadata), 0);
        let mut look = |topic: &String| match listing.get(topic) {
            Some(Ok(found)) => Sight::Usable(found),
            Some(Err(cause)) => Sight::Unusable(cause),
            None if asked < ABSENT_MAX => {
                asked += 1;
                self.by_name(topic)
            }
            None => Sight::NotYet,
        };
        topics.iter().map(&mut look).collect()
    }

    /// Whatever the metadata say, a record for it may have been refused a moment ago, or will be.
    fn judge(&self, topic: &str, found: FoundTopic) -> Sight<FoundTopic> {
        if let Some(detail) = self.context().learned_limits.is_refused(topic, Instant::now()) {
            return Sight::Unusable(Error::new(ErrorKind::TopicUnavailable, detail));
        }
        if self.context().learned_limits.rests(topic, Instant::now()) {
            let cause = "it took nothing when it was tried last";
            return Sight::Unusable(Error::new(ErrorKind::TopicUnavailable, cause));
        }
        Sight::Usable(found)
    }
}

impl LookAtTopics for TopicLook {
    type Found = FoundTopic;

    fn look(&mut self, topics: &[String]) -> Vec<Sight<FoundTopic>> {
        let seen: Vec<Sight<(NonZeroU32, usize)>> = if topics.len() <= NAMES_MAX {
            topics.iter().map(|topic| self.by_name(topic)).collect()
        } else {
            self.by_list(topics)
        };
        let usable =
            topics.iter().zip(&seen).filter(|(_, sight)| matches!(sight, Sight::Usable(_)));
        let usable: Vec<&str> = usable.map(|(topic, _)| topic.as_str()).collect();
        let warnings = &self.context().warnings;
        let told = self.limits.lock().ask_many(&usable, Instant::now(), warnings);
        let complete = |(topic, sight): (&String, _)| match sight {
            Sight::Usable((partitions, copies)) => {
                let told = told.get(topic.as_str()).copied().unwrap_or_default();
                self.judge(topic, FoundTopic { partitions, copies, told })
            }
            Sight::Unusable(cause) => Sight::Unusable(cause),
            Sight::Unseen => Sight::Unseen,
            Sight::NotYet => Sight::NotYet,
        };
        topics.iter().zip(seen).map(complete).collect()
    }

    fn tell(&self, topic: String) {
        self.context().reports.topic_is_back(topic);
    }

    fn refreshed(&self, topic: String, seen: Result<FoundTopic>) {
        self.refreshed.put(Refreshed { topic, seen });
    }
}
