//! What a room says of itself in its access rules, and how that may change.

use ruma::{CanonicalJsonObject, CanonicalJsonValue, UserId, events::StateEventType};

use super::{Access, Refusal, content, is_decided_here, people::Parties, text};
use crate::{
    Pdu,
    policy::{Door, Question},
};

/// The state event in which a room says what it is.
pub const RULES: &str = "im.vector.room.access_rules";

/// For whom a room is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Not for externals.
    Restricted,
    /// For externals as well, where they are invited.
    Unrestricted,
    /// For two.
    Direct,
}

/// What a room says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomRules {
    /// For whom it is.
    pub rule: Rule,
    /// Whether it was made as a public room.
    pub public: bool,
    /// Whether it was made to stay without encryption.
    pub force_unencrypted: bool,
}

impl Default for RoomRules {
    fn default() -> Self {
        Self { rule: Rule::Restricted, public: false, force_unencrypted: false }
    }
}

impl RoomRules {
    /// From the content of the event; `None` if something in it is not valid. What is null is not said: some clients
    /// write every field.
    pub fn read(content: &CanonicalJsonObject) -> Option<Self> {
        let said = |field: &str| content.get(field).filter(|value| **value != CanonicalJsonValue::Null);
        let rule = match text(content, "rule")? {
            "restricted" => Rule::Restricted,
            "unrestricted" => Rule::Unrestricted,
            "direct" => Rule::Direct,
            _ => return None,
        };
        let public = match said("visibility").map(CanonicalJsonValue::as_str) {
            None | Some(Some("private")) => false,
            Some(Some("public")) => true,
            _ => return None,
        };
        let force_unencrypted = match said("force_unencrypted_at_creation") {
            None => false,
            Some(CanonicalJsonValue::Bool(force)) => *force,
            _ => return None,
        };
        Some(Self { rule, public, force_unencrypted })
    }

    /// From the event, if there is one. One that cannot be read lets no externals in.
    pub fn of(event: Option<&Pdu>) -> Self {
        event.and_then(Pdu::content_as).and_then(|content| Self::read(&content)).unwrap_or_default()
    }
}

impl Access {
    pub(super) fn may_change_rules(&self, question: &Question<'_>) -> Result<(), Refusal> {
        let new = RoomRules::read(question.candidate.content).ok_or(Refusal::Invalid)?;
        let is_first = (question.state)(&super::only(RULES)).is_none();
        let old = question.rules();
        let said = (new.public, new.force_unencrypted);
        if is_first {
            // What another server says first counts: the state that a room is created with comes from there.
            if question.door == Door::Local && said != (false, false) {
                return Err(Refusal::Fixed);
            }
            return match new.rule {
                Rule::Restricted => Ok(()),
                Rule::Unrestricted => self.may_open(question, new),
                Rule::Direct => may_become_direct(question),
            };
        }
        if said != (old.public, old.force_unencrypted) {
            return Err(Refusal::Fixed);
        }
        match (old.rule, new.rule) {
            (old, new) if old == new => Ok(()),
            (Rule::Restricted, Rule::Unrestricted) => self.may_open(question, new),
            _ => Err(Refusal::Change),
        }
    }

    /// Whether a room may be opened to externals, which nobody can take back.
    fn may_open(&self, question: &Question<'_>, new: RoomRules) -> Result<(), Refusal> {
        if new.public || (question.listed && is_decided_here(question.door)) {
            return Err(Refusal::PublicToExternals);
        }
        let create = (question.state)(&super::only(StateEventType::RoomCreate));
        let creator = create.as_ref().map(|create| create.sender().to_string());
        let content = content(create);
        let others = content.get("additional_creators").and_then(CanonicalJsonValue::as_array);
        let others = others.into_iter().flatten().filter_map(CanonicalJsonValue::as_str);
        let mut creators = creator.as_deref().into_iter().chain(others);
        let external =
            |user: &str| UserId::parse(user).is_ok_and(|user| self.is_external(user.server_name()));
        if creators.any(external) {
            return Err(Refusal::ExternalPower);
        }
        self.fit_unrestricted(&question.content_of(StateEventType::RoomPowerLevels))
    }
}

fn may_become_direct(question: &Question<'_>) -> Result<(), Refusal> {
    if question.is_open() {
        return Err(Refusal::OpenDirect);
    }
    let few = question.parties.is_none_or(|parties| {
        let parties = Parties::new(parties);
        parties.members.len() <= 2 && parties.tokens.len() <= 1
    });
    if few { Ok(()) } else { Err(Refusal::Third) }
}
