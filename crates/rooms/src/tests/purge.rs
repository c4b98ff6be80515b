//! Removing rooms whole, and their coming back.

use chappe_store::{Tx, rooms::DoomedRooms};
use ruma::server_name;
use serde_json::{Map, json};

use super::net::{Net, actor, bodies, membership, room, say};
use crate::{Error, Force};

const ALICE: &str = "@alice:a.example";
const BOB: &str = "@bob:b.example";

/// A room of another server, with history purged and then everything, is joined again as if it had never been here.
#[tokio::test]
async fn a_removed_room_can_come_back_and_not_before_all_of_it_is_gone() {
    let net = Net::default();
    let (a, b) = (net.server("a.example", 1), net.server("b.example", 2));
    let id = room(&a, ALICE, json!({ "preset": "public_chat" })).await;
    let via = || vec![server_name!("a.example").to_owned()];
    b.join(&actor(BOB), &id, via(), Map::new()).await.unwrap();
    net.deliver().await;
    let old = say(&a, ALICE, &id, "old").await;
    let new = say(&a, ALICE, &id, "new").await;
    net.deliver().await;
    let (first, up_to) = (b.first_place(&id).await.unwrap(), b.place_of(&id, &new).await.unwrap());
    assert_eq!(b.purge_some(&id, first, up_to, false).await.unwrap(), (None, 1));

    let nid = b.number(&id).await.unwrap().unwrap();
    let in_use = b.purge(&id, nid, Force::No).await;
    assert!(matches!(in_use, Err(Error::BadState(_))), "{in_use:?}");
    b.leave(&actor(BOB), &id, None).await.unwrap();
    net.deliver().await;
    b.purge(&id, nid, Force::No).await.unwrap();
    for event in [&old, &new] {
        assert_eq!(b.0.store.read().event_address(event).await.unwrap(), None);
    }

    let doom = async |doomed: bool| {
        let mut tx = Tx::new();
        if doomed {
            tx.put::<DoomedRooms>(&id, &nid);
        } else {
            tx.delete::<DoomedRooms>(&id);
        }
        b.0.store.commit(tx).await.unwrap();
    };
    doom(true).await;
    let too_early = b.join(&actor(BOB), &id, via(), Map::new()).await;
    assert!(matches!(too_early, Err(Error::Retry)), "{too_early:?}");
    doom(false).await;
    b.join(&actor(BOB), &id, via(), Map::new()).await.unwrap();
    net.deliver().await;
    say(&a, ALICE, &id, "again").await;
    net.deliver().await;
    assert_ne!(b.number(&id).await.unwrap().unwrap(), nid);
    assert_eq!(membership(&b, &id, ALICE).await, Some("join"));
    assert_eq!(bodies(&b, &id).await.last().map(String::as_str), Some("again"));
}
