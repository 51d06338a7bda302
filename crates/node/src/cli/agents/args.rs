//! The commands and flags of durable agents, as clap reads them. No behaviour here.

use clap::{Args, Subcommand};

use crate::cli::args::{ConfigArgs, JsonArgs, ServerArgs};

/// What is done with durable agents.
#[derive(Debug, Subcommand)]
pub enum AgentsCommand {
    /// List types of agents with their states and waits; or one agent with its work
    Agents(AgentsArgs),
    /// Put an agent that was taken out of service back into it
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Give a task to an agent
    Start(StartArgs),
    /// Leave a message in an agent's mailbox
    Send(SendArgs),
    /// Say why a run or an agent does not go on
    Why(WhyArgs),
    /// List what waits for people: approvals, questions, effects in doubt
    Inbox(InboxArgs),
    /// Say yes to an effect that asks
    Approve(ApproveArgs),
    /// Say no to an effect that asks
    Deny(DenyArgs),
    /// Hand your vote on an effect that asks to another key
    Delegate(DelegateArgs),
    /// Answer a question, or say what became of an effect in doubt
    Answer(AnswerArgs),
    /// List messages that nobody could take; send them again or throw them away
    Letters(LettersArgs),
    /// List, read, write and remove values of a tenant's store
    Values(ValuesArgs),
    /// Stop agents, runs or tools, until `unhalt`
    Halt(HaltArgs),
    /// Let go on what was stopped
    Unhalt(HaltArgs),
    /// List what is stopped
    Halts(AskArgs),
    /// List tool servers and tools, with the classes of their effects
    Tools(AskArgs),
    /// List what happened to a run, or follow it
    Events(EventsArgs),
    /// Step through a run's turns, see its state after each, and fork it
    Debug(DebugArgs),
    /// Check or export the journal of agents, also beside a running server
    #[command(subcommand)]
    Audit(AuditCommand),
}

/// Whose agents are meant.
#[derive(Args, Clone, Debug, Default)]
pub struct TenantArgs {
    /// Whose: a tenant, and in lists all below it [default: the key's own]
    #[arg(long, short, value_name = "PATH")]
    pub tenant: Option<String>,
}

/// Whom to ask, and how to show the answer.
#[derive(Args, Clone, Debug, Default)]
pub struct AskArgs {
    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Output.
    #[command(flatten)]
    pub json: JsonArgs,
}

/// Flags of `agents`.
#[derive(Args, Clone, Debug)]
pub struct AgentsArgs {
    /// Only this type; TYPE/KEY shows one agent
    #[arg(value_name = "TYPE[/KEY]")]
    pub agent: Option<String>,
    /// List agents instead of types
    #[arg(long, short)]
    pub list: bool,
    /// How many agents
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50, requires = "list", value_parser = at_least_one)]
    pub limit: usize,
    /// Only agents after this one, for the next page
    #[arg(long, value_name = "TENANT/TYPE/KEY", requires = "list")]
    pub after: Option<String>,
    /// Whose.
    #[command(flatten)]
    pub of: TenantArgs,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// A number that is not 0.
fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "it is a number from 1 on".to_owned())
}

/// Flags of `agent`.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Put an agent back into service: it goes on where it was
    Release(ReleaseArgs),
}

