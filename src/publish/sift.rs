//! Finds the events that a broker refuses, among those that were sent apart.
//!
//! Promises: what was refused together is tried again in halves until a record is refused alone; only that
//! one is given up. One that was refused for a reason that need not be its own is tried several times, and
//! given up only if another one went through to the same place meanwhile. No event of an aggregate is sent
//! before the fate of an earlier one is known. Must not: take a Kafka that is away for a bad event.
//! Fails: when nothing goes through for a while; the topics are then sent to as usual.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashSet;

use super::desk::{Course, Desk};
use super::{Answer, InFlightBatch, Produce};
use crate::error::{Error, ErrorKind, Result};
use crate::event::LendEvent;
use crate::hold::{AggregateKey, Refusal, SetAside};

/// So long nothing may go through until it is given up to find out more.
const NOTHING_FOR: Duration = Duration::from_secs(60);
/// Between two tries of a record that was refused for a reason that need not be its own.
const TRY_PAUSE: Duration = Duration::from_secs(1);

/// An event with its place in its batch.
pub(super) type Placed<R> = (usize, R);
/// One that was set aside, with the same.
pub(super) type Aside<R> = (usize, SetAside<R>);

/// Events that were gathered: one of an aggregate at most.
#[derive(Debug)]
pub(super) struct Sieve<R> {
    rows: Vec<Placed<R>>,
    aggregates: HashSet<AggregateKey>,
}

impl<R> Default for Sieve<R> {
    fn default() -> Self {
        Self { rows: Vec::new(), aggregates: HashSet::new() }
    }
}

impl<R: LendEvent> Sieve<R> {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether an earlier event of the row's aggregate is in it.
    pub(super) fn meets(&self, row: &R) -> bool {
        !self.rows.is_empty() && self.aggregates.contains(&AggregateKey::of(&row.event()))
    }

    pub(super) fn push(&mut self, row: Placed<R>) {
        self.aggregates.insert(AggregateKey::of(&row.1.event()));
        self.rows.push(row);
    }

    fn take(&mut self) -> Vec<Placed<R>> {
        self.aggregates.clear();
        std::mem::take(&mut self.rows)
    }
}

/// Events that are tried together; alone it counts how often.
struct Group<R> {
    rows: Vec<Placed<R>>,
    /// How often the only one was refused alone.
    tries: u32,
    /// How many others had gone through to the same place when it was refused first.
    witnesses: Option<u64>,
    not_before: Option<Instant>,
}

impl<R> Group<R> {
    fn new(rows: Vec<Placed<R>>) -> Self {
        Self { rows, tries: 0, witnesses: None, not_before: None }
    }
}

/// What is going on with the groups of one sieve.
struct Sifting<R> {
    groups: VecDeque<Group<R>>,
    /// What was refused alone, and is tried again when there is nothing else to try: one that goes through
    /// meanwhile tells whether it is the record.
    again: VecDeque<Group<R>>,
    last_appended: Instant,
}

impl<R> Sifting<R> {
    fn next(&mut self) -> Option<Group<R>> {
        self.groups.pop_front().or_else(|| self.again.pop_front())
    }
}

