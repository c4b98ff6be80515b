//! The access rules of this network, asked about what happens in a room.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chappe_accounts::UserKind;
use chappe_rules::{
    Pdu,
    access::{Access, RULES, Refusal, RoomRules, Rule},
    auth::StateKey as RuleKey,
    build,
    outsiders::{self, outsider},
    policy::{Bypass, Candidate, Door, Question, State},
};
use chappe_store::{Membership, StateRef};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedUserId, RoomId, ServerName,
    canonical_json::try_from_json_map,
    events::{StateEventType, TimelineEventType},
};
use serde_json::{Map, Value};

use crate::{
    Actor, Error, Inner, Result, Rooms, Standing,
    author::{By, candidate},
    desk::{Desk, Held, content_of, membership_of},
};

/// Members, or invited addresses, that are looked at: more than two are too many wherever the number counts.
const PARTIES: usize = 100;
/// Pages of state keys, of as many each, that are searched for them.
const PAGES: usize = 10;

/// What makes somebody, or an address, a party of a room.
const PARTY_KINDS: [StateEventType; 2] = [StateEventType::RoomMember, StateEventType::RoomThirdPartyInvite];

/// What a room's rules say of how it was made. Some servers compare the fields as they are written: null is not the same to
/// them as no field.
const MADE: [&str; 2] = ["visibility", "force_unencrypted_at_creation"];

fn is_party((kind, _): &RuleKey) -> bool {
    PARTY_KINDS.contains(kind)
}

/// Where the access rules are kept in a room's state.
pub(crate) fn rules_key() -> RuleKey {
    (RULES.into(), String::new())
}

impl Desk<'_> {
    /// Asks about a draft at the current state, of which `held` has what `access` reads.
    pub(crate) async fn ask_access(
        &self,
        by: By<'_>,
        draft: &build::Draft,
        held: &Held,
        access: Option<&Access>,
    ) -> Result<()> {
        let state = |key: &RuleKey| held.get(&key.0, &key.1);
        let candidate = candidate(by, draft);
        self.inner.refuse_outsiders(&candidate, &state, by.door)?;
        let Some(access) = access else { return Ok(()) };
        self.ask(access, candidate, &state, self.state.current(), (by.door, by.bypass)).await
    }

    /// Asks about an event that is made already at the state `at`.
    pub(crate) async fn ask_access_of(
        &self,
        pdu: &Pdu,
        at: StateRef,
        (door, bypass): (Door, Bypass),
    ) -> Result<()> {
        let content = pdu.content_object();
        let candidate = candidate_of(pdu, &content);
        let access = self.inner.access();
        let mut keys: Vec<RuleKey> = outsiders::replaced(&candidate).into_iter().collect();
        keys.extend(access.iter().flat_map(|access| access.state_needed(&candidate)));
        let held = self.held_at(at, &keys).await?;
        let state = |key: &RuleKey| held.get(&key.0, &key.1);
        self.inner.refuse_outsiders(&candidate, &state, door)?;
        let Some(access) = &access else { return Ok(()) };
        self.ask(access, candidate, &state, at, (door, bypass)).await
    }

    async fn ask(
        &self,
        access: &Access,
        candidate: Candidate<'_>,
        state: State<'_>,
        at: StateRef,
        (door, bypass): (Door, Bypass),
    ) -> Result<()> {
        let parties = if access.needs_parties(&candidate, state) {
            Some(self.parties(at, &candidate).await?)
        } else {
            None
        };
        let opens = candidate.kind.to_string() == RULES;
        let invites = *candidate.kind == TimelineEventType::RoomMember && access.domains.reads_directory();
        let listed = (opens || invites) && self.reader.is_published(self.nid).await?;
        let question = Question { candidate, state, parties: parties.as_deref(), listed, door, bypass };
        self.inner.ask(access, &question).await
    }

    /// The members and invited addresses of a state: all, or more than count, the one that `candidate` is about among them
    /// if it is one. Refused invites leave keys for which nothing is set: where so many are in the way that it cannot be told
    /// who is there, nobody new is let in.
    async fn parties(&self, at: StateRef, candidate: &Candidate<'_>) -> Result<Vec<Pdu>> {
        let mut parties = BTreeMap::new();
        for kind in PARTY_KINDS {
            let (found, is_told) = self.parties_of(&kind, at, candidate).await?;
            parties.extend(found);
            if !is_told && !stays(candidate, &parties) {
                return Err(refused(Refusal::Third));
            }
        }
        Ok(parties.into_values().collect())
    }

    /// Those of one kind, and whether these are all, or more than count.
    async fn parties_of(
        &self,
        kind: &StateEventType,
        at: StateRef,
        candidate: &Candidate<'_>,
    ) -> Result<(BTreeMap<RuleKey, Pdu>, bool)> {
        let name = kind.to_string();
        let target = candidate.state_key.filter(|_| candidate.kind.to_string() == name);
        let mut keys: BTreeSet<RuleKey> = self.new_parties().filter(|(new, _)| new == kind).collect();
        keys.extend(target.map(|target| (kind.clone(), target.to_owned())));
        let (mut found, mut from) = (BTreeMap::new(), String::new());
        for _ in 0..PAGES {
            let page = self.reader.keys_of_type(self.nid, &name, &from, PARTIES).await?;
            let is_last = page.len() < PARTIES;
            from = page.last().cloned().unwrap_or_default();
            keys.extend(page.into_iter().map(|key| (kind.clone(), key)));
            let wanted: Vec<RuleKey> = std::mem::take(&mut keys).into_iter().collect();
            let held = self.held_at(at, &wanted).await?.0.into_iter();
            found.extend(held.map(|(key, (_, pdu))| (key, pdu)).filter(|(_, pdu)| is_there(pdu)));
            if is_last || found.len() >= PARTIES {
                return Ok((found, true));
            }
        }
        Ok((found, false))
    }
}

