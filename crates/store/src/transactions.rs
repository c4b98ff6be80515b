//! Client transactions: the same request again gives the same event, and the sender's device recognises its own.

use chappe_kv::Position;
use ruma::{DeviceId, OwnedDeviceId, OwnedEventId, OwnedUserId, UserId};

use crate::{
    At, Reader, Tx,
    events::EventNum,
    key::{Key, KeyReader, KeyWriter},
    rooms::RoomNid,
    table,
    tx::Error,
    value::Value,
};

/// What identifies a client's transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TransactionKey {
    /// Whose.
    pub user: OwnedUserId,
    /// From which device.
    pub device: OwnedDeviceId,
    /// What for: endpoint and room, such as `send/!room:server`; the same id elsewhere is another transaction.
    pub scope: String,
    /// The client's transaction id.
    pub txn: String,
}

impl Key for TransactionKey {
    fn write(&self, to: &mut KeyWriter) {
        self.user.write(to);
        self.device.write(to);
        to.text(&self.scope).text(&self.txn);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
        Ok(Self {
            user: OwnedUserId::read(from)?,
            device: OwnedDeviceId::read(from)?,
            scope: from.text()?,
            txn: from.text()?,
        })
    }
}

/// The device and transaction an event came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTransaction {
    /// The sender's device.
    pub device: OwnedDeviceId,
    /// Its transaction id.
    pub txn: String,
}

impl Value for EventTransaction {
    fn to_bytes(&self) -> Vec<u8> {
        let mut to = KeyWriter::default();
        to.text(self.device.as_str()).raw(self.txn.as_bytes());
        to.0
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = KeyReader(bytes);
        let device = OwnedDeviceId::read(&mut from)?;
        let txn = String::from_utf8(from.rest().to_vec()).map_err(|_| Error::Corrupt("transaction id"))?;
        Ok(Self { device, txn })
    }
}

table! {
    /// Transaction → the event it made.
    Transactions = TRANSACTIONS: TransactionKey => At<String>;
    /// Event → the transaction it came from.
    EventTransactions = EVENT_TRANSACTIONS: (RoomNid, EventNum) => EventTransaction;
}

impl Reader<'_> {
    /// The event a transaction made before.
    pub async fn transaction(&self, key: &TransactionKey) -> Result<Option<OwnedEventId>, Error> {
        let found = self.get::<Transactions>(key).await?;
        found.map(|at| at.value.try_into().map_err(|_| Error::Corrupt("event id"))).transpose()
    }

    /// The transactions of several events, in their order, where `device` sent them: one round trip.
    pub async fn event_transactions(
        &self,
        nid: RoomNid,
        nums: &[EventNum],
        device: &DeviceId,
    ) -> Result<Vec<Option<String>>, Error> {
        let keys: Vec<_> = nums.iter().map(|num| (nid, *num)).collect();
        let rows = self.get_many::<EventTransactions>(&keys).await?;
        Ok(rows.into_iter().map(|row| Some(row.filter(|row| row.device == device)?.txn)).collect())
    }

    /// Up to `limit` of a user's transactions last written before `before`: what a sweep of old ones deletes.
    pub async fn old_transactions(
        &self,
        user: &UserId,
        before: Position,
        limit: usize,
    ) -> Result<Vec<TransactionKey>, Error> {
        let rows = self.scan::<Transactions>(&user.to_owned(), crate::Direction::Forward, limit).await?;
        Ok(rows.into_iter().filter(|(_, at)| at.position < before).map(|(key, _)| key).collect())
    }
}

impl Tx {
    /// Remembers a transaction and its event. Conflict if the same transaction was finished by then.
    pub fn put_transaction(
        &mut self,
        key: &TransactionKey,
        event: &OwnedEventId,
        (nid, num): (RoomNid, EventNum),
    ) -> &mut Self {
        self.expect_absent::<Transactions>(key);
        self.put_now::<Transactions, _>(key, &event.as_str().to_owned());
        let from = EventTransaction { device: key.device.clone(), txn: key.txn.clone() };
        self.put::<EventTransactions>(&(nid, num), &from)
    }
}
