//! Server notices: what the server itself says to its users, each in a room of their own (client-server API, "Server
//! Notices"). The room carries the tag `m.server_notice`, its invite cannot be turned down, and it is used again.

use chappe_accounts::{NewUser, UserKind};
use chappe_store::{Membership, Tx, notices::NoticeRooms};
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::client::room::create_room::v3::{Request, RoomPreset},
    events::TimelineEventType,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{Actor, Change, Draft, Error, Result, Rooms, Standing, Transaction};

/// The tag of the room in the user's list.
const TAG: &str = "m.server_notice";

/// The section `[rooms.notices]`: who speaks for the server, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NoticesConfig {
    /// The name of the user that speaks; it is made at the first notice.
    pub user: String,
    /// Its display name.
    pub display_name: String,
    /// Its avatar, an `mxc:` URI.
    pub avatar_url: Option<String>,
    /// The name of the rooms.
    pub room_name: String,
    /// Their topic.
    pub room_topic: Option<String>,
    /// Whether users are joined without being asked.
    pub auto_join: bool,
}

impl Default for NoticesConfig {
    fn default() -> Self {
        Self {
            user: "_server".to_owned(),
            display_name: "Server Notices".to_owned(),
            avatar_url: None,
            room_name: "Server Notices".to_owned(),
            room_topic: None,
            auto_join: false,
        }
    }
}

/// What the server says.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// Event type.
    pub kind: TimelineEventType,
    /// State key; none for a message.
    pub state_key: Option<String>,
    /// Content.
    pub content: Map<String, Value>,
}

impl Rooms {
    /// Says something to a user of this server, once per `txn`. [`Error::NotFound`] without that user,
    /// [`Error::BadState`] where notices are not configured.
    pub async fn notify(
        &self,
        user: &UserId,
        notice: Notice,
        txn: Option<Transaction>,
    ) -> Result<OwnedEventId> {
        let Some(config) = &self.config().notices else {
            return Err(Error::BadState("server notices are not configured on this server".to_owned()));
        };
        let account = self.0.accounts.user(user).await.map_err(|_| Error::Retry)?;
        if account.is_none_or(|account| account.deactivated.is_some()) {
            return Err(Error::NotFound("user"));
        }
        let speaker = self.speaker(config).await?;
        let room = match self.notice_room(user, &speaker).await? {
            Some(room) => room,
            None => self.make_notice_room(config, user, &speaker).await?,
        };
        self.bring(config, user, &speaker, &room).await?;
        let draft = Draft { state_key: notice.state_key, ..Draft::message(notice.kind, notice.content) };
        self.send(&actor(&speaker), &room, draft, txn).await
    }

    /// The user that speaks, made if it is not there.
    async fn speaker(&self, config: &NoticesConfig) -> Result<OwnedUserId> {
        let speaker = self.speaker_id(config)?;
        let accounts = &self.0.accounts;
        let failed = |error: chappe_accounts::Error| match error {
            chappe_accounts::Error::Store(error) => Error::from(error),
            other => Error::BadState(format!("the user of server notices cannot be made: {other}")),
        };
        if accounts.user(&speaker).await.map_err(failed)?.is_some() {
            return Ok(speaker);
        }
        let new = NewUser {
            localpart: Some(config.user.clone()),
            kind: UserKind::System,
            displayname: Some(config.display_name.clone()),
            ..NewUser::default()
        };
        match accounts.create_user(new).await {
            Ok(_) | Err(chappe_accounts::Error::UserInUse) => {}
            Err(error) => return Err(failed(error)),
        }
        if let Some(avatar) = &config.avatar_url {
            let avatar = Value::from(avatar.as_str());
            accounts.set_profile_field(&speaker, "avatar_url", Some(&avatar)).await.map_err(failed)?;
        }
        Ok(speaker)
    }

    fn speaker_id(&self, config: &NoticesConfig) -> Result<OwnedUserId> {
        let id = UserId::parse(format!("@{}:{}", config.user, self.0.server));
        id.map_err(|_| Error::BadState("the name of the user of server notices cannot be used".to_owned()))
    }

