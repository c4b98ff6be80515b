//! Events of other servers: Received → Checked → Complete → Judged → Committed.

use ruma::{OwnedEventId, RoomId, ServerName};
use serde_json::value::RawValue;

use crate::{Error, Result, Rooms};

/// Events that could not be completed.
#[derive(Debug, Default)]
pub(crate) struct Hopeless;

/// What became of a received event.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its id, if it could be worked out.
    pub event_id: Option<OwnedEventId>,
    /// Whether it was taken; a rejected or soft-failed event counts as taken.
    pub result: Result<()>,
}

impl Rooms {
    /// Takes the PDUs of a transaction from `origin`, one by one; a bad one never stops the others.
    pub async fn receive(&self, _origin: &ServerName, _pdus: Vec<Box<RawValue>>) -> Vec<Outcome> {
        Vec::new()
    }

    /// Fetches events older than the oldest this server has of `room`, up to about `limit`; gives how many came.
    pub async fn fetch_older(&self, _room: &RoomId, _limit: u16) -> Result<usize> {
        Err(Error::Retry)
    }
}
