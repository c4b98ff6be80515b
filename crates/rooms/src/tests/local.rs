//! One server: creating, sending, memberships, redactions, transactions.

use chappe_accounts::{Erase, NewUser, Scope, UserKind};
use ruma::events::StateEventType;
use serde_json::{Value, json};

use super::net::{Net, actor, bodies, membership, request, room, say, state, text, user, whole_state};
use crate::{Actor, Change, Draft, Error, Standing, turn::Job};

const ALICE: &str = "@alice:a.example";
const BOB: &str = "@bob:a.example";
const CAROL: &str = "@carol:a.example";

#[expect(clippy::needless_pass_by_value, reason = "reads better at the call")]
fn forbidden<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Forbidden(_))), "{result:?}");
}

#[tokio::test]
async fn a_new_room_is_furnished_in_every_version() {
    let rooms = Net::default().server("a.example", 1);
    for version in crate::VERSIONS {
        let body =
            json!({ "room_version": version, "name": "Salon", "topic": "Tout", "preset": "public_chat" });
        let id = room(&rooms, ALICE, body).await;
        let state = whole_state(&rooms, &id).await;
        for kind in ["create", "power_levels", "join_rules", "history_visibility", "name", "topic"] {
            assert!(state.contains_key(&(format!("m.room.{kind}"), String::new())), "{version}: {kind}");
        }
        assert_eq!(membership(&rooms, &id, ALICE).await, Some("join"));
        let create = &state[&("m.room.create".to_owned(), String::new())];
        assert_eq!(id.as_str()[1..] == create.as_str()[1..], version.as_str() == "12");
        say(&rooms, ALICE, &id, "hello").await;
    }
}

#[tokio::test]
async fn creation_refuses_what_makes_no_room() {
    let rooms = Net::default().server("a.example", 1);
    let create = async |body: Value| rooms.create(&actor(ALICE), request(body)).await;
    assert!(matches!(
        create(json!({ "room_version": "org.unknown" })).await,
        Err(Error::UnsupportedRoomVersion(_))
    ));
    assert!(create(json!({ "room_alias_name": "x" })).await.is_ok());
    assert!(matches!(create(json!({ "room_alias_name": "x" })).await, Err(Error::AliasInUse)));
    assert!(matches!(create(json!({ "room_alias_name": "a b" })).await, Err(Error::InvalidParam(_))));
    let no_power = json!({ "type": "m.room.power_levels", "content": { "users": {}, "state_default": 100 } });
    let refused = create(json!({ "initial_state": [no_power] })).await;
    assert!(matches!(refused, Err(Error::InvalidRoomState(_))), "{refused:?}");
    let member = json!({ "type": "m.room.member", "state_key": BOB, "content": { "membership": "join" } });
    assert!(matches!(create(json!({ "initial_state": [member] })).await, Err(Error::InvalidRoomState(_))));
}

#[tokio::test]
async fn outsiders_say_and_change_nothing() {
    let rooms = Net::default().server("a.example", 1);
    let id = room(&rooms, ALICE, json!({})).await;
    forbidden(rooms.send(&actor(BOB), &id, text("hi"), None).await);
    forbidden(rooms.join(&actor(BOB), &id, Vec::new(), serde_json::Map::new()).await);
    forbidden(rooms.change(&actor(BOB), &id, &user(CAROL), Change::Invite, None).await);
    forbidden(rooms.leave(&actor(BOB), &id, None).await);
    let nowhere = ruma::room_id!("!nowhere:a.example");
    assert!(matches!(
        rooms.join(&actor(BOB), nowhere, Vec::new(), serde_json::Map::new()).await,
        Err(Error::NotFound(_))
    ));
}

