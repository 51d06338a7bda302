//! How long prompts and answers are.

use seawall_model::Tokens;

use crate::rng::Rng;

/// Why a distribution cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The smaller bound lies above the larger one.
    #[error("a uniform length needs min <= max")]
    Bounds,
    /// A median of zero, or a 99th percentile below it.
    #[error("a log-normal length needs 0 < median <= p99")]
    LogNormal,
    /// Fewer than two quantiles, or not rising from 0 to 1.
    #[error("quantiles need at least two points with rising shares within 0 to 1 and rising lengths")]
    Quantiles,
    /// Text that names no distribution.
    #[error("a length is `256`, `100..500` or `lognormal:200,1200` (median and 99th percentile), not `{0}`")]
    Text(String),
}

/// A distribution of lengths in tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum Lengths {
    /// Always the same.
    Fixed(Tokens),
    /// Anything from `min` to `max`, both included.
    Uniform {
        /// Shortest.
        min: Tokens,
        /// Longest.
        max: Tokens,
    },
    /// Log-normal, the usual shape of chat traffic.
    LogNormal {
        /// Half are shorter.
        median: Tokens,
        /// One in a hundred is longer.
        p99: Tokens,
    },
    /// Measured quantiles `(share, length)`, joined by straight lines.
    Quantiles(Box<[(f64, Tokens)]>),
}

/// The 99th percentile of the standard normal.
const Z99: f64 = 2.326_347_874_040_841;

impl Lengths {
    /// Anything from `min` to `max`.
    ///
    /// # Errors
    /// When `min` lies above `max`.
    pub fn uniform(min: Tokens, max: Tokens) -> Result<Self, Error> {
        if min > max { Err(Error::Bounds) } else { Ok(Self::Uniform { min, max }) }
    }

    /// Log-normal by median and 99th percentile.
    ///
    /// # Errors
    /// When the median is zero or above the percentile.
    pub fn lognormal(median: Tokens, p99: Tokens) -> Result<Self, Error> {
        if median == Tokens::ZERO || p99 < median {
            Err(Error::LogNormal)
        } else {
            Ok(Self::LogNormal { median, p99 })
        }
    }

    /// By measured quantiles `(share, length)`.
    ///
    /// # Errors
    /// When there are fewer than two points or they do not rise.
    pub fn quantiles(points: &[(f64, Tokens)]) -> Result<Self, Error> {
        let rising = points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let within = points.iter().all(|point| (0.0..=1.0).contains(&point.0));
        if points.len() < 2 || !rising || !within {
            Err(Error::Quantiles)
        } else {
            Ok(Self::Quantiles(points.into()))
        }
    }

    /// Reads `256`, `100..500` or `lognormal:200,1200`.
    ///
    /// # Errors
    /// When the text is none of these, or its numbers are out of order.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let number = |part: &str| part.trim().parse().map(Tokens).map_err(|_| Error::Text(text.into()));
        if let Some(rest) = text.strip_prefix("lognormal:") {
            let (median, p99) = rest.split_once(',').ok_or_else(|| Error::Text(text.into()))?;
            return Self::lognormal(number(median)?, number(p99)?);
        }
        if let Some((min, max)) = text.split_once("..") {
            return Self::uniform(number(min)?, number(max)?);
        }
        number(text).map(Self::Fixed)
    }

    /// Draws one length.
    pub fn sample(&self, rng: &mut Rng) -> Tokens {
        match self {
            Self::Fixed(length) => *length,
            Self::Uniform { min, max } => Tokens(min.0 + rng.below((max.0 - min.0).saturating_add(1))),
            Self::LogNormal { median, p99 } => {
                let sigma = (p99.0 as f64 / median.0 as f64).ln() / Z99;
                Tokens((rng.lognormal(median.0 as f64, sigma).round() as u64).max(1))
            }
            Self::Quantiles(points) => at_share(points, rng.unit()),
        }
    }
}

/// The length below which `share` of all lie.
fn at_share(points: &[(f64, Tokens)], share: f64) -> Tokens {
    let after = points.partition_point(|point| point.0 <= share);
    let (Some(low), Some(high)) = (points.get(after.wrapping_sub(1)), points.get(after)) else {
        // Outside the measured shares: the nearest measured length.
        return points[after.min(points.len() - 1)].1;
    };
    let part = (share - low.0) / (high.0 - low.0);
    Tokens(part.mul_add((high.1 - low.1).0 as f64, low.1.0 as f64).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(lengths: &Lengths) -> Vec<u64> {
        let mut rng = Rng::seed(5);
        let mut all: Vec<u64> = (0..100_000).map(|_| lengths.sample(&mut rng).0).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn lognormal_has_its_median_and_tail() {
        let all = sorted(&Lengths::parse("lognormal:200,1200").expect("valid"));
        assert!((190..=210).contains(&all[50_000]), "{}", all[50_000]);
        assert!((1_120..=1_280).contains(&all[99_000]), "{}", all[99_000]);
    }

    #[test]
    fn uniform_reaches_both_ends() {
        let all = sorted(&Lengths::parse("3..5").expect("valid"));
        assert_eq!((all[0], all[99_999]), (3, 5));
        assert_eq!(sorted(&Lengths::parse("0..18446744073709551615").expect("valid")).len(), 100_000);
    }

    #[test]
    fn quantiles_are_met() {
        let points = [(0.0, Tokens(10)), (0.5, Tokens(100)), (0.9, Tokens(1_000)), (1.0, Tokens(2_000))];
        let all = sorted(&Lengths::quantiles(&points).expect("valid"));
        assert!((98..=102).contains(&all[50_000]) && (970..=1_030).contains(&all[90_000]));
        let inner = [(0.2, Tokens(7)), (0.8, Tokens(9))];
        let all = sorted(&Lengths::quantiles(&inner).expect("valid"));
        assert_eq!((all[0], all[99_999]), (7, 9));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Lengths::parse("5..3"), Err(Error::Bounds));
        assert_eq!(Lengths::parse("lognormal:0,3"), Err(Error::LogNormal));
        assert!(matches!(Lengths::parse("many"), Err(Error::Text(_))));
        assert_eq!(Lengths::quantiles(&[(0.5, Tokens(1))]), Err(Error::Quantiles));
    }
}
