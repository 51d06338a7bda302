//! Makes connections: name look-up, TCP, the environment's proxy and TLS, all within one
//! time limit.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::socket::Socket;
use super::{Options, is_loopback};
use crate::tls;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Connects, directly or through the environment's proxy.
pub(super) struct Dial {
    http: HttpConnector,
    matcher: Option<Matcher>,
    tls: TlsConnector,
    limit: Duration,
}

impl std::fmt::Debug for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dial").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Dial {
    /// Reads the roots and the environment once.
    pub(super) fn new(options: &Options) -> Result<Self, String> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(Duration::from_secs(15)));
        // Bounds what the kernel buffers for a client that reads slowly: with the server's
        // window on the other side one stream stays under 256 KiB.
        http.set_recv_buffer_size(Some(options.window));
        #[cfg(target_os = "linux")]
        http.set_tcp_user_timeout(Some(Duration::from_secs(30)));
        let matcher = options.proxy_from_env.then(Matcher::from_env);
        let tls = TlsConnector::from(Arc::new(trusting(options.extra_roots.as_deref())?));
        Ok(Self { http, matcher, tls, limit: Duration::from_millis(options.connect.0) })
    }

    /// A new connection to where `uri` points.
    pub(super) async fn connect(&self, uri: &Uri) -> Result<Socket, BoxError> {
        let connecting = async {
            let stream = self.tcp(uri).await?;
            if uri.scheme() != Some(&http::uri::Scheme::HTTPS) {
                return Ok(Socket::Plain(stream));
            }
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(host.to_owned())?;
            Ok(Socket::Tls(Box::new(self.tls.connect(name, stream).await?)))
        };
        match tokio::time::timeout(self.limit, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err("the connect took too long".into()),
        }
    }

    async fn tcp(&self, uri: &Uri) -> Result<TcpStream, BoxError> {
        // What runs on this machine is never behind a proxy.
        let matcher = self.matcher.as_ref().filter(|_| !is_loopback(uri.host().unwrap_or_default()));
        let Some(proxy) = matcher.and_then(|matcher| matcher.intercept(uri)) else {
            return Ok(self.http.clone().call(uri.clone()).await?.into_inner());
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.http.clone());
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        Ok(tunnel.call(uri.clone()).await?.into_inner())
    }
}

fn trusting(extra_roots: Option<&[u8]>) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(pem) = extra_roots {
        let pem = std::str::from_utf8(pem).map_err(|_| "the certificate file is not PEM")?;
        roots.roots.extend(tls::authorities(pem).map_err(|unfit| unfit.why)?.roots);
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
