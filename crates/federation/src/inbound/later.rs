//! Events that were answered for before they were dealt with: on disk until they are, and tried again for a while.

use std::{collections::BTreeMap, future::pending, time::Duration};

use chappe_rooms::{Error as RoomError, Outcome};
use chappe_store::{
    Error, Json, Tx,
    outbox::{Later, ReceivedLater},
};
use ruma::{OwnedServerName, RoomId, ServerName};
use serde_json::value::RawValue;

use super::{SMALLEST, load::Load, room::Turn};
use crate::Federation;

/// Pause before what is kept is tried again; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// For how long it is tried again.
const TRIED_FOR: Duration = Duration::from_hours(1);

/// Where an event is kept.
type Key = (String, u64, u16);

/// Events of one room, of one transaction, that are kept.
pub(super) struct Kept {
    origin: OwnedServerName,
    bytes: usize,
    keys: Vec<Key>,
}

/// Whether an event could not be dealt with now, and may be at another time: that something of it is missing may be the fault
/// of a server that is away, and its room may be one that comes in just now.
fn is_for_later(outcome: &Outcome) -> bool {
    use RoomError::{HostilePeer, Retry, Store, Unreachable};
    matches!(outcome.result, Err(Unreachable | HostilePeer(_) | Retry | Store(_)))
}

/// Whether an event could not be dealt with for a reason that lies here, and passes.
fn is_our_fault(outcome: &Outcome) -> bool {
    use RoomError::{Retry, Store};
    matches!(outcome.result, Err(Retry | Store(Error::Conflict | Error::Engine(_))))
}

fn is_away(outcome: &Outcome) -> bool {
    matches!(outcome.result, Err(RoomError::Unreachable))
}

/// Whether some of the events that are answered for are to be kept on.
pub(super) fn are_for_later(outcomes: &[Outcome]) -> bool {
    outcomes.iter().any(is_for_later)
}

/// What they take in memory, roughly.
fn bytes(pdus: &[Box<RawValue>]) -> usize {
    pdus.iter().map(|pdu| pdu.get().len()).sum::<usize>().max(SMALLEST)
}

impl Federation {
    /// Whether events are to come again: something could not be done here, or perhaps only for want of a network, or because
    /// this server stops.
    pub(super) fn comes_again(&self, outcomes: &[Outcome]) -> bool {
        let is_cut_off = self.is_cut_off();
        outcomes.iter().any(|outcome| is_our_fault(outcome) || (is_cut_off && is_for_later(outcome)))
    }

    /// Whether there is no network to talk with, or soon nobody who does.
    fn is_cut_off(&self) -> bool {
        self.network().allowed().is_closed() || self.network().world().is_stopping()
    }

    /// Puts events on disk.
    pub(super) async fn keep(
        &self,
        origin: &OwnedServerName,
        room: &str,
        pdus: &[Box<RawValue>],
    ) -> Result<Kept, Error> {
        let mut tx = Tx::new();
        for (index, pdu) in (0u16..).zip(pdus) {
            let later = Later { origin: origin.clone(), pdu: pdu.get().to_owned() };
            tx.put_at_position::<ReceivedLater>(&room.to_owned(), &index, &Json(later));
        }
        let position = self.network().store().commit(tx).await?;
        let keys = (0u16..).zip(pdus).map(|(index, _)| (room.to_owned(), position.0, index)).collect();
        Ok(Kept { origin: origin.clone(), bytes: bytes(pdus), keys })
    }

    /// Goes on with events that are on disk and were dealt with once. Those that stay are tried again, if there are not too many
    /// of their origin's.
    pub(super) async fn go_on(&self, Kept { origin, bytes, keys }: Kept, stays: bool) {
        if stays {
            let load = self.admit_again(&origin, bytes);
            if load.is_some() || self.network().world().is_stopping() {
                return self.try_again(&origin, keys, FIRST_PAUSE).await;
            }
        }
        if let Err(error) = self.drop_later(&keys).await {
            tracing::warn!(%error, "events that were dealt with are still kept for later");
        }
    }

    /// Puts those of events that were dealt with soon on disk for which a server is needed that is away, or whose room comes in
    /// with a join, and has them tried again, if there are not too many of their origin's.
    pub(super) async fn put_off(
        &self,
        origin: &OwnedServerName,
        room: &str,
        pdus: &[Box<RawValue>],
        outcomes: &[Outcome],
    ) -> Result<(), Error> {
        if !outcomes.iter().any(is_away) {
            return Ok(());
        }
        let later = pdus.iter().zip(outcomes).filter(|(_, outcome)| is_for_later(outcome));
        let later: Vec<_> = later.map(|(pdu, _)| pdu.clone()).collect();
        let Some(load) = self.admit_again(origin, bytes(&later)) else { return Ok(()) };
        let Kept { origin, keys, .. } = self.keep(origin, room, &later).await?;
        let federation = self.clone();
        self.network().world().spawn_one_of_many("events put off", async move {
            let _load = load;
            federation.try_again(&origin, keys, FIRST_PAUSE).await;
        });
        Ok(())
    }