/// Flags of `agent release`.
#[derive(Args, Clone, Debug)]
pub struct ReleaseArgs {
    /// The agent
    #[arg(value_name = "TYPE/KEY")]
    pub agent: String,
    /// Whose.
    #[command(flatten)]
    pub of: TenantArgs,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Flags of `start`.
#[derive(Args, Clone, Debug)]
pub struct StartArgs {
    /// The agent; a type alone gives the run an agent of its own
    #[arg(value_name = "TYPE[/KEY]")]
    pub agent: String,
    /// The task, or - to read it from standard input; a JSON object or list is taken as such
    #[arg(allow_hyphen_values = true)]
    pub task: String,
    /// Wait until the run is over and print its output; exits with 1 if it failed
    #[arg(long, short)]
    pub wait: bool,
    /// What it may use: tokens=50000,money=0.25,calls=20,steps=30,wall=10m,children=4,depth=2
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub allow: Vec<String>,
    /// The version of the definition [default: the newest]
    #[arg(long, value_name = "VERSION")]
    pub definition: Option<String>,
    /// Whose.
    #[command(flatten)]
    pub of: TenantArgs,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Flags of `send`.
#[derive(Args, Clone, Debug)]
pub struct SendArgs {
    /// The agent
    #[arg(value_name = "TYPE/KEY")]
    pub agent: String,
    /// The message, or - to read it from standard input; a JSON object or list is taken as such
    #[arg(allow_hyphen_values = true)]
    pub text: String,
    /// What kind of message it is, for the agent
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The message's own id: sent again with the same, it is taken once
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Whose.
    #[command(flatten)]
    pub of: TenantArgs,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Flags of `why`.
#[derive(Args, Clone, Debug)]
pub struct WhyArgs {
    /// A run (run-1f03), an effect of one (run-1f03.7), or an agent
    #[arg(value_name = "RUN|TYPE/KEY")]
    pub what: String,
    /// Whose.
    #[command(flatten)]
    pub of: TenantArgs,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Flags of `inbox`.
#[derive(Args, Clone, Debug)]
pub struct InboxArgs {
    /// Go on where a page before ended
    #[arg(long, value_name = "NUMBER")]
    pub after: Option<u64>,
    /// Whose.
    #[command(flatten)]
    pub of: TenantArgs,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Flags of `approve`.
#[derive(Args, Clone, Debug)]
pub struct ApproveArgs {
    /// The effect, as `inbox` shows it
    pub effect: String,
    /// Arguments to call it with instead: a JSON object
    #[arg(long, value_name = "JSON")]
    pub args: Option<String>,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Flags of `deny`.
#[derive(Args, Clone, Debug)]
pub struct DenyArgs {
    /// The effect, as `inbox` shows it
    pub effect: String,
    /// Why not, for the agent
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Flags of `delegate`.
#[derive(Args, Clone, Debug)]
pub struct DelegateArgs {
    /// The effect, as `inbox` shows it
    pub effect: String,
    /// The key that decides in your place, by its id
    pub to: String,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Flags of `answer`.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct AnswerArgs {
    /// The effect, as `inbox` shows it
    pub effect: String,
    /// The answer, or - to read it from standard input: JSON, or else text
    #[arg(group = "what", allow_hyphen_values = true)]
    pub output: Option<String>,
    /// It failed, or there is no answer: this is why
    #[arg(long, value_name = "TEXT", group = "what")]
    pub error: Option<String>,
    /// In doubt whether it was done: send it again
    #[arg(long, group = "what")]
    pub again: bool,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Flags of `letters`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct LettersArgs {
    /// What to do with one.
    #[command(subcommand)]
    pub command: Option<LettersCommand>,
    /// Only letters after this one, for the next page
    #[arg(long, value_name = "SHARD.NUMBER")]
    pub after: Option<String>,
    /// Whose.
    #[command(flatten)]
    pub of: TenantArgs,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// What to do with a dead letter.
#[derive(Debug, Subcommand)]
pub enum LettersCommand {
    /// Send it again
    Redrive(LetterArgs),
    /// Throw it away
    Discard(LetterArgs),
}

/// Flags of `letters redrive` and `letters discard`.
#[derive(Args, Clone, Debug)]
pub struct LetterArgs {
    /// The letter, as `letters` shows it
    #[arg(value_name = "SHARD.NUMBER")]
    pub letter: String,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Flags of `values`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ValuesArgs {
    /// What to do with one.
    #[command(subcommand)]
    pub command: Option<ValuesCommand>,
    /// Only keys that begin with this
    #[arg(long, short, value_name = "TEXT")]
    pub prefix: Option<String>,
    /// Only values that hold these words, the best first
    #[arg(long, short, value_name = "WORDS", conflicts_with = "after")]
    pub find: Option<String>,
    /// How many values
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    pub limit: usize,
    /// Only keys after this one, for the next page
    #[arg(long, value_name = "KEY")]
    pub after: Option<String>,
    /// Whose.
    #[command(flatten)]
    pub of: TenantArgs,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// What to do with a value.
#[derive(Debug, Subcommand)]
pub enum ValuesCommand {
    /// Print one as it is
    Get(ValueArgs),
    /// Write one
    Put(PutArgs),
    /// Remove one
    Remove(ValueArgs),
}

/// Flags of `values get` and `values remove`.
#[derive(Args, Clone, Debug)]
pub struct ValueArgs {
    /// Its key
    #[arg(value_name = "KEY")]
    pub name: String,
    /// Whose.
    #[command(flatten)]
    pub of: TenantArgs,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Flags of `values put`.
#[derive(Args, Clone, Debug)]
pub struct PutArgs {
    /// Its key
    #[arg(value_name = "KEY")]
    pub name: String,
    /// The value, or - to read it from standard input; a JSON object or list is taken as such
    #[arg(allow_hyphen_values = true)]
    pub value: String,
    /// Only if it still has this version; 0 is none yet
    #[arg(long, value_name = "VERSION")]
    pub expect: Option<u64>,
    /// Whose.
    #[command(flatten)]
    pub of: TenantArgs,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Flags of `halt` and `unhalt`.
#[derive(Args, Clone, Debug)]
pub struct HaltArgs {
    /// all, tenant:PATH, type:NAME, agent:TENANT/TYPE/KEY, run:RUN or tool:NAME (with *)
    pub scope: String,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Flags of `events`.
#[derive(Args, Clone, Debug)]
pub struct EventsArgs {
    /// The run, such as run-1f03
    pub run: String,
    /// Go on with what happens from now on, until the run is over
    #[arg(long, short)]
    pub follow: bool,
    /// Only from this sequence on
    #[arg(long, value_name = "SEQ")]
    pub from: Option<u64>,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Flags of `debug`.
#[derive(Args, Clone, Debug)]
pub struct DebugArgs {
    /// The run, such as run-1f03
    pub run: String,
    /// Show this turn and no prompt; 0 is before the first
    #[arg(long, value_name = "N", conflicts_with = "fork")]
    pub turn: Option<u32>,
    /// Fork after this turn, and show no prompt
    #[arg(long, value_name = "N")]
    pub fork: Option<u32>,
    /// For a fork: another task; a JSON object or list is taken as such
    #[arg(long, value_name = "TASK", requires = "fork")]
    pub task: Option<String>,
    /// For a fork: another value of the state, such as a tool's result; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "fork")]
    pub set: Vec<String>,
    /// For a fork: another version of the definition, and with it another model
    #[arg(long, value_name = "VERSION", requires = "fork")]
    pub definition: Option<String>,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// What to do with the journal.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Recompute the hash chains; exits with 1 where a record was changed or is missing
    Verify(VerifyArgs),
    /// Print all records, one JSON object to a line
    Export(ExportArgs),
}

/// Flags of `audit verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// Also look whether each agent and run that is not over has what it rests on
    #[arg(long)]
    pub books: bool,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Output.
    #[command(flatten)]
    pub json: JsonArgs,
}

/// Flags of `audit export`.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// With what was said and done; without it, only sizes and digests of that
    #[arg(long)]
    pub content: bool,
    /// Only this shard
    #[arg(long, value_name = "N")]
    pub shard: Option<u8>,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
}
