//! Device lists that are slow to come, that nobody waits for, that cannot be had; who is told of whom, and when what is kept is
//! not believed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chappe_accounts::RemoteUsers;
use chappe_kv::{Batch, Counting, Db, Fault, Faulty, Memory, RoundTrips};
use chappe_store::{
    Json, LogEntry, Membership, Position, RoomNid, Store, Table, Tx,
    accounts_keys::{RemoteList, RemoteLists},
};
use chappe_world::{FakeNet, Fate};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, UserId, server_name};
use serde_json::{Value, json};

use super::{
    Server, config, couple,
    devices::{LISTS, ask, ask_of_one, delay_lists, device, known, query, tell, with_device},
    eventually,
    lies::seat,
    peer::Peer,
};

/// Two servers with a room, and Alice on the first with a device of which the second has not heard.
async fn alice(net: &FakeNet) -> (Server, Server, OwnedRoomId, OwnedUserId) {
    let (a, b, room, alice) = with_device(net).await;
    eventually("queues are empty", async || a.waiting(&b).await == 0).await;
    (a, b, room, alice)
}

/// The lists of a server come late.
fn dawdle(net: &FakeNet, server: &'static str) {
    net.judge(move |_, to, request| {
        if to == server && request.uri().path().starts_with(LISTS) {
            return Fate::Delay(Duration::from_secs(19));
        }
        Fate::Deliver
    });
}

async fn is_doubted(server: &Server, user: &UserId) -> bool {
    server.accounts.remote_list(user).await.unwrap().is_none_or(|list| list.stale)
}

