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

use hashbrown::HashMap;
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
    /// One to four bytes are one.
    Characters(Box<Characters>),
}

/// The characters of an encoding of East Asia.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Characters {
    /// How many bytes they have that begin with these.
    lengths: Vec<(u8, usize)>,
    /// What each stands for, by its bytes as a number.
    table: HashMap<u32, Box<str>>,
}

impl Characters {
    /// Those that begin with other bytes above ASCII have two.
    pub fn new(lengths: Vec<(u8, usize)>) -> Self {
        Self { lengths, table: HashMap::new() }
    }

    /// Takes a character; whether it is one.
    pub fn learn(&mut self, code: &[u8], character: &[u8]) -> bool {
        let (Some(code), Ok(text)) = (number(code), str::from_utf8(character)) else {
            return false;
        };
        self.table.insert(code, text.into());
        true
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, Undecodable> {
        let (mut text, mut place) = (String::with_capacity(bytes.len()), 0);
        while let Some(byte) = bytes.get(place) {
            if byte.is_ascii() {
                text.push(char::from(*byte));
                place += 1;
                continue;
            }
            let known = self.lengths.iter().find(|(first, _)| first == byte);
            let length = known.map_or(2, |(_, length)| *length);
            let code = bytes.get(place..place + length);
            match code.and_then(number).and_then(|code| self.table.get(&code)) {
                Some(character) => text.push_str(character),
                None => {
                    // An ASCII character is one by itself, whatever it follows.
                    let rest = bytes[place + 1..].iter().take(length - 1);
                    let bytes = 1 + rest.take_while(|byte| !byte.is_ascii()).count();
                    return Err(Undecodable { byte: *byte, place, bytes });
                }
            }
            place += length;
        }
        Ok(text)
    }
}

/// At most four bytes as a number.
fn number(code: &[u8]) -> Option<u32> {
    let is_short = code.len() <= size_of::<u32>();
    is_short.then(|| code.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

/// Bytes that are no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("byte {byte:#04x} at place {place} has no equivalent in UTF-8")]
pub struct Undecodable {
    /// The first that is none.
    pub byte: u8,
    /// How many bytes come before it.
    pub place: usize,
    /// How many bytes are none.
    pub bytes: usize,
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
                        table[usize::from(high)].ok_or(Undecodable { byte: *byte, place, bytes: 1 })
                    }
                };
                bytes
                    .iter()
                    .enumerate()
                    .map(character)
                    .collect::<Result<String, _>>()
                    .map(Cow::Owned)
            }
            Self::Characters(characters) if !bytes.is_ascii() => {
                characters.decode(bytes).map(Cow::Owned)
            }
            Self::Utf8 | Self::Unknown | Self::Bytes(_) | Self::Characters(_) => {
                str::from_utf8(bytes).map(Cow::Borrowed).map_err(|cause| {
                    let place = cause.valid_up_to();
                    Undecodable { byte: bytes[place], place, bytes: 1 }
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
                Err(Undecodable { place, bytes: count, .. }) => {
                    text.push_str(&self.decode(&bytes[..place]).expect("it is a text up to there"));
                    let (odd, rest) = bytes[place..].split_at(count);
                    for byte in odd {
                        write!(text, "\\x{byte:02x}").expect("a string takes everything");
                    }
                    bytes = rest;
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
        assert_eq!(table().decode(b"a\x81b"), Err(Undecodable { byte: 0x81, place: 1, bytes: 1 }));
        assert_eq!(table().escape(b"\x81\xe9\x81"), "\\x81\u{e9}\\x81");
    }

    #[test]
    fn an_unknown_encoding_takes_utf_8() {
        let text = "\u{20ac} 1";
        assert_eq!(Encoding::Unknown.decode(text.as_bytes()), Ok(Cow::Borrowed(text)));
        assert_eq!(
            Encoding::Unknown.decode(b"ab\xff"),
            Err(Undecodable { byte: 0xff, place: 2, bytes: 1 })
        );
        // A character that is not complete.
        assert_eq!(
            Encoding::Unknown.decode(b"\xe2\x82"),
            Err(Undecodable { byte: 0xe2, place: 0, bytes: 1 })
        );
        assert_eq!(Encoding::Unknown.escape(b"\xe2\x82a"), "\\xe2\\x82a");
    }

    /// Two characters of EUC_JP: one of two bytes, one of three.
    fn characters() -> Encoding {
        let mut characters = Characters::new(vec![(0x8e, 2), (0x8f, 3)]);
        assert!(characters.learn(b"\xa4\xa2", "\u{3042}".as_bytes()));
        assert!(characters.learn(b"\x8f\xb0\xa1", "\u{4e02}".as_bytes()));
        assert!(!characters.learn(b"\xa4\xa3", b"\xff") && !characters.learn(b"12345", b"x"));
        Encoding::Characters(Box::new(characters))
    }

    #[test]
    fn characters_of_several_bytes_decode() {
        let text = characters().decode(b"a\xa4\xa2\x8f\xb0\xa1b").map(Cow::into_owned);
        assert_eq!(text.as_deref(), Ok("a\u{3042}\u{4e02}b"));
        for (bytes, place, odd, escaped) in [
            (&b"a\xa4\xa3\xa4\xa2"[..], 1, 2, "a\\xa4\\xa3\u{3042}"),
            // Its second byte would begin a character with what follows.
            (b"\xa4\xa4\xa2", 0, 2, "\\xa4\\xa4\\xa2"),
            // One that is cut, one that ASCII follows.
            (b"\xa4\xa2\x8f\xb0", 2, 2, "\u{3042}\\x8f\\xb0"),
            (b"\xa4b", 0, 1, "\\xa4b"),
            (b"\x8f\xb0b", 0, 2, "\\x8f\\xb0b"),
        ] {
            let undecodable = characters().decode(bytes).expect_err(escaped);
            assert_eq!((undecodable.place, undecodable.bytes), (place, odd), "{escaped}");
            assert_eq!(characters().escape(bytes), escaped);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_form(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            for encoding in [Encoding::Utf8, Encoding::Unknown, table(), characters()] {
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
