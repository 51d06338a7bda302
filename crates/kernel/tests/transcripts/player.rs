//! Plays a transcript: the machine, a disk that keeps what it is given, a clock, and nobody
//! else.

use std::collections::BTreeMap;
use std::sync::Arc;

use seawall_kernel::agents::effect::{Effect, Grant, Perform};
use seawall_kernel::agents::input::{Finding, Matter, Report};
use seawall_kernel::agents::rules::Rules;
use seawall_kernel::agents::{Agents, Batch, Input, Shard, Start, mail};
use seawall_model::durable::{AgentRow, Row, RunRow, Scope, Stage, Standing};
use seawall_model::effect::{Allowance, Answer, EffectId, Person, Spend};
use seawall_model::journal::Entry;
use seawall_model::{Address, Agent, At, Code, Payload, RunKey};

use super::words::Words;
use super::{shows, wishes};

/// 2024-01-01 00:00:00 UTC, a Monday.
const START: u64 = 1_704_067_200_000_000;

/// What the disk has: rows, and the records behind them.
struct Disk {
    rows: Shard,
    entries: Vec<Entry>,
    /// It takes what it is given and does not write it.
    stalls: bool,
    waiting: Vec<Batch>,
}

struct Player {
    agents: Agents,
    rules: Rules,
    now: At,
    disk: Disk,
    turns: BTreeMap<Agent, Grant>,
    flying: BTreeMap<EffectId, Perform>,
    text: String,
}

/// Plays a script; its text with the answers as they are.
pub(crate) fn play(name: &str, script: &str) -> String {
    let disk = Disk { rows: Shard::new(0), entries: Vec::new(), stalls: false, waiting: Vec::new() };
    let rules = wishes::rules(&[]);
    let mut player = Player {
        agents: Agents::open(At(START), rules.clone(), vec![Shard::new(0)], 0),
        rules,
        now: At(START),
        disk,
        turns: BTreeMap::new(),
        flying: BTreeMap::new(),
        text: String::new(),
    };
    player.settle(Vec::new());
    player.step(Input::Tick);
    player.text.clear();
    let mut lines = script.lines().filter(|line| !line.starts_with('>')).peekable();
    while let Some(line) = lines.next() {
        player.text.push_str(line);
        player.text.push('\n');
        let mut block = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with("  ")) {
            player.text.push_str(line);
            player.text.push('\n');
            block.push(line);
        }
        let mut words = Words::of(line);
        if let Some(verb) = words.next() {
            player.act(&verb, &mut words, &block);
            words.end();
            player.check(name, line);
        }
    }
    player.text
}

impl Player {
    fn act(&mut self, verb: &str, words: &mut Words, block: &[&str]) {
        let input = match verb {
            "at" => return self.pass(At(START).plus(words.seconds())),
            "show" => return self.show(&words.word()),
            "disk" => return self.stall(words),
            "crash" => return self.crash(),
            "rules" => {
                self.rules = wishes::rules(block);
                Input::Configure(Box::new(self.rules.clone()))
            }
            "start" => start(words),
            "turn" => self.turn(words, block),
            "stumble" => {
                let grant = self.granted(&words.agent());
                Input::Stumble { address: grant.address, token: grant.token, why: words.word().into() }
            }
            "done" | "found" | "lost" | "notdone" => self.report(verb, words),
            "yes" | "no" => self.vote(verb == "yes", words),
            "delegate" => self.delegate(words),
            "resolve" => {
                let (effect, who) = (words.effect(), admin(words.word().into()));
                let (address, answer) = (self.of_run(effect.run), Answer::Done(words.text()));
                Input::Resolve { ticket: 1, effect, address, who, answer }
            }
            "send" => {
                let to = address(words);
                let message = Box::new(mail::from_outside(words.number(), None, words.text()));
                Input::Send { ticket: 1, to, message, by: "ann".into() }
            }
            "put" => {
                let (key, value) = (words.word().into(), Some(words.text()));
                let (tenant, expect) = (wishes::tenant(), wishes::expect(words));
                Input::Put { ticket: 1, tenant, key, value, expect, by: "ann".into() }
            }
            "cancel" => {
                let run = words.run();
                Input::Cancel { ticket: 1, run, address: self.of_run(run), by: "ann".into() }
            }
            "again" => {
                let (run, why) = (words.run(), "ann said so".into());
                Input::Again { ticket: 1, run, address: self.of_run(run), why }
            }
            "halt" | "lift" => {
                let word = words.word();
                let scope = Scope::parse(&word).unwrap_or_else(|| words.unknown(&word));
                Input::Halt { ticket: 1, scope, on: verb == "halt", by: "ann".into() }
            }
            "release" => Input::Release { ticket: 1, address: address(words), by: "ann".into() },
            "redrive" | "drop" => {
                let (number, send) = (words.number(), verb == "redrive");
                Input::Redrive { ticket: 1, shard: 0, number, send, by: "ann".into() }
            }
            other => words.unknown(other),
        };
        self.step(input);
    }

