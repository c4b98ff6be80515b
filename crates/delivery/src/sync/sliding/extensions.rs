//! What is asked beside rooms: messages for the device, keys, account data, receipts, typing.

use std::collections::{BTreeMap, BTreeSet};

use chappe_accounts::{AccountDataItem, KeyCounts, Scope as AccountScope};
use chappe_rooms::{SubscriptionsPage, changed_subscriptions};
use chappe_store::{
    Membership, Position, RoomNid,
    receipts::{ReceiptKind, ReceiptRow},
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};

use super::super::{
    DeviceLists, Json,
    delta::Work,
    joined::{RECEIPTS, raw},
};
use super::{
    Turn,
    ask::{Scope, ToDeviceAsk},
    connection::{RoomKey, Told},
    lists::Relevant,
    room::SlidingRoom,
    sent::Begun,
};
use crate::{
    Error, Received, SyncToken,
    signal::{Look, Touched},
};

/// Changed thread subscriptions in one answer.
const SUBSCRIPTIONS: usize = 500;

/// What extensions tell. Each is empty unless it is on.
#[derive(Debug, Default)]
pub struct Extensions {
    /// Messages for the device; none: not asked for.
    pub to_device: Option<ToDevice>,
    /// Whose devices changed and what is left of the device's keys; none: not asked for.
    pub e2ee: Option<E2ee>,
    /// Global account data.
    pub account_data: Vec<Json>,
    /// Account data of rooms.
    pub room_account_data: BTreeMap<OwnedRoomId, Vec<Json>>,
    /// Receipts.
    pub receipts: BTreeMap<OwnedRoomId, Json>,
    /// Who is typing.
    pub typing: BTreeMap<OwnedRoomId, Json>,
    /// Sticky events.
    pub sticky: StickyPage,
    /// Threads that the user follows, as far as that changed.
    pub threads: SubscriptionsPage,
}

/// Sticky events (MSC4480).
#[derive(Debug, Default)]
pub struct StickyPage {
    /// What the device has then; none: nothing has changed.
    pub next_batch: Option<Received>,
    /// The events of each room, oldest first.
    pub rooms: BTreeMap<OwnedRoomId, Vec<Json>>,
}

/// Messages for the device.
#[derive(Debug)]
pub struct ToDevice {
    /// What the device has then.
    pub next_batch: Received,
    /// The messages.
    pub events: Vec<Json>,
}

/// Keys and devices.
#[derive(Debug, Default)]
pub struct E2ee {
    /// Whose devices changed.
    pub lists: DeviceLists,
    /// What the device has left to hand out.
    pub keys: KeyCounts,
    /// Whether `keys` is news.
    pub(super) news: bool,
}

impl Extensions {
    /// Whether a waiting device goes on waiting.
    pub(super) fn is_empty(&self) -> bool {
        self.to_device.as_ref().is_none_or(|to_device| to_device.events.is_empty())
            && self.e2ee.as_ref().is_none_or(|e2ee| e2ee.lists.is_empty() && !e2ee.news)
            && self.account_data.is_empty()
            && self.room_account_data.is_empty()
            && self.receipts.is_empty()
            && self.typing.is_empty()
            && self.threads.changes.is_empty()
            && self.sticky.rooms.is_empty()
    }
}

/// The content of an event of receipts: event, kind, user.
type ByEvent = BTreeMap<String, BTreeMap<String, BTreeMap<String, Value>>>;

/// The rooms of an answer, and those that were told before.
pub(super) struct Stage<'a> {
    pub(super) relevant: &'a [Relevant],
    pub(super) rooms: &'a BTreeMap<OwnedRoomId, SlidingRoom>,
    /// Rooms of all lists, whatever their windows.
    pub(super) interesting: &'a BTreeSet<RoomKey>,
}

/// Which extension of a room.
#[derive(Clone, Copy)]
enum Part {
    AccountData,
    Receipts,
    Typing,
}

impl Part {
    fn has_begun(self, begun: Begun) -> bool {
        match self {
            Self::AccountData => begun.account_data,
            Self::Receipts => begun.receipts,
            Self::Typing => begun.typing,
        }
    }

    fn begin(self, begun: &mut Begun) {
        match self {
            Self::AccountData => begun.account_data = true,
            Self::Receipts => begun.receipts = true,
            Self::Typing => begun.typing = true,
        }
    }
}

