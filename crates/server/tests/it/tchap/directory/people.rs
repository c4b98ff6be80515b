//! Rows 67 to 70: who finds whom.

use std::time::Duration;

use chappe_accounts::Deactivation;
use chappe_world::FakeNet;
use http::StatusCode;
use serde_json::{Value, json};

use super::{PEOPLE, SEARCH, ask, ending, forum, ids, later, member, named, names};

#[tokio::test]
async fn row_67_people_of_all_ministries_are_found() {
    let net = FakeNet::new();
    let (a, b, e) =
        (member(&net, "a.test").await, member(&net, "b.test").await, member(&net, "e.test").await);
    let (alice, carl) = (a.user("alice").await, a.user("carl.dupont-a.fr").await);
    let (bob, zoe) = (b.user("b.lemaitre").await, b.user("zoe").await);
    e.user("paul.dupont").await;
    bob.is_called("Benoît LEMAÎTRE-Dupont [Intérieur]").await;
    zoe.is_called("Zoé Dupont").await;
    for term in ["lemaitre", "LEMAÎ ben", "interieur b", "dupont leM", "@b.lemaitre:b.test"] {
        assert_eq!(alice.finds(term).await, std::slice::from_ref(&bob.id), "{term}");
    }
    // Those of this server first, then the others by name; externals are in no directory.
    let everybody = [carl.id.clone(), bob.id.clone(), zoe.id.clone()];
    assert_eq!(alice.finds("dupon").await, everybody);
    let whole = alice.ok("POST", SEARCH, json!({ "search_term": "lemaitre" })).await;
    assert_eq!(whole["results"][0]["display_name"], "Benoît LEMAÎTRE-Dupont [Intérieur]");
    assert_eq!(whole["limited"], false);
    let some = alice.ok("POST", SEARCH, json!({ "search_term": "dupont", "limit": 2 })).await;
    assert_eq!((ids(&some), &some["limited"]), (everybody[..2].to_vec(), &json!(true)));
    for scope in ["local", "restricted"] {
        let found = alice.ok("POST", SEARCH, json!({ "search_term": "dupont", "search_scope": scope })).await;
        assert_eq!(ids(&found), everybody[..1], "{scope}");
    }
    let wrong = json!({ "search_term": "dupont", "search_scope": "world" });
    let (status, said) = alice.call("POST", SEARCH, wrong).await;
    assert_eq!((status.as_u16(), &said["errcode"]), (400, &json!("M_INVALID_PARAM")));
    assert_eq!(alice.finds("zoe").await, Vec::<String>::new(), "three letters are asked of nobody else");
    // A ministry that is gone takes nothing from the others.
    net.unroute("b.test");
    assert_eq!(alice.finds("dupont-a").await, std::slice::from_ref(&carl.id));
}

#[tokio::test]
async fn row_68_who_hides_is_found_by_those_alone_who_know_them() {
    let net = FakeNet::new();
    let (a, b) = (member(&net, "a.test").await, member(&net, "b.test").await);
    let (alice, anne, bea) = (a.user("alice").await, a.user("anne").await, b.user("bea").await);
    let bruno = b.user("bruno").await;
    let (nobody, him) = (Vec::<String>::new(), vec![bruno.id.clone()]);
    // A forum makes nobody acquainted who is not in it.
    let open = bruno.room(forum()).await;
    assert_eq!(anne.join(&open, "b.test").await.0, StatusCode::OK);
    bruno.sees(&open, &anne.id, "join").await;
    assert_eq!((alice.finds("bruno").await, bea.finds("bruno").await), (him.clone(), him.clone()));
    bruno.wishes("im.vector.hide_profile", json!({ "hide_profile": true })).await;
    assert_eq!(bea.finds("bruno").await, nobody, "at once");
    assert_eq!(alice.finds("@bruno:b.test").await, nobody, "at once, whatever was not asked before");
    later(Duration::from_secs(11)).await;
    assert_eq!(alice.finds("bruno").await, nobody);
    assert_eq!(anne.finds("bruno").await, him, "they share a room");
    for (level, on_b, on_a) in [("local", true, false), ("restricted", false, false), ("remote", true, true)]
    {
        bruno.wishes("im.vector.hide_profile", json!({ "hide_profile": false })).await;
        bruno.wishes("m.user_directory", json!({ "visibility": level })).await;
        let found = |is_found| if is_found { him.clone() } else { nobody.clone() };
        assert_eq!(bea.finds("bruno").await, found(on_b), "{level}");
        let fresh = a.user(&format!("reader-{level}")).await;
        assert_eq!(fresh.finds("bruno").await, found(on_a), "{level}");
    }
    bruno.wishes("m.user_directory", json!({ "visibility": "hidden" })).await;
    let room = bruno.room(json!({ "preset": "private_chat", "invite": [bea.id] })).await;
    assert_eq!(bea.join(&room, "b.test").await.0, StatusCode::OK);
    assert_eq!(bea.finds("bruno").await, nobody, "hidden is hidden");
    bruno.wishes("m.user_directory", json!({ "visibility": "restricted" })).await;
    assert_eq!(bea.finds("bruno").await, him, "they share a room");
}

