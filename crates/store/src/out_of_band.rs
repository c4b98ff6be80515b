//! Invites and knocks of local users in rooms this server is not in, with what the other server tells of the room; and
//! that a user is out of a room of which no event says so.

use ruma::{EventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, RoomVersionId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    At, Direction, Json, Key, KeyReader, KeyWriter, LogEntry, Reader, RoomNid, Store, Table, TableInfo, Tx,
    Value,
    members::Membership,
    pack::{Packer, Unpacker},
    table,
    tx::Error,
};

/// Rows listed in one commit.
const PAGE: usize = 50;

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

/// What is asked of all of a user's at once: other servers say how many there are, and how long each of them is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The membership.
    pub membership: Membership,
    /// Who sent the event.
    pub by: Option<OwnedUserId>,
    /// The number of the room here, as in [`OutOfBand`].
    pub number: Option<RoomNid>,
}

#[derive(Deserialize)]
struct Sent {
    sender: OwnedUserId,
}

impl Listed {
    /// `None` for what is no membership.
    fn of(what: &OutOfBand) -> Option<Self> {
        let sent = serde_json::from_str::<Sent>(what.event.get()).ok();
        let (by, number) = (sent.map(|sent| sent.sender), what.number.map(RoomNid));
        Some(Self { membership: what.kind()?, by, number })
    }

    /// Whether the user is out of the room.
    pub fn is_over(&self) -> bool {
        matches!(self.membership, Membership::Leave | Membership::Ban)
    }
}

impl Value for Listed {
    fn to_bytes(&self) -> Vec<u8> {
        let number = self.number.map_or(0, |nid| u64::from(nid.0) + 1);
        let by = self.by.as_ref().map_or("", |by| by.as_str());
        Packer::default().text(self.membership.as_str()).uint(number).text(by).done()
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Unpacker::new(bytes, "out-of-band membership");
        let membership = Membership::parse(from.text()?).ok_or_else(|| from.damaged())?;
        let number = match from.uint()? {
            0 => None,
            next => Some(RoomNid(u32::try_from(next - 1).map_err(|_| from.damaged())?)),
        };
        let by = match from.text()? {
            "" => None,
            by => Some(UserId::parse(by).map_err(|_| from.damaged())?),
        };
        Ok(Self { membership, by, number })
    }
}

table! {
    /// Local user and room → membership.
    OutOfBands = OUT_OF_BAND: (OwnedUserId, OwnedRoomId) => At<Json<OutOfBand>>;
    /// The same keys → what is listed of each, by the same commit.
    OutOfBandList = OUT_OF_BAND_LIST: (OwnedUserId, OwnedRoomId) => At<Listed>;
}

/// The rows of [`OutOfBands`] as they are on disk, damaged ones among them.
struct Rows;

impl Table for Rows {
    const INFO: TableInfo = OutOfBands::INFO;
    type Key = RowKey;
    type Value = Vec<u8>;
}

/// The bytes of a key.
#[derive(Clone)]
struct RowKey(Vec<u8>);

impl Key for RowKey {
    fn write(&self, to: &mut KeyWriter) {
        to.raw(&self.0);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
        Ok(Self(from.rest().to_vec()))
    }
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

    /// What is listed of all of a user's.
    pub async fn out_of_band_list(&self, user: &UserId) -> Result<Vec<(OwnedRoomId, At<Listed>)>, Error> {
        let rows = self.scan_all::<OutOfBandList>(&user.to_owned()).await?;
        Ok(rows.into_iter().map(|((_, room), at)| (room, at)).collect())
    }

    /// A user's in some rooms, as far as there are any.
    pub async fn out_of_bands(
        &self,
        user: &UserId,
        rooms: Vec<OwnedRoomId>,
    ) -> Result<Vec<(OwnedRoomId, At<Json<OutOfBand>>)>, Error> {
        let keys: Vec<_> = rooms.into_iter().map(|room| (user.to_owned(), room)).collect();
        let found = self.get_many::<OutOfBands>(&keys).await?;
        Ok(keys.into_iter().zip(found).filter_map(|((_, room), at)| Some((room, at?))).collect())
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
        match Listed::of(what) {
            Some(listed) => self.put_now::<OutOfBandList, _>(&key, &listed),
            None => self.delete::<OutOfBandList>(&key),
        };
        self.log(LogEntry::OutOfBandMembership { user: key.0, room: key.1 })
    }

    /// Drops it: the user is in the room now, or has forgotten it.
    pub fn delete_out_of_band(&mut self, user: &UserId, room: &RoomId) -> &mut Self {
        let key = (user.to_owned(), room.to_owned());
        self.delete::<OutOfBandList>(&key).delete::<OutOfBands>(&key)
    }

