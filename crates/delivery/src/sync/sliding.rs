//! Sliding sync (MSC4186): windows on a user's rooms, and for each room what the device does not have of it yet.
//!
//! Works on the same snapshot, look and room parts as the delta of `/sync`; what differs is that each room has a
//! position of its own, up to which the device has it.

mod ask;
mod connection;
mod extensions;
mod lists;
mod room;
mod sent;
mod shelf;
mod sticky;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use chappe_rooms::Actor;
use ruma::{OwnedDeviceId, OwnedEventId, OwnedRoomId, api::client::filter::FilterDefinition};

pub use self::{
    ask::{
        ExtensionsAsk, List, ListFilters, Pattern, RoomAsk, Scope, SlidingRequest, StickyAsk, ToDeviceAsk,
        WantedState, state_key,
    },
    extensions::{E2ee, Extensions, StickyPage, ToDevice},
    room::{Hero, SlidingRoom},
};
pub(crate) use self::{
    connection::{Connections, RoomKey},
    lists::RoomTraits,
    shelf::Shelf,
};
use self::{
    connection::{Known, News, Open, Told},
    extensions::Stage,
    sent::Sent,
};
use super::{
    SyncRequest,
    delta::{Personal, Work},
};
use crate::{
    Delivery, Error, SyncToken,
    signal::{Look, Signal},
};

/// Rooms in one answer at most; the others follow in the next ones.
const ROOMS: usize = 200;

/// What a device has not seen yet on one connection.
#[derive(Debug)]
pub struct SlidingAnswer {
    /// What the device comes back with.
    pub pos: String,
    /// Rooms in each list.
    pub counts: BTreeMap<String, usize>,
    /// Rooms with news.
    pub rooms: BTreeMap<OwnedRoomId, SlidingRoom>,
    /// What was asked beside rooms.
    pub extensions: Extensions,
    /// Whether the keys of the asking device changed, or it ended: whoever waits is answered, and let in no more.
    keys_changed: bool,
}

impl SlidingAnswer {
    fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.extensions.is_empty() && !self.keys_changed
    }
}

/// One answer being worked out.
struct Turn<'a> {
    work: Work<'a>,
    request: &'a SlidingRequest,
    known: &'a Known,
    personal: Personal,
    /// The user's direct chats.
    direct: Arc<BTreeSet<RoomKey>>,
    /// What the device has of rooms after this answer.
    told: HashMap<RoomKey, Sent>,
    /// Whether there is more than this answer holds.
    lags: bool,
}

impl Delivery {
    /// What the device has not seen yet on this connection; waits for it, as long as the request says, when there is
    /// nothing. A connection that begins is answered at once.
    ///
    /// [`Error::UnknownPos`]: the connection has to begin again.
    ///
    /// Specification: MSC4186.
    pub async fn sliding_sync(&self, request: &SlidingRequest) -> Result<SlidingAnswer, Error> {
        let nobody = OwnedDeviceId::from("");
        let device = (request.user.clone(), request.device.clone().unwrap_or(nobody));
        let connections = &self.0.connections;
        let open = match &request.pos {
            Some(pos) => connections.resume(&device, &request.connection, pos)?,
            None => connections.begin(&device, &request.connection, self.0.world.random()),
        };
        let visible = *self.0.store.visible().borrow();
        let signal = self.0.wake.attach(&request.user).await?;
        let _entered = signal.enter();
        let by = (&*request.user, request.device.as_deref());
        let _syncing = self.0.presence.sync(by, &request.presence).await?;
        self.forget_acknowledged(request).await?;
        self.0.wake.reach(visible).await?;
        let answer = self.wait_sliding(request, &signal, &open).await;
        signal.see(self.0.world.instant());
        answer
    }

