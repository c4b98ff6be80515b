//! An agent invites a partner by mail; the partner signs up, finds the invitation and joins.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{member, text};
use crate::{
    lab::{Http, Lab},
    sign_up::{REQUEST, sign_up, wanted},
};

const INSIDE: &str = r#"
[[listeners]]
port = 0
apis = ["identity_internal"]
"#;
const SERVER: &str = "agent.example.gouv.fr";
const PARTNER: &str = "paul@partner.example";

async fn invite(http: &Http, token: &str, room: &str, id_token: &str, address: &str) -> (StatusCode, Value) {
    let path = format!("/_matrix/client/v3/rooms/{room}/invite");
    let body = json!({
        "id_server": "matrix.example.gouv.fr", "id_access_token": id_token, "medium": "email", "address": address,
    });
    http.call(Method::POST, &path, Some(token), body).await
}

/// Syncs until a room has an invite, as a client does that waits.
async fn invited(http: &Http, token: &str, room: &str) -> Value {
    let mut since = String::new();
    loop {
        let (status, said) =
            http.get(&format!("/_matrix/client/v3/sync?timeout=15000{since}"), Some(token)).await;
        assert_eq!(status, StatusCode::OK, "{said}");
        if said["rooms"]["invite"][room].is_object() {
            return said["rooms"]["invite"][room].clone();
        }
        since = format!("&since={}", said["next_batch"].as_str().unwrap());
    }
}

#[tokio::test]
async fn rows_4_5_8_9_a_partner_who_is_invited_by_mail_signs_up_and_joins() {
    let mut lab = Lab::start(INSIDE).await;
    let (http, inside) = (lab.http(), Http::to(lab.server.addresses()[1]));
    lab.admin(&["domains", "map", "add", "dinum.gouv.fr", SERVER]).await.unwrap();
    lab.admin(&["domains", "map", "add", "*", SERVER, "--requires-invite"]).await.unwrap();
    // Another server is told of addresses; one at this place is refused at once, and no stop waits for a look-up.
    lab.admin(&["domains", "map", "add", "*.b.gouv.fr", "10.0.0.1:8448"]).await.unwrap();

    let agent = sign_up(&mut lab, "jean.martin@dinum.gouv.fr").await;
    let (agent_id, agent_token) = (text(&agent["user_id"]), text(&agent["access_token"]));
    for (address, sentence) in [
        (PARTNER, "Vous avez besoin d'une invitation pour accéder à"),
        ("a@x.b.gouv.fr", "Votre adresse mail a@x.b.gouv.fr est associée à un autre serveur."),
    ] {
        let (status, said) = http.post(REQUEST, wanted(address, 1)).await;
        assert_eq!(
            (status, &said["errcode"]),
            (StatusCode::FORBIDDEN, &json!("M_THREEPID_DENIED")),
            "{said}"
        );
        assert!(said["error"].as_str().unwrap().starts_with(sentence), "{said}");
    }
    assert!(!lab.has_mail());
    let question = format!("?medium=email&address={PARTNER}");
    let internal = format!("/_matrix/identity/api/v1/internal-info{question}");
    let (_, told) = inside.get(&internal, None).await;
    assert_eq!(told, json!({ "hs": SERVER, "requires_invite": true, "invited": false }));
    assert_eq!(http.get(&internal, None).await.0, StatusCode::NOT_FOUND, "not for everybody");

    let id_token = member(&http, &agent_id, &agent_token).await;
    let room = json!({ "name": "Salon du projet", "preset": "private_chat" });
    let (_, made) = http.call(Method::POST, "/_matrix/client/v3/createRoom", Some(&agent_token), room).await;
    let room = text(&made["room_id"]);
    let (status, said) = invite(&http, &agent_token, &room, &id_token, "Paul@Partner.example").await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let mail = lab.mail().await;
    assert_eq!(mail.to, [PARTNER]);
    assert!(mail.text.contains("Jean Martin [Dinum] vous invite dans"), "{}", mail.text);
    assert!(mail.text.contains("Salon du projet"), "{}", mail.text);
    let (_, state) = http.get(&format!("/_matrix/client/v3/rooms/{room}/state"), Some(&agent_token)).await;
    let asked =
        state.as_array().unwrap().iter().find(|event| event["type"] == "m.room.third_party_invite").unwrap();
    assert!(!asked["content"].to_string().contains(PARTNER), "the room does not learn the address");
    assert!(inside.get(&internal, None).await.1["invited"].as_bool().unwrap());

    let partner = sign_up(&mut lab, PARTNER).await;
    let (partner_id, partner_token) = (text(&partner["user_id"]), text(&partner["access_token"]));
    assert_eq!(partner_id, format!("@paul-partner.example:{SERVER}"));
    invited(&http, &partner_token, &room).await;
    let join = format!("/_matrix/client/v3/rooms/{room}/join");
    let (status, said) = http.call(Method::POST, &join, Some(&partner_token), json!({})).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let (_, members) =
        http.get(&format!("/_matrix/client/v3/rooms/{room}/joined_members"), Some(&agent_token)).await;
    assert!(members["joined"][&partner_id].is_object(), "{members}");
    let (_, told) = inside.get(&internal, None).await;
    assert!(!told["invited"].as_bool().unwrap());

    // From now on the address is a user: no mail, an ordinary invite.
    let body = json!({ "name": "Autre salon", "invite_3pid": [{
        "id_server": SERVER, "id_access_token": id_token, "medium": "email", "address": PARTNER,
    }] });
    let (status, made) =
        http.call(Method::POST, "/_matrix/client/v3/createRoom", Some(&agent_token), body).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    invited(&http, &partner_token, made["room_id"].as_str().unwrap()).await;
    assert!(!lab.has_mail());
    lab.stop().await;
}

