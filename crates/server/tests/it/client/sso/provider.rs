//! An identity provider in the process, which signs with real keys and can be told to lie.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use chappe_world::{Fake, FakeNet, World};
use http::{StatusCode, header};
use parking_lot::Mutex;
use ring::{
    digest::{SHA256, digest},
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
        RsaPublicKeyComponents,
    },
};
use serde_json::{Map, Value, json};
use url::Url;

/// The issuer.
pub(super) const ISSUER: &str = "https://id.test/api";
/// The secret of this server there.
pub(super) const SECRET: &str = "a secret: with colons & more";

const RSA_KEY: &str = include_str!("rsa_key.txt");

/// What a person is to this provider.
pub(super) type Person = Map<String, Value>;
/// Changes a token before it is signed: header, then claims.
pub(super) type Lie = Arc<dyn Fn(&mut Value, &mut Value) + Send + Sync>;

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signing {
    Rsa,
    Ecdsa,
    Ed25519,
    /// With a key that is not published, under the name of one that is.
    Stranger,
    /// Not at all.
    None,
    /// With the public key as a secret.
    Hmac,
}

pub(super) struct Desk {
    pub(super) signing: Signing,
    /// Whether the userinfo endpoint signs.
    pub(super) signed_userinfo: bool,
    pub(super) lie: Option<Lie>,
    pub(super) lie_of_userinfo: Option<Lie>,
    /// Takes the place of an endpoint's answer.
    pub(super) instead: BTreeMap<&'static str, (StatusCode, String)>,
    /// How often each endpoint was asked.
    pub(super) asked: BTreeMap<&'static str, usize>,
    codes: HashMap<String, Code>,
    tokens: HashMap<String, Person>,
    world: World,
    rsa: RsaKeyPair,
    ecdsa: EcdsaKeyPair,
}

struct Code {
    nonce: String,
    challenge: String,
    person: Person,
}

/// The provider; clones share it.
#[derive(Clone)]
pub(super) struct Provider(pub(super) Arc<Mutex<Desk>>);

fn ed25519(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

impl Provider {
    /// A provider on the network.
    pub(super) fn on(net: &FakeNet) -> Self {
        let random = SystemRandom::new();
        let ecdsa = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ecdsa =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ecdsa.as_ref(), &random).unwrap();
        let rsa: String = RSA_KEY.split_whitespace().collect();
        let rsa = base64::engine::general_purpose::STANDARD.decode(rsa).unwrap();
        let world = World::fake(Fake::new("id.test", 2, net));
        let desk = Desk {
            signing: Signing::Rsa,
            signed_userinfo: true,
            lie: None,
            lie_of_userinfo: None,
            instead: BTreeMap::new(),
            asked: BTreeMap::new(),
            codes: HashMap::new(),
            tokens: HashMap::new(),
            world: world.clone(),
            rsa: RsaKeyPair::from_pkcs8(&rsa).unwrap(),
            ecdsa,
        };
        let provider = Self(Arc::new(Mutex::new(desk)));
        let router = Router::new()
            .route("/api/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(keys))
            .route("/token", post(token))
            .route("/userinfo", get(userinfo))
            .with_state(provider.clone());
        net.route("id.test", &world, router);
        provider
    }

    /// A person logs in there; gives path and query of where the browser goes then.
    pub(super) fn log_in(&self, location: &str, person: &Person) -> String {
        let url = Url::parse(location).unwrap();
        assert_eq!((url.host_str(), url.path()), (Some("id.test"), "/authorize"));
        let asked: HashMap<String, String> = url.query_pairs().into_owned().collect();
        assert_eq!(asked["response_type"], "code");
        assert_eq!(asked["client_id"], "chappe");
        assert_eq!(asked["code_challenge_method"], "S256");
        assert!(asked["state"].len() >= 32 && asked["nonce"].len() >= 32);
        let back = Url::parse(&asked["redirect_uri"]).unwrap();
        assert_eq!(back.as_str(), "https://a.test/_matrix/client/unstable/chappe/oidc/callback");
        let mut desk = self.0.lock();
        let code = desk.world.token(20);
        let (nonce, challenge) = (asked["nonce"].clone(), asked["code_challenge"].clone());
        desk.codes.insert(code.clone(), Code { nonce, challenge, person: person.clone() });
        format!("{}?code={code}&state={}", back.path(), asked["state"])
    }

    /// How often an endpoint was asked.
    pub(super) fn asked(&self, endpoint: &str) -> usize {
        self.0.lock().asked.get(endpoint).copied().unwrap_or(0)
    }

    /// What is asked next is counted from nothing.
    pub(super) fn forget(&self) {
        self.0.lock().asked.clear();
    }
}

impl Desk {
    fn sign(&self, lie: Option<&Lie>, mut claims: Value) -> String {
        let (alg, kid) = match self.signing {
            Signing::Rsa => ("RS256", "rsa"),
            Signing::Ecdsa => ("ES256", "ecdsa"),
            Signing::Ed25519 | Signing::Stranger => ("EdDSA", "ed25519"),
            Signing::None => ("none", "rsa"),
            Signing::Hmac => ("HS256", "rsa"),
        };
        let mut header = json!({ "alg": alg, "kid": kid, "typ": "JWT" });
        if let Some(lie) = lie {
            lie(&mut header, &mut claims);
        }
        let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        format!("{signed}.{}", BASE64.encode(self.signature(signed.as_bytes())))
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self.signing {
            Signing::Rsa => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Signing::Ecdsa => self.ecdsa.sign(&random, message).unwrap().as_ref().to_vec(),
            Signing::Ed25519 => ed25519(1).sign(message).as_ref().to_vec(),
            Signing::Stranger => ed25519(2).sign(message).as_ref().to_vec(),
            Signing::None => Vec::new(),
            Signing::Hmac => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, self.rsa.public_key().as_ref());
                hmac::sign(&key, message).as_ref().to_vec()
            }
        }
    }

    fn keys(&self) -> Value {
        let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        let point = self.ecdsa.public_key().as_ref();
        json!({ "keys": [
            { "kty": "RSA", "kid": "rsa", "use": "sig", "n": BASE64.encode(n), "e": BASE64.encode(e) },
            { "kty": "EC", "crv": "P-256", "kid": "ecdsa", "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..]) },
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed25519", "alg": "EdDSA", "x": BASE64.encode(ed25519(1).public_key()) },
        ]})
    }

    /// Counts a question; the answer that takes the place of the right one.
    fn ask(&mut self, endpoint: &'static str) -> Option<Response> {
        *self.asked.entry(endpoint).or_default() += 1;
        self.instead.get(endpoint).cloned().map(IntoResponse::into_response)
    }
}

