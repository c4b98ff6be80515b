//! Who is there, in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chappe_store::{RoomNid, Store};
use chappe_world::{Live, World};
use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId, presence::PresenceState as Is};
use serde_json::value::{RawValue, to_raw_value};
use tokio::{sync::broadcast, time::Instant};

use crate::{
    Config, Error,
    signal::Signal,
    wake::{Numbered, Wake},
};

/// A user who has not synced for so long is offline.
const GONE: Duration = Duration::from_secs(45);
/// How often that is looked through.
const SWEEP: Duration = Duration::from_secs(15);
/// Users of other servers who are remembered at most: those whose presence changed last.
const MOST_REMOTE: usize = 20_000;
/// Changes kept for followers who are slow to fetch them.
const QUEUE: usize = 1_024;
/// Users who fade at once, and the time that followers have to fetch that before the next.
const AT_ONCE: usize = 256;
const PAUSE: Duration = Duration::from_millis(100);

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
    /// When a sync of the user ended last.
    synced: Instant,
    /// Syncs under way.
    syncing: usize,
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

    /// The state that a user of this server has come to by doing nothing, if it is another one.
    fn fades(&self, limits: Limits) -> Option<Is> {
        let gone = self.syncing == 0 && limits.now.saturating_duration_since(self.synced) > GONE;
        let idle = limits.now.saturating_duration_since(self.now.last_active) > limits.idle_after;
        match self.now.state {
            Is::Online | Is::Unavailable if gone && self.local => Some(Is::Offline),
            Is::Online if idle && self.local => Some(Is::Unavailable),
            _ => None,
        }
    }
}

/// When users have gone or fallen idle.
#[derive(Clone, Copy)]
struct Limits {
    now: Instant,
    idle_after: Duration,
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

    /// Notes when somebody was last active, if they are otherwise as they were; whether that is so.
    fn refresh(&mut self, user: &UserId, now: &PresenceState) -> bool {
        let Some(known) = self.known.get_mut(user) else { return false };
        let same = PresenceState { last_active: now.last_active, ..known.now.clone() } == *now;
        if same {
            known.now.last_active = now.last_active;
        }
        same
    }

    /// The state that somebody chose, as far as it holds when they sync: until they are gone.
    fn choice(&self, user: &UserId) -> Is {
        let known = self.known.get(user).filter(|known| known.now.state != Is::Offline);
        known.map_or(Is::Online, |known| known.chosen.clone())
    }

    fn state(&self, user: &UserId) -> Option<PresenceState> {
        self.known.get(user).map(|known| known.now.clone())
    }
}

/// A sync under way: its user has not gone.
pub(crate) struct Syncing<'a> {
    presence: &'a Presence,
    user: &'a UserId,
}

impl Drop for Syncing<'_> {
    fn drop(&mut self) {
        let now = self.presence.world.instant();
        if let Some(known) = self.presence.users.lock().known.get_mut(self.user) {
            known.syncing = known.syncing.saturating_sub(1);
            known.synced = now;
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

    /// A local user's device syncs, in this state, until what is given is dropped.
    pub(crate) async fn sync<'a>(
        &'a self,
        user: &'a UserId,
        state: &Is,
    ) -> Result<Option<Syncing<'a>>, Error> {
        if !self.is_enabled() || *state == Is::Offline {
            return Ok(None);
        }
        self.synced(user, state).await?;
        self.users.lock().known.get_mut(user).into_iter().for_each(|known| known.syncing += 1);
        Ok(Some(Syncing { presence: self, user }))
    }

    async fn synced(&self, user: &UserId, state: &Is) -> Result<(), Error> {
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
        if !self.is_enabled() || (!local && self.users.lock().refresh(user, &now)) {
            return Ok(());
        }
        if !local {
            // Nobody listening is fine here as well.
            let _ = self.news.send((user.to_owned(), now.clone()));
        }
        let rooms = self.wake.rooms_of(&self.store.read(), user).await?;
        // Of other servers' users those come to be remembered whom somebody here can see: the rest may not even exist.
        if !local && self.of(user).is_none() && !self.wake.is_anybody_in(&rooms) {
            return Ok(());
        }
        let synced = self.world.instant();
        let numbered = {
            let mut users = self.users.lock();
            // Whoever sees the number finds the change: both are there before the lock is given back.
            let numbered = self.wake.next_fleeting();
            let changed = numbered.sequence;
            let chosen = if by_sync { users.choice(user) } else { now.state.clone() };
            let syncing = users.known.get(user).map_or(0, |known| known.syncing);
            users.put(user, Known { now: now.clone(), chosen, synced, syncing, local, by_sync, changed });
            numbered
        };
        self.announce(user, now, local, (numbered, &rooms));
        Ok(())
    }

    /// Tells those who are in one of the user's rooms.
    fn announce(
        &self,
        user: &UserId,
        now: PresenceState,
        local: bool,
        (numbered, rooms): (Numbered<'_>, &[RoomNid]),
    ) {
        for signal in self.wake.meeting(user, rooms) {
            signal.hear(numbered.sequence);
        }
        drop(numbered);
        if local {
            // Nobody listening is fine: then nobody has to be told.
            let _ = self.changes.send((user.to_owned(), now.clone()));
            let _ = self.news.send((user.to_owned(), now));
        }
    }

    /// Who of those whom an attached user meets has changed after a sequence number: what the user heard of. `None` if that
    /// is not all remembered.
    pub(crate) fn heard(&self, signal: &Signal, after: u64) -> Option<Vec<OwnedUserId>> {
        let heard = signal.heard(after)?;
        let users = self.users.lock();
        // Of several changes of somebody the last one counts.
        Some(heard.iter().filter_map(|changed| users.order.get(changed)).cloned().collect())
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
        let limits = Limits {
            now: self.world.instant(),
            idle_after: Duration::from_secs(self.config.get().idle_seconds),
        };
        for users in self.fading(limits).chunks(AT_ONCE) {
            for user in users {
                let rooms = self.wake.rooms_of(&self.store.read(), user).await?;
                let Some((presence, numbered)) = self.let_go(user, limits) else { continue };
                self.announce(user, presence, true, (numbered, &rooms));
            }
            if self.world.is_stopping() {
                break;
            }
            self.world.sleep(PAUSE).await;
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
    fn let_go(&self, user: &UserId, limits: Limits) -> Option<(PresenceState, Numbered<'_>)> {
        let mut users = self.users.lock();
        let known = users.known.get(user)?;
        let state = known.fades(limits)?;
        let now = PresenceState { state, currently_active: false, ..known.now.clone() };
        let numbered = self.wake.next_fleeting();
        let known =
            Known { now: now.clone(), chosen: known.chosen.clone(), changed: numbered.sequence, ..*known };
        users.put(user, known);
        Some((now, numbered))
    }
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
                syncing: 0,
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
