//! The thread that owns the journal. While one transaction is on its way to the disk, the
//! next gathers on the desk: a group commit, without a timer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use seawall_kernel::agents::{Batch, Input};
use seawall_model::durable::{AgentRow, RunRow};
use seawall_model::journal::Entry;
use seawall_model::{Address, At, Millis, limits};
use seawall_store::Error;
use seawall_store::journal::{Journal, Retention, Room};
use tokio::sync::broadcast;

use crate::clock;

use super::desk::{Desk, Pile};
use super::room::DiskRoom;

/// How long the scribe waits for something to write before it tidies up.
const IDLE: Duration = Duration::from_millis(500);
/// Between two tries to write to a disk that fails.
const PAUSE: Duration = Duration::from_millis(200);
/// How often the disk budget is looked at.
const ROOM_EVERY: Millis = Millis(1_000);
/// How often records that need not be kept are looked for.
const PRUNE_EVERY: Millis = Millis(10_000);

/// While there is something to write, tidying up rests so many times as long as it took.
const BUSY_SHARE: u64 = 4;

/// Records as they become durable, for whoever listens.
pub type Events = broadcast::Sender<Arc<Entry>>;

/// How often payloads that nothing names any more are looked for. One that is being named
/// at that moment must be safe: a record is never on its way for so long.
const SWEEP_EVERY: Millis = Millis(3_600_000);

/// How much of the past is kept.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Bytes of journal and blobs.
    pub bytes_max: u64,
    /// Runs that are over, and their records, for so long.
    pub span: Millis,
}

/// Beyond the disk budget older records go sooner, but none that is younger than this.
const SPAN_MIN: Millis = Millis(3_600_000);

/// The journal's owner.
pub struct Scribe {
    journal: Journal,
    desk: Arc<Desk>,
    events: Events,
    /// A reload changes it.
    kept: Arc<Mutex<Kept>>,
    /// Who lets new tasks in is told how large the journal is.
    room: DiskRoom,
    /// Where the journal lies.
    folder: PathBuf,
    has_room: bool,
    room_at: At,
    /// A round of cutting back began then,
    pruned_at: At,
    /// and this much is left to do of it.
    pruning: Option<Retention>,
    /// A sweep began then,
    swept_at: At,
    /// and is not over.
    sweeping: bool,
    /// While there is something to write, nothing is tidied up before then.
    tidy_at: At,
}

impl std::fmt::Debug for Scribe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scribe").finish_non_exhaustive()
    }
}

impl Scribe {
    /// A scribe for this journal.
    #[must_use]
    pub fn new(
        journal: Journal,
        folder: PathBuf,
        desk: Arc<Desk>,
        events: Events,
        kept: Arc<Mutex<Kept>>,
        room: DiskRoom,
    ) -> Self {
        let now = clock::now();
        Self {
            journal,
            desk,
            events,
            kept,
            room,
            folder,
            has_room: true,
            room_at: now,
            pruned_at: now,
            pruning: None,
            swept_at: now,
            sweeping: false,
            tidy_at: now,
        }
    }

    /// Writes until the desk is closed.
    pub fn work(mut self) {
        loop {
            let patience = if self.is_tidy() { IDLE } else { Duration::ZERO };
            let Pile { batch, loads, values, due, over } = self.desk.pile(patience);
            let quiet = batch.is_empty() && loads.is_empty() && values.is_empty() && due.is_none();
            let mut inputs = self.write(batch, over);
            inputs.extend(loads.into_iter().map(|address| self.load(address)));
            inputs.extend(values.into_iter().map(|(tenant, key)| {
                let row = self.read("a value", |journal| journal.reader().value(&tenant, &key)).flatten();
                Input::ValueLoaded { tenant, key, row: row.map(Box::new) }
            }));
            inputs.extend(due.and_then(|(from, before, max)| {
                let due =
                    self.read("agents by their time", |journal| journal.reader().due(from, before, max))?;
                Some(Input::DueLoaded { found: due.found, next: due.next })
            }));
            if !inputs.is_empty() {
                self.desk.tell_all(inputs);
            }
            if over && quiet {
                break;
            }
            self.look_after_room();
            self.tidy(quiet);
        }
        if let Err(why) = self.journal.close() {
            tracing::error!(%why, "the journal was not closed; what was durable is");
        }
    }

