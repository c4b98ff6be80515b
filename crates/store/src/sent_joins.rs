//! Joins of local users that other servers were sent and that have not brought the user in: these servers may believe that the
//! user is in the room.

use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};

use crate::{Json, Reader, Tx, table, tx::Error};

/// A join that was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentJoin {
    /// Servers that may have accepted it, in the order in which they were asked; who was asked again stands there again.
    pub servers: Vec<OwnedServerName>,
    /// When the last of them was asked, in milliseconds since the Unix epoch.
    pub since: u64,
}

table! {
    /// Local user and room → who was sent the user's join.
    SentJoins = SENT_JOINS: (OwnedUserId, OwnedRoomId) => Json<SentJoin>;
}

impl Reader<'_> {
    /// A user's join to a room that was sent, if the user has not come in since.
    pub async fn sent_join(&self, user: &UserId, room: &RoomId) -> Result<Option<SentJoin>, Error> {
        let row = self.get::<SentJoins>(&(user.to_owned(), room.to_owned())).await?;
        Ok(row.map(|Json(sent)| sent))
    }

    /// The users and rooms of all of them.
    pub async fn sent_joins(&self) -> Result<Vec<(OwnedUserId, OwnedRoomId)>, Error> {
        let rows = self.scan_all::<SentJoins>(&()).await?;
        Ok(rows.into_iter().map(|(key, _)| key).collect())
    }
}

impl Tx {
    /// Says who was sent a join; without servers it is forgotten. Conflict if it is no longer as it was read.
    pub fn replace_sent_join(
        &mut self,
        user: &UserId,
        room: &RoomId,
        read: Option<&SentJoin>,
        now: &SentJoin,
    ) -> &mut Self {
        let key = (user.to_owned(), room.to_owned());
        self.expect::<SentJoins>(&key, read.cloned().map(Json).as_ref());
        if now.servers.is_empty() {
            return self.delete::<SentJoins>(&key);
        }
        self.put::<SentJoins>(&key, &Json(now.clone()))
    }

    /// Forgets a join that was sent: the user is in the room now.
    pub fn delete_sent_join(&mut self, user: &UserId, room: &RoomId) -> &mut Self {
        self.delete::<SentJoins>(&(user.to_owned(), room.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use chappe_kv::{Db, Memory};
    use ruma::{owned_room_id, owned_server_name, owned_user_id, room_id, user_id};

    use super::{SentJoin, SentJoins};
    use crate::{Error, Json, Store, Tx, golden::row};

    fn sent(since: u64) -> SentJoin {
        SentJoin { servers: vec![owned_server_name!("y.fr"); 2], since }
    }

    #[test]
    fn what_was_sent_keeps_its_bytes() {
        let key = (owned_user_id!("@a:x.fr"), owned_room_id!("!r:x.fr"));
        let value = "7b2273657276657273223a5b22792e6672222c22792e6672225d2c2273696e6365223a377d";
        let golden = format!("SENT_JOINS a040613a782e6672000021723a782e66720000 = {value}");
        assert_eq!(row::<SentJoins>(key, Json(sent(7))).1, golden);
    }

    #[tokio::test]
    async fn of_a_join_that_was_sent_anew_nothing_is_forgotten() {
        let store = Store::open(Db::new(Memory::default())).await.unwrap();
        let (user, room) = (user_id!("@a:here.fr"), room_id!("!r:there.fr"));
        let replace = async |read: Option<&SentJoin>, now: &SentJoin| {
            let mut tx = Tx::new();
            tx.replace_sent_join(user, room, read, now);
            store.commit(tx).await
        };
        let noted = async || store.read().sent_join(user, room).await.unwrap();
        replace(None, &sent(1)).await.unwrap();
        assert!(matches!(replace(None, &sent(2)).await, Err(Error::Conflict)));
        replace(Some(&sent(1)), &sent(2)).await.unwrap();
        let stale = replace(Some(&sent(1)), &SentJoin::default()).await;
        assert!(matches!(stale, Err(Error::Conflict)));
        assert_eq!(noted().await, Some(sent(2)));
        assert_eq!(store.read().sent_joins().await.unwrap(), [(user.to_owned(), room.to_owned())]);
        replace(Some(&sent(2)), &SentJoin::default()).await.unwrap();
        assert_eq!(noted().await, None);
    }
}
