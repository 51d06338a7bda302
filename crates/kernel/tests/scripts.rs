//! Transcripts: `tests/scripts/*.txt` at the root of the repository hold inputs, and
//! under each the effects it had. `UPDATE=1 cargo test -p seawall-kernel --test scripts`
//! writes the effects anew; what changed is then seen in the diff.
//!
//! One input per line; `#` begins a comment; lines that begin with `> ` are effects.
//!
//! ```text
//! plan                               a new kernel, with what the indented lines say
//! reload                             the same, as Input::Configure
//!   engine NAME [replicas N] [calls N] [adaptive MIN MAX] [kv N] [rpm N] [tpm N]
//!   model NAME ENGINE.. [named [N]] [price IN CACHED OUT] [output N] [context N]
//!   tenant PREFIX [weight N] [calls N] [rpm N] [tpm N] [budget METER/PERIOD N]..
//!   queue [len N] [tenant N] [bytes N] [wait MS] [ageing MS]
//!   share INTERACTIVE AGENT BATCH
//!   retry [attempts N] [percent N] [pause MS] [open AFTER MS] [seed N]
//!   guard REPEATS refuse|warn
//! at MS                              time passes, with a tick whenever the kernel asks
//! submit CALL TENANT MODEL [prompt N] [atmost N] [max N] [class NAME] [run N] [parent N] [agent NAME] [work N]
//!        [deadline MS] [bytes N] [prefix H..] [embed]
//! first CALL
//! progress CALL OUTPUT [MS]          MS of it were spent waiting for the client
//! finish CALL [in N] [cached N] [out N]
//! serve N [in N] [cached N] [out N]   the call that runs longest finishes, N times over
//! fail CALL HOW [in N] [out N] [began]       HOW as in Failure, `limited MS` or `limited`
//! cancel CALL [in N] [out N]
//! rate REPLICA [for CALL] [calls N] [tokens N] [reset MS]
//! probed REPLICA up|down
//! drawn ACCOUNT CEILING              for the window last drawn
//! restored ACCOUNT SPENT             for the window that holds now
//! stop RUN
//! resume RUN
//! drain
//! show                               the state
//! ```
//!
//! Engines are numbered from 1 in order of first mention, models too; replica R of engine
//! E is E0R.

#![expect(clippy::disallowed_methods, reason = "scripts are files, and UPDATE asks for them to be rewritten")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use seawall_kernel::plan::{
    BudgetRule, CostRule, Engine, Meter, Model, Pace, Period, Price, Rate, Replica, TenantRule,
};
use seawall_kernel::{Effect, Failure, Input, Kernel, Plan, RateReport, Submit};
use seawall_model::{
    Agent, At, Bytes, CallId, Cause, Class, EngineId, Millis, ModelId, ReplicaId, RunId, Tenant, Tokens,
    Usage, Waits,
};

/// 2024-01-01 00:00:00 UTC: every budget window begins here.
const START: u64 = 1_704_067_200_000_000;

/// The words of one line, read from left to right.
struct Words<'a> {
    line: &'a str,
    words: std::iter::Peekable<std::str::SplitWhitespace<'a>>,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        Self { line, words: line.split_whitespace().peekable() }
    }

    fn next(&mut self) -> Option<&'a str> {
        self.words.next()
    }

    fn word(&mut self) -> &'a str {
        self.next().unwrap_or_else(|| panic!("a word is missing: {}", self.line))
    }

    fn number(&mut self) -> u64 {
        let word = self.word();
        word.parse().unwrap_or_else(|_| panic!("{word} is no number: {}", self.line))
    }

    /// A number if one comes next.
    fn maybe(&mut self) -> Option<u64> {
        let number = self.words.peek()?.parse().ok()?;
        self.next();
        Some(number)
    }

    fn unknown(&self, word: &str) -> ! {
        panic!("what is {word}? {}", self.line)
    }
}

/// A script being played.
struct Player {
    kernel: Kernel,
    now: At,
    engines: Vec<String>,
    models: Vec<String>,
    /// Targets of each model in the last plan.
    targets: BTreeMap<u32, Vec<EngineId>>,
    windows: BTreeMap<String, At>,
    running: Vec<CallId>,
    text: String,
}

