//! States of runs that were at work a moment ago, so that a turn of a long run reads only
//! what is new and not all that was ever said. What is here is what the disk has, or will
//! have before anybody asks: a state is found only by the number of turns that made it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use seawall_model::durable::{Item, RunRow};
use seawall_model::effect::Answer;
use seawall_model::journal::Change;
use seawall_model::{At, EffectId, Millis, Payload, RunKey};

/// A run's working state, opened: no payload in it lies in a blob.
pub type State = BTreeMap<Arc<str>, Payload>;

/// What a value takes beside its bytes, about: key, counts and its place in the tree.
const VALUE_BYTES: usize = 96;

/// Which state of a run it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// After so many turns.
    turns: u32,
    /// When the run was begun again last, which leaves nothing of what was before.
    again: Option<At>,
}

impl Mark {
    /// The state that this run is in.
    #[must_use]
    pub fn of(run: &RunRow) -> Self {
        Self { turns: run.turns, again: run.restarts.last().copied() }
    }

    /// The state after its next turn.
    #[must_use]
    pub fn next(self) -> Self {
        Self { turns: self.turns + 1, ..self }
    }

    /// Turns that led to it.
    #[must_use]
    pub fn turns(self) -> u32 {
        self.turns
    }
}

/// How often a state was here, how often it had to be read, and what is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Found here.
    pub hits: u64,
    /// Read from the disk.
    pub misses: u64,
    /// Bytes kept.
    pub bytes: usize,
}

/// The states. Bounded in bytes; those used longest ago leave first.
#[derive(Debug)]
pub struct States {
    shelf: Mutex<Shelf>,
    bytes_max: usize,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Debug, Default)]
struct Shelf {
    held: HashMap<RunKey, Held>,
    /// Runs by when they were used, the longest unused first.
    used: BTreeMap<u64, RunKey>,
    clock: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Held {
    mark: Mark,
    state: Arc<State>,
    bytes: usize,
    used: u64,
    at: At,
}

impl Shelf {
    fn take(&mut self, run: RunKey) -> Option<Held> {
        let held = self.held.remove(&run)?;
        self.used.remove(&held.used);
        self.bytes -= held.bytes;
        Some(held)
    }
}

impl States {
    /// None yet, and never more than so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { shelf: Mutex::default(), bytes_max, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state for a turn. It is not here any more after this, since the turn makes
    /// another of it.
    #[must_use]
    pub fn take(&self, run: RunKey, mark: Mark) -> Option<Arc<State>> {
        let held = self.lock().take(run).filter(|held| held.mark == mark);
        self.count(held.map(|held| held.state))
    }

    /// The state that an effect is performed from.
    #[must_use]
    pub fn find(&self, run: RunKey, turns: u32) -> Option<Arc<State>> {
        let shelf = self.lock();
        let held = shelf.held.get(&run).filter(|held| held.mark.turns == turns);
        self.count(held.map(|held| held.state.clone()))
    }

