//! Answers over HTTP/2: given out in pieces, and dropped once their client hardly takes anything in.
//!
//! A client says how much of each answer it has room for. While it has none, hyper asks for no more of the answer and waits:
//! to give up is left to what runs the request.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use chappe_world::World;
use hyper::{
    body::{Body as HttpBody, Frame, SizeHint},
    rt::Executor,
};
use hyper_util::rt::TokioExecutor;
use tokio::sync::Notify;

use super::{HARDLY_ANYTHING, IDLE};

/// Bytes that are given to hyper at once. It asks for more when the client has room for what it was given.
const PIECE: usize = 16 << 10;

tokio::task_local! {
    /// Of the answer to the request that a task is for.
    static TAKEN: Arc<Taken>;
}

/// What was taken in of an answer.
#[derive(Default)]
struct Taken {
    begun: Notify,
    bytes: AtomicU64,
}

impl Taken {
    /// Ready once there is an answer of which hardly anything was taken in for long.
    async fn hardly_anything(&self, world: &World) {
        self.begun.notified().await;
        loop {
            let before = self.bytes.load(Relaxed);
            world.sleep(IDLE).await;
            if self.bytes.load(Relaxed) - before < HARDLY_ANYTHING {
                return;
            }
        }
    }
}

/// Runs the requests of a connection, each until its answer is taken in.
#[derive(Clone)]
pub(super) struct Requests(pub(super) World);

impl<F> Executor<F> for Requests
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, request: F) {
        let (world, taken) = (self.0.clone(), Arc::<Taken>::default());
        let request = TAKEN.scope(Arc::clone(&taken), request);
        TokioExecutor::new().execute(async move {
            tokio::select! {
                biased;
                () = request => {}
                () = taken.hardly_anything(&world) => {}
            }
        });
    }
}

/// The body of an answer, in pieces.
pub(super) struct Pieces {
    body: Body,
    /// What was read of it and not given out yet.
    rest: Bytes,
    taken: Arc<Taken>,
}

impl Pieces {
    /// To be called where [`Requests`] runs the request.
    pub(super) fn of(body: Body) -> Self {
        let taken = TAKEN.try_with(Arc::clone).unwrap_or_default();
        taken.begun.notify_one();
        Self { body, rest: Bytes::new(), taken }
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        self.taken.bytes.fetch_add(length as u64, Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint() + SizeHint::with_exact(self.rest.len() as u64)
    }
}
