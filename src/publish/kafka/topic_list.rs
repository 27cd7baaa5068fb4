//! The list of all topics, as the brokers gave it.
//!
//! Promises: a topic is found by its name, however many there are. Must not: ask a broker. Fails: never; a topic that
//! cannot be used is an answer.

use std::num::NonZeroU32;

use hashbrown::HashMap;
use rdkafka::metadata::{Metadata, MetadataTopic};

use crate::error::Result;
use crate::publish::kafka::errors;

/// All topics that the brokers list, by name.
pub(super) struct Listing<'a>(HashMap<&'a str, &'a MetadataTopic>);

impl<'a> Listing<'a> {
    pub(super) fn of(metadata: &'a Metadata) -> Self {
        Self(metadata.topics().iter().map(|topic| (topic.name(), topic)).collect())
    }

    /// Partitions and copies of a topic; none if it is not listed.
    pub(super) fn get(&self, topic: &str) -> Option<Result<(NonZeroU32, usize)>> {
        let found = *self.0.get(topic)?;
        let partitions = errors::partitions_of(topic, Some(found));
        Some(partitions.map(|partitions| (partitions, errors::copies_of(found))))
    }
}