    fn count(&self, found: Option<Arc<State>>) -> Option<Arc<State>> {
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Keeps a state, in place of an earlier one of its run; not one that would leave no
    /// room for others.
    pub fn keep(&self, run: RunKey, mark: Mark, state: Arc<State>, at: At) {
        let bytes = state.iter().map(|(key, value)| key.len() + value.len() as usize + VALUE_BYTES).sum();
        let mut shelf = self.lock();
        let _ = shelf.take(run);
        if bytes > self.bytes_max / 4 {
            return;
        }
        while shelf.bytes + bytes > self.bytes_max {
            let Some((_, oldest)) = shelf.used.first_key_value() else { break };
            let oldest = *oldest;
            let _ = shelf.take(oldest);
        }
        shelf.clock += 1;
        let used = shelf.clock;
        shelf.bytes += bytes;
        shelf.used.insert(used, run);
        shelf.held.insert(run, Held { mark, state, bytes, used, at });
    }

    /// Whatever is here of a run is not to be trusted.
    pub fn forget(&self, run: RunKey) {
        let _ = self.lock().take(run);
    }

    /// Lets go of what was not used for so long: its agent rests, or its run is over.
    pub fn let_go(&self, now: At, unused: Millis) {
        let mut shelf = self.lock();
        while let Some((_, run)) = shelf.used.first_key_value() {
            let run = *run;
            if shelf.held.get(&run).is_some_and(|held| now.since(held.at) < unused) {
                return;
            }
            let _ = shelf.take(run);
        }
    }

    /// Figures for metrics.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let (hits, misses) = (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed));
        Figures { hits, misses, bytes: self.lock().bytes }
    }
}

/// The state after a turn, given the one before, what the turn saw and what it changes: as
/// the kernel's fold makes it.
#[must_use]
pub fn after(before: Arc<State>, items: &[Item], changes: &[Change]) -> Arc<State> {
    let mut state = before;
    let values = Arc::make_mut(&mut state);
    for change in changes {
        match change {
            Change::Set { key, value } => drop(values.insert(key.clone(), value.clone())),
            Change::Drop { key } => drop(values.remove(key)),
            Change::Keep { key, effect } => drop(values.insert(key.clone(), answer(items, *effect))),
        }
    }
    state
}

fn answer(items: &[Item], wanted: EffectId) -> Payload {
    let found = items.iter().find_map(|item| match item {
        Item::Answer { effect, answer: Answer::Done(body) | Answer::Error(body), .. }
            if *effect == wanted =>
        {
            Some(body.clone())
        }
        _ => None,
    });
    found.unwrap_or_else(Payload::empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u64) -> RunKey {
        RunKey::new(0, number)
    }

    fn mark(turns: u32, again: Option<u64>) -> Mark {
        Mark { turns, again: again.map(At) }
    }

    fn state(bytes: usize) -> Arc<State> {
        Arc::new([("m".into(), Payload::from(vec![b'x'; bytes]))].into())
    }

    #[test]
    fn a_state_is_found_only_by_what_made_it() {
        let states = States::new(1 << 20);
        states.keep(run(1), mark(3, None), state(10), At(1));
        assert!(states.find(run(1), 3).is_some());
        assert!(states.find(run(1), 2).is_none() && states.find(run(2), 3).is_none());
        // Begun again since: nothing is left of it, and what was here is not the run's.
        assert!(states.take(run(1), mark(3, Some(9))).is_none());
        assert!(states.find(run(1), 3).is_none());
        assert_eq!(states.figures(), Figures { hits: 1, misses: 4, bytes: 0 });
    }

    #[test]
    fn a_turn_takes_its_state_away() {
        let states = States::new(1 << 20);
        states.keep(run(1), mark(3, None), state(10), At(1));
        assert!(states.take(run(1), mark(3, None)).is_some());
        assert!(states.take(run(1), mark(3, None)).is_none());
        states.keep(run(1), mark(4, None), state(10), At(1));
        states.forget(run(1));
        assert!(states.find(run(1), 4).is_none());
    }

    #[test]
    fn bytes_are_bounded_and_the_longest_unused_leaves_first() {
        let states = States::new(4_000);
        for number in 1..=5 {
            states.keep(run(number), mark(1, None), state(850), At(number));
        }
        assert!(states.figures().bytes <= 4_000);
        assert!(states.find(run(1), 1).is_none() && states.find(run(2), 1).is_some());
        // One that leaves no room for others is not kept, nor is what was there before it.
        states.keep(run(2), mark(2, None), state(1_000), At(6));
        assert!(states.find(run(2), 1).is_none() && states.find(run(2), 2).is_none());
        states.let_go(At(4 + 2_000), Millis(2));
        assert!(states.find(run(4), 1).is_none() && states.find(run(5), 1).is_some());
    }

    #[test]
    fn the_state_after_a_turn_is_what_the_fold_makes() {
        let effect = EffectId { run: run(1), number: 7 };
        let item = Item::Answer {
            effect,
            tag: "t".into(),
            kind: "tool".into(),
            twin: 0,
            answer: Answer::Error(Payload::text("said")),
        };
        let changes = [
            Change::Set { key: "a".into(), value: Payload::text("1") },
            Change::Drop { key: "m".into() },
            Change::Keep { key: "k".into(), effect },
        ];
        let made = after(state(3), std::slice::from_ref(&item), &changes);
        let keys: Vec<&str> = made.keys().map(|key| &**key).collect();
        assert_eq!(keys, ["a", "k"]);
        assert_eq!(made["k"], Payload::text("said"));
        assert_eq!(after(state(3), &[], &changes)["k"], Payload::empty());
    }
}
