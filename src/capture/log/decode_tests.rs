//! What counts as an event in the stream, message by message.

use crate::capture::log::decode::*;
use crate::event::{Event, EventId, LendEvent};

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
    message::encode(&event, &mut content).expect("short");
    content
}

fn items(source: Source, frames: impl IntoIterator<Item = Frame>) -> Vec<LogItem> {
    items_of(Schema::default(), source, frames)
}

fn items_of(
    schema: Schema,
    source: Source,
    frames: impl IntoIterator<Item = Frame>,
) -> Vec<LogItem> {
    let reading = StreamReading { encoding: Encoding::Utf8, event_bytes_max: 4096, schema };
    let mut decoder = Decoder::new(source, reading);
    frames.into_iter().map(|frame| decoder.item(frame).expect("each is well made")).collect()
}

/// One that is not bound to its transaction comes before its commit, and although it is rolled back.
#[test]
fn only_a_transactional_message_is_an_event() {
    let content = event_content();
    let frames = [0, 1].map(|flags| logical(flags, message::PREFIX, &content));
    let found = items(Source::Messages, frames);
    assert!(matches!(found[..], [LogItem::Other, LogItem::Event(_)]), "{found:?}");
}

#[test]
fn only_a_transactional_message_is_a_tick() {
    let frames = [0, 1].map(|flags| logical(flags, "postrider.tick", b""));
    let found = items(Source::Messages, frames);
    assert!(matches!(found[..], [LogItem::Other, LogItem::Tick]), "{found:?}");
}

#[test]
fn what_is_not_ours_is_passed_over() {
    let strays = [logical(1, "theirs", &event_content()), logical(1, "", b"")];
    let found = items(Source::Messages, strays);
    assert!(matches!(found[..], [LogItem::Other, LogItem::Other]), "{found:?}");
}

/// Under our prefix it was meant to be an event: it is kept as it came, and stops nothing else.
#[test]
fn what_is_no_event_is_set_aside_as_it_came() {
    let not_utf8 = [&event_content()[..42], b"\xff\xff\xff\xff\xff1Placed"].concat();
    for content in [&b"garbage"[..], b"", &event_content()[..41], &not_utf8] {
        let found = items(Source::Messages, [logical(1, message::PREFIX, content)]);
        let [LogItem::Event(event)] = &found[..] else { panic!("an event, not {found:?}") };
        let flaw = event.flaw().expect("it cannot be sent");
        assert_eq!(flaw.reason, Reason::Unreadable);
        assert!(flaw.detail.contains("postrider.emit"), "{}", flaw.detail);
        assert_eq!(event.event().payload, Some(content));
        let again = items(Source::Messages, [logical(1, message::PREFIX, content)]);
        let [LogItem::Event(again)] = &again[..] else { panic!("an event, not {again:?}") };
        assert_eq!(again.event(), event.event(), "read again, it is the same");
    }
}

/// One record of the log may bring several messages: their order is that of their coming.
#[test]
fn messages_of_one_place_keep_their_order() {
    let content = event_content();
    let frames = [1, 1, 1].map(|flags| logical(flags, message::PREFIX, &content));
    let seqs: Vec<i64> = items(Source::Messages, frames)
        .into_iter()
        .map(|item| match item {
            LogItem::Event(event) => event.seq(),
            other => panic!("an event, not {other:?}"),
        })
        .collect();
    assert!(seqs.is_sorted_by(|one, other| one < other), "{seqs:?}");
}

/// Two outboxes of a database write into one log.
#[test]
fn what_is_another_schemas_is_passed_over() {
    let content = event_content();
    let longest = "x".repeat(63);
    for name in ["billing", "Billing-2", &longest] {
        let schema: Schema = name.parse().expect("it is a name");
        let frames = || {
            let (event, tick) = (schema.message_prefix("outbox"), schema.message_prefix("tick"));
            [
                logical(1, &event, &content),
                logical(1, &tick, b""),
                logical(1, message::PREFIX, &content),
            ]
        };
        let own = items_of(schema.clone(), Source::Messages, frames());
        assert!(matches!(own[..], [LogItem::Event(_), LogItem::Tick, LogItem::Other]), "{own:?}");
        let usual = items(Source::Messages, frames());
        assert!(
            matches!(usual[..], [LogItem::Other, LogItem::Other, LogItem::Event(_)]),
            "{usual:?}"
        );
    }
}
