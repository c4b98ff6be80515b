//! Events of other servers: Received → Checked → Complete → Judged → Committed.
//!
//! One file per arrow; each stage's type can only be had from the stage before it, so an unjudged event cannot be
//! stored as part of a room.

mod again;
mod check;
mod commit;
mod complete;
mod gap;
mod hearsay;
mod intact;
mod judge;
mod late;
mod likely;
mod old;
mod order;
mod outliers;
mod outside;
mod put_out;
mod resolve;
mod together;
mod told;
mod turn_back;
mod walk;

use std::{borrow::Borrow, collections::HashMap, hash::Hash, time::Duration};

use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use self::together::Together;
pub(crate) use self::{
    check::{Checked, Proven, allowed_by_acl, parse},
    complete::{Before, Complete},
    judge::Verdict,
    outliers::Outliers,
    resolve::Resolutions,
    told::{Payer, Purse, Tellers},
};
use crate::{
    Config, Error, Inner, Result, Rooms,
    desk::{Desk, Source},
};

/// What became of a received event.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its id, if it could be worked out.
    pub event_id: Option<OwnedEventId>,
    /// Whether it was taken; a rejected or soft-failed event counts as taken.
    pub result: Result<()>,
}

/// How much one received event may cost in requests to other servers.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    /// Events before it that may still be fetched.
    pub(crate) missing: usize,
    /// Events that may still be fetched for what they justify, or as part of a state.
    pub(crate) events: usize,
    /// States that may still be asked for.
    pub(crate) states: usize,
    /// States that were asked for and refused.
    pub(crate) refusals: usize,
    /// Whether a gap before the event may still be filled.
    pub(crate) fill: bool,
    /// Against whom it counts what told states change and old forks cost; none: this server asks of its own accord.
    pub(crate) counted: Option<Payer>,
}

impl Budget {
    /// For an event that `origin` brings as news. Others who are asked in its place tell at its cost.
    pub(crate) fn with_gap(config: &Config, origin: &ServerName) -> Self {
        let (missing, events) = (config.missing_events_limit, config.auth_events_limit);
        Self { missing, events, states: STATES, fill: true, ..Self::with_nothing(origin) }
    }

    /// For an event that `origin` brings as news and for which nobody is asked.
    pub(crate) fn with_nothing(origin: &ServerName) -> Self {
        let counted = Payer { server: origin.to_owned(), purse: Purse::News };
        Self { counted: Some(counted), ..Self::default() }
    }

    /// For what is just before a membership that `origin` hands in: as many events as one answer has, and no state.
    pub(crate) fn for_handed_in(config: &Config, origin: &ServerName) -> Self {
        let missing = config.missing_events_batch.into();
        Self { missing, states: 0, fill: false, ..Self::with_gap(config, origin) }
    }

    /// For an event that this server asked for.
    pub(crate) fn without_gap(config: &Config, states: usize) -> Self {
        Self { events: config.auth_events_limit, states, ..Self::default() }
    }

    /// For a page of old history, which the server that gives it makes as it likes.
    pub(crate) fn for_page(config: &Config, server: &ServerName) -> Self {
        let counted = Payer { server: server.to_owned(), purse: Purse::Pages };
        Self { counted: Some(counted), ..Self::without_gap(config, STATES) }
    }
}

/// States that one received event, with the gap before it, may have this server ask for.
pub(crate) const STATES: usize = 3;

/// For how long the events of one transaction in a room may have other servers asked for what is missing. The state of a room
/// of 50,000 members may take more than a minute.
const LONGEST: Duration = Duration::from_mins(5);

/// For how long an event that could not be completed is not tried again.
const HOPELESS: Duration = Duration::from_mins(10);
/// For how long a server that has nothing for a gap in old history is not asked again.
const NOTHING_OLDER: Duration = Duration::from_mins(5);
/// For how long nobody else is asked about a server's gaps once that was in vain, nor a server again that refused.
const UNHELPED: Duration = Duration::from_mins(1);
/// How many of either are remembered.
const HOPELESS_MOST: usize = 10_000;

/// What was tried in vain and is not tried again for a while.
#[derive(Debug)]
pub(crate) struct Hopeless<T>(Mutex<HashMap<T, Instant>>);

