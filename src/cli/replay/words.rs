//! What is said of a replay before it is sent.
//!
//! Promises: events, topics, what is parked and what is gone are each named. Must not: know a session.

use std::collections::BTreeSet;

use crate::capture::replay::{FoundEvents, OldestEvent, ReplayFilter};
use crate::cli::output::count;
use crate::cli::parked::slash_words;
use crate::event::{Event, EventId};
use crate::legible;
use crate::record::topic::TopicTemplate;

/// So many topics are named.
const TOPICS_MAX: usize = 20;

/// What was found, and whether it is sent: by this replay, if it was asked for.
pub(super) fn found_words(
    replay: Option<i64>,
    found: &FoundEvents,
    filter: &ReplayFilter,
    template: &TopicTemplate,
) -> String {
    let events: i64 = found.parts.iter().map(|part| part.events).sum();
    let (events, is_any) = (count(events, "event"), events > 0);
    let mut text = match (is_any, replay) {
        (false, _) => {
            let ids = filter.aggregates.iter().filter_map(|(_, id)| id.as_deref());
            let why = ids.map(|id| slash_words(Some(id))).find(|why| !why.is_empty());
            format!("no retained event that was published is chosen{}\n", why.unwrap_or_default())
        }
        (true, None) => format!("{events} would be sent once more, to\n"),
        (true, Some(replay)) => {
            format!("replay {replay}: {events} will be sent once more by the relays, to\n")
        }
    };
    if is_any {
        text.push_str(&topic_lines(found, template));
    }
    if found.parked > 0 {
        let parked = count(found.parked, "event");
        text.push_str(&format!("left out, as not published: {parked} parked\n"));
    }
    text.push_str(&gone_words(found.oldest.as_ref(), filter));
    if is_any && replay.is_none() {
        text.push_str("nothing was changed\n");
    }
    text
}

fn topic_lines(found: &FoundEvents, template: &TopicTemplate) -> String {
    let topics: BTreeSet<String> = found
        .kinds
        .iter()
        .map(|(aggregate_type, kind)| topic(template, aggregate_type, kind))
        .collect();
    let mut lines: String =
        topics.iter().take(TOPICS_MAX).map(|topic| format!("  {topic}\n")).collect();
    if topics.len() > TOPICS_MAX {
        let more = topics.len() - TOPICS_MAX;
        lines.push_str(&format!("  and {more} more\n"));
    }
    lines
}

fn topic(template: &TopicTemplate, aggregate_type: &str, kind: &str) -> String {
    let event = Event {
        seq: 0,
        id: EventId([0; 16]),
        aggregate_type,
        aggregate_id: "",
        kind,
        payload: None,
        headers: None,
        created_at_micros: 0,
    };
    match template.render(&event, &mut String::new()) {
        Ok(topic) => topic.to_owned(),
        Err(cause) => format!("(left out: {})", legible::name(&cause.to_string())),
    }
}

/// What was chosen and is not there any more.
fn gone_words(oldest: Option<&OldestEvent>, filter: &ReplayFilter) -> String {
    let Some(oldest) = oldest else { return "the outbox retains no event\n".to_owned() };
    let is_before = filter.seqs.0 < oldest.seq
        && filter.since.is_none_or(|since| since.0 < oldest.created_at.0);
    if !is_before || oldest.seq <= 1 {
        return String::new();
    }
    format!(
        "not there any more: what was written before seq {} ({}) was cleaned up\n",
        oldest.seq, oldest.written
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::replay::FoundPart;
    use crate::postgres::Timestamp;

    fn found() -> FoundEvents {
        FoundEvents {
            parts: vec![FoundPart { bucket: 3, events: 2, seqs: (100, 900) }],
            parked: 1,
            kinds: vec![
                ("order".to_owned(), "Placed".to_owned()),
                ("a b".to_owned(), "X".to_owned()),
            ],
            oldest: Some(OldestEvent {
                seq: 90,
                written: "2026-11-30 06:00:00Z".to_owned(),
                created_at: Timestamp(1_000),
            }),
        }
    }

    fn all() -> ReplayFilter {
        ReplayFilter { seqs: (i64::MIN, i64::MAX), ..ReplayFilter::default() }
    }

    #[test]
    fn what_is_sent_and_what_is_not_is_said() {
        let template = "t.{aggregatetype}.replay".parse().expect("it is one");
        let said = found_words(Some(7), &found(), &all(), &template);
        for words in [
            "replay 7: 2 events will",
            "  t.order.replay\n",
            "(left out: ",
            "1 event parked",
            "before seq 90 (2026-",
        ] {
            assert!(said.contains(words), "no {words:?} in {said}");
        }
        let said = found_words(None, &found(), &all(), &template);
        assert!(said.contains("2 events would") && said.contains("nothing was changed"), "{said}");
    }

    #[test]
    fn what_is_gone_is_said_only_where_it_was_chosen() {
        let oldest = found().oldest;
        let gone = |filter: &ReplayFilter| !gone_words(oldest.as_ref(), filter).is_empty();
        assert!(gone(&all()) && gone(&ReplayFilter { seqs: (89, 200), ..all() }));
        assert!(!gone(&ReplayFilter { seqs: (90, 200), ..all() }));
        assert!(gone(&ReplayFilter { since: Some(Timestamp(999)), ..all() }));
        assert!(!gone(&ReplayFilter { since: Some(Timestamp(1_000)), ..all() }));
        assert!(gone_words(None, &all()).contains("no event"));
    }
}
