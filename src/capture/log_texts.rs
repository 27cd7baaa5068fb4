//! How the texts of a stream are written, learnt from the server before it begins.
//!
//! Promises: no text of the database can end the stream, where the server's encoding is UTF-8, has one byte per
//! character, or is none. Must not: read the stream. Fails: with the connection's error.
//!
//! In the encodings of East Asia a character takes several bytes; there the server converts, as it did.

use super::encoding::{ASCII, Encoding};
use crate::error::{ErrorKind, Result};
use crate::postgres::Walsender;

const ENCODING: &str = include_str!("../../sql/queries/log_encoding.sql");
const BYTE: &str = include_str!("../../sql/queries/log_encoding_byte.sql");
const AS_IT_LIES: &str = include_str!("../../sql/queries/log_encoding_session.sql");

/// Learns how texts are written, and has the session send them as they lie there.
///
/// # Errors
/// When the connection fails.
pub async fn learn(session: &mut Walsender) -> Result<Encoding> {
    let answer = session.query(ENCODING).await?;
    let cell = |column: usize| answer.first()?.get(column)?.as_deref();
    let encoding = match (cell(0), cell(1)) {
        (Some("SQL_ASCII"), _) => Encoding::Unknown,
        (Some(_), Some("1")) => Encoding::Bytes(Box::new(table(session).await?)),
        _ => return Ok(Encoding::Utf8),
    };
    session.query(AS_IT_LIES).await?;
    Ok(encoding)
}

async fn table(session: &mut Walsender) -> Result<[Option<char>; ASCII]> {
    let mut table = [None; ASCII];
    for (byte, character) in (ASCII as u8..=u8::MAX).zip(&mut table) {
        let ask = BYTE.replace("{byte}", &format!("{byte:02x}"));
        *character = match session.query(&ask).await {
            Ok(answer) => answer.first().and_then(|row| character_of(row.first()?.as_deref()?)),
            Err(error) if error.kind() == ErrorKind::PostgresUnavailable => return Err(error),
            // It has no equivalent.
            Err(_) => None,
        };
    }
    Ok(table)
}

/// The one character whose UTF-8 is written in hexadecimal digits.
fn character_of(digits: &str) -> Option<char> {
    let byte = |start| u8::from_str_radix(digits.get(start..start + 2)?, 16).ok();
    let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect::<Option<_>>()?;
    let mut characters = str::from_utf8(&bytes).ok()?.chars();
    characters.next().filter(|_| characters.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_read_from_its_digits() {
        assert_eq!(character_of("e282ac"), Some('\u{20ac}'));
        assert_eq!(character_of("c3a9"), Some('\u{e9}'));
        for wrong in ["", "e2", "c3a9c3a9", "x", "zz"] {
            assert_eq!(character_of(wrong), None, "{wrong}");
        }
    }
}
