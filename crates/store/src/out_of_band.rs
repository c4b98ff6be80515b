//! Invites and knocks of local users in rooms this server is not in, with what the other server tells of the room; and
//! that a user is out of a room of which no event says so.

use ruma::{EventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, RoomVersionId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{At, Json, LogEntry, Reader, RoomNid, Tx, members::Membership, table, tx::Error};

/// A membership without a room.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OutOfBand {
    /// `invite`, `knock`, or `leave` once it was turned down, withdrawn or taken back.
    pub membership: String,
    /// The membership event as PDU.
    pub event: Box<RawValue>,
    /// Its event id.
    pub event_id: String,
    /// Stripped state events of the room, each an object with `type`, `state_key`, `sender`, `content`.
    #[serde(default)]
    pub state: Vec<Box<RawValue>>,
    /// The room's version, if it was told.
    #[serde(default)]
    pub version: Option<String>,
    /// Servers to ask when joining or leaving.
    #[serde(default)]
    pub via: Vec<OwnedServerName>,
    /// The number of the room here, before it was removed or nothing was left of the user's membership.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
}

impl OutOfBand {
    /// That a user is out of a room of this server, without an event that says so. `last` is the membership they had.
    pub fn farewell(nid: RoomNid, version: &RoomVersionId, last: (&EventId, Box<RawValue>)) -> Self {
        let (event_id, event) = last;
        Self {
            membership: Membership::Leave.as_str().to_owned(),
            event,
            event_id: event_id.to_string(),
            state: Vec::new(),
            version: Some(version.to_string()),
            via: Vec::new(),
            number: Some(nid.0),
        }
    }

    /// The membership.
    pub fn kind(&self) -> Option<Membership> {
        Membership::parse(&self.membership)
    }
}

impl PartialEq for OutOfBand {
    fn eq(&self, other: &Self) -> bool {
        self.event_id == other.event_id && self.membership == other.membership
    }
}

table! {
    /// Local user and room → membership.
    OutOfBands = OUT_OF_BAND: (OwnedUserId, OwnedRoomId) => At<Json<OutOfBand>>;
}

impl Reader<'_> {
    /// A user's out-of-band membership in one room.
    pub async fn out_of_band(
        &self,
        user: &UserId,
        room: &RoomId,
    ) -> Result<Option<At<Json<OutOfBand>>>, Error> {
        self.get::<OutOfBands>(&(user.to_owned(), room.to_owned())).await
    }

    /// All of a user's.
    pub async fn out_of_bands(
        &self,
        user: &UserId,
    ) -> Result<Vec<(OwnedRoomId, At<Json<OutOfBand>>)>, Error> {
        let rows = self.scan_all::<OutOfBands>(&user.to_owned()).await?;
        Ok(rows.into_iter().map(|((_, room), at)| (room, at)).collect())
    }
}

impl Tx {
    /// Conflict if it is no longer as it was read.
    pub fn expect_out_of_band(
        &mut self,
        user: &UserId,
        room: &RoomId,
        read: &At<Json<OutOfBand>>,
    ) -> &mut Self {
        self.expect::<OutOfBands>(&(user.to_owned(), room.to_owned()), Some(read))
    }

    /// Sets an out-of-band membership and says so in the log.
    pub fn put_out_of_band(&mut self, user: &UserId, room: &RoomId, what: &OutOfBand) -> &mut Self {
        let key = (user.to_owned(), room.to_owned());
        self.put_now::<OutOfBands, _>(&key, &Json(what.clone()));
        self.log(LogEntry::OutOfBandMembership { user: key.0, room: key.1 })
    }

    /// Drops it: the user is in the room now, or has forgotten it.
    pub fn delete_out_of_band(&mut self, user: &UserId, room: &RoomId) -> &mut Self {
        self.delete::<OutOfBands>(&(user.to_owned(), room.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use chappe_kv::{Db, Memory};
    use ruma::{room_id, user_id};
    use serde_json::value::RawValue;

    use super::OutOfBand;
    use crate::{Error, Store, Tx};

    #[tokio::test]
    async fn what_is_not_as_it_was_read_is_not_replaced() {
        let store = Store::open(Db::new(Memory::default())).await.unwrap();
        let (user, room) = (user_id!("@a:here.fr"), room_id!("!r:there.fr"));
        let what = |membership: &str, event: &str| OutOfBand {
            membership: membership.to_owned(),
            event: RawValue::from_string(r#"{ "depth":  3}"#.to_owned()).unwrap(),
            event_id: event.to_owned(),
            state: Vec::new(),
            version: None,
            via: Vec::new(),
            number: None,
        };
        let mut tx = Tx::new();
        tx.put_out_of_band(user, room, &what("invite", "$one"));
        store.commit(tx).await.unwrap();
        let read = store.read().out_of_band(user, room).await.unwrap().unwrap();
        let leave = async |event: &str| {
            let mut tx = Tx::new();
            tx.expect_out_of_band(user, room, &read).put_out_of_band(user, room, &what("leave", event));
            store.commit(tx).await
        };
        leave("$two").await.unwrap();
        assert!(matches!(leave("$three").await, Err(Error::Conflict)));
        let now = store.read().out_of_band(user, room).await.unwrap().unwrap();
        assert_eq!(now.value.0, what("leave", "$two"));
    }
}
