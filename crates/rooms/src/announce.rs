//! Changed names and pictures, told in the rooms of their user.
//!
//! A change is written down together with the note that rooms are to be told, which stays until they are. What a stop breaks
//! off is begun anew: rooms that know already are passed over. A newer change ends the telling of an older one.

use std::{collections::HashSet, time::Duration};

use chappe_rules::policy_server::{PolicyServer, state_key};
use chappe_store::{Membership, RoomNid};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use crate::{Actor, Error, PeerError, Result, Rooms, waits::Waits};

/// Rooms of one user that are told side by side.
const OF_ONE: usize = 4;
/// Rooms of all users that are told side by side, in the order in which they were asked for.
const OF_ALL: usize = 16;
/// Rooms of all users whose policy servers are asked side by side.
const ASKING: usize = 4;
/// How long rooms that cannot be told are tried again.
const INSISTED: Duration = Duration::from_hours(24);
/// What rooms show of a profile.
const SHOWN: [&str; 2] = ["displayname", "avatar_url"];

/// Whose changes are being told.
pub(crate) struct Announcing {
    under_way: Mutex<HashSet<OwnedUserId>>,
    places: Semaphore,
    /// For rooms with a policy server, which may let them wait.
    asking: Semaphore,
    /// Whose changes could not be told everywhere of late.
    failing: Waits<OwnedUserId>,
}

impl Default for Announcing {
    fn default() -> Self {
        Self {
            under_way: Mutex::default(),
            places: Semaphore::new(OF_ALL),
            asking: Semaphore::new(ASKING),
            failing: Waits::default(),
        }
    }
}

/// A user whose changes are being told, for as long as that lasts, however it ends.
struct UnderWay(Rooms, OwnedUserId);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.announcing.under_way.lock().remove(&self.1);
    }
}

/// Whether to go on with a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It is told.
    Yes,
    /// There is a newer one, or the server stops.
    Overtaken,
}

/// A room that is to be told.
struct Untold {
    room: OwnedRoomId,
    /// Whether its policy server is asked first.
    asks: bool,
}

/// Whether a room may be told another time that could not be told now.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Store(_) | Error::Retry | Error::Unasked(_) => true,
        Error::PolicyServer(error) => matches!(error, PeerError::Unreachable(_)),
        _ => false,
    }
}

impl Rooms {
    /// Tells the rooms that a user is in of a changed name or picture: starts the work and answers at once.
    pub fn announce_profile(&self, user: OwnedUserId) {
        self.0.announcing.failing.worked(&user);
        self.begin_announcing(user);
    }

    fn begin_announcing(&self, user: OwnedUserId) {
        if !self.0.announcing.under_way.lock().insert(user.clone()) {
            // Whoever tells of an older change sees that there is a newer one.
            return;
        }
        let (rooms, under_way) = (self.clone(), UnderWay(self.clone(), user.clone()));
        drop(self.0.world.spawn("profile announcement", async move {
            let done = rooms.announce_all(&user).await;
            drop(under_way);
            if let Err(error) = done {
                tracing::warn!(%user, %error, "rooms were not told of a changed profile yet");
            } else if rooms.has_news(&user).await {
                // It came after the last look.
                rooms.begin_announcing(user);
            }
        }));
    }

    /// Goes on with changes of which not all rooms were told, less and less often, and for a day. Meant to be called when
    /// the server starts and every few minutes.
    pub async fn resume_announcements(&self) -> Result<()> {
        for user in self.0.accounts.unannounced().await? {
            if !self.0.announcing.failing.holds(&user, self.0.world.instant()) {
                self.begin_announcing(user);
            }
        }
        Ok(())
    }

    async fn has_news(&self, user: &UserId) -> bool {
        !self.0.world.is_stopping() && matches!(self.0.accounts.profile_news(user).await, Ok(Some(_)))
    }

    async fn announce_all(&self, user: &UserId) -> Result<()> {
        while let Some(change) = self.0.accounts.profile_news(user).await? {
            match self.tell_rooms(user, change).await {
                Ok(Told::Yes) => self.0.accounts.announced(user, change).await?,
                Ok(Told::Overtaken) if self.0.world.is_stopping() => return Ok(()),
                Ok(Told::Overtaken) => {}
                Err(error) => {
                    let failing = self.0.announcing.failing.failed(user.to_owned(), self.0.world.instant());
                    if failing <= INSISTED {
                        return Err(error);
                    }
                    tracing::warn!(%user, %error, "some rooms are never told of a changed profile");
                    self.0.accounts.announced(user, change).await?;
                }
            }
        }
        self.0.announcing.failing.worked(user);
        Ok(())
    }

