//! The real client: hyper over rustls, every answer within its limits, redirects under the guard.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, Method, Uri, Version, header};
use http_body_util::{BodyStream, Full};
use hyper::body::Incoming;
use ipnet::IpNet;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use url::Url;

use super::{
    Body, ClientCertificate, Destination, Error, Host, Http, Outbound, Repeatable, Request, Steady,
    pool::{Connection, Key, Plain, Pool, Ways},
    proxy::Proxy,
};
use crate::{Dns, Guard, SetupError, Tasks};

/// Who asks, where the caller does not say it: some firewalls turn away whoever does not.
const AGENT: &str = concat!("Chappe/", env!("CARGO_PKG_VERSION"));

pub(crate) struct Client {
    pool: Arc<Pool>,
}

impl Client {
    pub(crate) fn new(outbound: &Outbound, dns: Arc<dyn Dns>, tasks: &Tasks) -> Result<Self, SetupError> {
        let roots = Arc::new(roots(outbound)?);
        let connector = |certificate: Option<&ClientCertificate>| {
            tls(Arc::clone(&roots), certificate).map(|config| TlsConnector::from(Arc::new(config)))
        };
        let ways = Ways {
            guard: Guard::new(outbound.allowed_ranges.clone()),
            tls: connector(None)?,
            peer_tls: connector(outbound.client_certificate.as_ref())?,
            proxy: outbound.proxy.as_deref().map(Proxy::read).transpose()?,
        };
        let timeouts =
            (Duration::from_secs(outbound.connect_timeout_s), Duration::from_secs(outbound.idle_timeout_s));
        Ok(Self { pool: Pool::new(dns, ways, tasks, timeouts) })
    }

    /// One exchange, no redirects.
    async fn exchange(
        &self,
        key: Key,
        request: &http::Request<Bytes>,
    ) -> Result<(Parts, Incoming, Back), Error> {
        if let Some(kept) = self.pool.kept(&key)
            && let Some(answer) = self.try_on(kept, &key, request, may_be_repeated(request)).await?
        {
            return Ok(answer);
        }
        let fresh = self.pool.connect(&key).await?;
        let answer = self.try_on(fresh, &key, request, false).await?;
        answer.ok_or_else(|| Error::Unreachable(format!("{}: the connection closed at once", key.connect)))
    }

    /// `None` when the connection had gone before the request left, so that another may be tried; with `again` also when it
    /// went before an answer came.
    async fn try_on(
        &self,
        connection: Connection,
        key: &Key,
        request: &http::Request<Bytes>,
        again: bool,
    ) -> Result<Option<(Parts, Incoming, Back)>, Error> {
        let outcome = match connection {
            Connection::One(mut one) => {
                let sent = one.try_send_request(for_http1(request)?).await;
                sent.map(|answer| (answer, Some(one)))
            }
            Connection::Two(mut two) => {
                two.try_send_request(for_http2(request, key)?).await.map(|answer| (answer, None))
            }
        };
        match outcome {
            Ok((answer, one)) => {
                let (parts, body) = answer.into_parts();
                let back = one.map(|one| (Arc::clone(&self.pool), key.clone(), one));
                Ok(Some((parts, body, back)))
            }
            Err(mut error) => match error.take_message() {
                Some(_unsent) => Ok(None),
                None if again => {
                    tracing::debug!(host = %key.connect, error = %error.error(), "a kept connection broke");
                    Ok(None)
                }
                None => Err(Error::Broken(format!("{}: {}", key.connect, error.error()))),
            },
        }
    }

