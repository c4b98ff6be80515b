//! Gaps: events of the timeline with predecessors this server does not have. Where back-filling continues.
//!
//! Whoever is in a room can make as many of them as events: nothing that is done often reads them all.

use ruma::{EventId, OwnedEventId};

use crate::{
    Direction, Json, Reader, Store, Tx,
    events::{EventIdKey, EventNum},
    rooms::RoomNid,
    table,
    tx::Error,
};

/// Events looked at that may follow a missing one.
const FOLLOWERS: usize = 100;
/// Gaps brought up to date in one commit.
const PAGE: usize = 1_000;

table! {
    /// Room, ordinal of the event, event → its missing previous events.
    Gaps = GAPS: (RoomNid, i64, EventNum) => Json<Vec<OwnedEventId>>;
    /// Room, missing event, event that follows it → the ordinal of that one. The gap counts, should this outlive it.
    Missing = MISSING: (RoomNid, EventIdKey, EventNum) => i64;
}

/// A gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The place of the event before which history is missing.
    pub ordinal: i64,
    /// The event.
    pub num: EventNum,
    /// Its previous events that are missing.
    pub missing: Vec<OwnedEventId>,
}

fn gap(((_, ordinal, num), Json(missing)): ((RoomNid, i64, EventNum), Json<Vec<OwnedEventId>>)) -> Gap {
    Gap { ordinal, num, missing }
}

impl Reader<'_> {
    /// The gaps from the place `from` (included) to the place `to` (excluded), oldest first.
    pub async fn gaps_between(&self, nid: RoomNid, from: i64, to: i64) -> Result<Vec<Gap>, Error> {
        if from >= to {
            return Ok(Vec::new());
        }
        let rows = self.scan_between::<Gaps>(&(nid, from), &(nid, to)).await?;
        Ok(rows.into_iter().map(gap).collect())
    }

    /// Up to `limit` gaps from the place `from` (included) on, oldest first: one round trip.
    pub async fn gaps_from(&self, nid: RoomNid, from: i64, limit: usize) -> Result<Vec<Gap>, Error> {
        let rows = self.scan_from::<Gaps>(&nid, &(nid, from), limit).await?;
        Ok(rows.into_iter().map(gap).collect())
    }

    /// Up to `limit` gaps before the place `before` (excluded), newest first: one round trip.
    pub async fn gaps_back(&self, nid: RoomNid, before: i64, limit: usize) -> Result<Vec<Gap>, Error> {
        let rows = self.scan_back::<Gaps>(&nid, &(nid, before), limit).await?;
        Ok(rows.into_iter().map(gap).collect())
    }

    /// Whether an event is missing before one of the timeline: one round trip if none follows it, else two.
    pub async fn is_missing(&self, nid: RoomNid, event: &EventId) -> Result<bool, Error> {
        let prefix = (nid, EventIdKey::from(event));
        let rows = self.scan::<Missing>(&prefix, Direction::Forward, FOLLOWERS).await?;
        let keys: Vec<_> = rows.into_iter().map(|((_, _, num), ordinal)| (nid, ordinal, num)).collect();
        let gaps = self.get_many::<Gaps>(&keys).await?;
        Ok(gaps.into_iter().flatten().any(|Json(missing)| missing.iter().any(|id| id == event)))
    }
}

impl Tx {
    /// Says what is missing before an event; nothing missing closes the gap.
    pub fn put_gap(&mut self, nid: RoomNid, gap: &Gap) -> &mut Self {
        let key = (nid, gap.ordinal, gap.num);
        if gap.missing.is_empty() {
            return self.delete::<Gaps>(&key);
        }
        for event in &gap.missing {
            self.put::<Missing>(&(nid, EventIdKey::from(&**event), gap.num), &gap.ordinal);
        }
        self.put::<Gaps>(&key, &Json(gap.missing.clone()))
    }

    /// Says what of a gap is still missing; nothing closes it.
    pub fn narrow_gap(&mut self, nid: RoomNid, gap: &Gap, missing: Vec<OwnedEventId>) -> &mut Self {
        for event in gap.missing.iter().filter(|event| !missing.contains(event)) {
            self.delete::<Missing>(&(nid, EventIdKey::from(&**event), gap.num));
        }
        self.put_gap(nid, &Gap { missing, ..*gap })
    }
}

/// Notes by the missing events what is missing: format 4 has it there.
pub(crate) async fn note_missing(store: &Store) -> Result<(), Error> {
    let mut from = (RoomNid(0), i64::MIN, EventNum(0));
    loop {
        let rows = store.read().scan_from::<Gaps>(&(), &from, PAGE).await?;
        let Some(((nid, ordinal, num), _)) = rows.last() else { return Ok(()) };
        from = (*nid, *ordinal, EventNum(num.0.saturating_add(1)));
        let mut tx = Tx::new();
        for row in rows {
            let nid = row.0.0;
            tx.put_gap(nid, &gap(row));
        }
        store.commit(tx).await?;
    }
}

