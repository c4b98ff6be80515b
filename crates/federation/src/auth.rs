//! Request authentication between servers: the `X-Matrix` header (server-server API, "Request authentication").

mod header;
mod origin;

use chappe_rules::build::SigningKey;
use http::{HeaderValue, Method};
use ruma::{CanonicalJsonObject, CanonicalJsonValue, ServerName, SigningKeyAlgorithm, signatures};
use serde_json::Value;

pub(crate) use self::header::Claimed;
pub use self::origin::Origin;
pub(crate) use self::origin::SignedJson;

/// What a signature covers, but for the names of the two servers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a Method,
    /// Path and query exactly as on the wire.
    pub(crate) uri: &'a str,
    /// The body, JSON or empty.
    pub(crate) body: &'a [u8],
}

/// For whom a request is: the name of the field that the signature covers, and what it says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addressee<'a> {
    field: &'static str,
    name: &'a str,
}

impl<'a> Addressee<'a> {
    /// A homeserver.
    pub(crate) fn homeserver(name: &'a ServerName) -> Self {
        Self { field: "destination", name: name.as_str() }
    }

    /// An identity server at a host, as homeservers have always signed for those.
    pub(crate) fn identity_server(name: &'a str) -> Self {
        Self { field: "destination_is", name }
    }
}

/// The value of the `Authorization` header for a request of ours; `None` if the body is not canonical JSON.
pub(crate) fn sign(
    signed: Signed<'_>,
    origin: &ServerName,
    addressee: Addressee<'_>,
    key: &SigningKey,
) -> Option<HeaderValue> {
    let text = |text: &str| CanonicalJsonValue::String(text.to_owned());
    let mut object = CanonicalJsonObject::from([
        ("method".to_owned(), text(signed.method.as_str())),
        ("uri".to_owned(), text(signed.uri)),
        ("origin".to_owned(), text(origin.as_str())),
        (addressee.field.to_owned(), text(addressee.name)),
    ]);
    if !signed.body.is_empty() {
        object.insert("content".to_owned(), serde_json::from_slice(signed.body).ok()?);
    }
    key.sign_json(origin, &mut object);
    let signatures = object.get("signatures")?.as_object()?;
    let signature = signatures.get(origin.as_str())?.as_object()?.get(key.id())?.as_str()?;
    let (id, destination) = (key.id(), addressee.name);
    HeaderValue::from_str(&format!(
        "X-Matrix origin=\"{origin}\",destination=\"{destination}\",key=\"{id}\",sig=\"{signature}\""
    ))
    .ok()
}

/// Whether a request carries the signature it claims. The body may hold what canonical JSON cannot, such as fractions:
/// that is the sender's affair as long as both sides write it alike.
pub(crate) fn verify(
    signed: Signed<'_>,
    claimed: &Claimed,
    addressee: Addressee<'_>,
    key: &[u8; 32],
) -> Result<(), &'static str> {
    let text = |text: &str| Value::String(text.to_owned());
    let mut object = serde_json::Map::from_iter([
        ("method".to_owned(), text(signed.method.as_str())),
        ("uri".to_owned(), text(signed.uri)),
        ("origin".to_owned(), text(claimed.origin.as_str())),
        (addressee.field.to_owned(), text(addressee.name)),
    ]);
    if !signed.body.is_empty() {
        let content = serde_json::from_slice(signed.body).map_err(|_| "the body is not JSON")?;
        object.insert("content".to_owned(), content);
    }
    let mut bytes = Vec::with_capacity(signed.body.len() + 256);
    write_sorted(&Value::Object(object), &mut bytes);
    signatures::verify_canonical_json_bytes(&SigningKeyAlgorithm::Ed25519, key, &claimed.signature, &bytes)
        .map_err(|_| "the signature is wrong")
}

/// JSON without blanks, the keys of objects in order.
fn write_sorted(value: &Value, to: &mut Vec<u8>) {
    match value {
        Value::Object(object) => {
            let mut entries: Vec<_> = object.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            to.push(b'{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    to.push(b',');
                }
                write_plain(key, to);
                to.push(b':');
                write_sorted(value, to);
            }
            to.push(b'}');
        }
        Value::Array(values) => {
            to.push(b'[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    to.push(b',');
                }
                write_sorted(value, to);
            }
            to.push(b']');
        }
        plain => write_plain(plain, to),
    }
}

fn write_plain(value: &(impl serde::Serialize + ?Sized), to: &mut Vec<u8>) {
    serde_json::to_writer(to, value).expect("texts, numbers and booleans are always written to memory");
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    fn signed(body: &str) -> Signed<'_> {
        Signed { method: &Method::PUT, uri: "/_matrix/federation/v1/send/1?a=%20b", body: body.as_bytes() }
    }

    fn round(ours: Signed<'_>, theirs: Signed<'_>, destination: &ServerName) -> Result<(), &'static str> {
        let key = SigningKey::from_seed([3; 32], "k").unwrap();
        let to = Addressee::homeserver(server_name!("b.example"));
        let header = sign(ours, server_name!("a.example"), to, &key).unwrap();
        let claimed = Claimed::parse(header.as_bytes()).unwrap();
        verify(theirs, &claimed, Addressee::homeserver(destination), &key.public_key())
    }

    #[test]
    fn what_we_sign_is_verified_and_any_change_is_noticed() {
        let body = r#"{"b":[1,{"y":null,"x":"é\n"}],"a":true}"#;
        let us = server_name!("b.example");
        assert_eq!(round(signed(body), signed(body), us), Ok(()));
        assert_eq!(round(signed(body), signed(r#"{"a":true,"b":[1,{"x":"é\n","y":null}]}"#), us), Ok(()));
        assert_eq!(round(signed(""), signed(""), us), Ok(()));
        assert!(round(signed(body), signed(body), server_name!("c.example")).is_err());
        assert!(round(signed(body), signed(r#"{"a":false}"#), us).is_err());
        assert!(round(signed(body), signed(""), us).is_err());
        let other = Signed { uri: "/_matrix/federation/v1/send/2", ..signed(body) };
        assert!(round(signed(body), other, us).is_err());
        let other = Signed { method: &Method::POST, ..signed(body) };
        assert!(round(signed(body), other, us).is_err());
    }
}
