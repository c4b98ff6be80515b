//! The body of an answer: a stream that ends in an error when a limit is reached.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Error, Limits, Steady};

type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// Pieces of an answer, in order. After an error nothing more comes.
pub struct Body {
    pieces: Option<Pieces>,
    left: u64,
    deadline: Pin<Box<Sleep>>,
    /// When it began and how long it may take in any case, if it may take longer at a pace.
    steady: Option<(Instant, Duration)>,
    came: u64,
}

impl Body {
    /// Puts limits on a stream of pieces; the deadline is a point, since time has passed already.
    pub fn new(
        pieces: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
        limits: Limits,
        deadline: Instant,
    ) -> Self {
        let deadline = Box::pin(sleep_until(deadline));
        Self { pieces: Some(Box::pin(pieces)), left: limits.max_bytes, deadline, steady: None, came: 0 }
    }

    /// The same for an answer that is [`Steady`], of which the deadline was `first` away when it began.
    #[must_use]
    pub fn steady(mut self, first: Duration) -> Self {
        self.steady = Some((self.deadline.deadline() - first, first));
        self
    }

    /// Ready once it has taken too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.deadline.as_mut().poll(cx));
        let Some((begun, first)) = self.steady else { return Poll::Ready(()) };
        let later = begun + Steady::time_for(first, self.came);
        if later <= Instant::now() {
            return Poll::Ready(());
        }
        self.deadline.as_mut().reset(later);
        self.deadline.as_mut().poll(cx)
    }

    fn fail(&mut self, error: Error) -> Poll<Option<Result<Bytes, Error>>> {
        self.pieces = None;
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for Body {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(pieces) = self.pieces.as_mut() else { return Poll::Ready(None) };
        match pieces.as_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(piece))) => match self.left.checked_sub(piece.len() as u64) {
                Some(left) => {
                    self.left = left;
                    self.came += piece.len() as u64;
                    Poll::Ready(Some(Ok(piece)))
                }
                None => self.fail(Error::TooLong),
            },
            Poll::Ready(Some(Err(error))) => self.fail(error),
            Poll::Ready(None) => {
                self.pieces = None;
                Poll::Ready(None)
            }
            Poll::Pending if self.poll_late(cx).is_ready() => self.fail(Error::Timeout),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Body with at most {} bytes left", self.left)
    }
}
