//! The events that brokers refused for their own sake, for whoever meets them again before they are parked.
//!
//! Promises: one that was found out is known until no other one was for some minutes, so that a transaction that begins anew
//! finds out the others, however many there are; when its aggregate is tried again it is as good as any; bounded. Must not:
//! find one out, or read a clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::event::EventId;
use crate::order::holds::{AggregateKey, Refusal};

/// So long all are known after the last was found out. A transaction that begins anew meets them within seconds.
const KNOWN_FOR: Duration = Duration::from_secs(180);
/// So many are known at once: more than a page has.
const CULPRITS_MAX: usize = 4_096;

/// One that was found out.
#[derive(Clone, Debug)]
struct Culprit {
    aggregate: AggregateKey,
    refusal: Refusal,
    found: Instant,
}

/// Those that are known at some moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Culprits {
    known: Arc<HashMap<EventId, Culprit>>,
    last_found: Option<Instant>,
}

impl Culprits {
    /// Whether none is known.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Why this event is refused, if that is known.
    pub(super) fn refusal(&self, event: EventId) -> Option<&Refusal> {
        self.known.get(&event).map(|culprit| &culprit.refusal)
    }

    /// One was found out.
    pub(super) fn note(
        &mut self,
        event: EventId,
        aggregate: AggregateKey,
        refusal: Refusal,
        now: Instant,
    ) {
        let known = Arc::make_mut(&mut self.known);
        if known.len() >= CULPRITS_MAX {
            let first = known.iter().min_by_key(|(_, culprit)| culprit.found).map(|(id, _)| *id);
            first.and_then(|id| known.remove(&id));
        }
        known.insert(event, Culprit { aggregate, refusal, found: now });
        self.last_found = Some(now);
    }

    /// Those of these aggregates are to be tried again.
    pub(super) fn forget(&mut self, aggregates: &[AggregateKey]) {
        if self.known.values().any(|culprit| aggregates.contains(&culprit.aggregate)) {
            Arc::make_mut(&mut self.known)
                .retain(|_, culprit| !aggregates.contains(&culprit.aggregate));
        }
    }

    /// Forgets them where the last was found out long ago.
    pub(super) fn age(&mut self, now: Instant) {
        if self.last_found.is_some_and(|last| last + KNOWN_FOR <= now) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::holds::Reason;

    fn refusal() -> Refusal {
        Refusal { reason: Reason::Refused, detail: "because".to_owned(), topic: None }
    }

    fn note(culprits: &mut Culprits, number: u32, now: Instant) -> EventId {
        let mut id = EventId([0; 16]);
        id.0[..4].copy_from_slice(&number.to_be_bytes());
        culprits.note(id, AggregateKey::named("t", &number.to_string()), refusal(), now);
        id
    }

    #[test]
    fn one_is_known_for_a_while_or_until_its_aggregate_is_tried_again() {
        let (mut culprits, now) = (Culprits::default(), Instant::now());
        let [first, second] = [1, 2].map(|number| note(&mut culprits, number, now));
        assert_eq!(culprits.refusal(first), Some(&refusal()));
        let as_it_was = culprits.clone();
        culprits.forget(&[AggregateKey::named("t", "1"), AggregateKey::named("u", "2")]);
        assert!(culprits.refusal(first).is_none() && culprits.refusal(second).is_some());
        assert!(as_it_was.refusal(first).is_some(), "whoever is at a batch goes on with it");
        culprits.age(now + KNOWN_FOR / 2);
        assert!(!culprits.is_empty());
        culprits.age(now + KNOWN_FOR);
        assert!(culprits.is_empty());
    }

    #[test]
    fn none_is_forgotten_as_long_as_others_are_found_out() {
        let (mut culprits, mut now) = (Culprits::default(), Instant::now());
        let first = note(&mut culprits, 0, now);
        for number in 1..4 {
            now += KNOWN_FOR * 2 / 3;
            culprits.age(now);
            note(&mut culprits, number, now);
        }
        assert!(culprits.refusal(first).is_some(), "what begins anew meets it, too");
        culprits.age(now + KNOWN_FOR);
        assert!(culprits.is_empty());
    }

    #[test]
    fn they_are_bounded() {
        let (mut culprits, now) = (Culprits::default(), Instant::now());
        let first = note(&mut culprits, 0, now);
        let later = now + Duration::from_secs(1);
        for number in 1..=u32::try_from(CULPRITS_MAX).expect("a few") {
            note(&mut culprits, number, later);
        }
        assert_eq!(culprits.known.len(), CULPRITS_MAX);
        assert!(culprits.refusal(first).is_none(), "it was the oldest");
    }
}
