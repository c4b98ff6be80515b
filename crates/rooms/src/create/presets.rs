//! What a new room is furnished with: the events that `createRoom` asks for, in the order of the specification.

use ruma::{
    OwnedUserId, RoomVersionId, UserId,
    api::client::room::{
        Visibility,
        create_room::v3::{Request, RoomPreset},
    },
    events::TimelineEventType,
    room_version_rules::RoomVersionRules,
};
use serde_json::{Map, Value, json};

use crate::{Draft, Error, Result, create::Upgrade};

/// The furniture of a new room, without invites.
pub(crate) struct Furniture {
    /// The content of `m.room.create`.
    pub(crate) create: Map<String, Value>,
    /// The content of the first `m.room.power_levels`.
    pub(crate) power_levels: Map<String, Value>,
    /// What follows them.
    pub(crate) rest: Vec<Draft>,
}

impl Furniture {
    /// Whether nobody comes in without an invite.
    pub(super) fn is_closed(&self) -> bool {
        let rules = self.rest.iter().find(|draft| draft.kind == TimelineEventType::RoomJoinRules);
        rules.is_some_and(|draft| draft.content.get("join_rule") == Some(&json!("invite")))
    }
}

/// The preset in force: the one asked for, or the one that goes with the visibility.
pub(super) fn preset(request: &Request) -> RoomPreset {
    request.preset.clone().unwrap_or(match request.visibility {
        Visibility::Public => RoomPreset::PublicChat,
        _ => RoomPreset::PrivateChat,
    })
}

/// Works out the furniture of a room of `version` created by `creator`.
pub(super) fn furnish(
    creator: &UserId,
    request: &Request,
    version: &RoomVersionId,
    rules: &RoomVersionRules,
) -> Result<Furniture> {
    let initial = initial_state(request)?;
    let create = create_content(creator, request, version, rules)?;
    let power_levels = match initial.iter().find(|draft| draft.kind == TimelineEventType::RoomPowerLevels) {
        Some(given) => given.content.clone(),
        None => power_levels(creator, request, rules)?,
    };
    let mut rest = preset_events(&preset(request));
    for draft in initial {
        if draft.kind != TimelineEventType::RoomPowerLevels {
            supersede(&mut rest, draft);
        }
    }
    if let Some(name) = &request.name {
        supersede(&mut rest, state("m.room.name", json!({ "name": name })));
    }
    if let Some(topic) = &request.topic {
        let rich = json!({ "m.text": [{ "body": topic }] });
        supersede(&mut rest, state("m.room.topic", json!({ "topic": topic, "m.topic": rich })));
    }
    Ok(Furniture { create, power_levels, rest })
}

/// Replaces the draft of the same type and key, or appends.
pub(super) fn supersede(drafts: &mut Vec<Draft>, draft: Draft) {
    match drafts.iter_mut().find(|d| d.kind == draft.kind && d.state_key == draft.state_key) {
        Some(place) => *place = draft,
        None => drafts.push(draft),
    }
}

pub(super) fn state(kind: &str, content: Value) -> Draft {
    let Value::Object(content) = content else { unreachable!("contents here are object literals") };
    Draft::state(TimelineEventType::from(kind), "", content)
}

/// The events that a request gives.
pub(super) fn initial_state(request: &Request) -> Result<Vec<Draft>> {
    request.initial_state.iter().map(|raw| initial_event(raw.json().get())).collect()
}

fn initial_event(json: &str) -> Result<Draft> {
    let bad = |what: &str| Error::BadJson(format!("initial_state: {what}"));
    let mut event: Map<String, Value> = serde_json::from_str(json).map_err(|_| bad("an object is needed"))?;
    let kind = match event.get("type") {
        Some(Value::String(kind)) => chappe_rules::pdu::kind_of(kind),
        _ => return Err(bad("an event needs a type")),
    };
    let state_key = match event.get("state_key") {
        None => String::new(),
        Some(Value::String(key)) => key.clone(),
        Some(_) => return Err(bad("state_key must be a string")),
    };
    let Some(Value::Object(content)) = event.remove("content") else {
        return Err(bad("an event needs a content"));
    };
    match kind {
        TimelineEventType::RoomCreate | TimelineEventType::RoomMember => {
            Err(Error::InvalidRoomState(format!("initial_state may not hold {kind}")))
        }
        kind => Ok(Draft::state(kind, state_key, content)),
    }
}