    /// Takes in a room's worth of events that are to be tried again; none if there are too many of their origin's.
    fn admit_again(&self, origin: &ServerName, bytes: usize) -> Option<(Load, Load)> {
        let kept = &self.0.inbound.kept;
        let load = kept.admit(origin, bytes).map(|load| (load, kept.begin_room(origin)));
        if load.is_none() {
            tracing::info!(%origin, "too many events are kept: no more are tried again");
        }
        load
    }

    async fn drop_later(&self, keys: &[Key]) -> Result<(), Error> {
        let mut tx = Tx::new();
        for key in keys {
            tx.delete::<ReceivedLater>(key);
        }
        self.network().store().commit(tx).await.map(drop)
    }

    /// Deals with the events that were kept when the server stopped: their senders, who were told that they had arrived, do
    /// not send them again.
    pub(crate) async fn resume(&self) -> Result<(), Error> {
        const PAGE: usize = 100;
        let reader = self.network().store().read();
        let mut from = (String::new(), 0_u64, 0_u16);
        let mut together: BTreeMap<(String, u64), (OwnedServerName, Vec<Key>)> = BTreeMap::new();
        loop {
            let rows = reader.scan_from::<ReceivedLater>(&(), &from, PAGE).await?;
            let Some(((room, at, index), _)) = rows.last() else { break };
            from = (room.clone(), *at, index.saturating_add(1));
            for (key, Json(Later { origin, .. })) in rows {
                let (_, keys) =
                    together.entry((key.0.clone(), key.1)).or_insert_with(|| (origin, Vec::new()));
                keys.push(key);
            }
        }
        for (origin, keys) in together.into_values() {
            let federation = self.clone();
            self.network().world().spawn_one_of_many("events received before", async move {
                federation.try_again(&origin, keys, Duration::ZERO).await;
            });
        }
        Ok(())
    }

    /// Tries events that were kept together until each was dealt with, at first after a pause, or for a while, which does not pass
    /// while there is no network to talk with: whoever is of it is not known then. A join with which their room comes in ends a
    /// pause.
    async fn try_again(&self, origin: &OwnedServerName, mut keys: Vec<Key>, mut pause: Duration) {
        let (world, allowed) = (self.network().world(), self.network().allowed());
        let mut end = world.instant() + TRIED_FOR;
        while !world.is_stopping() {
            tokio::select! {
                () = world.sleep(pause) => {}
                () = self.until_come_in(&keys) => {}
                () = world.stopping() => return,
            }
            if allowed.is_closed() {
                tokio::select! {
                    () = allowed.until_open() => {}
                    () = world.stopping() => return,
                }
                (pause, end) = (Duration::ZERO, world.instant() + TRIED_FOR);
            }
            let tried = tokio::select! {
                tried = self.try_kept(origin, &keys, world.instant() >= end) => tried,
                () = world.stopping() => return,
            };
            match tried {
                Ok(left) => keys = left,
                Err(error) => tracing::warn!(%error, "events that are kept for later cannot be dealt with"),
            }
            if keys.is_empty() {
                return;
            }
            pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        }
    }

    /// Waits until a join with which the room of these comes in has ended: for ever where there is none.
    async fn until_come_in(&self, keys: &[Key]) {
        match keys.first().map(|(room, ..)| <&RoomId>::try_from(room.as_str())) {
            Some(Ok(room)) => self.0.rooms.until_come_in(room).await,
            _ => pending().await,
        }
    }

    /// Tries them once; gives those that are kept on.
    async fn try_kept(
        &self,
        origin: &OwnedServerName,
        keys: &[Key],
        gives_up: bool,
    ) -> Result<Vec<Key>, Error> {
        let Some((room, ..)) = keys.first() else { return Ok(Vec::new()) };
        let mut left = match self.place_for(origin, room).await {
            Ok(turn) => self.try_in_turn(turn, origin, keys).await?,
            Err(_) => keys.to_vec(),
        };
        // The network may have closed meanwhile.
        if gives_up && !self.is_cut_off() {
            left.clear();
        }
        let done: Vec<Key> = keys.iter().filter(|key| !left.contains(key)).cloned().collect();
        if !done.is_empty() {
            self.drop_later(&done).await?;
        }
        Ok(left)
    }

    /// The same once there is a turn for them: they are read only now, since any number may wait for one.
    async fn try_in_turn(
        &self,
        turn: Turn<'_>,
        origin: &OwnedServerName,
        keys: &[Key],
    ) -> Result<Vec<Key>, Error> {
        let rows = self.network().store().read().get_many::<ReceivedLater>(keys).await?;
        let event = |(key, row): (_, Option<Json<Later>>)| {
            let Json(Later { pdu, .. }) = row?;
            Some((key, RawValue::from_string(pdu).ok()?))
        };
        let (held, pdus): (Vec<&Key>, Vec<Box<RawValue>>) = keys.iter().zip(rows).filter_map(event).unzip();
        let outcomes = self.work_in_turn(turn, origin, &pdus).await;
        let later = held.into_iter().zip(&outcomes).filter(|(_, outcome)| is_for_later(outcome));
        Ok(later.map(|(key, _)| key.clone()).collect())
    }
}