    async fn tell_rooms(&self, user: &UserId, change: u64) -> Result<Told> {
        let joined = self.0.store.read().user_rooms(user).await?.into_iter();
        let joined = joined.filter(|(_, at)| at.value.membership == Membership::Join);
        let joined: Vec<RoomNid> =
            joined.map(|(nid, _)| nid).take(self.config().profile_rooms_limit).collect();
        let content = self.0.member_content(user, "join", None).await?;
        let telling = joined.into_iter().map(|nid| {
            let (rooms, user, content) = (self.clone(), user.to_owned(), content.clone());
            async move { rooms.tell_room(nid, &user, change, content).await }
        });
        let mut telling = std::pin::pin!(stream::iter(telling).buffer_unordered(OF_ONE));
        let mut done = Ok(Told::Yes);
        while let Some(told) = telling.next().await {
            match told {
                Ok(Told::Yes) => {}
                Ok(Told::Overtaken) => return Ok(Told::Overtaken),
                Err(error) => {
                    tracing::debug!(%user, %error, "profile not announced in a room");
                    if is_passing(&error) {
                        done = Err(error);
                    }
                }
            }
        }
        done
    }

    async fn tell_room(
        &self,
        nid: RoomNid,
        user: &UserId,
        change: u64,
        content: Map<String, Value>,
    ) -> Result<Told> {
        let untold = {
            let _place = self.0.announcing.places.acquire().await.map_err(|_| Error::Retry)?;
            if self.is_overtaken(user, change).await? {
                return Ok(Told::Overtaken);
            }
            self.untold(nid, user, &content).await?
        };
        let Some(Untold { room, asks }) = untold else { return Ok(Told::Yes) };
        let places = if asks { &self.0.announcing.asking } else { &self.0.announcing.places };
        let _place = places.acquire().await.map_err(|_| Error::Retry)?;
        if self.is_overtaken(user, change).await? {
            return Ok(Told::Overtaken);
        }
        if asks {
            self.0.expect_policy_server(&room).await?;
        }
        self.submit_member(&Actor::user(user), &room, user, content).await?;
        Ok(Told::Yes)
    }

    async fn is_overtaken(&self, user: &UserId, change: u64) -> Result<bool> {
        Ok(self.0.world.is_stopping() || self.0.accounts.profile_news(user).await? != Some(change))
    }

    /// The room, if it has the user and shows something else of them.
    async fn untold(
        &self,
        nid: RoomNid,
        user: &UserId,
        content: &Map<String, Value>,
    ) -> Result<Option<Untold>> {
        let view = self.view_of(nid).await?;
        let now = view.current("m.room.member".into(), user.as_str()).await?;
        let now: Map<String, Value> = now.and_then(|event| event.pdu.content_as()).unwrap_or_default();
        let (kind, key) = state_key();
        let policy = view.current(kind, &key).await?;
        let asks = policy.is_some_and(|event| PolicyServer::of(&event.pdu).is_some());
        let room = view.room_id.clone();
        drop(view);
        // Whoever has left meanwhile is not joined again: the rules refuse a join that nobody allowed, and an open room is
        // asked first.
        let is_joined = self.standpoint(user, &room).await?.is(Membership::Join);
        let is_told = SHOWN.iter().all(|field| now.get(*field) == content.get(*field));
        Ok((is_joined && !is_told).then_some(Untold { room, asks }))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        panic::resume_unwind,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    use chappe_accounts::NewUser;
    use chappe_kv::{Batch, Db, Fault, Faulty, Memory};
    use parking_lot::Mutex;
    use ruma::{OwnedRoomId, RoomId, UserId, serde::Base64, server_name, user_id};
    use serde_json::{Value, json};

    use super::{OF_ONE, Told};
    use crate::{
        Error, PeerError, Rooms,
        tests::net::{Net, actor, room, rooms_without_answer, state},
    };

    fn alice() -> &'static UserId {
        user_id!("@alice:a.example")
    }

