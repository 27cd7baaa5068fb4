//! Rows of adopted tables, of every form.

use bytes::Bytes;

use crate::capture::adopted::mapping::{Mapping, TableColumn};
use crate::capture::adopted::row::*;
use crate::capture::log::flawed::EventOrigin as FlawedOrigin;
use crate::capture::log::pgoutput;
use crate::capture::log::pgoutput::Message;
use crate::order::holds::Reason;
use crate::outbox::OutboxName;

/// Columns with the object identifiers that PostgreSQL gives their types.
const COLUMNS: &[(&str, u32, Form)] = &[
    ("id", 20, Form::Integer),
    ("kind", 1042, Form::Padded),
    ("key", 2950, Form::Uuid),
    ("body", 3802, Form::Jsonb),
    ("extra", 114, Form::Text),
    ("at", 1184, Form::Time),
];

fn forms() -> Forms {
    COLUMNS.iter().map(|(_, oid, form)| (*oid, *form)).collect()
}

fn relation(columns: &[(&str, u32, Form)]) -> Relation {
    let mut message = b"R\0\0\x40\x01shop\0events\0d".to_vec();
    message.extend((columns.len() as u16).to_be_bytes());
    for (name, oid, _) in columns {
        message.push(0);
        message.extend(name.as_bytes());
        message.push(0);
        message.extend(oid.to_be_bytes());
        message.extend([0xff; 4]);
    }
    match pgoutput::decode(message.into()) {
        Ok(Message::Relation(relation)) => relation,
        other => panic!("{other:?}"),
    }
}

fn row(values: &[Option<&[u8]>]) -> Tuple {
    let mut message = b"I\0\0\x40\x01N".to_vec();
    message.extend((values.len() as u16).to_be_bytes());
    for value in values {
        match value {
            None => message.push(b'n'),
            Some(value) => {
                message.push(b'b');
                message.extend((value.len() as u32).to_be_bytes());
                message.extend(*value);
            }
        }
    }
    match pgoutput::decode(Bytes::from(message)) {
        Ok(Message::Insert { row, .. }) => row,
        other => panic!("{other:?}"),
    }
}

fn adopted() -> Adopted {
    let columns = |(name, _, form): &(&str, u32, Form)| TableColumn {
        name: (*name).to_owned(),
        type_name: format!("{form:?}"),
        form: Some(*form),
    };
    let columns: Vec<TableColumn> = COLUMNS.iter().map(columns).collect();
    let asked = [
        "aggregatetype='order'",
        "aggregateid=key",
        "type=kind",
        "payload=body",
        "headers=extra",
        "created_at=at",
    ];
    let asked: Vec<Mapping> = asked.iter().map(|text| text.parse().expect(text)).collect();
    Adopted {
        name: OutboxName::default(),
        columns: ColumnMap::resolve(&asked, &columns).expect("the table fits"),
        pending: None,
        copy_order: "id".to_owned(),
        passed: None,
        streamed: None,
    }
}

const KEY: Uuid = uuid::uuid!("00112233-4455-6677-8899-aabbccddeeff");

#[test]
fn every_part_is_read() {
    let leaf = AdoptedLeaf::new(3, &adopted(), &relation(COLUMNS), &forms()).expect("it fits");
    let values: [Option<&[u8]>; 6] = [
        Some(&42_i64.to_be_bytes()),
        Some(b"Placed   "),
        Some(KEY.as_bytes()),
        Some(b"\x01{\"a\": 1}"),
        Some(b"{\"b\":2}"),
        Some(&7_i64.to_be_bytes()),
    ];
    let row = row(&values);
    let ReadRow::Whole(read) = leaf.read(&row, &Encoding::Utf8, 100, 1).expect("it is an event")
    else {
        panic!("it is whole")
    };
    let event = read.event();
    assert_eq!((read.table, event.seq), (3, place_at(100)));
    assert_eq!(event.id.to_string(), "00000000-0000-0000-0000-00000000002a");
    assert_eq!((event.aggregate_type, event.kind), ("order", "Placed"));
    assert_eq!(event.aggregate_id, KEY.to_string());
    assert_eq!(read.aggregate_id(), event.aggregate_id.as_bytes());
    assert_eq!(event.payload, Some(&b"{\"a\": 1}"[..]));
    assert_eq!(event.headers, Some("{\"b\":2}"));
    assert_eq!(event.created_at_micros, EPOCH_MICROS + 7);
    let buffer = row.bytes().as_ptr_range();
    assert!(buffer.contains(&event.payload.expect("there is one").as_ptr()), "it is lent");
}

#[test]
fn nulls_read_as_nothing() {
    let leaf = AdoptedLeaf::new(0, &adopted(), &relation(COLUMNS), &forms()).expect("it fits");
    let read = leaf.read(&row(&[None; 6]), &Encoding::Utf8, 100, 5).expect("it is an event");
    let ReadRow::Whole(read) = read else { panic!("{read:?}") };
    let event = read.event();
    assert_eq!(event.id, id_of(""));
    assert_eq!((event.aggregate_id, event.kind), ("", ""));
    assert_eq!((event.payload, event.headers, event.created_at_micros), (None, None, 5));
}

#[test]
fn integers_have_every_width_and_sign() {
    for number in [0_i64, 1, -1, 300, -300] {
        assert_eq!(integer(&(number as i16).to_be_bytes()), number);
        assert_eq!(integer(&(number as i32).to_be_bytes()), number);
        assert_eq!(integer(&number.to_be_bytes()), number);
    }
    assert_eq!(integer(&[]), 0);
}

