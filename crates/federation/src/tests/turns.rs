//! Turns for long answers: who waits for others has none yet.

use chappe_world::FakeNet;
use http::{Method, StatusCode};
use ruma::{RoomVersionId, server_name};
use serde_json::{Value, json};

use super::{
    Server, config,
    peer::{Peer, raw},
};
use crate::answers::Kind;

#[tokio::test(start_paused = true)]
async fn a_join_is_taken_before_there_is_a_turn_for_its_answer() {
    let net = FakeNet::new();
    let a = Server::start(&net, "a.example", 1, config());
    let room = a.room("alice").await;
    let b = Peer::start(&net, "b.example", 2);
    let uri = format!("/_matrix/federation/v1/make_join/{room}/@bob:b.example?ver=11&ver=10&ver=12");
    let (status, offer) = b.call(&a, Method::GET, &uri, &Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{offer}");
    let version = RoomVersionId::try_from(offer["room_version"].as_str().unwrap()).unwrap();
    let join = b.sign(chappe_rules::version::rules(&version).unwrap(), offer["event"].clone());
    let uri = format!("/_matrix/federation/v2/send_join/{room}/{}", join.event_id());
    let mut turns = Vec::new();
    for other in [server_name!("c.example"), server_name!("d.example")] {
        for _ in 0..2 {
            turns.push(a.federation.turn(Kind::Join, other).await.unwrap());
        }
    }
    let (status, told) = b.call(&a, Method::PUT, &uri, &raw(&join)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{told}");
    assert!(a.has(&join.event_id().to_owned()).await, "it waits for a turn, though it needs none");
    drop(turns);
    let (status, told) = b.call(&a, Method::PUT, &uri, &raw(&join)).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let state = told["state"].as_array().unwrap();
    assert!(state.iter().all(|event| event["sender"] != json!("@bob:b.example")), "{told}");
}
