//! The topic of cursors, for whoever looks at it again and again.
//!
//! Promises: one that is gone, or is not the one that it was, is told of when two looks in a row have found it so: a
//! broker that has just started may not show all that there is. Must not: make it, or write to it. Fails: when no broker
//! answers in time; with [`ErrorKind::KafkaRefused`] for such a topic.

use std::sync::Arc;

use rdkafka::admin::AdminClient;
use rdkafka::producer::Producer;

use crate::error::{Error, ErrorKind, Result};
use crate::publish::kafka::clients::AsideContext;
use crate::publish::kafka::control_topic::{ANSWER_TIMEOUT, Asker, ControlTopic, gone, made_anew};
use crate::publish::kafka::errors::unavailable;

/// So many looks in a row find the same before it is believed.
const LOOKS_NEEDED: u32 = 2;

/// The topic of cursors as it was seen last.
#[derive(Clone)]
pub struct WatchedTopic {
    topic: ControlTopic,
    asker: Asker,
    admin: Arc<AdminClient<AsideContext>>,
    furthest: Option<PartitionEnd>,
    past: WatchedPast,
}

/// What the looks until now have shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct WatchedPast {
    /// It is made by the first shard that begins.
    was_there: bool,
    /// How many looks in a row have found something wrong.
    doubts: u32,
}

impl WatchedPast {
    /// One more look has found it well.
    fn note_well(&mut self) {
        *self = Self { was_there: true, doubts: 0 };
    }

    /// One more look has found something wrong; whether that is to be believed.
    fn note_wrong(&mut self) -> bool {
        self.doubts += 1;
        self.doubts >= LOOKS_NEEDED
    }
}

impl std::fmt::Debug for WatchedTopic {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.topic.fmt(formatter)
    }
}

impl WatchedTopic {
    /// The topic, at which nobody has looked yet.
    pub(super) fn new(
        topic: ControlTopic,
        asker: Asker,
        admin: Arc<AdminClient<AsideContext>>,
    ) -> Self {
        Self { topic, asker, admin, furthest: None, past: WatchedPast::default() }
    }

    /// Looks at it once more.
    ///
    /// # Errors
    /// [`ErrorKind::KafkaRefused`] where it is gone, has another number of partitions, takes no cursor, or was made anew, and the look
    /// before has found so, too; when no broker answers in time.
    pub fn look(&mut self) -> Result<()> {
        match self.is_there() {
            Ok(true) => self.past.note_well(),
            Ok(false) if self.past.was_there => return self.doubt(gone(&self.topic.name)),
            Ok(false) => {}
            Err(error) if error.kind() == ErrorKind::KafkaRefused => return self.doubt(error),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn doubt(&mut self, error: Error) -> Result<()> {
        if self.past.note_wrong() {
            return Err(error);
        }
        tracing::debug!(cause = error.message(), "the topic of cursors is looked at once more");
        Ok(())
    }

    /// Whether it is there, with a partition for each bucket, and the same as before.
    fn is_there(&mut self) -> Result<bool> {
        match self.topic.leaders(&self.asker)?.len() {
            0 => Ok(false),
            partitions => {
                self.topic.check(partitions)?;
                self.topic.check_size(&self.admin)?;
                self.look_at_the_furthest().map(|()| true)
            }
        }
    }

    /// Looks at the partition that went furthest: in a topic that is made anew it begins at its start. All of them
    /// are looked at as long as nothing is in them.
    fn look_at_the_furthest(&mut self) -> Result<()> {
        let looked_at = match self.furthest {
            Some(known) => vec![known.partition],
            None => (0..self.topic.buckets.into()).collect(),
        };
        for partition in looked_at {
            let (_, end) = self
                .asker
                .client()
                .fetch_watermarks(&self.topic.name, partition, ANSWER_TIMEOUT)
                .map_err(|cause| unavailable(&cause, None))?;
            self.furthest = further(self.furthest, PartitionEnd { partition, end })
                .map_err(|Back| made_anew(&self.topic.name))?;
        }
        Ok(())
    }
}

/// Up to where a partition was seen to go. It never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PartitionEnd {
    partition: i32,
    end: i64,
}

/// A partition is not as long as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Back;

/// The one of both that goes further, if anything is in it.
fn further(
    known: Option<PartitionEnd>,
    seen: PartitionEnd,
) -> std::result::Result<Option<PartitionEnd>, Back> {
    match known {
        Some(known) if known.partition == seen.partition && seen.end < known.end => Err(Back),
        Some(known) if seen.end < known.end => Ok(Some(known)),
        Some(_) | None => Ok(Some(seen).filter(|seen| seen.end > 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_look_has_found_wrong_is_not_believed() {
        let mut past = WatchedPast::default();
        assert!(!past.note_wrong(), "a broker may have just started");
        past.note_well();
        assert!(past.was_there && !past.note_wrong(), "it was well in between");
        assert!(past.note_wrong());
    }

    #[test]
    fn a_partition_never_goes_back() {
        let at = |partition, end| PartitionEnd { partition, end };
        assert_eq!(further(None, at(0, 0)), Ok(None), "nothing is in it");
        assert_eq!(further(None, at(3, 8)), Ok(Some(at(3, 8))));
        assert_eq!(further(Some(at(3, 8)), at(4, 7)), Ok(Some(at(3, 8))), "it is another one");
        assert_eq!(further(Some(at(3, 8)), at(4, 9)), Ok(Some(at(4, 9))));
        assert_eq!(further(Some(at(3, 8)), at(3, 8)), Ok(Some(at(3, 8))), "nothing came");
        assert_eq!(further(Some(at(3, 8)), at(3, 7)), Err(Back));
        assert_eq!(further(Some(at(3, 8)), at(3, 0)), Err(Back));
    }
}
