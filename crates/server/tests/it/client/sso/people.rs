//! Whose account it is: made, linked, opened, or nobody's.

use chappe_accounts::Erase;
use http::StatusCode;
use ruma::{OwnedUserId, UserId};
use serde_json::{Value, json};

use super::{Stage, page, person, provider::Person};
use crate::client::home::PASSWORD;

fn id(name: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:a.test")).unwrap()
}

fn with(person: Person, name: &str, value: Value) -> Person {
    let mut person = person;
    person.insert(name.to_owned(), value);
    person
}

#[tokio::test]
async fn an_address_counts_as_far_as_the_provider_is_believed() {
    let agents = "[identity]\nprofile = \"agents\"\naddresses = \"any\"\n";
    let stage = Stage::with(agents, "").await;
    let jean = person("s", "jean@x.fr");
    for not_verified in [json!(false), json!("true"), json!(1), Value::Null] {
        let jean = with(jean.clone(), "email_verified", not_verified);
        let said = stage.refused(&jean, StatusCode::FORBIDDEN).await;
        assert!(said.contains("does not vouch for your e-mail address"), "{said}");
    }
    for wrong in ["jean@evil.fr@x.fr", "jean@x", "<b>@x.fr", ""] {
        let jean = with(with(jean.clone(), "email", json!(wrong)), "email_verified", json!(true));
        let said = stage.refused(&jean, StatusCode::FORBIDDEN).await;
        assert!(!said.contains("<b>@"), "{said}");
    }
    let verified = with(jean.clone(), "email_verified", json!(true));
    assert_eq!(stage.logged_in(&verified).await["user_id"], "@jean-x.fr:a.test");
    // Whoever has an account is known by it, whatever becomes of the address.
    assert_eq!(stage.logged_in(&jean).await["user_id"], "@jean-x.fr:a.test");
}

/// What was said of the address of the ID token does not hold for that of the userinfo endpoint.
#[tokio::test]
async fn one_address_does_not_vouch_for_another() {
    let stage = Stage::with("[identity]\naddresses = \"any\"\n", "").await;
    stage.provider.0.lock().lie = Some(std::sync::Arc::new(|_, claims| {
        claims["email"] = json!("mine@x.fr");
        claims["email_verified"] = json!(true);
    }));
    stage.refused(&person("s", "director@x.fr"), StatusCode::FORBIDDEN).await;
}

#[tokio::test]
async fn nobody_signs_up_with_an_address_that_may_not() {
    let stage = Stage::with("[identity]\nprofile = \"agents\"\n", "emails = \"trusted\"\n").await;
    let said = stage.refused(&person("s", "jean@evil.fr"), StatusCode::FORBIDDEN).await;
    assert!(said.contains("jean@evil.fr may not be used"), "{said}");
    assert!(stage.home.accounts.user(&id("jean-evil.fr")).await.unwrap().is_none());
}

#[tokio::test]
async fn two_people_with_one_name_have_two_accounts() {
    let stage = Stage::of_agents().await;
    let first = stage.logged_in(&person("1", "a+b@x.fr")).await;
    let second = stage.logged_in(&person("2", "ab@x.fr")).await;
    assert_eq!(
        (&first["user_id"], &second["user_id"]),
        (&json!("@ab-x.fr:a.test"), &json!("@ab-x.fr1:a.test"))
    );
    // The same number at the same provider is the same person, the same number elsewhere would not be.
    assert_eq!(stage.logged_in(&person("1", "ab@x.fr")).await["user_id"], first["user_id"]);
}

#[tokio::test]
async fn row_95_an_account_with_the_address_is_linked_only_where_the_configuration_says_so() {
    for (line, linked) in [("", false), ("link_by_email = true\n", true)] {
        let lines = format!("emails = \"trusted\"\n{line}");
        let stage = Stage::with("[identity]\naddresses = \"any\"\n", &lines).await;
        let director = stage.home.user("director").await;
        let medium = ruma::thirdparty::Medium::Email;
        stage.home.accounts.add_threepid(&id("director"), &medium, "director@x.fr", (1, None)).await.unwrap();
        let them = person("s", "Director@X.fr");
        if linked {
            assert_eq!(stage.logged_in(&them).await["user_id"], director.id);
        } else {
            let said = stage.refused(&them, StatusCode::FORBIDDEN).await;
            assert!(said.contains("There is an account with your e-mail address"), "{said}");
        }
        let links = stage.home.accounts.external_links(&id("director")).await.unwrap();
        assert_eq!(links.len(), usize::from(linked));
    }
}