impl Turn<'_> {
    /// Fills in what extensions have to tell after the rooms.
    pub(super) async fn extend(&mut self, stage: &Stage<'_>, told: &mut Told) -> Result<Extensions, Error> {
        let mut extensions = Extensions::default();
        let asked = self.request.extensions.clone();
        if let Some(ask) = &asked.to_device {
            extensions.to_device = Some(self.messages_to(ask, told).await?);
        } else {
            // What comes in between is in no answer: whoever asks next has to look.
            told.to_device = None;
        }
        if asked.e2ee {
            extensions.e2ee = Some(self.e2ee(told).await?);
        }
        if let Some(scope) = &asked.account_data {
            self.account_data(scope, stage, told, &mut extensions).await?;
        }
        if let Some(scope) = &asked.receipts {
            extensions.receipts = self.receipts(scope, stage, told).await?;
        }
        if let Some(scope) = &asked.typing {
            extensions.typing = self.typing(scope, stage, told).await?;
        }
        if let Some(limit) = asked.threads {
            extensions.threads = self.threads(limit, told).await?;
        }
        if let Some(ask) = &asked.sticky {
            extensions.sticky = self.sticky(ask, stage, told).await?;
        }
        Ok(extensions)
    }

    async fn threads(&self, limit: usize, told: &mut Told) -> Result<SubscriptionsPage, Error> {
        let (now, seen) = (self.work.next.position, told.threads.unwrap_or_default());
        let page = if told.threads.is_none() || self.is_touched(seen, |touched| touched.threads) {
            let limit = limit.clamp(1, SUBSCRIPTIONS);
            changed_subscriptions(self.work.reader, &self.request.user, (seen, now), limit).await?
        } else {
            SubscriptionsPage::default()
        };
        told.threads = Some(now);
        Ok(page)
    }

    /// Where something happened after a position that may be older than the last answer: the extension may have been
    /// off for a while.
    fn look_after(&self, after: Position) -> Look {
        if self.known.token.is_some_and(|token| token.position == after) {
            return self.work.look.clone();
        }
        let device = self.work.request.device.as_deref().unwrap_or("".into());
        self.work.signal.look(after, self.work.next.position, device)
    }

    async fn messages_to(&mut self, ask: &ToDeviceAsk, told: &mut Told) -> Result<ToDevice, Error> {
        let now = self.work.next.position;
        let since = ask.since.unwrap_or_default();
        let nothing = ToDevice { next_batch: Received(now).max(since), events: Vec::new() };
        let Some(device) = &self.work.request.device else { return Ok(nothing) };
        let is_up_to_date = self.known.told.to_device == Some(since)
            && !self.known.lags
            && !self.is_touched(since.0, |touched| touched.to_device);
        if is_up_to_date {
            told.to_device = Some(nothing.next_batch);
            return Ok(nothing);
        }
        let delivery = self.work.delivery;
        let most = delivery.0.config.get().to_device_limit;
        let limit = ask.limit.unwrap_or(most).clamp(1, most);
        let user = &self.request.user;
        let accounts = &delivery.0.accounts;
        let messages =
            accounts.to_device_messages(self.work.reader, user, device, since.0, now, limit).await?;
        let last = messages.last().map(|message| message.position);
        if let Some(last) = last {
            delivery.0.handed_out.hand_out(user, device, last);
        }
        let full = messages.len() >= limit;
        self.lags |= full;
        let next_batch = last.filter(|_| full).map_or(nothing.next_batch, Received);
        told.to_device = Some(next_batch);
        Ok(ToDevice { next_batch, events: messages.into_iter().map(|message| message.event).collect() })
    }

    async fn e2ee(&self, told: &mut Told) -> Result<E2ee, Error> {
        let mut e2ee = E2ee::default();
        if let Some(device) = &self.work.request.device {
            e2ee.keys = self.work.delivery.keys(self.work.reader, self.work.signal, device).await?;
            e2ee.news = matches!(&self.work.look, Look::At(touched) if touched.keys);
        }
        if let Some(seen) = told.e2ee {
            let work = Work {
                seen: Some(SyncToken { position: seen, ..SyncToken::default() }),
                look: self.look_after(seen),
                actor: self.work.actor.clone(),
                ..self.work
            };
            let candidates = work.candidates(&BTreeSet::new()).await?;
            let mut rooms = BTreeSet::new();
            for candidate in &candidates {
                let tail = work.delivery.tail(work.reader, candidate.nid).await?;
                if work.may_have_moved(&tail) {
                    rooms.insert(candidate.nid);
                }
            }
            let moved = work.moved(&candidates, &rooms, &BTreeSet::new()).await?;
            e2ee.lists = work.device_lists(&work.joined_rooms(), moved).await?;
        }
        told.e2ee = Some(self.work.next.position);
        Ok(e2ee)
    }

    async fn account_data(
        &mut self,
        scope: &Scope,
        stage: &Stage<'_>,
        told: &mut Told,
        extensions: &mut Extensions,
    ) -> Result<(), Error> {
        let (delivery, reader, request) = (self.work.delivery, self.work.reader, self.request);
        let (accounts, user) = (&delivery.0.accounts, &request.user);
        let event = |item: &AccountDataItem| raw(&json!({"type": item.kind, "content": item.content}));
        let rooms = &mut extensions.room_account_data;
        let items = match told.account_data {
            None => accounts.account_data_all(reader, user, AccountScope::Global).await?,
            Some(seen) if self.is_touched(seen, |touched| touched.account_data) => {
                accounts.account_data_since(reader, user, seen).await?
            }
            Some(_) => Vec::new(),
        };
        for item in items {
            match &item.room {
                None => extensions.account_data.push(event(&item)),
                Some(room) if self.has_begun(room, Part::AccountData).await? => {
                    rooms.entry(room.clone()).or_default().push(event(&item));
                }
                Some(_) => {}
            }
        }
        for key in self.beginning(scope, stage, Part::AccountData) {
            let room = self.room_id(&key).await?;
            let items = accounts.account_data_all(reader, user, AccountScope::Room(&room)).await?;
            if !items.is_empty() {
                rooms.insert(room, items.iter().map(event).collect());
            }
        }
        told.account_data = Some(self.work.next.position);
        Ok(())
    }

    async fn receipts(
        &mut self,
        scope: &Scope,
        stage: &Stage<'_>,
        told: &mut Told,
    ) -> Result<BTreeMap<OwnedRoomId, Json>, Error> {
        let reader = self.work.reader;
        let ignored = &self.personal.settings.ignored.clone();
        let (mut all, up_to) = match told.receipts {
            Some(seen) => self.new_receipts(seen).await?,
            None => (BTreeMap::new(), self.work.next.position),
        };
        self.lags |= up_to < self.work.next.position;
        for (nid, room) in self.expanded(scope, stage).await? {
            let shown = stage.rooms.get(room).map(SlidingRoom::event_ids).unwrap_or_default();
            let mut rows = self.receipts_for(nid, &shown).await?;
            rows.retain(|(_, at)| at.position <= up_to);
            // What is new comes last, and counts where both are of one user and event.
            let events = self.work.receipts(rows, ignored).into_iter().chain(all.remove(room));
            if let Some(event) = merged(events.collect()) {
                all.insert(room.clone(), event);
            }
        }
        for key in self.beginning(scope, stage, Part::Receipts) {
            let RoomKey::Here(nid) = key else { continue };
            let room = reader.room_id(nid).await?;
            let shown = stage.rooms.get(&room).map(SlidingRoom::event_ids).unwrap_or_default();
            let mut rows = self.receipts_for(nid, &shown).await?;
            rows.extend(reader.user_receipts(nid, &self.request.user).await?);
            if let Some(event) = merged(self.work.receipts(rows, ignored)) {
                all.insert(room, event);
            }
        }
        told.receipts = Some(up_to);
        Ok(all)
    }

    /// The latest receipts of others for events that are shown.
    async fn receipts_for(
        &self,
        nid: RoomNid,
        shown: &BTreeSet<OwnedEventId>,
    ) -> Result<Vec<ReceiptRow>, Error> {
        let Some(first) = self.first_shown(nid, shown).await? else { return Ok(Vec::new()) };
        // Receipts for an event come after it.
        let before = Position(first.0.saturating_sub(1));
        let mut rows = self.work.reader.latest_receipts(nid, before, RECEIPTS).await?;
        rows.retain(|(key, at)| shown.contains(&at.value.event.0) && key.user != self.request.user);
        Ok(rows)
    }

    /// The receipts of rooms told of that came after a position, and up to where they are told. A room has one event in an
    /// answer: what does not fit into it comes with the next one, and what does not fit into that is left out, as other servers
    /// may send such receipts without end.
    async fn new_receipts(&self, seen: Position) -> Result<(BTreeMap<OwnedRoomId, Json>, Position), Error> {
        let (reader, ignored) = (self.work.reader, &self.personal.settings.ignored);
        let (mut rooms, mut up_to) = (Vec::new(), self.work.next.position);
        let is_next = self.known.token.is_some_and(|token| token.position > seen);
        for nid in self.rooms_with_receipts(seen).await? {
            let mut rows = reader.receipts_after(nid, seen).await?;
            rows.retain(|(key, _)| {
                let is_shown = key.kind == ReceiptKind::Public || key.user == self.request.user;
                is_shown && !ignored.contains(&key.user)
            });
            if let Some(other) = first_beside(&rows).filter(|_| !is_next) {
                up_to = up_to.min(Position(other.0 - 1));
            }
            rooms.push((nid, rows));
        }
        let mut all = BTreeMap::new();
        for (nid, mut rows) in rooms {
            rows.retain(|(_, at)| at.position <= up_to);
            if let Some(event) = merged(self.work.receipts(rows, ignored)) {
                all.insert(reader.room_id(nid).await?, event);
            }
        }
        Ok((all, up_to))
    }

    /// The rooms told of in which there may be receipts after a position.
    async fn rooms_with_receipts(&self, seen: Position) -> Result<Vec<RoomNid>, Error> {
        let touched: Vec<RoomNid> = match self.look_after(seen) {
            Look::At(touched) => touched.receipts.into_iter().collect(),
            Look::Everywhere => {
                let here = |key: &RoomKey| match key {
                    RoomKey::Here(nid) => Some(*nid),
                    RoomKey::Elsewhere(_) => None,
                };
                self.known.rooms.keys().filter_map(here).collect()
            }
        };
        let wake = &self.work.delivery.0.wake;
        let begun = |nid: &RoomNid| {
            self.known.rooms.get(&RoomKey::Here(*nid)).is_some_and(|sent| sent.begun.receipts)
                && wake.room_changed(*nid, seen)
        };
        let mut rooms = Vec::new();
        for nid in touched.into_iter().filter(begun) {
            if self.is_joined(nid).await? {
                rooms.push(nid);
            }
        }
        Ok(rooms)
    }

    /// Whether the user is in a room as of this answer's snapshot: the follower may know of later changes alone.
    async fn is_joined(&self, nid: RoomNid) -> Result<bool, Error> {
        if self.work.signal.joined_since(nid, self.work.next.position).is_some() {
            return Ok(true);
        }
        let own = self.work.reader.user_room(&self.request.user, nid).await?;
        Ok(own.is_some_and(|own| own.value.membership == Membership::Join))
    }

    async fn first_shown(
        &self,
        nid: RoomNid,
        shown: &BTreeSet<OwnedEventId>,
    ) -> Result<Option<Position>, Error> {
        let ids: Vec<_> = shown.iter().map(|id| &**id).collect();
        let nums = self.work.reader.event_nums(nid, &ids).await?;
        let nums: Vec<_> = nums.into_iter().flatten().collect();
        let metas = self.work.reader.event_metas(nid, &nums).await?;
        Ok(metas.into_iter().map(|meta| meta.position).min())
    }

    async fn typing(
        &mut self,
        scope: &Scope,
        stage: &Stage<'_>,
        told: &mut Told,
    ) -> Result<BTreeMap<OwnedRoomId, Json>, Error> {
        let joined = self.work.joined_rooms();
        let delivery = self.work.delivery;
        let typing = &delivery.0.typing;
        let mut now = BTreeMap::new();
        if let Some(seen) = told.typing {
            let begun = |nid: RoomNid| {
                let sent = self.known.rooms.get(&RoomKey::Here(nid));
                joined.contains(&nid) && sent.is_some_and(|sent| sent.begun.typing)
            };
            now = typing.since(seen, begun);
        }
        for key in self.beginning(scope, stage, Part::Typing) {
            let RoomKey::Here(nid) = key else { continue };
            let users = typing.in_room(nid);
            if joined.contains(&nid) && !users.is_empty() {
                now.insert(nid, users);
            }
        }
        told.typing = Some(self.work.next.fleeting);
        let mut events = BTreeMap::new();
        for (nid, mut users) in now {
            let ignored = &self.personal.settings.ignored;
            users.retain(|user: &OwnedUserId| !ignored.contains(user));
            let event = raw(&json!({"type": "m.typing", "content": {"user_ids": users}}));
            events.insert(self.work.reader.room_id(nid).await?, event);
        }
        Ok(events)
    }

    fn is_touched(&self, after: Position, part: impl Fn(&Touched) -> bool) -> bool {
        super::super::touched(&self.look_after(after), part)
    }

    async fn has_begun(&self, room: &OwnedRoomId, part: Part) -> Result<bool, Error> {
        let Some(nid) = self.work.reader.room_nid(room).await? else { return Ok(false) };
        let sent = self.known.rooms.get(&RoomKey::Here(nid));
        Ok(sent.is_some_and(|sent| part.has_begun(sent.begun)))
    }

    async fn room_id(&self, key: &RoomKey) -> Result<OwnedRoomId, Error> {
        Ok(match key {
            RoomKey::Here(nid) => self.work.reader.room_id(*nid).await?,
            RoomKey::Elsewhere(room) => room.clone(),
        })
    }

    /// Rooms of whose receipts was told before and whose timeline goes further back in this answer.
    async fn expanded<'s>(
        &self,
        scope: &Scope,
        stage: &Stage<'s>,
    ) -> Result<Vec<(RoomNid, &'s OwnedRoomId)>, Error> {
        let shown = stage.rooms.iter().filter(|(_, told)| told.expanded);
        let shown: Vec<&OwnedRoomId> = shown.map(|(room, _)| room).collect();
        let mut rooms = Vec::new();
        for room in shown {
            let Some(nid) = self.work.reader.room_nid(room).await? else { continue };
            let key = RoomKey::Here(nid);
            let has_begun = self.known.rooms.get(&key).is_some_and(|sent| sent.begun.receipts);
            let mut relevant = stage.relevant.iter().filter(|relevant| relevant.row.key == key);
            if has_begun && relevant.any(|relevant| self.covers(scope, relevant)) {
                rooms.push((nid, room));
            }
        }
        Ok(rooms)
    }

    /// Whether an extension is to tell of a room.
    fn covers(&self, scope: &Scope, relevant: &Relevant) -> bool {
        let names = self.list_names(relevant.lists);
        relevant.row.membership() == Membership::Join && scope.covers(names, relevant.by_itself.as_ref())
    }

    /// Rooms of which an extension tells for the first time; notes that it has.
    fn beginning(&mut self, scope: &Scope, stage: &Stage<'_>, part: Part) -> Vec<RoomKey> {
        let mut keys = Vec::new();
        for relevant in stage.relevant {
            let key = &relevant.row.key;
            if !self.covers(scope, relevant) {
                continue;
            }
            let Some(mut sent) = self.told.get(key).or_else(|| self.known.rooms.get(key)).cloned() else {
                continue;
            };
            if !part.has_begun(sent.begun) {
                part.begin(&mut sent.begun);
                self.told.insert(key.clone(), sent);
                keys.push(key.clone());
            }
        }
        keys
    }
}

