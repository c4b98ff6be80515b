//! Sticky events (MSC4354): those that every device in the room gets for a while, whatever its timeline limit.

use chappe_kv::Position;

use crate::{Direction, Reader, Tx, events::EventNum, rooms::RoomNid, table, tx::Error};

table! {
    /// Room, commit and event → until when it is sticky, in milliseconds since 1970.
    Sticky = STICKY: (RoomNid, u64, EventNum) => u64;
    /// The same by when that ends.
    StickyEnds = STICKY_ENDS: (u64, u64, (RoomNid, EventNum)) => ();
}

/// A sticky event: its commit, its number, until when.
pub type StickyRow = (Position, EventNum, u64);

impl Reader<'_> {
    /// The sticky events of a room that came after a position, oldest first, at most `limit`; some may have ended.
    pub async fn sticky_after(
        &self,
        nid: RoomNid,
        after: Position,
        limit: usize,
    ) -> Result<Vec<StickyRow>, Error> {
        let rows = self.scan_from::<Sticky>(&nid, &(nid, after.0.saturating_add(1)), limit).await?;
        Ok(rows.into_iter().map(|((_, at, num), until)| (Position(at), num, until)).collect())
    }

    /// The newest sticky events of a room, newest first, at most `limit`; some may have ended.
    pub async fn newest_sticky(&self, nid: RoomNid, limit: usize) -> Result<Vec<StickyRow>, Error> {
        let rows = self.scan::<Sticky>(&nid, Direction::Backward, limit).await?;
        Ok(rows.into_iter().map(|((_, at, num), until)| (Position(at), num, until)).collect())
    }

    /// The last sticky event of every room that has any.
    pub async fn sticky_rooms(&self) -> Result<Vec<(RoomNid, Position)>, Error> {
        let rows = self.scan_all::<Sticky>(&()).await?;
        Ok(rows.into_iter().map(|((nid, at, _), _)| (nid, Position(at))).collect())
    }
}

impl Tx {
    /// Notes that an event of this commit is sticky.
    pub fn put_sticky(&mut self, nid: RoomNid, num: EventNum, until: u64) -> &mut Self {
        self.put_at_position::<Sticky>(&nid, &num, &until);
        self.put_at_position::<StickyEnds>(&until, &(nid, num), &())
    }

    /// Forgets up to `limit` events whose time ended before `now`. Gives how many.
    pub async fn forget_sticky(
        &mut self,
        reader: &Reader<'_>,
        now: u64,
        limit: usize,
    ) -> Result<usize, Error> {
        let rows = reader.scan::<StickyEnds>(&(), Direction::Forward, limit).await?;
        let mut count = 0;
        for (key, ()) in rows.into_iter().take_while(|((until, ..), ())| *until <= now) {
            let (_, at, (nid, num)) = key;
            self.delete::<StickyEnds>(&key);
            self.delete::<Sticky>(&(nid, at, num));
            count += 1;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use chappe_kv::{Db, Memory, Position};

    use crate::{EventNum, RoomNid, Store, Tx};

    #[tokio::test]
    async fn sticky_events_are_found_by_commit_and_forgotten_by_time() {
        let store = Store::new(Db::new(Memory::default()));
        let nid = RoomNid(1);
        let stick = async |num, until| {
            let mut tx = Tx::new();
            tx.put_sticky(nid, EventNum(num), until);
            store.commit(tx).await.unwrap()
        };
        let first = stick(1, 50).await;
        let second = stick(2, 10).await;
        let found = async |after| store.read().sticky_after(nid, after, 9).await.unwrap();
        assert_eq!(found(Position(0)).await, [(first, EventNum(1), 50), (second, EventNum(2), 10)]);
        assert_eq!(found(first).await.len(), 1);
        let newest = store.read().newest_sticky(nid, 1).await.unwrap();
        assert_eq!(newest, [(second, EventNum(2), 10)]);
        assert_eq!(store.read().sticky_after(RoomNid(2), Position(0), 9).await.unwrap(), []);
        assert_eq!(store.read().sticky_rooms().await.unwrap().len(), 2);
        let mut tx = Tx::new();
        assert_eq!(tx.forget_sticky(&store.read(), 20, 9).await.unwrap(), 1);
        store.commit(tx).await.unwrap();
        assert_eq!(found(Position(0)).await, [(first, EventNum(1), 50)]);
    }
}
