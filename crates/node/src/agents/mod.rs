//! Durable agents on this node: the desk that the kernel's decisions pass through, the
//! scribe that owns the journal, the workers that take turns, and the doors by which
//! people and programs reach agents.

pub mod define;
pub mod template;
pub mod schema;
pub mod notes;
pub mod handler;
pub mod library;
pub mod census;
pub mod desk;
pub mod scribe;
pub mod room;
pub mod states;
pub mod worker;
pub mod perform;
pub mod stream;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use seawall_kernel::agents::effect::Notice;
use seawall_kernel::agents::{Agents, Input, Rules, Shard, shard_of};
use seawall_model::durable::Standing;
use seawall_model::{Millis, limits};
use seawall_store::Error;
use seawall_store::journal::{Blobs, Durability, Journal, Reader};
use tokio::sync::{Semaphore, broadcast};

use crate::app::App;
use crate::clock;
use crate::config::Config;
use crate::config::agents::AgentsConfig;
use crate::process;
use crate::tasks::{Kind, Tasks};

use census::{Census, Told};
use desk::{Desk, Look};
use handler::Tool;
use library::Library;
use room::DiskRoom;
use scribe::{Events, Kept, Scribe};
use states::States;
use worker::Worker;

/// Agents that the journal gives at once when it is opened.
const PAGE: usize = 1_000;

/// Threads that answer questions to the journal, beside those that take turns: one that
/// counts or exports does not hold up a glance at one run.
const READERS: usize = 2;

/// A state that no turn has used for so long is let go of at the latest; after
/// `agents.suspend_after` if that is shorter. What a model that thinks for longer costs is
/// one read.
const STATE_UNUSED: Millis = Millis(10_000);

/// Everything that runs agents.
#[derive(Debug)]
pub struct Runtime {
    /// The kernel's agents.
    pub desk: Arc<Desk>,
    /// Definitions.
    pub library: Arc<Library>,
    /// Records as they become durable.
    pub events: Events,
    /// What runs say while they work, to whoever listens.
    pub talks: Arc<stream::Talks>,
    /// States of runs that were at work lately.
    pub states: Arc<States>,
    /// Where large payloads lie.
    pub blobs: Blobs,
    /// How much more may be put there.
    pub room: DiskRoom,
    /// Is the journal being exported? One at a time: it occupies a worker.
    pub exporting: AtomicBool,
    /// What operators were told of, for metrics.
    pub told: Arc<Told>,
    /// How many agents there are, suspended ones included, as of lately.
    pub census: Mutex<Census>,
    /// When a record counts as durable: as the journal was opened, whatever a reload says.
    pub durability: Durability,
    kept: Arc<Mutex<Kept>>,
    questions: Arc<Semaphore>,
    edits: Mutex<()>,
    data: PathBuf,
    scribe: OnceLock<std::thread::JoinHandle<()>>,
}

/// What was found when the runtime was opened, for a line in the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Types of agents.
    pub kinds: usize,
    /// Agents that were brought into memory: those with work, and their kin.
    pub agents: usize,
    /// Runs that are not over.
    pub runs: usize,
}