    /// To-device messages up to the token that a device comes back with have arrived.
    async fn forget_acknowledged(&self, request: &SlidingRequest) -> Result<(), Error> {
        let asked = request.extensions.to_device.as_ref();
        let (Some(since), Some(device)) = (asked.and_then(|asked| asked.since), &request.device) else {
            return Ok(());
        };
        if since.0 > *self.0.store.visible().borrow() {
            return Err(Error::BadToken);
        }
        if self.0.handed_out.is_due(&request.user, device) {
            self.0.accounts.delete_to_device(&request.user, device, since.0).await?;
            self.0.handed_out.settle(&request.user, device, since.0);
        }
        Ok(())
    }

    async fn wait_sliding(
        &self,
        request: &SlidingRequest,
        signal: &Signal,
        open: &Open<'_>,
    ) -> Result<SlidingAnswer, Error> {
        let longest = Duration::from_secs(self.0.config.get().longest_wait_seconds);
        let deadline = self.0.world.instant() + request.timeout.min(longest);
        let mut over = request.timeout.is_zero() || request.pos.is_none();
        let mut quiet_since = Self::answered_up_to(request, &open.known);
        let mut last = None;
        loop {
            let changed = signal.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            // Of what is never stored such an answer tells who types, not who is there.
            let is_quiet =
                |seen: SyncToken| signal.is_quiet(seen.position) && !signal.has_typing(seen.fleeting);
            let quiet = quiet_since.is_some_and(is_quiet);
            // What is gathered has to wait before it wakes anybody; whoever is answered now gets what there is.
            let late = || quiet_since.is_some_and(|seen| self.has_gathered(signal, seen));
            if !quiet || (over && late()) {
                // Boxed: a waiting sync shall not keep the room that working out an answer takes.
                let (answer, news) = Box::pin(self.look_sliding(request, signal, &open.known)).await?;
                quiet_since = Some(news.token);
                if !answer.is_empty() || over || news.lags {
                    return Ok(SlidingAnswer { pos: open.answer(news).to_string(), ..answer });
                }
                last = Some((answer, news));
            } else if over {
                let (answer, news) = match last {
                    Some(last) => last,
                    None => self.nothing_new(request, signal, &open.known).await?,
                };
                return Ok(SlidingAnswer { pos: open.answer(news).to_string(), ..answer });
            }
            tokio::select! {
                () = changed => {}
                () = self.0.world.sleep_until(deadline) => over = true,
                () = self.0.world.stopping() => over = true,
            }
        }
    }

    /// Whether there may be something to tell of rooms with many in them, whether it is time for that or not.
    fn has_gathered(&self, signal: &Signal, seen: SyncToken) -> bool {
        signal.has_gathered(seen.position) || self.0.typing.has_news(signal, seen.fleeting)
    }

    /// Up to where the last answer told everything that this request asks for; none if it may not have.
    fn answered_up_to(request: &SlidingRequest, known: &Known) -> Option<SyncToken> {
        let token = known.token.filter(|_| known.asked == request.mark() && !known.lags)?;
        let extensions = &request.extensions;
        let to_device = extensions.to_device.as_ref().is_none_or(|ask| ask.since == known.told.to_device);
        let sticky = extensions.sticky.as_ref().is_none_or(|ask| ask.since == known.told.sticky);
        (to_device && sticky).then_some(token)
    }

    /// The answer to a device that has everything.
    async fn nothing_new(
        &self,
        request: &SlidingRequest,
        signal: &Signal,
        known: &Known,
    ) -> Result<(SlidingAnswer, News), Error> {
        let mut extensions = Extensions::default();
        if let (true, Some(device)) = (request.extensions.e2ee, &request.device) {
            let keys = self.keys(&self.0.store.read(), signal, device).await?;
            extensions.e2ee = Some(E2ee { keys, ..E2ee::default() });
        }
        let to_device = request.extensions.to_device.as_ref().and(known.told.to_device);
        extensions.to_device = to_device.map(|next_batch| ToDevice { next_batch, events: Vec::new() });
        let news = News {
            token: known.token.unwrap_or_default(),
            rooms: Vec::new(),
            told: known.told.clone(),
            asked: known.asked,
            lags: known.lags,
            counts: known.counts.clone(),
        };
        let counts = known.counts.clone();
        let rooms = BTreeMap::new();
        Ok((SlidingAnswer { pos: String::new(), counts, rooms, extensions, keys_changed: false }, news))
    }

