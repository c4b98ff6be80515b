//! After a long absence a destination gets the newest event of each room; the rest it asks for if it wants it.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use chappe_store::{
    Error, EventNum, Index, OutboxItem, Position, Reader, RoomNid, Tx,
    outbox::{Outbox, OutboxKey},
};
use ruma::{OwnedUserId, ServerName};

use super::Sender;

/// Rows read and removed at once.
const PAGE: usize = 1_000;

impl Sender {
    /// Shortens a queue of `from` rows and more: of each room's events only the last one stays, and where others have
    /// followed it, the room's newest events come instead; of the news about a user's devices and keys the last stays.
    /// Everything else stays, sticky events among it.
    pub(super) async fn shorten(&self, destination: &ServerName, from: usize) -> Result<(), Error> {
        let from = from.max(1);
        let store = self.0.network.store();
        if store.read().outbox(destination, from).await?.len() < from {
            return Ok(());
        }
        let Survey { last, superseded, .. } = self.survey(destination).await?;
        for page in superseded.chunks(PAGE) {
            let mut tx = Tx::new();
            for key in page {
                tx.delete::<Outbox>(key);
            }
            store.commit(tx).await?;
        }
        let rooms = last.len();
        for (room, (key, event)) in last {
            let newest = newest(&store.read(), destination, room, event).await?;
            let mut tx = Tx::new();
            for event in newest {
                tx.enqueue(destination, &OutboxItem::Pdu { room, event: event.0 });
            }
            if !tx.is_empty() {
                tx.delete::<Outbox>(&key);
                store.commit(tx).await?;
            }
        }
        tracing::info!(%destination, rooms, left_out = superseded.len(), "catching up");
        Ok(())
    }

    async fn survey(&self, destination: &ServerName) -> Result<Survey, Error> {
        let mut survey = Survey::default();
        let mut sticky: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        let now = self.0.network.world().now();
        let mut from = (destination.to_owned(), 0, Index(0));
        loop {
            let reader = self.0.network.store().read();
            let rows = reader.scan_from::<Outbox>(&destination.to_owned(), &from, PAGE).await?;
            let Some((end, _)) = rows.last() else { return Ok(survey) };
            from = (end.0.clone(), end.1, Index(end.2.0.saturating_add(1)));
            for (key, item) in rows {
                let OutboxItem::Pdu { room, event } = item else {
                    survey.take_news(key, item);
                    continue;
                };
                if let Entry::Vacant(unread) = sticky.entry(room) {
                    unread.insert(sticky_in(&reader, room, now).await?);
                }
                let stays = sticky.get(&room).is_some_and(|sticky| sticky.contains(&event));
                if !stays && let Some((before, _)) = survey.last.insert(room, (key, event)) {
                    survey.superseded.push(before);
                }
            }
        }
    }
}

/// What of a queue need not be sent.
#[derive(Default)]
struct Survey {
    /// Room → its last waiting event.
    last: BTreeMap<u32, (OutboxKey, u32)>,
    /// User → the last change of a device, with its stream id.
    devices: BTreeMap<OwnedUserId, (OutboxKey, u64)>,
    /// User → the last change of signing keys.
    keys: BTreeMap<OwnedUserId, OutboxKey>,
    /// The rows that a later one makes needless.
    superseded: Vec<OutboxKey>,
}

impl Survey {
    /// News about a user. A change of a device names the one before it: who missed that asks for the whole list. Two that have
    /// the same stream id both stay, as the second says nothing of the first.
    fn take_news(&mut self, key: OutboxKey, item: OutboxItem) {
        match item {
            OutboxItem::Device { user, stream_id, .. } => {
                let before = self.devices.insert(user, (key, stream_id));
                let before = before.filter(|(_, before)| *before < stream_id);
                self.superseded.extend(before.map(|(key, _)| key));
            }
            OutboxItem::SigningKeys(user) => self.superseded.extend(self.keys.insert(user, key)),
            OutboxItem::Pdu { .. } | OutboxItem::ToDevice(_) => {}
        }
    }
}

/// The events of a room that are sticky still: those have to arrive (MSC4354).
async fn sticky_in(reader: &Reader<'_>, room: u32, now: u64) -> Result<BTreeSet<u32>, Error> {
    let rows = reader.sticky_after(RoomNid(room), Position(0), usize::MAX).await?;
    Ok(rows.into_iter().filter(|(_, _, until)| *until > now).map(|(_, num, _)| num.0).collect())
}

/// The events to send instead of `event`: none when it is itself among the newest, or when the destination has left.
async fn newest(
    reader: &Reader<'_>,
    destination: &ServerName,
    room: u32,
    event: u32,
) -> Result<Vec<EventNum>, Error> {
    let nid = RoomNid(room);
    let head = reader.room_head(nid).await?;
    let is_newest = head.extremities.contains(&EventNum(event));
    if is_newest || !reader.server_joined(nid, destination).await? {
        return Ok(Vec::new());
    }
    Ok(head.extremities.into_iter().take(20).collect())
}

#[cfg(test)]
mod tests {
    use ruma::{owned_server_name, owned_user_id};

    use super::*;

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
