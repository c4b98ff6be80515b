//! After a long absence a destination gets the newest event of each room; the rest it asks for if it wants it.

use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry};

use chappe_store::{
    Error, EventNum, Index, OutboxItem, Position, Reader, RoomNid, Tx,
    outbox::{Outbox, OutboxKey, behind},
};
use ruma::{OwnedUserId, ServerName};
use serde::Deserialize;

use super::{Sender, lanes::Length};

/// Rows read and removed at once.
const PAGE: usize = 200;
/// Bytes of messages to devices, and of events of rooms that are gone, that wait for one destination at most, at the time when its
/// queue is shortened. None makes another needless; a server that is gone for good would have them pile up for ever.
const MESSAGES: usize = 256 << 20;

impl Sender {
    /// Shortens a queue of `from` rows and more: of each room's events only the last one stays, and where others have
    /// followed it, the room's newest events come instead; of the news about a user's devices and keys the last stays.
    /// Everything else stays, among it sticky events and those that put the destination's users out: whoever is out may not be
    /// told of the room.
    pub(super) async fn shorten(&self, destination: &ServerName, from: usize) -> Result<(), Error> {
        let from = from.max(1);
        if self.count(destination, from).await? < from {
            return Ok(());
        }
        self.leave_out(destination).await
    }

    /// The same while a destination stays away: what was left the last time stays for good, so the queue is not gone through again
    /// before it is twice as long.
    pub(super) async fn shorten_waiting(&self, destination: &ServerName, from: usize) -> Result<(), Error> {
        let left = self.0.lanes.length(destination).left;
        self.shorten(destination, from.max(left.saturating_mul(2))).await
    }

    /// Takes the messages to devices out of a queue. Gives whether there were any.
    pub(super) async fn drop_messages(&self, destination: &ServerName) -> Result<bool, Error> {
        let (mut from, mut dropped) = (self.queue_from(destination), 0);
        loop {
            let reader = self.0.network.store().read();
            let rows = reader.scan_from::<Outbox>(&destination.to_owned(), &from, PAGE).await?;
            drop(reader);
            let Some(((_, position, index), _)) = rows.last() else { break };
            from = behind(destination, (*position, *index));
            let messages = rows.into_iter().filter(|(_, item)| matches!(item, OutboxItem::ToDevice(_)));
            let messages: Vec<OutboxKey> = messages.map(|(key, _)| key).collect();
            if messages.is_empty() {
                continue;
            }
            let mut tx = Tx::new();
            for key in &messages {
                tx.delete::<Outbox>(key);
            }
            self.0.network.store().commit(tx).await?;
            self.0.lanes.done(destination, &messages);
            dropped += messages.len();
        }
        if dropped > 0 {
            tracing::info!(%destination, dropped, "messages to devices were dropped, their server is off the list");
        }
        Ok(dropped > 0)
    }

    /// How long a queue is, up to about `enough`: only what came since it was counted last is read.
    async fn count(&self, destination: &ServerName, enough: usize) -> Result<usize, Error> {
        let mut length = self.0.lanes.length(destination);
        while length.rows < enough {
            let from = behind(destination, length.to).max(self.queue_from(destination));
            let reader = self.0.network.store().read();
            let rows = reader.scan_from::<Outbox>(&destination.to_owned(), &from, PAGE).await?;
            let Some(((_, position, index), _)) = rows.last() else { break };
            length.to = (*position, *index);
            length.rows += rows.len();
        }
        self.0.lanes.set_length(destination, length);
        Ok(length.rows)
    }

