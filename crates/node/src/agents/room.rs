//! How full the disk's budget is, counting what is on its way to the disk at this moment:
//! so that tasks that come all at once are not let in one by one into the same room.

use std::sync::{Arc, Mutex, PoisonError};

use seawall_store::journal::Blobs;

use super::scribe::Kept;

/// The budget of journal and blobs, and what is used of it.
#[derive(Clone, Debug)]
pub struct DiskRoom {
    blobs: Blobs,
    kept: Arc<Mutex<Kept>>,
    books: Arc<Mutex<Books>>,
}

#[derive(Debug, Default)]
struct Books {
    /// Bytes of the journal, as the scribe found them last.
    journal: u64,
    /// Bytes of payloads that are being written.
    coming: u64,
}

/// Room that a payload has while it is written: afterwards it counts as what it is.
#[derive(Debug)]
#[must_use]
pub struct Reserved {
    books: Arc<Mutex<Books>>,
    bytes: u64,
}

impl DiskRoom {
    /// The room for these blobs and their journal.
    #[must_use]
    pub fn new(blobs: Blobs, kept: Arc<Mutex<Kept>>) -> Self {
        Self { blobs, kept, books: Arc::default() }
    }

    /// The journal has so many bytes.
    pub fn found(&self, journal: u64) {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).journal = journal;
    }

    /// Bytes used and allowed. Blobs that nobody has counted yet are not among them.
    #[must_use]
    pub fn figures(&self) -> (u64, u64) {
        let books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        (self.used(&books), self.allowed())
    }

    /// Room for a payload of something new; `None` if the budget has none.
    #[must_use]
    pub fn reserve(&self, bytes: u64) -> Option<Reserved> {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        if self.used(&books).saturating_add(bytes) > self.allowed() {
            return None;
        }
        books.coming += bytes;
        Some(Reserved { books: self.books.clone(), bytes })
    }

    fn used(&self, books: &Books) -> u64 {
        let blobs = self.blobs.counted().unwrap_or_default();
        books.journal.saturating_add(blobs).saturating_add(books.coming)
    }

    fn allowed(&self) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).bytes_max
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).coming -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use seawall_model::Millis;
    use seawall_store::journal::Journal;

    use super::*;

    #[test]
    fn what_is_on_its_way_takes_room_like_what_is_there() {
        let journal = Journal::in_memory().expect("memory");
        let kept = Kept { bytes_max: 200_000, span: Millis(1) };
        let room = DiskRoom::new(journal.blobs().clone(), Arc::new(Mutex::new(kept)));
        room.found(50_000);
        let one = room.reserve(100_000).expect("there is room");
        assert!(room.reserve(100_000).is_none(), "the first is on its way");
        assert_eq!(room.figures(), (150_000, 200_000));
        let _ = journal.blobs().put(vec![7; 100_000]).expect("kept");
        drop(one);
        assert_eq!(room.figures(), (150_000, 200_000), "it is there now");
        assert!(room.reserve(50_001).is_none() && room.reserve(50_000).is_some());
    }
}