impl<T> Default for Hopeless<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Eq + Hash> Hopeless<T> {
    fn holds<Q: Eq + Hash + ?Sized>(&self, what: &Q, now: Instant) -> bool
    where
        T: Borrow<Q>,
    {
        self.0.lock().get(what).is_some_and(|until| *until > now)
    }

    fn add(&self, what: T, (now, how_long): (Instant, Duration)) {
        let mut known = self.0.lock();
        if known.len() >= HOPELESS_MOST {
            let oldest = known.values().min().copied().unwrap_or(now);
            known.retain(|_, until| *until > oldest.max(now));
        }
        known.insert(what, now + how_long);
    }
}

/// A PDU as it came, for a room that this server is in.
pub(crate) struct Received {
    origin: OwnedServerName,
    room: OwnedRoomId,
    raw: Box<RawValue>,
}

#[derive(Deserialize)]
struct Addressed {
    room_id: OwnedRoomId,
}

impl Received {
    /// Reads which room it is for.
    fn read(origin: &ServerName, raw: Box<RawValue>) -> Result<Self> {
        let Addressed { room_id } = serde_json::from_str(raw.get())
            .map_err(|_| Error::BadJson("an event needs a room_id".to_owned()))?;
        Ok(Self { origin: origin.to_owned(), room: room_id, raw })
    }
}

impl Rooms {
    /// Takes the PDUs of a transaction from `origin`, in order; a bad one never stops the others. What was taken is on disk
    /// when it answers.
    pub async fn receive(&self, origin: &ServerName, pdus: Vec<Box<RawValue>>) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(pdus.len());
        let mut tried = 0;
        let end = self.0.world.instant() + LONGEST;
        while let Some(raw) = pdus.get(outcomes.len()) {
            if outcomes.len() >= tried {
                let left = &pdus[outcomes.len()..];
                // What does not work out together is said of each by itself.
                let together =
                    self.0.receive_together(origin, left).await.unwrap_or(Together::none(left.len()));
                tried = outcomes.len() + together.of;
                if !together.taken.is_empty() {
                    outcomes.extend(together.taken);
                    continue;
                }
            }
            outcomes.push(self.0.receive_one(origin, raw, end).await);
        }
        outcomes
    }
}

