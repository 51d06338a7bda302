//! What a router believes each replica has cached: the blocks of what it sent there, the
//! least recently used forgotten first, as many as the replica holds (the approximate
//! prefix index of the Gateway API inference extension and llm-d,
//! `pkg/epp/framework/plugins/requestcontrol/dataproducer/approximateprefix/indexer.go`).

use seawall_load::prefix::Cache;
use seawall_model::Tokens;

/// One least-recently-used index per replica.
#[derive(Debug)]
pub struct Index {
    caches: Vec<Cache>,
    blocks_max: u64,
}

impl Index {
    /// For so many replicas of so many blocks each.
    #[must_use]
    pub fn new(replicas: usize, blocks_max: u64) -> Self {
        Self { caches: vec![Cache::new(Tokens(1)); replicas], blocks_max }
    }

    /// Leading blocks of a prompt that a replica has.
    #[must_use]
    pub fn matched(&self, replica: usize, prefix: &[u64]) -> usize {
        self.caches[replica].leading(prefix)
    }

    /// The part of a prompt that a replica has.
    #[must_use]
    pub fn part(&self, replica: usize, prefix: &[u64]) -> f64 {
        self.matched(replica, prefix) as f64 / (prefix.len() as f64).max(1.0)
    }

    /// A prompt went to a replica.
    pub fn insert(&mut self, replica: usize, prefix: &[u64]) {
        let cache = &mut self.caches[replica];
        for block in prefix {
            cache.pin(*block);
        }
        cache.unpin(prefix);
        let surplus = cache.unpinned().0.saturating_sub(self.blocks_max);
        cache.evict(Tokens(surplus));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_what_went_where_and_forgets_the_oldest() {
        let mut index = Index::new(2, 4);
        index.insert(1, &[1, 2, 3]);
        assert_eq!((index.matched(0, &[1, 2]), index.matched(1, &[1, 2, 9])), (0, 2));
        index.insert(1, &[7, 8, 9]);
        assert_eq!((index.matched(1, &[1, 2, 3]), index.matched(1, &[7, 8, 9])), (1, 3));
    }
}
