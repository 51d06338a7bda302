//! Whoever runs the process: signals, and changes to files and engines. A reload takes
//! effect as a whole or not at all; calls in flight keep the configuration they began
//! under.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use seawall_kernel::{Input, Plan};
use seawall_model::EngineId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::app::{App, Live};
use crate::clock;
use crate::config::plan::{Ids, plan};
use crate::config::{Config, Discovered, EngineConfig, Flags, Loaded};
use crate::scout::{self, Listed};
use crate::tasks::{Kind, Tasks};
use crate::tls::Certificate;
use crate::upstream::{self, Client};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often engines are asked for their models.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// What turns configurations into [`Live`] ones, over the life of the process.
pub struct Operator {
    /// The flags of the command line; they hold across reloads.
    pub flags: Flags,
    /// Ids, stable by name.
    pub ids: Ids,
    /// Engines that were found, not configured, with why; they stay across reloads.
    pub found: Vec<(EngineConfig, String)>,
    /// What engines said they have.
    pub discovered: Discovered,
    /// Where the built-in engine listens, if it was started.
    pub builtin: Option<crate::config::Url>,
    /// The certificate that clients are shown, if TLS is spoken.
    pub certificate: Option<Certificate>,
    /// For upstream connections.
    pub tasks: Tasks,
}

impl Operator {
    /// One that has found nothing yet.
    #[must_use]
    pub fn new(flags: Flags, tasks: Tasks) -> Self {
        let (ids, found) = (Ids::default(), Vec::new());
        Self { flags, ids, found, discovered: Discovered::default(), builtin: None, certificate: None, tasks }
    }

    /// Makes a configuration ready to be put in force.
    ///
    /// # Errors
    /// In words, why it cannot be.
    pub fn prepare(&mut self, mut config: Config, old: Option<&Live>) -> Result<(Plan, Live), String> {
        for (engine, why) in &self.found {
            config.add_found(engine.clone(), why);
        }
        for engine in &mut config.engines {
            if engine.urls.is_empty() {
                let url = self.builtin.clone();
                engine.urls.push(url.ok_or("the built-in engine can only be added by a restart")?);
            }
        }
        let (plan, routes) = plan(&config, &mut self.ids, &self.discovered);
        let clients = self.clients(&config, &routes, old)?;
        Ok((plan, Live { config, routes, clients, since: clock::now() }))
    }

    /// A client per engine; one whose options are unchanged keeps its connections.
    fn clients(
        &self,
        config: &Config,
        routes: &crate::config::Routes,
        old: Option<&Live>,
    ) -> Result<BTreeMap<EngineId, Client>, String> {
        let mut clients = BTreeMap::new();
        for engine in routes.engines() {
            let unchanged = old.and_then(|old| {
                let before = old.routes.engine(engine.id)?;
                let same = before.connect_ms_max == engine.connect_ms_max
                    && before.tls_ca_file == engine.tls_ca_file
                    && old.config.limits.stream_window_bytes == config.limits.stream_window_bytes
                    && old.config.proxy == config.proxy;
                same.then(|| old.clients.get(&engine.id).cloned()).flatten()
            });
            let client = match unchanged {
                Some(client) => client,
                None => {
                    let extra_roots =
                        engine.tls_ca_file.as_deref().map(crate::config::load::read_file).transpose();
                    let extra_roots = extra_roots.map_err(|why| format!("engine {}: {why}", engine.name))?;
                    let options = upstream::Options {
                        connect: engine.connect_ms_max,
                        extra_roots: extra_roots.map(|text| text.into_bytes().into()),
                        window: config.limits.stream_window_bytes,
                        proxy_from_env: config.proxy.use_env,
                    };
                    upstream::client(&options, &self.tasks)
                        .map_err(|why| format!("engine {}: {why}", engine.name))?
                }
            };
            clients.insert(engine.id, client);
        }
        Ok(clients)
    }

