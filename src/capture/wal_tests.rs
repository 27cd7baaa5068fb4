//! What counts as an event in the stream, message by message.

use super::*;

/// A message of `pg_logical_emit_message`, as `pgoutput` sends it.
fn logical(flags: u8, prefix: &str, content: &[u8]) -> Frame {
    let mut message = vec![b'M', flags];
    message.extend(7_u64.to_be_bytes());
    message.extend(prefix.as_bytes());
    message.push(0);
    message.extend((content.len() as u32).to_be_bytes());
    message.extend(content);
    Frame::Data { start: Lsn(7), message: message.into() }
}

fn event_content() -> Vec<u8> {
    let event = Event {
        seq: 0,
        id: EventId([1; 16]),
        aggregate_type: "order",
        aggregate_id: "1",
        kind: "Placed",
        payload: Some(b"{}"),
        headers: None,
        created_at_micros: 0,
    };
    let mut content = Vec::new();
    envelope::encode(&event, &mut content).expect("short");
    content
}

fn items(source: Source, frames: impl IntoIterator<Item = Frame>) -> Vec<LogItem> {
    let mut decoder = Decoder {
        source,
        leaves: HashMap::new(),
        last: (0, 0),
        committed_at: Timestamp(0),
        early: 0,
    };
    frames.into_iter().map(|frame| decoder.item(frame).expect("each is well made")).collect()
}

/// One that is not bound to its transaction comes before its commit, and although it is rolled back.
#[test]
fn only_a_transactional_message_is_an_event() {
    let content = event_content();
    let frames = [0, 1].map(|flags| logical(flags, EVENT_PREFIX, &content));
    let found = items(Source::Messages, frames);
    assert!(matches!(found[..], [LogItem::Other, LogItem::Event(_)]), "{found:?}");
}

#[test]
fn only_a_transactional_message_is_a_tick() {
    let frames = [0, 1].map(|flags| logical(flags, TICK_PREFIX, b""));
    let found = items(Source::Messages, frames);
    assert!(matches!(found[..], [LogItem::Other, LogItem::Tick]), "{found:?}");
}

#[test]
fn what_is_no_event_or_not_ours_is_passed_over() {
    let strays = [logical(1, EVENT_PREFIX, b"garbage"), logical(1, "theirs", &event_content())];
    let found = items(Source::Messages, strays);
    assert!(matches!(found[..], [LogItem::Other, LogItem::Other]), "{found:?}");
}

/// One record of the log may bring several messages: their order is that of their coming.
#[test]
fn messages_of_one_place_keep_their_order() {
    let content = event_content();
    let frames = [1, 1, 1].map(|flags| logical(flags, EVENT_PREFIX, &content));
    let seqs: Vec<i64> = items(Source::Messages, frames)
        .into_iter()
        .map(|item| match item {
            LogItem::Event(event) => event.seq(),
            other => panic!("an event, not {other:?}"),
        })
        .collect();
    assert!(seqs.is_sorted_by(|one, other| one < other), "{seqs:?}");
}