#[tokio::test]
async fn memberships_go_their_ways() {
    let rooms = Net::default().server("a.example", 1);
    let id = room(&rooms, ALICE, json!({ "invite": [BOB] })).await;
    assert_eq!(membership(&rooms, &id, BOB).await, Some("invite"));
    rooms.join(&actor(BOB), &id, Vec::new(), serde_json::Map::new()).await.unwrap();
    rooms.join(&actor(BOB), &id, Vec::new(), serde_json::Map::new()).await.unwrap();
    say(&rooms, BOB, &id, "here").await;
    forbidden(rooms.change(&actor(BOB), &id, &user(ALICE), Change::Kick, None).await);
    rooms.change(&actor(ALICE), &id, &user(BOB), Change::Kick, Some("out".to_owned())).await.unwrap();
    forbidden(rooms.send(&actor(BOB), &id, text("still here?"), None).await);
    forbidden(rooms.change(&actor(ALICE), &id, &user(BOB), Change::Kick, None).await);
    rooms.change(&actor(ALICE), &id, &user(BOB), Change::Ban, None).await.unwrap();
    forbidden(rooms.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await);
    rooms.change(&actor(ALICE), &id, &user(BOB), Change::Unban, None).await.unwrap();
    rooms.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await.unwrap();
    assert!(matches!(rooms.forget(&user(BOB), &id).await, Err(Error::BadState(_))));
    rooms.leave(&actor(BOB), &id, None).await.unwrap();
    rooms.forget(&user(BOB), &id).await.unwrap();
    assert!(rooms.store().read().user_rooms(&user(BOB)).await.unwrap().is_empty());
}

#[tokio::test]
async fn knocking_and_being_let_in() {
    let rooms = Net::default().server("a.example", 1);
    let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
    let id = room(&rooms, ALICE, json!({ "initial_state": [rule] })).await;
    rooms.knock(&actor(BOB), &id, Vec::new(), Some("please".to_owned())).await.unwrap();
    assert_eq!(membership(&rooms, &id, BOB).await, Some("knock"));
    forbidden(rooms.join(&actor(BOB), &id, Vec::new(), serde_json::Map::new()).await);
    rooms.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await.unwrap();
    rooms.join(&actor(BOB), &id, Vec::new(), serde_json::Map::new()).await.unwrap();
}