/// An invited address that was taken back is empty.
fn is_there(party: &Pdu) -> bool {
    *party.kind() == TimelineEventType::RoomMember || !party.content_object().is_empty()
}

/// Whether an event is about somebody who is in a room already, or goes: then it does not matter how many others are there.
fn stays(candidate: &Candidate<'_>, parties: &BTreeMap<RuleKey, Pdu>) -> bool {
    let is_member = *candidate.kind == TimelineEventType::RoomMember;
    let target = candidate.state_key.filter(|_| is_member);
    let now = target.and_then(|target| parties.get(&(StateEventType::RoomMember, target.to_owned())));
    let said = candidate.content.get("membership").and_then(CanonicalJsonValue::as_str);
    let goes = matches!(said, Some("leave" | "ban"));
    now.is_some_and(|now| goes || membership_of(now) == Membership::Join)
}

impl Inner {
    /// Asks about an invite into a room that this server is not in, by what it was told of the room. Where that does not
    /// say the room's rule, whoever lets the user in will judge by it.
    pub(crate) async fn ask_access_as_told(&self, invite: &Pdu, told: &[(RuleKey, Pdu)]) -> Result<()> {
        let state = |key: &RuleKey| told.iter().find(|(told, _)| told == key).map(|(_, pdu)| pdu.clone());
        let content = invite.content_object();
        let candidate = candidate_of(invite, &content);
        let (door, bypass) = (Door::Offer, Bypass::None);
        self.refuse_outsiders(&candidate, &state, door)?;
        let Some(access) = &self.access() else { return Ok(()) };
        // Of whom nothing is told may be there too.
        let others = told.iter().filter(|((_, key), _)| Some(&**key) != invite.state_key());
        let parties: Vec<Pdu> = others.filter(|(key, _)| is_party(key)).map(|(_, pdu)| pdu.clone()).collect();
        let parties = Some(&*parties);
        let question = Question { candidate, state: &state, parties, listed: false, door, bypass };
        if state(&rules_key()).is_some() {
            return self.ask(access, &question).await;
        }
        access.allowed_blindly(&question).map_err(refused)
    }

