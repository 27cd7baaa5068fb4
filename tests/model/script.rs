//! What happens, step by step: the interleavings that are tried.
//!
//! Promises: a script means the same under every policy; steps that make no sense at their turn do
//! nothing. Must not: know what is right. Fails: gives back the relay's violation.

use proptest::prelude::*;

use crate::database::{Database, Forged};
use crate::relay::{Policy, Relay, Violation};

const WRITERS: usize = 5;
const AGGREGATES: usize = 4;
const BUCKETS: usize = 2;
const CHAINS: usize = 2;

/// One step of a writer, of the database's other users, or of the relay.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The writer's transaction gets an id; it may end without a row.
    Begin {
        writer: usize,
    },
    /// The writer inserts rows of an aggregate.
    Write {
        writer: usize,
        aggregate: usize,
        rows: usize,
    },
    Savepoint {
        writer: usize,
    },
    RollbackToSavepoint {
        writer: usize,
    },
    Commit {
        writer: usize,
    },
    RollBack {
        writer: usize,
    },
    /// A row with a number that nobody drew.
    Forge {
        writer: usize,
        number: Forged,
    },
    /// Somebody sets the sequence back, in place or by making it again.
    SetBack {
        in_place: bool,
    },
    /// One read of a probe or a tick.
    Look {
        chain: usize,
    },
    /// A whole tick at once.
    Tick {
        chain: usize,
    },
    Claim {
        bucket: usize,
        chain: usize,
        page_rows: usize,
    },
    Save {
        bucket: usize,
    },
    Restore {
        bucket: usize,
        back: usize,
    },
    Restart {
        chain: usize,
        bucket: usize,
        back: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (writer, aggregate) = (0..WRITERS, 0..AGGREGATES);
    let (bucket, chain, back) = (0..BUCKETS, 0..CHAINS, 0..4_usize);
    prop_oneof![
        6 => writer.clone().prop_map(|writer| Step::Begin { writer }),
        12 => (writer.clone(), aggregate, 1..4_usize)
            .prop_map(|(writer, aggregate, rows)| Step::Write { writer, aggregate, rows }),
        2 => writer.clone().prop_map(|writer| Step::Savepoint { writer }),
        1 => writer.clone().prop_map(|writer| Step::RollbackToSavepoint { writer }),
        8 => writer.clone().prop_map(|writer| Step::Commit { writer }),
        2 => writer.prop_map(|writer| Step::RollBack { writer }),
        16 => chain.clone().prop_map(|chain| Step::Look { chain }),
        4 => chain.clone().prop_map(|chain| Step::Tick { chain }),
        12 => (bucket.clone(), chain.clone(), 1..6_usize)
            .prop_map(|(bucket, chain, page_rows)| Step::Claim { bucket, chain, page_rows }),
        3 => bucket.clone().prop_map(|bucket| Step::Save { bucket }),
        1 => (bucket.clone(), back.clone())
            .prop_map(|(bucket, back)| Step::Restore { bucket, back }),
        1 => (chain, bucket, back)
            .prop_map(|(chain, bucket, back)| Step::Restart { chain, bucket, back }),
    ]
}

/// Any interleaving.
pub(crate) fn script() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..120)
}

/// The same, while the sequence is set back now and then.
pub(crate) fn set_back_script() -> impl Strategy<Value = Vec<Step>> {
    let set_back = any::<bool>().prop_map(|in_place| Step::SetBack { in_place });
    prop::collection::vec(prop_oneof![40 => step(), 1 => set_back], 1..120)
}

/// Any interleaving, with rows whose numbers nobody drew.
pub(crate) fn forged_script() -> impl Strategy<Value = Vec<Step>> {
    let numbers = [Forged::AboveAll, Forged::BelowAll, Forged::Behind];
    let forge = (0..WRITERS, prop::sample::select(numbers.to_vec()))
        .prop_map(|(writer, number)| Step::Forge { writer, number });
    prop::collection::vec(prop_oneof![15 => step(), 1 => forge], 1..120)
}

/// Plays the script, lets all writers commit, and reads what there is.
pub(crate) fn run(script: &[Step], policy: Policy) -> Result<(), Violation> {
    let mut database = Database::new(WRITERS, AGGREGATES);
    let mut relay = Relay::new(policy, CHAINS, BUCKETS);
    for step in script {
        play(step, &mut database, &mut relay)?;
    }
    for writer in 0..WRITERS {
        database.commit(writer);
    }
    relay.settle(&mut database)
}

fn play(step: &Step, database: &mut Database, relay: &mut Relay) -> Result<(), Violation> {
    match *step {
        Step::Begin { writer } => database.begin(writer),
        Step::Write { writer, aggregate, rows } => {
            (0..rows).for_each(|_| database.write(writer, aggregate));
        }
        Step::Savepoint { writer } => database.savepoint(writer),
        Step::RollbackToSavepoint { writer } => database.rollback_to_savepoint(writer),
        Step::Commit { writer } => database.commit(writer),
        Step::RollBack { writer } => database.roll_back(writer),
        Step::Forge { writer, number } => database.forge(writer, number),
        Step::SetBack { in_place: true } => database.set_back(),
        Step::SetBack { in_place: false } => database.restart_sequence(),
        Step::Look { chain } => relay.look(database, chain)?,
        Step::Tick { chain } => relay.tick(database, chain)?,
        Step::Claim { bucket, chain, page_rows } => {
            relay.claim(database, bucket, chain, page_rows)?;
        }
        Step::Save { bucket } => relay.save(bucket),
        Step::Restore { bucket, back } => relay.restore(bucket, back),
        Step::Restart { chain, bucket, back } => relay.restart(database, chain, bucket, back),
    }
    Ok(())
}
