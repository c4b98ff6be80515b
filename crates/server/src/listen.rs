//! Listeners: from a bound port to requests at a router, bounded and ended in an orderly way.

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use chappe_world::World;
use tokio::{net::TcpListener, time::Instant};

use crate::{connection::serve_connection, places::Places, tls::Certificate};

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Wait after the system refused to accept a connection (no file descriptors left).
const REFUSED: Duration = Duration::from_millis(100);
/// One word about that in so much time.
const SELDOM: Duration = Duration::from_secs(10);

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

/// What a listener does when the system lets nobody in.
#[derive(Default)]
pub(crate) struct Refusals {
    said: Option<Instant>,
}

impl Refusals {
    /// Says so, and waits: what is missing may come free.
    pub(crate) async fn put_up_with(&mut self, error: &io::Error, world: &World) {
        let now = world.instant();
        if self.said.is_none_or(|said| now.saturating_duration_since(said) > SELDOM) {
            self.said = Some(now);
            tracing::error!(
                %error,
                "a connection was not accepted: if too many files are open, raise LimitNOFILE or lower `process.max_connections`"
            );
        }
        world.sleep(REFUSED).await;
    }
}

impl Doorman {
    /// Accepts connections until the world stops.
    pub(crate) async fn attend(self, door: Door) {
        let mut stopping = pin!(self.world.stopping());
        let mut refusals = Refusals::default();
        loop {
            let Some(place) = self.places.any().await else { return };
            let accepted = tokio::select! {
                biased;
                () = &mut stopping => return,
                accepted = door.listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    refusals.put_up_with(&error, &self.world).await;
                    continue;
                }
            };
            let Some(place) = self.places.give(place, peer.ip()) else { continue };
            let _ = stream.set_nodelay(true);
            let (doorman, router, tls) = (self.clone(), door.router.clone(), door.tls.clone());
            self.world.spawn_one_of_many("connection", async move {
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

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use chappe_world::{Fake, FakeNet, World};
    use tracing_subscriber::{fmt, prelude::*};

    use super::Refusals;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn that_nobody_is_let_in_is_said_now_and_then() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let _scope = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        let world = World::fake(Fake::new("hs", 1, &FakeNet::new()));
        let mut refusals = Refusals::default();
        for _ in 0..150 {
            refusals.put_up_with(&io::Error::other("too many open files"), &world).await;
        }
        let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(log.matches("too many open files").count(), 2, "{log}");
        assert!(log.contains("LimitNOFILE"), "{log}");
    }
}
