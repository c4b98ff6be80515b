//! Events between the heads here and a received event: asked for in rounds, taken oldest first.

use std::collections::BTreeMap;

use chappe_store::{EventMeta, EventNum, Status};
use ruma::{OwnedEventId, OwnedServerName, RoomId, ServerName, UInt, room_version_rules::RoomVersionRules};

use super::{Budget, Checked, Proven, UNHELPED_MS, order::ordered};
use crate::{Error, Gap, Inner, PeerError, Result, desk::Desk};

/// An answer with so many events may have been cut short: servers give no more at once, whatever they are asked for. One
/// with fewer is all that there is to have.
const FULL: usize = 20;
/// Servers that are asked in place of an origin that cannot be reached, at most.
const OTHERS: usize = 3;

/// What of a peer's answer was asked for.
pub(super) struct Reached {
    /// Missing events, oldest first.
    pub(super) events: Vec<Proven>,
    /// Those of them that rest on something that neither is here nor came.
    open: Vec<OwnedEventId>,
}

impl Inner {
    /// Those of `ids` that have no place in the room here.
    async fn unsettled(&self, room: &RoomId, ids: &[OwnedEventId]) -> Result<Vec<OwnedEventId>> {
        let desk = Desk::open(self, room).await?;
        let known = desk.known(ids).await?.into_iter();
        let has_place = |(_, meta): &(EventNum, EventMeta)| meta.status != Status::Outlier;
        Ok(known
            .filter(|(_, known)| !known.as_ref().is_some_and(has_place))
            .map(|(id, _)| id.clone())
            .collect())
    }

    /// Of what a peer says to be missing, what `roots` rest on through missing events alone. The rest is older than
    /// something that is here, or of a branch that nobody asked for.
    pub(super) async fn reached(
        &self,
        room: &RoomId,
        roots: &[OwnedEventId],
        found: &BTreeMap<OwnedEventId, Proven>,
    ) -> Result<Reached> {
        let mut events: BTreeMap<&OwnedEventId, &Proven> = BTreeMap::new();
        let mut open = Vec::new();
        let mut todo: Vec<(OwnedEventId, Option<&OwnedEventId>)> =
            roots.iter().map(|id| (id.clone(), None)).collect();
        while !todo.is_empty() {
            let ids: Vec<OwnedEventId> = todo.iter().map(|(id, _)| id.clone()).collect();
            let missing = self.unsettled(room, &ids).await?;
            for (id, follower) in std::mem::take(&mut todo) {
                if !missing.contains(&id) || events.contains_key(&id) {
                    continue;
                }
                match found.get_key_value(&id) {
                    Some((id, proven)) => {
                        events.insert(id, proven);
                        todo.extend(proven.pdu().prev_events().iter().map(|prev| (prev.clone(), Some(id))));
                    }
                    None => open.extend(follower.cloned()),
                }
            }
        }
        // How deep an event is its server only claims.
        let mut ids: Vec<&OwnedEventId> = events.keys().copied().collect();
        ids.sort_by_key(|id| events.get(id).map(|proven| proven.pdu().depth()));
        let rests_on = |id: &&OwnedEventId| {
            events.get(id).map_or_else(Vec::new, |proven| proven.pdu().prev_events().iter().collect())
        };
        let events =
            ordered(ids, rests_on).into_iter().filter_map(|id| events.get(id)).copied().cloned().collect();
        open.dedup();
        Ok(Reached { events, open })
    }

    /// Has the events between the heads here and the received event, from its origin or, while that cannot be reached, from
    /// others in the room, and takes them. False if not even those just before it were given, or not what they need;
    /// [`Error::Unreachable`] if the origin cannot be asked and nobody else has them: no fault of the event's.
    pub(crate) async fn fill_gap(&self, checked: &Checked, budget: &mut Budget) -> Result<bool> {
        let missing = self.unsettled(checked.room(), checked.pdu().prev_events()).await?;
        if missing.is_empty() || budget.events == 0 {
            return Ok(true);
        }
        match self.fill_from(checked.origin(), (checked, &missing), budget).await {
            Err(Error::Unreachable) => {}
            filled => return filled,
        }
        let (origin, now) = (checked.origin(), self.world.now());
        // Who seems to be away has this server bother others only so often.
        if self.unhelped.holds(origin, now) {
            return Err(Error::Unreachable);
        }
        for server in self.others(checked).await? {
            match self.fill_from(&server, (checked, &missing), budget).await {
                Ok(true) => return Ok(true),
                Ok(false) | Err(Error::Unreachable) => {}
                Err(error) => return Err(error),
            }
        }
        self.unhelped.add(origin.to_owned(), (now, UNHELPED_MS));
        Err(Error::Unreachable)
    }

