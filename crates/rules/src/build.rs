//! Events made here: hashed and signed from a draft; and our signature on what a peer asks for, never blindly.

use base64::{
    Engine, alphabet,
    engine::{
        DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig,
        general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
    },
};
use ring::hmac;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId,
    RoomId, ServerName, UInt, UserId,
    events::{TimelineEventType, room::member::MembershipState},
    room_version_rules::{EventIdFormatVersion, EventsReferenceFormatVersion, RoomVersionRules},
    signatures::{Ed25519KeyPair, KeyPair, sign_json},
};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::{Error, Pdu, auth::check_lengths, opened::Opened};

/// The largest depth an event can claim.
const MAX_DEPTH: u64 = (1 << 53) - 1;
/// The longest event with all its signatures, in bytes: some servers count to 65,536 with an empty `unsigned` of their own in it.
pub const MAX_SIGNED_BYTES: usize = 65_522;
/// The longest event made here, in bytes: there is room for the signature of one more server.
pub const MAX_BYTES: usize = 65_000;
/// What precedes a 32-byte ed25519 seed in a PKCS #8 document (RFC 8410).
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Base64 as other homeservers write it: padded or not, unused bits set or not.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a server signs with a key that follows from its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// What its identity service says.
    IdentityService,
    /// Events of rooms whose policy server it is.
    PolicyServer,
}

impl Purpose {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::IdentityService, Self::PolicyServer];

    /// Its name, of small letters and `_`.
    pub fn name(self) -> &'static str {
        match self {
            Self::IdentityService => "identity_service",
            Self::PolicyServer => "policy_server",
        }
    }
}

/// This server's ed25519 signing key.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    id: String,
    seed: Zeroizing<[u8; 32]>,
    /// Keys that follow from one before this one.
    kept: Vec<(Purpose, SigningKey)>,
}