impl Player {
    fn new() -> Self {
        Self {
            kernel: Kernel::new(At(START), Plan::default()),
            now: At(START),
            engines: Vec::new(),
            models: Vec::new(),
            targets: BTreeMap::new(),
            windows: BTreeMap::new(),
            running: Vec::new(),
            text: String::new(),
        }
    }

    fn play(&mut self, script: &str) {
        let mut lines = script.lines().filter(|line| !line.starts_with("> ")).peekable();
        while let Some(line) = lines.next() {
            self.text.push_str(line);
            self.text.push('\n');
            let said = line.split('#').next().filter(|_| !line.trim_start().starts_with('#')).unwrap_or("");
            // An account's name holds a `#` too, but never after a blank.
            let said = if line.contains(" #") || line.starts_with('#') { said } else { line };
            let mut words = Words::of(said);
            let Some(verb) = words.next() else { continue };
            if matches!(verb, "plan" | "reload") {
                let mut block = Vec::new();
                while let Some(line) = lines.next_if(|line| line.starts_with("  ")) {
                    self.text.push_str(line);
                    self.text.push('\n');
                    block.push(line);
                }
                let plan = self.plan(&block);
                if verb == "plan" {
                    self.kernel = Kernel::new(self.now, plan);
                } else {
                    self.step(Input::Configure(Box::new(plan)));
                }
            } else {
                self.act(verb, &mut words);
            }
        }
    }

    fn plan(&mut self, block: &[&str]) -> Plan {
        let mut plan = Plan::default();
        for line in block {
            let mut words = Words::of(line);
            match words.word() {
                "engine" => self.engine(&mut plan, &mut words),
                "model" => self.model(&mut plan, &mut words),
                "tenant" => plan.tenants.push(tenant(&mut words)),
                "queue" => queue(&mut plan, &mut words),
                "share" => plan.class_share = [0; 3].map(|_| words.number() as u32),
                "retry" => retry(&mut plan, &mut words),
                "guard" => {
                    plan.guard.repeats = words.number() as u32;
                    plan.guard.refuse = words.word() == "refuse";
                }
                other => words.unknown(other),
            }
        }
        plan
    }

    fn engine(&mut self, plan: &mut Plan, words: &mut Words) {
        let name = words.word();
        let id = number(&mut self.engines, name);
        let mut engine = Engine {
            id: EngineId(id),
            name: name.into(),
            replicas: vec![Replica { id: ReplicaId(id * 100) }],
            pace: Pace { adaptive: false, ..Pace::default() },
            rate: Rate::default(),
            cost: CostRule::default(),
        };
        while let Some(word) = words.next() {
            match word {
                "replicas" => {
                    let replicas = 0..words.number() as u32;
                    engine.replicas = replicas.map(|r| Replica { id: ReplicaId(id * 100 + r) }).collect();
                }
                "calls" => engine.pace.calls_max = words.number() as u32,
                "adaptive" => {
                    engine.pace.adaptive = true;
                    engine.pace.calls_min = words.number() as u32;
                    engine.pace.calls_start = engine.pace.calls_max;
                    engine.pace.calls_max = words.number() as u32;
                }
                "kv" => engine.pace.kv_tokens_max = Some(Tokens(words.number())),
                "rpm" => engine.rate.calls_per_min = Some(words.number() as u32),
                "tpm" => engine.rate.tokens_per_min = Some(words.number()),
                other => words.unknown(other),
            }
        }
        plan.engines.push(engine);
    }

    fn model(&mut self, plan: &mut Plan, words: &mut Words) {
        let mut model = Model {
            id: ModelId(number(&mut self.models, words.word())),
            targets: Vec::new(),
            upstreams: Vec::new(),
            price: Price::default(),
            context_tokens_max: None,
            output_tokens_max: Tokens(1_000),
        };
        while let Some(word) = words.next() {
            match word {
                "price" => {
                    let [input, cached, output] = [0; 3].map(|_| words.number());
                    model.price = Price { input, cached, cache_written: input, output };
                }
                "output" => model.output_tokens_max = Tokens(words.number()),
                "named" => {
                    let name = words.maybe().map_or(model.id.0, |name| name as u32);
                    model.upstreams = vec![name; model.targets.len()];
                }
                "context" => model.context_tokens_max = Some(Tokens(words.number())),
                name => {
                    model.targets.push(EngineId(number(&mut self.engines, name)));
                }
            }
        }
        self.targets.insert(model.id.0, model.targets.clone());
        plan.models.push(model);
    }

