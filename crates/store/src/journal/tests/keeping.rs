//! What becomes of the files: tampering, cutting back, sweeping, full disks and torn logs.

use proptest::prelude::*;

use super::*;

#[test]
fn whatever_is_done_to_records_shows() {
    let tampers: [(&str, u64, &str); 8] = [
        ("UPDATE journal SET body = substr(body, 1, length(body) - 1) WHERE seq = 2", 2, "was changed"),
        ("DELETE FROM journal WHERE seq = 4", 4, "it is missing"),
        ("DELETE FROM journal WHERE seq > 6", 7, "so are all after it"),
        (
            "UPDATE journal SET seq = -1 WHERE seq = 3; UPDATE journal SET seq = 3 WHERE seq = 4;
          UPDATE journal SET seq = 4 WHERE seq = -1",
            3,
            "was changed",
        ),
        ("UPDATE journal SET at = at + 1 WHERE seq = 5", 5, "columns"),
        ("UPDATE journal SET epoch = 9 WHERE seq = 5", 5, "was changed"),
        ("UPDATE shards SET hash = zeroblob(32) WHERE shard = 0", 9, "another hash"),
        (
            "UPDATE shards SET seq = 8, hash = (SELECT hash FROM journal WHERE shard = 0 AND seq = 8) WHERE shard = 0",
            9,
            "after the last",
        ),
    ];
    for (sql, seq, what) in tampers {
        let mut journal = Journal::in_memory().expect("opens");
        let mut pen = Pen::open(&mut journal);
        three_turns(&mut journal, &mut pen);
        let whole = journal.reader().verify(0..=15).expect("read");
        assert_eq!((whole.records, whole.first_bad, whole.shards[0].seq), (9, None, 9));
        journal.reader.conn.execute_batch(sql).expect("tampered");
        let report = journal.reader().verify(0..=15).expect("read");
        let bad = report.first_bad.unwrap_or_else(|| panic!("{sql} shows"));
        assert_eq!((bad.shard, bad.seq), (0, seq), "{sql}: {}", bad.what);
        assert!(bad.what.contains(what), "{sql}: {}", bad.what);
    }
}

