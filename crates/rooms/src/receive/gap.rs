//! Events between the heads here and a received event: asked for in rounds, taken oldest first.

use std::collections::BTreeSet;

use chappe_store::{EventMeta, EventNum, Status};
use ruma::{OwnedEventId, OwnedServerName, RoomId, ServerName, UInt, room_version_rules::RoomVersionRules};

use super::{
    Budget, Checked, Proven, UNHELPED,
    walk::{Past, Walk},
};
use crate::{Error, Gap, Inner, PeerError, Result, desk::Desk};

/// An answer with so many events may have been cut short: servers give no more at once, whatever they are asked for. One
/// with fewer is all that there is to have.
const FULL: usize = 20;
/// Bytes of missing events that are fetched for one received event, at most about.
const MOST_BYTES: usize = 32 << 20;
/// Servers that are asked in place of an origin that cannot be reached, at most.
const OTHERS: usize = 3;
/// Gaps among which the one before the last join is looked for.
const GAPS: usize = 50;

impl Inner {
    /// Those of `ids` that have no place in the room here.
    pub(super) async fn unsettled(&self, room: &RoomId, ids: &[OwnedEventId]) -> Result<Vec<OwnedEventId>> {
        let desk = Desk::open(self, room).await?;
        let known = desk.known(ids).await?.into_iter();
        let has_place = |(_, meta): &(EventNum, EventMeta)| meta.status != Status::Outlier;
        Ok(known
            .filter(|(_, known)| !known.as_ref().is_some_and(has_place))
            .map(|(id, _)| id.clone())
            .collect())
    }

    /// Has the events between the heads here and the received event, from its origin or, while that cannot be reached, from
    /// others in the room, and takes them; of those that are older than the room here it asks what the room was like after
    /// them. False if not even those just before it were given, or not what they need; [`Error::Unreachable`] if the origin
    /// cannot be asked for them, or not yet for what they need, and nobody else has them: no fault of the event's.
    pub(crate) async fn fill_gap(&self, checked: &Checked, budget: &mut Budget) -> Result<bool> {
        let missing = self.unsettled(checked.room(), checked.pdu().prev_events()).await?;
        if missing.is_empty() || budget.missing == 0 {
            return Ok(true);
        }
        match self.fill_from(checked.origin(), (checked, &missing), budget).await {
            Err(Error::Unreachable) => {}
            filled => return filled,
        }
        let (origin, now) = (checked.origin(), self.world.instant());
        // Who seems to be away has this server bother others only so often.
        if self.unhelped.holds(origin, now) {
            return Err(Error::Unreachable);
        }
        if self.fill_elsewhere(checked, budget).await? {
            return Ok(true);
        }
        self.unhelped.add(origin.to_owned(), (now, UNHELPED));
        Err(Error::Unreachable)
    }