    /// Drops one that is listed so. Conflict if it is no longer.
    pub fn delete_listed(&mut self, user: &UserId, room: &RoomId, read: &At<Listed>) -> &mut Self {
        self.expect::<OutOfBandList>(&(user.to_owned(), room.to_owned()), Some(read));
        self.delete_out_of_band(user, room)
    }
}

/// Lists what is there, and takes from what is over what was told of the room: format 5 has them so. What cannot be read stays
/// as it is.
pub(crate) async fn list_out_of_bands(store: &Store) -> Result<(), Error> {
    // Broken off before, and an older release has run since: it does not keep the list.
    let mut tx = Tx::new();
    tx.delete_prefix::<OutOfBandList>(&());
    store.commit(tx).await?;
    let mut page = store.read().scan::<Rows>(&(), Direction::Forward, PAGE).await?;
    while let Some((last, _)) = page.last() {
        // Nothing lies between a key and the same with a zero behind it.
        let behind = (last.clone(), 0u8);
        let mut tx = Tx::new();
        for (key, row) in page {
            let Ok((key, mut at)) = read_row(&key, &row) else {
                let key = String::from_utf8_lossy(&key.0);
                tracing::warn!(?key, "an invite or knock elsewhere is damaged, and is not listed");
                continue;
            };
            let Some(listed) = Listed::of(&at.value.0) else { continue };
            if listed.is_over() && !at.value.0.state.is_empty() {
                at.value.0.state.clear();
                tx.put::<OutOfBands>(&key, &at);
            }
            tx.put::<OutOfBandList>(&key, &At { position: at.position, value: listed });
        }
        if !tx.is_empty() {
            store.commit(tx).await?;
        }
        page = store.read().scan_from::<Rows>(&(), &behind, PAGE).await?;
    }
    Ok(())
}

/// User and room, and what there is between them.
type Row = ((OwnedUserId, OwnedRoomId), At<Json<OutOfBand>>);

/// What a row of [`OutOfBands`] says.
fn read_row(key: &RowKey, row: &[u8]) -> Result<Row, Error> {
    Ok((Key::read(&mut KeyReader(&key.0))?, Value::from_bytes(row)?))
}

#[cfg(test)]
mod tests {
    use chappe_kv::{Db, Memory};
    use ruma::{OwnedUserId, RoomId, UserId, owned_room_id, owned_user_id, room_id, user_id};
    use serde_json::value::RawValue;

    use super::{Listed, OutOfBand, OutOfBandList, OutOfBands, RowKey, Rows};
    use crate::{
        At, Error, Json, Key, KeyWriter, Membership, Meta, Position, RoomNid, Store, Tx, golden::row,
    };

    fn what(membership: &str, event: &str) -> OutOfBand {
        let json = r#"{ "depth":  3, "sender": "@b:there.fr" }"#;
        OutOfBand {
            membership: membership.to_owned(),
            event: RawValue::from_string(json.to_owned()).unwrap(),
            event_id: event.to_owned(),
            state: Vec::new(),
            version: None,
            via: Vec::new(),
            number: None,
        }
    }

