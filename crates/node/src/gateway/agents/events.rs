//! What happened to a run, record by record: a page of it, or a stream that goes on until
//! the run is over. A stream that broke off is taken up again by offset.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use seawall_model::journal::Entry;
use seawall_model::{Address, Code, Fault, Millis, RunKey, limits};
use seawall_store::journal::Of;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;

use crate::agents::Runtime;
use crate::agents::stream::{self, Listener, Talk};
use crate::app::App;
use crate::gateway::ask;
use crate::gateway::reply::Reply;
use crate::tasks::Kind;

use super::show::Show;
use super::{Answer, Request, leaving, record, unread};

/// Records in one page, and read at once for a stream.
const PAGE: usize = 200;
/// Records that one page may have.
const PAGE_MAX: usize = 1_000;
/// A stream says something at least this often, so that nothing between takes it for dead.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// `GET runs/RUN/events`
pub(super) async fn events(mut request: Request<'_>, run: RunKey) -> Answer {
    let headers = &request.parts.headers;
    let mut from = request.query.whole("from")?.unwrap_or(0);
    if let Some(last) = ask::text(headers, "last-event-id")? {
        let last: u64 = last.parse().map_err(|_| {
            Fault::new(Code::BadHeader, "`Last-Event-ID` is the id of the last event received.")
                .at("last-event-id")
        })?;
        from = from.max(last.saturating_add(1));
    }
    let follows = request.query.flag("follow");
    let limit = request.query.limit(PAGE, PAGE_MAX)?;
    request.query.finish()?;
    let row = request.run(run).await?;
    if follows {
        return follow(&request, run, row.agent, from);
    }
    let page = request.read(move |reader| page(reader, run, from, limit)).await?;
    request.json(StatusCode::OK, &json!({"events": page.events, "next": page.next, "over": page.over}))
}

/// Some records of a run.
struct Page {
    events: Vec<Value>,
    /// Where the next page begins.
    next: u64,
    /// Were these all there are?
    last: bool,
    /// Is the run over, and how?
    over: Option<&'static str>,
}

fn page(
    reader: &seawall_store::journal::Reader,
    run: RunKey,
    from: u64,
    limit: usize,
) -> Result<Page, seawall_store::Error> {
    // Its state first: whatever ended it is then among the records.
    let over = reader.run(run)?.filter(|row| row.state.over()).map(|row| row.state.as_str());
    let kept = reader.history(&Of::Run(run), from, limit)?;
    let show = Show::whole(reader);
    let events: Vec<Value> = kept.iter().map(|kept| record::record(&show, &kept.entry)).collect();
    let next = kept.last().map_or(from, |kept| kept.entry.seq + 1);
    Ok(Page { last: events.len() < limit, events, next, over })
}

fn follow(request: &Request<'_>, run: RunKey, agent: Address, from: u64) -> Answer {
    let app = request.app;
    if app.tasks.count(Kind::Follower) >= limits::FOLLOWERS_MAX {
        let fault = Fault::new(Code::QueueFull, "As many clients follow events as may.");
        return Err(fault.after(Millis(5_000)));
    }
    let (sender, receiver) = mpsc::channel(limits::FEED_PIECES_MAX);
    // Listened to before the first page is read: nothing falls between the two.
    let news = request.runtime.events.subscribe();
    let talk = stream::listen(request.runtime, run);
    let runtime = request.runtime.clone();
    let silent = Instant::now() + ALIVE_EVERY;
    let feed = Feed { app: app.clone(), runtime, run, agent, next: from, news, talk, sender, silent };
    app.tasks.spawn(Kind::Follower, feed.run());
    let mut response = Response::new(Reply::Feed(receiver));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// One client that follows a run.
struct Feed {
    app: Arc<App>,
    runtime: Arc<Runtime>,
    run: RunKey,
    agent: Address,
    next: u64,
    news: broadcast::Receiver<Arc<Entry>>,
    talk: Listener,
    sender: mpsc::Sender<Bytes>,
    /// If nothing was said until then, a sign of life is due. What others do moves it not.
    silent: Instant,
}

/// Nobody reads any more, or Seawall leaves.
struct Over;

impl Feed {
    async fn run(mut self) {
        // Either way the stream ends here; a client that wants more asks again by offset.
        let _ = self.feed().await;
    }

    async fn feed(&mut self) -> Result<(), Over> {
        loop {
            let (run, from) = (self.run, self.next);
            let page = self.runtime.read(move |reader| page(reader, run, from, PAGE)).await;
            let page = match page.map_err(unread) {
                Ok(page) => page,
                Err(fault) => {
                    let told = json!({"error": {"code": fault.code.as_str(), "message": fault.message}});
                    return self.say(format!("event: error\ndata: {told}\n\n")).await;
                }
            };
            for event in &page.events {
                self.say(format!("id: {}\ndata: {event}\n\n", event["seq"])).await?;
            }
            self.next = page.next;
            if !page.last {
                continue;
            }
            if let Some(state) = page.over {
                let told = json!({"run": run.to_string(), "state": state});
                return self.say(format!("event: over\ndata: {told}\n\n")).await;
            }
            self.news().await?;
        }
    }

    async fn say(&mut self, text: String) -> Result<(), Over> {
        self.silent = Instant::now() + ALIVE_EVERY;
        self.sender.send(text.into()).await.map_err(|_| Over)
    }

    /// Waits until something new is known of the run; what it says meanwhile is passed on.
    async fn news(&mut self) -> Result<(), Over> {
        loop {
            tokio::select! {
                heard = self.news.recv() => match heard {
                    Ok(entry) if self.concerns(&entry) => break,
                    Ok(_) => {}
                    // Something was missed: the journal has it.
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return Err(Over),
                },
                talk = self.talk.next() => self.say(delta(&talk)).await?,
                () = self.sender.closed() => return Err(Over),
                () = leaving(&self.app) => return Err(Over),
                () = tokio::time::sleep_until(self.silent) => self.say(": still here\n\n".to_owned()).await?,
            }
        }
        // What came with it is read in the same page.
        while !matches!(self.news.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
        Ok(())
    }

    fn concerns(&self, entry: &Entry) -> bool {
        entry.shard == self.run.shard() && entry.record.agent.as_ref() == Some(&self.agent)
    }
}

/// A piece of what a run says while it works. It has no id: only records are taken up again.
fn delta(talk: &Talk) -> String {
    let mut told = json!({"kind": talk.kind()});
    match talk {
        Talk::Text(text) => told["text"] = (**text).into(),
        Talk::Tool(tool) => told["tool"] = (**tool).into(),
        Talk::Begun | Talk::Ended(_) | Talk::Broke | Talk::Missed => {}
    }
    format!("event: delta\ndata: {told}\n\n")
}
