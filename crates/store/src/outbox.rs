//! What waits to be sent to other servers, and how reaching each of them went.

use std::collections::BTreeMap;

use ruma::{OwnedDeviceId, OwnedServerName, OwnedUserId, ServerName};
use serde::{Deserialize, Serialize};

use crate::{Direction, Error, Index, Json, LogEntry, Reader, Tx, Value, table};

/// One thing to deliver to one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboxItem {
    /// An event, by its room's number and its own number in the room.
    Pdu {
        /// Room number.
        room: u32,
        /// Event number in the room.
        event: u32,
    },
    /// The content of an `m.direct_to_device` EDU, as JSON text.
    ToDevice(String),
    /// A device of a local user changed: an `m.device_list_update`, written out when it is sent.
    Device {
        /// Whose.
        user: OwnedUserId,
        /// Which; it may be gone.
        device: OwnedDeviceId,
        /// The update's stream id; the one before is one less.
        stream_id: u64,
    },
    /// The cross-signing keys of a local user changed: an `m.signing_key_update`, written out when it is sent.
    SigningKeys(OwnedUserId),
    /// A local user came to share a room: an `m.device_list_update` that names none before it, so that whoever does not have this
    /// very stream id fetches the list.
    Introduction {
        /// Whose.
        user: OwnedUserId,
        /// One of the user's devices; it may be gone.
        device: OwnedDeviceId,
        /// The stream id of the last update.
        stream_id: u64,
    },
    /// An event of a room that was removed here meanwhile, as JSON text.
    Event(String),
}

fn device_bytes(tag: u8, user: &OwnedUserId, device: &OwnedDeviceId, stream_id: u64) -> Vec<u8> {
    [&[tag], &stream_id.to_be_bytes()[..], user.as_bytes(), &[0], device.as_bytes()].concat()
}

fn read_device(rest: &[u8]) -> Option<(OwnedUserId, OwnedDeviceId, u64)> {
    let (stream_id, rest) = rest.split_first_chunk::<8>()?;
    let (user, device) = std::str::from_utf8(rest).ok()?.split_once('\0')?;
    Some((user.try_into().ok()?, device.into(), u64::from_be_bytes(*stream_id)))
}

impl Value for OutboxItem {
    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Pdu { room, event } => {
                let mut bytes = vec![0];
                bytes.extend_from_slice(&room.to_be_bytes());
                bytes.extend_from_slice(&event.to_be_bytes());
                bytes
            }
            Self::ToDevice(content) => [&[1], content.as_bytes()].concat(),
            Self::Device { user, device, stream_id } => device_bytes(2, user, device, *stream_id),
            Self::SigningKeys(user) => [&[3], user.as_bytes()].concat(),
            Self::Introduction { user, device, stream_id } => device_bytes(4, user, device, *stream_id),
            Self::Event(json) => [&[5], json.as_bytes()].concat(),
        }
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let damaged = Error::Corrupt("outbox item");
        let (tag, rest) = bytes.split_first().ok_or(damaged.clone())?;
        let text = || String::from_utf8(rest.to_vec()).map_err(|_| Error::Corrupt("outbox item"));
        match tag {
            0 => {
                let (room, event) = rest.split_first_chunk::<4>().ok_or(damaged.clone())?;
                let event = event.try_into().map_err(|_| damaged)?;
                Ok(Self::Pdu { room: u32::from_be_bytes(*room), event: u32::from_be_bytes(event) })
            }
            1 => text().map(Self::ToDevice),
            2 => {
                let (user, device, stream_id) = read_device(rest).ok_or(damaged)?;
                Ok(Self::Device { user, device, stream_id })
            }
            3 => text()?.try_into().map(Self::SigningKeys).map_err(|_| damaged),
            4 => {
                let (user, device, stream_id) = read_device(rest).ok_or(damaged)?;
                Ok(Self::Introduction { user, device, stream_id })
            }
            5 => text().map(Self::Event),
            _ => Err(damaged),
        }
    }
}

/// How reaching a destination went. Absent: well, never tried, or nothing waits for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationState {
    /// Failed attempts in a row.
    pub failures: u32,
    /// Not to be tried before this time (milliseconds since the Unix epoch).
    pub retry_at: u64,
    /// When the first of these failures was (milliseconds since the Unix epoch).
    pub failing_since: u64,
    /// What it refused, being there: its queue alone waits for that.
    #[serde(default, skip_serializing_if = "Refusals::is_none")]
    pub refused: Refusals,
    /// The last outbox row, `(position, index)`, of the transaction that is being tried; its retry has the same rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<(u64, Index)>,
    /// The id of that transaction; its retry has the same one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<String>,
}

impl DestinationState {
    /// When the queue may be gone on with (milliseconds since the Unix epoch).
    pub fn send_at(&self) -> u64 {
        self.retry_at.max(self.refused.retry_at)
    }
}

