//! Topics that seem to be back: one aggregate is tried first, and the rest when it went through.
//!
//! Promises: of a topic that still takes nothing one aggregate is tried each time, however many wait; what
//! waits for a topic that takes it is asked for soon after. Must not: ask, or send.

use std::collections::BTreeMap;

use hashbrown::HashSet;

use crate::order::holds::{Reason, Refusal};

/// What a shard knows of topics that seemed to be back.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// Those of which nothing was asked for yet.
    back: Vec<String>,
    /// Those of which one aggregate was, by the number of the request.
    asked: BTreeMap<i64, Vec<String>>,
    /// Those to which an event could not be sent since then.
    refused: HashSet<String>,
    /// Those that are back.
    open: Vec<String>,
}

impl Probes {
    /// The brokers say that these can be used.
    pub(super) fn seem_back(&mut self, topics: Vec<String>) {
        self.back.extend(topics);
    }

    /// Whether anything is to be asked for.
    pub(super) fn are_any(&self) -> bool {
        !self.back.is_empty() || !self.open.is_empty()
    }

    /// Those of which one aggregate is to be asked for.
    pub(super) fn take_back(&mut self) -> Vec<String> {
        std::mem::take(&mut self.back)
    }

    /// Those of which everything is to be asked for.
    pub(super) fn take_open(&mut self) -> Vec<String> {
        std::mem::take(&mut self.open)
    }

    /// One aggregate of a topic was asked for.
    pub(super) fn asked(&mut self, topic: String, request: i64) {
        self.refused.remove(&topic);
        self.asked.entry(request).or_default().push(topic);
    }

    /// An event that was tried again was not sent, for that reason.
    pub(super) fn refused(&mut self, refusal: &Refusal) {
        if refusal.reason == Reason::TopicUnavailable
            && let Some(topic) = &refusal.topic
        {
            self.refused.get_or_insert_with(topic, String::clone);
        }
    }

    /// These requests are answered.
    pub(super) fn answered(&mut self, requests: &[i64]) {
        for topics in requests.iter().filter_map(|request| self.asked.remove(request)) {
            let taken = topics.into_iter().filter(|topic| !self.refused.contains(topic));
            self.open.extend(taken);
        }
        if self.asked.is_empty() {
            self.refused.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(reason: Reason, topic: &str) -> Refusal {
        Refusal { reason, detail: String::new(), topic: Some(topic.to_owned()) }
    }

    #[test]
    fn the_rest_follows_one_that_went_through() {
        let mut probes = Probes::default();
        probes.seem_back(vec!["a".into(), "b".into(), "c".into()]);
        assert!(probes.are_any());
        for (topic, request) in probes.take_back().into_iter().zip([7, 8, 8]) {
            probes.asked(topic, request);
        }
        assert!(!probes.are_any(), "nobody knows yet");
        probes.refused(&refusal(Reason::TopicUnavailable, "a"));
        // Its own fault, and not that of where it goes.
        probes.refused(&refusal(Reason::TooLarge, "b"));
        probes.answered(&[3, 7]);
        assert!(!probes.are_any());
        probes.asked("a".into(), 9);
        probes.answered(&[9]);
        assert_eq!(probes.take_open(), ["a"], "it was refused before, and not since");
        probes.answered(&[8]);
        assert_eq!(probes.take_open(), ["b", "c"]);
    }
}
