//! Rows as another program, a later version or a failing disk might leave them: the store
//! answers or says that it is damaged, and never panics.
#![no_main]

use std::cell::RefCell;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rusqlite::Connection;
use rusqlite::types::Value;
use seawall_model::At;
use seawall_store::{Account, By, Error, Filter, Store};

/// Rows written in one run.
const ROWS_MAX: usize = 16;

/// The tables, which need not be empty at the start.
const TABLES: [&str; 3] = ["keys", "accounts", "calls"];

/// Texts that columns really hold, so that rows get past the first column.
const KNOWN: &[&str] = &[
    "acme/search",
    "interactive",
    "agent",
    "batch",
    "chat",
    "messages",
    "done",
    "cancelled",
    "engine_cut",
    "stop",
    "length",
    "acme#usd/day",
    "",
    "model\nother",
];

/// Where a column's value comes from; what a column's type cannot hold is made to fit, as
/// the tables are STRICT.
#[derive(Arbitrary, Debug)]
enum Cell {
    Null,
    Whole(i64),
    Small(i8),
    Text(String),
    Bytes(Vec<u8>),
    Hash([u8; 32]),
    Known(u8),
}

/// One row written past the store's back.
#[derive(Arbitrary, Debug)]
struct Row {
    table: u8,
    cells: Vec<Cell>,
}

/// One column, as SQLite describes it.
struct Column {
    kind: String,
    may_be_empty: bool,
}

/// The store, and the other program's hands on its file.
struct World {
    _dir: tempfile::TempDir,
    store: Store,
    hands: Connection,
    columns: Vec<Vec<Column>>,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(open());
}

fn open() -> World {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(dir.path()).expect("a new store opens");
    let hands = Connection::open(dir.path().join("seawall.db")).expect("it is a database");
    hands.pragma_update(None, "synchronous", "OFF").expect("a pragma");
    let columns = TABLES.iter().map(|table| columns(&hands, table)).collect();
    World { _dir: dir, store, hands, columns }
}

fn columns(hands: &Connection, table: &str) -> Vec<Column> {
    let mut statement = hands.prepare(&format!("PRAGMA table_info({table})")).expect("a pragma");
    let rows = statement
        .query_map([], |row| Ok(Column { kind: row.get(2)?, may_be_empty: row.get::<_, i64>(3)? == 0 }));
    rows.expect("it answers").collect::<Result<_, _>>().expect("it describes")
}

fn value(cell: Option<&Cell>, column: &Column) -> Value {
    let value = match cell.unwrap_or(&Cell::Null) {
        Cell::Null => Value::Null,
        Cell::Whole(number) => Value::Integer(*number),
        Cell::Small(number) => Value::Integer((*number).into()),
        Cell::Text(text) => Value::Text(text.clone()),
        Cell::Bytes(bytes) => Value::Blob(bytes.clone()),
        Cell::Hash(bytes) => Value::Blob(bytes.to_vec()),
        Cell::Known(index) => Value::Text(KNOWN[usize::from(*index) % KNOWN.len()].to_owned()),
    };
    let fits = match &value {
        Value::Null => column.may_be_empty,
        Value::Integer(_) => column.kind == "INTEGER",
        Value::Text(_) => column.kind == "TEXT",
        Value::Blob(_) => column.kind == "BLOB",
        Value::Real(_) => false,
    };
    match column.kind.as_str() {
        _ if fits => value,
        _ if column.may_be_empty => Value::Null,
        "TEXT" => Value::Text("acme".to_owned()),
        "BLOB" => Value::Blob(vec![7; 32]),
        _ => Value::Integer(1),
    }
}

fn write(world: &World, row: &Row) {
    let table = usize::from(row.table) % TABLES.len();
    let columns = world.columns[table].iter().enumerate();
    let values: Vec<_> = columns.map(|(at, column)| value(row.cells.get(at), column)).collect();
    let marks = vec!["?"; values.len()].join(",");
    let sql = format!("INSERT OR IGNORE INTO {} VALUES ({marks})", TABLES[table]);
    // A row that breaks a constraint is simply not there.
    let _ = world.hands.execute(&sql, rusqlite::params_from_iter(values));
}

/// An answer, or that the file is damaged; nothing else can be wrong here.
fn judge<T>(answer: Result<T, Error>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(Error::Busy | Error::Full) => panic!("nothing else has the file"),
        Err(_) => None,
    }
}

fn read(store: &Store) {
    for key in judge(store.keys()).into_iter().flatten() {
        let _ = key.works(At(1));
    }
    let _ = judge(store.revision());
    let _ = judge(store.recent(100, &Filter::default()));
    for by in [By::Tenant, By::Model, By::Engine, By::Day] {
        let _ = judge(store.totals(by, &Filter::default()));
    }
    assert!(judge(store.calls_kept()).is_none_or(|kept| kept <= ROWS_MAX as u64));
}

/// A draw raises ceilings and never lowers one, whatever was in the file.
fn draw(store: &mut Store) {
    let before = judge(store.accounts()).unwrap_or_default();
    let raise = |account: &Account| Account { ceiling: account.ceiling.saturating_add(1), ..account.clone() };
    let _ = judge(store.draw(&before.iter().map(raise).collect::<Vec<_>>()));
    for after in judge(store.accounts()).unwrap_or_default() {
        let same = |old: &&Account| (&old.account, old.window) == (&after.account, after.window);
        assert!(before.iter().find(same).is_none_or(|old| after.ceiling >= old.ceiling));
    }
    let _ = judge(store.settle(&before));
    let _ = judge(store.close_clean(&before));
}

fuzz_target!(|rows: Vec<Row>| {
    WORLD.with_borrow_mut(|world| {
        for row in rows.iter().take(ROWS_MAX) {
            write(world, row);
        }
        read(&world.store);
        draw(&mut world.store);
        let _ = judge(world.store.prune_calls(1, Some(At(1_000_000))));
        let _ = judge(world.store.prune_accounts(At(u64::MAX)));
        let cleared = world.hands.execute_batch("DELETE FROM keys; DELETE FROM accounts; DELETE FROM calls");
        cleared.expect("cleared");
    });
});
