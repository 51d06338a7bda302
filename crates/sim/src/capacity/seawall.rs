//! The production kernel as a contender: the same `Kernel::step` that `serve` runs, behind
//! a shell that reports what `node` reports, as often as it does.

use seawall_kernel::plan::{CostRule, Engine, Model, Pace, Price, QueueRule, Rate, Replica, TenantRule};
use seawall_kernel::{Effect, Input, Kernel, Plan, Submit};
use seawall_model::{At, Bytes, CallId, EngineId, Millis, ModelId, ReplicaId, RunId, Tokens, Usage};

use super::replay::{Decision, Gateway, Scene};

/// `node` reports a stream's progress whenever so many tokens have gone by.
const PROGRESS_EVERY: u64 = 64;
/// `serve`'s default guaranteed shares of the classes.
const CLASS_SHARES: [u32; 3] = [60, 25, 5];

/// What may be set of it. The default is what `serve` does when nothing is configured, but
/// for the queue, which waits as long as the rivals' queues do.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// How concurrency is found.
    pub pace: Pace,
    /// Replicas of the one engine.
    pub replicas: u32,
    /// Weights of tenant prefixes.
    pub weights: Vec<(String, u32)>,
    /// The client's own limit of output, where clients name one.
    pub output_max: Option<u64>,
}

/// The kernel and what its shell has to remember.
pub struct Seawall {
    kernel: Kernel,
    output_max: Option<u64>,
    effects: Vec<Effect>,
}

impl Seawall {
    /// A kernel with nothing to do.
    #[must_use]
    pub fn new(setting: &Setting) -> Self {
        let rule = |(prefix, weight): &(String, u32)| TenantRule {
            prefix: prefix.as_str().into(),
            weight: *weight,
            calls_max: None,
            rate: Rate::default(),
            budgets: Vec::new(),
        };
        let plan = Plan {
            engines: vec![Engine {
                id: EngineId(1),
                name: "engine".into(),
                replicas: (0..setting.replicas).map(|id| Replica { id: ReplicaId(id) }).collect(),
                pace: setting.pace.clone(),
                rate: Rate::default(),
                cost: CostRule::default(),
            }],
            models: vec![Model {
                id: ModelId(1),
                targets: vec![EngineId(1)],
                upstreams: Vec::new(),
                price: Price::default(),
                context_tokens_max: None,
                output_tokens_max: Tokens(4_096),
            }],
            tenants: setting.weights.iter().map(rule).collect(),
            queue: QueueRule {
                len_max: 100_000,
                tenant_len_max: 100_000,
                bytes_max: Bytes(u64::MAX),
                wait_ms_max: Millis(86_400_000),
                ..QueueRule::default()
            },
            class_share: CLASS_SHARES,
            ..Plan::default()
        };
        Self { kernel: Kernel::new(At(0), plan), output_max: setting.output_max, effects: Vec::new() }
    }

    fn tell(&mut self, now: At, input: Input, out: &mut Vec<Decision>) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut effects = std::mem::take(&mut self.effects);
            self.kernel.step(now, input, &mut effects);
            for effect in effects.drain(..) {
                match effect {
                    Effect::Dispatch(grant) => out.push(Decision::Send {
                        call: grant.call.0 as usize,
                        replica: grant.replica.0 as usize,
                    }),
                    Effect::Refuse(refusal) => out.push(Decision::Drop { call: refusal.call.0 as usize }),
                    Effect::Probe { replica } => inputs.push(Input::Probed { replica, healthy: true }),
                    Effect::Settle(_) | Effect::Halt { .. } | Effect::Draw { .. } | Effect::Spent { .. } => {}
                }
            }
            self.effects = effects;
        }
    }
}

impl Gateway for Seawall {
    fn arrive(&mut self, scene: Scene<'_>, call: usize, out: &mut Vec<Decision>) {
        let ask = &scene.asks[call];
        let submit = Submit {
            call: CallId(call as u64),
            tenant: ask.tenant.clone(),
            model: ModelId(1),
            targets: vec![EngineId(1)],
            class: ask.class,
            run: ask.run.map(RunId),
            parent: None,
            agent: None,
            work: None,
            prompt: Tokens(ask.input),
            prompt_max: Tokens(ask.input),
            output_max: self.output_max.map(Tokens),
            generates: true,
            bytes: Bytes(ask.input * 4),
            deadline: ask.deadline(),
            prefix: ask.prefix.clone(),
        };
        self.tell(scene.now, Input::Submit(Box::new(submit)), out);
    }

    fn token(&mut self, scene: Scene<'_>, call: usize, tokens: u64, out: &mut Vec<Decision>) {
        let call = CallId(call as u64);
        if tokens == 1 {
            self.tell(scene.now, Input::FirstToken { call }, out);
        } else if tokens.is_multiple_of(PROGRESS_EVERY) {
            let input = Input::Progress { call, output: Tokens(tokens), waited: Millis::ZERO };
            self.tell(scene.now, input, out);
        }
    }

    fn finish(&mut self, scene: Scene<'_>, call: usize, cached: u64, out: &mut Vec<Decision>) {
        let ask = &scene.asks[call];
        let usage = Usage {
            input: Tokens(ask.input),
            cached: Tokens(cached.min(ask.input)),
            output: Tokens(ask.output),
            ..Usage::default()
        };
        let finish = Some(seawall_model::Finish::Stop);
        self.tell(scene.now, Input::Finished { call: CallId(call as u64), usage, finish }, out);
    }

    fn wake_at(&self) -> Option<At> {
        self.kernel.wake_at()
    }

    fn tick(&mut self, scene: Scene<'_>, out: &mut Vec<Decision>) {
        self.tell(scene.now, Input::Tick, out);
    }
}
