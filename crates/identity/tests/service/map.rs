//! The map from addresses to homeservers.

use chappe_accounts::NewUser;
use chappe_identity::{Config, Error, MapBook, MapPattern, Profile};
use ruma::user_id;
use serde_json::json;

use crate::{Lab, SERVER, bob, email, invitation, memory, target};

/// The three answers of a homeserver of the network to an address.
#[tokio::test]
async fn the_map_says_who_may_sign_up_here() {
    let config = Config { profile: Profile::Agents, ..Config::default() };
    let lab = Lab::with(config, memory(), 0).await;
    let (identity, map) = (lab.identity(), lab.identity().map());
    assert!(matches!(identity.check_allowed(&email("a@ministry.fr")).await, Err(Error::Denied { .. })));
    map.put(&"*.ministry.fr".parse().unwrap(), &target("b.example", false)).await.unwrap();
    map.put(&"ministry.fr".parse().unwrap(), &target(SERVER, false)).await.unwrap();
    map.put(&"*".parse().unwrap(), &target(SERVER, true)).await.unwrap();
    identity.check_allowed(&email("a@Ministry.fr")).await.unwrap();
    let elsewhere = identity.check_allowed(&email("a@x.ministry.fr")).await.unwrap_err();
    assert!(
        elsewhere.to_string().contains("Votre adresse mail a@x.ministry.fr est associée à un autre serveur")
    );
    let outside = identity.check_allowed(&email("a@gmail.example")).await.unwrap_err();
    assert!(matches!(outside, Error::InvitationMissing { .. }));
    assert!(outside.to_string().starts_with("Vous avez besoin d'une invitation pour accéder à a.example."));

    let info = lab.service.internal_info(&email("a@gmail.example")).await.unwrap().unwrap();
    assert_eq!((info.requires_invite, info.invited), (true, false));
    lab.service.store_invite(invitation("a@gmail.example")).await.unwrap();
    identity.check_allowed(&email("a@gmail.example")).await.unwrap();
    assert!(lab.service.internal_info(&email("a@gmail.example")).await.unwrap().unwrap().invited);
    // The neighbour was not invited.
    assert!(identity.check_allowed(&email("b@gmail.example")).await.is_err());
}

#[tokio::test]
async fn info_tells_where_the_account_is_and_where_it_should_be() {
    let lab = Lab::new().await;
    let info = |address: &'static str| lab.service.info(Box::leak(Box::new(email(address))));
    assert_eq!(info("a@x.fr").await.unwrap(), None);
    lab.identity().allow_list().add(&"x.fr".parse().unwrap(), "").await.unwrap();
    assert_eq!(info("a@x.fr").await.unwrap().unwrap().hs, SERVER);
    // The address of an account that was never bound is nobody's business.
    let new = NewUser {
        localpart: Some("dave".to_owned()),
        email: Some("dave@home.fr".to_owned()),
        ..NewUser::default()
    };
    lab.accounts.create_user(new).await.unwrap();
    assert_eq!(info("dave@home.fr").await.unwrap(), None);
    let map = lab.identity().map();
    map.put(&"x.fr".parse().unwrap(), &target("b.example", true)).await.unwrap();
    let told = serde_json::to_value(info("a@x.fr").await.unwrap().unwrap()).unwrap();
    assert_eq!(told, json!({ "hs": "b.example" }), "never whether an invitation is needed");
    lab.bound("a@x.fr", &bob()).await;
    map.put(&"x.fr".parse().unwrap(), &target("c.example", true)).await.unwrap();
    let told = serde_json::to_value(info("a@x.fr").await.unwrap().unwrap()).unwrap();
    assert_eq!(told, json!({ "hs": "b.example", "new_hs": "c.example" }));
    // A bind must fit the map.
    let sid = lab.session("b@x.fr").await;
    assert!(matches!(lab.service.bind(&sid, &lab.secret, &bob()).await, Err(Error::BindingNotPermitted)));
    lab.service.bind(&sid, &lab.secret, user_id!("@b:c.example")).await.unwrap();
}

#[tokio::test]
async fn the_map_is_imported_exported_and_changed_while_it_is_used() {
    let store = memory();
    let lab = Lab::with(Config::default(), store.clone(), 0).await;
    let map = lab.identity().map();
    let hs = |map: &MapBook, address: &str| {
        map.map().target(&email(address)).map(|(target, _)| target.hs.to_string())
    };
    let file = "medium: {email: {entries: {'a@x.fr': {hs: a.fr}}, patterns: [{'.*': {hs: all.fr}}]}}";
    assert_eq!(map.import(file).await.unwrap(), (1, 1));
    assert_eq!(hs(map, "A@x.fr").as_deref(), Some("a.fr"));
    let bad = "medium: {email: {patterns: [{'a)|(b': {hs: all.fr}}]}}";
    assert!(matches!(map.import(bad).await, Err(Error::InvalidMap(_))));
    assert_eq!(hs(map, "b@x.fr").as_deref(), Some("all.fr"), "nothing was changed");
    let pattern = MapPattern { regex: r".*@y\.fr".to_owned(), target: target("y.fr", true) };
    map.put_pattern(&pattern, Some(1)).await.unwrap();
    assert_eq!(hs(map, "b@y.fr").as_deref(), Some("y.fr"));
    map.put(&"*.sub.fr".parse().unwrap(), &target("sub.fr", false)).await.unwrap();
    let exported = map.export().await.unwrap();
    let again = Lab::with(Config::default(), store, 1).await;
    assert_eq!(hs(again.identity().map(), "b@y.fr").as_deref(), Some("y.fr"), "it is on disk");
    again.identity().map().import(&exported).await.unwrap();
    assert_eq!(again.identity().map().export().await.unwrap(), exported);
    assert!(
        map.remove_pattern(r".*@y\.fr").await.unwrap() && !map.remove_pattern(r".*@y\.fr").await.unwrap()
    );
    assert!(map.remove(&"a@x.fr".parse().unwrap()).await.unwrap());
    assert!(!map.remove(&"a@x.fr".parse().unwrap()).await.unwrap());
}