impl Runtime {
    /// Opens the journal in the data folder, reads the definitions, and goes on with
    /// whatever was under way. Agents take turns once [`Runtime::employ`] has been called.
    ///
    /// # Errors
    /// In words: journal or definitions cannot be read.
    pub fn open(whole: &Config, tasks: &Tasks) -> Result<(Arc<Self>, Found), String> {
        let (config, data) = (&whole.agents, whole.data.as_path());
        let mut journal = Journal::open(data, config.durability).map_err(in_words)?;
        let library = Arc::new(Library::new(data.join("definitions")));
        let gone = read_definitions(&library, &config.folder)?;
        tell_gone(&gone, journal.reader());
        let rows = journal.open_shards(limits::SHARDS).map_err(in_words)?;
        let mut shards: Vec<Shard> = rows.into_iter().map(|row| Shard { row, ..Shard::default() }).collect();
        share(&mut shards, journal.reader()).map_err(in_words)?;
        let live = live(journal.reader(), shards.len()).map_err(in_words)?;
        let runs_alive = journal.reader().runs_alive().map_err(in_words)?;
        // Nobody takes a turn or asks a model before the tools are known ([`keep_house`]).
        let closed = Rules { turns_max: 0, models_max: 0, ..rules(whole, &library) };
        let lasting = journal.reader().lasting().map_err(in_words)?;
        let mut agents = Agents::open(clock::wall(clock::now()), closed, shards, runs_alive);
        agents.know(lasting);
        let found = Found {
            kinds: library.newest().len(),
            agents: live.iter().map(|(agents, _)| agents.len()).sum(),
            runs: runs_alive,
        };
        let told = Arc::new(Told::default());
        let counts = told.clone();
        let desk = Desk::new(
            agents,
            Box::new(move |notice| {
                counts.count(notice);
                tell_operators(notice);
            }),
        );
        let (events, _) = broadcast::channel(limits::EVENTS_LAG_MAX);
        let blobs = journal.blobs().clone();
        let kept = Arc::new(Mutex::new(kept(config)));
        let room = DiskRoom::new(blobs.clone(), kept.clone());
        let scribe =
            Scribe::new(journal, data.to_owned(), desk.clone(), events.clone(), kept.clone(), room.clone());
        let thread = tasks.thread(Kind::Scribe, move || process::vital_work("scribe", || scribe.work()));
        let thread = thread.map_err(|why| format!("cannot start the journal's thread: {why}"))?;
        for (agents, runs) in live {
            desk.restore(agents, runs);
        }
        let scribe = OnceLock::from(thread);
        let runtime = Self {
            desk,
            library,
            events,
            talks: Arc::default(),
            states: Arc::new(States::new(limits::STATES_BYTES_MAX)),
            blobs,
            room,
            exporting: AtomicBool::new(false),
            told,
            census: Mutex::default(),
            durability: config.durability,
            kept,
            questions: Arc::new(Semaphore::new(limits::JOURNAL_QUESTIONS_MAX)),
            edits: Mutex::default(),
            data: data.to_owned(),
            scribe,
        };
        Ok((Arc::new(runtime), found))
    }

    /// Starts the workers.
    ///
    /// # Errors
    /// In words: the system has no threads to give, or the journal cannot be read beside
    /// its owner.
    pub fn employ(&self, app: &Arc<App>, workers: usize) -> Result<(), String> {
        for _ in 0..workers {
            let worker = Worker {
                desk: self.desk.clone(),
                reader: Reader::open(&self.data).map_err(in_words)?,
                blobs: self.blobs.clone(),
                library: self.library.clone(),
                states: self.states.clone(),
                app: app.clone(),
            };
            let runtime = tokio::runtime::Handle::current();
            let work = move || {
                // Effects are tasks: whoever begins them must be known to the runtime.
                let _entered = runtime.enter();
                process::vital_work("worker", || worker.work());
            };
            app.tasks.thread(Kind::Worker, work).map_err(|why| format!("cannot start a worker: {why}"))?;
        }
        for _ in 0..READERS {
            let (desk, reader) = (self.desk.clone(), Reader::open(&self.data).map_err(in_words)?);
            let read = move || {
                while let Some(look) = desk.look_up() {
                    (look.0)(&reader);
                }
            };
            let work = move || process::vital_work("reader", read);
            app.tasks.thread(Kind::Worker, work).map_err(|why| format!("cannot start a reader: {why}"))?;
        }
        app.tasks.spawn(Kind::Timer, process::vital("agents' timer", self.desk.clone().run_timer()));
        app.tasks.spawn(Kind::Operator, keep_house(app.clone(), self.library.clone()));
        app.tasks.spawn(Kind::Pulse, census::keep(app.clone()));
        Ok(())
    }

    /// Reads definitions and rules anew. A file that cannot be read leaves its own type as it
    /// was, and is told.
    ///
    /// # Errors
    /// In words: the folder cannot be read, or nothing can be kept.
    pub fn reload(&self, config: &Config) -> Result<(), String> {
        let gone = read_definitions(&self.library, &config.agents.folder)?;
        self.configure(config);
        if !gone.is_empty() {
            Reader::open(&self.data).map_or_else(|_| (), |reader| tell_gone(&gone, &reader));
        }
        Ok(())
    }