/// Transactions in a row that a destination was sent and did not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// How many.
    pub count: u32,
    /// When the first of them was (milliseconds since the Unix epoch).
    pub since: u64,
    /// No transaction is sent before this time (milliseconds since the Unix epoch).
    pub retry_at: u64,
}

impl Refusals {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// An event that another server was told has arrived, before it was dealt with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Later {
    /// Who sent it.
    pub origin: OwnedServerName,
    /// The event as received, JSON text.
    pub pdu: String,
}

/// What other servers were told of a local user's devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// The stream id of the last update.
    pub stream_id: u64,
    /// Device → fingerprint of what was told.
    pub devices: BTreeMap<OwnedDeviceId, u64>,
    /// Fingerprint of the cross-signing keys; 0 for none.
    pub signing_keys: u64,
}

/// Key of an [`Outbox`] row.
pub type OutboxKey = (OwnedServerName, u64, Index);

/// The first key that a row of a destination's queue may have behind another.
pub fn behind(destination: &ServerName, (position, index): (u64, Index)) -> OutboxKey {
    (destination.to_owned(), position, Index(index.0.saturating_add(1)))
}

table! {
    /// `(destination, position of the commit, index within it)` → what to deliver.
    Outbox = OUTBOX: (OwnedServerName, u64, Index) => OutboxItem;
    /// Destination → how reaching it went.
    Destinations = DESTINATIONS: OwnedServerName => Json<DestinationState>;
    /// `(room id as received, position of the commit, index within it)` → an event still to be dealt with.
    ReceivedLater = RECEIVED_LATER: (String, u64, u16) => Json<Later>;
    /// Local user → what other servers were told of the user's devices.
    AnnouncedDevices = ANNOUNCED_DEVICES: OwnedUserId => Json<Announced>;
}

impl Tx {
    /// Puts an item at the end of a destination's queue and wakes its sender: write it in the transaction that makes it.
    pub fn enqueue(&mut self, destination: &ServerName, item: &OutboxItem) -> &mut Self {
        let index = self.logged();
        self.put_at_position::<Outbox>(&destination.to_owned(), &index, item);
        self.log(LogEntry::Outbox { destination: destination.to_owned() })
    }
}

