//! The record of a transaction that says how far a bucket is published: the last one in it.
//!
//! Promises: what was written is read back as it was; a record of a later version, or one that nobody of us can have
//! written, is refused and never guessed at. Must not: know Kafka, or judge a history. Fails: with what is wrong.
//!
//! Its value is JSON, so that an operator can read it:
//!
//! ```json
//! {"v": 1, "term": 2, "system": 7450000000000000000, "timeline": 1, "lsn": "0/16B3748", "epoch": 12,
//!  "cursor": {"from": "740:740:", "upto": "745:745:", "next": 745, "floor": 900, "end": 901,
//!             "carry": [[741, 742, 880]], "storage": 16400, "began": 3, "position": 901},
//!  "log": {"commit": "0/16B3700", "events": 3}, "retried": [17, 18]}
//! ```
//!
//! `term` is that of the database's mode: what was recorded before delivery was switched, or before the cursors were
//! set back, counts no more.

use serde::{Deserialize, Serialize};

use crate::order::cursor::Window;
use crate::order::history::{History, place};
use crate::order::saved_cursor::SavedCursor;
use crate::order::snapshot::Snapshot;
use crate::order::tick::{Carry, Lineage};

/// What this version writes, and the only one that it reads.
const VERSION: u32 = 1;

/// How far a bucket is published, in the transaction that published it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlRecord {
    /// Since when the database delivers so: rises with each switch.
    pub term: i64,
    /// Where it means something.
    pub history: History,
    /// Under which the bucket was owned.
    pub epoch: i64,
    /// How far the table is published; none where there is no table.
    pub cursor: Option<SavedCursor>,
    /// How far the log is published, where it is read.
    pub log: Option<RecordedPlace>,
    /// Parked events that are published with it, by their turns. They may not be taken away yet.
    pub retried: Vec<i64>,
}

/// A place in the log: everything before it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordedPlace {
    /// All transactions whose commit lies before this.
    pub commit: u64,
    /// And so many events of the one that commits here.
    pub events: u64,
}

impl RecordedPlace {
    /// Whether the event of this number, in the transaction that commits there, lies before it.
    pub fn covers(&self, commit: u64, index: u32) -> bool {
        (commit, u64::from(index)) < (self.commit, self.events)
    }
}

/// A record that cannot be gone by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecord {
    /// It is none of ours.
    #[error("it is no cursor of postrider: {0}")]
    Malformed(String),
    /// Another version has written it.
    #[error("it was written by another version (it says {0}, this one writes {VERSION})")]
    Version(u32),
}