/// When, of receipts in the order of their commits, the first came whose user has another one for the same event, one of both in
/// the main timeline and one in a thread: an event of receipts has place for one of them. In two threads no event is; of such
/// receipts, which other servers may send without end, one is told.
fn first_beside(rows: &[ReceiptRow]) -> Option<Position> {
    let mut said = BTreeMap::new();
    for (key, at) in rows.iter().filter(|(key, _)| !key.thread.is_empty()) {
        let (place, is_main) = ((&at.value.event.0, key.kind, &key.user), key.thread == "main");
        let (first, was_main) = *said.entry(place).or_insert((at.position, is_main));
        if was_main != is_main && first < at.position {
            return Some(at.position);
        }
    }
    None
}

/// Events of receipts as one. Of two for the same event and user the last is told, which is the one of the main timeline
/// where there is such.
fn merged(events: Vec<Json>) -> Option<Json> {
    #[derive(serde::Deserialize)]
    struct Receipts {
        content: ByEvent,
    }
    if events.len() < 2 {
        return events.into_iter().next();
    }
    let mut all = ByEvent::new();
    for event in &events {
        let Ok(receipts) = serde_json::from_str::<Receipts>(event.get()) else { continue };
        for (id, kinds) in receipts.content {
            let told = all.entry(id).or_default();
            for (kind, users) in kinds {
                told.entry(kind).or_default().extend(users);
            }
        }
    }
    Some(raw(&json!({"type": "m.receipt", "content": all})))
}
