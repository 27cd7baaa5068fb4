//! Whether a consumer can go by the numbers that records are to carry.
//!
//! Promises: names each way in which they would not tell all events apart. Must not: look at anything.

use crate::capture::mode::Mode;
use crate::record::encode::{AddedHeader, AddedHeaders};
use crate::record::topic::TopicTemplate;

/// What is missing, each with its remedy; nothing where no number is asked for.
pub(super) fn gaps(
    added: AddedHeaders,
    topic: &TopicTemplate,
    mode: Mode,
) -> Vec<(&'static str, &'static str)> {
    let (has_seq, has_position) = (added.has(AddedHeader::Seq), added.has(AddedHeader::Position));
    let mut gaps = Vec::new();
    if mode == Mode::Message && has_seq && !has_position {
        gaps.push((
            "messages have no seq: consumers would have nothing to go by but the id",
            "add position: --add-headers seq,position",
        ));
    }
    if mode == Mode::Poll && has_position && !has_seq {
        gaps.push((
            "events that are polled have no position: consumers would have nothing to go by but the id",
            "add seq, if the writers keep the order: --add-headers seq,position",
        ));
    }
    let names_type = topic.names_aggregate_type() || added.has(AddedHeader::AggregateType);
    if (has_seq || has_position) && !names_type {
        gaps.push((
            "topic and key do not name the aggregate, to which seq and position belong",
            "add aggregatetype to --add-headers, or {aggregatetype} to --topic",
        ));
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_does_not_tell_events_apart_is_told() {
        let named = "outbox.{aggregatetype}";
        let (seq, position) = (AddedHeader::Seq, AddedHeader::Position);
        for (added, topic, mode, words) in [
            (&[][..], "fixed", Mode::Message, &[][..]),
            (&[seq], named, Mode::Poll, &[]),
            (&[seq], named, Mode::Wal, &[]),
            (&[seq], named, Mode::Message, &["no seq"]),
            (&[position], named, Mode::Poll, &["no position"]),
            (&[position], named, Mode::Message, &[]),
            (&[seq, position], named, Mode::Message, &[]),
            (&[seq, position], "fixed", Mode::Wal, &["do not name"]),
            (&[seq], "events.{type}", Mode::Message, &["no seq", "do not name"]),
            (&[seq, AddedHeader::AggregateType], "fixed", Mode::Wal, &[]),
        ] {
            let topic = topic.parse().unwrap();
            let found = gaps(added.iter().copied().collect(), &topic, mode);
            assert_eq!(found.len(), words.len(), "{found:?}");
            assert!(found.iter().zip(words).all(|((cause, _), word)| cause.contains(word)));
        }
    }
}
