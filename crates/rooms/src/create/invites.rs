//! Invites into a new room for which others are needed: other servers, or an identity server for an address.

use std::time::Duration;

use chappe_rules::policy::Door;
use futures_util::{StreamExt, stream};
use ruma::{OwnedUserId, RoomId, UserId};
use serde_json::{Map, json};

use crate::{Actor, AddressInvite, Draft, Error, Result, Rooms, author::By, desk::Desk, send::bypass_of};

/// Users who are invited side by side. Each invite may be one more head of the room, and ten heads are many.
const SIDE_BY_SIDE: usize = 8;
/// A server that was not reached is tried once more if that was known so soon: whoever makes the room waits.
const SOON: Duration = Duration::from_secs(5);
/// How long after that.
const PAUSE: Duration = Duration::from_secs(3);
/// For how long all of it is waited for. What takes longer goes on, and the room stays.
const LONGEST: Duration = Duration::from_secs(25);

/// Who is to be invited once there is a room.
pub(super) struct Asked {
    pub(super) users: Vec<OwnedUserId>,
    pub(super) addresses: Vec<AddressInvite>,
    pub(super) is_direct: bool,
    /// Whether there is nobody in the room without them.
    pub(super) are_all: bool,
}

impl Rooms {
    /// Invites those who could not be invited as the room was made. Whoever cannot be is left out, as if the client had tried
    /// itself; if nobody can be, and nobody else would be there, the room is taken back, and the error is that of the first.
    pub(super) async fn invite_into_new(&self, actor: &Actor, room: &RoomId, asked: Asked) -> Result<()> {
        if asked.users.is_empty() && asked.addresses.is_empty() {
            return Ok(());
        }
        let are_all = asked.are_all;
        let Some(error) = self.why_nobody(actor, room, asked).await else { return Ok(()) };
        let is_gone = are_all && self.take_back(actor, room).await;
        if is_gone { Err(error) } else { Ok(()) }
    }

    /// Gives why not, if it is known in time that nobody could be invited.
    async fn why_nobody(&self, actor: &Actor, room: &RoomId, asked: Asked) -> Option<Error> {
        let (rooms, actor, room) = (self.clone(), actor.clone(), room.to_owned());
        let inviting = async move { rooms.invite_all(&actor, &room, asked).await };
        let inviting = self.0.world.spawn("invites of a new room", inviting);
        self.0.world.timeout(LONGEST, inviting).await.and_then(Result::ok).flatten()
    }

    async fn invite_all(&self, actor: &Actor, room: &RoomId, asked: Asked) -> Option<Error> {
        let direct = asked.is_direct;
        let inviting = asked.users.into_iter().enumerate().map(|(place, user)| {
            let (rooms, actor, room) = (self.clone(), actor.clone(), room.to_owned());
            async move {
                let done = rooms.invite_insisting(&actor, &room, &user, direct).await;
                if let Err(error) = &done {
                    tracing::info!(%room, %user, %error, "invite of a new room failed");
                }
                (place, done)
            }
        });
        let mut done: Vec<(usize, Result<()>)> =
            stream::iter(inviting).buffer_unordered(SIDE_BY_SIDE).collect().await;
        // As they were asked for: whoever tries again is told the same.
        done.sort_by_key(|(place, _)| *place);
        let mut done: Vec<Result<()>> = done.into_iter().map(|(_, done)| done).collect();
        for invite in &asked.addresses {
            let one = self.invite_address(actor, room, invite).await;
            if let Err(error) = &one {
                tracing::info!(%room, %error, "an address was not invited into a new room");
            }
            done.push(one);
        }
        let is_nobody = done.iter().all(Result::is_err);
        done.into_iter().find_map(Result::err).filter(|_| is_nobody)
    }

    async fn invite_insisting(
        &self,
        actor: &Actor,
        room: &RoomId,
        user: &UserId,
        direct: bool,
    ) -> Result<()> {
        let world = &self.0.world;
        let begun = world.instant();
        let content = self.0.invite_content(user, None, direct).await?;
        let first = self.invite_remote(actor, room, user, content.clone()).await;
        let may_pass = matches!(first, Err(Error::Unreachable | Error::Retry));
        let is_soon = world.instant().saturating_duration_since(begun) < SOON;
        if !(may_pass && is_soon && self.takes_part(user.server_name())) {
            return first.map(drop);
        }
        world.sleep(PAUSE).await;
        self.invite_remote(actor, room, user, content).await.map(drop)
    }

    /// Whether whoever made the room is rid of it.
    async fn take_back(&self, actor: &Actor, room: &RoomId) -> bool {
        self.abandon(actor, room).await.unwrap_or_else(|error| {
            tracing::warn!(%room, %error, "a room stays into which nobody could be invited");
            false
        })
    }

    /// Leaves the room and frees its aliases, in one commit that does not happen if somebody comes meanwhile.
    async fn abandon(&self, actor: &Actor, room: &RoomId) -> Result<bool> {
        let turn = self.0.turn(room).await;
        let mut desk = Desk::open(&self.0, room).await?;
        if desk.head.joined + desk.head.invited > 1 {
            // Somebody was invited meanwhile, from another device.
            return Ok(false);
        }
        let content = Map::from_iter([("membership".to_owned(), json!("leave"))]);
        let by = By { sender: &actor.user, bypass: bypass_of(actor), door: Door::Local };
        desk.author_unasked(by, Draft::member(&actor.user, content)).await?;
        for name in desk.reader.aliases_of(desk.nid).await? {
            if let Some(alias) = desk.reader.alias(&name).await? {
                desk.tx.delete_alias(&name, &alias);
            }
        }
        desk.tx.unpublish_room(desk.nid);
        self.0.store.commit(desk.seal()).await?;
        drop(turn);
        if let Err(error) = self.forget(&actor.user, room).await {
            tracing::warn!(%room, %error, "a room that was taken back is not forgotten");
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chappe_kv::{Counting, Db, Memory, RoundTrips};
    use ruma::room_alias_id;
    use serde_json::json;

    use crate::tests::net::{ALICE, Net, actor, room};

    #[tokio::test]
    async fn a_room_is_taken_back_in_one_commit() {
        let trips = Arc::new(RoundTrips::default());
        let db = Db::new(Counting::new(Memory::default(), trips.clone()));
        let rooms = Net::default().server_on("a.example", 1, db);
        let id = room(&rooms, ALICE, json!({ "room_alias_name": "near" })).await;
        trips.take();
        assert!(rooms.abandon(&actor(ALICE), &id).await.unwrap());
        assert_eq!(trips.take().2, 2, "with the one that forgets the room");
        let reader = rooms.store().read();
        assert!(reader.alias(room_alias_id!("#near:a.example")).await.unwrap().is_none());
        assert!(reader.user_rooms(&actor(ALICE).user).await.unwrap().is_empty());
    }
}