impl SigningKey {
    /// A key from 32 random bytes and a version of letters, digits and `_`.
    pub fn from_seed(seed: [u8; 32], version: &str) -> Result<Self, Error> {
        if version.is_empty() || !version.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(Error::Key("a version has letters, digits and _ only"));
        }
        let seed = Zeroizing::new(seed);
        let document = Zeroizing::new([&PKCS8_HEAD[..], &seed[..]].concat());
        let pair = Ed25519KeyPair::from_der(&document, version.to_owned())
            .map_err(|_| Error::Key("not an ed25519 seed"))?;
        Ok(Self { pair, id: format!("ed25519:{version}"), seed, kept: Vec::new() })
    }

    /// The signature of a text as it is, in unpadded base64: for what [`SigningKey::sign_json`] has no type for.
    pub fn sign_text(&self, text: &str) -> String {
        self.pair.sign(text.as_bytes()).base64()
    }

    /// Another key that follows from this one, or from the first key before it: neither gives the other away.
    #[must_use]
    pub fn derived(&self, purpose: Purpose) -> Self {
        if let Some((_, kept)) = self.kept.iter().find(|(known, _)| *known == purpose) {
            return Self::from_seed(*kept.seed, kept.pair.version()).expect("it was made of both");
        }
        let name = purpose.name();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.seed[..]);
        let tag = hmac::sign(&key, name.replace('_', " ").as_bytes());
        let mut seed = [0; 32];
        seed.copy_from_slice(tag.as_ref());
        Self::from_seed(seed, &format!("{}_{name}", self.pair.version()))
            .expect("32 bytes are a seed, and the version has letters, digits and _ only")
    }

    /// The key with which this server signs as a policy server: derived, and called what every policy server's key is called.
    #[must_use]
    pub fn for_policy(&self) -> Self {
        let derived = self.derived(Purpose::PolicyServer);
        let version = crate::policy_server::KEY_ID.trim_start_matches("ed25519:");
        Self::from_seed(*derived.seed, version).expect("the version has letters and _ only")
    }

    /// This key as the one that takes over from another. Rooms name the keys that follow from that one, in their state, where
    /// nobody here changes them: those stay what they are.
    #[must_use]
    pub fn taking_over_from(mut self, before: &Self) -> Self {
        for purpose in Purpose::ALL {
            self.keep(purpose, before.derived(purpose));
        }
        self
    }

    /// Has [`SigningKey::derived`] give `key` for a purpose.
    pub fn keep(&mut self, purpose: Purpose, key: Self) {
        self.kept.retain(|(known, _)| *known != purpose);
        self.kept.push((purpose, key));
    }

    /// The keys that do not follow from this one, but from one before it.
    pub fn kept(&self) -> impl Iterator<Item = (Purpose, &Self)> {
        self.kept.iter().map(|(purpose, key)| (*purpose, key))
    }

    /// The public key in unpadded base64.
    pub fn public_base64(&self) -> String {
        STANDARD_NO_PAD.encode(self.public_key())
    }

    /// Reads the usual one-line form of homeservers: `ed25519 <version> <seed in unpadded base64>`.
    pub fn from_line(line: &str) -> Result<Self, Error> {
        let mut parts = line.split_whitespace();
        let (Some("ed25519"), Some(version), Some(seed), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Error::Key("expected: ed25519 <version> <seed>"));
        };
        let seed = LENIENT.decode(seed).map_err(|_| Error::Key("the seed is not base64"))?;
        let seed = seed.try_into().map_err(|_| Error::Key("the seed is not 32 bytes"))?;
        Self::from_seed(seed, version)
    }

    /// The one-line form that [`SigningKey::from_line`] reads. Secret.
    pub fn to_line(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("ed25519 {} {}", self.pair.version(), STANDARD_NO_PAD.encode(&self.seed[..])))
    }

    /// The key id, `ed25519:<version>`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.pair.public_key()
    }

    /// Adds the signature of `server` to a JSON object that this server made.
    pub fn sign_json(&self, server: &ServerName, object: &mut CanonicalJsonObject) {
        if !object.get("signatures").is_some_and(CanonicalJsonValue::is_object) {
            object.insert("signatures".to_owned(), CanonicalJsonValue::Object(CanonicalJsonObject::new()));
        }
        sign_json(server.as_str(), &self.pair, object)
            .expect("signatures is an object and so are its entries");
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

/// What somebody wants to say, before it has a place in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The event's type.
    pub kind: TimelineEventType,
    /// Present for a state event.
    pub state_key: Option<String>,
    /// The content.
    pub content: CanonicalJsonObject,
    /// For a redaction: the target; the room version decides where it is written.
    pub redacts: Option<OwnedEventId>,
    /// For how long every device in the room gets it, in milliseconds (MSC4354).
    pub sticky_ms: Option<u32>,
}

impl Draft {
    /// A message event.
    pub fn message(kind: TimelineEventType, content: CanonicalJsonObject) -> Self {
        Self { kind, state_key: None, content, redacts: None, sticky_ms: None }
    }

    /// A state event.
    pub fn state(
        kind: TimelineEventType,
        state_key: impl Into<String>,
        content: CanonicalJsonObject,
    ) -> Self {
        Self { kind, state_key: Some(state_key.into()), content, redacts: None, sticky_ms: None }
    }

    /// A membership event of `user`. `content` gets the membership; other fields are the caller's.
    pub fn membership(user: &UserId, membership: &MembershipState, mut content: CanonicalJsonObject) -> Self {
        content.insert("membership".to_owned(), CanonicalJsonValue::String(membership.to_string()));
        Self::state(TimelineEventType::RoomMember, user.as_str(), content)
    }

    /// A redaction of `target`.
    pub fn redaction(target: &EventId, reason: Option<String>) -> Self {
        let reason = reason.map(|reason| ("reason".to_owned(), CanonicalJsonValue::String(reason)));
        Self {
            kind: TimelineEventType::RoomRedaction,
            state_key: None,
            content: reason.into_iter().collect(),
            redacts: Some(target.to_owned()),
            sticky_ms: None,
        }
    }
}

/// How an event names another one: by its id, which in room versions 1 and 2 comes with its reference hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    id: OwnedEventId,
    hash: Option<String>,
}

