//! The memo: answers kept for runs that ask for it, so that a script that is started
//! again after a crash is given what it already paid for. The law of which answer is
//! given stands in `store::memo`; here it is read from headers, asked of the disk, and
//! answers on their way to the client are copied for it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use seawall_model::{Code, Fault, Lineage, Protocol, Tenant};
use seawall_store::{Answer, Asked, Kept};
use sha2::{Digest as _, Sha256};

use crate::app::App;
use crate::clock;
use crate::log::Line;
use crate::memory::Hold;

use super::ask::{self, Ask};
use super::reply::{self, Reply};

/// The header that says whether an answer was replayed.
const SAYS: &str = "x-seawall-memo";

/// A request whose answer is replayed or kept.
#[derive(Clone, Debug)]
pub struct Memo {
    asked: Asked,
    tenant: Tenant,
    run: Arc<str>,
}

/// Does the client want a memo for this request?
///
/// # Errors
/// `BadHeader` for anything but `on` or `off`, for `on` without a run, and for a name of
/// the attempt that is no text or too long.
pub fn wanted(
    headers: &HeaderMap,
    tenant: &Tenant,
    lineage: Option<&Lineage>,
    protocol: Protocol,
    body: &[u8],
) -> Result<Option<Memo>, Fault> {
    let bad = |what: &str| Fault::new(Code::BadHeader, what.to_owned()).at(SAYS);
    match ask::text(headers, SAYS)? {
        None | Some("off") => return Ok(None),
        Some("on") => {}
        Some(_) => return Err(bad("The memo is `on` or `off`.")),
    }
    let Some(run) = lineage.map(|lineage| &lineage.run) else {
        return Err(bad("A memo belongs to a run: send `x-seawall-run` as well."));
    };
    let attempt = ask::text(headers, "x-seawall-attempt")?;
    if attempt.is_some_and(|attempt| attempt.len() > 256) {
        let what = "The name of an attempt has at most 256 bytes.";
        return Err(Fault::new(Code::BadHeader, what).at("x-seawall-attempt"));
    }
    // Costs nothing, and no engine is asked.
    if protocol == Protocol::CountTokens {
        return Ok(None);
    }
    let asked = Asked {
        run: digest(&[tenant.as_str().as_bytes(), run.as_bytes()]),
        // The body names the model.
        work: digest(&[protocol.as_str().as_bytes(), body]),
        attempt: attempt.map(|attempt| digest(&[attempt.as_bytes()])),
    };
    Ok(Some(Memo { asked, tenant: tenant.clone(), run: run.clone() }))
}

/// SHA-256 over parts of which only the last may hold a zero byte.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update([0]);
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// The kept answer to a call, if there is one. A disk that fails or is behind has none:
/// then the call is performed.
pub async fn replay(app: &App, ask: &Ask) -> Option<Response<Reply>> {
    let memo = ask.memo.as_ref()?;
    if ask.run.is_some_and(|run| app.seat.stopped(run)) || ask.parent.is_some_and(|run| app.seat.stopped(run))
    {
        // The kernel says so.
        return None;
    }
    let kept = match app.disk.replay(memo.asked) {
        Some(coming) => coming.await.ok().flatten(),
        None => None,
    };
    let Some(kept) = kept else {
        app.metrics.calls.memo("miss");
        return None;
    };
    app.metrics.calls.memo("hit");
    let line = Line::Replayed {
        at_ms: clock::wall(ask.received).0 / 1_000,
        trace: ask.trace.clone(),
        tenant: ask.tenant.clone(),
        class: ask.class,
        protocol: ask.protocol,
        model: ask.model.name.clone(),
    };
    if app.log.is_on() && !app.log.write(line) {
        app.metrics.service.dropped("log_line", 1);
    }
    let mut response = Response::new(Reply::whole(kept.answer));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, crate::upstream::value(&kept.kind));
    headers.insert(SAYS, HeaderValue::from_static("hit"));
    reply::trace_header(headers, &ask.trace);
    Some(response)
}