#[tokio::test(start_paused = true)]
async fn a_list_that_nobody_waits_for_any_more_is_fetched_to_the_end() {
    let net = FakeNet::new();
    let (a, b, _room, alice) = alice(&net).await;
    delay_lists(&net, &a, Duration::from_secs(5));
    let asked = ask_of_one(&b, "bob", &alice);
    assert!(b.world.timeout(Duration::from_secs(1), asked).await.is_none());
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(known(&b, &alice).await, ["ONE"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_lists_are_slow_keeps_no_place_from_others() {
    let net = FakeNet::new();
    let (_a, b, _room, alice) = alice(&net).await;
    let _evil = Peer::start(&net, "evil.example", 6);
    dawdle(&net, "evil.example");
    for n in 0..40 {
        let user = UserId::parse(format!("@u{n}:evil.example")).unwrap();
        b.federation.0.devices.resync_soon(&b.federation, &user);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = ask_of_one(&b, "bob", &alice);
    let keys = b.world.timeout(Duration::from_secs(5), asked).await.unwrap().unwrap();
    assert_eq!(keys.devices[&alice].len(), 1);
}

#[tokio::test(start_paused = true)]
async fn lists_that_are_to_be_fetched_do_not_wait_for_those_of_a_slow_server() {
    let net = FakeNet::new();
    let (a, evil, seat) = seat(&net, "11").await;
    let b = Server::start(&net, "b.example", 2, config());
    b.join("bob", &seat.room, &a).await;
    let bob = b.account("bob").await;
    device(&b, &bob, "B").await;
    let mut slow = Vec::new();
    for n in 0..40 {
        let name = format!("@a{n}:evil.example");
        evil.join(&a, &seat.room, &name).await;
        slow.push(UserId::parse(name).unwrap());
    }
    eventually("queues are empty", async || b.waiting(&a).await == 0).await;
    dawdle(&net, "evil.example");
    for user in slow.iter().chain([&bob]) {
        a.accounts.mark_stale(user).await.unwrap();
    }
    // One round.
    tokio::time::sleep(Duration::from_mins(12)).await;
    assert!(!is_doubted(&a, &bob).await);
    assert_eq!(known(&a, &bob).await, ["B"]);
}

#[tokio::test(start_paused = true)]
async fn an_introduction_names_no_update_before_it() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    let carol = b.account("carol").await;
    for id in ["ONE", "TWO"] {
        device(&b, &carol, id).await;
    }
    let counted = async || b.federation.announced(&carol).await.unwrap().stream_id == 2;
    eventually("both devices are counted", counted).await;
    let told: Arc<Mutex<Vec<Value>>> = Arc::default();
    let (heard, of) = (Arc::clone(&told), carol.clone());
    net.judge(move |_, to, request| {
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let edus = body["edus"].as_array().cloned().unwrap_or_default();
        let contents = edus.into_iter().map(|mut edu| edu["content"].take());
        let own = contents.filter(|content| to == "a.example" && content["user_id"] == of.as_str());
        heard.lock().extend(own);
        Fate::Deliver
    });
    b.join("carol", &room, &a).await;
    eventually("the user is introduced", async || !told.lock().is_empty()).await;
    let told = told.lock();
    let good = |update: &Value| update["stream_id"] == 2 && update.get("prev_id").is_none();
    assert!(told.iter().all(good), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn who_was_away_while_a_user_left_and_came_back_learns_what_changed() {
    let net = FakeNet::new();
    let (a, b, room, alice) = alice(&net).await;
    // Somebody stays, so that Alice can come back.
    a.join("dave", &room, &a).await;
    assert_eq!(query(&b, "bob", &alice).await, ["ONE"]);
    eventually("queues are empty", async || a.waiting(&b).await == 0).await;
    net.unroute("b.example");
    a.rooms.leave(&a.actor("alice"), &room, None).await.unwrap();
    device(&a, &alice, "TWO").await;
    let counted = async || a.federation.announced(&alice).await.unwrap().stream_id == 2;
    eventually("the new device is counted", counted).await;
    a.join("alice", &room, &a).await;
    b.back(&net);
    a.federation.retry(Some(&b.name)).await.unwrap();
    eventually("all is told", async || a.waiting(&b).await == 0).await;
    let both = async || query(&b, "bob", &alice).await == ["ONE", "TWO"];
    eventually("the new device is known", both).await;
}

#[tokio::test(start_paused = true)]
async fn where_memberships_were_resolved_lists_are_doubted() {
    let net = FakeNet::new();
    let (_a, b, room, alice) = alice(&net).await;
    let room = b.store.read().room_nid(&room).await.unwrap().unwrap().0;
    for what in [LogEntry::Member { room, user: alice.clone() }, LogEntry::Members { room }] {
        assert_eq!(query(&b, "bob", &alice).await, ["ONE"]);
        assert!(!is_doubted(&b, &alice).await);
        let mut tx = Tx::new();
        tx.log(what);
        b.store.commit(tx).await.unwrap();
        eventually("the list is doubted", async || is_doubted(&b, &alice).await).await;
    }
}

async fn number(server: &Server, room: &OwnedRoomId) -> RoomNid {
    server.store.read().room_nid(room).await.unwrap().unwrap()
}

async fn note(server: &Server, news: Vec<LogEntry>) {
    let mut tx = Tx::new();
    for what in news {
        tx.log(what);
    }
    server.store.commit(tx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn lists_that_are_followed_because_of_another_room_are_not_doubted() {
    let net = FakeNet::new();
    let (a, b, room, alice) = alice(&net).await;
    let (other, dave) = (a.room("alice").await, a.account("dave").await);
    a.join("dave", &room, &a).await;
    device(&a, &dave, "D").await;
    let counted = async || a.federation.announced(&dave).await.unwrap().stream_id > 0;
    eventually("the device is counted", counted).await;
    eventually("queues are empty", async || a.waiting(&b).await == 0).await;
    assert_eq!(query(&b, "bob", &alice).await, ["ONE"]);
    // Dave is in one room alone: once his list is doubted all that was noted before is dealt with.
    let doubted = async |news: Vec<LogEntry>| {
        assert_eq!(query(&b, "bob", &dave).await, ["D"]);
        assert!(!is_doubted(&b, &dave).await);
        let room = number(&b, &room).await.0;
        note(&b, [news, vec![LogEntry::Member { room, user: dave.clone() }]].concat()).await;
        eventually("the list is doubted", async || is_doubted(&b, &dave).await).await;
        is_doubted(&b, &alice).await
    };
    assert!(!doubted(Vec::new()).await);
    b.join("bob", &other, &a).await;
    assert!(!doubted(Vec::new()).await, "the room that was joined");
    let other = number(&b, &other).await.0;
    for what in [LogEntry::Member { room: other, user: alice.clone() }, LogEntry::Members { room: other }] {
        assert!(!doubted(vec![what.clone()]).await, "{what:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whether_the_lists_of_many_are_followed_is_looked_up_for_all_of_them_together() {
    let (net, trips) = (FakeNet::new(), Arc::new(RoundTrips::default()));
    let a = Server::start(&net, "a.example", 1, config());
    let store = Store::new(Db::new(Counting::new(Memory::default(), Arc::clone(&trips))));
    let b = Server::build(&net, "b.example", 2, config(), store);
    b.federation.start();
    let rooms = [a.room("alice").await, a.room("alice").await];
    for room in &rooms {
        b.join("bob", room, &a).await;
    }
    let mut users = vec![a.actor("stranger").user];
    a.join("stranger", &rooms[0], &a).await;
    for number in 0..20 {
        let name = format!("user{number}");
        for room in &rooms {
            a.join(&name, room, &a).await;
        }
        users.push(a.actor(&name).user);
    }
    eventually("queues are empty", async || a.waiting(&b).await == 0).await;
    let (first, other) = (number(&b, &rooms[0]).await, number(&b, &rooms[1]).await);
    let members = async |room| b.store.read().members(room, Membership::Join).await.unwrap().len();
    eventually("all are there", async || members(first).await == 23 && members(other).await == 22).await;
    let doubted = async |believed: &[OwnedUserId], what: LogEntry| {
        let mut tx = Tx::new();
        for user in believed {
            tx.put::<RemoteLists>(user, &Json(RemoteList::default()));
        }
        b.store.commit(tx).await.unwrap();
        let _ = trips.take();
        note(&b, vec![what]).await;
        eventually("the list is doubted", async || is_doubted(&b, &users[0]).await).await;
    };
    // The stranger is in one room alone: once that list is doubted all that happened before is dealt with.
    doubted(&users[..1], LogEntry::Member { room: first.0, user: users[0].clone() }).await;
    doubted(&users[..], LogEntry::Members { room: first.0 }).await;
    let (_, followed) = trips.take_apart();
    for user in &users[1..] {
        assert!(!is_doubted(&b, user).await, "{user}");
    }
    assert!(followed.gets < 20, "{followed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_others_write_all_the_while_is_doubted_in_the_end() {
    let net = FakeNet::new();
    let conflicts = Arc::new(Mutex::new(0_usize));
    let left = Arc::clone(&conflicts);
    let plan = move |batch: &Batch| {
        let is_list = |key: &[u8]| key.first() == Some(&RemoteLists::INFO.number);
        let mut left = left.lock();
        if *left == 0 || !batch.expectations.iter().any(|expected| is_list(expected.key())) {
            return None;
        }
        *left -= 1;
        Some(Fault::Conflict)
    };
    let db = Db::new(Faulty::new(Memory::default(), Arc::new(Mutex::new(plan))));
    let a = Server::start(&net, "a.example", 1, config());
    let b = Server::build(&net, "b.example", 2, config(), Store::new(db));
    b.federation.start();
    let room = a.room("alice").await;
    b.join("bob", &room, &a).await;
    let alice = a.account("alice").await;
    device(&a, &alice, "ONE").await;
    eventually("queues are empty", async || a.waiting(&b).await == 0).await;
    assert_eq!(query(&b, "bob", &alice).await, ["ONE"]);
    assert!(!is_doubted(&b, &alice).await);
    let room = number(&b, &room).await.0;
    *conflicts.lock() = 30;
    note(&b, vec![LogEntry::Member { room, user: alice.clone() }]).await;
    eventually("the list is doubted", async || is_doubted(&b, &alice).await).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_waits_for_no_lists_and_no_keys() {
    let net = FakeNet::new();
    let (_a, b, _room, alice) = alice(&net).await;
    let silent = server_name!("silent.example");
    net.route(silent.as_str(), &b.world, b.router.clone());
    net.judge(move |_, to, request| {
        let is_lost = to == silent.as_str() || request.uri().path().starts_with(LISTS);
        if is_lost { Fate::Lose } else { Fate::Deliver }
    });
    b.federation.0.devices.resync_soon(&b.federation, &alice);
    let asked = b.network.keys().for_request(silent, "ed25519:k1");
    assert!(b.world.timeout(Duration::from_secs(1), asked).await.is_none());
    let left = b.world.shut_down(Duration::from_secs(2)).await;
    assert!(!left.contains(&"device list") && !left.contains(&"keys of a server"), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_of_a_list_that_breaks_down_is_not_the_last() {
    let net = FakeNet::new();
    let (_a, b, _room, alice) = alice(&net).await;
    net.judge(|_, _, request| {
        if request.uri().path().starts_with(LISTS) {
            std::panic::resume_unwind(Box::new("a defect"));
        }
        Fate::Deliver
    });
    let resync = async || b.federation.0.devices.resync(&b.federation, &alice).await;
    assert!(resync().await.is_err());
    net.judge(|_, _, _| Fate::Deliver);
    resync().await.unwrap();
    assert_eq!(known(&b, &alice).await, ["ONE"]);
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_here_are_given_though_their_server_is_away() {
    let net = FakeNet::new();
    let (a, b, _room, alice) = alice(&net).await;
    assert_eq!(query(&b, "bob", &alice).await, ["ONE"]);
    let stranger = a.account("stranger").await;
    net.unroute("a.example");
    let bob = b.actor("bob").user;
    let users = BTreeMap::from([(alice.clone(), Vec::new()), (stranger, Vec::new())]);
    assert!(ask(&b, &bob, &a.name, users.clone()).await.is_err());
    let asker = b.federation.asker(&bob, &users).await;
    let kept = b.federation.kept_keys(&asker, &users).await;
    assert_eq!(kept.devices.keys().collect::<Vec<_>>(), [&alice]);
    let nobody = b.actor("nobody").user;
    let asker = b.federation.asker(&nobody, &users).await;
    assert!(b.federation.kept_keys(&asker, &users).await.devices.is_empty());
}

#[tokio::test(start_paused = true)]
async fn with_whom_somebody_shares_a_room_is_looked_up_once() {
    let (net, trips) = (FakeNet::new(), Arc::new(RoundTrips::default()));
    let a = Server::start(&net, "a.example", 1, config());
    let store = Store::new(Db::new(Counting::new(Memory::default(), Arc::clone(&trips))));
    let b = Server::build(&net, "b.example", 2, config(), store);
    b.federation.start();
    let mut rooms = Vec::new();
    for _ in 0..4 {
        let room = a.room("alice").await;
        b.join("carol", &room, &a).await;
        rooms.push(room);
    }
    a.join("anna", &rooms[2], &a).await;
    b.join("bob", &rooms[3], &a).await;
    let [alice, anna, stranger] = ["alice", "anna", "stranger"].map(|name| a.actor(name).user);
    let users: BTreeMap<_, _> = [&alice, &anna, &stranger].map(|user| (user.clone(), Vec::new())).into();
    let asker = async |name: &str| b.federation.asker(&b.actor(name).user, &users).await;
    eventually("b hears of Anna", async || asker("carol").await.shares_with.contains(&anna)).await;
    // Those who ask are in more rooms than who is asked about, and in fewer.
    assert_eq!(asker("carol").await.shares_with, BTreeSet::from([alice.clone(), anna]));
    assert_eq!(asker("bob").await.shares_with, BTreeSet::from([alice]));
    assert!(asker("nobody").await.shares_with.is_empty());
    trips.take();
    let carol = asker("carol").await;
    let asked = trips.take_apart().0;
    assert_eq!((asked.gets, asked.scans), (0, 2 + 3), "her rooms once, those of each user");
    b.federation.kept_keys(&carol, &users).await;
    assert_eq!(trips.take_apart().0.scans, 0, "rooms are looked at again");
}

#[tokio::test(start_paused = true)]
async fn who_was_given_keys_beside_a_list_is_told_of_the_next_change() {
    let net = FakeNet::new();
    let (_a, b, _room, alice) = alice(&net).await;
    assert_eq!(query(&b, "bob", &alice).await, ["ONE"]);
    let at = b.accounts.remote_list(&alice).await.unwrap().unwrap().stream_id;
    net.judge(|_, to, request| {
        let is_list = to == "a.example" && request.uri().path().starts_with(LISTS);
        if is_list { Fate::Unreachable } else { Fate::Deliver }
    });
    let told = async || -> Position {
        let reader = b.store.read();
        b.accounts.device_list_change(&reader, &alice).await.unwrap().unwrap().position
    };
    tell(&b, &alice, (at + 1, &json!([at + 7])), "gap").await;
    let first = told().await;
    tell(&b, &alice, (at + 2, &json!([at + 1])), "more").await;
    assert_eq!(told().await, first, "nobody asked meanwhile");
    assert_eq!(query(&b, "bob", &alice).await, ["ONE"], "the list cannot be had, but the keys can");
    tell(&b, &alice, (at + 3, &json!([at + 2])), "again").await;
    assert_ne!(told().await, first);
}
