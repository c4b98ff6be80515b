//! The whole story of a network: from the first domain to the last administrator of a room.

use chappe_world::FakeNet;
use serde_json::{Value, json};

use super::{
    RULES,
    accounts::register,
    clamd::{Clamd, VIRUS},
    eventually, forum,
    ministry::{Agent, Answer, DAY, Ministry, PASSWORD},
    room_with,
    sign_up::{NETWORK, PARTNER, accept, invite, knows_of_invitation, make_room},
};

const VALIDITY: &str = r"
[accounts.validity]
days = 100
mail_days_before = [60, 30, 15]
close_after_days = 120
";
const RETENTION: &str = r"
[rooms.retention]
minimum_days = 1
";
const PROXY: &str = "/_matrix/media_proxy/unstable";

/// Two servers of agents, one of externals, a scanner for all.
struct Network {
    a: Ministry,
    b: Ministry,
    e: Ministry,
    _clamd: Clamd,
}

/// Who is there, and where they talk.
struct Cast {
    alice: Agent,
    bob: Agent,
    paul: Agent,
    forum: String,
    private: String,
    open: String,
}

#[tokio::test]
async fn the_whole_story() {
    let mut network = Network::opens().await;
    let cast = network.agents_and_a_partner_meet().await;
    network.the_partner_does_nothing_else(&cast).await;
    network.a_virus_reaches_nobody(&cast).await;
    network.an_account_ends_and_is_renewed(&cast).await;
    network.what_was_said_in_public_is_gone(&cast).await;
    network.the_last_administrator_leaves(&cast).await;
    network.everything_stands_in_the_audit_log().await;
}

impl Network {
    /// Nobody may sign up before an administrator has opened a domain.
    async fn opens() -> Self {
        let (net, clamd) = (FakeNet::new(), Clamd::start().await);
        let text = format!("{NETWORK}{RETENTION}{}", clamd.section("enforce = true"));
        let a = Ministry::on(&net, "a.test", &text).await;
        let b = Ministry::on(&net, "b.test", &format!("{text}{VALIDITY}")).await;
        let e = Ministry::on(&net, "e.test", &text).await;
        let body = json!({ "client_secret": "a-secret", "email": "alice@a.gouv.fr", "send_attempt": 1 });
        a.call("", "POST", "/register/email/requestToken", body).await.refused(403, "M_THREEPID_DENIED");
        for server in [&a, &b, &e] {
            for line in [
                &["domains", "map", "add", "a.gouv.fr", "a.test"][..],
                &["domains", "map", "add", "b.gouv.fr", "b.test"],
                &["domains", "map", "add", "*", "e.test", "--requires-invite"],
            ] {
                server.verb(line).await.unwrap();
            }
        }
        Self { a, b, e, _clamd: clamd }
    }

    /// Two agents sign up and make rooms; a partner is invited by mail, signs up and is in.
    async fn agents_and_a_partner_meet(&mut self) -> Cast {
        let Self { a, b, e, .. } = self;
        let (_, alice) = register(a, "alice.martin@a.gouv.fr", PASSWORD).await;
        let (_, bob) = register(b, "bob@b.gouv.fr", PASSWORD).await;
        let forum = make_room(a, &alice, forum()).await;
        let private = make_room(a, &alice, room_with("restricted")).await;
        let open = make_room(a, &alice, room_with("unrestricted")).await;
        b.call(&bob.token, "POST", &format!("/join/{forum}?server_name=a.test"), json!({})).await.ok();
        for room in [&private, &open] {
            let path = format!("/rooms/{room}/invite");
            a.call(&alice.token, "POST", &path, json!({ "user_id": bob.id })).await.ok();
            accept(b, &bob, room, "a.test").await;
        }
        invite(a, &alice, &private, PARTNER).await.refused(403, "M_FORBIDDEN");
        invite(a, &alice, &open, PARTNER).await.ok();
        let mail = a.mail().await;
        assert_eq!(mail.to, [PARTNER]);
        assert!(mail.text.contains("Alice Martin [A]"), "{}", mail.text);
        eventually("e.test knows", async || knows_of_invitation(e, PARTNER).await).await;
        let (_, paul) = register(e, PARTNER, PASSWORD).await;
        accept(e, &paul, &open, "a.test").await;
        let cast = Cast { alice, bob, paul, forum, private, open };
        self.say(&self.e, &cast.paul, &cast.open, "bonjour").await;
        self.heard(&cast, "bonjour").await;
        self.say(&self.a, &cast.alice, &cast.forum, "autrefois").await;
        assert!(self.is_read_in(&cast.forum, &cast, "autrefois").await);
        cast
    }

    async fn the_partner_does_nothing_else(&self, cast: &Cast) {
        let Self { a, e, .. } = self;
        let paul = &cast.paul.token;
        for request in [json!({}), forum(), room_with("unrestricted"), json!({ "is_direct": true })] {
            e.call(paul, "POST", "/createRoom", request).await.refused(403, "M_FORBIDDEN");
        }
        for room in [&cast.forum, &cast.private] {
            let path = format!("/join/{room}?server_name=a.test");
            e.call(paul, "POST", &path, json!({})).await.refused(403, "M_FORBIDDEN");
        }
        let path = format!("/rooms/{}/state/m.room.power_levels/", cast.open);
        let mut levels = a.call(&cast.alice.token, "GET", &path, Value::Null).await.ok();
        levels["users"][cast.paul.id.as_str()] = json!(50);
        a.call(&cast.alice.token, "PUT", &path, levels).await.refused(403, "M_FORBIDDEN");
        let path = format!("/rooms/{}/state/{RULES}/", cast.open);
        e.call(paul, "PUT", &path, json!({ "rule": "restricted" })).await.refused(403, "M_FORBIDDEN");
    }

