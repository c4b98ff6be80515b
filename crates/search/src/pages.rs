//! The token of the next page of a search.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{Error, events::Order, find::Grouping, pick::Hit};

/// Bytes of a token at most.
const LONGEST: usize = 1_024;

/// Where the next page begins. Opaque to clients, and harmless if forged: what it may narrow, it cannot widen.
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

    pub(crate) fn token(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(json)
    }

    pub(crate) fn parse(token: &str) -> Result<Self, Error> {
        if token.len() > LONGEST {
            return Err(Error::BadToken);
        }
        let json = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error::BadToken)?;
        serde_json::from_slice(&json).map_err(|_| Error::BadToken)
    }
}

#[cfg(test)]
mod tests {
    use super::{Grouping, Place};

    #[test]
    fn tokens_survive_their_text_and_others_are_refused() {
        let place = Place { recent: true, by: u64::MAX, key: 7, count: 3, group: None };
        assert_eq!(Place::parse(&place.token()).unwrap(), place);
        let place = Place { group: Some((Grouping::Sender, "@a:x.fr".to_owned())), ..place };
        assert_eq!(Place::parse(&place.token()).unwrap(), place);
        for bad in ["", "e30", "t5", "=", &"A".repeat(2_000)] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }
}
