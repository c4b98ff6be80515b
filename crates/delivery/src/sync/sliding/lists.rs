//! Which rooms a request is about: windows on filtered lists, and rooms asked for by themselves.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use chappe_accounts::Scope as AccountScope;
use chappe_store::{EventNum, Membership, Position, RoomNid, state::StateKey};
use quick_cache::{Weighter, sync::Cache};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Turn,
    ask::{Combined, List, ListFilters},
    connection::RoomKey,
    sent::Sent,
    shelf::Row,
};
use crate::{Error, signal::Tags};

/// Rooms of which the traits are remembered, as one expects them, and bytes of all together.
const REMEMBERED: usize = 50_000;
const BYTES: u64 = 16 << 20;
/// Bytes that a room takes beside its type, about.
const BESIDE: usize = 200;
/// Spaces looked into for one list.
const SPACES: usize = 50;

/// A room that a request is about.
pub(super) struct Relevant {
    pub(super) row: Row,
    pub(super) asked: Arc<Combined>,
    /// The marks of the state that is asked for.
    pub(super) marks: Arc<[u64]>,
    /// The lists it is in, by place among their names.
    pub(super) lists: u128,
    /// Its id, if it is asked for by itself.
    pub(super) by_itself: Option<OwnedRoomId>,
}

/// The rooms that a request is about, and how many pass the filters of each list.
pub(super) struct Selection {
    pub(super) rooms: Vec<Relevant>,
    pub(super) counts: BTreeMap<String, usize>,
    /// All rooms that pass the filters of some list, or are asked for by themselves.
    pub(super) interesting: BTreeSet<RoomKey>,
}

/// What lists filter by, of a room.
#[derive(Clone, Debug, Default)]
struct Traits {
    kind: Option<String>,
    encrypted: bool,
}

/// Traits of rooms: the type never changes, encryption never ends.
pub(crate) struct RoomTraits(Cache<RoomNid, (Position, Arc<Traits>), BySize>);

/// Weighs traits by about the bytes that they take up: a type is as long as who made the room wants it.
#[derive(Clone)]
struct BySize;

impl Weighter<RoomNid, (Position, Arc<Traits>)> for BySize {
    fn weight(&self, _: &RoomNid, (_, traits): &(Position, Arc<Traits>)) -> u64 {
        let kind = traits.kind.as_ref().map_or(0, String::len);
        u64::try_from(BESIDE + kind).unwrap_or(u64::MAX)
    }
}

impl Default for RoomTraits {
    fn default() -> Self {
        Self(Cache::with_weighter(REMEMBERED, BYTES, BySize))
    }
}

/// Traits and tags of some of the user's rooms.
#[derive(Default)]
struct Facts {
    traits: HashMap<RoomNid, Arc<Traits>>,
    tags: Arc<Tags>,
}

/// What the answer knows of a row while it chooses.
struct Chosen {
    asked: Combined,
    lists: u128,
    by_itself: Option<OwnedRoomId>,
}

