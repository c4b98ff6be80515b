//! What a closed network makes of users whose servers are not of it, wherever they stand in an event.

use std::sync::Arc;

use chappe_rules::{
    Pdu,
    auth::StateKey,
    policy::{Bypass, Candidate, Door, Policy, Verdict},
};
use ruma::{OwnedServerName, ServerName, UserId, events::TimelineEventType};

use crate::{AllowList, Network};

/// A policy and, before it, that nobody outside the network says or becomes anything here.
///
/// What a user outside sent, or what would make one a member, is refused where it is made here and soft-failed where it
/// comes from elsewhere: never rejected, so that the state of the room is what it is for all. An outsider may be shown out.
pub struct MembersOnly {
    policy: Arc<dyn Policy>,
    allowed: AllowList,
    server: OwnedServerName,
}

impl MembersOnly {
    /// For those who may be talked with, and beyond that as `policy` has it.
    pub fn new(network: &Network, policy: Arc<dyn Policy>) -> Self {
        Self { policy, allowed: network.allowed().clone(), server: network.server().to_owned() }
    }

    /// Somebody outside that the event is about.
    fn outsider<'a>(&self, candidate: &Candidate<'a>) -> Option<&'a str> {
        let outside = |user: &str| UserId::parse(user).is_ok_and(|user| !self.takes_part(user.server_name()));
        if !self.takes_part(candidate.sender.server_name()) {
            return Some(candidate.sender.as_str());
        }
        if *candidate.kind != TimelineEventType::RoomMember {
            return None;
        }
        let said = |field: &str| candidate.content.get(field).and_then(|value| value.as_str());
        let comes = matches!(said("membership"), Some("join" | "invite" | "knock"));
        let users = [candidate.state_key, said("join_authorised_via_users_server")];
        users.into_iter().flatten().find(|user| comes && outside(user))
    }
}

impl Policy for MembersOnly {
    fn state_needed(&self, candidate: &Candidate<'_>) -> Vec<StateKey> {
        self.policy.state_needed(candidate)
    }

    fn allowed(
        &self,
        candidate: &Candidate<'_>,
        state: &dyn Fn(&StateKey) -> Option<Pdu>,
        origin: &ServerName,
        door: Door,
        bypass: Bypass,
    ) -> Verdict {
        match self.outsider(candidate) {
            Some(user) => Verdict::Refuse(format!("{user} is not of a server that this one talks with")),
            None => self.policy.allowed(candidate, state, origin, door, bypass),
        }
    }

    fn takes_part(&self, server: &ServerName) -> bool {
        *server == self.server || self.allowed.permits(server)
    }
}

impl std::fmt::Debug for MembersOnly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MembersOnly of {}", self.server)
    }
}

#[cfg(test)]
mod tests {
    use chappe_rules::policy::Plain;
    use ruma::{CanonicalJsonObject, server_name};
    use serde_json::{Value, json};

    use super::*;

    fn refused(kind: &str, sender: &str, state_key: &str, content: Value) -> bool {
        let policy = MembersOnly {
            policy: Arc::new(Plain),
            allowed: AllowList::new(Some(&["m.example".to_owned()])),
            server: server_name!("us.example").to_owned(),
        };
        let content: CanonicalJsonObject = serde_json::from_value(content).unwrap();
        let (kind, sender) = (TimelineEventType::from(kind), UserId::parse(sender).unwrap());
        let candidate =
            Candidate { kind: &kind, state_key: Some(state_key), sender: &sender, content: &content };
        let origin = sender.server_name();
        policy.allowed(&candidate, &|_| None, origin, Door::Received, Bypass::ServerAdmin) != Verdict::Allow
    }

    #[test]
    fn outsiders_say_nothing_and_are_brought_in_by_nobody() {
        let is = |membership: &str| json!({ "membership": membership });
        let member = "m.room.member";
        for (sender, user, content, expected) in [
            ("@a:us.example", "@b:m.example", is("invite"), false),
            ("@a:m.example", "@b:us.example", is("invite"), false),
            ("@a:m.example", "@x:x.example", is("invite"), true),
            ("@a:us.example", "@x:x.example", is("invite"), true),
            ("@x:x.example", "@a:us.example", is("invite"), true),
            ("@x:x.example", "@x:x.example", is("join"), true),
            ("@x:x.example", "@x:x.example", is("leave"), true),
            ("@a:m.example", "@x:x.example", is("ban"), false),
            ("@a:m.example", "@x:x.example", is("leave"), false),
        ] {
            assert_eq!(refused(member, sender, user, content.clone()), expected, "{sender} {user} {content}");
        }
        let by = json!({ "membership": "join", "join_authorised_via_users_server": "@x:x.example" });
        assert!(refused(member, "@a:m.example", "@a:m.example", by));
        assert!(refused("m.room.message", "@x:x.example", "", json!({})));
        assert!(!refused("m.room.topic", "@a:m.example", "", json!({ "topic": "@x:x.example" })));
    }
}
