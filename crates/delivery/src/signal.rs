//! What happened lately to one attached user, in memory.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    convert::Infallible,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use chappe_accounts::{InviteFilter, KeyCounts};
use chappe_rooms::Stay;
use chappe_rules::push::ActiveRules;
use chappe_store::{Position, RoomNid};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{
    DeviceId, OwnedDeviceId, OwnedUserId, UserId,
    push::{ConditionalPushRule, Ruleset},
};
use tokio::sync::Notify;

use crate::{
    sync::{RoomKey, Shelf},
    wake::Crowds,
};

/// Changes remembered per user; older ones are found by comparing positions.
const REMEMBERED: usize = 256;
/// Spaces of which a user's children are remembered.
const SPACES: usize = 200;
/// Push rules that users share.
const SHARED_RULES: usize = 1_000;
/// Settings that users share: most have changed nothing.
const SHARED_SETTINGS: usize = 1_000;
/// Users whose settings are kept: push asks for those of everybody in a room.
const RECENT_SETTINGS: usize = 40_000;

/// Where to look for something new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    /// Events in a room.
    Room(RoomNid),
    /// Receipts in a room.
    Receipts(RoomNid),
    /// The user's own membership of a room changed.
    Membership(RoomNid),
    /// Invites and knocks elsewhere.
    OutOfBand,
    /// Account data.
    AccountData,
    /// The inbox of a device.
    ToDevice(OwnedDeviceId),
    /// The one-time keys of a device.
    Keys(OwnedDeviceId),
    /// Devices of somebody in a room.
    Devices(RoomNid, OwnedUserId),
    /// Devices of those who share a room with the user, whoever they are.
    DeviceLists,
    /// The user's own devices, and keys that the user signed.
    OwnDevices,
    /// Threads that the user follows.
    Threads,
}

impl Touch {
    /// Whether there is no more to look at than for another one: of several rooms of somebody one is enough.
    fn adds_nothing_to(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Devices(_, user), Self::Devices(_, known)) => user == known,
            _ => self == other,
        }
    }
}

/// Everything touched after a position.
#[expect(clippy::struct_excessive_bools, reason = "independent places to look at")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Rooms with something new, receipts included.
    pub(crate) rooms: BTreeSet<RoomNid>,
    /// Rooms with new receipts.
    pub(crate) receipts: BTreeSet<RoomNid>,
    /// Rooms in which the user's own membership changed.
    pub(crate) memberships: BTreeSet<RoomNid>,
    /// Invites and knocks elsewhere.
    pub(crate) out_of_band: bool,
    /// Account data.
    pub(crate) account_data: bool,
    /// The asking device's inbox.
    pub(crate) to_device: bool,
    /// The asking device's keys.
    pub(crate) keys: bool,
    /// Whose devices changed, with a room in which they were then.
    pub(crate) devices: BTreeMap<OwnedUserId, RoomNid>,
    /// Devices of all, as those of some are not in `devices`.
    pub(crate) device_lists: bool,
    /// The user's own devices, and keys that the user signed.
    pub(crate) own_devices: bool,
    /// Threads that the user follows.
    pub(crate) threads: bool,
}

impl Touched {
    /// Whether there is nothing to look at for this device.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn add(&mut self, touch: &Touch, device: &DeviceId) {
        match touch {
            Touch::Receipts(nid) => {
                self.rooms.insert(*nid);
                self.receipts.insert(*nid);
            }
            Touch::Room(nid) | Touch::Membership(nid) => {
                self.rooms.insert(*nid);
                if matches!(touch, Touch::Membership(_)) {
                    self.memberships.insert(*nid);
                    // Who shares a room with whom may have changed.
                    self.device_lists = true;
                }
            }
            Touch::OutOfBand => self.out_of_band = true,
            Touch::AccountData => self.account_data = true,
            Touch::ToDevice(of) => self.to_device |= of == device,
            Touch::Keys(of) => self.keys |= of == device,
            Touch::Devices(nid, user) => {
                self.devices.insert(user.clone(), *nid);
            }
            Touch::DeviceLists => self.device_lists = true,
            Touch::OwnDevices => self.own_devices = true,
            Touch::Threads => self.threads = true,
        }
    }
}

