//! Tokens that LiveKit takes: JWTs with HMAC-SHA256 by the key shared with it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::{Value, json};

/// Seconds in which somebody has to enter. Who is in stays.
const TO_ENTER: u64 = 60 * 60;
/// Seconds in which a request of this server has to arrive.
const TO_ASK: u64 = 60;
/// Seconds by which clocks may differ.
const LEEWAY: u64 = 60;

/// Signs tokens.
pub(crate) struct Signer {
    issuer: String,
    key: hmac::Key,
}

impl Signer {
    pub(crate) fn new(issuer: &str, secret: &str) -> Self {
        Self { issuer: issuer.to_owned(), key: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()) }
    }

    /// For somebody who takes part in one room: speaks, listens, and makes no room. `now` in milliseconds.
    pub(crate) fn for_member(&self, room: &str, identity: &str, now: u64) -> String {
        let grant = json!({
            "room": room,
            "roomJoin": true,
            "canPublish": true,
            "canSubscribe": true,
            "canUpdateOwnMetadata": true,
        });
        self.sign(&json!({ "sub": identity, "video": grant }), now, TO_ENTER)
    }

    /// For this server, which makes rooms.
    pub(crate) fn for_api(&self, now: u64) -> String {
        self.sign(&json!({ "video": { "roomCreate": true } }), now, TO_ASK)
    }

    /// For this server, which asks who is in a room.
    pub(crate) fn for_looking(&self, room: &str, now: u64) -> String {
        self.sign(&json!({ "video": { "roomAdmin": true, "room": room } }), now, TO_ASK)
    }

    fn sign(&self, claims: &Value, now: u64, lifetime: u64) -> String {
        let (now, mut claims) = (now / 1_000, claims.clone());
        claims["iss"] = json!(self.issuer);
        claims["nbf"] = json!(now.saturating_sub(LEEWAY));
        claims["exp"] = json!(now + lifetime);
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(&claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, signed.as_bytes())))
    }
}
