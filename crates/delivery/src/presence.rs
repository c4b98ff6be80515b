//! Who is there, in memory.

mod again;
mod gather;
mod users;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use chappe_store::{RoomNid, Store};
use chappe_world::{Live, World};
use parking_lot::Mutex;
use ruma::{DeviceId, OwnedUserId, UserId, presence::PresenceState as Is};
use serde_json::value::{RawValue, to_raw_value};
use tokio::{
    sync::{Notify, broadcast},
    time::Instant,
};

#[cfg(test)]
pub(crate) use self::users::CHANGED;
use self::{
    gather::TOGETHER,
    users::{Known, Limits, Users},
};
use crate::{Config, Error, signal::Signal, wake::Wake};

/// How often it is looked through who has gone.
const SWEEP: Duration = Duration::from_secs(15);
/// What is kept for followers who are slow to fetch it: so many times what was told together.
const QUEUE: usize = 64;
/// Users who fade at once: nobody is told of more at a time.
const AT_ONCE: usize = 1_000;

/// One user's presence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceState {
    /// Online, unavailable or offline.
    pub state: Is,
    /// What they say of it.
    pub status_msg: Option<String>,
    /// When they last did something.
    pub last_active: Instant,
    /// Whether they do right now.
    pub currently_active: bool,
}

/// Somebody's presence is another one, or is told again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceChange {
    /// Whose.
    pub user: OwnedUserId,
    /// How they are now.
    pub now: PresenceState,
    /// Whether they are a user of this server.
    pub local: bool,
    /// Whether nothing has changed: other servers, and they alone, are told again that a user of this server is there.
    pub again: bool,
}

/// A sync under way: its user has not gone.
pub(crate) struct Syncing<'a> {
    presence: &'a Presence,
    user: &'a UserId,
    device: Option<&'a DeviceId>,
    /// Whether it says that the user is there.
    online: bool,
}

impl Drop for Syncing<'_> {
    fn drop(&mut self) {
        let now = self.presence.world.instant();
        if let Some(known) = self.presence.users.lock().known.get_mut(self.user) {
            known.syncing = known.syncing.saturating_sub(1);
            known.synced = now;
            if self.online {
                known.online = known.online.saturating_sub(1);
                // It may have waited for long: the device that comes back from it is as much there as when it began.
                known.now.last_active = now;
                known.there = Some((self.device.map(ToOwned::to_owned), now));
            }
        }
    }
}

/// Who is there.
pub struct Presence {
    wake: Arc<Wake>,
    store: Store,
    world: World,
    config: Live<Config>,
    users: Mutex<Users>,
    /// Something was gathered.
    gathered: Notify,
    news: broadcast::Sender<Arc<[PresenceChange]>>,
}

impl Presence {
    pub(crate) fn new(wake: Arc<Wake>, store: Store, world: World, config: Live<Config>) -> Self {
        let news = broadcast::Sender::new(QUEUE);
        Self { wake, store, world, config, users: Mutex::default(), gathered: Notify::new(), news }
    }

    /// Whether presence is kept at all.
    pub fn is_enabled(&self) -> bool {
        self.config.get().presence
    }

    /// What is known of a user; `None` when nothing is.
    pub fn of(&self, user: &UserId) -> Option<PresenceState> {
        self.users.lock().state(user)
    }

    /// Changes of all users, of this server and of others, from now on: those of a second together, of each user the last.
    /// Between them, who is still there and due to be told again.
    pub fn news(&self) -> broadcast::Receiver<Arc<[PresenceChange]>> {
        self.news.subscribe()
    }

    /// A local user says how they are.
    pub async fn set_local(&self, user: &UserId, state: Is, status_msg: Option<String>) -> Result<(), Error> {
        let now = self.world.instant();
        let currently_active = state == Is::Online;
        let presence = PresenceState { state, status_msg, last_active: now, currently_active };
        self.set(user, presence, (true, false)).await
    }

    /// Another server says how its user is.
    pub async fn set_remote(&self, user: &UserId, presence: PresenceState) -> Result<(), Error> {
        self.set(user, presence, (false, false)).await
    }

