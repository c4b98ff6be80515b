//! Listeners: from a bound port to requests at a router, bounded and ended in an orderly way.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::Router;
use chappe_world::World;
use tokio::net::TcpListener;

use crate::{connection::serve_connection, places::Places, tls::Certificate};

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
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
    pub(crate) tls: Option<Arc<Certificate>>,
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
                    None => Box::pin(serve_connection(&doorman, stream, Some(peer.ip()), router)).await,
                    Some(tls) => {
                        let handshake =
                            Box::pin(doorman.world.timeout(HANDSHAKE, tls.acceptor().accept(stream)));
                        if let Some(Ok(stream)) = handshake.await {
                            Box::pin(serve_connection(&doorman, Box::new(stream), Some(peer.ip()), router))
                                .await;
                        }
                    }
                }
            });
        }
    }
}