impl Inner {
    async fn receive_one(&self, origin: &ServerName, raw: &RawValue, end: Instant) -> Outcome {
        let checked = match Received::read(origin, raw.to_owned()) {
            Ok(received) => match self.receive_outside(&received).await {
                Ok(Some(event_id)) => return Outcome { event_id: Some(event_id), result: Ok(()) },
                Ok(None) => received.check(self).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match checked {
            Ok(checked) => {
                let event_id = Some(checked.pdu().event_id().to_owned());
                let result = self.take_in_time(checked, end).await;
                if let Err(error) = &result {
                    tracing::info!(%origin, event = ?event_id, %error, "received event not taken");
                }
                Outcome { event_id, result }
            }
            Err(error) => {
                tracing::info!(%origin, %error, "received event dropped");
                Outcome { event_id: self.id_of_dropped(raw, &error).await, result: Err(error) }
            }
        }
    }

    /// The id of an event that was dropped, so that its sender is told. None of one that is not well-formed, of a room that
    /// this server is not in, or not yet, or where nobody can say whether its signature is right.
    async fn id_of_dropped(&self, raw: &RawValue, error: &Error) -> Option<OwnedEventId> {
        if matches!(error, Error::NotFound(_) | Error::HostilePeer(_) | Error::Unreachable) {
            return None;
        }
        let Addressed { room_id } = serde_json::from_str(raw.get()).ok()?;
        let rules = Desk::open(self, &room_id).await.ok()?.rules;
        Some(parse(rules, &room_id, raw).ok()?.event_id().to_owned())
    }

    /// [`Inner::take`] until `end`. A server whose events have this one ask for so long has nothing asked for them for a while.
    async fn take_in_time(&self, checked: Checked, end: Instant) -> Result<()> {
        let origin = checked.origin().to_owned();
        let left = end.saturating_duration_since(self.world.instant());
        if left.is_zero() || self.slow.holds(&origin, self.world.instant()) {
            return self.take(checked, &mut Budget::with_nothing(&origin)).await;
        }
        let mut budget = Budget::with_gap(&self.config(), &origin);
        let taken = self.world.timeout(left, Box::pin(self.take(checked, &mut budget))).await;
        taken.unwrap_or_else(|| {
            self.slow.add(origin, (self.world.instant(), HOPELESS));
            Err(Error::Unreachable)
        })
    }

    /// Takes a checked event through the remaining stages.
    pub(crate) async fn take(&self, checked: Checked, budget: &mut Budget) -> Result<()> {
        if self.is_settled(&checked).await? {
            return Ok(());
        }
        let now = self.world.instant();
        let attempt = (checked.origin().to_owned(), checked.pdu().event_id().to_owned());
        if self.hopeless.holds(&attempt, now) {
            return Err(Error::HostilePeer("this event could not be completed a short while ago".to_owned()));
        }
        // An event that is sent as news becomes a head. Could its past be withheld, whoever sends it could say what the
        // whole room is like.
        let result = if !std::mem::take(&mut budget.fill) || self.fill_gap(&checked, budget).await? {
            self.place(checked, budget).await
        } else if !self.puts_out_somebody(&checked).await? {
            return Err(Error::HostilePeer("the events before this one were not given".to_owned()));
        } else if self.fill_elsewhere(&checked, budget).await? {
            self.place(checked, budget).await
        } else {
            self.take_put_out(checked, budget).await
        };
        // A server that is down may be up again next time. One that refuses what it is asked for may not have heard yet that this
        // one is in the room.
        match result {
            Err(Error::HostilePeer(_)) => self.hopeless.add(attempt, (now, HOPELESS)),
            Err(Error::Peer(_)) => self.hopeless.add(attempt, (self.world.instant(), UNHELPED)),
            _ => {}
        }
        result
    }

    /// Completes and settles an event whose gap is filled. If only what some server told of earlier states speaks against it, its
    /// own server or whoever else sends it says what the state before it was.
    async fn place(&self, checked: Checked, budget: &mut Budget) -> Result<()> {
        let origin = checked.origin().to_owned();
        let complete = checked.complete(self, budget).await?;
        let mut complete = self.with_opinion(complete).await;
        let mut verdict = self.settle(&complete).await?;
        if matches!(verdict, Verdict::Undecided(_)) && complete.before == Before::Prevs {
            let (room, event) = (&complete.room, complete.pdu.event_id());
            let told = self.state_from(&origin, room, event, complete.rules, budget).await?;
            complete.before = Before::Told(told);
            verdict = self.settle(&complete).await?;
        }
        match verdict {
            Verdict::Undecided(reason) => Err(Error::HostilePeer(reason)),
            _ => Ok(()),
        }
    }

    /// Whether the event has its place already. One that is here without what it says gets that in any case.
    async fn is_settled(&self, checked: &Checked) -> Result<bool> {
        let desk = Desk::open(self, checked.room()).await?;
        let Some(num) = desk.own_num(checked.pdu()).await? else { return Ok(false) };
        let (nid, meta) = (desk.nid, desk.reader.event_meta(desk.nid, num).await?);
        let is_lacking = checked.is_intact() && desk.lacks_text(checked.pdu(), num).await?;
        drop(desk);
        let mut status = meta.status;
        if is_lacking {
            Box::pin(self.fill_in(checked, num)).await?;
            status = self.store.read().event_meta(nid, num).await?.status;
        }
        Ok(status != chappe_store::Status::Outlier)
    }
}

/// What an event that did not come from here is to this server's peers.
pub(crate) fn source_for(inner: &Inner, origin: &ServerName) -> Source {
    if *origin == inner.server { Source::PassedOn } else { Source::Elsewhere }
}

/// Whether `room` is one that this server takes part in.
pub(crate) async fn is_in(inner: &Inner, room: &RoomId) -> Result<bool> {
    let reader = inner.store.read();
    match reader.room_nid(room).await? {
        Some(nid) => Ok(reader.server_joined(nid, &inner.server).await?),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{HOPELESS_MOST, Hopeless};

    #[test]
    fn where_much_is_hopeless_the_oldest_is_forgotten_first() {
        let (hopeless, begun) = (Hopeless::default(), Instant::now());
        let at = |n: usize| begun + Duration::from_millis(n as u64);
        for n in 0..=HOPELESS_MOST {
            hopeless.add(n, (at(n), Duration::from_mins(10)));
        }
        let holds = [0, 1, HOPELESS_MOST].map(|n| hopeless.holds(&n, at(HOPELESS_MOST)));
        assert_eq!(holds, [false, true, true]);
    }
}
