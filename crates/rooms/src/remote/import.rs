//! A room comes in with the join of a local user: what the peer sent is validated, stored, and goes live at the end.
//!
//! Nothing of a room is shown before its last commit, the one with the join. A crash in between leaves outliers and
//! part of a state that the next attempt completes.

use std::collections::{BTreeMap, BTreeSet};

use chappe_rules::{
    Pdu,
    auth::{StateKey, allowed_by_state},
};
use chappe_store::{EventNum, LogEntry, Membership, StateChange, gaps, partial::PartialRoom};
use ruma::{
    OwnedServerName, OwnedUserId, RoomId, RoomVersionId, ServerName, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{handshake::check_version, same_event};
use crate::{
    Error, Inner, JoinAnswer, Result,
    desk::{Desk, Placing, Source, membership_of, store_key},
    receive::{Outliers, Proven, parse},
    turn::ATTEMPTS,
};

/// Servers that a peer may name as being in a room, and the bytes of their names.
const MOST_SERVERS: usize = 20_000;
const MOST_NAMES: usize = 256 << 10;
/// State changes that one commit makes while the room is not live.
const CHANGES_AT_ONCE: usize = 4_000;

/// A validated answer to `send_join`.
struct Import {
    join: Pdu,
    create: Pdu,
    outliers: Outliers,
    state: BTreeMap<StateKey, Pdu>,
    /// Where memberships were left out: the servers said to be in the room.
    partial: Option<Vec<OwnedServerName>>,
}

#[derive(Deserialize)]
struct CreateContent {
    #[serde(default = "version_1")]
    room_version: RoomVersionId,
}

fn version_1() -> RoomVersionId {
    RoomVersionId::V1
}

impl Inner {
    /// Validates the answer to `send_join` and takes the room in. False if the room came in otherwise meanwhile: its state is
    /// not to be replaced then.
    pub(super) async fn import_join(
        &self,
        server: &OwnedServerName,
        version: &RoomVersionId,
        rules: &'static RoomVersionRules,
        ours: Pdu,
        answer: JoinAnswer,
    ) -> Result<bool> {
        self.check_insiders(&answer.state, answer.servers_in_room.as_deref().unwrap_or_default())?;
        let import = self.validate(rules, version, ours, answer).await?;
        let room = import.join.room_id().to_owned();
        let _turn = self.turn(&room).await;
        if self.is_followed_room(&room).await? {
            return Ok(false);
        }
        self.have_room(&room, version).await?;
        let desk = Desk::open(self, &room).await?;
        check_version(version, &desk.head.version)?;
        if desk.is_created_otherwise(&import.create).await? {
            return Err(Error::HostilePeer("the room began otherwise".to_owned()));
        }
        drop(desk);
        self.store_outliers_in_turn(&room, &import.outliers).await?;
        self.import_state(&room, &import).await?;
        self.go_live(&room, server, &import).await.map(|()| true)
    }

    async fn validate(
        &self,
        rules: &'static RoomVersionRules,
        version: &RoomVersionId,
        ours: Pdu,
        answer: JoinAnswer,
    ) -> Result<Import> {
        let hostile = |what: &str| Error::HostilePeer(what.to_owned());
        let partial = if answer.members_omitted {
            let servers = answer.servers_in_room.as_ref().map(|names| self.named_servers(names));
            Some(servers.ok_or_else(|| hostile("it is not said which servers are in the room"))?)
        } else {
            None
        };
        if answer.state.len() + answer.auth_chain.len() > self.config().join_state_limit {
            return Err(hostile("the room is too large"));
        }
        let join = match &answer.event {
            Some(raw) => same_event(rules, raw, &ours)?,
            None => ours,
        };
        let join = self.check_one(rules, join).await?.pdu().clone();
        let room = join.room_id();
        let chain = self.check_listed(rules, room, answer.auth_chain).await;
        let state = self.check_listed(rules, room, answer.state).await;
        let mut map = state_map(&state)?;
        let create = check_create(&map, version)?;
        if partial.is_some() {
            add_claimed(&mut map, &join, &chain);
        }
        let held = |kind: &StateEventType, key: &str| map.get(&(kind.clone(), key.to_owned())).cloned();
        allowed_by_state(rules, &join, held).map_err(|error| {
            Error::HostilePeer(format!("the join is not allowed by the state sent: {error}"))
        })?;
        self.ask_access_of_join(&join, &map).await?;
        let mut listed: Vec<Proven> = chain.into_iter().chain(state).collect();
        listed.retain(|proven| {
            *proven.pdu().kind() != TimelineEventType::RoomCreate
                || proven.pdu().event_id() == create.event_id()
        });
        let outliers = Outliers::from(listed);
        Ok(Import { join, create, outliers, state: map, partial })
    }

    /// Other servers among what a peer says to be server names. Those that are too many are heard of with the members.
    fn named_servers(&self, names: &[String]) -> Vec<OwnedServerName> {
        let mut bytes = 0;
        let fits = |name: &&String| {
            bytes += name.len();
            bytes <= MOST_NAMES
        };
        let names = names.iter().take(MOST_SERVERS).take_while(fits);
        let named = names.filter_map(|name| OwnedServerName::try_from(&**name).ok());
        let named: BTreeSet<OwnedServerName> = named.filter(|server| *server != self.server).collect();
        named.into_iter().collect()
    }

    /// What is no rightly signed event of the room is left out.
    async fn check_listed(
        &self,
        rules: &'static RoomVersionRules,
        room: &RoomId,
        raws: Vec<Box<RawValue>>,
    ) -> Vec<Proven> {
        // Each text goes as its event comes: looking for keys may take long.
        let pdus: Vec<Pdu> = raws.into_iter().filter_map(|raw| parse(rules, room, &raw).ok()).collect();
        self.check_joined(rules, pdus).await
    }

    /// Numbers the room if this server has nothing of it yet.
    async fn have_room(&self, room: &RoomId, version: &RoomVersionId) -> Result<()> {
        for _ in 0..ATTEMPTS {
            if self.store.read().room_nid(room).await?.is_some() {
                return Ok(());
            }
            let desk = Desk::found(self, room, version).await?;
            match self.store.commit(desk.seal()).await {
                Ok(_) => return Ok(()),
                Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Retry)
    }

    /// Makes the current state the one before the join, in commits of bounded size; but for [`Inner::held_back`].
    async fn import_state(&self, room: &RoomId, import: &Import) -> Result<()> {
        for _ in 0..ATTEMPTS + self.config().join_state_limit / CHANGES_AT_ONCE {
            let mut desk = Desk::open(self, room).await?;
            let ids: Vec<_> = import.state.values().map(|pdu| pdu.event_id().to_owned()).collect();
            let nums: Vec<EventNum> = desk.nums(&ids).await?.into_iter().flatten().collect();
            let mut changes = desk.changes_to(&nums).await?;
            if import.partial.is_some() {
                // Of its own users this server knows the memberships from an earlier stay.
                changes.retain(|change| change.num != EventNum::NONE || !self.is_own_member(&change.key));
            }
            let held_back = self.held_back(&desk, import).await?;
            let own: BTreeSet<_> = held_back.iter().map(|change| &change.key).collect();
            changes.retain(|change| !own.contains(&change.key));
            if changes.is_empty() {
                // For the look at it alone: nothing is committed here.
                desk.enter(&held_back).await?;
                return self.check_arrived(&desk, import).await;
            }
            desk.change_current(&changes[..changes.len().min(CHANGES_AT_ONCE)]).await?;
            match self.store.commit(desk.seal()).await {
                Ok(_) | Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Retry)
    }

    /// What makes users of this server joined, invited or knocking before the join itself. The last commit does that too: this
    /// server would seem to be in a room that is not there, and what is noted beside the room of invites and knocks would give
    /// way to it.
    async fn held_back(&self, desk: &Desk<'_>, import: &Import) -> Result<Vec<StateChange>> {
        let is_held_back = |(key, pdu): &(&StateKey, &Pdu)| {
            self.is_own_member(&store_key(key))
                && matches!(membership_of(pdu), Membership::Join | Membership::Invite | Membership::Knock)
        };
        let own = import.state.iter().filter(is_held_back);
        let (keys, ids): (Vec<_>, Vec<_>) =
            own.map(|(key, pdu)| (store_key(key), pdu.event_id().to_owned())).unzip();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let nums = desk.nums(&ids).await?;
        let known: Vec<EventNum> = nums.iter().copied().flatten().collect();
        let mut judged = desk.judged(&known).await?.into_iter();
        let now = desk.state.state_at(&desk.reader, desk.state.current(), &keys).await?;
        let mut changes = Vec::new();
        for ((key, num), now) in keys.into_iter().zip(nums).zip(now) {
            let Some(num) = num else { continue };
            let counts = judged.next().is_some_and(|judged| !judged.rejected);
            if counts && now != Some(num) {
                changes.push(StateChange { key, num });
            }
        }
        Ok(changes)
    }

    fn is_own_member(&self, key: &chappe_store::state::StateKey) -> bool {
        let user = UserId::parse(&key.state_key).ok().filter(|_| key.event_type() == "m.room.member");
        user.is_some_and(|user| user.server_name() == self.server)
    }

    /// The state that was judged must be the state that is here now, as far as authorization reads it.
    async fn check_arrived(&self, desk: &Desk<'_>, import: &Import) -> Result<()> {
        let keys = chappe_rules::auth::state_needed(desk.rules, &import.join)
            .map_err(|error| Error::HostilePeer(error.to_string()))?;
        let held = desk.held(&keys).await?;
        allowed_by_state(desk.rules, &import.join, |kind, key| held.get(kind, key))
            .map_err(|error| Error::HostilePeer(error.to_string()))
    }

    /// The last commit: the join itself, with which the room is there.
    async fn go_live(&self, room: &RoomId, server: &ServerName, import: &Import) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let mut desk = Desk::open(self, room).await?;
            let pdu = import.join.clone();
            let stored = desk.reader.event_num(desk.nid, pdu.event_id()).await?;
            if desk.is_here().await? && stored.is_some() {
                return Ok(());
            }
            let auth = desk.nums(pdu.auth_events()).await?.into_iter().flatten().collect();
            let held_back = self.held_back(&desk, import).await?;
            desk.enter(&held_back).await?;
            // Heads from before this server left lead nowhere any more.
            desk.head.extremities.clear();
            desk.head.depth = pdu.depth();
            let missing = pdu.prev_events().to_vec();
            let prev = Vec::new();
            let placing =
                Placing { pdu, auth, prev, missing: missing.clone(), stored, source: Source::Elsewhere };
            desk.head.open_hole();
            let num = desk.append(placing).await?;
            let ordinal = desk.head.next_live - 1;
            desk.head.partial = import.partial.is_some();
            if let Some(servers) = &import.partial {
                let (prev, servers) = (missing.clone(), servers.clone());
                let partial = PartialRoom { join: num.0, prev, via: server.to_owned(), servers };
                desk.tx.begin_partial(desk.nid, &partial);
            }
            desk.tx.put_gap(desk.nid, &gaps::Gap { ordinal, num, missing });
            desk.tx.log(LogEntry::Members { room: desk.nid.0 });
            for (kind, key) in import.state.keys().filter(|(kind, _)| *kind == StateEventType::RoomMember) {
                if self.is_own_member(&chappe_store::state::StateKey::new(kind, key))
                    && let Ok(user) = OwnedUserId::try_from(key.as_str())
                {
                    desk.tx.log(LogEntry::Member { room: desk.nid.0, user });
                }
            }
            match self.store.commit(desk.seal()).await {
                Ok(_) => {
                    self.partial.some_room_is_whole();
                    tracing::info!(%room, %server, events = import.state.len(), "joined over federation");
                    return Ok(());
                }
                Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Retry)
    }
}

impl Desk<'_> {
    async fn enter(&mut self, members: &[StateChange]) -> Result<()> {
        if members.is_empty() { Ok(()) } else { self.change_current(members).await }
    }
}

/// Takes from the auth events of the join the memberships that the state was sent without.
fn add_claimed(state: &mut BTreeMap<StateKey, Pdu>, join: &Pdu, chain: &[Proven]) {
    let named =
        chain.iter().map(Proven::pdu).filter(|pdu| join.auth_events().iter().any(|id| id == pdu.event_id()));
    for pdu in named.filter(|pdu| *pdu.kind() == TimelineEventType::RoomMember) {
        if let Some((kind, key)) = pdu.state() {
            state.entry((kind, key.to_owned())).or_insert_with(|| pdu.clone());
        }
    }
}

fn state_map(state: &[Proven]) -> Result<BTreeMap<StateKey, Pdu>> {
    let (mut map, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for proven in state {
        let pdu = proven.pdu();
        let Some((kind, key)) = pdu.state() else {
            return Err(Error::HostilePeer("the state holds a message".to_owned()));
        };
        if !seen.insert(store_key(&(kind.clone(), key.to_owned()))) {
            return Err(Error::HostilePeer("the state holds two events of one key".to_owned()));
        }
        map.insert((kind, key.to_owned()), pdu.clone());
    }
    Ok(map)
}

/// The one create event of the room.
fn check_create(state: &BTreeMap<StateKey, Pdu>, version: &RoomVersionId) -> Result<Pdu> {
    let create = state.get(&(StateEventType::RoomCreate, String::new()));
    let content = create.and_then(Pdu::content_as::<CreateContent>);
    match (create, content) {
        (Some(create), Some(content)) if content.room_version == *version => Ok(create.clone()),
        (_, Some(_)) => Err(Error::HostilePeer("the room has another version than was said".to_owned())),
        _ => Err(Error::HostilePeer("the state has no create event".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use chappe_kv::{Db, Memory};
    use chappe_store::Membership;
    use ruma::RoomId;
    use serde_json::{Map, json};

    use super::{Import, MOST_NAMES, MOST_SERVERS};
    use crate::{
        Change, Extent, Rooms, SignedMember, VERSIONS,
        receive::is_in,
        tests::net::{ALICE, BOB, Net, actor, room},
    };

    fn server(net: &Net, name: &str, seed: u8) -> Rooms {
        net.server_on(name, seed, Db::new(Memory::default()))
    }

    #[tokio::test]
    async fn a_restricted_join_is_signed_also_where_it_comes_again_or_after_an_invite() {
        let net = Net::default();
        let (a, b) = (server(&net, "a.example", 1), server(&net, "b.example", 2));
        let (via, bob) = (vec![a.server().to_owned()], actor(BOB).user);
        let club = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
        b.join(&actor(BOB), &club, via, Map::new()).await.unwrap();
        let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
        let rule = json!({ "join_rule": "restricted", "allow": allow });
        let rule = json!({ "type": "m.room.join_rules", "content": rule });
        for is_invited in [false, true] {
            let id = room(&a, ALICE, json!({ "room_version": "10", "initial_state": [rule] })).await;
            let template = a.make_join(b.server(), &id, &bob, VERSIONS).await.unwrap();
            let content = json!({ "membership": "join" }).as_object().unwrap().clone();
            let made = b.0.make_member(&template, &bob, &id, &content).unwrap();
            if is_invited {
                a.change(&actor(ALICE), &id, &bob, Change::Invite, None).await.unwrap();
            }
            for _ in 0..2 {
                let event_id = made.pdu.event_id().to_owned();
                let member = SignedMember { event_id, pdu: made.pdu.to_raw() };
                a.accept_join(b.server(), &id, member).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn of_what_is_said_to_be_servers_so_much_is_believed() {
        let a = server(&Net::default(), "a.example", 1);
        let named = |letters: usize, count: usize| -> usize {
            let names: Vec<String> = (0..count).map(|n| format!("{n:0>letters$}.example")).collect();
            a.0.named_servers(&names).len()
        };
        assert_eq!(named(10, 5_000), 5_000, "a very large room");
        assert_eq!(named(200, 5_000), MOST_NAMES / 208);
        assert_eq!(named(1, MOST_NAMES), MOST_SERVERS);
    }

    /// Bob of `b` joins through `a`, up to the last commit.
    async fn all_but_the_last(a: &Rooms, b: &Rooms, id: &RoomId, extent: Extent) -> Import {
        let (inner, bob) = (&b.0, actor(BOB).user);
        let template = a.make_join(b.server(), id, &bob, VERSIONS).await.unwrap();
        let content = json!({ "membership": "join" }).as_object().unwrap().clone();
        let made = inner.make_member(&template, &bob, id, &content).unwrap();
        let member = SignedMember { event_id: made.pdu.event_id().to_owned(), pdu: made.pdu.to_raw() };
        let accepted = a.accept_join(b.server(), id, member).await.unwrap();
        let answer = a.join_answer(&accepted, extent).await.unwrap();
        let import = inner.validate(made.rules, &made.version, made.pdu, answer).await.unwrap();
        inner.have_room(id, &made.version).await.unwrap();
        inner.store_outliers_in_turn(id, &import.outliers).await.unwrap();
        inner.import_state(id, &import).await.unwrap();
        import
    }

    #[tokio::test]
    async fn an_invite_of_somebody_else_waits_until_the_room_has_come_in() {
        let net = Net::default();
        let (a, b) = (server(&net, "a.example", 1), server(&net, "b.example", 2));
        let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
        let bert = actor("@bert:b.example").user;
        a.change(&actor(ALICE), &id, &bert, Change::Invite, None).await.unwrap();
        let import = all_but_the_last(&a, &b, &id, Extent::Whole).await;
        let noted = b.store().read().out_of_band(&bert, &id).await.unwrap().unwrap().value.0;
        assert!(noted.kind() == Some(Membership::Invite) && !noted.state.is_empty() && !noted.via.is_empty());
        let reader = b.store().read();
        let nid = reader.room_nid(&id).await.unwrap().unwrap();
        assert_eq!(reader.user_room(&bert, nid).await.unwrap(), None);
        b.0.go_live(&id, a.server(), &import).await.unwrap();
        let reader = b.store().read();
        assert!(reader.out_of_band(&bert, &id).await.unwrap().is_none());
        let now = reader.user_room(&bert, nid).await.unwrap().unwrap();
        assert_eq!(now.value.membership, Membership::Invite);
    }

    #[tokio::test]
    async fn nobody_is_in_a_room_before_it_has_come_in() {
        for extent in [Extent::Whole, Extent::WithoutMembers] {
            let net = Net::default();
            let (a, b) = (server(&net, "a.example", 1), server(&net, "b.example", 2));
            let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
            let via = vec![a.server().to_owned()];
            b.join(&actor(BOB), &id, via, Map::new()).await.unwrap();
            // The others still believe what this server has lost.
            let b = server(&net, "b.example", 2);
            let (inner, import) = (&b.0, all_but_the_last(&a, &b, &id, extent).await);
            assert!(!is_in(inner, &id).await.unwrap(), "{extent:?}");
            inner.go_live(&id, a.server(), &import).await.unwrap();
            let view = b.view(&id).await.unwrap();
            let joined = view.reader.room_servers(view.nid).await.unwrap();
            assert!(joined.iter().any(|(server, users)| server == b.server() && *users == 1), "{joined:?}");
            let now = view.current("m.room.member".into(), BOB).await.unwrap().unwrap();
            assert_eq!(now.pdu.event_id(), import.join.event_id(), "{extent:?}");
        }
    }
}
