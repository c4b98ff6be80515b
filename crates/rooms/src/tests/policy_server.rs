//! Rooms with a policy server: what it refuses is not sent, what it has not signed is not shown.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use chappe_accounts::{NewUser, UserKind};
use chappe_kv::{Db, Memory};
use chappe_rules::{Pdu, build, build::SigningKey, redact};
use chappe_store::members::ShutRooms;
use ruma::{OwnedRoomId, RoomVersionId, owned_server_name, serde::Base64, server_name};
use serde_json::{Value, json};

use super::net::{Net, actor, bodies, membership, room, say, state, text};
use crate::{Actor, Config, Draft, Error, PeerError, PolicyServerConfig, Rooms, Standing};

pub(super) fn key() -> SigningKey {
    SigningKey::from_seed([9; 32], "policy_server").unwrap()
}

pub(super) fn names(via: &str, key: &SigningKey) -> Value {
    let key: Base64 = Base64::new(key.public_key().to_vec());
    json!({ "via": via, "public_keys": { "ed25519": key.encode() } })
}

/// Makes p.fr a policy server that refuses what says "spam"; gives how often it was asked.
pub(super) fn policy_server(net: &Net, key: SigningKey) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let judge = move |pdu: Value| {
        count.fetch_add(1, Ordering::Relaxed);
        if pdu["content"]["body"].as_str().is_some_and(|body| body.contains("spam")) {
            let (errcode, error) = ("M_FORBIDDEN".to_owned(), "No spam here".to_owned());
            return Err(PeerError::Refused { status: 400, errcode, error, room_version: None });
        }
        let rules = chappe_rules::version::rules(&RoomVersionId::V11).unwrap();
        let pdu = Pdu::parse(rules, pdu.to_string().as_bytes()).unwrap();
        let signed = build::countersign(rules, &pdu, server_name!("p.fr"), &key).unwrap();
        let signed: Value = serde_json::from_str(signed.json()).unwrap();
        Ok(signed["signatures"]["p.fr"]["ed25519:policy_server"].as_str().unwrap().to_owned())
    };
    net.policy.lock().insert(owned_server_name!("p.fr"), Arc::new(judge));
    asked
}

/// Three servers in a room, one of which is to be its policy server.
async fn three(net: &Net) -> (Rooms, Rooms, OwnedRoomId) {
    let (a, b, p) = (net.server("a.fr", 1), net.server("b.fr", 2), net.server("p.fr", 3));
    let body = json!({ "preset": "public_chat", "room_version": "11" });
    let room = room(&a, "@alice:a.fr", body).await;
    for (rooms, who) in [(&b, "@bob:b.fr"), (&p, "@judge:p.fr")] {
        rooms
            .join(&actor(who), &room, vec![owned_server_name!("a.fr")], serde_json::Map::new())
            .await
            .unwrap();
        net.deliver().await;
    }
    (a, b, room)
}

async fn name(rooms: &Rooms, room: &OwnedRoomId, content: &Value) {
    rooms.send(&actor("@alice:a.fr"), room, state("m.room.policy", "", content), None).await.unwrap();
}

#[tokio::test]
async fn what_the_policy_server_refuses_is_not_sent() {
    let net = Net::default();
    let (a, b, room) = three(&net).await;
    let asked = policy_server(&net, key());
    say(&a, "@alice:a.fr", &room, "spam before").await;
    name(&a, &room, &names("p.fr", &key())).await;
    assert_eq!(asked.load(Ordering::Relaxed), 0, "not asked about its own naming");
    net.deliver().await;
    say(&b, "@bob:b.fr", &room, "ham").await;
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let refused = a.send(&actor("@alice:a.fr"), &room, text("spam"), None).await;
    let Err(Error::PolicyServer(PeerError::Refused { error, .. })) = refused else { panic!("{refused:?}") };
    assert_eq!(error, "No spam here");
    let many = (0..10).map(|n| {
        let (a, room, body) = (a.clone(), room.clone(), if n % 3 == 0 { "spam" } else { "eggs" });
        async move { a.send(&actor("@alice:a.fr"), &room, text(body), None).await.is_ok() }
    });
    let sent = futures_util::future::join_all(many).await;
    assert_eq!(sent.iter().filter(|sent| **sent).count(), 6);
    let before = asked.load(Ordering::Relaxed);
    net.deliver().await;
    assert_eq!(asked.load(Ordering::Relaxed), before, "the signature came with the event");
    for rooms in [&a, &b] {
        let said = bodies(rooms, &room).await;
        assert_eq!(said.iter().filter(|body| *body == "eggs").count(), 6);
        assert!(said.contains(&"ham".to_owned()) && !said.contains(&"spam".to_owned()));
    }
}

