//! How many places of an engine are kept free for tenants below their share. Without
//! them a light tenant's call finds every place taken by whoever floods, and its first
//! token waits until one falls free; nothing that runs can be taken back.
//!
//! While an engine is full, places fall free at the rate of its completions and light
//! calls take them at the rate of their arrivals: a queue of one server, so that with r
//! places kept a light call finds none with a chance of (arrivals / completions)^r. The
//! least r that brings it to one in a hundred is kept, at most a sixteenth of all places:
//! about half of that stands idle, which costs an engine that batches under 3 % (one
//! place of 16, four of 64). With no light arrivals of late, nothing is kept; and a
//! tenant that is alone is never above its share, so nothing is kept from it.

use seawall_model::At;

/// The time that "of late" means: this part of it and the one before.
const EPOCH_MICROS: u64 = 5_000_000;
/// At most this part of all places is kept, rounded down.
const PART_MAX: u32 = 16;
/// One, and the chance of finding no place, in fixed point.
const ONE: u64 = 1 << 16;
const CHANCE: u64 = ONE / 100;

/// The epoch that holds a moment.
pub(crate) const fn epoch(now: At) -> u64 {
    now.0 / EPOCH_MICROS
}

/// Something counted over this epoch and the one before it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lately {
    epoch: u64,
    now: u64,
    before: u64,
}

impl Lately {
    fn roll(&mut self, epoch: u64) {
        if epoch > self.epoch {
            self.before = if epoch == self.epoch + 1 { self.now } else { 0 };
            (self.epoch, self.now) = (epoch, 0);
        }
    }

    pub(crate) fn add(&mut self, amount: u64, epoch: u64) {
        self.roll(epoch);
        self.now = self.now.saturating_add(amount);
    }

    /// Of both epochs together.
    fn sum(mut self, epoch: u64) -> u64 {
        self.roll(epoch);
        self.now + self.before
    }

    /// Of the epoch with more: what is counted once in each is then counted once.
    pub(crate) fn most(mut self, epoch: u64) -> u64 {
        self.roll(epoch);
        self.now.max(self.before)
    }
}

/// What decides how many places an engine keeps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Headroom {
    arrivals: Lately,
    ends: Lately,
}

impl Headroom {
    /// A call came whose tenant had nothing waiting and was below its share.
    pub(crate) fn light_came(&mut self, now: At) {
        self.arrivals.add(1, epoch(now));
    }

    /// A call left its place.
    pub(crate) fn ended(&mut self, now: At) {
        self.ends.add(1, epoch(now));
    }

    /// Of so many places, are the free ones all kept?
    pub(crate) fn keeps(&self, free: u32, of: u32, now: At) -> bool {
        free > 0 && free <= of / PART_MAX && free <= self.places(free, now)
    }

    /// Places to keep, at most `most`.
    fn places(&self, most: u32, now: At) -> u32 {
        let arrivals = self.arrivals.sum(epoch(now));
        if arrivals == 0 {
            return 0;
        }
        let ends = self.ends.sum(epoch(now)).max(arrivals);
        let (mut kept, mut chance) = (0, ONE);
        while chance > CHANCE && kept < most {
            chance = chance.saturating_mul(arrivals) / ends;
            kept += 1;
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headroom(arrivals: u64, ends: u64) -> Headroom {
        let mut headroom = Headroom::default();
        for _ in 0..arrivals {
            headroom.light_came(At(0));
        }
        for _ in 0..ends {
            headroom.ended(At(0));
        }
        headroom
    }

    #[test]
    fn places_follow_the_light_arrivals() {
        assert_eq!(headroom(0, 100).places(256, At(0)), 0, "nobody light");
        assert_eq!(headroom(1, 100).places(256, At(0)), 1);
        assert_eq!(headroom(10, 100).places(256, At(0)), 2);
        assert_eq!(headroom(50, 100).places(256, At(0)), 7);
        assert_eq!(headroom(50, 0).places(256, At(0)), 256, "nothing falls free");
        assert!(headroom(50, 100).keeps(7, 256, At(0)) && !headroom(50, 100).keeps(8, 256, At(0)));
        assert!(headroom(99, 100).keeps(16, 256, At(0)), "a sixteenth");
        assert!(!headroom(99, 100).keeps(17, 256, At(0)), "and no more");
        assert!(!headroom(99, 100).keeps(1, 15, At(0)), "too few to keep any");
    }

    #[test]
    fn what_is_long_past_counts_no_more() {
        let mut headroom = headroom(50, 100);
        assert_eq!(headroom.places(256, At(EPOCH_MICROS)), 7, "the last epoch counts");
        assert_eq!(headroom.places(256, At(2 * EPOCH_MICROS)), 0);
        headroom.ended(At(2 * EPOCH_MICROS));
        assert_eq!(headroom.places(256, At(2 * EPOCH_MICROS)), 0);
    }
}
