//! Who is there, in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chappe_store::{
    Membership, Reader, RoomNid, Store,
    members::{RoomMembers, RoomServers},
};
use chappe_world::{Live, World};
use parking_lot::Mutex;
use ruma::{OwnedServerName, OwnedUserId, UserId, presence::PresenceState as Is};
use serde_json::value::{RawValue, to_raw_value};
use tokio::{sync::broadcast, time::Instant};

use crate::{Config, Error, wake::Wake};

/// A user who has not synced for so long is offline.
const GONE: Duration = Duration::from_secs(45);
/// How often that is looked through.
const SWEEP: Duration = Duration::from_secs(15);
/// Users of other servers who are remembered at most: those whose presence changed last.
const MOST_REMOTE: usize = 20_000;
/// Changes kept for followers who are slow to fetch them.
const QUEUE: usize = 1_024;

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

struct Known {
    now: PresenceState,
    /// Chosen by the user; syncing does not override `unavailable`.
    chosen: Is,
    synced: Instant,
    local: bool,
    /// Whether it follows from syncing, so that the user is attached while it holds.
    by_sync: bool,
    changed: u64,
}

impl Known {
    /// Whether there is anything to say of the user.
    fn is_worth_telling(&self) -> bool {
        self.now.state != Is::Offline || self.now.status_msg.is_some()
    }
}

/// Everybody of whom something is known.
#[derive(Default)]
struct Users {
    known: BTreeMap<OwnedUserId, Known>,
    /// In the order of their last change.
    order: BTreeMap<u64, OwnedUserId>,
    /// Those worth telling who are not found among the attached users of their rooms.
    apart: BTreeSet<OwnedUserId>,
    /// The last changes of other servers' users.
    remote: BTreeSet<u64>,
}

impl Users {
    fn put(&mut self, user: &UserId, known: Known) {
        self.forget(user);
        self.order.insert(known.changed, user.to_owned());
        if !known.local {
            self.remote.insert(known.changed);
        }
        let attached = known.by_sync && known.now.state != Is::Offline;
        if known.is_worth_telling() && !attached {
            self.apart.insert(user.to_owned());
        }
        self.known.insert(user.to_owned(), known);
        if self.remote.len() > MOST_REMOTE
            && let Some(oldest) = self.remote.first().and_then(|change| self.order.get(change)).cloned()
        {
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, user: &UserId) {
        self.apart.remove(user);
        if let Some(before) = self.known.remove(user) {
            self.order.remove(&before.changed);
            self.remote.remove(&before.changed);
        }
    }

    fn state(&self, user: &UserId) -> Option<PresenceState> {
        self.known.get(user).map(|known| known.now.clone())
    }
}

/// Who is there.
pub struct Presence {
    wake: Arc<Wake>,
    store: Store,
    world: World,
    config: Live<Config>,
    users: Mutex<Users>,
    changes: broadcast::Sender<(OwnedUserId, PresenceState)>,
    news: broadcast::Sender<(OwnedUserId, PresenceState)>,
}

impl Presence {
    pub(crate) fn new(wake: Arc<Wake>, store: Store, world: World, config: Live<Config>) -> Self {
        let (changes, news) = (broadcast::Sender::new(QUEUE), broadcast::Sender::new(QUEUE));
        Self { wake, store, world, config, users: Mutex::default(), changes, news }
    }

    /// Whether presence is kept at all.
    pub fn is_enabled(&self) -> bool {
        self.config.get().presence
    }

    /// What is known of a user; `None` when nothing is.
    pub fn of(&self, user: &UserId) -> Option<PresenceState> {
        self.users.lock().state(user)
    }

    /// Changes of local users from now on: what other servers have to be told.
    pub fn changes(&self) -> broadcast::Receiver<(OwnedUserId, PresenceState)> {
        self.changes.subscribe()
    }