impl Reference {
    /// To an event that is known.
    pub fn to(rules: &RoomVersionRules, pdu: &Pdu) -> Self {
        let paired = rules.events_reference_format == EventsReferenceFormatVersion::V1;
        let hash = paired.then(|| pdu.opened().reference_hash(rules).ok()).flatten();
        Self { id: pdu.event_id().to_owned(), hash }
    }

    /// The event's id.
    pub fn id(&self) -> &EventId {
        &self.id
    }

    fn read(value: &CanonicalJsonValue) -> Option<Self> {
        let id = |value: &CanonicalJsonValue| EventId::parse(value.as_str()?).ok();
        match value {
            CanonicalJsonValue::Array(pair) => {
                let hash = pair.get(1).and_then(|hashes| hashes.as_object()?.get("sha256")?.as_str());
                Some(Self { id: id(pair.first()?)?, hash: hash.map(str::to_owned) })
            }
            value => Some(Self { id: id(value)?, hash: None }),
        }
    }

    fn write(&self, rules: &RoomVersionRules) -> CanonicalJsonValue {
        let id = CanonicalJsonValue::String(self.id.to_string());
        if rules.events_reference_format != EventsReferenceFormatVersion::V1 {
            return id;
        }
        let hash = self.hash.clone().map(|hash| ("sha256".to_owned(), CanonicalJsonValue::String(hash)));
        CanonicalJsonValue::Array(vec![id, CanonicalJsonValue::Object(hash.into_iter().collect())])
    }
}

/// The place of a new event.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// Rules of the room's version.
    pub rules: &'static RoomVersionRules,
    /// The room; `None` only for a create event that the room is going to be named after (version 12 and later).
    pub room_id: Option<&'a RoomId>,
    /// Who sends it: a user of this server.
    pub sender: &'a UserId,
    /// The room's forward extremities, at most 20.
    pub prev_events: &'a [Reference],
    /// The events that justify it, at most 10.
    pub auth_events: &'a [Reference],
    /// One more than the deepest of `prev_events`; capped here.
    pub depth: u64,
    /// Now.
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
}

/// The event of a draft, without hash and signature: what a peer is offered by `make_join` and its sisters.
pub fn template(place: &Place<'_>, draft: Draft) -> CanonicalJsonObject {
    let Draft { kind, state_key, mut content, redacts, sticky_ms } = draft;
    let text = |text: &str| CanonicalJsonValue::String(text.to_owned());
    let ids = |ids: &[Reference]| {
        CanonicalJsonValue::Array(ids.iter().map(|reference| reference.write(place.rules)).collect())
    };
    let depth = UInt::try_from(place.depth.min(MAX_DEPTH)).unwrap_or(UInt::MAX);
    let mut event = CanonicalJsonObject::new();
    let mut put = |field: &str, value: CanonicalJsonValue| event.insert(field.to_owned(), value);
    if let Some(redacts) = redacts {
        if place.rules.redaction.content_field_redacts {
            content.insert("redacts".to_owned(), text(redacts.as_str()));
        } else {
            put("redacts", text(redacts.as_str()));
        }
    }
    if let Some(duration) = sticky_ms {
        let duration = CanonicalJsonValue::Integer(duration.into());
        let sticky = CanonicalJsonObject::from_iter([("duration_ms".to_owned(), duration)]);
        put(crate::pdu::STICKY, CanonicalJsonValue::Object(sticky));
    }
    put("type", text(&kind.to_string()));
    put("sender", text(place.sender.as_str()));
    put("content", CanonicalJsonValue::Object(content));
    put("prev_events", ids(place.prev_events));
    put("auth_events", ids(place.auth_events));
    put("depth", CanonicalJsonValue::Integer(depth.into()));
    put("origin_server_ts", CanonicalJsonValue::Integer(place.origin_server_ts.0.into()));
    if let Some(room_id) = place.room_id {
        put("room_id", text(room_id.as_str()));
    }
    if let Some(state_key) = state_key {
        put("state_key", CanonicalJsonValue::String(state_key));
    }
    event
}