    /// The room in which a user is told things, if the speaker is still in it.
    async fn notice_room(&self, user: &UserId, speaker: &UserId) -> Result<Option<OwnedRoomId>> {
        let reader = self.0.store.read();
        let Some(room) = reader.get::<NoticeRooms>(&user.to_owned()).await? else { return Ok(None) };
        let Ok(room) = OwnedRoomId::try_from(room) else { return Ok(None) };
        drop(reader);
        let there = self.membership_in(&room, speaker).await? == Some(Membership::Join);
        Ok(there.then_some(room))
    }

    async fn membership_in(&self, room: &RoomId, user: &UserId) -> Result<Option<Membership>> {
        let reader = self.0.store.read();
        let Some(nid) = reader.room_nid(room).await? else { return Ok(None) };
        Ok(reader.membership(nid, user).await?.map(|(membership, _)| membership))
    }

    /// Makes the room and remembers it. Whoever comes second uses the first one's.
    async fn make_notice_room(
        &self,
        config: &NoticesConfig,
        user: &UserId,
        speaker: &UserId,
    ) -> Result<OwnedRoomId> {
        let before = self.0.store.read().get::<NoticeRooms>(&user.to_owned()).await?;
        let mut request = Request::new();
        request.preset = Some(RoomPreset::PrivateChat);
        request.name = Some(config.room_name.clone());
        request.topic.clone_from(&config.room_topic);
        let quiet = json!({ "users_default": -10 });
        request.power_level_content_override = serde_json::from_value(quiet).ok();
        request.creation_content = serde_json::from_value(json!({ "m.federate": false })).ok();
        let room = self.create(&actor(speaker), request).await?;
        let mut tx = Tx::new();
        tx.expect::<NoticeRooms>(&user.to_owned(), before.as_ref());
        tx.put::<NoticeRooms>(&user.to_owned(), &room.to_string());
        match self.0.store.commit(tx).await {
            Ok(_) => {}
            Err(chappe_store::Error::Conflict) => {
                self.leave(&actor(speaker), &room, None).await?;
                return self.notice_room(user, speaker).await?.ok_or(Error::Retry);
            }
            Err(error) => return Err(error.into()),
        }
        let tag = |tags: &mut Map<String, Value>| {
            tags.insert(TAG.to_owned(), json!({}));
        };
        let tagged = self.0.accounts.update_tags(user, &room, tag).await;
        if let Err(error) = tagged {
            tracing::warn!(%user, %room, %error, "a room of server notices has no tag");
        }
        Ok(room)
    }

    /// Invites the user, or joins it, where it is not in the room.
    async fn bring(
        &self,
        config: &NoticesConfig,
        user: &UserId,
        speaker: &UserId,
        room: &RoomId,
    ) -> Result<()> {
        let membership = self.membership_in(room, user).await?;
        if !matches!(membership, Some(Membership::Join | Membership::Invite)) {
            self.change(&actor(speaker), room, user, Change::Invite, None).await?;
        }
        if config.auto_join && membership != Some(Membership::Join) {
            self.join(&Actor::user(user), room, Vec::new(), Map::new()).await?;
        }
        Ok(())
    }

    /// Whether a user is the one that speaks for this server.
    pub(crate) fn speaks_for_server(&self, user: &UserId) -> bool {
        let notices = &self.config().notices;
        user.server_name() == self.0.server
            && notices.as_ref().is_some_and(|notices| notices.user == user.localpart())
    }

    /// Refuses to turn an invite of the server's down: the server has its say. Whoever has joined may leave.
    pub(crate) async fn check_leave(&self, user: &UserId, room: &RoomId) -> Result<()> {
        if self.config().notices.is_none() {
            return Ok(());
        }
        let of_notices = self.0.store.read().get::<NoticeRooms>(&user.to_owned()).await?;
        if of_notices.as_deref() == Some(room.as_str())
            && self.membership_in(room, user).await? == Some(Membership::Invite)
        {
            return Err(Error::NoticeRoom);
        }
        Ok(())
    }
}

/// The speaker, whom no policy of this network binds.
fn actor(speaker: &UserId) -> Actor {
    Actor { standing: Standing::Administrator, ..Actor::user(speaker) }
}
