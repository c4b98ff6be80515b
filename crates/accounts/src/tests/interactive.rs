//! User-interactive authentication, and ways around it.

use std::time::Duration;

use async_trait::async_trait;
use ruma::{
    OwnedUserId,
    api::client::uiaa::{AuthData, AuthType, ThirdpartyIdCredentials, UiaaInfo},
};
use serde_json::{Value, json};

use super::{server, user};
use crate::{Accounts, EmailStage, Error, Operation, Proof, ProvedEmail, Verified};

fn auth(value: Value) -> AuthData {
    serde_json::from_value(value).unwrap()
}

fn password(user: &str, password: &str, session: &str) -> AuthData {
    auth(json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": user },
        "password": password,
        "session": session,
    }))
}

fn dummy(session: Option<&str>) -> AuthData {
    auth(json!({ "type": "m.login.dummy", "session": session }))
}

async fn step(
    accounts: &Accounts,
    operation: &Operation,
    flows: &[Vec<AuthType>],
    auth: Option<&AuthData>,
) -> Result<Verified, Error> {
    step_from(accounts, operation, flows, (auth, "192.0.2.1")).await
}

async fn step_from(
    accounts: &Accounts,
    operation: &Operation,
    flows: &[Vec<AuthType>],
    (auth, address): (Option<&AuthData>, &str),
) -> Result<Verified, Error> {
    accounts.authorize(operation, Proof { auth, flows, email: None, params: None, address }).await
}

fn asked(outcome: Result<Verified, Error>) -> UiaaInfo {
    match outcome {
        Err(Error::Authenticate(info)) => *info,
        other => panic!("{other:?}"),
    }
}

fn by_password() -> Vec<Vec<AuthType>> {
    vec![vec![AuthType::Password]]
}

fn delete_device(user: &OwnedUserId) -> Operation {
    Operation::new("DELETE", "/devices/ONE").by(user).with_body(&json!({}))
}

#[tokio::test]
async fn a_password_opens_one_operation_once() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let operation = delete_device(&alice);
    let info = asked(step(&accounts, &operation, &by_password(), None).await);
    let session = info.session.unwrap();
    assert!(info.auth_error.is_none() && info.completed.is_empty());

    let wrong = password("alice", "wrong", &session);
    let info = asked(step(&accounts, &operation, &by_password(), Some(&wrong)).await);
    assert!(info.auth_error.is_some() && info.session.as_deref() == Some(session.as_str()));

    let right = password("@alice:hs1", "alice's password", &session);
    let verified = step(&accounts, &operation, &by_password(), Some(&right)).await.unwrap();
    assert_eq!(verified.stages, [AuthType::Password]);
    // The session is used up.
    let info = asked(step(&accounts, &operation, &by_password(), Some(&dummyless(&session))).await);
    assert!(info.auth_error.is_some() && info.session.as_deref() != Some(session.as_str()));
}

/// Only a session, no stage.
fn dummyless(session: &str) -> AuthData {
    auth(json!({ "session": session }))
}

#[tokio::test]
async fn a_session_is_of_no_use_for_anything_else() {
    let accounts = server();
    let (alice, bob) = (user(&accounts, "alice").await, user(&accounts, "bob").await);
    let session = asked(step(&accounts, &delete_device(&alice), &by_password(), None).await).session.unwrap();
    let right = password("alice", "alice's password", &session);
    let others = [
        Operation::new("DELETE", "/devices/TWO").by(&alice).with_body(&json!({})),
        Operation::new("POST", "/devices/ONE").by(&alice).with_body(&json!({})),
        Operation::new("DELETE", "/devices/ONE").by(&bob).with_body(&json!({})),
        Operation::new("DELETE", "/devices/ONE").by(&alice).with_body(&json!({ "devices": ["TWO"] })),
        Operation::new("DELETE", "/devices/ONE").by(&alice),
        Operation::new("DELETE", "/devices/ONE"),
    ];
    for other in others {
        let outcome = step(&accounts, &other, &by_password(), Some(&right)).await;
        assert!(matches!(outcome, Err(Error::Forbidden(_))), "{other:?}");
    }
    // The body is compared without `auth` and without regard to the order of its fields.
    let body = json!({ "a": 1, "b": [{ "c": 2, "d": 3 }] });
    let again = json!({ "b": [{ "d": 3, "c": 2 }], "auth": { "session": "x" }, "a": 1 });
    let first = Operation::new("POST", "/x").with_body(&body);
    assert_eq!(first, Operation::new("POST", "/x").with_body(&again));
    assert_ne!(first, Operation::new("POST", "/x").with_body(&json!({ "a": 1, "b": [{ "c": 2, "d": 4 }] })));
}

