//! From configuration to what is decided by: the kernel's [`Plan`], and [`Routes`],
//! which the shell needs to reach what the kernel chose. Both are built together, from
//! the same config and the same [`Ids`], and swapped together on reload.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use seawall_kernel::agents::gate::Pattern;
use seawall_kernel::plan::{CostRule, Engine, Meter, Model, Plan, Price, Replica, TenantRule};
use seawall_model::{
    Agent, Class, EngineId, EngineKind, Millis, ModelId, Protocol, ReplicaId, Tenant, Tokens, limits,
};

use super::{Config, EngineConfig, ModelConfig, Secret, TargetConfig, Url};

/// Gives out ids that stay with their names across reloads.
///
/// Bounded: names that are no longer used are forgotten once a table is twice as long
/// as one config may make it; a name that comes back then gets a new id.
#[derive(Debug, Default)]
pub struct Ids {
    engines: Table,
    replicas: Table,
    models: Table,
}

#[derive(Debug, Default)]
struct Table {
    ids: BTreeMap<String, u32>,
    next: u32,
}

impl Table {
    fn id(&mut self, name: &str) -> u32 {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.next;
        self.next = self.next.checked_add(1).expect("fewer than 2^32 names in one process");
        self.ids.insert(name.to_owned(), id);
        id
    }

    fn forget_unused(&mut self, len_max: usize, used: &BTreeSet<u32>) {
        if self.ids.len() > 2 * len_max {
            self.ids.retain(|_, id| used.contains(id));
        }
    }
}

/// What engines said they have, by the engine's name, in the order they said it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// Upstream model names.
    pub models: BTreeMap<Arc<str>, Vec<Arc<str>>>,
}

/// Everything the shell needs besides the kernel's plan. Immutable; a reload makes a
/// new one, and calls in flight keep theirs.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    engines: BTreeMap<EngineId, EngineRoute>,
    replicas: BTreeMap<ReplicaId, ReplicaRoute>,
    models: BTreeMap<ModelId, ModelRoute>,
    names: BTreeMap<Arc<str>, ModelId>,
    /// What calls to an engine's other paths are to the kernel: a model without a name.
    paths: BTreeMap<EngineId, ModelId>,
    listed: Vec<ModelId>,
    tenants: BTreeMap<Arc<str>, TenantRoute>,
}

/// How one engine is spoken to.
#[derive(Clone, Debug)]
pub struct EngineRoute {
    /// Its id.
    pub id: EngineId,
    /// Its name.
    pub name: Arc<str>,
    /// What kind of server it is.
    pub kind: EngineKind,
    /// Protocols it answers without translation.
    pub speaks: Vec<Protocol>,
    /// Its replicas, in the order of the config.
    pub replicas: Vec<ReplicaId>,
    /// Its key.
    pub key: Option<Secret>,
    /// Headers added to its calls.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Longest silence before its first byte.
    pub first_token_ms_max: Millis,
    /// Longest silence between two pieces of its answer.
    pub stall_ms_max: Millis,
    /// Longest connect.
    pub connect_ms_max: Millis,
    /// The path that a probe asks for.
    pub health_path: Arc<str>,
    /// Authorities to trust besides the system's.
    pub tls_ca_file: Option<PathBuf>,
}

impl EngineRoute {
    /// Does it answer this protocol without translation?
    #[must_use]
    pub fn speaks(&self, protocol: Protocol) -> bool {
        self.speaks.contains(&protocol)
    }
}

/// Where one replica is.
#[derive(Clone, Debug)]
pub struct ReplicaRoute {
    /// Its engine.
    pub engine: EngineId,
    /// Its address.
    pub url: Url,
}

/// What one name stands for.
#[derive(Clone, Debug)]
pub struct ModelRoute {
    /// Its id.
    pub id: ModelId,
    /// The name that clients ask for.
    pub name: Arc<str>,
    /// Targets, in the order of [`Model::targets`].
    pub targets: Vec<TargetRoute>,
    /// Its price.
    pub price: Price,
    /// Longest prompt plus output, where known.
    pub context_tokens_max: Option<Tokens>,
    /// Output tokens reserved for a call that names no limit.
    pub output_tokens_max: Tokens,
}

/// One target of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRoute {
    /// The engine.
    pub engine: EngineId,
    /// The model's name there.
    pub upstream: Arc<str>,
}

/// What the shell, not the kernel, enforces for one tenant prefix.
#[derive(Clone, Debug, Default)]
struct TenantRoute {
    models: Vec<Arc<str>>,
    class: Option<Class>,
    /// Is there a budget of tokens or money?
    budgeted: bool,
}

