//! Blocked rooms: nobody of this server joins them, knocks at them or is invited into them.

use chappe_store::{Json, Tx, blocks::BlockedRooms};
use ruma::{RoomId, UserId};

use crate::{Error, Result, Rooms};

pub use chappe_store::blocks::Block;

impl Rooms {
    /// Blocks a room, also one that this server does not know yet. Who is in it stays.
    pub async fn block(&self, room: &RoomId, by: &UserId) -> Result<()> {
        let block = Block { by: by.to_owned(), at: self.0.world.now() };
        let mut tx = Tx::new();
        tx.put::<BlockedRooms>(&room.to_owned(), &Json(block));
        self.0.store.commit(tx).await?;
        Ok(())
    }

    /// Lifts a block; none is fine.
    pub async fn unblock(&self, room: &RoomId) -> Result<()> {
        let mut tx = Tx::new();
        tx.delete::<BlockedRooms>(&room.to_owned());
        self.0.store.commit(tx).await?;
        Ok(())
    }

    /// The block of a room.
    pub async fn blocked(&self, room: &RoomId) -> Result<Option<Block>> {
        let found = self.0.store.read().get::<BlockedRooms>(&room.to_owned()).await?;
        Ok(found.map(|Json(block)| block))
    }

    /// Refuses a blocked room.
    pub(crate) async fn check_block(&self, room: &RoomId) -> Result<()> {
        if self.blocked(room).await?.is_some() { Err(refusal()) } else { Ok(()) }
    }
}

/// The refusal of a blocked room.
pub(crate) fn refusal() -> Error {
    Error::Forbidden("this room has been blocked on this server".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{
        Change, Draft, Error,
        testing::{Town, actor, object},
    };

    #[tokio::test]
    async fn nobody_enters_a_blocked_room() {
        let town = Town::new();
        let (anna, bob) = (actor("anna"), actor("bob"));
        let room = town.room(&anna, json!({ "preset": "public_chat" })).await;
        town.rooms.block(&room, &anna.user).await.unwrap();
        assert_eq!(town.rooms.blocked(&room).await.unwrap().unwrap().by, anna.user);
        for refused in [
            town.rooms.join(&bob, &room, Vec::new(), serde_json::Map::new()).await,
            town.rooms.knock(&bob, &room, Vec::new(), None).await,
        ] {
            assert!(matches!(refused, Err(Error::Forbidden(why)) if why.contains("blocked")));
        }
        let invite = town.rooms.change(&anna, &room, &bob.user, Change::Invite, None).await;
        assert!(matches!(invite, Err(Error::Forbidden(why)) if why.contains("blocked")));
        let content = object(json!({ "membership": "invite" }));
        let draft = Draft::state("m.room.member", bob.user.as_str(), content);
        let sent = town.rooms.send(&anna, &room, draft, None).await;
        assert!(matches!(sent, Err(Error::Forbidden(why)) if why.contains("blocked")));
        // Who is there may still speak and leave.
        town.say(&anna, &room, json!({ "body": "x" })).await;
        town.rooms.unblock(&room).await.unwrap();
        town.rooms.join(&bob, &room, Vec::new(), serde_json::Map::new()).await.unwrap();
    }
}
