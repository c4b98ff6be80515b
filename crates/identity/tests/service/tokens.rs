//! Who asks the identity service, what they have accepted, and which other ones are asked for them.

use chappe_identity::{Config, Error, Policy, PolicyText, ServiceConfig};
use ruma::user_id;

use crate::{BOB, Lab, SERVER, bob, memory, openid};

#[tokio::test]
async fn a_homeserver_speaks_for_its_own_users_alone() {
    let lab = Lab::new().await;
    lab.homeservers.users.lock().insert("good".to_owned(), bob());
    let token = lab.service.register(&openid("good", "b.example")).await.unwrap();
    assert_eq!(lab.service.member(&token).await.unwrap(), BOB);
    // evil.example says that its token belongs to a user of b.example.
    let forged = lab.service.register(&openid("good", "evil.example")).await;
    assert!(matches!(forged, Err(Error::Unauthorized(_))));
    assert!(matches!(lab.service.register(&openid("bad", "b.example")).await, Err(Error::Unauthorized(_))));
    assert!(matches!(lab.service.register(&openid("", "b.example")).await, Err(Error::Invalid(_))));
    lab.service.log_out(&token).await.unwrap();
    assert!(matches!(lab.service.member(&token).await, Err(Error::Unauthorized(_))));
}

#[tokio::test]
async fn tokens_do_not_pile_up() {
    let lab = Lab::new().await;
    lab.homeservers.users.lock().insert("good".to_owned(), bob());
    let mut tokens = Vec::new();
    for _ in 0..21 {
        tokens.push(lab.service.register(&openid("good", "b.example")).await.unwrap());
    }
    assert!(lab.service.member(&tokens[0]).await.is_err());
    assert!(lab.service.member(&tokens[1]).await.is_ok() && lab.service.member(&tokens[20]).await.is_ok());
}

#[tokio::test]
async fn policies_are_accepted_by_their_urls_and_again_when_they_change() {
    let policy = |version: &str| {
        let text = |language: &str| {
            let url = format!("https://x.fr/{language}/{version}");
            (language.to_owned(), PolicyText { name: "Terms".to_owned(), url })
        };
        let texts = [text("fr"), text("en")].into();
        let policies = [("terms".to_owned(), Policy { version: version.to_owned(), texts })].into();
        Config { service: ServiceConfig { policies, ..ServiceConfig::default() }, ..Config::default() }
    };
    let store = memory();
    let lab = Lab::with(policy("1"), store.clone(), 0).await;
    lab.homeservers.users.lock().insert("good".to_owned(), bob());
    let token = lab.service.register(&openid("good", "b.example")).await.unwrap();
    assert!(matches!(lab.service.member_in_good_standing(&token).await, Err(Error::TermsNotSigned)));
    // Nor through the homeserver, which binds and invites with the same token.
    let through = lab.service.server_for(&bob(), SERVER, &token).await;
    assert!(matches!(through.err(), Some(Error::TermsNotSigned)));
    lab.service.accept(&bob(), &["https://evil.example/".to_owned()]).await.unwrap();
    assert!(lab.service.member_in_good_standing(&token).await.is_err());
    lab.service.accept(&bob(), &["https://x.fr/fr/1".to_owned()]).await.unwrap();
    assert_eq!(lab.service.member_in_good_standing(&token).await.unwrap(), BOB);
    lab.service.server_for(&bob(), SERVER, &token).await.unwrap();
    let later = Lab::with(policy("2"), store, 1).await;
    assert!(matches!(later.service.member_in_good_standing(&token).await, Err(Error::TermsNotSigned)));
}

#[tokio::test]
async fn other_identity_servers_are_hosts_and_only_those_that_are_trusted() {
    let service = ServiceConfig {
        other_servers: false,
        names: vec!["id.a.example:8443".to_owned()],
        ..ServiceConfig::default()
    };
    let lab = Lab::serving(service).await;
    for own in ["a.example", "Matrix.A.example", "id.a.example:8443"] {
        assert!(lab.service.is_called(own), "{own}");
    }
    assert!(!lab.service.is_called("matrix.a.example:8443"));
    for wrong in
        ["", "x.fr/path", "a@x.fr", "x.fr?q", "x.fr#f", "https://x.fr", "x.fr\\y", "x.fr:port", "[::1"]
    {
        let refused = lab.service.server_without_token(wrong).err();
        assert!(matches!(refused, Some(Error::Invalid(_))), "{wrong:?}");
    }
    assert!(matches!(lab.service.server_without_token("x.fr").err(), Some(Error::NotTrusted)));
    // One's own name takes one's own token.
    lab.homeservers.users.lock().insert("good".to_owned(), bob());
    let token = lab.service.register(&openid("good", "b.example")).await.unwrap();
    assert!(lab.service.server_for(&bob(), "a.example", &token).await.is_ok());
    let eve = user_id!("@eve:a.example");
    assert!(matches!(
        lab.service.server_for(eve, "a.example", &token).await.err(),
        Some(Error::Unauthorized(_))
    ));
}

#[test]
fn secrets_are_not_shown() {
    assert!(!format!("{:?}", openid("hunter2", "b.example")).contains("hunter2"));
}
