//! What is left to chance, and can be seen again.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Setting;

/// Where chance begins: where `--seed` says, or anywhere.
pub fn seed(setting: &Setting) -> u64 {
    let anywhere = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    setting.seed.unwrap_or_else(|| u64::from(anywhere().subsec_nanos()) + anywhere().as_secs())
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// Numbers that begin at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 1 to `most`.
    pub fn up_to(&mut self, most: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let high = (mixed ^ (mixed >> 31)) >> 32;
        1 + u32::try_from(high % u64::from(most.max(1))).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_same_for_the_same_seed_and_within_their_bounds() {
        let numbers = |seed| {
            let mut chance = Chance::new(seed);
            (0..1000).map(|_| chance.up_to(6)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        assert!((1..=6).all(|wanted| numbers(3).contains(&wanted)));
        assert!(numbers(3).iter().all(|number| (1..=6).contains(number)));
    }
}
