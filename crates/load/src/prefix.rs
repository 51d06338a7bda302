//! The prefix cache of an engine: which blocks of prompt are already computed.
//!
//! Blocks are known by chained hashes, so that equal hashes mean equal prompts up to
//! that point (as in vLLM). A block in use is pinned; one no longer in use stays until
//! its room is wanted, least recently used first, the ends of chains before their starts.

use std::collections::BTreeMap;

use seawall_model::{Tokens, limits};

use crate::rng::mix;

/// No entry: the end of a list.
const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Block {
    hash: u64,
    pins: u32,
    /// Neighbours in the list of unpinned blocks, oldest to newest.
    older: u32,
    newer: u32,
}

/// The cache. Its room is bounded by its owner, which calls [`Cache::evict`]; sizes are
/// whole blocks.
#[derive(Clone, Debug)]
pub struct Cache {
    block_tokens: u64,
    by_hash: BTreeMap<u64, u32>,
    blocks: Vec<Block>,
    vacant: Vec<u32>,
    oldest: u32,
    newest: u32,
    unpinned: u64,
}

/// Chained hashes of a prompt's blocks: each covers its block and all before it. A last
/// part shorter than a block has none. At most [`limits::PREFIX_BLOCKS_MAX`].
#[must_use]
pub fn chain(prompt: &[u8], block_bytes: usize) -> Box<[u64]> {
    let mut hash = 0;
    let blocks = prompt.chunks_exact(block_bytes.max(1)).take(limits::PREFIX_BLOCKS_MAX);
    blocks
        .map(|block| {
            hash = digest(hash, block);
            hash
        })
        .collect()
}

/// A 64-bit digest of some bytes after a previous digest. For grouping equal texts, not
/// against an adversary.
#[must_use]
pub fn digest(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = mix(seed ^ bytes.len() as u64);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = word.iter().rev().fold(0, |all, byte| (all << 8) | u64::from(*byte));
        hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    let rest = words.remainder().iter().rev().fold(0, |all, byte| (all << 8) | u64::from(*byte));
    mix(hash ^ rest)
}

impl Cache {
    /// An empty cache of blocks of this many tokens.
    ///
    /// # Panics
    /// When a block has no tokens.
    #[must_use]
    pub const fn new(block_tokens: Tokens) -> Self {
        assert!(block_tokens.0 > 0, "a block holds at least one token");
        Self {
            block_tokens: block_tokens.0,
            by_hash: BTreeMap::new(),
            blocks: Vec::new(),
            vacant: Vec::new(),
            oldest: NONE,
            newest: NONE,
            unpinned: 0,
        }
    }

    /// Tokens in a block.
    #[must_use]
    pub const fn block_tokens(&self) -> Tokens {
        Tokens(self.block_tokens)
    }

    /// How many leading blocks of this chain are here.
    #[must_use]
    pub fn leading(&self, chain: &[u64]) -> usize {
        chain.iter().take_while(|hash| self.by_hash.contains_key(hash)).count()
    }

    /// Tokens that nothing uses, to be had by [`Cache::evict`].
    #[must_use]
    pub const fn unpinned(&self) -> Tokens {
        Tokens(self.unpinned * self.block_tokens)
    }

    /// Tokens in use.
    #[must_use]
    pub fn pinned(&self) -> Tokens {
        Tokens((self.by_hash.len() as u64 - self.unpinned) * self.block_tokens)
    }

    /// How many of these blocks nothing uses at present.
    #[must_use]
    pub fn unpinned_of(&self, chain: &[u64]) -> u64 {
        let idle = |hash: &&u64| self.by_hash.get(hash).is_some_and(|at| self.blocks[*at as usize].pins == 0);
        chain.iter().filter(idle).count() as u64
    }

    /// Pins a block that is here or is now computed. True when it is new.
    pub fn pin(&mut self, hash: u64) -> bool {
        if let Some(&at) = self.by_hash.get(&hash) {
            if self.blocks[at as usize].pins == 0 {
                self.unlink(at);
            }
            self.blocks[at as usize].pins += 1;
            return false;
        }
        let block = Block { hash, pins: 1, older: NONE, newer: NONE };
        let at = if let Some(at) = self.vacant.pop() {
            self.blocks[at as usize] = block;
            at
        } else {
            self.blocks.push(block);
            u32::try_from(self.blocks.len() - 1).expect("an engine's memory holds under 2^32 blocks")
        };
        self.by_hash.insert(hash, at);
        true
    }

