//! What was wrongly believed or refused while the members of a room were still to come, once they are here.

use std::{sync::atomic::Ordering, time::Duration};

use chappe_kv::{Db, Memory};
use chappe_rules::Pdu;
use chappe_store::Status;
use ruma::{OwnedEventId, OwnedRoomId, RoomId, room_version_rules::RoomVersionRules, server_name};
use serde_json::{Map, Value, json};

use super::{
    super::{
        net::{
            ALICE, BOB, CAROL, Net, actor, bodies, join, membership, say, state, status, user, whole_state,
        },
        policy_server::{key, names, policy_server},
    },
    BERT, Lie, State, at, complete, joined, prepared, signed, tell,
};
use crate::{Change, Draft, Rooms, receive::Outliers};

const DAN: &str = "@dan:a.example";

/// Bob has left, then Carol joins on `c`, which is not told who is in the room; gives `a`, the room, and its state with Bob.
async fn left_by_bob(net: &Net, c: &Rooms) -> (Rooms, OwnedRoomId, State) {
    let (a, b, id) = prepared(net).await;
    let earlier = whole_state(&a, &id).await;
    b.leave(&actor(BOB), &id, None).await.unwrap();
    net.deliver().await;
    joined(net, c, &id).await;
    (a, id, earlier)
}

/// What justifies events of a member.
fn auth(state: &State, who: &str) -> Vec<OwnedEventId> {
    let room = ["m.room.create", "m.room.power_levels"].map(|kind| at(state, kind, ""));
    room.into_iter().chain([at(state, "m.room.member", who)]).collect()
}

/// A message on top of an event.
fn message<'a>(earlier: &State, sender: &'a str, body: &str, prev: &OwnedEventId) -> Lie<'a> {
    let content: Value = json!({ "msgtype": "m.text", "body": body });
    let auth = auth(earlier, sender);
    Lie { sender, kind: "m.room.message", key: None, content, prev: prev.clone(), auth }
}

/// Bob, who has left, bans somebody: `c`, which does not know it yet, believes it.
async fn believed_ban(c: &Rooms, id: &RoomId, earlier: &State, whom: &str) -> OwnedEventId {
    let prev = at(&whole_state(c, id).await, "m.room.member", CAROL);
    let (key, content, auth) = (Some(whom), json!({ "membership": "ban" }), auth(earlier, BOB));
    let ban = tell(c, id, Lie { sender: BOB, kind: "m.room.member", key, content, prev, auth }).await;
    assert_eq!(status(c, id, &ban).await, Status::Accepted);
    ban
}

#[tokio::test(start_paused = true)]
async fn what_was_wrongly_believed_is_taken_back() {
    let net = Net::default();
    let c = net.server("c.example", 3);
    let (a, id, earlier) = left_by_bob(&net, &c).await;
    let join = at(&whole_state(&c, &id).await, "m.room.member", CAROL);
    let lie = Lie {
        sender: BOB,
        kind: "m.room.topic",
        key: Some(""),
        content: json!({"topic": "mine"}),
        prev: join,
        auth: auth(&earlier, BOB),
    };
    let lie = tell(&c, &id, lie).await;
    assert_eq!(status(&c, &id, &lie).await, Status::Accepted, "b.example says that Bob is there");
    assert_eq!(at(&whole_state(&c, &id).await, "m.room.topic", ""), lie);
    say(&c, CAROL, &id, "after it").await;
    complete(&net, &c, &id).await;
    assert_eq!(status(&c, &id, &lie).await, Status::Rejected);
    assert!(!whole_state(&c, &id).await.contains_key(&("m.room.topic".to_owned(), String::new())));
    assert_eq!(membership(&c, &id, BOB).await, Some("leave"));
    assert_eq!(bodies(&c, &id).await, ["after it"]);
    assert!(c.visible_to_user(&user(CAROL), &id, &lie).await.is_err());
    net.deliver().await;
    assert_eq!(whole_state(&c, &id).await, whole_state(&a, &id).await);
}

#[tokio::test(start_paused = true)]
async fn what_was_wrongly_refused_is_shown_late() {
    let net = Net::default();
    let c = net.server("c.example", 3);
    let (a, id, earlier) = left_by_bob(&net, &c).await;
    let ban = believed_ban(&c, &id, &earlier, DAN).await;
    a.join(&actor(DAN), &id, Vec::new(), Map::new()).await.unwrap();
    let said = say(&a, DAN, &id, "here I am").await;
    net.deliver().await;
    complete(&net, &c, &id).await;
    assert_eq!(status(&c, &id, &ban).await, Status::Rejected);
    assert_eq!(status(&c, &id, &said).await, Status::Accepted);
    assert_eq!(membership(&c, &id, DAN).await, Some("join"));
    assert_eq!(bodies(&c, &id).await, ["here I am"]);
    say(&c, CAROL, &id, "welcome").await;
    net.deliver().await;
    assert_eq!(whole_state(&c, &id).await, whole_state(&a, &id).await);
}

