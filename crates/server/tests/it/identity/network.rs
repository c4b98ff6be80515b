//! Two servers: an identity service here, a user there, and what crosses between them.

use axum::Router;
use chappe_server::config::Api;
use chappe_world::{FakeNet, World};
use http::{StatusCode, header};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{V2, text};
use crate::host::{self, Mails, PASSWORD};

const SECRET: &str = "a-secret-of-the-client";

/// A server on a network of its own kind, with real mail.
struct Place {
    name: &'static str,
    router: Router,
    world: World,
    mails: Mails,
    _folder: TempDir,
}

impl Place {
    async fn start(net: &FakeNet, name: &'static str, seed: u64) -> Self {
        Self::start_with(net, name, seed, "").await
    }

    async fn start_with(net: &FakeNet, name: &'static str, seed: u64, more: &str) -> Self {
        let (folder, mails) = (tempfile::tempdir().unwrap(), Mails::start().await);
        let text = host::configuration(name, folder.path(), &format!("{}{more}", mails.section(name)));
        let apis = [Api::Client, Api::Federation, Api::Identity];
        let (_, router, world) = host::place(net, (name, seed), &text, &apis).await;
        Self { name, router, world, mails, _folder: folder }
    }

    async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let mut request = host::request("", (method, path), &body);
        if !token.is_empty() {
            request.headers_mut().insert(header::AUTHORIZATION, token.parse().unwrap());
        }
        let answer = host::send(&self.router, request).await;
        (answer.status, answer.json)
    }

    async fn ok(&self, token: &str, method: &str, path: &str, body: Value) -> Value {
        let (status, said) = self.call(token, method, path, body).await;
        assert_eq!(status, StatusCode::OK, "{method} {path}: {said}");
        said
    }

    /// Signs somebody up; gives user id and `Authorization` header.
    async fn user(&self, name: &str) -> (String, String) {
        let said = host::sign_up(&self.router, name).await;
        (text(&said["user_id"]), format!("Bearer {}", text(&said["access_token"])))
    }

    /// The token of a user of this place for the identity service of another one.
    async fn member_at(&self, other: &Self, user: &str, token: &str) -> String {
        let path = format!("/_matrix/client/v3/user/{user}/openid/request_token");
        let openid = self.ok(token, "POST", &path, json!({})).await;
        text(&other.ok("", "POST", &format!("{V2}/account/register"), openid).await["token"])
    }

    /// Has an address validated by this identity service; gives the session.
    async fn validate(&mut self, id_token: &str, address: &str) -> String {
        let wanted = json!({ "client_secret": SECRET, "email": address, "send_attempt": 1 });
        let bearer = format!("Bearer {id_token}");
        let asked = self.ok(&bearer, "POST", &format!("{V2}/validate/email/requestToken"), wanted).await;
        let mail = self.mails.next().await;
        let (_, token) = mail.text.split_once("token=").unwrap();
        let token = token.split('&').next().unwrap();
        let submit = json!({ "sid": asked["sid"], "client_secret": SECRET, "token": token });
        self.ok("", "POST", &format!("{V2}/validate/email/submitToken"), submit).await;
        text(&asked["sid"])
    }

    /// Whether this identity service finds somebody by an address.
    async fn finds(&self, id_token: &str, address: &str) -> Option<String> {
        let bearer = format!("Bearer {id_token}");
        let details = self.ok(&bearer, "GET", &format!("{V2}/hash_details"), Value::Null).await;
        let asked = format!("{address} email");
        let body = json!({ "addresses": [asked], "algorithm": "none", "pepper": details["lookup_pepper"] });
        let found = self.ok(&bearer, "POST", &format!("{V2}/lookup"), body).await;
        found["mappings"][&asked].as_str().map(str::to_owned)
    }

    /// Waits for an invite.
    async fn invited(&self, token: &str, room: &str) -> Value {
        let mut since = String::new();
        loop {
            let path = format!("/_matrix/client/v3/sync?timeout=10000{since}");
            let said = self.ok(token, "GET", &path, Value::Null).await;
            if said["rooms"]["invite"][room].is_object() {
                return said["rooms"]["invite"][room].clone();
            }
            since = format!("&since={}", said["next_batch"].as_str().unwrap());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.world.kill();
    }
}

async fn two() -> (Place, Place) {
    let net = FakeNet::new();
    (Place::start(&net, "a.test", 1).await, Place::start(&net, "b.test", 2).await)
}

