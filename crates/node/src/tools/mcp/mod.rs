//! MCP servers: each is kept connected by a task of its own, started again with growing
//! pauses when it ends, and called only while it is up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use seawall_model::limits::{TOOL_PAUSE_MS, TOOL_PAUSE_MS_MAX, TOOL_START_MS_MAX, TOOL_WAITING_MAX};
use seawall_model::{At, Millis};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::card::{Listed, ToolCard};
use super::outcome::{Call, Outcome, object};
use super::words::line;
use super::{ServerState, remaining};
use crate::clock;
use crate::config::tool::ServerConfig;
use crate::tasks::{Kind, Tasks};
use crate::upstream;

mod child;
mod lines;
mod pace;
mod session;
mod web;

use child::Words;
use session::{Caller, Event, Session};

/// A server that was up for so long begins with the shortest pause again when it ends.
const SOUND: Millis = Millis(10_000);

/// A list of tools is asked for once in so long, however often it is said to have changed.
const LIST_AGAIN: Duration = Duration::from_secs(1);

/// One MCP server, for as long as it is configured. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Link {
    desk: Arc<Desk>,
    stop: watch::Sender<bool>,
    keeper: std::sync::Mutex<Option<JoinHandle<()>>>,
}

/// What the keeper and the callers share.
#[derive(Debug)]
struct Desk {
    config: ServerConfig,
    /// The last list of tools; it stays while the server is being started again, so that an
    /// agent's tools do not come and go.
    cards: ArcSwap<Vec<ToolCard>>,
    phase: watch::Sender<Phase>,
    places: Semaphore,
    /// Places to wait for a place.
    waiting: Semaphore,
    starts: AtomicUsize,
    words: Words,
}

/// How it stands.
#[derive(Clone, Debug)]
enum Phase {
    /// Not yet reached for the first time.
    Starting,
    /// Calls may go out.
    Up(Caller),
    /// Not reached, why, and when it is tried again.
    Down(Arc<str>, At),
}

impl Link {
    /// Starts the task that keeps it connected.
    pub(super) fn start(config: ServerConfig, net: upstream::Options, tasks: &Tasks) -> Self {
        let desk = Arc::new(Desk {
            places: Semaphore::new(config.calls_max as usize),
            waiting: Semaphore::new(TOOL_WAITING_MAX),
            config,
            cards: ArcSwap::default(),
            phase: watch::Sender::new(Phase::Starting),
            starts: AtomicUsize::new(0),
            words: Words::default(),
        });
        let (stop, stopped) = watch::channel(false);
        let keeper = Keeper { desk: desk.clone(), net, tasks: tasks.clone(), stopped };
        let keeper = tasks.spawn(Kind::ToolServer, keeper.keep());
        Self { desk, stop, keeper: std::sync::Mutex::new(Some(keeper)) }
    }

    pub(super) fn config(&self) -> &ServerConfig {
        &self.desk.config
    }

    /// Its tools, once the first attempt to reach it is over.
    pub(super) async fn cards(&self) -> Arc<Vec<ToolCard>> {
        let mut phase = self.desk.phase.subscribe();
        // The sender is on the desk, which this holds.
        let _ = phase.wait_for(|phase| !matches!(phase, Phase::Starting)).await;
        self.desk.cards.load_full()
    }

    /// Its tools as they are known now.
    pub(super) fn known(&self) -> Arc<Vec<ToolCard>> {
        self.desk.cards.load_full()
    }

    /// Is the first attempt to reach it under way?
    pub(super) fn is_starting(&self) -> bool {
        matches!(*self.desk.phase.borrow(), Phase::Starting)
    }

    /// How it stands now.
    pub(super) fn state(&self) -> ServerState {
        let desk = &self.desk;
        let (up, why) = match &*desk.phase.borrow() {
            Phase::Starting => (false, None),
            Phase::Up(_) => (true, None),
            Phase::Down(why, _) => (false, Some(why.clone())),
        };
        ServerState {
            name: desk.config.name.clone(),
            up,
            why,
            tools: desk.cards.load().len(),
            starts: desk.starts.load(Ordering::Relaxed),
            calls: desk.config.calls_max as usize - desk.places.available_permits(),
            last_words: desk.words.text(),
        }
    }

    /// Calls one of its tools by its name there.
    pub(super) async fn call(&self, tool: &str, call: &Call) -> Outcome {
        let desk = &self.desk;
        let args = match object(&call.args) {
            Ok(args) => args,
            Err(refused) => return refused,
        };
        let limit = remaining(call.deadline, desk.config.timeout);
        let called = async {
            let caller = desk.caller().await?;
            let known = desk.cards.load().iter().any(|card| short(card) == tool);
            if !known {
                let server = &desk.config.name;
                return Err(Outcome::refused(format!(
                    "The tool server {server} has no tool named {}.",
                    line(tool)
                )));
            }
            Ok((desk.place().await?, caller))
        };
        // Until here nothing has been sent.
        let (_place, caller) = match tokio::time::timeout(Duration::from_millis(limit.0), called).await {
            Ok(Ok(granted)) => granted,
            Ok(Err(outcome)) => return outcome,
            Err(_) => return Outcome::unsent(format!("the tool server was not free within {} ms", limit.0)),
        };
        match remaining(call.deadline, limit) {
            Millis::ZERO => Outcome::unsent("there was no time left when the tool server was free"),
            limit => caller.call(tool, args, &call.key, limit).await,
        }
    }

    /// Ends it now; resolves when its process is gone.
    pub(super) async fn close(&self) {
        self.stop.send_replace(true);
        let keeper = self.keeper.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            let _ = keeper.await;
        }
    }
}