#[tokio::test]
async fn row_69_who_has_left_ended_or_is_locked_is_found_nowhere() {
    let net = FakeNet::new();
    let a = member(&net, "a.test").await;
    let b = ending(&net, "b.test").await;
    let (alice, bea) = (a.user("alice").await, b.user("bea").await);
    let [left, ended, locked, there] =
        ["martin.left", "martin.ended", "martin.locked", "martin.there"].map(|name| b.user(name));
    let (left, ended, locked, there) = (left.await, ended.await, locked.await, there.await);
    let gone = Deactivation { at: 1, erase: false, addresses: Vec::new() };
    b.accounts.update_user(&left.account(), |user| user.deactivated = Some(gone.clone())).await.unwrap();
    b.accounts.update_user(&locked.account(), |user| user.locked = true).await.unwrap();
    b.accounts.say_end(&ended.account(), Some(b.world.now()), None).await.unwrap();
    for user in [&alice, &bea] {
        assert_eq!(user.finds("martin").await, std::slice::from_ref(&there.id));
    }
}

#[tokio::test]
async fn row_70_externals_find_nobody_and_no_rooms() {
    let net = FakeNet::new();
    let (a, e) = (member(&net, "a.test").await, member(&net, "e.test").await);
    let (alice, paul) = (a.user("alice").await, e.user("paul").await);
    alice.room(named("Cantine")).await;
    e.user("pia.durand").await;
    for term in ["alice", "durand", "@alice:a.test"] {
        let found = paul.ok("POST", SEARCH, json!({ "search_term": term })).await;
        assert_eq!(found, json!({ "results": [], "limited": false }), "{term}");
    }
    assert_eq!(paul.forums("").await, Vec::<String>::new());
    for path in ["/publicRooms", "/publicRooms?server=a.test"] {
        let page = paul.ok("GET", path, Value::Null).await;
        assert_eq!((&page["chunk"], &page["total_room_count_estimate"]), (&json!([]), &json!(0)), "{path}");
    }
    // Strangers are no better off, and nobody asks for them elsewhere.
    for place in [&a, &e] {
        for path in ["/publicRooms", "/publicRooms?server=a.test"] {
            let (status, said) = place.call("", "GET", path, Value::Null).await;
            assert_eq!((status.as_u16(), &said["errcode"]), (401, &json!("M_MISSING_TOKEN")), "{said}");
        }
    }
    let page = alice.ok("GET", "/publicRooms", Value::Null).await;
    assert_eq!(names(&page), ["Cantine"]);
    // Agents do not find externals either, and who asks from another server of externals gets nothing.
    assert_eq!(alice.finds("durand").await, Vec::<String>::new());
    let body = json!({ "requester": "@eve:x.test", "search_term": "alice" });
    let (status, found) = ask(&a, "x.test", PEOPLE, body).await;
    assert_eq!((status, found), (StatusCode::OK, json!({ "results": [], "limited": false })));
    let (status, page) = ask(&a, "x.test", "/_matrix/federation/v1/publicRooms", json!({})).await;
    assert_eq!((status, &page["chunk"]), (StatusCode::OK, &json!([])));
}
