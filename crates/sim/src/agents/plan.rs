//! What a world of agents is made of: who is started when, what goes wrong, and what
//! people do. Every choice is drawn from one seed, within a kind of world that has a name.

use seawall_load::rng::Rng;
use seawall_model::{At, Millis};

use super::cast::STARTED;
use super::lie::Lie;
use crate::scenario::NEW_YEARS_EVE;

/// The kinds of worlds. `agents` draws one of the others by its seed.
pub const NAMES: &[&str] = &[
    "agents",
    "agents-calm",
    "agents-faults",
    "agents-crash",
    "agents-people",
    "agents-disk",
    "agents-storm",
    "agents-torn",
    "agents-full",
    "agents-slow",
    "agents-clock",
    "agents-hang",
    "agents-refusals",
    "agents-bomb",
    "agents-mail",
    "agents-reload",
    "agents-cut",
    "agents-drain",
    "agents-kill",
    "agents-fork",
    "agents-edit",
    "agents-ties",
    "agents-query",
];

/// What happens to a world at a time of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// The process dies with the next write under way.
    Tear,
    /// The disk is full for a while.
    Full,
    /// The clock is set forward.
    Ahead,
    /// The clock is set back.
    Back,
    /// Models refuse everybody for a while.
    Refusals,
    /// Hundreds of messages at once.
    Mails,
    /// Definitions change.
    Reload,
    /// Definitions change, and allow less.
    Cut,
    /// The process is told to end, and does.
    Drain,
    /// Somebody goes on from what a run was after a turn.
    Fork,
}

/// What goes wrong, in percent of all occasions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Tool calls that fail, one way or another.
    pub tools: u64,
    /// Model calls that are refused for want of room, hang or fail.
    pub models: u64,
    /// Answers that come although the call was aborted.
    pub crossing: u64,
    /// Writes that take a hundred times as long.
    pub slow_disk: u64,
    /// Reads that take a thousand times as long.
    pub slow_reads: u64,
    /// Model calls that hang until somebody gives them up.
    pub hangs: u64,
    /// Tool calls that answer at length, with rubbish, or never.
    pub bombs: u64,
    /// Approvals that are given with other arguments.
    pub edits: u64,
    /// Turns that cannot be taken when they are granted.
    pub deferrals: u64,
}

/// One world.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The kind of world.
    pub name: String,
    /// Decides everything.
    pub seed: u64,
    /// When it begins.
    pub begin: At,
    /// For how long runs are started, things go wrong and people meddle.
    pub length: Millis,
    /// Then everything that can end must end within this time.
    pub calm: Millis,
    /// Shards of the journal.
    pub shards: u8,
    /// Tenants, in order of size.
    pub tenants: u64,
    /// Runs started from outside.
    pub starts: u64,
    /// Only this type of agent; else all.
    pub only: Option<&'static str>,
    /// Else among these; where it is not everybody, each but `guard` is one agent.
    pub among: &'static [&'static str],
    /// What goes wrong.
    pub faults: Faults,
    /// Crashes at random times.
    pub crashes: u64,
    /// A crash around this commit, counted from 1: before the machine hears of it, or after.
    pub crash_at: Option<(u64, bool)>,
    /// Jumps of the clock.
    pub jumps: u64,
    /// Times at which the disk is full.
    pub full: u64,
    /// What else happens, and how often.
    pub blows: Vec<(Blow, u64)>,
    /// Do operators stop, cancel, release, redrive and reload?
    pub meddling: bool,
    /// A schedule of every minute.
    pub cron: bool,
    /// Runs that are not over, of all agents.
    pub runs_max: usize,
    /// Everybody starts at once, the first tenant a hundred times as much as each other.
    pub flood: bool,
    /// Turns, model calls and calls on each tool at once.
    pub places: (u32, u32, u32),
    /// After how long agents leave memory.
    pub suspend_after: Millis,
    /// Everything is compared at every commit; else now and then.
    pub thorough: bool,
    /// `Agents::check` after every so many steps.
    pub check_every: u64,
    /// What the machine is told falsely.
    pub lie: Option<Lie>,
}

/// A calm world of this name and seed.
#[must_use]
pub fn calm(name: &str, seed: u64) -> Plan {
    Plan {
        name: name.into(),
        seed,
        begin: NEW_YEARS_EVE,
        length: Millis::from_secs(60),
        calm: Millis::from_secs(4 * 3_600),
        shards: 4,
        tenants: 3,
        starts: 30,
        only: None,
        among: STARTED,
        faults: Faults::default(),
        crashes: 0,
        crash_at: None,
        jumps: 0,
        full: 0,
        blows: Vec::new(),
        meddling: false,
        cron: false,
        runs_max: 10_000,
        flood: false,
        places: (4, 4, 2),
        suspend_after: Millis(2_000),
        thorough: true,
        check_every: 1,
        lie: None,
    }
}

