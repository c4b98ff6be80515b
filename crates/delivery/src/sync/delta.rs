//! The delta itself: everything between what a device has seen and now, put together.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use chappe_accounts::{AccountDataItem, Scope};
use chappe_rooms::{Actor, Form, passes_room};
use chappe_store::{At, Membership, Position, Reader, RoomNid, members::UserRoom};
use ruma::{OwnedRoomId, OwnedUserId, UserId, api::client::filter::EventFormat, push::Ruleset};
use serde_json::json;

use super::{
    Delta, Json, SyncRequest, filter,
    joined::{Place, raw},
    timeline::Wanted,
    touched,
};
use crate::{Delivery, Error, SyncToken, signal::Look};

/// One delta being worked out.
pub(super) struct Work<'a> {
    pub(super) delivery: &'a Delivery,
    pub(super) reader: &'a Reader<'a>,
    pub(super) request: &'a SyncRequest,
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
    pub(super) ignored: BTreeSet<OwnedUserId>,
    pub(super) rules: Ruleset,
    pub(super) rules_mark: u64,
    pub(super) typing: BTreeMap<RoomNid, Vec<OwnedUserId>>,
    pub(super) all_typing: BTreeMap<RoomNid, Vec<OwnedUserId>>,
}

impl Work<'_> {
    pub(super) async fn delta(&self) -> Result<Delta, Error> {
        let mut delta = Delta { next: self.next, ..Delta::default() };
        let joined = self.joined_rooms().await?;
        let personal = self.personal(&joined).await?;
        let mut also: BTreeSet<RoomNid> = personal.typing.keys().copied().collect();
        for room in personal.of_rooms.keys() {
            also.extend(self.reader.room_nid(room).await?);
        }
        let candidates = self.candidates(&also).await?;
        for candidate in &candidates {
            self.add_room(candidate, &personal, &mut delta).await?;
        }
        if touched(&self.look, |touched| touched.out_of_band) {
            self.add_out_of_band(&personal, &mut delta).await?;
        }
        self.add_to_device(&mut delta).await?;
        let changes = touched(&self.look, |touched| touched.device_lists);
        delta.device_lists = self.device_lists(&joined, &candidates, changes).await?;
        self.add_presence(&joined, &mut delta).await?;
        if let Some(device) = &self.request.device {
            delta.keys = self.delivery.0.accounts.key_counts(self.reader, &self.request.user, device).await?;
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
            most: self.delivery.0.config.timeline_limit,
        }
    }

    /// The rooms the user is in: from memory, as the user is attached.
    async fn joined_rooms(&self) -> Result<BTreeSet<RoomNid>, Error> {
        if let Some(signal) = self.delivery.0.wake.user(&self.request.user) {
            let rooms = signal.rooms.lock();
            return Ok(rooms.iter().filter(|(_, (joined, _))| *joined).map(|(nid, _)| *nid).collect());
        }
        let rooms = self.reader.user_rooms(&self.request.user).await?.into_iter();
        Ok(rooms.filter(|(_, own)| own.value.membership == Membership::Join).map(|(nid, _)| nid).collect())
    }

    async fn personal(&self, joined: &BTreeSet<RoomNid>) -> Result<Personal, Error> {
        let (accounts, user) = (&self.delivery.0.accounts, &self.request.user);
        let mut personal = Personal {
            global: Vec::new(),
            of_rooms: BTreeMap::new(),
            ignored: accounts.ignored_users(self.reader, user).await?,
            rules: accounts.push_rules(self.reader, user).await?,
            rules_mark: 0,
            typing: BTreeMap::new(),
            all_typing: self.delivery.0.typing.since(None, |nid| joined.contains(&nid)),
        };
        let mut hasher = DefaultHasher::new();
        serde_json::to_string(&personal.rules).unwrap_or_default().hash(&mut hasher);
        personal.rules_mark = hasher.finish();
        if let Some(seen) = self.seen {
            personal.typing = self.delivery.0.typing.since(Some(seen.fleeting), |nid| joined.contains(&nid));
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

    async fn add_room(
        &self,
        candidate: &Candidate,
        personal: &Personal,
        delta: &mut Delta,
    ) -> Result<(), Error> {
        let id = self.reader.room_id(candidate.nid).await?;
        if !filter::wants_room(&self.request.filter.room, &id) {
            return Ok(());
        }
        let view = self.delivery.0.rooms.view_at(self.reader.clone(), candidate.nid).await?;
        let place = Place { view, own: candidate.own };
        match candidate.own.value.membership {
            Membership::Join => {
                let room = self.joined(&place, personal).await?;
                delta.joined.extend(room.map(|room| (id.clone(), room)));
            }
            Membership::Invite => {
                let state = self.stripped(&place, &personal.ignored).await?;
                delta.invited.extend(state.map(|state| (id.clone(), state)));
            }
            Membership::Knock => {
                let state = self.stripped(&place, &personal.ignored).await?;
                delta.knocked.extend(state.map(|state| (id.clone(), state)));
            }
            Membership::Leave | Membership::Ban => {
                let room = self.left(&place, personal).await?;
                delta.left.extend(room.map(|room| (id.clone(), room)));
            }
        }
        Ok(())
    }

    async fn add_out_of_band(&self, personal: &Personal, delta: &mut Delta) -> Result<(), Error> {
        let seen = self.seen.map(|seen| seen.position);
        for (room, at) in self.reader.out_of_bands(&self.request.user).await? {
            let news = seen.is_none_or(|seen| at.position > seen);
            if !news || !filter::wants_room(&self.request.filter.room, &room) {
                continue;
            }
            match self.out_of_band(&at, &personal.ignored) {
                Some((Membership::Invite, state)) => {
                    delta.invited.insert(room, state);
                }
                Some((Membership::Knock, state)) => {
                    delta.knocked.insert(room, state);
                }
                Some((Membership::Leave | Membership::Ban, _)) if seen.is_some() => {
                    delta.left.insert(room, super::LeftRoom::empty());
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn add_to_device(&self, delta: &mut Delta) -> Result<(), Error> {
        let Some(device) = &self.request.device else { return Ok(()) };
        let lags = self.seen.is_some_and(|seen| seen.to_device.is_some());
        if !lags && !touched(&self.look, |touched| touched.to_device) {
            return Ok(());
        }
        let after = self.seen.map_or(Position(0), |seen| seen.to_device());
        let (limit, now) = (self.delivery.0.config.to_device_limit, self.next.position);
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

    async fn add_presence(&self, joined: &BTreeSet<RoomNid>, delta: &mut Delta) -> Result<(), Error> {
        let presence = &self.delivery.0.presence;
        if !presence.is_enabled() || !filter::wants(&self.request.filter.presence, "m.presence", None) {
            return Ok(());
        }
        let after = self.seen.map(|seen| seen.fleeting);
        let events = presence.since(self.reader, &self.request.user, joined, after).await?;
        let wanted = |user: &UserId| filter::wants(&self.request.filter.presence, "m.presence", Some(user));
        delta.presence =
            events.into_iter().filter(|(user, _)| wanted(user)).map(|(_, event)| event).collect();
        Ok(())
    }
}
