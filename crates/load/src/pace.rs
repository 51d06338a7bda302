//! How long one step of an engine takes: `a + b * batch + c * prefill tokens`, the law
//! that measured step times of continuous-batching engines follow.
//!
//! The presets are fitted to the medians of published measurements: Splitwise
//! (`Mutinifni/splitwise-sim`, MIT; llama2-70b on 8 x A100 and 8 x H100, Patel et al.,
//! ISCA'24) and SageServe (`shashwatj07/SageServe`, MIT; Llama on A100). `a` and `b` are
//! the least-squares line through time per token over batch size, weighted by relative
//! error; `c` the same through prompt time less `a` and `b`, over prompt tokens. The
//! decode fits hold within 8 %; the prefill fits within a factor of two, as measured
//! prefill is not linear (short prompts cost less per token, long ones more).

use seawall_model::Tokens;

/// A step-time law. All three coefficients in nanoseconds, so that whole numbers
/// are exact enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Of every step (`a`).
    pub step_ns: u64,
    /// For each sequence in the batch (`b`).
    pub sequence_ns: u64,
    /// For each prompt token computed (`c`).
    pub prefill_token_ns: u64,
}

/// The presets by name, the default first.
pub const PRESETS: &[(&str, Pace)] = &[
    // No measurement: about a 3B model on a current card, quick enough for a first look.
    ("sim-small", Pace { step_ns: 4_000_000, sequence_ns: 30_000, prefill_token_ns: 10_000 }),
    ("h100-llama2-70b", Pace { step_ns: 30_117_000, sequence_ns: 295_900, prefill_token_ns: 61_580 }),
    ("a100-llama2-70b", Pace { step_ns: 44_496_000, sequence_ns: 371_500, prefill_token_ns: 126_390 }),
    ("a100-llama3-8b", Pace { step_ns: 8_311_000, sequence_ns: 242_700, prefill_token_ns: 45_700 }),
    ("a100-llama3-3b", Pace { step_ns: 5_269_000, sequence_ns: 192_300, prefill_token_ns: 33_210 }),
];

impl Default for Pace {
    fn default() -> Self {
        PRESETS[0].1
    }
}

impl Pace {
    /// The preset of this name.
    #[must_use]
    pub fn preset(name: &str) -> Option<Self> {
        PRESETS.iter().find(|preset| preset.0 == name).map(|preset| preset.1)
    }

    /// The length of a step over `batch` sequences that computes `prefill` prompt
    /// tokens, in microseconds, at least one.
    #[must_use]
    pub const fn step_us(&self, batch: u64, prefill: Tokens) -> u64 {
        let decode = self.sequence_ns.saturating_mul(batch);
        let prefill = self.prefill_token_ns.saturating_mul(prefill.0);
        let all = self.step_ns.saturating_add(decode).saturating_add(prefill) / 1_000;
        if all == 0 { 1 } else { all }
    }

    /// The same law on an engine `percent` / 100 times as slow.
    #[must_use]
    pub const fn slowed(self, percent: u64) -> Self {
        Self {
            step_ns: self.step_ns.saturating_mul(percent) / 100,
            sequence_ns: self.sequence_ns.saturating_mul(percent) / 100,
            prefill_token_ns: self.prefill_token_ns.saturating_mul(percent) / 100,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Medians of the published rows: preset, prompt tokens, batch, prompt ms, ms per token.
    const MEASURED: &[(&str, u64, u64, f64, f64)] = &[
        ("h100-llama2-70b", 512, 1, 53.39, 29.76),
        ("h100-llama2-70b", 512, 8, 371.63, 32.50),
        ("h100-llama2-70b", 512, 32, 1551.73, 38.62),
        ("h100-llama2-70b", 512, 64, 2936.33, 50.16),
        ("h100-llama2-70b", 2048, 1, 136.80, 31.05),
        ("h100-llama2-70b", 8192, 1, 844.89, 31.41),
        ("a100-llama2-70b", 512, 1, 94.31, 44.85),
        ("a100-llama2-70b", 512, 16, 2084.41, 50.44),
        ("a100-llama2-70b", 512, 64, 7553.99, 71.61),
        ("a100-llama3-8b", 512, 1, 28.11, 8.47),
        ("a100-llama3-8b", 4096, 1, 234.24, 8.78),
        ("a100-llama3-3b", 512, 1, 20.01, 5.36),
        ("a100-llama3-3b", 4096, 1, 144.20, 5.64),
    ];

    #[test]
    fn presets_agree_with_the_measurements_they_were_fitted_to() {
        for &(name, prompt, batch, prompt_ms, token_ms) in MEASURED {
            let pace = Pace::preset(name).expect("a preset");
            let token = pace.step_us(batch, Tokens::ZERO) as f64 / 1e3;
            assert!(
                (token / token_ms - 1.0).abs() < 0.08,
                "{name} x{batch}: {token} ms, measured {token_ms}"
            );
            let first = pace.step_us(batch, Tokens(prompt * batch)) as f64 / 1e3;
            let ratio = first / prompt_ms;
            assert!((0.5..2.0).contains(&ratio), "{name} {prompt}x{batch}: {first} ms, measured {prompt_ms}");
        }
    }

    #[test]
    fn a_step_is_never_instant_and_never_overflows() {
        let none = Pace { step_ns: 0, sequence_ns: 0, prefill_token_ns: 0 };
        assert_eq!(none.step_us(0, Tokens::ZERO), 1);
        assert!(Pace::default().step_us(u64::MAX, Tokens::MAX) > 1);
        assert_eq!(Pace::default().slowed(200).step_ns, 8_000_000);
        assert_eq!(Pace::preset("nothing"), None);
    }
}
