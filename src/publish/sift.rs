//! Finds the events that a broker refuses, among those that were sent apart.
//!
//! Promises: what was refused together is tried again in halves until a record is refused alone, or without those that
//! the broker has named; only these are given up. One that was refused for a reason that need not be its own is tried several times, and
//! given up if another one went through to the same place meanwhile. Where none does, it is the topic that is
//! given up until it is back, so that nobody else waits: with the next try others come along, and that try is short.
//! Topics are tried side by side: many that take nothing cost no more time than one. Where it may as
//! well be Kafka, the topic is in doubt until something is taken elsewhere. No event of an
//! aggregate is sent before the fate of an earlier one is known. Must not: take a Kafka that is away for a
//! bad event. Fails: when no leader answers for a while; the topics are then sent to as usual.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};

use crate::error::{Error, ErrorKind, Result};
use crate::event::LendEvent;
use crate::order::holds::{Refusal, SetAside};
use crate::publish::dispatch::{Dispatched, Dispatcher};
use crate::publish::sieve::{Aside, Placed, Sieve};
use crate::publish::{
    Answer, Company, Ground, Haste, InFlightBatch, Produce, Proof, Suspect, WAYS_MAX,
};

/// So long nothing may go through until it is given up to find out more.
const NOTHING_FOR: Duration = Duration::from_secs(60);
/// A partition that changes its leader refuses everybody for a while: for so long it is nobody's fault.
const MOOD: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 20 });
/// The same of one whose topic has had no answer for longer than that.
const OVERDUE_MOOD: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 5 });
/// Between two tries of a record that was refused for a reason that need not be its own.
const TRY_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 1_000 });
/// So many events are refused alone, and none goes through to their topic: it is not the events.
const ALONE_MAX: usize = 2;
/// The same of tries of one event, where its topic has had no answer for long.
const OVERDUE_TRIES: u32 = 2;
/// The same where it seems to be the events.
const CUT_MAX: usize = 10;

/// An event that is tried until its fate is known.
struct Candidate<R> {
    row: Placed<R>,
    trial: Trial,
}

/// Events that are tried together, of one topic.
struct TrialGroup<R> {
    topic: String,
    candidates: Vec<Candidate<R>>,
    not_before: Option<Instant>,
}

impl<R> TrialGroup<R> {
    fn new(topic: String, candidates: Vec<Candidate<R>>) -> Self {
        Self { topic, candidates, not_before: None }
    }
}

/// What was refused together, of one topic.
struct Left<R> {
    topic: String,
    candidates: Vec<Candidate<R>>,
    /// Whether it may be the topic.
    is_topic_doubted: bool,
}

/// What is known of an event that is refused again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Trial {
    /// How often it was refused alone.
    tries: u32,
    /// How many others had gone through to the same place when it was refused first, in whatever company.
    others_at_first: Option<u64>,
    /// The same, when it was refused alone first.
    others_alone: Option<u64>,
    /// Who was to blame at least, in all tries.
    suspect: Option<Suspect>,
}

/// What an event that was refused alone is, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TrialFinding {
    /// The culprit.
    Culprit(Ground),
    /// One of those to whose topic nothing goes through.
    OfTopic,
    /// Unknown: it is to be tried again.
    Open,
    /// One of those to whose topic nothing goes through, but Kafka may be away.
    InDoubt,
}

impl Trial {
    /// It was refused together with others.
    fn note_in_company(&mut self, proof: Proof) {
        if let Proof::Witness { others, .. } = proof {
            self.others_at_first.get_or_insert(others);
        }
    }