/// Alice of `a.test` invites an address; Bob of `b.test` proves at the identity service of `a.test` that it is his: the
/// invite finds him at his own server.
#[tokio::test]
async fn row_107_an_invitation_finds_its_way_to_a_user_of_another_server() {
    let (mut a, b) = two().await;
    let (alice, alice_token) = a.user("alice").await;
    let (bob, bob_token) = b.user("bob").await;
    let alice_id = a.member_at(&a, &alice, &alice_token).await;
    let bob_id = b.member_at(&a, &bob, &bob_token).await;
    let made = a.ok(&alice_token, "POST", "/_matrix/client/v3/createRoom", json!({ "name": "Room" })).await;
    let room = text(&made["room_id"]);
    let invite = json!({ "id_server": "a.test", "id_access_token": alice_id, "medium": "email", "address": "bob@x.fr" });
    a.ok(&alice_token, "POST", &format!("/_matrix/client/v3/rooms/{room}/invite"), invite).await;
    let mail = a.mails.next().await;
    assert_eq!(mail.to, ["bob@x.fr"]);

    let sid = a.validate(&bob_id, "bob@x.fr").await;
    let bind =
        json!({ "id_server": "a.test", "id_access_token": bob_id, "sid": sid, "client_secret": SECRET });
    b.ok(&bob_token, "POST", "/_matrix/client/v3/account/3pid/bind", bind).await;
    assert_eq!(a.finds(&alice_id, "bob@x.fr").await.as_deref(), Some(&*bob));
    b.invited(&bob_token, &room).await;
    b.ok(&bob_token, "POST", &format!("/_matrix/client/v3/rooms/{room}/join"), json!({})).await;
    let path = format!("/_matrix/client/v3/rooms/{room}/joined_members");
    let members = a.ok(&alice_token, "GET", &path, Value::Null).await;
    assert!(members["joined"][&bob].is_object(), "{members}");

    // An invitation of an address that is bound elsewhere: asked over HTTPS, invited as a user.
    let (carol, carol_token) = b.user("carol").await;
    let carol_id = b.member_at(&a, &carol, &carol_token).await;
    let made = b.ok(&carol_token, "POST", "/_matrix/client/v3/createRoom", json!({})).await;
    let room = text(&made["room_id"]);
    let invite = json!({ "id_server": "a.test", "id_access_token": carol_id, "medium": "email", "address": "Bob@x.fr" });
    b.ok(&carol_token, "POST", &format!("/_matrix/client/v3/rooms/{room}/invite"), invite).await;
    b.invited(&bob_token, &room).await;
    assert!(a.mails.try_recv().is_err());
    // And of one that is nobody's: the other identity service mails it, the room is told.
    let invite = json!({ "id_server": "a.test", "id_access_token": carol_id, "medium": "email", "address": "max@x.fr" });
    b.ok(&carol_token, "POST", &format!("/_matrix/client/v3/rooms/{room}/invite"), invite).await;
    assert_eq!(a.mails.next().await.to, ["max@x.fr"]);
    let state =
        b.ok(&carol_token, "GET", &format!("/_matrix/client/v3/rooms/{room}/state"), Value::Null).await;
    let told =
        state.as_array().unwrap().iter().find(|event| event["type"] == "m.room.third_party_invite").unwrap();
    assert!(
        told["content"]["public_keys"][0]["key_validity_url"]
            .as_str()
            .unwrap()
            .starts_with("https://a.test/")
    );
}

#[tokio::test]
async fn a_homeserver_unbinds_its_own_users_and_nobody_else() {
    let (mut a, b) = two().await;
    let (bob, bob_token) = b.user("bob").await;
    let (eve, eve_token) = b.user("eve").await;
    let bob_id = b.member_at(&a, &bob, &bob_token).await;
    let sid = a.validate(&bob_id, "bob@x.fr").await;
    let bind =
        json!({ "id_server": "a.test", "id_access_token": bob_id, "sid": sid, "client_secret": SECRET });
    b.ok(&bob_token, "POST", "/_matrix/client/v3/account/3pid/bind", bind).await;
    assert_eq!(a.finds(&bob_id, "bob@x.fr").await.as_deref(), Some(&*bob));

    let unbind = json!({ "id_server": "a.test", "medium": "email", "address": "bob@x.fr" });
    let path = "/_matrix/client/v3/account/3pid/unbind";
    b.ok(&eve_token, "POST", path, unbind).await;
    assert_eq!(a.finds(&bob_id, "bob@x.fr").await.as_deref(), Some(&*bob), "{eve} is not {bob}");
    // Unsigned, badly signed, signed by another server than the user's.
    let body = json!({ "mxid": bob, "threepid": { "medium": "email", "address": "bob@x.fr" } });
    for (authorization, status, errcode) in [
        ("", 401, "M_UNAUTHORIZED"),
        (
            "X-Matrix origin=\"b.test\",destination=\"a.test\",key=\"ed25519:a_x\",sig=\"AAAA\"",
            403,
            "M_FORBIDDEN",
        ),
        ("X-Matrix nonsense", 403, "M_FORBIDDEN"),
    ] {
        let (said, answer) = a.call(authorization, "POST", &format!("{V2}/3pid/unbind"), body.clone()).await;
        assert_eq!(
            (said.as_u16(), &answer["errcode"]),
            (status, &json!(errcode)),
            "{authorization}: {answer}"
        );
    }
    assert_eq!(a.finds(&bob_id, "bob@x.fr").await.as_deref(), Some(&*bob));
    // Without a name, where it was bound is known.
    let said = b.ok(&bob_token, "POST", path, json!({ "medium": "email", "address": "Bob@X.fr" })).await;
    assert_eq!(said["id_server_unbind_result"], "success");
    assert_eq!(a.finds(&bob_id, "bob@x.fr").await, None);
    assert_eq!(a.name, "a.test");
}

