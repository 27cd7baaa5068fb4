//! The topics of which a producer does not know whether they take what is sent.
//!
//! Promises: a topic that is suspected, or has fewer copies than it asks for, is in doubt until it took
//! something: older brokers refuse what goes to one with too few copies, newer ones (seen with 4.4) take it.
//! Must not: send, ask, or read a clock.

use hashbrown::{HashMap, HashSet};

/// So many records are refused alone for their topic's sake, and none goes through: it is the topic.
const DENIED_MAX: u32 = 2;

/// How many copies a topic has, and how many of them it wants to be in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TopicCopies {
    pub(super) there: usize,
    pub(super) needed: usize,
}

/// What a producer doubts.
#[derive(Debug, Default)]
pub(super) struct TopicDoubts {
    /// The topics that are suspected, as this producer knows them.
    suspects: HashSet<String>,
    /// Topics with fewer copies than they ask for, of which nobody knows yet whether they take anything.
    lacking: HashMap<String, TopicCopies>,
    /// Those of them that did take something.
    enough: HashSet<String>,
    /// Whether all was acknowledged that was sent to them as usual.
    is_settled: bool,
    /// How often a topic was refused to a record alone, since one went through.
    denied: HashMap<String, u32>,
    /// After a standstill: the topics that took something since. Any other may be why.
    proven: Option<HashSet<String>>,
}

impl TopicDoubts {
    /// Doubts each topic until it takes something. Nothing was sent to any yet.
    pub(super) fn of_all() -> Self {
        Self { proven: Some(HashSet::new()), is_settled: true, ..Self::default() }
    }

    /// Takes over which topics are suspected now; whether the last of them was cleared.
    pub(super) fn follow(&mut self, suspects: Vec<String>) -> bool {
        if suspects.is_empty() && self.suspects.is_empty() {
            return false;
        }
        let is_cleared = suspects.is_empty();
        if is_cleared {
            self.denied.clear();
        }
        // One that comes again may have records in flight.
        self.is_settled &= suspects.iter().all(|topic| self.suspects.contains(topic));
        self.suspects = suspects.into_iter().collect();
        is_cleared
    }

    /// Takes note of the copies that a topic has, and of those that it asks for.
    pub(super) fn note_copies(&mut self, topic: &str, there: usize, needed: Option<usize>) {
        let Some(needed) = needed.filter(|needed| there < *needed) else {
            self.lacking.remove(topic);
            self.enough.remove(topic);
            return;
        };
        if self.enough.contains(topic) {
            return;
        }
        if self.lacking.insert(topic.to_owned(), TopicCopies { there, needed }).is_none() {
            // It may have had enough until now, and records in flight.
            self.is_settled = false;
        }
    }

    /// A record went through.
    pub(super) fn taken(&mut self, topic: &str) {
        self.denied.remove(topic);
        if let Some(proven) = &mut self.proven {
            proven.get_or_insert_with(topic, str::to_owned);
        }
        if self.lacking.remove(topic).is_some() {
            self.enough.insert(topic.to_owned());
        }
    }

    /// Whether what goes to this topic is sent apart.
    pub(super) fn has(&self, topic: &str) -> bool {
        let is_among = !self.suspects.is_empty() && self.suspects.contains(topic);
        is_among
            || self.is_unproven(topic)
            || (!self.lacking.is_empty() && self.lacking.contains_key(topic))
    }

    /// Whether there was a standstill, and the topic has taken nothing since.
    pub(super) fn is_unproven(&self, topic: &str) -> bool {
        self.proven.as_ref().is_some_and(|proven| !proven.contains(topic))
    }

    /// The copies of one that has fewer than it asks for, as long as it took nothing.
    pub(super) fn lacks(&self, topic: &str) -> Option<TopicCopies> {
        self.lacking.get(topic).copied()
    }

    /// The topics that are suspected.
    pub(super) fn suspects(&self) -> impl Iterator<Item = &String> {
        self.suspects.iter()
    }

    /// Whether all was acknowledged that was sent as usual to topics in doubt.
    pub(super) fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// All was acknowledged; what follows goes apart.
    pub(super) fn settle(&mut self) {
        self.is_settled = true;
    }

    /// A record was refused alone for its topic's sake; whether so many were that it is the topic.
    pub(super) fn deny(&mut self, topic: &str) -> bool {
        let denied = self.denied.entry_ref(topic).or_default();
        *denied += 1;
        *denied >= DENIED_MAX
    }

    /// It is known by now that it is the topic.
    pub(super) fn forget_denials(&mut self, topic: &str) {
        self.denied.remove(topic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_lacks_copies_is_tried_until_it_takes_one() {
        let mut doubts = TopicDoubts::default();
        doubts.note_copies("t", 1, Some(1));
        doubts.note_copies("untold", 1, None);
        assert!(!doubts.has("t") && !doubts.has("untold"));
        doubts.settle();
        doubts.note_copies("t", 1, Some(2));
        assert!(doubts.has("t") && !doubts.is_settled(), "others may be in flight");
        doubts.settle();
        doubts.note_copies("t", 1, Some(2));
        assert!(doubts.is_settled(), "that was known");
        doubts.taken("t");
        doubts.note_copies("t", 1, Some(2));
        assert!(!doubts.has("t"), "it takes what goes there all the same");
        doubts.note_copies("t", 2, Some(2));
        doubts.note_copies("t", 2, Some(3));
        assert!(doubts.has("t"), "things have changed");
        doubts.note_copies("t", 3, Some(3));
        assert!(!doubts.has("t"));
    }

    #[test]
    fn what_is_suspected_anew_may_have_records_in_flight() {
        let mut doubts = TopicDoubts::default();
        assert!(!doubts.follow(vec!["t".to_owned()]));
        assert!(doubts.has("t") && !doubts.is_settled());
        doubts.settle();
        doubts.follow(vec!["t".to_owned()]);
        assert!(doubts.is_settled(), "it was suspected before");
        doubts.follow(vec!["t".to_owned(), "u".to_owned()]);
        assert!(doubts.has("u") && !doubts.is_settled());
        assert!(doubts.follow(Vec::new()) && !doubts.has("t"));
        assert!(!doubts.follow(Vec::new()), "there were none");
    }

    #[test]
    fn after_a_standstill_each_is_in_doubt_until_it_takes_something() {
        let mut doubts = TopicDoubts::of_all();
        assert!(doubts.has("t") && doubts.has("u") && doubts.is_settled());
        doubts.taken("t");
        assert!(!doubts.has("t") && doubts.has("u"));
        doubts.follow(vec!["t".to_owned()]);
        assert!(doubts.has("t") && !doubts.is_settled(), "it may have records in flight");
    }

    #[test]
    fn two_denials_in_a_row_are_the_topics() {
        let mut doubts = TopicDoubts::default();
        assert!(!doubts.deny("t"));
        doubts.taken("t");
        assert!(!doubts.deny("t"), "one went through");
        assert!(doubts.deny("t"));
    }
}
