//! What the access rules make of `createRoom`: what is refused before there is a room, and what the server adds.

use chappe_rules::access::{Access, RETENTION, RULES, Refusal, RoomRules, Rule};
use ruma::{
    OwnedUserId, UserId,
    api::client::room::{
        Visibility,
        create_room::v3::{Request, RoomPreset},
    },
    canonical_json::try_from_json_map,
    events::TimelineEventType,
    room_version_rules::RoomVersionRules,
};
use serde_json::{Map, Value, json};

use super::presets::{self, Furniture};
use crate::{Actor, AddressInvite, Draft, Error, Result, Rooms, access::refused};

/// Levels of events in rooms that are made here, beside those of every Matrix server.
const LEVELS: &[(&str, i64)] = &[
    ("m.beacon_info", 0),
    ("org.matrix.msc3672.beacon_info", 0),
    ("m.call.member", 0),
    ("org.matrix.msc3401.call.member", 0),
];

/// What a request asks for, as far as the access rules are concerned.
pub(super) struct Wanted<'a> {
    access: &'a Access,
    request: &'a Request,
    initial: Vec<Draft>,
    /// What the room will say of itself.
    pub(super) rules: RoomRules,
}

impl<'a> Wanted<'a> {
    /// Reads a request of `creator`; refuses externals, and rules that contradict the rest of the request.
    pub(super) fn read(access: &'a Access, creator: &UserId, request: &'a Request) -> Result<Self> {
        if access.is_external(creator.server_name()) {
            return Err(refused(Refusal::Creates));
        }
        let initial = presets::initial_state(request)?;
        let said = given(&initial, RULES).map(|draft| draft.content.clone());
        let rules = said.clone().map_or_else(|| Ok(by_default(request)), read_rules)?;
        let mut wanted = Self { access, request, initial, rules };
        wanted.check_rules(&said.unwrap_or_default())?;
        wanted.rules.public = request.visibility == Visibility::Public;
        if wanted.is_encrypted() {
            wanted.rules.force_unencrypted = false;
        }
        Ok(wanted)
    }

    fn check_rules(&self, said: &Map<String, Value>) -> Result<()> {
        let invalid = |what: &str| Err(Error::InvalidParam(what.to_owned()));
        if self.request.is_direct != (self.rules.rule == Rule::Direct) {
            return invalid("Invalid access rule: it goes with is_direct");
        }
        if self.rules.rule == Rule::Direct && self.is_open() {
            return invalid("Invalid access rule: a direct chat cannot be open to everybody");
        }
        let public = self.request.visibility == Visibility::Public;
        let says_visibility = said.get("visibility").is_some_and(|visibility| !visibility.is_null());
        if says_visibility && self.rules.public != public {
            return invalid("Incompatible visibility");
        }
        if public && self.rules.rule != Rule::Restricted {
            return Err(refused(Refusal::Publish));
        }
        Ok(())
    }

    /// Refuses whom the room is not for. Whoever is invited later is judged in the room.
    pub(super) fn check_invited(&self, users: &[OwnedUserId], addresses: usize) -> Result<()> {
        let closed = self.rules.rule == Rule::Restricted;
        for user in users.iter().filter(|user| !self.access.exempts(user)) {
            if closed && self.access.is_external(user.server_name()) {
                return Err(refused(Refusal::Closed));
            }
            if self.rules.public && self.access.domains.keeps_from_published(user.server_name()) {
                return Err(refused(Refusal::Invite));
            }
        }
        if self.rules.rule == Rule::Direct && users.len() + addresses > 1 {
            return Err(refused(Refusal::Third));
        }
        Ok(())
    }

    /// Whether everybody of the network may join.
    fn is_open(&self) -> bool {
        let rule = given(&self.initial, "m.room.join_rules").and_then(|draft| draft.content.get("join_rule"));
        presets::preset(self.request) == RoomPreset::PublicChat || rule == Some(&json!("public"))
    }

    /// Whether the server has the room encrypted, whatever the request says.
    fn is_encrypted(&self) -> bool {
        let private = presets::preset(self.request) == RoomPreset::PrivateChat;
        !(self.is_open() || private && self.rules.force_unencrypted)
    }

    /// Adds to the furniture of the room what the request does not say and the network wants.
    pub(super) fn furnish(
        &self,
        creator: &UserId,
        rules: &RoomVersionRules,
        furniture: &mut Furniture,
    ) -> Result<()> {
        furniture.power_levels = self.power_levels(creator, rules)?;
        let rest = &mut furniture.rest;
        rest.retain(|draft| !is(draft, RULES));
        // First: what follows is judged by it.
        rest.insert(0, self.rules_draft());
        let history = if self.is_open() { "shared" } else { "invited" };
        self.unless_given(rest, "m.room.history_visibility", json!({ "history_visibility": history }));
        if self.is_encrypted() {
            self.unless_given(rest, "m.room.encryption", json!({ "algorithm": "m.megolm.v1.aes-sha2" }));
        }
        if let Some(limit) = self.access.public_retention_ms().filter(|_| self.rules.public) {
            self.unless_given(rest, RETENTION, json!({ "max_lifetime": limit }));
        }
        Ok(())
    }

