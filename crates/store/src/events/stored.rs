//! An event's JSON on disk and in memory.

use std::{any::Any, sync::Arc};

use parking_lot::Mutex;
use ruma::OwnedEventId;

use super::EventIdKey;
use crate::{
    Value,
    key::{KeyReader, KeyWriter},
    packed_pdu,
    tx::Error,
};

/// Bytes that an event takes in memory beside its texts: parsed, in pieces for push rules, in the table of the cache.
const BESIDE: u64 = 1_500;
/// Texts of it as long as its JSON at most: that itself, its content, what clients get, the pieces for push rules.
const TEXTS: u64 = 4;

/// An event's JSON as it is signed, with its id. Never changes; shared out of the cache.
pub struct StoredPdu {
    /// Its id.
    pub event_id: OwnedEventId,
    /// The PDU as canonical JSON, without `event_id`: shared with its parsed form.
    pub json: Arc<str>,
    forms: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
}

impl StoredPdu {
    /// An event's JSON and id.
    pub fn new(event_id: OwnedEventId, json: impl Into<Arc<str>>) -> Self {
        Self { event_id, json: json.into(), forms: Mutex::default() }
    }

    /// Bytes that it takes in memory at most, about. Its forms count from the beginning: what something weighs in a cache must not
    /// change.
    pub fn size(&self) -> u64 {
        BESIDE + TEXTS * self.json.len() as u64
    }

    /// A form of this event worked out once and kept with it in the cache: parsed, rendered for clients, …
    /// One form per type `T`.
    pub fn form<T, E>(&self, work_out: impl FnOnce(&Self) -> Result<T, E>) -> Result<Arc<T>, E>
    where
        T: Send + Sync + 'static,
    {
        let known = self.forms.lock().iter().find_map(|form| form.clone().downcast::<T>().ok());
        if let Some(form) = known {
            return Ok(form);
        }
        let form = Arc::new(work_out(self)?);
        self.forms.lock().push(form.clone());
        Ok(form)
    }
}

/// The form and the id that a stored event begins with.
fn beginning(from: &mut KeyReader<'_>) -> Result<(u8, OwnedEventId), Error> {
    let [form] = from.raw()?;
    let event_id = match form & !PACKED {
        0 => from.text()?.try_into().map_err(|_| Error::Corrupt("event id"))?,
        1 => EventIdKey::from_hash(from.raw()?)?.0,
        _ => return Err(Error::Corrupt("event")),
    };
    Ok((form, event_id))
}

/// The id of a stored event; its JSON is left alone.
pub(super) fn id_in(bytes: &[u8]) -> Result<OwnedEventId, Error> {
    beginning(&mut KeyReader(bytes)).map(|(_, event_id)| event_id)
}

impl Clone for StoredPdu {
    fn clone(&self) -> Self {
        Self::new(self.event_id.clone(), self.json.clone())
    }
}

impl PartialEq for StoredPdu {
    fn eq(&self, other: &Self) -> bool {
        self.event_id == other.event_id && self.json == other.json
    }
}

impl std::fmt::Debug for StoredPdu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoredPdu {} {}", self.event_id, self.json)
    }
}

/// In the first byte of an event: its JSON is packed. Events of format 1 are not.
const PACKED: u8 = 2;

impl Value for StoredPdu {
    fn to_bytes(&self) -> Vec<u8> {
        let hash = EventIdKey(self.event_id.clone()).hash();
        let packed = packed_pdu::pack(&self.json);
        let json = packed.as_deref().unwrap_or(self.json.as_bytes());
        let form = u8::from(hash.is_some()) | if packed.is_some() { PACKED } else { 0 };
        let mut bytes = Vec::with_capacity(1 + self.event_id.as_str().len() + json.len());
        bytes.push(form);
        match hash {
            Some(hash) => bytes.extend_from_slice(&hash),
            None => {
                let mut id = KeyWriter(bytes);
                id.text(self.event_id.as_str());
                bytes = id.0;
            }
        }
        bytes.extend_from_slice(json);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = KeyReader(bytes);
        let (form, event_id) = beginning(&mut from)?;
        if form & PACKED != 0 {
            return Ok(Self::new(event_id, packed_pdu::unpack(from.rest())?));
        }
        let json = str::from_utf8(from.rest()).map_err(|_| Error::Corrupt("event JSON"))?;
        Ok(Self::new(event_id, json))
    }
}

#[cfg(test)]
mod tests {
    use ruma::event_id;

    use super::StoredPdu;
    use crate::Value;

    #[test]
    fn a_form_is_worked_out_once_for_each_type() {
        let pdu = StoredPdu::new(event_id!("$a:x.fr").to_owned(), "{}");
        let mut times = 0;
        for _ in 0..2 {
            pdu.form(|pdu| {
                times += 1;
                Ok::<_, ()>(pdu.json.len())
            })
            .unwrap();
        }
        assert_eq!(times, 1);
        assert_eq!(*pdu.form(|_| Ok::<_, ()>("other".to_owned())).unwrap(), "other");
        assert!(StoredPdu::from_bytes(&[9]).is_err());
    }

    #[test]
    fn events_of_format_1_are_read() {
        let json = "{\"depth\":1}";
        let plain = [b"\0$a:x.fr\0\0", json.as_bytes()].concat();
        let hashed = [&[1], &[0; 32][..], json.as_bytes()].concat();
        let ids = ["$a:x.fr", "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"];
        for (bytes, id) in [plain, hashed].iter().zip(ids) {
            let pdu = StoredPdu::from_bytes(bytes).unwrap();
            assert_eq!((pdu.event_id.as_str(), &*pdu.json), (id, json));
        }
    }
}
