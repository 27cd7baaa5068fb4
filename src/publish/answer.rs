//! What became of a record that was sent apart, and what that says of it.
//!
//! Promises: nothing but the words for it. Must not: decide (`sift` does).

use crate::order::holds::Refusal;

/// So many topics have a way of their own at once, on which none waits for another.
pub const WAYS_MAX: usize = 16;

/// What became of a record that was sent apart.
#[derive(Debug)]
pub enum Answer {
    /// It is in Kafka, and was reported as acknowledged.
    Appended,
    /// It was refused, perhaps for the sake of one that was sent with it: what to say of it, if it is refused
    /// alone, when that is sure, and whether it was.
    Refused(Refusal, Proof, Company),
}

/// With whom a record was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// Nothing else went the same way: what goes to other topics has a way of its own.
    Alone,
    /// Others did, and may be why.
    Others,
    /// Others did, and the broker has said that it is this one that it refuses.
    Named,
}

/// How soon a topic to which nothing goes through is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// Its partitions may be changing their leaders: not before that has an end.
    Calm,
    /// It had no answer for longer than a change of leaders takes: as soon as a second try tells the same.
    Overdue,
    /// It was given up before, and has taken nothing since: after one try.
    Again,
}

/// What it takes until a refusal is known to be the record's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It is refused alone so many times.
    Alone {
        /// How many times.
        tries: u32,
    },
    /// The same, and another one goes through meanwhile: the trouble need not be the record's.
    Witness {
        /// How many times it is refused alone.
        tries: u32,
        /// How many others went through to the same place until now.
        others: u64,
        /// Whom it speaks against, if no other one is there to go through.
        suspect: Suspect,
        /// How soon its topic is given up.
        haste: Haste,
    },
}

/// Who is at fault for a refusal, as far as it can be told from the record alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suspect {
    /// Kafka: nobody gets an answer where the record goes, or nothing was taken anywhere for a while.
    Kafka,
    /// The topic: its leader answers, though not to this record, and others take records.
    Topic,
    /// The record: its connection ends each time, and the leader answers right after.
    Record,
}

/// On what ground a record is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// A broker said so of it alone.
    Told,
    /// Others went through to the same place meanwhile.
    Others,
    /// Its connection ended each time that it was sent.
    Cut,
}
