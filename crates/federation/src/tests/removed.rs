//! What other servers hear of a room that was removed here.

use chappe_rooms::Force;
use chappe_world::FakeNet;

use super::{couple, eventually};

#[tokio::test(start_paused = true)]
async fn who_is_away_while_a_room_is_removed_hears_that_its_users_left() {
    let net = FakeNet::new();
    let (a, b, room) = couple(&net).await;
    a.join("anna", &room, &a).await;
    let is = async |user: &str, membership: &str| {
        let user = a.actor(user).user;
        b.current(&room, "m.room.member", user.as_str()).await["content"]["membership"] == membership
    };
    eventually("anna is in", async || is("anna", "join").await && a.waiting(&b).await == 0).await;
    net.unroute("b.example");
    a.say("alice", &room, "are you there").await;
    eventually("the outage is noticed", async || {
        a.network.backoff().state(&b.name).await.unwrap().failures > 0
    })
    .await;
    a.rooms.evict(&room, None).await.unwrap();
    let nid = a.rooms.number(&room).await.unwrap().unwrap();
    a.rooms.purge(&room, nid, Force::No).await.unwrap();
    b.back(&net);
    a.federation.retry(Some(&b.name)).await.unwrap();
    eventually("all are out", async || is("alice", "leave").await && is("anna", "leave").await).await;
    eventually("the queue is empty", async || a.waiting(&b).await == 0).await;
}
