//! What a device asks of a sliding connection.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId, UserId, presence::PresenceState};

use crate::Received;

/// One request on a connection (MSC4186).
#[derive(Clone, Debug)]
pub struct SlidingRequest {
    /// Whose device.
    pub user: OwnedUserId,
    /// Which device; application services may have none.
    pub device: Option<OwnedDeviceId>,
    /// Which of the device's connections.
    pub connection: String,
    /// The answer that was dealt with last; none: the connection begins.
    pub pos: Option<String>,
    /// Windows on the user's rooms, by name.
    pub lists: BTreeMap<String, List>,
    /// Rooms asked for by themselves.
    pub subscriptions: BTreeMap<OwnedRoomId, RoomAsk>,
    /// What is asked beside rooms.
    pub extensions: ExtensionsAsk,
    /// How the user is.
    pub presence: PresenceState,
    /// How long the device waits for something new.
    pub timeout: Duration,
}

impl SlidingRequest {
    /// A number that changes with what is asked, tokens and times aside.
    pub(super) fn mark(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.lists, &self.subscriptions).hash(&mut hasher);
        let ExtensionsAsk { to_device, e2ee, account_data, receipts, typing, threads, sticky } =
            &self.extensions;
        (to_device.is_some(), e2ee, account_data, receipts, typing, threads, sticky.is_some())
            .hash(&mut hasher);
        hasher.finish()
    }
}

/// A window on the user's rooms, newest activity first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct List {
    /// Which of the rooms that pass the filters, first and last included; none: all.
    pub ranges: Option<Vec<(usize, usize)>>,
    /// What is wanted of each.
    pub ask: RoomAsk,
    /// Which rooms count.
    pub filters: ListFilters,
}

impl List {
    /// Whether the room at a place of the filtered list is in the window.
    pub(super) fn has(&self, place: usize) -> bool {
        let inside = |(from, to): &(usize, usize)| (*from..=*to).contains(&place);
        self.ranges.as_ref().is_none_or(|ranges| ranges.iter().any(inside))
    }
}

/// What is wanted of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RoomAsk {
    /// The newest events, at most so many.
    pub timeline_limit: usize,
    /// Which state.
    pub state: WantedState,
}

/// Which state of a room is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WantedState {
    /// What to tell.
    pub include: BTreeSet<Pattern>,
    /// What of it not to tell.
    pub exclude: BTreeSet<Pattern>,
    /// Members only as they are needed to show the timeline.
    pub lazy: bool,
}

/// State events by type and state key.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern {
    /// The type; none: any.
    pub kind: Option<String>,
    /// The state key; none: any.
    pub key: Option<String>,
}

impl Pattern {
    pub(super) fn matches(&self, kind: &str, key: &str) -> bool {
        self.kind.as_deref().is_none_or(|of| of == kind) && self.key.as_deref().is_none_or(|of| of == key)
    }
}

/// Which rooms are in a list. All that is said has to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ListFilters {
    /// Direct chats, or others.
    pub is_dm: Option<bool>,
    /// Encrypted rooms, or others.
    pub is_encrypted: Option<bool>,
    /// Invites, or others.
    pub is_invite: Option<bool>,
    /// Types of which one has to be the room's; none is the type of an ordinary room.
    pub room_types: Option<BTreeSet<Option<String>>>,
    /// Types that the room must not have.
    pub not_room_types: BTreeSet<Option<String>>,
    /// Spaces of which one has to have the room as its child.
    pub spaces: Option<BTreeSet<OwnedRoomId>>,
    /// Tags of which the room has to have one.
    pub tags: Option<BTreeSet<String>>,
    /// Tags that the room must not have.
    pub not_tags: BTreeSet<String>,
}

impl ListFilters {
    /// Whether something has to be known of the rooms beyond the user's membership.
    pub(super) fn asks_traits(&self) -> bool {
        self.is_encrypted.is_some() || self.room_types.is_some() || !self.not_room_types.is_empty()
    }

    pub(super) fn asks_tags(&self) -> bool {
        self.tags.is_some() || !self.not_tags.is_empty()
    }
}

