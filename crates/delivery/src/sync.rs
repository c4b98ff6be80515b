//! `/sync`: waiting for something new, and the delta between what a device has seen and now.

mod delta;
mod devices;
mod filter;
mod joined;
mod left;
mod members;
mod rooms;
mod sliding;
mod state;
mod stripped;
mod summary;
mod timeline;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chappe_accounts::KeyCounts;
use chappe_rooms::Actor;
use chappe_store::{Position, Reader};
use parking_lot::Mutex;
use ruma::{
    DeviceId, OwnedDeviceId, OwnedRoomId, OwnedUserId, api::client::filter::FilterDefinition,
    presence::PresenceState,
};
use serde_json::value::RawValue;

pub use self::sliding::{
    E2ee, Extensions, ExtensionsAsk, Hero, List, ListFilters, Pattern, RoomAsk, Scope, SlidingAnswer,
    SlidingRequest, SlidingRoom, StickyAsk, StickyPage, ToDevice, ToDeviceAsk, WantedState, state_key,
};
#[cfg(test)]
pub(crate) use self::{devices::CHANGES, joined::RECEIPTS};
pub(crate) use self::{
    members::MembersSent,
    sliding::{Connections, RoomKey, RoomTraits, Shelf},
};
use crate::{
    Delivery, Error, SyncToken, Unread,
    signal::{Look, Signal, Touched},
};

/// An event as JSON.
pub type Json = Box<RawValue>;

/// What a device asks.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// Whose device.
    pub user: OwnedUserId,
    /// Which device; application services may have none.
    pub device: Option<OwnedDeviceId>,
    /// What it has seen; nothing yet: an initial sync.
    pub since: Option<SyncToken>,
    /// What it wants.
    pub filter: Arc<FilterDefinition>,
    /// Whether it wants the whole state of its rooms, whatever it has seen.
    pub full_state: bool,
    /// Whether it wants the state after the timeline instead of the one before (`use_state_after`).
    pub state_after: bool,
    /// How the user is.
    pub presence: PresenceState,
    /// How long it waits for something new.
    pub timeout: Duration,
}

/// What a device has not seen yet.
#[derive(Debug, Default)]
pub struct Delta {
    /// What it will have seen then.
    pub next: SyncToken,
    /// Rooms the user is in.
    pub joined: BTreeMap<OwnedRoomId, JoinedRoom>,
    /// Invites: stripped state.
    pub invited: BTreeMap<OwnedRoomId, Vec<Json>>,
    /// Knocks: stripped state.
    pub knocked: BTreeMap<OwnedRoomId, Vec<Json>>,
    /// Rooms the user has left, was kicked out of or banned from.
    pub left: BTreeMap<OwnedRoomId, LeftRoom>,
    /// Global account data.
    pub account_data: Vec<Json>,
    /// Presence of users who share a room.
    pub presence: Vec<Json>,
    /// Messages for this device.
    pub to_device: Vec<Json>,
    /// Whose devices changed.
    pub device_lists: DeviceLists,
    /// What the device has left to hand out.
    pub keys: KeyCounts,
    /// Whether `keys` is news.
    keys_changed: bool,
}

impl Delta {
    /// Whether a waiting device goes on waiting.
    pub fn is_empty(&self) -> bool {
        self.joined.is_empty()
            && self.invited.is_empty()
            && self.knocked.is_empty()
            && self.left.is_empty()
            && self.account_data.is_empty()
            && self.presence.is_empty()
            && self.to_device.is_empty()
            && self.device_lists.is_empty()
            && !self.keys_changed
    }
}

/// Timeline, state and account data of a room.
#[derive(Debug)]
pub struct RoomPart {
    /// The newest events.
    pub timeline: Timeline,
    /// State that the timeline does not tell.
    pub state: StatePart,
    /// The user's account data of the room.
    pub account_data: Vec<Json>,
}

/// The newest events of a room, oldest first.
#[derive(Debug, Default)]
pub struct Timeline {
    /// The events.
    pub events: Vec<Json>,
    /// Whether there are more between what the device has seen and these.
    pub limited: bool,
    /// Where to page backwards from.
    pub prev_batch: String,
}

/// State events.
#[derive(Debug)]
pub enum StatePart {
    /// Between what the device has seen and the first event of the timeline.
    Before(Vec<Json>),
    /// Between what the device has seen and the end of the timeline.
    After(Vec<Json>),
}

impl StatePart {
    /// The events.
    pub fn events(&self) -> &[Json] {
        match self {
            Self::Before(events) | Self::After(events) => events,
        }
    }

    /// The events, taken out.
    pub fn into_events(self) -> Vec<Json> {
        match self {
            Self::Before(events) | Self::After(events) => events,
        }
    }
}

