//! Random worlds: every choice drawn from one seed, within a kind of world that has a
//! name, so that a failing one can be asked for again.

use seawall_kernel::plan::{
    BudgetRule, GuardRule, Meter, Pace, Period, Plan, QueueRule, Rate, RetryRule, RunBudget, TenantRule,
};
use seawall_load::engine::Spec;
use seawall_load::length::Lengths;
use seawall_load::pace;
use seawall_load::rng::Rng;
use seawall_model::{At, Bytes, Class, EngineId, Millis, ModelId, Tokens};

use crate::crowd::BLOCK_TOKENS;
use crate::scenario::{
    Cap, Demand, Incident, Law, Machine, NEW_YEARS_EVE, Odds, Operation, Provider, Scenario, Shell, Talk,
    Trouble, engine, model,
};

/// The kinds of worlds. `any` draws one of the others by its seed.
pub const NAMES: &[&str] = &[
    "any", "calm", "fair", "flood", "overload", "faults", "budgets", "crash", "reload", "provider", "storm",
    "trees",
];

/// What a kind of world has.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// Offered load as a share of what the engines can do, in percent: least and most.
    load: (u64, u64),
    /// Nothing but weights, one target per model.
    plain: bool,
    flood: bool,
    faults: bool,
    budgets: bool,
    rules: bool,
    crashes: bool,
    reloads: bool,
    providers: bool,
    /// Runs that talk to each other, and operators who stop them.
    trees: bool,
    leave_most: u64,
}

const CALM: Kind = Kind {
    load: (20, 80),
    plain: false,
    flood: false,
    faults: false,
    budgets: false,
    rules: false,
    crashes: false,
    reloads: false,
    providers: false,
    trees: false,
    leave_most: 10,
};

fn kind_of(name: &str) -> Option<Kind> {
    Some(match name {
        "calm" => CALM,
        "fair" => Kind { plain: true, load: (100, 300), ..CALM },
        "flood" => Kind { plain: true, flood: true, load: (60, 100), leave_most: 30, ..CALM },
        "overload" => Kind { load: (150, 300), rules: true, leave_most: 40, ..CALM },
        "faults" => Kind { faults: true, load: (40, 120), leave_most: 30, ..CALM },
        "budgets" => Kind { budgets: true, load: (50, 150), leave_most: 20, ..CALM },
        "crash" => Kind { budgets: true, crashes: true, load: (50, 150), leave_most: 20, ..CALM },
        "reload" => Kind { reloads: true, rules: true, budgets: true, load: (50, 200), ..CALM },
        "provider" => Kind { providers: true, load: (50, 200), ..CALM },
        "trees" => Kind { trees: true, load: (20, 120), leave_most: 20, ..CALM },
        "storm" => Kind {
            faults: true,
            budgets: true,
            rules: true,
            crashes: true,
            reloads: true,
            providers: true,
            load: (50, 250),
            leave_most: 50,
            ..CALM
        },
        _ => return None,
    })
}

/// What each tree of runs may use: in half of the worlds so little that some run out. Drawn
/// apart, it leaves these worlds' seeds as they were.
fn tree_budget(seed: u64) -> RunBudget {
    let mut rng = Rng::branch(seed, 0x3333);
    let mut some = |most: u64| rng.chance(0.5).then(|| 1 + rng.below(most));
    RunBudget { calls: some(60), tokens: some(40_000), money: None }
}