impl Routes {
    /// The id behind a name that a client asked for.
    #[must_use]
    pub fn resolve(&self, name: &str) -> Option<ModelId> {
        self.names.get(name).copied()
    }

    /// What a name stands for.
    #[must_use]
    pub fn model(&self, id: ModelId) -> Option<&ModelRoute> {
        self.models.get(&id)
    }

    /// How an engine is spoken to.
    #[must_use]
    pub fn engine(&self, id: EngineId) -> Option<&EngineRoute> {
        self.engines.get(&id)
    }

    /// Where a replica is.
    #[must_use]
    pub fn replica(&self, id: ReplicaId) -> Option<&ReplicaRoute> {
        self.replicas.get(&id)
    }

    /// Engines, by id.
    pub fn engines(&self) -> impl Iterator<Item = &EngineRoute> {
        self.engines.values()
    }

    /// Names shown in `/v1/models`: configured ones in their order, then discovered ones.
    pub fn listed(&self) -> impl Iterator<Item = &ModelRoute> {
        self.listed.iter().filter_map(|id| self.models.get(id))
    }

    /// The name nearest to one that does not exist, for the error's hint.
    #[must_use]
    pub fn nearest(&self, name: &str) -> Option<&str> {
        let known: Vec<&str> = self.listed().map(|model| &*model.name).collect();
        super::problem::nearest(name, &known)
    }

    /// The first engine that takes other paths through, for `/v1/*` calls that name no
    /// model; a simulated one only where there is no other.
    #[must_use]
    pub fn pass_through(&self) -> Option<&EngineRoute> {
        let takes = |engine: &&EngineRoute| engine.speaks(Protocol::Other);
        let real = |engine: &&EngineRoute| engine.kind != EngineKind::Sim;
        self.engines.values().filter(takes).find(real).or_else(|| self.engines.values().find(takes))
    }

    /// What calls to this engine's other paths are to the kernel.
    #[must_use]
    pub fn paths(&self, engine: EngineId) -> Option<&ModelRoute> {
        self.models.get(self.paths.get(&engine)?)
    }

    /// May this tenant ask for this model? Every rule on its path must agree; the rule
    /// of `*` counts where the full path has none of its own.
    #[must_use]
    pub fn allows(&self, tenant: &Tenant, model: ModelId) -> bool {
        self.models.contains_key(&model)
            && self.rules(tenant).all(|rule| rule.models.is_empty() || self.names_one(&rule.models, model))
    }

    /// Does one of these names stand for this model? A model may have two names.
    #[must_use]
    pub fn names_one<T: AsRef<str>>(&self, names: &[T], model: ModelId) -> bool {
        names.iter().any(|name| self.resolve(name.as_ref()) == Some(model))
    }

    /// May this tenant ask for this agent as a model? Every rule on its path must agree.
    #[must_use]
    pub fn allows_agent(&self, tenant: &Tenant, agent: &Agent) -> bool {
        self.rules(tenant).all(|rule| rule.models.is_empty() || names_agent(&rule.models, agent))
    }

    /// The class of this tenant's calls where neither header nor key says: the longest
    /// prefix that names one.
    #[must_use]
    pub fn class_of(&self, tenant: &Tenant) -> Option<Class> {
        self.rules(tenant).filter_map(|rule| rule.class).last()
    }

    /// Does a budget of tokens or money cover this tenant? Then an answer must not be
    /// longer than what was reserved for it.
    #[must_use]
    pub fn budgeted(&self, tenant: &Tenant) -> bool {
        self.rules(tenant).any(|rule| rule.budgeted)
    }

    /// Rules that hold for a tenant, from the shortest prefix to the longest.
    fn rules(&self, tenant: &Tenant) -> impl Iterator<Item = &TenantRoute> {
        let own = self.tenants.contains_key(tenant.as_str());
        let general = if own { None } else { self.tenants.get("*") };
        general.into_iter().chain(tenant.prefixes().filter_map(|prefix| self.tenants.get(prefix)))
    }
}

/// Begins the names of agents where models are asked for.
pub const AGENT_PREFIX: &str = "agent/";

/// Does one of these names of models stand for this agent? `agent/TYPE` is all agents of a
/// type, and `*` any characters.
#[must_use]
pub fn names_agent<T: AsRef<str>>(names: &[T], agent: &Agent) -> bool {
    let mut asked = names.iter().filter_map(|name| name.as_ref().strip_prefix(AGENT_PREFIX));
    asked.any(|name| name == agent.kind() || Pattern::new(name).fits(agent.as_str()))
}