/// A room the user is in.
#[derive(Debug)]
pub struct JoinedRoom {
    /// Timeline, state, account data.
    pub part: RoomPart,
    /// Typing and receipts.
    pub ephemeral: Vec<Json>,
    /// Sticky events that the timeline does not have.
    pub sticky: Vec<Json>,
    /// Unread counts.
    pub unread: Unread,
    /// What a client without all members needs to name the room; only what may have changed.
    pub summary: Summary,
}

/// What a client without all members needs to name a room.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Up to five other members, for a room without a name.
    pub heroes: Option<Vec<OwnedUserId>>,
    /// How many have joined.
    pub joined: Option<u64>,
    /// How many are invited.
    pub invited: Option<u64>,
}

/// A room the user is no longer in.
#[derive(Debug)]
pub struct LeftRoom {
    /// Timeline up to the leave, state, account data.
    pub part: RoomPart,
}

/// Whose devices changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DeviceLists {
    /// Fetch their keys again.
    pub changed: Vec<OwnedUserId>,
    /// They share no room any more.
    pub left: Vec<OwnedUserId>,
}

impl DeviceLists {
    fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.left.is_empty()
    }
}

/// Devices remembered by [`HandedOut`].
const HANDED_OUT: usize = 100_000;

/// Up to where devices were given to-device messages that are not deleted yet.
#[derive(Default)]
pub(crate) struct HandedOut(Mutex<BTreeMap<(OwnedUserId, OwnedDeviceId), Option<Position>>>);

impl HandedOut {
    /// Whether something may have to be deleted now that the device has seen `seen`.
    fn is_due(&self, user: &OwnedUserId, device: &OwnedDeviceId) -> bool {
        // Of a device never heard of in this process nothing is known.
        self.0.lock().get(&(user.clone(), device.clone())).is_none_or(Option::is_some)
    }

    fn settle(&self, user: &OwnedUserId, device: &OwnedDeviceId, seen: Position) {
        let mut all = self.0.lock();
        if all.len() >= HANDED_OUT {
            // Each device then costs one look once more.
            all.clear();
        }
        let waits = all.entry((user.clone(), device.clone())).or_insert(None);
        *waits = waits.filter(|up_to| *up_to > seen);
    }

    fn hand_out(&self, user: &OwnedUserId, device: &OwnedDeviceId, up_to: Position) {
        let mut all = self.0.lock();
        let waits = all.entry((user.clone(), device.clone())).or_insert(None);
        // Another connection of the device may have been given more.
        *waits = (*waits).max(Some(up_to));
    }
}

impl Delivery {
    /// What the device has not seen yet; waits for it, as long as the request says, when there is nothing.
    ///
    /// Everything acknowledged to the user before this call is in the answer. To-device messages are forgotten once the
    /// device comes back with the token of the answer that had them.
    ///
    /// Specification: client-server API, "Syncing".
    pub async fn sync(&self, request: &SyncRequest) -> Result<Delta, Error> {
        let visible = *self.0.store.visible().borrow();
        if request.since.is_some_and(|since| since.position > visible) {
            return Err(Error::BadToken);
        }
        let signal = self.0.wake.attach(&request.user).await?;
        let _entered = signal.enter();
        let by = (&*request.user, request.device.as_deref());
        let _syncing = self.0.presence.sync(by, &request.presence).await?;
        self.forget_handed_out(request).await?;
        self.0.wake.reach(visible).await?;
        let answer = self.wait(request, &signal).await;
        signal.see(self.0.world.instant());
        answer
    }

    async fn wait(&self, request: &SyncRequest, signal: &Signal) -> Result<Delta, Error> {
        let longest = Duration::from_secs(self.0.config.get().longest_wait_seconds);
        let deadline = self.0.world.instant() + request.timeout.min(longest);
        let mut seen = request.since.map(|since| self.of_this_process(since));
        let mut over = request.timeout.is_zero();
        let wants_presence = self.wants_presence(request);
        loop {
            let changed = signal.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let caught_up = |seen: SyncToken| {
                seen.to_device.is_none()
                    && signal.is_quiet(seen.position)
                    && !signal.has_typing(seen.fleeting)
                    && !(wants_presence && signal.has_presence(seen.fleeting))
            };
            let quiet = seen.is_some_and(caught_up) && !request.full_state;
            // What is gathered has to wait before it wakes anybody; whoever is answered now gets what there is.
            let late = || {
                seen.is_some_and(|seen| {
                    signal.has_gathered(seen.position) || self.has_fleeting(request, signal, seen)
                })
            };
            if !quiet || (over && late()) {
                // Boxed: a waiting sync shall not keep the room that working out a delta takes.
                let delta = Box::pin(self.look(request, signal, seen)).await?;
                if !delta.is_empty() || request.since.is_none() || request.full_state || over {
                    return Ok(delta);
                }
                seen = Some(delta.next);
            } else if over {
                return self.nothing(request, signal, seen.unwrap_or_default()).await;
            }
            tokio::select! {
                () = changed => {}
                () = self.0.world.sleep_until(deadline) => over = true,
                () = self.0.world.stopping() => over = true,
            }
        }
    }