    async fn follow(
        &self,
        url: Uri,
        mut request: Request,
        (redirects, way): (u8, Way),
    ) -> Result<(Parts, Incoming, Back), Error> {
        let mut url = Url::parse(&url.to_string()).map_err(|e| Error::Invalid(e.to_string()))?;
        for _ in 0..=redirects {
            let (key, authority) = target(&url, way.clone())?;
            *request.http.uri_mut() = path_of(&url)?;
            request.http.headers_mut().insert(header::HOST, header_value(&authority)?);
            let (parts, body, back) = self.exchange(key, &request.http).await?;
            let location = parts.headers.get(header::LOCATION).and_then(|v| v.to_str().ok());
            let next = location.filter(|_| parts.status.is_redirection()).map(|l| url.join(l));
            let Some(next) = next.filter(|_| redirects > 0) else { return Ok((parts, body, back)) };
            let next = next.map_err(|_| Error::Redirects)?;
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(Error::Redirects);
            }
            redirect(&mut request.http, &parts, &url, &next);
            url = next;
        }
        Err(Error::Redirects)
    }
}

/// What of a URL's destination makes a connection another one.
#[derive(Clone, Default)]
struct Way {
    instead: Option<Arc<[IpNet]>>,
    peer: bool,
}

impl Way {
    fn to(ranges: Arc<[IpNet]>) -> Self {
        Self { instead: Some(ranges), peer: false }
    }
}

type Parts = http::response::Parts;
/// Where an HTTP/1 connection goes when its answer has been read.
type Back = Option<(Arc<Pool>, Key, Plain)>;

#[async_trait]
impl Http for Client {
    async fn stream(&self, mut request: Request) -> Result<http::Response<Body>, Error> {
        let agent = request.http.headers_mut().entry(header::USER_AGENT);
        agent.or_insert(HeaderValue::from_static(AGENT));
        let (limits, deadline) = (request.limits, Instant::now() + request.limits.deadline);
        let is_steady = request.http.extensions().get::<Steady>().is_some();
        let exchange = async {
            match request.destination.clone() {
                Destination::Url { redirects } => {
                    let url = request.http.uri().clone();
                    self.follow(url, request, (redirects, Way::default())).await
                }
                Destination::Peer { redirects } => {
                    let url = request.http.uri().clone();
                    self.follow(url, request, (redirects, Way { peer: true, instead: None })).await
                }
                Destination::Foreign { redirects } => {
                    let url = request.http.uri().clone();
                    self.follow(url, request, (redirects, Way::to(Arc::default()))).await
                }
                Destination::Web { ranges } => {
                    let url = request.http.uri().clone();
                    self.follow(url, request, (0, Way::to(ranges))).await
                }
                Destination::Host(host) => {
                    let mut http = request.http;
                    http.headers_mut().insert(header::HOST, header_value(&host.header)?);
                    self.exchange(key_of(host), &http).await
                }
            }
        };
        let answer = tokio::time::timeout_at(deadline, exchange).await.map_err(|_| Error::Timeout)?;
        let (parts, incoming, back) = answer?;
        let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length: u64| length > limits.max_bytes) {
            return Err(Error::TooLong);
        }
        let body = Body::new(pieces(incoming, back), limits, deadline);
        let body = if is_steady { body.steady(limits.deadline) } else { body };
        Ok(http::Response::from_parts(parts, body))
    }
}

/// The data of a body; at its end the connection goes back into the pool.
fn pieces(incoming: Incoming, back: Back) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    let data = BodyStream::new(incoming).filter_map(async |frame| match frame {
        Ok(frame) => frame.into_data().ok().map(Ok),
        Err(error) => Some(Err(Error::Broken(error.to_string()))),
    });
    let end = futures_util::stream::once(async move {
        if let Some((pool, key, mut one)) = back
            && one.ready().await.is_ok()
        {
            pool.keep(key, one);
        }
    });
    Box::pin(data).chain(end.filter_map(async |()| None))
}

/// Whether it does no harm if it was dealt with already (RFC 9110 §9.2.2).
fn may_be_repeated(request: &http::Request<Bytes>) -> bool {
    request.method().is_idempotent() || request.extensions().get::<Repeatable>().is_some()
}

fn key_of(host: Host) -> Key {
    Key { connect: host.connect, port: host.port, tls_name: Some(host.tls_name), instead: None, peer: true }
}

