//! The whole journal against real files: fencing, recovery, and what can be asked of it.
#![expect(clippy::disallowed_methods, reason = "the tests make, copy and cut files of their own")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use seawall_model::durable::{
    DeadLetter, Item, LeaseRow, Message, Pending, Progress, RunState, ScheduleRow, Stage, Standing, TopicRow,
    ValueRow, Wake,
};
use seawall_model::effect::{Allowance, Answer, Approval, Ask, Handed, Person, Ruling, Spend, Verdict, Work};
use seawall_model::journal::{Change, Ending, Next, Planned, Turn};
use seawall_model::{Address, At, Code, EffectClass, EffectId, Millis, Payload, Tenant, limits};

use super::*;

mod books;
mod keeping;

/// A folder of its own for each test, gone at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("seawall-journal-{}-{count}", std::process::id()));
        // Left by an earlier process of the same id that was killed.
        let _ = fs::remove_dir_all(&dir);
        Self(dir)
    }

    fn open(&self) -> Journal {
        Journal::open(&self.0, Durability::Sync).expect("opens")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn address(name: &str) -> Address {
    Address::parse(&format!("acme/search/{name}")).expect("valid")
}

fn effect(run: RunKey, number: u32) -> EffectId {
    EffectId { run, number }
}

fn pending(id: EffectId, work: Work, stage: Stage) -> Pending {
    Pending {
        id,
        tag: "call-1".into(),
        work,
        class: EffectClass::Idempotent,
        ruling: Ruling { rule: "default".into(), verdict: Verdict::Allow },
        reserved: Spend::default(),
        twin: 7,
        stage,
        attempts: 0,
        asked: At(5),
        until: At::MAX,
        child: None,
        handed: Vec::new(),
        setback: None,
    }
}

fn model_call(id: EffectId) -> Pending {
    let work = Work::Model { model: "small".into(), recipe: Payload::text("{}") };
    pending(id, work, Stage::Ready { after: At(0) })
}

fn agent(name: &str, seq: u64, run: Option<RunKey>) -> AgentRow {
    AgentRow {
        address: address(name),
        shard: 0,
        seq,
        changed: At(0),
        standing: if run.is_some() { Standing::Active } else { Standing::Idle },
        lasting: true,
        run,
        queue: Vec::new(),
        inbox: run.map(|run| Item::Task { run }).into_iter().collect(),
        pending: run.map(|run| model_call(effect(run, 1))).into_iter().collect(),
        wake: Wake::All,
        rests_until: At(0),
        expires: At::MAX,
        strikes: 0,
        progress: Progress::default(),
        seen: vec![(1, 2), (3, 4)],
        topics: Vec::new(),
        why: None,
        ties: Vec::new(),
    }
}

fn run(key: RunKey, name: &str, parent: Option<EffectId>, root: RunKey, began: u64) -> RunRow {
    RunRow {
        key,
        agent: address(name),
        parent,
        root,
        depth: u16::from(parent.is_some()),
        version: "1".into(),
        task: Payload::text("find it"),
        allowance: Allowance::default(),
        used: Spend::default(),
        reserved: Spend::default(),
        state: RunState::Active,
        began: At(began),
        ended: None,
        turns: 0,
        effects: 0,
        children: Vec::new(),
        restarts: Vec::new(),
        hop: 0,
        seq: 0,
        by: "laptop".into(),
        caller: parent.map(|_| "nightly".into()),
        fork: parent.map(|effect| seawall_model::durable::Forked { run: effect.run, turn: 2 }),
    }
}

fn ended(mut run: RunRow, at: u64) -> RunRow {
    run.state = RunState::Done { output: Payload::text("found") };
    run.ended = Some(At(at));
    run
}

/// Writes records of one shard, one after the other.
struct Pen {
    epoch: u64,
    seq: u64,
}

impl Pen {
    /// Opens shard 0, as a kernel does.
    fn open(journal: &mut Journal) -> Self {
        let row = journal.open_shards(2).expect("opened").swap_remove(0);
        let mut pen = Self { epoch: row.epoch + 1, seq: row.seq };
        let opened = pen.entry(0, None, Event::Opened);
        journal.append(&[opened], &[pen.row()]).expect("appended");
        pen
    }

    fn entry(&mut self, at: u64, agent: Option<&str>, event: Event) -> Entry {
        self.seq += 1;
        let record = Record { at: At(at), agent: agent.map(address), event };
        Entry { shard: 0, epoch: self.epoch, seq: self.seq, record }
    }

    fn row(&self) -> Row {
        Row::Shard(ShardRow { epoch: self.epoch, seq: self.seq, runs: self.seq, ..ShardRow::default() })
    }

    fn started(&mut self, run: &RunRow) -> Entry {
        let name = run.agent.agent.as_str().to_owned();
        let event =
            Event::Started { run: Box::new(run.clone()), lasting: true, state: Vec::new(), schedule: None };
        self.entry(run.began.0, Some(&name), event)
    }

    fn mailed(&mut self, at: u64, name: &str, body: Payload) -> Entry {
        let message = Message { id: at, from: None, name: None, at: At(at), hop: 0, body };
        self.entry(at, Some(name), Event::Mailed { message, by: None })
    }
}

fn turned(run: RunKey, number: u32, changes: Vec<Change>, effects: Vec<Planned>, next: Next) -> Event {
    Event::Turned(Box::new(Turn {
        run,
        number,
        seen: 1,
        changes,
        effects,
        next,
        progress: Progress::default(),
        hop: 0,
        note: None,
        rests_until: At(0),
    }))
}

fn planned(child: Option<RunRow>) -> Planned {
    Planned {
        ask: Ask {
            tag: "call-1".into(),
            work: Work::Get { key: "k".into() },
            class: EffectClass::Read,
            cost_max: Spend::default(),
            patience: None,
            twin: 1,
            facts: Vec::new(),
        },
        ruling: Ruling { rule: "r1".into(), verdict: Verdict::Allow },
        stage: Some(Stage::Waiting),
        refused: None,
        reserved: Spend::default(),
        until: At::MAX,
        child: child.map(Box::new),
    }
}

fn set(key: &str, value: &str) -> Change {
    Change::Set { key: key.into(), value: Payload::text(value) }
}

#[test]
fn what_is_appended_is_there_after_reopening() {
    let folder = Folder::new();
    let mut journal = folder.open();
    let mut pen = Pen::open(&mut journal);
    let (root, child) = (RunKey::new(0, 1), RunKey::new(0, 2));
    let top = run(root, "lead/1", None, root, 10);
    let below = run(child, "helper/1", Some(effect(root, 1)), root, 11);
    let waits = run(RunKey::new(0, 3), "helper/1", None, RunKey::new(0, 3), 12);
    let mut busy = agent("helper/1", 3, Some(child));
    busy.queue.push(waits.key);
    let entries = [pen.started(&top), pen.started(&below), pen.started(&waits)];
    let rows = [
        pen.row(),
        Row::Run(Box::new(top.clone())),
        Row::Run(Box::new(below.clone())),
        Row::Run(Box::new(waits.clone())),
        Row::Agent(Box::new(busy.clone())),
        Row::Agent(Box::new(agent("lead/1", 1, Some(root)))),
        Row::Agent(Box::new(agent("idle/1", 1, None))),
        Row::State { run: child, key: "b".into(), value: Some(Payload::text("2")) },
        Row::State { run: child, key: "a".into(), value: Some(Payload::text("1")) },
    ];
    journal.append(&entries, &rows).expect("appended");
    journal.close().expect("closes");

    let journal = folder.open();
    let reader = journal.reader();
    assert_eq!(reader.load_agent(&address("nobody/1")).expect("read"), None);
    let (loaded, runs) = reader.load_agent(&address("helper/1")).expect("read").expect("known");
    assert_eq!((loaded, runs), (busy, vec![below.clone(), top.clone(), waits.clone()]));
    let live = reader.live(0, 0, 1, At(1)).expect("read");
    assert_eq!((live.agents.len(), live.runs.len()), (1, 3));
    let rest = reader.live(0, live.next.expect("there is more"), 10, At(1)).expect("read");
    assert_eq!(
        (rest.agents, rest.next),
        (vec![agent("lead/1", 1, Some(root))], None),
        "the idle one has no work"
    );
    assert_eq!(reader.tree(root).expect("read"), [top, below]);
    assert_eq!(
        reader.state(child).expect("read"),
        [("a".into(), Payload::text("1")), ("b".into(), Payload::text("2"))]
    );
    let shard = &reader.shards().expect("read")[0];
    assert_eq!((shard.epoch, shard.seq, shard.runs), (1, 4, 4));
    let kept = reader.history(&Of::Shard(0), 2, 10).expect("read");
    assert_eq!(kept.into_iter().map(|kept| kept.entry).collect::<Vec<_>>(), entries);
    let beside = Reader::open(&folder.0).expect("a reader opens beside the owner");
    assert_eq!(beside.verify(0..=15).expect("read").records, 4);
    assert!(matches!(Journal::open(&folder.0, Durability::Sync), Err(Error::InUse { .. })));
}

#[test]
fn who_only_waits_is_found_when_its_time_is_near() {
    let mut journal = Journal::in_memory().expect("opens");
    let mut pen = Pen::open(&mut journal);
    let sleeper = |name: &str, number: u64, at: u64| {
        let key = RunKey::new(0, number);
        let timer = pending(effect(key, 1), Work::Timer { at: At(at) }, Stage::Waiting);
        let row = AgentRow { inbox: Vec::new(), pending: vec![timer], ..agent(name, number, Some(key)) };
        (row, run(key, name, None, key, 10))
    };
    let mut rows = vec![pen.row()];
    let mut entries = Vec::new();
    for (name, number, at) in
        [("a/1", 1, 300), ("a/2", 2, 100), ("a/3", 3, 300), ("a/4", 4, 200), ("a/5", 5, 0)]
    {
        let (row, run) = sleeper(name, number, at);
        entries.push(pen.started(&run));
        rows.extend([Row::Run(Box::new(run)), Row::Agent(Box::new(row))]);
    }
    // A parent that waits for its child until then.
    let (mut lead, mut top) = sleeper("lead/1", 6, 300);
    let below = run(RunKey::new(0, 7), "helper/1", Some(effect(top.key, 1)), top.key, 11);
    top.children.push(below.key);
    lead.pending[0].child = Some(below.key);
    entries.extend([pen.started(&top), pen.started(&below)]);
    rows[0] = pen.row();
    rows.extend([Row::Run(Box::new(top)), Row::Agent(Box::new(lead)), Row::Run(Box::new(ended(below, 20)))]);
    journal.append(&entries, &rows).expect("appended");

    let reader = journal.reader();
    assert_eq!(reader.runs_alive().expect("read"), 6);
    let roots = |after, limit| reader.roots_alive(0, after, limit).expect("read");
    let (all, first) = (roots(RunKey::default(), 10), roots(RunKey::default(), 1));
    assert!(all.iter().all(|run| run.parent.is_none() && run.ended.is_none()));
    assert_eq!((all.len(), &first[..]), (6, &all[..1]), "those on top of their trees, page by page");
    assert_eq!(roots(first[0].key, 10)[..], all[1..]);
    assert!(reader.roots_alive(1, RunKey::default(), 10).expect("read").is_empty());
    let tenant = Tenant::parse("acme/search").expect("valid");
    assert_eq!(reader.lasting().expect("read"), [(tenant, 6)]);
    let names =
        |due: &Due| due.found.iter().map(|(who, at)| (who.agent.to_string(), at.0)).collect::<Vec<_>>();
    let first = reader.due((At(0), 0), At(301), 3).expect("read");
    assert_eq!(names(&first), [("a/2".into(), 100), ("a/4".into(), 200), ("a/1".into(), 300)]);
    let rest = reader.due(first.next.expect("there is more"), At(301), 3).expect("read");
    assert_eq!(
        names(&rest),
        [("a/3".into(), 300), ("lead/1".into(), 300)],
        "those of the same time are not lost"
    );
    assert_eq!(rest.next, None);
    assert_eq!(names(&reader.due((At(101), 0), At(300), 3).expect("read")), [("a/4".into(), 200)]);
    let live = |now| reader.live(0, 0, 10, At(now)).expect("read");
    let who = |now| live(now).agents.iter().map(|row| row.address.agent.to_string()).collect::<Vec<_>>();
    assert_eq!(who(99), ["a/5", "lead/1"], "who has something to do, and who has kin");
    assert_eq!(who(200), ["a/2", "a/4", "a/5", "lead/1"]);
    assert_eq!(live(99).runs.len(), 2);

    // Woken, it has something to do, and is not among those who wait.
    let (mut woken, _) = sleeper("a/2", 2, 100);
    woken.inbox.push(Item::Note("up".into()));
    woken.inbox.push(Item::Task { run: RunKey::new(0, 2) });
    woken.pending.clear();
    let entry = pen.started(&run(RunKey::new(0, 8), "a/2", None, RunKey::new(0, 8), 12));
    journal.append(&[entry], &[pen.row(), Row::Agent(Box::new(woken))]).expect("appended");
    assert_eq!(names(&journal.reader().due((At(0), 0), At(301), 1).expect("read")), [("a/4".into(), 200)]);
}

#[test]
fn an_older_owner_and_a_gap_are_refused_whole() {
    let mut journal = Journal::in_memory().expect("opens");
    let mut old = Pen::open(&mut journal);
    let mut new = Pen::open(&mut journal);
    let late = old.mailed(1, "a/1", Payload::empty());
    let refused = journal.append(&[late], &[Row::Agent(Box::new(agent("a/1", 2, None)))]);
    assert!(matches!(refused, Err(Error::Fenced { shard: 0, epoch: 1, current: 2 })), "{refused:?}");
    let again = Entry { epoch: 1, ..new.entry(1, None, Event::Opened) };
    new.seq -= 1;
    assert!(matches!(journal.append(&[again], &[]), Err(Error::Fenced { .. })), "an epoch never comes again");
    let first = new.mailed(2, "a/1", Payload::empty());
    new.seq += 1;
    let jumps = new.mailed(3, "a/1", Payload::empty());
    let refused = journal.append(&[first.clone(), jumps], &[Row::Agent(Box::new(agent("a/1", 3, None)))]);
    assert!(matches!(refused, Err(Error::Gap { shard: 0, expected: 4, found: 5 })), "{refused:?}");
    assert_eq!(journal.reader().agent(&address("a/1")).expect("read"), None, "nothing of it happened");
    journal.append(&[first], &[]).expect("the next is taken");
    let other =
        Entry { shard: 9, epoch: 1, seq: 1, record: Record { at: At(1), agent: None, event: Event::Opened } };
    assert!(matches!(journal.append(&[other], &[]), Err(Error::Fenced { shard: 9, current: 0, .. })));
}

/// `letter` is the only one, `0.4`, of somebody of `acme`.
fn letters_are_paged(reader: &Reader, letter: &DeadLetter) {
    let letter = letter.clone();
    let page = |after| reader.letters_after(Some("acme"), after, 10).expect("read");
    assert_eq!(page(None), [(0, letter.clone())]);
    assert_eq!(page(Some((0, 3))), [(0, letter.clone())]);
    assert_eq!(page(Some((0, 4))), [], "it is after the one named");
    assert_eq!(page(Some((1, 0))), []);
    assert_eq!(reader.letters_after(None, None, 0).expect("read"), []);
    assert_eq!(reader.count_letters(Some("acme")).expect("read"), 1);
    assert_eq!(reader.count_letters(Some("acm")).expect("read"), 0);
    assert_eq!(reader.letter(0, 4).expect("read"), Some(letter));
    assert_eq!((reader.letter(1, 4).expect("read"), reader.letter(0, u64::MAX).expect("read")), (None, None));
}

#[test]
fn rows_change_and_go() {
    let mut journal = Journal::in_memory().expect("opens");
    let mut pen = Pen::open(&mut journal);
    let key = RunKey::new(0, 1);
    let mut row = run(key, "a/1", None, key, 5);
    let letter = DeadLetter {
        number: 4,
        to: address("b/1"),
        message: Message { id: 1, from: None, name: None, at: At(1), hop: 0, body: Payload::text("hm") },
        why: Code::AgentUnknown,
    };
    let lease = LeaseRow {
        tenant: Tenant::parse("acme").expect("valid"),
        resource: "printer".into(),
        token: 3,
        of: 1,
        holders: Vec::new(),
    };
    let topic = TopicRow { tenant: Tenant::local(), topic: "news".into(), agents: vec![address("a/1")] };
    let schedule = ScheduleRow { agent: address("a/1"), fired: At(9) };
    let state = |key: &str, value: Option<&str>| Row::State {
        run: RunKey::new(0, 1),
        key: key.into(),
        value: value.map(Payload::text),
    };
    let started = pen.started(&row);
    let rows = [
        pen.row(),
        Row::Run(Box::new(row.clone())),
        Row::Letter(Box::new(letter.clone())),
        Row::Lease(LeaseRow { token: 1, ..lease.clone() }),
        Row::Lease(lease.clone()),
        Row::Topic(topic.clone()),
        Row::Schedule(schedule.clone()),
        state("a", Some("1")),
        state("b", Some("1")),
        state("a", None),
    ];
    journal.append(&[started], &rows).expect("appended");
    let reader = journal.reader();
    assert_eq!(reader.letters(Some("acme")).expect("read"), [(0, letter.clone())]);
    assert_eq!(reader.letters(Some("acm")).expect("read"), []);
    letters_are_paged(reader, &letter);
    assert_eq!(reader.leases(None).expect("read"), [lease]);
    assert_eq!(reader.topics(None).expect("read"), [topic]);
    assert_eq!(reader.schedules().expect("read"), [schedule]);
    assert_eq!(reader.state(key).expect("read"), [("b".into(), Payload::text("1"))]);

    row.turns = 3;
    let acme = Tenant::parse("acme").expect("valid");
    let rows = [
        Row::Run(Box::new(row.clone())),
        Row::NoLetter { shard: 0, number: 4 },
        Row::NoState { run: key },
        Row::NoLease { tenant: acme, resource: "printer".into() },
        Row::NoTopic { tenant: Tenant::local(), topic: "news".into() },
    ];
    journal.append(&[], &rows).expect("appended");
    assert!(journal.reader().leases(None).expect("read").is_empty());
    assert!(journal.reader().topics(None).expect("read").is_empty());
    assert_eq!(journal.reader().run(key).expect("read"), Some(row.clone()));
    assert!(journal.reader().letters(None).expect("read").is_empty());
    assert!(journal.reader().state(key).expect("read").is_empty());
    let over = ended(row, 9);
    journal.append(&[], &[Row::Run(Box::new(over.clone()))]).expect("appended");
    assert_eq!(journal.reader().run(key).expect("read"), Some(over.clone()));
    assert_eq!(journal.reader().last_run(&over.agent).expect("read").map(|row| row.key), Some(key));
}

#[test]
fn runs_are_listed_by_what_is_asked_for() {
    let mut journal = Journal::in_memory().expect("opens");
    let rows: Vec<_> = (1..=6_u64)
        .map(|number| {
            let key = RunKey::new((number % 3) as u8, number);
            let mut row =
                run(key, if number % 2 == 0 { "lead/1" } else { "helper/1" }, None, key, number / 2);
            if number == 5 {
                row.agent = Address::parse("acme/searching/lead/1").expect("valid");
            }
            if number == 6 {
                row.parent = Some(effect(RunKey::new(0, 3), 1));
                row = ended(row, 9);
            }
            Row::Run(Box::new(row))
        })
        .collect();
    journal.append(&[], &rows).expect("appended");
    let listed = |filter: RunFilter, limit| -> Vec<u64> {
        let runs = journal.reader().runs(&filter, limit).expect("read");
        runs.into_iter().map(|run| run.key.0 >> 8).collect()
    };
    let all = RunFilter::default;
    assert_eq!(listed(all(), 10), [6, 5, 4, 3, 2, 1]);
    assert_eq!(listed(RunFilter { tenant: Some("acme/search".into()), ..all() }, 10), [6, 4, 3, 2, 1]);
    assert_eq!(listed(RunFilter { kind: Some("lead".into()), ..all() }, 10), [6, 5, 4, 2]);
    assert_eq!(listed(RunFilter { state: Some("done".into()), ..all() }, 10), [6]);
    assert_eq!(listed(RunFilter { parent: Some(RunKey::new(0, 3)), ..all() }, 10), [6]);
    assert_eq!(listed(RunFilter { since: Some(At(2)), ..all() }, 10), [6, 5, 4]);
    // Page by page the same, where several began at once.
    let (mut seen, mut filter) = (Vec::new(), all());
    loop {
        let page = journal.reader().runs(&filter, 2).expect("read");
        let Some(last) = page.last() else { break };
        filter.before = Some((last.began, last.key));
        seen.extend(page.iter().map(|run| run.key.0 >> 8));
    }
    assert_eq!(seen, [6, 5, 4, 3, 2, 1]);
}

#[test]
fn values_are_found_by_prefix_and_by_word() {
    let mut journal = Journal::in_memory().expect("opens");
    let value = |tenant: &str, key: &str, value: Option<Payload>| {
        let tenant = Tenant::parse(tenant).expect("valid");
        Row::Value(ValueRow { tenant, key: key.into(), version: 2, value, by: None, at: At(3) })
    };
    let text = |text: &str| Some(Payload::text(text));
    let rows = [
        value("acme", "notes/1", text("The tide rises at noon, says the harbour master.")),
        value("acme", "notes/2", text("Harbour dues are paid monthly.")),
        value("acme", "notes/2", text("Dues are paid: by the tide of payments.")),
        value("acme", "other", text("tide")),
        value("rival", "notes/1", text("tide")),
        value("acme", "notes/3", text("tide")),
        value("acme", "notes/3", None),
        value("acme", "notes/4", Some(vec![0xff, 0xfe].into())),
    ];
    journal.append(&[], &rows).expect("appended");
    let acme = Tenant::parse("acme").expect("valid");
    let reader = journal.reader();
    let keys = |rows: Vec<ValueRow>| rows.into_iter().map(|row| row.key.to_string()).collect::<Vec<_>>();
    assert_eq!(
        keys(reader.values(&acme, "notes/", None, 10).expect("read")),
        ["notes/1", "notes/2", "notes/4"]
    );
    assert_eq!(keys(reader.values(&acme, "notes/", Some("notes/1"), 1).expect("read")), ["notes/2"]);
    let mut found = keys(reader.search_values(&acme, "notes/", "TIDE", 10).expect("read"));
    found.sort();
    assert_eq!(found, ["notes/1", "notes/2"]);
    let found = |words: &str| keys(reader.search_values(&acme, "", words, 10).expect("read"));
    assert_eq!(found("harbour"), ["notes/1"], "what was written over is not found");
    assert_eq!(found("harbour tide"), ["notes/1"]);
    assert_eq!(found("NEAR(\" OR * tenant:"), Vec::<String>::new(), "no query language reaches the index");
    assert_eq!(found("?!").len(), 4, "no words at all: everything under the prefix");
    assert_eq!(found("OTHER"), ["other"], "a key has words too");
    let any = |words: &str, but: &str| {
        let search = Search { words, any: true, but, limit: 10, ..Search::default() };
        keys(reader.find_values(&acme, &search).expect("read"))
    };
    assert_eq!(any("noon nowhere", ""), ["notes/1"], "one of the words is enough");
    assert_eq!(any("tide harbour tide", "")[0], "notes/1", "who has more of them comes first");
    assert_eq!(any("tide", "notes/"), ["other"]);
    let task = format!("{} harbour", (0..100).map(|n| format!("a{n} ")).collect::<String>());
    assert_eq!(any(&task, ""), ["notes/1"], "the longest words of a long text are looked for");
    let gone = reader.value(&acme, "notes/3").expect("read").expect("kept for its version");
    assert_eq!((gone.version, gone.value), (2, None));
}

#[test]
fn who_is_wanted_is_found_without_looking_at_everybody() {
    let mut journal = Journal::in_memory().expect("opens");
    let key = RunKey::new(0, 1);
    let with = |name: &str, effects: Vec<Pending>| {
        let mut row = agent(name, 1, Some(key));
        row.pending = effects;
        Row::Agent(Box::new(row))
    };
    let tool = |number, stage| {
        let work =
            Work::Tool { tool: "mail.send".into(), args: Payload::text("{}"), undo: None, query: None };
        pending(effect(key, number), work, stage)
    };
    let question = Work::Promise { question: Payload::text("which?") };
    let doubtful = tool(1, Stage::Doubtful { why: "a crash".into() });
    let asked = tool(2, Stage::Approving { yes: Vec::new(), until: At(9) });
    let promise = pending(effect(key, 3), question, Stage::Waiting);
    let rows = [
        with("a/1", vec![doubtful.clone(), asked.clone(), model_call(effect(key, 4))]),
        with("b/1", vec![promise.clone()]),
        with("c/1", vec![doubtful.clone()]),
        with("c/1", vec![tool(1, Stage::Attempted)]),
    ];
    journal.append(&[], &rows).expect("appended");
    let wanted = |need, tenant| -> Vec<Pending> {
        let whose = Whose { tenant, approver: None };
        let all = journal.reader().wanted(need, whose, 0, 10).expect("read");
        all.wanted.into_iter().map(|wanted| wanted.effect).collect()
    };
    assert_eq!(wanted(Need::Doubt, None), [doubtful]);
    assert_eq!(wanted(Need::Approval, Some("acme")), [asked]);
    assert_eq!(wanted(Need::Promise, Some("acme/search")), [promise]);
    assert!(wanted(Need::Promise, Some("acm")).is_empty());
}

#[test]
fn who_approves_for_another_tenant_finds_what_is_theirs_page_by_page() {
    let mut journal = Journal::in_memory().expect("opens");
    let key = RunKey::new(0, 1);
    let asking = |name: &str, approvers: &[&str]| {
        let work =
            Work::Tool { tool: "mail.send".into(), args: Payload::text("{}"), undo: None, query: None };
        let mut asked = pending(effect(key, 2), work, Stage::Approving { yes: Vec::new(), until: At(9) });
        let approvers = approvers.iter().map(|name| (*name).into()).collect();
        let approval = Approval { quorum: 1, approvers, patience: Millis(1), deputy: None };
        asked.ruling.verdict = Verdict::Ask(approval);
        let mut row = agent(name, 1, Some(key));
        row.pending = vec![asked];
        row
    };
    let mut moved = asking("moved/1", &["ann"]);
    moved.pending[0].handed = vec![Handed { by: Some("ann".into()), to: "ops-key".into(), at: At(3) }];
    let mut rows = vec![
        asking("theirs/1", &["ann", "ops"]),
        asking("others/1", &["ann"]),
        asking("named/1", &["ops-key"]),
        moved,
        asking("below/1", &["ops/night/x", "ops-key2"]),
        asking("last/1", &["ops/night"]),
    ];
    // Who was asked once is not asked for ever.
    let mut over = asking("over/1", &["ops"]);
    rows.push(over.clone());
    over.pending[0].stage = Stage::Waiting;
    rows.push(over);
    let rows: Vec<Row> = rows.into_iter().map(|row| Row::Agent(Box::new(row))).collect();
    journal.append(&[], &rows).expect("appended");
    let tenant = Tenant::parse("ops/night").expect("valid");
    let person = Person { name: "ops-key".into(), tenant, admin: false, alone: false };
    let whose = Whose { tenant: Some("ops/night"), approver: Some(&person) };
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let page = journal.reader().wanted(Need::Approval, whose, after, 1).expect("read");
        assert!(page.wanted.len() <= 1);
        found.extend(page.wanted.iter().map(|one| one.agent.agent.kind().to_owned()));
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(found, ["theirs", "named", "moved", "last"]);
}

/// A run of three turns that keeps an answer and a child's output, and is begun again.
fn three_turns(journal: &mut Journal, pen: &mut Pen) -> RunKey {
    let (key, child) = (RunKey::new(0, 1), RunKey::new(0, 2));
    let top = run(key, "a/1", None, key, 1);
    let below = run(child, "b/1", Some(effect(key, 2)), key, 3);
    let wait = || Next::Wait(Wake::Any);
    let answered = |number, answer| Event::Answered {
        effect: effect(key, number),
        answer,
        used: Spend::default(),
        by: None,
    };
    let failed = Answer::Failed { code: Code::ToolFailed, why: "no".into() };
    let keep = |key_: &str, number| Change::Keep { key: key_.into(), effect: effect(key, number) };
    let mut entries = vec![pen.started(&top)];
    let events = [
        turned(
            key,
            1,
            vec![set("a", "1"), set("b", "1")],
            vec![planned(None), planned(Some(below.clone()))],
            wait(),
        ),
        answered(1, Answer::Done(Payload::text("paid"))),
        turned(
            key,
            2,
            vec![keep("c", 1), keep("d", 2), Change::Drop { key: "a".into() }],
            vec![planned(None)],
            wait(),
        ),
        answered(3, failed),
        turned(key, 3, vec![keep("e", 3), set("b", "3")], Vec::new(), wait()),
        Event::Restarted { run: key, rests_until: At(0), why: "it failed".into() },
        turned(key, 4, vec![set("z", "4")], Vec::new(), Next::End(Ending::Done(Payload::empty()))),
    ];
    entries.extend(events.into_iter().zip(10..).map(|(event, at)| pen.entry(at, Some("a/1"), event)));
    let rows = [pen.row(), Row::Run(Box::new(ended(top, 16))), Row::Run(Box::new(ended(below, 12)))];
    journal.append(&entries, &rows).expect("appended");
    key
}

#[test]
fn the_state_after_any_turn_can_be_seen_again() {
    let mut journal = Journal::in_memory().expect("opens");
    let mut pen = Pen::open(&mut journal);
    let key = three_turns(&mut journal, &mut pen);
    let at = |turn| {
        let state = journal.reader().state_at(key, turn).expect("read")?;
        let text = |value: &Payload| String::from_utf8(value.here().expect("small").to_vec()).expect("text");
        Some(state.iter().map(|(key, value)| format!("{key}={}", text(value))).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(at(0).as_deref(), Some(""));
    assert_eq!(at(1).as_deref(), Some("a=1 b=1"));
    assert_eq!(at(2).as_deref(), Some("b=1 c=paid d=found"));
    assert_eq!(at(3).as_deref(), Some("b=3 c=paid d=found e="));
    assert_eq!(at(4).as_deref(), Some("z=4"));
    assert_eq!(at(5), None, "it never took that turn");
    assert_eq!(journal.reader().state_at(RunKey::new(0, 9), 1).expect("read"), None);
    let of = |of: &Of| journal.reader().history(of, 0, 100).expect("read").len();
    assert_eq!((of(&Of::Run(key)), of(&Of::Agent(address("a/1"))), of(&Of::Shard(0))), (8, 8, 9));
    let mail = pen.mailed(30, "a/1", Payload::empty());
    journal.append(&[mail], &[]).expect("appended");
    assert_eq!(journal.reader().history(&Of::Agent(address("a/1")), 0, 100).expect("read").len(), 9);
    assert_eq!(journal.reader().history(&Of::Run(key), 4, 2).expect("read")[0].entry.seq, 4);
}
