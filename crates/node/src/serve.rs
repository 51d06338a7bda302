//! `seawall serve`: puts the rooms together, serves, and leaves in good order.

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use seawall_kernel::{Input, Kernel, Plan};
use seawall_model::{EngineKind, ReplicaId, limits};
use seawall_store::Store;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::agents::{self, Runtime};
use crate::app::{App, Live, Phase};
use crate::clock;
use crate::config::{Config, EngineConfig, Flags, Loaded, LogConfig, LogFormat, Url};
use crate::discover;
use crate::disk::{Disk, News};
use crate::engine;
use crate::gateway::trace::Traces;
use crate::gateway::upload::Uploads;
use crate::keys::KeyTable;
use crate::log::AccessLog;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::operator::{self, Operator};
use crate::process;
use crate::reach::Reach;
use crate::scout;
use crate::seat::{Errand, Seat};
use crate::server;
use crate::tasks::{Kind, Tasks};
use crate::tls::Certificate;
use crate::tools::Toolbox;
use crate::upstream;

/// Threads that take agents' turns: they mostly wait for the disk.
const WORKERS: usize = 2;

/// Why `serve` did not start: the process's exit code and the words for a person.
#[derive(Debug)]
pub struct Refused {
    /// From `sysexits.h`: 64 usage, 69 unavailable, 73 can't create, 74 I/O.
    pub exit: u8,
    /// What, why and what to do.
    pub words: String,
}

fn refused(exit: u8, words: impl Into<String>) -> Refused {
    Refused { exit, words: words.into() }
}

/// `seawall serve`: serves until asked to end, and answers with the exit code.
#[must_use]
pub fn run(loaded: Loaded, json: bool) -> i32 {
    let Loaded { mut config, warnings, flags } = loaded;
    if json {
        config.log.format = LogFormat::Json;
    }
    start_log(config.log);
    for warning in &warnings {
        tracing::warn!("config: {warning}");
    }
    let metrics = Arc::new(Metrics::new());
    exit(on_runtime(&metrics.clone(), serve(config, flags, metrics)))
}

/// `seawall sim`: the simulated engine alone, until asked to end.
#[must_use]
pub fn sim(address: SocketAddr, options: engine::Options, json: bool) -> i32 {
    let format = if json { LogFormat::Json } else { LogFormat::Text };
    start_log(LogConfig { format, ..LogConfig::default() });
    let serving = async move {
        let listener = server::bind(address).await.map_err(|why| refused(69, why))?;
        let address = listener.local_addr().map_err(|why| refused(69, why.to_string()))?;
        say_listening(format, "http", address);
        let served = engine::serve(listener, options, Tasks::default(), operator::asked_to_end()).await;
        served.map_err(|why| refused(64, why.to_string()))
    };
    exit(on_runtime(&Arc::new(Metrics::new()), serving))
}

fn exit(served: Result<(), Refused>) -> i32 {
    match served {
        Ok(()) => 0,
        Err(refused) => {
            tracing::error!("{}", refused.words);
            i32::from(refused.exit)
        }
    }
}

fn on_runtime(
    metrics: &Arc<Metrics>,
    serving: impl Future<Output = Result<(), Refused>>,
) -> Result<(), Refused> {
    let runtime = runtime(metrics).map_err(|why| refused(70, format!("cannot start the runtime: {why}")))?;
    let served = runtime.block_on(serving);
    // Whatever still runs has had its time.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

/// Log lines go to standard error; standard output belongs to the access log.
fn start_log(log: LogConfig) {
    // The MCP SDK logs whole messages, which are content (I11).
    let filter = format!("{0},hyper=warn,rustls=warn,rmcp=off", log.level.as_str());
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let builder = builder.with_ansi(std::io::stderr().is_terminal());
    // A second start in one process (tests) keeps the first log.
    let _ = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.try_init(),
    };
}

/// A worker per processor, each timing how long it runs without a pause: the histogram
/// that shows blocking code.
fn runtime(metrics: &Arc<Metrics>) -> std::io::Result<tokio::runtime::Runtime> {
    thread_local! {
        static AWAKE: std::cell::Cell<Option<tokio::time::Instant>> = const { std::cell::Cell::new(None) };
    }
    let metrics = metrics.clone();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_unpark(|| AWAKE.set(Some(tokio::time::Instant::now())))
        .on_thread_park(move || {
            if let Some(since) = AWAKE.take() {
                metrics.service.stalls.observe(since.elapsed().as_secs_f64());
            }
        })
        .build()
}

