//! Row 72: how accounts stand.

use std::sync::{Arc, Mutex};

use axum::{Json, Router, routing::post};
use chappe_accounts::Deactivation;
use chappe_world::FakeNet;
use http::StatusCode;
use serde_json::{Value, json};

use super::{INFOS, MANY, ask, ending, stranger};

#[tokio::test]
async fn row_72_how_accounts_stand_here_and_elsewhere() {
    let net = FakeNet::new();
    let (a, b) = (ending(&net, "a.test").await, ending(&net, "b.test").await);
    let (alice, anne, bob, bea) =
        (a.user("alice").await, a.user("anne").await, b.user("bob").await, b.user("bea").await);
    let gone = Deactivation { at: 1, erase: false, addresses: Vec::new() };
    a.accounts.update_user(&anne.account(), |user| user.deactivated = Some(gone.clone())).await.unwrap();
    b.accounts.say_end(&bob.account(), Some(b.world.now()), None).await.unwrap();
    let asked = json!({ "user_ids": [
        alice.id, anne.id, bob.id, bea.id, "@nobody:a.test", "@nobody:b.test", "@far:nowhere.test", "nonsense", 7,
    ]});
    let info = |expired: bool, deactivated: bool| json!({ "expired": expired, "deactivated": deactivated });
    let expected = json!({
        (&alice.id): info(false, false), (&anne.id): info(false, true),
        (&bob.id): info(true, false), (&bea.id): info(false, false),
    });
    assert_eq!(alice.ok("POST", MANY, asked.clone()).await, expected);
    for (user, info) in [(&anne, info(false, true)), (&bob, info(true, false))] {
        let path = format!("/_matrix/client/unstable/user/{}/info", user.id);
        assert_eq!(alice.ok("GET", &path, Value::Null).await, info);
    }
    let unknown = "/_matrix/client/unstable/user/@nobody:b.test/info";
    let (status, said) = alice.call("GET", unknown, Value::Null).await;
    assert_eq!((status.as_u16(), &said["errcode"]), (404, &json!("M_NOT_FOUND")));
    let many: Vec<String> = (0..501).map(|n| format!("@u{n}:a.test")).collect();
    for wrong in [json!({}), json!({ "user_ids": "@alice:a.test" }), json!({ "user_ids": many })] {
        let (status, said) = alice.call("POST", MANY, wrong).await;
        assert_eq!((status.as_u16(), &said["errcode"]), (400, &json!("M_INVALID_PARAM")), "{said}");
    }
    assert_eq!(a.call("", "POST", MANY, asked).await.0, StatusCode::UNAUTHORIZED);
    // To another server each answers for its own.
    let few = json!({ "user_ids": [alice.id, anne.id, bob.id, "nonsense"] });
    let (status, infos) = ask(&a, "p.test", INFOS, few).await;
    let own = json!({ (&alice.id): info(false, false), (&anne.id): info(false, true) });
    assert_eq!((status, infos), (StatusCode::OK, own));
    let (status, said) = ask(&a, "p.test", INFOS, json!({ "user_ids": many })).await;
    assert_eq!((status.as_u16(), &said["errcode"]), (400, &json!("M_INVALID_PARAM")));
    // What a server says of users of others is not passed on.
    let told = json!({ "@hal:h.test": info(false, false), (&bob.id): info(false, false) });
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listening = Arc::clone(&heard);
    let answer = async move |Json(asked): Json<Value>| {
        listening.lock().unwrap().push(asked["user_ids"].as_array().unwrap().len());
        Json(told.clone())
    };
    let liar = stranger(&net, "h.test", Router::new().route(INFOS, post(answer)));
    let asked = json!({ "user_ids": ["@hal:h.test", "@hel:h.test", bob.id] });
    let expected = json!({ "@hal:h.test": info(false, false), (&bob.id): info(true, false) });
    assert_eq!(alice.ok("POST", MANY, asked).await, expected);
    let written = json!({ "user_ids": ["@hal:h.test", "@hal:H.test", "@hal:h.TEST"] });
    alice.ok("POST", MANY, written).await;
    assert_eq!(*heard.lock().unwrap(), [2, 3], "a server is asked once, however its name is written");
    liar.kill();
}
