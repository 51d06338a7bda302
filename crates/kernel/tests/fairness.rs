//! The bounds that fair queueing promises (I7), and exact budgets (I12), on a small
//! world: one engine with a few places, calls that take random times, and books kept
//! outside the kernel.

use std::collections::BTreeMap;

use proptest::prelude::*;
use seawall_kernel::plan::{
    BudgetRule, CostRule, Engine, GuardRule, Meter, Model, Pace, Period, Price, QueueRule, Rate, Replica,
    TenantRule,
};
use seawall_kernel::{Effect, Grant, Input, Kernel, Plan, Submit};
use seawall_model::{
    At, Bytes, CallId, Class, EngineId, Millis, ModelId, Outcome, ReplicaId, Tenant, Tokens, Usage,
};

const START: At = At(1_700_000_000_000_000);
const PROMPT_MAX: u64 = 400;
const OUTPUT_MAX: u64 = 300;
/// The dearest call, in cost units.
const COST_MAX: u64 = PROMPT_MAX + 2 * OUTPUT_MAX;

fn plan(places: u32, tenants: Vec<TenantRule>, class_share: [u32; 3]) -> Plan {
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
            price: Price { input: 1_000_000, cached: 500_000, cache_written: 1_000_000, output: 3_000_000 },
            context_tokens_max: None,
            output_tokens_max: Tokens(OUTPUT_MAX),
        }],
        tenants,
        queue: QueueRule { wait_ms_max: Millis(100_000_000), ..QueueRule::default() },
        class_share,
        guard: GuardRule::default(),
        retry: Default::default(),
    }
}

fn weight(prefix: &str, weight: u32) -> TenantRule {
    TenantRule { prefix: prefix.into(), weight, calls_max: None, rate: Rate::default(), budgets: Vec::new() }
}

/// SplitMix64, so that one seed from proptest makes a whole world.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

#[derive(Clone, Debug)]
struct Ask {
    tenant: String,
    class: Class,
    prompt: u64,
    output: u64,
}

struct World {
    kernel: Kernel,
    dice: Dice,
    now: At,
    next: u64,
    asks: BTreeMap<CallId, Ask>,
    running: BTreeMap<(At, CallId), ()>,
    dispatched: Vec<CallId>,
    outcomes: BTreeMap<CallId, Outcome>,
    /// Cost really served, by tenant.
    served: BTreeMap<String, u64>,
    served_class: [u64; 3],
    draws: Vec<Input>,
    durable: BTreeMap<String, u64>,
    /// Tokens, money and calls used, by tenant.
    used: BTreeMap<String, [u64; 3]>,
}

impl World {
    fn new(plan: Plan, seed: u64) -> Self {
        Self {
            kernel: Kernel::new(START, plan),
            dice: Dice(seed),
            now: START,
            next: 0,
            asks: BTreeMap::new(),
            running: BTreeMap::new(),
            dispatched: Vec::new(),
            outcomes: BTreeMap::new(),
            served: BTreeMap::new(),
            served_class: [0; 3],
            draws: Vec::new(),
            durable: BTreeMap::new(),
            used: BTreeMap::new(),
        }
    }

    fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        self.kernel.step(self.now, input, &mut out);
        self.kernel.check();
        for effect in out {
            match effect {
                Effect::Dispatch(Grant { call, .. }) => {
                    let took = self.dice.below(900_000) + 100_000;
                    self.running.insert((At(self.now.0 + took), call), ());
                    self.dispatched.push(call);
                }
                Effect::Settle(end) => {
                    self.outcomes.insert(end.call, end.outcome);
                }
                Effect::Draw { account, window, ceiling } => {
                    let known = self.durable.entry(account.to_string()).or_default();
                    assert!(ceiling >= *known, "ceilings only rise within a window");
                    *known = ceiling;
                    self.draws.push(Input::Drawn { account, window, ceiling });
                }
                _ => {}
            }
        }
    }

    fn ask(&mut self, tenant: &str, class: Class) -> CallId {
        let prompt = 1 + self.dice.below(PROMPT_MAX);
        let output = 1 + self.dice.below(OUTPUT_MAX);
        self.ask_exactly(Ask { tenant: tenant.into(), class, prompt, output })
    }

    fn ask_exactly(&mut self, ask: Ask) -> CallId {
        self.next += 1;
        let call = CallId(self.next);
        let submit = Submit {
            call,
            tenant: Tenant::parse(&ask.tenant).expect("valid"),
            model: ModelId(1),
            targets: vec![EngineId(1)],
            class: ask.class,
            run: None,
            parent: None,
            agent: None,
            work: None,
            prompt: Tokens(ask.prompt),
            prompt_max: Tokens(ask.prompt),
            output_max: None,
            generates: true,
            bytes: Bytes(100),
            deadline: None,
            prefix: Box::default(),
        };
        self.asks.insert(call, ask);
        self.step(Input::Submit(Box::new(submit)));
        call
    }

    fn draw(&mut self) {
        while let Some(draw) = self.draws.pop() {
            self.step(draw);
        }
    }

    /// The call that is done first finishes. False if none runs.
    fn finish_one(&mut self) -> bool {
        let Some(((at, call), ())) = self.running.pop_first() else {
            return false;
        };
        self.now = self.now.max(at);
        let ask = self.asks[&call].clone();
        let usage = Usage { input: Tokens(ask.prompt), output: Tokens(ask.output), ..Usage::default() };
        let cost = ask.prompt + 2 * ask.output;
        *self.served.entry(ask.tenant.clone()).or_default() += cost;
        self.served_class[ask.class as usize] += cost;
        let used = self.used.entry(ask.tenant).or_default();
        used[0] += ask.prompt + ask.output;
        used[1] += ask.prompt + 3 * ask.output;
        used[2] += 1;
        self.step(Input::Finished { call, usage, finish: None });
        true
    }

    fn served(&self, tenant: &str) -> u64 {
        self.served.get(tenant).copied().unwrap_or(0)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// VTC's bound (arXiv 2401.00588, theorem 4.4) with weights: the gap in service by
    /// weight of two tenants that always have work is at most twice the dearest call,
    /// plus what may be predicted wrongly for each call in flight.
    #[test]
    fn backlogged_siblings_stay_within_the_bound(
        seed in any::<u64>(), places in 1..8_u32, a in 1..6_u32, b in 1..6_u32,
    ) {
        let rules = vec![weight("a", a * 100), weight("b", b * 100)];
        let mut world = World::new(plan(places, rules, [0; 3]), seed);
        for _ in 0..40 {
            world.ask("a", Class::Interactive);
            world.ask("b", Class::Interactive);
        }
        let base = (world.served("a"), world.served("b"));
        let least = u64::from(a.min(b));
        let bound = (2 * COST_MAX + 2 * u64::from(places) * COST_MAX) / least;
        for _ in 0..300 {
            // Each finished call is followed by a new one of the same tenant.
            let tenant = world.running.keys().next().map(|(_, call)| world.asks[call].tenant.clone());
            world.finish_one();
            world.ask(&tenant.expect("the engine is never idle"), Class::Interactive);
            let by_weight = ((world.served("a") - base.0) / u64::from(a), (world.served("b") - base.1) / u64::from(b));
            let gap = by_weight.0.abs_diff(by_weight.1);
            prop_assert!(gap <= bound, "gap {gap} above {bound}");
        }
    }

    /// However many others flood, a tenant's first call is served before any of them is
    /// served much more than once after it came.
    #[test]
    fn no_tenant_waits_past_its_bound(seed in any::<u64>(), places in 1..6_u32, floods in 1..10_u64) {
        let mut world = World::new(plan(places, Vec::new(), [0; 3]), seed);
        for round in 0..20 {
            for flood in 0..floods {
                world.ask(&format!("flood{flood}"), Class::Interactive);
            }
            if round == 3 {
                (0..15).for_each(|_| { world.finish_one(); });
            }
        }
        let before = world.dispatched.len();
        let before_cost: u64 = world.served.values().sum();
        let call = world.ask("light", Class::Interactive);
        while !world.dispatched.contains(&call) {
            prop_assert!(world.finish_one(), "it is served in the end");
        }
        let cost = world.served.values().sum::<u64>() - before_cost;
        let bound = (floods + 1) * 2 * COST_MAX + 2 * u64::from(places) * COST_MAX;
        prop_assert!(cost <= bound, "{cost} above {bound} in {} calls", world.dispatched.len() - before);
    }

    /// Budgets of every meter, many calls at once, slices drawn late, a crash in the
    /// middle: never more used than the limit, by books the kernel has no hand in.
    #[test]
    fn nothing_is_overspent(
        seed in any::<u64>(), limit in 500..20_000_u64, calls in 1..60_u64, places in 1..40_u32,
    ) {
        let budget = |meter, limit| BudgetRule { meter, period: Period::Total, limit };
        let budgets = vec![budget(Meter::Tokens, limit), budget(Meter::Money, limit * 2), budget(Meter::Calls, calls)];
        let rule = TenantRule { budgets, ..weight("a", 100) };
        let make = || plan(places, vec![rule.clone()], [0; 3]);
        let mut world = World::new(make(), seed);
        for life in 0..2 {
            for _ in 0..60 {
                world.ask("a", Class::Interactive);
                match world.dice.below(3) {
                    0 => world.draw(),
                    1 => { world.finish_one(); }
                    _ => {}
                }
            }
            if life == 0 {
                // A crash: calls in flight are gone but what they used is not, and the
                // store knows the ceilings only.
                while world.finish_one() {}
                let (now, durable) = (world.now, world.durable.clone());
                world.kernel = Kernel::new(now, make());
                world.draws.clear();
                for (account, ceiling) in durable {
                    world.step(Input::Restored { account: account.into(), window: At(0), spent: ceiling });
                }
            }
        }
        while { world.draw(); world.finish_one() } {}
        let used = world.used.get("a").copied().unwrap_or_default();
        prop_assert!(used[0] <= limit && used[1] <= limit * 2 && used[2] <= calls, "{used:?}");
    }
}

