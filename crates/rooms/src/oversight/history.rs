//! Removing what was said in a room before some time.
//!
//! What goes is the event itself, its place in the timeline and what is indexed of it. What stays is that there was such
//! an event, what state it had around it and what it followed: the room's graph has no hole, no event that comes later
//! finds its predecessor missing, and nothing is fetched again from other servers. State events stay whole, and with
//! them all that authorization rests on.

use chappe_store::{EventNum, LogEntry, Removed, RoomHead, Tx, events::EventPdus, timeline::TimelineRow};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UInt, api::Direction,
    events::TimelineEventType,
};

use super::purge::take_from_indexes;
use crate::{
    Error, Result, Rooms,
    read::view::{Event, View},
};

/// Events looked at under one turn, and removed in one commit.
const EVENTS: usize = 100;

impl Rooms {
    /// The place in a room's timeline of the first event at or after a time, in milliseconds since 1970.
    pub async fn place_at(&self, room: &RoomId, at: u64) -> Result<i64> {
        let view = self.view(room).await?;
        let at = MilliSecondsSinceUnixEpoch(UInt::try_from(at).unwrap_or(UInt::MAX));
        view.turning(at, Direction::Forward).await
    }

    /// The place of an event in a room's timeline. [`Error::NotFound`] where it has none.
    pub async fn place_of(&self, room: &RoomId, event: &EventId) -> Result<i64> {
        let view = self.view(room).await?;
        let num = view.reader.event_num(view.nid, event).await?.ok_or(Error::NotFound("event"))?;
        view.load_one(num).await?.meta.ordinal.ok_or(Error::NotFound("event"))
    }

    /// Removes some of the messages before the place `up_to`, beginning at `from`; gives where to go on, if there is more,
    /// and how many were removed. Those of this server's users, which may be the only copies, only `with_local`. Not while
    /// members of the room are still to come: what was said since the join is judged again then.
    pub async fn purge_some(
        &self,
        room: &RoomId,
        from: i64,
        up_to: i64,
        with_local: bool,
    ) -> Result<(Option<i64>, u64)> {
        let _turn = self.0.turn(room).await;
        let view = self.view(room).await?;
        if view.head.partial {
            return Err(Error::BadState("the members of the room are still to come".to_owned()));
        }
        let rows = view.reader.timeline_forward(view.nid, from, EVENTS).await?;
        let before: Vec<TimelineRow> = rows.iter().copied().filter(|row| row.ordinal < up_to).collect();
        let next = (before.len() == EVENTS).then(|| before.last().map(|row| row.ordinal + 1)).flatten();
        let nums: Vec<EventNum> = before.iter().map(|row| row.num).collect();
        let mut tx = Tx::new();
        let mut purged: Vec<Event> = Vec::new();
        for (row, event) in before.iter().zip(view.load(&nums).await?) {
            let ours = event.pdu.sender().server_name() == self.0.server;
            if (ours && !with_local) || view.must_stay(&event, &purged).await? {
                continue;
            }
            tx.purge_event(view.nid, row, event.pdu.event_id());
            take_from_indexes(&mut tx, view.nid, event.num, &event.pdu);
            let with_all = |parent: &OwnedEventId| purged.iter().any(|event| event.pdu.event_id() == parent);
            view.unrelate(&mut tx, (&event.pdu, event.num, row.ordinal), with_all).await?;
            purged.push(event);
        }
        for gap in view.reader.gaps_between(view.nid, from, next.unwrap_or(up_to)).await? {
            // The event after it goes now, or has expired.
            let stays = before.iter().any(|row| row.ordinal == gap.ordinal)
                && !purged.iter().any(|event| event.num == gap.num);
            if !stays {
                tx.narrow_gap(view.nid, &gap, Vec::new());
            }
        }
        if tx.is_empty() {
            return Ok((next, 0));
        }
        let nums: Vec<EventNum> = purged.iter().map(|event| event.num).collect();
        tx.log(LogEntry::Purged { room: view.nid.0, events: nums.iter().map(|num| num.0).collect() });
        let head: RoomHead = view.head.clone();
        tx.replace_head(view.nid, &head, &head);
        let nid = view.nid;
        drop(view);
        let at = self.0.store.commit(tx).await?;
        self.0.store.forget(at, nid, &Removed { events: nums, ids: Vec::new() });
        Ok((next, purged.len() as u64))
    }

    /// The first place of a room's timeline.
    pub async fn first_place(&self, room: &RoomId) -> Result<i64> {
        Ok(self.view(room).await?.head.next_back)
    }
}

