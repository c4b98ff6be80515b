//! Signed tokens (RFC 7515, RFC 7517): parsed, and verified against a provider's keys; pure.
//!
//! Three algorithms, all asymmetric. There is no code for `none` or HMAC, so that no header can ask for them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Bytes of a token; beyond, it is not looked at.
const LONGEST: usize = 64 << 10;
/// Keys of a set that are looked at.
const MOST_KEYS: usize = 100;

/// A kind of signature (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// RSA, PKCS #1 v1.5, SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA, P-256, SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It is no token.
    #[error("it is not a signed token")]
    Malformed,
    /// It is signed in a way that is not accepted.
    #[error("its algorithm is not accepted")]
    Algorithm,
    /// It is signed with a key that the provider does not publish.
    #[error("its key is unknown")]
    UnknownKey,
    /// The signature does not fit.
    #[error("its signature is wrong")]
    Signature,
    /// It is signed, but for something else.
    #[error("its claim `{0}` is wrong")]
    Claim(&'static str),
}

/// What a token or an answer says.
pub(super) type Claims = Map<String, Value>;

/// A token, parsed; nothing in it is to be believed before [`Token::verify`].
#[derive(Debug)]
pub(super) struct Token<'a> {
    algorithm: Algorithm,
    key_id: Option<String>,
    signed: &'a str,
    claims: Claims,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
}

impl<'a> Token<'a> {
    /// Parses the compact form. Only what `accepted` lists goes on.
    pub(super) fn parse(text: &'a str, accepted: &[Algorithm]) -> Result<Self, Flaw> {
        if text.len() > LONGEST {
            return Err(Flaw::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Flaw::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Flaw::Malformed)?;
        let decoded = |part: &str| BASE64.decode(part).map_err(|_| Flaw::Malformed);
        let header: Header = serde_json::from_slice(&decoded(header)?).map_err(|_| Flaw::Malformed)?;
        if header.crit.is_some() {
            return Err(Flaw::Malformed);
        }
        let algorithm = Algorithm::deserialize(Value::from(header.alg)).map_err(|_| Flaw::Algorithm)?;
        if !accepted.contains(&algorithm) {
            return Err(Flaw::Algorithm);
        }
        let claims = serde_json::from_slice(&decoded(payload)?).map_err(|_| Flaw::Malformed)?;
        Ok(Self { algorithm, key_id: header.kid, signed, claims, signature: decoded(signature)? })
    }

    /// What it says, if one of the keys signed it.
    pub(super) fn verify(self, keys: &KeySet) -> Result<(Claims, Algorithm), Flaw> {
        let named = |key: &&Key| self.key_id.is_none() || key.id == self.key_id;
        let mut candidates = keys.0.iter().filter(|key| key.algorithm() == self.algorithm).filter(named);
        let mut flaw = Flaw::UnknownKey;
        let fits = candidates.any(|key| {
            flaw = Flaw::Signature;
            key.material.verifies(self.signed.as_bytes(), &self.signature)
        });
        if fits { Ok((self.claims, self.algorithm)) } else { Err(flaw) }
    }
}

/// Public keys of a provider.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet(Vec<Key>);

#[derive(Clone, Debug)]
struct Key {
    id: Option<String>,
    material: Material,
}

impl Key {
    fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Rsa { .. } => Algorithm::Rs256,
            Material::P256(_) => Algorithm::Es256,
            Material::Ed25519(_) => Algorithm::EdDsa,
        }
    }
}

#[derive(Clone, Debug)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Material {
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verdict = match self {
            Self::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            Self::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Self::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point).verify(message, signature),
        };
        verdict.is_ok()
    }
}

impl KeySet {
    /// Reads a set; keys for anything but verifying with one of our algorithms are left out. `None` when it is no set.
    pub(super) fn parse(document: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(document).ok()?;
        let keys = document.get("keys")?.as_array()?;
        Some(Self(keys.iter().take(MOST_KEYS).filter_map(key).collect()))
    }
}

