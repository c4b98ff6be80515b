//! The delta itself: everything between what a device has seen and now, put together.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chappe_accounts::{AccountDataItem, Scope};
use chappe_rooms::{Actor, Form, passes_room};
use chappe_store::{At, Membership, Position, Reader, RoomNid, members::UserRoom, out_of_band::Listed};
use ruma::{OwnedRoomId, OwnedUserId, UserId, api::client::filter::EventFormat};
use serde_json::json;

use super::{
    Delta, Json, SyncRequest, filter,
    joined::{Place, Stirred, raw},
    stripped::{farewell, out_of_band},
    timeline::Wanted,
    touched,
};
use crate::{
    Delivery, Error, SyncToken,
    signal::{Look, Settings, Signal},
};

/// One delta being worked out.
pub(super) struct Work<'a> {
    pub(super) delivery: &'a Delivery,
    pub(super) reader: &'a Reader<'a>,
    pub(super) request: &'a SyncRequest,
    pub(super) signal: &'a Signal,
    pub(super) actor: Actor,
    /// What the device has seen, or what is known to hold nothing for it.
    pub(super) seen: Option<SyncToken>,
    pub(super) next: SyncToken,
    pub(super) look: Look,
}

/// A room that has to be looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) nid: RoomNid,
    pub(super) own: At<UserRoom>,
}

/// What is the user's own: account data, rules, whom they ignore.
pub(super) struct Personal {
    pub(super) global: Vec<Json>,
    pub(super) of_rooms: BTreeMap<OwnedRoomId, Vec<Json>>,
    pub(super) settings: Arc<Settings>,
    pub(super) typing: BTreeMap<RoomNid, Vec<OwnedUserId>>,
}

impl Personal {
    /// Nothing but the settings.
    pub(super) fn of(settings: Arc<Settings>) -> Self {
        Self { global: Vec::new(), of_rooms: BTreeMap::new(), settings, typing: BTreeMap::new() }
    }
}