    fn turn(&mut self, words: &mut Words, block: &[&str]) -> Input {
        let grant = self.granted(&words.agent());
        let commit = Box::new(wishes::commit(block, self.now));
        Input::Commit { address: grant.address, token: grant.token, commit }
    }

    fn granted(&mut self, agent: &Agent) -> Grant {
        self.turns.remove(agent).unwrap_or_else(|| panic!("{agent} has no turn:\n{}", self.text))
    }

    fn report(&mut self, verb: &str, words: &mut Words) -> Input {
        let effect = words.effect();
        let perform =
            self.flying.remove(&effect).unwrap_or_else(|| panic!("nobody performs {effect}:\n{}", self.text));
        let report = match verb {
            "done" => {
                let body = words.maybe(&["tokens", "money"]).unwrap_or_else(Payload::empty);
                let mut used = Spend::default();
                while let Some(word) = words.next() {
                    if !wishes::spend(&mut used, &word, words) {
                        words.unknown(&word);
                    }
                }
                Report::Done { answer: Answer::Done(body), used }
            }
            "found" => Report::Found(match words.word().as_str() {
                "done" => Finding::Done(Answer::Done(words.text())),
                "not" => Finding::NotDone,
                "unknown" => Finding::Unknown,
                other => words.unknown(other),
            }),
            "lost" => {
                let used = Spend::default();
                Report::Lost { code: Code::ToolFailed, why: words.word().into(), retry_after: None, used }
            }
            _ => {
                let why = words.word().into();
                let used = Spend::default();
                Report::NotDone { code: Code::ToolFailed, why, retry_after: None, counts: true, used }
            }
        };
        Input::Report { effect, address: perform.address, report }
    }

    fn vote(&mut self, yes: bool, words: &mut Words) -> Input {
        let (effect, name): (EffectId, Arc<str>) = (words.effect(), words.word().into());
        let args = words.maybe(&[]);
        let (who, address, facts) = (admin(name), self.of_run(effect.run), Vec::new());
        let pending = &self.disk.rows.agents[&address].pending;
        let stage = pending.iter().find(|pending| pending.id == effect).map(|pending| &pending.stage);
        let doubtful = matches!(stage, Some(Stage::Doubtful { .. }));
        let matter = if doubtful { Matter::Doubt } else { Matter::Approval };
        Input::Vote { ticket: 1, effect, address, matter, who, yes, args, facts }
    }

    fn delegate(&self, words: &mut Words) -> Input {
        let (effect, name, to): (EffectId, Arc<str>, Arc<str>) =
            (words.effect(), words.word().into(), words.word().into());
        let who = Box::new(Person { name, tenant: wishes::tenant(), admin: true, alone: false });
        Input::Delegate { ticket: 1, effect, address: self.of_run(effect.run), who, to }
    }

    fn of_run(&self, run: RunKey) -> Address {
        let row =
            self.disk.rows.runs.get(&run).unwrap_or_else(|| panic!("{run} is not on disk:\n{}", self.text));
        row.agent.clone()
    }

    fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        self.agents.step(self.now, input, &mut out);
        self.settle(out);
    }

    /// Does what the shell would, until there is nothing left.
    fn settle(&mut self, mut out: Vec<Effect>) {
        loop {
            let batch = self.agents.batch();
            let nothing = batch.is_empty() && out.is_empty();
            for entry in &batch.entries {
                self.say(&shows::entry(entry));
            }
            if !batch.is_empty() {
                self.disk.waiting.push(batch);
            }
            for effect in std::mem::take(&mut out) {
                self.take(effect, &mut out);
            }
            if !self.disk.stalls {
                self.write(&mut out);
            }
            if nothing && out.is_empty() {
                break;
            }
        }
    }

    fn take(&mut self, effect: Effect, out: &mut Vec<Effect>) {
        if let Some(line) = shows::effect(&effect) {
            self.say(&line);
        }
        match effect {
            Effect::Turn(grant) => {
                self.turns.insert(grant.address.agent.clone(), *grant);
            }
            Effect::Perform(perform) => {
                self.flying.insert(perform.effect, *perform);
            }
            Effect::Load(address) => {
                let (agents, runs) = self.disk.family(vec![address.clone()]);
                if !agents.is_empty() {
                    self.say(&format!("load {}", address.agent));
                }
                self.agents.step(self.now, Input::Loaded { address, agents, runs }, out);
            }
            Effect::LoadDue { before, .. } => {
                let mut found: Vec<(At, Address)> =
                    self.disk.rows.agents.values().map(|row| (row.due(), row.address.clone())).collect();
                found.retain(|(due, _)| *due > At(0) && *due < before);
                found.sort_unstable();
                let found = found.into_iter().map(|(due, address)| (address, due)).collect();
                self.agents.step(self.now, Input::DueLoaded { found, next: None }, out);
            }
            Effect::LoadValue(tenant, key) => {
                let row = self.disk.rows.values.get(&(tenant.clone(), key.clone())).cloned().map(Box::new);
                self.agents.step(self.now, Input::ValueLoaded { tenant, key, row }, out);
            }
            _ => {}
        }
    }

    fn write(&mut self, out: &mut Vec<Effect>) {
        for batch in std::mem::take(&mut self.disk.waiting) {
            let Some(seq) = batch.entries.last().map(|entry| entry.seq) else { continue };
            self.disk.keep(batch);
            self.agents.step(self.now, Input::Durable { shard: 0, seq }, out);
        }
    }

    fn stall(&mut self, words: &mut Words) {
        self.disk.stalls = match words.word().as_str() {
            "stalls" => true,
            "writes" => false,
            other => words.unknown(other),
        };
        self.settle(Vec::new());
    }

    /// The process is gone with all that was not on disk, and comes again.
    fn crash(&mut self) {
        self.disk.waiting.clear();
        self.disk.stalls = false;
        self.turns.clear();
        self.flying.clear();
        let rows = &self.disk.rows;
        // Who has something to do or kin is read when the machine begins; the rest when its
        // time comes, or somebody asks for it.
        let (agents, runs, values) = Default::default();
        let bare = Shard { agents, runs, values, ..rows.clone() };
        let kin = |run: &RunKey| {
            rows.runs.get(run).is_some_and(|run| run.parent.is_some() || !run.children.is_empty())
        };
        let at_work = rows.agents.values().filter(|row| {
            let works = matches!(row.standing, Standing::Active | Standing::Quarantined);
            works && (row.due() <= self.now || row.run.iter().chain(&row.queue).any(kin))
        });
        let (agents, runs) = self.disk.family(at_work.map(|row| row.address.clone()).collect());
        let live = rows.runs.values().filter(|run| !run.state.over()).count();
        self.agents = Agents::open(self.now, self.rules.clone(), vec![bare], live);
        let mut out = Vec::new();
        self.agents.restore(self.now, agents, runs, &mut out);
        self.settle(out);
        self.step(Input::Tick);
    }

    fn pass(&mut self, until: At) {
        while let Some(at) = self.agents.wake_at().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.step(Input::Tick);
        }
        self.now = until;
        self.step(Input::Tick);
    }

    fn show(&mut self, what: &str) {
        for line in shows::show(&self.agents, &self.agents.shards()[0], what, START) {
            self.text.push_str(&format!("> {line}\n"));
        }
    }

    fn say(&mut self, line: &str) {
        let mut time = self.now.since(At(START)).0.to_string();
        for part in line.lines() {
            self.text.push_str(&format!("> {time:>6} {part}\n"));
            time.clear();
        }
    }

    /// I4: the records alone give the rows on disk and in memory; and nothing is left behind.
    fn check(&self, name: &str, line: &str) {
        self.agents.check().unwrap_or_else(|why| panic!("{name}: {line}: {why}\n{}", self.text));
        let mut fold = Shard::new(0);
        for entry in &self.disk.entries {
            fold.fold(entry);
        }
        let Disk { rows, stalls, .. } = &self.disk;
        assert!(fold == *rows, "{name}: {line}: the fold is not what is on disk");
        let live = &self.agents.shards()[0];
        if *stalls {
            return;
        }
        for (address, row) in &live.agents {
            assert!(rows.agents.get(address) == Some(row), "{name}: {line}: {address} is otherwise on disk");
        }
        for (key, row) in &live.runs {
            assert!(rows.runs.get(key) == Some(row), "{name}: {line}: {key} is otherwise on disk");
        }
        let same = (&live.leases, &live.topics, &live.letters) == (&rows.leases, &rows.topics, &rows.letters);
        assert!(same, "{name}: {line}: leases, topics or letters are otherwise on disk");
    }
}

