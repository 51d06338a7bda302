//! The model of an engine under load: continuous batching over a fixed number of slots
//! and a KV budget in tokens, with chunked prefill, a prefix cache, first-in-first-out
//! queueing, and preemption by recomputation, as in vLLM's scheduler.
//!
//! The clock is passed in. Work goes in steps; the length of a step follows [`Pace`].
//! Everything a step did shows at its end. A caller who wants the time of each event
//! calls [`Engine::advance`] at each [`Engine::next_step`].

use std::collections::VecDeque;

use seawall_model::{At, Tokens};

use crate::pace::Pace;
use crate::prefix::Cache;
use crate::rng::Rng;

/// How an engine is built.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Sequences that run together (vLLM's `max_num_seqs`).
    pub slots: u32,
    /// KV memory, for running sequences and cached prefixes together.
    pub kv_tokens: Tokens,
    /// Prompt tokens computed in one step, over all sequences.
    pub prefill_chunk: Tokens,
    /// Jobs that may wait; the next is refused.
    pub queue_len_max: u32,
    /// Tokens that one hash of [`Job::prefix`] stands for.
    pub block_tokens: Tokens,
    /// How long steps take.
    pub pace: Pace,
    /// Is memory for all of a job's output kept for it from the start (LightLLM, S-LoRA), so
    /// that none is ever preempted? Otherwise it grows token by token (vLLM).
    pub reserves: bool,
    /// Steps take up to this much longer or shorter, evenly drawn.
    pub jitter_percent: u32,
    /// Seed of the jitter.
    pub seed: u64,
}

impl Default for Spec {
    /// One mid-sized card with vLLM's usual settings.
    fn default() -> Self {
        Self {
            slots: 256,
            kv_tokens: Tokens(400_000),
            prefill_chunk: Tokens(2_048),
            queue_len_max: 10_000,
            block_tokens: Tokens(16),
            pace: Pace::default(),
            reserves: false,
            jitter_percent: 0,
            seed: 0,
        }
    }
}

/// One request to generate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The caller's name for it; unique among the jobs in the engine.
    pub id: u64,
    /// Prompt length; zero counts as one.
    pub prompt: Tokens,
    /// Chained hashes of the prompt's leading blocks, see [`crate::prefix::chain`].
    /// Hashes beyond the prompt's length are ignored.
    pub prefix: Box<[u64]>,
    /// Tokens to generate. With zero (an embedding) the job is done after its prefill.
    pub output: Tokens,
}

/// What happened to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its prompt is computed and its first token (index 0) generated.
    FirstToken {
        /// The job.
        id: u64,
        /// Prompt tokens found in the prefix cache when it was first scheduled.
        cached: Tokens,
    },
    /// A further token was generated.
    Token {
        /// The job.
        id: u64,
        /// Counted from 0, so at least 1 here.
        index: u32,
    },
    /// All its tokens are generated. Comes after the last token, once.
    Done {
        /// The job.
        id: u64,
    },
    /// It lost its memory to older jobs and waits to be computed again.
    Preempted {
        /// The job.
        id: u64,
    },
}

/// Why a job is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// As many wait as may.
    #[error("the engine's queue is full")]
    Queue,
    /// Prompt and output exceed the engine's whole KV memory: it could never run.
    #[error("prompt and output do not fit the engine's KV memory")]
    Context,
}

/// What can be seen of an engine from outside. Totals count from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Jobs in slots.
    pub running: u32,
    /// Jobs waiting for one.
    pub waiting: u32,
    /// Tokens held by running jobs, shared prefixes counted once.
    pub kv_used: Tokens,
    /// Tokens of prefixes kept although nothing uses them now.
    pub kv_cached: Tokens,
    /// All KV memory.
    pub kv_tokens: Tokens,
    /// Prompt tokens looked up in the prefix cache.
    pub prefix_queries: Tokens,
    /// Of these, found.
    pub prefix_hits: Tokens,
    /// Jobs taken in.
    pub submitted: u64,
    /// Jobs refused.
    pub refused: u64,
    /// Jobs done.
    pub finished: u64,
    /// Jobs cancelled.
    pub cancelled: u64,
    /// Times a job lost its memory.
    pub preempted: u64,
    /// Prompt tokens of jobs that reached their first token or their end.
    pub prompt_tokens: Tokens,
    /// Tokens generated.
    pub generated_tokens: Tokens,
    /// Steps done.
    pub steps: u64,
    /// Time spent in steps, in microseconds.
    pub busy_us: u64,
}