async fn discovery(State(Provider(desk)): State<Provider>) -> Response {
    if let Some(instead) = desk.lock().ask("discovery") {
        return instead;
    }
    let at = |path: &str| format!("https://id.test/{path}");
    Json(json!({
        "issuer": ISSUER, "authorization_endpoint": at("authorize?fixed=1"), "token_endpoint": at("token"),
        "userinfo_endpoint": at("userinfo"), "jwks_uri": at("jwks"), "end_session_endpoint": at("end"), "prompt_values_supported": ["create", "login"],
    }))
    .into_response()
}

async fn keys(State(Provider(desk)): State<Provider>) -> Response {
    let mut desk = desk.lock();
    desk.ask("jwks").unwrap_or_else(|| Json(desk.keys()).into_response())
}

async fn token(State(Provider(desk)): State<Provider>, headers: HeaderMap, body: String) -> Response {
    let form: HashMap<String, String> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let mut desk = desk.lock();
    if let Some(instead) = desk.ask("token") {
        return instead;
    }
    let refused = |why: &str| (StatusCode::BAD_REQUEST, Json(json!({ "error": why }))).into_response();
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let pair = "chappe:a+secret%3A+with+colons+%26+more";
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    let posted = form.get("client_secret").is_some_and(|secret| secret == SECRET);
    if shown != Some(&*basic) && !posted {
        return refused("invalid_client");
    }
    let Some(code) = desk.codes.remove(&form["code"]) else { return refused("invalid_grant") };
    let challenge = BASE64.encode(digest(&SHA256, form["code_verifier"].as_bytes()));
    if challenge != code.challenge || form["grant_type"] != "authorization_code" {
        return refused("invalid_grant");
    }
    let access = desk.world.token(20);
    let (now, hash) = (desk.world.now() / 1000, digest(&SHA256, access.as_bytes()));
    let mut claims = json!({
        "iss": ISSUER, "aud": "chappe", "sub": code.person["sub"], "nonce": code.nonce, "iat": now, "exp": now + 60,
        "auth_time": now, "acr": "eidas1",
    });
    if matches!(desk.signing, Signing::Rsa | Signing::Ecdsa) {
        claims["at_hash"] = json!(BASE64.encode(&hash.as_ref()[..16]));
    }
    let id_token = desk.sign(desk.lie.clone().as_ref(), claims);
    desk.tokens.insert(access.clone(), code.person);
    Json(json!({ "access_token": access, "token_type": "Bearer", "expires_in": 60, "id_token": id_token }))
        .into_response()
}

async fn userinfo(State(Provider(desk)): State<Provider>, headers: HeaderMap) -> Response {
    let mut desk = desk.lock();
    if let Some(instead) = desk.ask("userinfo") {
        return instead;
    }
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some(person) = desk.tokens.get(shown.trim_start_matches("Bearer ")) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let mut claims = Value::Object(person.clone());
    if !desk.signed_userinfo {
        return Json(claims).into_response();
    }
    let now = desk.world.now() / 1000;
    for (name, value) in
        [("iss", json!(ISSUER)), ("aud", json!("chappe")), ("iat", json!(now)), ("exp", json!(now + 60))]
    {
        claims[name] = value;
    }
    let text = desk.sign(desk.lie_of_userinfo.clone().as_ref(), claims);
    ([(header::CONTENT_TYPE, "application/jwt; charset=utf-8")], text).into_response()
}