    /// As [`Inner::fill_gap`], from others in the room; false if none of them has the events.
    pub(super) async fn fill_elsewhere(&self, checked: &Checked, budget: &mut Budget) -> Result<bool> {
        let missing = self.unsettled(checked.room(), checked.pdu().prev_events()).await?;
        for server in self.others(checked).await? {
            match self.fill_from(&server, (checked, &missing), budget).await {
                Ok(true) => return Ok(true),
                Ok(false) | Err(Error::Unreachable) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
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
        let (between, older) = self.between(server, (checked, missing), budget).await?;
        // What came from elsewhere meanwhile need not be given any more.
        let missing = self.unsettled(checked.room(), missing).await?;
        let is_given = |id: &OwnedEventId| between.iter().any(|proven| proven.pdu().event_id() == id);
        let came = |id: &OwnedEventId| older.contains(id) || is_given(id);
        let (mut given, mut is_away, mut is_refused) = (missing.iter().all(came), false, false);
        for proven in between {
            let found = Checked::from_handshake(server, proven);
            let event = found.pdu().event_id().to_owned();
            let tried_before = self.hopeless.holds(&(server.to_owned(), event.clone()), self.world.instant());
            // The budget says that no further gap is filled: this recursion is one deep.
            match Box::pin(self.take(found, budget)).await {
                Err(error @ (Error::Store(_) | Error::Retry)) => return Err(error),
                Err(error) => {
                    tracing::debug!(%event, %error, "event of a gap not taken");
                    // What could not be had for it just now cannot be had for the event on top of it.
                    let is_in_vain = !tried_before && missing.contains(&event);
                    given &= !is_in_vain;
                    match error {
                        Error::Unreachable => is_away |= is_in_vain,
                        _ => is_refused = true,
                    }
                }
                Ok(()) => {}
            }
        }
        match self.ask_for_older(server, (checked, &older), budget).await {
            Err(error @ (Error::Store(_) | Error::Retry)) => return Err(error),
            Err(Error::Unreachable) => (given, is_away) = (false, true),
            // The state before the event itself is asked for with the event.
            Err(error) => {
                tracing::debug!(event = %checked.pdu().event_id(), %error, "an old state was not told");
            }
            Ok(()) => {}
        }
        if given || self.unsettled(checked.room(), &missing).await?.is_empty() {
            return Ok(true);
        }
        // What was asked for and refused leaves nothing to ask for those on top of it: they will not be had later either.
        if is_away && !is_refused { Err(Error::Unreachable) } else { Ok(false) }
    }

    /// Asks a server for the states after those of an event's previous events that are `older` than the room here. Where they
    /// are more than may be asked for, the state before the event itself is needed, and asked for with the event.
    async fn ask_for_older(
        &self,
        server: &ServerName,
        (checked, older): (&Checked, &BTreeSet<OwnedEventId>),
        budget: &mut Budget,
    ) -> Result<()> {
        let mut untold = self.missing_prevs(checked).await?;
        untold.retain(|id| older.contains(id));
        if untold.len() > budget.states {
            return Ok(());
        }
        let rules = Desk::open(self, checked.room()).await?.rules;
        for event in &untold {
            self.stage_told((server, checked.room(), event), rules, budget).await?;
        }
        Ok(())
    }

    /// The missing events that the received one rests on, oldest first, as far as `server` gives them, and ids of those come
    /// to that are older than the room here. In several rounds: a branch that is not followed back to something known would
    /// stand beside the present as a head of its own, and what the room was like when it parted would be resolved against
    /// what it is like now.
    async fn between(
        &self,
        server: &ServerName,
        (checked, missing): (&Checked, &[OwnedEventId]),
        budget: &mut Budget,
    ) -> Result<(Vec<Proven>, BTreeSet<OwnedEventId>)> {
        let desk = Desk::open(self, checked.room()).await?;
        let ((heads, _), past) = (desk.heads().await?, desk.past().await?);
        let earliest: Vec<OwnedEventId> = heads.iter().map(|head| head.id().to_owned()).collect();
        let (rules, depth) = (desk.rules, desk.head.depth.min(checked.pdu().depth()));
        drop(desk);
        let config = self.config();
        let (limit, most) = (config.missing_events_batch, config.missing_events_limit);
        let min_depth = UInt::try_from(depth.saturating_sub(most as u64)).unwrap_or_default();
        let room = checked.room();
        let (mut walk, mut bytes) = (Walk::down_to(past, missing), 0);
        let lacking = walk.lacking();
        let mut latest = vec![checked.pdu().event_id().to_owned()];
        if lacking.is_empty() {
            latest.clear();
        } else if server != checked.origin() {
            // It may not have the event itself.
            let found = self.singly(server, (room, &lacking), rules, budget).await?;
            walk.go_on(self, room, found).await?;
            latest = if walk.lacking().is_empty() { walk.open() } else { Vec::new() };
        }
        while !latest.is_empty() {
            let gap = Gap { earliest: earliest.clone(), latest, limit, min_depth };
            let answer = match self.peers.missing_events(server, room, gap).await {
                Err(PeerError::Unreachable(_)) if walk.is_empty() => return Err(Error::Unreachable),
                answer => answer.unwrap_or_default(),
            };
            let raws: Vec<_> = answer.into_iter().take(limit.into()).collect();
            bytes += raws.iter().map(|raw| raw.get().len()).sum::<usize>();
            budget.missing = budget.missing.saturating_sub(raws.len());
            let has_more = raws.len() >= FULL.min(limit.into());
            let is_news = walk.go_on(self, room, self.check_raws(rules, room, &raws).await).await?;
            if !has_more || !is_news || budget.missing < limit.into() || bytes > MOST_BYTES {
                break;
            }
            latest = walk.open();
        }
        let older = walk.older().clone();
        Ok((self.intact(server, (room, rules), walk.into_events()).await, older))
    }

    /// Single events, until a server does not have one.
    async fn singly(
        &self,
        server: &ServerName,
        (room, wanted): (&RoomId, &[OwnedEventId]),
        rules: &'static RoomVersionRules,
        budget: &mut Budget,
    ) -> Result<Vec<Proven>> {
        let mut raws = Vec::new();
        for id in wanted.iter().take(budget.missing) {
            match self.peers.event(server, id).await {
                Ok(raw) => raws.push(raw),
                Err(PeerError::Unreachable(_)) => return Err(Error::Unreachable),
                Err(_) => break,
            }
        }
        budget.missing -= raws.len();
        Ok(self.check_raws(rules, room, &raws).await)
    }
}

impl Desk<'_> {
    /// What was before the last join with which the room came in. Where the gap before that is filled, or one among very
    /// many, it is what was before the first event that came live.
    async fn past(&self) -> Result<Past> {
        let gaps = self.reader.gaps_back(self.nid, i64::MAX, GAPS).await?;
        let nums: Vec<EventNum> = gaps.iter().map(|gap| gap.num).collect();
        let metas = self.reader.event_metas(self.nid, &nums).await?;
        // Nothing that was here before counts any more once the room comes in.
        let bare = nums.into_iter().zip(metas).filter(|(_, meta)| meta.prev.is_empty());
        let bare: Vec<EventNum> = bare.map(|(num, _)| num).collect();
        let bare = self.pdus(&bare).await?;
        if let Some(join) = bare.iter().find(|pdu| self.inner.own_user_let_in(pdu).is_some()) {
            return Ok(Past::of(join));
        }
        let rows = self.reader.timeline_forward(self.nid, 1, 1).await?;
        let first: Vec<EventNum> = rows.iter().map(|row| row.num).collect();
        Ok(self.pdus(&first).await?.first().map(Past::of).unwrap_or_default())
    }
}
