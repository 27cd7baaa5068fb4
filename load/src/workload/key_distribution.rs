//! Which aggregate the next event is for.
//!
//! Promises: every aggregate belongs to one writer, so that its order has one right answer; the same
//! seed gives the same choices. Must not: read a clock or the system's randomness.

/// A small, fast generator of numbers that look random (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    state: u64,
}

impl Rng {
    /// The same seed gives the same numbers.
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number.
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        // The high half of a product is even enough for a load, and has no division.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u32
    }

    /// A fraction in `[0, 1)`.
    fn fraction(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// How a writer chooses among its aggregates; they are numbered from 0 as its slots.
#[derive(Clone, Debug)]
pub(crate) enum KeyDistribution {
    /// Walks through the slots, about five events for each, close together: the backlog's pattern.
    Walk {
        /// Events so far.
        step: u64,
    },
    /// Every slot as often as any other.
    Uniform,
    /// Slot `k` (from 0) as often as `1 / (k + 1)^skew` says: a few aggregates get most events.
    Zipf(Zipf),
}

/// Zipf's distribution over `1..=count`, sampled by rejection-inversion (Hörmann and Derflinger,
/// 1996): no table, and one or two random numbers for each.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    count: f64,
    skew: f64,
    area_first: f64,
    area_last: f64,
    shortcut: f64,
}

impl Zipf {
    /// The distribution over `1..=count` with weights `1 / k^skew`; `skew` is above 0.
    pub(crate) fn new(count: u32, skew: f64) -> Self {
        let mut zipf =
            Self { count: f64::from(count), skew, area_first: 0.0, area_last: 0.0, shortcut: 0.0 };
        zipf.area_first = zipf.area(1.5) - 1.0;
        zipf.area_last = zipf.area(zipf.count + 0.5);
        zipf.shortcut = 2.0 - zipf.area_inverse(zipf.area(2.5) - zipf.weight(2.0));
        zipf
    }

    fn weight(&self, x: f64) -> f64 {
        x.powf(-self.skew)
    }

    /// The area under the weight from 1 to `x`.
    fn area(&self, x: f64) -> f64 {
        let power = 1.0 - self.skew;
        if power.abs() < 1e-9 { x.ln() } else { (x.powf(power) - 1.0) / power }
    }

    fn area_inverse(&self, area: f64) -> f64 {
        let power = 1.0 - self.skew;
        if power.abs() < 1e-9 { area.exp() } else { (1.0 + area * power).powf(1.0 / power) }
    }

    fn sample(&self, rng: &mut Rng) -> u32 {
        loop {
            let area = self.area_last + rng.fraction() * (self.area_first - self.area_last);
            let x = self.area_inverse(area);
            let k = x.round().clamp(1.0, self.count);
            if k - x <= self.shortcut || area >= self.area(k + 0.5) - self.weight(k) {
                return k as u32;
            }
        }
    }
}

impl KeyDistribution {
    /// The slot of the next event, below `slots`.
    pub(crate) fn next(&mut self, slots: u32, rng: &mut Rng) -> u32 {
        match self {
            Self::Walk { step } => {
                *step += 1;
                ((*step / 5 + u64::from(rng.below(50))) % u64::from(slots)) as u32
            }
            Self::Uniform => rng.below(slots),
            Self::Zipf(zipf) => (zipf.sample(rng) - 1).min(slots - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_the_bound_and_reach_every_value() {
        let mut rng = Rng::new(1);
        let mut seen = [0u32; 6];
        for _ in 0..6_000 {
            seen[rng.below(6) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (800..1_200).contains(&count)), "{seen:?}");
    }

    #[test]
    fn a_walk_reaches_every_slot() {
        let (mut rng, mut keys) = (Rng::new(1), KeyDistribution::Walk { step: 0 });
        let mut seen = vec![0u32; 100];
        for _ in 0..2_000 {
            seen[keys.next(100, &mut rng) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| count > 0), "{seen:?}");
    }

    #[test]
    fn zipf_follows_its_weights() {
        for skew in [0.5, 0.99, 1.0, 1.5] {
            let (zipf, mut rng) = (Zipf::new(1_000, skew), Rng::new(3));
            let mut seen = vec![0u32; 1_001];
            for _ in 0..200_000 {
                seen[zipf.sample(&mut rng) as usize] += 1;
            }
            let weights: f64 = (1..=1_000).map(|k| f64::from(k).powf(-skew)).sum();
            for k in [1u32, 2, 3, 10] {
                let expected = 200_000.0 * f64::from(k).powf(-skew) / weights;
                let off = (f64::from(seen[k as usize]) - expected).abs() / expected.sqrt();
                assert!(
                    off < 5.0,
                    "skew {skew}, rank {k}: {} seen, {expected} expected",
                    seen[k as usize]
                );
            }
            assert_eq!(seen[0], 0);
        }
    }
}
