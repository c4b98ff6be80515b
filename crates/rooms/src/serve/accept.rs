//! `send_join`, `send_leave`, `send_knock`: memberships that users of other servers take here.

use std::collections::BTreeSet;

use chappe_rules::{
    Pdu, build,
    policy::{Bypass, Door},
};
use chappe_store::{EventMeta, EventNum, Membership, StateRef, Status, state::StateKey};
use ruma::{
    OwnedUserId, RoomId, ServerName, UserId,
    events::{StateEventType, TimelineEventType},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::SignedMember;
use crate::{
    Error, Extent, JoinAnswer, Result, Rooms, View,
    desk::Desk,
    receive::{Checked, Verdict, allowed_by_acl, parse},
};

#[derive(Deserialize)]
struct Authorised {
    #[serde(rename = "join_authorised_via_users_server")]
    by: Option<OwnedUserId>,
}

#[derive(Deserialize)]
struct Said {
    membership: String,
}

/// A join of a user of another server that was taken: its place in the room is here. Only [`Rooms::accept_join`] makes one.
#[derive(Clone, Debug)]
pub struct AcceptedJoin(Pdu);

impl Rooms {
    /// The first half of `send_join`: the join is taken. It may wait for other servers.
    pub async fn accept_join(
        &self,
        origin: &ServerName,
        room: &RoomId,
        member: SignedMember,
    ) -> Result<AcceptedJoin> {
        self.accept(origin, room, &member, Membership::Join).await.map(AcceptedJoin)
    }

    /// `send_leave` (v2).
    pub async fn accept_leave(&self, origin: &ServerName, room: &RoomId, member: SignedMember) -> Result<()> {
        self.accept(origin, room, &member, Membership::Leave).await.map(drop)
    }

    /// `send_knock`: gives the room's stripped state.
    pub async fn accept_knock(
        &self,
        origin: &ServerName,
        room: &RoomId,
        member: SignedMember,
    ) -> Result<Vec<Box<RawValue>>> {
        self.accept(origin, room, &member, Membership::Knock).await?;
        Desk::open(&self.0, room).await?.introduction_for_peers(&[]).await
    }

    /// Takes a membership event of a user of `origin`, and only that: [`Error::InvalidParam`] for any other, and for one that
    /// nobody can take. [`Error::Unreachable`] where another server may.
    async fn accept(
        &self,
        origin: &ServerName,
        room: &RoomId,
        member: &SignedMember,
        membership: Membership,
    ) -> Result<Pdu> {
        let desk = Desk::open(&self.0, room).await?;
        let enters = membership != Membership::Leave;
        if !desk.is_here().await? || (enters && desk.head.partial) {
            return Err(Error::NotFound("room"));
        }
        allowed_by_acl(&desk, origin).await?;
        let pdu = parse(desk.rules, room, &member.pdu)?;
        check_shape(origin, &pdu, member, membership)?;
        let pdu = if membership == Membership::Join { self.authorised(&desk, pdu).await? } else { pdu };
        desk.ask_access_of(&pdu, desk.state.current(), (Door::Offer, Bypass::None)).await?;
        let rules = desk.rules;
        drop(desk);
        let proven =
            self.0.check_one(rules, pdu).await.map_err(|error| Error::InvalidParam(error.to_string()))?;
        let checked = Checked::from_handshake(origin, proven);
        let pdu = checked.pdu().clone();
        let settled = async {
            let complete = checked.complete_handed_in(&self.0).await?;
            let complete = self.0.with_opinion(complete).await;
            self.0.settle(&complete).await
        };
        match settled.await {
            Ok(Verdict::Accepted) => Ok(pdu),
            Ok(Verdict::SoftFailed(reason) | Verdict::Rejected(reason) | Verdict::Undecided(reason)) => {
                Err(Error::Forbidden(reason))
            }
            // Such as that its id is that of another event.
            Err(Error::HostilePeer(why)) => Err(Error::InvalidParam(why)),
            Err(error) => Err(error),
        }
    }

    /// A restricted join gets this server's signature if, and only if, its conditions hold and its authoriser is ours.
    async fn authorised(&self, desk: &Desk<'_>, pdu: Pdu) -> Result<Pdu> {
        let Some(Authorised { by }) = pdu.content_as::<Authorised>() else {
            return Err(Error::BadJson("join_authorised_via_users_server must be a user id".to_owned()));
        };
        let Some(by) = by else { return Ok(pdu) };
        if !desk.rules.authorization.restricted_join_rule || by.server_name() != self.server() {
            return Ok(pdu);
        }
        let needs_none = self.authorise_join(pdu.sender(), &desk.room_id).await?.is_none();
        if needs_none && !desk.is_let_in_already(&pdu, &by).await? {
            return Ok(pdu);
        }
        build::countersign(desk.rules, &pdu, self.server(), &self.0.key)
            .map_err(|error| Error::BadJson(error.to_string()))
    }

    /// The second half of `send_join` (v2): the state before the join and its auth chain, as far as they are asked for. Nobody
    /// else is waited for.
    pub async fn join_answer(&self, join: &AcceptedJoin, extent: Extent) -> Result<JoinAnswer> {
        let AcceptedJoin(join) = join;
        let origin = join.sender().server_name();
        let view = self.view(join.room_id()).await?;
        let num = view.reader.event_num(view.nid, join.event_id()).await?.ok_or(Error::NotFound("event"))?;
        let before = view.reader.event_meta(view.nid, num).await?.before;
        let state = match extent {
            Extent::Whole => view.reader.full_state(view.nid, before).await?,
            Extent::WithoutMembers => view.state_with_heroes(before).await?,
        };
        let state: Vec<EventNum> = state.into_iter().map(|(_, num)| num).collect();
        let mut roots = state.clone();
        roots.push(num);
        let mut chain = view.chain_of(&roots).await?;
        if extent == Extent::WithoutMembers {
            let told: BTreeSet<EventNum> = state.iter().copied().collect();
            chain.retain(|num| !told.contains(num));
        }
        let servers = view.reader.room_servers(view.nid).await?.into_iter();
        // Those that were in the room before: whoever joins with this join alone was not.
        let servers = servers.filter(|(server, users)| server != origin || *users > 1);
        Ok(JoinAnswer {
            auth_chain: view.raws(origin, before, &chain).await?,
            state: view.raws(origin, before, &state).await?,
            event: view.raws(origin, before, &[num]).await?.pop(),
            servers_in_room: Some(servers.map(|(server, _)| server.to_string()).collect()),
            members_omitted: extent == Extent::WithoutMembers,
            ..JoinAnswer::default()
        })
    }
}

impl Desk<'_> {
    /// Whether a join `by` somebody may have this server's signature though its user needs nobody to be let in: it was taken
    /// before, or the user was invited since the template was made.
    async fn is_let_in_already(&self, join: &Pdu, by: &UserId) -> Result<bool> {
        let event = [join.event_id().to_owned()];
        let is_taken = |known: &(EventNum, EventMeta)| known.1.status == Status::Accepted;
        if self.known(&event).await?.iter().any(|(_, known)| known.as_ref().is_some_and(is_taken)) {
            return Ok(true);
        }
        let now = self.reader.membership(self.nid, join.sender()).await?;
        Ok(matches!(now, Some((Membership::Invite, _))) && self.may_invite(by).await?)
    }
}