    /// Asks about the join with which a room comes in, at the state that it came with: the server that let the user in may
    /// know of no rules.
    pub(crate) async fn ask_access_of_join(&self, join: &Pdu, state: &BTreeMap<RuleKey, Pdu>) -> Result<()> {
        let Some(access) = &self.access() else { return Ok(()) };
        let parties = state.iter().filter(|(key, _)| is_party(key));
        let parties: Vec<Pdu> = parties.map(|(_, pdu)| pdu.clone()).collect();
        let get = |key: &RuleKey| state.get(key).cloned();
        let content = join.content_object();
        let candidate = candidate_of(join, &content);
        let (door, bypass, parties) = (Door::Received, Bypass::None, Some(&*parties));
        let question = Question { candidate, state: &get, parties, listed: false, door, bypass };
        self.ask(access, &question).await
    }

    /// Whether this server has to do with another one, or is it.
    pub(crate) fn takes_part(&self, server: &ServerName) -> bool {
        *server == self.server || self.peers.takes_part(server)
    }

    /// Whether another server is outside the network. [`Error::Unreachable`] while there is none to talk with: then that is
    /// known of nobody.
    pub(crate) fn is_outside(&self, server: &ServerName) -> Result<bool> {
        // It may close or open in between.
        let was_closed = self.peers.is_closed();
        if self.takes_part(server) {
            return Ok(false);
        }
        if was_closed || self.peers.is_closed() { Err(Error::Unreachable) } else { Ok(true) }
    }

    /// Nobody outside the network says or becomes anything here, whoever is exempt from its rules. What was sent already is
    /// judged when it is known who is outside: a verdict is for good.
    fn refuse_outsiders(&self, candidate: &Candidate<'_>, state: State<'_>, door: Door) -> Result<()> {
        let before = outsiders::replaced(candidate).and_then(|key| state(&key));
        let before = before.map(|pdu| pdu.content_object());
        let unknown = Cell::new(false);
        let takes_part = |server: &ServerName| match self.is_outside(server) {
            Ok(is_outside) => !is_outside,
            Err(_) => {
                unknown.set(true);
                false
            }
        };
        let Some(named) = outsider(candidate, before.as_ref(), &takes_part) else { return Ok(()) };
        if unknown.get() && door == Door::Received {
            return Err(Error::Unreachable);
        }
        Err(Error::Forbidden(format!("{named} is not of a server that this one talks with")))
    }

    async fn ask(&self, access: &Access, question: &Question<'_>) -> Result<()> {
        let Err(refusal) = access.allowed(question) else { return Ok(()) };
        for user in access.exempting(&question.candidate, question.state) {
            if self.is_exempt_here(&user).await? {
                return Ok(());
            }
        }
        Err(refused(refusal))
    }

    /// Whether a user is an administrator of this server, or speaks for it.
    async fn is_exempt_here(&self, user: &OwnedUserId) -> Result<bool> {
        if user.server_name() != self.server {
            return Ok(false);
        }
        let account = self.accounts.user(user).await.map_err(|_| Error::Retry)?;
        Ok(account.is_some_and(|account| account.admin || account.kind == UserKind::System))
    }

    /// The access rules, if they bind an actor.
    pub(crate) fn access_for(&self, actor: &Actor) -> Option<Arc<Access>> {
        let exempt = matches!(actor.standing, Standing::Administrator | Standing::Overseer);
        self.access().filter(|access| !exempt && !access.exempts(&actor.user))
    }
}

impl Desk<'_> {
    /// What the room says of itself.
    pub(crate) async fn room_rules(&self) -> Result<RoomRules> {
        Ok(RoomRules::of(self.current(RULES.into(), "").await?.as_ref()))
    }
}