/// Where a sync has to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Everywhere: what happened since then is not remembered.
    Everywhere,
    /// Only there.
    At(Touched),
}

struct Recent {
    /// Changes after this are all remembered.
    floor: Position,
    changes: VecDeque<(Position, Touch)>,
}

/// One attached user.
pub(crate) struct Signal {
    pub(crate) user: OwnedUserId,
    last: AtomicU64,
    /// The last change of who types.
    typing: AtomicU64,
    /// Changes of presence up to this may be told.
    presence: AtomicU64,
    notify: Notify,
    recent: Mutex<Recent>,
    /// What is noted in rooms with many in them, and not in `recent`.
    crowds: Arc<Crowds>,
    /// Changes of presence after this are noted in the rooms of the user.
    presence_floor: AtomicU64,
    /// Rooms by whether the user is joined, and the position at which that was so.
    pub(crate) rooms: Mutex<BTreeMap<RoomNid, (bool, Position)>>,
    /// Since when the user is in those of the rooms that were told of.
    stays: Mutex<BTreeMap<RoomNid, (StayAsOf, Stay)>>,
    waiting: AtomicUsize,
    /// Held while a delta is worked out that has to look everywhere.
    wide: tokio::sync::Mutex<()>,
    seen: Mutex<tokio::time::Instant>,
    /// The place at which this user was attached.
    begun: AtomicU64,
    /// The user's own last receipts, since then.
    receipts: Mutex<BTreeMap<RoomNid, Position>>,
    /// The user's settings, with the last change of account data that they include. Many users wait, few are told
    /// something at the same time: `RecentSettings` keeps those alive.
    settings: Remembered<Weak<Settings>>,
    /// What the devices have left to hand out.
    keys: Remembered<BTreeMap<OwnedDeviceId, KeyCounts>>,
    /// The user's direct chats.
    direct: Remembered<Arc<BTreeSet<RoomKey>>>,
    /// The tags of the user's rooms.
    tags: Remembered<Arc<Tags>>,
    /// Children of spaces, as read at a position each.
    spaces: Remembered<Spaces>,
    /// The user's rooms in order, once a sliding sync has asked for them.
    pub(crate) shelf: Mutex<Option<Arc<Shelf>>>,
}

/// When the user came into the room, and when the room became whole.
pub(crate) type StayAsOf = (Position, Position);

/// Something read for the user, good until it is touched.
struct Remembered<T> {
    touched: AtomicU64,
    known: Mutex<Option<(Position, T)>>,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self { touched: AtomicU64::new(0), known: Mutex::new(None) }
    }
}

impl<T> Remembered<T> {
    fn touch(&self, at: Position) {
        self.touched.fetch_max(at.0, SeqCst);
    }

    fn good<R>(&self, read: impl Fn(&T) -> Option<R>) -> Option<R> {
        let known = self.known.lock();
        let (as_of, value) = known.as_ref()?;
        if as_of.0 >= self.touched.load(SeqCst) { read(value) } else { None }
    }
}

/// The children of spaces, each with the position at which that was so.
type Spaces = BTreeMap<RoomNid, (Position, Arc<BTreeSet<RoomKey>>)>;

/// The tags that a user has given to rooms.
pub(crate) type Tags = HashMap<RoomNid, BTreeSet<String>>;

impl<T: Default> Remembered<T> {
    /// Adds something read at a position to what is still good.
    fn add(&self, as_of: Position, add: impl FnOnce(&mut T)) {
        let mut known = self.known.lock();
        let old = known.take().filter(|(then, _)| then.0 >= self.touched.load(SeqCst));
        let (then, mut all) = old.unwrap_or_else(|| (as_of, T::default()));
        add(&mut all);
        *known = Some((then.min(as_of), all));
    }
}

/// What a user has set that every delta needs.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Whom they ignore.
    pub(crate) ignored: BTreeSet<OwnedUserId>,
    /// Which invites they want.
    pub(crate) invites: InviteFilter,
    /// Their push rules.
    pub(crate) rules: ActiveRules,
    /// Another number for other settings.
    pub(crate) mark: u64,
}

