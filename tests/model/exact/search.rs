//! All that can happen, breadth first; or one way through it, by chance.
//!
//! Promises: every state that any order of steps leads to is looked at, once; what leads to a violation is told with
//! the shortest way there. Must not: prefer any step. Fails: with the violation.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::broker::Broker;
use super::process::{End, Process, Row, Step, World};
use super::{Setup, Violation};
use crate::tier::Dice;

/// Where everything stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    world: World,
    processes: Vec<Process>,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// A process takes a step.
    Process(usize, Step),
    /// A copy of a commit arrives, after all.
    Late(u8),
    /// The coordinator ends what an id has open, or a request of the past asks for the id again.
    Disturb(u8),
}

impl Action {
    /// Whether somebody is thrown back by it.
    fn is_setback(self) -> bool {
        use Step::{Commit, Crash, Release, Take};
        match self {
            Self::Process(
                _,
                Crash | Take(_) | Release(_) | Commit(_, End::Slow | End::Unknown),
            )
            | Self::Disturb(_) => true,
            Self::Process(..) | Self::Late(_) => false,
        }
    }
}

impl State {
    pub(super) fn new(setup: &Setup) -> Self {
        let broker = Broker::new(setup.buckets);
        let world = World { rows: vec![Row::default(); setup.buckets], broker };
        let process = |number| Process::new(number, setup);
        Self { world, processes: (0..setup.processes).map(process).collect() }
    }

    pub(super) fn actions(&self, setup: &Setup) -> Vec<Action> {
        let mut actions = Vec::new();
        for (number, process) in self.processes.iter().enumerate() {
            let steps = process.steps(&self.world, setup);
            actions.extend(steps.into_iter().map(|step| Action::Process(number, step)));
        }
        let broker = &self.world.broker;
        actions.extend(broker.late().iter().map(Action::Late));
        let mut disturbed = broker.live();
        broker.open().iter().for_each(|id| disturbed = disturbed.with(id));
        actions.extend(disturbed.iter().map(Action::Disturb));
        actions
    }

    pub(super) fn act(&mut self, action: Action, setup: &Setup) -> Result<(), Violation> {
        match action {
            Action::Process(number, step) => {
                self.processes[number].step(step, &mut self.world, setup)
            }
            Action::Late(id) => self.world.broker.arrive_late(id),
            Action::Disturb(id) => {
                self.world.broker.abort(id);
                Ok(())
            }
        }
    }

    /// Everything is published, and that is saved.
    pub(super) fn is_done(&self, setup: &Setup) -> bool {
        self.world.rows.iter().enumerate().all(|(bucket, row)| {
            row.saved == setup.events && self.world.broker.published(bucket) == setup.events
        })
    }
}

/// What a search has found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) states: usize,
    /// States from which the end cannot be reached any more.
    pub(super) dead_ends: usize,
    /// Each violation that can happen, with the shortest way to it.
    pub(super) violations: Vec<(Violation, Vec<Action>)>,
}

/// A state, by the order in which it was found.
type Number = usize;

/// What is known of a state.
struct Visit {
    /// From which one, and how; none for the first.
    from: Option<(Number, Action)>,
    /// From which others it can be reached, too.
    others: Vec<Number>,
    is_done: bool,
}

/// Looks at everything that can happen, or until it has led to that.
pub(super) fn search(setup: &Setup, until: Option<Violation>) -> Found {
    let first = State::new(setup);
    let mut visits = vec![Visit { from: None, others: Vec::new(), is_done: false }];
    let (mut numbers, mut queue) = (HashMap::new(), VecDeque::from([(0, first.clone())]));
    numbers.insert(first, 0);
    let mut violations: Vec<(Violation, Vec<Action>)> = Vec::new();
    while let Some((number, state)) = queue.pop_front() {
        for action in state.actions(setup) {
            let mut next = state.clone();
            if let Err(violation) = next.act(action, setup) {
                if !violations.iter().any(|(known, _)| *known == violation) {
                    violations.push((violation, way(&visits, number, action)));
                }
                if until == Some(violation) {
                    queue.clear();
                    break;
                }
                continue;
            }
            if let Some(known) = numbers.get(&next) {
                let known: &mut Visit = &mut visits[*known];
                known.others.push(number);
                continue;
            }
            let is_done = next.is_done(setup);
            numbers.insert(next.clone(), visits.len());
            queue.push_back((visits.len(), next));
            visits.push(Visit { from: Some((number, action)), others: Vec::new(), is_done });
        }
    }
    Found { states: visits.len(), dead_ends: dead_ends(&visits), violations }
}

fn way(visits: &[Visit], mut number: Number, last: Action) -> Vec<Action> {
    let mut way = vec![last];
    while let Some((from, action)) = visits[number].from {
        way.push(action);
        number = from;
    }
    way.reverse();
    way
}

fn dead_ends(visits: &[Visit]) -> usize {
    let mut leads = vec![false; visits.len()];
    let done = visits.iter().enumerate().filter(|(_, visit)| visit.is_done);
    let mut queue: Vec<Number> = done.map(|(number, _)| number).collect();
    while let Some(number) = queue.pop() {
        if !std::mem::replace(&mut leads[number], true) {
            let visit = &visits[number];
            queue.extend(visit.others.iter().copied());
            queue.extend(visit.from.map(|(from, _)| from));
        }
    }
    leads.iter().filter(|leads| !**leads).count()
}

/// In a walk most setbacks are let pass, or it would not get far.
const SETBACKS_PASSED: usize = 6;

/// One way through, by chance; whether everything was published.
pub(super) fn walk(seed: u64, steps: usize, setup: &Setup) -> Result<bool, Violation> {
    let (mut state, mut dice) = (State::new(setup), Dice::new(seed));
    for _ in 0..steps {
        let actions = state.actions(setup);
        let mut action = actions[dice.index(actions.len())];
        for _ in 0..SETBACKS_PASSED {
            if action.is_setback() {
                action = actions[dice.index(actions.len())];
            }
        }
        state.act(action, setup)?;
        if state.is_done(setup) {
            return Ok(true);
        }
    }
    Ok(false)
}
