//! What is thrown at the decoders of foreign bytes, and what must hold then.
//!
//! Promises: one function per target, which takes any bytes; `fuzz/` drives them by libFuzzer, and the tests below replay
//! `fuzz/corpus` and mutate it a little each time. Must not: be a part of what is built to run. Fails: by a panic,
//! when a rule does not hold.

use bytes::Bytes;

use crate::capture::log::encoding::Encoding;
use crate::capture::log::message;
use crate::capture::log::pgoutput;
use crate::capture::log::pgoutput::{Message, Value};
use crate::event::{Event, EventId, EventPlace};
use crate::record::encode::Encoder;
use crate::record::topic::TopicTemplate;
use crate::record::unpublishable::Unpublishable;

pub use crate::postgres::fuzz::{connection_string, inbox};

/// What takes any bytes, and panics when a rule does not hold.
pub type FuzzTarget = fn(&[u8]);

/// All targets by name: the folder of each is `fuzz/corpus/<name>`.
pub const TARGETS: [(&str, FuzzTarget); 5] = [
    ("pgoutput", pgoutput),
    ("inbox", inbox),
    ("envelope", envelope),
    ("connection_string", connection_string),
    ("headers", headers),
];

/// A message of the log: its values lie inside it, one behind the other, and it is no more than itself.
pub fn pgoutput(input: &[u8]) {
    let whole = Bytes::copy_from_slice(input);
    let decoded = pgoutput::decode(whole.clone());
    let unknown = pgoutput::decode_in(whole.clone(), &Encoding::Unknown);
    assert_eq!(decoded.is_ok(), unknown.is_ok(), "both want names in UTF-8");
    let Ok(message) = decoded else { return };
    if matches!(message, Message::Ignored(_)) {
        return;
    }
    let longer: Bytes = [input, &[0]].concat().into();
    assert!(pgoutput::decode(longer).is_err(), "a byte too many is noticed");
    assert!(pgoutput::decode(whole.slice(..whole.len() - 1)).is_err(), "and one too few");
    let Message::Insert { row, .. } = message else { return };
    assert_eq!(row.values().count(), row.len());
    let mut end = 0;
    for (value, range) in row.values().zip(row.ranges()) {
        let (Value::Text(bytes) | Value::Binary(bytes), Value::Text(range) | Value::Binary(range)) =
            (value, range)
        else {
            continue;
        };
        let range = range.start as usize..range.end as usize;
        assert!(range.start >= end, "values follow each other");
        assert_eq!(row.bytes()[range.clone()], *bytes);
        end = range.end;
    }
}

/// An event that was written as a message: there is one form of each.
pub fn envelope(input: &[u8]) {
    let decoded = message::decode(Bytes::copy_from_slice(input));
    let head = message::head(&mut Bytes::copy_from_slice(input));
    let Ok(decoded) = decoded else { return };
    let head = head.expect("the whole has a head");
    let event = decoded.event(7);
    assert_eq!(event.payload.is_some(), head.has_payload());
    assert_eq!(event.headers.is_some(), head.has_headers());
    let mut again = Vec::new();
    message::encode(&event, &mut again).expect("it is short");
    assert_eq!(again, input, "it is written as it was read");
}