    /// Some servers in the room beside this one and the origin, by chance.
    async fn others(&self, checked: &Checked) -> Result<Vec<OwnedServerName>> {
        let mut servers = Desk::open(self, checked.room()).await?.servers().await?;
        servers.retain(|server| server != checked.origin() && *server != self.server);
        let count = u64::try_from(servers.len()).unwrap_or(u64::MAX).max(1);
        servers.rotate_left(usize::try_from(self.world.random() % count).unwrap_or_default());
        servers.truncate(OTHERS);
        Ok(servers)
    }

    /// As [`Inner::fill_gap`], with what one server gives.
    async fn fill_from(
        &self,
        server: &ServerName,
        (checked, missing): (&Checked, &[OwnedEventId]),
        budget: &mut Budget,
    ) -> Result<bool> {
        let between = self.between(server, (checked, missing), budget).await?;
        // What came from elsewhere meanwhile need not be given any more.
        let missing = self.unsettled(checked.room(), missing).await?;
        let came = |id: &OwnedEventId| between.iter().any(|proven| proven.pdu().event_id() == id);
        let mut given = missing.iter().all(came);
        for proven in between {
            let found = Checked::from_handshake(server, proven);
            let event = found.pdu().event_id().to_owned();
            let tried_before = self.hopeless.holds(&(server.to_owned(), event.clone()), self.world.now());
            // The budget says that no further gap is filled: this recursion is one deep.
            match Box::pin(self.take(found, budget)).await {
                Err(error @ (Error::Store(_) | Error::Retry)) => return Err(error),
                Err(error) => {
                    tracing::debug!(%event, %error, "event of a gap not taken");
                    // What could not be had for it just now cannot be had for the event on top of it.
                    given &= tried_before || !missing.contains(&event);
                }
                Ok(()) => {}
            }
        }
        Ok(given || self.unsettled(checked.room(), &missing).await?.is_empty())
    }

    /// The missing events that the received one rests on, oldest first, as far as `server` gives them. In several
    /// rounds: a branch that is not followed back to something known would stand beside the present as a head of its
    /// own, and what the room was like when it parted would be resolved against what it is like now.
    async fn between(
        &self,
        server: &ServerName,
        (checked, missing): (&Checked, &[OwnedEventId]),
        budget: &mut Budget,
    ) -> Result<Vec<Proven>> {
        let desk = Desk::open(self, checked.room()).await?;
        let (heads, _) = desk.heads().await?;
        let earliest: Vec<OwnedEventId> = heads.iter().map(|head| head.id().to_owned()).collect();
        let (rules, depth) = (desk.rules, desk.head.depth.min(checked.pdu().depth()));
        drop(desk);
        let config = self.config();
        let (limit, most) = (config.missing_events_batch, config.missing_events_limit);
        let min_depth = UInt::try_from(depth.saturating_sub(most as u64)).unwrap_or_default();
        let (mut latest, mut found) = (vec![checked.pdu().event_id().to_owned()], BTreeMap::new());
        if server != checked.origin() {
            // It may not have the event itself.
            found = self.singly(server, (checked.room(), missing), rules, budget).await?;
            let reached = self.reached(checked.room(), missing, &found).await?;
            if found.len() < missing.len() || reached.open.is_empty() {
                return Ok(reached.events);
            }
            latest = reached.open;
        }
        loop {
            let gap = Gap { earliest: earliest.clone(), latest, limit, min_depth };
            let answer = match self.peers.missing_events(server, checked.room(), gap).await {
                Err(PeerError::Unreachable(_)) if found.is_empty() => return Err(Error::Unreachable),
                answer => answer.unwrap_or_default(),
            };
            let raws: Vec<_> = answer.into_iter().take(limit.into()).collect();
            budget.events = budget.events.saturating_sub(raws.len());
            let (known, has_more) = (found.len(), raws.len() >= FULL.min(limit.into()));
            for proven in self.check_raws(rules, checked.room(), &raws).await {
                found.insert(proven.pdu().event_id().to_owned(), proven);
            }
            let reached = self.reached(checked.room(), missing, &found).await?;
            let is_news = has_more && found.len() > known;
            if reached.open.is_empty() || !is_news || budget.events < limit.into() {
                return Ok(reached.events);
            }
            latest = reached.open;
        }
    }

    /// Single events, until a server does not have one.
    async fn singly(
        &self,
        server: &ServerName,
        (room, wanted): (&RoomId, &[OwnedEventId]),
        rules: &'static RoomVersionRules,
        budget: &mut Budget,
    ) -> Result<BTreeMap<OwnedEventId, Proven>> {
        let mut raws = Vec::new();
        for id in wanted.iter().take(budget.events) {
            match self.peers.event(server, id).await {
                Ok(raw) => raws.push(raw),
                Err(PeerError::Unreachable(_)) => return Err(Error::Unreachable),
                Err(_) => break,
            }
        }
        budget.events -= raws.len();
        let proven = self.check_raws(rules, room, &raws).await.into_iter();
        Ok(proven.map(|proven| (proven.pdu().event_id().to_owned(), proven)).collect())
    }
}
