//! What records look like, for events of all kinds.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::order::holds::Reason;
use crate::record::topic::DEFAULT_TOPIC_TEMPLATE;
use crate::record::unpublishable::CREATED_AT_MICROS;

#[test]
fn what_a_large_event_needed_is_given_back() {
    let mut encoder = Encoder::new("{aggregatetype}".parse().unwrap());
    let members: Vec<String> =
        (0..200_000).map(|number| format!("\"header-{number}\": \"some text\"")).collect();
    let headers = format!("{{{}}}", members.join(","));
    encoder.encode(&event(Some(&headers)), EventPlace::default()).unwrap();
    let name = "t".repeat(3 * BUFFER_BYTES);
    encoder
        .encode(&Event { aggregate_type: &name, ..event(None) }, EventPlace::default())
        .unwrap_err();
    let kept = |encoder: &Encoder| {
        let spans = encoder.headers.spans.capacity() * size_of::<HeaderSpan>();
        [encoder.topic.capacity(), encoder.headers.text.capacity(), spans]
    };
    assert!(kept(&encoder).iter().all(|bytes| *bytes > BUFFER_BYTES), "{:?}", kept(&encoder));
    encoder.rest();
    assert!(kept(&encoder).iter().all(|bytes| *bytes <= BUFFER_BYTES), "{:?}", kept(&encoder));
}

type Headers = Vec<(String, Option<String>)>;

fn event(headers: Option<&str>) -> Event<'_> {
    Event {
        seq: 1,
        id: EventId(*b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"),
        aggregate_type: "order",
        aggregate_id: "42",
        kind: "placed",
        payload: Some(b"\x00\xff{"),
        headers,
        created_at_micros: 1_795_466_121_219_663,
    }
}

fn encoder() -> Encoder {
    Encoder::new(DEFAULT_TOPIC_TEMPLATE.parse().unwrap())
}

fn owned(record: &Record<'_>) -> Headers {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    record.headers().map(|(name, value)| (name.to_owned(), value.map(text))).collect()
}

/// The headers that come from the row.
fn members(object: &str) -> Result<Headers, Unpublishable> {
    encoder()
        .encode(&event(Some(object)), EventPlace::default())
        .map(|record| owned(&record).split_off(2))
}

fn some(name: &str, value: &str) -> (String, Option<String>) {
    (name.to_owned(), Some(value.to_owned()))
}

#[test]
fn passes_key_and_payload_and_names_the_event() {
    let mut encoder = encoder();
    let row = event(None);
    let record = encoder.encode(&row, EventPlace::default()).unwrap();
    assert_eq!((record.topic, record.key), ("outbox.event.order", "42"));
    assert_eq!(record.value, Some(&b"\x00\xff{"[..]));
    assert_eq!(record.created_at_micros, Some(row.created_at_micros));
    let id = some("id", "01234567-89ab-cdef-0123-456789abcdef");
    assert_eq!(owned(&record), [id, some("type", "placed")]);
    assert_eq!(record.header_count(), 2);
    let tombstone = Event { payload: None, ..row };
    assert_eq!(encoder.encode(&tombstone, EventPlace::default()).unwrap().value, None);
}