/// As part of a state it comes without a place, and nothing else is said of it again.
#[tokio::test(start_paused = true)]
async fn what_names_something_that_was_wrongly_rejected_may_be_state() {
    let (net, rules) = (Net::default(), &RoomVersionRules::V11);
    let c = net.server("c.example", 3);
    let (_, id, earlier) = left_by_bob(&net, &c).await;
    let ban = believed_ban(&c, &id, &earlier, BERT).await;
    let renamed = |name: &str, last: &OwnedEventId, prev: &OwnedEventId| {
        let room = ["m.room.create", "m.room.power_levels", "m.room.join_rules"];
        let auth = room.map(|kind| at(&earlier, kind, "")).into_iter().chain([last.clone()]).collect();
        let content = json!({ "membership": "join", "displayname": name });
        Lie { sender: BERT, kind: "m.room.member", key: Some(BERT), content, prev: prev.clone(), auth }
    };
    let first = tell(&c, &id, renamed("first", &at(&earlier, "m.room.member", BERT), &ban)).await;
    let second = signed(&id, &renamed("second", &first, &first));
    let second = c.0.check_one(rules, Pdu::parse(rules, second.get().as_bytes()).unwrap()).await.unwrap();
    let named = second.pdu().event_id().to_owned();
    c.0.store_outliers(&id, Outliers::from(vec![second])).await.unwrap();
    for event in [&first, &named] {
        assert_eq!(status(&c, &id, event).await, Status::Rejected);
    }
    complete(&net, &c, &id).await;
    assert_eq!(status(&c, &id, &first).await, Status::Accepted);
    assert_eq!(status(&c, &id, &named).await, Status::Outlier);
}

#[tokio::test(start_paused = true)]
async fn whoever_was_wrongly_believed_out_is_heard_and_who_is_banned_is_not() {
    const BEN: &str = "@ben:b.example";
    let net = Net::default();
    let (a, b, id) = prepared(&net).await;
    b.join(&actor(BEN), &id, Vec::new(), Map::new()).await.unwrap();
    net.deliver().await;
    let earlier = whole_state(&a, &id).await;
    b.leave(&actor(BOB), &id, None).await.unwrap();
    net.deliver().await;
    let c = net.server("c.example", 3);
    joined(&net, &c, &id).await;
    // Bob, who has left, removes Bert.
    let (key, content) = (Some(BERT), json!({ "membership": "leave" }));
    let prev = at(&whole_state(&c, &id).await, "m.room.member", CAROL);
    let kick = Lie { sender: BOB, kind: "m.room.member", key, content, prev, auth: auth(&earlier, BOB) };
    let kick = tell(&c, &id, kick).await;
    assert_eq!(status(&c, &id, &kick).await, Status::Accepted);
    let bert = tell(&c, &id, message(&earlier, BERT, "still here", &kick)).await;
    assert_eq!(status(&c, &id, &bert).await, Status::Accepted, "what is known of Bert may be wrong");
    a.change(&actor(ALICE), &id, &user(BEN), Change::Ban, None).await.unwrap();
    net.deliver().await;
    let ban = at(&whole_state(&c, &id).await, "m.room.member", BEN);
    let ben = tell(&c, &id, message(&earlier, BEN, "still here", &ban)).await;
    assert_eq!(status(&c, &id, &ben).await, Status::Rejected, "a ban is not talked away");
    complete(&net, &c, &id).await;
    let statuses = [status(&c, &id, &kick).await, status(&c, &id, &bert).await, status(&c, &id, &ben).await];
    assert_eq!(statuses, [Status::Rejected, Status::Accepted, Status::Rejected]);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_to_do_is_done_after_a_crash() {
    let net = Net::default();
    let db = Db::new(Memory::default());
    let c = net.server_on("c.example", 3, db.clone());
    let (a, id, earlier) = left_by_bob(&net, &c).await;
    believed_ban(&c, &id, &earlier, DAN).await;
    a.join(&actor(DAN), &id, Vec::new(), Map::new()).await.unwrap();
    let said = say(&a, DAN, &id, "here I am").await;
    net.deliver().await;
    assert_eq!(status(&c, &id, &said).await, Status::SoftFailed);
    c.note_unplaced_devices(&user(BERT)).await.unwrap();
    let nid = c.view(&id).await.unwrap().nid;
    let partial = c.store().read().partial_room(nid).await.unwrap().unwrap();
    net.silent.lock().clear();
    c.0.fetch_state_before(server_name!("a.example"), &id, &partial).await.unwrap();
    c.0.make_whole(&id, &partial).await.unwrap();
    // The server ends here, before the rest is done.
    let c = net.server_on("c.example", 3, db);
    assert_eq!(status(&c, &id, &said).await, Status::SoftFailed);
    assert_eq!(c.store().read().unplaced_devices(nid).await.unwrap(), [user(BERT)]);
    c.resume_partial().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bodies(&c, &id).await, ["here I am"]);
    let reader = c.store().read();
    assert!(reader.unfinished_rooms().await.unwrap().is_empty());
    assert_eq!(whole_state(&c, &id).await, whole_state(&a, &id).await);
}

