//! What a world is made of: the kernel's plan, the machines behind its replicas, who
//! asks for what, what goes wrong, and what operators do. A scenario is plain data; the
//! same scenario gives the same world, to the byte (I2).

use seawall_kernel::plan::{
    CostRule, Engine, GuardRule, Model, Pace, Plan, Price, QueueRule, Rate, Replica, RetryRule,
};
use seawall_load::engine::Spec;
use seawall_load::length::Lengths;
use seawall_model::{At, Class, EngineId, Millis, ModelId, ReplicaId, Tenant, Tokens};

use crate::lie::Lie;

/// One world, before it runs.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What kind of world it is; one of [`crate::invent::NAMES`] or a test's own name.
    pub name: String,
    /// Everything random in it comes from here.
    pub seed: u64,
    /// When it begins: near the end of a day or month, so that windows turn over.
    pub start: At,
    /// Clients send for this long; then the world drains.
    pub length: Millis,
    /// The kernel's configuration at the start.
    pub plan: Plan,
    /// A machine for each replica that the plan, or a later one, names.
    pub machines: Vec<Machine>,
    /// Who asks for what.
    pub demands: Vec<Demand>,
    /// What goes wrong when.
    pub incidents: Vec<Incident>,
    /// What operators do when.
    pub operations: Vec<(Millis, Operation)>,
    /// What goes wrong now and then.
    pub odds: Odds,
    /// How the shell stand-in behaves.
    pub shell: Shell,
    /// Engines use no more than was asked for, so no account may ever exceed its limit.
    pub strict: bool,
    /// One target per model and no rule but weights: fairness bounds and work
    /// conservation are checked throughout.
    pub plain: bool,
    /// [`seawall_kernel::Kernel::check`] runs at every so manieth step; 1 is every step.
    pub check_every: u64,
    /// What the kernel is told falsely; nothing but in tests of the world itself.
    pub lie: Option<Lie>,
}

/// A replica's machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The replica it stands behind.
    pub replica: ReplicaId,
    /// The replica's engine.
    pub engine: EngineId,
    /// How its engine is built.
    pub spec: Spec,
    /// A provider's own ceiling, told in rate headers and enforced with 429.
    pub provider: Option<Provider>,
}

/// A provider's ceiling on calls.
#[derive(Clone, Copy, Debug)]
pub struct Provider {
    /// Calls per window.
    pub calls: u32,
    /// The window.
    pub window: Millis,
}

/// How calls arrive.
#[derive(Clone, Copy, Debug)]
pub enum Law {
    /// Whatever happens to earlier calls: calls per second, and coefficient of variation
    /// of the gaps.
    Open {
        /// Calls per second.
        rps: f64,
        /// Coefficient of variation; 1 is Poisson.
        cv: f64,
    },
    /// So many clients, each with one call at a time.
    Closed {
        /// Clients.
        workers: u32,
        /// Pause between an answer and the next call.
        think: Millis,
    },
}

/// How a client limits its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// Names no limit.
    None,
    /// Names exactly what it will get.
    Exact,
    /// Names this many times as much as it will get.
    Times(u64),
}

/// What the calls of a demand's runs say to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talk {
    /// Nothing that anybody could compare.
    None,
    /// Something new, and now and then what was asked before.
    Onward,
    /// Two runs below one, in turn, always the same: with one worker each waits for the other.
    PingPong,
}

/// One stream of calls.
#[derive(Clone, Debug)]
pub struct Demand {
    /// Who asks.
    pub tenant: Tenant,
    /// When.
    pub law: Law,
    /// From the start of the world.
    pub from: Millis,
    /// Until then (or the end of the world's length).
    pub until: Millis,
    /// For which of these models, drawn evenly.
    pub models: Vec<ModelId>,
    /// In which of these classes, drawn evenly.
    pub classes: Vec<Class>,
    /// Prompt lengths.
    pub prompt: Lengths,
    /// Output lengths, as the model would have them.
    pub output: Lengths,
    /// The client's own limit.
    pub cap: Cap,
    /// Percent of calls that are streamed.
    pub stream: u64,
    /// Percent of calls that generate nothing (embeddings).
    pub silent: u64,
    /// Runs at once; zero for calls without a run.
    pub runs: u64,
    /// What they say.
    pub talk: Talk,
    /// Percent of clients that leave before the answer is complete.
    pub leave: u64,
    /// Percent of calls with a deadline, and how far away it lies at most.
    pub deadline: (u64, Millis),
    /// Percent of calls that only some of their model's targets can serve.
    pub narrow: u64,
    /// Leading blocks that all prompts of this demand share.
    pub shared_blocks: u64,
}

/// Something that goes wrong with one replica for a while.
#[derive(Clone, Copy, Debug)]
pub struct Incident {
    /// From the start of the world.
    pub from: Millis,
    /// For so long.
    pub length: Millis,
    /// Index into [`Scenario::machines`].
    pub machine: usize,
    /// What.
    pub trouble: Trouble,
}

/// What can go wrong with a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The process dies: jobs are lost, connections refused until it is back.
    Crash,
    /// It accepts calls and does nothing.
    Hang,
    /// It works at a fraction: so many times as slow.
    Slow(u64),
    /// It says 429 to every call, with this `retry-after`.
    Storm(Option<Millis>),
    /// It says 503 to this percentage of calls.
    Burst(u64),
    /// Its credentials are gone: 401 to every call.
    Locked,
}

