//! Files that expired messages named.

use chappe_store::{
    Json, Tx,
    media::{Media, MediaUnused, MediaUses, Medium},
};
use ruma::{OwnedUserId, events::TimelineEventType, server_name};
use serde_json::json;
use tokio::time::advance;

use super::{
    super::net::{Net, actor, state, user},
    ALICE, BOB, DAY, HOUR, keeping, two,
};
use crate::{Config, Draft, Rooms};

fn naming(address: &str) -> Draft {
    let content = json!({ "msgtype": "m.image", "body": address, "url": format!("mxc://{address}") });
    Draft::message(TimelineEventType::RoomMessage, content.as_object().unwrap().clone())
}

fn medium(uploader: Option<OwnedUserId>, created: u64) -> Medium {
    Medium {
        blob: Some("blob".to_owned()),
        size: 1,
        content_type: None,
        filename: None,
        uploader,
        created,
        expires: None,
        sha256: None,
        quarantined_by: None,
        protected: false,
    }
}

async fn put_medium(rooms: &Rooms, server: &str, name: &str, medium: Medium) {
    let mut tx = Tx::new();
    tx.put::<Media>(&(server.try_into().unwrap(), name.to_owned()), &Json(medium));
    rooms.store().commit(tx).await.unwrap();
}

/// The media that may go.
async fn unused(rooms: &Rooms) -> Vec<String> {
    let rows = rooms.store().read().scan_all::<MediaUnused>(&()).await.unwrap();
    rows.into_iter().map(|((_, name), ())| name).collect()
}

#[tokio::test(start_paused = true)]
async fn copies_stay_that_are_held_or_of_before() {
    let net = Net::default();
    let (a, _, id) = two(&net, "11").await;
    a.expire_due().await.unwrap();
    let now = a.0.world.now();
    let copy = || medium(None, now);
    let held_by = Some(user(ALICE));
    for (name, medium) in [
        ("plain", copy()),
        ("again", copy()),
        ("before", medium(None, now - 1)),
        ("held", Medium { quarantined_by: held_by.clone(), ..copy() }),
        ("marker", Medium { quarantined_by: held_by, blob: None, ..copy() }),
    ] {
        put_medium(&a, "x.example", name, medium).await;
        a.send(&actor(ALICE), &id, naming(&format!("x.example/{name}")), None).await.unwrap();
    }
    advance(7 * DAY + HOUR).await;
    a.expire_due().await.unwrap();
    assert_eq!(unused(&a).await, ["again", "plain"]);
    a.send(&actor(ALICE), &id, naming("x.example/again"), None).await.unwrap();
    assert_eq!(unused(&a).await, ["plain"], "who names a file keeps it");
}

#[tokio::test(start_paused = true)]
async fn files_go_that_nothing_else_names() {
    let net = Net::default();
    let (a, b, id) = two(&net, "11").await;
    a.expire_due().await.unwrap();
    let upload = async |name: &str, who: &str, created: u64| {
        put_medium(&a, "a.example", name, medium(Some(user(who)), created)).await;
    };
    let now = a.0.world.now();
    for (name, who, created) in [
        ("plain", ALICE, now),
        ("others", "@mallory:a.example", now),
        ("before", ALICE, now - 1),
        ("forwarded", ALICE, now),
        ("picture", ALICE, now),
    ] {
        upload(name, who, created).await;
    }
    let file = |name: &str| naming(&format!("a.example/{name}"));
    for name in ["plain", "others", "before", "forwarded", "picture"] {
        a.send(&actor(ALICE), &id, file(name), None).await.unwrap();
    }
    let picture = state("m.room.avatar", "", &json!({ "url": "mxc://a.example/picture" }));
    a.send(&actor(ALICE), &id, picture, None).await.unwrap();
    net.deliver().await;
    advance(DAY).await;
    b.send(&actor(BOB), &id, file("forwarded"), None).await.unwrap();
    net.deliver().await;
    let uses = async |name: &str| {
        let prefix = (server_name!("a.example").to_owned(), name.to_owned());
        a.store().read().scan_all::<MediaUses>(&prefix).await.unwrap().len()
    };
    assert_eq!((uses("plain").await, uses("forwarded").await, uses("picture").await), (1, 2, 2));
    advance(6 * DAY + HOUR).await;
    a.expire_due().await.unwrap();
    assert_eq!(unused(&a).await, ["forwarded", "picture", "plain"], "who uploads what is known of");
    assert_eq!((uses("plain").await, uses("forwarded").await, uses("picture").await), (0, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn files_stay_that_came_while_nothing_was_noted() {
    let net = Net::default();
    let (a, _, id) = two(&net, "11").await;
    a.expire_due().await.unwrap();
    // Off and on again before anybody has looked.
    a.reconfigure(Config::default());
    for name in ["before", "after"] {
        put_medium(&a, "x.example", name, medium(None, a.0.world.now())).await;
        a.send(&actor(ALICE), &id, naming(&format!("x.example/{name}")), None).await.unwrap();
        a.reconfigure(keeping(7));
        advance(HOUR).await;
    }
    advance(7 * DAY + HOUR).await;
    a.expire_due().await.unwrap();
    assert_eq!(unused(&a).await, ["after"]);
}
