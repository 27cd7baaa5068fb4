//! A cursor's row, and what it means.
//!
//! Promises: what was saved comes back. Must not: judge whether it means something here. Fails: never; a column of
//! another type is a broken invariant and panics.

use tokio_postgres::Row;

use crate::event::Bucket;
use crate::order::cursor::{Cursor, Window};
use crate::order::history::History;
use crate::order::saved_cursor::SavedCursor;
use crate::order::tick::{Carry, Lineage};
use crate::postgres::{Lsn, PgSnapshot, Xid8};

pub(super) fn bucket(row: &Row) -> Bucket {
    let number: i16 = row.get("bucket");
    Bucket(u16::try_from(number).expect("a bucket is not negative"))
}

pub(super) fn saved_history(row: &Row) -> Option<History> {
    let lsn: Option<Lsn> = row.get("lsn");
    Some(History {
        system_identifier: row.get::<_, Option<i64>>("system_identifier")?,
        timeline: row.get::<_, Option<i32>>("timeline")?,
        lsn: lsn?.0,
    })
}

pub(super) fn restore(row: &Row) -> Cursor {
    let from: PgSnapshot = row.get("from_snapshot");
    let upto: PgSnapshot = row.get("upto_snapshot");
    let next: Xid8 = row.get("upto_next");
    let carry: Vec<i64> = row.get("carry");
    let began: Option<Xid8> = row.get("upto_began");
    let saved = SavedCursor {
        from: from.0,
        upto: upto.0,
        next: next.0,
        floor: row.get("upto_floor"),
        end: row.get("upto_ceiling"),
        carry: carry.chunks_exact(3).map(carry_of).collect(),
        lineage: Lineage {
            storage: row.get("upto_sequence"),
            began: began.map_or(0, |began| began.0),
        },
        position: row.get("position"),
        window: window(row, next),
    };
    saved.restore()
}

/// An earlier version leaves the window of former ranges in its place.
fn window(row: &Row, next: Xid8) -> Option<Window> {
    let of: Option<Xid8> = row.get("window_of");
    let since: Option<PgSnapshot> = row.get("window_since");
    let (since, bound) = (since?.0, row.get::<_, Option<i64>>("window_bound")?);
    of.is_some_and(|of| of.0 == next.0).then_some(Window { since, bound })
}

fn carry_of(triple: &[i64]) -> Carry {
    let (first, last) = (triple[0].cast_unsigned(), triple[1].cast_unsigned());
    Carry { first, last, floor: triple[2] }
}
