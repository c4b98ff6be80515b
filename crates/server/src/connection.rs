//! One connection: HTTP/1.1 or HTTP/2, ended in an orderly way, and almost nothing while its request waits.
//!
//! hyper keeps some 16 KiB to read and to write for each connection of HTTP/1. Most connections wait in a long-poll: after
//! a moment theirs is taken out of hyper's hands, only the stream and the work on the answer stay. Once there is an
//! answer, a new hyper connection on the same stream hands it out, as if to a short request of the same kind, and goes on.

mod taken;

use std::{
    convert::Infallible,
    fmt::Display,
    future::{self, pending, poll_fn},
    io,
    net::IpAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Poll, ready},
    time::Duration,
};

use axum::{Router, body::Body};
use chappe_web::Peer;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, Version, header};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    sync::Notify,
};
use tower::ServiceExt as _;

use self::taken::{Pieces, Requests};
use crate::{listen::Doorman, resumed::Resumed};

/// A connection over which nothing was asked for so long is closed.
const IDLE: Duration = Duration::from_mins(3);
/// A connection that is to end is left when less than this, in bytes, went out in that time, and so is an answer over HTTP/2: the
/// client does not fetch what it asked for.
const HARDLY_ANYTHING: u64 = 16 << 10;
/// Requests of one HTTP/2 connection under way at once.
const STREAMS: u32 = 64;
/// What a client may send over HTTP/2, in bytes, before it is read: of one request, and of all of a connection.
const WINDOWS: (u32, u32) = (256 << 10, 1 << 20);
/// What of an answer over HTTP/2 waits to be sent, in bytes.
const SEND_BUFFER: usize = 64 << 10;
/// A request that has waited for so long is put aside.
const LONG: Duration = Duration::from_secs(1);
/// How HTTP/2 begins where TLS has not settled it (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes read at once from a client whose request waits: it has nothing to say.
const GLANCE: usize = 64;

type Answered = Response<Body>;

/// Answers the requests of one connection. When the world stops, what is under way is finished. `peer` is unknown on a
/// Unix socket.
pub(crate) async fn serve_connection<S>(doorman: &Doorman, stream: S, peer: Option<IpAddr>, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let desk = Arc::new(Desk { router, peer, ..Desk::default() });
    let mut stream = Resumed::new(stream);
    let http2 = tokio::select! {
        biased;
        () = doorman.world.stopping() => return,
        opened = doorman.world.timeout(doorman.header_timeout, opening(&mut stream)) => opened,
    };
    match http2 {
        Some(Ok(true)) => Box::pin(serve_http2(doorman, stream, desk)).await,
        Some(Ok(false)) => serve_http1(doorman, stream, desk).await,
        // Who never asked for anything is owed nothing.
        Some(Err(_)) | None => {}
    }
}

/// Reads until it is clear whether the client speaks HTTP/2; what was read will be read again.
async fn opening<S: AsyncRead + Unpin>(stream: &mut Resumed<S>) -> io::Result<bool> {
    let (mut begun, mut length) = ([0; PREFACE.len()], 0);
    loop {
        let more = stream.read(&mut begun[length..]).await?;
        length += more;
        let same = PREFACE.starts_with(&begun[..length]);
        if more == 0 || !same || length == PREFACE.len() {
            stream.unread(&begun[..length]);
            return Ok(same && length == PREFACE.len());
        }
    }
}

async fn serve_http2<S>(doorman: &Doorman, stream: Resumed<S>, desk: Arc<Desk>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http2::Builder::new(Requests(doorman.world.clone()));
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_mins(1))
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_send_buf_size(SEND_BUFFER);
    let (asked, sent) = (Arc::clone(&desk), stream.sent());
    let service = service_fn(move |request| {
        let answer = asked.answer(request);
        async move { Ok::<_, Infallible>(answer.await.map(Pieces::of)) }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        owed = desk.ending(doorman) => {
            if !owed {
                return;
            }
            connection.as_mut().graceful_shutdown();
            let Some(ended) = taken_leave(doorman, &sent, Box::pin(connection)).await else { return };
            ended
        }
    };
    log(ended);
}

async fn serve_http1<S>(doorman: &Doorman, mut stream: Resumed<S>, desk: Arc<Desk>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Boxed: the room that hyper's connection takes is free again while the request waits.
    while let Some((rest, waiting)) = Box::pin(until_waiting(doorman, stream, &desk)).await {
        stream = rest;
        let answer = tokio::select! {
            biased;
            answer = waiting.answer => answer,
            () = closed(&mut stream) => return,
        };
        stream.unread(waiting.again);
        *desk.answered.lock() = Some(answer);
    }
}