impl Turn<'_> {
    /// Chooses rooms, in the order of their activity.
    pub(super) async fn select(&self, rows: &[Row]) -> Result<Selection, Error> {
        let most = self.work.delivery.0.config.get().timeline_limit;
        let facts = self.facts(rows).await?;
        let mut chosen: BTreeMap<usize, Chosen> = BTreeMap::new();
        let (mut counts, mut interesting) = (BTreeMap::new(), BTreeSet::new());
        for (index, (name, list)) in self.request.lists.iter().enumerate() {
            let spaces = self.children(&list.filters).await?;
            let (mut place, mut count) = (0, 0);
            for (at, row) in rows.iter().enumerate() {
                if !self.is_listed(row) || !self.passes(row, list, &facts, spaces.as_ref()) {
                    continue;
                }
                if self.request.extensions.sticky.is_some() {
                    interesting.insert(row.key.clone());
                }
                if list.has(place) {
                    let chosen = chosen.entry(at).or_insert_with(Chosen::none);
                    chosen.asked.add(&list.ask, most);
                    chosen.lists |= 1_u128.checked_shl(u32::try_from(index).unwrap_or(u32::MAX)).unwrap_or(0);
                }
                place += 1;
                // What the user has left is told and no longer counted.
                count += usize::from(!row.is_over() || row.was_removed);
            }
            counts.insert(name.clone(), count);
        }
        self.add_subscriptions(rows, &mut chosen, &mut interesting).await?;
        let mut shared: HashMap<Combined, (Arc<Combined>, Arc<[u64]>)> = HashMap::new();
        let rooms = chosen.into_iter().map(|(at, chosen)| {
            let share = |asked: &Combined| (Arc::new(asked.clone()), asked.marks());
            let (asked, marks) = shared.entry(chosen.asked).or_insert_with_key(share).clone();
            let (lists, by_itself) = (chosen.lists, chosen.by_itself);
            Relevant { row: rows[at].clone(), asked, marks, lists, by_itself }
        });
        Ok(Selection { rooms: rooms.collect(), counts, interesting })
    }

    async fn add_subscriptions(
        &self,
        rows: &[Row],
        chosen: &mut BTreeMap<usize, Chosen>,
        interesting: &mut BTreeSet<RoomKey>,
    ) -> Result<(), Error> {
        if self.request.subscriptions.is_empty() {
            return Ok(());
        }
        let most = self.work.delivery.0.config.get().timeline_limit;
        let counting = rows.iter().enumerate().filter(|(_, row)| !self.is_outdated(row));
        let places: HashMap<&RoomKey, usize> = counting.map(|(at, row)| (&row.key, at)).collect();
        for (room, ask) in &self.request.subscriptions {
            let here = self.work.reader.room_nid(room).await?.map(RoomKey::Here);
            let elsewhere = RoomKey::Elsewhere(room.clone());
            let place = here.and_then(|key| places.get(&key)).or_else(|| places.get(&elsewhere));
            // A room that the user has no part in is not there.
            let Some(at) = place.copied().filter(|at| self.is_shown(&rows[*at])) else { continue };
            interesting.insert(rows[at].key.clone());
            let chosen = chosen.entry(at).or_insert_with(Chosen::none);
            chosen.asked.add(ask, most);
            chosen.by_itself = Some(room.clone());
        }
        Ok(())
    }

    /// Whether a row is an invite that the user does not want to see.
    fn is_hidden(&self, row: &Row) -> bool {
        let hides = |by: &OwnedUserId| self.personal.settings.hides_invite(by);
        row.membership() == Membership::Invite && row.by.as_ref().is_some_and(hides)
    }

    /// Whether another row of the same room counts instead of this one. The end of an invite counts where the device has to
    /// be told of it.
    fn is_outdated(&self, row: &Row) -> bool {
        let Some(later) = &row.later else { return false };
        if matches!(later.key, RoomKey::Here(_)) || !later.is_over() {
            return !self.is_hidden(later);
        }
        self.known.rooms.contains_key(&later.key) || self.told(later).is_some_and(|sent| !sent.ended)
    }

    /// Whether the user may be told of the room at all.
    fn is_shown(&self, row: &Row) -> bool {
        match row.membership() {
            Membership::Invite => !self.is_hidden(row),
            Membership::Leave | Membership::Ban => {
                matches!(row.key, RoomKey::Here(_)) || self.told(row).is_some()
            }
            Membership::Join | Membership::Knock => true,
        }
    }

    /// Whether the room belongs on the lists: what the user has left by themselves only until the device knows, what
    /// others put them out of always.
    fn is_listed(&self, row: &Row) -> bool {
        if !row.is_over() {
            return self.is_shown(row);
        }
        if self.is_outdated(row) {
            return false;
        }
        row.was_removed || self.told(row).is_some_and(|sent| !sent.ended)
    }

    /// What the device has of a room.
    fn told(&self, row: &Row) -> Option<&Sent> {
        let sent = |key: &RoomKey| self.known.rooms.get(key);
        let before = row.was.and_then(|nid| sent(&RoomKey::Here(nid)));
        sent(&row.key).into_iter().chain(before).max_by_key(|sent| sent.up_to)
    }

    fn passes(&self, row: &Row, list: &List, facts: &Facts, spaces: Option<&BTreeSet<RoomKey>>) -> bool {
        let filters = &list.filters;
        let is = |wanted: Option<bool>, fact: bool| wanted.is_none_or(|wanted| wanted == fact);
        let nid = match &row.key {
            RoomKey::Here(nid) => Some(nid),
            RoomKey::Elsewhere(_) => None,
        };
        let none = Traits::default();
        let traits = nid.and_then(|nid| facts.traits.get(nid)).map_or(&none, Arc::as_ref);
        let tagged = |tags: &BTreeSet<String>| {
            nid.and_then(|nid| facts.tags.get(nid)).is_some_and(|own| !own.is_disjoint(tags))
        };
        is(filters.is_invite, row.membership() == Membership::Invite)
            && is(filters.is_dm, self.direct.contains(&row.key))
            && (!filters.asks_traits() || traits_pass(filters, traits))
            && spaces.is_none_or(|children| children.contains(&row.key))
            && filters.tags.as_ref().is_none_or(tagged)
            && !tagged(&filters.not_tags)
    }

    async fn facts(&self, rows: &[Row]) -> Result<Facts, Error> {
        let mut facts = Facts::default();
        let asks =
            |what: fn(&ListFilters) -> bool| self.request.lists.values().any(|list| what(&list.filters));
        if asks(ListFilters::asks_traits) {
            facts.traits = self.traits(rows).await?;
        }
        if asks(ListFilters::asks_tags) {
            facts.tags = self.tags().await?;
        }
        Ok(facts)
    }

    /// The tags of the user's rooms, read again only after account data or a membership changed.
    async fn tags(&self) -> Result<Arc<Tags>, Error> {
        if let Some(tags) = self.work.signal.tags() {
            return Ok(tags);
        }
        let (accounts, reader) = (&self.work.delivery.0.accounts, self.work.reader);
        let mut tags = Tags::new();
        for item in accounts.account_data_since(reader, &self.request.user, Position(0)).await? {
            let Some(room) = item.room.filter(|_| item.kind == "m.tag") else { continue };
            let Some(nid) = reader.room_nid(&room).await? else { continue };
            tags.insert(nid, tags_of(item.content.get()));
        }
        let tags = Arc::new(tags);
        self.work.signal.remember_tags(self.work.next.position, &tags);
        Ok(tags)
    }

    /// Traits of the rooms: from memory where they are known, else all of them in a few round trips.
    async fn traits(&self, rows: &[Row]) -> Result<HashMap<RoomNid, Arc<Traits>>, Error> {
        let (cache, reader) = (&self.work.delivery.0.room_traits.0, self.work.reader);
        let (mut traits, mut missing) = (HashMap::new(), Vec::new());
        for row in rows {
            let RoomKey::Here(nid) = row.key else { continue };
            match cache.get(&nid).filter(|(as_of, found)| found.encrypted || row.last <= *as_of) {
                Some((_, found)) => {
                    traits.insert(nid, found);
                }
                None => missing.push(nid),
            }
        }
        let encrypted = reader.state_of_rooms(&missing, &StateKey::new("m.room.encryption", "")).await?;
        let created = reader.state_of_rooms(&missing, &StateKey::new("m.room.create", "")).await?;
        let creations: Vec<(RoomNid, EventNum)> =
            missing.iter().zip(created).filter_map(|(nid, num)| Some((*nid, num?))).collect();
        let events = reader.pdus_of(&creations).await?;
        let kinds: HashMap<RoomNid, String> = (creations.iter().zip(events))
            .filter_map(|((nid, _), event)| Some((*nid, kind_of(&event?.json)?)))
            .collect();
        for (nid, encryption) in missing.into_iter().zip(encrypted) {
            let found = Traits { kind: kinds.get(&nid).cloned(), encrypted: encryption.is_some() };
            let found = Arc::new(found);
            cache.insert(nid, (reader.position(), found.clone()));
            traits.insert(nid, found);
        }
        Ok(traits)
    }

    /// The children of the spaces that a filter names, as far as the user is in these.
    async fn children(&self, filters: &ListFilters) -> Result<Option<BTreeSet<RoomKey>>, Error> {
        let Some(spaces) = &filters.spaces else { return Ok(None) };
        let (joined, reader) = (self.work.joined_rooms(), self.work.reader);
        let mut children = BTreeSet::new();
        for space in spaces.iter().take(SPACES) {
            let Some(nid) = reader.room_nid(space).await?.filter(|nid| joined.contains(nid)) else {
                continue;
            };
            children.extend(self.children_of(nid).await?.iter().cloned());
        }
        Ok(Some(children))
    }

    /// The children of a space, read again only after something happened in it or the user's own memberships changed.
    async fn children_of(&self, space: RoomNid) -> Result<Arc<BTreeSet<RoomKey>>, Error> {
        #[derive(Deserialize)]
        struct Child {
            #[serde(default)]
            via: Vec<Value>,
        }
        let (reader, signal) = (self.work.reader, self.work.signal);
        let last = self.work.delivery.0.wake.last_event_known(space);
        let known = signal.children(space).filter(|(as_of, _)| last.is_none_or(|last| last <= *as_of));
        if let Some((_, children)) = known {
            return Ok(children);
        }
        let mut children = BTreeSet::new();
        let view = self.work.delivery.0.rooms.view_at(reader.clone(), space).await?;
        let rows = reader.current_of_type(space, "m.space.child").await?;
        let nums: Vec<EventNum> = rows.iter().map(|(_, num)| *num).collect();
        for ((key, _), event) in rows.iter().zip(view.load(&nums).await?) {
            let is_child = event.pdu.content_as::<Child>().is_some_and(|child| !child.via.is_empty());
            let Some(room) = OwnedRoomId::try_from(&*key.state_key).ok().filter(|_| is_child) else {
                continue;
            };
            children.extend(reader.room_nid(&room).await?.map(RoomKey::Here));
            children.insert(RoomKey::Elsewhere(room));
        }
        let children = Arc::new(children);
        signal.remember_children(self.work.next.position, space, &children);
        Ok(children)
    }

    /// The rooms that the user calls direct chats.
    pub(super) async fn direct_rooms(&self) -> Result<Arc<BTreeSet<RoomKey>>, Error> {
        let (accounts, reader) = (&self.work.delivery.0.accounts, self.work.reader);
        if let Some(direct) = self.work.signal.direct() {
            return Ok(direct);
        }
        let found =
            accounts.account_data(reader, &self.request.user, AccountScope::Global, "m.direct").await?;
        let direct: BTreeMap<String, Vec<OwnedRoomId>> =
            found.and_then(|found| serde_json::from_str(found.get()).ok()).unwrap_or_default();
        let mut keys = BTreeSet::new();
        for room in direct.into_values().flatten() {
            keys.extend(reader.room_nid(&room).await?.map(RoomKey::Here));
            keys.insert(RoomKey::Elsewhere(room));
        }
        let direct = Arc::new(keys);
        self.work.signal.remember_direct(self.work.next.position, &direct);
        Ok(direct)
    }

    /// Names of the lists that a room is in.
    pub(super) fn list_names(&self, lists: u128) -> impl Iterator<Item = &str> {
        let names = self.request.lists.keys().enumerate();
        names.filter(move |(index, _)| *index < 128 && lists & (1 << index) != 0).map(|(_, name)| &**name)
    }
}

