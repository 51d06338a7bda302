//! The clients: when they ask, for what, and when they lose patience.

use seawall_kernel::input::Submit;
use seawall_kernel::plan::{Model, Plan};
use seawall_load::arrive::Arrivals;
use seawall_load::rng::{Rng, mix};
use seawall_model::{At, Bytes, CallId, EngineId, Millis, RunId, Tokens};

use crate::calls::{Call, Whim};
use crate::scenario::{Cap, Demand, Law, Scenario, Talk};

/// Tokens of one prefix block in these worlds; small, so that short prompts have some.
pub const BLOCK_TOKENS: u64 = 64;
/// Bytes of a body per prompt token, as for English.
const TOKEN_BYTES: u64 = 4;

/// One demand under way.
#[derive(Debug)]
struct Stream {
    demand: Demand,
    arrivals: Option<Arrivals>,
    rng: Rng,
    from: At,
    until: At,
    /// Calls so far.
    turn: u64,
}

/// All clients.
#[derive(Debug)]
pub struct Crowd {
    streams: Vec<Stream>,
    strict: bool,
    overrun: u64,
}

/// A new call, and when its client leaves.
#[derive(Debug)]
pub struct Arrival {
    /// The call.
    pub call: Call,
    /// Its client leaves then, whatever happens.
    pub leaves: Option<At>,
}

impl Crowd {
    /// The clients of a scenario.
    ///
    /// # Panics
    /// When a demand has a rate that is none.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        let streams = scenario.demands.iter().enumerate().map(|(index, demand)| {
            let seed = mix(scenario.seed ^ mix(0xc01d ^ index as u64));
            let arrivals = match demand.law {
                Law::Open { rps, cv } => {
                    Some(Arrivals::gamma(rps, cv, seed).expect("scenarios name valid rates"))
                }
                Law::Closed { .. } => None,
            };
            let from = scenario.start.plus(demand.from);
            let until = scenario.end().min(scenario.start.plus(demand.until));
            Stream { demand: demand.clone(), arrivals, rng: Rng::branch(seed, 1), from, until, turn: 0 }
        });
        Self { streams: streams.collect(), strict: scenario.strict, overrun: scenario.odds.overrun }
    }

    /// The first arrivals of every demand.
    pub fn begin(&mut self) -> Vec<(At, usize)> {
        let mut all = Vec::new();
        for (index, stream) in self.streams.iter_mut().enumerate() {
            match stream.demand.law {
                Law::Open { .. } => {
                    let from = stream.from;
                    all.extend(stream.next_after(from).map(|at| (at, index)));
                }
                // Workers begin a millisecond apart, so that they are not one burst.
                Law::Closed { workers, .. } => {
                    all.extend(
                        (0..workers).map(|worker| (stream.from.plus(Millis(u64::from(worker))), index)),
                    );
                }
            }
        }
        all
    }

    /// When a demand's next call arrives after one that arrives now.
    pub fn next_arrival(&mut self, now: At, demand: usize) -> Option<At> {
        self.streams[demand].next_after(now)
    }

    /// When a closed demand's client asks again after its call ended.
    pub fn next_of_worker(&mut self, now: At, demand: usize, retry_after: Option<Millis>) -> Option<At> {
        let stream = &mut self.streams[demand];
        let Law::Closed { think, .. } = stream.demand.law else {
            return None;
        };
        let pause = think.micros() + retry_after.map_or(0, Millis::micros);
        let at = At(now.0 + pause + 1 + stream.rng.below(pause / 4 + 1_000));
        (at < stream.until).then_some(at)
    }

    /// Makes the call that arrives now.
    pub fn ask(&mut self, now: At, index: usize, id: CallId, plan: &Plan) -> Arrival {
        let (strict, overrun) = (self.strict, self.overrun);
        let Stream { demand, rng, turn, .. } = &mut self.streams[index];
        *turn += 1;
        let prompt = demand.prompt.sample(rng).0.max(1);
        let natural = demand.output.sample(rng).0.max(1);
        let generates = rng.below(100) >= demand.silent;
        let output_max = match demand.cap {
            Cap::None => None,
            Cap::Exact => Some(Tokens(natural)),
            Cap::Times(times) => Some(Tokens(natural * times)),
        };
        let model = pick(&demand.models, rng);
        let known: Option<&Model> = plan.models.iter().find(|known| known.id == model);
        // An engine stops at the limit it was given, or at the model's own.
        let most = output_max.or(known.map(|model| model.output_tokens_max)).map_or(natural, |most| most.0);
        let mut output = natural.min(most);
        if !strict && rng.below(1_000) < overrun {
            output = output * 2 + 10;
        }
        // Seawall counts tokens by bytes: too high or too low at times. The upper bound is
        // one where something depends on it.
        let estimate = (prompt * 3 / 4 + rng.below(prompt / 2 + 1)).max(1);
        let bound = if strict { prompt.max(estimate) } else { estimate };
        let prompt_max = if rng.chance(0.5) { bound } else { bound + rng.below(prompt / 2 + 1) };
        let nth = match demand.talk {
            Talk::PingPong => Some(1 + *turn % 2),
            _ => (demand.runs > 0).then(|| rng.below(demand.runs)),
        };
        // Of every four runs one is the parent of the others, and so on upwards.
        let parent = nth.filter(|nth| nth % 4 > 0).map(|nth| run(now, index as u64, nth / 4));
        let run = nth.map(|nth| run(now, index as u64, nth));
        let work = work(demand.talk, id, index as u64, nth, rng);
        let (odds, most) = demand.deadline;
        let deadline = (rng.below(100) < odds).then(|| At(now.0 + 1_000 + rng.below(most.micros().max(1))));
        let blocks = prompt / BLOCK_TOKENS;
        let shared = demand.shared_blocks.min(blocks);
        let submit = Submit {
            call: id,
            tenant: demand.tenant.clone(),
            model,
            targets: targets(known.map_or(&[], |model| &model.targets), demand.narrow, rng),
            class: pick(&demand.classes, rng),
            run,
            parent,
            agent: None,
            work: work.filter(|_| generates),
            prompt: Tokens(estimate),
            prompt_max: Tokens(prompt_max),
            output_max,
            generates,
            bytes: Bytes(prompt * TOKEN_BYTES),
            deadline,
            prefix: prefix(index as u64, shared, blocks - shared, rng),
        };
        let (leaves, whim) = patience(now, demand, rng);
        let call = Call {
            prompt,
            output: if generates { output } else { 0 },
            stream: generates && rng.below(100) < demand.stream,
            demand: index,
            whim,
            price: known.map(|model| model.price).unwrap_or_default(),
            // All targets of these models have the same name for them.
            upstream: known.and_then(|model| model.upstreams.first().copied()),
            ..Call::new(submit, now)
        };
        Arrival { call, leaves }
    }
}

