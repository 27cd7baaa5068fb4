//! What is asked of a table, and what its answers are.

use crate::capture::adopted::mapping::Mapping;
use crate::capture::adopted::query::*;
use crate::order::holds::Reason;
use crate::outbox::OutboxName;

const COLUMNS: &[(&str, Form)] = &[
    ("id", Form::Uuid),
    ("aggregatetype", Form::Text),
    ("a\"b", Form::Padded),
    ("type", Form::Text),
    ("payload", Form::Jsonb),
    ("created_at", Form::Time),
];

fn query() -> CopyQuery {
    let columns = |(name, form): &(&str, Form)| TableColumn {
        name: (*name).to_owned(),
        type_name: format!("{form:?}"),
        form: Some(*form),
    };
    let columns: Vec<TableColumn> = COLUMNS.iter().map(columns).collect();
    let asked = ["type='it''s'", "aggregateid=a\"b"];
    let asked: Vec<Mapping> = asked.iter().map(|text| text.parse().expect(text)).collect();
    let map = ColumnMap::resolve(&asked, &columns).expect("the table fits");
    let adopted = Adopted {
        name: OutboxName::default(),
        columns: map.clone(),
        pending: None,
        copy_order: "created_at".to_owned(),
        passed: None,
        streamed: None,
    };
    CopyQuery::new(&adopted, &map, &columns, "true", 8_000_000)
}

#[test]
fn a_copy_quotes_names_and_escapes_constants() {
    let query = query();
    let sql = query.sql();
    assert!(sql.contains("adopted_row.\"a\"\"b\" as postrider_aggregateid"), "{sql}");
    assert!(sql.contains("'it''s'::text as \"type\""), "{sql}");
    assert!(sql.contains("null::text as \"headers\""), "{sql}");
    assert!(sql.contains("lateral postrider.printed(ordered.postrider_payload)"), "{sql}");
    assert!(!sql.contains("printed_id") && !sql.contains("printed_type"), "{sql}");
    assert!(sql.starts_with("select") && !sql.contains('{'), "{sql}");
}

fn answer(cells: &[(usize, &str)]) -> Vec<Option<String>> {
    let mut row = vec![None; 13];
    for (place, text) in cells {
        row[*place] = Some((*text).to_owned());
    }
    row
}

const ROW: &[(usize, &str)] = &[
    (0, "00112233-4455-6677-8899-aabbccddeeff"),
    (1, "order"),
    (2, "7   "),
    (3, "Placed"),
    (4, "{}"),
    (7, "-5"),
    (8, "99"),
];

#[test]
fn a_row_becomes_an_event() {
    let row = query().read(answer(ROW), 3).expect("it is one");
    let RowAnswer::Event(LoggedEvent::Copied(event)) = row.content else { panic!("{row:?}") };
    assert_eq!(row.written_by.as_deref(), Some("99"));
    assert_eq!((event.seq, event.created_at_micros), (3, -5));
    assert_eq!((event.aggregate_id.as_str(), event.payload.as_deref()), ("7", Some(&b"{}"[..])));
    assert_eq!(event.headers, None);
}

#[test]
fn a_row_with_a_fault_is_set_aside_with_what_can_be_read() {
    let fault = [ROW, &[(5, "\\xff00"), (9, "payload: no")]].concat();
    let row = query().read(answer(&fault), 3).expect("it is one");
    let RowAnswer::Event(LoggedEvent::Flawed(flawed)) = row.content else { panic!("{row:?}") };
    assert_eq!(flawed.refusal().reason, Reason::Unreadable);
    assert_eq!(flawed.refusal().detail, "payload: no");
    assert_eq!(flawed.event().payload, Some(&b"\xff\0"[..]), "as it lies there");
}

#[test]
fn a_large_row_tells_how_many_parts_follow() {
    let head = [ROW, &[(10, "5,4,6,0,3000000")]].concat();
    let row = query().read(answer(&head), 3).expect("it is one");
    let RowAnswer::Large(large, parts) = row.content else { panic!("{row:?}") };
    assert_eq!((parts, large.event_bytes), (3, 3_000_015));
    assert_eq!(large.aggregate(), Some(("order", "7")));
    assert_eq!(large.payload.handed_on().map(|value| value.number), Some(4));
    let part = query().read(answer(&[(8, "99"), (11, "4"), (12, "\\x00ff")]), 3);
    let part = part.expect("it is one");
    assert!(matches!(part.content, RowAnswer::Part(4, bytes) if bytes == [0, 0xff]));
}

#[test]
fn what_was_not_asked_for_is_refused() {
    let mut short = answer(ROW);
    short.pop();
    let odd_time = answer(&[(7, "soon")]);
    let odd_bytes = answer(&[(5, "\\xzz")]);
    let odd_lengths = answer(&[(10, "1,2,3")]);
    for row in [short, odd_time, odd_bytes, odd_lengths] {
        let error = query().read(row.clone(), 3).expect_err("it is no row");
        assert_eq!(error.kind(), ErrorKind::Schema, "{row:?}");
    }
}
