//! Which service is interested in what. For each service and room there is a number of users; nobody's members are looked
//! through.
//!
//! Specification: application service API, "Registration", the description of the namespaces.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use chappe_rules::appservice::{Registration, Registrations};
use chappe_store::{
    Cursors, Error, Json, Membership, Reader, RoomNid, Store, Tx,
    members::UserRooms,
    services::{ServiceHead, ServiceHeads, ServiceRooms},
};
use ruma::{OwnedRoomId, RoomId, UserId};

use crate::follow::CURSOR;

/// Rows read at once.
const PAGE: usize = 1_000;
/// Counts written in one commit.
const AT_ONCE: usize = 10_000;

/// What was decided about the services when the server started.
pub(crate) struct Interest {
    services: Registrations,
    heads: HashMap<String, ServiceHead>,
}

impl Interest {
    /// Forgets services that are no more, and counts the users in rooms of those that are new or whose users are others
    /// now.
    pub(crate) async fn open(store: &Store, services: &Registrations) -> Result<Self, Error> {
        let known: HashMap<String, ServiceHead> = {
            let rows = store.read().scan_all::<ServiceHeads>(&()).await?;
            rows.into_iter().map(|(id, Json(head))| (id, head)).collect()
        };
        for gone in known.keys().filter(|id| services.get(id).is_none()) {
            tracing::warn!(
                service = gone,
                "there is no such application service any more, its queue is dropped"
            );
            let mut tx = Tx::new();
            tx.forget_service(gone);
            store.commit(tx).await?;
        }
        open_cursor(store, services).await?;
        let mut heads = HashMap::new();
        for service in services {
            let head = match known.get(&service.id) {
                Some(head) if head.users == users_mark(service) => head.clone(),
                old => count(store, service, old).await?,
            };
            heads.insert(service.id.clone(), head);
        }
        Ok(Self { services: services.clone(), heads })
    }

    pub(crate) fn services(&self) -> &Registrations {
        &self.services
    }

    /// What happened up to this commit is not for a service.
    pub(crate) fn begun(&self, service: &Registration) -> u64 {
        self.heads.get(&service.id).map_or(0, |head| head.begun)
    }

    /// Comings and goings up to this commit are counted already.
    pub(crate) fn counted(&self, service: &Registration) -> u64 {
        self.heads.get(&service.id).map_or(0, |head| head.counted)
    }
}

/// The follower begins now, or not at all: a place that it will never leave would keep the log for ever.
async fn open_cursor(store: &Store, services: &Registrations) -> Result<(), Error> {
    let (name, reader) = (CURSOR.to_owned(), store.read());
    let known = reader.get::<Cursors>(&name).await?;
    let now = reader.position().0;
    drop(reader);
    let mut tx = Tx::new();
    match known {
        Some(_) if services.is_empty() => tx.delete::<Cursors>(&name),
        None if !services.is_empty() => tx.put::<Cursors>(&name, &now),
        _ => return Ok(()),
    };
    store.commit(tx).await.map(drop)
}

/// Tells apart what a service's users are. Another value after an update of the compiler costs a count.
fn users_mark(service: &Registration) -> u64 {
    let mut hasher = DefaultHasher::new();
    service.sender.as_str().hash(&mut hasher);
    for users in &service.namespaces.users {
        users.expression().hash(&mut hasher);
    }
    hasher.finish().max(1)
}

async fn count(
    store: &Store,
    service: &Arc<Registration>,
    old: Option<&ServiceHead>,
) -> Result<ServiceHead, Error> {
    // A count that is interrupted is begun anew.
    let unfinished = ServiceHead { users: 0, ..old.cloned().unwrap_or_default() };
    let mut tx = Tx::new();
    tx.delete_prefix::<ServiceRooms>(&service.id);
    tx.put::<ServiceHeads>(&service.id, &Json(unfinished.clone()));
    store.commit(tx).await?;
    let reader = store.read();
    let at = reader.position().0;
    let rooms: Vec<(RoomNid, u64)> = users_by_room(&reader, service).await?.into_iter().collect();
    drop(reader);
    for chunk in rooms.chunks(AT_ONCE) {
        let mut tx = Tx::new();
        for (nid, users) in chunk {
            tx.put::<ServiceRooms>(&(service.id.clone(), *nid), users);
        }
        store.commit(tx).await?;
    }
    let begun = old.map_or(at, |old| old.begun);
    let head = ServiceHead { users: users_mark(service), counted: at, begun, ..unfinished };
    let mut tx = Tx::new();
    tx.put::<ServiceHeads>(&service.id, &Json(head.clone()));
    store.commit(tx).await?;
    Ok(head)
}

