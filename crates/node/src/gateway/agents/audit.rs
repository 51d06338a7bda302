//! Evidence: the tools there are, whether the journal is what was written, and all of it
//! line by line.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use seawall_model::{Code, Fault, Millis, limits};
use seawall_store::journal::{Books, Place, Reader};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::agents::Runtime;
use crate::gateway::reply::Reply;

use super::{Answer, Request};

/// Bytes of an export in one piece.
const PIECE_BYTES: usize = 64 << 10;

/// `GET tools`: what can be called; with an admin's key also how the servers stand.
pub(super) async fn tools(request: Request<'_>) -> Answer {
    request.query.finish()?;
    let cards = request.app.tools.list().await;
    let tools: Vec<Value> = cards
        .iter()
        .map(|card| {
            json!({
                "name": &*card.name,
                "server": card.name.split_once('.').map(|(server, _)| server),
                "about": &*card.about,
                "class": card.class.as_str(),
                "undo": card.undo.as_deref(),
                "query": card.query.as_deref(),
                "schema": serde_json::from_str::<Value>(&card.schema).unwrap_or_default(),
            })
        })
        .collect();
    let servers: Vec<Value> = request
        .app
        .tools
        .servers()
        .iter()
        .map(|server| {
            let mut shown = json!({"name": &*server.name, "up": server.up, "tools": server.tools});
            if request.who.admin {
                shown["why"] = json!(server.why.as_deref());
                shown["starts"] = server.starts.into();
                shown["calls"] = server.calls.into();
                shown["last_words"] = server.last_words.clone().into();
            }
            shown
        })
        .collect();
    request.json(StatusCode::OK, &json!({"servers": servers, "tools": tools}))
}

/// `GET audit/verify`: recomputes the hash chains; with `books=1` the reconciler as well.
pub(super) async fn verify(mut request: Request<'_>) -> Answer {
    request.who.only_admin()?;
    let books = request.query.flag("books");
    request.query.finish()?;
    let (mut records, mut shards, mut first_bad) = (0, Vec::new(), Value::Null);
    // Shard by shard, so that others who ask the journal come in between.
    for shard in 0..limits::SHARDS {
        let report = request.read(move |reader| reader.verify(shard..=shard)).await?;
        records += report.records;
        shards.extend(report.shards.iter().map(|one| {
            let hash: String = one.hash.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({"shard": one.shard, "cut": one.cut, "seq": one.seq, "hash": hash})
        }));
        if let Some(bad) = report.first_bad {
            first_bad = json!({"shard": bad.shard, "seq": bad.seq, "what": bad.what});
            break;
        }
    }
    let mut body = json!({
        "ok": first_bad.is_null(), "records": records, "shards": shards, "first_bad": first_bad,
    });
    if books {
        body["books"] = reconciled(&request).await?;
    }
    request.json(StatusCode::OK, &body)
}

/// The reconciler: those in memory, and the rows of all.
async fn reconciled(request: &Request<'_>) -> Result<Value, Fault> {
    let here = request.runtime.desk.check();
    let mut books = Books::default();
    for shard in 0..limits::SHARDS {
        books.next = Some(Place::Agent(0));
        while let Some(from) = books.next {
            let look = move |reader: &Reader| reader.reconcile(shard, from, limits::JOURNAL_PAGE_ROWS);
            books.add(request.read(look).await?);
        }
    }
    let wrong = books.wrong.iter().map(|wrong| json!({"of": wrong.of, "what": wrong.what}));
    let first = books.wrong.first().map(|wrong| format!("{}: {}", wrong.of, wrong.what));
    Ok(json!({
        "right": here.is_ok() && first.is_none(), "why": here.err().or(first),
        "agents": books.agents, "runs": books.runs, "wrong": wrong.collect::<Vec<_>>(),
    }))
}

/// `GET audit/export`: every record as a line of JSON; with `content=1` what it holds too.
pub(super) fn export(mut request: Request<'_>) -> Answer {
    request.who.only_admin()?;
    let content = request.query.flag("content");
    request.query.finish()?;
    let busy = Exporting::begin(request.runtime).ok_or_else(|| {
        Fault::new(Code::QueueFull, "An export is under way; there is one at a time.").after(Millis(5_000))
    })?;
    let (sender, receiver) = mpsc::channel(limits::FEED_PIECES_MAX);
    tracing::info!(content, by = %request.who.by, "the journal is exported");
    let runtime = request.runtime.clone();
    let work = async move {
        let _busy = busy;
        for shard in 0..limits::SHARDS {
            let out = sender.clone();
            let written = runtime
                .read(move |reader| {
                    let mut out = Pieces { sender: out, piece: Vec::with_capacity(PIECE_BYTES) };
                    reader.export(shard..=shard, content, &mut out)?;
                    // A client that left is no failure of the export.
                    let _ = out.flush();
                    Ok(())
                })
                .await;
            if let Err(why) = written {
                // The client sees that it ends early: the last line tells the rest.
                let told = format!("{}\n", json!({"error": why.to_string(), "shard": shard}));
                let _ = sender.send(told.into()).await;
                tracing::warn!(%why, shard, "an export ended early");
                return;
            }
        }
    };
    request.app.tasks.spawn(crate::tasks::Kind::Feed, work);
    let mut response = Response::new(Reply::Feed(receiver));
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// The one export that may be under way.
struct Exporting(Arc<Runtime>);

impl Exporting {
    fn begin(runtime: &Arc<Runtime>) -> Option<Self> {
        let free = !runtime.exporting.swap(true, Ordering::AcqRel);
        free.then(|| Self(runtime.clone()))
    }
}

impl Drop for Exporting {
    fn drop(&mut self) {
        self.0.exporting.store(false, Ordering::Release);
    }
}

/// Gathers what is written into pieces and hands them on. Waits for the client, on a
/// worker's thread; a client that reads nothing is cut by the guard of its socket.
struct Pieces {
    sender: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        if piece.is_empty() {
            return Ok(());
        }
        self.sender.blocking_send(piece.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
