//! Following the log: who has to be woken, which EDUs follow from what happened.

mod members;

use std::time::Duration;

use chappe_store::{
    Cursors, Entry, Error, EventNum, LogEntry, OutboxItem, Position, RoomNid, Tx, receipts::ReceiptKind,
};
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use serde::Deserialize;
use tokio::time::Instant;

use super::{Sender, fleeting::PresenceNews, lanes::When};

/// The name of this follower's cursor.
const CURSOR: &str = "federation";
/// Entries read at once.
const PAGE: usize = 500;
/// The cursor is written this often; what lies between is gone through again after a restart, which does no harm.
const CURSOR_INTERVAL: Duration = Duration::from_secs(10);
/// Wait after a failed read of the store.
const PAUSE: Duration = Duration::from_secs(1);
/// How long what is kept in memory waits for something to go along with.
const GATHERED: Duration = Duration::from_secs(1);
/// So long for each server that is told, if that is longer: of receipts and presence.
const GATHERED_EACH: Duration = Duration::from_millis(10);
/// And no longer than this.
const GATHERED_LONGEST: Duration = Duration::from_secs(5);

impl Sender {
    pub(super) async fn follow(self) {
        let world = self.0.network.world().clone();
        if let Err(error) = self.0.network.backoff().forget_idle().await {
            tracing::warn!(%error, "servers that nothing waits for any more were not forgotten");
        }
        while !world.is_stopping() {
            if let Err(error) = self.follow_on().await {
                tracing::error!(%error, "the log cannot be followed");
                world.sleep(PAUSE).await;
            }
        }
    }

    async fn follow_on(&self) -> Result<(), Error> {
        let (world, store) = (self.0.network.world().clone(), self.0.network.store().clone());
        let mut visible = store.visible();
        let mut written = store.read().get::<Cursors>(&CURSOR.to_owned()).await?.unwrap_or(0);
        let mut seen = Position(written);
        let mut written_at = world.instant();
        self.wake_all().await?;
        loop {
            let entries = store.read().log_after(seen, PAGE).await?;
            for entry in &entries {
                self.handle(entry).await?;
                seen = seen.max(entry.position);
            }
            let pause = written_at.elapsed() >= CURSOR_INTERVAL;
            if seen.0 > written && (pause || world.is_stopping()) {
                let done = self.done_up_to(seen).0.max(written);
                let mut tx = Tx::new();
                tx.put::<Cursors>(&CURSOR.to_owned(), &done);
                store.commit(tx).await?;
                (written, written_at) = (done, world.instant());
            }
            if world.is_stopping() {
                return Ok(());
            }
            if entries.is_empty() {
                tokio::select! {
                    changed = visible.changed() => if changed.is_err() { return Ok(()) },
                    () = world.stopping() => {}
                }
            }
        }
    }

    /// How much of what was gone through need not be gone through again: receipts are in memory alone while they are gathered.
    fn done_up_to(&self, seen: Position) -> Position {
        let gathered = self.0.lanes.gathered_since(self.0.network.world().instant());
        gathered.map_or(seen, |since| seen.min(Position(since.0.saturating_sub(1))))
    }

    async fn handle(&self, entry: &Entry) -> Result<(), Error> {
        match &entry.what {
            LogEntry::Outbox { destination } => self.wake(destination),
            LogEntry::Receipt { room, user, private: false, local: true } => {
                self.queue_receipts(RoomNid(*room), user, entry.position).await?;
            }
            LogEntry::DeviceList { user } if user.server_name() == self.0.network.server() => {
                self.announce(user).await?;
            }
            LogEntry::Whole { room, servers } => self.catch_up_devices(RoomNid(*room), servers).await?,
            LogEntry::Event { room, event, member: Some(member), .. } => {
                let event = (EventNum(*event), entry.position);
                self.follow_member(RoomNid(*room), event, member).await?;
            }
            LogEntry::Member { room, user } => {
                self.follow_resolved(RoomNid(*room), user, entry.position).await?;
            }
            LogEntry::Members { room } => self.doubt_members(RoomNid(*room), entry.position).await?,
            _ => {}
        }
        Ok(())
    }

    /// Other servers with joined users in a room.
    async fn others_in(&self, nid: RoomNid) -> Result<Vec<OwnedServerName>, Error> {
        let servers = self.0.network.store().read().room_servers(nid).await?;
        let us = self.0.network.server();
        Ok(servers.into_iter().map(|(server, _)| server).filter(|server| server != us).collect())
    }