    async fn leave_out(&self, destination: &ServerName) -> Result<(), Error> {
        let store = self.0.network.store();
        let Survey { rows, to, last, followed, superseded, lost, .. } = self.survey(destination).await?;
        for page in superseded.chunks(PAGE).chain(lost.chunks(PAGE)) {
            let mut tx = Tx::new();
            for key in page {
                tx.delete::<Outbox>(key);
            }
            store.commit(tx).await?;
        }
        let mut left_out = superseded.len();
        for page in followed.chunks(PAGE) {
            let mut tx = Tx::new();
            for (key, item) in page {
                tx.expect::<Outbox>(key, Some(item)).delete::<Outbox>(key);
            }
            match store.commit(tx).await {
                Ok(_) => left_out += page.len(),
                // A room is being removed, and its rows hold the events themselves by now: the page stays.
                Err(Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        let (rooms, mut replaced) = (last.len(), 0);
        for (room, (key, event)) in last {
            let newest = self.newest(destination, RoomNid(room), EventNum(event)).await?;
            let mut tx = Tx::new();
            for event in newest {
                tx.enqueue(destination, &OutboxItem::Pdu { room, event: event.0 });
            }
            if tx.is_empty() {
                continue;
            }
            tx.expect::<Outbox>(&key, Some(&OutboxItem::Pdu { room, event })).delete::<Outbox>(&key);
            match store.commit(tx).await {
                Ok(_) => replaced += 1,
                // The room is being removed, and the row holds the event itself by now.
                Err(Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        let left = rows.saturating_sub(left_out + lost.len());
        self.0.lanes.set_length(destination, Length { rows: left.saturating_sub(replaced), to, left });
        if !lost.is_empty() {
            let lost = lost.len();
            tracing::warn!(%destination, lost, "too many messages wait, the oldest were dropped");
        }
        tracing::info!(%destination, rooms, left_out, "catching up");
        Ok(())
    }

    /// The events to send instead of `event`: none when it is itself among the newest, or when the destination may see none of
    /// those. They may be of others, who did not mean them for it.
    async fn newest(
        &self,
        destination: &ServerName,
        room: RoomNid,
        event: EventNum,
    ) -> Result<Vec<EventNum>, Error> {
        let head = self.0.network.store().read().room_head(room).await?;
        if head.extremities.contains(&event) {
            return Ok(Vec::new());
        }
        let newest: Vec<EventNum> = head.extremities.into_iter().take(20).collect();
        match self.0.rooms.shown_to(destination, room, &newest).await {
            Ok(shown) => Ok(shown),
            Err(chappe_rooms::Error::Store(error)) => Err(error),
            Err(_) => Ok(Vec::new()),
        }
    }

    async fn survey(&self, destination: &ServerName) -> Result<Survey, Error> {
        let mut survey = Survey::default();
        let mut sticky: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        let now = self.0.network.world().now();
        let mut from = self.queue_from(destination);
        loop {
            let reader = self.0.network.store().read();
            let rows = reader.scan_from::<Outbox>(&destination.to_owned(), &from, PAGE).await?;
            let Some((end, _)) = rows.last() else { return Ok(survey) };
            survey.to = (end.1, end.2);
            from = behind(destination, survey.to);
            survey.rows += rows.len();
            let events: Vec<(RoomNid, EventNum)> =
                rows.iter().filter_map(|(_, item)| event_in(item)).collect();
            let mut pdus = reader.pdus_of(&events).await?.into_iter();
            for (key, item) in rows {
                let OutboxItem::Pdu { room, event } = item else {
                    survey.take_news(key, item);
                    continue;
                };
                if let Entry::Vacant(unread) = sticky.entry(room) {
                    unread.insert(sticky_in(&reader, room, now).await?);
                }
                let pdu = pdus.next().flatten();
                let stays = sticky.get(&room).is_some_and(|sticky| sticky.contains(&event))
                    || pdu.is_some_and(|pdu| puts_out(&pdu.json, destination));
                if !stays && let Some((before, event)) = survey.last.insert(room, (key, event)) {
                    survey.followed.push((before, OutboxItem::Pdu { room, event }));
                }
            }
        }
    }
}

/// What of a queue need not be sent.
#[derive(Default)]
struct Survey {
    /// How many rows there are.
    rows: usize,
    /// Position and index of the last one.
    to: (u64, Index),
    /// Room → its last waiting event.
    last: BTreeMap<u32, (OutboxKey, u32)>,
    /// User → the last change of a device, with its stream id.
    devices: BTreeMap<OwnedUserId, (OutboxKey, u64)>,
    /// User → the last change of signing keys.
    keys: BTreeMap<OwnedUserId, OutboxKey>,
    /// The waiting events that a later one of their room makes needless.
    followed: Vec<(OutboxKey, OutboxItem)>,
    /// The news about users that later ones make needless.
    superseded: Vec<OutboxKey>,
    /// Messages to devices, and events of rooms that are gone, that stay, oldest first: position, index and size.
    messages: VecDeque<(u64, Index, usize)>,
    /// The sum of their sizes.
    bytes: usize,
    /// The rows of those that do not stay.
    lost: Vec<OutboxKey>,
}

impl Survey {
    /// News about a user. A change of a device names the one before it: who missed that asks for the whole list. Two that have
    /// the same stream id both stay, as the second says nothing of the first.
    fn take_news(&mut self, key: OutboxKey, item: OutboxItem) {
        match item {
            OutboxItem::Device { user, stream_id, .. } | OutboxItem::Introduction { user, stream_id, .. } => {
                let before = self.devices.insert(user, (key, stream_id));
                let before = before.filter(|(_, before)| *before < stream_id);
                self.superseded.extend(before.map(|(key, _)| key));
            }
            OutboxItem::SigningKeys(user) => self.superseded.extend(self.keys.insert(user, key)),
            OutboxItem::ToDevice(text) | OutboxItem::Event(text) => self.take_message(key, text.len()),
            OutboxItem::Pdu { .. } => {}
        }
    }

    fn take_message(&mut self, (destination, position, index): OutboxKey, size: usize) {
        self.bytes += size;
        self.messages.push_back((position, index, size));
        while self.bytes > MESSAGES
            && let Some((position, index, size)) = self.messages.pop_front()
        {
            self.bytes -= size;
            self.lost.push((destination.clone(), position, index));
        }
    }
}

fn event_in(item: &OutboxItem) -> Option<(RoomNid, EventNum)> {
    match item {
        OutboxItem::Pdu { room, event } => Some((RoomNid(*room), EventNum(*event))),
        _ => None,
    }
}

/// As much of an event as says whom it puts out.
#[derive(Deserialize)]
struct Member {
    #[serde(rename = "type")]
    kind: String,
    state_key: OwnedUserId,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    membership: String,
}

/// Whether an event puts a user of a server out of its room.
fn puts_out(event: &str, server: &ServerName) -> bool {
    serde_json::from_str(event).is_ok_and(|Member { kind, state_key, content }| {
        let is_out = matches!(&*content.membership, "leave" | "ban");
        kind == "m.room.member" && is_out && state_key.server_name() == server
    })
}

/// The events of a room that are sticky still: those have to arrive (MSC4354).
async fn sticky_in(reader: &Reader<'_>, room: u32, now: u64) -> Result<BTreeSet<u32>, Error> {
    let rows = reader.sticky_after(RoomNid(room), Position(0), usize::MAX).await?;
    Ok(rows.into_iter().filter(|(_, _, until)| *until > now).map(|(_, num, _)| num.0).collect())
}

#[cfg(test)]
mod tests {
    use ruma::{owned_server_name, owned_user_id};
    use serde_json::json;

    use super::*;

    #[test]
    fn who_is_put_out_is_read_from_memberships_alone() {
        let server = owned_server_name!("b.example");
        let event = |kind: &str, user: &str, membership: &str| {
            json!({ "type": kind, "state_key": user, "content": { "membership": membership } }).to_string()
        };
        assert!(puts_out(&event("m.room.member", "@u:b.example", "leave"), &server));
        assert!(puts_out(&event("m.room.member", "@u:b.example", "ban"), &server));
        for (kind, user, membership) in [
            ("m.room.member", "@u:b.example", "invite"),
            ("m.room.member", "@u:c.example", "ban"),
            ("m.room.message", "@u:b.example", "ban"),
            ("m.room.member", "nobody", "ban"),
        ] {
            assert!(!puts_out(&event(kind, user, membership), &server), "{kind} {user} {membership}");
        }
        assert!(!puts_out(r#"{"type":"m.room.message","content":{"body":"ban"}}"#, &server));
    }

    #[test]
    fn of_very_many_messages_to_devices_the_newest_stay() {
        let mut survey = Survey::default();
        let key = |row| (owned_server_name!("b.example"), row, Index(0));
        for row in 0..6 {
            survey.take_message(key(row), MESSAGES / 4);
        }
        assert_eq!((survey.lost.as_slice(), survey.messages.len()), (&[key(0), key(1)][..], 4));
        survey.take_news(key(6), OutboxItem::ToDevice("{}".to_owned()));
        assert_eq!((survey.lost.len(), survey.bytes), (3, MESSAGES / 4 * 3 + 2));
    }

    #[test]
    fn of_news_about_a_user_the_last_is_enough_unless_it_hides_one_before() {
        let mut survey = Survey::default();
        let key = |row| (owned_server_name!("b.example"), row, Index(0));
        let user = || owned_user_id!("@u:a.example");
        let device = |stream_id| OutboxItem::Device { user: user(), device: "D".into(), stream_id };
        let rows = [device(4), OutboxItem::SigningKeys(user()), device(5), device(5), device(6)];
        for (row, item) in (0..).zip(rows.into_iter().chain([OutboxItem::SigningKeys(user())])) {
            survey.take_news(key(row), item);
        }
        assert_eq!(survey.superseded, [key(0), key(3), key(1)]);
    }
}
