//! Calls on engines over HTTP/1.1: connections pooled and bounded, over TLS where the URL
//! says so, through the environment's proxy where there is one, names looked up anew for
//! each new connection.
//!
//! Our own client (ADR 0009), because a gateway is little else than this: an answer is
//! read by the very task that writes it to the client, with no task, channel or second
//! buffer between, and dropping it closes the engine's socket at once (I8).

use std::sync::Arc;

use http::{Method, Request, Response, Uri};
use seawall_model::Millis;
use seawall_wire::http1::Broken;

use crate::tasks::Tasks;

mod coming;
mod dial;
mod exchange;
mod headers;
mod pool;
mod sending;
mod socket;

pub use coming::Coming;
pub use headers::{forwarded, returned, value};
pub use sending::{Sending, Through, UploadFailed};

use dial::{BoxError, Dial};
use exchange::{Lost, Outgoing};
use pool::{Connection, Place, Pool};

/// How an engine's connections are made.
#[derive(Clone, Debug)]
pub struct Options {
    /// A connect (and TLS handshake) that takes longer has failed.
    pub connect: Millis,
    /// PEM of certificates to trust beside the usual ones.
    pub extra_roots: Option<Arc<[u8]>>,
    /// Bytes of an answer that the system may hold before it is read.
    pub window: usize,
    /// Use `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`?
    pub proxy_from_env: bool,
}

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The URL cannot be called.
    #[error("{0} is not a URL that can be called")]
    Url(Uri),
    /// There is no connection.
    #[error("cannot connect: {0}")]
    Connect(BoxError),
    /// The connection broke before the head of the answer.
    #[error("the connection broke: {0}")]
    Cut(std::io::Error),
    /// What came is no answer.
    #[error(transparent)]
    Garbled(#[from] Broken),
    /// The client's own upload failed.
    #[error(transparent)]
    Upload(#[from] UploadFailed),
}

/// A pooled client of one engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    dial: Arc<Dial>,
    pool: Arc<Pool>,
}

/// Makes a client for one engine.
///
/// # Errors
/// The extra roots cannot be read.
pub fn client(options: &Options, tasks: &Tasks) -> Result<Client, String> {
    Ok(Client { dial: Arc::new(Dial::new(options)?), pool: Arc::new(Pool::new(tasks.clone())) })
}

impl Client {
    /// Sends a request and resolves with the head of the answer. `again`: may it be sent
    /// a second time if a pooled connection turns out to have been closed by the engine
    /// before a byte came back? Never true of a body that streams through.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn request(&self, request: Request<Sending>, again: bool) -> Result<Response<Coming>, Failed> {
        let (parts, body) = request.into_parts();
        let place = Place::of(&parts.uri).ok_or_else(|| Failed::Url(parts.uri.clone()))?;
        let again = again.then(|| body.twin()).flatten();
        let bodiless = parts.method == Method::HEAD;
        if let Some(connection) = self.pool.take(&place) {
            let out = Outgoing::new(&parts, body);
            match self.exchange(connection, &place, out, bodiless).await {
                Err(Lost { failed: Failed::Cut(why), stale: true }) => {
                    // The engine hung up while the connection lay idle.
                    let body = again.ok_or(Failed::Cut(why))?;
                    return self.on_a_new_connection(&parts, body, &place, bodiless).await;
                }
                other => return other.map_err(|lost| lost.failed),
            }
        }
        self.on_a_new_connection(&parts, body, &place, bodiless).await
    }

    async fn on_a_new_connection(
        &self,
        parts: &http::request::Parts,
        body: Sending,
        place: &Place,
        bodiless: bool,
    ) -> Result<Response<Coming>, Failed> {
        // Boxed: dialling is rare, and its room would be carried by every call.
        let socket = Box::pin(self.dial.connect(&parts.uri)).await.map_err(Failed::Connect)?;
        let connection = Connection::new(socket);
        let out = Outgoing::new(parts, body);
        self.exchange(connection, place, out, bodiless).await.map_err(|lost| lost.failed)
    }

    async fn exchange(
        &self,
        mut connection: Box<Connection>,
        place: &Place,
        mut out: Outgoing,
        bodiless: bool,
    ) -> Result<Response<Coming>, Lost> {
        let head = exchange::exchange(&mut connection, &mut out, bodiless).await?;
        // An engine that refuses before it has all of the body does not want the rest.
        let sent = out.sent();
        let rest = (!sent && head.status.is_success()).then(|| Box::new(out));
        let keep = head.keep && (sent || rest.is_some());
        let home = keep.then(|| (self.pool.clone(), place.clone()));
        let mut response = Response::new(Coming::new(connection, head.body, home, rest));
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        Ok(response)
    }
}

/// Is this host this machine?
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests;