/// Members who are told of a room without a name, so that it can be shown under theirs.
const HEROES: usize = 5;

impl View<'_> {
    /// A state without members, but for those that a room without a name is called after.
    async fn state_with_heroes(&self, at: StateRef) -> Result<Vec<(StateKey, EventNum)>> {
        let mut state = self.reader.state_without_members(self.nid, at).await?;
        let names = ["m.room.name", "m.room.canonical_alias"];
        if state.iter().any(|(key, _)| names.contains(&key.event_type()) && key.state_key.is_empty()) {
            return Ok(state);
        }
        for membership in [Membership::Join, Membership::Invite] {
            let some = self.reader.some_members(self.nid, membership, HEROES).await?;
            let keys: Vec<StateKey> =
                some.iter().map(|(user, _)| StateKey::new(StateEventType::RoomMember, user)).collect();
            let found = self.reader.state_at(self.nid, at, &keys).await?;
            state.extend(keys.into_iter().zip(found).filter_map(|(key, num)| Some((key, num?))));
        }
        Ok(state)
    }
}

fn check_shape(origin: &ServerName, pdu: &Pdu, member: &SignedMember, membership: Membership) -> Result<()> {
    let bad = |what: &str| Err(Error::InvalidParam(what.to_owned()));
    if pdu.event_id() != member.event_id {
        return bad("the event has another id than the path says");
    }
    if *pdu.kind() != TimelineEventType::RoomMember || pdu.state_key() != Some(pdu.sender().as_str()) {
        return bad("a membership event of the sender is needed");
    }
    if pdu.sender().server_name() != origin {
        return bad("the sender is not of your server");
    }
    if pdu.prev_events().is_empty() {
        return bad("the event needs previous events");
    }
    let said = pdu.content_as::<Said>().and_then(|content| Membership::parse(&content.membership));
    if said != Some(membership) {
        return bad("the event has another membership");
    }
    Ok(())
}
