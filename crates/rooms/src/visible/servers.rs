//! What another server is told of a room, judged by room and event together.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chappe_rules::{
    redact,
    visibility::{membership, server_may_see, visibility},
};
use chappe_store::{
    EventMeta, EventNum, Membership, StateRef, Status, members::RoomServers, state::StateKey,
};
use ruma::{
    OwnedUserId, ServerName,
    events::{StateEventType, room::history_visibility::HistoryVisibility},
};

use super::member_key;
use crate::{
    Result,
    read::view::{Event, View},
};

/// Memberships at earlier states that are looked at for one question of another server, at most. What that leaves open is
/// not seen: a server with very many users is told less of what was before their time.
const MOST_LOOKS: usize = 20_000;
/// Users of a server without a joined one that are looked for at earlier states, at most: those who went last.
const MOST_GONE: usize = 1_000;
/// Users who are looked at together.
const TOGETHER: usize = 20;
/// Members read at once where the first joined users of a server are looked for.
const PAGE: usize = 1_000;

/// A server that may be told of some events and of what was before them.
#[derive(Debug)]
pub(crate) struct Witness<'o> {
    server: &'o ServerName,
    /// The events.
    pub(crate) of: Vec<EventNum>,
    /// Its users, where none is joined.
    gone: Option<Arc<[StateKey]>>,
}

impl Witness<'_> {
    /// Whether it has a joined user.
    pub(crate) fn is_in(&self) -> bool {
        self.gone.is_none()
    }
}

fn is_part(meta: &EventMeta) -> bool {
    !matches!(meta.status, Status::Rejected | Status::Outlier)
}