    /// A local user's device syncs, in this state, until what is given is dropped.
    pub(crate) async fn sync<'a>(
        &'a self,
        (user, device): (&'a UserId, Option<&'a DeviceId>),
        state: &Is,
    ) -> Result<Option<Syncing<'a>>, Error> {
        if !self.is_enabled() || *state == Is::Offline {
            return Ok(None);
        }
        self.synced((user, device), state).await?;
        let online = *state == Is::Online;
        if let Some(known) = self.users.lock().known.get_mut(user) {
            known.syncing += 1;
            if online {
                known.online += 1;
                known.there = Some((device.map(ToOwned::to_owned), self.world.instant()));
            }
        }
        Ok(Some(Syncing { presence: self, user, device, online }))
    }

    async fn synced(&self, (user, device): (&UserId, Option<&DeviceId>), state: &Is) -> Result<(), Error> {
        let now = self.world.instant();
        let status_msg = {
            let mut users = self.users.lock();
            match users.known.get_mut(user) {
                Some(known) => {
                    known.synced = now;
                    if *state == Is::Online {
                        known.now.last_active = now;
                    }
                    // Of several devices the liveliest counts.
                    if *state == Is::Unavailable && known.is_there_beside(device, now) {
                        return Ok(());
                    }
                    if known.now.state == *state
                        || (known.chosen == Is::Unavailable && known.now.state == Is::Unavailable)
                    {
                        return Ok(());
                    }
                    known.now.status_msg.clone()
                }
                None => None,
            }
        };
        let currently_active = *state == Is::Online;
        let presence = PresenceState { state: state.clone(), status_msg, last_active: now, currently_active };
        self.set(user, presence, (true, true)).await
    }

    async fn set(
        &self,
        user: &UserId,
        now: PresenceState,
        (local, by_sync): (bool, bool),
    ) -> Result<(), Error> {
        if !self.is_enabled() || (!local && self.users.lock().refresh(user, &now, self.world.instant())) {
            return Ok(());
        }
        let rooms = self.wake.rooms_of(&self.store.read(), user).await?;
        if !local && rooms.is_empty() {
            // They may not even exist.
            return Ok(());
        }
        // Of other servers' users those come to be remembered whom somebody here can see.
        let is_seen = local || self.of(user).is_some() || self.wake.is_anybody_in(&rooms);
        let instant = self.world.instant();
        let mut users = self.users.lock();
        if is_seen {
            // Whoever sees the number finds the change: both are there before the lock is given back.
            let numbered = self.wake.next_fleeting();
            let changed = numbered.sequence;
            let chosen = if by_sync { users.choice(user) } else { now.state.clone() };
            let before = users.known.get(user);
            let known = Known {
                now: now.clone(),
                chosen,
                synced: instant,
                told: instant,
                syncing: before.map_or(0, |known| known.syncing),
                online: before.map_or(0, |known| known.online),
                there: before.and_then(|known| known.there.clone()),
                local,
                by_sync,
                changed,
            };
            users.put(user, known, &rooms);
        }
        users.gather(PresenceChange { user: user.to_owned(), now, local, again: false });
        drop(users);
        self.gathered.notify_one();
        Ok(())
    }

    /// Who of those whom an attached user meets has changed after a sequence number, whether anybody was woken by it yet or
    /// not. `None` if that is not all remembered.
    pub(crate) fn heard(&self, signal: &Signal, after: u64) -> Option<Vec<OwnedUserId>> {
        if !signal.remembers_presence(after) {
            return None;
        }
        let users = self.users.lock();
        let rooms = signal.rooms.lock();
        let joined = rooms.iter().filter(|(_, (joined, _))| *joined).map(|(nid, _)| *nid);
        let numbers = users.changed(&signal.user, joined, after)?;
        Some(numbers.iter().filter_map(|number| users.order.get(number)).cloned().collect())
    }

    /// Whether an attached user may have to be told of any change after a sequence number.
    pub(crate) fn has_news(&self, signal: &Signal, after: u64) -> bool {
        self.heard(signal, after).is_none_or(|heard| !heard.is_empty())
    }

    /// Whom a user in `rooms` may have to be told of: those who changed after a sequence number, or, with `None`, all who are
    /// worth telling. First the attached users of the rooms, then others, wherever those are.
    pub(crate) fn around(
        &self,
        signal: &Signal,
        rooms: &BTreeSet<RoomNid>,
        after: Option<u64>,
    ) -> (BTreeSet<OwnedUserId>, BTreeSet<OwnedUserId>) {
        let near = rooms.iter().flat_map(|nid| self.wake.in_room(*nid)).map(|signal| signal.user.clone());
        let mut near: BTreeSet<OwnedUserId> = near.chain([signal.user.clone()]).collect();
        let users = self.users.lock();
        let is_news = |known: &Known| match after {
            Some(after) => known.changed > after,
            None => known.is_worth_telling(),
        };
        let others: BTreeSet<&OwnedUserId> = match after {
            Some(after) => users.order.range(after.saturating_add(1)..).map(|(_, user)| user).collect(),
            None => users.apart.iter().collect(),
        };
        // Whoever is attached and not near is in none of the rooms.
        let is_attached = |user: &UserId| self.wake.user(user).is_some_and(|signal| signal.has_begun());
        let others = others.into_iter().filter(|user| !near.contains(*user) && !is_attached(user));
        let others = others.cloned().collect();
        near.retain(|user| users.known.get(user).is_some_and(is_news));
        (near, others)
    }

    /// The presence events of those of some users of whom anything is known.
    pub(crate) fn events_of<'a>(
        &self,
        some: impl Iterator<Item = &'a OwnedUserId>,
    ) -> Vec<(OwnedUserId, Box<RawValue>)> {
        let known: Vec<_> = {
            let users = self.users.lock();
            some.filter_map(|user| Some((user, users.state(user)?))).collect()
        };
        known.into_iter().map(|(user, now)| (user.clone(), self.event(user, &now))).collect()
    }

    /// Somebody's presence as an event.
    pub fn event(&self, user: &UserId, now: &PresenceState) -> Box<RawValue> {
        let ago = self.world.instant().saturating_duration_since(now.last_active).as_millis();
        let mut content = serde_json::json!({
            "presence": now.state,
            "last_active_ago": u64::try_from(ago).unwrap_or(u64::MAX),
            "currently_active": now.currently_active,
        });
        if let Some(text) = &now.status_msg {
            content["status_msg"] = text.as_str().into();
        }
        let event = serde_json::json!({"type": "m.presence", "sender": user, "content": content});
        to_raw_value(&event).expect("a JSON value is JSON")
    }

    /// Starts the task that notices who has gone; it ends with the world.
    pub(crate) fn expire(self: &Arc<Self>) {
        let presence = self.clone();
        drop(self.world.spawn("delivery-presence", async move {
            let mut sweep = presence.world.interval(SWEEP);
            loop {
                tokio::select! {
                    () = presence.world.stopping() => return,
                    _ = sweep.tick() => {}
                }
                if let Err(error) = presence.look_through().await {
                    tracing::warn!(%error, "presence could not be looked through");
                }
            }
        }));
    }

    async fn look_through(&self) -> Result<(), Error> {
        if !self.is_enabled() {
            // It may just have been switched off.
            *self.users.lock() = Users::default();
            return Ok(());
        }
        self.users.lock().keep_rooms(|nid| self.wake.is_anybody_in(&[nid]));
        let limits = Limits {
            now: self.world.instant(),
            idle_after: Duration::from_secs(self.config.get().idle_seconds),
        };
        for (turn, users) in self.fading(limits).chunks(AT_ONCE).enumerate() {
            if turn > 0 {
                self.wake.pause(TOGETHER).await;
            }
            if self.world.is_stopping() {
                break;
            }
            for user in users {
                let rooms = self.wake.rooms_of(&self.store.read(), user).await?;
                self.let_go(user, &rooms, limits);
            }
        }
        Ok(())
    }

    /// Who has gone or fallen idle.
    fn fading(&self, limits: Limits) -> Vec<OwnedUserId> {
        let users = self.users.lock();
        let fading = users.known.iter().filter(|(_, known)| known.fades(limits).is_some());
        fading.map(|(user, _)| user.clone()).collect()
    }

    /// Notes that a user has gone or fallen idle, unless they have come back since.
    fn let_go(&self, user: &UserId, rooms: &[RoomNid], limits: Limits) {
        let mut users = self.users.lock();
        let Some(known) = users.known.get(user) else { return };
        let Some(state) = known.fades(limits) else { return };
        let now = PresenceState { state, currently_active: false, ..known.now.clone() };
        let numbered = self.wake.next_fleeting();
        let (chosen, local) = (known.chosen.clone(), known.local);
        let (told, changed) = (limits.now, numbered.sequence);
        let there = known.there.clone();
        let known = Known { now: now.clone(), chosen, told, changed, there, ..*known };
        users.put(user, known, rooms);
        users.gather(PresenceChange { user: user.to_owned(), now, local, again: false });
        drop(numbered);
        drop(users);
        self.gathered.notify_one();
    }
}

impl std::fmt::Debug for Presence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Presence of {} users", self.users.lock().known.len())
    }
}