impl View<'_> {
    /// Whether something that stays rests on an event: state, heads, redactions of what stays. `purged` goes as well.
    async fn must_stay(&self, event: &Event, purged: &[Event]) -> Result<bool> {
        if event.pdu.state_key().is_some() || self.head.extremities.contains(&event.num) {
            return Ok(true);
        }
        if *event.pdu.kind() != TimelineEventType::RoomRedaction {
            return Ok(false);
        }
        let Some(target) = event.pdu.redacts() else { return Ok(false) };
        let Some(num) = self.reader.event_num(self.nid, target).await? else { return Ok(false) };
        if purged.iter().any(|event| event.num == num) {
            return Ok(false);
        }
        Ok(self.reader.get::<EventPdus>(&(self.nid, num)).await?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use chappe_store::{
        Membership, Tx,
        gaps::{Gap, Missing},
    };
    use ruma::{api::Direction, api::client::filter::RoomEventFilter, event_id};
    use serde_json::json;

    use crate::{
        Error, PageRequest,
        testing::{Town, actor},
    };

    #[tokio::test]
    async fn old_messages_go_and_state_stays() {
        let town = Town::new();
        let (anna, bob) = (actor("anna"), actor("bob"));
        let room = town.room(&anna, json!({ "preset": "public_chat" })).await;
        town.join(&bob, &room).await;
        let old = town.say(&anna, &room, json!({ "body": "old", "msgtype": "m.text" })).await;
        let reply = json!({
            "body": "also old", "msgtype": "m.text",
            "m.relates_to": { "rel_type": "m.thread", "event_id": old },
        });
        let reply = town.say(&bob, &room, reply).await;
        let new = town.say(&bob, &room, json!({ "body": "new", "msgtype": "m.text" })).await;
        let up_to = town.rooms.place_of(&room, &new).await.unwrap();
        let first = town.rooms.first_place(&room).await.unwrap();
        let local_stay = town.rooms.purge_some(&room, first, up_to, false).await.unwrap();
        assert_eq!(local_stay, (None, 0));
        let gone = town.rooms.purge_some(&room, first, up_to, true).await.unwrap();
        assert_eq!(gone, (None, 2));
        for event in [&old, &reply] {
            let seen = town.rooms.visible_to_user(&anna.user, &room, event).await;
            assert!(matches!(seen, Err(Error::NotFound(_))));
        }
        town.rooms.visible_to_user(&anna.user, &room, &new).await.unwrap();
        let filter = RoomEventFilter::default();
        let request = PageRequest {
            from: None,
            to: None,
            direction: Direction::Backward,
            limit: 100,
            filter: &filter,
            relations: None,
        };
        let page = town.rooms.messages(&anna, &room, request).await.unwrap();
        let text = page.chunk.iter().map(|event| event.get()).collect::<String>();
        assert!(text.contains("\"new\"") && !text.contains("old"), "{text}");
        assert!(text.contains("m.room.create"), "{text}");
        // The room goes on: what comes now follows what was kept.
        town.say(&anna, &room, json!({ "body": "later", "msgtype": "m.text" })).await;
        let redacted = town.rooms.send(&anna, &room, crate::Draft::redaction(&old, None), None).await;
        assert!(matches!(redacted, Err(Error::NotFound(_))));
        let view = town.rooms.view(&room).await.unwrap();
        assert_eq!(view.reader.members(view.nid, Membership::Join).await.unwrap().len(), 2);
        assert!(view.reader.threads(view.nid).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_missing_before_messages_goes_with_them() {
        let town = Town::new();
        let anna = actor("anna");
        let room = town.room(&anna, json!({ "preset": "public_chat" })).await;
        let old = town.say(&anna, &room, json!({ "body": "old", "msgtype": "m.text" })).await;
        let new = town.say(&anna, &room, json!({ "body": "new", "msgtype": "m.text" })).await;
        let nid = town.rooms.view(&room).await.unwrap().nid;
        let store = &town.rooms.0.store;
        let missing = vec![event_id!("$missing:hs2").to_owned()];
        let mut tx = Tx::new();
        for event in [&old, &new] {
            let ordinal = town.rooms.place_of(&room, event).await.unwrap();
            let num = store.read().event_num(nid, event).await.unwrap().unwrap();
            tx.put_gap(nid, &Gap { ordinal, num, missing: missing.clone() });
        }
        store.commit(tx).await.unwrap();
        let first = town.rooms.first_place(&room).await.unwrap();
        let up_to = town.rooms.place_of(&room, &new).await.unwrap();
        assert_eq!(town.rooms.purge_some(&room, first, up_to, true).await.unwrap(), (None, 1));
        let reader = store.read();
        assert_eq!(reader.gaps_from(nid, i64::MIN, 9).await.unwrap().len(), 1);
        let rows = reader.scan::<Missing>(&nid, chappe_store::Direction::Forward, 9).await.unwrap();
        assert_eq!(rows.len(), 1, "before what stays");
    }
}