#[tokio::test]
async fn row_96_an_account_is_found_under_another_domain_of_the_same_people() {
    let rules = "emails = \"trusted\"\nlink_by_email = true\n\
                 email_fallbacks = [{ from = \"numerique.gouv.fr\", to = \"beta.gouv.fr\" }]\n";
    let stage = Stage::with("[identity]\nprofile = \"agents\"\naddresses = \"any\"\n", rules).await;
    let old = stage.logged_in(&person("old", "jean@beta.gouv.fr")).await;
    let new = stage.logged_in(&person("new", "jean@numerique.gouv.fr")).await;
    assert_eq!(new["user_id"], old["user_id"]);
    let stranger = stage.logged_in(&person("x", "jean@evilnumerique.gouv.fr")).await;
    assert_ne!(stranger["user_id"], old["user_id"]);
}

#[tokio::test]
async fn nobody_comes_in_whose_account_is_closed_locked_or_suspended() {
    let stage = Stage::of_agents().await;
    let jean = person("s", "jean@x.fr");
    let user = id("jean-x.fr");
    let arrived = stage.come(&jean).await;
    let early = super::token_in(&super::location(&arrived));
    let accounts = &stage.home.accounts;
    accounts.update_user(&user, |user| user.locked = true).await.unwrap();
    let said = stage.refused(&jean, StatusCode::FORBIDDEN).await;
    assert!(said.contains("blocked"), "{said}");
    let body = json!({ "type": "m.login.token", "token": early });
    stage.home.call("", "POST", "/login", body).await.refused(401, "M_USER_LOCKED");
    accounts.update_user(&user, |user| (user.locked, user.suspended) = (false, true)).await.unwrap();
    stage.refused(&jean, StatusCode::FORBIDDEN).await;
    // Nor by linking another account there.
    stage.refused(&person("other", "jean@x.fr"), StatusCode::FORBIDDEN).await;
    accounts.update_user(&user, |user| user.suspended = false).await.unwrap();
    stage.logged_in(&jean).await;
    accounts.deactivate(&user, Erase::No).await.unwrap();
    let said = stage.refused(&jean, StatusCode::FORBIDDEN).await;
    assert!(said.contains("closed"), "{said}");
    // Whoever was forgotten is somebody new, and gets nobody's old name.
    accounts.deactivate(&user, Erase::Yes).await.unwrap();
    assert_eq!(stage.logged_in(&jean).await["user_id"], "@jean-x.fr1:a.test");
}

#[tokio::test]
async fn a_closed_account_is_opened_again_where_the_configuration_says_so() {
    let lines = "emails = \"trusted\"\nlink_by_email = true\naccounts = { reactivate = true }\n";
    let stage = Stage::with("[identity]\nprofile = \"agents\"\naddresses = \"any\"\n", lines).await;
    let jean = person("s", "jean@x.fr");
    let first = stage.logged_in(&jean).await;
    let user = id("jean-x.fr");
    stage.home.accounts.deactivate(&user, Erase::No).await.unwrap();
    assert_eq!(stage.logged_in(&jean).await["user_id"], first["user_id"]);
    assert_eq!(stage.home.accounts.threepids(&user).await.unwrap()[0].address, "jean@x.fr");
    // By its address as well, whoever the provider says it is now.
    stage.home.accounts.deactivate(&user, Erase::No).await.unwrap();
    assert_eq!(stage.logged_in(&person("t", "jean@x.fr")).await["user_id"], first["user_id"]);
    // Unless the address is another account's by now.
    stage.home.accounts.deactivate(&user, Erase::No).await.unwrap();
    let other = id(stage.home.user("other").await.id.trim_start_matches('@').trim_end_matches(":a.test"));
    let accounts = &stage.home.accounts;
    accounts.add_threepid(&other, &ruma::thirdparty::Medium::Email, "jean@x.fr", (1, None)).await.unwrap();
    assert_eq!(stage.logged_in(&jean).await["user_id"], other.as_str());
}

#[tokio::test]
async fn where_none_are_made_strangers_stay_outside() {
    let lines = "emails = \"trusted\"\nlink_by_email = true\naccounts = { create = false }\n";
    let stage = Stage::with("[identity]\naddresses = \"any\"\n", lines).await;
    let said = stage.refused(&person("s", "jean@x.fr"), StatusCode::FORBIDDEN).await;
    assert!(said.contains("no account on this server"), "{said}");
}

