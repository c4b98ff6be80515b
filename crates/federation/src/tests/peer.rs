//! A server that means harm: it signs whatever a test wants, asks whatever it likes and answers as it pleases.

use std::{convert::Infallible, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use chappe_rules::{Pdu, build::SigningKey, json, version};
use chappe_world::{Fake, FakeNet, World};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, RoomVersionId,
    canonical_json::try_from_json_map,
    room_version_rules::RoomVersionRules,
    signatures::{Ed25519KeyPair, hash_and_sign_event},
};
use serde_json::{Value, json};

use super::{Server, config, key};
use crate::{
    auth::{Addressee, Signed, sign},
    keys::own_document,
};

/// What precedes a seed in a PKCS #8 document.
const HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Answers a request by its path and query; none: 404.
type Answers = Arc<dyn Fn(&str) -> Option<Body> + Send + Sync>;

/// The server; it publishes its key like any other.
pub(super) struct Peer {
    pub(super) name: OwnedServerName,
    key: SigningKey,
    pair: Ed25519KeyPair,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    answers: Arc<Mutex<Option<Answers>>>,
}

/// A user of the peer in a room of somebody else.
pub(super) struct Seat {
    pub(super) room: OwnedRoomId,
    pub(super) user: String,
    pub(super) rules: &'static RoomVersionRules,
    /// The join, and how deep in the room it is.
    pub(super) join: OwnedEventId,
    pub(super) depth: u64,
    /// What justifies an event of the user, as events name it.
    pub(super) auth: Value,
    /// The state before the join, in event ids.
    pub(super) state: Vec<OwnedEventId>,
}

