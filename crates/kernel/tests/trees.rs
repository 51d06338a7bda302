//! Fairness among trees of runs: one that fans out gets no more for it, and none of its
//! children is forgotten; and a tree that grows without end is told so.

use std::collections::{BTreeMap, VecDeque};

use seawall_kernel::plan::{CostRule, Engine, Model, Pace, Price, QueueRule, Rate, Replica};
use seawall_kernel::{Effect, Input, Kernel, Plan, Submit};
use seawall_model::{
    At, Bytes, CallId, Class, Code, EngineId, Millis, ModelId, ReplicaId, RunId, Tenant, Tokens, Usage,
    limits,
};

const START: At = At(1_700_000_000_000_000);

/// Runs of a fan-out are numbered from here up, as children of run 1.
const CHILDREN: u64 = 1_000;

fn plan(places: u32) -> Plan {
    let patient = Millis(100_000_000);
    Plan {
        engines: vec![Engine {
            id: EngineId(1),
            name: "engine".into(),
            replicas: vec![Replica { id: ReplicaId(1) }],
            pace: Pace { calls_max: places, adaptive: false, ..Pace::default() },
            rate: Rate::default(),
            cost: CostRule::default(),
        }],
        models: vec![Model {
            id: ModelId(1),
            targets: vec![EngineId(1)],
            upstreams: Vec::new(),
            price: Price::default(),
            context_tokens_max: None,
            output_tokens_max: Tokens(1_000),
        }],
        queue: QueueRule {
            wait_ms_max: patient,
            ageing_ms: patient,
            len_max: 20_000,
            tenant_len_max: 20_000,
            ..QueueRule::default()
        },
        ..Plan::default()
    }
}

/// One tenant's runs that all keep calls waiting; each call ends in the order of its start.
struct World {
    kernel: Kernel,
    now: At,
    next: u64,
    dice: u64,
    running: VecDeque<CallId>,
    asks: BTreeMap<CallId, (u64, Option<u64>)>,
    /// Cost served, by run.
    served: BTreeMap<u64, u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            kernel: Kernel::new(START, plan(4)),
            now: START,
            next: 0,
            dice: seed,
            running: VecDeque::new(),
            asks: BTreeMap::new(),
            served: BTreeMap::new(),
        }
    }

    /// SplitMix64.
    fn below(&mut self, bound: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.dice ^ (self.dice >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        self.now = At(self.now.0 + 100);
        self.kernel.step(self.now, input, &mut out);
        for effect in &out {
            if let Effect::Dispatch(grant) = effect {
                self.running.push_back(grant.call);
            }
        }
        out
    }

    fn ask(&mut self, run: u64, parent: Option<u64>) -> Vec<Effect> {
        self.next += 1;
        let call = CallId(self.next);
        self.asks.insert(call, (run, parent));
        let prompt = Tokens(50 + self.below(400));
        self.step(Input::Submit(Box::new(Submit {
            call,
            tenant: Tenant::local(),
            model: ModelId(1),
            targets: vec![EngineId(1)],
            class: Class::Agent,
            run: Some(RunId(run)),
            parent: parent.map(RunId),
            agent: None,
            work: None,
            prompt,
            prompt_max: prompt,
            output_max: Some(Tokens(300)),
            generates: true,
            bytes: Bytes(1),
            deadline: None,
            prefix: Box::default(),
        })))
    }

    /// The call that runs longest ends; its run asks again.
    fn serve(&mut self) {
        let call = self.running.pop_front().expect("all places are taken");
        let (run, parent) = self.asks[&call];
        let usage = Usage {
            input: Tokens(50 + self.below(400)),
            output: Tokens(self.below(300)),
            ..Usage::default()
        };
        *self.served.entry(run).or_default() += usage.input.0 + 2 * usage.output.0;
        self.step(Input::Finished { call, usage, finish: None });
        self.ask(run, parent);
    }
}

/// Jain's index: 1 for equal shares, 1/n for all to one.
fn jain(shares: &[u64]) -> f64 {
    let sum: f64 = shares.iter().map(|share| *share as f64).sum();
    let squares: f64 = shares.iter().map(|share| (*share as f64).powi(2)).sum();
    sum * sum / (shares.len() as f64 * squares)
}

#[test]
fn a_tree_that_fans_out_into_fifty_gets_one_share() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        for run in 1..=10 {
            world.ask(run, None);
            world.ask(run, None);
        }
        for child in 0..50 {
            // Half of them are grandchildren.
            let parent = if child % 2 == 0 { 1 } else { CHILDREN + child - 1 };
            world.ask(CHILDREN + child, Some(parent));
        }
        for round in 0..6_000 {
            world.serve();
            if round % 500 == 0 {
                world.kernel.check();
            }
        }
        let of = |runs: &dyn Fn(u64) -> bool| -> u64 {
            world.served.iter().filter(|(run, _)| runs(**run)).map(|(_, served)| served).sum()
        };
        let mut trees = vec![of(&|run| run == 1 || run >= CHILDREN)];
        trees.extend((2..=10).map(|alone| of(&|run| run == alone)));
        assert!(jain(&trees) >= 0.99, "seed {seed}: {trees:?}");
        let children: Vec<u64> =
            (0..50).map(|child| world.served.get(&(CHILDREN + child)).copied().unwrap_or(0)).collect();
        assert!(jain(&children) >= 0.95, "seed {seed}: {children:?}");
    }
}

#[test]
fn a_tree_has_so_many_runs_at_work_and_no_more() {
    let mut world = World::new(1);
    let refused = |out: &[Effect]| {
        out.iter().any(|effect| matches!(effect, Effect::Refuse(no) if no.code == Code::LoopStopped))
    };
    for child in 0..limits::RUN_TREE_LIVE_MAX as u64 {
        assert!(!refused(&world.ask(CHILDREN + child, Some(1))));
    }
    assert!(refused(&world.ask(CHILDREN * 100, Some(1))), "one more");
    assert!(!refused(&world.ask(CHILDREN, Some(1))), "those at work go on");
    assert!(!refused(&world.ask(2, None)), "others do not notice");
    world.kernel.check();
}
