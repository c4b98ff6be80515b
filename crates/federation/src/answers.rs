//! Long answers to other servers: so many are worked out at a time, and so many bytes of them are kept until the server that
//! asked has fetched them, for which it has some time.

mod shelf;

use std::{sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use bytes::{Bytes, BytesMut};
use chappe_web::Error;
use futures_util::stream;
use http::{HeaderValue, header};
use ruma::{
    OwnedServerName, ServerName,
    api::{OutgoingResponse, OutgoingResponseExt},
};
use serde::Serialize;
use tokio::sync::oneshot;

use self::shelf::{PIECE, Shelf};
use crate::{
    Federation,
    places::{Place, Places},
    refusal::Refusal,
};

/// How long a server waits until its answer is worked out at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to fetch it.
const KEPT_FOR: Duration = Duration::from_mins(2);
/// Bytes that are kept of each kind, and of them for one server.
const KEPT: usize = 256 << 20;
const KEPT_FOR_ONE: usize = 64 << 20;

/// What inbound handlers give whose answers are long.
pub(crate) type LongAnswer = Result<Response, Refusal>;

/// What a long answer holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// The state of a room that is joined.
    Join,
    /// A state, or what an event rests on.
    State,
    /// Some events.
    History,
}

/// Places for long answers.
pub(crate) struct Answers {
    joins: Desk,
    states: Desk,
    history: Desk,
}

struct Desk {
    work: Places,
    shelf: Shelf,
}

/// A place for working out one answer, until it is written.
pub(crate) struct Turn {
    kind: Kind,
    origin: OwnedServerName,
    _work: Place,
}

impl Default for Answers {
    fn default() -> Self {
        let desk = |all, share| Desk { work: Places::new(all, share), shelf: Shelf::new(KEPT, KEPT_FOR_ONE) };
        Self { joins: desk(4, 2), states: desk(4, 2), history: desk(8, 4) }
    }
}

impl Answers {
    fn desk(&self, kind: Kind) -> &Desk {
        match kind {
            Kind::Join => &self.joins,
            Kind::State => &self.states,
            Kind::History => &self.history,
        }
    }
}

impl Federation {
    /// A turn to work out a long answer for `origin`; 503 if none comes in time.
    pub(crate) async fn turn(&self, kind: Kind, origin: &ServerName) -> Result<Turn, Refusal> {
        let work = self.0.answers.desk(kind).work.take(origin);
        let work = self.network().world().timeout(PATIENCE, work).await;
        let work = work.ok_or_else(|| Refusal(Error::busy()))?;
        Ok(Turn { kind, origin: origin.to_owned(), _work: work })
    }

    /// An answer that has a turn; 503 if there is no room for it until it is fetched.
    pub(crate) fn in_turn(&self, turn: Turn, answer: impl OutgoingResponse) -> LongAnswer {
        let answer = answer
            .try_into_http_response::<BytesMut>()
            .map_err(|error| Error::internal(format_args!("a response cannot be written: {error}")))?;
        let (head, body) = answer.into_parts();
        let body = body.freeze();
        let length = HeaderValue::from(body.len());
        let mut answer = Response::from_parts(head, self.in_pieces(turn, body)?);
        answer.headers_mut().insert(header::CONTENT_LENGTH, length);
        Ok(answer)
    }

    /// The same for JSON that no endpoint type knows.
    pub(crate) fn json_in_turn(&self, turn: Turn, answer: &impl Serialize) -> LongAnswer {
        let body = Bytes::from(serde_json::to_vec(answer).map_err(Error::internal)?);
        let length = HeaderValue::from(body.len());
        let mut answer = Response::new(self.in_pieces(turn, body)?);
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, length);
        Ok(answer)
    }

    /// A body that is let go once it is fetched, was not for too long, or gives way to another.
    fn in_pieces(&self, turn: Turn, body: Bytes) -> Result<Body, Refusal> {
        let Turn { kind, origin, _work } = turn;
        if body.len() <= PIECE {
            return Ok(Body::from(body));
        }
        let world = self.network().world().clone();
        let shelf = &self.0.answers.desk(kind).shelf;
        let kept = shelf.put(origin, body, world.instant()).ok_or_else(|| Refusal(Error::busy()))?;
        let (fetching, fetched) = oneshot::channel::<()>();
        let (left, clock) = (Arc::downgrade(&kept), world.clone());
        // A task: a connection over which nothing moves does not ask for the next piece.
        world.spawn("long answer", async move {
            if clock.timeout(KEPT_FOR, fetched).await.is_none()
                && let Some(left) = left.upgrade()
            {
                left.let_go();
            }
        });
        Ok(Body::from_stream(stream::unfold((kept, world, fetching), async |(kept, world, fetching)| {
            let piece = kept.next_piece(world.instant())?;
            Some((piece, (kept, world, fetching)))
        })))
    }
}
