//! The one source of randomness here: a small seeded generator whose sequence never
//! changes between versions, so that a seed in a bug report stays worth something.
//!
//! xoshiro256++ by Blackman and Vigna (<https://prng.di.unimi.it/xoshiro256plusplus.c>,
//! public domain), its state filled by SplitMix64
//! (<https://prng.di.unimi.it/splitmix64.c>, public domain).

/// A seeded generator. Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

/// One round of SplitMix64's output function: spreads every input bit over all 64.
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// The generator of this seed.
    #[must_use]
    pub const fn seed(seed: u64) -> Self {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        Self {
            state: [
                mix(seed),
                mix(seed.wrapping_add(GAMMA)),
                mix(seed.wrapping_add(GAMMA.wrapping_mul(2))),
                mix(seed.wrapping_add(GAMMA.wrapping_mul(3))),
            ],
        }
    }

    /// A generator of its own for one part of a seeded world, so that a draw more in
    /// one part does not shift the draws of all others.
    #[must_use]
    pub const fn branch(seed: u64, part: u64) -> Self {
        Self::seed(mix(seed) ^ mix(part.wrapping_mul(0xa076_1d64_78bd_642f)))
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number in `0..n`; zero when `n` is zero. By multiplication (Lemire), whose
    /// bias of `n / 2^64` no rehearsal can notice.
    pub const fn below(&mut self, n: u64) -> u64 {
        ((self.next_u64() as u128 * n as u128) >> 64) as u64
    }

    /// A number in `[0, 1)` with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Exponential with the given mean.
    pub fn exp(&mut self, mean: f64) -> f64 {
        // 1 - unit() lies in (0, 1], so the logarithm is finite.
        -mean * (1.0 - self.unit()).ln()
    }

    /// Standard normal, by the polar method of Marsaglia.
    pub fn normal(&mut self) -> f64 {
        loop {
            let x = self.unit().mul_add(2.0, -1.0);
            let y = self.unit().mul_add(2.0, -1.0);
            let square = x.mul_add(x, y * y);
            if square > 0.0 && square < 1.0 {
                return x * (-2.0 * square.ln() / square).sqrt();
            }
        }
    }

    /// Log-normal with the given median and shape (standard deviation of the logarithm).
    pub fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }

    /// Gamma with the given shape and scale (mean `shape * scale`), after Marsaglia
    /// and Tsang, "A simple method for generating gamma variables" (2000).
    ///
    /// # Panics
    /// When the shape is not above zero.
    pub fn gamma(&mut self, shape: f64, scale: f64) -> f64 {
        assert!(shape > 0.0, "a gamma distribution needs a shape above zero");
        if shape < 1.0 {
            // The boost for small shapes, section 6 of the paper.
            let u = 1.0 - self.unit();
            return self.gamma(shape + 1.0, scale) * u.powf(1.0 / shape);
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = c.mul_add(x, 1.0).powi(3);
            if v <= 0.0 {
                continue;
            }
            let u = 1.0 - self.unit();
            if u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v * scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_and_variance(draws: impl Iterator<Item = f64>) -> (f64, f64) {
        let all: Vec<f64> = draws.collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64;
        (mean, variance)
    }

    #[test]
    fn splitmix_agrees_with_its_reference() {
        // The first outputs of splitmix64.c for seed 1234567, as published with it.
        let mut state = 1_234_567u64;
        for expected in [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423] {
            assert_eq!(mix(state), expected);
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
    }

    #[test]
    fn xoshiro_agrees_with_its_reference() {
        // The first outputs of xoshiro256plusplus.c for state 1, 2, 3, 4.
        let mut rng = Rng { state: [1, 2, 3, 4] };
        let expected = [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386];
        assert_eq!([rng.next_u64(), rng.next_u64(), rng.next_u64(), rng.next_u64()], expected);
    }

    #[test]
    fn distributions_have_their_moments() {
        let mut rng = Rng::seed(1);
        let n = 200_000;
        let (mean, variance) = mean_and_variance((0..n).map(|_| rng.unit()));
        assert!((mean - 0.5).abs() < 0.005 && (variance - 1.0 / 12.0).abs() < 0.002);
        let (mean, variance) = mean_and_variance((0..n).map(|_| rng.exp(3.0)));
        assert!((mean - 3.0).abs() < 0.05 && (variance - 9.0).abs() < 0.3);
        let (mean, variance) = mean_and_variance((0..n).map(|_| rng.normal()));
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02);
        for shape in [0.25, 1.0, 4.0] {
            let (mean, variance) = mean_and_variance((0..n).map(|_| rng.gamma(shape, 2.0)));
            assert!((mean / (shape * 2.0) - 1.0).abs() < 0.03, "gamma {shape}: mean {mean}");
            assert!((variance / (shape * 4.0) - 1.0).abs() < 0.06, "gamma {shape}: variance {variance}");
        }
    }

    #[test]
    fn below_stays_below_and_branches_differ() {
        let mut rng = Rng::seed(9);
        assert!((0..1_000).all(|_| rng.below(7) < 7));
        assert_eq!(rng.below(0), 0);
        assert_ne!(Rng::branch(1, 1).next_u64(), Rng::branch(1, 2).next_u64());
        assert_eq!(Rng::branch(1, 1).next_u64(), Rng::branch(1, 1).next_u64());
    }
}
