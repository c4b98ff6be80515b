//! Events that were refused while the members of a room were missing, and are allowed where they stand: whether they are
//! wanted now, and their places.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chappe_store::{EventMeta, EventNum, Status, Tx, partial::LateEvents};
use ruma::RoomId;
use tokio::time::Instant;

use super::{Before, Complete};
use crate::{
    Inner, Result,
    desk::{Desk, Source},
};

/// For how long the policy server of a room is asked about late events, all of them together.
const OPINIONS: Duration = Duration::from_mins(5);

impl Inner {
    /// Decides the places of the events that did not fit what the room seemed to be like when they came.
    pub(crate) async fn settle_late(&self, room: &RoomId) -> Result<()> {
        let desk = Desk::open(self, room).await?;
        let nid = desk.nid;
        let late = desk.reader.late_events(nid).await?;
        let followed = desk.followed_among(&late).await?;
        drop(desk);
        let end = self.world.instant() + OPINIONS;
        for num in late {
            if let Some(complete) = self.late(room, num, end).await? {
                let followed = followed.contains(&num);
                self.settle_one_late(num, &Complete { followed, ..complete }).await?;
            }
            let mut tx = Tx::new();
            tx.delete::<LateEvents>(&(nid, num));
            self.store.commit(tx).await?;
        }
        Ok(())
    }

    /// A late event with what the room's policy server, which nobody waits for while holding the room, thinks of it.
    async fn late(&self, room: &RoomId, num: EventNum, end: Instant) -> Result<Option<Complete>> {
        let desk = Desk::open(self, room).await?;
        let Some(pdu) = desk.pdus(&[num]).await?.pop() else { return Ok(None) };
        let (rules, policy_server) = (desk.rules, desk.policy_server().await?);
        drop(desk);
        let alone = Complete::alone(pdu, rules, Source::Elsewhere, Before::Prevs);
        let complete = Complete { policy_server, ..alone };
        let left = end.saturating_duration_since(self.world.instant());
        let asked = self.world.timeout(left, self.with_opinion(complete.clone())).await;
        Ok(Some(asked.unwrap_or_else(|| {
            let unwanted = Some("the policy server was not asked in time".to_owned());
            Complete { unwanted, ..complete }
        })))
    }

    async fn settle_one_late(&self, num: EventNum, complete: &Complete) -> Result<()> {
        let _turn = self.turn(&complete.room).await;
        let mut desk = Desk::open(self, &complete.room).await?;
        let meta = desk.reader.event_meta(desk.nid, num).await?;
        if meta.status == Status::SoftFailed {
            // Only what has no place yet is given one; the row of it remains until it has.
            desk.tx.update_event(desk.nid, num, &EventMeta { status: Status::Outlier, ..meta });
            self.store.commit(desk.seal()).await?;
        }
        self.settle_in_turn(complete).await.map(drop)
    }
}

impl Desk<'_> {
    /// Those of some events that accepted ones rest on, through others without a place: none of them becomes a head.
    async fn followed_among(&self, late: &[EventNum]) -> Result<BTreeSet<EventNum>> {
        let Some(first) = late.iter().min() else { return Ok(BTreeSet::new()) };
        let metas = self.reader.event_metas_from(self.nid, *first).await?;
        let is_accepted = |meta: &EventMeta| meta.status == Status::Accepted;
        let (accepted, aside): (Vec<_>, Vec<_>) = metas.into_iter().partition(|(_, meta)| is_accepted(meta));
        let aside: BTreeMap<EventNum, EventMeta> = aside.into_iter().collect();
        let mut todo: Vec<EventNum> = accepted.into_iter().flat_map(|(_, meta)| meta.prev).collect();
        let mut followed = BTreeSet::new();
        while let Some(num) = todo.pop() {
            if let Some(meta) = aside.get(&num)
                && followed.insert(num)
            {
                todo.extend(&meta.prev);
            }
        }
        Ok(followed)
    }
}