/// Makes the event of a draft: hashed, signed by `server`, checked like one from anybody else.
///
/// [`Error::Malformed`] when the draft does not fit the room version's limits: the client's fault.
pub fn build(place: &Place<'_>, draft: Draft, server: &ServerName, key: &SigningKey) -> Result<Pdu, Error> {
    let mut opened = Opened::canonical(template(place, draft));
    if place.rules.event_id_format == EventIdFormatVersion::V1 {
        // Any id of our own that nobody else has got: the hash of everything else says that of itself.
        let id = format!("${}:{server}", URL_SAFE_NO_PAD.encode(opened.content_hash()?));
        opened.object.insert("event_id".to_owned(), CanonicalJsonValue::String(id));
    }
    hash_and_sign(place.rules, &mut opened, server, key)?;
    let pdu = Pdu::from_object(place.rules, opened.object)?;
    let malformed = |why: &str| Error::Malformed(why.to_owned());
    check_lengths(place.rules, &pdu).map_err(malformed)?;
    if pdu.json().len() > MAX_BYTES { Err(malformed("event is too large")) } else { Ok(pdu) }
}

/// Puts the content hash into the event, and the signature of `server`.
pub(crate) fn hash_and_sign(
    rules: &RoomVersionRules,
    opened: &mut Opened,
    server: &ServerName,
    key: &SigningKey,
) -> Result<(), Error> {
    opened.add_content_hash()?;
    sign(rules, opened, server, key)
}

fn sign(
    rules: &RoomVersionRules,
    opened: &mut Opened,
    server: &ServerName,
    key: &SigningKey,
) -> Result<(), Error> {
    let signature = key.pair.sign(opened.text_to_sign(rules)?.as_bytes());
    opened
        .add_signature(server, &signature.id(), &signature.base64())
        .ok_or_else(|| Error::Malformed("signatures are no object".to_owned()))
}

/// Adds this server's signature to a peer's event **that has been checked and allowed**: an invite of our user, or a
/// restricted join that one of our users authorises. The event's id stays.
pub fn countersign(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    server: &ServerName,
    key: &SigningKey,
) -> Result<Pdu, Error> {
    let mut opened = pdu.opened();
    sign(rules, &mut opened, server, key)?;
    signed(rules, pdu, opened)
}

/// Adds the signatures with which an event came back that was sent to another server, and nothing else of what came: with its
/// signature left as it is, an event can be made to say less.
pub fn with_signatures_of(rules: &RoomVersionRules, pdu: &Pdu, came: &Pdu) -> Result<Pdu, Error> {
    let (mut opened, came) = (pdu.opened(), came.opened());
    let added = came.object.get("signatures").and_then(|all| all.as_object());
    for (server, keys) in added.into_iter().flatten() {
        let (Ok(server), Some(keys)) = (ServerName::parse(server), keys.as_object()) else { continue };
        for (id, signature) in keys.iter().filter_map(|(id, signature)| Some((id, signature.as_str()?))) {
            if opened.signature(&server, id).is_none() {
                opened
                    .add_signature(&server, id, signature)
                    .ok_or_else(|| Error::Malformed("signatures are no object".to_owned()))?;
            }
        }
    }
    signed(rules, pdu, opened)
}

fn signed(rules: &RoomVersionRules, pdu: &Pdu, opened: Opened) -> Result<Pdu, Error> {
    let signed = pdu.with(rules, opened)?;
    if signed.json().len() > MAX_SIGNED_BYTES {
        return Err(Error::Malformed("event is too large to be signed by one more server".to_owned()));
    }
    Ok(signed)
}

/// What may be taken over from a peer's `make_join`, `make_leave` or `make_knock` template: where the event goes, and
/// who authorises it. Everything else is written afresh, so that no peer can have us sign what it likes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Where the event comes after.
    pub prev_events: Vec<Reference>,
    /// What justifies it.
    pub auth_events: Vec<Reference>,
    /// Its depth.
    pub depth: u64,
    /// Restricted rooms: the user of the resident server in whose name the join is authorised.
    pub authorised_by: Option<OwnedUserId>,
}