/// Closes an account; gives what became of its addresses.
async fn close(place: &Place, user: &str, token: &str) -> Value {
    let path = "/_matrix/client/v3/account/deactivate";
    let (_, asked) = place.call(token, "POST", path, json!({})).await;
    let auth = json!({ "type": "m.login.password", "password": PASSWORD, "session": asked["session"],
        "identifier": { "type": "m.id.user", "user": user } });
    place.ok(token, "POST", path, json!({ "auth": auth })).await["id_server_unbind_result"].clone()
}

#[tokio::test]
async fn who_closes_an_account_is_told_whether_an_address_may_still_be_bound() {
    let (mut a, b) = two().await;
    let bind = |id_token: &str, sid: &str| json!({ "id_server": "a.test", "id_access_token": id_token, "sid": sid, "client_secret": SECRET });
    let path = "/_matrix/client/v3/account/3pid/bind";

    let (alice, alice_token) = a.user("alice").await;
    let id_token = a.member_at(&a, &alice, &alice_token).await;
    let sid = a.validate(&id_token, "alice@x.fr").await;
    a.ok(&alice_token, "POST", path, bind(&id_token, &sid)).await;
    assert_eq!(close(&a, &alice, &alice_token).await, "success", "this service has forgotten it");

    let (bob, bob_token) = b.user("bob").await;
    let id_token = b.member_at(&a, &bob, &bob_token).await;
    let sid = a.validate(&id_token, "bob@x.fr").await;
    b.ok(&bob_token, "POST", path, bind(&id_token, &sid)).await;
    assert_eq!(close(&b, &bob, &bob_token).await, "no-support", "the other one is still to be asked");
}

#[tokio::test]
async fn a_server_does_not_look_up_more_by_having_more_users() {
    let net = FakeNet::new();
    let rates = "[identity_api.rates]\nlookup = { per_second = 0.001, burst = 10 }";
    let (a, b) = (Place::start_with(&net, "a.test", 1, rates).await, Place::start(&net, "b.test", 2).await);
    let mut statuses = Vec::new();
    for (place, name) in [(&b, "bob"), (&b, "eve"), (&a, "alice"), (&a, "anne")] {
        let (user, token) = place.user(name).await;
        let bearer = format!("Bearer {}", place.member_at(&a, &user, &token).await);
        let details = a.ok(&bearer, "GET", &format!("{V2}/hash_details"), Value::Null).await;
        let asked: Vec<String> = (0..8).map(|n| format!("a{n}@x.fr email")).collect();
        let body = json!({ "addresses": asked, "algorithm": "none", "pepper": details["lookup_pepper"] });
        statuses.push(a.call(&bearer, "POST", &format!("{V2}/lookup"), body).await.0.as_u16());
    }
    assert_eq!(statuses, [200, 429, 200, 200]);
}

#[tokio::test]
async fn a_server_cannot_vouch_for_the_users_of_another() {
    let (a, b) = two().await;
    let (bob, bob_token) = b.user("bob").await;
    let path = format!("/_matrix/client/v3/user/{bob}/openid/request_token");
    let openid = b.ok(&bob_token, "POST", &path, json!({})).await;
    let register = format!("{V2}/account/register");
    for (field, value, status) in [
        ("access_token", json!("nonsense"), 401),
        // A token of b.test, said to be a.test's own.
        ("matrix_server_name", json!("a.test"), 401),
        ("matrix_server_name", json!("nobody.test"), 502),
        ("matrix_server_name", json!("no server"), 400),
        ("access_token", Value::Null, 400),
    ] {
        let mut wrong = openid.clone();
        wrong[field] = value;
        let (said, answer) = a.call("", "POST", &register, wrong).await;
        assert_eq!(said.as_u16(), status, "{field}: {answer}");
    }
    a.ok("", "POST", &register, openid).await;
}