    /// Tells the kernel of the definitions and rules in force, and the scribe of how much
    /// of the past is kept.
    pub fn configure(&self, config: &Config) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept(&config.agents);
        self.desk.tell(Input::Configure(Box::new(rules(config, &self.library))));
    }

    /// Writes a type's definition into the folder, or removes it, and puts that in force.
    /// What cannot be in force leaves everything as it was. Waits for the disk.
    ///
    /// # Errors
    /// In words.
    pub fn define(&self, config: &Config, kind: &str, text: Option<&str>) -> Result<(), String> {
        let _alone = self.edits.lock().unwrap_or_else(PoisonError::into_inner);
        let undo = Library::write(&config.agents.folder, kind, text)?;
        let written = undo.file();
        let Err(why) = self.reload(config).and_then(|()| self.is_taken(&written, kind, text.is_none()))
        else {
            return Ok(());
        };
        Err(match undo.undo().and_then(|()| self.reload(config)) {
            Ok(()) => why,
            Err(also) => format!("{why}\n{also}"),
        })
    }

    /// Is what was written into this file in force, or is the type gone that was removed?
    fn is_taken(&self, file: &str, kind: &str, removed: bool) -> Result<(), String> {
        let troubles = self.library.troubles();
        if let Some(trouble) = troubles.iter().find(|trouble| trouble.file == file) {
            let lines = trouble.problems.iter().map(|problem| format!("{file}: {problem}"));
            return Err(lines.collect::<Vec<_>>().join("\n"));
        }
        if removed && self.library.of(kind).is_some() {
            let held = troubles.iter().find(|trouble| trouble.kind == kind);
            let file = held.map_or("another file", |trouble| &trouble.file);
            return Err(format!("{file} defines it and cannot be read: mend that file, or remove it"));
        }
        Ok(())
    }

    /// Reads from the journal on a thread that does nothing else, where waiting for the disk
    /// is no harm.
    ///
    /// # Errors
    /// [`Error::Busy`] if as many questions wait as may; else what the journal says.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = self.questions.clone().try_acquire_owned().map_err(|_| Error::Busy)?;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let look = Look(Box::new(move |reader| {
            // Whoever has left does not wait any more: nothing is read for them.
            if !sender.is_closed() {
                drop(sender.send(read(reader)));
            }
            drop(permit);
        }));
        self.desk.question(look);
        receiver.await.unwrap_or_else(|_| Err(Error::Busy))
    }

    /// How agents stand as a whole, for the operations API: promises and figures, no names.
    #[must_use]
    pub fn state(&self) -> serde_json::Value {
        let (view, kept) = (self.desk.view(), *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        let away = self.census.lock().unwrap_or_else(PoisonError::into_inner).away.clone();
        serde_json::json!({
            "durability": durability_word(self.durability),
            "runs_live": view.runs_live,
            "undurable": view.undurable,
            "letters": view.letters,
            "halts": self.desk.halts().len(),
            "states": view.states,
            "waits": away.with(&view.needs).0,
            "disk_bytes": self.room.figures().0,
            "disk_bytes_max": kept.bytes_max,
            "retention_ms": kept.span.0,
            "problems": self.problems(true),
        })
    }

    /// Files of definitions that are not in force as they are; in full, with what is wrong,
    /// for those who may read definitions.
    #[must_use]
    pub fn problems(&self, full: bool) -> serde_json::Value {
        let one = |trouble: library::Trouble| {
            let mut said = serde_json::json!({
                "type": trouble.kind, "file": trouble.file, "version": trouble.version.as_deref(),
                "outcome": trouble.outcome(),
            });
            if full {
                let lines = trouble.problems.iter().map(ToString::to_string);
                said["what"] = lines.collect::<Vec<_>>().into();
            }
            said
        };
        self.library.troubles().into_iter().map(one).collect()
    }

    /// The scribe has written everything and gone home.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.scribe.get().is_none_or(std::thread::JoinHandle::is_finished)
    }
}

/// A word for when a record counts as durable, as the config has it.
#[must_use]
pub const fn durability_word(durability: Durability) -> &'static str {
    match durability {
        Durability::Sync => "sync",
        Durability::Relaxed => "relaxed",
    }
}

/// How much of the past is kept.
fn kept(config: &AgentsConfig) -> Kept {
    Kept { bytes_max: config.disk_bytes_max, span: config.retention }
}