#[tokio::test]
async fn a_policy_server_that_is_away_or_has_another_key_can_be_done_without() {
    let net = Net::default();
    let (a, _, room) = three(&net).await;
    policy_server(&net, SigningKey::from_seed([8; 32], "policy_server").unwrap());
    name(&a, &room, &names("p.fr", &key())).await;
    let refused = a.send(&actor("@alice:a.fr"), &room, text("ham"), None).await;
    assert!(matches!(refused, Err(Error::PolicyServer(PeerError::Malformed(_)))), "{refused:?}");
    net.down.lock().insert(owned_server_name!("p.fr"));
    let refused = a.send(&actor("@alice:a.fr"), &room, text("ham"), None).await;
    assert!(matches!(refused, Err(Error::PolicyServer(PeerError::Unreachable(_)))), "{refused:?}");
    name(&a, &room, &json!({})).await;
    say(&a, "@alice:a.fr", &room, "ham").await;
    name(&a, &room, &names("nowhere.fr", &key())).await;
    say(&a, "@alice:a.fr", &room, "the named server is not in the room").await;
}

#[tokio::test]
async fn a_policy_server_whose_name_is_redacted_is_none_any_more() {
    let net = Net::default();
    let (a, b, room) = three(&net).await;
    let asked = policy_server(&net, key());
    let named = state("m.room.policy", "", &names("p.fr", &key()));
    let named = a.send(&actor("@alice:a.fr"), &room, named, None).await.unwrap();
    net.deliver().await;
    for (rooms, who) in [(&a, "@alice:a.fr"), (&b, "@bob:b.fr")] {
        say(rooms, who, &room, "ham").await;
        net.deliver().await;
    }
    a.send(&actor("@alice:a.fr"), &room, Draft::redaction(&named, None), None).await.unwrap();
    net.deliver().await;
    let before = asked.load(Ordering::Relaxed);
    for (rooms, who) in [(&a, "@alice:a.fr"), (&b, "@bob:b.fr")] {
        say(rooms, who, &room, "spam").await;
        net.deliver().await;
    }
    assert_eq!(asked.load(Ordering::Relaxed), before);
    for rooms in [&a, &b] {
        assert_eq!(bodies(rooms, &room).await, ["ham", "ham", "spam", "spam"]);
    }
}

#[tokio::test]
async fn a_policy_server_that_is_off_the_list_stops_nobody() {
    let net = Net::default();
    let (a, b, room) = three(&net).await;
    let asked = policy_server(&net, key());
    name(&a, &room, &names("p.fr", &key())).await;
    net.deliver().await;
    say(&a, "@alice:a.fr", &room, "ham").await;
    net.deliver().await;
    let before = asked.load(Ordering::Relaxed);
    for server in [owned_server_name!("a.fr"), owned_server_name!("b.fr")] {
        net.unlisted.lock().insert((server, owned_server_name!("p.fr")));
    }
    net.down.lock().insert(owned_server_name!("p.fr"));
    for (rooms, who) in [(&a, "@alice:a.fr"), (&b, "@bob:b.fr")] {
        say(rooms, who, &room, "on").await;
        net.deliver().await;
    }
    assert_eq!(asked.load(Ordering::Relaxed), before);
    for rooms in [&a, &b] {
        assert_eq!(bodies(rooms, &room).await, ["ham", "on", "on"]);
    }
    // While there is no list it is not known that it is off.
    net.close("a.fr");
    let refused = a.send(&actor("@alice:a.fr"), &room, text("ham"), None).await;
    assert!(matches!(refused, Err(Error::PolicyServer(PeerError::Unreachable(_)))), "{refused:?}");
}

