//! Every endpoint of the identity service over HTTP: what it gives, and to whom.

use std::{collections::BTreeSet, time::Duration};

use http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{V2, member, text};
use crate::{
    host::PATIENCE,
    lab::{Http, Lab},
    sign_up::sign_up,
};

const LISTED: &str = include_str!("../../../../identity-api/no-auth.txt");
const SECRET: &str = "a-secret-of-the-client";

async fn lab(more: &str) -> (Lab, String, String) {
    let mut lab = Lab::start(more).await;
    lab.admin(&["domains", "add", "dinum.gouv.fr"]).await.unwrap();
    let user = sign_up(&mut lab, "jean@dinum.gouv.fr").await;
    let (user, token) = (text(&user["user_id"]), text(&user["access_token"]));
    let id_token = member(&lab.http(), &user, &token).await;
    (lab, user, id_token)
}

fn refused(answer: &(StatusCode, Value), status: u16, errcode: &str) {
    assert_eq!((answer.0.as_u16(), &answer.1["errcode"]), (status, &json!(errcode)), "{}", answer.1);
}

/// The token in the link of a mail, and its session.
fn link(mail: &str) -> (String, String) {
    let (_, query) = mail.split_once("/_matrix/identity/unstable/chappe/confirm_email?").unwrap();
    let field = |name: &str| {
        let (_, after) = query.split_once(&format!("{name}=")).unwrap();
        after.split(['&', '\n', '"']).next().unwrap().to_owned()
    };
    (field("sid"), field("token"))
}

#[tokio::test]
async fn only_listed_identity_endpoints_answer_without_a_token() {
    let (lab, ..) = lab("").await;
    let http = lab.http();
    let mut open = BTreeSet::new();
    for route in chappe_identity_api::routes().table() {
        let path = route.path.replace("{key_id}", "ed25519:x");
        let method = Method::from_bytes(route.method.as_bytes()).unwrap();
        let (status, said) = http.call(method, &path, None, Value::Null).await;
        if (status, &said["errcode"]) != (StatusCode::UNAUTHORIZED, &json!("M_UNAUTHORIZED")) {
            open.insert(format!("{} {}", route.method, route.path));
        }
    }
    let listed: BTreeSet<String> =
        LISTED.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    assert_eq!(open, listed);
    for token in ["", "nonsense", "chi_nonsense"] {
        let answer = http.get(&format!("{V2}/account"), Some(token)).await;
        refused(&answer, 401, "M_UNAUTHORIZED");
    }
    lab.stop().await;
}

