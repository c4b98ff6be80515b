//! Transactions that are nearly right, from a server whose user is in the room: signed as far as they can be, since a wrong
//! signature would keep everything else from being tried.

use chappe_fuzz::Fuzz;
use chappe_world::FakeNet;
use http::Method;
use ruma::EventId;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use super::{
    Server,
    lies::{MALLORY, open_room, seat},
    peer::{Peer, Seat},
};

/// A server takes so many inputs; then another one begins, since each keeps what it was given.
const INPUTS: usize = 2_000;

#[test]
fn mutated_transactions_are_answered_and_stop_nobody() {
    let (mut house, mut number, mut moved) = (House::build(), 0, 0);
    Fuzz::of(env!("CARGO_MANIFEST_DIR"), "transaction").brief(100).run(|bytes| {
        number += 1;
        if number % INPUTS == 0 {
            house = House::build();
        }
        let House { runtime, a, evil, place, .. } = &mut house;
        runtime.block_on(async {
            let (outcome, taken) = offer(a, (evil, place), number, bytes).await;
            let prev: Vec<&str> = taken.iter().map(String::as_str).chain([place.join.as_str()]).collect();
            let good = evil.message(place, "good", &prev, place.depth + 2);
            let answer = evil.send(a, &format!("good{number}"), std::slice::from_ref(&good)).await;
            if answer[good.event_id().as_str()] == json!({}) && number % 20 != 0 {
                (place.join, place.depth) = (good.event_id().to_owned(), place.depth + 2);
            } else {
                // It may have left, or may say no more; then it begins again elsewhere.
                moved += usize::from(number % 20 != 0);
                let room = open_room(a, "11", None).await;
                *place = evil.join(a, &room, MALLORY).await;
            }
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
            outcome
        })
    });
    assert!(moved * 3 < number, "{moved} of {number} good events were not taken");
}

/// A server, and another one with a user in one of its rooms.
struct House {
    runtime: Runtime,
    net: FakeNet,
    a: Server,
    evil: Peer,
    place: Seat,
}

impl House {
    fn build() -> Self {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let net = FakeNet::new();
        let (a, evil, place) = runtime.block_on(async {
            let (a, evil, place) = seat(&net, "11").await;
            a.account("alice").await;
            (a, evil, place)
        });
        Self { runtime, net, a, evil, place }
    }
}

/// The network holds the servers, and they the network.
impl Drop for House {
    fn drop(&mut self) {
        self.net.unroute(self.a.name.as_str());
        self.net.unroute(self.evil.name.as_str());
    }
}

/// Sends what was made of a transaction; how it ended, and which events were taken.
async fn offer(
    a: &Server,
    (evil, seat): (&Peer, &Seat),
    number: usize,
    bytes: &[u8],
) -> (String, Vec<String>) {
    let text = String::from_utf8_lossy(bytes);
    let text = text.replace("\"AUTH\"", &seat.auth.to_string());
    let text = text.replace("$PREV", seat.join.as_str()).replace("!ROOM", seat.room.as_str());
    let Ok(mut body) = serde_json::from_str::<Value>(&text) else {
        return ("no JSON".to_owned(), Vec::new());
    };
    for event in body.get_mut("pdus").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(fields) = event.as_object_mut() {
            fields.entry("room_id").or_insert_with(|| json!(seat.room));
            fields.entry("sender").or_insert_with(|| json!(MALLORY));
            fields.entry("origin_server_ts").or_insert_with(|| json!(1_780_000_000_000_u64));
        }
        if let Some(signed) = evil.signed(seat.rules, event) {
            *event = signed;
        }
    }
    if let Some(fields) = body.as_object_mut() {
        fields.entry("origin").or_insert_with(|| json!(evil.name));
        fields.entry("origin_server_ts").or_insert_with(|| json!(1));
    }
    let Some((status, answer)) =
        evil.try_call(a, Method::PUT, &format!("/_matrix/federation/v1/send/{number}"), &body).await
    else {
        return ("not to be signed".to_owned(), Vec::new());
    };
    assert!(status.as_u16() < 500 && a.federation.breakdowns() == 0, "{answer}");
    let results = answer["pdus"].as_object().cloned().unwrap_or_default();
    let mut taken = Vec::new();
    for id in results.keys().filter_map(|id| EventId::parse(id).ok()).take(19) {
        if a.has(&id).await {
            taken.push(id.to_string());
        }
    }
    let error = results.values().find_map(|result| result["error"].as_str());
    let outcome = format!("{status} {} {}", results.len(), error.unwrap_or_default());
    (outcome, taken)
}
