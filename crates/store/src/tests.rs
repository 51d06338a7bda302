//! The whole store against real files: reopening, crashes, full disks, other processes.
#![expect(clippy::disallowed_methods, reason = "the tests make, copy and cut files of their own")]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use seawall_model::{
    Agent, Attempt, CallId, Cause, Class, Code, EngineId, Finish, MicroUsd, Millis, ModelId, Outcome,
    Protocol, Record, ReplicaId, RunId, Tenant, Tokens, Usage, Waits, limits,
};

use super::*;
use seawall_model::At;

/// A folder of its own for each test, gone at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("seawall-store-{}-{count}", std::process::id()));
        // Left by an earlier process of the same id that was killed.
        let _ = fs::remove_dir_all(&dir);
        Self(dir)
    }

    fn db(&self) -> PathBuf {
        self.0.join(file::NAME)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn key(id: &str, hash: u8) -> Key {
    Key {
        id: id.to_owned(),
        hash: [hash; 32],
        name: "laptop".to_owned(),
        tenant: Tenant::parse("acme/search").expect("valid"),
        class: Some(Class::Agent),
        models: vec!["small".to_owned(), "org/large".to_owned()],
        created: At(1_000),
        expires: Some(At(9_000)),
        revoked: None,
        last_used: None,
        admin: true,
        pass_through: true,
        agent: Agent::parse("researcher/7").ok(),
        run: Some("nightly".to_owned()),
    }
}

fn account(name: &str, window: u64, ceiling: u64, spent: u64) -> Account {
    Account { account: name.to_owned(), window: At(window), ceiling, spent }
}

pub(crate) fn record(tenant: &str, received: u64, outcome: Outcome) -> Record {
    let mut waits = Waits::default();
    for (micros, cause) in Cause::ALL.into_iter().enumerate() {
        waits.add(cause, micros as u64 * 1_000);
    }
    Record {
        call: CallId(7),
        trace: Arc::from("0af7651916cd43dd8448eb211c80319c"),
        tenant: Tenant::parse(tenant).expect("valid"),
        run: Some(RunId(u64::MAX - 5)),
        lineage: None,
        agent: Agent::parse("researcher/7").ok(),
        class: Class::Batch,
        protocol: Protocol::Messages,
        model: ModelId(3),
        model_name: Arc::from("small"),
        engine: Some(EngineId(1)),
        engine_name: Some(Arc::from("local")),
        replica: Some(ReplicaId(2)),
        stream: true,
        received: At(received),
        waits,
        attempts: 2,
        tried: [("connect", None, None), ("answered", Some(200), Some(Millis(30)))]
            .map(|(outcome, status, first_byte)| Attempt {
                engine: Arc::from("local"),
                replica: Arc::from("http://10.0.0.1:8000"),
                outcome,
                status,
                began: Millis(2),
                first_byte,
                took: Millis(800),
            })
            .into(),
        first_token: Some(Millis(40)),
        took: Millis(900),
        usage: Usage {
            input: Tokens(100),
            cached: Tokens(60),
            cache_written: Tokens(5),
            output: Tokens(30),
            reasoning: Tokens(10),
        },
        reserved_output: Tokens(64),
        cost: MicroUsd(1_234),
        finish: Some(Finish::Tools),
        outcome,
    }
}

#[test]
fn keys_come_back_as_they_went_in_after_reopening() {
    let folder = Folder::new();
    let mut open_ended = key("b2", 2);
    open_ended.class = None;
    open_ended.models = Vec::new();
    open_ended.expires = None;
    open_ended.admin = false;
    open_ended.pass_through = false;
    open_ended.created = At(2_000);
    let mut store = Store::open(&folder.0).expect("opens");
    store.add_key(&key("a1", 1)).expect("added");
    store.add_key(&open_ended).expect("added");
    store.key_used(&[("a1".to_owned(), At(5_000)), ("nobody".to_owned(), At(1))]).expect("noted");
    store.key_used(&[("a1".to_owned(), At(4_000))]).expect("noted");
    store.close().expect("closes");

    let mut first = key("a1", 1);
    first.last_used = Some(At(5_000));
    let store = Store::open(&folder.0).expect("opens again");
    assert_eq!(store.keys().expect("read"), [first, open_ended]);
}

#[test]
fn a_taken_id_or_secret_and_an_odd_model_name_are_refused() {
    let mut store = Store::in_memory().expect("opens");
    store.add_key(&key("a1", 1)).expect("added");
    assert!(matches!(store.add_key(&key("a1", 2)), Err(Error::KeyExists { id }) if id == "a1"));
    assert!(matches!(store.add_key(&key("a2", 1)), Err(Error::KeyExists { .. })));
    let mut odd = key("a3", 3);
    odd.models.push("two\nlines".to_owned());
    assert!(matches!(store.add_key(&odd), Err(Error::BadName { .. })));
    assert_eq!(store.keys().expect("read").len(), 1);
}

#[test]
fn a_key_is_revoked_once_and_works_until_then() {
    let mut store = Store::in_memory().expect("opens");
    store.add_key(&key("a1", 1)).expect("added");
    assert!(store.revoke_key("a1", At(6_000)).expect("revoked"));
    assert!(!store.revoke_key("a1", At(7_000)).expect("asked again"));
    assert!(!store.revoke_key("a9", At(7_000)).expect("unknown"));
    let revoked = store.keys().expect("read").remove(0);
    assert_eq!(revoked.revoked, Some(At(6_000)));
    assert!(revoked.works(At(5_999)) && !revoked.works(At(6_000)));
    let fresh = key("b", 2);
    assert!(fresh.works(At(8_999)) && !fresh.works(At(9_000)), "it expires at 9,000");
}

#[test]
fn only_a_key_that_works_no_more_can_be_removed() {
    let mut store = Store::in_memory().expect("opens");
    store.add_key(&key("a1", 1)).expect("added");
    store.add_key(&key("b2", 2)).expect("added");
    assert!(!store.remove_key("a1", At(8_999)).expect("asked"), "it still works");
    store.revoke_key("a1", At(5_000)).expect("revoked");
    let before = store.revision().expect("read");
    assert!(store.remove_key("a1", At(5_000)).expect("removed"));
    assert!(store.revision().expect("read") > before);
    assert!(store.remove_key("b2", At(9_000)).expect("removed"), "it has expired");
    assert!(store.keys().expect("read").is_empty());
}

#[test]
fn the_revision_shows_a_key_that_another_process_added() {
    let folder = Folder::new();
    let serve = Store::open(&folder.0).expect("opens");
    let before = serve.revision().expect("read");
    let mut command = Store::open_beside(&folder.0).expect("opens beside");
    command.add_key(&key("a1", 1)).expect("added");
    let added = serve.revision().expect("read");
    assert!(added > before);
    command.key_used(&[("a1".to_owned(), At(1))]).expect("noted");
    assert_eq!(serve.revision().expect("read"), added, "use is no change");
    command.revoke_key("a1", At(2)).expect("revoked");
    assert!(serve.revision().expect("read") > added);
}

#[test]
fn a_second_owner_is_refused_by_name_and_let_in_after_the_first() {
    let folder = Folder::new();
    let first = Store::open(&folder.0).expect("opens");
    let refused = Store::open(&folder.0).expect_err("owned");
    assert!(matches!(refused, Error::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{refused}");
    drop(first);
    Store::open(&folder.0).expect("free again");
}

#[cfg(unix)]
#[test]
fn files_are_for_their_owners_eyes_only() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    let folder = Folder::new();
    let mut store = Store::open(&folder.0).expect("opens");
    store.add_key(&key("a1", 1)).expect("added");
    assert_eq!(mode(&folder.0), 0o700);
    for name in [file::NAME, file::LOCK_NAME, "seawall.db-wal", "seawall.db-shm"] {
        assert_eq!(mode(&folder.0.join(name)), 0o600, "{name}");
    }
    store.close().expect("closes");
    fs::set_permissions(folder.db(), fs::Permissions::from_mode(0o644)).expect("loosened");
    Store::open(&folder.0).expect("opens");
    assert_eq!(mode(&folder.db()), 0o600, "a copied-in file is tightened");
}

#[test]
fn a_folder_that_cannot_be_made_or_a_file_that_is_no_store_says_so() {
    let folder = Folder::new();
    fs::create_dir_all(&folder.0).expect("made");
    fs::write(folder.db(), "this is a letter, not a database, and long enough to be read as one".repeat(99))
        .expect("written");
    let error = Store::open(&folder.0).expect_err("not a store");
    assert!(matches!(&error, Error::NotOpen { path, .. } if *path == folder.db()), "{error}");
    let error = Store::open(&folder.db().join("below")).expect_err("a file is in the way");
    assert!(matches!(error, Error::NotOpen { .. }), "{error}");
}

#[test]
fn another_programs_database_is_refused_untouched() {
    let folder = Folder::new();
    fs::create_dir_all(&folder.0).expect("made");
    let other = Connection::open(folder.db()).expect("opens");
    other.execute_batch("PRAGMA user_version = 3; CREATE TABLE theirs (x)").expect("made");
    drop(other);
    assert!(
        matches!(Store::open(&folder.0), Err(Error::NotOpen { why, .. }) if why.contains("another program"))
    );
}

#[test]
fn a_newer_format_is_refused_and_an_older_one_brought_up() {
    let folder = Folder::new();
    let mut store = Store::open(&folder.0).expect("opens");
    store.add_key(&key("a1", 1)).expect("added");
    let steps = [schema::STEPS, &["CREATE TABLE later (x INTEGER) STRICT"]].concat();
    schema::migrate(&mut store.conn, &store.path, &steps).expect("migrates");
    store.conn.execute("INSERT INTO later VALUES (1)", []).expect("the new table is there");
    assert_eq!(store.keys().expect("old data stays").len(), 1);
    schema::migrate(&mut store.conn, &store.path, &steps).expect("a second time does nothing");
    drop(store);
    let known = schema::STEPS.len();
    for error in
        [Store::open(&folder.0).expect_err("newer"), Store::open_beside(&folder.0).expect_err("newer")]
    {
        assert!(
            matches!(error, Error::Newer { found, known: k, .. } if found == known + 1 && k == known),
            "{error}"
        );
    }
}

#[test]
fn a_key_of_the_first_format_may_not_pass_through() {
    let mut store = Store::in_memory().expect("opens");
    store.conn = Connection::open_in_memory().expect("opens");
    schema::migrate(&mut store.conn, &store.path, &schema::STEPS[..1]).expect("the first format");
    let old = "INSERT INTO keys VALUES ('k', zeroblob(32), '', 'acme', NULL, '', 1, NULL, NULL, NULL, 1)";
    store.conn.execute(old, []).expect("a key of then");
    schema::migrate(&mut store.conn, &store.path, schema::STEPS).expect("brought up");
    let keys = store.keys().expect("read");
    assert_eq!(keys.iter().map(|key| (key.admin, key.pass_through)).collect::<Vec<_>>(), [(true, false)]);
}

#[test]
fn attempts_come_back_with_their_call_and_go_with_it() {
    let mut store = Store::in_memory().expect("opens");
    let mut plain = record("acme", 1, Outcome::Done);
    plain.tried = Box::default();
    store.record(&[plain, record("acme", 2, Outcome::Done)]).expect("kept");
    let calls = store.recent(10, &Filter::default()).expect("read");
    let outcomes: Vec<Vec<&str>> =
        calls.iter().map(|call| call.tried.iter().map(|tried| tried.outcome.as_str()).collect()).collect();
    assert_eq!(outcomes, [vec!["connect", "answered"], vec![]]);
    assert_eq!(calls[0].tried[1].first_byte, Some(Millis(30)));
    assert_eq!(store.prune_calls(0, None).expect("pruned"), 2);
    let left: i64 =
        store.conn.query_row("SELECT count(*) FROM attempts", [], |row| row.get(0)).expect("read");
    assert_eq!(left, 0);
}

#[test]
fn a_step_that_fails_leaves_the_older_format_whole() {
    let mut store = Store::in_memory().expect("opens");
    let steps = [schema::STEPS, &["CREATE TABLE half (x INTEGER) STRICT; CREATE TABLE half (x)"]].concat();
    schema::migrate(&mut store.conn, &store.path, &steps).expect_err("the step is wrong");
    assert_eq!(schema::version(&store.conn, &store.path).expect("read"), schema::STEPS.len());
    store.conn.execute("INSERT INTO half VALUES (1)", []).expect_err("nothing of it stayed");
}

#[test]
fn a_crash_counts_ceilings_and_a_clean_stop_counts_what_was_spent() {
    let folder = Folder::new();
    let mut store = Store::open(&folder.0).expect("opens");
    store.draw(&[account("a#usd/day", 10, 500, 0), account("b#usd/day", 10, 300, 0)]).expect("drawn");
    store.settle(&[account("a#usd/day", 10, 500, 120), account("never#drawn", 10, 1, 1)]).expect("settled");
    store.close_clean(&[account("b#usd/day", 10, 300, 77)]).expect("closed");
    drop(store);

    let store = Store::open(&folder.0).expect("opens");
    assert_eq!(store.recovered(), 1);
    assert_eq!(
        store.accounts().expect("read"),
        [account("a#usd/day", 10, 500, 500), account("b#usd/day", 10, 77, 77)]
    );
    drop(store);
    let store = Store::open(&folder.0).expect("opens");
    assert_eq!(store.recovered(), 0, "already counted");
}

#[test]
fn a_draw_forgets_nothing_that_was_spent() {
    let folder = Folder::new();
    let mut store = Store::open(&folder.0).expect("opens");
    store.draw(&[account("a#usd/day", 10, 100, 0)]).expect("drawn");
    store.settle(&[account("a#usd/day", 10, 0, 90)]).expect("settled");
    store.draw(&[account("a#usd/day", 10, 200, 0)]).expect("drawn again");
    let accounts = store.accounts().expect("read");
    assert_eq!(accounts, [account("a#usd/day", 10, 200, 90)]);
    store.close_clean(&accounts).expect("closed");
    store.close().expect("closes");

    let store = Store::open(&folder.0).expect("opens");
    assert_eq!(store.recovered(), 0);
    assert_eq!(store.accounts().expect("read"), [account("a#usd/day", 10, 90, 90)]);
}

#[test]
fn memory_given_back_takes_nothing_with_it() {
    let mut store = Store::in_memory().expect("opens");
    store.draw(&[account("a", 1, 5, 2)]).expect("drawn");
    store.record(&vec![record("acme", 1, Outcome::Done); 500]).expect("kept");
    store.shrink().expect("shrinks");
    assert_eq!(store.calls_kept().expect("read"), 500);
    assert_eq!(store.accounts().expect("read"), [account("a", 1, 5, 2)]);
}

#[test]
fn a_command_beside_the_owner_does_not_count_ceilings() {
    let folder = Folder::new();
    let mut store = Store::open(&folder.0).expect("opens");
    store.draw(&[account("a", 1, 500, 3)]).expect("drawn");
    let beside = Store::open_beside(&folder.0).expect("opens beside");
    assert_eq!(beside.accounts().expect("read"), [account("a", 1, 500, 3)]);
}

#[test]
fn two_windows_of_an_account_are_kept_and_old_accounts_are_pruned() {
    let mut store = Store::in_memory().expect("opens");
    for window in [10, 20, 30] {
        store.draw(&[account("a", window, 5, 0)]).expect("drawn");
    }
    // The clock was set back: nothing that is spent from disappears.
    store.draw(&[account("a", 25, 5, 0), account("b", 3, 5, 0)]).expect("drawn");
    let windows = |store: &Store| -> Vec<_> {
        store.accounts().expect("read").into_iter().map(|a| (a.account, a.window.0)).collect()
    };
    let name = |name: &str, window| (name.to_owned(), window);
    assert_eq!(windows(&store), [name("a", 20), name("a", 25), name("a", 30), name("b", 3)]);
    assert_eq!(store.prune_accounts(At(21)).expect("pruned"), 2);
    assert_eq!(windows(&store), [name("a", 25), name("a", 30)]);
    // A budget for good has one window, as old as time; it is never forgotten.
    store.draw(&[account("c#usd/total", 0, 5, 0)]).expect("drawn");
    assert_eq!(store.prune_accounts(At(30)).expect("pruned"), 1);
    assert_eq!(windows(&store), [name("a", 30), name("c#usd/total", 0)]);
}

#[test]
fn a_full_disk_is_named_and_loses_nothing() {
    let folder = Folder::new();
    let mut store = Store::open(&folder.0).expect("opens");
    store.draw(&[account("a", 1, 5, 0)]).expect("drawn");
    let pages: i64 = store.conn.pragma_query_value(None, "page_count", |row| row.get(0)).expect("read");
    store.conn.pragma_update_and_check(None, "max_page_count", pages + 2, |_| Ok(())).expect("set");
    let batch = vec![record("acme", 1, Outcome::Done); 500];
    assert!(matches!(store.record(&batch), Err(Error::Full)));
    assert_eq!(store.calls_kept().expect("read"), 0, "all or nothing");
    assert_eq!(store.accounts().expect("read"), [account("a", 1, 5, 0)]);
    store.conn.pragma_update_and_check(None, "max_page_count", pages + 999, |_| Ok(())).expect("set");
    store.record(&batch).expect("space again");
    assert_eq!(store.calls_kept().expect("read"), 500);
}

#[test]
fn a_kill_in_the_middle_of_a_transaction_leaves_what_was_committed() {
    let (folder, copy) = (Folder::new(), Folder::new());
    let mut store = Store::open(&folder.0).expect("opens");
    store.draw(&[account("a", 1, 100, 0)]).expect("drawn");
    let open = store.conn.transaction().expect("begins");
    open.execute("UPDATE accounts SET ceiling = 999", []).expect("written, not committed");
    open.cache_flush().expect("and on its way to the log");
    copy_store(&folder, &copy);
    let after = Store::open(&copy.0).expect("the copy opens");
    assert_eq!(after.accounts().expect("read"), [account("a", 1, 100, 100)]);
}

#[test]
fn a_log_cut_anywhere_yields_a_prefix_of_what_was_drawn() {
    let folder = Folder::new();
    let mut store = Store::open(&folder.0).expect("opens");
    for ceiling in 1..=8 {
        store.draw(&[account("a", 1, ceiling * 10, 0)]).expect("drawn");
    }
    let wal = fs::read(folder.0.join("seawall.db-wal")).expect("there");
    let mut highest = 0;
    for end in (0..=wal.len()).step_by(1_000).chain([wal.len()]) {
        let copy = Folder::new();
        copy_store(&folder, &copy);
        fs::write(copy.0.join("seawall.db-wal"), &wal[..end]).expect("cut");
        let cut = Store::open(&copy.0).expect("opens");
        let ceiling = cut.accounts().expect("read").first().map_or(0, |account| account.ceiling);
        assert!(ceiling.is_multiple_of(10) && ceiling <= 80, "{ceiling} was never drawn");
        assert!(ceiling >= highest, "a longer log never shows less");
        highest = ceiling;
    }
    assert_eq!(highest, 80, "the whole log shows everything");
}

fn copy_store(from: &Folder, to: &Folder) {
    fs::create_dir_all(&to.0).expect("made");
    for name in ["seawall.db", "seawall.db-wal"] {
        fs::copy(from.0.join(name), to.0.join(name)).expect("copied");
    }
}

#[test]
fn a_record_comes_back_as_it_went_in() {
    let mut store = Store::in_memory().expect("opens");
    let mut bare = record("acme/x", 5, Outcome::Failed(Code::QueueFull));
    (bare.run, bare.engine_name, bare.replica, bare.first_token, bare.finish) =
        (None, None, None, None, None);
    bare.usage.input = Tokens(u64::MAX);
    let sent = record("acme/search/alice", 2_000_000, Outcome::Done);
    store.record(&[sent.clone(), bare]).expect("kept");
    let calls = store.recent(10, &Filter::default()).expect("read");
    let call = &calls[1];
    assert_eq!(call.tenant, "acme/search/alice");
    assert_eq!(
        (call.class.as_str(), call.protocol.as_str(), call.model.as_str()),
        ("batch", "messages", "small")
    );
    assert_eq!((call.run, call.replica, call.engine.as_deref()), (sent.run, Some(2), Some("local")));
    assert_eq!(call.agent.as_deref(), Some("researcher/7"));
    assert_eq!((call.waits, call.usage, call.cost), (sent.waits, sent.usage, sent.cost));
    assert_eq!((call.received, call.took, call.first_token), (sent.received, sent.took, sent.first_token));
    assert_eq!((call.attempts, call.stream, call.reserved_output), (2, true, Tokens(64)));
    assert_eq!((call.finish.as_deref(), call.outcome.as_str()), (Some("tool_calls"), "done"));
    assert_eq!(*call.trace, *sent.trace);
    let call = &calls[0];
    assert_eq!((call.run, call.replica, call.first_token), (None, None, None));
    assert_eq!((call.engine.as_deref(), call.finish.as_deref()), (None, None));
    assert_eq!(call.outcome, "queue_full");
    assert_eq!(call.usage.input, Tokens(i64::MAX.unsigned_abs()), "the largest amount that is kept");
}

#[test]
fn questions_see_the_tenants_they_name_and_no_others() {
    let mut store = Store::in_memory().expect("opens");
    let day = 86_400_000_000;
    store
        .record(&[
            record("acme", 1, Outcome::Done),
            record("acme/search", day, Outcome::Cancelled),
            record("acme/search/bob", day + 1, Outcome::Failed(Code::EngineDown)),
            record("acme-two", 2 * day, Outcome::Done),
            record("acme/searching", 2 * day, Outcome::Failed(Code::QueueFull)),
        ])
        .expect("kept");
    let tenants = |filter: &Filter| -> Vec<String> {
        store.recent(10, filter).expect("read").into_iter().map(|call| call.tenant).collect()
    };
    let of = |tenant: &str| Filter { tenant: Some(tenant.to_owned()), ..Filter::default() };
    assert_eq!(tenants(&of("acme/search")), ["acme/search/bob", "acme/search"]);
    assert_eq!(tenants(&of("acme")), ["acme/searching", "acme/search/bob", "acme/search", "acme"]);
    assert!(tenants(&of("' OR 1 --")).is_empty());
    let ended = |ended| Filter { ended: Some(ended), ..Filter::default() };
    assert_eq!(tenants(&ended(Ended::Done)), ["acme-two", "acme"]);
    assert_eq!(tenants(&ended(Ended::Cancelled)), ["acme/search"]);
    assert_eq!(tenants(&ended(Ended::Failed)), ["acme/searching", "acme/search/bob"]);
    assert_eq!(tenants(&ended(Ended::With(Code::EngineDown))), ["acme/search/bob"]);
    let day_two = Filter { since: Some(At(day)), until: Some(At(2 * day)), ..Filter::default() };
    assert_eq!(tenants(&day_two), ["acme/search/bob", "acme/search"]);
    assert!(tenants(&Filter { model: Some("large".to_owned()), ..Filter::default() }).is_empty());
    assert_eq!(store.recent(2, &Filter::default()).expect("read").len(), 2);
}

#[test]
fn totals_add_up_by_tenant_and_day() {
    let mut store = Store::in_memory().expect("opens");
    let day = 86_400_000_000;
    let mut liar = record("b", 3 * day, Outcome::Done);
    (liar.usage.output, liar.waits.0) = (Tokens(u64::MAX), [u64::MAX; 6]);
    store
        .record(&[
            record("a", 5, Outcome::Done),
            record("a", day, Outcome::Cancelled),
            record("a", day, Outcome::Failed(Code::EngineCut)),
            liar.clone(),
            liar,
        ])
        .expect("kept");
    let totals = store.totals(By::Tenant, &Filter::default()).expect("read");
    assert_eq!(totals.iter().map(|total| total.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let a = &totals[0];
    assert_eq!((a.calls, a.failed, a.cancelled, a.cost), (3, 1, 1, MicroUsd(3_702)));
    assert_eq!((a.usage.input, a.usage.reasoning), (Tokens(300), Tokens(30)));
    assert_eq!((a.waited, a.took), (Millis(45), Millis(2_700)));
    assert_eq!(totals[1].usage.output, Tokens(i64::MAX.unsigned_abs()), "a lie saturates, it does not fail");
    let days = store.totals(By::Day, &Filter::default()).expect("read");
    let days: Vec<_> = days.iter().map(|total| (total.name.as_str(), total.calls)).collect();
    assert_eq!(days, [("1970-01-04", 2), ("1970-01-02", 2), ("1970-01-01", 1)]);
    assert_eq!(store.totals(By::Engine, &Filter::default()).expect("read")[0].name, "local");
    assert_eq!(store.totals(By::Model, &Filter::default()).expect("read")[0].calls, 5);
}

#[test]
fn pruning_goes_by_count_and_age_in_bounded_slices() {
    let mut store = Store::in_memory().expect("opens");
    let slice = limits::PRUNE_ROWS_MAX;
    let batch: Vec<_> = (0..slice as u64 + 100).map(|at| record("a", at, Outcome::Done)).collect();
    store.record(&batch).expect("kept");
    assert_eq!(store.prune_calls(u64::MAX, None).expect("pruned"), 0, "nothing is too old or too many");
    assert_eq!(store.prune_calls(50, None).expect("pruned"), slice, "one slice, though more could go");
    assert_eq!(store.prune_calls(50, None).expect("pruned"), 50);
    assert_eq!(store.calls_kept().expect("read"), 50);
    let before = Some(At(slice as u64 + 70));
    assert_eq!(store.prune_calls(50, before).expect("pruned"), 20);
    let oldest = store.recent(limits::ROWS_MAX, &Filter::default()).expect("read").pop().expect("some");
    assert_eq!(oldest.received, At(slice as u64 + 70));
}

/// One thing that happens to the ledger.
#[derive(Clone, Debug)]
enum Event {
    Draw(u8, u64),
    Settle(u8, u64),
    Close(u8),
    Crash,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..3_u8, 1..100_u64).prop_map(|(name, amount)| Event::Draw(name, amount)),
        (0..3_u8, 1..40_u64).prop_map(|(name, amount)| Event::Settle(name, amount)),
        (0..3_u8).prop_map(Event::Close),
        Just(Event::Crash),
    ]
}

/// The ledger's law in one function: what an account must hold after each event.
fn fold(state: &mut [Option<(u64, u64, bool)>; 3], event: &Event) {
    match *event {
        Event::Draw(name, amount) => {
            let (ceiling, spent, _) = state[name as usize].unwrap_or_default();
            state[name as usize] = Some((ceiling + amount, spent, false));
        }
        Event::Settle(name, amount) => {
            if let Some((ceiling, spent, clean)) = &mut state[name as usize] {
                *spent += amount;
                *ceiling = (*ceiling).max(*spent);
                *clean = false;
            }
        }
        Event::Close(name) => {
            if let Some((ceiling, spent, clean)) = &mut state[name as usize] {
                *ceiling = *spent;
                *clean = true;
            }
        }
        Event::Crash => {
            for (ceiling, spent, _) in state.iter_mut().flatten().filter(|(.., clean)| !clean) {
                *spent = *ceiling;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_is_the_fold_of_what_happened(events in prop::collection::vec(event(), 1..24)) {
        let mut store = Store::in_memory().expect("opens");
        let mut state = [None; 3];
        for event in &events {
            fold(&mut state, event);
            let row = |name: u8| {
                let (ceiling, spent, _) = state[name as usize].unwrap_or_default();
                [account(&name.to_string(), 1, ceiling, spent)]
            };
            match event {
                // As the owner does it: a draw does not know what was spent.
                Event::Draw(name, _) => store.draw(&row(*name).map(|row| Account { spent: 0, ..row })),
                Event::Settle(name, _) => store.settle(&row(*name)),
                Event::Close(name) if state[*name as usize].is_some() => store.close_clean(&row(*name)),
                Event::Close(_) => Ok(()),
                Event::Crash => store.recover_accounts().map(|_| ()),
            }.expect("done");
            let expected: Vec<_> = (0..3_u8)
                .filter_map(|name| state[name as usize].map(|(c, s, _)| account(&name.to_string(), 1, c, s)))
                .collect();
            prop_assert_eq!(store.accounts().expect("read"), expected);
        }
    }
}
