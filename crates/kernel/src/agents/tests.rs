//! The machine as a whole, in small scenes: a disk that keeps everything at once, and a
//! handler that commits what the scene says.

use std::sync::Arc;

use seawall_model::durable::{AgentRow, Item, RunRow, RunState, Scope, Stage, Standing, Wake};
use seawall_model::effect::{Allowance, Answer, Approval, Ask, EffectId, Spend, Verdict, Work};
use seawall_model::journal::{Commit, Ending, Next};
use seawall_model::{Address, Agent, At, Code, EffectClass, Millis, Payload, RunKey, Tenant, Tokens};

use super::effect::{Grant, Perform};
use super::gate::{Pattern, Rule, Who};
use super::input::Report;
use super::progress::GuardRule;
use super::rules::Kind;
use super::supervise::Supervision;
use super::{Agents, Effect, Input, Rules, Shard, Start};

struct Scene {
    agents: Agents,
    now: At,
    turns: Vec<Grant>,
    performs: Vec<Perform>,
    aborted: Vec<EffectId>,
}

fn kind(name: &str) -> Kind {
    Kind {
        name: name.into(),
        version: "1".into(),
        moves: true,
        allowance: Allowance::default(),
        supervision: Supervision::default(),
        guard: GuardRule::default(),
        gate: Vec::new(),
        schedule: None,
        starts_on_mail: false,
        inbox_max: 100,
    }
}

fn rule(what: &str, then: Verdict) -> Rule {
    let (who, on) = (Who::anyone(), Pattern::any());
    Rule { id: what.into(), who, what: what.into(), on, class: None, when: Vec::new(), then }
}

impl Scene {
    fn new(gate: Vec<Rule>) -> Self {
        let kinds = vec![kind("a"), kind("b")];
        let suspend_after = Millis::from_secs(30 * 86_400);
        let rules = Rules { shards: 1, kinds, gate, suspend_after, ..Rules::default() };
        let agents = Agents::open(At(1_000_000), rules, vec![Shard::new(0)], 0);
        let mut scene =
            Self { agents, now: At(1_000_000), turns: Vec::new(), performs: Vec::new(), aborted: Vec::new() };
        scene.take(Vec::new());
        scene
    }

    fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        self.agents.step(self.now, input, &mut out);
        self.take(out);
    }

    /// Does what the shell would, until there is nothing left.
    fn take(&mut self, mut out: Vec<Effect>) {
        loop {
            for effect in std::mem::take(&mut out) {
                match effect {
                    Effect::Turn(grant) => self.turns.push(*grant),
                    Effect::Perform(perform) => self.performs.push(*perform),
                    Effect::Abort(effect) => self.aborted.push(effect),
                    Effect::Load(address) => {
                        let input = Input::Loaded { address, agents: Vec::new(), runs: Vec::new() };
                        self.agents.step(self.now, input, &mut out);
                    }
                    _ => {}
                }
            }
            let batch = self.agents.batch();
            if let Some(last) = batch.entries.last() {
                self.agents.step(self.now, Input::Durable { shard: 0, seq: last.seq }, &mut out);
            } else if out.is_empty() {
                break;
            }
        }
        self.agents.check().expect("nothing is left behind");
    }

    fn tick(&mut self, later: Millis) {
        let end = self.now.plus(later);
        while let Some(at) = self.agents.wake_at().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step(Input::Tick);
        }
        self.now = end;
        self.step(Input::Tick);
    }

    fn start(&mut self, name: &str) {
        let start = Start {
            tenant: tenant(),
            agent: agent(name),
            task: Payload::empty(),
            allowance: Allowance::default(),
            by: "test".into(),
            version: None,
            state: Vec::new(),
        };
        self.step(Input::Start { ticket: 1, start: Box::new(start) });
    }

    /// The turn that was granted last asks for this.
    fn commit(&mut self, asks: Vec<Ask>, next: Next) -> Address {
        let grant = self.turns.pop().expect("somebody has a turn");
        let commit = Box::new(Commit { changes: Vec::new(), asks, next });
        let (address, token) = (grant.address, grant.token);
        self.step(Input::Commit { address: address.clone(), token, commit });
        address
    }

    fn ask(&mut self, asks: Vec<Ask>) -> Address {
        self.commit(asks, Next::Wait(Wake::Any))
    }

    fn report(&mut self, report: Report) {
        let perform = self.performs.pop().expect("something is performed");
        self.step(Input::Report { effect: perform.effect, address: perform.address, report });
    }

    fn row(&self, address: &Address) -> &AgentRow {
        self.agents.agent(address).expect("it is in memory")
    }

    fn run(&self, key: u64) -> &RunRow {
        let run = RunKey::new(0, key);
        self.agents.shards()[0].runs.get(&run).expect("it is in memory")
    }

    /// What came of the effect, as its agent is about to see it.
    fn heard(&self, address: &Address, number: u32) -> Option<&Answer> {
        self.row(address).inbox.iter().find_map(|item| match item {
            Item::Answer { effect, answer, .. } if effect.number == number => Some(answer),
            _ => None,
        })
    }

    fn code(&self, address: &Address, number: u32) -> Option<Code> {
        match self.heard(address, number) {
            Some(Answer::Failed { code, .. }) => Some(*code),
            _ => None,
        }
    }

    fn halt(&mut self, on: bool) {
        self.step(Input::Halt { ticket: 0, scope: Scope::All, on, by: "ann".into() });
    }
}

