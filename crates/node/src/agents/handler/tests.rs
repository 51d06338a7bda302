//! Scripts: a definition, what woke its agent turn by turn, and the commits that came of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use proptest::prelude::*;
use seawall_model::durable::{Message, RunRow, RunState, Wake};
use seawall_model::effect::{Allowance, Answer, Ask, EffectClass, Spend, Work};
use seawall_model::journal::{Change, Commit};
use seawall_model::{Address, EffectId, MicroUsd, Millis, RunKey};
use serde_json::{Value, json};

use super::*;

const TERMS: Terms = Terms {
    output_tokens_max: Tokens(1_000),
    context_tokens_max: None,
    price: Price { input: 1_000_000, cached: 0, cache_written: 0, output: 2_000_000 },
};

/// A run that is played turn by turn.
struct Play {
    definition: Definition,
    kit: Kit,
    terms: Terms,
    run: RunRow,
    state: BTreeMap<Arc<str>, Payload>,
    items: Vec<Item>,
    /// Effects under way, by tag.
    under_way: BTreeMap<Arc<str>, (EffectId, Ask)>,
    now: At,
    /// What happened, in words.
    told: String,
    over: Option<Ending>,
}

fn tool(name: &str, class: EffectClass) -> Tool {
    let schema = json!({"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]});
    Tool {
        name: name.into(),
        about: "Looks it up.".into(),
        schema: schema.to_string().into(),
        class,
        undo: None,
        query: None,
    }
}

impl Play {
    fn new(definition: &str, task: &str) -> Self {
        let text = format!("model = \"fast\"\n{definition}");
        let (definition, _) = Definition::from_toml("tester", &text).expect("a definition");
        let catalogue = Catalogue {
            tools: vec![tool("docs.search", EffectClass::Read), tool("pay.out", EffectClass::Irreversible)],
            agents: vec![("helper".into(), "Helps.".into())],
        };
        let kit = Kit::new(&definition, &catalogue);
        let key = RunKey::new(1, 1);
        let address = Address::parse("acme/tester/7").expect("an address");
        let run = RunRow {
            key,
            seq: 0,
            agent: address,
            parent: None,
            root: key,
            depth: 0,
            version: definition.version.clone(),
            task: Payload::text(task),
            allowance: definition.allowance,
            used: Spend::default(),
            reserved: Spend::default(),
            state: RunState::Active,
            began: At(0),
            ended: None,
            turns: 0,
            effects: 0,
            children: Vec::new(),
            restarts: Vec::new(),
            hop: 0,
            by: "test".into(),
            caller: None,
            fork: None,
        };
        Self {
            definition,
            kit,
            terms: TERMS,
            run,
            state: BTreeMap::new(),
            items: vec![Item::Task { run: key }],
            under_way: BTreeMap::new(),
            now: At(1_767_323_045_000_000),
            told: String::new(),
            over: None,
        }
    }

    fn view(&self) -> View<'_> {
        View { run: &self.run, now: self.now, items: &self.items, state: &self.state, terms: self.terms }
    }

    /// Takes a turn and keeps what came of it.
    fn turn(&mut self) -> Vec<Ask> {
        let commit = turn(&self.definition, &self.kit, &self.view());
        assert_eq!(commit, turn(&self.definition, &self.kit, &self.view()), "the same again");
        let _ = writeln!(self.told, "turn {}", self.run.turns + 1);
        self.apply(&commit);
        self.run.turns += 1;
        self.run.used.steps += 1;
        self.items.clear();
        for ask in &commit.asks {
            self.run.effects += 1;
            let id = EffectId { run: self.run.key, number: self.run.effects };
            self.tell_ask(ask);
            let before = self.under_way.insert(ask.tag.clone(), (id, ask.clone()));
            assert!(before.is_none(), "the tag {} is taken", ask.tag);
        }
        match &commit.next {
            Next::Wait(wake) => {
                assert_eq!(*wake, Wake::All);
                assert!(!self.under_way.is_empty(), "it waits for something");
                self.told.push_str("  wait\n");
            }
            Next::Again { .. } => panic!("it never begins again by itself"),
            Next::End(ending) => {
                let _ = match ending {
                    Ending::Done(output) => writeln!(self.told, "  done {}", text(output)),
                    Ending::Failed { code, why } => writeln!(self.told, "  failed {}: {why}", code.as_str()),
                    Ending::Cancelled { .. } => writeln!(self.told, "  cancelled"),
                };
                self.over = Some(ending.clone());
            }
        }
        commit.asks
    }

    fn apply(&mut self, commit: &Commit) {
        for change in &commit.changes {
            match change {
                Change::Set { key, value } => {
                    let _ = writeln!(self.told, "  set {key} {}", text(value));
                    self.state.insert(key.clone(), value.clone());
                }
                Change::Keep { key, effect } => {
                    let found = self.items.iter().find_map(|item| match item {
                        Item::Answer { effect: id, answer: Answer::Done(value), .. } if id == effect => {
                            Some(value)
                        }
                        _ => None,
                    });
                    let _ = writeln!(self.told, "  keep {key} {effect}");
                    self.state.insert(key.clone(), found.expect("seen in this turn").clone());
                }
                Change::Drop { key } => {
                    let _ = writeln!(self.told, "  drop {key}");
                    self.state.remove(key).expect("it was there");
                }
            }
        }
    }

    fn tell_ask(&mut self, ask: &Ask) {
        let what = match &ask.work {
            Work::Model { recipe, .. } => {
                let body =
                    request(&self.definition, &self.kit, &self.state, recipe.here().unwrap_or_default());
                let body: Value = serde_json::from_slice(&body.expect("a request")).expect("JSON");
                let mut told = format!("max {} ", body["max_tokens"]);
                if body.get("tool_choice").is_some() {
                    told.push_str("without tools ");
                }
                for message in body["messages"].as_array().expect("a list") {
                    let called =
                        message.get("tool_calls").map(|calls| format!(" {calls}")).unwrap_or_default();
                    let _ = write!(told, "\n      {}: {}{called}", message["role"], message["content"]);
                }
                told
            }
            Work::Tool { args, .. } => text(args),
            Work::Child { task, .. } => text(task),
            Work::Put { value, expect, .. } => format!("{:?} {expect:?}", value.as_ref().map(text)),
            Work::Message { body, .. } | Work::Publish { body, .. } => text(body),
            Work::Promise { question } => text(question),
            other => format!("{other:?}"),
        };
        let kind = ask.work.kind();
        let _ = writeln!(
            self.told,
            "  ask {} {kind} {} {} {what}",
            ask.tag,
            ask.work.object(),
            ask.class.as_str()
        );
    }

    fn answer(&mut self, tag: &str, answer: Answer) {
        let (effect, ask) =
            self.under_way.remove(tag).unwrap_or_else(|| panic!("{tag} is not under way\n{}", self.told));
        self.run.used = self.run.used.plus(Spend { calls: ask.cost_max.calls, ..Spend::default() });
        let (kind, twin) = (ask.work.kind().into(), ask.twin);
        self.items.push(Item::Answer { effect, tag: tag.into(), kind, twin, answer });
    }

    /// The model answers.
    fn says(&mut self, message: &Value, finish: &str) -> &mut Self {
        let body = json!({"choices": [{"message": message, "finish_reason": finish}]});
        self.answer("model", Answer::Done(body.to_string().into()));
        self.turn();
        self
    }

    fn said(&mut self, content: &str) -> &mut Self {
        self.says(&json!({"role": "assistant", "content": content}), "stop")
    }

    fn calls(&mut self, calls: &[(&str, &str, &str)]) -> &mut Self {
        let calls: Vec<Value> = calls
            .iter()
            .map(|(id, name, args)| json!({"id": id, "type": "function", "function": {"name": name, "arguments": args}}))
            .collect();
        self.says(&json!({"role": "assistant", "content": null, "tool_calls": calls}), "tool_calls")
    }

    fn mail(&mut self, body: &str) {
        let from = Address::parse("acme/helper/3").expect("an address");
        self.items.push(Item::Mail(Message {
            id: 1,
            from: Some(from),
            name: None,
            at: self.now,
            hop: 1,
            body: Payload::text(body),
        }));
    }
}

const PLAIN: &str = "instructions = \"You are {{agent}}.\"\n";

#[test]
fn a_task_is_put_to_the_model_and_its_answer_is_the_output() {
    let mut play = Play::new(PLAIN, "Add 1 and 2.");
    let asks = play.turn();
    let cost = asks[0].cost_max;
    assert_eq!(cost.calls, 1);
    assert!(cost.tokens > Tokens(1_000) && cost.money > MicroUsd(2_000), "{cost:?}");
    play.said("It is 3.");
    insta::assert_snapshot!(play.told);
}

#[test]
fn tools_are_called_together_and_what_is_wrong_is_told_to_the_model() {
    let definition = format!(
        "{PLAIN}tools = [\"docs.*\", \"pay.out\", \"agent:helper\", \"store.*\", \"human.ask\"]\nlabels = {{ data = \"open\" }}\n"
    );
    let mut play = Play::new(&definition, "Do it all.");
    play.turn();
    play.calls(&[
        ("a", "docs__search", "{\"q\":\"x\"}"),
        ("b", "pay__out", "{\"q\":\"7\"}"),
        ("c", "agent__helper", "{\"task\":\"help\",\"key\":\"k\"}"),
        ("d", "store__put", "{\"key\":\"k\",\"value\":{\"n\":1},\"version\":2}"),
        ("e", "nothing", "{}"),
        ("f", "docs__search", "{\"p\":1}"),
        ("g", "docs__search", "{"),
        ("h", "human__ask", "{\"question\":\"ok?\"}"),
    ]);
    let (_, paid) = &play.under_way["t/b"];
    let facts: Vec<(&str, &str)> = paid.facts.iter().map(|fact| (&*fact.name, &*fact.value)).collect();
    assert_eq!(facts, [("label.data", "open"), ("args.q", "7")]);
    assert!(paid.twin != 0 && paid.twin != play.under_way["t/a"].1.twin);
    play.answer("t/a", Answer::Done(Payload::text("found \"it\"")));
    play.answer("t/b", Answer::Failed { code: Code::GateDenied, why: "rule default".into() });
    play.answer("t/c", Answer::Error(Payload::text("no idea")));
    play.answer("t/d", Answer::Done(Payload::empty()));
    play.answer("t/h", Answer::Done(Payload::text("yes")));
    play.turn();
    play.said("All done.");
    insta::assert_snapshot!(play.told);
}

#[test]
fn waiting_is_for_a_time_for_so_long_or_for_a_newer_value() {
    let mut play = Play::new(&format!("{PLAIN}tools = [\"timer.sleep\", \"store.watch\"]\n"), "Wait.");
    play.turn();
    play.calls(&[
        ("a", "timer__sleep", "{\"seconds\":1.5}"),
        ("b", "timer__sleep", "{\"until\":\"2026-01-02T04:00:00+01:00\"}"),
        ("c", "store__watch", "{\"key\":\"k\",\"newer_than\":7,\"seconds\":30}"),
        ("d", "store__watch", "{\"key\":\"k\"}"),
        ("e", "timer__sleep", "{\"seconds\":1,\"until\":\"2026-01-02T04:00:00Z\"}"),
        ("f", "timer__sleep", "{}"),
        ("g", "timer__sleep", "{\"until\":\"tomorrow\"}"),
        ("h", "timer__sleep", "{\"until\":\"2031-01-02T04:00:00Z\"}"),
    ]);
    let asked: Vec<(&str, &Work, Option<Millis>)> =
        play.under_way.iter().map(|(tag, (_, ask))| (&**tag, &ask.work, ask.patience)).collect();
    let watch = |version| Work::Watch { key: "k".into(), version };
    assert_eq!(
        asked,
        [
            ("t/a", &Work::Timer { at: play.now.plus(Millis(1_500)) }, None),
            ("t/b", &Work::Timer { at: At(1_767_322_800_000_000) }, None),
            ("t/c", &watch(7), Some(Millis::from_secs(30))),
            ("t/d", &watch(0), None),
        ]
    );
    for tag in ["t/a", "t/b", "t/c", "t/d"] {
        play.answer(tag, Answer::Done(Payload::empty()));
    }
    play.turn();
    for told in ["give either seconds or until", "until is no RFC 3339 time", "more than a year from now"] {
        assert!(play.told.contains(told), "{told}: {}", play.told);
    }
}

#[test]
fn rules_see_the_whole_of_long_arguments_or_the_call_is_refused() {
    let mut play = Play::new(&format!("{PLAIN}tools = [\"docs.search\"]\n"), "Look.");
    play.turn();
    let blanks = |count: usize| format!("{{\"q\":\"{}secret\"}}", " ".repeat(count));
    play.calls(&[("a", "docs__search", &blanks(100_000)), ("b", "docs__search", &blanks(300_000))]);
    let fact = play.under_way["t/a"].1.facts.iter().find(|fact| &*fact.name == "args.q").expect("its fact");
    assert!(fact.value.len() == 100_006 && fact.value.ends_with("secret"));
    assert!(!play.under_way.contains_key("t/b"));
    play.answer("t/a", Answer::Done(Payload::text("nothing")));
    play.turn();
    assert!(play.told.contains("args.q is longer than 262144 bytes"), "told to the model");
}

#[test]
fn what_an_approver_writes_is_checked_and_seen_by_rules_like_a_call_of_the_models() {
    let play = Play::new("instructions = \"x\"\ntools = [\"docs.search\"]\nlabels = { pii = \"yes\" }", "t");
    let of = |tool, args: &str| facts_of_edit(&play.definition, &play.kit, tool, args.as_bytes());
    let facts = of("docs.search", r#"{"q":"tide","more":[1,{"deep":2}]}"#).expect("they fit");
    let facts: Vec<String> = facts.iter().map(|fact| format!("{}={}", fact.name, fact.value)).collect();
    assert_eq!(facts, ["label.pii=yes", "args.more=1", "args.more.deep=2", "args.q=tide"]);
    assert!(of("docs.search", r#"{"q":7}"#).expect_err("no text").contains('q'));
    assert!(of("docs.search", "{}").is_err() && of("docs.search", "[]").is_err());
    assert!(of("pay.out", r#"{"q":"x"}"#).is_err(), "it is not on offer");
}

#[test]
fn answers_that_come_one_by_one_are_put_in_their_places() {
    let mut play = Play::new(&format!("{PLAIN}tools = [\"docs.search\"]\n"), "Look.");
    play.turn();
    play.calls(&[("", "docs__search", "{\"q\":\"x\"}"), ("", "docs__search", "{\"q\":\"y\"}")]);
    play.answer("t/call_1", Answer::Done(Payload::text("second")));
    play.turn();
    play.mail("hurry");
    play.answer("t/call_0", Answer::Done(Payload::text("first")));
    play.turn();
    insta::assert_snapshot!(play.told);
}

#[test]
fn an_output_that_does_not_fit_is_mended_or_the_run_fails() {
    let definition = format!(
        "{PLAIN}[output]\nrepairs = 1\nschema = {{ type = \"object\", required = [\"n\"], properties = {{ n = {{ type = \"integer\" }} }} }}\n"
    );
    let mut play = Play::new(&definition, "Count.");
    play.turn();
    play.said("It is three.").said("```json\n{\"n\": 3}\n```");
    assert_eq!(play.over, Some(Ending::Done(Payload::text("{\"n\": 3}"))));
    let mut play = Play::new(&definition, "Count.");
    play.turn();
    play.said("{\"n\":\"3\"}").said("{}");
    insta::assert_snapshot!(play.told);
}

#[test]
fn a_cut_answer_is_continued_and_joined() {
    let mut play = Play::new(PLAIN, "Write.");
    play.turn();
    let part = |text: &str| json!({"role": "assistant", "content": text});
    play.says(&part("one "), "length").says(&part("two "), "length").said("three");
    assert_eq!(play.over, Some(Ending::Done(Payload::text("one two three"))));
    let mut play = Play::new(PLAIN, "Write.");
    play.turn();
    for _ in 0..4 {
        play.says(&part("on and on "), "length");
    }
    assert!(play.told.ends_with("raise output_tokens.\n"), "{}", play.told);
}

#[test]
fn memory_mail_and_notes_of_the_runtime_join_the_conversation() {
    let definition =
        "instructions = \"Known:\\n{{notes}}\"\ntools = []\n[memory]\nnotes = true\nnamespace = \"shared\"\n";
    let mut play = Play::new(definition, "Plan a trip.");
    play.turn();
    play.answer("recall", Answer::Done(Payload::text(r#"{"values":[{"key":"k","value":"likes trains"}]}"#)));
    play.turn();
    play.items.push(Item::Note("You repeat yourself.".into()));
    play.mail("Mind the budget.");
    play.said("By train.");
    play.calls(&[("a", "notes__add", "{\"text\":\"budget matters\"}")]);
    play.answer("t/a", Answer::Done(Payload::empty()));
    play.turn();
    play.said("By bus.");
    insta::assert_snapshot!(play.told);
}

#[test]
fn failures_of_the_model_end_the_run_with_their_code() {
    let fails = |answer: Answer| {
        let mut play = Play::new(PLAIN, "Go.");
        play.turn();
        play.answer("model", answer);
        play.turn();
        play.told.lines().last().unwrap_or_default().trim().to_owned()
    };
    let down = Answer::Failed { code: Code::EngineDown, why: "no engine".into() };
    assert_eq!(fails(down), "failed engine_down: no engine");
    assert_eq!(
        fails(Answer::Done(Payload::text("{}"))),
        "failed engine_garbled: The engine's answer could not be understood: it has no choices."
    );
    let refused = r#"{"choices":[{"message":{"refusal":"I can't."}}]}"#;
    assert_eq!(fails(Answer::Done(Payload::text(refused))), "failed run_failed: The model refused: I can't.");
}

#[test]
fn a_model_that_never_calls_a_tool_rightly_is_stopped() {
    let mut play = Play::new(PLAIN, "Go.");
    play.turn();
    for _ in 0..5 {
        play.calls(&[("a", "nothing", "{}")]);
    }
    assert!(
        play.told.ends_with("failed run_failed: The model called tools wrongly 5 times in a row.\n"),
        "{}",
        play.told
    );
}

#[test]
fn the_model_is_told_of_its_limits_and_has_no_tools_at_the_end() {
    let definition = format!("{PLAIN}tools = [\"docs.search\"]\n[limits]\nsteps = 6\n");
    let mut play = Play::new(&definition, "Look.");
    play.turn();
    for _ in 0..2 {
        play.calls(&[("a", "docs__search", "{\"q\":\"x\"}")]);
        play.answer("t/a", Answer::Done(Payload::text("nothing")));
        play.turn();
    }
    play.said("Nothing there.");
    assert!(play.run.turns <= 6);
    insta::assert_snapshot!(play.told);
}

#[test]
fn what_is_left_of_a_budget_bounds_the_answer() {
    let definition = format!("{PLAIN}[limits]\ntokens = 900\n");
    let mut play = Play::new(&definition, "Look.");
    let asks = play.turn();
    assert!(asks[0].cost_max.tokens <= Tokens(900), "{:?}", asks[0].cost_max);
    let mut play = Play::new(&format!("{PLAIN}[limits]\nmoney = \"0.001 USD\"\n"), "Look.");
    let asks = play.turn();
    assert!(asks[0].cost_max.money <= MicroUsd(1_000), "{:?}", asks[0].cost_max);
    assert!(asks[0].cost_max.tokens < Tokens(1_000));
    // What is not enough for anything is asked for all the same: the kernel says what is short.
    let mut play = Play::new(&format!("{PLAIN}[limits]\ntokens = 10\n"), "Look.");
    assert!(play.turn()[0].cost_max.tokens > Tokens(1_000));
}

fn long(play: &mut Play, rounds: usize) {
    play.turn();
    for round in 0..rounds {
        play.calls(&[("a", "docs__search", &format!("{{\"q\":\"{round}\"}}"))]);
        play.answer("t/a", Answer::Done(Payload::text(&format!("{round} {}", "word ".repeat(120)))));
        play.turn();
        if play.under_way.contains_key("summary") {
            let body = json!({"choices": [{"message": {"content": format!("up to {round}")}}]});
            play.answer("summary", Answer::Done(body.to_string().into()));
            play.turn();
        }
    }
}

#[test]
fn outputs_of_tools_leave_after_so_many_answers() {
    let definition = format!("{PLAIN}tools = [\"docs.search\"]\n[context]\ndrop_tool_output_after = 1\n");
    let mut play = Play::new(&definition, "Look.");
    long(&mut play, 4);
    let whole = play.state.values().filter(|value| text(value).contains("word word")).count();
    let left_out = play.state.values().filter(|value| text(value).contains("left out")).count();
    assert_eq!((whole, left_out), (1, 3), "{}", play.told);
}

#[test]
fn old_messages_are_forgotten_or_summarised_and_calls_keep_their_outputs() {
    for summarise in [false, true] {
        let definition = format!(
            "{PLAIN}output_tokens = 100\ntools = [\"docs.search\"]\n[context]\nwindow_tokens = 1200\nkeep_last = 2\nsummarise = {summarise}\n"
        );
        let mut play = Play::new(&definition, "Look.");
        long(&mut play, 12);
        assert!(play.state.contains_key("m/00000000") && play.state.contains_key("m/00000001"));
        assert!(play.state.len() < 20, "{:?}", play.state.keys());
        assert_eq!(play.state.contains_key("summary"), summarise);
        let (_, ask) = &play.under_way["model"];
        let Work::Model { recipe, .. } = &ask.work else { panic!("a model call") };
        let body = request(&play.definition, &play.kit, &play.state, recipe.here().expect("here"));
        let body: Value = serde_json::from_slice(&body.expect("a request")).expect("JSON");
        let messages = body["messages"].as_array().expect("a list");
        let roles: Vec<&str> = messages.iter().filter_map(|message| message["role"].as_str()).collect();
        assert_eq!(&roles[..3], ["system", "user", "assistant"]);
        assert_eq!(roles.last(), Some(&"tool"));
        assert_eq!(messages[0]["content"].to_string().contains("up to"), summarise, "{}", messages[0]);
    }
}

#[test]
fn a_prompt_that_the_engine_finds_too_long_is_made_shorter() {
    let mut play = Play::new(
        &format!("{PLAIN}tools = [\"docs.search\"]\n[context]\nwindow_tokens = 4000\nkeep_last = 1\n"),
        "Look.",
    );
    long(&mut play, 5);
    let before = play.state.len();
    for _ in 0..2 {
        play.answer("model", Answer::Failed { code: Code::ContextTooLong, why: "too long".into() });
        play.turn();
    }
    assert!(play.state.len() < before, "{before} {}", play.state.len());
    assert!(play.over.is_none());
}

#[test]
fn a_run_that_moves_to_a_new_version_has_its_instructions() {
    let mut play = Play::new(PLAIN, "Look.");
    play.turn();
    let text = "model = \"fast\"\nversion_policy = \"move\"\ninstructions = \"Be new.\"\n";
    let (definition, _) = Definition::from_toml("tester", text).expect("a definition");
    assert_ne!(definition.version, play.definition.version);
    play.definition = definition;
    play.says(&json!({"content": ""}), "stop");
    assert!(
        play.told.contains("set m/00000000 {\"role\":\"system\",\"content\":\"Be new.\"}"),
        "{}",
        play.told
    );
}

#[test]
fn a_run_that_begins_again_forgets_what_was() {
    let mut play = Play::new(PLAIN, "Look.");
    play.turn();
    play.said("");
    play.under_way.clear();
    play.items = vec![Item::Task { run: play.run.key }];
    play.turn();
    assert_eq!(play.state.keys().map(|key| &**key).collect::<Vec<_>>(), ["m/00000000", "m/00000001", "meta"]);
}

#[test]
fn a_state_that_is_not_understood_ends_the_run() {
    let mut play = Play::new(PLAIN, "Look.");
    play.items.clear();
    play.state.insert("meta".into(), Payload::text("{\"v\":9,\"next\":2,\"doing\":\"nothing\"}"));
    play.turn();
    assert!(play.told.contains("failed internal: The run's state is of version 9"), "{}", play.told);
    let broken = request(&play.definition, &play.kit, &play.state, b"nonsense");
    assert_eq!(broken.map_err(|fault| fault.code), Err(Code::Internal));
}

#[test]
fn names_that_engines_cannot_take_are_replaced_and_found_again() {
    let long = format!("server.{}", "x".repeat(100));
    let tools = ["a.b", "a:b", "a__b", long.as_str(), "caf\u{e9}"].map(|name| tool(name, EffectClass::Read));
    let catalogue = Catalogue { tools: tools.to_vec(), agents: Vec::new() };
    let text = "model = \"m\"\ninstructions = \"x\"\ntools = [\"*\", \"nowhere.*\"]\n";
    let (definition, _) = Definition::from_toml("tester", text).expect("a definition");
    let kit = Kit::new(&definition, &catalogue);
    let functions = kit.functions();
    assert_eq!(functions.len(), 5 + BUILTINS.len());
    let mut names: Vec<&str> = functions.iter().map(|function| function.name).collect();
    for name in &names {
        assert!(
            name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)),
            "{name}"
        );
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), functions.len());
    assert_eq!(kit.unmet(), [Arc::from("nowhere.*")]);
}

#[test]
fn patterns_become_rules_in_the_gates_words() {
    let rules = |pattern: &str| {
        rules_of(pattern, "ns").into_iter().map(|(what, on)| format!("{what} {on}")).collect::<Vec<_>>()
    };
    assert_eq!(rules("github.*"), ["tool github.*"]);
    assert_eq!(rules("agent:helper"), ["child helper", "child helper/*"]);
    assert_eq!(rules("model:fast"), ["model fast"]);
    assert_eq!(rules("store.put"), ["put *"]);
    assert_eq!(rules("callback.wait"), ["watch callbacks/*"]);
    assert_eq!(tool_of("watch", "callbacks/x"), "callback.wait");
    assert_eq!(tool_of("watch", "plan"), "store.watch");
    assert_eq!(rules("notes.*"), ["put notes/ns/*", "tool notes.search", "tool notes.*"]);
    assert!(rules("*").contains(&"promise *".to_owned()));
}

fn arbitrary_answer() -> impl Strategy<Value = Answer> {
    let bodies = prop_oneof![
        any::<Vec<u8>>(),
        Just(br#"{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}"#.to_vec()),
        Just(br#"{"choices":[{"message":{"content":"x"},"finish_reason":"length"}]}"#.to_vec()),
        Just(br#"{"choices":[{"message":{"tool_calls":[{"id":"a","function":{"name":"docs__search","arguments":"{\"q\":\"x\"}"}},{"function":{"name":"timer__sleep","arguments":{"seconds":1e300}}}]}}]}"#.to_vec()),
    ];
    prop_oneof![
        bodies.prop_map(|body| Answer::Done(body.into())),
        ".{0,40}".prop_map(|said| Answer::Error(Payload::text(&said))),
        Just(Answer::Failed { code: Code::ContextTooLong, why: "long".into() }),
        Just(Answer::Failed { code: Code::ToolFailed, why: "broken".into() }),
    ]
}

fn arbitrary_item() -> impl Strategy<Value = Item> {
    let tags =
        prop_oneof![Just("model"), Just("summary"), Just("recall"), Just("t/a"), Just("t/call_1"), Just("?")];
    prop_oneof![
        (tags, 0_u32..20, arbitrary_answer()).prop_map(|(tag, number, answer)| Item::Answer {
            effect: EffectId { run: RunKey::new(1, 1), number },
            tag: tag.into(),
            kind: "tool".into(),
            twin: 0,
            answer,
        }),
        ".{0,20}".prop_map(|note| Item::Note(note.into())),
        Just(Item::Task { run: RunKey::new(1, 1) }),
    ]
}

proptest! {
    /// Whatever happens, a turn has a commit, the same each time, and what it asks a model
    /// for can be written.
    #[test]
    fn the_loop_is_total_and_deterministic(
        turns in proptest::collection::vec(proptest::collection::vec(arbitrary_item(), 0..4), 1..12),
        summarise in any::<bool>(),
        allowance in proptest::option::of(1_u64..20),
    ) {
        let definition = format!(
            "{PLAIN}tools = [\"*\"]\n[context]\nwindow_tokens = 300\nkeep_last = 1\nsummarise = {summarise}\ndrop_tool_output_after = 1\n"
        );
        let mut play = Play::new(&definition, "Go.");
        play.run.allowance = Allowance { steps: allowance, ..Allowance::default() };
        for items in turns {
            play.items = items;
            let commit = turn(&play.definition, &play.kit, &play.view());
            prop_assert_eq!(&commit, &turn(&play.definition, &play.kit, &play.view()));
            for change in &commit.changes {
                match change {
                    Change::Set { key, value } => drop(play.state.insert(key.clone(), value.clone())),
                    Change::Drop { key } => prop_assert!(play.state.remove(key).is_some()),
                    Change::Keep { key, effect } => {
                        let found = play.items.iter().rev().find_map(|item| match item {
                            Item::Answer { effect: id, answer: Answer::Done(value), .. } if id == effect => Some(value.clone()),
                            _ => None,
                        });
                        let found = found.expect("only what was done is kept");
                        play.state.insert(key.clone(), found);
                    }
                }
            }
            for ask in &commit.asks {
                if let Work::Model { recipe, .. } = &ask.work {
                    let body = request(&play.definition, &play.kit, &play.state, recipe.here().expect("here"));
                    prop_assert!(body.is_ok(), "{:?}", body);
                }
            }
            play.run.turns += 1;
            play.run.used.steps += 1;
        }
    }
}
