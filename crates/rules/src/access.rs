//! The access rules of a network with externals: who may meet whom in which room. One pure function,
//! [`Access::allowed`], asked at every door; a server without the section is a plain Matrix server.
//!
//! See ADR 15.

mod domains;
mod people;
mod refusal;
mod rule;
#[cfg(test)]
mod tests;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, OwnedUserId, ServerName, UserId,
    events::{StateEventType, TimelineEventType},
};
use serde::{Deserialize, Serialize};

use self::people::Parties;
pub use self::{
    domains::DomainRules,
    refusal::Refusal,
    rule::{RULES, RoomRules, Rule},
};
use crate::{
    Pdu,
    auth::StateKey,
    policy::{Bypass, Candidate, Door, Question, State},
};

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// How long events of a room are kept (MSC1763).
pub const RETENTION: &str = "m.room.retention";

/// The section `[rooms.access]`. It must say the same on every server of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// The servers of externals: kept out of restricted rooms, creating none.
    pub externals: Vec<OwnedServerName>,
    /// Users whom no rule binds, on whichever server, beside the administrators of this one.
    pub bypass_users: Vec<OwnedUserId>,
    /// Whether the moderators take over when the last administrator leaves a room, and not everybody.
    pub promote_moderators: bool,
    /// How long events of public rooms are kept, in days: unless the room says less, and at most; 0 for ever.
    pub public_retention_days: u32,
    /// Which servers' users may invite and join whom and what.
    pub domains: DomainRules,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            externals: Vec::new(),
            bypass_users: Vec::new(),
            promote_moderators: false,
            public_retention_days: 90,
            domains: DomainRules::default(),
        }
    }
}

fn only(kind: impl Into<StateEventType>) -> StateKey {
    (kind.into(), String::new())
}

fn text<'a>(content: &'a CanonicalJsonObject, field: &str) -> Option<&'a str> {
    content.get(field).and_then(CanonicalJsonValue::as_str)
}

fn content(event: Option<Pdu>) -> CanonicalJsonObject {
    event.and_then(|event| event.content_as()).unwrap_or_default()
}

impl Question<'_> {
    fn rules(&self) -> RoomRules {
        RoomRules::of((self.state)(&only(RULES)).as_ref())
    }

    fn content_of(&self, kind: impl Into<StateEventType>) -> CanonicalJsonObject {
        content((self.state)(&only(kind)))
    }

    fn is_open(&self) -> bool {
        text(&self.content_of(StateEventType::RoomJoinRules), "join_rule") == Some("public")
    }
}

impl Access {
    /// Whether a server is one of externals.
    pub fn is_external(&self, server: &ServerName) -> bool {
        self.externals.iter().any(|external| is_same(external, server))
    }

    /// Whether no rule binds a user on any server.
    pub fn exempts(&self, user: &UserId) -> bool {
        self.bypass_users.iter().any(|exempt| exempt == user)
    }

    /// How long events of public rooms are kept at most, in milliseconds.
    pub fn public_retention_ms(&self) -> Option<i64> {
        Some(i64::from(self.public_retention_days) * DAY_MS).filter(|limit| *limit > 0)
    }

    /// The state keys that judging `candidate` reads.
    pub fn state_needed(&self, candidate: &Candidate<'_>) -> Vec<StateKey> {
        let kind = candidate.kind.to_string();
        match (kind.as_str(), candidate.state_key) {
            ("m.room.member", Some(user)) => {
                vec![
                    only(RULES),
                    (StateEventType::RoomMember, user.to_owned()),
                    only(StateEventType::RoomCreate),
                ]
            }
            (RULES, Some("")) => vec![
                only(RULES),
                only(StateEventType::RoomCreate),
                only(StateEventType::RoomPowerLevels),
                only(StateEventType::RoomJoinRules),
            ],
            ("m.room.join_rules", Some("")) => vec![only(RULES), only(StateEventType::RoomJoinRules)],
            ("m.room.redaction", None) => vec![only(RULES), only(RETENTION)],
            ("m.call.invite", None) => vec![only(StateEventType::RoomJoinRules)],
            ("m.room.third_party_invite", Some(_)) => vec![only(RULES), only(StateEventType::RoomCreate)],
            (
                "m.room.power_levels"
                | "m.room.encryption"
                | "m.room.name"
                | "m.room.topic"
                | "m.room.avatar"
                | RETENTION,
                Some(""),
            ) => vec![only(RULES)],
            _ => Vec::new(),
        }
    }

