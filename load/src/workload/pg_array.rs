//! An array of texts, bytes or UUIDs in PostgreSQL's binary form, built in place.
//!
//! Promises: what was appended is sent as it lies, with one copy; the memory is used again. Must
//! not: hold text that is not UTF-8. Fails: when it is sent for a parameter of another type.

use std::error::Error;

use bytes::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// Dimensions, a flag for nulls, the element's type, the length, the first index: four bytes each.
const HEAD_BYTES: usize = 20;

/// Where the length stands in the head.
const LENGTH_AT: usize = 12;

/// A value of the type `text[]`, `bytea[]` or `uuid[]`.
#[derive(Debug)]
pub(crate) struct PgArray {
    of: Type,
    bytes: Vec<u8>,
    length: u32,
}

impl PgArray {
    /// An empty array of the type `text[]`.
    pub(crate) fn of_texts() -> Self {
        Self::new(Type::TEXT_ARRAY, &Type::TEXT)
    }

    /// An empty array of the type `bytea[]`.
    pub(crate) fn of_bytes() -> Self {
        Self::new(Type::BYTEA_ARRAY, &Type::BYTEA)
    }

    /// An empty array of the type `uuid[]`.
    pub(crate) fn of_uuids() -> Self {
        Self::new(Type::UUID_ARRAY, &Type::UUID)
    }

    fn new(of: Type, element: &Type) -> Self {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        for number in [1, 0, element.oid(), 0, 1] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        Self { of, bytes, length: 0 }
    }

    /// Forgets the elements and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.truncate(HEAD_BYTES);
        self.set_length(0);
    }

    /// Appends the element that `write` appends to the bytes it is given.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let size_at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        write(&mut self.bytes);
        let size = (self.bytes.len() - size_at - 4) as u32;
        self.bytes[size_at..size_at + 4].copy_from_slice(&size.to_be_bytes());
        self.set_length(self.length + 1);
    }

    /// The elements, in the order in which they were appended.
    pub(crate) fn elements(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[HEAD_BYTES..];
        std::iter::from_fn(move || {
            let (size, after) = rest.split_first_chunk()?;
            let (element, after) = after.split_at(u32::from_be_bytes(*size) as usize);
            rest = after;
            Some(element)
        })
    }

    fn set_length(&mut self, length: u32) {
        self.length = length;
        self.bytes[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_be_bytes());
    }
}

impl ToSql for PgArray {
    fn to_sql(
        &self,
        of: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        if *of != self.of {
            return Err(format!("an array of the type {} is no {of}", self.of).into());
        }
        out.extend_from_slice(&self.bytes);
        Ok(IsNull::No)
    }

    fn accepts(of: &Type) -> bool {
        [Type::TEXT_ARRAY, Type::BYTEA_ARRAY, Type::UUID_ARRAY].contains(of)
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drivers_form(texts: &[&str]) -> BytesMut {
        let mut bytes = BytesMut::new();
        texts.to_sql(&Type::TEXT_ARRAY, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn it_is_what_the_driver_makes_of_a_list_of_texts() {
        let mut array = PgArray::of_texts();
        for texts in [&["order-1", "", "ü"][..], &["x"]] {
            array.clear();
            texts.iter().for_each(|text| array.push(|out| out.extend_from_slice(text.as_bytes())));
            let mut bytes = BytesMut::new();
            array.to_sql(&Type::TEXT_ARRAY, &mut bytes).unwrap();
            assert_eq!(bytes, drivers_form(texts));
            assert!(array.elements().eq(texts.iter().map(|text| text.as_bytes())));
            assert!(array.to_sql(&Type::BYTEA_ARRAY, &mut bytes).is_err());
        }
    }

    #[test]
    fn it_is_what_the_driver_makes_of_a_list_of_bytes() {
        let (mut array, list) = (PgArray::of_bytes(), [&b"\0\xff"[..], b""]);
        list.iter().for_each(|bytes| array.push(|out| out.extend_from_slice(bytes)));
        let (mut bytes, mut expected) = (BytesMut::new(), BytesMut::new());
        array.to_sql(&Type::BYTEA_ARRAY, &mut bytes).unwrap();
        list.to_vec().to_sql(&Type::BYTEA_ARRAY, &mut expected).unwrap();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn it_is_what_the_driver_makes_of_a_list_of_uuids() {
        let (mut array, list) = (PgArray::of_uuids(), vec![uuid::Uuid::max(), uuid::Uuid::nil()]);
        list.iter().for_each(|id| array.push(|out| out.extend_from_slice(id.as_bytes())));
        let (mut bytes, mut expected) = (BytesMut::new(), BytesMut::new());
        array.to_sql(&Type::UUID_ARRAY, &mut bytes).unwrap();
        list.to_sql(&Type::UUID_ARRAY, &mut expected).unwrap();
        assert_eq!(bytes, expected);
    }
}