#[tokio::test]
async fn names_follow_from_claims_where_they_do_not_from_the_address() {
    let lines = "emails = \"trusted\"\n\
                 accounts = { localpart_claim = \"uid\", display_name_claims = [\"given_name\", \"usual_name\"] }\n";
    let stage = Stage::with("[identity]\naddresses = \"any\"\n", lines).await;
    stage.home.user("admin").await;
    for (sub, uid, expected) in [
        ("1", json!("Jean.Martin@dgfip"), "@jean.martin:a.test"),
        ("2", json!("admin"), "@admin1:a.test"),
        ("3", json!("_server"), "@server:a.test"),
        ("4", Value::Null, "@mail4:a.test"),
        ("5", json!("\u{202e}<script>"), "@script:a.test"),
    ] {
        let them = with(person(sub, &format!("mail{sub}@x.fr")), "uid", uid);
        let who = stage.logged_in(&them).await;
        assert_eq!(who["user_id"], expected);
        let token = who["access_token"].as_str().unwrap();
        let profile = stage.home.call(token, "GET", &format!("/profile/{expected}"), Value::Null).await.ok();
        assert_eq!(profile["displayname"], "Jean Martin");
    }
    let log_in = json!({
        "type": "m.login.password", "password": "", "identifier": { "type": "m.id.user", "user": "jean.martin" },
    });
    stage.home.call("", "POST", "/login", log_in).await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn somebody_who_comes_twice_at_once_has_one_account() {
    let stage = Stage::of_agents().await;
    let jean = person("s", "jean@x.fr");
    let (one, other) = (stage.browser(), stage.browser());
    let backs = (
        stage.provider.log_in(&one.depart(super::CLIENT).await, &jean),
        stage.provider.log_in(&other.depart(super::CLIENT).await, &jean),
    );
    let (first, second) = tokio::join!(one.get(&backs.0), other.get(&backs.1));
    for arrived in [first, second] {
        super::token_in(&super::location(&arrived));
    }
    assert!(stage.home.accounts.user(&id("jean-x.fr1")).await.unwrap().is_none());
}

#[tokio::test]
async fn administrators_see_change_and_end_links() {
    let stage = Stage::of_agents().await;
    let jean = person("s", "jean@x.fr");
    stage.logged_in(&jean).await;
    let admin = stage.home.administrator("admin1").await;
    let user = "/_synapse/admin/v2/users/@jean-x.fr:a.test";
    let ids = json!([{ "auth_provider": super::provider::ISSUER, "external_id": "s" }]);
    assert_eq!(admin.get(user).await.ok()["external_ids"], ids);
    let found = "/_synapse/admin/v1/auth_providers/https%3A%2F%2Fid.test%2Fapi/users/s";
    assert_eq!(admin.get(found).await.ok()["user_id"], "@jean-x.fr:a.test");
    admin
        .put("/_synapse/admin/v2/users/@admin1:a.test", json!({ "external_ids": ids }))
        .await
        .refused(400, "M_INVALID_PARAM");
    let other = json!([{ "auth_provider": super::provider::ISSUER, "external_id": "t" }]);
    assert_eq!(admin.put(user, json!({ "external_ids": other })).await.ok()["external_ids"], other);
    admin.get(found).await.refused(404, "M_NOT_FOUND");
    assert_eq!(stage.logged_in(&person("t", "elsewhere@x.fr")).await["user_id"], "@jean-x.fr:a.test");
    assert_eq!(admin.put(user, json!({ "external_ids": [] })).await.ok()["external_ids"], json!([]));
}

/// A password and a provider can both open an account.
#[tokio::test]
async fn a_linked_account_keeps_its_password() {
    let stage =
        Stage::with("[identity]\naddresses = \"any\"\n", "emails = \"trusted\"\nlink_by_email = true\n")
            .await;
    stage.home.user("bob").await;
    let medium = ruma::thirdparty::Medium::Email;
    stage.home.accounts.add_threepid(&id("bob"), &medium, "bob@x.fr", (1, None)).await.unwrap();
    stage.logged_in(&person("s", "bob@x.fr")).await;
    let log_in = json!({
        "type": "m.login.password", "password": PASSWORD, "identifier": { "type": "m.id.user", "user": "bob" },
    });
    stage.home.call("", "POST", "/login", log_in).await.ok();
    page(
        &stage.browser().get("/_matrix/client/unstable/chappe/oidc/callback").await,
        StatusCode::BAD_REQUEST,
    );
}