fn key(jwk: &Value) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| text(name).and_then(|value| BASE64.decode(value).ok());
    let for_signatures = text("use").is_none_or(|purpose| purpose == "sig");
    let verifies = jwk.get("key_ops").and_then(Value::as_array);
    let verifies = verifies.is_none_or(|list| list.iter().any(|operation| operation == "verify"));
    if !for_signatures || !verifies {
        return None;
    }
    let material = match (text("kty")?, text("crv")) {
        ("RSA", _) => {
            let (n, e) = (bytes("n")?, bytes("e")?);
            let n: Vec<u8> = n.into_iter().skip_while(|byte| *byte == 0).collect();
            let e: Vec<u8> = e.into_iter().skip_while(|byte| *byte == 0).collect();
            Material::Rsa { n, e }
        }
        ("EC", Some("P-256")) => {
            let (x, y) = (bytes("x")?, bytes("y")?);
            let whole = x.len() == 32 && y.len() == 32;
            whole.then(|| Material::P256([&[4][..], &x, &y].concat()))?
        }
        ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
        _ => return None,
    };
    let key = Key { id: text("kid").map(str::to_owned), material };
    let said = text("alg").map(|name| Algorithm::deserialize(Value::from(name)).ok());
    said.is_none_or(|said| said == Some(key.algorithm())).then_some(key)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use ring::{
        hmac,
        signature::{Ed25519KeyPair, KeyPair},
    };
    use serde_json::{Value, json};

    use super::{Algorithm, BASE64, Flaw, KeySet, Token};

    const ALL: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];

    fn pair() -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
    }

    fn keys() -> KeySet {
        let x = BASE64.encode(pair().public_key().as_ref());
        let set = json!({ "keys": [
            { "kty": "oct", "k": "AAAA", "kid": "symmetric", "alg": "HS256" },
            { "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "for encryption", "use": "enc" },
            { "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "of another kind", "alg": "RS256" },
            { "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k1", "use": "sig", "alg": "EdDSA" },
            "nonsense",
        ]});
        KeySet::parse(set.to_string().as_bytes()).unwrap()
    }

    fn token(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
        let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        format!("{signed}.{}", BASE64.encode(sign(signed.as_bytes())))
    }

    fn signed(header: &Value) -> String {
        token(header, &json!({ "sub": "a" }), |message| pair().sign(message).as_ref().to_vec())
    }

    fn judge(text: &str) -> Result<Value, Flaw> {
        Token::parse(text, &ALL)?.verify(&keys()).map(|(claims, _)| claims["sub"].clone())
    }

    #[test]
    fn a_signature_of_a_published_key_counts() {
        assert_eq!(judge(&signed(&json!({ "alg": "EdDSA", "kid": "k1" }))), Ok(json!("a")));
        assert_eq!(judge(&signed(&json!({ "alg": "EdDSA" }))), Ok(json!("a")));
        let narrow = Token::parse(&signed(&json!({ "alg": "EdDSA" })), &[Algorithm::Rs256]).map(drop);
        assert_eq!(narrow, Err(Flaw::Algorithm));
    }

    #[test]
    fn no_header_can_weaken_the_check() {
        let none = token(&json!({ "alg": "none" }), &json!({ "sub": "a" }), |_| Vec::new());
        assert_eq!(judge(&none), Err(Flaw::Algorithm));
        let public = pair().public_key().as_ref().to_vec();
        let hmac = token(&json!({ "alg": "HS256", "kid": "k1" }), &json!({ "sub": "a" }), |message| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &public), message).as_ref().to_vec()
        });
        assert_eq!(judge(&hmac), Err(Flaw::Algorithm));
        for (header, flaw) in [
            (json!({ "alg": "EdDSA", "kid": "for encryption" }), Flaw::UnknownKey),
            (json!({ "alg": "EdDSA", "kid": "of another kind" }), Flaw::UnknownKey),
            (json!({ "alg": "EdDSA", "kid": "k2" }), Flaw::UnknownKey),
            (json!({ "alg": "RS256", "kid": "k1" }), Flaw::UnknownKey),
            (json!({ "alg": "eddsa" }), Flaw::Algorithm),
            (json!({ "alg": "EdDSA", "crit": ["b64"], "b64": false }), Flaw::Malformed),
            (json!({ "kid": "k1" }), Flaw::Malformed),
        ] {
            assert_eq!(judge(&signed(&header)), Err(flaw), "{header}");
        }
    }

    #[test]
    fn what_was_changed_is_noticed() {
        let right = signed(&json!({ "alg": "EdDSA", "kid": "k1" }));
        let parts: Vec<&str> = right.split('.').collect();
        let other = BASE64.encode(json!({ "sub": "b" }).to_string());
        assert_eq!(judge(&format!("{}.{other}.{}", parts[0], parts[2])), Err(Flaw::Signature));
        for text in ["", ".", "..", "a.b", "a.b.c", &format!("{right}."), &format!("{right}="), &right[1..]] {
            assert!(judge(text).is_err(), "{text}");
        }
        assert_eq!(judge(&format!("{right}{}", "A".repeat(70_000))), Err(Flaw::Malformed));
    }

    #[test]
    fn what_is_no_set_of_keys_is_none() {
        for text in ["", "[]", "{}", r#"{"keys":{}}"#, "\u{feff}{\"keys\":[]}"] {
            assert!(KeySet::parse(text.as_bytes()).is_none(), "{text}");
        }
        let odd = json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" }, { "kty": "OKP", "crv": "Ed25519", "x": "AA" },
            { "kty": "RSA", "n": "!" }, { "kty": 7 }, null,
        ]});
        assert!(KeySet::parse(odd.to_string().as_bytes()).unwrap().0.is_empty());
    }
}
