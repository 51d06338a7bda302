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
pub type Client = hyper_util::client::legacy::Client<HttpsConnector<Dial>, Sending>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How an engine's connections are made.
#[derive(Clone, Debug)]
pub struct Options {
    /// A connect (and TLS handshake) that takes longer has failed.
    pub connect: Millis,
    /// PEM of certificates to trust beside the usual ones.
    pub extra_roots: Option<Arc<[u8]>>,
    /// Use `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`?
    pub proxy_from_env: bool,
}

/// Makes a client for one engine.
///
/// # Errors
/// The extra roots cannot be read.
pub fn client(options: &Options, tasks: &Tasks) -> Result<Client, String> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(Duration::from_millis(options.connect.0)));
    http.set_keepalive(Some(Duration::from_secs(15)));
    // Bounds what the kernel buffers for a client that reads slowly: with hyper's
    // window on either side one stream stays under 256 KiB.
    http.set_recv_buffer_size(Some(limits::STREAM_WINDOW_BYTES));
    #[cfg(target_os = "linux")]
    http.set_tcp_user_timeout(Some(Duration::from_secs(30)));
    let matcher = options.proxy_from_env.then(|| Arc::new(Matcher::from_env()));
    let dial = Dial { http, matcher };
    let https = HttpsConnector::from((dial, tls(options.extra_roots.as_deref())?));
    let mut builder = hyper_util::client::legacy::Client::builder(tasks.executor(Kind::Upstream));
    builder
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_max_idle_per_host(limits::POOL_IDLE_MAX)
        .pool_idle_timeout(Duration::from_millis(limits::POOL_IDLE_MS_MAX))
        .http1_writev(false)
        .http1_max_buf_size(limits::STREAM_WINDOW_BYTES)
        // One slow reader must not use up the window that all streams of a connection
        // share; each stream's own window bounds the memory.
        .http2_initial_stream_window_size(limits::STREAM_WINDOW_BYTES as u32)
        .http2_initial_connection_window_size((1_u32 << 31) - 1)
        .http2_keep_alive_interval(Duration::from_secs(15))
        .http2_keep_alive_timeout(Duration::from_secs(10));
    Ok(builder.build(https))
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
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
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
        let proxy = self.matcher.as_ref().and_then(|matcher| matcher.intercept(&to));
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

/// A request body on its way to an engine.
#[derive(Debug)]
pub enum Sending {
    /// Held whole, so that it can be sent again.
    Whole(Option<Bytes>),
    /// Passed through as the client sends it, up to a limit.
    Through {
        /// The client's body.
        body: Incoming,
        /// Bytes it may still send.
        left: u64,
        /// What it holds of the byte budget.
        hold: Hold,
    },
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
            Self::Through { body, left, .. } => {
                let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| {
                    let frame = frame?;
                    let len = frame.data_ref().map_or(0, |data| data.len() as u64);
                    *left = left.checked_sub(len).ok_or("the upload is larger than the limit")?;
                    Ok(frame)
                }))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Through { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Through { body, .. } => body.size_hint(),
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
    for (name, value) in headers {
        let ours = name.as_str().starts_with("x-seawall-");
        let secret = matches!(name.as_str(), "authorization" | "x-api-key" | "cookie" | "api-key");
        let coding = *name == http::header::ACCEPT_ENCODING || *name == http::header::EXPECT;
        let account = matches!(name.as_str(), "openai-organization" | "openai-project");
        if !(ours || secret || coding || account || HOP.contains(name)) {
            out.append(name.clone(), value.clone());
        }
    }
    out
}

/// The engine's headers that a client may see.
#[must_use]
pub fn returned(headers: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(headers.len() + 6);
    for (name, value) in headers {
        let private = *name == http::header::SET_COOKIE || *name == http::header::SERVER;
        if !(private || HOP.contains(name)) {
            out.append(name.clone(), value.clone());
        }
    }
    out
}

/// A header value from text that may not be one.
#[must_use]
pub fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
