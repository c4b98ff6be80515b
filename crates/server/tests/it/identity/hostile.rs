//! Addresses that are none, questions without end, pages and mails that somebody else would like to write.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{V2, member, text};
use crate::{
    lab::{Http, Lab},
    sign_up::{REQUEST, sign_up, wanted},
};

/// What two programs could read as two addresses, or one as another's (attack family 31; `docs/tchap.md`, row 12).
const NO_ADDRESSES: &[&str] = &[
    "a@evil.example@dinum.gouv.fr",
    "fs0c131y@protonmail.com@presidence@elysee.fr",
    "\"a@evil\"@dinum.gouv.fr",
    "<a@evil.example> b@dinum.gouv.fr",
    "a(comment)@dinum.gouv.fr",
    "a@dinum.gouv.fr\n",
    "a@dinum.gouv.fr\r\nBcc: eve@evil.example",
    "a@dinum.gouv.fr,b@evil.example",
    "a@dinum.gouv.fr;b@evil.example",
    "a@dinum.gouv.fr\0",
    "a\t@dinum.gouv.fr",
    "\ra@dinum.gouv.fr",
    "evil.example!a@dinum.gouv.fr",
    "a@[192.0.2.1]",
    " a@dinum.gouv.fr",
    "a@dinum.gouv.fr ",
    "a@dinum.gouv.fr.",
    "a@d\u{131}num.gouv.fr",
    "a\u{ff20}dinum.gouv.fr",
    "a%evil.example@dinum.gouv.fr",
    "dinum.gouv.fr",
    "",
];

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[tokio::test]
async fn row_12_no_endpoint_takes_for_an_address_what_is_none() {
    let more = r#"
[[listeners]]
port = 0
apis = ["identity_internal"]
[identity_api.rates]
info = { per_second = 0.0, burst = 0 }
[client.rates]
address_invite = { per_second = 0.0, burst = 0 }
"#;
    let mut lab = Lab::start(more).await;
    let (http, inside) = (lab.http(), Http::to(lab.server.addresses()[1]));
    lab.admin(&["domains", "map", "add-pattern", r".*@(.*\.|)dinum\.gouv\.fr", "agent.example.gouv.fr"])
        .await
        .unwrap();
    let user = sign_up(&mut lab, "jean@dinum.gouv.fr").await;
    let (user, token) = (text(&user["user_id"]), text(&user["access_token"]));
    let id_token = member(&http, &user, &token).await;
    let room = json!({ "preset": "private_chat" });
    let (_, made) = http.call(Method::POST, "/_matrix/client/v3/createRoom", Some(&token), room).await;
    let into_room = format!("/_matrix/client/v3/rooms/{}/invite", text(&made["room_id"]));
    let too_long = format!("{}@dinum.gouv.fr", "a".repeat(250));
    for address in NO_ADDRESSES.iter().copied().chain([&*too_long]) {
        for (server, kind) in [(&http, "info"), (&inside, "internal-info")] {
            let question =
                format!("/_matrix/identity/api/v1/{kind}?medium=email&address={}", encoded(address));
            let (status, said) = server.get(&question, None).await;
            assert_eq!((status.as_u16(), &said["errcode"]), (400, &json!("M_INVALID_EMAIL")), "{address:?}");
        }
        for path in [REQUEST, "/_matrix/client/v3/account/password/email/requestToken"] {
            let (status, said) = http.post(path, wanted(address, 1)).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{address:?}: {said}");
        }
        let invite = json!({ "id_server": "matrix.example.gouv.fr", "id_access_token": id_token,
            "medium": "email", "address": address });
        let (status, said) = http.call(Method::POST, &into_room, Some(&token), invite).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{address:?}: {said}");
        let (status, said) = http
            .call(
                Method::POST,
                &format!("{V2}/validate/email/requestToken"),
                Some(&id_token),
                wanted(address, 1),
            )
            .await;
        assert_eq!((status.as_u16(), &said["errcode"]), (400, &json!("M_INVALID_EMAIL")), "{address:?}");
        let invite = json!({ "medium": "email", "address": address, "room_id": "!r:x.fr", "sender": user });
        let (status, said) =
            http.call(Method::POST, &format!("{V2}/store-invite"), Some(&id_token), invite).await;
        assert_eq!((status.as_u16(), &said["errcode"]), (400, &json!("M_INVALID_EMAIL")), "{address:?}");
    }
    assert!(!lab.has_mail());
    // What is one, in whatever case and with whatever the query has to escape.
    for (address, hs) in [
        ("JEAN@Dinum.Gouv.FR", Some("agent.example.gouv.fr")),
        ("o'neil+x@b.dinum.gouv.fr", Some("agent.example.gouv.fr")),
        ("a@dinum.gouv.fr.evil.example", None),
        ("a@evildinum.gouv.fr", None),
    ] {
        let info = format!("/_matrix/identity/api/v1/info?medium=email&address={}", encoded(address));
        let (status, said) = http.get(&info, None).await;
        match hs {
            Some(hs) => assert_eq!(said, json!({ "hs": hs }), "{address}"),
            None => {
                assert_eq!((status.as_u16(), &said["errcode"]), (404, &json!("M_NOT_FOUND")), "{address}");
            }
        }
    }
    for question in
        ["", "?medium=email", "?address=a@x.fr", "?medium=msisdn&address=331", "?medium=email&address=%ff"]
    {
        let (status, said) = http.get(&format!("/_matrix/identity/api/v1/info{question}"), None).await;
        assert!(status.is_client_error() && said["errcode"].is_string(), "{question}: {status} {said}");
    }
    lab.stop().await;
}