/// The world of this name and seed; `None` when there is no such name. `length` replaces
/// the length that is drawn.
#[must_use]
pub fn invent(name: &str, seed: u64, length: Option<Millis>) -> Option<Scenario> {
    let mut rng = Rng::branch(seed, 0x1111);
    // `trees` came later: drawn apart, it leaves the other kinds' seeds as they were.
    let trees = Rng::branch(seed, 0x2222).below(NAMES.len() as u64 - 1) == 0;
    let name = match name {
        "any" if trees => "trees",
        "any" => NAMES[1 + rng.below(NAMES.len() as u64 - 2) as usize],
        name => name,
    };
    let kind = kind_of(name)?;
    let mut draw = Draw { rng, kind };
    let mut machines = Vec::new();
    let mut plan = draw.plan(seed, &mut machines);
    if kind.trees {
        plan.guard.tree = tree_budget(seed);
    }
    let (prompt, output) = draw.lengths();
    let tenants = draw.tenants();
    if !kind.plain {
        plan.tenants = draw.rules(&tenants);
    } else {
        plan.tenants =
            tenants.iter().map(|tenant| rule(tenant, 50 + 50 * draw.rng.below(6) as u32)).collect();
    }
    let load = draw.between(kind.load.0, kind.load.1) as f64 / 100.0;
    let capacity: f64 = machines.iter().map(|machine| capacity(&machine.spec, prompt.1, output.1)).sum();
    let calls = draw.between(300, 1_000);
    let seconds = (calls as f64 / (capacity * load)).clamp(4.0, 240.0);
    let length = length.unwrap_or(Millis((seconds * 1e3) as u64));
    let demands = draw.demands(&plan, &tenants, capacity * load, &prompt.0, &output.0);
    let incidents = if kind.faults { draw.incidents(machines.len(), length) } else { Vec::new() };
    let operations = draw.operations(&plan, demands.len(), length);
    Some(Scenario {
        name: name.into(),
        seed,
        start: At(NEW_YEARS_EVE.0 + draw.rng.below(120_000_000)),
        length,
        demands,
        incidents,
        operations,
        odds: draw.odds(),
        shell: draw.shell(),
        strict: !kind.faults || draw.rng.chance(0.7),
        plain: kind.plain,
        check_every: 1,
        lie: None,
        machines,
        plan,
    })
}

/// Calls per second that an engine can serve when full: each call takes its share of
/// `output` steps, and its prefill.
fn capacity(spec: &Spec, prompt: f64, output: f64) -> f64 {
    let batch = f64::from(spec.slots).min(spec.kv_tokens.0 as f64 / (prompt + output)).max(1.0);
    let decode = output * (spec.pace.step_ns as f64 / batch + spec.pace.sequence_ns as f64);
    1e9 / (decode + prompt * spec.pace.prefill_token_ns as f64)
}

fn rule(prefix: &str, weight: u32) -> TenantRule {
    TenantRule { prefix: prefix.into(), weight, calls_max: None, rate: Rate::default(), budgets: Vec::new() }
}

struct Draw {
    rng: Rng,
    kind: Kind,
}

