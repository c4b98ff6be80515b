//! Thread subscriptions: which threads a user follows (MSC4306), and the order in which that changed.

use chappe_kv::Position;
use ruma::{EventId, OwnedUserId, UserId};

use crate::{
    At, Reader, Tx, Value,
    events::EventIdKey,
    pack::{Packer, Unpacker},
    rooms::RoomNid,
    table,
    tx::Error,
};

/// Whether a user follows a thread, as last said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadSubscription {
    /// They do, or do no longer.
    pub subscribed: bool,
    /// A client said so by itself.
    pub automatic: bool,
    /// Where the room's live end was when they ceased: events before this place subscribe nobody by themselves.
    pub ceased_at: i64,
}

impl Value for ThreadSubscription {
    fn to_bytes(&self) -> Vec<u8> {
        let flags = u64::from(self.subscribed) | u64::from(self.automatic) << 1;
        Packer::default().uint(flags).int(self.ceased_at).done()
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Unpacker::new(bytes, "thread subscription");
        let flags = from.uint()?;
        Ok(Self { subscribed: flags & 1 != 0, automatic: flags & 2 != 0, ceased_at: from.int()? })
    }
}

table! {
    /// User, room and thread root → whether they follow it.
    ThreadSubscriptions = THREAD_SUBSCRIPTIONS: (OwnedUserId, RoomNid, EventIdKey) => At<ThreadSubscription>;
    /// User, commit, room and thread root: the last change of each.
    ThreadSubscriptionOrder = THREAD_SUBSCRIPTION_ORDER: (OwnedUserId, u64, (RoomNid, EventIdKey)) => ();
    /// User → rows.
    ThreadSubscriptionCounts = THREAD_SUBSCRIPTION_COUNTS: OwnedUserId => i64;
}

/// A changed subscription: room, thread root, what it is now.
pub type ThreadSubscriptionRow = (RoomNid, EventIdKey, At<ThreadSubscription>);

impl Reader<'_> {
    /// Whether a user follows a thread; none if they never did.
    pub async fn thread_subscription(
        &self,
        user: &UserId,
        nid: RoomNid,
        root: &EventId,
    ) -> Result<Option<At<ThreadSubscription>>, Error> {
        self.get::<ThreadSubscriptions>(&(user.to_owned(), nid, root.into())).await
    }

    /// The subscriptions of a user that changed after a position up to another, the last first: at most `limit`.
    pub async fn thread_subscriptions(
        &self,
        user: &UserId,
        (after, up_to): (Position, Position),
        limit: usize,
    ) -> Result<Vec<ThreadSubscriptionRow>, Error> {
        let user = user.to_owned();
        let beyond = (user.clone(), up_to.0.saturating_add(1));
        let rows = self.scan_back::<ThreadSubscriptionOrder>(&user, &beyond, limit).await?;
        let news = rows.into_iter().filter(|((_, position, _), ())| *position > after.0);
        let keys: Vec<_> = news.map(|((user, _, (nid, root)), ())| (user, nid, root)).collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.get_many::<ThreadSubscriptions>(&keys).await?;
        Ok(keys.into_iter().zip(found).filter_map(|((_, nid, root), at)| Some((nid, root, at?))).collect())
    }
}

impl Tx {
    /// Sets whether a user follows a thread. Conflict if that is no longer `old`.
    pub fn put_thread_subscription(
        &mut self,
        user: &UserId,
        (nid, root): (RoomNid, &EventId),
        old: Option<&At<ThreadSubscription>>,
        new: &ThreadSubscription,
    ) -> &mut Self {
        let place = (nid, EventIdKey::from(root));
        let key = (user.to_owned(), place.0, place.1.clone());
        self.expect::<ThreadSubscriptions>(&key, old);
        match old {
            Some(old) => {
                self.delete::<ThreadSubscriptionOrder>(&(key.0.clone(), old.position.0, place.clone()))
            }
            None => self.add::<ThreadSubscriptionCounts>(&key.0, 1),
        };
        self.put_now::<ThreadSubscriptions, _>(&key, new);
        self.put_at_position::<ThreadSubscriptionOrder>(&key.0, &place, &())
    }
}

#[cfg(test)]
mod tests {
    use chappe_kv::{Db, Memory, Position};
    use ruma::{event_id, user_id};

    use super::{ThreadSubscription, ThreadSubscriptionCounts};
    use crate::{RoomNid, Store, Tx};

    #[tokio::test]
    async fn only_the_last_change_of_each_is_told_and_the_latest_first() {
        let store = Store::new(Db::new(Memory::default()));
        let (user, nid) = (user_id!("@a:x.fr"), RoomNid(1));
        let set = async |root: &ruma::EventId, subscribed| {
            let old = store.read().thread_subscription(user, nid, root).await.unwrap();
            let new = ThreadSubscription { subscribed, automatic: false, ceased_at: 0 };
            let mut tx = Tx::new();
            tx.put_thread_subscription(user, (nid, root), old.as_ref(), &new);
            store.commit(tx).await.unwrap()
        };
        let (one, two) = (event_id!("$one"), event_id!("$two"));
        set(one, true).await;
        let middle = set(two, true).await;
        let last = set(one, false).await;
        let reader = store.read();
        let told = async |after, up_to, limit| {
            let rows = reader.thread_subscriptions(user, (after, up_to), limit).await.unwrap();
            rows.into_iter().map(|(_, root, at)| (root.0, at.value.subscribed)).collect::<Vec<_>>()
        };
        let all = [(one.to_owned(), false), (two.to_owned(), true)];
        assert_eq!(told(Position(0), last, 9).await, all);
        assert_eq!(told(middle, last, 9).await, all[..1]);
        assert_eq!(told(Position(0), middle, 9).await, all[1..]);
        assert_eq!(told(Position(0), last, 1).await, all[..1]);
        assert_eq!(reader.get::<ThreadSubscriptionCounts>(&user.to_owned()).await.unwrap(), Some(2));
    }
}