#[tokio::test]
async fn nobody_asks_where_addresses_belong_or_looks_them_up_without_end() {
    let rates = "[identity_api.rates]\ninfo = { per_second = 0.001, burst = 5 }\nlookup = { per_second = 0.001, burst = 10 }";
    let mut lab = Lab::start(&format!("{rates}\n[identity.service]\nlookup_addresses = 8")).await;
    let http = lab.http();
    lab.admin(&["domains", "add", "dinum.gouv.fr"]).await.unwrap();
    let mut statuses = Vec::new();
    for n in 0..6 {
        let info = format!("/_matrix/identity/api/v1/info?medium=email&address=a{n}@dinum.gouv.fr");
        let (status, said) = http.get(&info, None).await;
        assert!(status != StatusCode::TOO_MANY_REQUESTS || said["retry_after_ms"].is_u64(), "{said}");
        statuses.push(status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429]);

    let user = sign_up(&mut lab, "jean@dinum.gouv.fr").await;
    let id_token = member(&http, &text(&user["user_id"]), &text(&user["access_token"])).await;
    let (_, details) = http.get(&format!("{V2}/hash_details"), Some(&id_token)).await;
    let look_up = async |count: usize| {
        let addresses: Vec<String> = (0..count).map(|n| format!("a{n}@dinum.gouv.fr email")).collect();
        let body = json!({ "addresses": addresses, "algorithm": "none", "pepper": details["lookup_pepper"] });
        http.call(Method::POST, &format!("{V2}/lookup"), Some(&id_token), body).await
    };
    let (status, said) = look_up(9).await;
    assert_eq!((status.as_u16(), &said["errcode"]), (400, &json!("M_INVALID_PARAM")), "{said}");
    assert_eq!(look_up(8).await.0, StatusCode::OK);
    let (status, said) = look_up(3).await;
    assert_eq!((status.as_u16(), &said["errcode"]), (429, &json!("M_LIMIT_EXCEEDED")), "{said}");
    assert_eq!(look_up(2).await.0, StatusCode::OK);
    lab.stop().await;
}

