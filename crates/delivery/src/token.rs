//! Sync tokens: what a device has seen.

use std::{fmt, str::FromStr};

use chappe_store::Position;

use crate::Error;

/// What a device has seen: everything up to a position, and everything fleeting up to a sequence number.
///
/// Written `c1_<position>_<epoch>-<sequence>`, and `-<position>` at the end while to-device messages lag behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncToken {
    /// Commits seen.
    pub position: Position,
    /// The process that counted `fleeting`; sequences of another process mean nothing.
    pub epoch: u64,
    /// Typing and presence changes seen.
    pub fleeting: u64,
    /// To-device messages seen, where there were too many for one answer.
    pub to_device: Option<Position>,
}

impl SyncToken {
    /// Up to where to-device messages were seen.
    pub fn to_device(&self) -> Position {
        self.to_device.unwrap_or(self.position)
    }
}

impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c1_{}_{:x}-{}", self.position, self.epoch, self.fleeting)?;
        self.to_device.map_or(Ok(()), |position| write!(f, "-{position}"))
    }
}

impl FromStr for SyncToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let read = || {
            let (position, fleeting) = text.strip_prefix("c1_")?.split_once('_')?;
            let mut parts = fleeting.split('-');
            let epoch = u64::from_str_radix(parts.next()?, 16).ok()?;
            let fleeting = parts.next()?.parse().ok()?;
            let to_device = match parts.next() {
                Some(position) => Some(Position(position.parse().ok()?)),
                None => None,
            };
            parts.next().is_none().then_some(())?;
            Some(Self { position: Position(position.parse().ok()?), epoch, fleeting, to_device })
        };
        read().ok_or(Error::BadToken)
    }
}

/// Up to where a device has what is delivered surely, message by message: those sent to it, sticky events.
///
/// Written `d1_<position>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Received(pub(crate) Position);

impl Received {
    /// Everything up to a commit.
    pub fn up_to(position: Position) -> Self {
        Self(position)
    }

    /// The last commit of which the device has everything.
    pub fn position(self) -> Position {
        self.0
    }
}

impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d1_{}", self.0)
    }
}

impl FromStr for Received {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let position = text.strip_prefix("d1_").and_then(|position| position.parse().ok());
        position.map(|position| Self(Position(position))).ok_or(Error::BadToken)
    }
}

#[cfg(test)]
mod tests {
    use chappe_store::Position;

    use super::{Received, SyncToken};

    #[test]
    fn tokens_survive_their_text() {
        let token = SyncToken { position: Position(12), epoch: 0xabc, fleeting: 7, to_device: None };
        assert_eq!(token.to_string(), "c1_12_abc-7");
        for token in [token, SyncToken { to_device: Some(Position(9)), ..token }] {
            assert_eq!(token.to_string().parse::<SyncToken>().unwrap(), token);
        }
        for bad in ["", "c1_", "c1_1_", "c1_1_a", "c2_1_a-1", "c1_-1_a-1", "c1_1_a-1-2-3", "c1_1_a-x", "t5"] {
            assert!(bad.parse::<SyncToken>().is_err(), "{bad}");
        }
        let received = Received(Position(7));
        assert_eq!(received.to_string().parse::<Received>().unwrap(), received);
        for bad in ["", "7", "d1_", "d1_x", "d1_-1"] {
            assert!(bad.parse::<Received>().is_err(), "{bad}");
        }
    }
}
