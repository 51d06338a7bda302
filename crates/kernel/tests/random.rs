//! Properties of the kernel under inputs in any order: it never panics, its state stays
//! sound after every step, every call ends exactly once (I6), the same inputs give the
//! same effects (I2), no budget is overspent (I12), and every wait adds up.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use seawall_kernel::plan::{
    BudgetRule, CostRule, Engine, GuardRule, Meter, Model, Pace, Period, Price, QueueRule, Rate, Replica,
    RetryRule, TenantRule,
};
use seawall_kernel::{Effect, Failure, Input, Kernel, Plan, RateReport, Submit};
use seawall_model::{
    At, Bytes, CallId, Class, Code, EngineId, Millis, ModelId, Outcome, ReplicaId, RunId, Tenant, Tokens,
    Usage,
};

const START: At = At(1_700_000_000_000_000);
const TENANTS: [&str; 8] =
    ["acme", "acme/a", "acme/a/x", "acme/b", "beta", "beta/z/y/x", "gamma", "delta/one"];

/// One step of a random life: what happens, after how long, and three numbers to fill
/// in the rest with.
#[derive(Clone, Debug)]
struct Happening {
    kind: u8,
    micros: u64,
    a: u64,
    b: u64,
}

fn happening() -> impl Strategy<Value = Happening> {
    let pause = prop_oneof![Just(0), 0..2_000_u64, 0..300_000_u64, 0..20_000_000_u64];
    (0..=255_u8, pause, any::<u64>(), any::<u64>()).prop_map(|(kind, micros, a, b)| Happening {
        kind,
        micros,
        a,
        b,
    })
}

fn plan(shape: u64) -> Plan {
    let engine = |id: u32, replicas: u32| Engine {
        id: EngineId(id),
        name: format!("e{id}").into(),
        replicas: (0..replicas).map(|r| Replica { id: ReplicaId(id * 100 + r) }).collect(),
        pace: Pace {
            calls_min: 1,
            calls_max: 8,
            calls_start: 1 + (shape % 4) as u32,
            kv_tokens_max: (shape & 1 == 1).then_some(Tokens(3_000)),
            adaptive: shape & 2 == 2,
            queue_delay_ms_max: Millis(400),
            slowdown_max: 8,
        },
        rate: Rate {
            calls_per_min: (shape & 4 == 4).then_some(600),
            tokens_per_min: (shape & 8 == 8).then_some(200_000),
        },
        cost: CostRule::default(),
    };
    let price = Price { input: 1_000_000, cached: 100_000, cache_written: 1_250_000, output: 4_000_000 };
    let model = |id: u32, targets: &[u32]| Model {
        id: ModelId(id),
        targets: targets.iter().map(|t| EngineId(*t)).collect(),
        upstreams: if shape & 1 == 1 { vec![id; targets.len()] } else { Vec::new() },
        price,
        context_tokens_max: Some(Tokens(100_000)),
        output_tokens_max: Tokens(1_000),
    };
    let rule = |prefix: &str, weight, calls_max, rate, budgets: &[BudgetRule]| TenantRule {
        prefix: prefix.into(),
        weight,
        calls_max,
        rate,
        budgets: budgets.to_vec(),
    };
    let budget = |meter, period, limit| BudgetRule { meter, period, limit };
    let slow = Rate { calls_per_min: Some(10), tokens_per_min: Some(60_000) };
    Plan {
        engines: match shape % 3 {
            0 => vec![engine(1, 1), engine(2, 3)],
            1 => vec![engine(1, 2)],
            _ => vec![engine(1, 1), engine(2, 2), engine(3, 20)],
        },
        models: vec![model(1, &[1, 2]), model(2, &[2, 3, 1]), model(3, &[3])],
        tenants: vec![
            rule("acme", 300, Some(6), Rate::default(), &[budget(Meter::Tokens, Period::Minute, 6_000)]),
            rule("acme/a", 50, None, slow, &[budget(Meter::Money, Period::Day, 60_000 + shape % 50_000)]),
            rule(
                "beta",
                100,
                Some(1 + (shape % 3) as u32),
                Rate::default(),
                &[budget(Meter::Calls, Period::Hour, 12)],
            ),
            rule("*", 100, Some(4), Rate::default(), &[budget(Meter::Tokens, Period::Total, 1_000_000)]),
        ],
        queue: QueueRule {
            len_max: 8,
            tenant_len_max: 3,
            wait_ms_max: Millis(8_000),
            ..QueueRule::default()
        },
        class_share: [40, 30, 20],
        retry: RetryRule { seed: shape, open_after: 3, ..RetryRule::default() },
        guard: GuardRule { repeats: REPEATS, refuse: true, ..GuardRule::default() },
    }
}