impl Reader<'_> {
    /// The first `limit` rows of a destination's queue, oldest first.
    pub async fn outbox(
        &self,
        destination: &ServerName,
        limit: usize,
    ) -> Result<Vec<(OutboxKey, OutboxItem)>, Error> {
        self.scan::<Outbox>(&destination.to_owned(), Direction::Forward, limit).await
    }

    /// How many rows a destination's queue has, counted up to `most`: a page at a time, as some are long.
    pub async fn outbox_length(&self, destination: &ServerName, most: usize) -> Result<usize, Error> {
        const PAGE: usize = 200;
        let (mut from, mut length): (OutboxKey, usize) = ((destination.to_owned(), 0, Index(0)), 0);
        loop {
            let limit = PAGE.min(most.saturating_sub(length));
            let rows = self.scan_from::<Outbox>(&destination.to_owned(), &from, limit).await?;
            length += rows.len();
            match rows.last() {
                Some(((_, position, index), _)) if length < most => {
                    from = behind(destination, (*position, *index));
                }
                _ => return Ok(length),
            }
        }
    }

    /// Every destination that has something in its queue, in the order of names.
    pub async fn outbox_destinations(&self) -> Result<Vec<OwnedServerName>, Error> {
        let (mut all, mut last) = (Vec::new(), None::<OwnedServerName>);
        while let Some(next) = self.next_outbox_destination(last.as_deref()).await? {
            all.push(next.clone());
            last = Some(next);
        }
        Ok(all)
    }

    /// The destination after `after`, in the order of names, that has something in its queue.
    pub async fn next_outbox_destination(
        &self,
        after: Option<&ServerName>,
    ) -> Result<Option<OwnedServerName>, Error> {
        let rows = match after {
            None => self.scan::<Outbox>(&(), Direction::Forward, 1).await?,
            Some(after) => {
                self.scan_from::<Outbox>(&(), &(after.to_owned(), u64::MAX, Index(u32::MAX)), 1).await?
            }
        };
        Ok(rows.into_iter().map(|((destination, ..), _)| destination).find(|d| Some(&**d) != after))
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_user_id, server_name};

    use super::*;
    use crate::Store;

    #[test]
    fn golden_bytes() {
        assert_eq!(OutboxItem::Pdu { room: 1, event: 258 }.to_bytes(), [0, 0, 0, 0, 1, 0, 0, 1, 2]);
        assert_eq!(OutboxItem::ToDevice("{}".to_owned()).to_bytes(), b"\x01{}");
        let device = OutboxItem::Device { user: owned_user_id!("@a:b"), device: "D".into(), stream_id: 3 };
        assert_eq!(device.to_bytes(), b"\x02\0\0\0\0\0\0\0\x03@a:b\0D");
        assert_eq!(OutboxItem::SigningKeys(owned_user_id!("@a:b")).to_bytes(), b"\x03@a:b");
        let introduction =
            OutboxItem::Introduction { user: owned_user_id!("@a:b"), device: "D".into(), stream_id: 3 };
        assert_eq!(introduction.to_bytes(), b"\x04\0\0\0\0\0\0\0\x03@a:b\0D");
        assert_eq!(OutboxItem::Event("{}".to_owned()).to_bytes(), b"\x05{}");
    }

    #[test]
    fn rows_from_before_refusals_were_kept_are_read_and_written_alike() {
        let row = r#"{"failures":2,"retry_at":3,"failing_since":1}"#;
        let state: DestinationState = serde_json::from_str(row).unwrap();
        assert_eq!((state.failures, state.refused), (2, Refusals::default()));
        assert_eq!(serde_json::to_string(&state).unwrap(), row);
    }

    #[test]
    fn a_transaction_that_is_tried_may_have_no_id_from_before() {
        let row = r#"{"failures":2,"retry_at":3,"failing_since":1,"tried":[4,2]}"#;
        let mut state: DestinationState = serde_json::from_str(row).unwrap();
        assert_eq!((state.tried, &state.transaction), (Some((4, Index(2))), &None));
        state.transaction = Some("5.x".to_owned());
        let row = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<DestinationState>(&row).unwrap(), state);
    }

    #[test]
    fn items_come_back() {
        for item in [
            OutboxItem::Pdu { room: 7, event: u32::MAX },
            OutboxItem::ToDevice("{\"a\":1}".to_owned()),
            OutboxItem::Device { user: owned_user_id!("@a:b"), device: "D".into(), stream_id: u64::MAX },
            OutboxItem::SigningKeys(owned_user_id!("@a:b")),
            OutboxItem::Introduction { user: owned_user_id!("@a:b"), device: "D".into(), stream_id: 1 },
            OutboxItem::Event("{\"a\":1}".to_owned()),
        ] {
            assert_eq!(OutboxItem::from_bytes(&item.to_bytes()).unwrap(), item);
        }
        assert!(OutboxItem::from_bytes(&[]).is_err());
        assert!(OutboxItem::from_bytes(&[0, 1]).is_err());
        assert!(OutboxItem::from_bytes(&[9]).is_err());
    }

    #[tokio::test]
    async fn queues_keep_order_and_are_found_by_destination() {
        let store = Store::new(chappe_kv::Db::new(chappe_kv::Memory::default()));
        let (a, b) = (server_name!("a.example"), server_name!("b.example"));
        let mut tx = Tx::new();
        tx.enqueue(b, &OutboxItem::Pdu { room: 1, event: 1 });
        tx.enqueue(b, &OutboxItem::Pdu { room: 1, event: 2 });
        tx.enqueue(a, &OutboxItem::ToDevice("{}".to_owned()));
        store.commit(tx).await.unwrap();
        let mut tx = Tx::new();
        tx.enqueue(b, &OutboxItem::Pdu { room: 1, event: 3 });
        store.commit(tx).await.unwrap();
        let reader = store.read();
        let events: Vec<_> = reader.outbox(b, 10).await.unwrap().into_iter().map(|(_, item)| item).collect();
        assert_eq!(events, [1, 2, 3].map(|event| OutboxItem::Pdu { room: 1, event }));
        assert_eq!(reader.next_outbox_destination(None).await.unwrap().unwrap(), a);
        assert_eq!(reader.next_outbox_destination(Some(a)).await.unwrap().unwrap(), b);
        assert_eq!(reader.next_outbox_destination(Some(b)).await.unwrap(), None);
        assert_eq!(reader.outbox_destinations().await.unwrap(), [a, b]);
    }

    #[tokio::test]
    async fn queues_are_counted_up_to_a_limit() {
        let store = Store::new(chappe_kv::Db::new(chappe_kv::Memory::default()));
        let (a, b) = (server_name!("a.example"), server_name!("b.example"));
        let mut tx = Tx::new();
        for event in 0..450 {
            tx.enqueue(a, &OutboxItem::Pdu { room: 1, event });
        }
        tx.enqueue(b, &OutboxItem::Event("{}".to_owned()));
        store.commit(tx).await.unwrap();
        let reader = store.read();
        for (most, length) in [(1_000, 450), (450, 450), (400, 400), (7, 7)] {
            assert_eq!(reader.outbox_length(a, most).await.unwrap(), length);
        }
        assert_eq!(reader.outbox_length(b, 1_000).await.unwrap(), 1);
    }
}
