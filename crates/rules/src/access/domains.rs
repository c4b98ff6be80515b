//! Which servers' users may invite and join whom and what. A server decides this for what its own users do and for invites
//! that reach them, not for what others have done.

use std::collections::BTreeMap;

use ruma::{
    OwnedServerName, ServerName, UserId,
    events::{StateEventType, TimelineEventType},
};
use serde::{Deserialize, Serialize};

use super::{Refusal, is_decided_here, is_same, only};
use crate::policy::{Door, Question};

/// The section `[rooms.access.domains]`, with the names that its options have elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option that operators know by itself")]
pub struct DomainRules {
    /// By the server of who invites: the servers whose users may be invited.
    pub domain_mapping: BTreeMap<OwnedServerName, Vec<OwnedServerName>>,
    /// Whether users of servers that the mapping does not name may invite.
    pub can_invite_if_not_in_domain_mapping: bool,
    /// Whether users of this server join only rooms to which they are invited.
    pub can_only_join_rooms_with_invite: bool,
    /// Whether users of this server invite only into rooms that nobody else has entered.
    pub can_only_invite_during_room_creation: bool,
    /// Whether addresses that are nobody's yet may be invited.
    pub can_invite_by_third_party_id: bool,
    /// Servers whose users are not invited into rooms of the public directory.
    pub domains_prevented_from_being_invited_to_published_rooms: Vec<OwnedServerName>,
}

impl Default for DomainRules {
    fn default() -> Self {
        Self {
            domain_mapping: BTreeMap::new(),
            can_invite_if_not_in_domain_mapping: true,
            can_only_join_rooms_with_invite: false,
            can_only_invite_during_room_creation: false,
            can_invite_by_third_party_id: true,
            domains_prevented_from_being_invited_to_published_rooms: Vec::new(),
        }
    }
}

impl DomainRules {
    /// Whether the answer may depend on the room being in the public directory.
    pub fn reads_directory(&self) -> bool {
        !self.domains_prevented_from_being_invited_to_published_rooms.is_empty()
    }

    /// Whether users of a server are kept out of rooms of the public directory.
    pub fn keeps_from_published(&self, server: &ServerName) -> bool {
        self.domains_prevented_from_being_invited_to_published_rooms.iter().any(|kept| is_same(kept, server))
    }

    /// An invite of a user, or of an address that is nobody's.
    pub(super) fn may_invite(
        &self,
        question: &Question<'_>,
        invited: Option<&UserId>,
    ) -> Result<(), Refusal> {
        if !is_decided_here(question.door) {
            return Ok(());
        }
        let by_own = question.door != Door::Offer;
        if by_own && self.can_only_invite_during_room_creation && !is_new(question) {
            return Err(Refusal::InviteLate);
        }
        let Some(invited) = invited else {
            return if self.can_invite_by_third_party_id { Ok(()) } else { Err(Refusal::InviteAddress) };
        };
        let sender = question.candidate.sender.server_name();
        let mapped = self.domain_mapping.iter().find(|(server, _)| is_same(server, sender));
        let allowed = match mapped {
            Some((_, servers)) => servers.iter().any(|server| is_same(server, invited.server_name())),
            None => self.can_invite_if_not_in_domain_mapping,
        };
        let kept_out = question.listed && self.keeps_from_published(invited.server_name());
        if allowed && !kept_out { Ok(()) } else { Err(Refusal::Invite) }
    }

    /// A join; whoever makes a room is in.
    pub(super) fn may_join(&self, question: &Question<'_>, before: Option<&str>) -> Result<(), Refusal> {
        let asked = question.door == Door::Local && self.can_only_join_rooms_with_invite;
        if asked && !matches!(before, Some("invite" | "join")) { Err(Refusal::Join) } else { Ok(()) }
    }
}

/// Whether everything about members was said by the one who made the room.
fn is_new(question: &Question<'_>) -> bool {
    let create = (question.state)(&only(StateEventType::RoomCreate));
    let (Some(create), Some(parties)) = (create, question.parties) else { return true };
    let mut members = parties.iter().filter(|event| *event.kind() == TimelineEventType::RoomMember);
    members.all(|event| event.sender() == create.sender())
}
