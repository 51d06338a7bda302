//! The commands and flags of the binary, as clap reads them. No behaviour here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::agents::args::{AgentsCommand, AskArgs};
use crate::{config, engine};

/// The production runtime for AI applications: one binary between an application and
/// its models.
#[derive(Debug, Parser)]
#[command(name = "seawall", version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Start with: seawall serve\nThen point any OpenAI or Anthropic client at http://127.0.0.1:8080"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve: gateway, scheduler and everything else on one port
    Serve(ServeArgs),
    /// Check the configuration and show the effective one, with where each value came from
    Check(CheckArgs),
    /// Create, list and revoke API keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// List the models of a running server, with the state of their engines
    Models(ModelsArgs),
    /// List runs of agents: what they do, and what they have used
    Runs(RunsArgs),
    /// Show a run with all below it; cancel, repeat, fork, stop and resume runs
    Run(RunArgs),
    /// What is done with durable agents.
    #[command(flatten)]
    Agents(AgentsCommand),
    /// Run the simulated engine alone
    Sim(SimArgs),
    /// Show the version
    Version(JsonArgs),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Where the configuration comes from.
#[derive(Args, Clone, Debug, Default)]
pub struct ConfigArgs {
    /// Config file [default: ./seawall.toml if there is one] [env: SEAWALL_CONFIG]
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the store [default: ~/.local/share/seawall] [env: SEAWALL_DATA]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Flags that every command with a small output has.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct JsonArgs {
    /// Print JSON for a script
    #[arg(long)]
    pub json: bool,
}

/// Flags that change what is served.
#[derive(Args, Clone, Debug, Default)]
pub struct ServedArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Address to listen on [default: 127.0.0.1:8080] [env: SEAWALL_LISTEN]
    #[arg(long, short, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Base URL of an OpenAI-compatible engine whose models are discovered; may be repeated
    #[arg(long = "engine", short, value_name = "[NAME=]URL")]
    pub engines: Vec<String>,
    /// How much to log: error, warn, info, debug, trace [default: info] [env: SEAWALL_LOG]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
    /// How log lines look: text, json [default: text] [env: SEAWALL_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// Flags of `serve`.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// What is served.
    #[command(flatten)]
    pub served: ServedArgs,
    /// JSON for a script: log lines, access log and the start-up notice
    #[arg(long)]
    pub json: bool,
}

/// Flags of `check`: those of `serve`, so that what is checked is what would run.
#[derive(Args, Clone, Debug, Default)]
pub struct CheckArgs {
    /// What would be served.
    #[command(flatten)]
    pub served: ServedArgs,
    /// Leave out values that are defaults
    #[arg(long)]
    pub changed: bool,
    /// Output.
    #[command(flatten)]
    pub json: JsonArgs,
}

/// Flags of `key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Create a key and show it, this once
    Add(KeyAddArgs),
    /// List keys, without their secrets
    List(KeyListArgs),
    /// Revoke a key at once, also in a running server
    Revoke(KeyRevokeArgs),
}

/// Flags of `key add`.
#[derive(Args, Clone, Debug)]
pub struct KeyAddArgs {
    /// Who uses and pays: a path such as acme/search
    #[arg(long, short, value_name = "PATH")]
    pub tenant: String,
    /// What it is for, for your own list
    #[arg(long, short, default_value = "", value_name = "TEXT", hide_default_value = true)]
    pub name: String,
    /// Class of its calls: interactive, agent, batch
    #[arg(long, value_enum)]
    pub class: Option<ClassArg>,
    /// Model that it may ask for; may be repeated [default: all]
    #[arg(long = "model", short, value_name = "NAME")]
    pub models: Vec<String>,
    /// When it ends: 30d, 12h, 2027-01-31 [default: never]
    #[arg(long, value_name = "WHEN")]
    pub expires: Option<String>,
    /// May also use the operations API
    #[arg(long)]
    pub admin: bool,
    /// May also use paths that pass through to an engine: files, batches, fine-tunes, audio, images
    #[arg(long)]
    pub pass_through: bool,
    /// Agent of the calls that name none in x-seawall-agent
    #[arg(long, value_name = "TYPE/KEY")]
    pub agent: Option<String>,
    /// Run of the calls that name none in x-seawall-run
    #[arg(long, value_name = "NAME")]
    pub run: Option<String>,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Output.
    #[command(flatten)]
    pub json: JsonArgs,
}

/// Flags of `key list`.
#[derive(Args, Clone, Debug)]
pub struct KeyListArgs {
    /// Show revoked and expired keys too
    #[arg(long, short)]
    pub all: bool,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Output.
    #[command(flatten)]
    pub json: JsonArgs,
}