/// Answers with the types that are not in force any more.
fn read_definitions(library: &Library, folder: &Path) -> Result<Vec<Arc<str>>, String> {
    if library.has_lost(folder) {
        return Err(format!(
            "{}: the folder is not there any more; make it again, with the definitions that are still wanted",
            folder.display()
        ));
    }
    let (reading, files) = Library::read(folder)?;
    for (file, warning) in &reading.warnings {
        tracing::warn!("{file}: {warning}");
    }
    let shelved = library.shelve(reading, &files)?;
    for trouble in &shelved.troubles {
        let path = folder.join(&trouble.file);
        for problem in &trouble.problems {
            tracing::error!("{}: {problem}", path.display());
        }
        tracing::error!("{}: {}; `seawall check` tells more", path.display(), trouble.outcome());
    }
    Ok(shelved.gone)
}

/// Says who goes on without a definition, and so without tools: nobody knows any more what
/// they may not do.
fn tell_gone(gone: &[Arc<str>], reader: &Reader) {
    let Ok(standings) = reader.standings(None) else { return };
    for kind in gone {
        let at_work =
            |(of, standing, _): &&(String, Standing, u64)| **kind == **of && *standing == Standing::Active;
        let agents: u64 = standings.iter().filter(at_work).map(|(_, _, count)| count).sum();
        if agents == 0 {
            tracing::info!("type {kind} is gone: nobody of it is at work");
        } else {
            tracing::warn!(
                "type {kind} is gone: runs under way of {agents} agents go on without tools until its definition is back"
            );
        }
    }
}

fn rules(config: &Config, library: &Library) -> Rules {
    let roots = config.tenants.iter().filter(|tenant| !tenant.rule.prefix.contains('/'));
    let weights = roots.map(|tenant| (tenant.rule.prefix.clone(), tenant.rule.weight)).collect();
    // A call that the server would let wait waits here, where its turn and its cause are known.
    let places = |server: &crate::config::tool::ServerConfig| {
        (server.name.clone(), server.calls_max.min(config.agents.tool_calls_max))
    };
    let tools = config.tools.servers.iter().map(places).collect();
    let config = &config.agents;
    Rules {
        weights,
        kinds: library.kinds(),
        gate: config.permissions.clone(),
        turns_max: config.turns_max,
        models_max: config.models_max,
        tool_max: config.tool_calls_max,
        tools,
        runs_max: config.runs_max,
        agents_max: config.agents_max,
        tenant_agents_max: config.tenant_agents_max,
        suspend_after: config.suspend_after,
        tries_max: config.tries_max,
        pause: config.pause,
        pause_max: config.pause_max.max(config.pause),
        patience: config.patience,
        seed: u64::from(std::process::id()),
        ..Rules::default()
    }
}

/// Puts what a tenant's agents share into its shard.
fn share(shards: &mut [Shard], reader: &Reader) -> Result<(), Error> {
    let count = shards.len();
    for row in reader.leases(None)? {
        let name = (row.tenant.clone(), row.resource.clone());
        shards[shard_of(&row.tenant, count)].leases.insert(name, row);
    }
    for row in reader.topics(None)? {
        let name = (row.tenant.clone(), row.topic.clone());
        shards[shard_of(&row.tenant, count)].topics.insert(name, row);
    }
    for row in reader.schedules()? {
        shards[shard_of(&row.agent.tenant, count)].schedules.insert(row.agent.clone(), row);
    }
    for (shard, letter) in reader.letters(None)? {
        if let Some(shard) = shards.get_mut(usize::from(shard)) {
            shard.letters.insert(letter.number, letter);
        }
    }
    Ok(())
}

type Rows = (Vec<seawall_model::durable::AgentRow>, Vec<seawall_model::durable::RunRow>);

/// Agents that have work and their runs, shard by shard: a tree is never split.
fn live(reader: &Reader, shards: usize) -> Result<Vec<Rows>, Error> {
    let now = clock::wall(clock::now());
    let mut all = Vec::with_capacity(shards);
    for shard in 0..u8::try_from(shards).unwrap_or(u8::MAX) {
        let mut rows = Rows::default();
        let mut known = BTreeSet::new();
        let mut after = Some(0);
        while let Some(from) = after {
            let page = reader.live(shard, from, PAGE, now)?;
            rows.0.extend(page.agents);
            rows.1.extend(page.runs.into_iter().filter(|run| known.insert(run.key)));
            after = page.next;
        }
        all.push(rows);
    }
    Ok(all)
}

