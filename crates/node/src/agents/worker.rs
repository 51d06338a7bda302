//! The threads that take agents' turns and make effects ready: they read the journal, which
//! may wait for the disk, and so must not be done by the threads that serve calls.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use seawall_kernel::agents::Input;
use seawall_kernel::agents::effect::{Grant, Perform};
use seawall_kernel::agents::input::Report;
use seawall_model::durable::{Item, ValueRow};
use seawall_model::effect::{Answer, Spend, Work};
use seawall_model::journal::{Change, Commit, Ending, Next};
use seawall_model::{Code, Millis, Payload, RunKey, Tenant, Tokens};
use seawall_store::Error;
use seawall_store::journal::{Blobs, Reader, Search};

use crate::app::App;
use crate::clock;

use super::desk::{Desk, Job};
use super::handler::{self, Terms, View};
use super::library::Library;
use super::notes::{self, Query};
use super::perform;
use super::states::{self, Mark, State, States};

/// A turn that must wait, for the disk or for a tool server, is granted again after this.
const PAUSE: Millis = Millis(1_000);
/// A turn that a disk in trouble did not let be taken so often fails: what is wrong may be
/// the agent's. While the disk is full it only waits.
const TRIES_MAX: u32 = 60;

/// Why a turn was not taken.
enum Trouble {
    /// The disk, by no fault of the agent.
    Disk(Error),
    /// Tools that it is offered are not known yet: those of this server.
    Tools(Arc<str>),
    /// The agent's own, or nobody knows.
    Own(String),
}

impl From<Error> for Trouble {
    fn from(why: Error) -> Self {
        if passes(&why) { Self::Disk(why) } else { Self::Own(why.to_string()) }
    }
}