impl Work<'_> {
    pub(super) async fn delta(&self) -> Result<Delta, Error> {
        let mut delta = Delta { next: self.next, ..Delta::default() };
        let joined = self.joined_rooms();
        let personal = self.personal(&joined).await?;
        let mut also: BTreeSet<RoomNid> = personal.typing.keys().copied().collect();
        for room in personal.of_rooms.keys() {
            also.extend(self.reader.room_nid(room).await?);
        }
        let candidates = self.candidates(&also).await?;
        let (mut moved, mut hidden) = (BTreeSet::new(), BTreeSet::new());
        for candidate in &candidates {
            let found = self.add_room(candidate, &personal, &mut delta).await?;
            moved.extend(found.members_changed.then_some(candidate.nid));
            hidden.extend(found.is_hidden.then_some(candidate.nid));
        }
        if touched(&self.look, |touched| touched.out_of_band) {
            self.add_out_of_band(&personal, &mut delta).await?;
        }
        self.add_to_device(&mut delta).await?;
        let moved = self.moved(&candidates, &moved, &hidden).await?;
        self.add_presence(&joined, &moved.came, &mut delta).await?;
        delta.device_lists = self.device_lists(&joined, moved).await?;
        if let Some(device) = &self.request.device {
            delta.keys = self.delivery.keys(self.reader, self.signal, device).await?;
            delta.keys_changed = matches!(&self.look, Look::At(touched) if touched.keys);
        }
        delta.account_data = personal.global;
        Ok(delta)
    }

    pub(super) fn form(&self) -> Form {
        if self.request.filter.event_format == EventFormat::Federation {
            Form::Federation
        } else {
            Form::Sync
        }
    }

    pub(super) fn wanted<'b>(&'b self, ignored: &'b BTreeSet<OwnedUserId>) -> Wanted<'b> {
        Wanted {
            user: &self.request.user,
            filter: &self.request.filter.room.timeline,
            ignored,
            most: self.delivery.0.config.get().timeline_limit,
        }
    }

    /// The rooms the user is in: from memory, as the user is attached.
    pub(super) fn joined_rooms(&self) -> BTreeSet<RoomNid> {
        let rooms = self.signal.rooms.lock();
        rooms.iter().filter(|(_, (joined, _))| *joined).map(|(nid, _)| *nid).collect()
    }

    /// The user's settings, read again only after account data changed.
    pub(super) async fn settings(&self) -> Result<Arc<Settings>, Error> {
        if let Some(settings) = self.signal.settings() {
            return Ok(settings);
        }
        let settings = self.delivery.settings(self.reader, &self.request.user).await?;
        self.signal.remember_settings(self.next.position, &settings);
        self.delivery.0.recent_settings.keep(&self.request.user, settings.clone());
        Ok(settings)
    }

    async fn personal(&self, joined: &BTreeSet<RoomNid>) -> Result<Personal, Error> {
        let mut personal = Personal {
            global: Vec::new(),
            of_rooms: BTreeMap::new(),
            settings: self.settings().await?,
            typing: BTreeMap::new(),
        };
        if let Some(seen) = self.seen {
            personal.typing = self.delivery.0.typing.since(seen.fleeting, |nid| joined.contains(&nid));
        }
        for item in self.account_data().await? {
            self.add_account_data(item, &mut personal);
        }
        Ok(personal)
    }

    async fn account_data(&self) -> Result<Vec<AccountDataItem>, Error> {
        let (accounts, user) = (&self.delivery.0.accounts, &self.request.user);
        match self.seen.filter(|_| !self.request.full_state) {
            None => {
                let mut items = accounts.account_data_all(self.reader, user, Scope::Global).await?;
                let all = accounts.account_data_since(self.reader, user, Position(0)).await?;
                items.extend(all.into_iter().filter(|item| item.room.is_some()));
                Ok(items)
            }
            Some(_) if !touched(&self.look, |touched| touched.account_data) => Ok(Vec::new()),
            Some(seen) => Ok(accounts.account_data_since(self.reader, user, seen.position).await?),
        }
    }

    /// The user's account data of a room that the device knows as of `known`: what is new, or all if it knows nothing of the
    /// room. It was not told what changed while the members of the room were still to come.
    pub(super) async fn room_data(
        &self,
        room: &OwnedRoomId,
        known: Option<Position>,
        personal: &Personal,
    ) -> Result<Vec<Json>, Error> {
        let news = personal.of_rooms.get(room).cloned().unwrap_or_default();
        let Some(seen) = self.seen.filter(|_| known.is_none() && !self.request.full_state) else {
            return Ok(news);
        };
        let (accounts, user) = (&self.delivery.0.accounts, &self.request.user);
        let mut older = Personal::of(personal.settings.clone());
        for item in accounts.account_data_all(self.reader, user, Scope::Room(room)).await? {
            if item.position <= seen.position {
                self.add_account_data(item, &mut older);
            }
        }
        let mut data = older.of_rooms.remove(room).unwrap_or_default();
        data.extend(news);
        Ok(data)
    }

    fn add_account_data(&self, item: AccountDataItem, personal: &mut Personal) {
        let event = raw(&json!({"type": item.kind, "content": item.content}));
        let filter = &self.request.filter;
        match item.room {
            None if filter::wants(&filter.account_data, &item.kind, None) => personal.global.push(event),
            Some(room)
                if filter::wants_kind(&filter.room.account_data, &item.kind)
                    && passes_room(&filter.room.account_data, &room) =>
            {
                personal.of_rooms.entry(room).or_default().push(event);
            }
            _ => {}
        }
    }

    /// Adds what is new in a room, if it is wanted.
    async fn add_room(
        &self,
        candidate: &Candidate,
        personal: &Personal,
        delta: &mut Delta,
    ) -> Result<Stirred, Error> {
        let id = self.reader.room_id(candidate.nid).await?;
        if !filter::wants_room(&self.request.filter.room, &id) {
            if self.seen.is_none() || candidate.own.value.membership != Membership::Join {
                return Ok(Stirred::default());
            }
            // Whoever is in it shares it with the user all the same.
            let tail = self.delivery.tail(self.reader, candidate.nid).await?;
            return Ok(Stirred { members_changed: self.may_have_moved(&tail), is_hidden: false });
        }
        let place = self.place(candidate).await?;
        match candidate.own.value.membership {
            Membership::Join => {
                let news = self.joined(&place, personal).await?;
                delta.joined.extend(news.room.map(|room| (id.clone(), room)));
                return Ok(news.stirred);
            }
            Membership::Invite => {
                let state = self.stripped(&place, &personal.settings).await?;
                delta.invited.extend(state.map(|state| (id.clone(), state)));
            }
            Membership::Knock => {
                let state = self.stripped(&place, &personal.settings).await?;
                delta.knocked.extend(state.map(|state| (id.clone(), state)));
            }
            Membership::Leave | Membership::Ban => {
                let room = self.left(&place, personal).await?;
                delta.left.extend(room.map(|room| (id.clone(), room)));
            }
        }
        Ok(Stirred::default())
    }

    pub(super) async fn place(&self, candidate: &Candidate) -> Result<Place<'_>, Error> {
        let tail = self.delivery.tail(self.reader, candidate.nid).await?;
        let numbered = (candidate.nid, tail.room_id.clone());
        let view = self.delivery.0.rooms.view_with(self.reader.clone(), numbered, tail.head.clone())?;
        Ok(Place { view, tail, own: candidate.own })
    }

    async fn add_out_of_band(&self, personal: &Personal, delta: &mut Delta) -> Result<(), Error> {
        let user = &self.request.user;
        let list = self.reader.out_of_band_list(user).await?.into_iter();
        let news = list.filter(|(room, at)| self.tells_listed(room, at)).map(|(room, _)| room).collect();
        for (room, at) in self.reader.out_of_bands(user, news).await? {
            match out_of_band(&at, &personal.settings) {
                // What is noted beside a room that is here came after what is known of it here.
                Some((Membership::Invite, state)) => {
                    delta.left.remove(&room);
                    delta.invited.insert(room, state);
                }
                Some((Membership::Knock, state)) => {
                    delta.left.remove(&room);
                    delta.knocked.insert(room, state);
                }
                Some((Membership::Leave | Membership::Ban, _)) => {
                    // If they were in the room before that, how that ended says more.
                    delta.left.entry(room).or_insert_with(|| farewell(&at, self.form()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether an invite, a knock or the end of one is news to the device.
    fn tells_listed(&self, room: &OwnedRoomId, at: &At<Listed>) -> bool {
        let filter = &self.request.filter.room;
        let is_news = match self.seen {
            Some(seen) => at.position > seen.position,
            None => filter.include_leave || !at.value.is_over(),
        };
        is_news && filter::wants_room(filter, room)
    }

    async fn add_to_device(&self, delta: &mut Delta) -> Result<(), Error> {
        let Some(device) = &self.request.device else { return Ok(()) };
        let lags = self.seen.is_some_and(|seen| seen.to_device.is_some());
        if !lags && !touched(&self.look, |touched| touched.to_device) {
            return Ok(());
        }
        let after = self.seen.map_or(Position(0), |seen| seen.to_device());
        let (limit, now) = (self.delivery.0.config.get().to_device_limit, self.next.position);
        let accounts = &self.delivery.0.accounts;
        let messages =
            accounts.to_device_messages(self.reader, &self.request.user, device, after, now, limit).await?;
        let Some(last) = messages.last().map(|message| message.position) else { return Ok(()) };
        if messages.len() >= limit {
            delta.next.to_device = Some(last);
        }
        self.delivery.0.handed_out.hand_out(&self.request.user, device, last);
        delta.to_device = messages.into_iter().map(|message| message.event).collect();
        Ok(())
    }

    async fn add_presence(
        &self,
        joined: &BTreeSet<RoomNid>,
        came: &BTreeSet<OwnedUserId>,
        delta: &mut Delta,
    ) -> Result<(), Error> {
        if !self.delivery.wants_presence(self.request) {
            return Ok(());
        }
        let presence = &self.delivery.0.presence;
        let after = self.seen.map(|seen| seen.fleeting);
        let mut told: BTreeSet<OwnedUserId> = match after.and_then(|after| presence.heard(self.signal, after))
        {
            Some(heard) => heard.into_iter().collect(),
            None => {
                let (mut near, others) = presence.around(self.signal, joined, after);
                near.extend(self.sharing(joined, others.iter().collect()).await?);
                near
            }
        };
        // Of those who are new here the device knows nothing yet.
        told.extend(came.iter().cloned());
        let events = presence.events_of(told.iter());
        let wanted = |user: &UserId| filter::wants(&self.request.filter.presence, "m.presence", Some(user));
        delta.presence =
            events.into_iter().filter(|(user, _)| wanted(user)).map(|(_, event)| event).collect();
        Ok(())
    }
}