/// Names of rooms and senders are a stranger's words: one line, no links, no HTML, and only what was asked for.
#[tokio::test]
async fn a_mail_of_an_invitation_says_nothing_that_a_stranger_would_like_it_to() {
    let mut lab = Lab::start("").await;
    let http = lab.http();
    lab.admin(&["domains", "add", "dinum.gouv.fr"]).await.unwrap();
    let user = sign_up(&mut lab, "jean@dinum.gouv.fr").await;
    let user_id = text(&user["user_id"]);
    let id_token = member(&http, &user_id, &text(&user["access_token"])).await;
    let invite = json!({
        "medium": "email", "address": "paul@partner.example", "room_id": "!r:agent.example.gouv.fr", "sender": user_id,
        "room_name": "https://evil.example/login\r\nBcc: eve@evil.example", "other": "<script>",
        "sender_display_name": "<img src=x onerror=alert(1)>", "room_avatar_url": { "not": "text" },
    });
    let (status, said) =
        http.call(Method::POST, &format!("{V2}/store-invite"), Some(&id_token), invite).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let mail = lab.mail().await;
    assert_eq!(mail.to, ["paul@partner.example"]);
    for bad in ["https://evil", "evil.example", "\nBcc", "<img", "<script>"] {
        let html = mail.text.split_once("text/html").map_or("", |(_, html)| html);
        let body = if bad.starts_with('<') { html } else { mail.text.as_str() };
        assert!(!body.contains(bad), "{bad}: {}", mail.text);
    }
    lab.stop().await;
}

/// Sessions of somebody else, guessed, reused for another purpose (attack family 32).
#[tokio::test]
async fn a_session_of_the_identity_service_proves_nothing_to_the_homeserver() {
    let mut lab = Lab::start("").await;
    let http = lab.http();
    lab.admin(&["domains", "add", "dinum.gouv.fr"]).await.unwrap();
    let jean = sign_up(&mut lab, "jean@dinum.gouv.fr").await;
    let id_token = member(&http, &text(&jean["user_id"]), &text(&jean["access_token"])).await;
    let path = format!("{V2}/validate/email/requestToken");
    let (_, asked) = http.call(Method::POST, &path, Some(&id_token), wanted("eve@dinum.gouv.fr", 1)).await;
    let mail = lab.mail().await;
    let (_, query) = mail.text.split_once("confirm_email?").unwrap();
    let (_, token) = query.split_once("token=").unwrap();
    let token = token.split('&').next().unwrap();
    let secret = "a-secret-of-the-client";
    let submit = json!({ "sid": asked["sid"], "client_secret": secret, "token": token });
    let (status, _) = http.post(&format!("{V2}/validate/email/submitToken"), submit).await;
    assert_eq!(status, StatusCode::OK);
    // Neither an account nor a password nor an address of the account comes of it.
    let creds = json!({ "sid": asked["sid"], "client_secret": secret });
    let (_, flows) =
        http.post("/_matrix/client/v3/register", json!({ "password": "correct horse battery" })).await;
    let register = json!({ "password": "correct horse battery", "auth": {
        "type": "m.login.email.identity", "session": flows["session"], "threepid_creds": creds } });
    let (status, said) = http.post("/_matrix/client/v3/register", register).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{said}");
    // And a session that guesses are made at is dead in the end.
    let (_, asked) = http.call(Method::POST, &path, Some(&id_token), wanted("max@dinum.gouv.fr", 1)).await;
    let right = lab.mail().await.text;
    let right = right.split_once("token=").unwrap().1.split('&').next().unwrap().to_owned();
    for n in 0..10 {
        let guess = json!({ "sid": asked["sid"], "client_secret": secret, "token": format!("guess{n}") });
        let (status, said) = http.post(&format!("{V2}/validate/email/submitToken"), guess).await;
        assert_eq!((status.as_u16(), &said["errcode"]), (400, &json!("M_TOKEN_INCORRECT")));
    }
    let submit = json!({ "sid": asked["sid"], "client_secret": secret, "token": right });
    let (status, said) = http.post(&format!("{V2}/validate/email/submitToken"), submit).await;
    assert_eq!((status.as_u16(), &said["errcode"]), (404, &json!("M_NO_VALID_SESSION")), "{said}");
    let _: Value = said;
    lab.stop().await;
}
