//! The events of one room: where they wait for their turn, by how their sender stands to the room, and are dealt with.

use std::{panic::AssertUnwindSafe, sync::atomic::Ordering::Relaxed, time::Duration};

use chappe_rooms::{Error as RoomError, Outcome};
use chappe_rules::Pdu;
use chappe_store::{Error, RoomNid};
use chappe_world::World;
use futures_util::FutureExt;
use ruma::{OwnedServerName, RoomId};
use serde_json::value::RawValue;

use crate::{
    Federation,
    gate::Standing,
    places::{Begun, Paces},
};

/// One of so many parts of the places is for one server.
const SHARE: usize = 4;
/// Places for servers that have nobody in the room, and for one of them.
const FOR_STRANGERS: usize = 2;
const FOR_ONE_STRANGER: usize = 1;
/// For how long these wait for one. What finds none is on disk by then, and tried again: who brought it may be in the room soon.
const STRANGERS_PATIENCE: Duration = Duration::from_secs(30);
/// For how long whoever is slow waits for a place among the slow. The same holds for what finds none.
const SLOW_PATIENCE: Duration = Duration::from_secs(10);

/// Places for rooms being worked on.
pub(super) struct Turns {
    members: Paces,
    /// What they send makes others be asked as well, and nobody here knows of them.
    strangers: Paces,
}

impl Turns {
    /// So many rooms at once for servers that have somebody there and are quick.
    pub(super) fn new(world: &World, rooms: usize) -> Self {
        let members = Paces::new(world.clone(), rooms, rooms / SHARE);
        let strangers = Paces::new(world.clone(), FOR_STRANGERS, FOR_ONE_STRANGER);
        Self { members, strangers }
    }
}

/// Where events of one room are dealt with.
pub(super) enum Turn<'a> {
    /// In a place of theirs.
    Place(&'a Paces, Begun),
    /// Nowhere: the room's list excludes their server.
    Excluded(RoomNid),
}

/// None of the events could be dealt with.
fn failed(pdus: &[Box<RawValue>], error: &RoomError) -> Vec<Outcome> {
    vec![Outcome { event_id: None, result: Err(error.clone()) }; pdus.len()]
}

impl Federation {
    /// Deals with events of one room, in their order.
    pub(super) async fn work_in_room(
        &self,
        origin: &OwnedServerName,
        room: &str,
        pdus: &[Box<RawValue>],
    ) -> Vec<Outcome> {
        match self.place_for(origin, room).await {
            Ok(turn) => self.work_in_turn(turn, origin, pdus).await,
            Err(error) => failed(pdus, &error),
        }
    }

    /// Waits for a turn of events of one room; [`RoomError::Unreachable`] if there is none in time.
    pub(super) async fn place_for(
        &self,
        origin: &OwnedServerName,
        room: &str,
    ) -> Result<Turn<'_>, RoomError> {
        let standing = match <&RoomId>::try_from(room) {
            Ok(room) => self.standing(origin, room).await?,
            Err(_) => Standing::Stranger,
        };
        let Turns { members, strangers } = &self.0.inbound.turns;
        match standing {
            Standing::Member => Ok(Turn::Place(members, members.take(origin).await)),
            Standing::Stranger => {
                let begun = self.network().world().timeout(STRANGERS_PATIENCE, strangers.take(origin)).await;
                begun.map(|begun| Turn::Place(strangers, begun)).ok_or(RoomError::Unreachable)
            }
            Standing::Excluded(nid) => Ok(Turn::Excluded(nid)),
        }
    }

    /// Deals with events in their turn. Where the work on them breaks down it would each time that they come, and what waits behind
    /// them would never come: they are done with, and of none anything is said.
    pub(super) async fn work_in_turn(
        &self,
        turn: Turn<'_>,
        origin: &OwnedServerName,
        pdus: &[Box<RawValue>],
    ) -> Vec<Outcome> {
        let (paces, begun) = match turn {
            Turn::Place(paces, begun) => (paces, begun),
            Turn::Excluded(nid) => {
                let denied = self.denied(nid, pdus).await;
                return denied.unwrap_or_else(|error| failed(pdus, &RoomError::from(error)));
            }
        };
        let work = AssertUnwindSafe(Box::pin(self.0.rooms.receive(origin, pdus.to_vec()))).catch_unwind();
        match paces.spend(begun, origin, SLOW_PATIENCE, work).await {
            Some((Ok(outcomes), _place)) => outcomes,
            Some((Err(_), _place)) => {
                self.0.inbound.broken.fetch_add(1, Relaxed);
                tracing::error!(%origin, events = pdus.len(), "the work on received events broke down: they are given up");
                Vec::new()
            }
            None => failed(pdus, &RoomError::Unreachable),
        }
    }

    /// What a server gets that the room's list excludes.
    async fn denied(&self, nid: RoomNid, pdus: &[Box<RawValue>]) -> Result<Vec<Outcome>, Error> {
        let version = self.network().store().read().room_head(nid).await?.version;
        let Some(rules) = chappe_rules::version::rules(&version) else { return Ok(Vec::new()) };
        let denied = |pdu: &RawValue| {
            let pdu = Pdu::parse(rules, pdu.get().as_bytes()).ok()?;
            let result = Err(RoomError::Forbidden("your server is excluded from the room".to_owned()));
            Some(Outcome { event_id: Some(pdu.event_id().to_owned()), result })
        };
        Ok(pdus.iter().filter_map(|pdu| denied(pdu)).collect())
    }
}
