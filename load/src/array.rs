//! An array of texts in PostgreSQL's binary form, built in place.
//!
//! Promises: what was appended is sent as it lies, with one copy; the memory is used again. Must
//! not: hold text that is not UTF-8. Fails: never.

use std::error::Error;

use bytes::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// Dimensions, a flag for nulls, the element's type, the length, the first index: four bytes each.
const HEAD_BYTES: usize = 20;

/// Where the length stands in the head.
const LENGTH_AT: usize = 12;

/// A value of the type `text[]`.
#[derive(Debug)]
pub(crate) struct TextArray {
    bytes: Vec<u8>,
    length: u32,
}

impl TextArray {
    /// An empty array.
    pub(crate) fn new() -> Self {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        for number in [1, 0, Type::TEXT.oid(), 0, 1] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        Self { bytes, length: 0 }
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

    fn set_length(&mut self, length: u32) {
        self.length = length;
        self.bytes[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_be_bytes());
    }
}

impl ToSql for TextArray {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.bytes);
        Ok(IsNull::No)
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::TEXT_ARRAY
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
        let mut array = TextArray::new();
        for texts in [&["order-1", "", "ü"][..], &["x"]] {
            array.clear();
            texts.iter().for_each(|text| array.push(|out| out.extend_from_slice(text.as_bytes())));
            let mut bytes = BytesMut::new();
            array.to_sql(&Type::TEXT_ARRAY, &mut bytes).unwrap();
            assert_eq!(bytes, drivers_form(texts));
        }
    }
}