/// Builds the kernel's plan and the shell's routes.
///
/// Configured aliases come first; then every model that an engine is known or found to
/// have gets its upstream name as alias if that is free, else `engine/name`. Every
/// target is addressable as `engine/name` besides, unlisted. Names beyond
/// [`limits::MODELS_MAX`] are left out, discovered ones first.
#[must_use]
pub fn plan(config: &Config, ids: &mut Ids, discovered: &Discovered) -> (Plan, Routes) {
    let mut routes = Routes::default();
    let mut plan = Plan {
        queue: config.queue,
        class_share: config.classes,
        retry: config.retry,
        guard: config.guard,
        tenants: tenant_rules(config),
        ..Plan::default()
    };
    for engine in &config.engines {
        add_engine(&mut plan, &mut routes, ids, engine);
    }
    let mut namer = Namer {
        engines: routes.engines.values().map(|engine| (engine.name.clone(), engine.id)).collect(),
        like: config
            .models
            .iter()
            .rev()
            .flat_map(|model| model.targets.iter().map(move |t| (t, model)))
            .collect(),
        upstreams: BTreeMap::new(),
        plan: &mut plan,
        routes: &mut routes,
        ids,
    };
    for model in &config.models {
        namer.add_configured(model);
    }
    for engine in &config.engines {
        let found = discovered.models.get(&engine.name).into_iter().flatten();
        for upstream in engine.models.iter().chain(found) {
            namer.add_upstream(&engine.name, upstream);
        }
    }
    for target in config.models.iter().flat_map(|model| &model.targets) {
        namer.add_direct(target);
    }
    for engine in config.engines.iter().filter(|engine| engine.speaks(Protocol::Other)) {
        namer.add_paths(&engine.name);
    }
    for tenant in &config.tenants {
        let budgeted = tenant.rule.budgets.iter().any(|budget| budget.meter != Meter::Calls);
        let route = TenantRoute { models: tenant.models.clone(), class: tenant.class, budgeted };
        routes.tenants.insert(tenant.rule.prefix.clone(), route);
    }
    plan.engines.sort_by_key(|engine| engine.id);
    plan.models.sort_by_key(|model| model.id);
    forget_unused(ids, &routes);
    (plan, routes)
}

fn tenant_rules(config: &Config) -> Vec<TenantRule> {
    let mut rules: Vec<TenantRule> = config.tenants.iter().map(|tenant| tenant.rule.clone()).collect();
    rules.sort_by(|a, b| a.prefix.cmp(&b.prefix));
    rules
}

fn forget_unused(ids: &mut Ids, routes: &Routes) {
    let engines = routes.engines.keys().map(|id| id.0).collect();
    let replicas = routes.replicas.keys().map(|id| id.0).collect();
    let models = routes.models.keys().map(|id| id.0).collect();
    ids.engines.forget_unused(limits::ENGINES_MAX, &engines);
    ids.replicas.forget_unused(limits::ENGINES_MAX * limits::REPLICAS_MAX, &replicas);
    ids.models.forget_unused(limits::MODELS_MAX, &models);
}

fn add_engine(plan: &mut Plan, routes: &mut Routes, ids: &mut Ids, config: &EngineConfig) {
    let id = EngineId(ids.engines.id(&config.name));
    let mut replicas = Vec::with_capacity(config.urls.len());
    for url in &config.urls {
        // A space can be in neither a name nor an address.
        let replica = ReplicaId(ids.replicas.id(&format!("{} {url}", config.name)));
        routes.replicas.insert(replica, ReplicaRoute { engine: id, url: url.clone() });
        replicas.push(replica);
    }
    let mut planned: Vec<Replica> = replicas.iter().map(|id| Replica { id: *id }).collect();
    planned.sort_by_key(|replica| replica.id);
    plan.engines.push(Engine {
        id,
        name: config.name.clone(),
        replicas: planned,
        pace: config.pace.clone(),
        rate: config.rate,
        cost: CostRule { learned: true, ..CostRule::default() },
    });
    let route = EngineRoute {
        id,
        name: config.name.clone(),
        kind: config.kind,
        speaks: config.speaks.clone(),
        replicas,
        key: config.key.clone(),
        headers: config.headers.clone(),
        first_token_ms_max: config.first_token_ms_max,
        stall_ms_max: config.stall_ms_max,
        connect_ms_max: config.connect_ms_max,
        health_path: config.health_path.clone(),
        tls_ca_file: config.tls_ca_file.clone(),
    };
    routes.engines.insert(id, route);
}