#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRecord {
    v: u32,
    term: i64,
    system: i64,
    timeline: i32,
    lsn: String,
    epoch: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cursor: Option<WrittenCursor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<WrittenPlace>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    retried: Vec<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCursor {
    from: String,
    upto: String,
    next: u64,
    floor: i64,
    end: i64,
    carry: Vec<(u64, u64, i64)>,
    storage: Option<i64>,
    began: u64,
    position: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window: Option<WrittenWindow>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenWindow {
    since: String,
    bound: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPlace {
    commit: String,
    events: u64,
}

impl ControlRecord {
    /// The value of the record.
    pub fn encode(&self) -> String {
        let written = WrittenRecord {
            v: VERSION,
            term: self.term,
            system: self.history.system_identifier,
            timeline: self.history.timeline,
            lsn: text(self.history.lsn),
            epoch: self.epoch,
            cursor: self.cursor.as_ref().map(write_cursor),
            log: self.log.map(|log| WrittenPlace { commit: text(log.commit), events: log.events }),
            retried: self.retried.clone(),
        };
        serde_json::to_string(&written).expect("numbers and texts can be written")
    }

    /// How long the value of a record is at most, with so many transactions open in the server, and so many parked
    /// events that were tried again.
    pub fn longest(open: usize, retried: usize) -> usize {
        // Its two ends, and what is open between them.
        let snapshot = || vec![u64::MAX.to_string(); open + 2].join(",");
        let cursor = WrittenCursor {
            from: snapshot(),
            upto: snapshot(),
            next: u64::MAX,
            floor: i64::MIN,
            end: i64::MIN,
            carry: vec![(u64::MAX, u64::MAX, i64::MIN); open],
            storage: Some(i64::MIN),
            began: u64::MAX,
            position: i64::MIN,
            window: Some(WrittenWindow { since: snapshot(), bound: i64::MIN }),
        };
        let written = WrittenRecord {
            v: VERSION,
            term: i64::MIN,
            system: i64::MIN,
            timeline: i32::MIN,
            lsn: text(u64::MAX),
            epoch: i64::MIN,
            cursor: Some(cursor),
            log: Some(WrittenPlace { commit: text(u64::MAX), events: u64::MAX }),
            retried: vec![i64::MIN; retried],
        };
        serde_json::to_string(&written).expect("numbers and texts can be written").len()
    }

    /// Reads the value of a record.
    ///
    /// # Errors
    /// [`InvalidRecord`] for anything that this version does not write.
    pub fn decode(value: &[u8]) -> Result<Self, InvalidRecord> {
        let Versioned { v } = serde_json::from_slice(value).map_err(malformed)?;
        if v != VERSION {
            return Err(InvalidRecord::Version(v));
        }
        let written: WrittenRecord = serde_json::from_slice(value).map_err(malformed)?;
        Ok(Self {
            term: written.term,
            history: History {
                system_identifier: written.system,
                timeline: written.timeline,
                lsn: read_place(&written.lsn)?,
            },
            epoch: written.epoch,
            cursor: written.cursor.map(read_cursor).transpose()?,
            log: written.log.map(read_log).transpose()?,
            retried: written.retried,
        })
    }
}

fn malformed(cause: impl std::fmt::Display) -> InvalidRecord {
    InvalidRecord::Malformed(cause.to_string())
}

/// As PostgreSQL writes it.
fn text(place: u64) -> String {
    format!("{:X}/{:X}", place >> 32, place & 0xFFFF_FFFF)
}

fn read_place(text: &str) -> Result<u64, InvalidRecord> {
    place(text).ok_or_else(|| malformed(format!("{text:?} is no place in the log")))
}

fn read_log(written: WrittenPlace) -> Result<RecordedPlace, InvalidRecord> {
    Ok(RecordedPlace { commit: read_place(&written.commit)?, events: written.events })
}

fn write_cursor(cursor: &SavedCursor) -> WrittenCursor {
    WrittenCursor {
        from: cursor.from.to_string(),
        upto: cursor.upto.to_string(),
        next: cursor.next,
        floor: cursor.floor,
        end: cursor.end,
        carry: cursor.carry.iter().map(|open| (open.first, open.last, open.floor)).collect(),
        storage: cursor.lineage.storage,
        began: cursor.lineage.began,
        position: cursor.position,
        window: cursor
            .window
            .as_ref()
            .map(|window| WrittenWindow { since: window.since.to_string(), bound: window.bound }),
    }
}

fn read_cursor(written: WrittenCursor) -> Result<SavedCursor, InvalidRecord> {
    let snapshot = |text: &str| text.parse::<Snapshot>().map_err(malformed);
    let window = |written: WrittenWindow| {
        Ok(Window { since: snapshot(&written.since)?, bound: written.bound })
    };
    let cursor = SavedCursor {
        from: snapshot(&written.from)?,
        upto: snapshot(&written.upto)?,
        next: written.next,
        floor: written.floor,
        end: written.end,
        carry: written
            .carry
            .into_iter()
            .map(|(first, last, floor)| Carry { first, last, floor })
            .collect(),
        lineage: Lineage { storage: written.storage, began: written.began },
        position: written.position,
        window: written.window.map(window).transpose()?,
    };
    check(&cursor)?;
    Ok(cursor)
}

/// What no cursor of ours can be.
fn check(cursor: &SavedCursor) -> Result<(), InvalidRecord> {
    let is_rising = cursor.carry.windows(2).all(|pair| pair[0].last < pair[1].first);
    let are_ranges = cursor.carry.iter().all(|open| open.first <= open.last);
    let is_within = cursor.window.as_ref().is_none_or(|window| window.bound <= cursor.end);
    if cursor.position > cursor.end {
        return Err(malformed("its position lies behind its end"));
    }
    if !is_rising || !are_ranges {
        return Err(malformed("its open transactions are in no order"));
    }
    if !is_within {
        return Err(malformed("its window lies behind its end"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cursor() -> SavedCursor {
        SavedCursor {
            from: "740:740:".parse().unwrap(),
            upto: "741:745:741,742".parse().unwrap(),
            next: 745,
            floor: 900,
            end: i64::MAX,
            carry: vec![
                Carry { first: 741, last: 742, floor: -5 },
                Carry { first: 744, last: 744, floor: i64::MIN / 2 },
            ],
            lineage: Lineage { storage: Some(16_400), began: 3 },
            position: -1,
            window: Some(Window { since: "700:700:".parse().unwrap(), bound: 880 }),
        }
    }

    fn record() -> ControlRecord {
        ControlRecord {
            term: 2,
            history: History {
                system_identifier: -7_450_000_000_000_000_000,
                timeline: 3,
                lsn: 0x1_016B_3748,
            },
            epoch: 12,
            cursor: Some(cursor()),
            log: Some(RecordedPlace { commit: 0x16B_3700, events: 3 }),
            retried: vec![17, 18],
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let whole = record();
        let bare = ControlRecord { cursor: None, log: None, retried: Vec::new(), ..whole.clone() };
        for record in [whole, bare] {
            assert_eq!(ControlRecord::decode(record.encode().as_bytes()), Ok(record));
        }
    }

    #[test]
    fn no_record_is_longer_than_the_longest() {
        let written = record().encode().len();
        let longest = ControlRecord::longest(2, 2);
        assert!((written..3 * written).contains(&longest), "{written} and {longest}");
        let (last, id, more) = (u64::MAX - 2, u64::MAX - 1, ControlRecord::longest(3, 2));
        let cursor = SavedCursor {
            upto: format!("{last}:{}:{last},{id}", u64::MAX).parse().expect("it is one"),
            carry: vec![Carry { first: last, last: id, floor: i64::MIN }; 2],
            ..cursor()
        };
        let record = ControlRecord { cursor: Some(cursor), ..record() };
        assert!(record.encode().len() <= longest);
        assert_eq!(more - longest, 3 * 21 + 65, "one more in three snapshots, and its bounds");
    }

    /// As it lies in topics by now: who changes this raises the version.
    #[test]
    fn a_record_that_was_written_once_can_be_read_for_ever() {
        let written = r#"{"v":1,"term":2,"system":-7450000000000000000,"timeline":3,"lsn":"1/16B3748","epoch":12,"cursor":{"from":"740:740:","upto":"741:745:741,742","next":745,"floor":900,"end":9223372036854775807,"carry":[[741,742,-5],[744,744,-4611686018427387904]],"storage":16400,"began":3,"position":-1,"window":{"since":"700:700:","bound":880}},"log":{"commit":"0/16B3700","events":3},"retried":[17,18]}"#;
        assert_eq!(record().encode(), written);
        assert_eq!(ControlRecord::decode(written.as_bytes()), Ok(record()));
    }

    #[test]
    fn a_place_covers_what_lies_before_it() {
        let place = RecordedPlace { commit: 50, events: 2 };
        let covered =
            [(49, 7), (50, 0), (50, 1), (50, 2), (51, 0)].map(|(at, n)| place.covers(at, n));
        assert_eq!(covered, [true, true, true, false, false]);
        assert!(!RecordedPlace { commit: 50, events: 0 }.covers(50, 0));
    }

    #[test]
    fn a_later_version_is_not_guessed_at() {
        let later = record().encode().replacen("\"v\":1", "\"v\":2,\"more\":[]", 1);
        assert_eq!(ControlRecord::decode(later.as_bytes()), Err(InvalidRecord::Version(2)));
    }

    #[test]
    fn what_none_of_us_writes_is_refused() {
        let written = record().encode();
        for (old, new) in [
            ("\"term\":2,", ""),
            ("\"epoch\"", "\"epoche\""),
            ("1/16B3748", "16B3748"),
            ("740:740:", "740:7"),
            ("[741,742,-5]", "[742,741,-5]"),
            ("[741,742,-5]", "[741,744,-5]"),
            ("\"position\":-1", "\"position\":0,\"end\":1"),
            ("9223372036854775807", "870"),
            ("\"began\":3", "\"began\":-3"),
        ] {
            let forged = written.replacen(old, new, 1);
            assert_ne!(forged, written);
            let read = ControlRecord::decode(forged.as_bytes());
            assert!(matches!(read, Err(InvalidRecord::Malformed(_))), "{forged}: {read:?}");
        }
        let behind = written.replacen("\"position\":-1", "\"position\":871", 1);
        let behind = behind.replacen("9223372036854775807", "870", 1).replacen("880", "7", 1);
        assert!(ControlRecord::decode(behind.as_bytes()).is_err());
        for value in ["", "null", "7", "{}", "[1]"] {
            assert!(ControlRecord::decode(value.as_bytes()).is_err(), "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_none(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(ControlRecord::decode(&value).is_err());
        }

        #[test]
        fn a_record_with_a_changed_byte_does_no_harm(at in 0_usize..400, byte in any::<u8>()) {
            let mut value = record().encode().into_bytes();
            let length = value.len();
            value[at % length] = byte;
            if let Ok(ControlRecord { cursor: Some(cursor), .. }) = ControlRecord::decode(&value) {
                let restored = cursor.restore();
                prop_assert!(restored.position() <= restored.end());
            }
        }
    }
}