impl Peer {
    pub(super) fn start(net: &FakeNet, name: &str, seed: u8) -> Self {
        let world = World::fake(Fake::new(name, seed.into(), net));
        let pair = Ed25519KeyPair::from_der(&[&HEAD[..], &[seed; 32]].concat(), format!("k{seed}")).unwrap();
        let peer = Self {
            name: name.try_into().unwrap(),
            key: key(seed),
            pair,
            asked: Arc::default(),
            answers: Arc::default(),
        };
        let (asked, answers) = (Arc::clone(&peer.asked), Arc::clone(&peer.answers));
        let (own_name, own_key, here) = (peer.name.clone(), Arc::new(key(seed)), world.clone());
        let service = tower::service_fn(move |request: Request<Full<Bytes>>| {
            let document = json::canonical(&own_document(&own_name, &own_key, &config(), here.now()));
            let (asked, answers) = (Arc::clone(&asked), Arc::clone(&answers));
            async move {
                let uri = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
                let body = request.into_body().collect().await?.to_bytes();
                let answer = if uri.starts_with("/_matrix/key/v2/server") {
                    Some(Body::from(document))
                } else {
                    let answers = answers.lock().clone();
                    asked.lock().push((uri.clone(), serde_json::from_slice(&body).unwrap_or_default()));
                    answers.and_then(|answers| answers(&uri))
                };
                let status = if answer.is_some() { 200 } else { 404 };
                let body = answer.unwrap_or_else(|| Body::from(r#"{"errcode":"M_NOT_FOUND","error":"no"}"#));
                Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
            }
        });
        net.route(name, &world, service);
        peer
    }

    /// From now on it answers so; what it was asked until now is forgotten.
    pub(super) fn answer(&self, answers: impl Fn(&str) -> Option<Body> + Send + Sync + 'static) {
        *self.answers.lock() = Some(Arc::new(answers));
        self.asked.lock().clear();
    }

    /// How often it was asked something whose path has this in it.
    pub(super) fn asked(&self, what: &str) -> usize {
        self.told(what).len()
    }

    /// The bodies of those requests.
    pub(super) fn told(&self, what: &str) -> Vec<Value> {
        let asked = self.asked.lock();
        asked.iter().filter(|(uri, _)| uri.contains(what)).map(|(_, body)| body.clone()).collect()
    }

    /// A signed request.
    pub(super) async fn call(
        &self,
        to: &Server,
        method: Method,
        uri: &str,
        body: &Value,
    ) -> (StatusCode, Value) {
        self.try_call(to, method, uri, body).await.unwrap()
    }

    /// As [`Peer::call`]; none if the body cannot be signed.
    pub(super) async fn try_call(
        &self,
        to: &Server,
        method: Method,
        uri: &str,
        body: &Value,
    ) -> Option<(StatusCode, Value)> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let signed = Signed { method: &method, uri, body: body.as_bytes() };
        let proof = sign(signed, &self.name, Addressee::homeserver(&to.name), &self.key)?;
        let request = Request::builder().method(method).uri(uri).header(header::AUTHORIZATION, proof);
        Some(to.answer(request.body(Body::from(body)).unwrap()).await)
    }

    /// Hashes and signs an event.
    #[expect(clippy::needless_pass_by_value, reason = "reads better with json! at the call")]
    pub(super) fn sign(&self, rules: &RoomVersionRules, event: Value) -> Pdu {
        let signed = self.signed(rules, &event).unwrap();
        Pdu::parse(rules, signed.to_string().as_bytes()).unwrap()
    }

    /// The same of what may be no event; none if it cannot be signed.
    pub(super) fn signed(&self, rules: &RoomVersionRules, event: &Value) -> Option<Value> {
        let mut event: CanonicalJsonObject = try_from_json_map(event.as_object()?.clone()).ok()?;
        hash_and_sign_event(self.name.as_str(), &self.pair, &mut event, &rules.redaction).ok()?;
        serde_json::to_value(event).ok()
    }

    /// Has a user of its own join a room.
    pub(super) async fn join(&self, to: &Server, room: &RoomId, user: &str) -> Seat {
        let uri = format!("/_matrix/federation/v1/make_join/{room}/{user}?ver=11&ver=10&ver=2&ver=12");
        let (status, offer) = self.call(to, Method::GET, &uri, &Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{offer}");
        let version = RoomVersionId::try_from(offer["room_version"].as_str().unwrap()).unwrap();
        let rules = version::rules(&version).unwrap();
        let mut event = offer["event"].clone();
        let (depth, mut auth) = (event["depth"].as_u64().unwrap(), event["auth_events"].clone());
        let paired = version == RoomVersionId::V2;
        if paired {
            event["event_id"] = json!(format!("$join:{}", self.name));
        }
        let pdu = self.sign(rules, event);
        let uri = format!("/_matrix/federation/v2/send_join/{room}/{}", pdu.event_id());
        let (status, answer) = self.call(to, Method::PUT, &uri, &raw(&pdu)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let id =
            |event: &Value| Pdu::parse(rules, event.to_string().as_bytes()).unwrap().event_id().to_owned();
        // Join rules justify nothing but joins; one entry more does no harm.
        auth.as_array_mut().unwrap().push(reference(paired, pdu.event_id().as_str()));
        Seat {
            room: room.to_owned(),
            user: user.to_owned(),
            rules,
            join: pdu.event_id().to_owned(),
            depth,
            auth: without_join_rules(&answer["state"], &auth, id),
            state: answer["state"].as_array().unwrap().iter().map(id).collect(),
        }
    }

    /// A message at a place of its choosing.
    pub(super) fn message(&self, seat: &Seat, body: &str, prev: &[&str], depth: u64) -> Pdu {
        self.sign(
            seat.rules,
            seat.event("m.room.message", json!({ "msgtype": "m.text", "body": body }), prev, depth),
        )
    }

    /// Sends events in one transaction; the answer about each.
    pub(super) async fn send(&self, to: &Server, txn: &str, pdus: &[Pdu]) -> Value {
        let pdus: Vec<Value> = pdus.iter().map(raw).collect();
        let body = json!({ "origin": self.name, "origin_server_ts": 1, "pdus": pdus });
        let uri = format!("/_matrix/federation/v1/send/{}", txn.replace(' ', "-"));
        let (status, answer) = self.call(to, Method::PUT, &uri, &body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["pdus"].clone()
    }
}

impl Seat {
    /// An event of the user, to be changed and signed.
    #[expect(clippy::needless_pass_by_value, reason = "reads better with json! at the call")]
    pub(super) fn event(&self, kind: &str, content: Value, prev: &[&str], depth: u64) -> Value {
        let paired = self.rules.event_id_format == ruma::room_version_rules::EventIdFormatVersion::V1;
        let prev: Vec<Value> = prev.iter().map(|id| reference(paired, id)).collect();
        json!({
            "room_id": self.room, "sender": self.user, "type": kind, "content": content, "depth": depth,
            "prev_events": prev, "auth_events": self.auth, "origin_server_ts": 1_780_000_000_000_u64,
        })
    }
}

/// An event as it goes over the wire.
pub(super) fn raw(pdu: &Pdu) -> Value {
    serde_json::from_str(pdu.json()).unwrap()
}

fn reference(paired: bool, id: &str) -> Value {
    if paired { json!([id, { "sha256": "AAAA" }]) } else { json!(id) }
}

fn without_join_rules(state: &Value, auth: &Value, id: impl Fn(&Value) -> OwnedEventId) -> Value {
    let rules = state.as_array().unwrap().iter().find(|event| event["type"] == "m.room.join_rules").map(id);
    let is_rules = |entry: &Value| {
        let named = entry.as_array().map_or(entry, |pair| &pair[0]);
        rules.as_ref().is_some_and(|rules| named == rules.as_str())
    };
    auth.as_array().unwrap().iter().filter(|entry| !is_rules(entry)).cloned().collect()
}
