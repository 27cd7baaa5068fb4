//! Histories of a cluster: along which of them snapshots can be compared.
//!
//! Promises: what was recorded counts only where it lies in the past of the server at hand; where a promotion has cut
//! off what was recorded last, that is told apart from a server that is another one. Must not: ask a server.
//! Fails: text that is no history of timelines is refused.
//!
//! ```text
//!   timeline 1 ──────┬──── recorded: a tail that the promoted server does not have
//!                    └ 2 ─── recorded ───┬──────
//!                                        └ 3 ──────── here
//! ```
//!
//! Source: PostgreSQL documentation, "Streaming Replication Protocol", `TIMELINE_HISTORY`.

use std::str::FromStr;

/// The state of one cluster along which snapshots can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// `pg_control_system().system_identifier`.
    pub system_identifier: i64,
    /// Rises with every promotion.
    pub timeline: i32,
    /// Where the log ended.
    pub lsn: u64,
}

/// What is known of the timelines from which a server's own one comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ancestors(Vec<Ancestor>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ancestor {
    timeline: i32,
    /// The next one begins here.
    end: u64,
}

/// Text that is no history of timelines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a line of a timeline's history: {0:?}")]
pub struct InvalidAncestors(String);

impl FromStr for Ancestors {
    type Err = InvalidAncestors;

    /// Reads a timeline's history file.
    fn from_str(text: &str) -> Result<Self, InvalidAncestors> {
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let ancestor = |line: &str| ancestor(line).ok_or_else(|| InvalidAncestors(line.to_owned()));
        lines.map(ancestor).collect::<Result<_, _>>().map(Self)
    }
}

fn ancestor(line: &str) -> Option<Ancestor> {
    let mut words = line.split_ascii_whitespace();
    let timeline = words.next()?.parse().ok().filter(|timeline| *timeline > 0)?;
    Some(Ancestor { timeline, end: place(words.next()?)? })
}

/// A place in the log as PostgreSQL writes it.
pub fn place(text: &str) -> Option<u64> {
    let (upper, lower) = text.split_once('/')?;
    let half = |text: &str| u32::from_str_radix(text, 16).ok().filter(|_| !text.starts_with('+'));
    Some(u64::from(half(upper)?) << 32 | u64::from(half(lower)?))
}

/// What something is worth here that was recorded along with a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// It lies in our past.
    Valid,
    /// The database does not remember so much: a promotion or a restore has cut it off. What was published and
    /// is not remembered may be published again.
    Forgotten,
    /// Nobody told from where our timeline comes.
    Unknown,
    /// It is of another cluster.
    Foreign,
    /// It is of a later timeline: this server was left behind.
    LeftBehind,
}

impl History {
    /// What that which was recorded is worth on a server with this history.
    pub fn judge(&self, recorded: &Self, ancestors: &Ancestors) -> Worth {
        if recorded.system_identifier != self.system_identifier {
            return Worth::Foreign;
        }
        if recorded.timeline > self.timeline {
            return Worth::LeftBehind;
        }
        let end = if recorded.timeline == self.timeline {
            self.lsn
        } else {
            match ancestors.end_of(recorded.timeline) {
                Some(end) => end,
                // Of a branch that leads elsewhere.
                None if ancestors.are_known() => return Worth::Forgotten,
                None => return Worth::Unknown,
            }
        };
        if recorded.lsn <= end { Worth::Valid } else { Worth::Forgotten }
    }
}

impl Ancestors {
    /// Whether anything is known. A timeline that is not the first has an ancestor.
    fn are_known(&self) -> bool {
        !self.0.is_empty()
    }

    fn end_of(&self, timeline: i32) -> Option<u64> {
        self.0.iter().find(|known| known.timeline == timeline).map(|known| known.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTORY: &str = "1\t0/3000000\tno recovery target specified\n\n\
        # a comment\n3 1/A0\tbefore 2026-11-29 10:00:00+00\n";

    fn at(timeline: i32, lsn: u64) -> History {
        History { system_identifier: 7, timeline, lsn }
    }

    #[test]
    fn reads_a_timelines_history() {
        let ancestors: Ancestors = HISTORY.parse().unwrap();
        let ancestor = |timeline, end| Ancestor { timeline, end };
        assert_eq!(ancestors.0, [ancestor(1, 0x300_0000), ancestor(3, 0x1_0000_00A0)]);
        for text in ["1", "x 0/0", "1 0-0", "1 0/+1", "0 0/1", "1 0/100000000", "-1 0/1"] {
            assert!(text.parse::<Ancestors>().is_err(), "{text}");
        }
        assert_eq!("".parse(), Ok(Ancestors::default()));
    }

    #[test]
    fn only_what_lies_in_our_past_counts() {
        let ancestors: Ancestors = HISTORY.parse().unwrap();
        let judge = |recorded| at(4, 0x2_0000_0000).judge(&recorded, &ancestors);
        assert_eq!(judge(at(4, 0x2_0000_0000)), Worth::Valid);
        assert_eq!(judge(at(4, 0x2_0000_0001)), Worth::Forgotten, "restored to an earlier state");
        assert_eq!(judge(at(1, 0x300_0000)), Worth::Valid);
        assert_eq!(judge(at(1, 0x300_0001)), Worth::Forgotten, "the tail of the old primary");
        assert_eq!(judge(at(3, 0x1_0000_0001)), Worth::Valid);
        assert_eq!(judge(at(2, 1)), Worth::Forgotten, "a branch that leads elsewhere");
        assert_eq!(judge(at(5, 1)), Worth::LeftBehind);
        assert_eq!(judge(History { system_identifier: 8, ..at(1, 1) }), Worth::Foreign);
    }

    #[test]
    fn without_a_word_of_ancestors_a_promotion_is_not_judged() {
        let nothing = Ancestors::default();
        assert_eq!(at(2, 90).judge(&at(1, 50), &nothing), Worth::Unknown);
        assert_eq!(at(2, 90).judge(&at(2, 50), &nothing), Worth::Valid);
        assert_eq!(at(1, 90).judge(&at(1, 91), &nothing), Worth::Forgotten);
    }
}
