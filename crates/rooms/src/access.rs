//! The access rules of this network, asked about what happens in a room.

use std::{
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
    CanonicalJsonObject, OwnedUserId, RoomId, ServerName,
    events::{StateEventType, TimelineEventType},
};

use crate::{
    Actor, Error, Inner, Result, Rooms, Standing,
    author::{By, candidate},
    desk::{Desk, Held},
};

/// Members, and invited addresses, that are looked at: more than two are too many wherever the number counts.
const PARTIES: usize = 100;

/// What makes somebody, or an address, a party of a room.
const PARTY_KINDS: [StateEventType; 2] = [StateEventType::RoomMember, StateEventType::RoomThirdPartyInvite];

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
        self.inner.refuse_outsiders(&candidate, &state)?;
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
        self.inner.refuse_outsiders(&candidate, &state)?;
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
            Some(self.parties(at, candidate.state_key).await?)
        } else {
            None
        };
        let opens = candidate.kind.to_string() == RULES;
        let invites = *candidate.kind == TimelineEventType::RoomMember && access.domains.reads_directory();
        let listed = (opens || invites) && self.reader.is_published(self.nid).await?;
        let question = Question { candidate, state, parties: parties.as_deref(), listed, door, bypass };
        self.inner.ask(access, &question).await
    }

    /// The members and invited addresses of a state: all, or more than count, `target` among them if it is one.
    async fn parties(&self, at: StateRef, target: Option<&str>) -> Result<Vec<Pdu>> {
        let mut keys: BTreeSet<RuleKey> = BTreeSet::new();
        for kind in PARTY_KINDS {
            let known = self.reader.keys_of_type(self.nid, &kind.to_string(), PARTIES).await?;
            keys.extend(known.into_iter().map(|key| (kind.clone(), key)));
            keys.extend(target.map(|target| (kind, target.to_owned())));
        }
        keys.extend(self.new_parties());
        let keys: Vec<RuleKey> = keys.into_iter().collect();
        let held = self.held_at(at, &keys).await?;
        Ok(held.0.into_values().map(|(_, pdu)| pdu).collect())
    }
}

impl Inner {
    /// Asks about an invite into a room that this server is not in, by what it was told of the room. Where that does not
    /// say the room's rule, whoever lets the user in will judge by it.
    pub(crate) async fn ask_access_as_told(&self, invite: &Pdu, told: &[(RuleKey, Pdu)]) -> Result<()> {
        let state = |key: &RuleKey| told.iter().find(|(told, _)| told == key).map(|(_, pdu)| pdu.clone());
        let content = invite.content_object();
        let candidate = candidate_of(invite, &content);
        self.refuse_outsiders(&candidate, &state)?;
        let Some(access) = &self.access() else { return Ok(()) };
        let (door, bypass) = (Door::Offer, Bypass::None);
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

    /// Nobody outside the network says or becomes anything here, whoever is exempt from its rules.
    fn refuse_outsiders(&self, candidate: &Candidate<'_>, state: State<'_>) -> Result<()> {
        let before = outsiders::replaced(candidate).and_then(|key| state(&key));
        let before = before.map(|pdu| pdu.content_object());
        let outsider = outsider(candidate, before.as_ref(), &|server| self.takes_part(server));
        let refused =
            |named| Error::Forbidden(format!("{named} is not of a server that this one talks with"));
        outsider.map(refused).map_or(Ok(()), Err)
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
