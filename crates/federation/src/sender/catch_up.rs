//! After a long absence a destination gets the newest event of each room; the rest it asks for if it wants it.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use chappe_store::{
    Error, EventNum, Index, OutboxItem, Position, Reader, RoomNid, Tx,
    outbox::{Outbox, OutboxKey},
};
use ruma::ServerName;

use super::Sender;

/// Rows read and removed at once.
const PAGE: usize = 1_000;

impl Sender {
    /// Shortens a queue of `from` rows and more: of each room's events only the last one stays, and where others have
    /// followed it, the room's newest events come instead. Everything else stays, sticky events among it.
    pub(super) async fn shorten(&self, destination: &ServerName, from: usize) -> Result<(), Error> {
        let from = from.max(1);
        let store = self.0.network.store();
        if store.read().outbox(destination, from).await?.len() < from {
            return Ok(());
        }
        let (last, superseded) = self.survey(destination).await?;
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

    /// The last waiting event of each room, and the rows before it.
    async fn survey(
        &self,
        destination: &ServerName,
    ) -> Result<(BTreeMap<u32, (OutboxKey, u32)>, Vec<OutboxKey>), Error> {
        let mut last: BTreeMap<u32, (OutboxKey, u32)> = BTreeMap::new();
        let mut superseded = Vec::new();
        let mut sticky: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        let now = self.0.network.world().now();
        let mut from = (destination.to_owned(), 0, Index(0));
        loop {
            let reader = self.0.network.store().read();
            let rows = reader.scan_from::<Outbox>(&destination.to_owned(), &from, PAGE).await?;
            let Some((end, _)) = rows.last() else { return Ok((last, superseded)) };
            from = (end.0.clone(), end.1, Index(end.2.0.saturating_add(1)));
            for (key, item) in rows {
                let OutboxItem::Pdu { room, event } = item else { continue };
                if let Entry::Vacant(unread) = sticky.entry(room) {
                    unread.insert(sticky_in(&reader, room, now).await?);
                }
                let stays = sticky.get(&room).is_some_and(|sticky| sticky.contains(&event));
                if !stays && let Some((before, _)) = last.insert(room, (key, event)) {
                    superseded.push(before);
                }
            }
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