/// Flags of `key revoke`.
#[derive(Args, Clone, Debug)]
pub struct KeyRevokeArgs {
    /// The key's id, as `key list` shows it
    pub id: String,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Output.
    #[command(flatten)]
    pub json: JsonArgs,
}

/// The classes by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClassArg {
    /// A person is waiting
    Interactive,
    /// A step of an agent
    Agent,
    /// Nobody is waiting
    Batch,
}

/// Where a running server is.
#[derive(Args, Clone, Debug, Default)]
pub struct ServerArgs {
    /// Address of the server
    #[arg(
        long,
        value_name = "URL",
        env = "SEAWALL_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8080"
    )]
    pub url: String,
    /// API key, if the server wants one
    #[arg(long, value_name = "KEY", env = "SEAWALL_API_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// Certificates to trust beside the usual ones, in PEM
    #[arg(long, value_name = "FILE", env = "SEAWALL_CA_FILE", hide_env_values = true)]
    pub ca: Option<PathBuf>,
}

/// Flags of `runs`.
#[derive(Args, Clone, Debug)]
pub struct RunsArgs {
    /// Only of this tenant and all below it
    #[arg(long, short, value_name = "PATH")]
    pub tenant: Option<String>,
    /// Only of agents of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// Only in this state: queued, active, done, failed, cancelled
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
    /// Only those that this run began
    #[arg(long, value_name = "RUN")]
    pub parent: Option<String>,
    /// Only those before this one, for the next page
    #[arg(long, value_name = "RUN")]
    pub before: Option<String>,
    /// How many, the newest first
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Output.
    #[command(flatten)]
    pub json: JsonArgs,
}

/// Flags of `run`: a run's name, or what to do with one.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct RunArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<RunCommand>,
    /// The run to show.
    #[command(flatten)]
    pub show: RunShowArgs,
}

/// Flags of `run NAME`.
#[derive(Args, Clone, Debug)]
pub struct RunShowArgs {
    /// The run: run-1f03, or a name as sent in x-seawall-run
    #[arg(required = true)]
    pub name: Option<String>,
    /// Whose run it is
    #[arg(long, short, value_name = "PATH", default_value = "local")]
    pub tenant: String,
    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Output.
    #[command(flatten)]
    pub json: JsonArgs,
}

/// What to do with a run.
#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// Stop a run and all below it: calls under way are cut, later ones refused
    Stop(RunHaltArgs),
    /// Let a stopped run go on
    Resume(RunHaltArgs),
    /// End a durable run and all below it, for good
    Cancel(RunOrderArgs),
    /// Begin a durable run again from its task
    Again(RunOrderArgs),
    /// Begin a new run from what a durable run was after one of its turns
    Fork(RunForkArgs),
    /// Delete the answers that a run's memo kept
    Forget(RunForgetArgs),
}

