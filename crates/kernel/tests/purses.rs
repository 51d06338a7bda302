//! Budgets of trees of runs under random traffic (I12): a fan-out of many runs never gets
//! more than its tree may use, whatever fails, leaves or is lowered meanwhile, and everyone
//! who waited for room is served or told in the end.

use std::collections::BTreeSet;

use seawall_kernel::input::Failure;
use seawall_kernel::plan::{
    CostRule, Engine, GuardRule, Meter, Model, Pace, Price, Rate, Replica, RunBudget,
};
use seawall_kernel::{Effect, Input, Kernel, Plan, Submit};
use seawall_model::{
    At, Bytes, CallId, Class, Code, EngineId, ModelId, Outcome, ReplicaId, RunId, Tenant, Tokens, Usage,
};

const START: At = At(1_000_000);
const TOP: RunId = RunId(1);
const OUTPUT: u64 = 300;

struct World {
    kernel: Kernel,
    now: At,
    next: u64,
    dice: u64,
    running: BTreeSet<CallId>,
    open: BTreeSet<CallId>,
    refused: Vec<(Code, Option<String>)>,
    tokens: u64,
    calls: u64,
    started: BTreeSet<CallId>,
}

fn plan(tree: RunBudget) -> Plan {
    Plan {
        engines: vec![Engine {
            id: EngineId(1),
            name: "engine".into(),
            replicas: vec![Replica { id: ReplicaId(1) }],
            pace: Pace { calls_max: 64, adaptive: false, ..Pace::default() },
            rate: Rate::default(),
            cost: CostRule::default(),
        }],
        models: vec![Model {
            id: ModelId(1),
            targets: vec![EngineId(1)],
            upstreams: Vec::new(),
            price: Price::default(),
            context_tokens_max: None,
            output_tokens_max: Tokens(OUTPUT),
        }],
        guard: GuardRule { tree, ..GuardRule::default() },
        ..Plan::default()
    }
}

impl World {
    fn new(tree: RunBudget, seed: u64) -> Self {
        Self {
            kernel: Kernel::new(START, plan(tree)),
            now: START,
            next: 0,
            dice: seed,
            running: BTreeSet::new(),
            open: BTreeSet::new(),
            refused: Vec::new(),
            tokens: 0,
            calls: 0,
            started: BTreeSet::new(),
        }
    }

