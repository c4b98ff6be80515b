//! Accounts with identity providers, and what is confirmed by them.

use ruma::{OwnedUserId, api::client::uiaa::AuthType};
use serde_json::json;

use super::{server, user};
use crate::{Accounts, Erase, Error, ExternalAccount, NewUser, Operation, Proof};

fn at(issuer: &str, subject: &str) -> ExternalAccount {
    let [issuer, subject, provider] = [issuer, subject, "p"].map(str::to_owned);
    ExternalAccount { issuer, subject, provider }
}

async fn whose(accounts: &Accounts, account: &ExternalAccount) -> Option<OwnedUserId> {
    accounts.user_by_external_account(&account.issuer, &account.subject).await.unwrap()
}

#[tokio::test]
async fn an_account_elsewhere_is_one_users() {
    let accounts = server();
    let (alice, bob) = (user(&accounts, "alice").await, user(&accounts, "bob").await);
    let (one, two) = (at("https://i", "1"), at("https://i", "2"));
    accounts.link_external_account(&alice, &one).await.unwrap();
    accounts.link_external_account(&alice, &one).await.unwrap();
    let taken = accounts.link_external_account(&bob, &one).await;
    assert!(matches!(taken, Err(Error::ExternalIdInUse)));
    let taken =
        NewUser { localpart: Some("carol".to_owned()), external: Some(one.clone()), ..NewUser::default() };
    assert!(matches!(accounts.create_user(taken).await, Err(Error::ExternalIdInUse)));
    assert_eq!(whose(&accounts, &one).await.as_ref(), Some(&alice));
    assert_eq!(whose(&accounts, &at("https://j", "1")).await, None);
    for wrong in
        [at("", "1"), at("https://i", ""), at("https://i", "a\nb"), at("https://i", &"x".repeat(256))]
    {
        assert!(matches!(accounts.link_external_account(&bob, &wrong).await, Err(Error::Invalid(_))));
    }
    // All at once, or nothing.
    accounts.link_external_account(&bob, &two).await.unwrap();
    let both = [two.clone(), at("https://i", "3")];
    assert!(matches!(accounts.replace_external_accounts(&alice, &both).await, Err(Error::ExternalIdInUse)));
    assert_eq!(whose(&accounts, &one).await.as_ref(), Some(&alice));
    accounts.replace_external_accounts(&alice, &both[1..]).await.unwrap();
    assert_eq!(whose(&accounts, &one).await, None);
    assert!(!accounts.unlink_external_account(&alice, "https://i", "2").await.unwrap(), "it is bob's");
    assert!(accounts.unlink_external_account(&bob, "https://i", "2").await.unwrap());
    assert!(accounts.external_links(&bob).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_closed_account_keeps_its_links_until_it_is_forgotten() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let one = at("https://i", "1");
    accounts.link_external_account(&alice, &one).await.unwrap();
    accounts.deactivate(&alice, Erase::No).await.unwrap();
    assert_eq!(whose(&accounts, &one).await.as_ref(), Some(&alice));
    let more = accounts.link_external_account(&alice, &at("https://i", "2")).await;
    assert!(matches!(more, Err(Error::Deactivated)));
    accounts.deactivate(&alice, Erase::Yes).await.unwrap();
    assert_eq!(whose(&accounts, &one).await, None);
    assert!(accounts.external_links(&alice).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_session_is_completed_elsewhere_by_its_user_alone() {
    let accounts = server();
    let (alice, bob) = (user(&accounts, "alice").await, user(&accounts, "bob").await);
    let operation = Operation::new("DELETE", "/devices/ONE").by(&alice).with_body(&json!({}));
    let flows = [vec![AuthType::Sso]];
    let step = async |auth: Option<serde_json::Value>| {
        let auth = auth.map(|auth| serde_json::from_value(auth).unwrap());
        let proof = Proof { auth: auth.as_ref(), flows: &flows, email: None, params: None, address: "" };
        accounts.authorize(&operation, proof).await
    };
    let Err(Error::Authenticate(asked)) = step(None).await else { unreachable!("nothing was proved") };
    let session = asked.session.unwrap();
    let found = accounts.uia_session(&session).unwrap();
    assert_eq!((&found.user, found.operation.as_str()), (&alice, "DELETE /devices/ONE"));
    assert!(!accounts.complete_sso(&session, &bob) && !accounts.complete_sso("made up", &alice));
    let said = step(Some(json!({ "type": "m.login.sso", "session": session }))).await;
    assert!(matches!(said, Err(Error::Authenticate(_))), "saying so is no proof");
    assert!(accounts.complete_sso(&session, &alice));
    assert_eq!(step(Some(json!({ "session": session }))).await.unwrap().stages, [AuthType::Sso]);
    assert!(accounts.uia_session(&session).is_none(), "it is used up");
}

#[tokio::test]
async fn who_opens_an_account_again_by_its_address_is_alone_in_it() {
    let accounts = server();
    let (old, new) = (at("https://idp.x", "old"), at("https://idp.x", "new"));
    let person = |external: &ExternalAccount| NewUser {
        localpart: Some("ana".to_owned()),
        email: Some("ana@x.fr".to_owned()),
        external: Some(external.clone()),
        ..NewUser::default()
    };
    let ana = accounts.create_user(person(&old)).await.unwrap();
    accounts.deactivate(&ana, Erase::No).await.unwrap();
    assert_eq!(whose(&accounts, &old).await, Some(ana.clone()), "whoever comes back is told");
    accounts.update_user(&ana, |user| user.locked = true).await.unwrap();
    assert!(matches!(accounts.reopen(&person(&new)).await, Err(Error::Locked)));
    accounts.update_user(&ana, |user| user.locked = false).await.unwrap();
    assert_eq!(accounts.reopen(&person(&new)).await.unwrap(), Some(ana.clone()));
    assert_eq!((whose(&accounts, &old).await, whose(&accounts, &new).await), (None, Some(ana.clone())));
    accounts.deactivate(&ana, Erase::No).await.unwrap();
    assert_eq!(accounts.reopen(&person(&new)).await.unwrap(), Some(ana.clone()));
    assert_eq!(whose(&accounts, &new).await, Some(ana), "the same person comes in as before");
}
