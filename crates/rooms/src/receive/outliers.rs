//! Events that are stored without a place in the room: somebody's auth or state events.

use std::collections::BTreeMap;

use chappe_rules::{
    Pdu,
    auth::{allowed_by_auth_events, events_needed},
    pdu::Judged,
};
use chappe_store::{EventMeta, EventNum, Position, StateRef, Status};
use ruma::{
    OwnedEventId, RoomId,
    events::{StateEventType, TimelineEventType},
};

use super::{check::Proven, order::ordered};
use crate::{Error, Inner, Result, desk::Desk, turn::ATTEMPTS};

/// Bytes of events that one commit stores.
const CHUNK_BYTES: usize = 2 << 20;

/// Checked events in an order in which each comes after its auth events.
#[derive(Clone, Debug)]
pub(crate) struct Outliers(Vec<Pdu>);

impl From<Vec<Proven>> for Outliers {
    fn from(proven: Vec<Proven>) -> Self {
        let pdus = proven.iter().map(|proven| proven.pdu().clone());
        Self(sorted(pdus.map(|pdu| (pdu.event_id().to_owned(), pdu)).collect()))
    }
}

/// Auth events first. One of a cycle, as ids that are no hashes allow, comes before what it rests on and is left out later.
fn sorted(mut left: BTreeMap<OwnedEventId, Pdu>) -> Vec<Pdu> {
    // From version 12 on nobody lists the create event, and everybody rests on it.
    let (creates, others): (Vec<_>, Vec<_>) =
        left.values().partition(|pdu| *pdu.kind() == TimelineEventType::RoomCreate);
    let ids = creates.into_iter().chain(others).map(|pdu| pdu.event_id().to_owned()).collect();
    let order = ordered(ids, |id| left.get(id).map_or_else(Vec::new, |pdu| pdu.auth_events().to_vec()));
    order.into_iter().filter_map(|id| left.remove(&id)).collect()
}

impl Inner {
    /// Stores outliers of a known room, those judged to be forbidden as rejected. Events whose auth events are
    /// unknown are left out.
    pub(crate) async fn store_outliers(&self, room: &RoomId, outliers: Outliers) -> Result<()> {
        let _turn = self.turn(room).await;
        self.store_outliers_in_turn(room, &outliers).await
    }

    /// As [`Inner::store_outliers`], for whoever holds the room's turn.
    pub(crate) async fn store_outliers_in_turn(&self, room: &RoomId, outliers: &Outliers) -> Result<()> {
        let mut left = outliers.0.as_slice();
        let mut attempts = 0;
        while !left.is_empty() {
            let mut bytes = 0;
            let fits = left.iter().take_while(|pdu| {
                bytes += pdu.json().len() + 300;
                bytes <= CHUNK_BYTES
            });
            let (now, later) = left.split_at(fits.count().max(1));
            match self.store_chunk(room, now).await {
                Ok(()) => (left, attempts) = (later, 0),
                Err(Error::Retry) if attempts < ATTEMPTS => attempts += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn store_chunk(&self, room: &RoomId, pdus: &[Pdu]) -> Result<()> {
        let mut desk = Desk::open(self, room).await?;
        let mut here: BTreeMap<OwnedEventId, (EventNum, Judged)> = BTreeMap::new();
        for pdu in pdus {
            // In this room or, where servers choose ids, in another.
            if desk.reader.event_address(pdu.event_id()).await?.is_some() {
                continue;
            }
            let Some(known) = known_auth(&desk, pdu, &here).await? else { continue };
            let judged: Vec<Judged> = known.iter().map(|(_, judged)| judged.clone()).collect();
            let rejected = allowed_by_auth_events(desk.rules, pdu, &judged).is_err()
                || (*pdu.kind() == TimelineEventType::RoomCreate && desk.is_created_otherwise(pdu).await?);
            let listed = |judged: &Judged| pdu.auth_events().iter().any(|id| id == judged.pdu.event_id());
            let meta = EventMeta {
                position: Position(0),
                status: if rejected { Status::Rejected } else { Status::Outlier },
                before: StateRef::EMPTY,
                after: StateRef::EMPTY,
                ordinal: None,
                redacted_by: EventNum::NONE,
                auth: known.iter().filter(|(_, judged)| listed(judged)).map(|(num, _)| *num).collect(),
                prev: Vec::new(),
                expired: false,
                came: desk.came(pdu),
            };
            let num = desk.number(pdu, None);
            desk.put(pdu, num, false, meta);
            here.insert(pdu.event_id().to_owned(), (num, Judged { pdu: pdu.clone(), rejected }));
        }
        if !here.is_empty() {
            self.store.commit(desk.seal()).await?;
        }
        Ok(())
    }
}

impl Desk<'_> {
    /// Whether the room has another create event: the first one that came counts, whatever its server makes later.
    pub(crate) async fn is_created_otherwise(&self, create: &Pdu) -> Result<bool> {
        let first = self.current(StateEventType::RoomCreate, "").await?;
        Ok(first.is_some_and(|first| first.event_id() != create.event_id()))
    }
}

async fn known_auth(
    desk: &Desk<'_>,
    pdu: &Pdu,
    here: &BTreeMap<OwnedEventId, (EventNum, Judged)>,
) -> Result<Option<Vec<(EventNum, Judged)>>> {
    let needed = events_needed(desk.rules, pdu);
    let (new, old): (Vec<_>, Vec<_>) = needed.into_iter().partition(|id| here.contains_key(id));
    let mut known: Vec<(EventNum, Judged)> = new.iter().filter_map(|id| here.get(id).cloned()).collect();
    let Some(nums) = desk.nums(&old).await?.into_iter().collect::<Option<Vec<EventNum>>>() else {
        return Ok(None);
    };
    known.extend(nums.iter().copied().zip(desk.judged(&nums).await?));
    Ok(Some(known))
}