    /// Whether judging `candidate` at `state` reads who else has a part in the room.
    pub fn needs_parties(&self, candidate: &Candidate<'_>, state: State<'_>) -> bool {
        let is_direct = || RoomRules::of(state(&only(RULES)).as_ref()).rule == Rule::Direct;
        match candidate.kind {
            TimelineEventType::RoomMember | TimelineEventType::RoomThirdPartyInvite => {
                self.domains.can_only_invite_during_room_creation || is_direct()
            }
            TimelineEventType::RoomName | TimelineEventType::RoomTopic | TimelineEventType::RoomAvatar => {
                is_direct()
            }
            kind => {
                *kind == TimelineEventType::from(RULES) && text(candidate.content, "rule") == Some("direct")
            }
        }
    }

    /// Those of whom one whom no rule binds is enough to let `candidate` through: its sender, who is invited, and for a
    /// join who has invited.
    pub fn exempting(&self, candidate: &Candidate<'_>, state: State<'_>) -> Vec<OwnedUserId> {
        let mut users = vec![candidate.sender.to_owned()];
        let target = candidate.state_key.filter(|_| *candidate.kind == TimelineEventType::RoomMember);
        let Some(target) = target else { return users };
        users.extend(UserId::parse(target).ok());
        if text(candidate.content, "membership") != Some("join") {
            return users;
        }
        let now = state(&(StateEventType::RoomMember, target.to_owned()));
        let invite = now.filter(|now| text(&content(Some(now.clone())), "membership") == Some("invite"));
        users.extend(invite.map(|invite| invite.sender().to_owned()));
        users
    }

    /// Judges an event at the state before it.
    pub fn allowed(&self, question: &Question<'_>) -> Result<(), Refusal> {
        let Question { candidate, state, .. } = question;
        let exempt = || self.exempting(candidate, state).iter().any(|user| self.exempts(user));
        if question.bypass == Bypass::ServerAdmin || exempt() {
            return Ok(());
        }
        let kind = candidate.kind.to_string();
        match (kind.as_str(), candidate.state_key) {
            ("m.room.create", Some("")) => self.may_create(question),
            ("m.room.member", Some(user)) => self.may_be_member(question, user),
            ("m.room.third_party_invite", Some(token)) => self.may_invite_address(question, token),
            (RULES, Some("")) => self.may_change_rules(question),
            ("m.room.power_levels", Some("")) if question.rules().rule == Rule::Unrestricted => {
                self.fit_unrestricted(candidate.content)
            }
            ("m.room.join_rules", Some("")) => may_change_join_rule(question),
            ("m.room.encryption", Some("")) => may_encrypt(question),
            ("m.room.name" | "m.room.topic" | "m.room.avatar", Some(""))
                if question.rules().rule == Rule::Direct =>
            {
                may_describe_direct(question)
            }
            (RETENTION, Some("")) if question.rules().public => self.may_keep(candidate.content),
            ("m.room.redaction", None) => may_redact(question),
            ("m.call.invite", None) if question.is_open() => Err(Refusal::Call),
            _ => Ok(()),
        }
    }

