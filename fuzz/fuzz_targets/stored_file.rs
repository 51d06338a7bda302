//! A store's file with bytes changed, cut or added: it opens and answers, or says what is
//! wrong, and never panics.
#![no_main]

use std::fs;
use std::sync::OnceLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rusqlite::Connection;
use seawall_model::At;
use seawall_store::{Account, By, Filter, Store};

/// What happened to the file.
#[derive(Arbitrary, Debug)]
enum Harm {
    Write {
        at: u32,
        bytes: Vec<u8>,
    },
    /// In the first page, where the schema is.
    Head {
        at: u8,
        byte: u8,
    },
    Cut {
        at: u32,
    },
    Grow {
        bytes: Vec<u8>,
    },
    Replace {
        bytes: Vec<u8>,
    },
}

/// A good file with a key and an account in it.
fn good() -> &'static [u8] {
    static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
    GOOD.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut store = Store::open(dir.path()).expect("a new store opens");
        let account = Account { account: "acme#usd/day".to_owned(), window: At(1), ceiling: 9, spent: 3 };
        store.draw(&[account]).expect("drawn");
        store.close().expect("closed");
        let hands = Connection::open(dir.path().join("seawall.db")).expect("it is a database");
        hands
            .execute_batch(
                "INSERT INTO keys (id, hash, name, tenant, models, created, admin)
                     VALUES ('k-1', zeroblob(32), 'n', 'acme', '', 1, 0);
                 PRAGMA wal_checkpoint(TRUNCATE);",
            )
            .expect("a key");
        drop(hands);
        fs::read(dir.path().join("seawall.db")).expect("the file is there")
    })
}

fuzz_target!(|harms: Vec<Harm>| {
    let mut file = good().to_vec();
    for harm in harms.iter().take(8) {
        match harm {
            Harm::Write { at, bytes } => {
                let at = *at as usize % (file.len() + 1);
                let end = (at + bytes.len()).min(file.len());
                file[at..end].copy_from_slice(&bytes[..end - at]);
            }
            Harm::Head { at, byte } => {
                if let Some(place) = file.get_mut(usize::from(*at)) {
                    *place = *byte;
                }
            }
            Harm::Cut { at } => file.truncate(*at as usize % (file.len() + 1)),
            Harm::Grow { bytes } => file.extend_from_slice(&bytes[..bytes.len().min(8 << 10)]),
            Harm::Replace { bytes } => file.clone_from(bytes),
        }
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::write(dir.path().join("seawall.db"), &file).expect("written");
    if let Ok(beside) = Store::open_beside(dir.path()) {
        let _ = beside.keys();
    }
    if let Ok(mut store) = Store::open(dir.path()) {
        let _ = (store.keys(), store.revision(), store.calls_kept(), store.recent(10, &Filter::default()));
        let _ = store.totals(By::Day, &Filter::default());
        let accounts = store.accounts().unwrap_or_default();
        let _ = store.draw(&accounts);
        let _ = (store.prune_calls(0, None), store.close());
    }
});
