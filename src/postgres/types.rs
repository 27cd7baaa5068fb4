//! Values that cross the wire in PostgreSQL's binary form.
//!
//! Promises: no detour over text: a snapshot bound as text would be parsed again for every row.
//! Must not: interpret what it carries.
//! Fails: bytes that are not of the type's shape are refused; the driver says for which column.
//!
//! Source: PostgreSQL, `src/backend/utils/adt/xid8funcs.c`, `pg_snapshot_send` and `pg_snapshot_recv`.

use std::fmt;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::order::snapshot::Snapshot;

type Failure = Box<dyn std::error::Error + Sync + Send>;

/// A column's bytes as they came, of whatever type, lent by the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawBytes<'a>(pub &'a [u8]);

impl<'a> FromSql<'a> for RawBytes<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Failure> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A `pg_snapshot`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgSnapshot(pub Snapshot);

/// A count, `xmin` and `xmax` stand before the listed transactions.
const SNAPSHOT_HEAD_BYTES: usize = 4 + 8 + 8;

impl ToSql for PgSnapshot {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        out.put_i32(i32::try_from(self.0.in_progress().len())?);
        out.put_u64(self.0.xmin());
        out.put_u64(self.0.xmax());
        for xid in self.0.in_progress() {
            out.put_u64(*xid);
        }
        Ok(IsNull::No)
    }

    fn accepts(given: &Type) -> bool {
        *given == Type::PG_SNAPSHOT
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for PgSnapshot {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Failure> {
        let (count, numbers) = raw.split_first_chunk::<4>().ok_or("a snapshot without a count")?;
        let count = usize::try_from(i32::from_be_bytes(*count))?;
        let (numbers, rest) = numbers.as_chunks::<8>();
        if !rest.is_empty() || numbers.len() != count + 2 {
            let bytes = SNAPSHOT_HEAD_BYTES + 8 * count;
            return Err(format!("a snapshot of {} bytes, expected {bytes}", raw.len()).into());
        }
        let mut numbers = numbers.iter().map(|number| u64::from_be_bytes(*number));
        let mut next = || numbers.next().ok_or("a snapshot that ends early");
        let (xmin, xmax) = (next()?, next()?);
        Ok(Self(Snapshot::new(xmin, xmax, numbers.collect())?))
    }

    fn accepts(given: &Type) -> bool {
        *given == Type::PG_SNAPSHOT
    }
}

/// An `xid8`: a transaction id with its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xid8(pub u64);

/// A `pg_lsn`: a place in the write-ahead log, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    /// As PostgreSQL writes it: two halves, in hexadecimal.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// A `timestamptz`, in microseconds since 1970-01-01 UTC; infinity is [`i64::MAX`], the other end
/// [`i64::MIN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL begins to count.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

impl Timestamp {
    /// From PostgreSQL's own count.
    pub fn from_postgres(micros: i64) -> Self {
        match micros {
            i64::MIN | i64::MAX => Self(micros),
            finite => Self(finite.saturating_add(POSTGRES_EPOCH_MICROS)),
        }
    }

    pub(super) fn to_postgres(self) -> i64 {
        match self.0 {
            i64::MIN | i64::MAX => self.0,
            finite => finite.saturating_sub(POSTGRES_EPOCH_MICROS),
        }
    }
}

impl ToSql for Timestamp {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        out.put_i64(self.to_postgres());
        Ok(IsNull::No)
    }

    fn accepts(given: &Type) -> bool {
        *given == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Timestamp {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Failure> {
        Ok(Self::from_postgres(i64::from_be_bytes(raw.try_into()?)))
    }

    fn accepts(given: &Type) -> bool {
        *given == Type::TIMESTAMPTZ
    }
}

/// Both are eight bytes in network order.
macro_rules! eight_bytes {
    ($name:ident, $sql:expr) => {
        impl ToSql for $name {
            fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
                out.put_u64(self.0);
                Ok(IsNull::No)
            }

            fn accepts(given: &Type) -> bool {
                *given == $sql
            }

            to_sql_checked!();
        }

        impl<'a> FromSql<'a> for $name {
            fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Failure> {
                Ok(Self(u64::from_be_bytes(raw.try_into()?)))
            }

            fn accepts(given: &Type) -> bool {
                *given == $sql
            }
        }
    };
}

eight_bytes!(Xid8, Type::XID8);
eight_bytes!(Lsn, Type::PG_LSN);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_has_the_binary_form_of_pg_snapshot_send() {
        let snapshot = PgSnapshot("10:20:11,14".parse().unwrap());
        let mut bytes = BytesMut::new();
        snapshot.to_sql(&Type::PG_SNAPSHOT, &mut bytes).unwrap();
        let expected: Vec<u8> = [0, 0, 0, 2]
            .into_iter()
            .chain([10_u64, 20, 11, 14].into_iter().flat_map(u64::to_be_bytes))
            .collect();
        assert_eq!(bytes, expected);
        assert_eq!(PgSnapshot::from_sql(&Type::PG_SNAPSHOT, &bytes).unwrap(), snapshot);
    }

    #[test]
    fn a_torn_snapshot_is_refused() {
        let mut bytes = BytesMut::new();
        PgSnapshot("10:20:11,14".parse().unwrap()).to_sql(&Type::PG_SNAPSHOT, &mut bytes).unwrap();
        for end in 0..bytes.len() {
            assert!(PgSnapshot::from_sql(&Type::PG_SNAPSHOT, &bytes[..end]).is_err(), "{end}");
        }
        bytes.put_u64(15);
        assert!(PgSnapshot::from_sql(&Type::PG_SNAPSHOT, &bytes).is_err(), "one too many");
        let negative = [255; 20];
        assert!(PgSnapshot::from_sql(&Type::PG_SNAPSHOT, &negative).is_err(), "negative count");
    }

    #[test]
    fn times_have_no_other_ends_than_infinity() {
        for micros in [0, -1, i64::MIN, i64::MAX, 1_795_466_121_219_663] {
            let mut bytes = BytesMut::new();
            Timestamp(micros).to_sql(&Type::TIMESTAMPTZ, &mut bytes).unwrap();
            let back = Timestamp::from_sql(&Type::TIMESTAMPTZ, &bytes).unwrap();
            assert_eq!(back, Timestamp(micros));
        }
        let year_294276 = 9_223_371_331_200_000_000 - 1;
        assert_eq!(Timestamp::from_postgres(year_294276), Timestamp(i64::MAX));
        assert_eq!(Timestamp::from_postgres(0), Timestamp(946_684_800_000_000));
    }

    #[test]
    fn numbers_are_eight_bytes_in_network_order() {
        let mut bytes = BytesMut::new();
        Xid8(1 << 40).to_sql(&Type::XID8, &mut bytes).unwrap();
        assert_eq!(bytes[..], [0, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(Lsn::from_sql(&Type::PG_LSN, &bytes).unwrap(), Lsn(1 << 40));
        assert!(Xid8::from_sql(&Type::XID8, &bytes[1..]).is_err());
    }
}