/// Which extensions are on, and how.
#[derive(Clone, Debug, Default)]
pub struct ExtensionsAsk {
    /// Messages for the device (MSC3885).
    pub to_device: Option<ToDeviceAsk>,
    /// Whose devices changed, which keys are left (MSC3884).
    pub e2ee: bool,
    /// Account data (MSC3959).
    pub account_data: Option<Scope>,
    /// Receipts (MSC3960).
    pub receipts: Option<Scope>,
    /// Who is typing (MSC3961).
    pub typing: Option<Scope>,
    /// Thread subscriptions (MSC4308): at most so many.
    pub threads: Option<usize>,
    /// Sticky events (MSC4480).
    pub sticky: Option<StickyAsk>,
}

/// Messages for the device.
#[derive(Clone, Debug, Default)]
pub struct ToDeviceAsk {
    /// The device has all up to here.
    pub since: Option<Received>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// Sticky events.
#[derive(Clone, Debug, Default)]
pub struct StickyAsk {
    /// The device has all up to here.
    pub since: Option<Received>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// For which of the rooms asked for an extension is wanted. Nothing said: for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Names of lists.
    pub lists: Option<BTreeSet<String>>,
    /// Rooms; none stands for all rooms asked for by themselves.
    pub rooms: Option<BTreeSet<Option<OwnedRoomId>>>,
}

impl Scope {
    /// Whether a room is meant that was asked for by these lists, or by itself.
    pub(super) fn covers<'a>(
        &self,
        mut lists: impl Iterator<Item = &'a str>,
        by_itself: Option<&OwnedRoomId>,
    ) -> bool {
        let listed = lists.any(|name| self.lists.as_ref().is_none_or(|lists| lists.contains(name)));
        listed
            || by_itself.is_some_and(|room| {
                let named =
                    |rooms: &BTreeSet<_>| rooms.contains(&None) || rooms.contains(&Some(room.clone()));
                self.rooms.as_ref().is_none_or(named)
            })
    }
}

/// What several parts of a request want of one room together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Combined {
    pub(super) limit: usize,
    states: BTreeSet<WantedState>,
}

const MEMBER: &str = "m.room.member";
/// Parts of what is wanted of one room that are told apart when it changes.
const MARKS: usize = 8;

fn mark<T: Hash + ?Sized>(what: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// Where the wanted state has to be looked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// Everywhere but among the members.
    pub(super) everywhere: bool,
    /// Among all members.
    pub(super) members: bool,
    /// Under every key of these types.
    pub(super) types: BTreeSet<String>,
    /// Type and state key.
    pub(super) keys: BTreeSet<(String, String)>,
}

impl Combined {
    /// A number for each part of what is wanted, or one for all of it if there are many. Marks are remembered where what
    /// they stand for would be too much.
    pub(super) fn marks(&self) -> Arc<[u64]> {
        if self.states.len() > MARKS {
            return Arc::new([mark(&self.states)]);
        }
        self.states.iter().map(mark).collect()
    }

    /// What is wanted beyond what these marks stand for.
    pub(super) fn beyond(&self, marks: &[u64]) -> Self {
        if *self.marks() == *marks {
            return Self::default();
        }
        let is_news = |state: &&WantedState| !marks.contains(&mark(state));
        Self { limit: self.limit, states: self.states.iter().filter(is_news).cloned().collect() }
    }

    /// Whether nothing is wanted.
    pub(super) fn is_nothing(&self) -> bool {
        self.states.is_empty()
    }

    pub(super) fn add(&mut self, ask: &RoomAsk, most: usize) {
        self.limit = self.limit.max(ask.timeline_limit.min(most));
        self.states.insert(ask.state.clone());
    }

    /// Whether members come as the timeline needs them.
    pub(super) fn is_lazy(&self) -> bool {
        self.states.iter().any(|state| state.lazy) && !self.wants_all_members()
    }

    pub(super) fn wants_all_members(&self) -> bool {
        let all = |pattern: &Pattern| pattern.matches(MEMBER, "") && pattern.key.is_none();
        self.states.iter().any(|state| !state.lazy && state.include.iter().any(all))
    }

    /// Whether a state event is wanted for itself, needed or not.
    pub(super) fn wants(&self, kind: &str, key: &str) -> bool {
        let member = kind == MEMBER;
        self.states.iter().any(|state| {
            let include = |pattern: &Pattern| {
                pattern.matches(kind, key) && !(member && state.lazy && pattern.key.is_none())
            };
            state.include.iter().any(include) && !state.exclude.iter().any(|not| not.matches(kind, key))
        })
    }