    fn unless_given(&self, rest: &mut Vec<Draft>, kind: &str, content: Value) {
        if given(&self.initial, kind).is_none() {
            presets::supersede(rest, presets::state(kind, content));
        }
    }

    /// The access rules event, with what the client has put into it beside.
    fn rules_draft(&self) -> Draft {
        let mut content = given(&self.initial, RULES).map(|draft| draft.content.clone()).unwrap_or_default();
        let rule = match self.rules.rule {
            Rule::Restricted => "restricted",
            Rule::Unrestricted => "unrestricted",
            Rule::Direct => "direct",
        };
        content.insert("rule".to_owned(), json!(rule));
        let visibility = if self.rules.public { "public" } else { "private" };
        content.insert("visibility".to_owned(), json!(visibility));
        // What holds, wherever the client has the field, be it null: servers that take null for a value of its own would
        // soft-fail a later event without the field.
        if let Some(force) = content.get_mut("force_unencrypted_at_creation") {
            *force = json!(self.rules.force_unencrypted);
        }
        Draft::state(TimelineEventType::from(RULES), "", content)
    }

    /// The network's power levels below what the request says.
    fn power_levels(&self, creator: &UserId, rules: &RoomVersionRules) -> Result<Map<String, Value>> {
        let mut plain = self.request.clone();
        let said = plain.power_level_content_override.take();
        let mut levels = presets::power_levels(creator, &plain, rules)?;
        levels.remove("historical");
        levels.insert("state_default".to_owned(), json!(100));
        let open = presets::preset(self.request) == RoomPreset::PublicChat;
        let invite = if open { 0 } else { 50 };
        levels.insert("invite".to_owned(), json!(invite));
        if let Some(Value::Object(events)) = levels.get_mut("events") {
            events.extend(LEVELS.iter().map(|(kind, level)| ((*kind).to_owned(), json!(level))));
        }
        let (said, what) = match given(&self.initial, "m.room.power_levels") {
            Some(draft) => (draft.content.clone(), "Invalid power levels content"),
            None => {
                let said = said.map(|raw| Draft::content_from(raw.json().get())).transpose()?;
                (said.unwrap_or_default(), "Invalid power levels content override")
            }
        };
        let below = |field: &str, least: i64| {
            said.get(field).is_some_and(|level| level.as_i64().is_none_or(|level| level < least))
        };
        if below("invite", invite) || below("state_default", 100) {
            return Err(Error::InvalidParam(what.to_owned()));
        }
        for (field, value) in said {
            match (levels.get_mut(&field), value) {
                (Some(Value::Object(events)), Value::Object(said)) if field == "events" => {
                    events.extend(said);
                }
                (_, value) => drop(levels.insert(field, value)),
            }
        }
        Ok(levels)
    }
}

impl Rooms {
    /// As [`Rooms::create`], with invitations of addresses; those of externals are refused before there is a room that is
    /// closed to them.
    pub async fn create_inviting(
        &self,
        actor: &Actor,
        request: Request,
        invites: &[AddressInvite],
    ) -> Result<ruma::OwnedRoomId> {
        if let Some(access) = self.0.access_for(actor) {
            let wanted = Wanted::read(&access, &actor.user, &request)?;
            wanted.check_invited(&request.invite, invites.len())?;
            for invite in invites {
                self.check_home(actor, wanted.rules.rule, invite).await?;
            }
        }
        self.create_with(actor, request, invites).await
    }
}

fn is(draft: &Draft, kind: &str) -> bool {
    draft.kind == TimelineEventType::from(kind) && draft.state_key.as_deref() == Some("")
}

/// The event of this type that a request gives.
fn given<'d>(initial: &'d [Draft], kind: &str) -> Option<&'d Draft> {
    initial.iter().find(|draft| is(draft, kind))
}

fn by_default(request: &Request) -> RoomRules {
    let rule = if request.is_direct { Rule::Direct } else { Rule::Restricted };
    RoomRules { rule, ..RoomRules::default() }
}

fn read_rules(said: Map<String, Value>) -> Result<RoomRules> {
    let read = try_from_json_map(said).ok().and_then(|said| RoomRules::read(&said));
    read.ok_or_else(|| Error::InvalidParam("Invalid access rule".to_owned()))
}
