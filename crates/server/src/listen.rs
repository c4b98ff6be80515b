//! Listeners: from a bound port to requests at a router, bounded and ended in an orderly way.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
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
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Wait after the system refused to accept a connection (no file descriptors left).
const REFUSED: Duration = Duration::from_millis(100);

/// What all listeners share.
#[derive(Clone)]
pub(crate) struct Doorman {
    pub(crate) world: World,
    /// Connections that may still be opened.
    pub(crate) places: Arc<Semaphore>,
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
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            let accepted = tokio::select! {
                biased;
                () = &mut stopping => return,
                accepted = door.listener.accept() => accepted,
            };
            let Ok((stream, peer)) = accepted else {
                self.world.sleep(REFUSED).await;
                continue;
            };
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
    let service = service_fn(move |request: Request<Incoming>| answer(router.clone(), peer, request));
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
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "connection ended");
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
