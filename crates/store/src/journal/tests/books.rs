//! The reconciler on disk, against rows that are right and rows that are not.

use super::*;
use crate::journal::Place;

/// An agent that waits for a timer in its run, and the run.
fn sleeper(name: &str, number: u64) -> (AgentRow, RunRow) {
    let key = RunKey::new(0, number);
    let timer = pending(effect(key, 1), Work::Timer { at: At(900) }, Stage::Waiting);
    let row = AgentRow { inbox: Vec::new(), pending: vec![timer], ..agent(name, number, Some(key)) };
    (row, run(key, name, None, key, 10))
}

fn rows(all: Vec<(AgentRow, RunRow)>) -> Vec<Row> {
    all.into_iter().flat_map(|(row, run)| [Row::Run(Box::new(run)), Row::Agent(Box::new(row))]).collect()
}

/// What is wrong with these rows, in words.
fn wrong(all: Vec<(AgentRow, RunRow)>) -> Vec<String> {
    let mut journal = Journal::in_memory().expect("opens");
    let _ = Pen::open(&mut journal);
    journal.append(&[], &rows(all)).expect("appended");
    let books = journal.reader().reconcile_shard(0).expect("read");
    books.wrong.into_iter().map(|wrong| format!("{}: {}", wrong.of, wrong.what)).collect()
}

#[test]
fn rows_that_are_right_are_found_so_page_by_page() {
    let mut journal = Journal::in_memory().expect("opens");
    let _ = Pen::open(&mut journal);
    let (mut lead, mut top) = sleeper("lead/1", 6);
    let (helper, mut below) = sleeper("helper/1", 7);
    below = RunRow { parent: Some(effect(top.key, 1)), root: top.key, ..below };
    (top.children, lead.pending[0].child) = (vec![below.key], Some(below.key));
    let spend = Spend { calls: 2, ..Spend::default() };
    (top.reserved, below.reserved) = (spend, spend);
    let mut helper = AgentRow { queue: vec![RunKey::new(0, 8)], ..helper };
    helper.pending[0].reserved = spend;
    let (_, mut next) = sleeper("helper/1", 8);
    next.state = RunState::Queued;
    let all =
        vec![sleeper("a/1", 1), sleeper("a/2", 2), (lead, top), (helper.clone(), below), (helper, next)];
    journal.append(&[], &rows(all)).expect("appended");
    let reader = journal.reader();
    let (mut from, mut agents, mut runs) = (Some(Place::Agent(0)), 0, 0);
    while let Some(at) = from {
        let books = reader.reconcile(0, at, 2).expect("read");
        assert_eq!(books.wrong, []);
        (agents, runs) = (agents + books.agents, runs + books.runs);
        from = books.next;
    }
    assert_eq!((agents, runs), (4, 5));
}

#[test]
fn a_row_that_rests_on_nothing_is_told() {
    assert_eq!(wrong(vec![sleeper("a/1", 1)]), Vec::<String>::new());

    let (mut row, run) = sleeper("a/1", 1);
    row.pending.clear();
    let told = wrong(vec![(row.clone(), run.clone())]);
    assert_eq!(told, ["acme/search/a/1: it waits without a wake source"]);
    row.expires = At(5_000);
    assert_eq!(wrong(vec![(row, run)]), Vec::<String>::new(), "time ends it");

    let (mut row, run) = sleeper("a/1", 1);
    row.run = Some(RunKey::new(0, 2));
    let told = wrong(vec![(row, run)]);
    assert!(told[0].contains("works on run-0200, which is not active"), "{told:?}");
    assert!(
        told.iter().any(|told| told.starts_with("run-0100: it is active and")),
        "nobody knows it: {told:?}"
    );

    let (mut row, run) = sleeper("a/1", 1);
    row.pending[0].reserved = Spend { calls: 1, ..Spend::default() };
    let told = wrong(vec![(row, run.clone())]);
    assert!(told[0].starts_with("run-0100: it reserves"), "{told:?}");

    let (mut row, _) = sleeper("a/1", 1);
    let mut old = row.pending[0].clone();
    old.id.run = RunKey::new(0, 9);
    old.reserved = Spend { calls: 1, ..Spend::default() };
    row.pending.push(old);
    let told = wrong(vec![(row, run)]);
    assert!(told[0].contains("for a run that is over"), "a reservation outlived its effect: {told:?}");

    let (mut row, mut run) = sleeper("a/1", 1);
    (run.children, row.pending[0].child) = (vec![RunKey::new(0, 5)], Some(RunKey::new(0, 5)));
    let told = wrong(vec![(row, run)]);
    assert!(told[0].contains("waits for run-0500, which is over or gone"), "{told:?}");
    assert!(told[1].contains("its child run-0500 is over or gone"), "{told:?}");
}

#[test]
fn a_letter_that_no_turn_took_and_no_inbox_has_is_told() {
    let mut journal = Journal::in_memory().expect("opens");
    let mut pen = Pen::open(&mut journal);
    let (mut row, run) = sleeper("a/1", 1);
    let early = pen.mailed(20, "a/1", Payload::text("read"));
    let turn = turned(run.key, 1, Vec::new(), Vec::new(), Next::Wait(Wake::All));
    let turn = pen.entry(21, Some("a/1"), turn);
    let late = pen.mailed(22, "a/1", Payload::text("unread"));
    let Event::Mailed { message, .. } = &late.record.event else { panic!("mail") };
    row.inbox = vec![Item::Mail(message.clone())];
    let started = pen.row();
    journal.append(&[early, turn, late], &[started]).expect("appended");
    journal.append(&[], &rows(vec![(row.clone(), run.clone())])).expect("appended");
    assert_eq!(journal.reader().reconcile_shard(0).expect("read").wrong, []);
    row.inbox.clear();
    journal.append(&[], &rows(vec![(row, run)])).expect("appended");
    let wrong = journal.reader().reconcile_shard(0).expect("read").wrong;
    assert_eq!((wrong.len(), &*wrong[0].what), (1, "a message of 22 was lost"));
}

#[test]
fn those_who_wait_are_counted_by_cause_and_tenant() {
    let mut journal = Journal::in_memory().expect("opens");
    let _ = Pen::open(&mut journal);
    let (mut asks, run) = sleeper("a/2", 2);
    asks.pending[0].work = Work::Promise { question: Payload::text("why?") };
    let (mut quiet, other) = sleeper("a/3", 3);
    quiet.pending.clear();
    let (mut rests, third) = sleeper("a/4", 4);
    rests =
        AgentRow { inbox: vec![Item::Task { run: third.key }], changed: At(5), rests_until: At(9), ..rests };
    let all = vec![sleeper("a/1", 1), (asks.clone(), run), (quiet, other), (rests, third), sleeper("a/5", 5)];
    journal.append(&[], &rows(all)).expect("appended");
    let causes = |journal: &Journal, tenant| journal.reader().causes(tenant).expect("read");
    let all =
        [("message", 1), ("promise", 1), ("rest", 1), ("timer", 2)].map(|(name, n)| (name.to_owned(), n));
    assert_eq!(causes(&journal, None), all);
    assert_eq!(causes(&journal, Some("acme")), all);
    assert_eq!(causes(&journal, Some("acme/other")), []);
    asks = AgentRow { inbox: vec![Item::Note("x".into())], pending: Vec::new(), run: None, ..asks };
    asks.standing = Standing::Idle;
    journal.append(&[], &[Row::Agent(Box::new(asks))]).expect("appended");
    assert_eq!(causes(&journal, None).iter().map(|(_, count)| count).sum::<u64>(), 4, "one went to rest");
}
