//! Dense storage with stable indices: the kernel's collections are vectors, so that a
//! decision costs no pointer chase and no hash order can reach an effect (I2).

use std::ops::{Index, IndexMut};

/// Slots that an empty slab may keep.
const IDLE_SLOTS: usize = 64;

/// Slots that are reused, lowest-waiting-time first in, last out.
#[derive(Clone, Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    hand: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), hand: 0 }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(at) = self.free.pop() {
            self.slots[at as usize] = Some(value);
            return at;
        }
        let at = u32::try_from(self.slots.len()).expect("every slab is bounded far below 2^32");
        self.slots.push(Some(value));
        at
    }

    pub(crate) fn remove(&mut self, at: u32) -> Option<T> {
        let value = self.slots.get_mut(at as usize)?.take()?;
        self.free.push(at);
        if self.len() == 0 && self.slots.capacity() > IDLE_SLOTS {
            // A crowd has come and gone: its room goes back.
            (self.slots, self.free, self.hand) = (Vec::new(), Vec::new(), 0);
        }
        Some(value)
    }

    pub(crate) fn get(&self, at: u32) -> Option<&T> {
        self.slots.get(at as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.slots.get_mut(at as usize)?.as_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        // Indices fit: `insert` never makes one that does not.
        self.slots.iter().enumerate().filter_map(|(at, slot)| Some((at as u32, slot.as_ref()?)))
    }

    /// Indices of all that are there, for loops that change them.
    pub(crate) fn indices(&self) -> Vec<u32> {
        self.iter().map(|(at, _)| at).collect()
    }

    /// Turns the clock hand over at most `steps` slots and answers with the first that
    /// is idle and not marked as used since the hand last passed; failing that with the
    /// first idle one (second-chance eviction).
    pub(crate) fn sweep(
        &mut self,
        steps: usize,
        idle: impl Fn(&T) -> bool,
        mark: impl Fn(&mut T) -> &mut bool,
    ) -> Option<u32> {
        let mut fallback = None;
        for _ in 0..steps.min(self.slots.len()) {
            let at = self.hand;
            self.hand = if at + 1 < self.slots.len() { at + 1 } else { 0 };
            let Some(value) = self.slots[at].as_mut() else {
                continue;
            };
            let used = std::mem::replace(mark(value), false);
            if !idle(value) {
                continue;
            }
            if !used {
                return Some(at as u32);
            }
            fallback = fallback.or(Some(at as u32));
        }
        fallback
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;
    fn index(&self, at: u32) -> &T {
        self.slots[at as usize].as_ref().expect("an index is held only while its slot is filled")
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        self.slots[at as usize].as_mut().expect("an index is held only while its slot is filled")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_reused_and_counted() {
        let mut slab = Slab::default();
        let a = slab.insert('a');
        let b = slab.insert('b');
        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.insert('c'), a);
        assert_eq!((slab.len(), slab[b], slab.get(9)), (2, 'b', None));
    }

    #[test]
    fn the_room_of_a_crowd_goes_back_with_its_last() {
        let mut slab = Slab::default();
        let all: Vec<u32> = (0..1_000).map(|value| slab.insert(value)).collect();
        for at in all {
            assert!(slab.slots.capacity() >= 1_000, "not before");
            slab.remove(at);
        }
        assert_eq!((slab.slots.capacity(), slab.len(), slab.insert(7)), (0, 0, 0));
    }

    #[test]
    fn the_hand_gives_a_second_chance() {
        let mut slab = Slab::default();
        for used in [true, true, false] {
            slab.insert(used);
        }
        assert_eq!(slab.sweep(8, |_| true, |used| used), Some(2), "the one that was not used");
        slab[0] = true;
        assert_eq!(slab.sweep(8, |_| true, |used| used), Some(1), "its mark was cleared by the first turn");
        slab[0] = true;
        slab[1] = true;
        slab[2] = true;
        assert_eq!(slab.sweep(8, |_| true, |used| used), Some(2), "all are used: the first under the hand");
        assert_eq!(slab.sweep(8, |_| false, |used| used), None);
    }
}