#[tokio::test]
async fn restricted_rooms_let_members_of_another_room_in() {
    let rooms = Net::default().server("a.example", 1);
    let club = room(&rooms, ALICE, json!({ "preset": "public_chat" })).await;
    let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
    let rule =
        json!({ "type": "m.room.join_rules", "content": { "join_rule": "restricted", "allow": allow } });
    let id = room(&rooms, ALICE, json!({ "initial_state": [rule] })).await;
    forbidden(rooms.join(&actor(BOB), &id, Vec::new(), serde_json::Map::new()).await);
    rooms.join(&actor(BOB), &club, Vec::new(), serde_json::Map::new()).await.unwrap();
    rooms.join(&actor(BOB), &id, Vec::new(), serde_json::Map::new()).await.unwrap();
    let view = rooms.view(&id).await.unwrap();
    let member = view.current(StateEventType::RoomMember, BOB).await.unwrap().unwrap();
    assert!(member.pdu.content().get().contains(r#""join_authorised_via_users_server":"@alice:a.example""#));
}

#[tokio::test]
async fn a_transaction_is_done_once() {
    let rooms = Net::default().server("a.example", 1);
    let id = room(&rooms, ALICE, json!({})).await;
    let send = async |device: &str| {
        let mut alice = actor(ALICE);
        alice.device = Some(device.into());
        rooms.send(&alice, &id, text("once"), Some("t1".into())).await.unwrap()
    };
    let first = send("A").await;
    assert_eq!(send("A").await, first);
    assert_ne!(send("B").await, first);
    let (x, y) = tokio::join!(send("C"), send("C"));
    assert_eq!(x, y);
    assert_eq!(bodies(&rooms, &id).await.len(), 3);
}

#[tokio::test]
async fn drafts_that_wait_share_commits_and_keep_their_order() {
    let rooms = Net::default().server("a.example", 1);
    let id = room(&rooms, ALICE, json!({})).await;
    let before = rooms.store().read().position();
    let sends = (0..200).map(|n| {
        let (rooms, id) = (rooms.clone(), id.clone());
        async move { rooms.send(&actor(ALICE), &id, text(&n.to_string()), None).await.unwrap() }
    });
    let ids = futures_util::future::join_all(sends).await;
    assert_eq!(ids.len(), 200);
    let said = bodies(&rooms, &id).await;
    assert_eq!(said, (0..200).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(rooms.store().read().position().0 - before.0 < 20);
    // One refused draft does not take others with it.
    let (alice, bob) = (actor(ALICE), actor(BOB));
    let (good, bad) =
        tokio::join!(rooms.send(&alice, &id, text("x"), None), rooms.send(&bob, &id, text("y"), None));
    assert!(good.is_ok());
    forbidden(bad);
}

#[tokio::test]
async fn whoever_loses_a_race_tries_again() {
    let rooms = Net::default().server("a.example", 1);
    let id = room(&rooms, ALICE, json!({})).await;
    // Another process writes between this one's read and its commit.
    let desk = crate::desk::Desk::open(&rooms.0, &id).await.unwrap();
    say(&rooms, ALICE, &id, "first").await;
    let lost = rooms.store().commit(desk.seal()).await;
    assert!(matches!(lost, Err(chappe_store::Error::Conflict)));
    rooms.submit(&id, Job::new(&actor(ALICE), text("second"))).await.unwrap();
    assert_eq!(bodies(&rooms, &id).await, ["first", "second"]);
}

#[tokio::test]
async fn redaction_takes_the_content_and_only_by_whom_it_may() {
    let rooms = Net::default().server("a.example", 1);
    for version in ["10", "11"] {
        let id = room(&rooms, ALICE, json!({ "invite": [BOB], "room_version": version })).await;
        rooms.join(&actor(BOB), &id, Vec::new(), serde_json::Map::new()).await.unwrap();
        let mine = say(&rooms, ALICE, &id, "secret").await;
        let theirs = say(&rooms, BOB, &id, "oops").await;
        forbidden(rooms.send(&actor(CAROL), &id, Draft::redaction(&mine, None), None).await);
        rooms.send(&actor(ALICE), &id, Draft::redaction(&theirs, Some("no")), None).await.unwrap();
        rooms.send(&actor(ALICE), &id, Draft::redaction(&mine, None), None).await.unwrap();
        assert!(bodies(&rooms, &id).await.is_empty(), "{version}");
    }
}

#[tokio::test]
async fn bad_drafts_are_the_clients_fault() {
    let rooms = Net::default().server("a.example", 1);
    let id = room(&rooms, ALICE, json!({})).await;
    let send = async |draft: Draft| rooms.send(&actor(ALICE), &id, draft, None).await;
    let float = send(state("x", "", &json!({ "n": 1.5 }))).await;
    assert!(matches!(float, Err(Error::BadJson(_))), "{float:?}");
    let large = send(text(&"x".repeat(70_000))).await;
    assert!(matches!(large, Err(Error::TooLarge(_))), "{large:?}");
    let created = send(state("m.room.create", "", &json!({}))).await;
    assert!(matches!(created, Err(Error::InvalidParam(_))), "{created:?}");
    let other = send(state("m.room.member", BOB, &json!({ "membership": "join" }))).await;
    forbidden(other);
}

#[tokio::test]
async fn a_send_takes_few_round_trips() {
    use chappe_kv::{Counting, Db, Memory, RoundTrips};
    let trips = std::sync::Arc::new(RoundTrips::default());
    let db = Db::new(Counting::new(Memory::default(), trips.clone()));
    let rooms = Net::default().server_on("a.example", 1, db);
    let id = room(&rooms, ALICE, json!({})).await;
    say(&rooms, ALICE, &id, "warm").await;
    trips.take();
    rooms.send(&actor(ALICE), &id, text("counted"), Some("t".into())).await.unwrap();
    let (gets, scans, commits) = trips.take();
    assert!(gets + scans <= 3, "{gets} gets, {scans} scans");
    assert_eq!(commits, 1);
}

#[tokio::test]
async fn an_upgraded_room_keeps_what_it_was() {
    let rooms = Net::default().server("a.example", 1);
    for version in ["11", "12"] {
        let name = format!("salon{version}");
        let alias = ruma::RoomAliasId::parse(format!("#{name}:a.example")).unwrap();
        let acl = json!({ "type": "m.room.server_acl", "content": { "allow": ["*"] } });
        let body =
            json!({ "room_version": "10", "name": "Salon", "room_alias_name": name, "initial_state": [acl] });
        let old = room(&rooms, ALICE, body).await;
        rooms.change(&actor(ALICE), &old, &user(CAROL), Change::Ban, None).await.unwrap();
        let levels = json!({ "users": { ALICE: 100, BOB: 50 }, "events": { "m.room.tombstone": 100 } });
        rooms.send(&actor(ALICE), &old, state("m.room.power_levels", "", &levels), None).await.unwrap();
        forbidden(rooms.upgrade(&actor(BOB), &old, version.try_into().unwrap(), Vec::new()).await);
        let new = rooms.upgrade(&actor(ALICE), &old, version.try_into().unwrap(), Vec::new()).await.unwrap();
        let view = rooms.view(&new).await.unwrap();
        let content = async |kind: &str| {
            let event = view.current(StateEventType::from(kind), "").await.unwrap().unwrap();
            serde_json::from_str::<Value>(event.pdu.content().get()).unwrap()
        };
        assert_eq!(content("m.room.create").await["predecessor"]["room_id"], old.as_str());
        assert_eq!(content("m.room.name").await["name"], "Salon");
        assert_eq!(content("m.room.power_levels").await["users"][BOB], 50);
        assert_eq!(content("m.room.canonical_alias").await["alias"], alias.as_str());
        assert_eq!(membership(&rooms, &new, CAROL).await, Some("ban"));
        let target = rooms.store().read().alias(&alias).await.unwrap().unwrap();
        assert_eq!(target.nid(), view.nid);
        let old_view = rooms.view(&old).await.unwrap();
        let tombstone = old_view.current(StateEventType::RoomTombstone, "").await.unwrap().unwrap();
        assert!(tombstone.pdu.content().get().contains(new.as_str()));
    }
}

#[tokio::test]
async fn reactions_count_once_and_redactions_need_power() {
    let rooms = Net::default().server("a.example", 1);
    let id = room(&rooms, ALICE, json!({ "invite": [BOB] })).await;
    rooms.join(&actor(BOB), &id, Vec::new(), serde_json::Map::new()).await.unwrap();
    let said = say(&rooms, ALICE, &id, "hello").await;
    let react = |key: &str| {
        let relates = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": said, "key": key } });
        Draft::message("m.reaction".into(), relates.as_object().unwrap().clone())
    };
    let first = rooms.send(&actor(BOB), &id, react("+1"), None).await.unwrap();
    let again = rooms.send(&actor(BOB), &id, react("+1"), None).await;
    assert!(matches!(again, Err(Error::DuplicateAnnotation)), "{again:?}");
    rooms.send(&actor(BOB), &id, react("-1"), None).await.unwrap();
    rooms.send(&actor(ALICE), &id, react("+1"), None).await.unwrap();
    forbidden(rooms.send(&actor(BOB), &id, Draft::redaction(&said, None), None).await);
    rooms.send(&actor(BOB), &id, Draft::redaction(&first, None), None).await.unwrap();
    rooms.send(&actor(BOB), &id, react("+1"), None).await.unwrap();
    let unknown = ruma::event_id!("$nothing");
    let nothing = rooms.send(&actor(ALICE), &id, Draft::redaction(unknown, None), None).await;
    assert!(matches!(nothing, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn what_the_client_says_at_a_join_is_kept_except_what_is_not_its_to_say() {
    let rooms = Net::default().server("a.example", 1);
    let id = room(&rooms, ALICE, json!({ "preset": "public_chat" })).await;
    let said = json!({ "foo": "bar", "reason": "hi", "membership": "ban", "third_party_signed": {},
        "join_authorised_via_users_server": ALICE });
    rooms.join(&actor(BOB), &id, Vec::new(), said.as_object().unwrap().clone()).await.unwrap();
    let member = rooms.state_content(&actor(ALICE), &id, StateEventType::RoomMember, BOB).await.unwrap();
    let member: Value = serde_json::from_str(member.get()).unwrap();
    assert_eq!(member, json!({ "membership": "join", "foo": "bar", "reason": "hi" }));
}

#[tokio::test]
async fn a_member_of_a_restricted_room_changes_its_name_whatever_it_says_of_who_let_it_in() {
    let rooms = Net::default().server("a.example", 1);
    let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "restricted", "allow": [] } });
    let id = room(&rooms, ALICE, json!({ "initial_state": [rule], "invite": [BOB] })).await;
    let named =
        json!({ "membership": "join", "displayname": "B", "join_authorised_via_users_server": "unused" });
    let draft = || Draft::state(StateEventType::RoomMember, BOB, named.as_object().unwrap().clone());
    rooms.send(&actor(BOB), &id, draft(), None).await.unwrap();
    let mut again = draft();
    again.content.insert("displayname".to_owned(), json!("Bobby"));
    rooms.send(&actor(BOB), &id, again, None).await.unwrap();
}

#[tokio::test]
async fn creators_of_version_12_have_no_power_level_and_rooms_one_create_event() {
    let rooms = Net::default().server("a.example", 1);
    let creators = json!({ "additional_creators": [BOB] });
    let id = room(&rooms, ALICE, json!({ "room_version": "12", "creation_content": creators })).await;
    for who in [ALICE, BOB] {
        let levels = state("m.room.power_levels", "", &json!({ "users": { who: 50 } }));
        let refused = rooms.send(&actor(ALICE), &id, levels, None).await;
        assert!(matches!(refused, Err(Error::InvalidParam(_))), "{who}: {refused:?}");
    }
    let again = rooms.send(&actor(ALICE), &id, state("m.room.create", "", &json!({ "x": 1 })), None).await;
    assert!(matches!(again, Err(Error::InvalidParam(_))), "{again:?}");
}

#[tokio::test]
async fn an_invite_into_a_room_that_everybody_left_is_turned_down() {
    let rooms = Net::default().server("a.example", 1);
    let id = room(&rooms, ALICE, json!({ "invite": [BOB] })).await;
    rooms.leave(&actor(ALICE), &id, None).await.unwrap();
    forbidden(rooms.send(&actor(BOB), &id, text("anybody here?"), None).await);
    rooms.leave(&actor(BOB), &id, None).await.unwrap();
    assert_eq!(membership(&rooms, &id, BOB).await, Some("leave"));
    rooms.forget(&user(BOB), &id).await.unwrap();
}

#[tokio::test]
async fn guests_enter_where_they_are_let_in_and_leave_when_that_ends() {
    let rooms = Net::default().server("a.example", 1);
    let new = NewUser { localpart: Some("gus".to_owned()), kind: UserKind::Guest, ..NewUser::default() };
    rooms.0.accounts.create_user(new).await.unwrap();
    let guest = Actor { standing: Standing::Guest, ..actor("@gus:a.example") };
    let id = room(&rooms, ALICE, json!({ "preset": "public_chat" })).await;
    let join = async || rooms.join(&guest, &id, Vec::new(), serde_json::Map::new()).await;
    assert!(matches!(join().await, Err(Error::NoGuests)));
    let own = json!({ "membership": "join" });
    let own = Draft::state(StateEventType::RoomMember, "@gus:a.example", own.as_object().unwrap().clone());
    assert!(matches!(rooms.send(&guest, &id, own, None).await, Err(Error::NoGuests)));
    let access = async |what: &str| {
        let draft = state("m.room.guest_access", "", &json!({ "guest_access": what }));
        rooms.send(&actor(ALICE), &id, draft, None).await.unwrap();
    };
    access("can_join").await;
    join().await.unwrap();
    rooms.join(&actor(BOB), &id, Vec::new(), serde_json::Map::new()).await.unwrap();
    let gus = async || {
        rooms.dismiss_guests().await.unwrap();
        membership(&rooms, &id, "@gus:a.example").await
    };
    access("forbidden").await;
    access("can_join").await;
    assert_eq!(gus().await, Some("join"), "let in again meanwhile");
    access("forbidden").await;
    assert_eq!(gus().await, Some("leave"));
    assert_eq!(membership(&rooms, &id, BOB).await, Some("join"), "everybody else stays");
    access("can_join").await;
    join().await.unwrap();
    let view = rooms.view(&id).await.unwrap();
    let opened = view.current(StateEventType::RoomGuestAccess, "").await.unwrap().unwrap();
    drop(view);
    let redaction = Draft::redaction(opened.pdu.event_id(), None);
    rooms.send(&actor(ALICE), &id, redaction, None).await.unwrap();
    assert_eq!(gus().await, Some("leave"), "nothing lets guests in any more");
}

#[tokio::test]
async fn a_closed_account_leaves_its_rooms_though_the_server_stopped_in_between() {
    let rooms = Net::default().server("a.example", 1);
    let new = NewUser { localpart: Some("bob".to_owned()), ..NewUser::default() };
    rooms.0.accounts.create_user(new).await.unwrap();
    let joined = room(&rooms, ALICE, json!({ "invite": [BOB] })).await;
    rooms.join(&actor(BOB), &joined, Vec::new(), serde_json::Map::new()).await.unwrap();
    let invited = room(&rooms, ALICE, json!({ "invite": [BOB] })).await;
    // Closed, and no more: as if the server had stopped there.
    rooms.0.accounts.deactivate(&user(BOB), Erase::No).await.unwrap();
    assert_eq!(membership(&rooms, &joined, BOB).await, Some("join"));
    rooms.finish_departures().await.unwrap();
    for id in [&joined, &invited] {
        assert_eq!(membership(&rooms, id, BOB).await, Some("leave"));
    }
    assert!(rooms.0.accounts.departing().await.unwrap().is_empty());
    assert_eq!(rooms.depart(&user(BOB)).await.unwrap().left, 0);
}

#[tokio::test]
async fn nobody_is_invited_who_does_not_want_it() {
    let rooms = Net::default().server("a.example", 1);
    let id = room(&rooms, ALICE, json!({})).await;
    let says = async |kind: &str, config: Value| {
        let config = serde_json::value::to_raw_value(&config).unwrap();
        rooms.0.accounts.set_account_data(&user(BOB), Scope::Global, kind, &config).await.unwrap();
    };
    let invite = || json!({ "membership": "invite" }).as_object().unwrap().clone();
    let blocked = |result: Result<(), Error>| matches!(result, Err(Error::InviteBlocked));
    says("m.invite_permission_config", json!({ "default_action": "block" })).await;
    assert!(blocked(rooms.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await));
    let draft = Draft::state(StateEventType::RoomMember, BOB, invite());
    assert!(blocked(rooms.send(&actor(ALICE), &id, draft, None).await.map(drop)));
    assert!(blocked(rooms.create(&actor(ALICE), request(json!({ "invite": [BOB] }))).await.map(drop)));
    says("m.invite_permission_config", json!({})).await;
    let filter = "org.matrix.msc4155.invite_permission_config";
    says(filter, json!({ "blocked_users": ["@al*"] })).await;
    assert!(blocked(rooms.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await));
    says(filter, json!({ "ignored_users": ["@al*"] })).await;
    rooms.change(&actor(ALICE), &id, &user(BOB), Change::Invite, None).await.unwrap();
}

#[tokio::test]
async fn a_redaction_takes_along_what_relates() {
    let rooms = Net::default().server("a.example", 1);
    let id = room(&rooms, ALICE, json!({ "preset": "public_chat" })).await;
    rooms.join(&actor(BOB), &id, Vec::new(), serde_json::Map::new()).await.unwrap();
    let root = say(&rooms, ALICE, &id, "root").await;
    let relating = async |who: &str, rel_type: &str| {
        let mut draft = text(rel_type);
        let relates = json!({ "rel_type": rel_type, "event_id": root });
        draft.content.insert("m.relates_to".to_owned(), relates);
        rooms.send(&actor(who), &id, draft, None).await.unwrap()
    };
    let edit = relating(ALICE, "m.replace").await;
    let reply = relating(ALICE, "m.thread").await;
    let foreign = relating(BOB, "m.reference").await;
    let mut draft = Draft::redaction(&root, None);
    draft.with_relations = vec!["m.replace".to_owned()];
    rooms.send(&actor(ALICE), &id, draft, None).await.unwrap();
    let view = rooms.view(&id).await.unwrap();
    let redacted =
        async |event: &ruma::EventId| view.seen_by(&user(ALICE), event).await.unwrap().event.is_redacted();
    assert!(redacted(&root).await && redacted(&edit).await);
    assert!(!redacted(&reply).await && !redacted(&foreign).await);
    let mut draft = Draft::redaction(&root, None);
    draft.with_relations = vec!["*".to_owned()];
    rooms.send(&actor(ALICE), &id, draft, Some("again".into())).await.unwrap();
    let view = rooms.view(&id).await.unwrap();
    let redacted =
        async |event: &ruma::EventId| view.seen_by(&user(ALICE), event).await.unwrap().event.is_redacted();
    assert!(redacted(&reply).await && redacted(&foreign).await, "the creator may redact what others say");
}
