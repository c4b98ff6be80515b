//! Events that are sent later (MSC4140): scheduled, looked at, restarted, sent at once, cancelled; and the worker that sends
//! them at their time. A delayed event and the event it becomes change in one commit, so it is sent once.

mod lanes;

use std::time::Duration;

use chappe_store::{
    Tx,
    delayed::{Delayed, DelayedEnd},
    transactions::TransactionKey,
};
use ruma::{OwnedEventId, RoomId, UserId};
use serde_json::{Map, Value, value::to_raw_value};

use self::lanes::Lanes;
use crate::{
    Access, Actor, Draft, Error, Result, Rooms, Standing, Transaction,
    author::{Authored, canonical},
    desk::Desk,
    send::{says_membership, transaction_key},
    turn::{ATTEMPTS, Job},
};

/// How long it is kept what became of a delayed event.
const KEPT_MS: u64 = 24 * 60 * 60 * 1_000;
/// Ended events forgotten in one commit.
const AT_ONCE: usize = 100;
/// Bytes of content that may wait.
const MOST_BYTES: usize = 60_000;
/// The longest sleep of the worker.
const NAP: Duration = Duration::from_mins(1);
/// The worker's pause when an event could not be sent for a reason that passes.
const PAUSE: Duration = Duration::from_secs(1);

impl Rooms {
    /// Has `draft` sent after a delay, once per transaction id. Gives the id of the delayed event, which is all that is
    /// needed to act on it. Whether the draft is allowed is judged when it is sent.
    pub async fn schedule(
        &self,
        actor: &Actor,
        room: &RoomId,
        draft: Draft,
        delay_ms: u64,
        txn: Option<Transaction>,
    ) -> Result<String> {
        let key = txn.map(|txn| transaction_key(actor, room, &draft, &txn));
        for _ in 0..ATTEMPTS {
            if let Some(key) = &key
                && let Some(id) = self.0.store.read().delayed_by(key).await?
            {
                return Ok(id);
            }
            match self.try_schedule(actor, room, &draft, delay_ms, key.as_ref()).await {
                Err(Error::Retry) => {}
                done => return done,
            }
        }
        Err(Error::Retry)
    }

    async fn try_schedule(
        &self,
        actor: &Actor,
        room: &RoomId,
        draft: &Draft,
        delay_ms: u64,
        key: Option<&TransactionKey>,
    ) -> Result<String> {
        self.check_delay(actor, draft, delay_ms).await?;
        let view = self.view(room).await.map_err(crate::read::state::no_such_room)?;
        if view.access(&actor.user).await? != Access::Joined {
            return Err(crate::send::not_in_room());
        }
        let content = to_raw_value(&draft.content).map_err(|error| Error::BadJson(error.to_string()))?;
        if content.get().len() > MOST_BYTES {
            return Err(Error::TooLarge("the content of a delayed event is too large".to_owned()));
        }
        let delayed = Delayed {
            user: actor.user.clone(),
            device: actor.device.clone(),
            room: room.to_owned(),
            kind: draft.kind.to_string(),
            state_key: draft.state_key.clone(),
            content,
            redacts: draft.redacts.clone(),
            sticky_ms: draft.sticky_ms,
            delay_ms,
            scheduled_at: self.0.world.now(),
            transaction: key.map(TransactionKey::hash),
            revision: 0,
            end: None,
        };
        let id = self.0.world.token(32);
        let mut tx = Tx::new();
        tx.schedule(&id, &delayed);
        self.0.store.commit(tx).await?;
        self.0.delayed.notify_one();
        Ok(id)
    }