/// A job inside the engine.
#[derive(Clone, Debug)]
struct Sequence {
    id: u64,
    prompt: u64,
    output: u64,
    generated: u64,
    /// Prompt (and, after a preemption, generated) tokens still to be computed.
    to_prefill: u64,
    /// How many of these the current step computes.
    prefilling: u64,
    /// Does the current step work on it?
    scheduled: bool,
    /// Tokens of memory held alone; pinned blocks come on top.
    private: u64,
    /// Leading blocks of `prefix` that it has pinned.
    pinned: usize,
    prefix: Box<[u64]>,
    /// Found in the cache at its first scheduling.
    cached: Option<u64>,
    since: At,
}

/// The engine.
#[derive(Clone, Debug)]
pub struct Engine {
    spec: Spec,
    waiting: VecDeque<Sequence>,
    /// Oldest admission first, so the youngest is the last.
    running: Vec<Sequence>,
    cache: Cache,
    private: u64,
    step_ends: Option<At>,
    /// The latest time passed in: time never runs backwards here.
    seen: At,
    rng: Rng,
    totals: State,
}

impl Engine {
    /// An idle engine.
    ///
    /// # Panics
    /// When the spec has no slot, no memory, or no prefill chunk: it could never work.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        assert!(spec.slots > 0, "an engine without slots never works");
        assert!(spec.kv_tokens > Tokens::ZERO, "an engine without memory never works");
        assert!(spec.prefill_chunk > Tokens::ZERO, "an engine that computes no prompt never works");
        Self {
            waiting: VecDeque::new(),
            running: Vec::with_capacity(spec.slots.min(4_096) as usize),
            cache: Cache::new(spec.block_tokens),
            private: 0,
            step_ends: None,
            seen: At::default(),
            rng: Rng::branch(spec.seed, 0x57e9),
            totals: State::default(),
            spec,
        }
    }

    /// How it was built.
    #[must_use]
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Takes in a job. If the engine was idle, its first step starts now.
    ///
    /// # Errors
    /// When the queue is full or the job can never fit.
    pub fn submit(&mut self, now: At, job: Job) -> Result<(), Full> {
        let prompt = job.prompt.0.max(1);
        if prompt.saturating_add(job.output.0) > self.spec.kv_tokens.0 {
            self.totals.refused += 1;
            return Err(Full::Context);
        }
        if self.waiting.len() >= self.spec.queue_len_max as usize {
            self.totals.refused += 1;
            return Err(Full::Queue);
        }
        self.seen = self.seen.max(now);
        self.totals.submitted += 1;
        // The last prompt token is always computed: its output is the first token.
        let blocks = usize::try_from((prompt - 1) / self.spec.block_tokens.0).unwrap_or(usize::MAX);
        let mut prefix = job.prefix;
        if prefix.len() > blocks {
            prefix = prefix[..blocks].into();
        }
        self.waiting.push_back(Sequence {
            id: job.id,
            prompt,
            output: job.output.0,
            generated: 0,
            to_prefill: prompt,
            prefilling: 0,
            scheduled: false,
            private: 0,
            pinned: 0,
            prefix,
            cached: None,
            since: self.seen,
        });
        if self.step_ends.is_none() {
            // Nothing runs, so nothing can be preempted here.
            self.begin(self.seen, &mut Vec::new());
        }
        Ok(())
    }

    /// Takes out a job, waiting or running, and frees its memory at once. A step under
    /// way still takes its time. False when there is no such job.
    pub fn cancel(&mut self, now: At, id: u64) -> bool {
        if let Some(at) = self.running.iter().position(|sequence| sequence.id == id) {
            let sequence = self.running.remove(at);
            self.free(&sequence);
        } else if let Some(at) = self.waiting.iter().position(|sequence| sequence.id == id) {
            self.waiting.remove(at);
        } else {
            return false;
        }
        self.seen = self.seen.max(now);
        self.totals.cancelled += 1;
        true
    }

    /// When the current step ends; `None` when idle.
    #[must_use]
    pub const fn next_step(&self) -> Option<At> {
        self.step_ends
    }

    /// Ends every step that is due and starts the next ones. Appends what happened, in
    /// order: by step, then by age.
    pub fn advance(&mut self, now: At, out: &mut Vec<Event>) {
        self.seen = self.seen.max(now);
        while let Some(ends) = self.step_ends.filter(|ends| *ends <= now) {
            self.end(out);
            self.begin(ends, out);
        }
    }

    /// What can be seen from outside.
    #[must_use]
    pub fn state(&self) -> State {
        State {
            running: u32::try_from(self.running.len()).unwrap_or(u32::MAX),
            waiting: u32::try_from(self.waiting.len()).unwrap_or(u32::MAX),
            kv_used: Tokens(self.private) + self.cache.pinned(),
            kv_cached: self.cache.unpinned(),
            kv_tokens: self.spec.kv_tokens,
            ..self.totals
        }
    }

    /// Is this job waiting (rather than running, or not here)?
    #[must_use]
    pub fn is_waiting(&self, id: u64) -> bool {
        self.waiting.iter().any(|sequence| sequence.id == id)
    }

    // ---- a step --------------------------------------------------------------------

    /// Plans and starts the next step at `at`, or leaves the engine idle.
    fn begin(&mut self, mut at: At, out: &mut Vec<Event>) {
        self.step_ends = None;
        if self.running.is_empty() {
            let Some(first) = self.waiting.front() else { return };
            // A job handed in while an overdue step stood open starts no earlier than that.
            at = at.max(first.since);
        }
        self.make_room(out);
        let mut budget = self.spec.prefill_chunk.0;
        let mut batch = 0;
        for sequence in &mut self.running {
            sequence.prefilling = sequence.to_prefill.min(budget);
            budget -= sequence.prefilling;
            sequence.scheduled = sequence.to_prefill == 0 || sequence.prefilling > 0;
            batch += u64::from(sequence.scheduled);
            if sequence.to_prefill == 0 {
                sequence.private += 1;
                self.private += 1;
            }
        }
        while budget > 0 && self.running.len() < self.spec.slots as usize {
            let Some(mut sequence) = self.admit(at) else { break };
            sequence.prefilling = sequence.to_prefill.min(budget);
            sequence.scheduled = true;
            budget -= sequence.prefilling;
            batch += 1;
            self.running.push(sequence);
        }
        assert!(batch > 0, "an engine with work always schedules some: the oldest job fits alone");
        let length = self.spec.pace.step_us(batch, Tokens(self.spec.prefill_chunk.0 - budget));
        let length = self.jitter(length);
        self.totals.busy_us = self.totals.busy_us.saturating_add(length);
        self.step_ends = Some(At(at.0.saturating_add(length)));
        debug_assert!(self.occupied() <= self.spec.kv_tokens.0, "the KV budget holds");
    }

    /// Frees one token for every decoding sequence: first from unused prefixes, then by
    /// preempting the youngest.
    fn make_room(&mut self, out: &mut Vec<Event>) {
        loop {
            let wanted = self.running.iter().filter(|sequence| sequence.to_prefill == 0).count() as u64;
            if self.reserve(wanted) {
                return;
            }
            let Some(mut youngest) = self.running.pop() else {
                return;
            };
            self.free(&youngest);
            self.totals.preempted += 1;
            out.push(Event::Preempted { id: youngest.id });
            youngest.private = 0;
            youngest.pinned = 0;
            youngest.to_prefill = youngest.prompt + youngest.generated;
            youngest.prefilling = 0;
            youngest.scheduled = false;
            self.waiting.push_front(youngest);
        }
    }

    /// Takes the longest-waiting job if there is memory for all of its prompt, and, while
    /// others run, for a margin of 1 % that keeps it from being preempted at once.
    fn admit(&mut self, at: At) -> Option<Sequence> {
        let first = self.waiting.front().filter(|first| first.since <= at)?;
        let found = self.cache.leading(&first.prefix);
        let hit = found as u64 * self.spec.block_tokens.0;
        let wanted = first.to_prefill - hit;
        let margin = if self.running.is_empty() { 0 } else { self.spec.kv_tokens.0 / 100 };
        // Unused blocks that this job is about to use cannot be evicted to make room for it.
        let kept = self.cache.unpinned_of(&first.prefix[..found]) * self.spec.block_tokens.0;
        if self.occupied() - self.cache.unpinned().0 + kept + wanted + margin > self.spec.kv_tokens.0 {
            return None;
        }
        if self.spec.reserves && !self.fits_to_its_end(first) {
            return None;
        }
        let mut sequence = self.waiting.pop_front()?;
        for hash in &sequence.prefix[..found] {
            self.cache.pin(*hash);
        }
        let room = self.reserve(wanted);
        assert!(room, "room was counted before the job was taken");
        sequence.pinned = found;
        sequence.to_prefill = wanted;
        sequence.private = wanted;
        self.private += wanted;
        if sequence.cached.is_none() {
            sequence.cached = Some(hit);
            self.totals.prefix_queries += Tokens(sequence.prompt);
            self.totals.prefix_hits += Tokens(hit);
        }
        Some(sequence)
    }

    /// Will memory suffice for this job and all that run until each has ended? The peak lies
    /// where one of them ends: those with no more left to generate are gone by then, and the
    /// others have grown by as much (S-LoRA, `slora/server/router/req_queue.py`).
    fn fits_to_its_end(&self, job: &Sequence) -> bool {
        let all = self.running.iter().chain(std::iter::once(job));
        let mut sizes: Vec<(u64, u64)> = all
            .map(|sequence| (sequence.output - sequence.generated, sequence.prompt + sequence.generated))
            .collect();
        sizes.sort_unstable_by_key(|(left, _)| std::cmp::Reverse(*left));
        let (mut held, mut count) = (0, 0);
        sizes.iter().all(|(left, size)| {
            held += size;
            count += 1;
            held + left * count <= self.spec.kv_tokens.0
        })
    }

    /// Ends the current step: prompts move on, tokens appear, jobs end.
    fn end(&mut self, out: &mut Vec<Event>) {
        self.totals.steps += 1;
        let mut running = std::mem::take(&mut self.running);
        running.retain_mut(|sequence| {
            if !std::mem::take(&mut sequence.scheduled) {
                return true;
            }
            if sequence.to_prefill > 0 {
                sequence.to_prefill -= sequence.prefilling;
                if sequence.to_prefill > 0 {
                    return true;
                }
                self.share(sequence);
            }
            self.emit(sequence, out);
            let more = sequence.generated < sequence.output;
            if !more {
                self.free(sequence);
                self.totals.finished += 1;
                out.push(Event::Done { id: sequence.id });
            }
            more
        });
        self.running = running;
    }

    /// One more token of a sequence whose context is computed.
    fn emit(&mut self, sequence: &mut Sequence, out: &mut Vec<Event>) {
        if sequence.generated == 0 {
            self.totals.prompt_tokens += Tokens(sequence.prompt);
        }
        if sequence.output == 0 {
            return;
        }
        out.push(if sequence.generated == 0 {
            Event::FirstToken { id: sequence.id, cached: Tokens(sequence.cached.unwrap_or(0)) }
        } else {
            Event::Token { id: sequence.id, index: u32::try_from(sequence.generated).unwrap_or(u32::MAX) }
        });
        sequence.generated += 1;
        self.totals.generated_tokens += Tokens(1);
    }

    /// Puts a computed prompt's blocks into the prefix cache; what another sequence put
    /// there meanwhile is shared and the own copy dropped.
    fn share(&mut self, sequence: &mut Sequence) {
        for hash in &sequence.prefix[sequence.pinned..] {
            self.cache.pin(*hash);
            sequence.private -= self.spec.block_tokens.0;
            self.private -= self.spec.block_tokens.0;
        }
        sequence.pinned = sequence.prefix.len();
    }

    fn free(&mut self, sequence: &Sequence) {
        self.private -= sequence.private;
        self.cache.unpin(&sequence.prefix[..sequence.pinned]);
    }

    // ---- memory --------------------------------------------------------------------

    fn occupied(&self) -> u64 {
        self.private + self.cache.pinned().0 + self.cache.unpinned().0
    }

    /// Makes `wanted` tokens free, evicting unused prefixes; false when there is no room.
    fn reserve(&mut self, wanted: u64) -> bool {
        let free = self.spec.kv_tokens.0 - self.occupied();
        if free < wanted {
            self.cache.evict(Tokens(wanted - free));
        }
        self.spec.kv_tokens.0 - self.occupied() >= wanted
    }

    fn jitter(&mut self, length: u64) -> u64 {
        let span = length.saturating_mul(u64::from(self.spec.jitter_percent.min(100))) / 100;
        if span == 0 { length } else { (length - span + self.rng.below(2 * span + 1)).max(1) }
    }
}