/// Gives names to models, in the order of who may claim one first.
struct Namer<'a> {
    engines: BTreeMap<Arc<str>, EngineId>,
    /// The first alias that leads to a target: its price and bounds hold for the target
    /// under any name, or a budget could be dodged by asking for the model directly.
    like: BTreeMap<&'a TargetConfig, &'a ModelConfig>,
    /// Numbers of models' names at their engines.
    upstreams: BTreeMap<Arc<str>, u32>,
    plan: &'a mut Plan,
    routes: &'a mut Routes,
    ids: &'a mut Ids,
}

impl Namer<'_> {
    fn add_configured(&mut self, model: &ModelConfig) {
        let Some(id) = self.add(&model.name, &model.targets, model) else {
            return;
        };
        if !model.hidden {
            self.routes.listed.push(id);
        }
        if let [target] = model.targets.as_slice() {
            self.routes.names.entry(direct_name(target)).or_insert(id);
        }
    }

    /// A model that an engine has: its own name if free, and `engine/name` always.
    fn add_upstream(&mut self, engine: &Arc<str>, upstream: &Arc<str>) {
        let target = TargetConfig { engine: engine.clone(), upstream: upstream.clone() };
        let direct = direct_name(&target);
        if self.routes.names.contains_key(&direct) {
            return;
        }
        let alias = if self.routes.names.contains_key(upstream) { &direct } else { upstream };
        let Some(id) = self.add_like(alias, target) else {
            return;
        };
        self.routes.listed.push(id);
        self.routes.names.insert(direct, id);
    }

    /// A target of an alias under its own `engine/name`.
    fn add_direct(&mut self, target: &TargetConfig) {
        let direct = direct_name(target);
        if !self.routes.names.contains_key(&direct) {
            self.add_like(&direct, target.clone());
        }
    }

    /// An engine's other paths: a model that no name leads to, so that they go through the
    /// kernel like any call and no client can ask for them as a model.
    fn add_paths(&mut self, engine: &Arc<str>) {
        let target = TargetConfig { engine: engine.clone(), upstream: "*".into() };
        let name = direct_name(&target);
        if let Some(id) = self.add_like(&name, target) {
            self.routes.names.remove(&name);
            self.routes.paths.insert(self.engines[engine], id);
        }
    }

    fn add_like(&mut self, name: &str, target: TargetConfig) -> Option<ModelId> {
        match self.like.get(&target).copied() {
            Some(like) => self.add(name, &[target], like),
            None => self.add(name, &[target], &ModelConfig::new(name)),
        }
    }

    fn number(&mut self, upstream: &Arc<str>) -> u32 {
        // Fewer names than models, each of which has a number of that type.
        let next = self.upstreams.len() as u32;
        *self.upstreams.entry(upstream.clone()).or_insert(next)
    }

    fn add(&mut self, name: &str, targets: &[TargetConfig], like: &ModelConfig) -> Option<ModelId> {
        if self.routes.models.len() >= limits::MODELS_MAX || self.routes.names.contains_key(name) {
            return None;
        }
        let targets: Vec<TargetRoute> = targets
            .iter()
            .filter_map(|t| {
                let engine = *self.engines.get(&t.engine)?;
                Some(TargetRoute { engine, upstream: t.upstream.clone() })
            })
            .collect();
        if targets.is_empty() {
            return None;
        }
        let id = ModelId(self.ids.models.id(name));
        let name: Arc<str> = name.into();
        // An engine's other paths are for no model that could be told.
        let named = targets.iter().all(|target| &*target.upstream != "*");
        let upstreams =
            targets.iter().filter(|_| named).map(|target| self.number(&target.upstream)).collect();
        self.plan.models.push(Model {
            id,
            targets: targets.iter().map(|target| target.engine).collect(),
            upstreams,
            price: like.price,
            context_tokens_max: like.context_tokens_max,
            output_tokens_max: like.output_tokens_max,
        });
        let (price, context_tokens_max) = (like.price, like.context_tokens_max);
        let output_tokens_max = like.output_tokens_max;
        let route =
            ModelRoute { id, name: name.clone(), targets, price, context_tokens_max, output_tokens_max };
        self.routes.models.insert(id, route);
        self.routes.names.insert(name, id);
        Some(id)
    }
}

fn direct_name(target: &TargetConfig) -> Arc<str> {
    format!("{}/{}", target.engine, target.upstream).into()
}
