//! Servers that are not of a closed network, wherever an event names them or their users.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, ServerName,
    events::{StateEventType, TimelineEventType},
};

use crate::{auth::StateKey, policy::Candidate, policy_server};

/// Somebody outside the network who says something, or whom the event would make a member, or who is newly given a part
/// in the room: power, its address, the say of a policy server. What `before`, the content that the event takes the place
/// of ([`replaced`]), names already may be said again: servers leave a network, and their rooms go on.
///
/// Such an event is refused where it is made and soft-failed where it comes from elsewhere, never rejected, so that the
/// state of the room is what it is for all. An outsider may be shown out.
pub fn outsider<'a>(
    candidate: &Candidate<'a>,
    before: Option<&CanonicalJsonObject>,
    takes_part: &dyn Fn(&ServerName) -> bool,
) -> Option<&'a str> {
    if !takes_part(candidate.sender.server_name()) {
        return Some(candidate.sender.as_str());
    }
    let is_outside = |named: &&str| server(named).is_some_and(|server| !takes_part(server));
    if *candidate.kind == TimelineEventType::RoomMember {
        return brought_in(candidate).into_iter().find(is_outside);
    }
    candidate.state_key?;
    let known = before.map(|before| given(candidate.kind, before)).unwrap_or_default();
    let mut given = given(candidate.kind, candidate.content).into_iter();
    given.find(|named| is_outside(named) && !known.contains(named))
}

/// The place in the state whose content [`outsider`] compares with, if there is any.
pub fn replaced(candidate: &Candidate<'_>) -> Option<StateKey> {
    let key = (StateEventType::from(candidate.kind.to_string()), candidate.state_key?.to_owned());
    let compared = [
        (StateEventType::RoomPowerLevels, String::new()),
        (StateEventType::RoomCanonicalAlias, String::new()),
        policy_server::state_key(),
    ];
    compared.contains(&key).then_some(key)
}

/// The server of a user or an alias, or one named as such.
fn server(named: &str) -> Option<&ServerName> {
    let name = match named.strip_prefix(['@', '#']) {
        Some(named) => named.split_once(':')?.1,
        None => named,
    };
    name.try_into().ok()
}

/// Whom a membership brings into the room, and by whose leave.
fn brought_in<'a>(candidate: &Candidate<'a>) -> Vec<&'a str> {
    let said = |field: &str| candidate.content.get(field).and_then(CanonicalJsonValue::as_str);
    if !matches!(said("membership"), Some("join" | "invite" | "knock")) {
        return Vec::new();
    }
    [candidate.state_key, said("join_authorised_via_users_server")].into_iter().flatten().collect()
}

/// To whom a state event gives a part in the room.
fn given<'a>(kind: &TimelineEventType, content: &'a CanonicalJsonObject) -> Vec<&'a str> {
    let text = |field: &str| content.get(field).and_then(CanonicalJsonValue::as_str);
    let texts = |field: &str| {
        let list = content.get(field).and_then(CanonicalJsonValue::as_array).into_iter().flatten();
        list.filter_map(CanonicalJsonValue::as_str)
    };
    match StateEventType::from(kind.to_string()) {
        StateEventType::RoomCreate => texts("additional_creators").collect(),
        StateEventType::RoomPowerLevels => {
            let users = content.get("users").and_then(CanonicalJsonValue::as_object);
            users
                .into_iter()
                .flatten()
                .map(|(user, _)| &**user)
                .filter(|user| user.starts_with('@'))
                .collect()
        }
        StateEventType::RoomCanonicalAlias => text("alias").into_iter().chain(texts("alt_aliases")).collect(),
        kind if kind == policy_server::state_key().0 => text("via").into_iter().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use ruma::{
        CanonicalJsonObject, UserId,
        events::{StateEventType, TimelineEventType},
    };
    use serde_json::{Value, json};

    use super::{outsider, replaced};
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
        outsider(&candidate, None, &|server| server != "x.example").is_some()
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
    #[test]
    fn nothing_in_the_room_is_given_to_outsiders() {
        let (power, alias) = ("m.room.power_levels", "m.room.canonical_alias");
        for (kind, content, expected) in [
            (power, json!({ "users": { "@x:x.example": 50, "@b:m.example": 0 } }), true),
            (power, json!({ "users": { "@b:m.example": 50, "x.example": 1, "@x": 1 }, "ban": 50 }), false),
            (power, json!({ "users": ["@x:x.example"] }), false),
            ("m.room.create", json!({ "additional_creators": ["@b:m.example", "@x:x.example"] }), true),
            ("m.room.create", json!({ "additional_creators": ["@b:m.example"] }), false),
            (alias, json!({ "alias": "#a:x.example" }), true),
            (alias, json!({ "alias": "#a:m.example", "alt_aliases": ["#b:x.example"] }), true),
            (alias, json!({ "alias": "#a:m.example" }), false),
            ("m.room.policy", json!({ "via": "x.example" }), true),
            ("m.room.policy", json!({ "via": "m.example" }), false),
            // Who is kept out may be named, and where else to ask.
            ("m.room.server_acl", json!({ "deny": ["x.example"] }), false),
            ("m.space.child", json!({ "via": ["x.example"] }), false),
        ] {
            assert_eq!(refused(kind, "@a:us.example", "", content.clone()), expected, "{kind} {content}");
        }
    }

    #[test]
    fn what_stands_there_already_may_be_said_again() {
        let levels = |users: Value| serde_json::from_value(json!({ "users": users })).unwrap();
        let before: CanonicalJsonObject = levels(json!({ "@x:x.example": 50 }));
        let (kind, sender) = (TimelineEventType::RoomPowerLevels, UserId::parse("@a:us.example").unwrap());
        for (users, expected) in [
            (json!({ "@x:x.example": 50, "@b:us.example": 50 }), None),
            (json!({ "@x:x.example": 0 }), None),
            (json!({ "@x:x.example": 50, "@y:x.example": 50 }), Some("@y:x.example")),
        ] {
            let content = levels(users);
            let (state_key, redacts) = (Some(""), None);
            let candidate = Candidate { kind: &kind, state_key, sender: &sender, content: &content, redacts };
            assert_eq!(replaced(&candidate), Some((StateEventType::RoomPowerLevels, String::new())));
            let found = outsider(&candidate, Some(&before), &|server| server != "x.example");
            assert_eq!(found, expected);
        }
    }
}