/// Identical calls of a run that are answered in a row before the next is refused.
const REPEATS: u32 = 2;

/// A run, and what a call of it asks for.
type Work = (Tenant, RunId, u64);

/// A shell that does what the kernel says and keeps its own books.
struct Shell {
    kernel: Kernel,
    now: At,
    next: u64,
    submitted: BTreeMap<CallId, At>,
    settled: BTreeSet<CallId>,
    running: BTreeMap<CallId, At>,
    ran: BTreeMap<CallId, u64>,
    /// Prompt and most output of each call.
    most: BTreeMap<CallId, (u64, u64)>,
    /// What calls of runs ask for.
    works: BTreeMap<CallId, Work>,
    /// What was answered last in each run, and how often in a row.
    rows: BTreeMap<(Tenant, RunId), (u64, u32)>,
    runs: BTreeMap<CallId, RunId>,
    halts: Vec<CallId>,
    draws: Vec<Input>,
    probes: Vec<ReplicaId>,
    log: Vec<Effect>,
}

impl Shell {
    fn new(shape: u64) -> Self {
        Self {
            kernel: Kernel::new(START, plan(shape)),
            now: START,
            next: 0,
            submitted: BTreeMap::new(),
            settled: BTreeSet::new(),
            running: BTreeMap::new(),
            ran: BTreeMap::new(),
            most: BTreeMap::new(),
            works: BTreeMap::new(),
            rows: BTreeMap::new(),
            runs: BTreeMap::new(),
            halts: Vec::new(),
            draws: Vec::new(),
            probes: Vec::new(),
            log: Vec::new(),
        }
    }

    fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        self.ended(&input);
        self.kernel.step(self.now, input, &mut out);
        self.kernel.check();
        for effect in &out {
            self.perform(effect);
        }
        self.log.extend(out);
        for account in self.kernel.view().budgets {
            assert!(account.spent + account.reserved <= account.limit, "I12: {account:?}");
        }
    }

    /// The attempt that an input ends, if it ends one.
    fn ended(&mut self, input: &Input) {
        if let Input::Finished { call, .. } | Input::Failed { call, .. } | Input::Cancelled { call, .. } =
            input
            && let Some(began) = self.running.remove(call)
        {
            *self.ran.entry(*call).or_default() += self.now.micros_since(began);
        }
    }

    fn perform(&mut self, effect: &Effect) {
        match effect {
            Effect::Dispatch(grant) => {
                assert!(!self.settled.contains(&grant.call), "no dispatch after the last word");
                assert!(self.running.insert(grant.call, self.now).is_none(), "one attempt at a time");
                let since = self.now.micros_since(self.submitted[&grant.call]);
                let ran = self.ran.get(&grant.call).copied().unwrap_or(0);
                assert_eq!(grant.waits.0.iter().sum::<u64>(), since - ran, "waits add up: {grant:?}");
            }
            Effect::Settle(settlement) => {
                assert!(self.submitted.contains_key(&settlement.call));
                assert!(self.settled.insert(settlement.call), "settled once: {settlement:?}");
                assert!(
                    !self.running.contains_key(&settlement.call),
                    "nothing runs after the last word: {settlement:?}"
                );
                if settlement.outcome == Outcome::Done {
                    self.answered(settlement.call);
                }
            }
            Effect::Refuse(refusal) => {
                let wants_time = refusal.code.row().retry == seawall_model::Retry::After;
                let total = refusal.what.as_ref().is_some_and(|what| what.ends_with("/total"));
                assert!(!wants_time || refusal.retry_after.is_some() || total, "{refusal:?} says when");
                if refusal.code == Code::LoopStopped {
                    if refusal.what.as_ref().is_some_and(|what| what.contains("rounds")) {
                        return;
                    }
                    let (tenant, run, work) = self.works[&refusal.call].clone();
                    let row = self.rows.get(&(tenant, run)).copied();
                    assert!(row.is_some_and(|row| row.0 == work && row.1 >= REPEATS), "{refusal:?}: {row:?}");
                }
            }
            Effect::Draw { account, window, ceiling } => {
                self.draws.push(Input::Drawn {
                    account: account.clone(),
                    window: *window,
                    ceiling: *ceiling,
                });
            }
            Effect::Halt { call } => {
                assert!(self.running.contains_key(call), "only what runs can be cut");
                self.halts.push(*call);
            }
            Effect::Probe { replica } => self.probes.push(*replica),
            Effect::Spent { .. } => {}
        }
    }

    /// Books an answer to its run.
    fn answered(&mut self, call: CallId) {
        let Some((tenant, run, work)) = self.works.get(&call).cloned() else { return };
        let row = self.rows.entry((tenant, run)).or_insert((work, 0));
        *row = if row.0 == work { (work, row.1 + 1) } else { (work, 1) };
    }

    fn submit(&mut self, a: u64, b: u64) {
        self.next += 1;
        let call = CallId(self.next);
        self.submitted.insert(call, self.now);
        let submit = Submit {
            call,
            tenant: Tenant::parse(TENANTS[(a % 8) as usize]).expect("valid"),
            model: ModelId(if (a >> 8).is_multiple_of(32) { 0 } else { 1 + (a >> 13) as u32 % 3 }),
            targets: [1 + (a >> 5) as u32 % 3, 1, 2, 3, (a >> 12) as u32 % 6].map(EngineId).to_vec(),
            class: Class::ALL[(a >> 16) as usize % 3],
            run: (a & (1 << 20) != 0).then_some(RunId((a >> 21) % 5)),
            parent: (a & (7 << 48) == 0).then_some(RunId((a >> 45) % 5)),
            agent: None,
            work: (a & (1 << 40) != 0).then_some((a >> 41) % 2),
            prompt: Tokens(b % 900),
            prompt_max: Tokens(b % 900 + (a >> 30) % 100),
            output_max: (b & (1 << 12) != 0).then_some(Tokens((b >> 13) % 700)),
            generates: b & (1 << 24) != 0,
            bytes: Bytes(b % 5_000),
            deadline: (b & (3 << 25) == 0).then(|| self.now.plus(Millis((b >> 30) % 4_000))),
            prefix: (0..(b >> 40) % 6).map(|block| (b >> 50) * 10 + block).collect(),
        };
        let output = if submit.generates { submit.output_max.map_or(1_000, |max| max.0) } else { 0 };
        if let Some(run) = submit.run {
            self.runs.insert(call, run);
        }
        if let (Some(run), Some(work)) = (submit.run, submit.work) {
            self.works.insert(call, (submit.tenant.clone(), run, work));
        }
        self.most.insert(call, (submit.prompt_max.0, output));
        self.step(Input::Submit(Box::new(submit)));
    }

    fn some_call(&self, a: u64) -> CallId {
        let live: Vec<_> = self.running.keys().collect();
        match live.get((a >> 3) as usize % live.len().max(1)) {
            Some(call) if a % 8 < 7 => **call,
            _ => CallId(a % (self.next + 2)),
        }
    }

    /// What a call may have used: at most what it reserved, as with engines that honour
    /// `max_tokens`.
    fn usage(&self, call: CallId, b: u64) -> Usage {
        let Some((prompt, output)) = self.most.get(&call) else {
            return Usage::default();
        };
        let input = Tokens(b % (prompt + 1));
        Usage {
            input,
            cached: Tokens(b % (input.0 + 1)),
            output: Tokens((b >> 20) % (output + 1)),
            ..Usage::default()
        }
    }

    fn live(&mut self, happening: &Happening) {
        let Happening { kind, micros, a, b } = *happening;
        self.now = At(self.now.0 + micros);
        if b & 3 != 0
            && let Some(draw) = self.draws.pop()
        {
            self.step(draw);
        }
        let call = self.some_call(a);
        let replica = ReplicaId((1 + a as u32 % 3) * 100 + (a >> 8) as u32 % 4);
        match kind {
            0..=109 => self.submit(a, b),
            110..=149 => self.step(Input::Finished { call, usage: self.usage(call, b), finish: None }),
            150..=164 => self.step(Input::Cancelled { call, usage: self.usage(call, b) }),
            165..=189 => {
                let failure = failure(a >> 20, b);
                self.step(Input::Failed {
                    call,
                    failure,
                    client_began: b % 5 == 0,
                    usage: self.usage(call, b),
                });
            }
            190..=199 => self.step(Input::FirstToken { call }),
            200..=209 => {
                self.step(Input::Progress { call, output: Tokens(b % 2_000), waited: Millis(b % 7 * 50) });
            }
            210..=225 => {
                if let Some(draw) = self.draws.pop() {
                    self.step(draw);
                }
            }
            226..=229 => {
                let report = RateReport {
                    calls_left: Some(b as u32 % 2),
                    tokens_left: None,
                    reset: Some(Millis(b % 900)),
                };
                self.step(Input::Rate { replica, call, report });
            }
            230..=235 => self.step(Input::Probed { replica, healthy: b % 2 == 0 }),
            236..=238 => self.step(Input::Configure(Box::new(plan(a)))),
            239 => self.step(Input::Below { run: RunId(a % 5), parent: RunId(b % 7) }),
            240 => self.stop(RunId(a % 5)),
            241..=247 => self.step(Input::Resume { run: RunId(a % 5) }),
            _ => self.tick(),
        }
    }

    /// Stops a run, and cuts what the kernel wants cut: afterwards it has no call left.
    fn stop(&mut self, run: RunId) {
        self.step(Input::Stop { run });
        while let Some(call) = self.halts.pop() {
            self.step(Input::Cancelled { call, usage: Usage::default() });
        }
        let left = self.runs.iter().find(|(call, own)| **own == run && !self.settled.contains(call));
        assert_eq!(left, None, "a stopped run has calls");
    }

    fn tick(&mut self) {
        if let Some(at) = self.kernel.wake_at() {
            self.now = self.now.max(at);
        }
        self.step(Input::Tick);
    }

    /// Drains: everything running finishes, slices are drawn, and time passes until no
    /// call is known.
    fn end(&mut self) {
        self.step(Input::Drain);
        self.submit(0, 0);
        for round in 0.. {
            assert!(round < 20_000, "the kernel comes to rest: {:?}", self.kernel.view());
            while let Some(draw) = self.draws.pop() {
                self.step(draw);
            }
            if let Some(call) = self.running.keys().next().copied() {
                self.step(Input::Finished { call, usage: Usage::default(), finish: None });
            } else if self.kernel.idle() {
                break;
            } else {
                self.tick();
            }
        }
        let submitted: BTreeSet<_> = self.submitted.keys().copied().collect();
        assert_eq!(submitted, self.settled, "I6: every call has ended");
    }
}

