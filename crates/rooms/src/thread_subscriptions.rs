//! Thread subscriptions (MSC4306): which threads a user follows.

use chappe_store::{
    LogEntry, Position, Reader, Tx,
    thread_subscriptions::{ThreadSubscription, ThreadSubscriptionCounts},
};
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId, UserId};

use crate::{Error, Result, Rooms, read::view::Event, turn::ATTEMPTS};

/// Threads that a user may follow or have followed.
const MOST: i64 = 20_000;

/// A subscription that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionChange {
    /// Where.
    pub room: OwnedRoomId,
    /// The thread's root.
    pub root: OwnedEventId,
    /// Whether a client subscribed by itself; none: unsubscribed.
    pub automatic: Option<bool>,
    /// The commit of the change.
    pub position: Position,
}

/// Some of a user's changed subscriptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionsPage {
    /// The last first.
    pub changes: Vec<SubscriptionChange>,
    /// There are older ones up to here.
    pub more: Option<Position>,
}

impl Rooms {
    /// Whether the user follows a thread: none if not, else whether a client subscribed by itself.
    /// [`Error::NotFound`] if the user may not see the root.
    pub async fn thread_subscription(
        &self,
        user: &UserId,
        room: &RoomId,
        root: &EventId,
    ) -> Result<Option<bool>> {
        let view = self.view(room).await.map_err(|_| Error::NotFound("event"))?;
        view.seen_by(user, root).await?;
        let found = view.reader.thread_subscription(user, view.nid, root).await?;
        Ok(found.filter(|found| found.value.subscribed).map(|found| found.value.automatic))
    }

    /// Lets the user follow a thread. With a `cause`, a client does so by itself because of that event of the thread:
    /// that changes nothing if the user follows already, and is refused with [`Error::Unsubscribed`] if they ceased
    /// to after the event. [`Error::NotFound`] if the user may not see the root; [`Error::NotInThread`].
    pub async fn subscribe_to_thread(
        &self,
        user: &UserId,
        room: &RoomId,
        root: &EventId,
        cause: Option<&EventId>,
    ) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let view = self.view(room).await.map_err(|_| Error::NotFound("event"))?;
            view.seen_by(user, root).await?;
            let cause = match cause {
                None => None,
                Some(cause) => {
                    let seen = view.seen_by(user, cause).await.map_err(|_| Error::NotInThread)?;
                    Some(place_in_thread(&seen.event, root).ok_or(Error::NotInThread)?)
                }
            };
            let old = view.reader.thread_subscription(user, view.nid, root).await?;
            match (&old, cause) {
                (Some(old), Some(_)) if old.value.subscribed => return Ok(()),
                (Some(old), None) if old.value.subscribed && !old.value.automatic => return Ok(()),
                (Some(old), Some(place)) if place < old.value.ceased_at => return Err(Error::Unsubscribed),
                (None, _) => check_quota(&view.reader, user).await?,
                _ => {}
            }
            let new =
                ThreadSubscription { subscribed: true, automatic: cause.is_some(), ceased_at: i64::MIN };
            let mut tx = Tx::new();
            tx.put_thread_subscription(user, (view.nid, root), old.as_ref(), &new);
            drop(view);
            match self.put(user, tx).await {
                Err(Error::Retry) => {}
                other => return other,
            }
        }
        Err(Error::Retry)
    }

    /// The user no longer follows a thread. [`Error::NotFound`] if the user may not see the root.
    pub async fn unsubscribe_from_thread(&self, user: &UserId, room: &RoomId, root: &EventId) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let view = self.view(room).await.map_err(|_| Error::NotFound("event"))?;
            view.seen_by(user, root).await?;
            let old = view.reader.thread_subscription(user, view.nid, root).await?;
            let Some(old) = old.filter(|old| old.value.subscribed) else { return Ok(()) };
            let ceased_at = view.head.next_live;
            let new = ThreadSubscription { subscribed: false, automatic: false, ceased_at };
            let mut tx = Tx::new();
            tx.put_thread_subscription(user, (view.nid, root), Some(&old), &new);
            drop(view);
            match self.put(user, tx).await {
                Err(Error::Retry) => {}
                other => return other,
            }
        }
        Err(Error::Retry)
    }

    async fn put(&self, user: &UserId, mut tx: Tx) -> Result<()> {
        tx.log(LogEntry::ThreadSubscription { user: user.to_owned() });
        self.store().commit(tx).await?;
        Ok(())
    }

    /// The user's subscriptions that changed after a position up to another (none: now), the last first, at most
    /// `limit`.
    ///
    /// Specification: MSC4308.
    pub async fn thread_subscriptions(
        &self,
        user: &UserId,
        after: Position,
        up_to: Option<Position>,
        limit: usize,
    ) -> Result<SubscriptionsPage> {
        let reader = self.store().read();
        let up_to = up_to.unwrap_or(reader.position());
        changed_subscriptions(&reader, user, (after, up_to), limit).await
    }
}

/// The same as of a snapshot.
pub async fn changed_subscriptions(
    reader: &Reader<'_>,
    user: &UserId,
    between: (Position, Position),
    limit: usize,
) -> Result<SubscriptionsPage> {
    let mut rows = reader.thread_subscriptions(user, between, limit.saturating_add(1)).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows.last().map(|(_, _, at)| Position(at.position.0.saturating_sub(1)));
    let mut page = SubscriptionsPage { changes: Vec::with_capacity(rows.len()), more: last.filter(|_| more) };
    for (nid, root, at) in rows {
        let room = reader.room_id(nid).await?;
        let automatic = at.value.subscribed.then_some(at.value.automatic);
        page.changes.push(SubscriptionChange { room, root: root.0, automatic, position: at.position });
    }
    Ok(page)
}

async fn check_quota(reader: &Reader<'_>, user: &UserId) -> Result<()> {
    let count = reader.get::<ThreadSubscriptionCounts>(&user.to_owned()).await?.unwrap_or(0);
    if count >= MOST { Err(Error::TooLarge("too many thread subscriptions".to_owned())) } else { Ok(()) }
}

/// Where an event of a thread is in the timeline; none if it is not in the thread of `root`.
fn place_in_thread(event: &Event, root: &EventId) -> Option<i64> {
    let (kind, parent) = event.pdu.relation()?;
    (kind == "m.thread" && parent == root).then_some(event.meta.ordinal?)
}