/// The world of this name and seed; `agents` is each of the others in its turn. `None` when there is no such name. `length` replaces
/// the time in which runs are started.
#[must_use]
pub fn invent(name: &str, seed: u64, length: Option<Millis>) -> Option<Plan> {
    if !NAMES.contains(&name) {
        return None;
    }
    let mut rng = Rng::branch(seed, 1);
    let name = if name == "agents" { NAMES[1 + (seed % (NAMES.len() as u64 - 1)) as usize] } else { name };
    let large = rng.chance(0.15);
    let mut plan = calm(name, seed);
    plan.starts = if large { 100 + rng.below(150) } else { 5 + rng.below(40) };
    plan.thorough = !large;
    plan.check_every = if large { 7 } else { 1 };
    plan.length = length.unwrap_or(Millis::from_secs(20 + rng.below(100)));
    plan.shards = [1, 2, 4, 16][rng.below(4) as usize];
    plan.tenants = 1 + rng.below(6);
    plan.places = (1 + rng.below(8) as u32, 1 + rng.below(8) as u32, 1 + rng.below(4) as u32);
    plan.suspend_after = Millis([1, 100, 2_000, 20_000][rng.below(4) as usize]);
    plan.cron = rng.chance(0.3);
    if rng.chance(0.2) {
        plan.runs_max = 3 + rng.below(20) as usize;
    }
    let (faults, crashes, people, disk) = match name {
        "agents-faults" => (true, false, false, false),
        "agents-crash" => (rng.chance(0.5), true, false, rng.chance(0.3)),
        "agents-people" => (rng.chance(0.3), false, true, false),
        "agents-disk" => (false, rng.chance(0.3), false, true),
        "agents-storm" => (true, true, true, true),
        _ => (false, false, false, false),
    };
    if faults {
        plan.faults.tools = 5 + rng.below(40);
        plan.faults.models = 5 + rng.below(30);
        plan.faults.crossing = rng.below(50);
        plan.faults.deferrals = 5;
        plan.jumps = rng.below(3);
    }
    if crashes {
        plan.crashes = 1 + rng.below(6);
    }
    if disk {
        plan.faults.slow_disk = rng.below(30);
        plan.faults.slow_reads = rng.below(20);
        plan.full = rng.below(3);
    }
    plan.meddling = people;
    trouble(&mut plan, &mut rng);
    Some(plan)
}

/// The one thing that goes wrong in worlds that are named for it, and all of them in a storm.
fn trouble(plan: &mut Plan, rng: &mut Rng) {
    let mut blow = |blow, most: u64| (blow, 2 + rng.below(most));
    let blows = match plan.name.as_str() {
        "agents-torn" => vec![blow(Blow::Tear, 8)],
        "agents-full" => vec![blow(Blow::Full, 4)],
        "agents-clock" => vec![blow(Blow::Ahead, 4), blow(Blow::Back, 4), (Blow::Tear, 1)],
        "agents-refusals" => vec![blow(Blow::Refusals, 3)],
        "agents-mail" => vec![blow(Blow::Mails, 4)],
        "agents-reload" => vec![blow(Blow::Reload, 12)],
        "agents-cut" => vec![blow(Blow::Cut, 3)],
        "agents-drain" => vec![blow(Blow::Drain, 4)],
        "agents-fork" => vec![blow(Blow::Fork, 12)],
        "agents-storm" => vec![
            blow(Blow::Tear, 2),
            blow(Blow::Back, 2),
            blow(Blow::Refusals, 1),
            blow(Blow::Reload, 2),
            blow(Blow::Cut, 1),
            blow(Blow::Drain, 1),
            blow(Blow::Fork, 3),
        ],
        _ => Vec::new(),
    };
    plan.blows = blows;
    match plan.name.as_str() {
        "agents-slow" => (plan.faults.slow_disk, plan.faults.slow_reads) = (60, 60),
        "agents-hang" => plan.faults.hangs = 40,
        "agents-bomb" => plan.faults.bombs = 60,
        // Who asks is seldom among all the others.
        "agents-edit" => (plan.faults.edits, plan.only) = (70, Some("asker")),
        "agents-storm" => {
            (plan.faults.hangs, plan.faults.bombs, plan.faults.edits) = (5, 5, 20);
        }
        "agents-mail" => plan.starts = plan.starts.min(40),
        // Those who watch others, and those whose tools can be asked whether it was done.
        "agents-ties" => {
            plan.among = &["guard", "guard", "faulty", "faulty", "chat", "poison"];
            (plan.starts, plan.tenants, plan.length) = (120, 1, Millis(60_000));
            plan.crashes = 2;
        }
        "agents-query" => {
            (plan.faults.tools, plan.only) = (60, Some("worker"));
            (plan.starts, plan.crashes) = (150, 3);
        }
        // Whoever spends what there is notices that it is less.
        "agents-cut" => plan.only = Some("spender"),
        "agents-kill" => {
            (plan.starts, plan.length, plan.tenants, plan.thorough) = (8, Millis(6_000), 1, true);
            plan.faults = Faults { tools: 30, models: 20, ..Faults::default() };
            plan.crash_at = Some((1 + rng.below(60), rng.chance(0.5)));
        }
        _ => {}
    }
}
