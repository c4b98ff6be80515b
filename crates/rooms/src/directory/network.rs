//! One list of the public rooms of all servers of the network: those of this one as they are, those of the others as they
//! were a moment ago.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, ServerName, UInt,
    api::federation::directory::get_public_rooms_filtered,
    directory::{PublicRoomsChunk, RoomNetwork},
};
use tokio::time::Instant;

use super::public::{Since, matches, page_of};
use crate::{Inner, PublicRooms, PublicRoomsRequest, Result, Rooms};

/// For how long a list of another server is good.
const FRESH: Duration = Duration::from_mins(1);
/// For how long it is shown all the same while its server does not answer.
const STALE: Duration = Duration::from_hours(1);
/// Rooms of one question, and questions to one server.
const PAGE: u32 = 500;
const PAGES: usize = 4;
/// Servers asked at the same time.
const AT_ONCE: usize = 32;
/// How long somebody waits for lists to be renewed.
const PATIENCE: Duration = Duration::from_secs(3);
/// Letters of a name and of a topic that are kept.
const NAME: usize = 255;
const TOPIC: usize = 1_000;
/// Longest address of a picture, type or join rule, and token of a page, in bytes: rooms with longer ones are left out.
const ADDRESS: usize = 1_024;
const WORD: usize = 255;
const TOKEN: usize = 1_024;

/// The lists of the other servers.
#[derive(Default)]
pub(crate) struct Lists {
    kept: Mutex<BTreeMap<OwnedServerName, Kept>>,
    /// Held while lists are renewed: one does it for all who wait.
    renewing: tokio::sync::Mutex<()>,
}

/// The list of one server.
#[derive(Clone)]
struct Kept {
    rooms: Arc<Vec<PublicRoomsChunk>>,
    /// When it was given, and when the server was asked last.
    given: Instant,
    asked: Instant,
}

impl Lists {
    /// Of these servers, those whose lists are old.
    fn old(&self, servers: &[OwnedServerName], now: Instant) -> Vec<OwnedServerName> {
        let kept = self.kept.lock();
        let is_old = |server: &&OwnedServerName| {
            kept.get(*server).is_none_or(|kept| now.saturating_duration_since(kept.asked) >= FRESH)
        };
        servers.iter().filter(is_old).cloned().collect()
    }

    fn keep(&self, server: &ServerName, given: Option<Vec<PublicRoomsChunk>>, now: Instant) {
        let mut kept = self.kept.lock();
        match (given, kept.get_mut(server)) {
            (Some(rooms), _) => {
                let rooms = Arc::new(rooms);
                kept.insert(server.to_owned(), Kept { rooms, given: now, asked: now });
            }
            (None, Some(known)) => known.asked = now,
            (None, None) => {
                let rooms = Arc::default();
                kept.insert(server.to_owned(), Kept { rooms, given: now, asked: now });
            }
        }
    }

    /// What is kept of these servers.
    fn all(
        &self,
        servers: &[OwnedServerName],
        now: Instant,
    ) -> Vec<(OwnedServerName, Arc<Vec<PublicRoomsChunk>>)> {
        let mut kept = self.kept.lock();
        kept.retain(|server, _| servers.contains(server));
        let good = |kept: &Kept| now.saturating_duration_since(kept.given) < STALE;
        let lists = kept.iter().filter(|(_, kept)| good(kept));
        lists.map(|(server, kept)| (server.clone(), Arc::clone(&kept.rooms))).collect()
    }

    /// The servers that list a room.
    fn listing(&self, room: &RoomId) -> Vec<OwnedServerName> {
        let kept = self.kept.lock();
        let lists = |kept: &Kept| kept.rooms.iter().any(|listed| listed.room_id == room);
        kept.iter().filter(|(_, kept)| lists(kept)).map(|(server, _)| server.clone()).collect()
    }
}

impl Inner {
    /// Whether a server is one of externals, by the access rules of the network.
    pub(crate) fn is_external(&self, server: &ServerName) -> bool {
        self.access().is_some_and(|access| access.is_external(server))
    }
}

impl Rooms {
    /// The other servers of the network whose people and rooms are found from here, as far as their names are known; none
    /// where there is no such directory: it is for servers of agents in a closed network.
    pub fn neighbours(&self) -> Option<Vec<OwnedServerName>> {
        let access = self.0.access()?;
        let agents = |server: &OwnedServerName| *server != self.0.server && !access.is_external(server);
        Some(self.0.peers.members()?.into_iter().filter(agents).collect())
    }

    /// The other servers of a closed network, as far as their names are known; empty in an open one.
    pub fn network_members(&self) -> Vec<OwnedServerName> {
        let members = self.0.peers.members().unwrap_or_default().into_iter();
        members.filter(|server| *server != self.0.server).collect()
    }

    /// Whether a server is one of externals, by the access rules of the network.
    pub fn is_external(&self, server: &ServerName) -> bool {
        self.0.is_external(server)
    }