/// What goes wrong with single attempts, in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Odds {
    /// The answer ends in the middle.
    pub cut: u64,
    /// The answer is no answer.
    pub garble: u64,
    /// The engine says 500.
    pub server: u64,
    /// The engine refuses the request itself.
    pub refuse: u64,
    /// The answer is too large.
    pub too_large: u64,
    /// The engine says nothing, ever.
    pub hang: u64,
    /// The engine ignores the output limit (only where the world is not strict).
    pub overrun: u64,
}

/// What an operator does.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Hands in a new plan.
    Reload(Box<Plan>),
    /// Pulls the plug: the kernel, the shell and all connections are gone; what is on
    /// disk stays. Back after this long.
    Crash(Millis),
    /// Stops cleanly and starts anew.
    Restart,
    /// Stops the runs that a demand has then, by their root.
    Stop(usize),
    /// Lets all that were stopped go on.
    Resume,
}

/// How the shell stand-in behaves.
#[derive(Clone, Copy, Debug)]
pub struct Shell {
    /// Longest silence before the first byte.
    pub first_ms_max: Millis,
    /// Longest silence between two pieces.
    pub stall_ms_max: Millis,
    /// Output tokens between two reports of progress.
    pub progress_every: u64,
    /// One way to an engine, at most, in microseconds.
    pub network_us_max: u64,
    /// Until a client's leaving is noticed, at most, in microseconds.
    pub leave_us_max: u64,
    /// One write to the disk, at most, in microseconds.
    pub disk_us_max: u64,
}

impl Default for Shell {
    fn default() -> Self {
        Self {
            first_ms_max: Millis(20_000),
            stall_ms_max: Millis(5_000),
            progress_every: 16,
            network_us_max: 3_000,
            leave_us_max: 20_000,
            disk_us_max: 30_000,
        }
    }
}

impl Demand {
    /// A plain stream of calls: interactive, streamed, no run, nobody leaves.
    #[must_use]
    pub fn plain(tenant: &str, law: Law, prompt: u64, output: u64) -> Self {
        Self {
            tenant: Tenant::parse(tenant).expect("scenarios name valid tenants"),
            law,
            from: Millis::ZERO,
            until: Millis::MAX,
            models: vec![ModelId(0)],
            classes: vec![Class::Interactive],
            prompt: Lengths::Fixed(Tokens(prompt)),
            output: Lengths::Fixed(Tokens(output)),
            cap: Cap::Exact,
            stream: 100,
            silent: 0,
            runs: 0,
            talk: Talk::None,
            leave: 0,
            deadline: (0, Millis::ZERO),
            narrow: 0,
            shared_blocks: 0,
        }
    }
}

/// Thursday 2026-12-31, 23:58:30 UTC: minute, hour, day, month and year all turn over
/// soon after.
pub const NEW_YEARS_EVE: At = At(1_798_761_510_000_000);

impl Scenario {
    /// A quiet world of one engine with `replicas` equal replicas and one model that
    /// costs a micro-dollar per token: what tests start from.
    #[must_use]
    pub fn quiet(name: &str, seed: u64, replicas: u32, spec: &Spec) -> Self {
        let plan = Plan {
            engines: vec![engine(
                0,
                0,
                replicas,
                Pace { calls_start: spec.slots, calls_max: spec.slots, ..Pace::default() },
            )],
            models: vec![model(0, &[0])],
            tenants: Vec::new(),
            queue: QueueRule::default(),
            class_share: [50, 20, 10],
            retry: RetryRule::default(),
            guard: GuardRule::default(),
        };
        let machines = (0..replicas)
            .map(|replica| Machine {
                replica: ReplicaId(replica),
                engine: EngineId(0),
                spec: Spec { seed: seed ^ u64::from(replica), ..spec.clone() },
                provider: None,
            })
            .collect();
        Self {
            name: name.into(),
            seed,
            start: NEW_YEARS_EVE,
            length: Millis(60_000),
            plan,
            machines,
            demands: Vec::new(),
            incidents: Vec::new(),
            operations: Vec::new(),
            odds: Odds::default(),
            shell: Shell::default(),
            strict: true,
            plain: true,
            check_every: 1,
            lie: None,
        }
    }

    /// When clients stop sending.
    #[must_use]
    pub fn end(&self) -> At {
        self.start.plus(self.length)
    }
}

/// An engine of a plan, its replicas numbered from `first_replica`.
#[must_use]
pub fn engine(id: u32, first_replica: u32, replicas: u32, pace: Pace) -> Engine {
    Engine {
        id: EngineId(id),
        name: format!("engine-{id}").into(),
        replicas: (first_replica..first_replica + replicas).map(|id| Replica { id: ReplicaId(id) }).collect(),
        pace,
        rate: Rate::default(),
        cost: CostRule::default(),
    }
}

/// A model of a plan over these engines.
#[must_use]
pub fn model(id: u32, targets: &[u32]) -> Model {
    Model {
        id: ModelId(id),
        targets: targets.iter().map(|target| EngineId(*target)).collect(),
        // Every other model is known by its provider's name for it.
        upstreams: if id % 2 == 1 { vec![id; targets.len()] } else { Vec::new() },
        price: Price { input: 1_000_000, cached: 100_000, cache_written: 1_250_000, output: 4_000_000 },
        context_tokens_max: None,
        output_tokens_max: Tokens(512),
    }
}