/// The connection and the `Host` header that a URL asks for.
fn target(url: &Url, Way { instead, peer }: Way) -> Result<(Key, String), Error> {
    let invalid = || Error::Invalid("a URL with http or https and a host is needed".to_owned());
    let tls = match url.scheme() {
        "http" => false,
        "https" => true,
        _ => return Err(invalid()),
    };
    let (host, port) =
        (url.host_str().ok_or_else(invalid)?, url.port_or_known_default().ok_or_else(invalid)?);
    let connect = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    Ok((Key { tls_name: tls.then(|| connect.clone()), connect, port, instead, peer }, authority))
}

fn path_of(url: &Url) -> Result<Uri, Error> {
    let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
    format!("{}{query}", url.path()).parse().map_err(|e| Error::Invalid(format!("{e}")))
}

fn header_value(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|_| Error::Invalid("not a host name".to_owned()))
}

/// Turns a request into what a redirect asks for; credentials never go to another host.
fn redirect(request: &mut http::Request<Bytes>, answer: &Parts, from: &Url, to: &Url) {
    if matches!(answer.status.as_u16(), 301..=303) && *request.method() != Method::HEAD {
        *request.method_mut() = Method::GET;
        *request.body_mut() = Bytes::new();
        request.headers_mut().remove(header::CONTENT_TYPE);
        request.headers_mut().remove(header::CONTENT_LENGTH);
    }
    if from.origin() != to.origin() {
        request.headers_mut().remove(header::AUTHORIZATION);
        request.headers_mut().remove(header::COOKIE);
    }
}

fn for_http1(request: &http::Request<Bytes>) -> Result<http::Request<Full<Bytes>>, Error> {
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut http1 = request.clone().map(Full::new);
    *http1.uri_mut() = path.parse().map_err(|_| Error::Invalid("path".to_owned()))?;
    *http1.version_mut() = Version::HTTP_11;
    Ok(http1)
}

/// HTTP/2 says the host in the URI and not in a header.
fn for_http2(request: &http::Request<Bytes>, key: &Key) -> Result<http::Request<Full<Bytes>>, Error> {
    let mut http2 = request.clone().map(Full::new);
    let host = http2.headers_mut().remove(header::HOST);
    let authority = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or(&key.connect).to_owned();
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let uri = Uri::builder().scheme("https").authority(authority).path_and_query(path).build();
    *http2.uri_mut() = uri.map_err(|e| Error::Invalid(e.to_string()))?;
    *http2.version_mut() = Version::HTTP_2;
    Ok(http2)
}

fn roots(outbound: &Outbound) -> Result<RootCertStore, SetupError> {
    let mut roots = RootCertStore::empty();
    if outbound.system_authorities {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    for file in &outbound.certificate_authorities {
        let fail = |reason: String| SetupError::Authority { file: file.display().to_string(), reason };
        let certificates = CertificateDer::pem_file_iter(file).map_err(|e| fail(e.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|e| fail(e.to_string()))?;
            roots.add(certificate).map_err(|e| fail(e.to_string()))?;
        }
    }
    Ok(roots)
}

fn tls(
    roots: Arc<RootCertStore>,
    certificate: Option<&ClientCertificate>,
) -> Result<ClientConfig, SetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring offers the protocol versions that are compiled in")
        .with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let fail = |file: &Path, reason: String| SetupError::Certificate {
                file: file.display().to_string(),
                reason,
            };
            let chain: Result<Vec<_>, _> =
                CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect);
            let chain = chain.map_err(|error| fail(&files.certificate, error.to_string()))?;
            let key = PrivateKeyDer::from_pem_file(&files.key)
                .map_err(|error| fail(&files.key, error.to_string()))?;
            let own = builder.with_client_auth_cert(chain, key);
            own.map_err(|error| fail(&files.certificate, error.to_string()))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests;