    /// Judges an invite into a room whose rule is not known here.
    pub fn allowed_blindly(&self, question: &Question<'_>) -> Result<(), Refusal> {
        let candidate = &question.candidate;
        if self.exempting(candidate, question.state).iter().any(|user| self.exempts(user)) {
            return Ok(());
        }
        self.domains
            .may_invite(question, candidate.state_key.and_then(|user| UserId::parse(user).ok()).as_deref())
    }

    fn may_create(&self, question: &Question<'_>) -> Result<(), Refusal> {
        if self.is_external(question.candidate.sender.server_name()) { Err(Refusal::Creates) } else { Ok(()) }
    }

    /// Whether power levels leave externals, and whoever comes, without power.
    fn fit_unrestricted(&self, levels: &CanonicalJsonObject) -> Result<(), Refusal> {
        if levels.get("users_default").is_some_and(|level| !is_zero(level)) {
            return Err(Refusal::PowerForAll);
        }
        let users = levels.get("users").and_then(CanonicalJsonValue::as_object).into_iter().flatten();
        let external =
            |user: &str| UserId::parse(user).is_ok_and(|user| self.is_external(user.server_name()));
        let mighty = users.filter(|(_, level)| !is_zero(level)).any(|(user, _)| external(user));
        if mighty { Err(Refusal::ExternalPower) } else { Ok(()) }
    }

    fn may_keep(&self, retention: &CanonicalJsonObject) -> Result<(), Refusal> {
        let Some(limit) = self.public_retention_ms() else { return Ok(()) };
        let lifetime = retention.get("max_lifetime").and_then(CanonicalJsonValue::as_integer).map(i64::from);
        if lifetime.is_some_and(|lifetime| (1..=limit).contains(&lifetime)) {
            Ok(())
        } else {
            Err(Refusal::Retention)
        }
    }
}

/// Whether two names are one server's: it is reached under either.
fn is_same(one: &ServerName, other: &ServerName) -> bool {
    one.as_str().eq_ignore_ascii_case(other.as_str())
}

/// Levels of old room versions may be texts.
fn is_zero(level: &CanonicalJsonValue) -> bool {
    match level {
        CanonicalJsonValue::Integer(level) => i64::from(*level) == 0,
        CanonicalJsonValue::String(level) => level.trim().parse() == Ok(0),
        _ => false,
    }
}

fn may_change_join_rule(question: &Question<'_>) -> Result<(), Refusal> {
    let (rules, opens) = (question.rules(), text(question.candidate.content, "join_rule") == Some("public"));
    match rules.rule {
        Rule::Direct if opens => Err(Refusal::OpenDirect),
        _ if rules.public && !opens && question.is_open() => Err(Refusal::StaysOpen),
        _ => Ok(()),
    }
}

/// A direct chat keeps the name that it is made with, as clients name whatever they make, and is given no other.
fn may_describe_direct(question: &Question<'_>) -> Result<(), Refusal> {
    let is_made = match question.door {
        Door::Create => true,
        // What it was made with is there before anybody else has a part in it.
        Door::Received => question.parties.is_none_or(|parties| Parties::new(parties).is_one()),
        Door::Local | Door::Offer => false,
    };
    if is_made { Ok(()) } else { Err(Refusal::Plain) }
}

fn may_encrypt(question: &Question<'_>) -> Result<(), Refusal> {
    let rules = question.rules();
    if rules.public || rules.force_unencrypted { Err(Refusal::Encryption) } else { Ok(()) }
}

/// Emptied, these events would say something else.
fn may_redact(question: &Question<'_>) -> Result<(), Refusal> {
    let is_target = |kind: &str| {
        (question.state)(&only(kind))
            .is_some_and(|event| question.candidate.redacts == Some(event.event_id()))
    };
    let protected = is_target(RULES) || (question.rules().public && is_target(RETENTION));
    if protected { Err(Refusal::Redaction) } else { Ok(()) }
}

/// Whether a refusal by what only this server knows may stand in the way: not of what others have sent already.
fn is_decided_here(door: Door) -> bool {
    door != Door::Received
}