/// Push rules that many users have, by their JSON: those of one user alone would take some ten kilobytes.
pub(crate) struct SharedRules(Cache<String, Arc<ConditionalPushRule>>);

impl Default for SharedRules {
    fn default() -> Self {
        Self(Cache::new(SHARED_RULES))
    }
}

impl SharedRules {
    /// A user's rules without the user, those shared that come from the server.
    pub(crate) fn active(&self, rules: Ruleset) -> ActiveRules {
        ActiveRules::new(rules, |rule| {
            let text = serde_json::to_string(&rule).ok();
            match text.filter(|_| rule.default) {
                Some(text) => {
                    let kept = self.0.get_or_insert_with(&text, || Ok::<_, Infallible>(Arc::new(rule)));
                    kept.unwrap_or_else(|never| match never {})
                }
                None => Arc::new(rule),
            }
        })
    }
}

/// Settings that many users have, by their marks.
pub(crate) struct SharedSettings(Cache<u64, Arc<Settings>>);

impl Default for SharedSettings {
    fn default() -> Self {
        Self(Cache::new(SHARED_SETTINGS))
    }
}

impl SharedSettings {
    /// The settings with a mark.
    pub(crate) fn of(&self, mark: u64, settings: impl FnOnce() -> Settings) -> Arc<Settings> {
        let kept = self.0.get_or_insert_with(&mark, || Ok::<_, Infallible>(Arc::new(settings())));
        kept.unwrap_or_else(|never| match never {})
    }
}

/// Settings that were needed lately.
pub(crate) struct RecentSettings(Cache<OwnedUserId, Arc<Settings>>);

impl Default for RecentSettings {
    fn default() -> Self {
        Self(Cache::new(RECENT_SETTINGS))
    }
}

impl RecentSettings {
    /// Keeps a user's settings for a while.
    pub(crate) fn keep(&self, user: &UserId, settings: Arc<Settings>) {
        self.0.insert(user.to_owned(), settings);
    }
}

impl Settings {
    /// Whether an invite by `sender` is kept from them.
    pub(crate) fn hides_invite(&self, sender: &UserId) -> bool {
        self.ignored.contains(sender) || self.invites.hides(sender)
    }
}

impl Signal {
    pub(crate) fn new(user: OwnedUserId, now: tokio::time::Instant, crowds: Arc<Crowds>) -> Self {
        Self {
            user,
            last: AtomicU64::new(0),
            typing: AtomicU64::new(0),
            presence: AtomicU64::new(0),
            notify: Notify::new(),
            recent: Mutex::new(Recent { floor: Position(u64::MAX), changes: VecDeque::new() }),
            crowds,
            presence_floor: AtomicU64::new(u64::MAX),
            rooms: Mutex::default(),
            stays: Mutex::default(),
            waiting: AtomicUsize::new(0),
            wide: tokio::sync::Mutex::default(),
            seen: Mutex::new(now),
            begun: AtomicU64::new(u64::MAX),
            receipts: Mutex::default(),
            settings: Remembered::default(),
            direct: Remembered::default(),
            tags: Remembered::default(),
            spaces: Remembered::default(),
            shelf: Mutex::default(),
            keys: Remembered::default(),
        }
    }

    /// From `floor` on every change is remembered, and of presence from the number `fleeting` on. Whoever has not seen what
    /// is fleeting up to there has to look.
    pub(crate) fn begin(&self, floor: Position, fleeting: u64) {
        self.presence_floor.store(fleeting, SeqCst);
        self.typing.fetch_max(fleeting, SeqCst);
        self.presence.fetch_max(fleeting, SeqCst);
        self.last.fetch_max(floor.0, SeqCst);
        self.recent.lock().floor = floor;
        self.begun.store(floor.0, SeqCst);
    }

