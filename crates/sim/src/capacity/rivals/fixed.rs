//! So many calls in flight and no more: a semaphore, as most gateways have it. With no
//! bound at all it is a gateway that passes everything on.

use super::Limit;
use crate::capacity::replay::Scene;

/// The bound.
#[derive(Clone, Copy, Debug)]
pub struct Fixed(pub u32);

impl Fixed {
    /// No bound.
    pub const NONE: Self = Self(u32::MAX);
}

impl Limit for Fixed {
    fn admits(&mut self, _scene: Scene<'_>, _call: usize, running: u32) -> bool {
        running < self.0
    }
}