    async fn check_delay(&self, actor: &Actor, draft: &Draft, delay_ms: u64) -> Result<()> {
        let config = self.config();
        if delay_ms == 0 {
            return Err(Error::InvalidParam("a delay is longer than nothing".to_owned()));
        }
        if config.delayed_events_per_user == 0 || delay_ms > config.delayed_events_seconds * 1_000 {
            return Err(Error::Forbidden("events may not be delayed for that long".to_owned()));
        }
        if says_membership(draft, "invite") {
            return Err(Error::InvalidParam("invites cannot be delayed".to_owned()));
        }
        // Only now can its form be told; whether it is allowed depends on the day it is sent.
        canonical(draft)?;
        let (count, next) = self.0.store.read().delayed_count(&actor.user).await?;
        if count >= config.delayed_events_per_user {
            let wait = next.unwrap_or(0).saturating_sub(self.0.world.now());
            return Err(Error::TooMany { retry_after: Duration::from_millis(wait) });
        }
        Ok(())
    }

    /// One of a user's delayed events, waiting or ended.
    pub async fn delayed(&self, user: &UserId, id: &str) -> Result<Delayed> {
        let found = self.0.store.read().delayed(id).await?;
        found.filter(|delayed| delayed.user == user).ok_or(Error::NotFound("delayed event"))
    }

    /// A user's events that wait, the next one first.
    pub async fn all_delayed(&self, user: &UserId) -> Result<Vec<(String, Delayed)>> {
        Ok(self.0.store.read().delayed_of(user).await?)
    }

    /// Has a delayed event wait anew for as long as it was to wait.
    pub async fn restart_delayed(&self, id: &str) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let old = self.waiting(id).await?;
            if old.end.is_some() {
                return Err(Error::Ended);
            }
            let mut tx = Tx::new();
            tx.restart_delayed(id, &old, self.0.world.now());
            match self.0.store.commit(tx).await {
                Err(chappe_store::Error::Conflict) => {}
                done => return Ok(done.map(drop)?),
            }
        }
        Err(Error::Retry)
    }

    /// Sees to it that a delayed event is never sent. [`Error::Ended`] if it was.
    pub async fn cancel_delayed(&self, id: &str) -> Result<()> {
        self.end_unsent(id, None).await
    }

    async fn end_unsent(&self, id: &str, error: Option<(String, String)>) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let old = self.waiting(id).await?;
            match &old.end {
                Some(end) if end.event.is_some() => return Err(Error::Ended),
                Some(_) => return Ok(()),
                None => {}
            }
            let end = DelayedEnd { at: self.0.world.now(), event: None, place: None, error: error.clone() };
            let mut tx = Tx::new();
            tx.end_delayed(id, &old, end);
            match self.0.store.commit(tx).await {
                Err(chappe_store::Error::Conflict) => {}
                done => return Ok(done.map(drop)?),
            }
        }
        Err(Error::Retry)
    }

    /// Sends a delayed event now. It goes on waiting if that is refused. [`Error::Ended`] if it was cancelled.
    pub async fn send_delayed(&self, id: &str) -> Result<OwnedEventId> {
        let delayed = self.waiting(id).await?;
        if let Some(end) = delayed.end {
            return end.event.ok_or(Error::Ended);
        }
        let actor = self.still_acting(&delayed).await?;
        let content: Map<String, Value> = Draft::content_from(delayed.content.get())?;
        let mut draft = Draft {
            state_key: delayed.state_key,
            redacts: delayed.redacts,
            sticky_ms: delayed.sticky_ms,
            ..Draft::message(chappe_rules::pdu::kind_of(&delayed.kind), content)
        };
        self.complete(&actor, &delayed.room, &mut draft).await?;
        let job = Job { delayed: Some(id.to_owned()), ..Job::new(&actor, draft) };
        self.submit(&delayed.room, job).await
    }

    async fn waiting(&self, id: &str) -> Result<Delayed> {
        self.0.store.read().delayed(id).await?.ok_or(Error::NotFound("delayed event"))
    }

    /// The sender, if the account may still act.
    async fn still_acting(&self, delayed: &Delayed) -> Result<Actor> {
        let account = self.0.accounts.user(&delayed.user).await.ok().flatten();
        let may =
            account.filter(|account| !account.locked && !account.suspended && account.deactivated.is_none());
        let Some(account) = may else {
            return Err(Error::Forbidden("the account may not send anything any more".to_owned()));
        };
        let standing = match account.kind {
            _ if account.admin => Standing::Administrator,
            chappe_accounts::UserKind::Guest => Standing::Guest,
            _ => Standing::Ordinary,
        };
        Ok(Actor { user: delayed.user.clone(), device: delayed.device.clone(), standing, appservice: None })
    }

    /// Sends delayed events at their time, until the server stops. One task of a server runs this.
    pub async fn run_delayed(&self) {
        let world = &self.0.world;
        let mut lanes = Lanes::new(self);
        loop {
            let pause = match lanes.take().await {
                Ok(Some(due)) => Duration::from_millis(due.saturating_sub(world.now())).min(NAP),
                Ok(None) => NAP,
                Err(error) => {
                    tracing::warn!(%error, "delayed events");
                    PAUSE
                }
            };
            let soon = world.sleep(pause);
            tokio::pin!(soon);
            loop {
                tokio::select! {
                    () = world.stopping() => return,
                    () = &mut soon => break,
                    () = self.0.delayed.notified() => break,
                    true = lanes.next() => if lanes.have_room() { break },
                }
            }
        }
    }

    /// Sends one that is due; it ends where that is refused, and goes on waiting where it could not be decided.
    async fn send_or_end(&self, id: &str) {
        let sent = match self.send_delayed(id).await {
            Ok(_) | Err(Error::Ended | Error::NotFound("delayed event")) => Ok(()),
            Err(error @ (Error::Retry | Error::Store(_))) => Err(error),
            Err(error) => {
                tracing::debug!(%error, "a delayed event was refused");
                self.end_unsent(id, Some((errcode(&error).to_owned(), error.to_string()))).await
            }
        };
        if let Err(error) = sent {
            tracing::warn!(%error, "a delayed event was not sent");
            self.0.world.sleep(PAUSE).await;
        }
    }

    /// Sends all that is due. Gives when the next one is.
    #[cfg(test)]
    pub(crate) async fn send_due(&self) -> Result<Option<u64>> {
        let mut lanes = Lanes::new(self);
        let next = lanes.take().await?;
        while lanes.next().await {}
        Ok(next)
    }

    pub(crate) async fn sweep_delayed(&self) -> Result<usize> {
        let before = self.0.world.now().saturating_sub(KEPT_MS);
        let mut swept = 0;
        loop {
            let mut tx = Tx::new();
            let count = tx.forget_delayed(&self.0.store.read(), before, AT_ONCE).await?;
            if count == 0 {
                return Ok(swept);
            }
            self.0.store.commit(tx).await?;
            swept += count;
        }
    }
}