impl View<'_> {
    /// Of which of these events, and of what was before them, a server may be told: of all if it has a joined user, else of
    /// those before which it had one. Whoever was put out may not have heard of that yet. `None` if of none.
    pub(crate) async fn witness<'o>(
        &self,
        server: &'o ServerName,
        events: Vec<EventNum>,
    ) -> Result<Option<Witness<'o>>> {
        // A row of nobody is that of a server which was in the room.
        let Some(count) = self.reader.get::<RoomServers>(&(self.nid, server.to_owned())).await? else {
            return Ok(None);
        };
        if count > 0 {
            return Ok(Some(Witness { server, of: events, gone: None }));
        }
        let metas = self.reader.event_metas(self.nid, &events).await?;
        let parts = events.into_iter().zip(metas).filter(|(_, meta)| is_part(meta));
        let parts: Vec<(EventNum, StateRef)> = parts.map(|(num, meta)| (num, meta.before)).collect();
        if parts.is_empty() {
            return Ok(None);
        }
        let (gone, mut looks) = (self.gone_of(server).await?, MOST_LOOKS);
        let mut known: BTreeMap<StateRef, bool> = BTreeMap::new();
        let mut of = Vec::new();
        for (num, before) in parts {
            let joined = HistoryVisibility::Joined;
            let was_in = match known.get(&before) {
                Some(was_in) => *was_in,
                None => self.for_some(&joined, (&gone, &mut looks), before).await?.is_some(),
            };
            known.insert(before, was_in);
            if was_in {
                of.push(num);
            }
        }
        Ok((!of.is_empty()).then_some(Witness { server, of, gone: Some(gone) }))
    }

    /// Which of `events` a server may see, in their order. Nothing for a server without a joined user in the room.
    pub async fn server_sees(&self, server: &ServerName, events: &[Event]) -> Result<Vec<bool>> {
        if !self.reader.server_joined(self.nid, server).await? {
            return Ok(vec![false; events.len()]);
        }
        self.sees(server, None, events).await
    }

    /// Whether a server may see what was said at a state.
    pub(crate) async fn server_sees_at(&self, server: &ServerName, at: StateRef) -> Result<bool> {
        let mut looks = MOST_LOOKS;
        self.server_sees_state(server, (&mut None, &mut looks), at).await
    }

    /// Events as a server gets them that may be told of what they are before, so that it can follow the room: those it may not
    /// see redacted, and what erased users said while it was not there. What was never part of the room is left out.
    pub(crate) async fn told_to_server(
        &self,
        witness: &Witness<'_>,
        events: Vec<Event>,
    ) -> Result<Vec<Event>> {
        let sees = self.sees(witness.server, witness.gone.clone(), &events).await?;
        let veiled = self.veiled_from(witness.server, witness.gone.clone(), &events).await?;
        let mut told = Vec::with_capacity(events.len());
        for (mut event, sees) in events.into_iter().zip(sees) {
            if !is_part(&event.meta) {
                continue;
            }
            if !sees || veiled.contains(&event.num) {
                event.pdu = redact::event(self.rules, &event.pdu)
                    .map_err(|_| chappe_store::Error::Corrupt("event JSON"))?;
            }
            told.push(event);
        }
        Ok(told)
    }

    /// Those of the events that erased users said while a server had nobody in the room. `users` are its users where none is
    /// joined.
    pub(crate) async fn veiled_from(
        &self,
        server: &ServerName,
        mut users: Option<Arc<[StateKey]>>,
        events: &[Event],
    ) -> Result<BTreeSet<EventNum>> {
        let mut veiled = self.of_erased(&events.iter().collect::<Vec<_>>()).await?;
        let mut known: BTreeMap<StateRef, bool> = BTreeMap::new();
        let mut looks = MOST_LOOKS;
        for event in events {
            if !veiled.contains(&event.num) {
                continue;
            }
            let before = event.meta.before;
            let was_in = match known.get(&before) {
                Some(was_in) => *was_in,
                None => {
                    let joined = HistoryVisibility::Joined;
                    self.is_for_any(server, &joined, (&mut users, &mut looks), before).await?
                }
            };
            known.insert(before, was_in);
            if was_in {
                veiled.remove(&event.num);
            }
        }
        Ok(veiled)
    }

    /// Whether a server had somebody in the room at a state.
    pub(crate) async fn server_was_in(&self, server: &ServerName, at: StateRef) -> Result<bool> {
        let (joined, mut looks) = (HistoryVisibility::Joined, MOST_LOOKS);
        self.is_for_any(server, &joined, (&mut None, &mut looks), at).await
    }

    async fn sees(
        &self,
        server: &ServerName,
        mut users: Option<Arc<[StateKey]>>,
        events: &[Event],
    ) -> Result<Vec<bool>> {
        let mut known: BTreeMap<StateRef, bool> = BTreeMap::new();
        let mut looks = MOST_LOOKS;
        let mut sees = Vec::with_capacity(events.len());
        for event in events {
            if !is_part(&event.meta) || self.has_expired(event) {
                sees.push(false);
                continue;
            }
            let before = event.meta.before;
            let allowed = match known.get(&before) {
                Some(allowed) => *allowed,
                None => self.server_sees_state(server, (&mut users, &mut looks), before).await?,
            };
            known.insert(before, allowed);
            let own = event.pdu.sender().server_name() == server;
            sees.push(allowed || own);
        }
        Ok(sees)
    }

    /// `users` are the server's users with any membership now, found once where some few do not decide; `looks` is at how many
    /// of them may still be looked.
    async fn server_sees_state(
        &self,
        server: &ServerName,
        (users, looks): (&mut Option<Arc<[StateKey]>>, &mut usize),
        at: StateRef,
    ) -> Result<bool> {
        let said = self.state_event_at(at, StateEventType::RoomHistoryVisibility, "").await?;
        let visibility = visibility(said.as_ref().map(|event| &event.pdu));
        if server_may_see(&visibility, []) {
            return Ok(true);
        }
        self.is_for_any(server, &visibility, (users, looks), at).await
    }

    /// Whether a server has a user for whom, with this visibility, it is told what is said at a state.
    async fn is_for_any(
        &self,
        server: &ServerName,
        visibility: &HistoryVisibility,
        (users, looks): (&mut Option<Arc<[StateKey]>>, &mut usize),
        at: StateRef,
    ) -> Result<bool> {
        if let Some(users) = users {
            return Ok(self.for_some(visibility, (users, looks), at).await?.is_some());
        }
        let seers = self.seers(server).await?;
        if self.for_some(visibility, (&seers, &mut *looks), at).await?.is_some() {
            return Ok(true);
        }
        let users = users.insert(self.users_of(server).await?);
        let seers = self.for_some(visibility, (users, looks), at).await?;
        if let Some(seers) = seers {
            self.inner.seers.insert((self.nid, server.to_owned()), seers.into());
        }
        Ok(seers.is_some())
    }

    /// Some of these users of a server for whom, with this visibility, it is told what is said at a state; none if it is told
    /// that for nobody.
    async fn for_some<'u>(
        &self,
        visibility: &HistoryVisibility,
        (users, looks): (&'u [StateKey], &mut usize),
        at: StateRef,
    ) -> Result<Option<&'u [StateKey]>> {
        for some in users.chunks(TOGETHER) {
            if *looks < some.len() {
                return Ok(None);
            }
            *looks -= some.len();
            let members = self.state_events_at(at, some).await?;
            let memberships = members.iter().flatten().map(|event| membership(Some(&event.pdu)));
            if server_may_see(visibility, memberships) {
                return Ok(Some(some));
            }
        }
        Ok(None)
    }

    /// The state keys of those users of a server who are looked at first: those among whom somebody saw what it last asked for,
    /// else the first joined ones. They may have left since: what they see is judged by the state where it was said, and where
    /// they see nothing the others are looked at.
    async fn seers(&self, server: &ServerName) -> Result<Arc<[StateKey]>> {
        let key = (self.nid, server.to_owned());
        if let Some(seers) = self.inner.seers.get(&key) {
            return Ok(seers);
        }
        let joined = self.reader.get::<RoomServers>(&key).await?.unwrap_or_default();
        let wanted = usize::try_from(joined).unwrap_or_default().min(TOGETHER);
        let (mut found, mut after) = (Vec::with_capacity(wanted), None::<OwnedUserId>);
        while found.len() < wanted {
            let page = match &after {
                None => self.reader.some_members(self.nid, Membership::Join, PAGE).await?,
                Some(user) => self.reader.members_after(self.nid, Membership::Join, user, PAGE).await?,
            };
            let Some((last, _)) = page.last() else { break };
            let ours = page.iter().filter(|(user, _)| user.server_name() == server);
            found.extend(ours.take(wanted - found.len()).map(|(user, _)| member_key(user)));
            after = Some(last.clone());
        }
        let found: Arc<[StateKey]> = found.into();
        self.inner.seers.insert(key, found.clone());
        Ok(found)
    }

    /// The state keys of those users of a server without a joined one who went last, the last one first. Kept: everybody in the
    /// room is looked at for it, and whoever is out may go on asking.
    async fn gone_of(&self, server: &ServerName) -> Result<Arc<[StateKey]>> {
        let key = (self.nid, self.head.state, server.to_owned());
        if let Some(gone) = self.inner.gone.get(&key) {
            return Ok(gone);
        }
        let mut gone = Vec::new();
        for is in Membership::ALL.into_iter().filter(|is| *is != Membership::Join) {
            let members = self.reader.members(self.nid, is).await?.into_iter();
            gone.extend(members.filter(|(user, _)| user.server_name() == server));
        }
        gone.sort_unstable_by_key(|(_, num)| Reverse(*num));
        let gone: Arc<[StateKey]> = gone.iter().take(MOST_GONE).map(|(user, _)| member_key(user)).collect();
        self.inner.gone.insert(key, gone.clone());
        Ok(gone)
    }

    /// The state keys of a server's users, joined ones first. Kept where they are few: everybody in the room is looked at for it.
    async fn users_of(&self, server: &ServerName) -> Result<Arc<[StateKey]>> {
        let key = (self.nid, self.head.state, server.to_owned());
        if let Some(users) = self.inner.users.get(&key) {
            return Ok(users);
        }
        let mut users = Vec::new();
        for is in Membership::ALL {
            let members = self.reader.members(self.nid, is).await?.into_iter();
            let ours = members.filter(|(user, _)| user.server_name() == server);
            users.extend(ours.map(|(user, _)| member_key(&user)));
        }
        let users: Arc<[StateKey]> = users.into();
        if users.len() <= MOST_GONE && !self.head.partial {
            self.inner.users.insert(key, users.clone());
        }
        Ok(users)
    }
}
