//! Events that wait for their time, and for a while what became of them (MSC4140).

use ruma::{OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    Direction, Json, Reader, Tx,
    events::EventNum,
    rooms::RoomNid,
    table,
    transactions::{EventTransactions, TransactionKey},
    tx::Error,
};

/// An event that waits for its time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delayed {
    /// Who sends it.
    pub user: OwnedUserId,
    /// From which device it was scheduled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<OwnedDeviceId>,
    /// Where to.
    pub room: OwnedRoomId,
    /// Its type.
    pub kind: String,
    /// Its state key, for state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_key: Option<String>,
    /// Its content.
    pub content: Box<RawValue>,
    /// For a redaction: what it redacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redacts: Option<OwnedEventId>,
    /// For how long it is sticky, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky_ms: Option<u32>,
    /// How long it waits, in milliseconds.
    pub delay_ms: u64,
    /// Since when, in milliseconds since the Unix epoch.
    pub scheduled_at: u64,
    /// SHA-256 of the key of the client's transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<[u8; 32]>,
    /// How often it was restarted, so that no two versions are the same.
    #[serde(default)]
    pub revision: u64,
    /// What became of it; none while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<DelayedEnd>,
}

/// What became of a delayed event: sent, failed, or neither: cancelled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DelayedEnd {
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
    /// The event that it became.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<OwnedEventId>,
    /// That event's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<(u32, u32)>,
    /// Why it could not be sent: error code and sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<(String, String)>,
}

impl Delayed {
    /// When it is to be sent, in milliseconds since the Unix epoch.
    pub fn due(&self) -> u64 {
        self.scheduled_at.saturating_add(self.delay_ms)
    }
}

table! {
    /// Id → the event.
    DelayedEvents = DELAYED_EVENTS: String => Json<Delayed>;
    /// `(when it is due, id)` of those that wait.
    DelayedDue = DELAYED_DUE: (u64, String) => ();
    /// `(user, when it is due, id)` of those that wait.
    DelayedOfUser = DELAYED_OF_USER: (OwnedUserId, u64, String) => ();
    /// User → how many wait.
    DelayedCounts = DELAYED_COUNTS: OwnedUserId => i64;
    /// SHA-256 of a transaction's key → id.
    DelayedTransactions = DELAYED_TRANSACTIONS: [u8; 32] => String;
    /// `(when it ended, id)`.
    DelayedEnded = DELAYED_ENDED: (u64, String) => ();
    /// An event that was delayed → id.
    DelayedSent = DELAYED_SENT: (RoomNid, EventNum) => String;
}

impl Reader<'_> {
    /// A delayed event by id.
    pub async fn delayed(&self, id: &str) -> Result<Option<Delayed>, Error> {
        Ok(self.get::<DelayedEvents>(&id.to_owned()).await?.map(|Json(delayed)| delayed))
    }

    /// What a transaction scheduled before.
    pub async fn delayed_by(&self, key: &TransactionKey) -> Result<Option<String>, Error> {
        self.get::<DelayedTransactions>(&key.hash()).await
    }

    /// How many events of a user wait, and when the next of them is due.
    pub async fn delayed_count(&self, user: &UserId) -> Result<(u64, Option<u64>), Error> {
        let user = user.to_owned();
        let count = self.get::<DelayedCounts>(&user).await?.unwrap_or(0);
        let next = self.scan::<DelayedOfUser>(&user, Direction::Forward, 1).await?;
        Ok((u64::try_from(count).unwrap_or(0), next.first().map(|((_, due, _), ())| *due)))
    }

    /// A user's events that wait, the next one first.
    pub async fn delayed_of(&self, user: &UserId) -> Result<Vec<(String, Delayed)>, Error> {
        let rows = self.scan_all::<DelayedOfUser>(&user.to_owned()).await?;
        let ids: Vec<String> = rows.into_iter().map(|((_, _, id), ())| id).collect();
        let found = self.get_many::<DelayedEvents>(&ids).await?;
        Ok(ids.into_iter().zip(found).filter_map(|(id, found)| Some((id, found?.0))).collect())
    }

    /// The events of all users that are to be sent by `now`, `limit` at most, and when the next one is: no more is read than
    /// that takes.
    pub async fn due_delayed(&self, now: u64, limit: usize) -> Result<(Vec<String>, Option<u64>), Error> {
        const PAGE: usize = 100;
        let mut due = Vec::new();
        let mut page = self.scan::<DelayedDue>(&(), Direction::Forward, PAGE).await?;
        loop {
            let last = page.last().map(|(key, ())| key.clone());
            for ((at, id), ()) in page {
                if at > now {
                    return Ok((due, Some(at)));
                }
                due.push(id);
            }
            let Some(last) = last.filter(|_| due.len() < limit) else { return Ok((due, None)) };
            let rest = self.scan_from::<DelayedDue>(&(), &last, PAGE + 1).await?;
            page = rest.into_iter().skip(1).collect();
        }
    }

    /// The transactions of several events where `device` sent them, and the ids under which they were delayed: one round
    /// trip.
    pub async fn event_origins(&self, nid: RoomNid, nums: &[EventNum]) -> Result<Vec<EventOrigin>, Error> {
        let keys: Vec<_> = nums.iter().map(|num| (nid, *num)).collect();
        let (sent, delayed) = self.get_both::<EventTransactions, DelayedSent>(&keys, &keys).await?;
        Ok(sent.into_iter().zip(delayed).collect())
    }
}