fn preset_events(preset: &RoomPreset) -> Vec<Draft> {
    let public = *preset == RoomPreset::PublicChat;
    let join_rule = if public { "public" } else { "invite" };
    let mut events = vec![
        state("m.room.join_rules", json!({ "join_rule": join_rule })),
        state("m.room.history_visibility", json!({ "history_visibility": "shared" })),
    ];
    // Guests are kept out of a room that says nothing of them.
    if !public {
        events.push(state("m.room.guest_access", json!({ "guest_access": "can_join" })));
    }
    events
}

fn create_content(
    creator: &UserId,
    request: &Request,
    version: &RoomVersionId,
    rules: &RoomVersionRules,
) -> Result<Map<String, Value>> {
    let mut content = creation_content(request)?;
    // The creator and the version are the server's to say.
    content.remove("creator");
    content.insert("room_version".to_owned(), json!(version));
    if !rules.authorization.use_room_create_sender {
        content.insert("creator".to_owned(), json!(creator));
    }
    if rules.authorization.additional_room_creators {
        let creators = additional_creators(creator, request, &content)?;
        if !creators.is_empty() {
            content.insert("additional_creators".to_owned(), json!(creators));
        }
    }
    Ok(content)
}

fn creation_content(request: &Request) -> Result<Map<String, Value>> {
    let Some(raw) = &request.creation_content else { return Ok(Map::new()) };
    Draft::content_from(raw.json().get())
}

/// Who else has unlimited power in the room, from version 12 on: those named, and the invited of a trusted chat.
fn additional_creators(
    creator: &UserId,
    request: &Request,
    content: &Map<String, Value>,
) -> Result<Vec<OwnedUserId>> {
    let named = content.get("additional_creators").cloned().unwrap_or_else(|| json!([]));
    let mut creators: Vec<OwnedUserId> = serde_json::from_value(named)
        .map_err(|_| Error::InvalidParam("additional_creators must be a list of user ids".to_owned()))?;
    if preset(request) == RoomPreset::TrustedPrivateChat {
        creators.extend(request.invite.iter().cloned());
    }
    let mut seen = std::collections::BTreeSet::new();
    creators.retain(|user| user != creator && seen.insert(user.clone()));
    Ok(creators)
}

pub(crate) fn power_levels(
    creator: &UserId,
    request: &Request,
    rules: &RoomVersionRules,
) -> Result<Map<String, Value>> {
    let explicit_creators = rules.authorization.explicitly_privilege_room_creators;
    let mut users = Map::new();
    if !explicit_creators {
        users.insert(creator.to_string(), json!(100));
        if preset(request) == RoomPreset::TrustedPrivateChat {
            users.extend(request.invite.iter().map(|user| (user.to_string(), json!(100))));
        }
    }
    let invite = if preset(request) == RoomPreset::PublicChat { 50 } else { 0 };
    let tombstone = if explicit_creators { 150 } else { 100 };
    let levels = json!({
        "users": users, "users_default": 0, "events_default": 0, "state_default": 50,
        "ban": 50, "kick": 50, "redact": 50, "invite": invite, "historical": 100,
        "events": {
            "m.room.name": 50, "m.room.power_levels": 100, "m.room.history_visibility": 100,
            "m.room.canonical_alias": 50, "m.room.avatar": 50, "m.room.tombstone": tombstone,
            "m.room.server_acl": 100, "m.room.encryption": 100,
        },
    });
    let Value::Object(mut levels) = levels else { unreachable!("an object literal") };
    if let Some(raw) = &request.power_level_content_override {
        levels.extend(Draft::content_from(raw.json().get())?);
    }
    Ok(levels)
}

/// The content of the create event of a room that takes over from an old one.
pub(crate) fn succession(
    creator: &UserId,
    mut content: Map<String, Value>,
    version: &RoomVersionId,
    rules: &RoomVersionRules,
    from: &Upgrade,
    additional_creators: &[OwnedUserId],
) -> Map<String, Value> {
    for key in ["creator", "room_version", "predecessor", "additional_creators"] {
        content.remove(key);
    }
    content.insert("room_version".to_owned(), json!(version));
    if !rules.authorization.use_room_create_sender {
        content.insert("creator".to_owned(), json!(creator));
    }
    if rules.authorization.additional_room_creators && !additional_creators.is_empty() {
        content.insert("additional_creators".to_owned(), json!(additional_creators));
    }
    content.insert("predecessor".to_owned(), predecessor(from));
    content
}

fn predecessor(from: &Upgrade) -> Value {
    match &from.event_id {
        Some(event) => json!({ "room_id": from.room_id, "event_id": event }),
        None => json!({ "room_id": from.room_id }),
    }
}