#[tokio::test]
async fn another_users_password_proves_nothing() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    user(&accounts, "bob").await;
    let operation = delete_device(&alice);
    let session = asked(step(&accounts, &operation, &by_password(), None).await).session.unwrap();
    let bobs = password("bob", "bob's password", &session);
    let outcome = step(&accounts, &operation, &by_password(), Some(&bobs)).await;
    assert!(matches!(outcome, Err(Error::Forbidden(_))));
    // Nor does a stage that is not offered.
    let outcome = step(&accounts, &operation, &by_password(), Some(&dummy(Some(&session)))).await;
    assert!(matches!(outcome, Err(Error::Forbidden(_))));
}

#[tokio::test]
async fn no_stage_can_be_skipped() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let operation = delete_device(&alice);
    let flows = vec![vec![AuthType::Password, AuthType::Dummy], vec![AuthType::Terms, AuthType::Password]];
    let info = asked(step(&accounts, &operation, &flows, Some(&dummy(None))).await);
    assert_eq!(info.completed, [AuthType::Dummy]);
    let session = info.session.unwrap();
    for _ in 0..3 {
        let info = asked(step(&accounts, &operation, &flows, Some(&dummy(Some(&session)))).await);
        assert_eq!(info.completed, [AuthType::Dummy]);
    }
    let terms = auth(json!({ "type": "m.login.terms", "session": session }));
    asked(step(&accounts, &operation, &flows, Some(&terms)).await);
    let right = password("alice", "alice's password", &session);
    step(&accounts, &operation, &flows, Some(&right)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_parallel_completions_one_wins() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let operation = delete_device(&alice);
    let session = asked(step(&accounts, &operation, &by_password(), None).await).session.unwrap();
    let mut tasks = Vec::new();
    for _ in 0..16 {
        let (accounts, operation, session) = (accounts.clone(), operation.clone(), session.clone());
        tasks.push(accounts.clone().world().spawn("completion", async move {
            let right = password("alice", "alice's password", &session);
            step(&accounts, &operation, &by_password(), Some(&right)).await.is_ok()
        }));
    }
    let mut won = 0;
    for task in tasks {
        won += usize::from(task.await.unwrap());
    }
    assert_eq!(won, 1);
}

#[tokio::test(start_paused = true)]
async fn sessions_end_with_time_and_with_patience() {
    let accounts = server();
    let alice = user(&accounts, "alice").await;
    let operation = delete_device(&alice);
    let session = asked(step(&accounts, &operation, &by_password(), None).await).session.unwrap();
    tokio::time::advance(Duration::from_secs(3601)).await;
    let right = password("alice", "alice's password", &session);
    let info = asked(step(&accounts, &operation, &by_password(), Some(&right)).await);
    let session = info.session.unwrap();
    for _ in 0..10 {
        let wrong = password("alice", "guess", &session);
        asked(step(&accounts, &operation, &by_password(), Some(&wrong)).await);
    }
    let right = password("alice", "alice's password", &session);
    asked(step(&accounts, &operation, &by_password(), Some(&right)).await);
}

#[tokio::test]
async fn a_token_under_way_is_counted() {
    let accounts = server();
    accounts.create_registration_token(Some("t".to_owned()), Some(1), None).await.unwrap();
    let operation = Operation::new("POST", "/register");
    let flows = vec![vec![AuthType::RegistrationToken, AuthType::Dummy]];
    let token = |session: Option<&str>| {
        auth(json!({ "type": "m.login.registration_token", "token": "t", "session": session }))
    };
    let info = asked(step(&accounts, &operation, &flows, Some(&token(None))).await);
    assert_eq!(info.completed, [AuthType::RegistrationToken]);
    assert!(!accounts.registration_token_valid("t").await.unwrap());
    assert_eq!(accounts.registration_token("t").await.unwrap().unwrap().1, 1);
    let other = asked(step(&accounts, &operation, &flows, Some(&token(None))).await);
    assert!(other.completed.is_empty() && other.auth_error.is_some());
    // One's own use does not stand in one's own way.
    let session = info.session.unwrap();
    asked(step(&accounts, &operation, &flows, Some(&token(Some(&session)))).await);
    let verified = step(&accounts, &operation, &flows, Some(&dummy(Some(&session)))).await.unwrap();
    assert_eq!(verified.registration_token.as_deref(), Some("t"));
}

