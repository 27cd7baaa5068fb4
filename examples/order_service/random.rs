//! Numbers that look random and are the same for the same seed: SplitMix64.

/// A source of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// One per purpose: what one draws changes nothing for the others.
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        let mut random = Self(seed ^ purpose.wrapping_mul(0xA076_1D64_78BD_642F));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to what is below the limit.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        assert!(limit > 0, "there must be something to choose from");
        self.next() % limit
    }

    /// Brings the elements into another order.
    pub(crate) fn shuffle<T>(&mut self, elements: &mut [T]) {
        for place in (1..elements.len()).rev() {
            let other = usize::try_from(self.below(place as u64 + 1)).expect("it is an index");
            elements.swap(place, other);
        }
    }
}