#[test]
fn debeziums_text_of_a_trace_becomes_headers() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let text = format!("#now\\ntraceparent={PARENT}\\ntracestate=a\\\\=b\\n");
    let object = format!(r#"{{"a": "1", "tracingspancontext": "{text}", "b": "2"}}"#);
    let trace = some("traceparent", PARENT);
    let expected = [some("a", "1"), some("b", "2"), trace.clone(), some("tracestate", "a=b")];
    assert_eq!(members(&object).unwrap(), expected);
    let own = object.replace(r#""a": "1""#, r#""TraceParent": "mine""#);
    assert_eq!(members(&own).unwrap(), [some("TraceParent", "mine"), some("b", "2")]);
    let none = r#"{"tracingspancontext": "uber-trace-id=1"}"#;
    assert_eq!(members(none).unwrap(), [some("tracingspancontext", "uber-trace-id=1")]);
    // A column of that name, adopted for headers.
    assert_eq!(members(&format!("#now\ntraceparent={PARENT}\n")).unwrap(), [trace]);
    assert!(members("#now\nother=1\n").is_err());
}

#[test]
fn a_replay_marks_its_records_whatever_the_row_says() {
    let mut encoder = encoder().with_replay(7);
    let row = event(Some(r#"{"postrider.replay": "forged", "b": "x"}"#));
    let record = encoder.encode(&row, EventPlace::default()).unwrap();
    assert_eq!(owned(&record)[2..], [some("postrider.replay", "7"), some("b", "x")]);
}

#[test]
fn members_become_headers_in_their_order() {
    let object =
        r#" {"b": "x", "a": 1.50, "n": null, "l": [1, {"k": "\\n"}], "t": true, "": "" } "#;
    assert_eq!(members(object), Err(Unpublishable::HeaderNameEmpty));
    let named = object.replace(r#""": """#, r#""o": {}"#);
    let expected = [
        some("b", "x"),
        some("a", "1.50"),
        ("n".to_owned(), None),
        some("l", r#"[1, {"k": "\\n"}]"#),
        some("t", "true"),
        some("o", "{}"),
    ];
    assert_eq!(members(&named).unwrap(), expected);
    for nothing in ["{}", " { } ", "null", "\tnull\n"] {
        assert_eq!(members(nothing).unwrap(), [], "{nothing}");
    }
}

#[test]
fn strings_lose_their_escapes() {
    let object = r#"{"a": "say \"hi\"\n", "\u00e4": "\ud83d\ude00 日本", "z": "\u0000", "e": ""}"#;
    let expected =
        [some("a", "say \"hi\"\n"), some("ä", "😀 日本"), some("z", "\0"), some("e", "")];
    assert_eq!(members(object).unwrap(), expected);
}

#[test]
fn our_names_are_not_repeated() {
    let object = r#"{"id": "x", "i\u0064": 1, "type": null, "created_at": "y", "Id": "z"}"#;
    assert_eq!(members(object).unwrap(), [some("created_at", "y"), some("Id", "z")]);
    let mut encoder = encoder().with_headers(AddedHeaders::from_iter([AddedHeader::CreatedAt]));
    let row = event(Some(object));
    let headers = owned(&encoder.encode(&row, EventPlace::default()).unwrap()).split_off(2);
    assert_eq!(headers, [some("created_at", "2026-11-23T20:35:21.219663Z"), some("Id", "z")]);
}

#[test]
fn what_is_asked_for_is_there_where_the_event_has_it() {
    let position = Some(5 << 32 | 7);
    let all = [AddedHeader::Position, AddedHeader::Seq, AddedHeader::AggregateType];
    let [at, seq, kind] = [
        some("position", "21474836487"),
        some("seq", "-9223372036854775808"),
        some("aggregatetype", "order"),
    ];
    let min = Some(i64::MIN);
    for (asked, place, expected) in [
        (&all[..], EventPlace { seq: min, position }, vec![&seq, &at, &kind]),
        (&all[..], EventPlace { seq: None, position }, vec![&at, &kind]),
        (&all[..], EventPlace { seq: min, position: None }, vec![&seq, &kind]),
        (&all[..1], EventPlace { seq: min, position }, vec![&at]),
        (&all[1..2], EventPlace { seq: min, position }, vec![&seq]),
        (&[], EventPlace { seq: min, position }, vec![]),
    ] {
        let mut encoder = encoder().with_headers(asked.iter().copied().collect());
        let object = r#"{"seq": 1, "position": 2, "aggregatetype": 3, "z": 4}"#;
        let mut headers = owned(&encoder.encode(&event(Some(object)), place).unwrap());
        let ours = headers.drain(2..).take(expected.len()).collect::<Vec<_>>();
        assert_eq!(ours.iter().collect::<Vec<_>>(), expected, "{asked:?} {place:?}");
    }
}

#[test]
fn a_row_does_not_forge_its_place() {
    let asked = [AddedHeader::Seq, AddedHeader::Position];
    let mut encoder = encoder().with_headers(asked.into_iter().collect());
    let row = event(Some(r#"{"seq": 99, "position": 99, "z": 4}"#));
    let place = EventPlace { seq: Some(3), position: Some(4) };
    let headers = owned(&encoder.encode(&row, place).unwrap()).split_off(2);
    assert_eq!(headers, [some("seq", "3"), some("position", "4"), some("z", "4")]);
}

#[test]
fn times_are_written_with_microseconds() {
    let mut encoder = encoder().with_headers(AddedHeaders::from_iter([AddedHeader::CreatedAt]));
    for (micros, expected) in [
        (0, "1970-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (951_782_400_000_001, "2000-02-29T00:00:00.000001Z"),
        (*CREATED_AT_MICROS.start(), "0001-01-01T00:00:00.000000Z"),
        (*CREATED_AT_MICROS.end(), "9999-12-30T21:59:59.999999Z"),
    ] {
        let row = Event { created_at_micros: micros, ..event(None) };
        assert_eq!(
            owned(&encoder.encode(&row, EventPlace::default()).unwrap())[2],
            some("created_at", expected)
        );
    }
    for micros in [CREATED_AT_MICROS.start() - 1, CREATED_AT_MICROS.end() + 1, i64::MAX] {
        let row = Event { created_at_micros: micros, ..event(None) };
        let refused = encoder.encode(&row, EventPlace::default()).unwrap_err();
        assert_eq!(refused, Unpublishable::CreatedAtOutOfRange { micros });
    }
}

#[test]
fn a_record_bears_no_time_that_kafka_does_not_have() {
    let mut encoder = encoder();
    let mut millis = |micros| {
        let row = Event { created_at_micros: micros, ..event(None) };
        encoder.encode(&row, EventPlace::default()).unwrap().created_at_millis()
    };
    for (micros, expected) in [(1_000, 1), (1_999, 1), (i64::MAX - 1, i64::MAX / 1_000)] {
        assert_eq!(millis(micros), Ok(Some(expected)));
    }
    for micros in [i64::MAX, 999, 0, -1, -62_135_596_800_000_000, i64::MIN] {
        assert_eq!(millis(micros), Err(Unpublishable::TimestampOutOfRange { micros }));
    }
    let refusal = Refusal::from(millis(i64::MIN).unwrap_err());
    assert_eq!(refusal.reason, Reason::BadTime);
    assert!(refusal.detail.contains("created_at (-infinity) "), "{refusal:?}");
}

#[test]
fn a_dead_letter_tells_the_rows_time_and_does_not_bear_it() {
    let mut encoder = encoder();
    for (micros, expected) in [
        (-1, "1969-12-31T23:59:59.999999Z"),
        (i64::MIN, "-infinity"),
        (i64::MIN + 1, "-9223372036854775807 microseconds since 1970"),
        (CREATED_AT_MICROS.end() + 1, "253402207200000000 microseconds since 1970"),
        (i64::MAX, "infinity, or after 294247-01-10"),
    ] {
        let row = Event { created_at_micros: micros, ..event(None) };
        let refusal = Refusal::from(Unpublishable::CreatedAtOutOfRange { micros });
        assert!(refusal.detail.contains(&format!("created_at ({expected}) ")), "{refusal:?}");
        let letter = encoder.dead_letter(&row, "letters", &refusal);
        assert_eq!(letter.created_at_micros, None);
        assert_eq!(owned(&letter)[7], some("postrider.created_at", expected));
    }
}

#[test]
fn refuses_headers_that_are_not_an_object() {
    for (json, found) in [
        ("[]", "an array"),
        (r#""text""#, "a string"),
        ("-1", "a number"),
        ("true", "a boolean"),
        ("", "no JSON"),
        ("nil", "no JSON"),
    ] {
        assert_eq!(members(json), Err(Unpublishable::HeadersNotAnObject { found }), "{json}");
    }
    for json in ["{", r#"{"a"}"#, r#"{"a": 1,}"#, "{} {}", r#"{"a": "\ud800"}"#, "{a: 1}"] {
        let refused = members(json).unwrap_err();
        assert!(matches!(refused, Unpublishable::HeadersMalformed { .. }), "{json}: {refused}");
    }
    let refused = members(r#"{"a\u0000b": 1}"#).unwrap_err().to_string();
    assert_eq!(refused, r#"the header name "a\0b" contains a NUL character"#);
}

#[test]
fn a_refused_event_leaves_nothing_behind() {
    let mut encoder = encoder();
    let refused = event(Some(r#"{"left": "over", "": 1}"#));
    assert!(encoder.encode(&refused, EventPlace::default()).is_err());
    let illegal = Event { aggregate_type: "a b", ..event(None) };
    assert!(matches!(
        encoder.encode(&illegal, EventPlace::default()),
        Err(Unpublishable::IllegalTopic(_))
    ));
    assert_eq!(encoder.encode(&event(None), EventPlace::default()).unwrap().header_count(), 2);
}

#[test]
fn the_buffers_do_not_grow_once_warm() {
    let mut encoder = encoder().with_headers(AddedHeaders::from_iter([AddedHeader::CreatedAt]));
    let object = r#"{"a": "1", "b": 22, "c": "\n", "d": [[1]], "e": null}"#;
    let capacities = |encoder: &Encoder| {
        (
            encoder.topic.capacity(),
            encoder.headers.text.capacity(),
            encoder.headers.spans.capacity(),
        )
    };
    encoder.encode(&event(Some(object)), EventPlace::default()).unwrap();
    let warm = capacities(&encoder);
    let text = encoder.headers.text.as_ptr();
    for round in 0..1000 {
        let row = event((round % 3 != 0).then_some(object));
        encoder.encode(&row, EventPlace::default()).unwrap();
    }
    assert_eq!(capacities(&encoder), warm);
    assert_eq!(encoder.headers.text.as_ptr(), text);
}

#[test]
fn five_thousand_headers() {
    let object = (0..5000).map(|n| format!(r#""h{n}":"{n}""#)).collect::<Vec<_>>().join(",");
    let headers = members(&format!("{{{object}}}")).unwrap();
    assert_eq!(headers.len(), 5000);
    assert_eq!(headers[4999], some("h4999", "4999"));
}

#[test]
fn the_java_client_computes_the_same_sizes() {
    let vectors = include_str!("../../tests/vectors/record_size.csv");
    for line in vectors.lines().skip(1) {
        let numbers: Vec<i64> = line.split(',').map(|field| field.parse().unwrap()).collect();
        let [key, value, count, name, text, expected] = numbers[..] else { panic!("{line}") };
        let length = |number: i64| usize::try_from(number).ok();
        let mut headers = HeaderBuffer::default();
        for _ in 0..count {
            let name = headers.append(&"n".repeat(length(name).unwrap()));
            let value = length(text).map(|text| headers.append(&"v".repeat(text)));
            headers.spans.push(HeaderSpan { name, value });
        }
        let value = length(value).map(|value| vec![0; value]);
        let record = Record {
            topic: "t",
            key: &"k".repeat(length(key).unwrap()),
            value: value.as_deref(),
            created_at_micros: Some(0),
            headers: &headers,
        };
        assert_eq!(Some(size_bytes(&record)), length(expected), "{line}");
    }
    assert!(vectors.lines().count() > 100);
}

/// Any JSON, not deeper than a few levels.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// What the headers of an object are, by way of the tree that the encoder does not build.
fn reference(object: &[(String, Value)]) -> Headers {
    object
        .iter()
        .filter(|(name, _)| name != "id" && name != "type")
        .map(|(name, value)| {
            let text = match value {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
            (name.clone(), text)
        })
        .collect()
}

fn write(object: &[(String, Value)]) -> String {
    let member =
        |(name, value): &(String, Value)| format!("{}: {value}", Value::from(name.as_str()));
    format!("{{{}}}", object.iter().map(member).collect::<Vec<_>>().join(", "))
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => any::<String>().prop_map(|name| name.replace('\0', "") + "x"),
        1 => Just("id".to_owned()),
        1 => Just("type".to_owned()),
    ]
}

proptest! {
    #[test]
    fn any_object_becomes_what_its_tree_says(
        object in prop::collection::vec((name(), json()), 0..12),
    ) {
        prop_assert_eq!(members(&write(&object)).unwrap(), reference(&object));
    }

    #[test]
    fn any_text_is_taken_or_refused(text in ".*") {
        let taken = members(&text).is_ok();
        let readable = matches!(serde_json::from_str(&text), Ok(Value::Object(_) | Value::Null));
        prop_assert!(!taken || readable, "{}", text);
    }

    #[test]
    fn the_size_counts_every_byte(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut encoder = encoder();
        let small = size_bytes(&encoder.encode(&Event { payload: Some(&[]), ..event(None) }, EventPlace::default()).unwrap());
        let record = encoder.encode(&Event { payload: Some(&payload), ..event(None) }, EventPlace::default()).unwrap();
        let more = size_bytes(&record) - small;
        prop_assert!(more >= payload.len() && more <= payload.len() + 1);
        let size = size_bytes(&record);
        prop_assert!(record.fits(size) && record.fits(usize::MAX) && !record.fits(size - 1));
    }
}
