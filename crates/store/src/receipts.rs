//! Read receipts: the latest of each user, kind and thread in a room, and their order of arrival.

use std::collections::BTreeSet;

use chappe_kv::Position;
use ruma::{EventId, OwnedUserId, UserId};

use crate::{
    At, Direction, Reader, Tx, Value,
    events::EventIdKey,
    key::{Key, KeyReader, KeyWriter},
    pack::{Packer, Unpacker},
    rooms::RoomNid,
    table,
    tx::Error,
};

/// Who may see a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReceiptKind {
    /// `m.read`.
    Public,
    /// `m.read.private`: its own user alone.
    Private,
}

impl Key for ReceiptKind {
    fn write(&self, to: &mut KeyWriter) {
        to.raw(&[match self {
            Self::Public => 1,
            Self::Private => 2,
        }]);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
        match from.raw()? {
            [1] => Ok(Self::Public),
            [2] => Ok(Self::Private),
            _ => Err(Error::Corrupt("receipt kind")),
        }
    }
}

/// What a receipt points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The event read; this server need not have it.
    pub event: EventIdKey,
    /// When, in milliseconds since the Unix epoch, as its server says.
    pub ts: u64,
}

impl Value for Receipt {
    fn to_bytes(&self) -> Vec<u8> {
        let mut to = KeyWriter::default();
        self.event.write(&mut to);
        to.raw(&Packer::default().uint(self.ts).done());
        to.0
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = KeyReader(bytes);
        let event = EventIdKey::read(&mut from)?;
        Ok(Self { event, ts: Unpacker::new(from.rest(), "receipt").uint()? })
    }
}

/// Which receipt: a user has one for each kind and thread.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiptKey {
    /// Whose.
    pub user: OwnedUserId,
    /// Public or private.
    pub kind: ReceiptKind,
    /// `main`, a thread root's event id, or empty: unthreaded.
    pub thread: String,
}

impl Key for ReceiptKey {
    fn write(&self, to: &mut KeyWriter) {
        self.user.write(to);
        self.kind.write(to);
        to.text(&self.thread);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
        Ok(Self { user: OwnedUserId::read(from)?, kind: ReceiptKind::read(from)?, thread: from.text()? })
    }
}

table! {
    /// Room and receipt key → the latest.
    Receipts = RECEIPTS: (RoomNid, ReceiptKey) => At<Receipt>;
    /// Room, position and receipt key: what a sync since a position asks for.
    ReceiptOrder = RECEIPT_ORDER: (RoomNid, u64, ReceiptKey) => ();
}

/// A receipt with its place.
pub type ReceiptRow = (ReceiptKey, At<Receipt>);

impl Reader<'_> {
    /// One receipt.
    pub async fn receipt(&self, nid: RoomNid, key: &ReceiptKey) -> Result<Option<At<Receipt>>, Error> {
        self.get::<Receipts>(&(nid, key.clone())).await
    }

    /// All receipts of a user in a room.
    pub async fn user_receipts(&self, nid: RoomNid, user: &UserId) -> Result<Vec<ReceiptRow>, Error> {
        let rows = self.scan_all::<Receipts>(&(nid, user.to_owned())).await?;
        Ok(rows.into_iter().map(|((_, key), at)| (key, at)).collect())
    }

    /// All receipts of a room.
    pub async fn room_receipts(&self, nid: RoomNid) -> Result<Vec<ReceiptRow>, Error> {
        let rows = self.scan_all::<Receipts>(&nid).await?;
        Ok(rows.into_iter().map(|((_, key), at)| (key, at)).collect())
    }

    /// Those who have read on in a room by the commit at a position, and not further since.
    pub async fn readers_at(&self, nid: RoomNid, at: Position) -> Result<BTreeSet<OwnedUserId>, Error> {
        let rows = self.scan_all::<ReceiptOrder>(&(nid, at.0)).await?;
        Ok(rows.into_iter().map(|((_, _, key), ())| key.user).collect())
    }

    /// The commit of a room's last receipt.
    pub async fn last_receipt(&self, nid: RoomNid) -> Result<Option<Position>, Error> {
        let rows = self.scan::<ReceiptOrder>(&nid, Direction::Backward, 1).await?;
        Ok(rows.first().map(|((_, at, _), ())| Position(*at)))
    }

    /// The receipts of a room that came after a position, oldest first: O(changes), two round trips.
    pub async fn receipts_after(&self, nid: RoomNid, after: Position) -> Result<Vec<ReceiptRow>, Error> {
        let end = (RoomNid(nid.0.saturating_add(1)), 0u64);
        let rows = self.scan_between::<ReceiptOrder>(&(nid, after.0 + 1), &end).await?;
        self.in_order(rows).await
    }

    /// The receipts of a room that came last after a position, the latest first: O(limit), two round trips.
    pub async fn latest_receipts(
        &self,
        nid: RoomNid,
        after: Position,
        limit: usize,
    ) -> Result<Vec<ReceiptRow>, Error> {
        let end = (RoomNid(nid.0.saturating_add(1)), 0u64);
        let rows = self.scan_back::<ReceiptOrder>(&(nid, after.0 + 1), &end, limit).await?;
        self.in_order(rows).await
    }

    async fn in_order(&self, rows: Vec<((RoomNid, u64, ReceiptKey), ())>) -> Result<Vec<ReceiptRow>, Error> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<_> = rows.into_iter().map(|((nid, _, key), ())| (nid, key)).collect();
        let found = self.get_many::<Receipts>(&keys).await?;
        Ok(keys.into_iter().zip(found).filter_map(|((_, key), at)| Some((key, at?))).collect())
    }
}

impl Tx {
    /// Replaces a receipt. Conflict if it is no longer `old`.
    pub fn put_receipt(
        &mut self,
        nid: RoomNid,
        key: &ReceiptKey,
        old: Option<&At<Receipt>>,
        (event, ts): (&EventId, u64),
    ) -> &mut Self {
        let full = (nid, key.clone());
        self.expect::<Receipts>(&full, old);
        if let Some(old) = old {
            self.delete::<ReceiptOrder>(&(nid, old.position.0, key.clone()));
        }
        self.put_now::<Receipts, _>(&full, &Receipt { event: event.into(), ts });
        self.put_at_position::<ReceiptOrder>(&nid, key, &())
    }

    /// Removes a receipt. Conflict if it is no longer `old`.
    pub fn delete_receipt(&mut self, nid: RoomNid, key: &ReceiptKey, old: &At<Receipt>) -> &mut Self {
        let full = (nid, key.clone());
        self.expect::<Receipts>(&full, Some(old)).delete::<Receipts>(&full);
        self.delete::<ReceiptOrder>(&(nid, old.position.0, key.clone()))
    }
}
