//! Rows 48 to 51, 53, 54, 56, 57 and 66: who is invited, and who joins.

use chappe_identity::{MapTarget, Whom};
use chappe_world::FakeNet;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Place, RULES, User, direct, forbidden, forum, network, room_with, server, server_with, text};

const PARTNER: &str = "paul@partner.example";

fn invite_path(room: &str) -> String {
    format!("/rooms/{room}/invite")
}

async fn open_to_all(user: &User<'_>, room: &str) {
    user.ok("PUT", &format!("/rooms/{room}/state/m.room.join_rules/"), json!({ "join_rule": "public" }))
        .await;
}

#[tokio::test]
async fn row_48_an_external_is_not_invited_into_a_restricted_room() {
    let (a, b, e) = network().await;
    let (alice, bob, paul) = (a.user("alice").await, b.user("bob").await, e.user("paul").await);
    let space = json!({ "creation_content": { "type": "m.space" } });
    for request in [room_with("restricted"), json!({}), forum(), space] {
        let room = alice.room(request).await;
        alice.refused("POST", &invite_path(&room), json!({ "user_id": paul.id })).await;
        let member = format!("/rooms/{room}/state/m.room.member/{}", paul.id);
        alice.refused("PUT", &member, json!({ "membership": "invite" })).await;
        alice.invite(&room, &bob).await;
    }
    let mut request = room_with("restricted");
    request["invite"] = json!([paul.id]);
    alice.refused("POST", "/createRoom", request).await;
    let said = paul.ok("GET", "/sync?timeout=0", Value::Null).await;
    assert!(said["rooms"]["invite"].as_object().is_none_or(serde_json::Map::is_empty), "{said}");
}

#[tokio::test]
async fn row_49_an_external_does_not_join_a_restricted_room_by_its_link() {
    let (a, b, e) = network().await;
    let (alice, bob, paul) = (a.user("alice").await, b.user("bob").await, e.user("paul").await);
    let linked = alice.room(room_with("restricted")).await;
    open_to_all(&alice, &linked).await;
    let knocked = alice.room(room_with("restricted")).await;
    let knock = json!({ "join_rule": "knock" });
    alice.ok("PUT", &format!("/rooms/{knocked}/state/m.room.join_rules/"), knock).await;
    for room in [&linked, &alice.room(forum()).await] {
        forbidden(paul.join(room, "a.test").await);
        assert_eq!(bob.join(room, "a.test").await.0, StatusCode::OK);
        forbidden(paul.join(room, "b.test").await);
        alice.sees(room, &bob.id, "join").await;
        assert_eq!(alice.membership(room, &paul.id).await, None);
    }
    forbidden(paul.call("POST", &format!("/knock/{knocked}?server_name=a.test"), json!({})).await);
    let (status, said) = bob.call("POST", &format!("/knock/{knocked}?server_name=a.test"), json!({})).await;
    assert_eq!(status, StatusCode::OK, "{said}");
}

/// A server that knows no rules would let the external in: its own server does not follow.
#[tokio::test]
async fn row_49_an_external_does_not_join_through_a_server_without_rules() {
    let net = FakeNet::new();
    let (m, e) = (Place::start(&net, "m.test", "").await, server(&net, "e.test").await);
    let (mary, paul) = (m.user("mary").await, e.user("paul").await);
    let mut request = room_with("restricted");
    request["preset"] = json!("public_chat");
    let room = mary.room(request).await;
    forbidden(paul.join(&room, "m.test").await);
    assert_eq!(paul.ok("GET", "/joined_rooms", Value::Null).await["joined_rooms"], json!([]));
}

#[tokio::test]
async fn rows_50_51_an_external_joins_an_open_room_by_invitation() {
    let (a, b, e) = network().await;
    let (alice, bob, paul) = (a.user("alice").await, b.user("bob").await, e.user("paul").await);
    let room = alice.room(room_with("unrestricted")).await;
    open_to_all(&alice, &room).await;
    forbidden(paul.join(&room, "a.test").await);
    assert_eq!(bob.join(&room, "a.test").await.0, StatusCode::OK);
    forbidden(paul.join(&room, "b.test").await);
    paul.enter(&room, &alice).await;
    bob.sees(&room, &paul.id, "join").await;
    // Out means out.
    paul.ok("POST", &format!("/rooms/{room}/leave"), json!({})).await;
    alice.sees(&room, &paul.id, "leave").await;
    forbidden(paul.join(&room, "a.test").await);
}

#[tokio::test]
async fn row_53_no_third_person_in_a_direct_chat() {
    let (a, b, e) = network().await;
    let (alice, bob, paul) = (a.user("alice").await, b.user("bob").await, e.user("paul").await);
    let chat = alice.room(direct()).await;
    paul.enter(&chat, &alice).await;
    alice.refused("POST", &invite_path(&chat), json!({ "user_id": bob.id })).await;
    paul.ok("POST", &format!("/rooms/{chat}/leave"), json!({})).await;
    alice.sees(&chat, &paul.id, "leave").await;
    alice.refused("POST", &invite_path(&chat), json!({ "user_id": bob.id })).await;
    alice.invite(&chat, &paul).await;
    let mut crowd = direct();
    crowd["invite"] = json!([paul.id, bob.id]);
    alice.refused("POST", "/createRoom", crowd).await;
    let mut pair = direct();
    pair["invite"] = json!([paul.id]);
    let chat = alice.room(pair).await;
    assert_eq!(paul.join(&chat, "a.test").await.0, StatusCode::OK);
}

