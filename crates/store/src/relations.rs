//! Relations between events (replies in threads, edits, reactions), threads, and redactions that wait.

use ruma::{EventId, OwnedUserId};

use crate::{
    At, Direction, Reader, Tx,
    events::{EventIdKey, EventNum},
    pack::{Packer, Unpacker},
    rooms::RoomNid,
    table,
    tx::Error,
    value::Value,
};

/// Relation types that clients look for.
const SPECIFIED: [&str; 4] = ["m.annotation", "m.reference", "m.replace", "m.thread"];

/// An event that relates to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// The event.
    pub num: EventNum,
    /// Its type.
    pub event_type: String,
    /// Its sender.
    pub sender: OwnedUserId,
}

impl Value for Child {
    fn to_bytes(&self) -> Vec<u8> {
        Packer::default().uint(self.num.0.into()).text(&self.event_type).text(self.sender.as_str()).done()
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Unpacker::new(bytes, "relation");
        let num = EventNum(from.u32()?);
        let event_type = from.text()?.to_owned();
        let sender = from.text()?.try_into().map_err(|_| from.damaged())?;
        Ok(Self { num, event_type, sender })
    }
}

/// A related event as it is indexed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The event it relates to; this server need not have it.
    pub parent: EventIdKey,
    /// `rel_type`.
    pub rel_type: String,
    /// The related event's place in the timeline.
    pub ordinal: i64,
    /// The related event.
    pub child: Child,
}

table! {
    /// Room, parent, relation type, ordinal of the child → child.
    Relations = RELATIONS: (RoomNid, EventIdKey, String, i64) => Child;
    /// Room, parent, relation type → how many.
    RelationCounts = RELATION_COUNTS: (RoomNid, EventIdKey, String) => i64;
    /// Room and thread root → the latest reply (in order of commits).
    Threads = THREADS: (RoomNid, EventIdKey) => At<EventNum>;
    /// Redacted event id (not there yet, or redacted already), room and redaction.
    WaitingRedactions = WAITING_REDACTIONS: (EventIdKey, RoomNid, EventNum) => ();
}

impl Reader<'_> {
    /// How many related events of each type several events have: one round trip. `counts[i][j]` is of `parents[i]`
    /// and `rel_types[j]`.
    pub async fn relation_counts(
        &self,
        nid: RoomNid,
        parents: &[&EventId],
        rel_types: &[&str],
    ) -> Result<Vec<Vec<u32>>, Error> {
        let key = |parent: &EventId, rel: &&str| (nid, EventIdKey::from(parent), (*rel).to_owned());
        let keys: Vec<_> =
            parents.iter().flat_map(|parent| rel_types.iter().map(move |rel| key(parent, rel))).collect();
        let found = self.get_many::<RelationCounts>(&keys).await?;
        let counts: Vec<u32> =
            found.into_iter().map(|count| u32::try_from(count.unwrap_or(0)).unwrap_or(0)).collect();
        Ok(counts.chunks(rel_types.len().max(1)).map(<[u32]>::to_vec).collect())
    }

    /// Up to `limit` related events of one type, in timeline order or against it, from (forward: included, backward:
    /// excluded) the ordinal `from` on.
    pub async fn related(
        &self,
        nid: RoomNid,
        (parent, rel_type): (&EventId, &str),
        direction: Direction,
        from: Option<i64>,
        limit: usize,
    ) -> Result<Vec<(i64, Child)>, Error> {
        let prefix = (nid, EventIdKey::from(parent), rel_type.to_owned());
        let rows = match (direction, from) {
            (_, None) => self.scan::<Relations>(&prefix, direction, limit).await?,
            (Direction::Forward, Some(from)) => {
                self.scan_from::<Relations>(&prefix, &(prefix.clone(), from), limit).await?
            }
            (Direction::Backward, Some(from)) => {
                self.scan_back::<Relations>(&prefix, &(prefix.clone(), from), limit).await?
            }
        };
        Ok(rows.into_iter().map(|((_, _, _, ordinal), child)| (ordinal, child)).collect())
    }

    /// The types of relations that an event may have: those of the specification, and up to `limit` others.
    pub async fn relation_types(
        &self,
        nid: RoomNid,
        parent: &EventId,
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        let prefix = (nid, EventIdKey::from(parent));
        let rows = self.scan::<RelationCounts>(&prefix, Direction::Forward, limit).await?;
        let others = rows.into_iter().filter(|(_, count)| *count > 0).map(|((_, _, rel), _)| rel);
        let others = others.filter(|rel| !SPECIFIED.contains(&&**rel));
        Ok(SPECIFIED.iter().map(|rel| (*rel).to_owned()).chain(others).collect())
    }

    /// The threads of a room with their latest replies, the most recently answered first.
    pub async fn threads(&self, nid: RoomNid) -> Result<Vec<(EventIdKey, At<EventNum>)>, Error> {
        let rows = self.scan_all::<Threads>(&nid).await?;
        let mut rows: Vec<_> = rows.into_iter().map(|((_, root), at)| (root, at)).collect();
        rows.sort_by_key(|(_, at)| std::cmp::Reverse((at.position, at.value)));
        Ok(rows)
    }

    /// Redactions of `target` in this room that came before it, or after another one: of many the first and the last.
    pub async fn noted_redactions(&self, nid: RoomNid, target: &EventId) -> Result<Vec<EventNum>, Error> {
        const MOST: usize = 1_000;
        let prefix = (EventIdKey::from(target), nid);
        let mut rows = self.scan::<WaitingRedactions>(&prefix, Direction::Forward, MOST).await?;
        if rows.len() == MOST {
            rows.extend(self.scan::<WaitingRedactions>(&prefix, Direction::Backward, MOST).await?);
        }
        Ok(rows.into_iter().map(|((_, _, num), ())| num).collect())
    }
}

impl Tx {
    /// Indexes a related event that got its place in the timeline. `m.thread` also moves the thread up when the
    /// event is live (ordinal ≥ 1).
    pub fn put_relation(&mut self, nid: RoomNid, relation: &Relation) -> &mut Self {
        let Relation { parent, rel_type, ordinal, child } = relation;
        self.put::<Relations>(&(nid, parent.clone(), rel_type.clone(), *ordinal), child);
        self.add::<RelationCounts>(&(nid, parent.clone(), rel_type.clone()), 1);
        if rel_type == "m.thread" && *ordinal >= 1 {
            self.put_now::<Threads, _>(&(nid, parent.clone()), &child.num);
        }
        self
    }

    /// Takes a related event out again: it was redacted. The caller has seen it indexed in the same snapshot, and
    /// expects the room's head.
    pub fn delete_relation(&mut self, nid: RoomNid, relation: &Relation) -> &mut Self {
        let Relation { parent, rel_type, ordinal, .. } = relation;
        self.delete::<Relations>(&(nid, parent.clone(), rel_type.clone(), *ordinal));
        self.add::<RelationCounts>(&(nid, parent.clone(), rel_type.clone()), -1)
    }

    /// Remembers a redaction whose target this server does not have, or that is redacted already.
    pub fn note_redaction(&mut self, nid: RoomNid, target: &EventId, redaction: EventNum) -> &mut Self {
        self.put::<WaitingRedactions>(&(target.into(), nid, redaction), &())
    }
}
