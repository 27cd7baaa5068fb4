//! How the texts of a stream are written, learnt from the server before it begins.
//!
//! Promises: no text of the database can end the stream, whatever the server's encoding. Must not: read the stream.
//! Fails: with the connection's error.
//!
//! `MULE_INTERNAL` is left out: no session in UTF-8 can be opened on it.

use crate::capture::log::encoding::{ASCII, Characters, Encoding};
use crate::capture::log::printed::digits;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Sql, Walsender, fill, without_head};

const ENCODING: &str = include_str!("../../../sql/queries/log_encoding.sql");
const BYTE: &str = include_str!("../../../sql/queries/log_encoding_byte.sql");
static CHARACTERS: Sql = Sql::of(include_str!("../../../sql/queries/log_encoding_characters.sql"));
const AS_IT_LIES: &str = include_str!("../../../sql/queries/log_encoding_session.sql");

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
        (Some(name), _) => match CharacterShape::of(name) {
            Some(shape) => Encoding::Characters(Box::new(characters(session, &shape).await?)),
            None => return Ok(Encoding::Utf8),
        },
        (None, _) => return Ok(Encoding::Utf8),
    };
    session.query(AS_IT_LIES).await?;
    Ok(encoding)
}

/// Which bytes the characters of an encoding have.
struct CharacterShape {
    /// How many bytes one has that begins so; others have two.
    lengths: Vec<(u8, usize)>,
    /// How those begin that have one byte more.
    single: &'static str,
    /// How those begin that have two bytes more.
    pairs: &'static str,
}

impl CharacterShape {
    /// None where the server converts.
    fn of(encoding: &str) -> Option<Self> {
        Some(match encoding {
            "EUC_JP" | "EUC_JIS_2004" => Self {
                lengths: vec![(0x8e, 2), (0x8f, 3)],
                single: r#"'{"\\x8e"}'"#,
                pairs: r#"'{"","\\x8f"}'"#,
            },
            "EUC_KR" | "EUC_CN" => Self { lengths: Vec::new(), single: "'{}'", pairs: r#"'{""}'"# },
            // Seven planes of characters.
            "EUC_TW" => Self {
                lengths: vec![(0x8e, 4)],
                single: "'{}'",
                pairs: r#"'{"","\\x8ea1","\\x8ea2","\\x8ea3","\\x8ea4","\\x8ea5","\\x8ea6","\\x8ea7"}'"#,
            },
            _ => return None,
        })
    }
}

async fn characters(session: &mut Walsender, shape: &CharacterShape) -> Result<Characters> {
    let places = [("{single}", shape.single), ("{pairs}", shape.pairs)];
    let answer = session.query(&fill(without_head(CHARACTERS.text()), &places)).await?;
    let mut characters = Characters::new(shape.lengths.clone());
    for row in answer {
        let bytes = |column: usize| digits(row.get(column)?.as_deref()?.as_bytes());
        let is_known = bytes(0)
            .zip(bytes(1))
            .is_some_and(|(code, character)| characters.learn(&code, &character));
        if !is_known {
            let cause = "the server tells a character of its encoding in no known form";
            return Err(Error::new(ErrorKind::Internal, cause));
        }
    }
    Ok(characters)
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