/// The error code under which a refusal is kept for the client that asks later.
fn errcode(error: &Error) -> &'static str {
    match error {
        Error::Forbidden(_) => "M_FORBIDDEN",
        Error::NoGuests => "M_GUEST_ACCESS_FORBIDDEN",
        Error::NotFound(_) => "M_NOT_FOUND",
        Error::BadJson(_) => "M_BAD_JSON",
        Error::InvalidParam(_) => "M_INVALID_PARAM",
        Error::TooLarge(_) => "M_TOO_LARGE",
        Error::DuplicateAnnotation => "M_DUPLICATE_ANNOTATION",
        _ => "M_UNKNOWN",
    }
}

impl Desk<'_> {
    /// Refuses a delayed event that waits no longer.
    pub(crate) async fn check_waiting(&self, id: &str) -> Result<Delayed> {
        let delayed = self.reader.delayed(id).await?.filter(|delayed| delayed.end.is_none());
        delayed.ok_or(Error::Ended)
    }

    /// A delayed event became `sent`.
    pub(crate) fn delayed_is_sent(&mut self, id: &str, delayed: &Delayed, sent: &Authored) {
        let end = DelayedEnd {
            at: self.inner.world.now(),
            event: Some(sent.event_id.clone()),
            place: Some((self.nid.0, sent.num.0)),
            error: None,
        };
        self.tx.end_delayed(id, delayed, end);
    }
}