    /// Makes a batch durable, however often that takes: agents go on only from what is on
    /// the disk.
    fn write(&mut self, batch: Batch, over: bool) -> Vec<Input> {
        if batch.is_empty() {
            return Vec::new();
        }
        let mut tries = 0_u32;
        while let Err(why) = self.journal.append(&batch.entries, &batch.rows) {
            if matches!(why, Error::Fenced { .. } | Error::Gap { .. }) {
                tracing::error!(%why, "another process writes this journal; this one ends");
                std::process::exit(74);
            }
            if tries == 0 {
                tracing::error!(%why, "the journal cannot be written; agents wait until it can");
                self.has_room = false;
                self.desk.tell(Input::Room(false));
            }
            tries += 1;
            if over && tries > 10 {
                return Vec::new();
            }
            if matches!(why, Error::Full) {
                // Older records go sooner: nothing else makes room while nothing is written.
                let retention = self.retention(0);
                if self.journal.prune(&retention).is_ok_and(|pruned| pruned.more) {
                    continue;
                }
            }
            pause();
        }
        if tries > 0 {
            tracing::info!(tries, "the journal can be written again");
        }
        let mut newest: BTreeMap<u8, u64> = BTreeMap::new();
        for entry in batch.entries {
            newest.insert(entry.shard, entry.seq);
            // Nobody may be listening.
            let _ = self.events.send(Arc::new(entry));
        }
        newest.into_iter().map(|(shard, seq)| Input::Durable { shard, seq }).collect()
    }

    /// An agent and all it needs: its runs, those above them, and their agents.
    fn load(&self, address: Address) -> Input {
        let mut agents: Vec<AgentRow> = Vec::new();
        let mut runs: Vec<RunRow> = Vec::new();
        let mut wanted = vec![address.clone()];
        while let Some(next) = wanted.pop() {
            if agents.iter().any(|row| row.address == next) {
                continue;
            }
            let found = self.read("an agent", |journal| journal.reader().load_agent(&next)).flatten();
            let Some((row, above)) = found else { continue };
            agents.push(row);
            for run in above {
                if !runs.iter().any(|known| known.key == run.key) {
                    wanted.push(run.agent.clone());
                    runs.push(run);
                }
            }
        }
        Input::Loaded { address, agents, runs }
    }

    fn read<T>(&self, what: &str, read: impl Fn(&Journal) -> Result<T, Error>) -> Option<T> {
        loop {
            match read(&self.journal) {
                Ok(found) => return Some(found),
                Err(why @ (Error::Corrupt { .. } | Error::Newer { .. })) => {
                    // Going on without it would make it anew, over what is there.
                    tracing::error!(%why, "{what} cannot be read; `seawall audit verify` says more");
                    std::process::exit(74);
                }
                Err(why) => {
                    tracing::error!(%why, "{what} cannot be read; it is tried again");
                    pause();
                }
            }
        }
    }

