//! Texts that the database cannot hold.
//!
//! Promises: whatever text goes in comes out again; what is stored is ASCII. Must not: know a session.
//! Fails: never; what only looks like the escape form is taken for what it is.
//!
//! A message may bring any text, whatever the encoding of the database. One that the database refuses is stored
//! behind a mark in the escape form of `bytea`.

/// What no writer begins a text with; one that does is stored in the escape form, too.
const MARK: &str = "postrider.escaped:";

/// Whether a text would be taken for one in the escape form.
pub(super) fn is_marked(text: &str) -> bool {
    text.starts_with(MARK)
}

/// The mark and the escape form.
pub(super) fn escaped(text: &str) -> String {
    let mut stored = MARK.to_owned();
    for byte in text.bytes() {
        match byte {
            b'\\' => stored.push_str(r"\\"),
            1..=0x7f => stored.push(char::from(byte)),
            other => stored.push_str(&format!(r"\{other:03o}")),
        }
    }
    stored
}

/// The text that was stored.
pub(super) fn unescaped(stored: String) -> String {
    let text = stored.strip_prefix(MARK).and_then(decode);
    text.unwrap_or(stored)
}

fn decode(form: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(form.len());
    let mut rest = form.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        rest = others;
        if *first != b'\\' {
            bytes.push(*first);
        } else if let Some(others) = rest.strip_prefix(b"\\") {
            rest = others;
            bytes.push(b'\\');
        } else {
            let (digits, others) = rest.split_at_checked(3)?;
            rest = others;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()?);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_is_ascii_behind_its_mark() {
        assert_eq!(escaped("a\\\0\u{e9}"), r"postrider.escaped:a\\\000\303\251");
    }

    #[test]
    fn what_is_no_escape_form_is_left_alone() {
        for text in ["plain", r"postrider.escaped:\9", r"postrider.escaped:\377", r"a\\b"] {
            assert_eq!(unescaped(text.to_owned()), text);
        }
    }

    proptest! {
        #[test]
        fn a_text_comes_out_as_it_went_in(text in "\\PC*|[\\x00\\\\é中a]*") {
            let stored = escaped(&text);
            prop_assert!(stored.is_ascii() && !stored.contains('\0') && is_marked(&stored));
            prop_assert_eq!(unescaped(stored), text);
        }
    }
}
