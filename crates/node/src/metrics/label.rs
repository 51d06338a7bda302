//! Labels and families of metrics, in the few forms that the catalogue needs.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// A label's value: known at compile time, or shared. Making one costs no allocation.
#[derive(Clone, Debug)]
pub(super) enum Text {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Text {
    fn as_str(&self) -> &str {
        match self {
            Self::Static(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self::Static(text)
    }
}

impl From<Arc<str>> for Text {
    fn from(text: Arc<str>) -> Self {
        Self::Shared(text)
    }
}

/// A few labels, in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Labels<const N: usize>(pub(super) [(&'static str, Text); N]);

impl<const N: usize> EncodeLabelSet for Labels<N> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (name, value) in &self.0 {
            (*name, value.as_str()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// One label.
pub(super) fn one(name: &'static str, value: impl Into<Text>) -> Labels<1> {
    Labels([(name, value.into())])
}

pub(super) type Counters<const N: usize> = Family<Labels<N>, Counter>;
pub(super) type Gauges<const N: usize> = Family<Labels<N>, Gauge<f64, AtomicU64>>;
pub(super) type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// Registers counters.
pub(super) fn counters<const N: usize>(r: &mut Registry, name: &str, help: &str) -> Counters<N> {
    let family = Counters::default();
    r.register(name, help, family.clone());
    family
}

/// Registers gauges.
pub(super) fn gauges<const N: usize>(r: &mut Registry, name: &str, help: &str) -> Gauges<N> {
    let family = Gauges::default();
    r.register(name, help, family.clone());
    family
}

/// Registers histograms of seconds.
pub(super) fn seconds<const N: usize>(
    r: &mut Registry,
    name: &str,
    help: &str,
    make: fn() -> Histogram,
) -> Histograms<N> {
    let family = Histograms::new_with_constructor(make);
    r.register_with_unit(name, help, Unit::Seconds, family.clone());
    family
}