    fn act(&mut self, verb: &str, words: &mut Words) {
        let input = match verb {
            "at" => return self.pass(At(START + words.number() * 1_000)),
            "show" => return self.show(),
            "serve" => return self.serve(words),
            "submit" => self.submit(words),
            "first" => Input::FirstToken { call: CallId(words.number()) },
            "progress" => Input::Progress {
                call: CallId(words.number()),
                output: Tokens(words.number()),
                waited: Millis(words.maybe().unwrap_or(0)),
            },
            "finish" => {
                let call = CallId(words.number());
                Input::Finished { call, usage: usage(words).0, finish: None }
            }
            "cancel" => Input::Cancelled { call: CallId(words.number()), usage: usage(words).0 },
            "fail" => {
                let call = CallId(words.number());
                let failure = failure(words);
                let (usage, client_began) = usage(words);
                Input::Failed { call, failure, client_began, usage }
            }
            "rate" => rate(words),
            "probed" => {
                Input::Probed { replica: ReplicaId(words.number() as u32), healthy: words.word() == "up" }
            }
            "drawn" => {
                let account = words.word();
                let window = *self.windows.get(account).unwrap_or_else(|| words.unknown(account));
                Input::Drawn { account: account.into(), window, ceiling: words.number() }
            }
            "restored" => {
                let account = words.word();
                Input::Restored { account: account.into(), window: At(START), spent: words.number() }
            }
            "below" => Input::Below { run: RunId(words.number()), parent: RunId(words.number()) },
            "stop" => Input::Stop { run: RunId(words.number()) },
            "resume" => Input::Resume { run: RunId(words.number()) },
            "drain" => Input::Drain,
            other => words.unknown(other),
        };
        if let Some(word) = words.next() {
            words.unknown(word);
        }
        self.step(input);
    }

