//! What administrators are told of a whole server, and lists that they hand in.

use std::{collections::BTreeMap, time::Duration};

use chappe_store::accounts::LastActive;
use serde_json::{Value, json};

use super::ministry::{Agent, DAY, Ministry, PASSWORD};

const COUNTED: &str = r#"
[identity]
profile = "agents"
addresses = "any"
[admin.statistics]
smallest_group = 3
"#;
/// How long a clock is in doubt after it has moved.
const DOUBT: Duration = Duration::from_hours(1);
const FIGURES: &str = "/_chappe/admin/v1/statistics";

/// A room in which everybody is.
async fn room(server: &Ministry, people: &[&Agent], request: Value) -> String {
    let [host, others @ ..] = people else { unreachable!("nobody is there") };
    let made = server.call(&host.token, "POST", "/createRoom", request).await.ok();
    let room = made["room_id"].as_str().unwrap().to_owned();
    for guest in others {
        let invite = json!({ "user_id": guest.id });
        server.call(&host.token, "POST", &format!("/rooms/{room}/invite"), invite).await.ok();
        server.call(&guest.token, "POST", &format!("/join/{room}"), json!({})).await.ok();
    }
    room
}

async fn say(server: &Ministry, by: &Agent, room: &str, (kind, content): (&str, Value)) {
    let txn = server.world.token(8);
    let path = format!("/rooms/{room}/send/{kind}/{txn}");
    server.call(&by.token, "PUT", &path, content).await.ok();
}

fn encrypted() -> (&'static str, Value) {
    let content = json!({ "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x", "session_id": "s" });
    ("m.room.encrypted", content)
}

/// The figures of today's by kind, without the domains.
async fn today(server: &Ministry, admin: &Agent) -> BTreeMap<String, u64> {
    let said = server.call(&admin.token, "GET", FIGURES, Value::Null).await.ok();
    let (last, figures) = (&said["to"], said["figures"].as_array().unwrap());
    let of_today = figures.iter().filter(|line| line["day"] == *last);
    let pair = |line: &Value| (line["kind"].as_str().unwrap().to_owned(), line["count"].as_u64().unwrap());
    of_today.map(pair).collect()
}

