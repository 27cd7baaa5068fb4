//! A tier of instances over the model of PostgreSQL, seeded and in virtual time.
//!
//! Promises: instances join, leave, hang, die, lose sessions and producers in every order; then nothing
//! is lost, first appearances keep the order of commit, no cursor goes back, nobody sends for a bucket
//! that another has taken, and without faults nothing comes twice. The same checks find planted bugs.
//! Must not: know how planning, leases, cursors or the ledger do it: they are the real ones.
//! Fails: with the seed. `POSTRIDER_SIMULATIONS` sets how many schedules are tried, `--nocapture` shows
//! how many that is in a second. Thousands per second, for a release:
//!
//! ```sh
//! POSTRIDER_SIMULATIONS=100000 cargo test --release --test model -- --nocapture tier::whatever
//! ```

mod instance;
mod outside;
mod shard;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};
use postrider::control::lease::Terms;

use crate::database::{Database, Fate};
use instance::{Instance, Stepped, World};
use outside::Outside;

const BUCKETS: usize = 4;
const AGGREGATES: usize = 8;
const WRITERS: usize = 3;
const INSTANCES_MAX: usize = 4;
/// Of a schedule, before it is left to settle.
const STEPS: usize = 2_500;
/// A step takes less: every task has its turn many times before a lease runs out.
const STEP_MILLIS: u64 = 16;
const SETTLING_STEPS_MAX: usize = 60_000;
const SIMULATIONS_DEFAULT: u64 = 60;
/// Schedules that a planted bug has to survive to be called hidden.
const HIDDEN_AFTER: u64 = 3_000;

/// A mistake in one of the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    SavesAnyEpoch,
    TakesAnyEpoch,
    PlansTwice,
    PlansTwiceAndTakesAnyEpoch,
    KeepsCursors,
    ForgetsItsFormerSession,
    ReleasesBeforeDrained,
    LongDeadline,
    ResumesWhereItClaimed,
    AcknowledgesBeforeKafka,
}

impl Bug {
    fn takes_any_epoch(self) -> bool {
        matches!(self, Self::TakesAnyEpoch | Self::PlansTwiceAndTakesAnyEpoch)
    }

    fn plans_twice(self) -> bool {
        matches!(self, Self::PlansTwice | Self::PlansTwiceAndTakesAnyEpoch)
    }
}

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A committed row is in no partition.
    Lost,
    /// A row that was rolled back is.
    NotCommitted,
    /// A row appears first behind a later one of its aggregate.
    OutOfOrder,
    /// A row came twice, though nothing failed.
    Repeated,
    /// An instance sent for a bucket that another had taken.
    Overlap,
    /// A cursor was replaced by an earlier one.
    WentBack,
}

/// Whether anything fails, or instances only join and leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    Calm,
    Faults,
}

/// Where chance comes from: splitmix.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("it is below a length")
    }
}

struct Simulation {
    world: World,
    instances: Vec<Instance>,
    /// Never given to a second process.
    names: u32,
    weather: Weather,
}

/// Plays the schedule of a seed.
fn run(seed: u64, bug: Bug, weather: Weather) -> Result<(), Violation> {
    let world = World {
        database: Database::new(WRITERS, AGGREGATES),
        outside: Outside::new(BUCKETS),
        now: 0,
        // Ahead of the real clock, by which a send deadline begins.
        began: Instant::now() + Duration::from_secs(3_600),
        terms: Terms::new(10),
        bug,
        dice: Dice(seed),
    };
    let mut simulation = Simulation { world, instances: Vec::new(), names: 0, weather };
    simulation.join();
    for _ in 0..STEPS {
        simulation.step()?;
    }
    simulation.settle()?;
    simulation.check()
}

impl Simulation {
    fn join(&mut self) {
        self.names += 1;
        // Names do not come in the order of joining.
        let name = format!("{}-{}", self.world.dice.below(9), self.names);
        self.instances.push(Instance::new(name));
    }