fn failure(which: u64, b: u64) -> Failure {
    match which % 11 {
        0 => Failure::Connect,
        1 => Failure::Timeout,
        2 => Failure::Limited { retry_after: (b & 1 == 1).then_some(Millis(b % 3_000)) },
        3 => Failure::Server { status: 500 },
        4 => Failure::Refused { status: 422 },
        5 => Failure::Credentials,
        6 => Failure::Garbled,
        7 => Failure::Cut,
        8 => Failure::TooLarge,
        9 => Failure::Unsent,
        _ => Failure::Deadline,
    }
}

fn live(shape: u64, happenings: &[Happening]) -> Vec<Effect> {
    let mut shell = Shell::new(shape);
    for happening in happenings {
        shell.live(happening);
    }
    shell.end();
    shell.log
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, ..ProptestConfig::default() })]

    #[test]
    fn any_life_is_sound_and_repeats_itself(
        shape in any::<u64>(),
        happenings in prop::collection::vec(happening(), 1..250),
    ) {
        let first = live(shape, &happenings);
        let second = live(shape, &happenings);
        prop_assert_eq!(first, second);
    }
}

/// The meta-test: random lives reach what they are meant to try. Without it a mistake in
/// the generator could make the property above hold for want of anything happening.
#[test]
fn random_lives_reach_every_corner() {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut state = 1_u64;
    let mut draw = || {
        // The constants of Knuth's MMIX generator; its high bits are good enough here.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.rotate_right(24)
    };
    for shape in 0..90 {
        let mut happenings = Vec::new();
        for _ in 0..300 {
            let micros = [0, 500, 20_000, 500_000][draw() as usize % 4] * (draw() % 3);
            happenings.push(Happening { kind: draw() as u8, micros, a: draw(), b: draw() });
        }
        for effect in live(shape, &happenings) {
            let name = match &effect {
                Effect::Dispatch(grant) if grant.attempt > 1 => "dispatch again".to_owned(),
                Effect::Dispatch(_) => "dispatch".to_owned(),
                Effect::Refuse(refusal) => format!("refuse {}", refusal.code.as_str()),
                Effect::Settle(end) => format!("settle {}", end.outcome.as_str()),
                Effect::Draw { .. } => "draw".to_owned(),
                Effect::Spent { .. } => "spent".to_owned(),
                Effect::Halt { .. } => "halt".to_owned(),
                Effect::Probe { .. } => "probe".to_owned(),
            };
            *seen.entry(name).or_default() += 1;
        }
    }
    for wanted in [
        "dispatch",
        "dispatch again",
        "draw",
        "spent",
        "probe",
        "settle done",
        "settle cancelled",
        "refuse model_unknown",
        "refuse draining",
        "refuse queue_full",
        "refuse tenant_queue_full",
        "refuse rate_limited",
        "refuse concurrency_limited",
        "refuse budget_exhausted",
        "refuse deadline_missed",
        "refuse engine_down",
        "refuse queue_timeout",
        "refuse loop_stopped",
        "refuse run_stopped",
        "settle run_stopped",
        "halt",
        "refuse engine_refused",
        "refuse engine_rejected_key",
        "refuse engine_rate_limited",
        "refuse engine_failed",
        "settle engine_cut",
        "refuse answer_too_large",
    ] {
        assert!(seen.contains_key(wanted), "{wanted} never happened: {seen:?}");
    }
}
