//! Who may enter a room.

use std::collections::BTreeSet;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, UserId,
    events::{StateEventType, TimelineEventType},
};

use super::{Access, Refusal, Rule, content, text};
use crate::{Pdu, policy::Question};

/// Who has, or had, a part in a room.
pub(super) struct Parties {
    /// The members, whatever their membership.
    pub(super) members: BTreeSet<String>,
    /// The addresses that wait, by the token of their invitation.
    pub(super) tokens: BTreeSet<String>,
}

impl Parties {
    pub(super) fn new(events: &[Pdu]) -> Self {
        let keys = |kind: TimelineEventType, counts: fn(&Pdu) -> bool| {
            let found = events.iter().filter(|event| *event.kind() == kind && counts(event));
            found.filter_map(|event| event.state_key().map(str::to_owned)).collect()
        };
        Self {
            members: keys(TimelineEventType::RoomMember, |_| true),
            // One that was taken back is empty.
            tokens: keys(TimelineEventType::RoomThirdPartyInvite, |event| {
                !content(Some(event.clone())).is_empty()
            }),
        }
    }

    /// Whether nobody but one user has, or had, a part in the room.
    pub(super) fn is_one(&self) -> bool {
        self.members.len() <= 1 && self.tokens.is_empty()
    }

    /// Whether a member event fits a chat of two. Who has a part in it already may do everything but enter a room of two others.
    fn take_member(&self, user: &str, content: &CanonicalJsonObject, enters: bool) -> bool {
        if self.members.contains(user) {
            return !enters || self.members.len() <= 2;
        }
        match (self.members.len(), self.tokens.len()) {
            (0, _) | (1, 0) => true,
            (1, 1) => token_of(content).is_some_and(|token| self.tokens.contains(token)),
            _ => false,
        }
    }

    /// Whether an invitation of an address, or its end, fits a chat of two.
    fn take_token(&self, token: &str) -> bool {
        self.tokens.contains(token) || (self.tokens.is_empty() && self.members.len() < 2)
    }
}

/// The token that an invite redeems.
fn token_of(content: &CanonicalJsonObject) -> Option<&str> {
    let signed = content.get("third_party_invite")?.as_object()?.get("signed")?.as_object()?;
    signed.get("token").and_then(CanonicalJsonValue::as_str)
}

impl Access {
    pub(super) fn may_be_member(&self, question: &Question<'_>, user: &str) -> Result<(), Refusal> {
        let said = question.candidate.content;
        let membership = text(said, "membership").unwrap_or_default();
        let before = content((question.state)(&(StateEventType::RoomMember, user.to_owned())));
        let before = text(&before, "membership");
        let external = UserId::parse(user).is_ok_and(|user| self.is_external(user.server_name()));
        let rule = question.rules().rule;
        match (rule, membership) {
            // Whoever is in may change its name.
            (_, "join") if before == Some("join") => {}
            (Rule::Restricted, "invite" | "join" | "knock") if external => return Err(Refusal::Closed),
            (Rule::Unrestricted, "join") if external && before != Some("invite") => {
                return Err(Refusal::Uninvited);
            }
            (Rule::Unrestricted, "knock") if external => return Err(Refusal::Uninvited),
            _ => {}
        }
        let parties = question.parties.filter(|_| rule == Rule::Direct);
        let enters = matches!(membership, "join" | "invite" | "knock") && before != Some("join");
        if parties.is_some_and(|parties| !Parties::new(parties).take_member(user, said, enters)) {
            return Err(Refusal::Third);
        }
        match membership {
            "invite" => self.domains.may_invite(question, UserId::parse(user).ok().as_deref()),
            "join" => self.domains.may_join(question, before),
            _ => Ok(()),
        }
    }

    pub(super) fn may_invite_address(&self, question: &Question<'_>, token: &str) -> Result<(), Refusal> {
        let parties = question.parties.filter(|_| question.rules().rule == Rule::Direct);
        if parties.is_some_and(|parties| !Parties::new(parties).take_token(token)) {
            return Err(Refusal::Third);
        }
        if question.candidate.content.is_empty() {
            return Ok(());
        }
        self.domains.may_invite(question, None)
    }
}
