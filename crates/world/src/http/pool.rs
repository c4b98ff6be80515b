//! Connections: made under the guard, kept while they are of use.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    client::conn::{http1, http2},
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ipnet::IpNet;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
    time::Instant,
};
use tokio_rustls::TlsConnector;

use super::{
    Error,
    proxy::{Proxy, may_lead_to},
    race::race,
};
use crate::{Dns, DnsError, Guard, Tasks};

/// What makes two requests able to share a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) connect: String,
    pub(super) port: u16,
    /// `None` is plain HTTP.
    pub(super) tls_name: Option<String>,
    /// Ranges that count instead of those of the configuration.
    pub(super) instead: Option<Arc<[IpNet]>>,
    /// Whether it is another server, which is reached through the proxy and may ask for a certificate.
    pub(super) peer: bool,
}

/// How connections are made.
pub(super) struct Ways {
    pub(super) guard: Guard,
    pub(super) tls: TlsConnector,
    /// With this server's own certificate.
    pub(super) peer_tls: TlsConnector,
    pub(super) proxy: Option<Proxy>,
}

/// A connection without TLS, straight or through the proxy.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

pub(super) type Plain = http1::SendRequest<Full<Bytes>>;
pub(super) type Multiplexed = http2::SendRequest<Full<Bytes>>;

/// A connection ready for a request.
pub(super) enum Connection {
    One(Plain),
    Two(Multiplexed),
}

#[derive(Default)]
struct Slot {
    idle: Vec<(Plain, Instant)>,
    shared: Option<(Multiplexed, Instant)>,
}

pub(super) struct Pool {
    pub(super) dns: Arc<dyn Dns>,
    ways: Ways,
    pub(super) tasks: Tasks,
    pub(super) connect_timeout: Duration,
    pub(super) idle_timeout: Duration,
    slots: Mutex<HashMap<Key, Slot>>,
    look_ups: Arc<Semaphore>,
    /// Names that this machine's resolver did not find, and when.
    unknown: Mutex<HashMap<String, Instant>>,
}

/// Idle HTTP/1 connections kept for one host.
const IDLE_PER_HOST: usize = 8;
/// How long this machine's resolver has to say where a name leads for which the proxy is asked.
const LOOK_UP: Duration = Duration::from_secs(2);
/// Such look-ups under way at once: each holds a thread until the resolver gives up.
const LOOK_UPS: usize = 16;
/// For how long a name that it did not find is not looked up again, and how many of them are remembered.
const UNKNOWN_FOR: Duration = Duration::from_mins(5);
const MOST_UNKNOWN: usize = 1_000;

impl Pool {
    pub(super) fn new(
        dns: Arc<dyn Dns>,
        ways: Ways,
        tasks: &Tasks,
        (connect_timeout, idle_timeout): (Duration, Duration),
    ) -> Arc<Self> {
        let pool = Arc::new(Self {
            dns,
            ways,
            tasks: tasks.clone(),
            connect_timeout,
            idle_timeout,
            slots: Mutex::default(),
            look_ups: Arc::new(Semaphore::new(LOOK_UPS)),
            unknown: Mutex::default(),
        });
        let kept = Arc::downgrade(&pool);
        let signal = tasks.stop_signal();
        tasks.spawn("idle connections", async move {
            signal.cancelled().await;
            if let Some(pool) = kept.upgrade() {
                pool.slots.lock().clear();
            }
        });
        pool
    }

    /// A kept connection, if there is one that still stands.
    pub(super) fn kept(&self, key: &Key) -> Option<Connection> {
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(key)?;
        let fresh = Instant::now().checked_sub(self.idle_timeout);
        let usable = |used: Instant| fresh.is_none_or(|fresh| used > fresh);
        if let Some((shared, used)) = &mut slot.shared {
            if !shared.is_closed() && usable(*used) {
                *used = Instant::now();
                return Some(Connection::Two(shared.clone()));
            }
            slot.shared = None;
        }
        while let Some((one, used)) = slot.idle.pop() {
            if one.is_ready() && usable(used) {
                return Some(Connection::One(one));
            }
        }
        slots.remove(key);
        None
    }

    /// Takes back an HTTP/1 connection whose answer was read to its end.
    pub(super) fn keep(&self, key: Key, connection: Plain) {
        if connection.is_closed() {
            return;
        }
        let mut slots = self.slots.lock();
        // Looked at under the lock: what is kept after the stop would never be let go.
        if self.tasks.is_stopping() {
            return;
        }
        self.sweep(&mut slots);
        let slot = slots.entry(key).or_default();
        if slot.idle.len() < IDLE_PER_HOST {
            slot.idle.push((connection, Instant::now()));
        }
    }

    /// Forgets what was not used for long.
    fn sweep(&self, slots: &mut HashMap<Key, Slot>) {
        let Some(fresh) = Instant::now().checked_sub(self.idle_timeout) else { return };
        slots.retain(|_, slot| {
            slot.idle.retain(|(one, used)| *used > fresh && !one.is_closed());
            slot.shared.take_if(|(two, used)| *used <= fresh || two.is_closed());
            slot.shared.is_some() || !slot.idle.is_empty()
        });
    }

