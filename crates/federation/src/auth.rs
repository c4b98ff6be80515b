//! Request authentication between servers: the `X-Matrix` header (server-server API, "Request authentication").

mod header;
mod origin;

use chappe_rules::{build::SigningKey, json};
use http::{HeaderValue, Method};
use ruma::{ServerName, SigningKeyAlgorithm, signatures};
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

/// The value of the `Authorization` header for a request of ours; `None` if the body cannot be signed.
pub(crate) fn sign(
    signed: Signed<'_>,
    origin: &ServerName,
    addressee: Addressee<'_>,
    key: &SigningKey,
) -> Option<HeaderValue> {
    let signature = key.sign_text(&text(signed, origin, addressee)?);
    let (id, destination) = (key.id(), addressee.name);
    HeaderValue::from_str(&format!(
        "X-Matrix origin=\"{origin}\",destination=\"{destination}\",key=\"{id}\",sig=\"{signature}\""
    ))
    .ok()
}

/// Why a request is not proven to come from the server that it claims to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unproven {
    /// The body is not JSON, so that nobody has signed it.
    NoJson,
    /// The signature is wrong.
    BadSignature,
}

/// Whether a request carries the signature it claims. The body may hold what canonical JSON cannot, such as fractions:
/// events of old rooms do. Nor does it matter how deep it is nested: what is too deep to be read is refused alone later.
pub(crate) fn verify(
    signed: Signed<'_>,
    claimed: &Claimed,
    addressee: Addressee<'_>,
    key: &[u8; 32],
) -> Result<(), Unproven> {
    let text = text(signed, &claimed.origin, addressee).ok_or(Unproven::NoJson)?;
    let (ed25519, signature) = (&SigningKeyAlgorithm::Ed25519, &claimed.signature);
    signatures::verify_canonical_json_bytes(ed25519, key, signature, text.as_bytes())
        .map_err(|_| Unproven::BadSignature)
}

/// What is signed: an object with its keys in order. `None` if the body is not JSON, or has a number that nobody can read.
fn text(signed: Signed<'_>, origin: &ServerName, addressee: Addressee<'_>) -> Option<String> {
    let content = match signed.body {
        [] => String::new(),
        body => format!(r#""content":{},"#, json::as_servers_write(body).ok()?),
    };
    let [name, method, origin, uri] =
        [addressee.name, signed.method.as_str(), origin.as_str(), signed.uri].map(Value::from);
    let field = addressee.field;
    Some(format!(r#"{{{content}"{field}":{name},"method":{method},"origin":{origin},"uri":{uri}}}"#))
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    fn signed(body: &str) -> Signed<'_> {
        Signed { method: &Method::PUT, uri: "/_matrix/federation/v1/send/1?a=%20b", body: body.as_bytes() }
    }

    fn round(ours: Signed<'_>, theirs: Signed<'_>, destination: &ServerName) -> Result<(), Unproven> {
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

    /// Numbers as they are in rooms of versions 1 to 5, in the spelling of Python.
    const NUMBERS: &str =
        r#"{"a":[1.5,1e+22,1e-05,18446744073709551617,0.30000000000000004,123456789.12345679]}"#;

    #[test]
    fn every_number_is_signed_as_python_writes_it() {
        let us = server_name!("b.example");
        assert_eq!(round(signed(NUMBERS), signed(NUMBERS), us), Ok(()));
        let other = NUMBERS.replace("1e+22", "1E22").replace("1e-05", "0.00001").replace("1.5", "1.50");
        assert_eq!(round(signed(NUMBERS), signed(&other), us), Ok(()), "the same numbers, written otherwise");
        for (number, changed) in [
            ("1.5", "1.6"),
            ("1e+22", "1e+23"),
            ("1e-05", "1e-06"),
            ("18446744073709551617", "18446744073709551616"),
            ("0.30000000000000004", "0.3"),
            ("123456789.12345679", "123456789.12345678"),
        ] {
            let changed = NUMBERS.replace(number, changed);
            assert!(round(signed(NUMBERS), signed(&changed), us).is_err(), "{changed}");
        }
    }

    #[test]
    fn what_is_signed_is_what_other_servers_sign() {
        let key = SigningKey::from_seed([3; 32], "k").unwrap();
        let (us, origin) = (server_name!("b.example"), server_name!("a.example"));
        let theirs = format!(
            r#"{{"content":{NUMBERS},"destination":"b.example","method":"PUT","origin":"a.example","uri":"{}"}}"#,
            signed("").uri
        );
        let signature = key.sign_text(&theirs);
        let header = format!(
            r#"X-Matrix origin="a.example",destination="b.example",key="ed25519:k",sig="{signature}""#
        );
        let to = Addressee::homeserver(us);
        assert_eq!(sign(signed(NUMBERS), origin, to, &key).unwrap(), header);
        let claimed = Claimed::parse(header.as_bytes()).unwrap();
        assert_eq!(verify(signed(NUMBERS), &claimed, to, &key.public_key()), Ok(()));
    }

    #[test]
    fn canonical_bodies_are_signed_as_objects_are() {
        let key = SigningKey::from_seed([3; 32], "k").unwrap();
        let (body, origin) = (r#"{"b":["é\n\u0001",null],"a":-7}"#, server_name!("a.example"));
        for (to, content) in [
            (Addressee::homeserver(server_name!("b.example")), Some(body)),
            (Addressee::homeserver(server_name!("b.example")), None),
            (Addressee::identity_server("is.example"), Some(body)),
        ] {
            let signed = signed(content.unwrap_or_default());
            let mut object = serde_json::json!({
                "method": "PUT", "uri": signed.uri, "origin": origin, to.field: to.name,
            });
            if let Some(content) = content {
                object["content"] = serde_json::from_str(content).unwrap();
            }
            let mut object = json::object(object.to_string().as_bytes()).unwrap();
            key.sign_json(origin, &mut object);
            let all = serde_json::to_value(&object["signatures"]).unwrap();
            let signature = all["a.example"]["ed25519:k"].as_str().unwrap();
            let header = sign(signed, origin, to, &key).unwrap();
            assert!(header.to_str().unwrap().ends_with(&format!("sig=\"{signature}\"")), "{header:?}");
        }
    }

    #[test]
    fn what_nobody_can_read_is_not_signed() {
        let key = SigningKey::from_seed([3; 32], "k").unwrap();
        let to = Addressee::homeserver(server_name!("b.example"));
        let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        for body in ["{", r#"{"a":1e999}"#, r#"{"a":1},"uri":"/other""#, &deep] {
            assert_eq!(sign(signed(body), server_name!("a.example"), to, &key), None);
        }
    }
}
