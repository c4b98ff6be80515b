//! What expires: when it is to be looked at which room, and what rooms were told of how long they keep what is said.

use chappe_rules::{access::RETENTION, retention::Policy, retention::Retention};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    Direction, EventNum, Json, Reader, RoomNid, Tx,
    rooms::RoomHeads,
    state::StateKey,
    table,
    tx::{Error, Store},
};

/// Rooms brought up to date in one commit.
const PAGE: usize = 500;

/// How long rooms keep what is said, as all of them were last told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// What the configuration says.
    pub policy: Policy,
    /// The last room that was told, by number.
    pub after: u32,
    /// Whether that was the last of all.
    pub done: bool,
    /// Since when it is known without a break which events name which media, in milliseconds since 1970.
    pub since: u64,
}

table! {
    /// `(milliseconds since 1970, room)` → nothing: it is looked then what has expired in the room.
    /// [`Tx::replace_head`](crate::Tx::replace_head) keeps it as the head says.
    ExpiryDue = EXPIRY_DUE: (u64, RoomNid) => ();
    /// `(room, when it was said in milliseconds since 1970, event)` → nothing: what came long after it was said and has not
    /// expired yet. By number it would wait for all that came before it.
    CameLate = CAME_LATE: (RoomNid, u64, EventNum) => ();
    /// One row: what rooms were told.
    ExpiryPolicies = EXPIRY_POLICY: () => Json<Told>;
}

impl Reader<'_> {
    /// The next `limit` rooms in which something may expire, and when.
    pub async fn next_expiries(&self, limit: usize) -> Result<Vec<(u64, RoomNid)>, Error> {
        let rows = self.scan::<ExpiryDue>(&(), Direction::Forward, limit).await?;
        Ok(rows.into_iter().map(|(key, ())| key).collect())
    }

    /// The first `limit` events of a room that came long after they were said, by when that was.
    pub async fn came_late(&self, nid: RoomNid, limit: usize) -> Result<Vec<(u64, EventNum)>, Error> {
        let rows = self.scan::<CameLate>(&nid, Direction::Forward, limit).await?;
        Ok(rows.into_iter().map(|((_, said, num), ())| (said, num)).collect())
    }

    /// What the current state of a room says of how long it keeps what is said.
    async fn retention(&self, nid: RoomNid, num: EventNum) -> Result<Retention, Error> {
        #[derive(Deserialize)]
        struct Event<'a> {
            #[serde(borrow)]
            content: &'a RawValue,
        }
        if self.event_meta(nid, num).await?.redacted_by.some().is_some() {
            return Ok(Retention::default());
        }
        let pdu = self.pdu(nid, num).await?;
        let event: Event<'_> = serde_json::from_str(&pdu.json).map_err(|_| Error::Corrupt("event JSON"))?;
        Ok(Retention::of(event.content))
    }
}

/// Notes in the heads of all rooms what they say of how long they keep what is said: format 3 has it there.
pub(crate) async fn note_retentions(store: &Store) -> Result<(), Error> {
    let mut from = RoomNid(0);
    loop {
        let reader = store.read();
        let rows = reader.scan_from::<RoomHeads>(&(), &from, PAGE).await?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        from = RoomNid(last.0.saturating_add(1));
        let mut tx = Tx::new();
        for (nid, head) in rows {
            let found = reader.state_now(nid, &[StateKey::new(RETENTION, "")]).await?;
            let Some(num) = found.into_iter().next().flatten() else { continue };
            let mut new = head.clone();
            new.keeping.said = reader.retention(nid, num).await?;
            tx.replace_head(nid, &head, &new);
        }
        if !tx.is_empty() {
            store.commit(tx).await?;
        }
    }
}
