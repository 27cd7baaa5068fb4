//! Texts of databases that are not UTF-8, as they lie there.
//!
//! Promises: any bytes give a text, or say where they are none; what decodes is what PostgreSQL itself would have
//! made of it. Must not: know a connection. Fails: with [`Undecodable`].
//!
//! A session in UTF-8 lets the server convert. One byte that has no equivalent then ends the whole stream, at the
//! same place each time. So the stream of such a database comes as it lies there, and is converted here, text by
//! text, by a table that the server has given.

use std::borrow::Cow;
use std::fmt::Write as _;

use thiserror::Error;

/// The bytes that all encodings of a server have in common.
pub const ASCII: usize = 128;

/// How texts of the stream are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// The server sends UTF-8, and has checked it.
    #[default]
    Utf8,
    /// The server knows no encoding: what is UTF-8 is taken for it.
    Unknown,
    /// One byte is one character: what each byte from [`ASCII`] on stands for, if for anything.
    Bytes(Box<[Option<char>; ASCII]>),
}

/// Bytes that are no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("byte {byte:#04x} at place {place} has no equivalent in UTF-8")]
pub struct Undecodable {
    /// The first that is none.
    pub byte: u8,
    /// How many bytes come before it.
    pub place: usize,
}

impl Encoding {
    /// The text that the bytes are.
    ///
    /// # Errors
    /// When they are none.
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, str>, Undecodable> {
        match self {
            Self::Bytes(table) if !bytes.is_ascii() => {
                let character = |(place, byte): (usize, &u8)| match byte.checked_sub(ASCII as u8) {
                    None => Ok(char::from(*byte)),
                    Some(high) => {
                        table[usize::from(high)].ok_or(Undecodable { byte: *byte, place })
                    }
                };
                bytes
                    .iter()
                    .enumerate()
                    .map(character)
                    .collect::<Result<String, _>>()
                    .map(Cow::Owned)
            }
            Self::Utf8 | Self::Unknown | Self::Bytes(_) => {
                str::from_utf8(bytes).map(Cow::Borrowed).map_err(|cause| {
                    let place = cause.valid_up_to();
                    Undecodable { byte: bytes[place], place }
                })
            }
        }
    }

    /// The bytes with `\x..` in place of each that is no text.
    pub fn escape(&self, mut bytes: &[u8]) -> String {
        let mut text = String::new();
        loop {
            match self.decode(bytes) {
                Ok(rest) => {
                    text.push_str(&rest);
                    return text;
                }
                Err(Undecodable { byte, place }) => {
                    text.push_str(&self.decode(&bytes[..place]).expect("it is a text up to there"));
                    write!(text, "\\x{byte:02x}").expect("a string takes everything");
                    bytes = &bytes[place + 1..];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Latin 1, without one character.
    fn table() -> Encoding {
        let mut table = Box::new([None; ASCII]);
        for (byte, character) in (ASCII as u8..=u8::MAX).zip(table.iter_mut()) {
            *character = Some(char::from(byte)).filter(|_| byte != 0x81);
        }
        Encoding::Bytes(table)
    }

    #[test]
    fn a_table_decodes_byte_by_byte() {
        assert_eq!(table().decode(b"caf\xe9"), Ok(Cow::Borrowed("caf\u{e9}")));
        assert_eq!(table().decode(b"a\x81b"), Err(Undecodable { byte: 0x81, place: 1 }));
        assert_eq!(table().escape(b"\x81\xe9\x81"), "\\x81\u{e9}\\x81");
    }

    #[test]
    fn an_unknown_encoding_takes_utf_8() {
        let text = "\u{20ac} 1";
        assert_eq!(Encoding::Unknown.decode(text.as_bytes()), Ok(Cow::Borrowed(text)));
        assert_eq!(Encoding::Unknown.decode(b"ab\xff"), Err(Undecodable { byte: 0xff, place: 2 }));
        // A character that is not complete.
        assert_eq!(
            Encoding::Unknown.decode(b"\xe2\x82"),
            Err(Undecodable { byte: 0xe2, place: 0 })
        );
        assert_eq!(Encoding::Unknown.escape(b"\xe2\x82a"), "\\xe2\\x82a");
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_form(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            for encoding in [Encoding::Utf8, Encoding::Unknown, table()] {
                let escaped = encoding.escape(&bytes);
                if let Ok(text) = encoding.decode(&bytes) {
                    prop_assert_eq!(text.as_ref(), escaped);
                } else {
                    prop_assert!(escaped.contains("\\x"));
                }
            }
        }
    }
}