struct Validated(Option<&'static str>);

#[async_trait]
impl EmailStage for Validated {
    async fn validated(&self, _: &ThirdpartyIdCredentials) -> Result<Option<String>, Error> {
        Ok(self.0.map(str::to_owned))
    }
}

#[tokio::test]
async fn an_address_counts_once_it_is_validated() {
    let accounts = server();
    let operation = Operation::new("POST", "/register");
    let flows = [vec![AuthType::EmailIdentity]];
    let data = auth(json!({
        "type": "m.login.email.identity",
        "threepid_creds": { "sid": "1", "client_secret": "secret" },
    }));
    let judge = Validated(None);
    let mut proof =
        Proof { auth: Some(&data), flows: &flows, email: Some(&judge), params: None, address: "192.0.2.1" };
    asked(accounts.authorize(&operation, proof).await);
    proof.email = None;
    asked(accounts.authorize(&operation, proof).await);
    proof.email = Some(&Validated(Some("a@gouv.fr")));
    let verified = accounts.authorize(&operation, proof).await.unwrap();
    let expected = ProvedEmail { address: "a@gouv.fr".to_owned(), sid: "1".to_owned() };
    assert_eq!(verified.email, Some(expected));
}

#[tokio::test]
async fn nobody_pushes_out_the_sessions_of_others() {
    let accounts = server();
    let (alice, bob) = (user(&accounts, "alice").await, user(&accounts, "bob").await);
    let flows = by_password();
    let open = async |who: &OwnedUserId| {
        asked(step(&accounts, &delete_device(who), &flows, None).await).session.unwrap()
    };
    let first = open(&alice).await;
    let bobs = open(&bob).await;
    for _ in 0..20 {
        open(&bob).await;
    }
    let proof = password("alice", "alice's password", &first);
    step(&accounts, &delete_device(&alice), &flows, Some(&proof)).await.unwrap();
    let proof = password("bob", "bob's password", &bobs);
    let info = asked(step(&accounts, &delete_device(&bob), &flows, Some(&proof)).await);
    assert_ne!(info.session.unwrap(), bobs, "the oldest of his own has ended");

    let register = Operation::new("POST", "/register");
    let flows = [vec![AuthType::Dummy]];
    let from = async |address: &str, auth: Option<&AuthData>| {
        step_from(&accounts, &register, &flows, (auth, address)).await
    };
    let (mine, other) = (from("192.0.2.1", None).await, from("192.0.2.2", None).await);
    let (mine, other) = (asked(mine).session.unwrap(), asked(other).session.unwrap());
    for _ in 0..200 {
        asked(from("192.0.2.2", None).await);
    }
    from("192.0.2.3", Some(&dummy(Some(&mine)))).await.expect("whoever goes on may come from elsewhere");
    asked(from("192.0.2.2", Some(&dummy(Some(&other)))).await);
}

#[tokio::test(start_paused = true)]
async fn many_sessions_give_no_more_guesses_at_a_password() {
    let accounts = server();
    let (alice, bob) = (user(&accounts, "alice").await, user(&accounts, "bob").await);
    let flows = by_password();
    let guess = async |who: &OwnedUserId, secret: &str| {
        let operation = delete_device(who);
        let session = asked(step(&accounts, &operation, &flows, None).await).session.unwrap();
        let auth = password(who.as_str(), secret, &session);
        step(&accounts, &operation, &flows, Some(&auth)).await
    };
    for _ in 0..30 {
        asked(guess(&alice, "wrong").await);
    }
    let info = asked(guess(&alice, "alice's password").await);
    assert!(info.auth_error.unwrap().message.contains("too many"), "the right one is not looked at either");
    guess(&bob, "bob's password").await.unwrap();
    tokio::time::advance(Duration::from_hours(1)).await;
    guess(&alice, "alice's password").await.unwrap();
}