    pub(super) fn places(&self) -> Places {
        let mut places = Places { members: self.wants_all_members(), ..Places::default() };
        for pattern in self.states.iter().flat_map(|state| &state.include) {
            match (&pattern.kind, &pattern.key) {
                (None, key) => {
                    places.everywhere = true;
                    places.keys.extend(key.iter().map(|key| (MEMBER.to_owned(), key.clone())));
                }
                (Some(kind), None) if kind == MEMBER => {}
                (Some(kind), None) => {
                    places.types.insert(kind.clone());
                }
                (Some(kind), Some(key)) => {
                    places.keys.insert((kind.clone(), key.clone()));
                }
            }
        }
        places
    }
}

/// The two forms in which a state key of the request stands for something else.
pub fn state_key(text: &str, user: &UserId) -> Option<String> {
    match text {
        "*" => None,
        "$ME" => Some(user.to_string()),
        key => Some(key.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Combined, List, Pattern, RoomAsk, Scope, WantedState};

    fn pattern(kind: Option<&str>, key: Option<&str>) -> Pattern {
        Pattern { kind: kind.map(str::to_owned), key: key.map(str::to_owned) }
    }

    fn combined(states: &[WantedState]) -> Combined {
        let mut all = Combined::default();
        for state in states {
            all.add(&RoomAsk { timeline_limit: 5, state: state.clone() }, 3);
        }
        all
    }

    fn including(patterns: &[Pattern], lazy: bool) -> WantedState {
        WantedState { include: patterns.iter().cloned().collect(), lazy, ..WantedState::default() }
    }

    #[test]
    fn windows_may_be_several() {
        let list = List { ranges: Some(vec![(0, 1), (5, usize::MAX)]), ..List::default() };
        assert!(list.has(0) && list.has(1) && !list.has(2) && list.has(5) && list.has(9_999_999));
        assert!(List::default().has(3), "no range: all");
    }

    #[test]
    fn lazy_members_are_wanted_by_name_alone() {
        let lazy = combined(&[including(
            &[pattern(None, None), pattern(Some("m.room.member"), Some("@me:x"))],
            true,
        )]);
        assert!(lazy.is_lazy() && lazy.limit == 3, "limits are capped");
        assert!(lazy.wants("m.room.name", "") && lazy.wants("m.room.member", "@me:x"));
        assert!(!lazy.wants("m.room.member", "@other:x"));
        let both =
            combined(&[including(&[], true), including(&[pattern(Some("m.room.member"), None)], false)]);
        assert!(!both.is_lazy() && both.wants("m.room.member", "@other:x"));
    }

    #[test]
    fn excluded_is_not_told_unless_another_part_asks() {
        let without = WantedState {
            exclude: [pattern(Some("m.room.create"), None)].into(),
            ..including(&[pattern(None, None)], false)
        };
        assert!(!combined(std::slice::from_ref(&without)).wants("m.room.create", ""));
        let with = including(&[pattern(Some("m.room.create"), Some(""))], false);
        assert!(combined(&[without, with]).wants("m.room.create", ""));
    }

    #[test]
    fn only_what_is_asked_is_looked_for() {
        let some = combined(&[including(
            &[pattern(Some("m.space.child"), None), pattern(Some("m.room.name"), Some(""))],
            true,
        )]);
        let places = some.places();
        assert_eq!((places.everywhere, places.types.len(), places.keys.len()), (false, 1, 1));
        let all = combined(&[including(&[pattern(None, None), pattern(None, Some("@me:x"))], true)]);
        let places = all.places();
        assert!(places.everywhere && !places.members);
        assert!(places.keys.contains(&("m.room.member".to_owned(), "@me:x".to_owned())));
        let members = combined(&[including(&[pattern(Some("m.room.member"), None)], false)]).places();
        assert!(members.members && !members.everywhere);
    }

    #[test]
    fn extensions_are_for_lists_and_rooms() {
        let room = ruma::owned_room_id!("!a:x");
        let all = Scope::default();
        assert!(all.covers(["l"].into_iter(), None) && all.covers([].into_iter(), Some(&room)));
        let none = Scope { lists: Some([].into()), rooms: Some([].into()) };
        assert!(!none.covers(["l"].into_iter(), Some(&room)));
        let starred = Scope { lists: Some([].into()), rooms: Some([None].into()) };
        assert!(starred.covers([].into_iter(), Some(&room)) && !starred.covers(["l"].into_iter(), None));
    }
}