    fn server(net: &Net, db: &Db) -> Rooms {
        net.server_on("a.example", 1, db.clone())
    }

    /// Alice with an account, in so many rooms.
    async fn alice_in(rooms: &Rooms, count: usize) -> Vec<OwnedRoomId> {
        let new = NewUser { localpart: Some("alice".to_owned()), ..NewUser::default() };
        rooms.0.accounts.create_user(new).await.unwrap();
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(room(rooms, alice().as_str(), json!({ "preset": "private_chat" })).await);
        }
        ids
    }

    async fn call(rooms: &Rooms, name: &str) -> u64 {
        rooms.0.accounts.set_profile_field(alice(), "displayname", Some(&json!(name))).await.unwrap();
        rooms.0.accounts.profile_news(alice()).await.unwrap().unwrap()
    }

    async fn name_in(rooms: &Rooms, id: &RoomId) -> Option<String> {
        let view = rooms.view(id).await.unwrap();
        let event = view.current("m.room.member".into(), alice().as_str()).await.unwrap().unwrap();
        let content: serde_json::Map<String, Value> = event.pdu.content_as().unwrap();
        content.get("displayname").and_then(Value::as_str).map(str::to_owned)
    }

    async fn head_of(rooms: &Rooms, id: &RoomId) -> u32 {
        rooms.view(id).await.unwrap().head.next_event
    }

    async fn until_told(rooms: &Rooms) {
        while rooms.0.accounts.profile_news(alice()).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_room_holds_no_other_up_and_the_last_name_counts() {
        let rooms = server(&Net::default(), &Db::new(Memory::default()));
        let ids = alice_in(&rooms, 12).await;
        let turn = rooms.0.turn(&ids[0]).await;
        call(&rooms, "Alice").await;
        rooms.announce_profile(alice().to_owned());
        for id in &ids[1..] {
            while name_in(&rooms, id).await.as_deref() != Some("Alice") {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        assert_ne!(name_in(&rooms, &ids[0]).await.as_deref(), Some("Alice"));
        call(&rooms, "Alice B.").await;
        rooms.announce_profile(alice().to_owned());
        drop(turn);
        until_told(&rooms).await;
        for id in &ids {
            assert_eq!(name_in(&rooms, id).await.as_deref(), Some("Alice B."));
        }
    }

    #[tokio::test]
    async fn an_older_change_is_told_nowhere_once_there_is_a_newer_one() {
        let rooms = server(&Net::default(), &Db::new(Memory::default()));
        let ids = alice_in(&rooms, 3).await;
        let before = head_of(&rooms, &ids[0]).await;
        let (old, new) = (call(&rooms, "Old").await, call(&rooms, "New").await);
        assert_eq!(rooms.tell_rooms(alice(), old).await.unwrap(), Told::Overtaken);
        assert_eq!(head_of(&rooms, &ids[0]).await, before);
        rooms.0.accounts.announced(alice(), old).await.unwrap();
        assert_eq!(
            rooms.0.accounts.profile_news(alice()).await.unwrap(),
            Some(new),
            "the newer one is to be told"
        );
        assert_eq!(rooms.tell_rooms(alice(), new).await.unwrap(), Told::Yes);
        assert_eq!(name_in(&rooms, &ids[2]).await.as_deref(), Some("New"));
    }

    #[tokio::test(start_paused = true)]
    async fn telling_goes_on_after_a_restart_where_it_is_still_news() {
        let (net, db) = (Net::default(), Db::new(Memory::default()));
        let rooms = server(&net, &db);
        let ids = alice_in(&rooms, 2).await;
        let change = call(&rooms, "Alice").await;
        let content = rooms.0.member_content(alice(), "join", None).await.unwrap();
        let nid = rooms.number(&ids[0]).await.unwrap().unwrap();
        rooms.tell_room(nid, alice(), change, content).await.unwrap();
        let told = head_of(&rooms, &ids[0]).await;
        let rooms = server(&net, &db);
        rooms.resume_announcements().await.unwrap();
        until_told(&rooms).await;
        assert_eq!(name_in(&rooms, &ids[1]).await.as_deref(), Some("Alice"));
        assert_eq!(head_of(&rooms, &ids[0]).await, told, "who knows is not told again");
        assert!(rooms.0.accounts.unannounced().await.unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_policy_server_that_never_answers_is_asked_less_and_less_and_given_up() {
        let net = Net::default();
        let rooms = server(&net, &Db::new(Memory::default()));
        alice_in(&rooms, 0).await;
        let asked = rooms_without_answer(&net, &rooms, alice().as_str(), 8).await;
        call(&rooms, "Alice").await;
        for _ in 0..27 * 12 {
            rooms.resume_announcements().await.unwrap();
            while !rooms.0.announcing.under_way.lock().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::advance(Duration::from_mins(5)).await;
        }
        let asked = asked.load(Ordering::Relaxed);
        assert!((5..20 * OF_ONE).contains(&asked), "{asked}");
        assert_eq!(rooms.0.accounts.profile_news(alice()).await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_is_set_back_has_no_room_wait_for_longer() {
        let net = Net::default();
        let rooms = server(&net, &Db::new(Memory::default()));
        alice_in(&rooms, 0).await;
        let asked = rooms_without_answer(&net, &rooms, alice().as_str(), 1).await;
        call(&rooms, "Alice").await;
        rooms.0.world.set_clock_ahead(Duration::from_hours(24));
        assert!(rooms.announce_all(alice()).await.is_err());
        let before = asked.load(Ordering::Relaxed);
        rooms.0.world.set_clock_ahead(Duration::ZERO);
        tokio::time::advance(Duration::from_mins(6)).await;
        rooms.resume_announcements().await.unwrap();
        while !rooms.0.announcing.under_way.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(asked.load(Ordering::Relaxed), before + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn telling_begins_anew_where_it_broke_down() {
        let breaks = Arc::new(AtomicBool::new(false));
        let broken = breaks.clone();
        let plan = move |_: &Batch| -> Option<Fault> {
            if broken.swap(false, Ordering::Relaxed) {
                resume_unwind(Box::new("it breaks down"));
            }
            None
        };
        let db = Db::new(Faulty::new(Memory::default(), Arc::new(Mutex::new(plan))));
        let rooms = server(&Net::default(), &db);
        alice_in(&rooms, 0).await;
        call(&rooms, "Alice").await;
        breaks.store(true, Ordering::Relaxed);
        rooms.announce_profile(alice().to_owned());
        while breaks.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        rooms.announce_profile(alice().to_owned());
        assert!(rooms.0.world.timeout(Duration::from_mins(1), until_told(&rooms)).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_that_cannot_be_told_now_is_told_later_and_keeps_no_other_from_being_told() {
        let net = Net::default();
        let (rooms, judge) = (
            server(&net, &Db::new(Memory::default())),
            net.server_on("p.example", 2, Db::new(Memory::default())),
        );
        let ids = alice_in(&rooms, 2).await;
        let judged = room(&rooms, alice().as_str(), json!({ "preset": "public_chat" })).await;
        let via = vec![server_name!("a.example").to_owned()];
        judge.join(&actor("@judge:p.example"), &judged, via, serde_json::Map::new()).await.unwrap();
        net.deliver().await;
        let key: Base64 = Base64::new(vec![9; 32]);
        let name = async |content: &Value| {
            let draft = state("m.room.policy", "", content);
            rooms.send(&actor(alice().as_str()), &judged, draft, None).await.unwrap();
        };
        name(&json!({ "via": "p.example", "public_keys": { "ed25519": key.encode() } })).await;
        net.down.lock().insert(server_name!("p.example").to_owned());
        let change = call(&rooms, "Alice").await;
        let told = rooms.tell_rooms(alice(), change).await;
        assert!(matches!(told, Err(Error::PolicyServer(PeerError::Unreachable(_)))), "{told:?}");
        assert_ne!(name_in(&rooms, &judged).await.as_deref(), Some("Alice"));
        for id in &ids {
            assert_eq!(name_in(&rooms, id).await.as_deref(), Some("Alice"));
        }
        assert!(rooms.announce_all(alice()).await.is_err());
        assert_eq!(rooms.0.accounts.profile_news(alice()).await.unwrap(), Some(change), "still to be told");
        name(&json!({})).await;
        rooms.announce_all(alice()).await.unwrap();
        assert_eq!(name_in(&rooms, &judged).await.as_deref(), Some("Alice"));
        assert_eq!(rooms.0.accounts.profile_news(alice()).await.unwrap(), None);
    }
}
