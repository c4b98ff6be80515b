//! Listeners: from a bound port to requests at a router, bounded and ended in an orderly way.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use chappe_web::Peer;
use chappe_world::World;
use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::places::Places;

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A connection over which nothing was asked for so long is closed.
const IDLE: Duration = Duration::from_mins(3);
/// Wait after the system refused to accept a connection (no file descriptors left).
const REFUSED: Duration = Duration::from_millis(100);

/// What all listeners share.
#[derive(Clone)]
pub(crate) struct Doorman {
    pub(crate) world: World,
    /// Connections that may still be opened.
    pub(crate) places: Places,
    /// Time for the head of a request.
    pub(crate) header_timeout: Duration,
}

/// A bound port and what answers there.
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    pub(crate) router: Router,
    pub(crate) tls: Option<TlsAcceptor>,
}

impl Doorman {
    /// Accepts connections until the world stops.
    pub(crate) async fn attend(self, door: Door) {
        let mut stopping = pin!(self.world.stopping());
        loop {
            let Some(place) = self.places.any().await else { return };
            let accepted = tokio::select! {
                biased;
                () = &mut stopping => return,
                accepted = door.listener.accept() => accepted,
            };
            let Ok((stream, peer)) = accepted else {
                self.world.sleep(REFUSED).await;
                continue;
            };
            let Some(place) = self.places.give(place, peer.ip()) else { continue };
            let _ = stream.set_nodelay(true);
            let (doorman, router, tls) = (self.clone(), door.router.clone(), door.tls.clone());
            self.world.spawn("connection", async move {
                let _place = place;
                // Boxed: a connection without TLS shall not keep the room that one with TLS takes, and none that of
                // its handshake.
                match tls {
                    None => Box::pin(doorman.serve(stream, peer, router)).await,
                    Some(tls) => {
                        let handshake = Box::pin(doorman.world.timeout(HANDSHAKE, tls.accept(stream)));
                        if let Some(Ok(stream)) = handshake.await {
                            Box::pin(doorman.serve(Box::new(stream), peer, router)).await;
                        }
                    }
                }
            });
        }
    }

    /// Answers the requests of one connection. When the world stops, what is under way is finished.
    async fn serve<S>(&self, stream: S, peer: SocketAddr, router: Router)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        serve_connection(self, stream, Some(peer.ip()), router).await;
    }
}

/// As [`Doorman::serve`], for any stream: `peer` is unknown on a Unix socket.
pub(crate) async fn serve_connection<S>(doorman: &Doorman, stream: S, peer: Option<IpAddr>, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let uses = Arc::new(Uses::default());
    let counted = Arc::clone(&uses);
    let service = service_fn(move |request: Request<Incoming>| {
        let answered = answer(router.clone(), peer, request);
        let using = Using::begin(&counted);
        async move {
            let _using = using;
            answered.await
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(doorman.header_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_mins(1))
        .max_concurrent_streams(250);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut stopping = pin!(doorman.world.stopping());
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = &mut stopping => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        begun = uses.fallen_idle(doorman) => {
            // Who never asked for anything is owed nothing; others get what is still on its way.
            if !begun {
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "connection ended");
    }
}

/// What a connection is used for. The protocol itself has no end for a client that opens one and keeps silent.
#[derive(Default)]
struct Uses {
    requests: AtomicU64,
    under_way: AtomicUsize,
}

impl Uses {
    /// Waits until nothing was asked in good time, at first or since; tells whether anything ever was.
    async fn fallen_idle(&self, doorman: &Doorman) -> bool {
        doorman.world.sleep(doorman.header_timeout).await;
        let mut before = 0;
        loop {
            let requests = self.requests.load(Relaxed);
            if requests == before && self.under_way.load(Relaxed) == 0 {
                return requests > 0;
            }
            before = requests;
            doorman.world.sleep(IDLE).await;
        }
    }
}

/// A request that is being answered.
struct Using(Arc<Uses>);

impl Using {
    fn begin(uses: &Arc<Uses>) -> Self {
        uses.requests.fetch_add(1, Relaxed);
        uses.under_way.fetch_add(1, Relaxed);
        Self(Arc::clone(uses))
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

async fn answer(
    router: Router,
    peer: Option<IpAddr>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let mut request = request.map(Body::new);
    if let Some(peer) = peer {
        request.extensions_mut().insert(Peer(peer));
    }
    router.oneshot(request).await
}
