//! Whoever runs the process: signals, and changes to the config file. A reload takes
//! effect as a whole or not at all; calls in flight keep the configuration they began
//! under.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use seawall_kernel::{Input, Plan};
use seawall_model::EngineId;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{App, Live};
use crate::clock;
use crate::config::plan::{Ids, plan};
use crate::config::{Config, Discovered, EngineConfig, Flags, Loaded};
use crate::scout;
use crate::tasks::Tasks;
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
    /// For upstream connections.
    pub tasks: Tasks,
}

impl Operator {
    /// One that has found nothing yet.
    #[must_use]
    pub fn new(flags: Flags, tasks: Tasks) -> Self {
        let (ids, found) = (Ids::default(), Vec::new());
        Self { flags, ids, found, discovered: Discovered::default(), builtin: None, tasks }
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
            ("tls", config.tls == before.config.tls),
        ] {
            if !same {
                tracing::warn!("`{what}` has changed; it takes effect at the next start");
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
                // Routes first: whatever the new plan grants can then be found.
                app.live.store(Arc::new(live));
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

    /// Asks engines for their models; a change is put in force like a reload.
    async fn ask_engines(&mut self, app: &App) {
        let live = app.live.load_full();
        let engines = &live.config.engines;
        let discovered = scout::discovered(engines, &live.routes, &live.clients, &self.discovered).await;
        if discovered != self.discovered {
            self.discovered = discovered;
            tracing::info!("engines have new lists of models");
            self.put_in_force(app, live.config.clone());
        }
    }

    /// Watches the file, `SIGHUP` and the engines. Ends with the process.
    pub async fn watch(mut self, app: Arc<App>) {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            return;
        };
        let file = app.live.load().config.file.clone();
        let mut seen = stamp(file.as_ref()).await;
        let mut look = tokio::time::interval(LOOK_EVERY);
        let start = tokio::time::Instant::now() + ASK_EVERY;
        let mut ask = tokio::time::interval_at(start, ASK_EVERY);
        // Engines that did not answer at start are asked sooner.
        self.ask_engines(&app).await;
        loop {
            tokio::select! {
                _ = hangup.recv() => {
                    seen = stamp(file.as_ref()).await;
                    self.reload(&app);
                }
                _ = look.tick() => {
                    let now = stamp(file.as_ref()).await;
                    if now.is_some() && now != seen {
                        seen = now;
                        self.reload(&app);
                    }
                }
                _ = ask.tick() => self.ask_engines(&app).await,
            }
        }
    }
}

/// When a file was last written, and how long it is.
async fn stamp(file: Option<&PathBuf>) -> Option<(SystemTime, u64)> {
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
