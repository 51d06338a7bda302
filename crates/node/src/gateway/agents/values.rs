//! Values of a tenant's store, for programs beside its agents.

use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, header};
use seawall_kernel::agents::Input;
use seawall_kernel::agents::effect::Reply as Said;
use seawall_model::durable::ValueRow;
use seawall_model::journal::{Entry, Event};
use seawall_model::{Code, Fault, Millis, Payload, Tenant, limits};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::show::{Show, ms};
use super::types::wait_ms;
use super::{Answer, Request, leaving};

/// Values listed where the question names no number.
const COUNT: usize = 100;
/// Values in one list.
const COUNT_MAX: usize = 1_000;

/// `GET values`: by key, or with `q` those that hold these words, the best first.
pub(super) async fn list(mut request: Request<'_>) -> Answer {
    let tenant = tenant(&mut request)?;
    let prefix = request.query.take("prefix").unwrap_or_default();
    let after = request.query.take("after");
    let words = request.query.take("q");
    let limit = request.query.limit(COUNT, COUNT_MAX)?;
    request.query.finish()?;
    if prefix.len() > limits::NAME_LEN_MAX {
        return Err(Fault::new(Code::BadField, "No key is as long as this `prefix`.").at("query"));
    }
    if words.is_some() && after.is_some() {
        return Err(Fault::new(Code::BadField, "A search with `q` has one page only.").at("query"));
    }
    let body = request
        .read(move |reader| {
            let (rows, pages) = match &words {
                Some(words) => (reader.search_values(&tenant, &prefix, words, limit)?, false),
                None => (reader.values(&tenant, &prefix, after.as_deref(), limit)?, true),
            };
            let show = Show::whole(reader);
            let next =
                if pages && rows.len() == limit { rows.last().map(|row| row.key.clone()) } else { None };
            let values: Vec<Value> = rows.iter().map(|row| shown(&show, row)).collect();
            Ok(json!({"values": values, "next": next.as_deref()}))
        })
        .await?;
    request.json(StatusCode::OK, &body)
}

fn tenant(request: &mut Request<'_>) -> Result<Tenant, Fault> {
    request.who.acts_for(request.query.take("tenant").as_deref())
}

fn shown(show: &Show<'_>, row: &ValueRow) -> Value {
    json!({
        "key": &*row.key,
        "version": row.version,
        "at_ms": ms(row.at),
        "bytes": row.value.as_ref().map(Payload::len),
        "value": row.value.as_ref().map_or(Value::Null, |value| show.content(value)),
        "by": row.by.map(|effect| effect.to_string()),
    })
}

