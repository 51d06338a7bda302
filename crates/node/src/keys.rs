//! Who is calling: API keys as `serve` knows them, by the hash of the secret.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderMap;
use seawall_model::effect::Person;
use seawall_model::{Agent, At, Class, Code, Fault, Tenant};
use seawall_store::Key;
use sha2::{Digest, Sha256};

/// All keys at one revision of the store.
#[derive(Debug, Default)]
pub struct KeyTable {
    by_hash: HashMap<[u8; 32], Arc<Entry>>,
}

#[derive(Debug)]
struct Entry {
    id: Arc<str>,
    run: Option<Arc<str>>,
    key: Key,
}

/// Who a request comes from.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whose budget and share it uses.
    pub tenant: Tenant,
    /// The key's class, if it has one.
    pub class: Option<Class>,
    /// Models it may use; empty means all.
    pub models: Vec<String>,
    /// May it see the operations paths?
    pub admin: bool,
    /// May it use paths that pass through to an engine?
    pub pass_through: bool,
    /// The agent of calls that name none.
    pub agent: Option<Agent>,
    /// The run of calls that name none.
    pub run: Option<Arc<str>>,
    /// The key's public id.
    pub key: Option<Arc<str>>,
}

impl KeyTable {
    /// The table of these keys.
    #[must_use]
    pub fn new(keys: Vec<Key>) -> Self {
        let entry = |key: Key| {
            let (id, run) = (key.id.as_str().into(), key.run.as_deref().map(Into::into));
            (key.hash, Arc::new(Entry { id, run, key }))
        };
        Self { by_hash: keys.into_iter().map(entry).collect() }
    }

    /// Does every call need a key? From the first key on, even when all are revoked:
    /// revoking the last one must not open the door.
    #[must_use]
    pub fn closed(&self) -> bool {
        !self.by_hash.is_empty()
    }

    /// Who decides with the key of this public id, if there is one that works at `now`, by
    /// the wall clock.
    #[must_use]
    pub fn person(&self, id: &str, now: At) -> Option<Person> {
        let entry = self.by_hash.values().find(|entry| &*entry.id == id && entry.key.works(now))?;
        let (tenant, admin) = (entry.key.tenant.clone(), entry.key.admin);
        Some(Person { name: entry.id.clone(), tenant, admin, alone: false })
    }

    /// Who sent these headers.
    ///
    /// # Errors
    /// `BadKey`, saying whether the key is missing, unknown, revoked or expired at `now`, by the
    /// wall clock.
    pub fn caller(&self, headers: &HeaderMap, now: At) -> Result<Caller, Fault> {
        if !self.closed() {
            check_local(headers)?;
            return Ok(Caller {
                tenant: Tenant::local(),
                class: None,
                models: Vec::new(),
                admin: true,
                pass_through: true,
                agent: None,
                run: None,
                key: None,
            });
        }
        let Some(secret) = secret(headers) else {
            return Err(Fault::new(Code::BadKey, "No API key was sent.").at("authorization"));
        };
        let hash: [u8; 32] = Sha256::digest(secret).into();
        let Some(entry) = self.by_hash.get(&hash) else {
            return Err(Fault::new(Code::BadKey, "The API key is not known here.").at("authorization"));
        };
        if !entry.key.works(now) {
            let gone = if entry.key.revoked.is_some() { "was revoked" } else { "has expired" };
            let message = format!("The API key {} {gone}.", entry.id);
            return Err(Fault::new(Code::BadKey, message).at("authorization"));
        }
        Ok(Caller {
            tenant: entry.key.tenant.clone(),
            class: entry.key.class,
            models: entry.key.models.clone(),
            admin: entry.key.admin,
            pass_through: entry.key.pass_through,
            agent: entry.key.agent.clone(),
            run: entry.run.clone(),
            key: Some(entry.id.clone()),
        })
    }
}

/// An open server answers programs on this machine, not web pages that a browser on it
/// has open: those come with an `Origin`, or with a `Host` that only points here.
fn check_local(headers: &HeaderMap) -> Result<(), Fault> {
    let foreign = |name: http::HeaderName| {
        let value = headers.get(name)?.to_str().ok()?;
        let authority = value.split_once("://").map_or(value, |(_, rest)| rest);
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next()?,
            None => authority.split(':').next()?,
        };
        (!crate::upstream::is_loopback(host)).then_some(())
    };
    if foreign(http::header::ORIGIN).or_else(|| foreign(http::header::HOST)).is_some() {
        let message =
            "Without an API key only programs on this machine are served, not web pages of other hosts.";
        return Err(Fault::new(Code::BadKey, message).at("origin"));
    }
    Ok(())
}

/// The secret in `Authorization: Bearer`, `x-api-key` (Anthropic) or `api-key` (Azure).
fn secret(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(http::header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
    let bearer = bearer.and_then(|value| match value.split_at_checked(7) {
        Some((scheme, secret)) if scheme.eq_ignore_ascii_case(b"bearer ") => Some(secret.trim_ascii()),
        _ => None,
    });
    let named = |name: &str| headers.get(name).map(|value| value.as_bytes().trim_ascii());
    bearer.or_else(|| named("x-api-key")).or_else(|| named("api-key")).filter(|secret| !secret.is_empty())
}
