//! Accounts at the identity service, and what is left of them when they change or close.

use std::time::Duration;

use chappe_accounts::{Accounts, Erase, NewUser};
use chappe_identity::{Config, Error};
use chappe_store::{Tx, identity_service::AddressHashes};
use ruma::{OwnedSessionId, OwnedUserId, thirdparty::Medium, user_id};

use crate::{Lab, SERVER, bob, email, memory, openid, target};

async fn made(accounts: &Accounts, name: &str, published: bool) -> OwnedUserId {
    let email = Some(format!("{name}@a.fr"));
    let new = NewUser { localpart: Some(name.to_owned()), email, published, ..NewUser::default() };
    accounts.create_user(new).await.unwrap()
}

#[tokio::test]
async fn a_token_is_worth_nothing_once_the_account_is_locked_or_closed() {
    let lab = Lab::new().await;
    let dave = made(&lab.accounts, "dave", false).await;
    lab.homeservers.users.lock().insert("dave".to_owned(), dave.clone());
    let token = lab.service.register(&openid("dave", SERVER)).await.unwrap();
    assert_eq!(lab.service.member(&token).await.unwrap(), dave);
    lab.accounts.update_user(&dave, |user| user.locked = true).await.unwrap();
    assert!(matches!(lab.service.member(&token).await, Err(Error::Unauthorized(_))));
    lab.accounts.update_user(&dave, |user| user.locked = false).await.unwrap();
    lab.service.member(&token).await.unwrap();
    lab.accounts.deactivate(&dave, Erase::No).await.unwrap();
    assert!(matches!(lab.service.member(&token).await, Err(Error::Unauthorized(_))));
    // For good: the account may be opened again, its tokens are gone.
    lab.accounts.reactivate(&dave).await.unwrap();
    assert!(matches!(lab.service.member(&token).await, Err(Error::Unauthorized(_))));
}

impl Lab {
    /// Has `bob@b.fr` bound at another identity server.
    async fn bound_elsewhere(&self, user: &OwnedUserId) {
        let sid: OwnedSessionId = "sid".try_into().unwrap();
        self.service.bind_for(user, ("id.example", "token"), &sid, &self.secret).await.unwrap();
    }

    fn asked_elsewhere(&self) -> usize {
        std::mem::take(&mut *self.homeservers.elsewhere.asked.lock()).len()
    }
}

#[tokio::test(start_paused = true)]
async fn other_identity_servers_are_asked_to_forget_a_closed_account() {
    let lab = Lab::new().await;
    let dave = made(&lab.accounts, "dave", false).await;
    lab.bound_elsewhere(&dave).await;
    lab.accounts.deactivate(&dave, Erase::No).await.unwrap();
    lab.service.work().await.unwrap();
    let asked = std::mem::take(&mut *lab.homeservers.elsewhere.asked.lock());
    assert_eq!(asked, [("bob@b.fr".to_owned(), dave.clone())]);
    // It was not reached.
    *lab.homeservers.elsewhere.answer.lock() = Some(true);
    for count in [1, 0] {
        tokio::time::advance(Duration::from_hours(1)).await;
        lab.service.work().await.unwrap();
        assert_eq!(lab.asked_elsewhere(), count);
    }
}

#[tokio::test]
async fn an_identity_server_that_refuses_to_forget_is_remembered() {
    let lab = Lab::new().await;
    let dave = made(&lab.accounts, "dave", false).await;
    lab.bound_elsewhere(&dave).await;
    for (answer, done, asked) in
        [(Some(false), false, 1), (None, false, 1), (Some(true), true, 1), (Some(true), true, 0)]
    {
        *lab.homeservers.elsewhere.answer.lock() = answer;
        assert_eq!(lab.service.unbind_for(&dave, &email("bob@b.fr"), None).await.unwrap(), done);
        assert_eq!(lab.asked_elsewhere(), asked, "{answer:?}");
    }
}

#[tokio::test]
async fn the_identity_service_follows_what_an_administrator_does_to_addresses() {
    let lab = Lab::new().await;
    let carol = made(&lab.accounts, "carol", true).await;
    lab.service.work().await.unwrap();
    assert_eq!(lab.find("carol@a.fr").await, Some(carol.clone()));
    let wanted = |address: &str| [(Medium::Email, address.to_owned())];
    lab.accounts.replace_threepids(&carol, &wanted("new@a.fr"), true).await.unwrap();
    assert_eq!(lab.find("carol@a.fr").await, None);
    lab.service.work().await.unwrap();
    assert_eq!(lab.find("new@a.fr").await, Some(carol.clone()));
    lab.accounts.replace_threepids(&carol, &wanted("private@a.fr"), false).await.unwrap();
    lab.service.work().await.unwrap();
    assert_eq!((lab.find("new@a.fr").await, lab.find("private@a.fr").await), (None, None));
}

#[tokio::test]
async fn hashes_go_with_their_address_and_with_their_pepper() {
    let store = memory();
    let lab = Lab::with(Config::default(), store.clone(), 0).await;
    let numbers = async || {
        let rows = store.read().scan_all::<AddressHashes>(&()).await.unwrap();
        rows.into_iter().map(|((number, _), _)| number).collect::<Vec<u32>>()
    };
    lab.bound("bob@b.fr", &bob()).await;
    lab.bound("eve@b.fr", user_id!("@eve:b.example")).await;
    lab.service.unbind(&email("bob@b.fr"), &bob()).await.unwrap();
    assert_eq!(numbers().await, [1]);
    // What was left of a pepper before, by a server that stopped at the wrong moment.
    lab.service.turn_pepper().await.unwrap();
    let mut tx = Tx::new();
    tx.put::<AddressHashes>(&(1, [7; 32]), &"email bob@b.fr".to_owned());
    store.commit(tx).await.unwrap();
    lab.service.turn_pepper().await.unwrap();
    assert_eq!(numbers().await, [3]);
}

#[tokio::test]
async fn members_of_unknown_servers_are_counted_together() {
    let lab = Lab::new().await;
    let map = lab.identity().map();
    map.put(&"agents.fr".parse().unwrap(), &target("b.example", false)).await.unwrap();
    for (user, subject) in [
        ("@dave:a.example", "@dave:a.example"),
        ("@bob:b.example", "@bob:b.example"),
        ("@eve:evil.example", "evil.example"),
        ("@max:evil.example", "evil.example"),
    ] {
        let user: OwnedUserId = user.try_into().unwrap();
        assert_eq!(lab.service.counted_as(&user), subject);
    }
}
