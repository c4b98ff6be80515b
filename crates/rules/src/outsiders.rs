//! Users whose servers are not of a closed network, wherever they stand in an event.

use ruma::{CanonicalJsonValue, ServerName, UserId, events::TimelineEventType};

use crate::policy::Candidate;

/// Somebody outside the network who says something, or whom the event would make a member.
///
/// Such an event is refused where it is made and soft-failed where it comes from elsewhere, never rejected, so that the
/// state of the room is what it is for all. An outsider may be shown out.
pub fn outsider<'a>(candidate: &Candidate<'a>, takes_part: &dyn Fn(&ServerName) -> bool) -> Option<&'a str> {
    let outside = |user: &str| UserId::parse(user).is_ok_and(|user| !takes_part(user.server_name()));
    if !takes_part(candidate.sender.server_name()) {
        return Some(candidate.sender.as_str());
    }
    if *candidate.kind != TimelineEventType::RoomMember {
        return None;
    }
    let said = |field: &str| candidate.content.get(field).and_then(CanonicalJsonValue::as_str);
    if !matches!(said("membership"), Some("join" | "invite" | "knock")) {
        return None;
    }
    let users = [candidate.state_key, said("join_authorised_via_users_server")];
    users.into_iter().flatten().find(|user| outside(user))
}

#[cfg(test)]
mod tests {
    use ruma::{CanonicalJsonObject, UserId, events::TimelineEventType};
    use serde_json::{Value, json};

    use super::outsider;
    use crate::policy::Candidate;

    fn refused(kind: &str, sender: &str, state_key: &str, content: Value) -> bool {
        let content: CanonicalJsonObject = serde_json::from_value(content).unwrap();
        let (kind, sender) = (TimelineEventType::from(kind), UserId::parse(sender).unwrap());
        let candidate = Candidate {
            kind: &kind,
            state_key: Some(state_key),
            sender: &sender,
            content: &content,
            redacts: None,
        };
        outsider(&candidate, &|server| server != "x.example").is_some()
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