#[cfg(test)]
mod tests {
    use chappe_kv::{Db, Memory};
    use ruma::{OwnedEventId, event_id};

    use super::{Gap, Gaps};
    use crate::{EventNum, Json, RoomNid, Store, Tx, log::Meta};

    const NID: RoomNid = RoomNid(1);

    fn gap(ordinal: i64, missing: &[OwnedEventId]) -> Gap {
        Gap { ordinal, num: EventNum(7), missing: missing.to_vec() }
    }

    #[tokio::test]
    async fn what_is_missing_is_known_by_its_id_until_it_is_there() {
        let store = Store::open(Db::new(Memory::default())).await.unwrap();
        let (a, b) = (event_id!("$a:x.fr").to_owned(), event_id!("$b:x.fr").to_owned());
        let put = async |gap: &Gap| {
            let mut tx = Tx::new();
            tx.put_gap(NID, gap);
            store.commit(tx).await.unwrap();
        };
        let is_missing = async |id: &OwnedEventId| store.read().is_missing(NID, id).await.unwrap();
        assert!(!is_missing(&a).await);
        put(&gap(3, &[a.clone(), b.clone()])).await;
        assert!(is_missing(&a).await && is_missing(&b).await);
        assert!(!store.read().is_missing(RoomNid(2), &a).await.unwrap());
        put(&gap(3, std::slice::from_ref(&b))).await;
        assert!(!is_missing(&a).await && is_missing(&b).await);
        put(&gap(3, &[])).await;
        assert!(!is_missing(&b).await);
    }

    #[tokio::test]
    async fn gaps_that_were_closed_hide_none() {
        let store = Store::open(Db::new(Memory::default())).await.unwrap();
        let missing = [event_id!("$a:x.fr").to_owned()];
        let at = |n: u32| Gap { ordinal: n.into(), num: EventNum(n), missing: missing.to_vec() };
        let mut tx = Tx::new();
        for n in 1..=150 {
            tx.put_gap(NID, &at(n));
        }
        store.commit(tx).await.unwrap();
        let close = async |nums: std::ops::RangeInclusive<u32>| {
            let mut tx = Tx::new();
            for n in nums {
                tx.narrow_gap(NID, &at(n), Vec::new());
            }
            store.commit(tx).await.unwrap();
            store.read().is_missing(NID, &missing[0]).await.unwrap()
        };
        assert!(close(1..=149).await);
        assert!(!close(150..=150).await);
    }

    #[tokio::test]
    async fn gaps_are_read_from_either_end() {
        let store = Store::open(Db::new(Memory::default())).await.unwrap();
        let missing = [event_id!("$a:x.fr").to_owned()];
        let mut tx = Tx::new();
        for ordinal in [-5, 2, 9] {
            tx.put_gap(NID, &gap(ordinal, &missing));
        }
        tx.put_gap(RoomNid(2), &gap(4, &missing));
        store.commit(tx).await.unwrap();
        let reader = store.read();
        let places = |gaps: Vec<Gap>| gaps.into_iter().map(|gap| gap.ordinal).collect::<Vec<_>>();
        assert_eq!(places(reader.gaps_back(NID, 9, 9).await.unwrap()), [2, -5]);
        assert_eq!(places(reader.gaps_back(NID, i64::MAX, 1).await.unwrap()), [9]);
        assert_eq!(places(reader.gaps_from(NID, i64::MIN, 1).await.unwrap()), [-5]);
        assert_eq!(places(reader.gaps_from(NID, 2, 9).await.unwrap()), [2, 9]);
        assert_eq!(places(reader.gaps_between(NID, -5, 9).await.unwrap()), [-5, 2]);
        assert!(reader.gaps_between(NID, 9, -5).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_was_missing_before_it_was_noted_is_known() {
        let db = Db::new(Memory::default());
        let store = Store::new(db.clone());
        let missing = event_id!("$a:x.fr").to_owned();
        let mut tx = Tx::new();
        tx.put::<Meta>(&"format".to_owned(), &3u32.to_be_bytes().to_vec());
        for ordinal in 0..1_500 {
            tx.put::<Gaps>(&(NID, ordinal, EventNum(7)), &Json(vec![missing.clone()]));
        }
        let other = event_id!("$b:x.fr").to_owned();
        tx.put::<Gaps>(&(RoomNid(2), 4, EventNum(7)), &Json(vec![other.clone()]));
        store.commit(tx).await.unwrap();
        let store = Store::open(db).await.unwrap();
        assert!(store.read().is_missing(NID, &missing).await.unwrap());
        assert!(store.read().is_missing(RoomNid(2), &other).await.unwrap());
    }
}