/// The transaction that an event came from, and the id under which it was delayed.
pub type EventOrigin = (Option<crate::transactions::EventTransaction>, Option<String>);

impl Tx {
    /// Schedules an event under a new id. Conflict if the transaction has scheduled one by then.
    pub fn schedule(&mut self, id: &str, delayed: &Delayed) -> &mut Self {
        let id = id.to_owned();
        if let Some(hash) = &delayed.transaction {
            self.expect_absent::<DelayedTransactions>(hash).put::<DelayedTransactions>(hash, &id);
        }
        self.expect_absent::<DelayedEvents>(&id).put::<DelayedEvents>(&id, &Json(delayed.clone()));
        self.add::<DelayedCounts>(&delayed.user, 1);
        self.put_due(id, delayed)
    }

    fn put_due(&mut self, id: String, delayed: &Delayed) -> &mut Self {
        self.put::<DelayedDue>(&(delayed.due(), id.clone()), &());
        self.put::<DelayedOfUser>(&(delayed.user.clone(), delayed.due(), id), &())
    }

    fn delete_due(&mut self, id: &str, delayed: &Delayed) -> &mut Self {
        self.delete::<DelayedDue>(&(delayed.due(), id.to_owned()));
        self.delete::<DelayedOfUser>(&(delayed.user.clone(), delayed.due(), id.to_owned()))
    }

    fn replace_delayed(&mut self, id: &str, old: &Delayed, new: &Delayed) -> &mut Self {
        let key = id.to_owned();
        self.expect::<DelayedEvents>(&key, Some(&Json(old.clone())));
        self.put::<DelayedEvents>(&key, &Json(new.clone()))
    }

    /// Has an event wait anew from `now` on (milliseconds since the Unix epoch). Conflict if it has changed by then.
    pub fn restart_delayed(&mut self, id: &str, old: &Delayed, now: u64) -> &mut Self {
        let new = Delayed { scheduled_at: now, revision: old.revision + 1, ..old.clone() };
        self.replace_delayed(id, old, &new).delete_due(id, old).put_due(id.to_owned(), &new)
    }

    /// An event waits no longer. Conflict if it has changed by then.
    pub fn end_delayed(&mut self, id: &str, old: &Delayed, end: DelayedEnd) -> &mut Self {
        if let Some((nid, num)) = end.place {
            self.put::<DelayedSent>(&(RoomNid(nid), EventNum(num)), &id.to_owned());
        }
        self.put::<DelayedEnded>(&(end.at, id.to_owned()), &());
        self.add::<DelayedCounts>(&old.user, -1);
        self.replace_delayed(id, old, &Delayed { end: Some(end), ..old.clone() }).delete_due(id, old)
    }

    /// Removes an event that waits. Conflict if it has changed by then.
    pub fn drop_delayed(&mut self, id: &str, old: &Delayed) -> &mut Self {
        if let Some(hash) = &old.transaction {
            self.delete::<DelayedTransactions>(hash);
        }
        let key = id.to_owned();
        self.expect::<DelayedEvents>(&key, Some(&Json(old.clone()))).delete::<DelayedEvents>(&key);
        self.add::<DelayedCounts>(&old.user, -1);
        self.delete_due(id, old)
    }

    /// Forgets delayed events that ended before `before` (milliseconds since the Unix epoch), `limit` at most. Gives how
    /// many.
    pub async fn forget_delayed(
        &mut self,
        reader: &Reader<'_>,
        before: u64,
        limit: usize,
    ) -> Result<usize, Error> {
        let rows = reader.scan::<DelayedEnded>(&(), Direction::Forward, limit).await?;
        let old: Vec<_> = rows.into_iter().map(|(key, ())| key).take_while(|(at, _)| *at < before).collect();
        for key in &old {
            let Some(delayed) = reader.delayed(&key.1).await? else { continue };
            if let Some(hash) = &delayed.transaction {
                self.delete::<DelayedTransactions>(hash);
            }
            if let Some((nid, num)) = delayed.end.and_then(|end| end.place) {
                self.delete::<DelayedSent>(&(RoomNid(nid), EventNum(num)));
            }
            self.delete::<DelayedEvents>(&key.1).delete::<DelayedEnded>(key);
        }
        Ok(old.len())
    }
}