impl Rooms {
    /// Refuses a join through other servers by whoever may only join where it is invited.
    pub(crate) async fn check_invited(&self, actor: &Actor, room: &RoomId) -> Result<()> {
        let access = self.0.access_for(actor);
        if !access.is_some_and(|access| access.domains.can_only_join_rooms_with_invite) {
            return Ok(());
        }
        let outside = self.0.store.read().out_of_band(&actor.user, room).await?;
        let here = self.standpoint(&actor.user, room).await?.membership.map(|at| at.value.membership);
        match outside.and_then(|at| at.value.0.kind()).or(here) {
            Some(Membership::Invite | Membership::Join) => Ok(()),
            _ => Err(refused(Refusal::Join)),
        }
    }

    /// Refuses to list a room that is not for this network alone.
    pub(crate) async fn check_publishable(&self, actor: &Actor, room: &RoomId) -> Result<()> {
        if self.0.access_for(actor).is_none() {
            return Ok(());
        }
        let rules = Desk::open(&self.0, room).await?.room_rules().await?;
        if rules.rule == Rule::Restricted { Ok(()) } else { Err(refused(Refusal::Publish)) }
    }

    /// Has rules that a client writes say how the room was made as the rules before did, where it means the same.
    pub(crate) async fn say_as_before(&self, room: &RoomId, rules: &mut Map<String, Value>) -> Result<()> {
        if self.0.access().is_none() {
            return Ok(());
        }
        let Ok(view) = self.view(room).await else { return Ok(()) };
        if let Some(before) = view.current(RULES.into(), "").await? {
            copy_made(&content_of(&before.pdu), rules);
        }
        Ok(())
    }
}

fn copy_made(before: &Map<String, Value>, rules: &mut Map<String, Value>) {
    let read = |said: &Map<String, Value>| {
        let said = try_from_json_map(said.clone()).ok()?;
        RoomRules::read(&said).map(|rules| (rules.public, rules.force_unencrypted))
    };
    let (old, new) = (read(before), read(rules));
    if old.is_none() || old != new {
        return;
    }
    for field in MADE {
        match before.get(field) {
            Some(said) => rules.insert(field.to_owned(), said.clone()),
            None => rules.remove(field),
        };
    }
}

pub(crate) fn refused(refusal: Refusal) -> Error {
    Error::Forbidden(refusal.to_string())
}

fn candidate_of<'a>(pdu: &'a Pdu, content: &'a CanonicalJsonObject) -> Candidate<'a> {
    Candidate {
        kind: pdu.kind(),
        state_key: pdu.state_key(),
        sender: pdu.sender(),
        content,
        redacts: pdu.redacts(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::copy_made;

    #[test]
    fn rules_say_how_a_room_was_made_in_the_words_that_are_there() {
        let made = |visibility: Value, force: Value| json!({ "rule": "restricted", "visibility": visibility, "force_unencrypted_at_creation": force });
        let bare = json!({ "rule": "restricted" });
        let nulls = made(json!(null), json!(null));
        let said = made(json!("private"), json!(false));
        let public = made(json!("public"), json!(null));
        let plain = json!({ "rule": "restricted", "force_unencrypted_at_creation": true });
        let alike = [&bare, &nulls, &said];
        let copied = |before: &Value, new: &Value| {
            let (before, mut new) = (before.as_object().unwrap(), new.as_object().unwrap().clone());
            new.insert("rule".to_owned(), json!("unrestricted"));
            copy_made(before, &mut new);
            assert_eq!(new.insert("rule".to_owned(), json!("restricted")), Some(json!("unrestricted")));
            Value::Object(new)
        };
        for before in alike {
            for new in alike {
                assert_eq!(copied(before, new), *before, "{new}");
            }
            // What means something else is refused as it is.
            for new in [&public, &plain] {
                assert_eq!(copied(before, new), *new);
                assert_eq!(copied(new, before), *before);
            }
        }
    }
}