/// Somebody who invites addresses by this server's own identity service.
struct Host<'a> {
    user: User<'a>,
    id_token: String,
}

impl Host<'_> {
    fn address(&self, address: &str) -> Value {
        json!({ "id_server": "a.test", "id_access_token": self.id_token, "medium": "email", "address": address })
    }
}

impl Place {
    async fn host(&self) -> Host<'_> {
        let user = self.user("alice").await;
        let path = format!("/user/{}/openid/request_token", user.id);
        let openid = user.ok("POST", &path, json!({})).await;
        let said = self.call("", "POST", "/_matrix/identity/v2/account/register", openid).await.1;
        Host { id_token: text(&said["token"]), user }
    }

    /// Agents of a.fr are at home here, everybody else with the externals.
    async fn map(&self) {
        for (whom, hs) in [("a.fr", "a.test"), ("*", "e.test")] {
            let whom: Whom = whom.parse().unwrap();
            let target =
                MapTarget { hs: hs.try_into().unwrap(), shadow_hs: None, requires_invite: whom == Whom::All };
            self.service.identity().map().put(&whom, &target).await.unwrap();
        }
    }

    async fn mailed(&mut self) -> Vec<String> {
        self.mails.next().await.to
    }
}

#[tokio::test]
async fn row_54_one_address_in_a_direct_chat() {
    let (a, ..) = network().await;
    a.map().await;
    let host = a.host().await;
    let alice = &host.user;
    let chat = alice.room(direct()).await;
    let path = invite_path(&chat);
    alice.ok("POST", &path, host.address(PARTNER)).await;
    alice.refused("POST", &path, host.address("max@partner.example")).await;
    let state = alice.ok("GET", &format!("/rooms/{chat}/state"), Value::Null).await;
    let kind = "m.room.third_party_invite";
    let token = state.as_array().unwrap().iter().find(|event| event["type"] == kind).unwrap();
    let token = token["state_key"].as_str().unwrap();
    alice.ok("PUT", &format!("/rooms/{chat}/state/{kind}/{token}"), json!({})).await;
    alice.ok("POST", &path, host.address("max@partner.example")).await;
}

#[tokio::test]
async fn rows_56_57_addresses_of_externals_and_restricted_rooms() {
    let (mut a, ..) = network().await;
    a.map().await;
    {
        let host = a.host().await;
        let alice = &host.user;
        let restricted = alice.room(room_with("restricted")).await;
        alice.refused("POST", &invite_path(&restricted), host.address(PARTNER)).await;
        let mut phone = host.address("33612345678");
        phone["medium"] = json!("msisdn");
        alice.refused("POST", &invite_path(&restricted), phone).await;
        for wrong in ["Paul <paul@a.fr>", "paul@a.fr@partner.example"] {
            let (status, _) = alice.call("POST", &invite_path(&restricted), host.address(wrong)).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
        }
        // The address would be told to nobody: there is no room.
        let mut request = room_with("restricted");
        request["invite_3pid"] = json!([host.address(PARTNER)]);
        alice.refused("POST", "/createRoom", request).await;
        // An identity server that gives no answer is no reason to let anybody in.
        let mut unknown = host.address("jean@a.fr");
        unknown["id_server"] = json!("nobody.test");
        alice.refused("POST", &invite_path(&restricted), unknown).await;
        let open = alice.room(room_with("unrestricted")).await;
        alice.ok("POST", &invite_path(&restricted), host.address("Jean@a.fr")).await;
        alice.ok("POST", &invite_path(&open), host.address(PARTNER)).await;
    }
    assert_eq!(a.mailed().await, ["jean@a.fr"]);
    assert_eq!(a.mailed().await, [PARTNER]);
    assert!(a.mails.try_recv().is_err());
}

#[tokio::test]
async fn row_66_domain_rules() {
    let net = FakeNet::new();
    let domains = r#"
[rooms.access.domains]
domain_mapping = { "a.test" = ["a.test", "b.test"] }
can_invite_by_third_party_id = false
domains_prevented_from_being_invited_to_published_rooms = ["b.test"]
"#;
    let a = server_with(&net, "a.test", domains).await;
    let b =
        server_with(&net, "b.test", "[rooms.access.domains]\ncan_only_invite_during_room_creation = true")
            .await;
    let e =
        server_with(&net, "e.test", "[rooms.access.domains]\ncan_only_join_rooms_with_invite = true").await;
    let host = a.host().await;
    let (alice, bob, paul) = (&host.user, b.user("bob").await, e.user("paul").await);
    let open = alice.room(room_with("unrestricted")).await;
    alice.refused("POST", &invite_path(&open), json!({ "user_id": paul.id })).await;
    alice.refused("POST", &invite_path(&open), host.address(PARTNER)).await;
    alice.invite(&open, &bob).await;
    let listed = alice.room(forum()).await;
    alice.refused("POST", &invite_path(&listed), json!({ "user_id": bob.id })).await;

    let room = bob.room(room_with("unrestricted")).await;
    paul.enter(&room, &bob).await;
    bob.refused("POST", &invite_path(&room), json!({ "user_id": alice.id })).await;

    let m = Place::start(&net, "m.test", "").await;
    let mary = m.user("mary").await;
    let rules = json!({ "type": RULES, "state_key": "", "content": { "rule": "direct" } });
    let room = mary.room(json!({ "preset": "public_chat", "initial_state": [rules] })).await;
    forbidden(paul.join(&room, "m.test").await);
    paul.enter(&room, &mary).await;
}
