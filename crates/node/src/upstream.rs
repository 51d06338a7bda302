//! Connections to engines: pooled and bounded, over TLS where the URL says so, through
//! the environment's proxy where there is one, names looked up anew for each new
//! connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tower_service::Service;

use seawall_model::{Millis, limits};

use crate::memory::Hold;
use crate::tasks::{Kind, Tasks};

/// A pooled client of one engine.
pub type Client = hyper_util::client::legacy::Client<Timed, Sending>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

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

/// Bytes read from an engine at a time.
const READ_BYTES: usize = 4 << 10;

/// Makes a client for one engine.
///
/// # Errors
/// The extra roots cannot be read.
pub fn client(options: &Options, tasks: &Tasks) -> Result<Client, String> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_keepalive(Some(Duration::from_secs(15)));
    // Bounds what the kernel buffers for a client that reads slowly: with hyper's
    // window on either side one stream stays under 256 KiB.
    http.set_recv_buffer_size(Some(options.window));
    #[cfg(target_os = "linux")]
    http.set_tcp_user_timeout(Some(Duration::from_secs(30)));
    let matcher = options.proxy_from_env.then(|| Arc::new(Matcher::from_env()));
    let dial = Dial { http, matcher };
    let https = HttpsConnector::from((dial, tls(options.extra_roots.as_deref())?));
    let timed = Timed { https, limit: Duration::from_millis(options.connect.0) };
    let mut builder = hyper_util::client::legacy::Client::builder(tasks.executor(Kind::Upstream));
    builder
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_max_idle_per_host(limits::POOL_IDLE_MAX)
        .pool_idle_timeout(Duration::from_millis(limits::POOL_IDLE_MS_MAX))
        .http1_writev(false)
        // Read in small pieces: a token is a few hundred bytes, and what is read ahead of
        // a slow client is held for it.
        .http1_read_buf_exact_size(READ_BYTES);
    Ok(builder.build(timed))
}

fn tls(extra_roots: Option<&[u8]>) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for cert in extra_roots.map(CertificateDer::pem_slice_iter).into_iter().flatten() {
        let cert = cert.map_err(|why| format!("the certificate file is not PEM: {why}"))?;
        roots.add(cert).map_err(|why| format!("a certificate cannot be used as a root: {why}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|why| why.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // HTTP/1.1 on purpose: over HTTP/2 all calls to a provider would share one connection,
    // whose limit of streams is a queue that the kernel cannot see, attribute or order.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Connects, directly or through the environment's proxy.
#[derive(Clone, Debug)]
pub struct Dial {
    http: HttpConnector,
    matcher: Option<Arc<Matcher>>,
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.http.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        // What runs on this machine is never behind a proxy.
        let matcher = self.matcher.as_ref().filter(|_| !is_loopback(to.host().unwrap_or_default()));
        let proxy = matcher.and_then(|matcher| matcher.intercept(&to));
        let Some(proxy) = proxy else {
            let dialling = self.http.call(to);
            return Box::pin(async move { dialling.await.map_err(Into::into) });
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.http.clone());
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        let dialling = tunnel.call(to);
        Box::pin(async move { dialling.await.map_err(Into::into) })
    }
}

/// Is this host this machine?
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Bounds the whole of a connect: name look-up, TCP, proxy and TLS together.
#[derive(Clone, Debug)]
pub struct Timed {
    https: HttpsConnector<Dial>,
    limit: Duration,
}

impl Service<Uri> for Timed {
    type Response = <HttpsConnector<Dial> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let (limit, connecting) = (self.limit, self.https.call(to));
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err("the connect took too long".into()),
            }
        })
    }
}

/// A request body on its way to an engine.
#[derive(Debug)]
pub enum Sending {
    /// Held whole, so that it can be sent again.
    Whole(Option<Bytes>),
    /// Passed through as the client sends it. Boxed: most bodies are held whole, and a
    /// connection keeps room for several requests.
    Through(Box<Through>),
}

/// A body passed through up to a limit.
#[derive(Debug)]
pub struct Through {
    /// The client's body.
    pub body: Incoming,
    /// Bytes it may still send.
    pub left: u64,
    /// What it holds of the byte budget.
    pub hold: Hold,
}

impl Sending {
    /// A body held whole; empty bytes are no body.
    #[must_use]
    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Through(through) => {
                let frame = std::task::ready!(Pin::new(&mut through.body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| {
                    let frame = frame?;
                    let len = frame.data_ref().map_or(0, |data| data.len() as u64);
                    let left = through.left.checked_sub(len);
                    through.left = left.ok_or("the upload is larger than the limit")?;
                    Ok(frame)
                }))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Through(through) => through.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Through(through) => through.body.size_hint(),
        }
    }
}

/// Headers that belong to one hop (RFC 9110 section 7.6.1) or that name the other side.
const HOP: [http::HeaderName; 10] = [
    http::header::CONNECTION,
    http::header::PROXY_AUTHENTICATE,
    http::header::PROXY_AUTHORIZATION,
    http::header::TE,
    http::header::TRAILER,
    http::header::TRANSFER_ENCODING,
    http::header::UPGRADE,
    http::header::HOST,
    http::header::CONTENT_LENGTH,
    http::HeaderName::from_static("keep-alive"),
];

/// The client's headers that an engine may see: all but those of the hop, of the
/// client's own credentials, and Seawall's. Compression is declined, because the
/// stream must be readable to be metered.
#[must_use]
pub fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(headers.len() + 2);
    let hop = named_in_connection(headers);
    for (name, value) in headers {
        let ours = name.as_str().starts_with("x-seawall-");
        let secret = matches!(name.as_str(), "authorization" | "x-api-key" | "cookie" | "api-key");
        let coding = *name == http::header::ACCEPT_ENCODING || *name == http::header::EXPECT;
        let account = matches!(name.as_str(), "openai-organization" | "openai-project");
        if !(ours || secret || coding || account || HOP.contains(name) || hop(name)) {
            out.append(name.clone(), value.clone());
        }
    }
    out
}

/// The engine's headers that a client may see.
#[must_use]
pub fn returned(headers: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(headers.len() + 6);
    let hop = named_in_connection(headers);
    for (name, value) in headers {
        // The operator's account with the provider is not the tenant's business.
        let account =
            matches!(name.as_str(), "openai-organization" | "openai-project" | "anthropic-organization-id");
        let private = account || *name == http::header::SET_COOKIE || *name == http::header::SERVER;
        if !(private || HOP.contains(name) || hop(name)) {
            out.append(name.clone(), value.clone());
        }
    }
    out
}

/// Does `Connection` name this header as one of the hop (RFC 9110 section 7.6.1)?
fn named_in_connection(headers: &HeaderMap) -> impl Fn(&http::HeaderName) -> bool {
    let values = headers.get_all(http::header::CONNECTION);
    move |name| {
        let texts = values.iter().filter_map(|value| value.to_str().ok());
        let mut tokens = texts.flat_map(|text| text.split(','));
        tokens.any(|token| token.trim().eq_ignore_ascii_case(name.as_str()))
    }
}

/// A header value from text that may not be one.
#[must_use]
pub fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
