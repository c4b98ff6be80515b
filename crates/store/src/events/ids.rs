//! How events are named: by a number in their room, and by their id as a key.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ruma::{EventId, OwnedEventId};

use crate::{
    Value,
    key::{Key, KeyReader, KeyWriter},
    pack::{Packer, Unpacker},
    rooms::RoomNid,
    tx::Error,
};

/// An event's number in its room: dense, in order of storing, from 1; an event's auth events have smaller ones.
/// 0 ([`EventNum::NONE`]) stands for no event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventNum(pub u32);

impl EventNum {
    /// No event.
    pub const NONE: Self = Self(0);

    /// `None` for [`EventNum::NONE`].
    pub fn some(self) -> Option<Self> {
        (self != Self::NONE).then_some(self)
    }
}

impl Key for EventNum {
    fn write(&self, to: &mut KeyWriter) {
        self.0.write(to);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
        u32::read(from).map(Self)
    }
}

impl Value for EventNum {
    fn to_bytes(&self) -> Vec<u8> {
        Packer::default().uint(self.0.into()).done()
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Unpacker::new(bytes, "event number").u32().map(Self)
    }
}

impl Value for (RoomNid, EventNum) {
    fn to_bytes(&self) -> Vec<u8> {
        Packer::default().uint(self.0.0.into()).uint(self.1.0.into()).done()
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Unpacker::new(bytes, "event address");
        Ok((RoomNid(from.u32()?), EventNum(from.u32()?)))
    }
}

/// An event id as a key: 33 bytes where it is a hash in URL-safe base64 (room version 4 on), text otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventIdKey(pub OwnedEventId);

impl EventIdKey {
    pub(super) fn hash(&self) -> Option<[u8; 32]> {
        let text = self.0.as_str().strip_prefix('$').filter(|text| text.len() == 43)?;
        let hash: [u8; 32] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        Some(hash)
    }

    pub(super) fn from_hash(hash: [u8; 32]) -> Result<Self, Error> {
        let id = format!("${}", URL_SAFE_NO_PAD.encode(hash));
        id.try_into().map(Self).map_err(|_| Error::Corrupt("event id"))
    }
}

impl From<&EventId> for EventIdKey {
    fn from(id: &EventId) -> Self {
        Self(id.to_owned())
    }
}

impl Key for EventIdKey {
    fn write(&self, to: &mut KeyWriter) {
        match self.hash() {
            Some(hash) => to.raw(&[1]).raw(&hash),
            None => to.raw(&[0]).text(self.0.as_str()),
        };
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
        match from.raw()? {
            [1] => Self::from_hash(from.raw()?),
            _ => from.text()?.try_into().map(Self).map_err(|_| Error::Corrupt("event id")),
        }
    }
}