/// One worker.
pub struct Worker {
    /// Where its jobs are.
    pub desk: Arc<Desk>,
    /// What it reads from.
    pub reader: Reader,
    /// Where it leaves large payloads.
    pub blobs: Blobs,
    /// The definitions.
    pub library: Arc<Library>,
    /// States of runs that were at work lately.
    pub states: Arc<States>,
    /// Everything else.
    pub app: Arc<App>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Worker {
    /// Works until the desk is closed.
    pub fn work(self) {
        while let Some(job) = self.desk.job() {
            match job {
                Job::Turn(grant) => self.turn(*grant),
                Job::Perform(perform) => self.perform(*perform),
                Job::Stow(stow) => (stow.0)(),
            }
        }
    }

    fn turn(&self, grant: Grant) {
        let tries = grant.deferred;
        let why = match self.take_turn(&grant) {
            Ok((commit, state)) => return self.commit(grant, commit, state),
            Err(Trouble::Tools(server)) => return self.defer(grant, "tool_server", server),
            Err(Trouble::Disk(why)) if tries < TRIES_MAX || matches!(why, Error::Full) => {
                if matches!(why, Error::Full) {
                    self.desk.note_full();
                }
                if tries == 0 {
                    tracing::warn!(agent = %grant.address, %why, "a turn waits for the disk");
                }
                return self.defer(
                    grant,
                    "disk",
                    if matches!(why, Error::Full) { "full" } else { "fails" }.into(),
                );
            }
            Err(Trouble::Disk(why)) => why.to_string(),
            Err(Trouble::Own(why)) => why,
        };
        let Grant { address, token, .. } = grant;
        tracing::warn!(agent = %address, %why, "a turn failed");
        self.desk.tell(Input::Stumble { address, token, why: why.into() });
    }

    /// The turn is taken after a pause, and its place is others' until then.
    fn defer(&self, grant: Grant, cause: &'static str, on: Arc<str>) {
        let Grant { address, token, .. } = grant;
        self.desk.tell(Input::Defer { address, token, cause, on, after: PAUSE });
    }

    /// Tells the desk, and keeps the state for what comes next, if that rests on it.
    fn commit(&self, grant: Grant, commit: Commit, state: Arc<State>) {
        let (run, mark) = (grant.run.key, Mark::of(&grant.run).next());
        let waits = matches!(commit.next, Next::Wait(_));
        let keep = || {
            if waits {
                self.states.keep(run, mark, state, clock::now());
            }
        };
        if !self.desk.commit(grant, commit, keep) {
            self.states.forget(run);
        }
    }

    /// What the turn makes, and the state after it.
    fn take_turn(&self, grant: &Grant) -> Result<(Commit, Arc<State>), Trouble> {
        let kind = grant.address.agent.kind();
        let definition = self.library.version(kind, &grant.run.version).ok_or_else(|| {
            Trouble::Own(format!("version {} of `{kind}` is not known any more", grant.run.version))
        })?;
        let kit = self.library.kit(&definition);
        // To a model, a tool that is not there yet does not exist.
        if let Some(server) = self.library.coming(&kit) {
            return Err(Trouble::Tools(server));
        }
        let state = match self.states.take(grant.run.key, Mark::of(&grant.run)) {
            Some(state) => state,
            None => Arc::new(self.state(grant.run.key)?),
        };
        let mut run = grant.run.clone();
        run.task = self.open(&run.task)?;
        let items =
            grant.items.iter().cloned().map(|item| self.open_item(item)).collect::<Result<Vec<_>, _>>()?;
        let view = View {
            run: &run,
            now: grant.at,
            items: &items,
            state: &state,
            terms: self.terms(&definition.model),
        };
        // A mistake in a handler is one agent's failure, not the process's.
        let turn = catch_unwind(AssertUnwindSafe(|| handler::turn(&definition, &kit, &view)));
        let commit = turn.map_err(|_| Trouble::Own("the handler panicked (above)".to_owned()))?;
        let state = states::after(state, &items, &commit.changes);
        Ok((self.stow(commit)?, state))
    }

    fn terms(&self, model: &str) -> Terms {
        let live = self.app.live.load();
        match crate::gateway::ask::resolve(&live, model) {
            Ok(route) => Terms {
                output_tokens_max: route.output_tokens_max,
                context_tokens_max: route.context_tokens_max,
                price: route.price,
            },
            // The call itself will say that there is no such model.
            Err(_) => Terms {
                output_tokens_max: Tokens(4_096),
                context_tokens_max: None,
                price: Default::default(),
            },
        }
    }

    fn state(&self, run: RunKey) -> Result<State, Error> {
        let rows = self.reader.state(run)?;
        rows.into_iter().map(|(key, value)| Ok((key, self.open(&value)?))).collect()
    }

    fn open(&self, payload: &Payload) -> Result<Payload, Error> {
        match payload {
            Payload::Here(_) => Ok(payload.clone()),
            Payload::Blob { .. } => Ok(Payload::Here(self.reader.open_payload(payload)?)),
        }
    }

    fn open_item(&self, item: Item) -> Result<Item, Error> {
        Ok(match item {
            Item::Answer { effect, tag, kind, twin, answer } => {
                let answer = match answer {
                    Answer::Done(body) => Answer::Done(self.open(&body)?),
                    Answer::Error(body) => Answer::Error(self.open(&body)?),
                    failed @ Answer::Failed { .. } => failed,
                };
                Item::Answer { effect, tag, kind, twin, answer }
            }
            Item::Mail(mut message) => {
                message.body = self.open(&message.body)?;
                Item::Mail(message)
            }
            other => other,
        })
    }

    /// Large payloads of a commit go to the blob store before a record names them.
    fn stow(&self, mut commit: Commit) -> Result<Commit, Error> {
        for change in &mut commit.changes {
            if let Change::Set { value, .. } = change {
                self.put(value)?;
            }
        }
        for ask in &mut commit.asks {
            match &mut ask.work {
                Work::Model { recipe: body, .. }
                | Work::Tool { args: body, .. }
                | Work::Child { task: body, .. }
                | Work::Message { body, .. }
                | Work::Promise { question: body }
                | Work::Put { value: Some(body), .. }
                | Work::Publish { body, .. } => self.put(body)?,
                _ => {}
            }
        }
        if let Next::End(Ending::Done(output)) = &mut commit.next {
            self.put(output)?;
        }
        Ok(commit)
    }

    fn put(&self, payload: &mut Payload) -> Result<(), Error> {
        if let Payload::Here(bytes) = payload
            && bytes.len() as u64 > seawall_model::limits::PAYLOAD_BYTES_INLINE
        {
            *payload = self.blobs.put(bytes.to_vec())?;
        }
        Ok(())
    }

    fn perform(&self, perform: Perform) {
        let (effect, address) = (perform.effect, perform.address.clone());
        let ready = match &perform.work {
            Work::Model { recipe, .. } => self.request(&perform, recipe).map(Some),
            Work::Tool { tool, args, .. } if is_ours(tool) => Err(self.look(&perform, tool, args)),
            Work::Tool { args, .. } => self.open(args).map(Some).map_err(unread),
            Work::Get { key } => Err(self.get(&perform, key)),
            _ => Err(failed(Code::Internal, "there is nothing to perform")),
        };
        match ready {
            Ok(Some(Payload::Here(body))) => {
                perform::begin(&self.app, &self.desk, &self.blobs, perform, &body);
            }
            Ok(_) => {
                self.desk.tell(Input::Report { effect, address, report: failed(Code::Internal, "unread") });
            }
            Err(report) => self.desk.tell(Input::Report { effect, address, report }),
        }
    }

    /// The request for a model, from the state as it is.
    fn request(&self, perform: &Perform, recipe: &Payload) -> Result<Payload, Report> {
        let kind = perform.address.agent.kind();
        let definition = self.library.version(kind, &perform.version);
        let definition =
            definition.ok_or_else(|| failed(Code::AgentUnknown, "its version is not known any more"))?;
        let kit = self.library.kit(&definition);
        let state = match self.states.find(perform.effect.run, perform.turns) {
            Some(state) => state,
            None => Arc::new(self.state(perform.effect.run).map_err(unread)?),
        };
        let recipe = self.open(recipe).map_err(unread)?;
        let made = catch_unwind(AssertUnwindSafe(|| {
            handler::request(&definition, &kit, &state, recipe.here().unwrap_or_default())
        }));
        match made {
            Ok(Ok(body)) => Ok(body.into()),
            Ok(Err(fault)) => Err(failed(fault.code, &fault.message)),
            Err(_) => Err(failed(Code::Internal, "the request could not be made")),
        }
    }

    fn get(&self, perform: &Perform, key: &str) -> Report {
        let found = match self.reader.value(&perform.address.tenant, key) {
            Ok(found) => found,
            Err(why) => return unread(why),
        };
        let opened = found.and_then(|row| Some((row.version, row.value?)));
        let body = match opened {
            None => serde_json::json!({"version": 0, "value": null}),
            Some((version, value)) => match self.open(&value) {
                Ok(value) => serde_json::json!({"version": version, "value": read(&value)}),
                Err(why) => return unread(why),
            },
        };
        self.done(body.to_string().into())
    }

    /// Looking through the tenant's values.
    fn look(&self, perform: &Perform, tool: &str, args: &Payload) -> Report {
        let args = match self.open(args) {
            Ok(args) => args,
            Err(why) => return unread(why),
        };
        let query = Query::read(args.here().unwrap_or_default());
        // Notes are looked for by their own tool, under their own namespace.
        let but = if tool == "notes.search" { "" } else { notes::ROOT };
        match self.find(&perform.address.tenant, &query, but) {
            Ok(rows) => self.done(query.answer(&rows).into()),
            Err(why) => unread(why),
        }
    }

    /// What a query finds outside of `but`, and one value more, where there are more.
    fn find(&self, tenant: &Tenant, query: &Query, but: &str) -> Result<Vec<ValueRow>, Error> {
        let (prefix, limit) = (&*query.prefix, query.limit + 1);
        if query.searches() {
            return self
                .reader
                .find_values(tenant, &Search { prefix, words: &query.words, any: true, but, limit });
        }
        let mut rows = self.reader.values(tenant, prefix, query.after.as_deref(), limit)?;
        let skips = |row: &ValueRow| !but.is_empty() && row.key.starts_with(but);
        if let Some(first) = rows.iter().position(skips) {
            // There may be many: the list goes on behind all of them.
            rows.truncate(first);
            let last = format!("{but}\u{10ffff}");
            rows.extend(self.reader.values(tenant, prefix, Some(&last), limit - rows.len())?);
        }
        Ok(rows)
    }

    fn done(&self, body: Payload) -> Report {
        let mut body = body;
        match self.put(&mut body) {
            Ok(()) => Report::Done { answer: Answer::Done(body), used: Spend::default() },
            Err(why) => unread(why),
        }
    }
}

/// Is it a tool that the worker performs itself?
fn is_ours(tool: &str) -> bool {
    matches!(tool, "store.list" | "store.search" | "notes.search")
}

/// A value as JSON: itself, where it is, else its text.
fn read(value: &Payload) -> serde_json::Value {
    let bytes = value.here().unwrap_or_default();
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned().into())
}

fn failed(code: Code, why: &str) -> Report {
    Report::Done { answer: Answer::Failed { code, why: why.into() }, used: Spend::default() }
}

/// May it be otherwise in a moment?
fn passes(why: &Error) -> bool {
    matches!(why, Error::Full | Error::Busy | Error::Failed { .. })
}

#[expect(clippy::needless_pass_by_value, reason = "it is the last that is seen of it")]
fn unread(why: Error) -> Report {
    let passes = passes(&why);
    let retry_after = passes.then_some(Millis(1_000));
    Report::NotDone {
        code: Code::Internal,
        why: why.to_string().into(),
        retry_after,
        counts: !passes,
        used: Spend::default(),
    }
}
