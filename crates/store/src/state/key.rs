//! State keys: (type, state key), short on disk for the usual types and numbered per room.

use crate::{
    Value,
    key::{Key, KeyReader, KeyWriter},
    tx::Error,
};

/// Types with a one-byte code on disk, 1 for the first. Only ever append: the codes are part of the format.
const CODED: &[&str] = &[
    "m.room.create",
    "m.room.member",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.encryption",
    "m.room.server_acl",
    "m.room.third_party_invite",
    "m.room.tombstone",
    "m.room.pinned_events",
    "m.space.child",
    "m.space.parent",
    "im.vector.room.access_rules",
    "im.vector.modular.widgets",
    "m.call.member",
    "org.matrix.msc3401.call.member",
    "m.widget",
];

/// The code of `m.room.member`: all members lie between this byte and the next.
pub(super) const MEMBERS: u8 = 2;

/// An event type as the first part of a state key: a prefix of all keys of that type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateType(pub String);

impl Key for StateType {
    fn write(&self, to: &mut KeyWriter) {
        match CODED.iter().position(|coded| *coded == self.0).and_then(|i| u8::try_from(i + 1).ok()) {
            Some(code) => to.raw(&[code]),
            None => to.raw(&[0]).text(&self.0),
        };
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
        match from.raw()? {
            [0] => from.text().map(Self),
            [code] => {
                let name = CODED.get(usize::from(code) - 1).ok_or(Error::Corrupt("state type"))?;
                Ok(Self((*name).to_owned()))
            }
        }
    }
}

/// What a state event is about: its type and state key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateKey {
    /// `type`.
    pub kind: StateType,
    /// `state_key`.
    pub state_key: String,
}

impl StateKey {
    /// A key of a type and a state key.
    #[expect(clippy::needless_pass_by_value, reason = "names and owned identifiers alike")]
    pub fn new(kind: impl ToString, state_key: impl ToString) -> Self {
        Self { kind: StateType(kind.to_string()), state_key: state_key.to_string() }
    }

    /// Where a room names its policy server (see [`crate::RoomHead::no_policy`]).
    pub fn policy_server() -> Self {
        Self::new("m.room.policy", "")
    }

    /// `type`.
    pub fn event_type(&self) -> &str {
        &self.kind.0
    }
}

impl Key for StateKey {
    fn write(&self, to: &mut KeyWriter) {
        self.kind.write(to);
        to.text(&self.state_key);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
        Ok(Self { kind: StateType::read(from)?, state_key: from.text()? })
    }
}

impl Value for StateKey {
    fn to_bytes(&self) -> Vec<u8> {
        let mut to = KeyWriter::default();
        self.kind.write(&mut to);
        to.raw(self.state_key.as_bytes());
        to.0
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = KeyReader(bytes);
        let kind = StateType::read(&mut from)?;
        let state_key = String::from_utf8(from.rest().to_vec()).map_err(|_| Error::Corrupt("state key"))?;
        Ok(Self { kind, state_key })
    }
}

/// A state key's number in its room, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u32);

impl Key for KeyId {
    fn write(&self, to: &mut KeyWriter) {
        self.0.write(to);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
        u32::read(from).map(Self)
    }
}