#[tokio::test]
async fn account_versions_and_keys() {
    let (lab, user, token) = lab("").await;
    let http = lab.http();
    let (_, versions) = http.get("/_matrix/identity/versions", None).await;
    assert!(versions["versions"].as_array().unwrap().contains(&json!("v1.1")));
    assert_eq!(http.get(V2, None).await, (StatusCode::OK, json!({})));
    let (_, known) = http.get("/.well-known/matrix/client", None).await;
    assert_eq!(known["m.identity_server"]["base_url"], "http://matrix.example.gouv.fr");
    assert_eq!(http.get("/_matrix/identity/api/v1", None).await, (StatusCode::OK, json!({})));
    let (_, account) = http.get(&format!("{V2}/account"), Some(&token)).await;
    assert_eq!(account, json!({ "user_id": user }));
    // The identity service's token is none of the homeserver, and the reverse.
    let answer = http.get("/_matrix/client/v3/account/whoami", Some(&token)).await;
    refused(&answer, 401, "M_UNKNOWN_TOKEN");
    let forged = json!({ "access_token": "nonsense", "token_type": "Bearer", "expires_in": 60,
        "matrix_server_name": "agent.example.gouv.fr" });
    refused(&http.post(&format!("{V2}/account/register"), forged).await, 401, "M_UNAUTHORIZED");

    let invite = json!({ "medium": "email", "address": "x@y.example", "room_id": "!r:agent.example.gouv.fr",
        "sender": user, "room_name": "Salon" });
    let store = format!("{V2}/store-invite");
    let (status, stored) = http.call(Method::POST, &store, Some(&token), invite.clone()).await;
    assert_eq!(status, StatusCode::OK, "{stored}");
    let keys = stored["public_keys"].as_array().unwrap();
    for (key, path, other) in
        [(&keys[0], "isvalid", "ephemeral/isvalid"), (&keys[1], "ephemeral/isvalid", "isvalid")]
    {
        let key = key["public_key"].as_str().unwrap().replace('+', "%2B").replace('/', "%2F");
        for (path, valid) in [(path, true), (other, false)] {
            for base in [V2, "/_matrix/identity/api/v1"] {
                let (_, said) = http.get(&format!("{base}/pubkey/{path}?public_key={key}"), None).await;
                assert_eq!(said, json!({ "valid": valid }), "{path}");
            }
        }
    }
    refused(&http.get(&format!("{V2}/pubkey/isvalid"), None).await, 400, "M_MISSING_PARAM");
    refused(&http.get(&format!("{V2}/pubkey/ed25519:none"), None).await, 404, "M_NOT_FOUND");
    for (field, value, status, errcode) in [
        ("sender", json!("@eve:agent.example.gouv.fr"), 403, "M_UNAUTHORIZED"),
        ("medium", json!("msisdn"), 400, "M_UNRECOGNIZED"),
        ("address", json!("a@b@c.example"), 400, "M_INVALID_EMAIL"),
        ("room_id", json!(7), 400, "M_BAD_JSON"),
    ] {
        let mut wrong = invite.clone();
        wrong[field] = value;
        refused(&http.call(Method::POST, &store, Some(&token), wrong).await, status, errcode);
    }
    let (status, _) =
        http.call(Method::POST, &format!("{V2}/account/logout"), Some(&token), Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    refused(&http.get(&format!("{V2}/account"), Some(&token)).await, 401, "M_UNAUTHORIZED");
    lab.stop().await;
}

async fn asked(http: &Http, token: Option<&str>, base: &str, body: Value) -> (StatusCode, Value) {
    http.call(Method::POST, &format!("{base}/validate/email/requestToken"), token, body).await
}

#[tokio::test]
async fn row_104_an_address_is_validated_bound_found_and_unbound() {
    let (mut lab, user, token) = lab("").await;
    let (http, with) = (lab.http(), Some(token.as_str()));
    let wanted = json!({ "client_secret": SECRET, "email": "Jean@Home.example", "send_attempt": 1,
        "next_link": "http://matrix.example.gouv.fr/done" });
    let evil = json!({ "client_secret": SECRET, "email": "jean@home.example", "send_attempt": 1,
        "next_link": "https://evil.example/" });
    refused(&asked(&http, with, V2, evil).await, 400, "M_INVALID_PARAM");
    let (status, said) = asked(&http, with, V2, wanted.clone()).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let mail = lab.mail().await;
    let (sid, code) = link(&mail.text);
    assert_eq!(said["sid"], json!(sid));
    asked(&http, with, V2, wanted).await;
    assert!(!lab.has_mail(), "the same attempt is not mailed again");

    let proof = format!("sid={sid}&client_secret={SECRET}");
    let validated = format!("{V2}/3pid/getValidated3pid?{proof}");
    refused(&http.get(&validated, with).await, 400, "M_SESSION_NOT_VALIDATED");
    let wrong = json!({ "sid": sid, "client_secret": SECRET, "token": "wrong" });
    let submit = format!("{V2}/validate/email/submitToken");
    refused(&http.post(&submit, wrong).await, 400, "M_TOKEN_INCORRECT");
    // A person with the client's secret in the link is led on; the mail's own link needs a click.
    let (status, page) =
        http.raw(Request::get(http.uri(&format!("{submit}?{proof}&token=wrong"))), String::new()).await;
    assert!(status == StatusCode::BAD_REQUEST && page.contains("<html"), "{page}");
    let page = format!("/_matrix/identity/unstable/chappe/confirm_email?sid={sid}&token={code}");
    let (status, shown) = http.raw(Request::get(http.uri(&page)), String::new()).await;
    assert!(status == StatusCode::OK && shown.contains("<form method=\"post\""), "{shown}");
    refused(&http.get(&validated, with).await, 400, "M_SESSION_NOT_VALIDATED");
    let (status, _) =
        http.raw(Request::get(http.uri(&format!("{submit}?{proof}&token={code}"))), String::new()).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let (_, said) = http.get(&validated, with).await;
    assert_eq!((&said["medium"], &said["address"]), (&json!("email"), &json!("jean@home.example")));
    assert!(said["validated_at"].as_u64().unwrap() > 0);
    refused(
        &http.get(&format!("{V2}/3pid/getValidated3pid?sid={sid}&client_secret=x"), with).await,
        404,
        "M_NO_VALID_SESSION",
    );

    let bind = json!({ "sid": sid, "client_secret": SECRET, "mxid": user });
    let mut for_another = bind.clone();
    for_another["mxid"] = json!("@eve:agent.example.gouv.fr");
    let path = format!("{V2}/3pid/bind");
    refused(&http.call(Method::POST, &path, with, for_another).await, 403, "M_FORBIDDEN");
    let (status, signed) = http.call(Method::POST, &path, with, bind).await;
    assert_eq!((status, &signed["mxid"]), (StatusCode::OK, &json!(user)), "{signed}");
    let key_id =
        signed["signatures"]["agent.example.gouv.fr"].as_object().unwrap().keys().next().unwrap().clone();
    let (_, key) = http.get(&format!("{V2}/pubkey/{key_id}"), None).await;
    assert!(key["public_key"].is_string(), "{key}");

    let (_, details) = http.get(&format!("{V2}/hash_details"), with).await;
    assert_eq!(details["algorithms"], json!(["sha256", "none"]));
    let email = chappe_identity::Email::parse("jean@home.example").unwrap();
    let hash = chappe_identity::lookup_hash(&email, details["lookup_pepper"].as_str().unwrap());
    let lookup = json!({ "addresses": [hash], "algorithm": "sha256", "pepper": details["lookup_pepper"] });
    let path = format!("{V2}/lookup");
    let (_, found) = http.call(Method::POST, &path, with, lookup.clone()).await;
    assert_eq!(found, json!({ "mappings": { &hash: user } }));
    let mut old = lookup.clone();
    old["pepper"] = json!("old");
    let answer = http.call(Method::POST, &path, with, old).await;
    refused(&answer, 400, "M_INVALID_PEPPER");
    assert_eq!(answer.1["lookup_pepper"], details["lookup_pepper"]);

    let unbind = format!("{V2}/3pid/unbind");
    let threepid = json!({ "medium": "email", "address": "jean@home.example" });
    let body = json!({ "mxid": user, "threepid": threepid });
    refused(&http.call(Method::POST, &unbind, with, body).await, 400, "M_MISSING_PARAM");
    let body = json!({ "mxid": user, "threepid": threepid, "sid": sid, "client_secret": SECRET });
    let (status, said) = http.call(Method::POST, &unbind, with, body).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let (_, found) = http.call(Method::POST, &path, with, lookup).await;
    assert_eq!(found, json!({ "mappings": {} }));
    lab.stop().await;
}

#[tokio::test]
async fn an_address_is_deleted_however_it_is_spelled_and_not_halfway() {
    let lines = "[identity.service]\nother_servers = false\n\
                 [client.rates]\nsearch = { per_second = 0.001, burst = 5 }";
    let (lab, user, id_token) = lab(lines).await;
    let http = lab.http();
    let log_in = json!({ "type": "m.login.password", "password": "correct horse battery",
        "identifier": { "type": "m.id.user", "user": user } });
    let (_, session) = http.post("/_matrix/client/v3/login", log_in).await;
    let token = text(&session["access_token"]);
    let (delete, with) = ("/_matrix/client/v3/account/3pid/delete", Some(token.as_str()));
    let addresses = async || {
        let (_, said) = http.get("/_matrix/client/v3/account/3pid", with).await;
        said["threepids"].as_array().unwrap().len()
    };
    let spelled = "Jean@DINUM.gouv.fr";
    for (address, id_server, status) in [
        (spelled, "not trusted", 400),
        (spelled, "id.example", 403),
        ("jean@dinum@gouv.fr", "agent.example.gouv.fr", 400),
    ] {
        let body = json!({ "medium": "email", "address": address, "id_server": id_server });
        let (said, answer) = http.call(Method::POST, delete, with, body).await;
        assert_eq!((said.as_u16(), addresses().await), (status, 1), "{id_server}: {answer}");
    }
    let body = json!({ "medium": "email", "address": spelled });
    let (status, said) = http.call(Method::POST, delete, with, body.clone()).await;
    assert_eq!((status, &said["id_server_unbind_result"]), (StatusCode::OK, &json!("success")));
    assert_eq!(addresses().await, 0);
    let (status, said) = http.call(Method::POST, delete, with, body.clone()).await;
    assert_eq!(
        (status, &said["id_server_unbind_result"]),
        (StatusCode::OK, &json!("no-support")),
        "not asked"
    );
    let (status, _) = http.call(Method::POST, delete, with, body).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    let (_, details) = http.get(&format!("{V2}/hash_details"), Some(&id_token)).await;
    let asked = json!({ "addresses": ["jean@dinum.gouv.fr email"], "algorithm": "none",
        "pepper": details["lookup_pepper"] });
    let (_, found) = http.call(Method::POST, &format!("{V2}/lookup"), Some(&id_token), asked).await;
    assert_eq!(found, json!({ "mappings": {} }));
    lab.stop().await;
}

#[tokio::test]
async fn the_button_of_the_mail_confirms_and_leads_on() {
    let (mut lab, _, token) = lab("").await;
    let http = lab.http();
    let wanted = json!({ "client_secret": SECRET, "email": "jean@home.example", "send_attempt": 1 });
    asked(&http, Some(&token), V2, wanted).await;
    let (sid, code) = link(&lab.mail().await.text);
    let request = Request::post(http.uri("/_matrix/identity/unstable/chappe/confirm_email"))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let (status, page) = http.raw(request, format!("sid={sid}&token={code}&lang=fr")).await;
    assert!(status == StatusCode::OK && page.contains("Votre adresse est confirmée"), "{page}");
    let path = format!("{V2}/3pid/getValidated3pid?sid={sid}&client_secret={SECRET}");
    assert_eq!(http.get(&path, Some(&token)).await.0, StatusCode::OK);
    lab.stop().await;
}

#[tokio::test]
async fn phone_numbers_get_an_honest_answer() {
    let (lab, _, token) = lab("").await;
    let http = lab.http();
    let wanted =
        json!({ "client_secret": SECRET, "country": "FR", "phone_number": "0123456789", "send_attempt": 1 });
    let base = format!("{V2}/validate/msisdn");
    let answer = http.call(Method::POST, &format!("{base}/requestToken"), Some(&token), wanted).await;
    refused(&answer, 400, "M_THREEPID_MEDIUM_NOT_SUPPORTED");
    let submitted = json!({ "sid": "x", "client_secret": SECRET, "token": "1234" });
    let answer = http.call(Method::POST, &format!("{base}/submitToken"), Some(&token), submitted).await;
    refused(&answer, 404, "M_NO_VALID_SESSION");
    let answer = http.get(&format!("{base}/submitToken?sid=x&client_secret=y&token=z"), None).await;
    refused(&answer, 404, "M_NO_VALID_SESSION");
    lab.stop().await;
}

const TERMS: &str = r#"
[identity.service.policies.cgu]
version = "1"
texts = { fr = { name = "Conditions", url = "https://x.fr/cgu-fr-1" }, en = { name = "Terms", url = "https://x.fr/cgu-en-1" } }
"#;

#[tokio::test]
async fn row_104_policies_come_first() {
    let (lab, _, token) = lab(TERMS).await;
    let (http, with) = (lab.http(), Some(token.as_str()));
    for path in ["/account", "/hash_details"] {
        refused(&http.get(&format!("{V2}{path}"), with).await, 403, "M_TERMS_NOT_SIGNED");
    }
    let (_, terms) = http.get(&format!("{V2}/terms"), None).await;
    assert_eq!(terms["policies"]["cgu"]["version"], "1");
    assert_eq!(
        terms["policies"]["cgu"]["fr"],
        json!({ "name": "Conditions", "url": "https://x.fr/cgu-fr-1" })
    );
    let accept = json!({ "user_accepts": ["https://x.fr/cgu-en-1"] });
    let terms = format!("{V2}/terms");
    refused(&http.call(Method::POST, &terms, None, accept.clone()).await, 401, "M_UNAUTHORIZED");
    assert_eq!(http.call(Method::POST, &terms, with, accept).await.0, StatusCode::OK);
    assert_eq!(http.get(&format!("{V2}/account"), with).await.0, StatusCode::OK);
    lab.stop().await;
}

#[tokio::test]
async fn a_token_stands_in_the_query_where_homeservers_put_it_and_nowhere_else() {
    let (lab, _, token) = lab("").await;
    let http = lab.http();
    for (asked, status) in [("/hash_details", 200), ("/account", 401)] {
        let path = format!("{V2}{asked}?access_token={token}");
        assert_eq!(http.get(&path, None).await.0.as_u16(), status, "{asked}");
    }
    refused(&http.get(&format!("{V2}/hash_details?access_token=x"), None).await, 401, "M_UNAUTHORIZED");
    let both = format!("{V2}/hash_details?access_token={token}");
    refused(&http.get(&both, Some("x")).await, 401, "M_UNAUTHORIZED");
    lab.stop().await;
}

#[tokio::test]
async fn version_one_takes_forms_and_looks_up_only_where_it_is_wanted() {
    let v1 = "/_matrix/identity/api/v1";
    let (mut lab, user, token) = lab("[identity.service]\nlegacy_lookups = true").await;
    let http = lab.http();
    let form = || {
        Request::post(http.uri(&format!("{v1}/validate/email/requestToken")))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
    };
    let body = format!("client_secret={SECRET}&email=jean%2Bx%40home.example&send_attempt=1");
    // Nobody is mailed for those who have no account.
    let (status, said) = http.raw(form(), body.clone()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{said}");
    assert!(!lab.has_mail());
    let form = form().header(header::AUTHORIZATION, format!("Bearer {token}"));
    let (status, said) = http.raw(form, body).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    assert_eq!(lab.mail().await.to, ["jean+x@home.example"]);
    // The account's own address, which was bound when it signed up.
    let looking = async {
        loop {
            let (status, said) =
                http.get(&format!("{v1}/lookup?medium=email&address=JEAN@dinum.gouv.fr"), None).await;
            assert_eq!(status, StatusCode::OK, "{said}");
            if said["mxid"].is_string() {
                return said;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let found = timeout(PATIENCE, looking).await.expect("it is bound");
    assert!(found["mxid"] == json!(user) && found["signatures"].is_object(), "{found}");
    let asked =
        json!({ "threepids": [["email", "jean@dinum.gouv.fr"], ["email", "a@b.example"], ["msisdn", "1"]] });
    let (_, many) = http.post(&format!("{v1}/bulk_lookup"), asked).await;
    assert_eq!(many, json!({ "threepids": [["email", "jean@dinum.gouv.fr", user]] }));
    lab.stop().await;

    let (lab, ..) = self::lab("").await;
    let http = lab.http();
    let answer = http.get(&format!("{v1}/lookup?medium=email&address=jean@dinum.gouv.fr"), None).await;
    refused(&answer, 404, "M_UNRECOGNIZED");
    let answer = http.post(&format!("{v1}/bulk_lookup"), json!({ "threepids": [] })).await;
    refused(&answer, 404, "M_UNRECOGNIZED");
    lab.stop().await;
}