#[tokio::test]
async fn guests_who_are_shut_out_leave_though_the_policy_server_is_away() {
    let net = Net::default();
    let (a, _, room) = three(&net).await;
    for guest in ["gus", "gil"] {
        let new = NewUser { localpart: Some(guest.to_owned()), kind: UserKind::Guest, ..NewUser::default() };
        a.0.accounts.create_user(new).await.unwrap();
    }
    let access = async |what: &str| {
        let draft = state("m.room.guest_access", "", &json!({ "guest_access": what }));
        a.send(&actor("@alice:a.fr"), &room, draft, None).await.unwrap();
    };
    access("can_join").await;
    for guest in ["@gus:a.fr", "@gil:a.fr"] {
        let guest = Actor { standing: Standing::Guest, ..actor(guest) };
        a.join(&guest, &room, Vec::new(), serde_json::Map::new()).await.unwrap();
    }
    let asked = policy_server(&net, key());
    name(&a, &room, &names("p.fr", &key())).await;
    access("forbidden").await;
    net.down.lock().insert(owned_server_name!("p.fr"));
    let before = asked.load(Ordering::Relaxed);
    a.dismiss_guests().await.unwrap();
    for guest in ["@gus:a.fr", "@gil:a.fr"] {
        assert_eq!(membership(&a, &room, guest).await, Some("leave"));
    }
    assert_eq!(membership(&a, &room, "@alice:a.fr").await, Some("join"));
    assert_eq!(asked.load(Ordering::Relaxed), before);
    assert!(a.0.store.read().scan_all::<ShutRooms>(&()).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_comes_without_a_signature_is_asked_about_and_hidden_if_refused() {
    let net = Net::default();
    let (a, b, room) = three(&net).await;
    let asked = policy_server(&net, key());
    // b.fr does not hear that there is a policy server, and so asks nobody.
    name(&a, &room, &names("p.fr", &key())).await;
    net.lose(&a, "b.fr").await;
    say(&b, "@bob:b.fr", &room, "ham").await;
    say(&b, "@bob:b.fr", &room, "spam").await;
    net.deliver().await;
    assert!(asked.load(Ordering::Relaxed) >= 2);
    let said = bodies(&a, &room).await;
    assert!(said.contains(&"ham".to_owned()) && !said.contains(&"spam".to_owned()), "{said:?}");
}

#[tokio::test]
async fn who_comes_in_is_shown_to_the_policy_server_too() {
    let net = Net::default();
    let (a, _, room) = three(&net).await;
    name(&a, &room, &names("p.fr", &key())).await;
    let c = net.server("c.fr", 4);
    let via = || vec![owned_server_name!("a.fr")];
    let join = async || c.join(&actor("@carol:c.fr"), &room, via(), serde_json::Map::new()).await;
    assert!(join().await.is_err(), "p.fr signs nothing yet");
    assert_eq!(membership(&a, &room, "@carol:c.fr").await, None);
    let asked = policy_server(&net, key());
    let invite = crate::Change::Invite;
    a.change(&actor("@alice:a.fr"), &room, &ruma::owned_user_id!("@carol:c.fr"), invite, None).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    join().await.unwrap();
    assert_eq!(membership(&a, &room, "@carol:c.fr").await, Some("join"));
}

#[tokio::test]
async fn this_server_judges_rooms_that_it_protects_and_no_others() {
    let net = Net::default();
    let a = net.server("a.fr", 1);
    let body = json!({ "preset": "public_chat", "room_version": "11" });
    let (room, other) = (room(&a, "@alice:a.fr", body.clone()).await, room(&a, "@alice:a.fr", body).await);
    let policy = PolicyServerConfig {
        rooms: vec![room.clone()],
        refused_words: vec!["spam".to_owned()],
        ..PolicyServerConfig::default()
    };
    let config = Config { policy_server: Some(policy), ..Config::default() };
    let p = net.server_with("p.fr", 3, Db::new(Memory::default()), config);
    assert_eq!(a.policy_key(), None);
    let key = p.policy_key().unwrap();
    for room in [&room, &other] {
        let via = vec![owned_server_name!("a.fr")];
        p.join(&actor("@judge:p.fr"), room, via, serde_json::Map::new()).await.unwrap();
        net.deliver().await;
        let named = json!({ "via": "p.fr", "public_keys": { "ed25519": key } });
        name(&a, room, &named).await;
    }
    say(&a, "@alice:a.fr", &room, "ham").await;
    let refused = a.send(&actor("@alice:a.fr"), &room, text("SPAM"), None).await;
    let Err(Error::PolicyServer(PeerError::Refused { status, errcode, .. })) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((status, errcode.as_str()), (400, "M_FORBIDDEN"));
    let refused = a.send(&actor("@alice:a.fr"), &other, text("ham"), None).await;
    assert!(matches!(refused, Err(Error::PolicyServer(PeerError::Refused { .. }))), "{refused:?}");
    net.deliver().await;
    say(&p, "@judge:p.fr", &room, "its own words as well").await;
    let refused = p.send(&actor("@judge:p.fr"), &room, text("spam"), None).await;
    assert!(matches!(refused, Err(Error::PolicyServer(PeerError::Refused { .. }))), "{refused:?}");
    assert_eq!(bodies(&p, &room).await, ["ham", "its own words as well"]);
    // Nobody has words signed that somebody else did not say.
    let view = a.view(&room).await.unwrap();
    let last = view.reader.timeline_end(view.nid).await.unwrap().unwrap();
    let pdu = view.load_one(last.num).await.unwrap().pdu;
    let sign = async |text: String| {
        let raw = serde_json::value::RawValue::from_string(text).unwrap();
        p.sign_for_room(server_name!("b.fr"), &raw).await
    };
    sign(pdu.json().to_owned()).await.unwrap();
    let rules = chappe_rules::version::rules(&RoomVersionId::V11).unwrap();
    let hidden = sign(redact::event(rules, &pdu).unwrap().json().to_owned()).await;
    assert!(
        matches!(hidden, Err(Error::BadJson(_))),
        "the signature would be good for what is hidden: {hidden:?}"
    );
    let forged = sign(pdu.json().replace("ham", "lamb")).await;
    assert!(matches!(forged, Err(Error::BadJson(_))), "{forged:?}");
    let forged = sign(pdu.json().replace("@alice:a.fr", "@alina:a.fr")).await;
    assert!(matches!(forged, Err(Error::BadJson(_))), "{forged:?}");
    assert!(matches!(sign("{}".to_owned()).await, Err(Error::BadJson(_))));
    let elsewhere = sign(pdu.json().replace(room.as_str(), other.as_str())).await;
    assert!(matches!(elsewhere, Err(Error::NotFound(_))), "{elsewhere:?}");
    p.reconfigure(Config::default());
    assert_eq!(p.policy_key(), None);
    assert!(matches!(sign(pdu.json().to_owned()).await, Err(Error::NotFound(_))));
}
