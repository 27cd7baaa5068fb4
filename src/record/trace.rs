//! The context of a trace, as Debezium's outbox keeps it: a text in the form of Java's Properties.
//!
//! Promises: becomes `traceparent` and `tracestate`, as W3C has them, or stays what it was. Must not: make a trace up.
//!
//! Source: `java.util.Properties.load`; W3C Trace Context; Debezium's column `tracingspancontext`.

/// The header of a trace.
pub(super) const TRACEPARENT: &str = "traceparent";
/// What vendors add to it.
pub(super) const TRACESTATE: &str = "tracestate";
/// Debezium's name of the text.
pub(super) const SPAN_CONTEXT: &str = "tracingspancontext";

/// Where a trace is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TraceContext {
    pub(super) parent: String,
    pub(super) state: Option<String>,
}

impl TraceContext {
    /// Of a text of Properties; none where it has no sound `traceparent`.
    pub(super) fn of_properties(text: &str) -> Option<Self> {
        if !text.contains(TRACEPARENT) {
            return None;
        }
        let (mut parent, mut state) = (None, None);
        for (key, value) in properties(text) {
            match key.as_str() {
                TRACEPARENT => parent = Some(value),
                TRACESTATE => state = Some(value),
                _ => {}
            }
        }
        let parent = parent.filter(|parent| is_traceparent(parent))?;
        let state = state.filter(|state| state.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        Some(Self { parent, state })
    }
}

/// `00-4bf9…-00f0…-01`: version, trace, parent and flags in lower hexadecimal digits; neither id is zero.
fn is_traceparent(text: &str) -> bool {
    let is_hexadecimal =
        |part: &str| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags, rest @ ..] = parts.as_slice() else { return false };
    let is_known = *version != "00" || rest.is_empty();
    is_known
        && *version != "ff"
        && [(version, 2), (trace, 32), (parent, 16), (flags, 2)]
            .iter()
            .all(|(part, length)| part.len() == *length && is_hexadecimal(part))
        && [trace, parent].iter().all(|id| id.bytes().any(|digit| digit != b'0'))
}

/// Keys and values, unescaped.
fn properties(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut lines = text.split(['\n', '\r']).map(str::trim_ascii_start);
    while let Some(line) = lines.next() {
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut whole = line.to_owned();
        while ends_escaped(&whole) {
            whole.pop();
            let Some(next) = lines.next() else { break };
            whole.push_str(next);
        }
        found.push(split(&whole));
    }
    found
}

/// Whether the line goes on: it ends with an odd number of backslashes.
fn ends_escaped(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

fn split(line: &str) -> (String, String) {
    let mut is_escaped = false;
    let end = line.find(|character: char| {
        let ends =
            !is_escaped && (matches!(character, '=' | ':') || character.is_ascii_whitespace());
        is_escaped = character == '\\' && !is_escaped;
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_ascii_start();
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (unescape(key), unescape(rest.trim_ascii_start()))
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, if character == '\\' { characters.next() } else { None }) {
            ('\\', Some('n')) => plain.push('\n'),
            ('\\', Some('t')) => plain.push('\t'),
            ('\\', Some('r')) => plain.push('\r'),
            ('\\', Some('f')) => plain.push('\u{c}'),
            ('\\', Some('u')) => {
                let digits: String = characters.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                plain.push(code.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            ('\\', Some(other)) => plain.push(other),
            ('\\', None) => {}
            (other, _) => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn context(text: &str) -> Option<(String, Option<String>)> {
        TraceContext::of_properties(text).map(|found| (found.parent, found.state))
    }

    #[test]
    fn reads_what_java_writes() {
        let stored = format!(
            "#Tue Nov 24 10:00:00 UTC 2026\nuber-trace-id=1\\:2\ntraceparent={PARENT}\ntracestate=a\\=b,c\\:d\n"
        );
        assert_eq!(context(&stored), Some((PARENT.to_owned(), Some("a=b,c:d".to_owned()))));
        for text in [
            format!("traceparent: {PARENT}"),
            format!("  traceparent {PARENT}\r\n"),
            format!("traceparent = {}\\\n    {}", &PARENT[..10], &PARENT[10..]),
            format!("! no\ntr\\u0061ceparent={PARENT}\ntraceparent={PARENT}"),
        ] {
            assert_eq!(context(&text), Some((PARENT.to_owned(), None)), "{text}");
        }
    }

    #[test]
    fn what_is_no_trace_stays_what_it_was() {
        let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        for value in ["", "1", zero, &PARENT.to_uppercase(), &PARENT[1..], &format!("{PARENT}-x")] {
            assert_eq!(context(&format!("traceparent={value}")), None, "{value}");
        }
        assert_eq!(context("uber-trace-id=1"), None);
        assert_eq!(context(&format!("#traceparent={PARENT}")), None);
        let later = PARENT.replacen("00", "01", 1) + "-more";
        assert!(
            context(&format!("traceparent={later}")).is_some(),
            "a later version may have more"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in any::<String>()) {
            properties(&text);
            context(&format!("traceparent{text}"));
        }
    }
}
