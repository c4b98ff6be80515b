//! Client transactions: the same request again gives the same event, and the sender's device recognises its own.

use ring::digest::{SHA256, digest};
use ruma::{OwnedDeviceId, OwnedEventId, OwnedUserId};

use crate::{
    Reader, Tx,
    events::EventNum,
    key::{Key, KeyReader, KeyWriter},
    pack::{Packer, Unpacker},
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

impl TransactionKey {
    /// SHA-256 of all parts, told apart: what is kept of a key.
    pub fn hash(&self) -> [u8; 32] {
        let mut to = KeyWriter::default();
        self.user.write(&mut to);
        self.device.write(&mut to);
        to.text(&self.scope).text(&self.txn);
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &to.0).as_ref());
        hash
    }
}

/// When a transaction was done, and the hash of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Milliseconds since the Unix epoch.
    pub at: u64,
    /// Key of [`Transactions`].
    pub key: [u8; 32],
}

impl Value for Done {
    fn to_bytes(&self) -> Vec<u8> {
        Packer::default().raw(&self.key).uint(self.at).done()
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Unpacker::new(bytes, "transaction");
        Ok(Self { key: from.fixed()?, at: from.uint()? })
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
    /// SHA-256 of a transaction's key → the event it made.
    Transactions = TRANSACTIONS: [u8; 32] => (RoomNid, EventNum);
    /// Event → the transaction it came from.
    EventTransactions = EVENT_TRANSACTIONS: (RoomNid, EventNum) => EventTransaction;
    /// Position, room and event → when, and which transaction.
    TransactionOrder = TRANSACTION_ORDER: (u64, (RoomNid, EventNum)) => Done;
}

impl Reader<'_> {
    /// The event a transaction made before.
    pub async fn transaction(&self, key: &TransactionKey) -> Result<Option<OwnedEventId>, Error> {
        match self.get::<Transactions>(&key.hash()).await? {
            Some((nid, num)) => Ok(Some(self.pdu(nid, num).await?.event_id.clone())),
            None => Ok(None),
        }
    }
}

impl Tx {
    /// Remembers a transaction done at `at` (milliseconds since the Unix epoch) and its event. Conflict if the same
    /// transaction was done by then.
    pub fn put_transaction(
        &mut self,
        key: &TransactionKey,
        at: u64,
        (nid, num): (RoomNid, EventNum),
    ) -> &mut Self {
        let hash = key.hash();
        self.expect_absent::<Transactions>(&hash);
        self.put::<Transactions>(&hash, &(nid, num));
        let from = EventTransaction { device: key.device.clone(), txn: key.txn.clone() };
        self.put::<EventTransactions>(&(nid, num), &from);
        self.put_at_position::<TransactionOrder>(&(), &(nid, num), &Done { at, key: hash })
    }

    /// Forgets the transactions of `reader` that were done before `before` (milliseconds since the Unix epoch), the
    /// oldest `limit` at most. Those up to the position `gone` are forgotten already: they are not walked over again.
    /// Gives how many, and up to where they are gone then.
    pub async fn forget_transactions(
        &mut self,
        reader: &Reader<'_>,
        (gone, before): (u64, u64),
        limit: usize,
    ) -> Result<(usize, u64), Error> {
        let rows = reader.scan_from::<TransactionOrder>(&(), &gone, limit).await?;
        let old: Vec<_> = rows.iter().take_while(|(_, done)| done.at < before).collect();
        for (row, done) in &old {
            self.delete::<Transactions>(&done.key);
            self.delete::<EventTransactions>(&row.1);
            self.delete::<TransactionOrder>(row);
        }
        Ok((old.len(), old.last().map_or(gone, |((position, _), _)| *position)))
    }
}

#[cfg(test)]
mod tests {
    use chappe_kv::{Db, Memory};
    use ruma::owned_user_id;

    use super::{TransactionKey, TransactionOrder, Transactions};
    use crate::{EventNum, RoomNid, Store, Tx};

    #[tokio::test]
    async fn old_transactions_are_forgotten_oldest_first() {
        let store = Store::open(Db::new(Memory::default())).await.unwrap();
        let key = |txn: u32| TransactionKey {
            user: owned_user_id!("@a:x.fr"),
            device: "D".into(),
            scope: "send".to_owned(),
            txn: txn.to_string(),
        };
        for txn in 1..=5u32 {
            let mut tx = Tx::new();
            tx.put_transaction(&key(txn), u64::from(txn) * 10, (RoomNid(1), EventNum(txn)));
            store.commit(tx).await.unwrap();
        }
        let mut again = Tx::new();
        again.put_transaction(&key(5), 60, (RoomNid(1), EventNum(6)));
        assert!(store.commit(again).await.is_err(), "a transaction is done once");
        let mut tx = Tx::new();
        let (count, gone) = tx.forget_transactions(&store.read(), (0, 40), 2).await.unwrap();
        assert_eq!(count, 2);
        store.commit(tx).await.unwrap();
        let mut tx = Tx::new();
        assert_eq!(tx.forget_transactions(&store.read(), (gone, 40), 9).await.unwrap().0, 1);
        store.commit(tx).await.unwrap();
        let reader = store.read();
        assert_eq!(reader.scan_all::<Transactions>(&()).await.unwrap().len(), 2);
        assert_eq!(reader.scan_all::<TransactionOrder>(&()).await.unwrap().len(), 2);
        let nums: Vec<EventNum> = (1..=5).map(EventNum).collect();
        let known = reader.event_origins(RoomNid(1), &nums).await.unwrap();
        let known: Vec<_> = known.into_iter().map(|(sent, _)| sent.map(|sent| sent.txn)).collect();
        assert_eq!(known, [None, None, None, Some("4".to_owned()), Some("5".to_owned())]);
    }
}