#[test]
fn ids_of_every_kind_become_one() {
    let text = |text: &str| id_of(text).to_string();
    assert_eq!(text(&KEY.to_string()), KEY.to_string());
    assert_eq!(text("7"), "00000000-0000-0000-0000-000000000007");
    assert_eq!(text(""), Uuid::nil().to_string());
    assert_eq!(text("order-7"), text("order-7"));
    assert_ne!(text("order-7"), text("order-8"));
}

#[test]
fn a_table_that_was_changed_is_refused() {
    for changed in [&COLUMNS[1..], &[&COLUMNS[..5], &[("at", 25, Form::Text)]].concat()] {
        let error = AdoptedLeaf::new(0, &adopted(), &relation(changed), &forms()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Schema);
        assert!(error.remedy().is_some_and(|remedy| remedy.contains("--end")), "{error}");
    }
}

/// It is set aside by its aggregate, so that what follows there waits, with what can be read of it.
#[test]
fn a_value_that_cannot_be_read_is_named_and_the_rest_is_there() {
    let leaf = AdoptedLeaf::new(3, &adopted(), &relation(COLUMNS), &forms()).expect("it fits");
    for (broken, part) in [(1, "type"), (3, "payload"), (4, "headers"), (5, "created_at")] {
        let mut values = [
            Some(&42_i64.to_be_bytes()[..]),
            Some(b"Placed"),
            Some(KEY.as_bytes()),
            Some(b"\x01{}"),
            Some(b"{}"),
            Some(&[0; 8]),
        ];
        values[broken] = Some(b"\x01\xff");
        let read = leaf.read(&row(&values), &Encoding::Unknown, 1, 9).expect("it comes");
        let ReadRow::Flawed(flawed) = read else { panic!("{part}: {read:?}") };
        let event = flawed.event();
        assert_eq!(flawed.origin(), FlawedOrigin::Adopted(3));
        assert_eq!(flawed.refusal().reason, Reason::Unreadable);
        assert!(flawed.refusal().detail.starts_with(part), "{}", flawed.refusal().detail);
        assert_eq!((event.seq, event.aggregate_type), (place_at(1), "order"));
        assert_eq!(event.aggregate_id, KEY.to_string());
        let legible = if part == "type" { "\u{1}\\xff" } else { "Placed" };
        assert_eq!(event.kind, legible);
        let payload = if part == "payload" { &b"\xff"[..] } else { b"{}" };
        assert_eq!(event.payload, Some(payload), "it is kept as it lies there");
        assert_eq!(event.created_at_micros == 9, part == "created_at");
    }
}

/// A column that is no part of an event is nobody's fault.
#[test]
fn what_is_no_part_of_an_event_is_not_read() {
    let columns = [COLUMNS, &[("note", 25, Form::Text)]].concat();
    let leaf = AdoptedLeaf::new(0, &adopted(), &relation(&columns), &forms()).expect("it fits");
    let mut values = [None; 7];
    values[6] = Some(&b"\xff"[..]);
    let read = leaf.read(&row(&values), &Encoding::Unknown, 1, 1).expect("it comes");
    assert!(matches!(read, ReadRow::Whole(_)), "{read:?}");
    let keeps = leaf.keeps(7);
    assert_eq!(keeps[..6], [Keep::HandOn; 6]);
    assert_eq!(keeps[6], Keep::Nothing);
}

#[test]
fn a_large_row_tells_where_each_of_its_values_is() {
    let leaf = AdoptedLeaf::new(0, &adopted(), &relation(COLUMNS), &forms()).expect("it fits");
    let values: [Option<&[u8]>; 6] = [
        Some(&42_i64.to_be_bytes()),
        Some(b"Placed   "),
        Some(KEY.as_bytes()),
        Some(b"\x01{\"a\""),
        None,
        Some(&7_i64.to_be_bytes()),
    ];
    let oversized = Oversized { bytes: 9_000_000, handed_on: vec![3] };
    let row = leaf.read_large(&row(&values), &oversized, &Encoding::Utf8, 100, 1);
    let row = row.expect("it is an event");
    assert_eq!(row.aggregate(), Some(("order", KEY.to_string().as_str())));
    assert_eq!(row.kind, LargeValue::Here("Placed".to_owned()));
    assert_eq!(row.headers, LargeValue::None);
    let handed_on = row.payload.handed_on().expect("it was");
    assert_eq!((handed_on.number, handed_on.form), (3, HandedForm::Jsonb));
    assert_eq!(handed_on.head, "{\"a\"");
    assert_eq!((row.event_bytes, row.fault, row.texts), (9_000_000, None, HandedTexts::Utf8));
    assert_eq!(row.created_at_micros, EPOCH_MICROS + 7);
}

/// Of one byte per character: keys, headers and payload are texts, bytes are none.
#[test]
fn texts_of_another_encoding_become_utf_8() {
    let mut table = Box::new([None; 128]);
    table[0xe9 - 128] = Some('\u{e9}');
    let encoding = Encoding::Bytes(table);
    let leaf = AdoptedLeaf::new(0, &adopted(), &relation(COLUMNS), &forms()).expect("it fits");
    let values: [Option<&[u8]>; 6] =
        [None, Some(b"caf\xe9 "), None, Some(b"\x01\"\xe9\""), Some(b"{\"h\":\"\xe9\"}"), None];
    let read = leaf.read(&row(&values), &encoding, 1, 1).expect("it comes");
    let ReadRow::Whole(read) = read else { panic!("{read:?}") };
    let event = read.event();
    assert_eq!(event.kind, "caf\u{e9}");
    assert_eq!(event.payload, Some("\"\u{e9}\"".as_bytes()));
    assert_eq!(event.headers, Some("{\"h\":\"\u{e9}\"}"));
}