impl Chosen {
    fn none() -> Self {
        Self { asked: Combined::default(), lists: 0, by_itself: None }
    }
}

fn traits_pass(filters: &ListFilters, traits: &Traits) -> bool {
    filters.is_encrypted.is_none_or(|wanted| wanted == traits.encrypted)
        && filters.room_types.as_ref().is_none_or(|kinds| kinds.contains(&traits.kind))
        && !filters.not_room_types.contains(&traits.kind)
}

fn kind_of(json: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Create {
        content: Content,
    }
    #[derive(Deserialize)]
    struct Content {
        r#type: String,
    }
    serde_json::from_str::<Create>(json).ok().map(|create| create.content.r#type)
}

fn tags_of(content: &str) -> BTreeSet<String> {
    #[derive(Default, Deserialize)]
    struct Tags {
        #[serde(default)]
        tags: BTreeMap<String, Value>,
    }
    serde_json::from_str::<Tags>(content).unwrap_or_default().tags.into_keys().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_types_of_rooms_are_remembered_of_fewer() {
        let remembered = RoomTraits::default();
        let long = Arc::new(Traits { kind: Some("x".repeat(30_000)), encrypted: false });
        let plain = Arc::new(Traits { kind: None, encrypted: true });
        for nid in 0..10_000 {
            remembered.0.insert(RoomNid(nid), (Position(1), plain.clone()));
        }
        assert_eq!(remembered.0.len(), 10_000);
        for nid in 10_000..12_000 {
            remembered.0.insert(RoomNid(nid), (Position(1), long.clone()));
        }
        let kept = (10_000..12_000).filter(|nid| remembered.0.get(&RoomNid(*nid)).is_some()).count();
        assert!(kept > 0 && u64::try_from(kept * 30_000).unwrap() <= BYTES, "{kept} long types");
    }
}
