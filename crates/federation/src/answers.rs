//! Long answers to other servers: so many are worked out at a time, and so many bytes of them are kept until the server that
//! asked has fetched them, for which it has some time.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::{Bytes, BytesMut};
use chappe_web::{Error, IN_ONE_PIECE, Kept, Shelf};
use chappe_world::{Steady, World};
use futures_util::stream;
use http::{HeaderValue, header};
use ruma::{
    OwnedServerName, ServerName,
    api::{OutgoingResponse, OutgoingResponseExt},
};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::{
    Federation,
    places::{Place, Places},
    refusal::Refusal,
};

/// How long a server waits until its answer is worked out at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to fetch it in any case; longer if it is fetched at a pace ([`Steady`]).
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
    shelf: Shelf<OwnedServerName>,
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
        if body.len() <= IN_ONE_PIECE {
            return Ok(Body::from(body));
        }
        let world = self.network().world().clone();
        let shelf = &self.0.answers.desk(kind).shelf;
        let kept = shelf.put(origin, body, world.instant()).ok_or_else(|| Refusal(Error::busy()))?;
        let (fetching, fetched) = oneshot::channel::<()>();
        // A task: a connection over which nothing moves does not ask for the next piece.
        world.spawn("long answer", look_after(world.clone(), Arc::downgrade(&kept), fetched));
        Ok(Body::from_stream(stream::unfold((kept, world, fetching), async |(kept, world, fetching)| {
            let piece = kept.next_piece(world.instant())?;
            Some((piece, (kept, world, fetching)))
        })))
    }
}

/// Lets go of an answer that is not fetched in time.
async fn look_after(world: World, kept: Weak<Kept<OwnedServerName>>, mut fetched: oneshot::Receiver<()>) {
    let (begun, mut time) = (world.instant(), KEPT_FOR);
    loop {
        let left = (begun + time).saturating_duration_since(world.instant());
        if world.timeout(left, &mut fetched).await.is_some() {
            return;
        }
        let Some(kept) = kept.upgrade() else { return };
        time = Steady::time_for(KEPT_FOR, kept.fetched().unwrap_or_default());
        if begun + time <= world.instant() {
            kept.let_go();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fetches so many pieces, with so many milliseconds before each; whether all came.
    async fn fetch(pieces: usize, pause: u64) -> bool {
        let world = crate::tests::world(1);
        let shelf = Shelf::new(KEPT, KEPT_FOR_ONE);
        let server = ruma::server_name!("a.example").to_owned();
        let body = Bytes::from(vec![b'x'; pieces * IN_ONE_PIECE]);
        let kept = shelf.put(server, body, world.instant()).unwrap();
        let (_fetching, fetched) = oneshot::channel();
        world.spawn("long answer", look_after(world.clone(), Arc::downgrade(&kept), fetched));
        for _ in 0..pieces {
            world.sleep(Duration::from_millis(pause)).await;
            if kept.next_piece(world.instant()).is_none_or(|piece| piece.is_err()) {
                return false;
            }
        }
        true
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_be_fetched_steadily_and_slowly_but_not_for_ever() {
        assert!(fetch(10, 10_000).await, "there is some time in any case");
        assert!(!fetch(30, 10_000).await, "less than the pace");
        assert!(fetch(800, 500).await, "twice the pace");
        assert!(!fetch(1_000, 950).await, "a quarter of an hour has gone by");
    }
}
