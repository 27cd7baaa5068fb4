//! Which aggregate the next event is for.
//!
//! Promises: every aggregate belongs to one writer, so that its order has one right answer; the same
//! seed gives the same choices. Must not: read a clock or the system's randomness. Fails: never.

/// A small, fast generator of numbers that look random (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    state: u64,
}

impl Dice {
    /// The same seed throws the same numbers.
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number.
    pub(crate) fn throw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        // The high half of a product is even enough for a load, and has no division.
        ((u128::from(self.throw()) * u128::from(bound)) >> 64) as u32
    }
}

/// How a writer chooses among its aggregates; they are numbered from 0 as its slots.
#[derive(Clone, Debug)]
pub(crate) enum Pick {
    /// Walks through the slots, about five events for each, close together: the backlog's pattern.
    Walk {
        /// Events so far.
        step: u64,
    },
}

impl Pick {
    /// The slot of the next event, below `slots`.
    pub(crate) fn next(&mut self, slots: u32, dice: &mut Dice) -> u32 {
        match self {
            Self::Walk { step } => {
                *step += 1;
                ((*step / 5 + u64::from(dice.below(50))) % u64::from(slots)) as u32
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_stay_below_the_bound_and_reach_every_face() {
        let mut dice = Dice::new(1);
        let mut seen = [0u32; 6];
        for _ in 0..6_000 {
            seen[dice.below(6) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (800..1_200).contains(&count)), "{seen:?}");
    }

    #[test]
    fn a_walk_reaches_every_slot() {
        let (mut dice, mut pick) = (Dice::new(1), Pick::Walk { step: 0 });
        let mut seen = vec![0u32; 100];
        for _ in 0..2_000 {
            seen[pick.next(100, &mut dice) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| count > 0), "{seen:?}");
    }
}