/// Speaks HTTP/1 until the connection ends, or until a request waits long and what was asked before it is answered.
async fn until_waiting<S>(
    doorman: &Doorman,
    stream: Resumed<S>,
    desk: &Arc<Desk>,
) -> Option<(Resumed<S>, Waiting)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (unsent, sent) = (stream.unsent(), stream.sent());
    let asked = Arc::clone(desk);
    let service = service_fn(move |request| {
        let answer = Arc::clone(&asked).answer_or_wait(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(doorman.header_timeout);
    let mut connection = builder.serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        biased;
        ended = &mut connection => ended,
        waiting = desk.waits_long(doorman, &unsent) => {
            let parts = connection.into_parts();
            let mut stream = parts.io.into_inner();
            stream.unread(&parts.read_buf);
            return Some((stream, waiting));
        }
        owed = desk.ending(doorman) => {
            if !owed {
                return None;
            }
            Pin::new(&mut connection).graceful_shutdown();
            taken_leave(doorman, &sent, Box::pin(connection)).await?
        }
    };
    log(ended);
    None
}

/// Waits for the end of a connection that is to end; none if its client hardly fetches anything any more.
async fn taken_leave<T>(doorman: &Doorman, sent: &AtomicU64, mut connection: BoxFuture<'_, T>) -> Option<T> {
    loop {
        let before = sent.load(Relaxed);
        if let Some(ended) = doorman.world.timeout(IDLE, connection.as_mut()).await {
            return Some(ended);
        }
        if sent.load(Relaxed) - before < HARDLY_ANYTHING {
            return None;
        }
    }
}

/// Ready when the client of a request that waits has closed the connection. If it says more, that is for later, and its
/// going is seen when it is answered.
async fn closed<S: AsyncRead + Unpin>(stream: &mut Resumed<S>) {
    if stream.is_fresh() {
        let mut next = [0; GLANCE];
        match stream.read(&mut next).await {
            Ok(0) | Err(_) => return,
            Ok(more) => stream.unread(&next[..more]),
        }
    }
    pending::<()>().await;
}

fn log<T>(ended: Result<T, impl Display>) {
    if let Err(error) = ended {
        tracing::trace!(%error, "connection ended");
    }
}

/// What is asked over one connection, and by whom.
#[derive(Default)]
struct Desk {
    router: Router,
    peer: Option<IpAddr>,
    requests: AtomicU64,
    under_way: AtomicUsize,
    /// The request under way, if it is of a kind that may be put aside.
    waiting: Mutex<Option<Waiting>>,
    /// There is one.
    begun: Notify,
    /// The answer to a request that was put aside.
    answered: Mutex<Option<Answered>>,
}

/// A request without a body that is being answered.
struct Waiting {
    number: u64,
    answer: BoxFuture<'static, Answered>,
    /// A request that is answered in the same manner: what hyper is given in its place.
    again: &'static [u8],
}

impl Desk {
    fn answer(self: &Arc<Self>, request: Request<Incoming>) -> BoxFuture<'static, Answered> {
        let mut request = request.map(Body::new);
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(Peer(peer));
        }
        let using = Using::begin(self);
        let answer = self.router.clone().oneshot(request);
        Box::pin(async move {
            let _using = using;
            answer.await.unwrap_or_else(|never| match never {})
        })
    }

    /// The same for HTTP/1, where one request at a time is under way.
    fn answer_or_wait(self: Arc<Self>, request: Request<Incoming>) -> BoxFuture<'static, Answered> {
        if let Some(answer) = self.answered.lock().take() {
            return Box::pin(future::ready(answer));
        }
        let again = stand_in(&request);
        let answer = self.answer(request);
        let Some(again) = again else { return answer };
        *self.waiting.lock() = Some(Waiting { number: self.requests.load(Relaxed), answer, again });
        self.begun.notify_one();
        Box::pin(poll_fn(move |context| {
            let mut slot = self.waiting.lock();
            let Some(waiting) = slot.as_mut() else { return Poll::Pending };
            let answer = ready!(waiting.answer.as_mut().poll(context));
            *slot = None;
            Poll::Ready(answer)
        }))
    }

    /// Takes the request under way once it has waited long. Not while something of an earlier answer is `unsent`.
    async fn waits_long(&self, doorman: &Doorman, unsent: &AtomicBool) -> Waiting {
        let under_way = || self.waiting.lock().as_ref().map(|waiting| waiting.number);
        loop {
            self.begun.notified().await;
            while let Some(number) = under_way() {
                doorman.world.sleep(LONG).await;
                if under_way() == Some(number)
                    && !unsent.load(Relaxed)
                    && let Some(waiting) = self.waiting.lock().take()
                {
                    return waiting;
                }
            }
        }
    }

    /// Waits until the connection is to be ended: the server stops, or nothing was asked in good time, at first or
    /// since. The protocol itself has no end for a client that opens one and keeps silent. Tells whether anything is
    /// owed to the client: not if it never asked.
    async fn ending(&self, doorman: &Doorman) -> bool {
        let fallen_idle = async {
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
        };
        tokio::select! {
            biased;
            () = doorman.world.stopping() => true,
            begun = fallen_idle => begun,
        }
    }
}

/// A request that is being answered.
struct Using(Arc<Desk>);

impl Using {
    fn begin(desk: &Arc<Desk>) -> Self {
        desk.requests.fetch_add(1, Relaxed);
        desk.under_way.fetch_add(1, Relaxed);
        Self(Arc::clone(desk))
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// The shortest request that is answered, and followed by the end of the connection or not, as this one is; `None` if it
/// may not be put aside.
fn stand_in(request: &Request<Incoming>) -> Option<&'static [u8]> {
    let headers = request.headers();
    let is_plain = request.method() == Method::GET
        && request.body().is_end_stream()
        && !headers.contains_key(header::UPGRADE)
        && !headers.contains_key(header::EXPECT);
    if !is_plain {
        return None;
    }
    let connection = headers.get(header::CONNECTION).map(|value| value.as_bytes().to_ascii_lowercase());
    match (request.version(), connection.as_deref()) {
        (Version::HTTP_11, None | Some(b"keep-alive")) => Some(b"GET / HTTP/1.1\r\n\r\n"),
        (Version::HTTP_11, Some(b"close")) => Some(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n"),
        (Version::HTTP_10, None | Some(b"close")) => Some(b"GET / HTTP/1.0\r\n\r\n"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