    /// Whether changes are remembered yet.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(SeqCst) != u64::MAX
    }

    /// Remembers a change and wakes the user's devices.
    pub(crate) fn touch(&self, at: Position, touch: Touch) {
        match touch {
            Touch::AccountData => {
                self.settings.touch(at);
                self.direct.touch(at);
                self.tags.touch(at);
            }
            Touch::Membership(_) => {
                self.direct.touch(at);
                self.tags.touch(at);
                self.spaces.touch(at);
            }
            Touch::Keys(_) => self.keys.touch(at),
            _ => {}
        }
        let mut recent = self.recent.lock();
        let last = recent.changes.back();
        if last.is_none_or(|(then, last)| *then != at || !touch.adds_nothing_to(last)) {
            // Before there is one more: else the ring would double for it, and stay so.
            if recent.changes.len() == REMEMBERED
                && let Some((gone, _)) = recent.changes.pop_front()
                && recent.floor != Position(u64::MAX)
            {
                recent.floor = recent.floor.max(gone);
            }
            recent.changes.push_back((at, touch));
        }
        self.last.fetch_max(at.0, SeqCst);
        drop(recent);
        self.rouse();
    }

    /// Who types has changed for this user: wakes the user's devices.
    pub(crate) fn touch_typing(&self, sequence: u64) {
        self.typing.fetch_max(sequence, SeqCst);
        self.rouse();
    }

    /// Changes of presence up to a number may be told; whether that is news. Wakes nobody.
    pub(crate) fn hear(&self, sequence: u64) -> bool {
        self.presence.fetch_max(sequence, SeqCst) < sequence
    }

    /// What was noted in rooms up to a position, and who types there, may be told; whether that is news. Wakes nobody.
    pub(crate) fn hear_gathered(&self, at: Position, typing: u64) -> bool {
        let has_happened = self.last.fetch_max(at.0, SeqCst) < at.0;
        self.typing.fetch_max(typing, SeqCst) < typing || has_happened
    }

    /// Wakes the user's devices.
    pub(crate) fn rouse(&self) {
        self.notify.notify_waiters();
    }

    /// Whether every change of presence after a number is noted in the rooms of the user.
    pub(crate) fn remembers_presence(&self, after: u64) -> bool {
        after >= self.presence_floor.load(SeqCst)
    }

    /// Whether nothing has happened that is stored: one comparison.
    pub(crate) fn is_quiet(&self, after: Position) -> bool {
        self.last.load(SeqCst) <= after.0
    }

    /// Whether others type than before.
    pub(crate) fn has_typing(&self, after: u64) -> bool {
        self.typing.load(SeqCst) > after
    }

    /// Whether it is time to tell of presence.
    pub(crate) fn has_presence(&self, after: u64) -> bool {
        self.presence.load(SeqCst) > after
    }

    /// Whether anything was noted after a position in rooms with many in them, whether it is time to tell of it or not.
    pub(crate) fn has_gathered(&self, after: Position) -> bool {
        !self.gathered(after, Position(u64::MAX)).is_empty()
    }

    fn gathered(&self, after: Position, up_to: Position) -> Vec<Touch> {
        self.crowds.after(&self.rooms.lock(), after, up_to)
    }

    /// Where to look for what happened after a position, up to another.
    pub(crate) fn look(&self, after: Position, up_to: Position, device: &DeviceId) -> Look {
        let recent = self.recent.lock();
        if after < recent.floor {
            return Look::Everywhere;
        }
        let mut touched = Touched::default();
        // The follower handles commits in order, so what is after a position is at the end.
        for (at, touch) in recent.changes.iter().rev().take_while(|(at, _)| *at > after) {
            if *at <= up_to {
                touched.add(touch, device);
            }
        }
        drop(recent);
        for touch in self.gathered(after, up_to) {
            touched.add(&touch, device);
        }
        Look::At(touched)
    }

    /// The turn among the user's deltas that have to look everywhere, for one after a position (`None`: from the very
    /// beginning): they cost so much that they come one after the other. Others have no turn to wait for.
    pub(crate) async fn turn(&self, after: Option<Position>) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let everywhere = after.is_none_or(|after| after < self.recent.lock().floor);
        if everywhere { Some(self.wide.lock().await) } else { None }
    }

    /// The user has read on in a room.
    pub(crate) fn read(&self, nid: RoomNid, at: Position) {
        self.receipts.lock().insert(nid, at);
    }

    /// Whether the user may have read on in a room after a position.
    pub(crate) fn has_read(&self, nid: RoomNid, after: Position) -> bool {
        after.0 < self.begun.load(SeqCst) || self.receipts.lock().get(&nid).is_some_and(|at| *at > after)
    }

    /// The user's settings, if they are remembered.
    pub(crate) fn settings(&self) -> Option<Arc<Settings>> {
        self.settings.good(Weak::upgrade)
    }

    /// Remembers the user's settings as read at a position.
    pub(crate) fn remember_settings(&self, as_of: Position, settings: &Arc<Settings>) {
        *self.settings.known.lock() = Some((as_of, Arc::downgrade(settings)));
    }

    /// The user's direct chats, if they are remembered.
    pub(crate) fn direct(&self) -> Option<Arc<BTreeSet<RoomKey>>> {
        self.direct.good(|direct| Some(direct.clone()))
    }

    /// Remembers the user's direct chats as read at a position.
    pub(crate) fn remember_direct(&self, as_of: Position, direct: &Arc<BTreeSet<RoomKey>>) {
        *self.direct.known.lock() = Some((as_of, direct.clone()));
    }

    /// The tags of the user's rooms, if they are remembered.
    pub(crate) fn tags(&self) -> Option<Arc<Tags>> {
        self.tags.good(|tags| Some(tags.clone()))
    }

    /// Remembers the tags of the user's rooms as read at a position.
    pub(crate) fn remember_tags(&self, as_of: Position, tags: &Arc<Tags>) {
        *self.tags.known.lock() = Some((as_of, tags.clone()));
    }

    /// The children of a space and the position at which that was so, if they are remembered.
    pub(crate) fn children(&self, space: RoomNid) -> Option<(Position, Arc<BTreeSet<RoomKey>>)> {
        self.spaces.good(|spaces| spaces.get(&space).cloned())
    }

    /// Remembers the children of a space as read at a position.
    pub(crate) fn remember_children(
        &self,
        as_of: Position,
        space: RoomNid,
        children: &Arc<BTreeSet<RoomKey>>,
    ) {
        self.spaces.add(as_of, |spaces| {
            if spaces.len() >= SPACES {
                spaces.clear();
            }
            spaces.insert(space, (as_of, children.clone()));
        });
    }

    /// What a device has left to hand out, if that is remembered.
    pub(crate) fn keys(&self, device: &DeviceId) -> Option<KeyCounts> {
        self.keys.good(|all| all.get(device).cloned())
    }

    /// Remembers what a device has left, as read at a position.
    pub(crate) fn remember_keys(&self, as_of: Position, device: &DeviceId, keys: KeyCounts) {
        self.keys.add(as_of, |all| drop(all.insert(device.to_owned(), keys)));
    }

    /// Whether the user has been joined to a room since a position at least.
    pub(crate) fn joined_since(&self, nid: RoomNid, since: Position) -> Option<Position> {
        let rooms = self.rooms.lock();
        rooms.get(&nid).filter(|(joined, at)| *joined && *at <= since).map(|(_, at)| *at)
    }

    /// Since when the user is in a room, if that was remembered as of the same.
    pub(crate) fn stay(&self, nid: RoomNid, as_of: StayAsOf) -> Option<Stay> {
        self.stays.lock().get(&nid).filter(|(then, _)| *then == as_of).map(|(_, stay)| *stay)
    }

    /// Remembers it.
    pub(crate) fn remember_stay(&self, nid: RoomNid, as_of: StayAsOf, stay: Stay) {
        self.stays.lock().insert(nid, (as_of, stay));
    }

    /// Ready at the next change after this call.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }

    /// Counts a sync of this user until it is dropped.
    pub(crate) fn enter(&self) -> Entered<'_> {
        self.waiting.fetch_add(1, SeqCst);
        Entered(self)
    }

    /// Notes when the user was last heard of.
    pub(crate) fn see(&self, now: tokio::time::Instant) {
        *self.seen.lock() = now;
    }

    /// Whether no sync is under way and none was after `since`.
    pub(crate) fn is_gone(&self, since: tokio::time::Instant) -> bool {
        self.waiting.load(SeqCst) == 0 && *self.seen.lock() < since
    }
}

