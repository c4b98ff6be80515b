//! Being the policy server of a room: an event is looked at and signed, or refused (server-server API, "Policy Servers").

use chappe_rules::{
    Pdu,
    build::SigningKey,
    content_rules::{ContentRules, Written},
    policy_server::{judges, sign},
};
use ruma::{OwnedRoomId, RoomId, ServerName, room_version_rules::RoomVersionRules};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    Config, Error, PeerError, Result, Rooms,
    desk::Desk,
    receive::{allowed_by_acl, parse},
};

/// The section `[rooms.policy_server]`: this server judges the events of rooms that name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyServerConfig {
    /// The rooms. Others may name this server as long as they like.
    pub rooms: Vec<OwnedRoomId>,
    /// Users nothing is signed for; `*` and `?` as in patterns.
    pub refused_users: Vec<String>,
    /// Servers whose users nothing is signed for; likewise.
    pub refused_servers: Vec<String>,
    /// What no text of an event may contain, in small or capital letters.
    pub refused_words: Vec<String>,
    /// Kinds of messages, such as `m.video`.
    pub refused_msgtypes: Vec<String>,
    /// MIME types of files; patterns.
    pub refused_mimetypes: Vec<String>,
}

/// What a policy server needs.
#[derive(Debug)]
pub(crate) struct Judge {
    rooms: Vec<OwnedRoomId>,
    rules: ContentRules,
    key: SigningKey,
}

impl Judge {
    /// What the configuration makes of this server, if anything.
    pub(crate) fn of(config: &Config, key: &SigningKey) -> Option<Self> {
        config.policy_server.as_ref().map(|config| Self::new(config, key))
    }

    fn new(config: &PolicyServerConfig, key: &SigningKey) -> Self {
        let written = Written {
            users: &config.refused_users,
            servers: &config.refused_servers,
            words: &config.refused_words,
            kinds: &config.refused_msgtypes,
            files: &config.refused_mimetypes,
        };
        Self { rooms: config.rooms.clone(), rules: ContentRules::new(written), key: key.for_policy() }
    }

    /// The signature of this server on an event, or what is said instead.
    pub(crate) fn sign(
        &self,
        rules: &RoomVersionRules,
        pdu: &Pdu,
        server: &ServerName,
    ) -> Result<String, PeerError> {
        let refused = |status, errcode: &str, error: &str| PeerError::Refused {
            status,
            errcode: errcode.to_owned(),
            error: error.to_owned(),
            room_version: None,
        };
        if !self.protects(pdu.room_id()) {
            return Err(refused(404, "M_NOT_FOUND", "This room is not protected by this server"));
        }
        if let Some(objection) = self.rules.objection(pdu) {
            return Err(refused(400, "M_FORBIDDEN", objection));
        }
        let signature = sign(rules, pdu, server, &self.key);
        signature.ok_or_else(|| refused(400, "M_BAD_JSON", "The event cannot be signed"))
    }

    fn protects(&self, room: &RoomId) -> bool {
        self.rooms.iter().any(|known| known == room)
    }
}

#[derive(Deserialize)]
struct Addressed {
    room_id: OwnedRoomId,
}

impl Rooms {
    /// The public key of this server as a policy server, in base64; `None` if it is none.
    pub fn policy_key(&self) -> Option<String> {
        (*self.0.judge.get()).as_ref().map(|judge| judge.key.public_base64())
    }

    /// `sign`: this server's signature on an event of a room that it protects. [`Error::PolicyServer`] with the refusal,
    /// [`Error::NotFound`] for other rooms and where this server is no policy server.
    pub async fn sign_for_room(&self, origin: &ServerName, raw: &RawValue) -> Result<String> {
        let Some(judge) = &*self.0.judge.get() else { return Err(Error::NotFound("policy server")) };
        let Addressed { room_id: room } = serde_json::from_str(raw.get())
            .map_err(|_| Error::BadJson("an event needs a room_id".to_owned()))?;
        if !judge.protects(&room) {
            return Err(Error::NotFound("room"));
        }
        let desk = Desk::open(&self.0, &room).await?;
        if !desk.is_here().await? {
            return Err(Error::NotFound("room"));
        }
        allowed_by_acl(&desk, origin).await?;
        let rules = desk.rules;
        drop(desk);
        let sent = parse(rules, &room, raw).map_err(|error| Error::BadJson(error.to_string()))?;
        if !judges(sent.kind(), sent.state_key()) {
            return Err(Error::BadJson("policy servers are not asked about this event".to_owned()));
        }
        // What is judged must be what was said: nobody has words signed in another's name, nor by showing an event without
        // them, which has the same signature.
        let proven = self.0.check_one(rules, sent.clone()).await;
        if !proven.map_err(|error| Error::BadJson(error.to_string()))?.is_intact() {
            return Err(Error::BadJson("the content hash is wrong".to_owned()));
        }
        judge.sign(rules, &sent, self.server()).map_err(Error::PolicyServer)
    }
}