impl Desk {
    /// The caller of a server that is up; one that is starting for the first time is waited
    /// for, one that is down is not: the kernel has better to do than to wait.
    async fn caller(&self) -> Result<Caller, Outcome> {
        let mut phase = self.phase.subscribe();
        let phase = phase.wait_for(|phase| !matches!(phase, Phase::Starting)).await;
        match phase.as_deref() {
            Ok(Phase::Up(caller)) => Ok(caller.clone()),
            Ok(Phase::Down(why, again)) => {
                let wait = again.since(clock::now());
                Err(Outcome::unsent(format!("the tool server is down: {why}")).after(Some(wait)))
            }
            Ok(Phase::Starting) | Err(_) => Err(Outcome::unsent("the tool server is starting")),
        }
    }

    async fn place(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Outcome> {
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        let busy = |_| Outcome::unsent("too many calls wait for the tool server");
        let _waiting = self.waiting.try_acquire().map_err(busy)?;
        self.places.acquire().await.map_err(|_| Outcome::unsent("the tool server is closing"))
    }
}

/// Keeps one server connected.
struct Keeper {
    desk: Arc<Desk>,
    net: upstream::Options,
    tasks: Tasks,
    stopped: watch::Receiver<bool>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut pause = TOOL_PAUSE_MS;
        loop {
            let since = clock::now();
            let Some(why) = self.connect().await else { break };
            if clock::now().since(since) > SOUND {
                pause = TOOL_PAUSE_MS;
            }
            self.down(&why, Millis(pause));
            tokio::select! {
                () = stopped(&mut self.stopped) => break,
                () = tokio::time::sleep(Duration::from_millis(pause)) => {}
            }
            pause = (pause * 2).min(TOOL_PAUSE_MS_MAX);
        }
        self.desk.phase.send_replace(Phase::Down("it was ended".into(), At::MAX));
    }

    /// One connection from its beginning to its end: why it ended, or `None` if it was to.
    async fn connect(&mut self) -> Option<String> {
        self.desk.starts.fetch_add(1, Ordering::Relaxed);
        let opening = async {
            let session = Session::open(&self.desk.config, &self.net, &self.desk.words, &self.tasks).await?;
            let cards =
                session.caller().list().await.map_err(|why| format!("it does not list its tools: {why}"));
            Ok((session, cards?))
        };
        let opened = tokio::select! {
            opened = tokio::time::timeout(Duration::from_millis(TOOL_START_MS_MAX), opening) => opened,
            () = stopped(&mut self.stopped) => return None,
        };
        let (mut session, listed) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(why)) => return Some(why),
            Err(_) => return Some(format!("it was not ready within {TOOL_START_MS_MAX} ms")),
        };
        self.publish(listed);
        self.up(session.caller());
        loop {
            let event = tokio::select! {
                event = session.next() => event,
                () = stopped(&mut self.stopped) => {
                    session.close().await;
                    return None;
                }
            };
            match event {
                Event::Changed => {
                    self.list(&session.caller()).await;
                    tokio::select! {
                        () = tokio::time::sleep(LIST_AGAIN) => {}
                        () = stopped(&mut self.stopped) => {}
                    }
                }
                Event::Ended(why) => {
                    // Callers must not meet the closed connection while its process ends.
                    self.down(&why, Millis(TOOL_PAUSE_MS));
                    session.close().await;
                    return Some(why);
                }
            }
        }
    }

    async fn list(&self, caller: &Caller) {
        let limit = Duration::from_millis(TOOL_START_MS_MAX);
        let why = match tokio::time::timeout(limit, caller.list()).await {
            Ok(Ok(listed)) => return self.publish(listed),
            Ok(Err(why)) => why,
            Err(_) => "no answer".to_owned(),
        };
        tracing::warn!(server = &*self.desk.config.name, why, "the tool server's list could not be renewed");
    }

    fn publish(&self, listed: Vec<Listed>) {
        let config = &self.desk.config;
        let mut cards: Vec<ToolCard> = Vec::with_capacity(listed.len());
        for tool in listed {
            let name = line(&tool.name);
            let rule = config.tools.get(&*tool.name);
            match tool.card(&config.name, rule) {
                Ok(card) if cards.iter().any(|known| known.name == card.name) => {
                    tracing::warn!(
                        server = &*config.name,
                        tool = name,
                        "a tool is listed twice: the first counts"
                    );
                }
                Ok(card) => cards.push(card),
                Err(why) => tracing::warn!(server = &*config.name, tool = name, why, "a tool is left out"),
            }
        }
        for name in config.tools.keys().filter(|name| !cards.iter().any(|card| short(card) == &***name)) {
            tracing::warn!(
                server = &*config.name,
                tool = &**name,
                "the config has a rule for a tool that is not there"
            );
        }
        // The order is part of every prompt, and servers need not keep theirs.
        cards.sort_by(|a, b| a.name.cmp(&b.name));
        self.desk.cards.store(Arc::new(cards));
    }

    fn up(&self, caller: Caller) {
        let desk = &self.desk;
        let tools = desk.cards.load().len();
        tracing::info!(server = &*desk.config.name, tools, "the tool server is up");
        desk.phase.send_replace(Phase::Up(caller));
    }

    fn down(&self, why: &str, pause: Millis) {
        let again = clock::now().plus(pause);
        let was = self.desk.phase.send_replace(Phase::Down(why.into(), again));
        // Told when it begins, and when the cause is another.
        let told = matches!(&was, Phase::Down(before, _) if **before == *why);
        if !told {
            tracing::warn!(server = &*self.desk.config.name, why, "the tool server is down");
        }
    }
}

/// A tool's name at its server.
fn short(card: &ToolCard) -> &str {
    card.name.split_once('.').map_or("", |(_, name)| name)
}

/// Resolves when the link is closed or gone.
async fn stopped(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}