async fn serve(config: Config, flags: Flags, metrics: Arc<Metrics>) -> Result<(), Refused> {
    let tasks = Tasks::default();
    let store = Store::open(&config.data).map_err(|why| refused(73, why.to_string()))?;
    if store.recovered() > 0 {
        tracing::warn!(
            accounts = store.recovered(),
            "the last run did not stop cleanly: its budget slices count as spent"
        );
    }
    let keys = store.keys().map_err(|why| refused(74, why.to_string()))?;
    let keys = Arc::new(ArcSwap::from_pointee(KeyTable::new(keys)));
    check_exposure(&config, &keys.load())?;
    let bad_tls = |why| refused(64, why);
    let certificate = config.tls.as_ref().map(Certificate::read).transpose().map_err(bad_tls)?;
    let tls = certificate.as_ref().map(Certificate::acceptor).transpose().map_err(bad_tls)?;
    let listener = server::bind(config.listen).await.map_err(|why| refused(69, why))?;
    let address = listener.local_addr().map_err(|why| refused(69, why.to_string()))?;

    let agents = open_agents(&config, &tasks)?;
    let (mut operator, plan, live, notices) = prepare(config, flags, &tasks).await?;
    operator.certificate = certificate;
    let (phase_sender, phase) = watch::channel(Phase::Serving);
    let (probe_sender, probes) = mpsc::channel(limits::REPLICAS_MAX);
    let app = assemble(plan, live, keys, metrics, &tasks, phase, probe_sender, address, agents)?;
    restore_budgets(&app.seat, &store)?;
    app.disk.bound_memo(app.live.load().config.memo);
    let kept = app.live.load().config.limits.records_kept_max;
    let clerk = app.disk.start(&tasks, store, app.keys.clone(), kept, news(&app));
    let clerk = clerk.map_err(|why| refused(70, format!("cannot start the disk thread: {why}")))?;
    if let Some(agents) = &app.agents {
        agents.employ(&app, WORKERS).map_err(|why| refused(70, why))?;
    }
    tasks.spawn(Kind::Timer, process::vital("timer", app.seat.clone().run_timer()));
    tasks.spawn(Kind::Probe, process::vital("prober", scout::run_probes(app.clone(), probes)));
    tasks.spawn(Kind::Operator, process::vital("operator", operator.watch(app.clone())));
    tasks.spawn(Kind::Accept, process::vital("acceptor", server::accept(app.clone(), listener, tls)));
    announce(&app.live.load(), address, &notices);

    operator::asked_to_end().await;
    leave(&app, &phase_sender).await;
    write_down(&app, clerk).await;
    tracing::info!("stopped");
    Ok(())
}

/// Opens the journal of agents and reads their definitions.
fn open_agents(config: &Config, tasks: &Tasks) -> Result<Option<Arc<Runtime>>, Refused> {
    if !config.agents.enabled {
        return Ok(None);
    }
    let (agents, found) = Runtime::open(config, tasks).map_err(|why| refused(73, why))?;
    if found.kinds > 0 || found.agents > 0 {
        tracing::info!(
            types = found.kinds,
            agents = found.agents,
            runs = found.runs,
            "agents: exactly-once state, effectively-once for idempotent tools, at-most-once for irreversible ones"
        );
    }
    Ok(Some(agents))
}

/// Finds engines and makes the first configuration ready.
async fn prepare(
    mut config: Config,
    flags: Flags,
    tasks: &Tasks,
) -> Result<(Operator, Plan, Live, Vec<String>), Refused> {
    let mut operator = Operator::new(flags, tasks.clone());
    let notices = find_engines(&mut config, &mut operator, tasks).await?;
    let (plan, live) = operator.prepare(config, None).map_err(|why| refused(64, why))?;
    Ok((operator, plan, live, notices))
}