async fn users_by_room(reader: &Reader<'_>, service: &Registration) -> Result<BTreeMap<RoomNid, u64>, Error> {
    let mut rooms: BTreeMap<RoomNid, u64> = BTreeMap::new();
    let mut page = reader.scan_from::<UserRooms>(&(), &String::new(), PAGE).await?;
    while let Some(((user, nid), _)) = page.last().cloned() {
        for ((user, nid), at) in &page {
            if at.value.membership == Membership::Join && service.covers_user(user) {
                *rooms.entry(*nid).or_default() += 1;
            }
        }
        let next = (user, RoomNid(nid.0.saturating_add(1)));
        page = reader.scan_from::<UserRooms>(&(), &next, PAGE).await?;
    }
    Ok(rooms)
}

/// Whether a room concerns a service that has `users` users in it, by these or by its namespaces.
pub(crate) async fn concerns(
    reader: &Reader<'_>,
    service: &Registration,
    users: u64,
    (nid, room): (RoomNid, &RoomId),
) -> Result<bool, Error> {
    if users > 0 || service.covers_room(room) {
        return Ok(true);
    }
    if service.namespaces.aliases.is_empty() {
        return Ok(false);
    }
    Ok(reader.aliases_of(nid).await?.iter().any(|alias| service.covers_alias(alias)))
}

/// Whether a user is one of a service's or shares a room with one of them. Costs the user's rooms.
pub(crate) async fn knows(reader: &Reader<'_>, service: &Registration, user: &UserId) -> Result<bool, Error> {
    if service.covers_user(user) {
        return Ok(true);
    }
    let rooms: Vec<RoomNid> = if user.server_name() == service.sender.server_name() {
        let rooms = reader.user_rooms(user).await?.into_iter();
        rooms.filter(|(_, at)| at.value.membership == Membership::Join).map(|(nid, _)| nid).collect()
    } else {
        reader.remote_rooms(user, usize::MAX).await?
    };
    for rooms in rooms.chunks(PAGE) {
        let keys: Vec<(String, RoomNid)> = rooms.iter().map(|nid| (service.id.clone(), *nid)).collect();
        if reader.get_many::<ServiceRooms>(&keys).await?.iter().any(Option::is_some) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Names of rooms, looked up once.
#[derive(Default)]
pub(crate) struct RoomNames(HashMap<RoomNid, OwnedRoomId>);

impl RoomNames {
    pub(crate) async fn name(&mut self, reader: &Reader<'_>, nid: RoomNid) -> Result<OwnedRoomId, Error> {
        if let Some(name) = self.0.get(&nid) {
            return Ok(name.clone());
        }
        let name = reader.room_id(nid).await?;
        self.0.insert(nid, name.clone());
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chappe_kv::{Counting, Db, Memory, RoundTrips};
    use chappe_store::{
        EventNum, Membership, RoomHead, RoomNid, Store, Tx, members::MemberChange, services::ServiceRooms,
    };
    use chappe_world::Guard;
    use ruma::{RoomVersionId, owned_user_id, server_name, user_id};

    use super::knows;
    use crate::registration::read_registrations;

    const BRIDGE: &str = "
id: bridge
url: null
as_token: a
hs_token: b
sender_localpart: bot
namespaces: { users: [], aliases: [], rooms: [] }
";

    #[tokio::test]
    async fn whom_a_large_bridge_does_not_meet_costs_one_look() {
        let files = [("bridge.yaml".to_owned(), BRIDGE.to_owned())];
        let services = read_registrations(&files, server_name!("a.fr"), &Guard::new(Vec::new())).unwrap();
        let bridge = services.get("bridge").unwrap();
        let trips = Arc::new(RoundTrips::default());
        let store = Store::new(Db::new(Counting::new(Memory::default(), trips.clone())));
        let mut tx = Tx::new();
        for nid in 1..=5_000 {
            tx.put::<ServiceRooms>(&(bridge.id.clone(), RoomNid(nid)), &1);
        }
        let mut head = RoomHead::new(RoomVersionId::V11);
        let (user, new) = (owned_user_id!("@met:b.fr"), Some((Membership::Join, EventNum(1))));
        tx.change_member(RoomNid(4_000), &mut head, &MemberChange { user, local: false, old: None, new });
        store.commit(tx).await.unwrap();
        let reader = store.read();
        let _ = trips.take();
        assert!(!knows(&reader, bridge, user_id!("@made_up:b.fr")).await.unwrap());
        let (gets, scans, _) = trips.take();
        assert!(gets + scans <= 1, "{gets} and {scans}");
        assert!(knows(&reader, bridge, user_id!("@met:b.fr")).await.unwrap());
    }
}
