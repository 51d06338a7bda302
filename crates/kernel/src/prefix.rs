//! Which prompt prefixes a replica has likely cached: a set-associative table of block
//! hashes, bounded in bytes, with the least recently used block leaving its set. It is
//! an open table rather than a hash map because it is only ever probed, never walked,
//! so that no order can leak out of it.

use seawall_model::limits;

/// Entries per set: enough that recently used blocks rarely crowd each other out.
const WAYS: usize = 8;
/// Sets in a fresh table: 64 KiB would be too much for 256 idle replicas.
const SETS_MIN: usize = 16;
const SETS_MAX: usize = prefix_sets(limits::PREFIX_INDEX_BYTES_MAX);

const fn prefix_sets(bytes: usize) -> usize {
    let sets = bytes / (WAYS * size_of::<Block>());
    // The largest power of two that fits, so that a mask picks the set.
    1 << (usize::BITS - 1 - sets.leading_zeros())
}

#[derive(Clone, Copy, Debug, Default)]
struct Block {
    hash: u64,
    /// When it was last used, in uses of the table; 0 is an empty entry.
    used: u32,
    /// What it leads to (the replica, in an engine-wide table).
    home: u32,
}

/// One table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prefixes {
    blocks: Vec<Block>,
    len: usize,
    clock: u32,
}

impl Prefixes {
    fn set(&self, hash: u64) -> std::ops::Range<usize> {
        let sets = self.blocks.len() / WAYS;
        // The hashes are the caller's; multiply so that weak low bits do not matter.
        let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let at = (mixed as usize & (sets - 1)) * WAYS;
        at..at + WAYS
    }

    fn find(&self, hash: u64) -> Option<&Block> {
        if self.blocks.is_empty() {
            return None;
        }
        self.blocks[self.set(hash)].iter().find(|block| block.used != 0 && block.hash == hash)
    }

    /// How many leading blocks of the chain are known, and the home of the last. Hashes
    /// are chained, and insertion keeps earlier blocks fresher than later ones, so a
    /// known block implies its predecessors and a binary search is enough.
    pub(crate) fn matched(&self, chain: &[u64]) -> (usize, u32) {
        let known = chain.partition_point(|hash| self.find(*hash).is_some());
        let home = known.checked_sub(1).and_then(|last| self.find(chain[last])).map_or(0, |block| block.home);
        (known, home)
    }

    /// Remembers the chain as just used.
    pub(crate) fn insert(&mut self, chain: &[u64], home: u32) {
        let chain = &chain[..chain.len().min(limits::PREFIX_BLOCKS_MAX)];
        if chain.is_empty() {
            return;
        }
        self.grow(chain.len());
        // Last block first: the first block ends up the freshest.
        for hash in chain.iter().rev() {
            self.tick();
            let clock = self.clock;
            let range = self.set(*hash);
            let set = &mut self.blocks[range];
            let at =
                set.iter().position(|block| block.used != 0 && block.hash == *hash).unwrap_or_else(|| {
                    let oldest = (0..WAYS).min_by_key(|at| set[*at].used);
                    oldest.expect("a set has entries")
                });
            self.len += usize::from(set[at].used == 0);
            set[at] = Block { hash: *hash, used: clock, home };
        }
    }

    /// After 2^32 uses the clock starts anew and all blocks count as equally old.
    fn tick(&mut self) {
        if self.clock == u32::MAX {
            self.blocks.iter_mut().for_each(|block| block.used = block.used.min(1));
            self.clock = 1;
        }
        self.clock += 1;
    }

    fn grow(&mut self, more: usize) {
        let sets = self.blocks.len() / WAYS;
        if sets == 0 {
            self.blocks = vec![Block::default(); SETS_MIN * WAYS];
        }
        while (self.len + more) * 2 > self.blocks.len() && self.blocks.len() / WAYS < SETS_MAX {
            let larger = vec![Block::default(); self.blocks.len() * 2];
            let mut old = std::mem::replace(&mut self.blocks, larger);
            old.retain(|block| block.used != 0);
            self.len = 0;
            for block in old {
                let range = self.set(block.hash);
                if let Some(free) = self.blocks[range].iter_mut().find(|free| free.used == 0) {
                    *free = block;
                    self.len += 1;
                }
            }
        }
    }

    /// Memory taken.
    pub(crate) fn bytes(&self) -> u64 {
        (self.blocks.capacity() * size_of::<Block>()) as u64
    }

    /// Forgets everything, as an engine that restarted has.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn check(&self) {
        assert!(self.bytes() <= limits::PREFIX_INDEX_BYTES_MAX as u64, "a prefix index is bounded in bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn a_shared_beginning_is_matched() {
        let mut prefixes = Prefixes::default();
        assert_eq!(prefixes.matched(&[1, 2]), (0, 0));
        prefixes.insert(&[1, 2, 3], 7);
        assert_eq!(prefixes.matched(&[1, 2, 9]), (2, 7));
        assert_eq!(prefixes.matched(&[9, 8, 7]).0, 0);
        prefixes.clear();
        assert_eq!(prefixes.matched(&[1]), (0, 0));
    }

    #[test]
    fn memory_is_bounded_and_the_fresh_stay() {
        let mut prefixes = Prefixes::default();
        let mut rng = Rng::seed(3);
        let kept: Vec<u64> = (0..64).map(|_| rng.next()).collect();
        for round in 0..3_000 {
            let chain: Vec<u64> = (0..256).map(|_| rng.next()).collect();
            prefixes.insert(&chain, 0);
            if round % 50 == 0 {
                prefixes.insert(&kept, 1);
            }
        }
        prefixes.check();
        assert!(
            prefixes.matched(&kept).0 > 32,
            "often used blocks survive a flood: {}",
            prefixes.matched(&kept).0
        );
    }
}