    async fn queue_receipts(&self, nid: RoomNid, user: &OwnedUserId, at: Position) -> Result<(), Error> {
        let reader = self.0.network.store().read();
        let mut receipts = reader.user_receipts(nid, user).await?;
        receipts.retain(|(key, receipt)| key.kind == ReceiptKind::Public && receipt.position == at);
        if receipts.is_empty() {
            return Ok(());
        }
        let room = reader.room_id(nid).await?;
        let servers = self.others_in(nid).await?;
        let when = self.gathering(servers.len());
        for server in servers {
            for (key, receipt) in &receipts {
                let place = (room.clone(), user.clone(), key.thread.clone());
                let event = (receipt.value.event.0.clone(), receipt.value.ts);
                self.0.lanes.add_receipt(&server, when, (at, place, event));
            }
        }
        Ok(())
    }

    /// When what so many servers are told has to go.
    fn gathering(&self, servers: usize) -> When {
        When { now: self.0.network.world().instant(), wait: gathered(servers) }
    }

    /// Tells the other servers in a room that a local user types or has stopped.
    pub(crate) async fn send_typing(&self, room: &RoomId, user: &UserId, typing: bool) -> Result<(), Error> {
        let Some(nid) = self.0.network.store().read().room_nid(room).await? else { return Ok(()) };
        let when = self.gathering(1);
        for server in self.others_in(nid).await? {
            self.0.lanes.add_typing(&server, when, ((room, user), typing));
        }
        Ok(())
    }

    /// Tells the servers that share a room with some local users of their presence, each of all of them together.
    pub(crate) async fn send_presence(&self, news: &[(OwnedUserId, PresenceNews)]) -> Result<(), Error> {
        for (user, news) in news {
            let servers = self.servers_of(&self.0.network.store().read(), user).await?;
            let when = self.gathering(servers.len());
            for server in &servers {
                self.0.lanes.add_momentary(server, when, |fleeting| {
                    fleeting.presence(user.clone(), news.clone());
                });
            }
        }
        Ok(())
    }

    /// A server that may be new in a room gets what local users said there and what still sticks (MSC4354).
    async fn send_sticky(&self, nid: RoomNid, to: &ServerName) -> Result<(), Error> {
        let (store, now) = (self.0.network.store(), self.0.network.world().now());
        let reader = store.read();
        let mut sticky = reader.sticky_after(nid, Position(0), usize::MAX).await?;
        sticky.retain(|(_, _, until)| *until > now);
        if sticky.is_empty() {
            return Ok(());
        }
        let servers = reader.room_servers(nid).await?;
        if !servers.iter().any(|(server, count)| server == to && *count == 1) {
            return Ok(());
        }
        let mut tx = Tx::new();
        let nums: Vec<EventNum> = sticky.into_iter().map(|(_, num, _)| num).collect();
        for some in nums.chunks(PAGE) {
            for (num, (meta, event)) in some.iter().zip(reader.events_once(nid, some).await?) {
                let sent = serde_json::from_str::<Sent>(&event.json);
                let is_ours = sent.is_ok_and(|sent| sent.sender.server_name() == self.0.network.server());
                // What is redacted does not stick any more.
                if is_ours && meta.redacted_by.some().is_none() {
                    tx.enqueue(to, &OutboxItem::Pdu { room: nid.0, event: num.0 });
                }
            }
        }
        drop(reader);
        if !tx.is_empty() {
            store.commit(tx).await?;
        }
        Ok(())
    }
}

/// How long what so many servers are told is gathered.
fn gathered(servers: usize) -> Duration {
    let each = GATHERED_EACH.saturating_mul(u32::try_from(servers).unwrap_or(u32::MAX));
    each.clamp(GATHERED, GATHERED_LONGEST)
}

/// As much of an event as is asked for.
#[derive(Deserialize)]
struct Sent {
    sender: OwnedUserId,
}

/// How long it is remembered that somebody came.
const ARRIVAL: Duration = Duration::from_mins(1);

/// Remote users who came into a room lately.
pub(super) struct Arrivals(Cache<OwnedUserId, Instant>);

impl Default for Arrivals {
    fn default() -> Self {
        Self(Cache::new(10_000))
    }
}

impl Arrivals {
    fn note(&self, user: &OwnedUserId, now: Instant) {
        self.0.insert(user.clone(), now);
    }

    /// Whether those in the room were just told of this user.
    pub(super) fn has(&self, user: &UserId, now: Instant) -> bool {
        self.0.get(user).is_some_and(|at| now.saturating_duration_since(at) < ARRIVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hundreds_of_servers_are_told_is_gathered_for_longer() {
        let seconds = [0, 1, 100, 400, 10_000].map(|servers| gathered(servers).as_secs());
        assert_eq!(seconds, [1, 1, 1, 4, 5]);
    }
}