impl Draw {
    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.rng.below(most - least + 1)
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.rng.below(all.len() as u64) as usize]
    }

    fn plan(&mut self, seed: u64, machines: &mut Vec<Machine>) -> Plan {
        let mut engines = Vec::new();
        let mut replica = 0;
        // Few slots make unfairness show soon: what is in flight is what a bound must allow.
        let (engines_most, replicas_most, slots_most) = if self.kind.plain { (2, 2, 8) } else { (4, 6, 24) };
        for id in 0..self.between(1, engines_most) as u32 {
            let spec = self.spec(seed ^ u64::from(id), slots_most);
            let replicas = self.between(1, replicas_most) as u32;
            let provider = self.provider();
            let mut engine = engine(id, replica, replicas, self.pace(&spec));
            if self.kind.providers && self.rng.chance(0.3) {
                engine.rate.calls_per_min = Some(self.between(60, 3_000) as u32);
            }
            if self.kind.providers && self.rng.chance(0.3) {
                engine.rate.tokens_per_min = Some(self.between(20_000, 500_000));
            }
            for known in &engine.replicas {
                let spec = Spec { seed: seed ^ u64::from(known.id.0), ..spec.clone() };
                machines.push(Machine { replica: known.id, engine: EngineId(id), spec, provider });
            }
            replica += replicas;
            engines.push(engine);
        }
        let count = engines.len() as u32;
        let models = (0..self.between(1, 4) as u32).map(|id| {
            let first = self.rng.below(u64::from(count)) as u32;
            let targets = if self.kind.plain { 1 } else { self.between(1, u64::from(count)) as u32 };
            model(id, &(0..targets).map(|nth| (first + nth) % count).collect::<Vec<_>>())
        });
        let models = models.collect();
        let shares = self.one_of(&[[60, 25, 10], [50, 20, 10], [34, 33, 33], [80, 0, 20], [0, 0, 0]]);
        Plan {
            engines,
            models,
            tenants: Vec::new(),
            queue: self.queue(),
            class_share: shares,
            retry: self.retry(),
            guard: GuardRule::default(),
        }
    }

    fn spec(&mut self, seed: u64, slots_most: u64) -> Spec {
        let slots = self.between(2, slots_most) as u32;
        Spec {
            slots,
            kv_tokens: Tokens(8_000 + u64::from(slots) * self.between(200, 2_000)),
            prefill_chunk: Tokens(self.between(256, 2_048)),
            // Where fairness is measured, engines take all that is sent to them.
            queue_len_max: if self.kind.plain { 1_000 } else { self.between(4, 64) as u32 },
            block_tokens: Tokens(BLOCK_TOKENS),
            pace: pace::Pace {
                step_ns: self.between(4_000_000, 40_000_000),
                sequence_ns: self.between(50_000, 500_000),
                prefill_token_ns: self.between(5_000, 60_000),
            },
            reserves: false,
            jitter_percent: self.between(0, 20) as u32,
            seed,
        }
    }

    fn pace(&mut self, spec: &Spec) -> Pace {
        let calls_max = self.between(1, if self.kind.plain { 1 } else { 3 }) as u32 * spec.slots;
        Pace {
            calls_min: 1,
            calls_max,
            calls_start: self.between(1, u64::from(calls_max)) as u32,
            kv_tokens_max: self.rng.chance(0.4).then_some(spec.kv_tokens),
            adaptive: self.rng.chance(0.7),
            slowdown_max: Pace::default().slowdown_max,
            queue_delay_ms_max: Millis(self.between(50, 1_000)),
        }
    }

    fn provider(&mut self) -> Option<Provider> {
        let has = self.kind.providers && self.rng.chance(0.6);
        has.then(|| Provider { calls: self.between(3, 60) as u32, window: Millis(self.between(500, 10_000)) })
    }

    fn queue(&mut self) -> QueueRule {
        QueueRule {
            len_max: self.between(20, 400) as usize,
            tenant_len_max: self.between(5, 200) as usize,
            bytes_max: Bytes(self.between(50_000, 4_000_000)),
            wait_ms_max: Millis(self.between(500, 30_000)),
            ageing_ms: Millis(self.between(200, 10_000)),
        }
    }

    fn retry(&mut self) -> RetryRule {
        RetryRule {
            attempts_max: self.between(1, 4) as u32,
            percent: self.one_of(&[0, 10, 10, 20, 100]),
            pause_ms: Millis(self.between(1, 200)),
            pause_ms_max: Millis(self.between(200, 3_000)),
            open_after: self.between(1, 6) as u32,
            open_ms: Millis(self.between(50, 2_000)),
            seed: self.rng.next_u64(),
        }
    }

    /// Prompt and output lengths, each with its mean.
    fn lengths(&mut self) -> ((Lengths, f64), (Lengths, f64)) {
        let mut of = |least: u64, most: u64, tail: u64| {
            let median = self.between(least, most);
            let lengths =
                Lengths::lognormal(Tokens(median), Tokens(median * tail)).expect("a tail above its median");
            // The mean of a log-normal is exp(sigma^2 / 2) times its median.
            let sigma = (tail as f64).ln() / 2.326;
            (lengths, median as f64 * (sigma * sigma / 2.0).exp())
        };
        (of(40, 400, 5), of(5, 40, 6))
    }

    /// Full paths, one to four levels deep, under few roots so that siblings meet.
    fn tenants(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..self.between(2, 12) {
            let depth = self.between(1, 4);
            let names = ["acme", "bolt", "core-1", "dune"];
            let path: Vec<&str> = (0..depth).map(|_| self.one_of(&names)).collect();
            let path = path.join("/");
            if !all.contains(&path) {
                all.push(path);
            }
        }
        all
    }

    fn rules(&mut self, tenants: &[String]) -> Vec<TenantRule> {
        let mut prefixes: Vec<&str> = vec!["*"];
        for tenant in tenants {
            prefixes.extend(tenant.match_indices('/').map(|(at, _)| &tenant[..at]));
            prefixes.push(tenant);
        }
        prefixes.sort_unstable();
        prefixes.dedup();
        let mut rules = Vec::new();
        for prefix in prefixes {
            if self.rng.chance(0.4) {
                continue;
            }
            let mut rule = rule(prefix, self.between(1, 500) as u32);
            if self.kind.rules {
                rule.calls_max = self.rng.chance(0.4).then(|| self.between(1, 20) as u32);
                rule.rate.calls_per_min = self.rng.chance(0.3).then(|| self.between(10, 3_000) as u32);
                rule.rate.tokens_per_min = self.rng.chance(0.3).then(|| self.between(10_000, 1_000_000));
            }
            if self.kind.budgets && self.rng.chance(0.7) {
                rule.budgets = self.budgets();
            }
            rules.push(rule);
        }
        rules
    }

    fn budgets(&mut self) -> Vec<BudgetRule> {
        let mut budgets: Vec<BudgetRule> = Vec::new();
        for _ in 0..self.between(1, 3) {
            let meter = self.one_of(&[Meter::Tokens, Meter::Money, Meter::Calls]);
            let period =
                self.one_of(&[Period::Minute, Period::Hour, Period::Day, Period::Month, Period::Total]);
            let limit = match meter {
                Meter::Tokens => self.between(2_000, 150_000),
                Meter::Money => self.between(2_000, 300_000),
                Meter::Calls => self.between(3, 300),
            };
            if budgets.iter().all(|known| (known.meter, known.period) != (meter, period)) {
                budgets.push(BudgetRule { meter, period, limit });
            }
        }
        budgets
    }

    fn demands(
        &mut self,
        plan: &Plan,
        tenants: &[String],
        rps: f64,
        prompt: &Lengths,
        output: &Lengths,
    ) -> Vec<Demand> {
        let parts: Vec<f64> = tenants.iter().map(|_| self.rng.exp(1.0) + 0.1).collect();
        let sum: f64 = parts.iter().sum();
        let flooder = self.kind.flood.then(|| self.rng.below(tenants.len() as u64) as usize);
        // Without caches and guesses a call's cost is known beforehand.
        let sharp = self.kind.plain && self.rng.chance(0.7);
        let mut demands = Vec::new();
        for (index, tenant) in tenants.iter().enumerate() {
            let mut share = rps * parts[index] / sum;
            if flooder == Some(index) {
                share *= 20.0;
            }
            let law = if self.rng.chance(0.25) {
                Law::Closed { workers: self.between(1, 30) as u32, think: Millis(self.between(0, 500)) }
            } else {
                Law::Open { rps: share, cv: self.one_of(&[0.5, 1.0, 1.0, 3.0]) }
            };
            let models: Vec<ModelId> =
                plan.models.iter().map(|model| model.id).filter(|_| self.rng.chance(0.7)).collect();
            let classes: Vec<Class> = Class::ALL.into_iter().filter(|_| self.rng.chance(0.5)).collect();
            demands.push(Demand {
                models: if models.is_empty() { vec![plan.models[0].id] } else { models },
                classes: if classes.is_empty() { vec![Class::Interactive] } else { classes },
                prompt: prompt.clone(),
                output: output.clone(),
                cap: if sharp {
                    Cap::Exact
                } else {
                    self.one_of(&[Cap::None, Cap::Exact, Cap::Times(2), Cap::Times(8)])
                },
                stream: self.one_of(&[0, 50, 100, 100]),
                silent: self.one_of(&[0, 0, 0, 30]),
                runs: if sharp { 0 } else { self.one_of(&[0, 0, 3, 20]) },
                leave: self.between(0, self.kind.leave_most),
                deadline: (self.one_of(&[0, 0, 0, 30]), Millis(self.between(200, 20_000))),
                narrow: if self.kind.plain { 0 } else { 10 },
                shared_blocks: if sharp { 0 } else { self.between(0, 6) },
                ..Demand::plain(tenant, law, 1, 1)
            });
        }
        if self.kind.trees {
            demands.iter_mut().for_each(|demand| self.talk(demand));
        }
        demands
    }

    /// Runs that get somewhere, or two that answer each other for ever.
    fn talk(&mut self, demand: &mut Demand) {
        (demand.talk, demand.runs) = (Talk::Onward, self.one_of(&[3, 20]));
        if self.rng.chance(0.4) {
            demand.talk = Talk::PingPong;
            demand.law = Law::Closed { workers: 1, think: Millis(self.between(20, 100)) };
            (demand.silent, demand.leave, demand.deadline) = (0, 0, (0, Millis::ZERO));
        }
    }

    fn incidents(&mut self, machines: usize, length: Millis) -> Vec<Incident> {
        (0..self.between(1, 8))
            .map(|_| {
                let trouble = match self.rng.below(7) {
                    0 | 1 => Trouble::Crash,
                    2 => Trouble::Hang,
                    3 => Trouble::Slow(self.between(2, 5)),
                    4 => {
                        let after = Millis(self.between(10, 5_000));
                        Trouble::Storm(self.rng.chance(0.7).then_some(after))
                    }
                    5 => Trouble::Burst(self.between(20, 100)),
                    _ => Trouble::Locked,
                };
                Incident {
                    from: Millis(self.rng.below(length.0)),
                    length: Millis(self.between(50, length.0.max(100) / 2)),
                    machine: self.rng.below(machines as u64) as usize,
                    trouble,
                }
            })
            .collect()
    }

    fn operations(&mut self, plan: &Plan, demands: usize, length: Millis) -> Vec<(Millis, Operation)> {
        let mut all = Vec::new();
        if self.kind.crashes {
            for _ in 0..self.between(1, 3) {
                let operation = if self.rng.chance(0.7) {
                    Operation::Crash(Millis(self.between(10, 3_000)))
                } else {
                    Operation::Restart
                };
                all.push((Millis(self.rng.below(length.0)), operation));
            }
        }
        if self.kind.trees {
            for _ in 0..self.between(1, 6) {
                let demand = self.rng.below(demands as u64) as usize;
                all.push((Millis(self.rng.below(length.0)), Operation::Stop(demand)));
                all.push((Millis(self.rng.below(length.0)), Operation::Resume));
            }
        }
        if self.kind.reloads {
            let mut plan = plan.clone();
            for _ in 0..self.between(1, 4) {
                self.change(&mut plan);
                all.push((Millis(self.rng.below(length.0)), Operation::Reload(Box::new(plan.clone()))));
            }
        }
        all
    }

    /// Changes a plan as operators do: weights, limits, replicas that go and come back,
    /// and now and then a whole engine that goes.
    fn change(&mut self, plan: &mut Plan) {
        for rule in &mut plan.tenants {
            rule.weight = self.between(1, 500) as u32;
            if rule.calls_max.is_some() {
                rule.calls_max = Some(self.between(1, 20) as u32);
            }
            for budget in &mut rule.budgets {
                budget.limit = (budget.limit * self.between(50, 300) / 100).max(1);
            }
        }
        let engine = self.rng.below(plan.engines.len() as u64) as usize;
        let engine = &mut plan.engines[engine];
        if engine.replicas.len() > 1 && self.rng.chance(0.6) {
            let gone = self.rng.below(engine.replicas.len() as u64) as usize;
            engine.replicas.remove(gone);
        }
        engine.pace.calls_max = self.between(1, 40) as u32;
        engine.pace.calls_start = engine.pace.calls_start.min(engine.pace.calls_max);
        plan.queue = self.queue();
        if plan.engines.len() > 1 && self.rng.chance(0.2) {
            let gone = plan.engines.remove(self.rng.below(plan.engines.len() as u64) as usize).id;
            for model in &mut plan.models {
                model.targets.retain(|target| *target != gone);
            }
            plan.models.retain(|model| !model.targets.is_empty());
        }
    }

    fn odds(&mut self) -> Odds {
        if !self.kind.faults {
            return Odds::default();
        }
        Odds {
            cut: self.between(0, 40),
            garble: self.between(0, 20),
            server: self.between(0, 40),
            refuse: self.between(0, 20),
            too_large: self.between(0, 10),
            hang: self.between(0, 5),
            overrun: 20,
        }
    }

    fn shell(&mut self) -> Shell {
        let patient = if self.kind.plain { 100 } else { 1 };
        Shell {
            first_ms_max: Millis(self.between(3_000, 20_000) * patient),
            stall_ms_max: Millis(self.between(1_000, 5_000) * patient),
            progress_every: self.between(1, 32),
            network_us_max: self.between(0, 5_000),
            leave_us_max: self.between(1, 50_000),
            disk_us_max: self.between(1, 100_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_makes_a_world_and_the_same_one_each_time() {
        for name in NAMES {
            for seed in 0..20 {
                let once = invent(name, seed, None).expect("a known name");
                let twice = invent(name, seed, None).expect("a known name");
                assert_eq!(format!("{once:?}"), format!("{twice:?}"));
                assert!(!once.demands.is_empty() && !once.machines.is_empty());
            }
        }
        assert!(invent("nothing", 1, None).is_none());
    }
}