/// Has a performed call's answer kept, now or as it streams by.
pub fn keep(app: &Arc<App>, ask: &Ask, response: &mut Response<Reply>) {
    let Some(memo) = &ask.memo else { return };
    response.headers_mut().insert(SAYS, HeaderValue::from_static("miss"));
    if response.status() != StatusCode::OK {
        return;
    }
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or("application/json").to_owned();
    let mut copy = Copy::new(app, memo, kind, ask.live.config.memo.answer_bytes_max);
    match response.body_mut() {
        Reply::Whole(bytes) => {
            copy.add(bytes.as_deref().unwrap_or_default());
            copy.done();
        }
        Reply::Relay(relay) => relay.copy_to(copy),
        // What we make ourselves costs nothing.
        Reply::Feed(_) => {}
    }
}

/// An answer being copied on its way to the client. Dropped before it is done, it is
/// nothing: what breaks off is not kept.
#[derive(Debug)]
pub struct Copy {
    app: Arc<App>,
    memo: Memo,
    kind: String,
    /// So far; `None` once it has outgrown its bound or the byte budget.
    bytes: Option<(Vec<u8>, Hold)>,
    bytes_max: seawall_model::Bytes,
}

impl Copy {
    fn new(app: &Arc<App>, memo: &Memo, kind: String, bytes_max: seawall_model::Bytes) -> Self {
        let bytes = app.memory.hold(0).map(|hold| (Vec::new(), hold));
        Self { app: app.clone(), memo: memo.clone(), kind, bytes, bytes_max }
    }

    /// The next piece.
    pub fn add(&mut self, piece: &[u8]) {
        let fits = match &mut self.bytes {
            Some((bytes, hold)) => {
                (bytes.len() + piece.len()) as u64 <= self.bytes_max.0 && hold.grow(piece.len() as u64)
            }
            None => return,
        };
        if !fits {
            self.bytes = None;
        } else if let Some((bytes, _)) = &mut self.bytes {
            bytes.extend_from_slice(piece);
        }
    }

    /// The answer is complete: it is kept.
    pub fn done(self) {
        let Self { app, memo, kind, bytes, .. } = self;
        let Some((answer, hold)) = bytes else {
            return app.metrics.calls.memo("not_kept");
        };
        let Memo { asked, tenant, run } = memo;
        let kept = Kept { kind, answer };
        if !app.disk.keep(Answer { asked, tenant, name: run.to_string(), kept }, hold) {
            app.metrics.calls.memo("not_kept");
        }
    }
}

/// Adds every piece to the copy, if there is one.
pub fn copy(to: Option<&mut Copy>, piece: &Bytes) {
    if let Some(to) = to {
        to.add(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().expect("a name"), HeaderValue::from_static(value)))
            .collect()
    }

    fn of(pairs: &[(&'static str, &'static str)], tenant: &str, body: &[u8]) -> Option<Asked> {
        let tenant = Tenant::parse(tenant).expect("a tenant");
        let run = pairs.iter().find(|(name, _)| *name == "x-seawall-run");
        let lineage = run.map(|(_, run)| Lineage { run: (*run).into(), parent: None });
        wanted(&headers(pairs), &tenant, lineage.as_ref(), Protocol::Chat, body)
            .expect("good headers")
            .map(|memo| memo.asked)
    }

    #[test]
    fn a_memo_is_asked_for_and_belongs_to_tenant_run_and_request() {
        let on = [("x-seawall-memo", "on"), ("x-seawall-run", "r")];
        assert_eq!(of(&[("x-seawall-run", "r")], "a", b"{}"), None);
        assert_eq!(of(&[("x-seawall-memo", "off")], "a", b"{}"), None);
        let one = of(&on, "a", b"{}").expect("wanted");
        assert_eq!(of(&on, "a", b"{}"), Some(one));
        assert_ne!(of(&on, "a", b"{ }").map(|asked| asked.work), Some(one.work), "to the byte");
        assert_ne!(of(&on, "b", b"{}").map(|asked| asked.run), Some(one.run), "tenants never meet");
        let named = [on[0], on[1], ("x-seawall-attempt", "2")];
        let second = of(&named, "a", b"{}").expect("wanted");
        assert_eq!((second.run, second.work), (one.run, one.work));
        assert_ne!(second.attempt, one.attempt);
    }

    #[test]
    fn bad_wishes_are_told() {
        for bad in [&[("x-seawall-memo", "on")] as &[_], &[("x-seawall-memo", "yes"), ("x-seawall-run", "r")]]
        {
            let refused = wanted(&headers(bad), &Tenant::local(), None, Protocol::Chat, b"{}");
            assert_eq!(refused.expect_err("bad").code, Code::BadHeader);
        }
    }
}