    /// Gives up one pin of each block of a chain; its end will be evicted first.
    ///
    /// # Panics
    /// When a block is not pinned.
    pub fn unpin(&mut self, chain: &[u64]) {
        for hash in chain.iter().rev() {
            let at = *self.by_hash.get(hash).expect("a pinned block is in the cache");
            let block = &mut self.blocks[at as usize];
            assert!(block.pins > 0, "a block is unpinned as often as it was pinned");
            block.pins -= 1;
            if block.pins == 0 {
                self.link(at);
            }
        }
    }

    /// Drops the least recently used blocks until at least `want` tokens are free or
    /// nothing is left to drop; gives the tokens freed.
    pub fn evict(&mut self, want: Tokens) -> Tokens {
        let mut freed = 0;
        while freed < want.0 && self.oldest != NONE {
            let at = self.oldest;
            self.unlink(at);
            let hash = self.blocks[at as usize].hash;
            self.by_hash.remove(&hash);
            self.vacant.push(at);
            freed += self.block_tokens;
        }
        Tokens(freed)
    }

    fn link(&mut self, at: u32) {
        let before = self.newest;
        self.blocks[at as usize].older = before;
        self.blocks[at as usize].newer = NONE;
        if before == NONE {
            self.oldest = at;
        } else {
            self.blocks[before as usize].newer = at;
        }
        self.newest = at;
        self.unpinned += 1;
    }

    fn unlink(&mut self, at: u32) {
        let Block { older, newer, .. } = self.blocks[at as usize];
        if older == NONE {
            self.oldest = newer;
        } else {
            self.blocks[older as usize].newer = newer;
        }
        if newer == NONE {
            self.newest = older;
        } else {
            self.blocks[newer as usize].older = older;
        }
        self.unpinned -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_agree_exactly_as_far_as_the_prompts_do() {
        let one = chain(b"aaaabbbbccccdd", 4);
        let two = chain(b"aaaabbbbxxxxdddd", 4);
        assert_eq!((one.len(), two.len()), (3, 4));
        assert_eq!(one[..2], two[..2]);
        assert_ne!(one[2], two[2]);
        // The same block after another start is another block.
        assert_ne!(chain(b"bbbb", 4)[0], one[1]);
        assert_eq!(chain(&[0; 1 << 20], 8).len(), limits::PREFIX_BLOCKS_MAX);
    }

    #[test]
    fn the_oldest_chain_goes_first_and_its_end_before_its_start() {
        let mut cache = Cache::new(Tokens(10));
        for chain in [[1, 2, 3], [4, 5, 6]] {
            assert!(chain.iter().all(|hash| cache.pin(*hash)));
            cache.unpin(&chain);
        }
        assert_eq!((cache.unpinned(), cache.pinned()), (Tokens(60), Tokens::ZERO));
        assert_eq!(cache.evict(Tokens(15)), Tokens(20));
        assert_eq!((cache.leading(&[1, 2, 3]), cache.leading(&[4, 5, 6])), (1, 3));
        // Use makes young again: now the second chain is the older one.
        assert!(!cache.pin(1));
        cache.unpin(&[1]);
        assert_eq!(cache.evict(Tokens(30)), Tokens(30));
        assert_eq!((cache.leading(&[1]), cache.leading(&[4])), (1, 0));
    }

    #[test]
    fn pinned_blocks_stay() {
        let mut cache = Cache::new(Tokens(1));
        cache.pin(1);
        cache.pin(1);
        cache.unpin(&[1]);
        assert_eq!(cache.evict(Tokens(5)), Tokens::ZERO);
        cache.unpin(&[1]);
        assert_eq!(cache.evict(Tokens(5)), Tokens(1));
        assert!(cache.pin(1), "evicted blocks must be computed again");
    }
}