/// `GET values/KEY`; with `wait_ms` once it is newer than `newer_than`, or there is one.
pub(super) async fn one(mut request: Request<'_>, key: String) -> Answer {
    let tenant = tenant(&mut request)?;
    let wait = wait_ms(request.query.whole("wait_ms")?)?;
    let known = request.query.whole("newer_than")?;
    request.query.finish()?;
    let until = Instant::now() + Duration::from_millis(wait);
    let name = (tenant, key);
    let mut news = if wait > 0 { Some(listen(&request)?) } else { None };
    let (status, shown) = loop {
        let (found, found_key) = (name.0.clone(), name.1.clone());
        let read = request.read(move |reader| {
            let row = reader.value(&found, &found_key)?;
            let shown = row.as_ref().map(|row| shown(&Show::whole(reader), row));
            Ok((row.is_some_and(|row| row.value.is_some()), shown))
        });
        let (there, shown) = read.await?;
        let version = shown.as_ref().map_or(0, |shown| shown["version"].as_u64().unwrap_or(0));
        if known.map_or(there, |known| version > known) {
            break (StatusCode::OK, shown);
        }
        let again = match &mut news {
            None if known.is_none() => return Err(unknown(&name)),
            None => false,
            Some(news) => written(&request, news, &name, until).await,
        };
        if !again {
            break (StatusCode::ACCEPTED, shown);
        }
    };
    let shown = shown.unwrap_or_else(|| json!({"key": name.1, "version": 0, "value": null}));
    let mut response = request.json(status, &shown)?;
    if let Ok(tag) = format!("\"{}\"", shown["version"]).parse() {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

type News = broadcast::Receiver<Arc<Entry>>;

/// Hears every record from now on.
fn listen(request: &Request<'_>) -> Result<News, Fault> {
    if request.runtime.events.receiver_count() >= limits::FOLLOWERS_MAX {
        let fault = Fault::new(Code::QueueFull, "As many clients wait for values and events as may.");
        return Err(fault.after(Millis(5_000)));
    }
    Ok(request.runtime.events.subscribe())
}

/// Waits until a value is written or removed, or that may have been missed. Not so: the time
/// is over, or Seawall leaves.
async fn written(request: &Request<'_>, news: &mut News, name: &(Tenant, String), until: Instant) -> bool {
    let is_it = |entry: &Entry| match &entry.record.event {
        Event::Put { tenant, key, .. } => *tenant == name.0 && **key == *name.1,
        _ => false,
    };
    loop {
        tokio::select! {
            heard = news.recv() => match heard {
                Ok(entry) if !is_it(&entry) => {}
                Ok(_) | Err(RecvError::Lagged(_)) => return true,
                Err(RecvError::Closed) => return false,
            },
            () = tokio::time::sleep_until(until) => return false,
            () = leaving(request.app) => return false,
        }
    }
}

/// `PUT values/KEY`
pub(super) async fn set(mut request: Request<'_>, key: String) -> Answer {
    let tenant = tenant(&mut request)?;
    request.query.finish()?;
    let mut fields = request.fields()?;
    let expect = expected(&request)?.or(fields.whole("expect")?);
    let value = fields.content("value");
    fields.finish()?;
    let value = value.ok_or_else(|| {
        Fault::new(Code::BadField, "The body has a `value`, and perhaps `expect`; DELETE removes.")
            .at("value")
    })?;
    let value = request.keep(value).await?;
    put(&request, tenant, &key, Some(value), expect).await
}

/// `POST callbacks/NAME`: what a system outside answers, once, whether it is waited for yet or
/// not. Its body is kept as it came.
pub(super) async fn call_back(mut request: Request<'_>, key: String) -> Answer {
    let tenant = tenant(&mut request)?;
    request.query.finish()?;
    let value = request.keep(request.body.to_vec()).await?;
    put(&request, tenant, &key, Some(value), Some(0)).await
}

/// There is no such value.
fn unknown((tenant, key): &(Tenant, String)) -> Fault {
    Fault::new(Code::ValueUnknown, format!("`{tenant}` has no value by the key `{key}`."))
}

/// `DELETE values/KEY`: of one that is there.
pub(super) async fn remove(mut request: Request<'_>, key: String) -> Answer {
    let tenant = tenant(&mut request)?;
    let expect = expected(&request)?.or(request.query.whole("expect")?);
    request.query.finish()?;
    let wanted = (tenant.clone(), key.clone());
    let there = request
        .read(move |reader| Ok(reader.value(&wanted.0, &wanted.1)?.is_some_and(|row| row.value.is_some())));
    if !there.await? {
        return Err(unknown(&(tenant, key)));
    }
    put(&request, tenant, &key, None, expect).await
}

/// The version in `If-Match`, with or without the quotes of an entity tag.
fn expected(request: &Request<'_>) -> Result<Option<u64>, Fault> {
    let Some(tag) = request.parts.headers.get(header::IF_MATCH) else { return Ok(None) };
    let version = tag.to_str().ok().and_then(|tag| tag.trim().trim_matches('"').parse().ok());
    let bad = || {
        Fault::new(Code::BadHeader, "`If-Match` is a version: a whole number, 0 for none yet.").at("if-match")
    };
    version.ok_or_else(bad).map(Some)
}

async fn put(
    request: &Request<'_>,
    tenant: Tenant,
    key: &str,
    value: Option<Payload>,
    expect: Option<u64>,
) -> Answer {
    let (name, by) = (key.into(), request.who.by.clone());
    let said = request.tell(|ticket| Input::Put { ticket, tenant, key: name, value, expect, by }).await?;
    let Said::Version(version) = said else { return Err(Fault::plain(Code::Internal)) };
    request.json(StatusCode::OK, &json!({"key": key, "version": version}))
}