fn tenant() -> Tenant {
    Tenant::parse("acme").expect("valid")
}

fn agent(name: &str) -> Agent {
    Agent::parse(name).expect("valid")
}

fn ask(work: Work, class: EffectClass) -> Ask {
    let (cost_max, tag) = (Spend::default(), Arc::from("t"));
    Ask { tag, work, class, cost_max, patience: None, twin: 0, facts: Vec::new() }
}

fn tool(class: EffectClass) -> Ask {
    ask(Work::Tool { tool: "mail.send".into(), args: Payload::empty(), undo: None }, class)
}

fn model() -> Ask {
    let cost_max = Spend { tokens: Tokens(70), ..Spend::default() };
    let work = Work::Model { model: "m".into(), recipe: Payload::empty() };
    Ask { cost_max, ..ask(work, EffectClass::Idempotent) }
}

fn acquire(of: u32) -> Ask {
    let work = Work::Acquire { resource: "crane".into(), units: 1, of, ttl: Millis::from_secs(600) };
    ask(work, EffectClass::Idempotent)
}

fn child(name: &str) -> Ask {
    let work = Work::Child { agent: agent(name), task: Payload::empty(), allowance: Allowance::default() };
    ask(work, EffectClass::Idempotent)
}

fn done() -> Report {
    Report::Done { answer: Answer::Done(Payload::empty()), used: Spend::default() }
}

fn engine_failed() -> Next {
    Next::End(Ending::Failed { code: Code::EngineDown, why: "no engine".into() })
}

#[test]
fn what_a_tool_changed_is_not_done_again_by_a_restart() {
    for (class, again) in [(EffectClass::Read, true), (EffectClass::Idempotent, false)] {
        let mut scene = Scene::new(Vec::new());
        scene.start("a/1");
        scene.ask(vec![tool(class)]);
        scene.report(done());
        scene.commit(Vec::new(), engine_failed());
        assert_eq!(scene.run(1).state == RunState::Active, again, "{class:?}");
    }
}

#[test]
fn what_a_child_changed_counts_for_those_above() {
    let mut scene = Scene::new(Vec::new());
    scene.start("a/1");
    let above = scene.ask(vec![child("b/1")]);
    scene.ask(vec![tool(EffectClass::Idempotent)]);
    scene.report(done());
    scene.commit(Vec::new(), Next::End(Ending::Done(Payload::empty())));
    assert!(scene.row(&above).progress.touched);
    scene.commit(Vec::new(), engine_failed());
    assert!(scene.run(1).state.over());
}

#[test]
fn a_run_that_began_anew_does_not_wait_for_what_its_beginning_left_in_doubt() {
    let mut scene = Scene::new(vec![rule("tool", Verdict::Allow)]);
    scene.start("a/1");
    let address = scene.ask(vec![tool(EffectClass::Irreversible)]);
    scene.report(Report::Lost { code: Code::ToolFailed, why: "cut".into() });
    let run = RunKey::new(0, 1);
    scene.step(Input::Again { ticket: 1, run, address: address.clone(), why: "a person said so".into() });
    assert_eq!(scene.row(&address).pending.len(), 1, "it is in doubt still");
    let promise = ask(Work::Promise { question: Payload::empty() }, EffectClass::Idempotent);
    scene.commit(vec![promise], Next::Wait(Wake::All));
    let effect = EffectId { run, number: 2 };
    let answer = Answer::Done(Payload::text("yes"));
    scene.step(Input::Resolve { ticket: 0, effect, address, by: "bob".into(), answer });
    assert_eq!(scene.turns.len(), 1, "all that it waits for was answered");
}