    fn kept(&self) -> Kept {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_after_room(&mut self) {
        let now = clock::now();
        if now.since(self.room_at) < ROOM_EVERY {
            return;
        }
        self.room_at = now;
        if let Ok(usage) = self.journal.usage() {
            self.room.found(usage.journal_bytes);
        }
        let room = self.journal.room(self.kept().bytes_max).unwrap_or(Room::None);
        // Payloads are put by workers: what they meet the journal itself does not.
        let full = self.desk.was_full() || is_nearly_full(&self.folder, self.has_room);
        let has_room = room == Room::Plenty && !full;
        if has_room != self.has_room {
            self.has_room = has_room;
            if has_room {
                tracing::info!("the journal's disk budget has room again: new runs begin");
            } else {
                tracing::warn!(
                    "the journal's disk budget is used up, or the disk is full: no new runs; raise agents.disk_bytes_max or \
                     lower agents.retention and reload, or free space"
                );
            }
            self.desk.tell(Input::Room(has_room));
        }
    }

    /// What is kept, where journal and blobs may be so large.
    fn retention(&self, bytes_max: u64) -> Retention {
        let now = clock::wall(clock::now());
        let before = |span: Millis| At(now.0.saturating_sub(span.micros()));
        Retention { since: before(self.kept().span), bytes_max, floor: before(SPAN_MIN) }
    }

    /// Is there nothing to tidy up before the next round?
    fn is_tidy(&self) -> bool {
        self.pruning.is_none() && !self.sweeping
    }

    /// Takes one step of cutting back or sweeping up, if one is due: at once while nothing
    /// is to be written, else between what is, for a small share of the time.
    fn tidy(&mut self, quiet: bool) {
        let now = clock::now();
        if now.since(self.pruned_at) >= PRUNE_EVERY && self.pruning.is_none() {
            self.pruned_at = now;
            // For the whole round: what becomes old meanwhile is the next one's.
            self.pruning = Some(self.retention(self.kept().bytes_max / 2));
        }
        if now.since(self.swept_at) >= SWEEP_EVERY && !self.sweeping {
            self.swept_at = now;
            self.sweeping = true;
        }
        if self.is_tidy() || !quiet && now < self.tidy_at {
            return;
        }
        if let Some(retention) = self.pruning {
            let pruned = self.journal.prune(&retention);
            let more = pruned.map(|pruned| pruned.more).unwrap_or_else(|why| {
                tracing::warn!(%why, "old records were not removed");
                false
            });
            self.pruning = Some(retention).filter(|_| more);
        } else {
            let swept = self.journal.sweep();
            self.sweeping = swept.map(|swept| !swept.done).unwrap_or_else(|why| {
                tracing::warn!(%why, "old payloads were not removed");
                false
            });
        }
        let after = clock::now();
        self.tidy_at = At(after.0.saturating_add(after.micros_since(now).saturating_mul(BUSY_SHARE)));
    }
}

/// Is the disk so full that nothing new should begin? Where nobody can say, it is not: what
/// meets a full disk waits.
fn is_nearly_full(folder: &Path, has_room: bool) -> bool {
    let Ok(disk) = rustix::fs::statvfs(folder) else { return false };
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    is_short(bytes(disk.f_blocks), bytes(disk.f_bavail), has_room)
}

/// Is so much free of so much too little? Once it was, a little more is wanted, or every
/// commit would make it so and not so.
fn is_short(size: u64, free: u64, has_room: bool) -> bool {
    let least = limits::DISK_FREE_BYTES_MIN.min(size / 20);
    free < if has_room { least } else { least + least / 4 }
}

#[expect(clippy::disallowed_methods, reason = "a disk has no bell to ring when it works again")]
fn pause() {
    // sleeps because nothing tells when a disk works again; the thread has nothing else to do
    std::thread::sleep(PAUSE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_short_before_it_is_full() {
        let (gib, least) = (1 << 30, limits::DISK_FREE_BYTES_MIN);
        assert!(!is_short(100 * gib, least, true) && is_short(100 * gib, least - 1, true));
        assert!(is_short(100 * gib, least + 1, false) && !is_short(100 * gib, 2 * least, false));
        // Of a small one a twentieth is left.
        assert!(!is_short(1 << 20, 60 << 10, true) && is_short(1 << 20, 50 << 10, true));
        assert!(!is_nearly_full(Path::new("/nowhere/at/all"), true));
    }
}