#[test]
fn an_idle_tenant_banks_no_credit() {
    let mut world = World::new(plan(1, Vec::new(), [0; 3]), 7);
    for _ in 0..200 {
        world.ask("busy", Class::Interactive);
    }
    (0..100).for_each(|_| {
        world.finish_one();
    });
    let before = world.served("busy");
    for _ in 0..100 {
        world.ask("late", Class::Interactive);
    }
    (0..60).for_each(|_| {
        world.finish_one();
    });
    let (busy, late) = (world.served("busy") - before, world.served("late"));
    assert!(busy.abs_diff(late) <= 4 * COST_MAX, "from now on they share: {busy} and {late}");
}

#[test]
fn a_flood_leaves_the_others_their_share() {
    let mut world = World::new(plan(8, Vec::new(), [0; 3]), 11);
    let others: Vec<String> = (0..20).map(|other| format!("other{other}")).collect();
    for _ in 0..1_000 {
        world.ask("flood", Class::Interactive);
    }
    for other in &others {
        (0..30).for_each(|_| {
            world.ask(other, Class::Interactive);
        });
    }
    for _ in 0..420 {
        world.finish_one();
    }
    let shares: Vec<u64> =
        others.iter().map(|other| world.served(other)).chain([world.served("flood")]).collect();
    let (sum, squares) = shares.iter().fold((0_u128, 0_u128), |(sum, squares), share| {
        (sum + u128::from(*share), squares + u128::from(*share) * u128::from(*share))
    });
    let jain = sum * sum * 1_000 / (squares * shares.len() as u128);
    assert!(jain >= 950, "Jain index {jain}/1000: {shares:?}");
}

#[test]
fn every_class_gets_its_guaranteed_share() {
    let mut world = World::new(plan(4, Vec::new(), [50, 30, 15]), 3);
    for _ in 0..400 {
        for class in Class::ALL {
            world.ask("a", class);
        }
    }
    for _ in 0..400 {
        world.finish_one();
    }
    let total: u64 = world.served_class.iter().sum();
    let percent = world.served_class.map(|served| served * 100 / total);
    assert!(percent[0] >= 50 && percent[1] >= 28 && percent[2] >= 13, "{percent:?}");
    assert!(percent[0] <= 58, "what is guaranteed to others is not interactive's: {percent:?}");
}