#[test]
fn nothing_begins_under_a_stop_and_all_of_it_after() {
    let mut scene = Scene::new(Vec::new());
    scene.start("b/1");
    let to = scene.ask(Vec::new());
    scene.start("a/1");
    scene.halt(true);
    let message = ask(Work::Message { to: agent("b/1"), body: Payload::text("hi") }, EffectClass::Idempotent);
    let address = scene.ask(vec![message, child("b/2"), tool(EffectClass::Idempotent)]);
    assert_eq!(scene.row(&address).pending.len(), 3);
    assert!(scene.row(&to).inbox.is_empty() && scene.performs.is_empty());
    assert!(scene.run(2).children.is_empty());
    scene.halt(false);
    assert!(!scene.row(&to).inbox.is_empty() && scene.performs.len() == 1);
    assert_eq!(scene.run(2).children.len(), 1);
}

#[test]
fn what_was_handed_over_may_begin_only_while_nothing_stops_it() {
    let mut scene = Scene::new(vec![rule("tool", Verdict::Allow)]);
    scene.start("a/1");
    scene.ask(vec![tool(EffectClass::Irreversible)]);
    let effect = scene.performs[0].effect;
    assert!(scene.agents.may_perform(effect));
    scene.halt(true);
    assert!(!scene.agents.may_perform(effect));
    let why = Arc::from("stopped");
    scene.report(Report::NotDone { code: Code::RunStopped, why, retry_after: None, counts: false });
    scene.tick(Millis::from_secs(60));
    assert!(scene.performs.is_empty());
    scene.halt(false);
    assert_eq!(scene.performs.len(), 1, "it is handed over again");
    assert!(scene.agents.may_perform(effect));
    assert!(!scene.agents.may_perform(EffectId { number: 9, ..effect }));
}

#[test]
fn what_is_lost_under_a_stop_is_undone_after_it() {
    let mut scene = Scene::new(vec![rule("tool", Verdict::Allow)]);
    scene.start("a/1");
    let work = Work::Tool { tool: "t.do".into(), args: Payload::empty(), undo: Some("t.undo".into()) };
    scene.ask(vec![ask(work, EffectClass::Compensable)]);
    scene.halt(true);
    scene.report(Report::Lost { code: Code::ToolFailed, why: "cut".into() });
    assert!(scene.performs.is_empty());
    scene.halt(false);
    assert!(scene.performs.iter().all(|perform| perform.undo) && scene.performs.len() == 1);
}

#[test]
fn a_holder_renews_past_those_in_line() {
    let mut scene = Scene::new(Vec::new());
    scene.start("a/1");
    let holder = scene.ask(vec![acquire(1)]);
    let first = scene.turns.pop().expect("it has its lease");
    scene.start("b/1");
    let other = scene.ask(vec![acquire(5), acquire(1)]);
    assert_eq!(scene.heard(&other, 2), None, "it waits");
    assert_eq!(scene.code(&other, 1), Some(Code::BadField), "there is one, whoever says five");
    scene.turns.push(first);
    scene.ask(vec![acquire(1)]);
    assert_eq!(scene.heard(&holder, 2), Some(&Answer::Done(Payload::text("{\"token\":1}"))));
}

#[test]
fn time_people_and_children_are_waited_for_beyond_a_day() {
    let approval = Approval { quorum: 1, approvers: Vec::new(), patience: Millis::from_secs(7 * 86_400) };
    let mut scene = Scene::new(vec![rule("tool", Verdict::Ask(approval))]);
    scene.start("a/1");
    let timer = Work::Timer { at: scene.now.plus(Millis::from_secs(2 * 86_400)) };
    let promise = Work::Promise { question: Payload::empty() };
    let class = EffectClass::Idempotent;
    let asks = vec![ask(timer, class), ask(promise, class), tool(class)];
    let address = scene.commit(asks, Next::Wait(Wake::All));
    scene.tick(Millis::from_secs(3 * 86_400));
    assert!(matches!(scene.heard(&address, 1), Some(Answer::Done(_))), "it rang");
    assert_eq!(scene.row(&address).pending.len(), 2, "people have not answered yet");
    let effect = scene.row(&address).pending[1].id;
    let vote = |by: &str| Input::Vote {
        ticket: 0,
        effect,
        address: address.clone(),
        by: by.into(),
        yes: true,
        args: None,
    };
    scene.step(vote("ann"));
    assert_eq!(scene.row(&address).pending[1].until, scene.now.plus(Millis::from_secs(86_400)));
    scene.tick(Millis::from_secs(86_399));
    assert_eq!(scene.heard(&address, 3), None);
    scene.tick(Millis::from_secs(2));
    assert_eq!(scene.code(&address, 3), Some(Code::DeadlinePassed));
}

