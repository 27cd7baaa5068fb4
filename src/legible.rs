//! Texts that others wrote, as people may read them in a terminal.
//!
//! Promises: what comes out moves no cursor, ends no line, hides or turns no letter, and is not longer than
//! asked for. Must not: change what is stored or sent.
//!
//! A terminal obeys what it reads: a name out of a row could set its title or its clipboard, or write lines that
//! look like ours.

use std::borrow::Cow;
use std::fmt::Write;

/// As much of a name or a cause as people read at once.
pub const NAME_CHARACTERS: usize = 300;

/// A text out of a row in one line: what is not printed is escaped, and of more than `characters_max` the
/// beginning is shown.
pub fn shown(text: &str, characters_max: usize) -> String {
    let mut characters = text.chars();
    let mut shown = String::new();
    for character in characters.by_ref().take(characters_max) {
        push(&mut shown, character);
    }
    match characters.count() {
        0 => {}
        more => write!(shown, "\u{2026} ({more} more)").expect("text takes text"),
    }
    shown
}

/// A name out of a row.
pub fn name(text: &str) -> String {
    shown(text, NAME_CHARACTERS)
}

/// An aggregate, as people choose it.
pub fn aggregate(aggregate_type: &str, aggregate_id: &str) -> String {
    format!("{}/{}", name(aggregate_type), name(aggregate_id))
}

/// Lines as they are; whatever else moves a terminal is escaped.
pub fn lines(text: &str) -> Cow<'_, str> {
    let is_kept = |character| matches!(character, '\n' | '\t') || !is_hidden(character);
    if text.chars().all(is_kept) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_kept(character) {
            shown.push(character);
        } else {
            push(&mut shown, character);
        }
    }
    Cow::Owned(shown)
}

/// JSON as it is written: what JSON lets pass and a terminal obeys is escaped. It stands in strings alone.
pub fn json(text: String) -> String {
    let is_passed =
        |character: char| !character.is_ascii() && is_hidden(character) || character == '\u{7f}';
    if !text.contains(is_passed) {
        return text;
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_passed(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(shown, "\\u{unit:04x}").expect("text takes text");
            }
        } else {
            shown.push(character);
        }
    }
    shown
}

fn push(shown: &mut String, character: char) {
    if is_hidden(character) {
        shown.extend(character.escape_default());
    } else {
        shown.push(character);
    }
}

/// Whether it is not seen, or changes how others are seen: controls, and what directs or joins letters.
///
/// Source: Unicode, "Bidirectional Algorithm" (UAX 9) and the general categories Cc, Zl, Zp and, of Cf, what is
/// in use outside of scripts that need it.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_terminal_is_escaped() {
        for (text, wanted) in [
            ("4711", "4711"),
            ("Größe/1 €", "Größe/1 €"),
            ("1\u{1b}]0;owned\u{7}", "1\\u{1b}]0;owned\\u{7}"),
            ("a\nb\rc\td", "a\\nb\\rc\\td"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("\u{202e}txt\u{200b}", "\\u{202e}txt\\u{200b}"),
            ("\u{7f}", "\\u{7f}"),
        ] {
            assert_eq!(name(text), wanted);
        }
        assert_eq!(lines("a\n\tb\u{1b}c\r"), "a\n\tb\\u{1b}c\\r");
    }

    #[test]
    fn of_a_long_name_the_beginning_is_shown() {
        assert_eq!(shown("äöüß", 4), "äöüß");
        assert_eq!(shown("äöüß\u{1b}", 4), "äöüß\u{2026} (1 more)");
        assert!(aggregate(&"x".repeat(1 << 20), "1").len() < 400);
    }

    #[test]
    fn json_reads_the_same() {
        let text = "\u{9b}2J \u{7f} \u{202e} \u{e0041} \u{1b} ä";
        let written = json(serde_json::to_string(text).unwrap());
        assert!(written.chars().all(|character| !is_hidden(character)), "{written}");
        assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
    }
}