    fn pass(&mut self, until: At) {
        while let Some(at) = self.kernel.wake_at().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.step(Input::Tick);
        }
        self.now = until;
        self.step(Input::Tick);
    }

    fn serve(&mut self, words: &mut Words) {
        let times = words.number();
        let (usage, _) = usage(words);
        for _ in 0..times {
            let call = *self.running.first().expect("a call that runs");
            self.step(Input::Finished { call, usage, finish: None });
        }
    }

    fn submit(&self, words: &mut Words) -> Input {
        let call = CallId(words.number());
        let tenant = Tenant::parse(words.word()).expect("a tenant path");
        let name = words.word();
        let model = self.models.iter().position(|model| model == name).map_or(99, |at| at as u32 + 1);
        let mut submit = Submit {
            call,
            tenant,
            model: ModelId(model),
            targets: self.targets.get(&model).cloned().unwrap_or_default(),
            class: Class::Interactive,
            run: None,
            parent: None,
            agent: None,
            work: None,
            prompt: Tokens(100),
            prompt_max: Tokens::ZERO,
            output_max: Some(Tokens(100)),
            generates: true,
            bytes: Bytes(400),
            deadline: None,
            prefix: Box::default(),
        };
        while let Some(word) = words.next() {
            match word {
                "prompt" => submit.prompt = Tokens(words.number()),
                "atmost" => submit.prompt_max = Tokens(words.number()),
                "max" => submit.output_max = Some(Tokens(words.number())),
                "class" => submit.class = Class::from_name(words.word()).expect("a class"),
                "run" => submit.run = Some(RunId(words.number())),
                "parent" => submit.parent = Some(RunId(words.number())),
                "agent" => submit.agent = Some(Agent::parse(words.word()).expect("an agent")),
                "work" => submit.work = Some(words.number()),
                "deadline" => submit.deadline = Some(self.now.plus(Millis(words.number()))),
                "bytes" => submit.bytes = Bytes(words.number()),
                "prefix" => submit.prefix = std::iter::from_fn(|| words.maybe()).collect(),
                "embed" => submit.generates = false,
                other => words.unknown(other),
            }
        }
        Input::Submit(Box::new(submit))
    }

    fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        self.kernel.step(self.now, input, &mut out);
        self.kernel.check();
        for effect in out {
            match &effect {
                Effect::Dispatch(grant) => {
                    self.running.retain(|call| *call != grant.call);
                    self.running.push(grant.call);
                }
                Effect::Settle(end) => self.running.retain(|call| *call != end.call),
                _ => {}
            }
            let line = self.describe(&effect);
            let _ = writeln!(self.text, "> {:>6} {line}", (self.now.0 - START) / 1_000);
        }
    }

    fn describe(&mut self, effect: &Effect) -> String {
        match effect {
            Effect::Dispatch(grant) => format!(
                "dispatch {} attempt {} on {}/{}{}{}",
                grant.call.0,
                grant.attempt,
                self.engines[grant.engine.0 as usize - 1],
                grant.replica.0,
                waits(&grant.waits),
                if grant.repeats > 0 { format!(" repeats {}", grant.repeats) } else { String::new() }
            ),
            Effect::Refuse(no) => {
                let mut line = format!("refuse {} {}", no.call.0, no.code.as_str());
                if let Some(after) = no.retry_after {
                    let _ = write!(line, " retry-after {}", after.0);
                }
                if let Some(cause) = no.cause {
                    let _ = write!(line, " cause {}", cause.as_str());
                }
                if let Some(what) = &no.what {
                    let _ = write!(line, " what {what}");
                }
                line
            }
            Effect::Settle(end) => format!(
                "settle {} {} attempts {} in {} cached {} out {} cost {}{}",
                end.call.0,
                end.outcome.as_str(),
                end.attempts,
                end.usage.input.0,
                end.usage.cached.0,
                end.usage.output.0,
                end.cost.0,
                waits(&end.waits)
            ),
            Effect::Draw { account, window, ceiling } => {
                self.windows.insert(account.to_string(), *window);
                format!("draw {account} {ceiling}")
            }
            Effect::Spent { account, spent, .. } => format!("spent {account} {spent}"),
            Effect::Halt { call } => format!("halt {}", call.0),
            Effect::Probe { replica } => format!("probe {}", replica.0),
        }
    }

    fn show(&mut self) {
        let view = self.kernel.view();
        let mut say = |line: String| {
            let _ = writeln!(self.text, "> {line}");
        };
        for engine in &view.engines {
            say(format!(
                "engine {} queued {:?} bytes {}",
                engine.engine.0, engine.queued, engine.queued_bytes.0
            ));
            for replica in &engine.replicas {
                say(format!(
                    "  replica {} running {}/{} tokens {} {:?}",
                    replica.replica.0, replica.running, replica.limit, replica.tokens.0, replica.circuit
                ));
            }
        }
        for tenant in &view.tenants {
            let (queued, running, served) = (tenant.queued, tenant.running, tenant.served);
            say(format!("tenant {} queued {queued} running {running} served {served}", tenant.path));
        }
        for account in &view.budgets {
            let (spent, reserved, limit) = (account.spent, account.reserved, account.limit);
            say(format!("budget {} spent {spent} reserved {reserved} limit {limit}", account.account));
        }
    }
}

/// The number of a name, from 1 in order of first mention, also across reloads.
fn number(names: &mut Vec<String>, name: &str) -> u32 {
    let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    });
    at as u32 + 1
}

fn waits(waits: &Waits) -> String {
    let parts = Cause::ALL.into_iter().filter(|cause| waits.of(*cause) > 0);
    let parts: Vec<_> = parts.map(|cause| format!("{}={}us", cause.as_str(), waits.of(cause))).collect();
    if parts.is_empty() { String::new() } else { format!(" waited {}", parts.join(" ")) }
}