    /// Reads the configuration again and puts it in force, or says why not and leaves
    /// the old one.
    pub fn reload(&mut self, app: &App) {
        let config = match Loaded::read(&self.flags) {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    tracing::warn!("config: {warning}");
                }
                loaded.config
            }
            Err(problems) => {
                for problem in &problems {
                    tracing::error!("config: {problem}");
                }
                tracing::error!(
                    problems = problems.len(),
                    "the configuration was not reloaded; the old one stays"
                );
                app.metrics.service.reload("refused");
                return;
            }
        };
        let before = app.live.load_full();
        for (what, same) in [
            ("listen", config.listen == before.config.listen),
            ("data", config.data == before.config.data),
            ("tls", config.tls.is_some() == self.certificate.is_some()),
        ] {
            if !same {
                tracing::warn!("`{what}` has changed; it takes effect at the next start");
            }
        }
        if let Some(agents) = &app.agents {
            app.tools.reload(&config.tools);
            if let Err(why) = agents.reload(&config) {
                tracing::error!(%why, "the definitions of agents were not reloaded; the old ones stay");
                app.metrics.service.reload("refused");
                return;
            }
            if !agents.library.troubles().is_empty() {
                app.metrics.service.reload("definitions_refused");
            }
        }
        self.put_in_force(app, config);
    }

    /// Puts a configuration in force.
    fn put_in_force(&mut self, app: &App, config: Config) {
        let before = app.live.load_full();
        match self.prepare(config, Some(&before)) {
            Ok((plan, live)) => {
                app.memory.resize(live.config.limits.memory_bytes_max);
                app.disk.bound_memo(live.config.memo);
                // Routes first: whatever the new plan grants can then be found.
                app.live.store(Arc::new(live));
                let live = app.live.load();
                app.reach.keep(|replica| live.routes.replica(replica).is_some());
                app.seat.tell(Input::Configure(Box::new(plan)));
                app.metrics.service.reload("done");
                tracing::info!("the configuration is in force");
            }
            Err(why) => {
                tracing::error!(%why, "the configuration was not reloaded; the old one stays");
                app.metrics.service.reload("refused");
            }
        }
    }

    /// Reads the certificate's files again. One that cannot be used leaves the old in place.
    fn renew(&self, app: &App) {
        let live = app.live.load();
        let (Some(certificate), Some(files)) = (&self.certificate, &live.config.tls) else { return };
        match certificate.renew(files) {
            Ok(true) => {
                app.metrics.service.reload("certificate_done");
                tracing::info!("new connections are shown the new certificate");
            }
            Ok(false) => {}
            Err(why) => {
                app.metrics.service.reload("certificate_refused");
                tracing::error!(%why, "the certificate was not renewed; the old one stays");
            }
        }
    }

    /// Takes in what engines said they have; a change is put in force like a reload. An
    /// engine that said nothing keeps what it said before.
    fn learn(&mut self, app: &App, mut said: BTreeMap<Arc<str>, Listed>) {
        let live = app.live.load_full();
        let mut discovered = Discovered::default();
        for engine in live.config.engines.iter().filter(|engine| engine.discover) {
            let before = self.discovered.models.get(&engine.name);
            let models = match said.remove(&engine.name) {
                Some(listed) => {
                    if listed.differ && before != Some(&listed.models) {
                        tracing::warn!(
                            engine = &*engine.name,
                            "its replicas list different models; calls may meet one that lacks theirs"
                        );
                    }
                    listed.models
                }
                None => before.cloned().unwrap_or_default(),
            };
            discovered.models.insert(engine.name.clone(), models);
        }
        if discovered != self.discovered {
            self.discovered = discovered;
            tracing::info!("engines have new lists of models");
            self.put_in_force(app, live.config.clone());
        }
    }

    /// Watches the files, `SIGHUP`, the engines and the wall clock. Ends with the process.
    pub async fn watch(mut self, app: Arc<App>) {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            return;
        };
        let file = app.live.load().config.file.clone();
        let mut seen = stamp(file.as_deref()).await;
        let mut seen_tls = tls_stamps(&app).await;
        let mut seen_agents = folder_stamp(&app).await;
        let mut look = tokio::time::interval(LOOK_EVERY);
        // At once for the first time: engines that did not answer at start are asked again.
        let mut ask = tokio::time::interval(ASK_EVERY);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asking: Option<JoinHandle<BTreeMap<Arc<str>, Listed>>> = None;
        let mut wall = Wall::default();
        loop {
            let mut reload = false;
            tokio::select! {
                _ = hangup.recv() => reload = true,
                _ = look.tick() => {
                    wall.look();
                    let now = stamp(file.as_deref()).await;
                    reload = now.is_some() && now != seen;
                    let now = tls_stamps(&app).await;
                    if now != seen_tls {
                        seen_tls = now;
                        self.renew(&app);
                    }
                    let now = folder_stamp(&app).await;
                    reload |= now != seen_agents;
                    seen_agents = now;
                }
                // In a task of its own: an engine that hangs holds up no signal.
                _ = ask.tick(), if asking.is_none() => {
                    let asked = app.clone();
                    let asks = async move { scout::discovered(&asked).await };
                    asking = Some(self.tasks.spawn(Kind::Discovery, asks));
                }
                said = ended(&mut asking) => {
                    asking = None;
                    self.learn(&app, said);
                }
            }
            if reload {
                seen = stamp(file.as_deref()).await;
                self.reload(&app);
                self.renew(&app);
                seen_tls = tls_stamps(&app).await;
                // New engines may be there.
                ask.reset_immediately();
            }
        }
    }
}