/// The column `headers`: it becomes what a JSON parser reads, or the event is refused.
pub fn headers(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let template = "t.{aggregatetype}".parse::<TopicTemplate>().expect("a template");
    let mut encoder = Encoder::new(template);
    let event = Event {
        seq: 7,
        id: EventId([7; 16]),
        aggregate_type: "order",
        aggregate_id: "1",
        kind: "Placed",
        payload: None,
        headers: Some(text),
        created_at_micros: 0,
    };
    let parsed: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(text);
    match (encoder.encode(&event, EventPlace::default()), parsed) {
        (Ok(record), Ok(object)) => {
            assert_eq!(record.headers().len(), record.header_count());
            let known = |name: &str| ["id", "type"].contains(&name) || object.contains_key(name);
            assert!(record.headers().all(|(name, _)| known(name)), "no header comes from nowhere");
            for (name, value) in record.headers().skip(2) {
                if let (Some(serde_json::Value::Null), Some(value)) = (object.get(name), value) {
                    // Of several members of one name a parser keeps the last.
                    assert!(text.matches(name).count() > 1, "null has no value: {value:?}");
                }
            }
        }
        (
            Err(Unpublishable::HeadersMalformed { .. } | Unpublishable::HeadersNotAnObject { .. }),
            Ok(_),
        ) => panic!("an object is headers: {text:?}"),
        (Ok(_) | Err(_), _) => {}
    }
    encoder.rest();
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    use super::*;

    /// Changed inputs per target when no time is given: some hundred milliseconds of all.
    const ROUNDS: usize = 4_000;
    const CHANGES_MAX: u64 = 6;
    const INPUT_BYTES_MAX: usize = 4_096;
    /// How long each target is tried, in seconds, in place of [`ROUNDS`].
    const SECONDS: &str = "POSTRIDER_FUZZ_SECONDS";

    /// Marsaglia's xorshift: the same numbers for the same seed.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, end: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % end
        }

        fn place(&mut self, length: usize) -> usize {
            self.below(length as u64) as usize
        }
    }

    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let entries = folder.read_dir().expect("the corpus is there");
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("read").path()).collect();
        paths.sort();
        let inputs = paths.iter().map(|path| std::fs::read(path).expect("an input can be read"));
        inputs.collect()
    }

    /// Changes an input as a fault, or an attacker, would: bits, lengths, parts of others.
    fn change(input: &mut Vec<u8>, others: &[Vec<u8>], chance: &mut Chance) {
        const TELLING: [u8; 12] = [0, 1, 2, 0x7f, 0x80, 0xff, b'"', b'\\', b'{', b'%', b'@', b'='];
        for _ in 0..=chance.below(CHANGES_MAX) {
            let place = chance.place(input.len().max(1)).min(input.len());
            match chance.below(7) {
                _ if input.is_empty() => input.push(chance.below(256) as u8),
                0 => input[place] ^= 1 << chance.below(8),
                1 => input[place] = TELLING[chance.place(TELLING.len())],
                2 => input[place] = chance.below(256) as u8,
                3 => drop(input.drain(place..)),
                4 => input.insert(place, TELLING[chance.place(TELLING.len())]),
                5 => {
                    let end = input.len().min(place + 1 + chance.place(8));
                    drop(input.drain(place..end));
                }
                _ => {
                    let other = &others[chance.place(others.len())];
                    let from = chance.place(other.len().max(1)).min(other.len());
                    input.splice(place.., other[from..].iter().copied());
                }
            }
            input.truncate(INPUT_BYTES_MAX);
        }
    }

    fn hold(name: &str, target: FuzzTarget, input: &[u8]) {
        let held = catch_unwind(AssertUnwindSafe(|| target(input)));
        assert!(held.is_ok(), "{name} fails with this input; keep it in its corpus: {:?}", {
            String::from_utf8_lossy(&input.escape_ascii().collect::<Vec<u8>>()).into_owned()
        });
    }

    fn fuzz(name: &str) {
        let (_, target) = TARGETS.into_iter().find(|(known, _)| *known == name).expect("a target");
        let inputs = corpus(name);
        assert!(inputs.len() > 4, "{name}: a corpus begins with what is right");
        for input in &inputs {
            hold(name, target, input);
        }
        let seconds = std::env::var(SECONDS).ok().map(|text| text.parse().expect("a number"));
        let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let seed = match seconds {
            None => 0x9e37_79b9_7f4a_7c15,
            Some(_) => std::process::id().into(),
        };
        let (mut chance, mut rounds) = (Chance(seed), 0);
        let goes_on = |rounds| end.map_or(rounds < ROUNDS, |end| Instant::now() < end);
        while goes_on(rounds) {
            let mut input = inputs[chance.place(inputs.len())].clone();
            change(&mut input, &inputs, &mut chance);
            hold(name, target, &input);
            rounds += 1;
        }
    }

    #[test]
    fn any_message_of_the_log() {
        fuzz("pgoutput");
    }

    #[test]
    fn any_bytes_of_a_server() {
        fuzz("inbox");
    }

    #[test]
    fn any_event_as_a_message() {
        fuzz("envelope");
    }

    #[test]
    fn any_connection_string() {
        fuzz("connection_string");
    }

    #[test]
    fn any_headers() {
        fuzz("headers");
    }

    #[test]
    fn a_target_that_fails_tells_its_input() {
        let failed = catch_unwind(|| hold("any", |_| panic!("as asked"), b"a\0\xff"));
        let said = failed.expect_err("it fails");
        assert!(said.downcast_ref::<String>().expect("words").contains(r"a\\x00\\xff"));
    }
}