    /// Changes of all users, of this server and of others, from now on.
    pub fn news(&self) -> broadcast::Receiver<(OwnedUserId, PresenceState)> {
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

    /// A local user's device syncs, in this state.
    pub(crate) async fn synced(&self, user: &UserId, state: &Is) -> Result<(), Error> {
        if !self.is_enabled() || *state == Is::Offline {
            return Ok(());
        }
        let now = self.world.instant();
        let status_msg = {
            let mut users = self.users.lock();
            match users.known.get_mut(user) {
                Some(known) => {
                    known.synced = now;
                    if *state == Is::Online {
                        known.now.last_active = now;
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
        let enabled = self.is_enabled();
        if enabled && !local {
            // Nobody listening is fine here as well.
            let _ = self.news.send((user.to_owned(), now.clone()));
        }
        // Of other servers' users those are remembered whom somebody here can see: the rest may not even exist.
        if !enabled {
            return Ok(());
        }
        if !local && self.wake.sharing_room(&self.store.read(), user).await?.is_empty() {
            self.users.lock().forget(user);
            return Ok(());
        }
        let chosen = now.state.clone();
        let synced = self.world.instant();
        let sequence = {
            let mut users = self.users.lock();
            // Whoever sees the number finds the change: both are there before the lock is given back.
            let changed = self.wake.next_fleeting();
            users.put(user, Known { now: now.clone(), chosen, synced, local, by_sync, changed });
            changed
        };
        self.announce(user, now, local, sequence).await
    }

    async fn announce(
        &self,
        user: &UserId,
        now: PresenceState,
        local: bool,
        sequence: u64,
    ) -> Result<(), Error> {
        for signal in self.wake.sharing_room(&self.store.read(), user).await? {
            signal.touch_fleeting(sequence);
        }
        if local {
            // Nobody listening is fine: then nobody has to be told.
            let _ = self.changes.send((user.to_owned(), now.clone()));
            let _ = self.news.send((user.to_owned(), now));
        }
        Ok(())
    }

    /// Presence events of those who share one of `rooms`, changed after a sequence number; `None`: of all who are there.
    pub(crate) async fn since(
        &self,
        reader: &Reader<'_>,
        asker: &UserId,
        rooms: &BTreeSet<RoomNid>,
        after: Option<u64>,
    ) -> Result<Vec<(OwnedUserId, Box<RawValue>)>, Error> {
        // Whoever is attached is found by the rooms: never everybody who is there.
        let mut near: BTreeSet<OwnedUserId> = BTreeSet::from([asker.to_owned()]);
        if after.is_none() {
            near.extend(
                rooms.iter().flat_map(|nid| self.wake.in_room(*nid)).map(|signal| signal.user.clone()),
            );
        }
        let fresh: Vec<(OwnedUserId, PresenceState)> = {
            let users = self.users.lock();
            let named: Vec<&OwnedUserId> = match after {
                Some(after) => users.order.range(after.saturating_add(1)..).map(|(_, user)| user).collect(),
                None => near.union(&users.apart).collect(),
            };
            let worth = |user: &&&OwnedUserId| {
                after.is_some() || users.known.get(**user).is_some_and(Known::is_worth_telling)
            };
            let named = named.iter().filter(worth);
            named.filter_map(|user| Some(((*user).clone(), users.state(user)?))).collect()
        };
        let (mut events, mut servers) = (Vec::new(), BTreeMap::new());
        for (user, now) in fresh {
            if !near.contains(&user) {
                // Of a server that is in none of the rooms nobody has to be looked for.
                let server = user.server_name().to_owned();
                let meets = match servers.get(&server) {
                    Some(meets) => *meets,
                    None => meets_in(reader, &server, rooms).await?,
                };
                servers.insert(server, meets);
                if !meets || !self.shares(reader, &user, rooms).await? {
                    continue;
                }
            }
            let event = self.event(&user, &now);
            events.push((user, event));
        }
        Ok(events)
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

    async fn shares(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        rooms: &BTreeSet<RoomNid>,
    ) -> Result<bool, Error> {
        if let Some(signal) = self.wake.user(user) {
            let own = signal.rooms.lock();
            return Ok(own.iter().any(|(nid, (joined, _))| *joined && rooms.contains(nid)));
        }
        let keys: Vec<_> = rooms.iter().map(|nid| (*nid, Membership::Join, user.to_owned())).collect();
        Ok(reader.get_many::<RoomMembers>(&keys).await?.iter().any(Option::is_some))
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
        for (user, presence, sequence) in self.gone() {
            self.announce(&user, presence, true, sequence).await?;
        }
        Ok(())
    }

    /// Notes who has gone or fallen idle.
    fn gone(&self) -> Vec<(OwnedUserId, PresenceState, u64)> {
        let (now, idle_after) = (self.world.instant(), Duration::from_secs(self.config.get().idle_seconds));
        let mut users = self.users.lock();
        let mut changed = Vec::new();
        for (user, known) in users.known.iter().filter(|(_, known)| known.local) {
            let gone = now.saturating_duration_since(known.synced) > GONE;
            let idle = now.saturating_duration_since(known.now.last_active) > idle_after;
            let state = match known.now.state {
                Is::Online | Is::Unavailable if gone => Is::Offline,
                Is::Online if idle => Is::Unavailable,
                _ => continue,
            };
            let now = PresenceState { state, currently_active: false, ..known.now.clone() };
            let changed_at = self.wake.next_fleeting();
            changed.push((
                user.clone(),
                Known { now, chosen: known.chosen.clone(), changed: changed_at, ..*known },
            ));
        }
        let told = changed.iter().map(|(user, known)| (user.clone(), known.now.clone(), known.changed));
        let told = told.collect();
        for (user, known) in changed {
            users.put(&user, known);
        }
        told
    }
}

/// Whether a server has a member in one of `rooms`.
async fn meets_in(
    reader: &Reader<'_>,
    server: &OwnedServerName,
    rooms: &BTreeSet<RoomNid>,
) -> Result<bool, Error> {
    let keys: Vec<_> = rooms.iter().map(|nid| (*nid, server.clone())).collect();
    Ok(reader.get_many::<RoomServers>(&keys).await?.into_iter().flatten().any(|count| count > 0))
}

impl std::fmt::Debug for Presence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Presence of {} users", self.users.lock().known.len())
    }
}

#[cfg(test)]
mod tests {
    use super::{Is, Known, MOST_REMOTE, PresenceState, Users};

    #[tokio::test]
    async fn of_other_servers_users_those_are_remembered_who_changed_last() {
        let now = tokio::time::Instant::now();
        let mut users = Users::default();
        let mut put = |user: &str, local: bool, changed: u64| {
            let state = Is::Online;
            let known = Known {
                now: PresenceState {
                    state: state.clone(),
                    status_msg: None,
                    last_active: now,
                    currently_active: true,
                },
                chosen: state,
                synced: now,
                local,
                by_sync: false,
                changed,
            };
            users.put(user.try_into().unwrap(), known);
        };
        put("@us:here.fr", true, 1);
        put("@first:away.fr", false, 2);
        put("@second:away.fr", false, 3);
        put("@first:away.fr", false, 4);
        for number in 0..u64::try_from(MOST_REMOTE).unwrap() - 1 {
            put(&format!("@{number}:away.fr"), false, 5 + number);
        }
        assert_eq!(users.remote.len(), MOST_REMOTE);
        assert_eq!(
            (users.known.len(), users.order.len(), users.apart.len()),
            (MOST_REMOTE + 1, MOST_REMOTE + 1, MOST_REMOTE + 1)
        );
        let known = |user: &str| users.state(user.try_into().unwrap()).is_some();
        assert!(known("@us:here.fr") && known("@first:away.fr") && !known("@second:away.fr"));
    }
}