impl<P: Produce> Desk<P> {
    /// Sends what was gathered, and finds those that are refused.
    pub(super) fn sift<R: LendEvent>(
        &mut self,
        sieve: &mut Sieve<R>,
        batch: &Arc<InFlightBatch>,
        set_aside: &mut Vec<Aside<R>>,
    ) -> Result<()> {
        if sieve.is_empty() {
            return Ok(());
        }
        let rows = sieve.take();
        let answers = self.producer.confirm(batch)?;
        let now = Instant::now();
        let (groups, again) = (VecDeque::new(), VecDeque::new());
        let mut sifting = Sifting { groups, again, last_appended: now };
        self.divide(Group::new(rows), answers, batch, &mut sifting, set_aside)?;
        while let Some(group) = sifting.next() {
            if let Some(due) = group.not_before {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            self.check_permit()?;
            self.try_again(group, batch, &mut sifting, set_aside)?;
            if sifting.last_appended.elapsed() > NOTHING_FOR {
                return Err(self.nothing_goes_through());
            }
        }
        Ok(())
    }

    fn try_again<R: LendEvent>(
        &mut self,
        group: Group<R>,
        batch: &Arc<InFlightBatch>,
        sifting: &mut Sifting<R>,
        set_aside: &mut Vec<Aside<R>>,
    ) -> Result<()> {
        let Group { rows, tries, witnesses, .. } = group;
        let (mut gathered, mut refused) = (Vec::with_capacity(rows.len()), Vec::new());
        for (place, row) in rows {
            match self.offer(&row.event(), row.standing(), batch)? {
                Course::Sent => {}
                Course::Gathered => gathered.push((place, row)),
                Course::Follows => {
                    set_aside.push((place, SetAside { row, refusal: Refusal::follows() }));
                }
                Course::Refused(refusal) => refused.push(((place, row), refusal)),
            }
        }
        let answers = self.producer.confirm(batch)?;
        let group = Group { rows: gathered, tries, witnesses, not_before: None };
        self.divide(group, answers, batch, sifting, set_aside)?;
        for (row, refusal) in refused {
            self.give_up(row, refusal, batch, set_aside)?;
        }
        Ok(())
    }

    /// What was refused of a group is tried again in halves; what was refused alone may be given up.
    fn divide<R: LendEvent>(
        &mut self,
        group: Group<R>,
        answers: Vec<Answer>,
        batch: &Arc<InFlightBatch>,
        sifting: &mut Sifting<R>,
        set_aside: &mut Vec<Aside<R>>,
    ) -> Result<()> {
        assert_eq!(group.rows.len(), answers.len(), "each event that was gathered has an answer");
        let is_alone = group.rows.len() == 1;
        let (tries, witnesses) = (group.tries, group.witnesses);
        let mut left = Vec::new();
        for (row, answer) in group.rows.into_iter().zip(answers) {
            match answer {
                Answer::Appended => sifting.last_appended = Instant::now(),
                Answer::Refused { refusal, tries: needed, witnesses: seen } if is_alone => {
                    let before = witnesses.or(seen);
                    let has_witness = seen.is_none_or(|seen| before.is_some_and(|old| seen > old));
                    if tries + 1 >= needed && has_witness {
                        self.producer.give_up(&refusal)?;
                        return self.give_up(row, refusal, batch, set_aside);
                    }
                    if tries + 1 >= 2 * needed {
                        return Err(self.nothing_goes_through());
                    }
                    let not_before = (needed > 1).then(|| Instant::now() + TRY_PAUSE);
                    let rows = vec![row];
                    let again = Group { rows, tries: tries + 1, witnesses: before, not_before };
                    sifting.again.push_back(again);
                    return Ok(());
                }
                Answer::Refused { .. } => left.push(row),
            }
        }
        let second = left.split_off(left.len() / 2);
        // Behind all others: as long as anything goes through, so does one of each generation.
        for half in [left, second] {
            if !half.is_empty() {
                sifting.groups.push_back(Group::new(half));
            }
        }
        Ok(())
    }

    pub(super) fn give_up<R: LendEvent>(
        &mut self,
        (place, row): Placed<R>,
        refusal: Refusal,
        batch: &Arc<InFlightBatch>,
        set_aside: &mut Vec<Aside<R>>,
    ) -> Result<()> {
        if let Some(refusal) = self.decide(&row.event(), row.standing(), refusal, batch)? {
            set_aside.push((place, SetAside { row, refusal }));
        }
        Ok(())
    }

    fn nothing_goes_through(&mut self) -> Error {
        self.producer.trust_topics();
        Error::new(
            ErrorKind::DeliveryUncertain,
            "what is sent apart gets no answer, and nothing else goes through: Kafka may be away",
        )
    }
}

#[cfg(test)]
#[path = "sift_tests.rs"]
mod tests;