#[tokio::test]
async fn nobody_is_mailed_or_looked_up_for_those_who_may_not_invite() {
    let mut lab = Lab::start("").await;
    let http = lab.http();
    lab.admin(&["domains", "add", "dinum.gouv.fr"]).await.unwrap();
    let jean = sign_up(&mut lab, "jean@dinum.gouv.fr").await;
    let eve = sign_up(&mut lab, "eve@dinum.gouv.fr").await;
    let (jean_token, eve_token) = (text(&jean["access_token"]), text(&eve["access_token"]));
    let (_, made) =
        http.call(Method::POST, "/_matrix/client/v3/createRoom", Some(&jean_token), json!({})).await;
    let room = text(&made["room_id"]);
    let eve_id_token = member(&http, &text(&eve["user_id"]), &eve_token).await;
    // A stranger's room.
    let (status, said) = invite(&http, &eve_token, &room, &eve_id_token, PARTNER).await;
    assert_eq!((status, &said["errcode"]), (StatusCode::FORBIDDEN, &json!("M_FORBIDDEN")), "{said}");
    // Somebody else's token for the identity service.
    let (status, said) = invite(&http, &jean_token, &room, &eve_id_token, PARTNER).await;
    assert_eq!((status, &said["errcode"]), (StatusCode::FORBIDDEN, &json!("M_FORBIDDEN")), "{said}");
    let id_token = member(&http, &text(&jean["user_id"]), &jean_token).await;
    for hostile in ["a@evil.example@dinum.gouv.fr", "Jean <jean@dinum.gouv.fr>", "a@x.fr\r\nBcc: b@x.fr", ""]
    {
        let (status, said) = invite(&http, &jean_token, &room, &id_token, hostile).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{hostile:?}: {said}");
    }
    assert!(!lab.has_mail());
    let (status, said) = invite(&http, &jean_token, &room, &id_token, PARTNER).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    assert_eq!(lab.mail().await.to, [PARTNER]);
    lab.stop().await;
}

/// The mail's own key is enough: a user with another address has the invitation signed and joins with it.
#[tokio::test]
async fn whoever_has_the_mail_has_the_invitation_signed_and_joins() {
    let mut lab = Lab::start("").await;
    let http = lab.http();
    lab.admin(&["domains", "add", "dinum.gouv.fr"]).await.unwrap();
    let jean = sign_up(&mut lab, "jean@dinum.gouv.fr").await;
    let anne = sign_up(&mut lab, "anne@dinum.gouv.fr").await;
    let (jean_token, anne_token) = (text(&jean["access_token"]), text(&anne["access_token"]));
    let id_token = member(&http, &text(&jean["user_id"]), &jean_token).await;
    let (_, made) =
        http.call(Method::POST, "/_matrix/client/v3/createRoom", Some(&jean_token), json!({})).await;
    let room = text(&made["room_id"]);
    let (status, said) = invite(&http, &jean_token, &room, &id_token, "anne@home.example").await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let mail = lab.mail().await.text;
    let line = mail.lines().find(|line| line.starts_with("http://matrix.example.gouv.fr/?")).unwrap();
    let field = |url: &str, name: &str| {
        let url = url::Url::parse(url).unwrap();
        url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned()
    };
    assert_eq!(field(line, "email"), "anne@home.example");
    let signurl = field(line, "signurl");
    let anne_id_token = member(&http, &text(&anne["user_id"]), &anne_token).await;
    let body = json!({ "mxid": anne["user_id"], "token": field(&signurl, "token"),
        "private_key": field(&signurl, "private_key") });
    let (status, signed) =
        http.call(Method::POST, "/_matrix/identity/v2/sign-ed25519", Some(&anne_id_token), body).await;
    assert_eq!(status, StatusCode::OK, "{signed}");
    let join = format!("/_matrix/client/v3/rooms/{room}/join");
    let for_another = json!({ "third_party_signed": signed });
    let (status, _) = http.call(Method::POST, &join, Some(&anne_token), json!({})).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let max = sign_up(&mut lab, "max@dinum.gouv.fr").await;
    let (status, said) =
        http.call(Method::POST, &join, Some(&text(&max["access_token"])), for_another.clone()).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{said}");
    let (status, said) = http.call(Method::POST, &join, Some(&anne_token), for_another).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    lab.stop().await;
}
