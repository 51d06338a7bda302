//! How long a decision takes: `cargo run --release -p seawall-kernel --example decide`.
//!
//! Two tables. The first is the hot path of a gateway with room to spare: a call is
//! submitted and dispatched, its engine answers and it is settled. The second is an
//! overloaded engine with 10,000 calls of 1,000 tenants waiting: each call that ends
//! lets fair order choose another, and each new one goes to the end of its queue.
#![expect(clippy::print_stdout, reason = "an example that prints a table")]
#![expect(clippy::disallowed_methods, reason = "it measures; the kernel itself reads no clock")]
#![expect(clippy::disallowed_types, reason = "likewise")]

use std::collections::VecDeque;
use std::time::Instant;

use seawall_kernel::plan::{CostRule, Engine, Model, Pace, Price, Rate, Replica, TenantRule};
use seawall_kernel::{Effect, Input, Kernel, Plan, Submit};
use seawall_model::{At, Bytes, CallId, Class, EngineId, ModelId, ReplicaId, RunId, Tenant, Tokens, Usage};

const ROUNDS: u64 = 100_000;
const QUEUED: u64 = 10_000;

fn plan(replicas: u32, calls_max: u32) -> Plan {
    let rule = TenantRule {
        prefix: "*".into(),
        weight: 100,
        calls_max: Some(10_000),
        rate: Rate { calls_per_min: Some(10_000_000), tokens_per_min: Some(10_000_000_000) },
        budgets: Vec::new(),
    };
    Plan {
        engines: vec![Engine {
            id: EngineId(1),
            name: "engine".into(),
            replicas: (0..replicas).map(|id| Replica { id: ReplicaId(id) }).collect(),
            pace: Pace { calls_max, adaptive: false, ..Pace::default() },
            rate: Rate::default(),
            cost: CostRule::default(),
        }],
        models: vec![Model {
            id: ModelId(1),
            targets: vec![EngineId(1)],
            upstreams: Vec::new(),
            price: Price { input: 1, cached: 1, cache_written: 1, output: 2 },
            context_tokens_max: None,
            output_tokens_max: Tokens(1_000),
        }],
        tenants: vec![rule],
        class_share: [50, 30, 10],
        ..Plan::default()
    }
}

fn submit(id: u64, tenants: &[Tenant]) -> Input {
    let mixed = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    Input::Submit(Box::new(Submit {
        call: CallId(id),
        tenant: tenants[mixed as usize % tenants.len()].clone(),
        model: ModelId(1),
        targets: vec![EngineId(1)],
        class: Class::ALL[mixed as usize % 3],
        run: id.is_multiple_of(2).then_some(RunId(mixed % 3_000)),
        parent: None,
        agent: None,
        work: None,
        prompt: Tokens(100 + mixed % 2_000),
        prompt_max: Tokens(100 + mixed % 2_000),
        output_max: Some(Tokens(400)),
        generates: true,
        bytes: Bytes(4_000),
        deadline: None,
        prefix: (0..4).map(|block| (mixed % 500) * 8 + block).collect(),
    }))
}

/// The kernel with its clock and the calls it has sent out.
struct Bench {
    kernel: Kernel,
    now: At,
    out: Vec<Effect>,
    running: VecDeque<CallId>,
    nanos: Vec<u64>,
}

impl Bench {
    fn new(plan: Plan) -> Self {
        let now = At(1_700_000_000_000_000);
        Self {
            kernel: Kernel::new(now, plan),
            now,
            out: Vec::new(),
            running: VecDeque::new(),
            nanos: Vec::new(),
        }
    }

    fn step(&mut self, input: Input) {
        self.now = At(self.now.0 + 20);
        self.out.clear();
        let began = Instant::now();
        self.kernel.step(self.now, input, &mut self.out);
        self.nanos.push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        self.running.extend(self.out.iter().filter_map(|effect| match effect {
            Effect::Dispatch(grant) => Some(grant.call),
            _ => None,
        }));
    }

    fn finish(&mut self) {
        if let Some(call) = self.running.pop_front() {
            let usage = Usage { input: Tokens(900), output: Tokens(call.0 % 300), ..Usage::default() };
            self.step(Input::Finished { call, usage, finish: None });
        }
    }

    fn report(&mut self, what: &str) {
        self.nanos.sort_unstable();
        let at = |part: usize| self.nanos[(self.nanos.len() - 1) * part / 1_000];
        let (p50, p99, p999, most) = (at(500), at(990), at(999), at(1_000));
        println!("{what:<34} p50 {p50:>6} ns  p99 {p99:>6} ns  p99.9 {p999:>7} ns  max {most:>8} ns");
        self.nanos.clear();
    }
}

fn main() {
    let tenants: Vec<Tenant> = (0..1_000)
        .map(|id| Tenant::parse(&format!("org{}/team{}/user{id}", id % 20, id % 100)).expect("a valid path"))
        .collect();
    let mut bench = Bench::new(plan(4, 1_000));
    for id in 1..=ROUNDS {
        bench.step(submit(id, &tenants));
        if id > 64 {
            bench.finish();
        }
    }
    bench.report("idle engine, submit or finish");

    let mut bench = Bench::new(plan(8, 32));
    for id in 1..=QUEUED + 256 {
        bench.step(submit(id, &tenants));
    }
    bench.report("filling the queue");
    for id in 1..=ROUNDS {
        bench.finish();
        bench.step(submit(QUEUED + 256 + id, &tenants));
    }
    bench.report("10k queued, 1k tenants");
    let waiting: usize =
        bench.kernel.view().engines.iter().map(|engine| engine.queued.iter().sum::<usize>()).sum();
    println!("waiting at the end: {waiting}");
}
