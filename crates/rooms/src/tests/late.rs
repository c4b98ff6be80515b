//! What was refused while the members of a room were still to come, once they are here.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use chappe_store::Status;
use ruma::{OwnedEventId, RoomId};
use serde_json::{Map, Value, json};

use super::{
    net::{Net, actor, bodies, membership, say, state, user, whole_state},
    partial::{ALICE, BERT, BOB, CAROL, Lie, at, complete, joined, prepared, status, tell, via},
    policy_server::{key, names, policy_server},
};
use crate::{Change, Draft, Rooms};

const DAN: &str = "@dan:a.example";

type State = BTreeMap<(String, String), OwnedEventId>;

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
async fn what_was_redacted_while_it_was_refused_is_shown_redacted() {
    let net = Net::default();
    let (a, b, id) = prepared(&net).await;
    let earlier = whole_state(&a, &id).await;
    b.leave(&actor(BOB), &id, None).await.unwrap();
    net.deliver().await;
    let c = net.server("c.example", 3);
    joined(&net, &c, &id).await;
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
async fn what_the_policy_server_refused_is_not_shown_late() {
    let net = Net::default();
    let (a, _, id) = prepared(&net).await;
    *net.partial_joins.lock() = false;
    let p = net.server("p.fr", 4);
    p.join(&actor("@judge:p.fr"), &id, via("a.example"), Map::new()).await.unwrap();
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
        let (a, b, id) = prepared(&net).await;
        let earlier = whole_state(&a, &id).await;
        b.leave(&actor(BOB), &id, None).await.unwrap();
        net.deliver().await;
        let c = net.server("c.example", 3);
        joined(&net, &c, &id).await;
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
