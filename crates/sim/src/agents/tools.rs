//! The tools' own truth: what was really executed, whoever believes what.

use std::collections::BTreeMap;

use seawall_model::EffectClass;
use seawall_model::effect::EffectId;

/// What became of one effect in the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// Requests that arrived.
    pub asked: u32,
    /// Times it was executed.
    pub done: u32,
    /// Requests to undo that arrived.
    pub undone: u32,
    /// Executed and not undone.
    pub stands: u32,
}

/// All tools.
#[derive(Clone, Debug, Default)]
pub struct Tools {
    truth: BTreeMap<EffectId, Truth>,
    classes: BTreeMap<EffectId, EffectClass>,
    /// Forgets keys: not idempotent though it says so.
    forgetful: bool,
}

impl Tools {
    /// Tools that nobody has called.
    #[must_use]
    pub fn new(forgetful: bool) -> Self {
        Self { forgetful, ..Self::default() }
    }

    /// A request arrives. The law: idempotent ones are executed once however often they
    /// arrive, irreversible ones never twice: people have them sent again only where they
    /// see that they were not done.
    pub fn execute(&mut self, effect: EffectId, class: EffectClass, undo: bool) {
        self.classes.insert(effect, class);
        let truth = self.truth.entry(effect).or_default();
        if undo {
            truth.undone += 1;
            truth.stands = 0;
            return;
        }
        truth.asked += 1;
        if class == EffectClass::Idempotent && truth.done > 0 && !self.forgetful {
            return;
        }
        truth.done += 1;
        truth.stands += 1;
        match class {
            EffectClass::Read => {}
            EffectClass::Idempotent => {
                assert!(truth.done == 1, "effects: idempotent {effect} was executed {} times", truth.done);
            }
            EffectClass::Compensable => {
                assert!(truth.stands <= 1, "effects: compensable {effect} stands {} times", truth.stands);
            }
            EffectClass::Irreversible => {
                assert!(truth.done <= 1, "effects: irreversible {effect} was executed {} times", truth.done);
            }
        }
    }

    /// What became of it.
    #[must_use]
    pub fn truth(&self, effect: EffectId) -> Truth {
        self.truth.get(&effect).copied().unwrap_or_default()
    }

    /// Executions of a class, and effects of it.
    #[must_use]
    pub fn count(&self, class: EffectClass) -> (u64, u64) {
        let of = self.classes.iter().filter(|(_, of)| **of == class);
        of.fold((0, 0), |(done, all), (effect, _)| (done + u64::from(self.truth(*effect).done), all + 1))
    }
}