#[test]
fn who_edits_what_others_approved_begins_the_count_anew() {
    let approval = Approval { quorum: 2, approvers: Vec::new(), patience: Millis::from_secs(60) };
    let mut scene = Scene::new(vec![rule("tool", Verdict::Ask(approval))]);
    scene.start("a/1");
    let address = scene.ask(vec![tool(EffectClass::Idempotent)]);
    let effect = scene.row(&address).pending[0].id;
    for (by, args, count) in
        [("ann", None, 1), ("bob", Some("{}"), 1), ("bob", None, 1), ("bob", Some("[]"), 1)]
    {
        let (by, args) = (by.into(), args.map(Payload::text));
        scene.step(Input::Vote { ticket: 0, effect, address: address.clone(), by, yes: true, args });
        let Stage::Approving { yes, .. } = &scene.row(&address).pending[0].stage else {
            panic!("two must say yes to the same")
        };
        assert_eq!(yes.len(), count);
    }
    let yes = Input::Vote { ticket: 0, effect, address, by: "ann".into(), yes: true, args: None };
    scene.step(yes);
    assert_eq!(scene.performs.len(), 1);
}

#[test]
fn what_cannot_be_redacted_and_what_nobody_defined_is_denied() {
    let mut scene = Scene::new(vec![rule("message", Verdict::Redact(vec!["body".into()]))]);
    scene.start("a/1");
    let message = ask(Work::Message { to: agent("b/1"), body: Payload::text("hi") }, EffectClass::Idempotent);
    let address = scene.ask(vec![message]);
    assert_eq!(scene.code(&address, 1), Some(Code::GateDenied));
    scene.step(Input::Configure(Box::new(Rules { kinds: vec![kind("b")], ..Rules::default() })));
    scene.ask(vec![tool(EffectClass::Read)]);
    assert_eq!(scene.code(&address, 2), Some(Code::GateDenied));
}

#[test]
fn nobody_waits_for_one_who_waits_for_him_and_a_full_disk_takes_no_children() {
    let mut scene = Scene::new(Vec::new());
    scene.start("a/1");
    scene.ask(vec![child("b/1")]);
    let below = scene.ask(vec![child("a/1"), child("b/1"), child("b/2")]);
    assert_eq!((scene.code(&below, 1), scene.code(&below, 2)), (Some(Code::BadField), Some(Code::BadField)));
    assert_eq!(scene.run(2).children.len(), 1);
    scene.step(Input::Room(false));
    let again = scene.turns.iter().position(|grant| grant.address == below).expect("it was told");
    let last = scene.turns.len() - 1;
    scene.turns.swap(again, last);
    scene.ask(vec![child("b/3")]);
    assert_eq!(scene.code(&below, 4), Some(Code::DiskFull));
}

#[test]
fn a_model_at_work_when_its_run_ends_is_paid() {
    let mut scene = Scene::new(Vec::new());
    scene.start("a/1");
    let address = scene.ask(vec![model()]);
    assert_eq!(scene.performs[0].reserved, Spend { calls: 1, ..model().cost_max });
    let run = RunKey::new(0, 1);
    scene.step(Input::Cancel { ticket: 0, run, address: address.clone(), by: "ann".into() });
    assert_eq!(scene.aborted.len(), 1);
    let row = scene.run(1);
    assert_eq!((row.used.tokens, row.reserved), (Tokens(70), Spend::default()));
    assert_eq!(scene.row(&address).standing, Standing::Idle);
    assert!(scene.row(&address).inbox.is_empty());
}

#[test]
fn a_run_whose_parent_ended_before_a_crash_ends_after_it() {
    let mut scene = Scene::new(Vec::new());
    scene.start("a/1");
    let above = scene.ask(vec![child("b/1")]);
    let shard = scene.agents.shards()[0].clone();
    let agents: Vec<AgentRow> = shard.agents.values().map(|row| (**row).clone()).collect();
    let mut runs: Vec<RunRow> = shard.runs.values().map(|row| (**row).clone()).collect();
    // As the disk has it when the child was away, and its end had yet to follow.
    let agents = agents.into_iter().map(|mut row| {
        if row.address == above {
            (row.run, row.standing) = (None, Standing::Idle);
            row.pending.clear();
        }
        row
    });
    runs[0].state = RunState::Cancelled { by: "ann".into() };
    runs[0].children.clear();
    let mut bare = Shard::new(0);
    bare.row = shard.row;
    let mut machine = Agents::open(scene.now, scene.agents.rules().clone(), vec![bare], 1);
    let mut out = Vec::new();
    machine.restore(scene.now, agents.collect(), runs, &mut out);
    let child = machine.shards()[0].runs.get(&RunKey::new(0, 2)).expect("it is in memory");
    assert!(matches!(child.state, RunState::Cancelled { .. }), "{:?}", child.state);
}