#[tokio::test(start_paused = true)]
async fn what_was_redacted_while_it_was_refused_is_shown_redacted() {
    let net = Net::default();
    let c = net.server("c.example", 3);
    let (a, id, earlier) = left_by_bob(&net, &c).await;
    believed_ban(&c, &id, &earlier, DAN).await;
    a.join(&actor(DAN), &id, Vec::new(), Map::new()).await.unwrap();
    let said = say(&a, DAN, &id, "an insult").await;
    net.deliver().await;
    assert_eq!(status(&c, &id, &said).await, Status::SoftFailed);
    a.send(&actor(ALICE), &id, Draft::redaction(&said, None), None).await.unwrap();
    net.deliver().await;
    complete(&net, &c, &id).await;
    assert_eq!(status(&c, &id, &said).await, Status::Accepted);
    assert!(bodies(&c, &id).await.is_empty());
    // Nor does what others rest on become a head.
    assert_eq!(c.view(&id).await.unwrap().head.extremities.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_others_redacted_as_well_stays_redacted() {
    for by_others in [false, true] {
        let net = Net::default();
        let c = net.server("c.example", 3);
        let (a, id, earlier) = left_by_bob(&net, &c).await;
        let said = say(&a, ALICE, &id, "an insult").await;
        net.deliver().await;
        let content = json!({ "redacts": said });
        let auth = auth(&earlier, BOB);
        let lie = Lie { sender: BOB, kind: "m.room.redaction", key: None, content, prev: said.clone(), auth };
        let lie = tell(&c, &id, lie).await;
        assert_eq!(status(&c, &id, &lie).await, Status::Accepted);
        assert!(bodies(&c, &id).await.is_empty());
        if by_others {
            a.send(&actor(ALICE), &id, Draft::redaction(&said, None), None).await.unwrap();
            net.deliver().await;
        }
        complete(&net, &c, &id).await;
        assert_eq!(status(&c, &id, &lie).await, Status::Rejected);
        let shown: &[&str] = if by_others { &[] } else { &["an insult"] };
        assert_eq!(bodies(&c, &id).await, shown);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_policy_server_refused_is_not_shown_late() {
    let net = Net::default();
    let (a, _, id) = prepared(&net).await;
    *net.partial_joins.lock() = false;
    let p = net.server("p.fr", 4);
    join(&p, "@judge:p.fr", &id).await;
    net.deliver().await;
    *net.partial_joins.lock() = true;
    let asked = policy_server(&net, key());
    let named = state("m.room.policy", "", &names("p.fr", &key()));
    a.send(&actor(ALICE), &id, named, None).await.unwrap();
    net.deliver().await;
    let earlier = whole_state(&a, &id).await;
    let c = net.server("c.example", 3);
    joined(&net, &c, &id).await;
    let prev = at(&whole_state(&c, &id).await, "m.room.member", CAROL);
    let ham = tell(&c, &id, message(&earlier, BOB, "ham", &prev)).await;
    let spam = tell(&c, &id, message(&earlier, BOB, "spam", &ham)).await;
    assert_eq!(status(&c, &id, &spam).await, Status::SoftFailed);
    let before = asked.load(Ordering::Relaxed);
    complete(&net, &c, &id).await;
    assert!(asked.load(Ordering::Relaxed) > before, "it may think otherwise by now");
    assert_eq!(status(&c, &id, &spam).await, Status::SoftFailed);
    assert_eq!(bodies(&c, &id).await, ["ham"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_wrongly_rejected_is_shown_only_if_it_is_wanted_now() {
    for banned in [true, false] {
        let net = Net::default();
        let c = net.server("c.example", 3);
        let (a, id, earlier) = left_by_bob(&net, &c).await;
        let ban = believed_ban(&c, &id, &earlier, BERT).await;
        if banned {
            a.change(&actor(ALICE), &id, &user(BERT), Change::Ban, None).await.unwrap();
            net.deliver().await;
        }
        let said = tell(&c, &id, message(&earlier, BERT, "still here", &ban)).await;
        assert_eq!(status(&c, &id, &said).await, Status::Rejected);
        complete(&net, &c, &id).await;
        assert_eq!(status(&c, &id, &ban).await, Status::Rejected);
        assert_eq!(membership(&c, &id, BERT).await, Some(if banned { "ban" } else { "join" }));
        let expected = if banned { Status::SoftFailed } else { Status::Accepted };
        assert_eq!(status(&c, &id, &said).await, expected);
        assert_eq!(bodies(&c, &id).await.is_empty(), banned);
    }
}