    /// A new connection.
    pub(super) async fn connect(&self, key: &Key) -> Result<Connection, Error> {
        let connected = tokio::time::timeout(self.connect_timeout, self.dial(key)).await;
        connected.map_err(|_| Error::Unreachable(format!("{}: no connection in time", key.connect)))?
    }

    async fn dial(&self, key: &Key) -> Result<Connection, Error> {
        let tcp: Box<dyn Wire> = match self.ways.proxy.as_ref().filter(|_| key.peer) {
            Some(proxy) => Box::new(self.tunnel(proxy, key).await?),
            None => Box::new(self.tcp(key).await?),
        };
        let Some(tls_name) = &key.tls_name else { return self.one(tcp).await };
        let name = ServerName::try_from(tls_name.clone())
            .map_err(|_| Error::Invalid(format!("{tls_name} is no server name")))?;
        let connector = if key.peer { &self.ways.peer_tls } else { &self.ways.tls };
        let tls = connector.connect(name, tcp).await.map_err(|e| unreachable(&key.connect, &e))?;
        if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
            return self.one(tls).await;
        }
        let (shared, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .handshake(TokioIo::new(tls))
            .await
            .map_err(|e| unreachable(&key.connect, &e))?;
        self.tasks.spawn("http2 connection", driver);
        let mut slots = self.slots.lock();
        if !self.tasks.is_stopping() {
            self.sweep(&mut slots);
            slots.entry(key.clone()).or_default().shared = Some((shared.clone(), Instant::now()));
        }
        Ok(Connection::Two(shared))
    }

    async fn one<S>(&self, stream: S) -> Result<Connection, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (one, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| Error::Unreachable(e.to_string()))?;
        self.tasks.spawn("http1 connection", driver);
        Ok(Connection::One(one))
    }

    async fn tunnel(&self, proxy: &Proxy, key: &Key) -> Result<TokioIo<Upgraded>, Error> {
        if !self.proxy_may_lead_to(&key.connect).await {
            return Err(Error::Refused(key.connect.clone()));
        }
        let tcp = first(&self.addresses(&proxy.host).await?, (&proxy.host, proxy.port)).await?;
        proxy.tunnel(tcp, (&key.connect, key.port), &self.tasks).await
    }

    /// Whether the proxy may be asked for a way to `host`. Which of a name's addresses it takes is not known here: one that is
    /// not permitted is enough to refuse. Many that need a proxy cannot look up names of outside; those it judges alone.
    async fn proxy_may_lead_to(&self, host: &str) -> bool {
        if !may_lead_to(host, &self.ways.guard) {
            return false;
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.ways.guard.permits(address);
        }
        if self.is_unknown(host) {
            return true;
        }
        let Ok(place) = Arc::clone(&self.look_ups).try_acquire_owned() else { return true };
        let (dns, name, stop) = (Arc::clone(&self.dns), host.to_owned(), self.tasks.stop_signal());
        let look_up = self.tasks.spawn("name for the proxy", async move {
            // Held for as long as the resolver works, whoever still waits for it.
            let _place = place;
            stop.run_until_cancelled(dns.addresses(&name)).await
        });
        let Ok(Ok(Some(Ok(found)))) = tokio::time::timeout(LOOK_UP, look_up).await else {
            self.note_unknown(host);
            return true;
        };
        found.into_iter().all(|address| self.ways.guard.permits(address))
    }

    fn is_unknown(&self, host: &str) -> bool {
        self.unknown.lock().get(host).is_some_and(|since| since.elapsed() < UNKNOWN_FOR)
    }

    fn note_unknown(&self, host: &str) {
        let mut unknown = self.unknown.lock();
        if unknown.len() >= MOST_UNKNOWN {
            unknown.retain(|_, since| since.elapsed() < UNKNOWN_FOR);
        }
        if unknown.len() < MOST_UNKNOWN {
            unknown.insert(host.to_owned(), Instant::now());
        }
    }

    /// Connects to the first permitted address that answers.
    async fn tcp(&self, key: &Key) -> Result<TcpStream, Error> {
        let found = self.addresses(&key.connect).await?;
        let instead = key.instead.as_ref().map(|ranges| Guard::new(ranges.to_vec()));
        let guard = instead.as_ref().unwrap_or(&self.ways.guard);
        let permitted: Vec<IpAddr> = found.into_iter().filter(|a| guard.permits(*a)).collect();
        if permitted.is_empty() {
            return Err(Error::Refused(key.connect.clone()));
        }
        first(&permitted, (&key.connect, key.port)).await
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Error> {
        match host.parse::<IpAddr>() {
            Ok(address) => Ok(vec![address]),
            Err(_) => self.dns.addresses(host).await.map_err(|error| match error {
                DnsError::Busy => Error::Busy,
                error @ DnsError::Failed(_) => unreachable(host, &error),
            }),
        }
    }
}

/// A connection to the first of these addresses that answers.
async fn first(addresses: &[IpAddr], (host, port): (&str, u16)) -> Result<TcpStream, Error> {
    #[expect(clippy::disallowed_methods, reason = "this is where connections are made")]
    let connect = |address: IpAddr| TcpStream::connect(SocketAddr::new(address, port));
    let failed =
        |error: Option<std::io::Error>| error.map_or(Error::Timeout, |error| unreachable(host, &error));
    let stream = race(addresses, connect).await.map_err(failed)?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

fn unreachable(host: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Unreachable(format!("{host}: {error}"))
}