    async fn put(store: &Store, user: &UserId, room: &RoomId, what: &OutOfBand) {
        let mut tx = Tx::new();
        tx.put_out_of_band(user, room, what);
        store.commit(tx).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_not_as_it_was_read_is_not_replaced() {
        let store = Store::open(Db::new(Memory::default())).await.unwrap();
        let (user, room) = (user_id!("@a:here.fr"), room_id!("!r:there.fr"));
        put(&store, user, room, &what("invite", "$one")).await;
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

    #[tokio::test]
    async fn what_is_listed_is_what_is_there() {
        let store = Store::open(Db::new(Memory::default())).await.unwrap();
        let (user, room) = (user_id!("@a:here.fr"), room_id!("!r:there.fr"));
        let listed = async || store.read().out_of_band_list(user).await.unwrap();
        put(&store, user_id!("@b:here.fr"), room, &what("invite", "$others")).await;
        assert!(listed().await.is_empty());
        put(&store, user, room, &what("invite", "$one")).await;
        let invite = listed().await.pop().unwrap().1;
        let by = Some(owned_user_id!("@b:there.fr"));
        assert_eq!(invite.value, Listed { membership: Membership::Invite, by, number: None });
        let row = store.read().out_of_band(user, room).await.unwrap().unwrap();
        assert_eq!(invite.position, row.position);

        put(&store, user, room, &what("leave", "$two")).await;
        let leave = listed().await.pop().unwrap().1;
        assert!(leave.value.is_over() && leave.position > invite.position);
        let forget = async |read: &At<Listed>| {
            let mut tx = Tx::new();
            tx.delete_listed(user, room, read);
            store.commit(tx).await
        };
        assert!(matches!(forget(&invite).await, Err(Error::Conflict)));
        forget(&leave).await.unwrap();
        assert!(listed().await.is_empty());
        assert!(store.read().out_of_band(user, room).await.unwrap().is_none());
    }

    #[test]
    fn what_is_listed_keeps_its_bytes() {
        let key = (owned_user_id!("@a:x.fr"), owned_room_id!("!r:x.fr"));
        let bytes = |membership: Membership, by: Option<OwnedUserId>, number: Option<RoomNid>| {
            let value = Listed { membership, by, number };
            row::<OutOfBandList>(key.clone(), At { position: Position(0x0a0b), value }).1
        };
        let row = "OUT_OF_BAND_LIST a140613a782e6672000021723a782e66720000 = 0000000000000a0b";
        let invite = bytes(Membership::Invite, Some(owned_user_id!("@b:y.fr")), None);
        assert_eq!(invite, format!("{row}06696e76697465000740623a792e6672"));
        let leave = bytes(Membership::Leave, None, Some(RoomNid(0x0102)));
        assert_eq!(leave, format!("{row}056c65617665830200"));
    }

    #[tokio::test]
    async fn what_was_there_before_there_was_a_list_is_listed() {
        let db = Db::new(Memory::default());
        let store = Store::new(db.clone());
        let users = [user_id!("@a:here.fr"), user_id!("@b:here.fr")];
        let mut tx = Tx::new();
        tx.put::<Meta>(&"format".to_owned(), &4u32.to_be_bytes().to_vec());
        for n in 0..150 {
            let mut what = what(if n % 2 == 0 { "invite" } else { "leave" }, "$e");
            what.state = vec![RawValue::from_string("{}".to_owned()).unwrap()];
            let room = RoomId::parse(format!("!r{n}:there.fr")).unwrap();
            tx.put_now::<OutOfBands, _>(&(users[n % 3 / 2].to_owned(), room), &Json(what));
        }
        // From a migration that was broken off before an older release took away what it stands for.
        let gone = (users[0].to_owned(), owned_room_id!("!gone:there.fr"));
        let listed = Listed { membership: Membership::Invite, by: None, number: None };
        tx.put_now::<OutOfBandList, _>(&gone, &listed);
        let position = store.commit(tx).await.unwrap();
        let store = Store::open(db).await.unwrap();
        for (user, count) in users.into_iter().zip([100, 50]) {
            let list = store.read().out_of_band_list(user).await.unwrap();
            assert_eq!(list.len(), count);
            for (room, listed) in list {
                let row = store.read().out_of_band(user, &room).await.unwrap().unwrap();
                assert_eq!((listed.position, row.position), (position, position));
                assert_eq!(Some(listed.value.membership), row.value.0.kind());
                assert_eq!(listed.value.is_over(), row.value.0.state.is_empty());
            }
        }
    }

    #[tokio::test]
    async fn what_is_damaged_is_left_alone_and_keeps_nothing_else_from_being_listed() {
        let db = Db::new(Memory::default());
        let store = Store::new(db.clone());
        let (user, room) = (owned_user_id!("@a:here.fr"), owned_room_id!("!r:there.fr"));
        let mut key = KeyWriter::default();
        (user.clone(), owned_room_id!("!damaged:there.fr")).write(&mut key);
        let damaged =
            [(RowKey(key.0), b"no document".to_vec()), (RowKey(b"no key".to_vec()), b"no document".to_vec())];
        let mut tx = Tx::new();
        tx.put::<Meta>(&"format".to_owned(), &4u32.to_be_bytes().to_vec());
        for (key, row) in &damaged {
            tx.put::<Rows>(key, row);
        }
        tx.put_now::<OutOfBands, _>(&(user.clone(), room.clone()), &Json(what("invite", "$one")));
        store.commit(tx).await.unwrap();
        let store = Store::open(db).await.unwrap();
        let list = store.read().out_of_band_list(&user).await.unwrap();
        let listed: Vec<_> = list.into_iter().map(|(room, _)| room).collect();
        assert_eq!(listed, [room]);
        for (key, row) in &damaged {
            assert_eq!(store.read().get::<Rows>(key).await.unwrap().as_ref(), Some(row));
        }
    }
}