#[tokio::test]
async fn what_happens_is_counted_once_and_small_groups_are_not_shown() {
    let mut server = Ministry::alone(COUNTED).await;
    let (admin, alice) = (server.administrator("root").await, server.agent("alice").await);
    let bob = server.agent("bob").await;
    // Not the administrator first: rooms of theirs have no access rule.
    let everybody = [&alice, &bob, &admin];
    let private = room(&server, &everybody, json!({ "preset": "private_chat" })).await;
    let forum = json!({ "preset": "public_chat", "visibility": "public" });
    let forum = room(&server, &everybody, forum).await;
    for agent in everybody {
        say(&server, agent, &private, encrypted()).await;
        say(&server, agent, &forum, ("m.room.message", json!({ "msgtype": "m.image", "body": "x" }))).await;
    }
    // Two people are no group, edits are no messages.
    for agent in [&admin, &alice] {
        say(&server, agent, &forum, ("m.room.message", json!({ "msgtype": "m.text", "body": "x" }))).await;
    }
    let edit = json!({
        "msgtype": "m.image", "body": "x", "m.relates_to": { "rel_type": "m.replace", "event_id": "$x" },
    });
    say(&server, &bob, &forum, ("m.room.message", edit)).await;
    server.accounts.flush_seen().await.unwrap();
    let mut figures = today(&server, &admin).await;
    // How things stood when the server was made, if it had come to that by then.
    figures.remove("account.open");
    let expected = [
        ("account.made", 3),
        ("log_in.sign_up", 3),
        ("message.forum.file", 3),
        ("message.private.encrypted", 3),
        ("people.active", 3),
    ];
    assert_eq!(figures, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
    server.again(DAY, |text| text).await;
    server.later(DOUBT).await;
    let levels = today(&server, &admin).await;
    let expected = [("account.open", 3), ("people.active_30_days", 3)];
    assert_eq!(levels, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
    let by_kind =
        server.call(&admin.token, "GET", &format!("{FIGURES}?by=kind&format=csv"), Value::Null).await;
    assert_eq!(by_kind.status, 200);
    for line in ["day,domain,kind,count", ",,message.private.encrypted,3", ",,account.open,3"] {
        assert!(by_kind.text.lines().any(|found| found == line), "{line}: {}", by_kind.text);
    }
    server.again(31 * DAY, |text| text).await;
    server.later(DOUBT).await;
    assert_eq!(
        today(&server, &admin).await,
        [("account.open".to_owned(), 3)].into(),
        "nobody was here lately"
    );
    server.again(DAY, |text| text.replace("smallest_group = 3", "smallest_group = 4")).await;
    let all = server.call(&admin.token, "GET", &format!("{FIGURES}?by=domain"), Value::Null).await.ok();
    assert_eq!(all["figures"], json!([]), "a larger group is wanted now");
    server.again(DAY, |text| text.replace("smallest_group = 4", "keep_days = 0")).await;
    server.call(&alice.token, "GET", "/account/whoami", Value::Null).await.ok();
    server.accounts.flush_seen().await.unwrap();
    assert_eq!(server.accounts.read().scan_all::<LastActive>(&()).await.unwrap(), []);
    server.again(DAY, |text| text.replace("keep_days = 0", "smallest_group = 1")).await;
    let all = server.call(&admin.token, "GET", &format!("{FIGURES}?by=kind"), Value::Null).await.ok();
    assert!(!all.to_string().contains("message"), "forgotten while nothing was counted: {all}");
}

#[tokio::test]
async fn a_clock_that_runs_ahead_takes_no_figures_and_keeps_no_day_from_being_counted() {
    let server = Ministry::alone(COUNTED).await;
    let admin = server.administrator("root").await;
    for name in ["alice", "bob"] {
        server.agent(name).await;
    }
    let made = async || today(&server, &admin).await.get("account.made").copied();
    assert_eq!(made().await, Some(3));
    // For a moment: nothing goes.
    server.world.set_clock_ahead(800 * DAY);
    assert_eq!(made().await, None, "it is another day");
    server.world.set_clock_ahead(Duration::ZERO);
    assert_eq!(made().await, Some(3));
    // For so long that it is believed, and the day written down.
    server.world.set_clock_ahead(30 * DAY);
    made().await;
    server.later(DOUBT).await;
    assert_eq!(today(&server, &admin).await.get("account.open"), Some(&3));
    server.world.set_clock_ahead(Duration::ZERO);
    made().await;
    server.later(DOUBT).await;
    assert_eq!(today(&server, &admin).await.get("account.open"), Some(&3));
}

#[tokio::test]
async fn figures_are_for_administrators_and_for_days_that_are_some() {
    let server = Ministry::alone(COUNTED).await;
    let (admin, alice) = (server.administrator("root").await, server.agent("alice").await);
    server.call("", "GET", FIGURES, Value::Null).await.refused(401, "M_MISSING_TOKEN");
    server.call(&alice.token, "GET", FIGURES, Value::Null).await.refused(403, "M_FORBIDDEN");
    for bad in
        ["from=yesterday", "from=2026-02-30", "from=2026-02-02&to=2026-02-01", "from=2020-01-01", "by=user"]
    {
        let path = format!("{FIGURES}?{bad}");
        server.call(&admin.token, "GET", &path, Value::Null).await.refused(400, "M_INVALID_PARAM");
    }
    let some = format!("{FIGURES}?from=2026-02-01&to=2026-02-02&by=domain");
    assert_eq!(server.call(&admin.token, "GET", &some, Value::Null).await.ok()["from"], "2026-02-01");
}

/// The bcrypt hash of the password with "sel" behind.
const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuu564x.J1ktbVuRH6YZWLq0Uo/UROOh.O";

#[tokio::test]
async fn row_26_people_and_domains_are_handed_in_over_http() {
    let server = Ministry::alone("bcrypt_pepper = \"sel\"").await;
    let (admin, alice) = (server.administrator("root").await, server.agent("alice").await);
    let (users, domains) = ("/_chappe/admin/v1/users/import", "/_chappe/admin/v1/domains/import");
    let csv = format!(
        "user,display_name,email,password_hash\njean,\"Jean, Martin\",Jean@a.gouv.fr,{BCRYPT}\n\
         anna,,no address,\nzoe,,jean@a.gouv.fr,\nalice,,,\nmax,,,$2b$12$short\neve,too,many,values,here\n"
    );
    for path in [users, domains] {
        server.send("", "POST", path, csv.clone()).await.refused(401, "M_MISSING_TOKEN");
        server.send(&alice.token, "POST", path, csv.clone()).await.refused(403, "M_FORBIDDEN");
        server
            .send(&admin.token, "POST", path, "colour\nblue\n".to_owned())
            .await
            .refused(400, "M_INVALID_PARAM");
    }
    let outcomes = |report: &Value| -> Vec<String> {
        let lines = report["lines"].as_array().unwrap();
        lines.iter().map(|line| format!("{} {}", line["line"], line["outcome"].as_str().unwrap())).collect()
    };
    let expected = ["2 made", "3 refused", "4 refused", "5 known", "6 refused", "7 refused"];
    let tried = server.send(&admin.token, "POST", &format!("{users}?dry_run=true"), csv.clone()).await.ok();
    assert_eq!(
        (outcomes(&tried).as_slice(), &tried["dry_run"]),
        (&expected.map(str::to_owned)[..], &json!(true))
    );
    let log_in = json!({
        "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "jean" }, "password": PASSWORD,
    });
    server.call("", "POST", "/login", log_in.clone()).await.refused(403, "M_FORBIDDEN");
    let done = server.send(&admin.token, "POST", users, csv.clone()).await.ok();
    assert_eq!(outcomes(&done), expected);
    server.call("", "POST", "/login", log_in).await.ok();
    let again = server.send(&admin.token, "POST", users, csv).await.ok();
    assert_eq!((&again["made"], &again["known"], &again["refused"]), (&json!(0), &json!(2), &json!(4)));

    let csv = "domain,homeserver,requires_invite\nx.gouv.fr,a.gouv.fr,\n*,e.gouv.fr,true\ny.fr,no server,\n"
        .to_owned();
    let done = server.send(&admin.token, "POST", domains, csv.clone()).await.ok();
    assert_eq!(outcomes(&done), ["2 made", "3 made", "4 refused"]);
    let again = server.send(&admin.token, "POST", domains, csv.replace("true", "false")).await.ok();
    assert_eq!(outcomes(&again), ["2 known", "3 changed", "4 refused"]);
    let of = "/_matrix/identity/api/v1/info?medium=email&address=anna@x.gouv.fr";
    assert_eq!(server.call("", "GET", of, Value::Null).await.ok()["hs"], "a.gouv.fr");

    let audit = server.call(&admin.token, "GET", "/_chappe/admin/v1/audit", Value::Null).await.ok();
    let said = audit.to_string();
    assert!(said.contains("users/import") && said.contains("sha256") && !said.contains("$2b$"), "{said}");
}