    fn step(&mut self) -> Result<(), Violation> {
        self.world.now += self.world.dice.below(STEP_MILLIS);
        match self.world.dice.below(200) {
            0..50 => self.write(),
            50..56 => self.late(),
            56 => self.come_or_go(),
            57..60 if self.weather == Weather::Faults => self.fail()?,
            _ => self.work()?,
        }
        Ok(())
    }

    fn write(&mut self) {
        let World { database, dice, .. } = &mut self.world;
        let writer = dice.index(WRITERS);
        match dice.below(10) {
            0..6 => database.write(writer, dice.index(AGGREGATES)),
            6..9 => database.commit(writer),
            _ => database.roll_back(writer),
        }
    }

    fn late(&mut self) {
        let World { outside, dice, .. } = &mut self.world;
        let (which, gets_lost) = (dice.below(1 << 20), dice.below(4) == 0);
        outside.arrive_late(which, gets_lost);
    }

    fn work(&mut self) -> Result<(), Violation> {
        let index = self.world.dice.index(self.instances.len());
        if let Stepped::Left = self.instances[index].step(&mut self.world)? {
            self.instances.remove(index);
            if self.instances.is_empty() {
                self.join();
            }
        }
        Ok(())
    }

    fn come_or_go(&mut self) {
        if self.instances.len() < INSTANCES_MAX && self.world.dice.below(2) == 0 {
            self.join();
        } else {
            let index = self.world.dice.index(self.instances.len());
            self.instances[index].stops = true;
        }
    }

    fn fail(&mut self) -> Result<(), Violation> {
        let index = self.world.dice.index(self.instances.len());
        let instance = &mut self.instances[index];
        match self.world.dice.below(5) {
            0 => {
                instance.kill(&mut self.world)?;
                self.instances.remove(index);
                self.join();
            }
            1 => instance.end_session(&mut self.world),
            2 => instance.fail_producer(),
            // The server ends the session; the instance does not know yet.
            3 => self.world.outside.lose_session(&instance.name),
            _ => instance.frozen_until = self.world.now + self.world.dice.below(15_000),
        }
        Ok(())
    }

    /// With nobody writing and nothing failing any more, everything is published in time.
    fn settle(&mut self) -> Result<(), Violation> {
        (0..WRITERS).for_each(|writer| self.world.database.commit(writer));
        self.join();
        let (mut waiting, mut looked_at) = (self.committed(), [0; BUCKETS]);
        for step in 0..SETTLING_STEPS_MAX {
            self.world.now += self.world.dice.below(STEP_MILLIS);
            self.work()?;
            if step % 32 == 0 {
                for (partition, begin) in self.world.outside.partitions.iter().zip(&mut looked_at) {
                    partition[*begin..].iter().for_each(|seq| _ = waiting.remove(seq));
                    *begin = partition.len();
                }
                if waiting.is_empty() {
                    return Ok(());
                }
            }
        }
        Err(Violation::Lost)
    }

    fn committed(&self) -> HashSet<i64> {
        let committed = |row: &&crate::database::Row| matches!(row.fate, Fate::Committed(_));
        self.world.database.rows().iter().filter(committed).map(|row| row.seq).collect()
    }

    fn check(&self) -> Result<(), Violation> {
        let rows: HashMap<i64, _> =
            self.world.database.rows().iter().map(|row| (row.seq, row)).collect();
        for partition in &self.world.outside.partitions {
            let mut seen = HashSet::new();
            let mut last = HashMap::new();
            for seq in partition {
                let row = rows[seq];
                let Fate::Committed(commit) = row.fate else {
                    return Err(Violation::NotCommitted);
                };
                if !seen.insert(*seq) {
                    if self.weather == Weather::Calm {
                        return Err(Violation::Repeated);
                    }
                    continue;
                }
                let before = last.insert(row.aggregate, (commit, *seq));
                if before.is_some_and(|before| before > (commit, *seq)) {
                    return Err(Violation::OutOfOrder);
                }
            }
        }
        Ok(())
    }
}