    async fn a_virus_reaches_nobody(&self, cast: &Cast) {
        let upload = async |text: &str| {
            let made = self.a.call(&cast.alice.token, "POST", "/_matrix/media/v3/upload", json!(text)).await;
            made.ok()["content_uri"].as_str().unwrap().trim_start_matches("mxc://").to_owned()
        };
        let (clean, virus) = (upload("a report").await, upload(str::from_utf8(VIRUS).unwrap()).await);
        for (server, agent) in [(&self.a, &cast.alice), (&self.e, &cast.paul)] {
            let get = async |path: String| server.call(&agent.token, "GET", &path, Value::Null).await;
            assert_eq!(get(format!("{PROXY}/download/{clean}")).await.text, "\"a report\"");
            let refused = get(format!("{PROXY}/download/{virus}")).await;
            assert!(!refused.status.is_success(), "{}", refused.text);
            let refused = get(format!("/_matrix/client/v1/media/download/{virus}")).await;
            assert!(!refused.status.is_success() && !refused.text.contains("virus of"), "{}", refused.text);
        }
        let path = format!("{PROXY}/download/{virus}");
        let refused = self.a.call(&cast.alice.token, "GET", &path, Value::Null).await;
        refused.refused(403, "MCS_MEDIA_NOT_CLEAN");
    }

    async fn an_account_ends_and_is_renewed(&mut self, cast: &Cast) {
        let b = &mut self.b;
        b.later(DAY * 101).await;
        let mail = b.mail().await;
        assert_eq!(mail.to, ["bob@b.gouv.fr"]);
        let whoami =
            async |b: &Ministry| b.call(&cast.bob.token, "GET", "/account/whoami", Value::Null).await;
        whoami(b).await.refused(403, "ORG_MATRIX_EXPIRED_ACCOUNT");
        let (_, link) = mail.text.split_once("https://b.test").unwrap();
        let page = b.call("", "GET", link.split_whitespace().next().unwrap(), Value::Null).await;
        assert!(
            page.status.is_success() && page.text.contains("Votre compte est renouvelé"),
            "{}",
            page.text
        );
        whoami(b).await.ok();
        self.say(&self.a, &cast.alice, &cast.open, "encore-là").await;
        self.heard(cast, "encore-là").await;
    }

    /// 101 days later, of 90 that a forum keeps; rooms that are not public keep everything.
    async fn what_was_said_in_public_is_gone(&self, cast: &Cast) {
        assert!(!self.is_read_in(&cast.forum, cast, "autrefois").await);
        assert!(self.is_read_in(&cast.open, cast, "bonjour").await);
    }

    /// Whether somebody of the server that made a room reads something there.
    async fn is_read_in(&self, room: &str, cast: &Cast, words: &str) -> bool {
        let path = format!("/rooms/{room}/messages?dir=b&limit=50");
        self.a.call(&cast.alice.token, "GET", &path, Value::Null).await.text.contains(words)
    }

    /// Of those who stay, agents have the rooms, and the partner has nothing.
    async fn the_last_administrator_leaves(&self, cast: &Cast) {
        for room in [&cast.private, &cast.open] {
            let path = format!("/rooms/{room}/leave");
            self.a.call(&cast.alice.token, "POST", &path, json!({})).await.ok();
            let topic = format!("/rooms/{room}/state/m.room.topic/");
            eventually("bob can do what she could", async || {
                let said = json!({ "topic": "la suite" });
                self.b.call(&cast.bob.token, "PUT", &topic, said).await.status.is_success()
            })
            .await;
        }
        let topic = format!("/rooms/{}/state/m.room.topic/", cast.open);
        let said = self.e.call(&cast.paul.token, "PUT", &topic, json!({ "topic": "x" })).await;
        said.refused(403, "M_FORBIDDEN");
    }

    async fn everything_stands_in_the_audit_log(&self) {
        for server in [&self.a, &self.b, &self.e] {
            server.verb(&["audit", "verify"]).await.unwrap();
            let listed = server.verb(&["audit", "list"]).await.unwrap();
            for domain in ["a.gouv.fr", "b.gouv.fr", "e.test"] {
                assert!(listed.contains(domain), "{listed}");
            }
        }
    }

    async fn say(&self, server: &Ministry, agent: &Agent, room: &str, words: &str) {
        let path = format!("/rooms/{room}/send/m.room.message/{}", words.len());
        let said = json!({ "msgtype": "m.text", "body": words });
        server.call(&agent.token, "PUT", &path, said).await.ok();
    }

    /// Waits until all three have heard something in the open room.
    async fn heard(&self, cast: &Cast, words: &str) {
        let path = format!("/rooms/{}/messages?dir=b&limit=50", cast.open);
        for (server, agent) in [(&self.a, &cast.alice), (&self.b, &cast.bob), (&self.e, &cast.paul)] {
            let read = async || -> Answer { server.call(&agent.token, "GET", &path, Value::Null).await };
            eventually(words, async || read().await.text.contains(words)).await;
        }
    }
}
