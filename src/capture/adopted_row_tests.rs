//! Rows of adopted tables, of every form.

use bytes::Bytes;

use super::*;
use crate::adopted::{Mapping, TableColumn};
use crate::capture::pgoutput::{self, Message};
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
    let read = leaf.read(&row, 100, 1).expect("it is an event");
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
    let read = leaf.read(&row(&[None; 6]), 100, 5).expect("it is an event");
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

#[test]
fn a_text_that_is_no_utf8_is_refused() {
    let leaf = AdoptedLeaf::new(0, &adopted(), &relation(COLUMNS), &forms()).expect("it fits");
    for broken in [1, 4] {
        let mut values = [None; 6];
        values[broken] = Some(&b"\xff"[..]);
        assert!(leaf.read(&row(&values), 1, 1).is_err());
    }
}