/// Puts the handles of every room together.
#[expect(clippy::too_many_arguments, reason = "each is one room's handle, named once, here")]
fn assemble(
    plan: Plan,
    live: Live,
    keys: Arc<ArcSwap<KeyTable>>,
    metrics: Arc<Metrics>,
    tasks: &Tasks,
    phase: watch::Receiver<Phase>,
    probes: mpsc::Sender<ReplicaId>,
    listening: SocketAddr,
    agents: Option<Arc<Runtime>>,
) -> Result<Arc<App>, Refused> {
    let started = clock::now();
    let disk = Disk::new();
    let seat = Seat::new(Kernel::new(started, plan), Box::new(errands(disk.clone(), probes)));
    let installation = agents::installation(&live.config.data).map_err(|why| refused(73, why))?;
    let net = upstream::Options {
        connect: live.config.limits.connect_ms_max,
        extra_roots: None,
        window: live.config.limits.stream_window_bytes,
        proxy_from_env: live.config.proxy.use_env,
    };
    let tools = Toolbox::start(&live.config.tools, net, tasks).map_err(|why| refused(70, why))?;
    let log = if live.config.log.access { AccessLog::start(tasks) } else { Ok(AccessLog::off()) };
    Ok(Arc::new(App {
        memory: Memory::new(live.config.limits.memory_bytes_max),
        live: ArcSwap::from_pointee(live),
        seat,
        keys,
        metrics,
        log: log.map_err(|why| refused(70, why.to_string()))?,
        disk,
        tasks: tasks.clone(),
        tools,
        agents,
        installation,
        phase,
        reach: Reach::default(),
        uploads: Arc::new(Uploads::default()),
        listening,
        traces: Traces::default(),
        started,
    }))
}

/// Tells the kernel what the store remembers of budgets.
fn restore_budgets(seat: &Seat, store: &Store) -> Result<(), Refused> {
    for account in store.accounts().map_err(|why| refused(74, why.to_string()))? {
        let (window, spent) = (account.window, account.spent);
        seat.tell(Input::Restored { account: account.account.into(), window, spent });
    }
    Ok(())
}

/// Has everything that is left written down. A disk that hangs must not hang the exit.
async fn write_down(app: &App, clerk: std::thread::JoinHandle<()>) {
    app.disk.stop(app.seat.idle());
    let log = app.log.clone();
    let (done, ended) = oneshot::channel();
    let waiter = app.tasks.thread(Kind::Disk, move || {
        let _ = clerk.join();
        log.close();
        let _ = done.send(());
    });
    if waiter.is_ok() && tokio::time::timeout(Duration::from_secs(5), ended).await.is_err() {
        tracing::error!("the disk did not answer in time; budgets count as spent up to their slices");
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    let mut look = tokio::time::interval(Duration::from_millis(5));
    while app.agents.as_ref().is_some_and(|agents| !agents.is_closed()) {
        if tokio::time::Instant::now() > deadline {
            tracing::error!("the journal did not close in time; what was durable is");
            break;
        }
        look.tick().await;
    }
}

/// A service without keys may be open on this machine, and nowhere else.
fn check_exposure(config: &Config, keys: &KeyTable) -> Result<(), Refused> {
    if config.listen.ip().is_loopback() || keys.closed() {
        return Ok(());
    }
    let words = format!(
        "{} can be reached from other machines, and no API key is defined. Make one first \
         (`seawall key add --tenant NAME`), or listen on 127.0.0.1.",
        config.listen
    );
    Err(refused(64, words))
}

/// Where nothing is configured, uses what the machine has; starts the built-in engine
/// where it is asked for or nothing else is there. Says what it did.
async fn find_engines(
    config: &mut Config,
    operator: &mut Operator,
    tasks: &Tasks,
) -> Result<Vec<String>, Refused> {
    let mut notices = Vec::new();
    if config.engines.is_empty() {
        let mut candidates = discover::from_env(&crate::config::load::env);
        candidates.extend(discover::local(config.listen));
        let answers = scout::try_candidates(&candidates, tasks, config.proxy.use_env).await;
        let found = discover::decide(config, &candidates, &answers);
        operator.discovered = found.discovered;
        operator.found = found.engines;
        notices = found.sentences;
        if operator.found.is_empty() {
            let sim = EngineConfig::new("sim", EngineKind::Sim, Vec::new(), &config.limits);
            operator.found.push((sim, "nothing else was found".into()));
        }
    }
    let found = operator.found.iter().map(|(engine, _)| engine);
    if found.chain(&config.engines).any(|engine| engine.urls.is_empty()) {
        operator.builtin = Some(start_builtin(&config.sim, tasks).await?);
        let sim_models = config.sim.models.iter().map(|name| name.as_str().into()).collect::<Vec<_>>();
        for engine in operator.found.iter_mut().map(|(engine, _)| engine).chain(&mut config.engines) {
            if engine.urls.is_empty() && engine.models.is_empty() {
                engine.models.clone_from(&sim_models);
            }
        }
    }
    Ok(notices)
}

/// Starts the built-in engine on a port of its own, on loopback.
async fn start_builtin(sim: &engine::Options, tasks: &Tasks) -> Result<Url, Refused> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.map_err(|why| refused(69, format!("cannot start the built-in engine: {why}")))?;
    let address = listener.local_addr().map_err(|why| refused(69, why.to_string()))?;
    let serving = engine::serve(listener, sim.clone(), tasks.clone(), std::future::pending());
    tasks.spawn(Kind::SimEngine, async move {
        if let Err(why) = serving.await {
            tracing::error!(%why, "the built-in engine ended");
        }
    });
    Url::parse(&format!("http://{address}")).map_err(|why| refused(70, why.to_string()))
}

