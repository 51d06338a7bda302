//! How long answers are: one small histogram per model and tenant, with decay, read at
//! the median to order and charge and at 90 % to reserve cache room.

use std::collections::BTreeMap;

use seawall_model::{ModelId, limits};

use crate::slab::Slab;

/// Four buckets per power of two up to 2^26 tokens: an error below a fifth.
const BUCKETS: usize = 104;
/// Counts are halved at this many, so that about the last 256 answers are remembered.
const WEIGHT_MAX: u32 = 256;
/// Fewer answers than this say nothing; the next coarser histogram is asked.
const WEIGHT_MIN: u32 = 8;
/// Slots looked at for one that may go, so that a full table costs a bounded time.
const SWEEP: usize = 512;

/// Counts of answer lengths, by logarithm.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: [u16; BUCKETS],
    weight: u32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], weight: 0 }
    }
}

fn bucket(tokens: u64) -> usize {
    let tokens = tokens.max(1);
    let power = tokens.ilog2() as usize;
    let quarter = if power >= 2 { (tokens >> (power - 2)) & 3 } else { (tokens << (2 - power)) & 3 };
    (power * 4 + quarter as usize).min(BUCKETS - 1)
}

/// The largest length that falls into a bucket.
fn ceiling(bucket: usize) -> u64 {
    let (power, quarter) = (bucket / 4, bucket as u64 % 4);
    if power >= 2 { ((5 + quarter) << (power - 2)) - 1 } else { (1 << (power + 1)) - 1 }
}

impl Histogram {
    pub(crate) fn add(&mut self, tokens: u64) {
        if self.weight >= WEIGHT_MAX {
            self.weight = 0;
            for count in &mut self.counts {
                *count /= 2;
                self.weight += u32::from(*count);
            }
        }
        self.counts[bucket(tokens)] += 1;
        self.weight += 1;
    }

    /// The length that `percent` of answers do not exceed, if enough were seen.
    pub(crate) fn quantile(&self, percent: u32) -> Option<u64> {
        if self.weight < WEIGHT_MIN {
            return None;
        }
        let wanted = (self.weight * percent).div_ceil(100);
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += u32::from(*count);
            if seen >= wanted {
                return Some(ceiling(at));
            }
        }
        None
    }
}

#[derive(Clone, Debug)]
struct Sketch {
    key: (u64, ModelId),
    histogram: Histogram,
    used: bool,
}

/// Every histogram, bounded by [`limits::SKETCHES_MAX`]; those not used lately leave first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sketches {
    index: BTreeMap<(u64, ModelId), u32>,
    slab: Slab<Sketch>,
    models: BTreeMap<ModelId, Histogram>,
}

impl Sketches {
    /// Forgets models that are no more.
    pub(crate) fn keep_models(&mut self, known: impl Fn(ModelId) -> bool) {
        self.models.retain(|model, _| known(*model));
    }

    /// An answer of this length was seen for the tenant node with this serial number.
    pub(crate) fn add(&mut self, node: u64, model: ModelId, tokens: u64) {
        self.models.entry(model).or_default().add(tokens);
        let key = (node, model);
        let at = if let Some(at) = self.index.get(&key) {
            *at
        } else {
            if self.slab.len() >= limits::SKETCHES_MAX {
                let Some(old) = self.slab.sweep(SWEEP, |_| true, |sketch| &mut sketch.used) else {
                    return;
                };
                if let Some(old) = self.slab.remove(old) {
                    self.index.remove(&old.key);
                }
            }
            let at = self.slab.insert(Sketch { key, histogram: Histogram::default(), used: true });
            self.index.insert(key, at);
            at
        };
        let sketch = &mut self.slab[at];
        sketch.used = true;
        sketch.histogram.add(tokens);
    }

    /// Median and 90th percentile of the answers to this tenant, or of the model.
    pub(crate) fn predict(&mut self, node: u64, model: ModelId) -> Option<(u64, u64)> {
        let own = self.index.get(&(node, model)).and_then(|at| {
            let sketch = &mut self.slab[*at];
            sketch.used = true;
            Some((sketch.histogram.quantile(50)?, sketch.histogram.quantile(90)?))
        });
        own.or_else(|| {
            let all = self.models.get(&model)?;
            Some((all.quantile(50)?, all.quantile(90)?))
        })
    }

    pub(crate) fn check(&self) {
        assert!(self.slab.len() <= limits::SKETCHES_MAX, "length sketches are bounded");
        assert_eq!(self.slab.len(), self.index.len(), "each sketch is found by its key");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_lies_in_its_bucket() {
        for tokens in (1..5_000).chain([1 << 20, (1 << 26) - 1]) {
            let at = bucket(tokens);
            assert!(tokens <= ceiling(at), "{tokens}");
            assert!(ceiling(at) <= tokens + tokens / 4 + 1, "{tokens} is kept to a quarter: {}", ceiling(at));
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_follow_a_change() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(50), None);
        (0..200).for_each(|_| histogram.add(100));
        let median = histogram.quantile(50).expect("enough answers");
        assert!((100..=125).contains(&median));
        (0..600).for_each(|_| histogram.add(1_000));
        let median = histogram.quantile(50).expect("enough answers");
        assert!((1_000..=1_250).contains(&median), "old answers fade: {median}");
    }

    #[test]
    fn a_new_tenant_borrows_from_the_model_and_the_table_is_bounded() {
        let mut sketches = Sketches::default();
        for node in 0..limits::SKETCHES_MAX as u64 + 500 {
            sketches.add(node, ModelId(1), 50);
        }
        sketches.check();
        assert!(sketches.predict(u64::MAX, ModelId(1)).is_some());
        assert_eq!(sketches.predict(0, ModelId(2)), None);
    }
}