impl Disk {
    fn keep(&mut self, batch: Batch) {
        self.entries.extend(batch.entries);
        let rows = &mut self.rows;
        for row in batch.rows {
            match row {
                Row::Shard(row) => rows.row = row,
                Row::Agent(row) => drop(rows.agents.insert(row.address.clone(), row)),
                Row::Run(row) => drop(rows.runs.insert(row.key, row)),
                Row::Value(row) => drop(rows.values.insert((row.tenant.clone(), row.key.clone()), row)),
                Row::Lease(row) => drop(rows.leases.insert((row.tenant.clone(), row.resource.clone()), row)),
                Row::Topic(row) => drop(rows.topics.insert((row.tenant.clone(), row.topic.clone()), row)),
                Row::NoLease { tenant, resource } => drop(rows.leases.remove(&(tenant, resource))),
                Row::NoTopic { tenant, topic } => drop(rows.topics.remove(&(tenant, topic))),
                Row::Schedule(row) => drop(rows.schedules.insert(row.agent.clone(), row)),
                Row::Letter(row) => drop(rows.letters.insert(row.number, *row)),
                Row::NoLetter { number, .. } => drop(rows.letters.remove(&number)),
                // Working state is the handler's, and nothing is decided by it.
                _ => {}
            }
        }
    }

    /// These agents and those above them, with their runs.
    fn family(&self, mut next: Vec<Address>) -> (Vec<AgentRow>, Vec<RunRow>) {
        let (mut agents, mut runs) = (BTreeMap::new(), BTreeMap::new());
        while let Some(address) = next.pop() {
            let Some(row) = self.rows.agents.get(&address) else { continue };
            if agents.insert(address, (**row).clone()).is_some() {
                continue;
            }
            let mut path: Vec<RunKey> = row.run.iter().chain(&row.queue).copied().collect();
            while let Some(run) = path.pop().and_then(|key| self.rows.runs.get(&key)) {
                if runs.insert(run.key, (**run).clone()).is_none() {
                    next.push(run.agent.clone());
                    path.extend(run.parent.map(|effect| effect.run));
                }
            }
        }
        (agents.into_values().collect(), runs.into_values().collect())
    }
}

/// Who may say what people may.
fn admin(name: Arc<str>) -> Box<Person> {
    Box::new(Person { name, tenant: wishes::tenant(), admin: true, alone: false })
}

fn address(words: &mut Words) -> Address {
    Address { tenant: wishes::tenant(), agent: words.agent() }
}

fn start(words: &mut Words) -> Input {
    let agent = words.agent();
    let (task, allowance): (Payload, Allowance) = wishes::task(words);
    let start = Start {
        tenant: wishes::tenant(),
        agent,
        task,
        allowance,
        by: "ann".into(),
        caller: None,
        fork: None,
        version: None,
        state: Vec::new(),
    };
    Input::Start { ticket: 1, start: Box::new(start) }
}
