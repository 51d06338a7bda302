//! Until when a replica's provider wants no calls: for one of its models, where the plan
//! names them (a provider limits each apart), or at all.

use seawall_model::At;

use crate::call::Upstream;

/// Models paused at once on one replica, told apart. More are taken for the whole
/// provider's pause: by then it is.
const PAUSES_MAX: usize = 16;

/// The pauses of one replica that are not over, by model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pauses(Vec<(Upstream, At)>);

impl Pauses {
    /// No calls for this model (or none at all) until then, or longer if that was asked
    /// before.
    pub(crate) fn add(&mut self, upstream: Upstream, until: At, now: At) {
        self.0.retain(|(_, until)| *until > now);
        let full = self.0.len() >= PAUSES_MAX && !self.0.iter().any(|(known, _)| *known == upstream);
        let upstream = if full { None } else { upstream };
        match self.0.iter_mut().find(|(known, _)| *known == upstream) {
            Some((_, known)) => *known = until.max(*known),
            None => self.0.push((upstream, until)),
        }
    }

    /// The end of the pause for calls for this model.
    pub(crate) fn until(&self, upstream: Upstream) -> At {
        let own = self.0.iter().filter(|(known, _)| known.is_none() || *known == upstream);
        own.map(|(_, until)| *until).max().unwrap_or(At(0))
    }

    /// Is there one that is not over?
    pub(crate) fn any(&self, now: At) -> bool {
        self.0.iter().any(|(_, until)| *until > now)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn check(&self) {
        assert!(self.0.len() <= PAUSES_MAX + 1, "the pauses of a replica are bounded (I5)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_pause_apart_and_all_together() {
        let mut pauses = Pauses::default();
        pauses.add(Some(1), At(50), At(0));
        pauses.add(Some(1), At(40), At(0));
        assert_eq!(
            (pauses.until(Some(1)), pauses.until(Some(2)), pauses.until(None)),
            (At(50), At(0), At(0))
        );
        pauses.add(None, At(30), At(0));
        assert_eq!((pauses.until(Some(1)), pauses.until(Some(2))), (At(50), At(30)));
        for model in 0..40 {
            pauses.add(Some(model), At(90), At(60));
            pauses.check();
        }
        assert_eq!(pauses.until(Some(99)), At(90), "too many to tell apart");
    }
}