/// Flags of `run cancel` and `run again`.
#[derive(Args, Clone, Debug)]
pub struct RunOrderArgs {
    /// The run, such as run-1f03
    pub run: String,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Flags of `run fork`.
#[derive(Args, Clone, Debug)]
pub struct RunForkArgs {
    /// The run, such as run-1f03
    pub run: String,
    /// The turn after which the new run goes its own way; 0 is before the first
    #[arg(long, value_name = "N")]
    pub turn: u32,
    /// Another task; a JSON object or list is taken as such
    #[arg(long, value_name = "TASK")]
    pub task: Option<String>,
    /// Another value of the state, such as a tool's result: JSON, or else text; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Another version of the definition, and with it other tools
    #[arg(long, value_name = "VERSION")]
    pub definition: Option<String>,
    /// Other instructions, for this run alone; @FILE reads them from a file
    #[arg(long, value_name = "TEXT|@FILE")]
    pub instructions: Option<String>,
    /// Another model, for this run alone
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Flags of `run stop` and `run resume`.
#[derive(Args, Clone, Debug)]
pub struct RunHaltArgs {
    /// The run: run-1f03, or a name as sent in x-seawall-run
    pub name: String,
    /// Whose run it is
    #[arg(long, short, value_name = "PATH", default_value = "local")]
    pub tenant: String,
    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Output.
    #[command(flatten)]
    pub json: JsonArgs,
}

/// Flags of `run forget`.
#[derive(Args, Clone, Debug)]
pub struct RunForgetArgs {
    /// The run's name, as sent in x-seawall-run
    pub name: String,
    /// Whose run it is
    #[arg(long, short, value_name = "PATH", default_value = "local")]
    pub tenant: String,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Output.
    #[command(flatten)]
    pub json: JsonArgs,
}

/// Flags of `models`.
#[derive(Args, Clone, Debug)]
pub struct ModelsArgs {
    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Output.
    #[command(flatten)]
    pub json: JsonArgs,
}

/// Flags of `sim`. What is not given is as in the engine's own defaults.
#[derive(Args, Clone, Debug)]
pub struct SimArgs {
    /// Port to listen on; 0 takes a free one
    #[arg(long, short, value_name = "N", default_value_t = 8000)]
    pub port: u16,
    /// Address to listen on
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub host: std::net::IpAddr,
    /// Seed of everything random
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Law of step times, such as sim-small or h100-llama2-70b
    #[arg(long, value_name = "NAME")]
    pub pace: Option<String>,
    /// Calls that run in one batch
    #[arg(long, value_name = "N")]
    pub slots: Option<u32>,
    /// Size of the key-value cache in tokens
    #[arg(long, value_name = "N")]
    pub kv_tokens: Option<u64>,
    /// Calls that may wait for a slot; the next are refused
    #[arg(long, value_name = "N")]
    pub queue_len_max: Option<u32>,
    /// Name of a model; may be repeated
    #[arg(long = "model", short, value_name = "NAME")]
    pub models: Vec<String>,
    /// Lengths of answers in tokens: 256, 100..500 or lognormal:MEDIAN,P99
    #[arg(long, value_name = "LENGTHS")]
    pub output: Option<String>,
    /// Faults by rate: 429:0.1,cut@5:0.02
    #[arg(long, value_name = "LIST")]
    pub faults: Option<String>,
    /// File of scripted answers
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Fixed time to the first token instead of the law
    #[arg(long, value_name = "MS")]
    pub first_ms: Option<u64>,
    /// Fixed time between tokens instead of the law
    #[arg(long, value_name = "MS")]
    pub token_ms: Option<u64>,
    /// Fixed time to an answer that is not streamed
    #[arg(long, value_name = "MS")]
    pub unary_ms: Option<u64>,
    /// Key that callers must send
    #[arg(long, value_name = "KEY", env = "SEAWALL_SIM_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// JSON for a script: log lines and the start-up notice
    #[arg(long)]
    pub json: bool,
}

impl ConfigArgs {
    /// As the config loader wants them.
    #[must_use]
    pub fn flags(&self) -> config::Flags {
        config::Flags {
            config: self.config.clone(),
            data: self.data.clone(),
            env_names: config::load::env_names(),
            ..config::Flags::default()
        }
    }
}

impl ServedArgs {
    /// As the config loader wants them.
    #[must_use]
    pub fn flags(&self) -> config::Flags {
        config::Flags {
            listen: self.listen.clone(),
            engines: self.engines.clone(),
            log: self.log.clone(),
            log_format: self.log_format.clone(),
            ..self.config.flags()
        }
    }
}

impl ClassArg {
    /// The class meant.
    #[must_use]
    pub fn class(self) -> seawall_model::Class {
        match self {
            Self::Interactive => seawall_model::Class::Interactive,
            Self::Agent => seawall_model::Class::Agent,
            Self::Batch => seawall_model::Class::Batch,
        }
    }
}

impl SimArgs {
    /// As the built-in engine wants them.
    ///
    /// # Errors
    /// The script cannot be read, or the options do not hold together.
    pub fn options(&self) -> Result<engine::Options, String> {
        let default = engine::Options::default();
        let script = match &self.script {
            None => None,
            Some(path) => {
                let text = config::load::read_file(path);
                Some(text.map_err(|error| format!("cannot read {}: {error}", path.display()))?)
            }
        };
        let options = engine::Options {
            seed: self.seed.unwrap_or(default.seed),
            pace: self.pace.clone().unwrap_or(default.pace),
            slots: self.slots.unwrap_or(default.slots),
            kv_tokens: self.kv_tokens.unwrap_or(default.kv_tokens),
            queue_len_max: self.queue_len_max.unwrap_or(default.queue_len_max),
            models: if self.models.is_empty() { default.models } else { self.models.clone() },
            output: self.output.clone().unwrap_or(default.output),
            faults: self.faults.clone().unwrap_or(default.faults),
            script,
            first_ms: self.first_ms,
            token_ms: self.token_ms,
            unary_ms: self.unary_ms,
            api_key: self.api_key.clone(),
            ..engine::Options::default()
        };
        options.validate().map_err(|error| error.to_string())?;
        Ok(options)
    }
}