/// What a round of questions brought; never, while there is none.
async fn ended(asking: &mut Option<JoinHandle<BTreeMap<Arc<str>, Listed>>>) -> BTreeMap<Arc<str>, Listed> {
    match asking {
        Some(asking) => asking.await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

/// How far the wall clock was off when it was last looked at.
#[derive(Debug, Default)]
struct Wall {
    ahead: i64,
}

/// A step of the wall clock that is worth a line.
const STEP_MICROS: u64 = 1_000_000;

impl Wall {
    /// Holds the time against the wall, and says so if that was stepped.
    fn look(&mut self) {
        let ahead = clock::look_at_wall();
        if ahead.abs_diff(self.ahead) >= STEP_MICROS && ahead.unsigned_abs() > self.ahead.unsigned_abs() {
            tracing::warn!(
                ahead_ms = ahead / 1_000,
                "the wall clock was stepped: log lines follow at once, waits and budget periods slowly"
            );
        }
        self.ahead = ahead;
    }
}

/// As [`stamp`], of every definition of agents: their names, times and lengths.
async fn folder_stamp(app: &App) -> Vec<(std::path::PathBuf, Option<Stamp>)> {
    let folder = app.live.load().config.agents.folder.clone();
    let mut stamps = Vec::new();
    let Ok(mut entries) = tokio::fs::read_dir(folder).await else { return stamps };
    while let Ok(Some(entry)) = entries.next_entry().await {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            stamps.push((path.clone(), stamp(Some(&path)).await));
        }
    }
    stamps.sort();
    stamps
}

/// As [`stamp`], of the certificate and its key.
async fn tls_stamps(app: &App) -> [Option<Stamp>; 2] {
    let files = app.live.load().config.tls.clone();
    let files = files.as_ref();
    [
        stamp(files.map(|files| files.cert.as_path())).await,
        stamp(files.map(|files| files.key.as_path())).await,
    ]
}

/// When a file was written, and its length.
type Stamp = (SystemTime, u64);

/// When a file was last written, and how long it is.
async fn stamp(file: Option<&Path>) -> Option<Stamp> {
    let meta = tokio::fs::metadata(file?).await.ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// Resolves when the process is asked to end.
pub async fn asked_to_end() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without signals the only end is a kill, which is also safe.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