impl Offer {
    /// Extracts the few usable fields of a template; [`Error::Malformed`] when they are not usable.
    pub fn read(rules: &RoomVersionRules, template: &RawValue) -> Result<Self, Error> {
        let template = Opened::read(rules, template.get().as_bytes())?.nearest()?;
        let ids = |field: &str, most: usize| {
            let list = template.get(field).and_then(|list| list.as_array()).unwrap_or_default();
            let ids: Option<Vec<Reference>> = list.iter().map(Reference::read).collect();
            ids.filter(|ids| ids.len() <= most)
                .ok_or_else(|| Error::Malformed(format!("{field} of the offered template is unusable")))
        };
        let depth = template.get("depth").and_then(CanonicalJsonValue::as_integer);
        let authorised_by = template
            .get("content")
            .and_then(|content| content.as_object())
            .and_then(|content| content.get("join_authorised_via_users_server"))
            .and_then(|user| user.as_str())
            .and_then(|user| UserId::parse(user).ok());
        Ok(Self {
            prev_events: ids("prev_events", 20)?,
            auth_events: ids("auth_events", 10)?,
            depth: depth.and_then(|depth| u64::try_from(i64::from(depth)).ok()).unwrap_or(1),
            authorised_by,
        })
    }

    /// The place of our own event `by` a user of ours in `room_id`.
    pub fn place<'a>(
        &'a self,
        rules: &'static RoomVersionRules,
        room_id: &'a RoomId,
        by: &'a UserId,
        origin_server_ts: MilliSecondsSinceUnixEpoch,
    ) -> Place<'a> {
        Place {
            rules,
            room_id: Some(room_id),
            sender: by,
            prev_events: &self.prev_events,
            auth_events: &self.auth_events,
            depth: self.depth,
            origin_server_ts,
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::{
        CanonicalJsonValue, MilliSecondsSinceUnixEpoch, OwnedServerName, room_id,
        room_version_rules::RoomVersionRules,
        serde::Base64,
        server_name,
        signatures::{PublicKeyMap, Verified, reference_hash, verify_event},
        uint, user_id,
    };
    use serde_json::{json, value::RawValue};

    use super::{Draft, MAX_BYTES, MAX_DEPTH, Offer, Purpose, SigningKey, build, countersign};
    use crate::{
        Pdu, check,
        laws::{Room, sample},
    };

    #[test]
    fn key_survives_its_line_form_and_hides_in_debug() {
        let key = SigningKey::from_seed([7; 32], "a_1").unwrap();
        let again = SigningKey::from_line(&key.to_line()).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        assert_eq!(format!("{key:?}"), "SigningKey(ed25519:a_1)");
        assert!(SigningKey::from_line("ed25519 a b c").is_err());
        assert!(SigningKey::from_line("ed25519 a AAAA").is_err());
        assert!(SigningKey::from_seed([0; 32], "a:b").is_err());
    }

    #[test]
    fn what_follows_from_a_key_outlasts_it() {
        let [first, second, third] = [1, 2, 3].map(|seed| SigningKey::from_seed([seed; 32], "a").unwrap());
        let followers =
            |key: &SigningKey| Purpose::ALL.map(|purpose| key.derived(purpose).to_line().to_string());
        let (of_first, of_second) = (followers(&first), followers(&second));
        assert!(of_first.iter().all(|line| !of_second.contains(line)));
        let third = third.taking_over_from(&second.taking_over_from(&first));
        assert_eq!((followers(&third), third.kept().count()), (of_first, 2));
        assert_eq!(third.for_policy().public_key(), first.for_policy().public_key());
        assert_eq!(third.for_policy().id(), crate::policy_server::KEY_ID);
    }

    #[test]
    fn only_harmless_fields_of_an_offer_are_read() {
        let read =
            |rules, template: &str| Offer::read(rules, &RawValue::from_string(template.to_owned()).unwrap());
        let template = r#"{"type":"m.room.power_levels","sender":"@evil:e","state_key":"","depth":5,
            "prev_events":["$p"],"auth_events":["$a"],
            "content":{"membership":"join","users":{"@evil:e":100},"join_authorised_via_users_server":"@b:b.example"}}"#;
        let offer = read(&RoomVersionRules::V11, template).unwrap();
        assert_eq!(offer.authorised_by.as_deref(), Some(user_id!("@b:b.example")));
        assert_eq!((offer.depth, offer.prev_events.len(), offer.auth_events.len()), (5, 1, 1));
        assert!(read(&RoomVersionRules::V11, r#"{"prev_events":[1],"auth_events":[]}"#).is_err());
        let deep = template.replace(":5,", ":9223372036854775807,");
        assert!(read(&RoomVersionRules::V6, &deep).is_err());
        assert_eq!(read(&RoomVersionRules::V1, &deep).unwrap().depth, MAX_DEPTH);
    }

    #[test]
    fn what_is_made_here_leaves_room_for_what_others_add() {
        let rules = &RoomVersionRules::V11;
        let offer = Offer { prev_events: Vec::new(), auth_events: Vec::new(), depth: 1, authorised_by: None };
        let now = MilliSecondsSinceUnixEpoch(uint!(5));
        let place = offer.place(rules, room_id!("!r:a.example"), user_id!("@a:a.example"), now);
        let key = SigningKey::from_seed([1; 32], &"k".repeat(100)).unwrap();
        let body = |bytes: usize| CanonicalJsonValue::String("x".repeat(bytes));
        let made = |bytes: usize| {
            let content = [("body".to_owned(), body(bytes))].into();
            build(&place, Draft::message("m.room.message".into(), content), server_name!("a.example"), &key)
        };
        let rest = made(0).unwrap().json().len();
        let largest = made(MAX_BYTES - rest).unwrap();
        assert!(made(MAX_BYTES - rest + 1).is_err());
        let server = OwnedServerName::try_from(format!("{}example", "bb.".repeat(70))).unwrap();
        let both = countersign(rules, &largest, &server, &key).unwrap();
        assert!(both.json().len() + r#","unsigned":{}"#.len() <= 65_536);
        let mut larger = largest.to_object();
        larger.insert("more".to_owned(), body(500));
        let larger = Pdu::from_object(rules, larger).unwrap();
        assert!(countersign(rules, &larger, &server, &key).is_err(), "others would not take it any more");
    }

    #[test]
    fn who_says_of_a_third_party_what_is_no_object_is_signed_for_as_if_nothing_were_said() {
        let alice = "@a:a.example";
        let key = SigningKey::from_seed([1; 32], "k").unwrap();
        let known = [(key.id().to_owned(), Base64::new(key.public_key().to_vec()))];
        let keys = PublicKeyMap::from([("a.example".to_owned(), known.into())]);
        for rules in [&RoomVersionRules::V10, &RoomVersionRules::V11, &RoomVersionRules::V12] {
            for third_party in [json!(null), json!(5), json!("x"), json!([]), json!(true)] {
                let content = json!({ "membership": "join", "third_party_invite": third_party });
                let pdu = Room::new(rules, alice).send(alice, "m.room.member", Some(alice), &content);
                assert!(check::is_intact(&pdu), "the content hash covers it");
                let mut left = pdu.to_object();
                left.get_mut("content").unwrap().as_object_mut().unwrap().remove("third_party_invite");
                let id = reference_hash(&left, rules).unwrap();
                assert_eq!(pdu.event_id().as_str(), format!("${id}"), "{third_party}");
                assert_eq!(verify_event(&keys, &left, rules).unwrap(), Verified::Signatures);
            }
        }
    }

    #[test]
    fn countersigning_keeps_the_id() {
        let (rules, _, pdu) = sample(&RoomVersionRules::V11);
        let ours = SigningKey::from_seed([8; 32], "k").unwrap();
        let both = countersign(rules, &pdu, server_name!("b.example"), &ours).unwrap();
        assert_eq!(both.event_id(), pdu.event_id());
        assert!(both.json().contains("b.example") && both.json().contains("a.example"));
    }
}