    /// It was refused alone once more.
    fn note(&mut self, proof: Proof) -> TrialFinding {
        self.tries += 1;
        let (needed, others, suspect) = match proof {
            Proof::Alone { tries } if self.tries >= tries => {
                return TrialFinding::Culprit(Ground::Told);
            }
            Proof::Alone { .. } => return TrialFinding::Open,
            Proof::Witness { tries, others, suspect, .. } => (tries, others, suspect),
        };
        let suspect = *self.suspect.insert(self.suspect.unwrap_or(suspect).min(suspect));
        let at_first = *self.others_at_first.get_or_insert(others);
        let has_witness = others > *self.others_alone.get_or_insert(others);
        // One that went through before it was alone may have found Kafka in another mood.
        let has_early_witness = others > at_first && self.tries >= 2 * needed;
        if self.tries >= needed && suspect > Suspect::Kafka && (has_witness || has_early_witness) {
            return TrialFinding::Culprit(Ground::Others);
        }
        match suspect {
            Suspect::Record if self.tries >= needed => TrialFinding::Culprit(Ground::Cut),
            // More tries would tell no more; what others meet will.
            Suspect::Kafka if self.tries >= needed && !has_witness => TrialFinding::InDoubt,
            _ if self.tries < 2 * needed => TrialFinding::Open,
            Suspect::Topic | Suspect::Record => TrialFinding::OfTopic,
            Suspect::Kafka => TrialFinding::InDoubt,
        }
    }
}

/// What is going on with the groups of one sieve.
struct Sifting<R> {
    groups: VecDeque<TrialGroup<R>>,
    /// What was refused alone, and is tried again when there is nothing else to try: one that goes through
    /// meanwhile tells whether it is the record.
    again: VecDeque<TrialGroup<R>>,
    began: Instant,
    /// When one went through, or a leader answered that did not take one.
    heard: Instant,
    /// How many events were refused alone for each topic to which none went through.
    alone: HashMap<String, usize>,
    /// The topics to which one did.
    taken: HashSet<String>,
}

impl<R: LendEvent> Sifting<R> {
    fn new(now: Instant) -> Self {
        let (groups, again) = (VecDeque::new(), VecDeque::new());
        let (alone, taken) = (HashMap::new(), HashSet::new());
        Self { groups, again, began: now, heard: now, alone, taken }
    }

    /// What is tried next, side by side: one group of each topic.
    fn next_round(&mut self) -> Vec<TrialGroup<R>> {
        let mut round: Vec<TrialGroup<R>> = Vec::new();
        let open: HashSet<String> = self.groups.iter().map(|group| group.topic.clone()).collect();
        take_turns(&mut self.groups, &mut round, |_| true);
        let now = Instant::now();
        let is_due = |group: &TrialGroup<R>| group.not_before.is_none_or(|due| due <= now);
        take_turns(&mut self.again, &mut round, |one| is_due(one) && !open.contains(&one.topic));
        if round.is_empty() {
            take_turns(&mut self.again, &mut round, |_| true);
        }
        round
    }

    fn appended(&mut self, topic: &str) {
        self.heard = Instant::now();
        self.taken.get_or_insert_with(topic, str::to_owned);
        self.alone.remove(topic);
    }

    /// An event was refused alone for so many times, and nobody says that it is its own fault: whether it is
    /// the topic, as no event goes through to it.
    fn is_topic(&mut self, topic: &str, tries: u32, suspect: Suspect, haste: Haste) -> bool {
        let most = match suspect {
            Suspect::Kafka | Suspect::Topic => ALONE_MAX,
            Suspect::Record => CUT_MAX,
        };
        if suspect > Suspect::Kafka {
            self.heard = Instant::now();
        }
        if self.taken.contains(topic) {
            return false;
        }
        let is_told_enough = match haste {
            Haste::Calm => false,
            Haste::Overdue => tries >= OVERDUE_TRIES,
            Haste::Again => true,
        };
        if is_told_enough && suspect < Suspect::Record {
            return true;
        }
        if tries > 1 {
            return false;
        }
        let alone = self.alone.entry_ref(topic).or_default();
        *alone += 1;
        *alone >= most
    }
}

/// Moves the first group of each topic that has none in the round yet, as long as each topic has a way of its own.
fn take_turns<R>(
    from: &mut VecDeque<TrialGroup<R>>,
    round: &mut Vec<TrialGroup<R>>,
    is_wanted: impl Fn(&TrialGroup<R>) -> bool,
) {
    for group in std::mem::take(from) {
        let has_turn = round.len() < WAYS_MAX
            && is_wanted(&group)
            && round.iter().all(|other| other.topic != group.topic);
        if has_turn {
            round.push(group);
        } else {
            from.push_back(group);
        }
    }
}