    fn wants_presence(&self, request: &SyncRequest) -> bool {
        self.0.presence.is_enabled() && filter::wants(&request.filter.presence, "m.presence", None)
    }

    /// Whether there may be typing or presence to tell, whether it is time for that or not.
    fn has_fleeting(&self, request: &SyncRequest, signal: &Signal, seen: SyncToken) -> bool {
        self.0.typing.has_news(signal, seen.fleeting)
            || (self.wants_presence(request) && self.0.presence.has_news(signal, seen.fleeting))
    }

    /// A token of an earlier process knows nothing of what is fleeting.
    fn of_this_process(&self, token: SyncToken) -> SyncToken {
        if token.epoch == self.0.typing.epoch {
            return token;
        }
        SyncToken { epoch: self.0.typing.epoch, fleeting: 0, ..token }
    }

    async fn nothing(&self, request: &SyncRequest, signal: &Signal, next: SyncToken) -> Result<Delta, Error> {
        let keys = match &request.device {
            Some(device) => match signal.keys(device) {
                Some(keys) => keys,
                None => self.keys(&self.0.store.read(), signal, device).await?,
            },
            None => KeyCounts::default(),
        };
        Ok(Delta { next, keys, ..Delta::default() })
    }

    /// What a device has left to hand out, read again only after that changed.
    async fn keys(
        &self,
        reader: &Reader<'_>,
        signal: &Signal,
        device: &DeviceId,
    ) -> Result<KeyCounts, Error> {
        if let Some(keys) = signal.keys(device) {
            return Ok(keys);
        }
        let keys = self.0.accounts.key_counts(reader, &signal.user, device).await?;
        signal.remember_keys(reader.position(), device, keys.clone());
        Ok(keys)
    }

    /// The delta since the request's token, looking where something happened after `seen`.
    async fn look(
        &self,
        request: &SyncRequest,
        signal: &Signal,
        seen: Option<SyncToken>,
    ) -> Result<Delta, Error> {
        let _turn = signal.turn(seen.filter(|_| !request.full_state).map(|seen| seen.position)).await;
        let fleeting = self.0.wake.fleeting();
        let reader = self.0.store.read();
        let now = reader.position();
        self.0.wake.reach(now).await?;
        let nobody = OwnedDeviceId::from("");
        let device = request.device.as_ref().unwrap_or(&nobody);
        let look = match seen {
            Some(seen) if !request.full_state => signal.look(seen.position, now, device),
            _ => Look::Everywhere,
        };
        let next = SyncToken { position: now, epoch: self.0.typing.epoch, fleeting, to_device: None };
        let quiet = matches!(&look, Look::At(touched) if touched.is_empty());
        let has_all = |seen: SyncToken| seen.to_device.is_none() && !self.has_fleeting(request, signal, seen);
        if quiet && seen.is_some_and(has_all) {
            return self.nothing(request, signal, next).await;
        }
        let actor = Actor { device: request.device.clone(), ..Actor::user(&request.user) };
        delta::Work { delivery: self, reader: &reader, request, signal, actor, seen, next, look }
            .delta()
            .await
    }

    async fn forget_handed_out(&self, request: &SyncRequest) -> Result<(), Error> {
        let (Some(since), Some(device)) = (request.since, &request.device) else { return Ok(()) };
        if self.0.handed_out.is_due(&request.user, device) {
            let seen = since.to_device();
            self.0.accounts.delete_to_device(&request.user, device, seen).await?;
            self.0.handed_out.settle(&request.user, device, seen);
        }
        Ok(())
    }
}

/// What is looked at.
fn touched(look: &Look, part: impl Fn(&Touched) -> bool) -> bool {
    match look {
        Look::Everywhere => true,
        Look::At(touched) => part(touched),
    }
}

#[cfg(test)]
mod tests {
    use chappe_store::Position;
    use ruma::{device_id, user_id};

    use super::HandedOut;

    #[test]
    fn what_one_connection_got_is_deleted_though_another_got_less() {
        let handed_out = HandedOut::default();
        let (user, device) = (user_id!("@me:x").to_owned(), device_id!("D").to_owned());
        handed_out.hand_out(&user, &device, Position(10));
        handed_out.hand_out(&user, &device, Position(5));
        handed_out.settle(&user, &device, Position(5));
        assert!(handed_out.is_due(&user, &device), "the first has not come back yet");
        handed_out.settle(&user, &device, Position(10));
        assert!(!handed_out.is_due(&user, &device));
    }
}
