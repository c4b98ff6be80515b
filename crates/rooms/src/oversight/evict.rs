//! Taking this server's users out of a room, and into another one if there is one for them.

use chappe_store::{Membership, Tx};
use ruma::{
    OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomId,
    api::client::room::create_room::v3::{Request, RoomPreset},
    events::TimelineEventType,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use crate::{Actor, Draft, Error, Result, Rooms, Standing};

/// How often it is looked for users who came in while others were taken out.
const ROUNDS: usize = 5;

/// The room that takes over from one that is closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    /// Who makes it and speaks in it.
    pub user: OwnedUserId,
    /// Its name.
    pub name: String,
    /// What is said in it.
    pub message: String,
}

/// What came of it, with the names that Synapse gives the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evicted {
    /// Users who are out.
    pub kicked_users: Vec<OwnedUserId>,
    /// Users who could not be taken out.
    pub failed_to_kick_users: Vec<OwnedUserId>,
    /// Aliases that point at the new room now, or nowhere.
    pub local_aliases: Vec<OwnedRoomAliasId>,
    /// The new room.
    pub new_room_id: Option<OwnedRoomId>,
}

impl Rooms {
    /// Makes the room that takes over. Whoever is brought into it may listen and not speak.
    pub async fn make_replacement(&self, replacement: &Replacement) -> Result<OwnedRoomId> {
        let actor = Actor { standing: Standing::Administrator, ..Actor::user(&replacement.user) };
        let mut request = Request::new();
        request.preset = Some(RoomPreset::PublicChat);
        request.name = Some(replacement.name.clone());
        let quiet = json!({ "users_default": -10 });
        request.power_level_content_override = serde_json::from_value(quiet).ok();
        let room = self.create(&actor, request).await?;
        let content = Map::from_iter([
            ("msgtype".to_owned(), json!("m.text")),
            ("body".to_owned(), json!(replacement.message)),
        ]);
        self.send(&actor, &room, Draft::message(TimelineEventType::RoomMessage, content), None).await?;
        Ok(room)
    }

    /// Has every user of this server leave a room, take back its knock or turn its invite down, and joins those who
    /// were joined to `into`. Doing it again goes on where it was broken off. The room's aliases follow: to the new room,
    /// or away if there is none.
    pub async fn evict(&self, room: &RoomId, into: Option<&RoomId>) -> Result<Evicted> {
        let mut evicted = Evicted { new_room_id: into.map(ToOwned::to_owned), ..Evicted::default() };
        for _ in 0..ROUNDS {
            let mut left = self.locals_in(room).await?;
            left.retain(|(user, _)| !evicted.failed_to_kick_users.contains(user));
            if left.is_empty() {
                break;
            }
            for local in left {
                self.take_out(room, local, &mut evicted).await;
            }
        }
        evicted.local_aliases = self.move_all_aliases(room, into).await?;
        Ok(evicted)
    }

    async fn take_out(
        &self,
        room: &RoomId,
        (user, membership): (OwnedUserId, Membership),
        evicted: &mut Evicted,
    ) {
        let actor = Actor::user(&user);
        if let Err(error) = self.depart_from(&actor, room, None).await {
            tracing::warn!(%room, %user, %error, "a user could not be taken out of a room");
            evicted.failed_to_kick_users.push(user);
            return;
        }
        if let Some(into) = evicted.new_room_id.as_deref().filter(|_| membership == Membership::Join)
            && let Err(error) = self.join(&actor, into, Vec::new(), Map::new()).await
        {
            tracing::warn!(room = %into, %user, %error, "a user could not be brought into a new room");
        }
        if !evicted.kicked_users.contains(&user) {
            evicted.kicked_users.push(user);
        }
    }

    async fn move_all_aliases(&self, room: &RoomId, into: Option<&RoomId>) -> Result<Vec<OwnedRoomAliasId>> {
        let reader = self.0.store.read();
        let Some(nid) = reader.room_nid(room).await? else { return Ok(Vec::new()) };
        let target = match into {
            Some(into) => Some(reader.room_nid(into).await?.ok_or(Error::NotFound("room"))?),
            None => None,
        };
        let aliases = reader.aliases_of(nid).await?;
        let mut tx = Tx::new();
        for alias in &aliases {
            let Some(old) = reader.alias(alias).await? else { continue };
            match target {
                Some(target) => tx.move_alias(alias, &old, target),
                None => tx.delete_alias(alias, &old),
            };
        }
        if target.is_none() {
            tx.unpublish_room(nid);
        }
        drop(reader);
        if !tx.is_empty() {
            self.0.store.commit(tx).await?;
        }
        Ok(aliases)
    }
}