#[test]
fn an_export_has_every_record_and_no_content() {
    let mut journal = Journal::in_memory().expect("opens");
    let mut pen = Pen::open(&mut journal);
    three_turns(&mut journal, &mut pen);
    let export = |content| {
        let mut out = Vec::new();
        assert_eq!(journal.reader().export(0..=15, content, &mut out).expect("written"), 9);
        String::from_utf8(out).expect("text")
    };
    let bare = export(false);
    assert_eq!(bare.lines().count(), 9);
    bare.lines().for_each(json::tests::check);
    assert!(!bare.contains("find it") && !bare.contains("paid"), "{bare}");
    assert!(bare.contains("\"event\":{\"kind\":\"answered\",\"effect\":\"run-0100.1\""), "{bare}");
    assert!(export(true).contains("\"text\":\"find it\""));
    struct Deaf;
    impl std::io::Write for Deaf {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    assert!(matches!(journal.reader().export(0..=15, false, &mut Deaf), Err(Error::Failed { .. })));
}

#[test]
fn what_is_old_is_cut_and_the_chain_is_whole_from_there() {
    let mut journal = Journal::in_memory().expect("opens");
    let mut pen = Pen::open(&mut journal);
    let key = three_turns(&mut journal, &mut pen);
    let (live, done) = (RunKey::new(0, 3), RunKey::new(0, 4));
    let entries: Vec<_> = (100..110).map(|at| pen.mailed(at, "c/1", Payload::empty())).collect();
    let mut over = agent("gone/1", 3, None);
    over.standing = Standing::Done;
    let mut young = over.clone();
    (young.address, young.seq) = (address("young/1"), 15);
    let rows = [
        pen.row(),
        Row::Run(Box::new(run(live, "c/1", Some(effect(done, 1)), done, 5))),
        Row::Run(Box::new(ended(run(done, "c/1", None, done, 4), 6))),
        Row::State { run: key, key: "k".into(), value: Some(Payload::empty()) },
        Row::Agent(Box::new(over)),
        Row::Agent(Box::new(young)),
    ];
    journal.append(&entries, &rows).expect("appended");
    let retention = Retention { since: At(105), bytes_max: u64::MAX, floor: At(105) };
    let mut all = Pruned::default();
    loop {
        let pruned = journal.prune(&retention).expect("pruned");
        all.records += pruned.records;
        all.runs += pruned.runs;
        all.agents += pruned.agents;
        if !pruned.more {
            break;
        }
    }
    assert_eq!((all.records, all.runs, all.agents), (14, 2, 1));
    let reader = journal.reader();
    let report = reader.verify(0..=15).expect("read");
    assert_eq!((report.records, report.first_bad, report.shards[0].cut), (5, None, 14));
    assert!(reader.run(live).expect("read").is_some() && reader.run(done).expect("read").is_some());
    assert!(reader.run(key).expect("read").is_none() && reader.state(key).expect("read").is_empty());
    assert!(reader.agent(&address("young/1")).expect("read").is_some());
    assert_eq!(reader.state_at(key, 2).expect("read"), None, "its records are gone");
    let next = pen.mailed(111, "c/1", Payload::empty());
    journal.append(&[next], &[]).expect("goes on");
    // Over its budget it cuts what is younger, down to the floor.
    let tight = Retention { since: At(0), bytes_max: 1, floor: At(108) };
    while journal.prune(&tight).expect("pruned").more {}
    assert_eq!(journal.reader().verify(0..=15).expect("read").records, 3);
}

#[test]
fn blobs_are_kept_while_anything_names_them() {
    let folder = Folder::new();
    let mut journal = folder.open();
    let mut pen = Pen::open(&mut journal);
    let large = |byte: u8| vec![byte; limits::PAYLOAD_BYTES_INLINE as usize + 1];
    let put = |journal: &Journal, byte| journal.blobs().put(large(byte)).expect("put");
    assert_eq!(journal.blobs().put(vec![1; 10]).expect("put"), vec![1; 10].into(), "small ones stay");
    let named = [put(&journal, 1), put(&journal, 2), put(&journal, 3)];
    let forgotten = put(&journal, 9);
    assert_eq!(put(&journal, 1), named[0], "the same content is the same blob");
    let mail = pen.mailed(1, "a/1", named[0].clone());
    let mut holds = agent("a/1", 2, None);
    holds.inbox.push(Item::Answer {
        effect: EffectId::default(),
        tag: "t".into(),
        kind: "get".into(),
        twin: 3,
        answer: Answer::Done(named[1].clone()),
    });
    let key = RunKey::new(0, 1);
    let state = Row::State { run: key, key: "k".into(), value: Some(named[2].clone()) };
    journal.append(&[mail], &[pen.row(), Row::Agent(Box::new(holds)), state]).expect("appended");
    let sweep = |journal: &mut Journal| {
        let mut swept = 0;
        loop {
            let step = journal.sweep().expect("swept");
            swept += step.blobs;
            if step.done {
                return swept;
            }
        }
    };
    assert_eq!(journal.usage().expect("read").blob_bytes, 4 * large(0).len() as u64);
    assert_eq!(sweep(&mut journal), 0, "what was put lately may be on its way into a record");
    assert_eq!(sweep(&mut journal), 1);
    assert!(matches!(journal.blobs().open(&forgotten), Err(Error::Corrupt { .. })));
    for (payload, byte) in named.iter().zip(1..) {
        assert_eq!(*journal.blobs().open(payload).expect("there"), large(byte));
    }
    // What a row gives up while a sweep is under way, another may take.
    journal.sweep().expect("begun");
    let moved = Row::State { run: key, key: "moved".into(), value: Some(named[1].clone()) };
    let bare = Row::Agent(Box::new(agent("a/1", 3, None)));
    for _ in 0..4 {
        journal.sweep().expect("reads");
    }
    journal.append(&[], &[moved, bare]).expect("appended");
    assert_eq!(sweep(&mut journal), 0);
    journal.blobs().open(&named[1]).expect("still there");
    assert_eq!(journal.usage().expect("read").blob_bytes, 3 * large(0).len() as u64);

    let Payload::Blob { digest, .. } = &named[0] else { panic!("it is large") };
    let name = blobs::hex(digest);
    let path = folder.0.join("blobs").join(&name[..2]).join(&name);
    let mut harmed = large(1);
    harmed[7] ^= 1;
    fs::write(&path, harmed).expect("written");
    assert!(matches!(journal.blobs().open(&named[0]), Err(Error::Corrupt { .. })), "damage is noticed");
    fs::write(folder.0.join("blobs/new/half"), "x").expect("written");
    drop(journal);
    let journal = folder.open();
    assert!(!folder.0.join("blobs/new/half").exists(), "what a crash left half written is gone");
    assert_eq!(journal.usage().expect("read").blob_bytes, 3 * large(0).len() as u64, "counted anew");
    let over = vec![0; limits::PAYLOAD_BYTES_MAX as usize + 1];
    assert!(matches!(journal.blobs().put(over), Err(Error::TooLarge { .. })));
}

#[test]
fn a_full_disk_is_told_and_nothing_is_half_written() {
    let folder = Folder::new();
    let mut journal = folder.open();
    let mut pen = Pen::open(&mut journal);
    let pages: i64 =
        journal.reader.conn.pragma_query_value(None, "page_count", |row| row.get(0)).expect("counted");
    // Answers with the new bound.
    let bound = |journal: &Journal, pages: i64| {
        journal.reader.conn.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).expect("set");
    };
    bound(&journal, pages + 20);
    let mut written = 0;
    let full = loop {
        let seq = pen.seq;
        let body = Payload::from(vec![7; 3_000]);
        let (mail, row) =
            (pen.mailed(written, "a/1", body), Row::Agent(Box::new(agent("a/1", seq + 1, None))));
        match journal.append(&[mail], &[row]) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::Full), "{full:?}");
    assert!(written > 3);
    assert_eq!(journal.room(u64::MAX).expect("read"), Room::None);
    let row = journal.reader().agent(&address("a/1")).expect("read").expect("kept");
    assert_eq!((row.seq, journal.reader().shards().expect("read")[0].seq), (written + 1, written + 1));
    assert_eq!(journal.reader().verify(0..=0).expect("read").first_bad, None);
    // Cutting back makes room in the same file.
    let retention = Retention { since: At(written - 1), bytes_max: u64::MAX, floor: At(0) };
    bound(&journal, pages + 24);
    while journal.prune(&retention).expect("pruned").more {}
    pen.seq -= 1;
    let mail = pen.mailed(written, "a/1", Payload::empty());
    journal.append(&[mail], &[]).expect("there is room again");
    assert_eq!(journal.room(u64::MAX).expect("read"), Room::Plenty);
    let used = journal.usage().expect("read").journal_bytes;
    assert_eq!(journal.room(used).expect("read"), Room::None);
    assert_eq!(journal.room(used + used / 20).expect("read"), Room::Tight);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// A write-ahead log that a crash left torn: some first batches are there, whole, and
    /// none after them.
    #[test]
    fn a_torn_log_leaves_a_prefix_of_whole_batches(cut in 0.0..1.0_f64, sizes in prop::collection::vec(1..6_usize, 2..12)) {
        let folder = Folder::new();
        let mut journal = folder.open();
        let mut pen = Pen::open(&mut journal);
        let mut ends = vec![pen.seq];
        for (at, size) in sizes.iter().enumerate() {
            let entries: Vec<_> = (0..*size).map(|_| pen.mailed(at as u64, "a/1", Payload::text("x"))).collect();
            let row = Row::Agent(Box::new(agent("a/1", pen.seq, None)));
            journal.append(&entries, &[pen.row(), row]).expect("appended");
            ends.push(pen.seq);
        }
        // The files as they are in the middle of it all, the log cut short.
        let torn = Folder::new();
        fs::create_dir_all(&torn.0).expect("made");
        fs::copy(folder.0.join("journal.db"), torn.0.join("journal.db")).expect("copied");
        let log = fs::read(folder.0.join("journal.db-wal")).expect("read");
        let kept = (log.len() as f64 * cut) as usize;
        fs::write(torn.0.join("journal.db-wal"), &log[..kept]).expect("written");
        // Cut before the schema was whole it is an empty file, which opens as new.
        let mut journal = torn.open();
        let shards = journal.reader().shards().expect("read");
        let seq = shards.first().map_or(0, |shard| shard.seq);
        prop_assert!(seq == 0 || ends.contains(&seq), "{} of {:?}", seq, ends);
        let row = journal.reader().agent(&address("a/1")).expect("read");
        prop_assert_eq!(row.map_or(1.min(seq), |row| row.seq), seq, "rows are as of the last record");
        let report = journal.reader().verify(0..=15).expect("read");
        prop_assert_eq!((report.first_bad, report.records), (None, seq));
        let mut pen = Pen::open(&mut journal);
        let mail = pen.mailed(99, "a/1", Payload::empty());
        journal.append(&[mail], &[]).expect("goes on");
    }
}

#[test]
fn a_file_that_is_not_there_or_of_a_later_form_is_refused_with_words() {
    let folder = Folder::new();
    assert!(matches!(Reader::open(&folder.0), Err(Error::NotOpen { .. })));
    let mut journal = folder.open();
    let mut pen = Pen::open(&mut journal);
    let mail = pen.mailed(1, "a/1", Payload::empty());
    journal.append(&[mail], &[]).expect("appended");
    journal.reader.conn.execute_batch("UPDATE journal SET body = x'02' WHERE seq = 2").expect("tampered");
    let error = journal.reader().history(&Of::Shard(0), 0, 9).expect_err("a later form");
    assert!(matches!(error, Error::NewerForm { found: 2, known: 1, .. }), "{error}");
    journal.reader.conn.pragma_update(None, "user_version", 99).expect("set");
    drop(journal);
    assert!(matches!(Journal::open(&folder.0, Durability::Sync), Err(Error::Newer { found: 99, .. })));
    assert!(matches!(Reader::open(&folder.0), Err(Error::Newer { .. })));
    let arc: Arc<str> = "x".into();
    assert!(matches!(decode(arc.as_bytes()), Err(Error::NewerForm { .. })));
}