/// A sync under way.
pub(crate) struct Entered<'a>(&'a Signal);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use chappe_rules::push::without_user;
    use chappe_store::{Position, RoomNid};
    use futures_util::FutureExt as _;
    use ruma::{device_id, user_id};

    use super::{Look, REMEMBERED, SharedRules, Signal, Touch, Touched};

    fn signal() -> Signal {
        let (user, now) = (user_id!("@a:a.example").to_owned(), tokio::time::Instant::now());
        let signal = Signal::new(user, now, std::sync::Arc::default());
        signal.begin(Position(10), 0);
        signal
    }

    #[test]
    fn quiet_until_touched() {
        let signal = signal();
        assert!(!signal.is_quiet(Position(9)), "before the beginning nothing is known");
        assert!(signal.is_quiet(Position(10)));
        signal.touch(Position(12), Touch::Room(RoomNid(3)));
        assert!(!signal.is_quiet(Position(11)) && signal.is_quiet(Position(12)));
        signal.touch_typing(5);
        assert!(signal.has_typing(4) && !signal.has_typing(5) && !signal.has_presence(0));
        assert!(!signal.hear_gathered(Position(12), 5) && signal.is_quiet(Position(12)));
        assert!(signal.hear_gathered(Position(13), 5) && signal.hear_gathered(Position(13), 6));
        assert!(!signal.is_quiet(Position(12)) && signal.has_typing(5));
        assert!(signal.hear(7) && !signal.hear(7) && !signal.hear(6));
        assert!(signal.has_presence(6) && !signal.has_presence(7));
    }

    #[test]
    fn looks_only_where_something_happened() {
        let signal = signal();
        signal.touch(Position(11), Touch::Room(RoomNid(3)));
        signal.touch(Position(12), Touch::ToDevice(device_id!("A").to_owned()));
        let look = |after, device: &str| signal.look(Position(after), Position(99), device.into());
        assert_eq!(look(9, "A"), Look::Everywhere);
        let rooms = [RoomNid(3)].into();
        assert_eq!(look(10, "A"), Look::At(Touched { rooms, to_device: true, ..Touched::default() }));
        assert_eq!(look(11, "B"), Look::At(Touched::default()));
    }

    #[test]
    fn somebody_met_in_many_rooms_is_remembered_once() {
        let (signal, bob) = (signal(), user_id!("@b:a.example").to_owned());
        for nid in 1..=REMEMBERED {
            signal.touch(Position(11), Touch::Devices(RoomNid(u32::try_from(nid).unwrap()), bob.clone()));
        }
        signal.touch(Position(11), Touch::OwnDevices);
        let touched =
            Touched { devices: [(bob, RoomNid(1))].into(), own_devices: true, ..Touched::default() };
        assert_eq!(signal.look(Position(10), Position(99), "A".into()), Look::At(touched));
        assert!(size_of::<(Position, Touch)>() <= 32, "there are as many for each user");
    }

    #[test]
    fn rules_that_users_have_alike_are_kept_once() {
        let shared = SharedRules::default();
        let defaults = chappe_rules::push::defaults(user_id!("@a:a.example"));
        for user in [user_id!("@a:a.example"), user_id!("@b:a.example")] {
            shared.active(without_user(chappe_rules::push::defaults(user), user));
        }
        let all = defaults.override_.iter().chain(&defaults.underride).filter(|rule| rule.enabled);
        assert_eq!(shared.0.len(), all.count());
    }

    #[test]
    fn looking_everywhere_is_done_once_at_a_time() {
        let signal = signal();
        let turn = |after| signal.turn(after).now_or_never();
        let held = turn(None).unwrap();
        assert!(held.is_some());
        assert!(turn(None).is_none() && turn(Some(Position(9))).is_none(), "another one waits");
        assert!(turn(Some(Position(10))).unwrap().is_none(), "what is remembered has no turn");
        drop(held);
        assert!(turn(Some(Position(9))).unwrap().is_some());
    }

    #[test]
    fn what_is_forgotten_is_looked_for_everywhere() {
        let signal = signal();
        for n in 0..=REMEMBERED as u64 {
            signal.touch(Position(11 + n), Touch::AccountData);
        }
        assert_eq!(signal.look(Position(10), Position(999), "A".into()), Look::Everywhere);
        assert!(matches!(signal.look(Position(11), Position(999), "A".into()), Look::At(_)));
    }
}