fn tenant(words: &mut Words) -> TenantRule {
    let prefix = words.word().into();
    let mut rule =
        TenantRule { prefix, weight: 100, calls_max: None, rate: Rate::default(), budgets: Vec::new() };
    while let Some(word) = words.next() {
        match word {
            "weight" => rule.weight = words.number() as u32,
            "calls" => rule.calls_max = Some(words.number() as u32),
            "rpm" => rule.rate.calls_per_min = Some(words.number() as u32),
            "tpm" => rule.rate.tokens_per_min = Some(words.number()),
            "budget" => {
                let (meter, period) = words.word().split_once('/').expect("METER/PERIOD");
                let meter = match meter {
                    "tokens" => Meter::Tokens,
                    "usd" => Meter::Money,
                    "calls" => Meter::Calls,
                    other => words.unknown(other),
                };
                let period = match period {
                    "minute" => Period::Minute,
                    "hour" => Period::Hour,
                    "day" => Period::Day,
                    "month" => Period::Month,
                    "total" => Period::Total,
                    other => words.unknown(other),
                };
                rule.budgets.push(BudgetRule { meter, period, limit: words.number() });
            }
            other => words.unknown(other),
        }
    }
    rule
}

fn queue(plan: &mut Plan, words: &mut Words) {
    while let Some(word) = words.next() {
        match word {
            "len" => plan.queue.len_max = words.number() as usize,
            "tenant" => plan.queue.tenant_len_max = words.number() as usize,
            "bytes" => plan.queue.bytes_max = Bytes(words.number()),
            "wait" => plan.queue.wait_ms_max = Millis(words.number()),
            "ageing" => plan.queue.ageing_ms = Millis(words.number()),
            other => words.unknown(other),
        }
    }
}

fn retry(plan: &mut Plan, words: &mut Words) {
    while let Some(word) = words.next() {
        match word {
            "attempts" => plan.retry.attempts_max = words.number() as u32,
            "percent" => plan.retry.percent = words.number() as u32,
            "pause" => plan.retry.pause_ms = Millis(words.number()),
            "open" => {
                plan.retry.open_after = words.number() as u32;
                plan.retry.open_ms = Millis(words.number());
            }
            "seed" => plan.retry.seed = words.number(),
            other => words.unknown(other),
        }
    }
}

fn usage(words: &mut Words) -> (Usage, bool) {
    let (mut usage, mut began) = (Usage::default(), false);
    while let Some(word) = words.next() {
        match word {
            "in" => usage.input = Tokens(words.number()),
            "cached" => usage.cached = Tokens(words.number()),
            "out" => usage.output = Tokens(words.number()),
            "began" => began = true,
            other => words.unknown(other),
        }
    }
    (usage, began)
}

fn failure(words: &mut Words) -> Failure {
    match words.word() {
        "connect" => Failure::Connect,
        "timeout" => Failure::Timeout,
        "limited" => Failure::Limited { retry_after: words.maybe().map(Millis) },
        "server" => Failure::Server { status: 500 },
        "refused" => Failure::Refused { status: 422 },
        "credentials" => Failure::Credentials,
        "garbled" => Failure::Garbled,
        "cut" => Failure::Cut,
        "toolarge" => Failure::TooLarge,
        "deadline" => Failure::Deadline,
        "unsent" => Failure::Unsent,
        other => words.unknown(other),
    }
}

fn rate(words: &mut Words) -> Input {
    let replica = ReplicaId(words.number() as u32);
    let mut report = RateReport::default();
    let mut call = CallId(0);
    while let Some(word) = words.next() {
        match word {
            "for" => call = CallId(words.number()),
            "calls" => report.calls_left = Some(words.number() as u32),
            "tokens" => report.tokens_left = Some(words.number()),
            "reset" => report.reset = Some(Millis(words.number())),
            other => words.unknown(other),
        }
    }
    Input::Rate { replica, call, report }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scripts")
}

#[test]
fn every_script_plays_as_written() {
    let mut scripts: Vec<_> = std::fs::read_dir(folder())
        .expect("the folder of scripts")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 12, "the scripts are where they should be");
    let mut wrong = Vec::new();
    for path in scripts {
        let script = std::fs::read_to_string(&path).expect("a readable script");
        let mut player = Player::new();
        player.play(&script);
        if player.text == script {
            continue;
        }
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &player.text).expect("a writable script");
        } else {
            let pairs = script.lines().zip(player.text.lines()).enumerate();
            let first = pairs
                .filter(|(_, (old, new))| old != new)
                .map(|(at, (_, new))| (at + 1, new.to_owned()))
                .next();
            wrong.push(format!("{}: {first:?}", path.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "effects differ from those written (UPDATE=1 rewrites them):\n{}",
        wrong.join("\n")
    );
}
