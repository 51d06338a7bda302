//! How fast the journal is: `cargo run --release -p seawall-store --example journal [FOLDER]`.
//!
//! Group commits of several sizes, each record with the agent's and the run's row that it
//! changes, synced to the disk and not; then what recovery reads: 10,000 agents with a
//! run and an effect under way each; then the check of the chain. The folder (by default
//! in the system's folder for temporary files, which may be memory) should be on the disk
//! that is asked about.
#![expect(clippy::print_stdout, reason = "an example that prints a table")]
#![expect(clippy::disallowed_methods, reason = "it measures; the store itself reads no clock")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use seawall_model::durable::{
    AgentRow, Item, Pending, Progress, Row, RunRow, RunState, ShardRow, Stage, Standing, Wake,
};
use seawall_model::effect::{Allowance, Answer, Ruling, Spend, Verdict, Work};
use seawall_model::journal::{Entry, Event, Record};
use seawall_model::{Address, At, EffectClass, EffectId, Payload, RunKey};
use seawall_store::journal::{Durability, Journal};

const AGENTS: u64 = 10_000;
const SHARDS: u8 = 16;
/// Records written at each size of batch.
const RECORDS: u64 = 16_384;

/// Shards as their one owner knows them.
struct Pen {
    seqs: [u64; SHARDS as usize],
    epoch: u64,
}

impl Pen {
    fn entry(&mut self, shard: u8, record: Record) -> Entry {
        let seq = &mut self.seqs[usize::from(shard)];
        *seq += 1;
        Entry { shard, epoch: self.epoch, seq: *seq, record }
    }

    fn open(journal: &mut Journal) -> Result<Self, Box<dyn Error>> {
        let rows = journal.open_shards(SHARDS)?;
        let mut pen = Self { seqs: [0; SHARDS as usize], epoch: rows[0].epoch + 1 };
        for (seq, row) in pen.seqs.iter_mut().zip(&rows) {
            *seq = row.seq;
        }
        let opened = |shard| pen.entry(shard, Record { at: At(0), agent: None, event: Event::Opened });
        journal.append(&(0..SHARDS).map(opened).collect::<Vec<_>>(), &[])?;
        Ok(pen)
    }
}

fn address(number: u64) -> Address {
    Address::parse(&format!("acme/team-{}/researcher/{number}", number % 50)).expect("valid")
}

fn shard(number: u64) -> u8 {
    (number % u64::from(SHARDS)) as u8
}

fn agent(number: u64, seq: u64) -> AgentRow {
    let run = RunKey::new(shard(number), number + 1);
    let recipe = Payload::text("{\"recipe\":\"turn\"}");
    AgentRow {
        address: address(number),
        shard: shard(number),
        seq,
        changed: At(0),
        standing: Standing::Active,
        lasting: false,
        run: Some(run),
        queue: Vec::new(),
        inbox: vec![Item::Task { run }],
        pending: vec![Pending {
            id: EffectId { run, number: 1 },
            tag: "call_abc123".into(),
            work: Work::Model { model: "small".into(), recipe },
            class: EffectClass::Idempotent,
            ruling: Ruling { rule: "default".into(), verdict: Verdict::Allow },
            reserved: Spend::default(),
            twin: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            stage: Stage::Ready { after: At(0) },
            attempts: 0,
            asked: At(1_700_000_000_000_000),
            until: At(1_700_000_600_000_000),
            child: None,
            handed: Vec::new(),
            setback: None,
        }],
        wake: Wake::All,
        rests_until: At(0),
        expires: At::MAX,
        strikes: 0,
        progress: Progress::default(),
        seen: Vec::new(),
        topics: Vec::new(),
        why: None,
        ties: Vec::new(),
    }
}

fn run(number: u64) -> RunRow {
    let key = RunKey::new(shard(number), number + 1);
    RunRow {
        key,
        agent: address(number),
        parent: None,
        root: key,
        depth: 0,
        version: "3f9a".into(),
        task: Payload::text("Find out who pays for the harbour, and write a page about it."),
        allowance: Allowance::default(),
        used: Spend::default(),
        reserved: Spend::default(),
        state: RunState::Active,
        began: At(1_700_000_000_000_000 + number),
        ended: None,
        turns: 1,
        effects: 1,
        children: Vec::new(),
        restarts: Vec::new(),
        hop: 0,
        seq: 0,
        by: "laptop".into(),
        caller: None,
        fork: None,
    }
}

/// A group commit of `size` records of as many agents, from the `first` on.
fn batch(pen: &mut Pen, first: u64, size: u64) -> (Vec<Entry>, Vec<Row>) {
    let mut entries = Vec::new();
    let mut rows = Vec::new();
    for number in (first..first + size).map(|number| number % AGENTS) {
        let event = Event::Answered {
            effect: EffectId { run: RunKey::new(shard(number), number + 1), number: 1 },
            answer: Answer::Done(vec![b'x'; 200].into()),
            used: Spend::default(),
            by: None,
        };
        let record = Record { at: At(1_700_000_000_000_000), agent: Some(address(number)), event };
        let entry = pen.entry(shard(number), record);
        rows.push(Row::Agent(Box::new(agent(number, entry.seq))));
        rows.push(Row::Run(Box::new(run(number))));
        entries.push(entry);
    }
    for shard in 0..SHARDS {
        let seq = pen.seqs[usize::from(shard)];
        rows.push(Row::Shard(ShardRow { shard, epoch: pen.epoch, seq, ..ShardRow::default() }));
    }
    (entries, rows)
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1_000.0
}

fn commits(folder: &Path, durability: Durability) -> Result<(), Box<dyn Error>> {
    let mut journal = Journal::open(folder, durability)?;
    let mut pen = Pen::open(&mut journal)?;
    let mut first = 0;
    for size in [1, 16, 128, 512] {
        let rounds = (RECORDS / size).min(1_000);
        let mut took = Vec::new();
        for _ in 0..rounds {
            let (entries, rows) = batch(&mut pen, first, size);
            first += size;
            let began = Instant::now();
            journal.append(&entries, &rows)?;
            took.push(began.elapsed());
        }
        let total: Duration = took.iter().sum();
        took.sort_unstable();
        let at = |percent: usize| millis(took[(took.len() - 1) * percent / 100]);
        let rate = (size * rounds) as f64 / total.as_secs_f64();
        println!("{durability:?} {size:>8} {rate:>12.0} {:>9.2} {:>9.2} {:>9.2}", at(50), at(99), at(100));
    }
    journal.close()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let base = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = base.join(format!("seawall-journal-{}", std::process::id()));
    println!("     records    records/s    p50 ms    p99 ms    max ms");
    commits(&folder, Durability::Sync)?;
    commits(&folder, Durability::Relaxed)?;

    let journal = Journal::open(&folder, Durability::Sync)?;
    let began = Instant::now();
    let (mut agents, mut runs) = (0, 0);
    for shard in 0..SHARDS {
        let mut after = Some(0);
        while let Some(from) = after {
            let live = journal.reader().live(shard, from, 1_000, At::MAX)?;
            agents += live.agents.len();
            runs += live.runs.len();
            after = live.next;
        }
    }
    println!("\nrecovery: {agents} agents, {runs} runs in {:.0} ms", millis(began.elapsed()));
    let began = Instant::now();
    let report = journal.reader().verify(0..=SHARDS)?;
    println!(
        "check: {} records in {:.0} ms, {:?}",
        report.records,
        millis(began.elapsed()),
        report.first_bad
    );
    println!("on the disk: {:?}", journal.usage()?);
    journal.close()?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