    /// SplitMix64.
    fn below(&mut self, bound: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.dice ^ (self.dice >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        self.now = At(self.now.0 + 100);
        self.kernel.step(self.now, input, &mut out);
        self.kernel.check();
        for effect in out {
            match effect {
                Effect::Dispatch(grant) => {
                    self.running.insert(grant.call);
                    self.calls += u64::from(self.started.insert(grant.call));
                }
                Effect::Refuse(refusal) => {
                    self.refused.push((refusal.code, refusal.what.map(|what| what.to_string())));
                }
                Effect::Settle(settlement) => {
                    assert!(self.open.remove(&settlement.call), "one last word on each call");
                    self.running.remove(&settlement.call);
                    self.tokens += settlement.usage.total().0;
                    assert!(settlement.outcome != Outcome::Done || settlement.attempts > 0);
                }
                _ => {}
            }
        }
    }

    fn ask(&mut self, run: RunId, parent: Option<RunId>) -> CallId {
        self.next += 1;
        let call = CallId(self.next);
        self.open.insert(call);
        self.step(Input::Submit(Box::new(Submit {
            call,
            tenant: Tenant::local(),
            model: ModelId(1),
            targets: vec![EngineId(1)],
            class: Class::Agent,
            run: Some(run),
            parent,
            agent: None,
            work: None,
            prompt: Tokens(100),
            prompt_max: Tokens(100),
            output_max: Some(Tokens(OUTPUT)),
            generates: true,
            bytes: Bytes(1),
            deadline: None,
            prefix: Box::default(),
        })));
        call
    }

    fn bound(&mut self, run: RunId, budget: RunBudget) {
        self.step(Input::Bound { run, tenant: Tenant::local(), name: format!("r{}", run.0).into(), budget });
    }

    fn used(&mut self) -> Usage {
        Usage { input: Tokens(100), output: Tokens(self.below(OUTPUT + 1)), ..Usage::default() }
    }

    /// One of the calls that run goes on in one of the ways there are.
    fn go_on(&mut self) {
        let running: Vec<CallId> = self.running.iter().copied().collect();
        if running.is_empty() {
            return;
        }
        let call = running[self.below(running.len() as u64) as usize];
        self.running.remove(&call);
        let usage = self.used();
        let client_began = self.below(2) == 0;
        match self.below(6) {
            0 => {
                let failure = Failure::Refused { status: 400 };
                self.step(Input::Failed { call, failure, client_began, usage: Usage::default() });
            }
            1 => self.step(Input::Cancelled { call, usage }),
            2 => {
                let failure = Failure::Cut;
                self.step(Input::Failed { call, failure, client_began, usage });
            }
            _ => self.step(Input::Finished { call, usage, finish: None }),
        }
    }

    fn end(&mut self) {
        for _ in 0..100_000 {
            if self.kernel.idle() {
                break;
            }
            self.go_on();
            if self.running.is_empty()
                && let Some(at) = self.kernel.wake_at()
            {
                self.now = self.now.max(at);
                self.step(Input::Tick);
            }
        }
        assert!(self.kernel.idle() && self.open.is_empty(), "nobody waits for ever");
    }

    fn finish(&mut self, call: CallId, output: u64) {
        self.running.remove(&call);
        let usage = Usage { input: Tokens(100), output: Tokens(output), ..Usage::default() };
        self.step(Input::Finished { call, usage, finish: None });
    }
}

fn tokens(tokens: u64) -> RunBudget {
    RunBudget { tokens: Some(tokens), ..RunBudget::default() }
}

fn calls(calls: u64) -> RunBudget {
    RunBudget { calls: Some(calls), ..RunBudget::default() }
}

#[test]
fn no_fan_out_gets_more_than_its_tree_may_use() {
    for seed in 0..60 {
        let both = RunBudget { tokens: Some(9_000), calls: Some(40), money: None };
        let mut world = World::new(if seed % 2 == 0 { both } else { RunBudget::default() }, seed);
        if seed % 2 == 1 {
            world.bound(TOP, both);
        }
        for middle in 2..9 {
            world.step(Input::Below { run: RunId(middle), parent: TOP });
        }
        for _ in 0..200 {
            if world.below(3) == 0 {
                world.go_on();
                continue;
            }
            let run = RunId(1 + world.below(30));
            let parent = match run.0 {
                1 => None,
                2..9 => Some(TOP),
                _ => Some(RunId(2 + run.0 % 7)),
            };
            world.ask(run, parent);
            assert!(world.calls <= 40 && world.tokens <= 9_000, "seed {seed}");
        }
        world.end();
        assert!(world.calls <= 40 && world.tokens <= 9_000, "seed {seed}");
        assert!(world.calls > 15, "seed {seed}: what there is, is given");
        assert!(world.refused.iter().any(|(code, _)| *code == Code::AllowanceSpent), "seed {seed}");
    }
}

#[test]
fn what_does_not_fit_waits_for_others_of_the_tree_to_settle() {
    let mut world = World::new(RunBudget::default(), 1);
    world.bound(TOP, tokens(700));
    let first = world.ask(TOP, None);
    let second = world.ask(RunId(2), Some(TOP));
    let other = world.ask(RunId(9), None);
    assert!(world.running.contains(&other), "others go on");
    assert!(!world.running.contains(&second), "400 and 400 are more than 700");
    let [meter] = &world.kernel.run_budget(TOP)[..] else { panic!("one meter") };
    assert_eq!((meter.limit, meter.spent, meter.reserved, meter.left), (700, 0, 400, 300));
    world.finish(first, 50);
    assert!(world.running.contains(&second), "150 and 400 are not");
    world.finish(second, 300);
    let third = world.ask(RunId(3), Some(TOP));
    assert!(!world.open.contains(&third));
    assert_eq!(world.refused, [(Code::AllowanceSpent, Some("run r1#tokens/tree".to_owned()))]);
    let [meter] = &world.kernel.run_budget(TOP)[..] else { panic!("one meter") };
    assert_eq!((meter.meter, meter.spent, meter.reserved, meter.left), (Meter::Tokens, 550, 0, 150));
    world.finish(other, 1);
    assert!(world.kernel.idle());
}

#[test]
fn a_budget_is_lowered_and_never_raised_and_binds_what_is_below() {
    let mut world = World::new(calls(10), 1);
    world.bound(TOP, calls(4));
    world.bound(TOP, calls(400));
    world.bound(RunId(2), calls(1));
    world.ask(RunId(2), Some(TOP));
    world.ask(RunId(3), Some(RunId(2)));
    assert_eq!(world.refused, [(Code::AllowanceSpent, Some("run r2#calls/tree".to_owned()))]);
    for run in 4..7 {
        world.ask(RunId(run), Some(TOP));
    }
    world.ask(RunId(7), Some(TOP));
    world.end();
    assert_eq!(world.calls, 4);
    // Another tree has what the plan says; a place below another frees nobody of it.
    for _ in 0..20 {
        world.ask(RunId(50), None);
        world.ask(RunId(50), Some(RunId(60)));
    }
    world.end();
    assert_eq!(world.calls, 14);
}

#[test]
fn one_who_waits_for_its_tree_too_long_is_told() {
    let mut world = World::new(tokens(700), 1);
    let first = world.ask(TOP, None);
    let second = world.ask(RunId(2), Some(TOP));
    while world.open.contains(&second) {
        world.now = world.kernel.wake_at().expect("somebody waits").max(world.now);
        world.step(Input::Tick);
    }
    assert_eq!(world.refused.len(), 1);
    assert_eq!(world.refused[0].0, Code::QueueTimeout);
    world.finish(first, 1);
    assert!(world.kernel.idle());
}