impl<P: Produce> Dispatcher<P> {
    /// Sends what was gathered, and finds those that are refused.
    pub(super) fn sift<R: LendEvent>(
        &mut self,
        sieve: &mut Sieve<R>,
        batch: &Arc<InFlightBatch>,
        set_aside: &mut Vec<Aside<R>>,
    ) -> Result<()> {
        let rows = sieve.take();
        if rows.is_empty() {
            return Ok(());
        }
        let answers = self.producer.confirm(batch)?;
        let mut sifting = Sifting::new(Instant::now());
        let fresh = |row| Candidate { row, trial: Trial::default() };
        let candidates = rows.into_iter().map(fresh).collect();
        self.divide(candidates, answers, batch, &mut sifting, set_aside)?;
        loop {
            let round = sifting.next_round();
            if round.is_empty() {
                return Ok(());
            }
            if let Some(due) = round.iter().filter_map(|group| group.not_before).min() {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            self.check_send_deadline()?;
            let candidates = round.into_iter().flat_map(|group| group.candidates).collect();
            self.try_again(candidates, batch, &mut sifting, set_aside)?;
            if sifting.heard.elapsed() > NOTHING_FOR {
                return Err(self.nothing_goes_through());
            }
        }
    }

    fn try_again<R: LendEvent>(
        &mut self,
        candidates: Vec<Candidate<R>>,
        batch: &Arc<InFlightBatch>,
        sifting: &mut Sifting<R>,
        set_aside: &mut Vec<Aside<R>>,
    ) -> Result<()> {
        let (mut gathered, mut refused) = (Vec::with_capacity(candidates.len()), Vec::new());
        for Candidate { row: (place, row), trial } in candidates {
            match self.offer(&row.event(), (row.ordering_key(), row.seq_source()), batch)? {
                Dispatched::Sent => {}
                Dispatched::Gathered => gathered.push(Candidate { row: (place, row), trial }),
                Dispatched::Follows => {
                    set_aside.push((place, SetAside { row, refusal: Refusal::follows() }));
                }
                Dispatched::Refused(refusal) => refused.push(((place, row), refusal)),
            }
        }
        let answers = self.producer.confirm(batch)?;
        self.divide(gathered, answers, batch, sifting, set_aside)?;
        for (row, refusal) in refused {
            self.give_up(row, refusal, batch, set_aside)?;
        }
        Ok(())
    }

    /// What was refused together is tried again in halves; what was refused alone may be given up.
    fn divide<R: LendEvent>(
        &mut self,
        tried: Vec<Candidate<R>>,
        answers: Vec<Answer>,
        batch: &Arc<InFlightBatch>,
        sifting: &mut Sifting<R>,
        set_aside: &mut Vec<Aside<R>>,
    ) -> Result<()> {
        assert_eq!(tried.len(), answers.len(), "each event that was gathered has an answer");
        let (mut alone, mut left) = (Vec::new(), Vec::<Left<R>>::new());
        let mut named = HashSet::new();
        for (mut candidate, answer) in tried.into_iter().zip(answers) {
            match answer {
                Answer::Appended => {
                    if let Ok(topic) = self.encoder.topic(&candidate.row.1.event()) {
                        sifting.appended(topic);
                    }
                }
                Answer::Refused(refusal, proof, company @ (Company::Alone | Company::Named)) => {
                    if company == Company::Named {
                        named.extend(refusal.topic.clone());
                    }
                    alone.push((candidate, refusal, proof));
                }
                Answer::Refused(refusal, proof, Company::Others) => {
                    candidate.trial.note_in_company(proof);
                    let topic = refusal.topic.unwrap_or_default();
                    let is_sure = matches!(proof, Proof::Alone { .. });
                    let is_doubted = !is_sure && !sifting.taken.contains(&topic);
                    note_left(&mut left, topic, candidate, is_doubted);
                }
            }
        }
        for (candidate, refusal, proof) in alone {
            self.weigh(candidate, refusal, proof, batch, sifting, set_aside)?;
        }
        for left in left {
            if named.contains(&left.topic) {
                // Those that are named may have been all.
                sifting.groups.push_back(TrialGroup::new(left.topic, left.candidates));
            } else {
                self.halve(left, sifting);
            }
        }
        Ok(())
    }

    fn halve<R>(&mut self, left: Left<R>, sifting: &mut Sifting<R>) {
        let Left { topic, candidates: mut left, is_topic_doubted } = left;
        if is_topic_doubted && left.len() > 1 {
            // If it is the topic, one tells as much as all.
            let one = left.swap_remove(self.pick(left.len()));
            sifting.groups.push_front(TrialGroup::new(topic.clone(), vec![one]));
        }
        let second = left.split_off(left.len() / 2);
        // Behind all others: as long as anything goes through, so does one of each generation.
        for half in [left, second] {
            if !half.is_empty() {
                sifting.groups.push_back(TrialGroup::new(topic.clone(), half));
            }
        }
    }

    /// What becomes of an event that was refused alone.
    fn weigh<R: LendEvent>(
        &mut self,
        Candidate { row, mut trial }: Candidate<R>,
        refusal: Refusal,
        proof: Proof,
        batch: &Arc<InFlightBatch>,
        sifting: &mut Sifting<R>,
        set_aside: &mut Vec<Aside<R>>,
    ) -> Result<()> {
        let mut finding = trial.note(proof);
        let haste = match proof {
            Proof::Witness { haste, .. } => haste,
            Proof::Alone { .. } => Haste::Calm,
        };
        let topic = refusal.topic.clone().unwrap_or_default();
        if let (TrialFinding::Open, Some(suspect)) = (finding, trial.suspect)
            && sifting.is_topic(&topic, trial.tries, suspect, haste)
        {
            finding = match suspect {
                Suspect::Kafka => TrialFinding::InDoubt,
                Suspect::Topic | Suspect::Record => TrialFinding::OfTopic,
            };
        }
        let is_topics = matches!(finding, TrialFinding::OfTopic | TrialFinding::InDoubt);
        let mood = match haste {
            Haste::Calm => MOOD,
            Haste::Overdue => OVERDUE_MOOD,
            Haste::Again => Duration::ZERO,
        };
        if is_topics && sifting.began.elapsed() < mood {
            finding = TrialFinding::Open;
        }
        let refusal = match finding {
            TrialFinding::Culprit(ground) => {
                let refusal = self.producer.give_up(refusal, ground)?;
                self.producer.note_culprit(&row.1.event(), &refusal);
                refusal
            }
            TrialFinding::OfTopic => self.producer.blame_topic(refusal, row.1.event().id)?,
            TrialFinding::InDoubt => self.producer.doubt_topic(refusal)?,
            TrialFinding::Open => {
                let (candidates, not_before) =
                    (vec![Candidate { row, trial }], Some(Instant::now() + TRY_PAUSE));
                sifting.again.push_back(TrialGroup { topic, candidates, not_before });
                return Ok(());
            }
        };
        self.give_up(row, refusal, batch, set_aside)
    }

    /// One of so many, each time another: whoever is tried alone twice need not be the same.
    fn pick(&mut self, count: usize) -> usize {
        self.picked = self.picked.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.picked >> 33).unwrap_or_default() % count
    }

    pub(super) fn give_up<R: LendEvent>(
        &mut self,
        (place, row): Placed<R>,
        refusal: Refusal,
        batch: &Arc<InFlightBatch>,
        set_aside: &mut Vec<Aside<R>>,
    ) -> Result<()> {
        if let Some(refusal) = self.decide(&row.event(), row.ordering_key(), refusal, batch)? {
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

/// Adds one to what was refused of its topic.
fn note_left<R>(
    left: &mut Vec<Left<R>>,
    topic: String,
    candidate: Candidate<R>,
    is_topic_doubted: bool,
) {
    let known = left.iter_mut().find(|known| known.topic == topic);
    if let Some(known) = known {
        known.candidates.push(candidate);
        known.is_topic_doubted |= is_topic_doubted;
        return;
    }
    left.push(Left { topic, candidates: vec![candidate], is_topic_doubted });
}

#[cfg(test)]
#[path = "sift_tests.rs"]
mod tests;