    /// A page of the public rooms of this server and of all others of the network.
    pub(super) async fn network_rooms(
        &self,
        request: &PublicRoomsRequest,
        servers: &[OwnedServerName],
    ) -> Result<PublicRooms> {
        let since = request.since.as_deref().map(Since::<OwnedRoomId>::parse).transpose()?;
        self.renew_lists(servers).await;
        let own = self.listed(&RoomNetwork::All, None).await?;
        let own: Vec<PublicRoomsChunk> =
            own.iter().map(|(_, _, summary)| summary.room.clone().into()).collect();
        let lists = self.0.lists.all(servers, self.0.world.instant());
        let mut known: BTreeSet<&RoomId> = own.iter().map(|room| &*room.room_id).collect();
        let mut rooms: Vec<&PublicRoomsChunk> = own.iter().collect();
        let at_home =
            |server: &ServerName, room: &PublicRoomsChunk| room.room_id.server_name() == Some(server);
        // What a room is called, its own server knows best.
        for home in [true, false] {
            for (server, list) in &lists {
                for room in list.iter().filter(|room| at_home(server, room) == home) {
                    if known.insert(&room.room_id) {
                        rooms.push(room);
                    }
                }
            }
        }
        let total = rooms.len() as u64;
        rooms.retain(|room| matches(&request.filter, room));
        rooms.sort_unstable_by_key(|room| (Reverse(room.num_joined_members), &*room.room_id));
        let place =
            |room: &&PublicRoomsChunk| (Reverse(u64::from(room.num_joined_members)), room.room_id.clone());
        let (range, next, prev) = page_of(&rooms, since, request.limit, place);
        let chunk = rooms[range].iter().map(|room| (*room).clone()).collect();
        Ok(PublicRooms { chunk, next_batch: next, prev_batch: prev, total: Some(total) })
    }

    /// Servers through which a room may be entered that is only known from the list of the network.
    pub(crate) fn listed_at(&self, room: &RoomId) -> Vec<OwnedServerName> {
        if self.neighbours().is_none() { Vec::new() } else { self.0.lists.listing(room) }
    }

    /// Has those asked for their lists whose lists are old, and waits for it a moment.
    async fn renew_lists(&self, servers: &[OwnedServerName]) {
        let world = &self.0.world;
        if self.0.lists.old(servers, world.instant()).is_empty() {
            return;
        }
        let (rooms, servers) = (self.clone(), servers.to_vec());
        let renewed = world.spawn("public rooms of the network", async move {
            let (lists, world) = (&rooms.0.lists, &rooms.0.world);
            // Others who come meanwhile wait for the same.
            let _alone = lists.renewing.lock().await;
            let asking = stream::iter(lists.old(&servers, world.instant())).map(|server| {
                let rooms = rooms.clone();
                async move {
                    let list = rooms.list_of(&server).await;
                    rooms.0.lists.keep(&server, list, rooms.0.world.instant());
                }
            });
            asking.buffer_unordered(AT_ONCE).collect::<()>().await;
        });
        let _ = world.timeout(PATIENCE, renewed).await;
    }

    /// The public rooms of another server, the biggest first; none if it does not answer.
    async fn list_of(&self, server: &ServerName) -> Option<Vec<PublicRoomsChunk>> {
        let mut rooms = Vec::new();
        let mut request = get_public_rooms_filtered::v1::Request::new();
        for _ in 0..PAGES {
            request.limit = Some(UInt::from(PAGE));
            let answer = match self.0.peers.listed(server, request.clone()).await {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::debug!(%server, %error, "no list of public rooms");
                    return None;
                }
            };
            let page = answer.chunk.into_iter().take(PAGE as usize);
            rooms.extend(page.filter_map(shortened));
            request.since = answer.next_batch.filter(|token| token.len() <= TOKEN);
            if request.since.is_none() {
                break;
            }
        }
        Some(rooms)
    }
}

/// A room as it is kept; none of which something is too long that cannot be cut.
fn shortened(mut room: PublicRoomsChunk) -> Option<PublicRoomsChunk> {
    let picture = room.avatar_url.as_ref().map_or(0, |url| url.as_str().len());
    let kind = room.room_type.as_ref().map_or(0, |kind| kind.as_str().len());
    if picture > ADDRESS || kind > WORD || room.join_rule.as_str().len() > WORD {
        return None;
    }
    let cut = |text: String, most: usize| text.chars().take(most).collect::<String>();
    room.name = room.name.map(|name| cut(name, NAME));
    room.topic = room.topic.map(|topic| cut(topic, TOPIC));
    Some(room)
}

#[cfg(test)]
mod tests {
    use ruma::directory::PublicRoomsChunk;
    use serde_json::{Value, json};

    use super::shortened;

    #[test]
    fn rooms_are_kept_that_say_little() {
        let room = |more: (&str, String)| -> PublicRoomsChunk {
            let mut room = json!({
                "room_id": "!a:b.test", "num_joined_members": 1, "world_readable": false, "guest_can_join": false,
            });
            room[more.0] = Value::from(more.1);
            serde_json::from_value(room).unwrap()
        };
        for (field, fits, text) in [
            ("name", true, "x".repeat(9_999)),
            ("topic", true, "x".repeat(9_999)),
            ("avatar_url", true, format!("mxc://b.test/{}", "x".repeat(900))),
            ("avatar_url", false, format!("mxc://b.test/{}", "x".repeat(9_999))),
            ("join_rule", false, "x".repeat(9_999)),
            ("room_type", false, "x".repeat(9_999)),
        ] {
            let kept = shortened(room((field, text)));
            assert_eq!(kept.is_some(), fits, "{field}");
            assert!(kept.is_none_or(|room| serde_json::to_string(&room).unwrap().len() < 1_200), "{field}");
        }
    }
}