/// What operators should know of, in the log. No content.
fn tell_operators(notice: &Notice) {
    match notice {
        Notice::Rung { address, rung, offence, why } => {
            tracing::warn!(agent = %address, rung = rung.as_str(), offence, %why, "an agent makes no progress");
        }
        Notice::Quarantined { address, why } => {
            tracing::error!(agent = %address, %why, "an agent was taken out of service: `seawall agent release`");
        }
        Notice::Doubt { effect, address } => {
            tracing::error!(%effect, agent = %address, "nobody knows whether an effect was done: `seawall inbox`");
        }
        Notice::Asked { effect, address } => {
            tracing::info!(%effect, agent = %address, "an agent asks for approval: `seawall inbox`");
        }
        Notice::Letter { to, why } => {
            tracing::warn!(%to, why = why.as_str(), "a message could not be delivered: `seawall letters`");
        }
    }
}

/// How often the reconciler looks: it holds the desk for some milliseconds with 10,000
/// agents in memory.
const RECONCILE_EVERY: u32 = 60;

/// Tool servers come and go: the kits of agents follow. Once a minute the books are checked:
/// does anything run, wait or reserve without a reason?
async fn keep_house(app: Arc<App>, library: Arc<Library>) {
    // To a model, a tool that is not there yet does not exist: whoever went on at once after
    // a restart would do without. Agents of a server that takes longer wait for it; others
    // do not.
    let patience = std::time::Duration::from_millis(app.live.load().config.agents.tools_wait.0);
    if tokio::time::timeout(patience, app.tools.started()).await.is_err() {
        tracing::warn!("a tool server cannot be reached yet: agents that use it wait");
    }
    stock(&app, &library);
    if let Some(agents) = &app.agents {
        agents.configure(&app.live.load().config);
    }
    let mut look = tokio::time::interval(std::time::Duration::from_secs(1));
    let mut rounds = 0_u32;
    loop {
        look.tick().await;
        rounds = rounds.wrapping_add(1);
        if let Some(agents) = app.agents.as_ref() {
            let unused = app.live.load().config.agents.suspend_after.min(STATE_UNUSED);
            agents.states.let_go(clock::now(), unused);
        }
        if let Some(agents) = app.agents.as_ref().filter(|_| rounds.is_multiple_of(RECONCILE_EVERY)) {
            agents.desk.forget_who_left();
            if let Err(what) = agents.desk.check() {
                tracing::error!(%what, "the books of agents do not balance: please report this");
            }
        }
        stock(&app, &library);
    }
}

/// Tells the library which tools there are.
fn stock(app: &App, library: &Library) {
    // Asked first: one that comes up between the two is looked at again, not missed.
    let coming = app.tools.starting();
    let tools = app.tools.known().into_iter().map(|card| Tool {
        name: card.name,
        about: card.about,
        schema: card.schema,
        class: card.class,
        undo: card.undo,
        query: card.query,
    });
    library.stock(tools.collect(), coming);
}

/// This installation's name, made at its first start: what idempotency keys begin with.
///
/// # Errors
/// In words: it cannot be kept.
#[expect(clippy::disallowed_methods, reason = "at start, before anything is served")]
pub fn installation(data: &Path) -> Result<Arc<str>, String> {
    let path = data.join("installation");
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => return Ok(name.trim().into()),
        // A power cut may have left nothing, or no text.
        Ok(_) => {}
        Err(why) if matches!(why.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => {}
        // Another name would make every receiver take a call that it knows for a new one.
        Err(why) => return Err(format!("{}: {why}", path.display())),
    }
    // What is told now must be what is read later: receivers know a call again by it.
    let name = &uuid::Uuid::new_v4().simple().to_string()[..16];
    library::write_durably(&path, name)?;
    Ok(name.into())
}

#[expect(clippy::needless_pass_by_value, reason = "it is the last that is seen of it")]
fn in_words(why: Error) -> String {
    why.to_string()
}
