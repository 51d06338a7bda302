//! The tools of agents: MCP servers and HTTP endpoints, called for agents that run inside.
//! It performs; whether a call may be made was decided by the gate, and whether it is made
//! again is for the kernel to say.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use seawall_model::{At, Millis};

use crate::clock;
use crate::config::tool::ToolsConfig;
use crate::tasks::Tasks;
use crate::upstream::{self, Client};

mod card;
mod http;
mod mcp;
mod outcome;
mod reading;
mod template;
mod words;

pub use card::{Hints, Listed, ToolCard, is_name};
pub use outcome::{Call, Outcome};
pub use template::{Error as TemplateError, Template};

use self::http::HttpTool;
use mcp::Link;

/// All tools that are configured. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Toolbox(Arc<Shelf>);

#[derive(Debug)]
struct Shelf {
    tools: ArcSwap<Tools>,
    net: upstream::Options,
    client: Client,
    tasks: Tasks,
}

/// What one config says; a reload replaces it, and calls in flight keep theirs.
#[derive(Debug, Default)]
struct Tools {
    servers: BTreeMap<Arc<str>, Arc<Link>>,
    http: BTreeMap<Arc<str>, Arc<HttpTool>>,
}

/// How a tool server stands, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerState {
    /// Its name.
    pub name: Arc<str>,
    /// Can its tools be called?
    pub up: bool,
    /// Why not.
    pub why: Option<Arc<str>>,
    /// Tools it has, or had when it was last up.
    pub tools: usize,
    /// How often it was started or connected to.
    pub starts: usize,
    /// Calls in flight.
    pub calls: usize,
    /// The end of what its process wrote to standard error. May be content: for an operator
    /// who asks, never for a log line (I11).
    pub last_words: String,
}

impl Toolbox {
    /// Starts every server that is configured; does not wait for them.
    ///
    /// # Errors
    /// In words: there can be no connections at all (see [`upstream::client`]).
    pub fn start(config: &ToolsConfig, net: upstream::Options, tasks: &Tasks) -> Result<Self, String> {
        let client = upstream::client(&net, tasks)?;
        let toolbox = Self(Arc::new(Shelf { tools: ArcSwap::default(), net, client, tasks: tasks.clone() }));
        toolbox.reload(config);
        Ok(toolbox)
    }

    /// Takes up another config. Servers whose part of it is the same go on undisturbed; those
    /// that are gone or different end when their last call does.
    pub fn reload(&self, config: &ToolsConfig) {
        let Shelf { tools, net, tasks, .. } = &*self.0;
        let old = tools.load();
        let servers = config.servers.iter().map(|server| {
            let same = old.servers.get(&server.name).filter(|link| link.config() == server);
            let link =
                same.cloned().unwrap_or_else(|| Arc::new(Link::start(server.clone(), net.clone(), tasks)));
            (server.name.clone(), link)
        });
        let http =
            config.http.iter().map(|tool| (tool.name.clone(), Arc::new(HttpTool { config: tool.clone() })));
        let new = Tools { servers: servers.collect(), http: http.collect() };
        tools.store(Arc::new(new));
    }

    /// Every tool by name. Waits for servers that have not yet been reached for the first
    /// time, at most [`seawall_model::limits::TOOL_START_MS_MAX`]; one that is down lists
    /// what it had.
    pub async fn list(&self) -> Vec<ToolCard> {
        self.started().await;
        self.known()
    }

    /// Every tool that is known now, by name.
    #[must_use]
    pub fn known(&self) -> Vec<ToolCard> {
        let tools = self.0.tools.load();
        let mut cards: Vec<ToolCard> = tools.http.values().map(|tool| tool.card()).collect();
        for link in tools.servers.values() {
            cards.extend(link.known().iter().cloned());
        }
        cards.sort_by(|a, b| a.name.cmp(&b.name));
        cards
    }

    /// Comes when every server has been tried.
    pub async fn started(&self) {
        let tools = self.0.tools.load_full();
        for link in tools.servers.values() {
            link.cards().await;
        }
    }

    /// The servers that have not yet been tried to the end, by name.
    #[must_use]
    pub fn starting(&self) -> Vec<Arc<str>> {
        let tools = self.0.tools.load();
        let starting = tools.servers.iter().filter(|(_, link)| link.is_starting());
        starting.map(|(name, _)| name.clone()).collect()
    }

    /// The card of one tool, likewise.
    pub async fn card(&self, name: &str) -> Option<ToolCard> {
        let tools = self.0.tools.load_full();
        match name.split_once('.') {
            None => tools.http.get(name).map(|tool| tool.card()),
            Some((server, _)) => {
                let cards = tools.servers.get(server)?.cards().await;
                cards.iter().find(|card| &*card.name == name).cloned()
            }
        }
    }

    /// How the servers stand, by name.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerState> {
        self.0.tools.load().servers.values().map(|link| link.state()).collect()
    }

    /// Performs a call. Dropped, it is cancelled, and the other side told where the protocol
    /// has a way to.
    pub async fn call(&self, call: Call) -> Outcome {
        if remaining(call.deadline, Millis::MAX) == Millis::ZERO {
            return Outcome::unsent("there is no time left for the call");
        }
        let tools = self.0.tools.load_full();
        if let Some((server, tool)) = call.tool.split_once('.') {
            // Held to the end, so that a reload does not take the server away from under it.
            return match tools.servers.get(server).cloned() {
                Some(link) => link.call(tool, &call).await,
                None => Outcome::hopeless(format!("there is no tool server named {}", words::line(server))),
            };
        }
        match tools.http.get(&*call.tool).cloned() {
            Some(tool) => {
                tool.call(&self.0.client, &call, remaining(call.deadline, tool.config.timeout)).await
            }
            None => Outcome::hopeless(format!("there is no tool named {}", words::line(&call.tool))),
        }
    }

    /// Ends every server: calls in flight fail. Resolves when their processes are gone.
    pub async fn close(&self) {
        let tools = self.0.tools.swap(Arc::default());
        // One after the other is as slow as the sum of those that do not end by themselves,
        // so all are told first.
        let closing: Vec<_> = tools
            .servers
            .values()
            .cloned()
            .map(|link| self.0.tasks.spawn(crate::tasks::Kind::ToolServer, async move { link.close().await }))
            .collect();
        for closed in closing {
            let _ = closed.await;
        }
    }
}

/// The time that is left of a tool's own timeout, given a deadline.
fn remaining(deadline: At, timeout: Millis) -> Millis {
    deadline.since(clock::now()).min(timeout)
}
