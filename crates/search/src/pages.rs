//! The token of the next page of a search.
//!
//! It names a hit that the user may not be allowed to see: who was put out of a room could read from it that something was
//! said there, and when. So it is sealed, for its user alone, with a key that lives as long as the process.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chappe_world::World;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ruma::UserId;
use serde::{Deserialize, Serialize};

use crate::{Error, events::Order, find::Grouping, pick::Hit};

/// Characters of a token at most.
const LONGEST: usize = 1_024;
/// What is sealed has a multiple of so many bytes: its length tells nothing.
const BLOCK: usize = 128;

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Whether the newest come first.
    #[serde(rename = "r")]
    pub(crate) recent: bool,
    /// What the last hit was ordered by.
    #[serde(rename = "b")]
    pub(crate) by: u64,
    /// The last hit.
    #[serde(rename = "k")]
    pub(crate) key: u64,
    /// How many hits there are, as the first page counted them.
    #[serde(rename = "c")]
    pub(crate) count: u64,
    /// Only of this group.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<(Grouping, String)>,
}

impl Place {
    pub(crate) fn order(&self) -> Order {
        if self.recent { Order::Recent } else { Order::Rank }
    }

    pub(crate) fn hit(&self) -> Hit {
        Hit { by: self.by, key: self.key }
    }
}

/// Makes tokens and reads them again.
pub(crate) struct Seal {
    world: World,
    key: [u8; 32],
}

impl Seal {
    pub(crate) fn new(world: World) -> Self {
        Self { key: world.bytes(), world }
    }

    fn key(&self) -> Result<LessSafeKey, Error> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &self.key).map_err(|_| Error::BadToken)?;
        Ok(LessSafeKey::new(key))
    }

    /// The token of a place, for one user.
    pub(crate) fn token(&self, user: &UserId, place: &Place) -> Result<String, Error> {
        let mut sealed = serde_json::to_vec(place).map_err(|_| Error::BadToken)?;
        sealed.resize(sealed.len().next_multiple_of(BLOCK), b' ');
        let nonce: [u8; NONCE_LEN] = self.world.bytes();
        let (key, unique) = (self.key()?, Nonce::assume_unique_for_key(nonce));
        key.seal_in_place_append_tag(unique, Aad::from(user.as_bytes()), &mut sealed)
            .map_err(|_| Error::BadToken)?;
        Ok(URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat()))
    }

    /// The place that a token of this process and user stands for.
    pub(crate) fn open(&self, user: &UserId, token: &str) -> Result<Place, Error> {
        if token.len() > LONGEST {
            return Err(Error::BadToken);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error::BadToken)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>().ok_or(Error::BadToken)?;
        let (nonce, mut sealed) = (Nonce::assume_unique_for_key(*nonce), sealed.to_vec());
        let json = self.key()?.open_in_place(nonce, Aad::from(user.as_bytes()), &mut sealed);
        serde_json::from_slice(json.map_err(|_| Error::BadToken)?).map_err(|_| Error::BadToken)
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use chappe_world::{Fake, FakeNet, World};
    use ruma::user_id;

    use super::{Grouping, Place, Seal};

    fn seal(seed: u64) -> Seal {
        let net = FakeNet::new();
        Seal::new(World::fake(Fake { name: "a.example".into(), seed, epoch_ms: 0, net }))
    }

    #[tokio::test]
    async fn tokens_survive_their_text_and_others_are_refused() {
        let (seal, user) = (seal(1), user_id!("@a:x.fr"));
        let place = Place { recent: true, by: u64::MAX, key: 7, count: 3, group: None };
        assert_eq!(seal.open(user, &seal.token(user, &place).unwrap()).unwrap(), place);
        let long = format!("@{}:x.fr", "a".repeat(249));
        let place = Place { group: Some((Grouping::Sender, long)), ..place };
        assert_eq!(seal.open(user, &seal.token(user, &place).unwrap()).unwrap(), place);
        for bad in ["", "e30", "t5", "=", &"A".repeat(200), &"A".repeat(2_000)] {
            assert!(seal.open(user, bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_token_tells_nothing_and_is_its_users_alone() {
        let (mine, user) = (seal(1), user_id!("@a:x.fr"));
        let place = Place { recent: true, by: 1_700_000_000_123, key: 7, count: 3, group: None };
        let token = mine.token(user, &place).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("1700000000123"));
        let other = Place { by: 1, key: u64::MAX, ..place };
        assert_eq!(mine.token(user, &other).unwrap().len(), token.len());
        assert!(mine.open(user_id!("@b:x.fr"), &token).is_err());
        assert!(seal(2).open(user, &token).is_err(), "of another process");
        let forged = URL_SAFE_NO_PAD.encode(r#"{"r":true,"b":1,"k":7,"c":3}"#);
        assert!(mine.open(user, &forged).is_err());
    }
}