    async fn look_sliding(
        &self,
        request: &SlidingRequest,
        signal: &Signal,
        known: &Known,
    ) -> Result<(SlidingAnswer, News), Error> {
        let _turn = signal.turn(known.token.map(|seen| seen.position)).await;
        let fleeting = self.0.wake.fleeting();
        let reader = self.0.store.read();
        let now = reader.position();
        self.0.wake.reach(now).await?;
        let nobody = OwnedDeviceId::from("");
        let device = request.device.as_ref().unwrap_or(&nobody);
        let look = known.token.map_or(Look::Everywhere, |seen| signal.look(seen.position, now, device));
        let next = SyncToken { position: now, epoch: self.0.typing.epoch, fleeting, to_device: None };
        let within = SyncRequest {
            user: request.user.clone(),
            device: request.device.clone(),
            since: None,
            filter: Arc::new(FilterDefinition::default()),
            full_state: false,
            state_after: true,
            presence: request.presence.clone(),
            timeout: Duration::ZERO,
        };
        let actor = Actor { device: request.device.clone(), ..Actor::user(&request.user) };
        let seen = known.token;
        let work =
            Work { delivery: self, reader: &reader, request: &within, signal, actor, seen, next, look };
        let personal = Personal::of(work.settings().await?);
        let (direct, told) = (Arc::default(), HashMap::new());
        let mut turn = Turn { work, request, known, personal, direct, told, lags: false };
        turn.direct = turn.direct_rooms().await?;
        turn.answer().await
    }
}

impl Turn<'_> {
    async fn answer(mut self) -> Result<(SlidingAnswer, News), Error> {
        let mut rooms = BTreeMap::new();
        let mut counts = BTreeMap::new();
        let (mut relevant, mut interesting) = (Vec::new(), BTreeSet::new());
        if !self.request.lists.is_empty() || !self.request.subscriptions.is_empty() {
            let shelf = self.work.delivery.shelf(self.work.reader, self.work.signal).await?;
            let selection = self.select(&shelf.rows).await?;
            counts = selection.counts;
            relevant = selection.rooms;
            interesting = selection.interesting;
        }
        let due: Vec<_> = relevant.iter().filter(|room| self.is_due(room)).collect();
        self.lags = due.len() > ROOMS;
        for room in due.into_iter().take(ROOMS) {
            let (id, (news, sent)) = self.room(room).await?;
            rooms.extend(news.map(|news| (id, news)));
            if let Some(nid) = room.row.was {
                // Whoever comes back into it begins anew.
                self.told.insert(RoomKey::Here(nid), sent.clone());
            }
            self.told.insert(room.row.key.clone(), sent);
        }
        let mut told: Told = self.known.told.clone();
        let stage = Stage { relevant: &relevant, rooms: &rooms, interesting: &interesting };
        let extensions = self.extend(&stage, &mut told).await?;
        let connections = &self.work.delivery.0.connections;
        let news = News {
            token: self.work.next,
            rooms: self.told.into_iter().map(|(key, sent)| (key, connections.share(sent))).collect(),
            told,
            asked: self.request.mark(),
            lags: self.lags,
            counts: counts.clone(),
        };
        let keys_changed = matches!(&self.work.look, Look::At(touched) if touched.keys);
        Ok((SlidingAnswer { pos: String::new(), counts, rooms, extensions, keys_changed }, news))
    }
}

/// An event's id, out of what clients get.
fn id_of(event: &super::Json) -> Option<OwnedEventId> {
    #[derive(serde::Deserialize)]
    struct Event {
        event_id: OwnedEventId,
    }
    serde_json::from_str::<Event>(event.get()).ok().map(|event| event.event_id)
}

impl SlidingRoom {
    /// The ids of the events of its timeline.
    fn event_ids(&self) -> BTreeSet<OwnedEventId> {
        let events = self.part.iter().flat_map(|part| &part.timeline.events);
        events.filter_map(id_of).collect()
    }
}