fn pick<T: Copy>(all: &[T], rng: &mut Rng) -> T {
    all[rng.below(all.len() as u64) as usize]
}

/// What a call asks for, as a number.
fn work(talk: Talk, id: CallId, demand: u64, nth: Option<u64>, rng: &mut Rng) -> Option<u64> {
    match talk {
        Talk::None => None,
        Talk::Onward if rng.below(10) > 0 => Some(mix(id.0)),
        Talk::Onward => Some(mix(0xa5 ^ demand)),
        Talk::PingPong => nth,
    }
}

/// The root of a demand's runs.
#[must_use]
pub(crate) fn root(now: At, demand: usize) -> RunId {
    run(now, demand as u64, 0)
}

/// A demand's runs last half a minute; then there are others.
fn run(now: At, demand: u64, nth: u64) -> RunId {
    RunId(mix(mix(now.0 / 30_000_000) ^ mix(demand)) ^ nth)
}

/// The targets that can serve a call: now and then not all, as when a protocol has no
/// translation, but always one.
fn targets(every: &[EngineId], narrow: u64, rng: &mut Rng) -> Vec<EngineId> {
    if rng.below(100) >= narrow || every.is_empty() {
        return every.to_vec();
    }
    let kept = pick(every, rng);
    every.iter().copied().filter(|target| *target == kept || rng.chance(0.5)).collect()
}

impl Stream {
    fn next_after(&mut self, now: At) -> Option<At> {
        let gap = self.arrivals.as_mut()?.next()?;
        let at = At(now.0.saturating_add(gap));
        (at < self.until).then_some(at)
    }
}

/// Chained hashes: the demand's own leading blocks, then blocks of this prompt alone.
fn prefix(demand: u64, shared: u64, own: u64, rng: &mut Rng) -> Box<[u64]> {
    let mut hash = mix(demand);
    let shared = (0..shared).map(|block| (block, 0));
    let salt = rng.next_u64();
    let own = (0..own).map(|block| (block, salt));
    let link = |(block, salt): (u64, u64)| {
        hash = mix(hash ^ mix(block ^ salt));
        hash
    };
    shared.chain(own).map(link).take(seawall_model::limits::PREFIX_BLOCKS_MAX).collect()
}

/// When the client leaves, and on what occasion.
fn patience(now: At, demand: &Demand, rng: &mut Rng) -> (Option<At>, Whim) {
    if rng.below(100) >= demand.leave {
        return (None, Whim::Stay);
    }
    match rng.below(6) {
        0 => (None, Whim::AtFirst),
        1 => (None, Whim::AtEnd),
        // In the moment of asking.
        2 => (Some(now), Whim::Stay),
        // While it is likely to be queued, or before the first token.
        3 => (Some(At(now.0 + rng.below(100_000))), Whim::Stay),
        // Anywhere in the middle.
        _ => (Some(At(now.0 + rng.below(5_000_000))), Whim::Stay),
    }
}