fn simulations() -> u64 {
    match std::env::var("POSTRIDER_SIMULATIONS") {
        Ok(text) => text.parse().expect("POSTRIDER_SIMULATIONS is a number"),
        Err(_) => SIMULATIONS_DEFAULT,
    }
}

/// Plays all schedules, on all processors.
fn hold(bug: Bug, weather: Weather) {
    let (begin, count, next) = (Instant::now(), simulations(), AtomicU64::new(0));
    let play = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= count {
                return;
            }
            assert_eq!(run(seed, bug, weather), Ok(()), "seed {seed}");
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        (0..workers).for_each(|_| drop(scope.spawn(play)));
    });
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{weather:?}, bug {bug:?}: {count} schedules in {seconds:.1} s, {:.0} per second",
        count as f64 / seconds
    );
}

#[test]
fn instances_that_come_and_go_repeat_nothing() {
    hold(Bug::None, Weather::Calm);
}

#[test]
fn whatever_fails_nothing_is_lost_and_order_is_kept() {
    hold(Bug::None, Weather::Faults);
}

/// The first violation that a bug leads to.
#[track_caller]
fn convict(bug: Bug, weather: Weather, expected: &[Violation]) {
    for seed in 0..HIDDEN_AFTER {
        if let Err(violation) = run(seed, bug, weather) {
            assert!(expected.contains(&violation), "seed {seed}: {bug:?} leads to {violation:?}");
            assert_eq!(run(seed, Bug::None, weather), Ok(()), "the same schedule without the bug");
            return;
        }
    }
    panic!("{bug:?} stays hidden in {HIDDEN_AFTER} schedules");
}

#[test]
fn a_save_under_any_epoch_is_found() {
    convict(Bug::SavesAnyEpoch, Weather::Faults, &[Violation::WentBack]);
}

#[test]
fn taking_under_any_epoch_is_found() {
    let expected = [Violation::Overlap, Violation::Repeated, Violation::WentBack];
    convict(Bug::PlansTwiceAndTakesAnyEpoch, Weather::Calm, &expected);
    convict(Bug::TakesAnyEpoch, Weather::Faults, &expected);
}

/// A plan is only a wish: of two that take, the epoch lets one have it.
#[test]
fn plans_that_give_a_bucket_to_two_do_no_harm() {
    hold(Bug::PlansTwice, Weather::Calm);
    hold(Bug::PlansTwice, Weather::Faults);
}

#[test]
fn a_cursor_kept_across_a_takeover_is_found() {
    let expected = [Violation::WentBack, Violation::Repeated];
    convict(Bug::KeepsCursors, Weather::Calm, &expected);
}

/// A bucket under the name of a live instance that does not know of it is nobody's for ever.
#[test]
fn a_bucket_of_a_former_session_that_is_forgotten_is_found() {
    convict(Bug::ForgetsItsFormerSession, Weather::Faults, &[Violation::Lost]);
}

#[test]
fn a_release_before_the_bucket_is_drained_is_found() {
    let expected = [Violation::Repeated, Violation::Overlap, Violation::WentBack];
    convict(Bug::ReleasesBeforeDrained, Weather::Calm, &expected);
}

#[test]
fn a_deadline_behind_the_end_of_the_lease_is_found() {
    convict(Bug::LongDeadline, Weather::Faults, &[Violation::Overlap]);
}

#[test]
fn a_producer_replaced_without_going_back_is_found() {
    let expected = [Violation::Lost, Violation::OutOfOrder];
    convict(Bug::ResumesWhereItClaimed, Weather::Faults, &expected);
}

#[test]
fn an_acknowledgement_before_kafkas_is_found() {
    let expected = [Violation::Lost, Violation::OutOfOrder];
    convict(Bug::AcknowledgesBeforeKafka, Weather::Faults, &expected);
}