/// What the kernel asks of other rooms. Called under the kernel's lock, so it only
/// leaves things where they will be found.
fn errands(disk: Disk, probes: mpsc::Sender<ReplicaId>) -> impl Fn(Errand) + Send + Sync {
    move |errand| match errand {
        Errand::Draw { account, window, ceiling } => disk.draw(account, window, ceiling),
        Errand::Spent { account, window, spent } => disk.spent(account, window, spent),
        // A full line means that as many probes as replicas are under way; the kernel
        // asks again.
        Errand::Probe(replica) => drop(probes.try_send(replica)),
    }
}

fn news(app: &App) -> News {
    let (seat, metrics, memo) = (app.seat.clone(), app.metrics.clone(), app.metrics.clone());
    News {
        memo: Box::new(move |result| memo.calls.memo(result)),
        drawn: Box::new(move |account, window, ceiling| {
            seat.tell(Input::Drawn { account, window, ceiling });
        }),
        dropped: Box::new(move |count| metrics.service.dropped("record", count)),
    }
}

/// Says where it listens, in one line that a script can read, and what it found.
fn announce(live: &Live, address: SocketAddr, notices: &[String]) {
    let scheme = if live.config.tls.is_some() { "https" } else { "http" };
    for notice in notices {
        tracing::info!("{notice}");
    }
    let models: Vec<&str> = live.routes.listed().take(8).map(|model| &*model.name).collect();
    tracing::info!(models = models.join(", "), "serving {scheme}://{address}/v1");
    say_listening(live.config.log.format, scheme, address);
}

/// The one line on standard output that a script waits for.
fn say_listening(format: LogFormat, scheme: &str, address: SocketAddr) {
    let url = format!("{scheme}://{address}");
    let line = match format {
        LogFormat::Json => serde_json::json!({"event": "listening", "url": url}).to_string(),
        LogFormat::Text => format!("listening on {url}"),
    };
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Leaves in good order: readiness fails first while calls are still taken; then the
/// listener closes and streams finish; what is left at the deadline is cut.
async fn leave(app: &Arc<App>, phase: &watch::Sender<Phase>) {
    let limits = app.live.load().config.limits;
    tracing::info!(grace_ms = limits.drain_grace_ms.0, "leaving: readiness fails, calls are still taken");
    phase.send_replace(Phase::Leaving);
    tokio::time::sleep(Duration::from_millis(limits.drain_grace_ms.0)).await;
    tracing::info!(calls = app.seat.view().calls, "draining: calls in flight may finish");
    phase.send_replace(Phase::Draining);
    app.seat.tell(Input::Drain);
    if let Some(agents) = &app.agents {
        agents.desk.drain();
    }
    let deadline = tokio::time::Instant::now() + Duration::from_millis(limits.drain_ms_max.0);
    let mut look = tokio::time::interval(Duration::from_millis(20));
    let connections = || app.tasks.count(Kind::Connection);
    // What an agent began is to be known and recorded: cut, it would be in doubt.
    let effects = || app.agents.as_ref().is_some_and(|agents| !agents.desk.is_quiet());
    while (connections() > 0 || effects()) && tokio::time::Instant::now() < deadline {
        tokio::select! {
            _ = look.tick() => {}
            () = operator::asked_to_end() => break,
        }
    }
    if connections() > 0 || effects() {
        tracing::warn!(
            connections = connections(),
            effects = effects(),
            "the drain deadline has passed: what is left is cut"
        );
    }
    phase.send_replace(Phase::Cutting);
    if let Some(agents) = &app.agents {
        agents.desk.close();
    }
    app.tools.close().await;
    // Dropped connections settle their calls; a moment for them to do so.
    while !app.seat.idle() && tokio::time::Instant::now() < deadline + Duration::from_secs(1) {
        look.tick().await;
    }
}
