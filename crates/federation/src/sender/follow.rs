//! Following the log: who has to be woken, which EDUs follow from what happened.

use std::time::Duration;

use chappe_store::{
    Cursors, Entry, Error, LogEntry, Membership, Position, RoomNid, Tx, receipts::ReceiptKind,
};
use ruma::{OwnedServerName, OwnedUserId, RoomId, UserId};

use super::{Sender, announce::servers_of, fleeting::PresenceNews, lanes::Keep};

/// The name of this follower's cursor.
const CURSOR: &str = "federation";
/// Entries read at once.
const PAGE: usize = 500;
/// The cursor is written this often; what lies between is gone through again after a restart, which does no harm.
const CURSOR_INTERVAL: Duration = Duration::from_secs(10);
/// Wait after a failed read of the store.
const PAUSE: Duration = Duration::from_secs(1);

impl Sender {
    pub(super) async fn follow(self) {
        let world = self.0.network.world().clone();
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
                let mut tx = Tx::new();
                tx.put::<Cursors>(&CURSOR.to_owned(), &seen.0);
                store.commit(tx).await?;
                (written, written_at) = (seen.0, world.instant());
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

    async fn handle(&self, entry: &Entry) -> Result<(), Error> {
        match &entry.what {
            LogEntry::Outbox { destination } => self.wake(destination),
            LogEntry::Receipt { room, user, private: false, local: true } => {
                self.queue_receipts(RoomNid(*room), user, entry.position).await?;
            }
            LogEntry::DeviceList { user } if user.server_name() == self.0.network.server() => {
                self.announce(user).await?;
            }
            LogEntry::Event { room, member: Some(member), .. } => {
                self.stop_tracking(RoomNid(*room), member).await?;
            }
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
        for server in self.others_in(nid).await? {
            for (key, receipt) in &receipts {
                let place = (room.clone(), user.clone(), key.thread.clone());
                let (event, ts) = (receipt.value.event.0.clone(), receipt.value.ts);
                self.0
                    .lanes
                    .add_fleeting(&server, Keep::UntilSent, |fleeting| fleeting.receipt(place, event, ts));
            }
            self.wake(&server);
        }
        Ok(())
    }

    /// Tells the other servers in a room that a local user types or has stopped.
    pub(crate) async fn send_typing(&self, room: &RoomId, user: &UserId, typing: bool) -> Result<(), Error> {
        let Some(nid) = self.0.network.store().read().room_nid(room).await? else { return Ok(()) };
        for server in self.others_in(nid).await? {
            self.0.lanes.add_fleeting(&server, Keep::WhileReached, |fleeting| {
                fleeting.typing(room.to_owned(), user.to_owned(), typing);
            });
            self.wake(&server);
        }
        Ok(())
    }

    /// Tells the servers that share a room with a local user of the user's presence.
    pub(crate) async fn send_presence(&self, user: &UserId, news: &PresenceNews) -> Result<(), Error> {
        let reader = self.0.network.store().read();
        for server in servers_of(&reader, user, self.0.network.server()).await? {
            self.0.lanes.add_fleeting(&server, Keep::WhileReached, |fleeting| {
                fleeting.presence(user.to_owned(), news.clone());
            });
            self.wake(&server);
        }
        Ok(())
    }

    /// Somebody left a room: no updates of a remote user's devices can be relied on any more, unless another room is
    /// shared, and then the list is simply fetched again.
    async fn stop_tracking(&self, nid: RoomNid, member: &OwnedUserId) -> Result<(), Error> {
        let reader = self.0.network.store().read();
        let us = self.0.network.server();
        let joined = reader.membership(nid, member).await?.is_some_and(|(is, _)| is == Membership::Join);
        if joined {
            return Ok(());
        }
        if member.server_name() != us {
            return self.forget(member).await;
        }
        if reader.server_joined(nid, us).await? {
            return Ok(());
        }
        for (user, _) in reader.members(nid, Membership::Join).await? {
            if user.server_name() != us {
                self.forget(&user).await?;
            }
        }
        Ok(())
    }

    async fn forget(&self, user: &UserId) -> Result<(), Error> {
        let known = self.0.accounts.remote_list(user).await;
        if !matches!(known, Ok(Some(_))) {
            return Ok(());
        }
        match self.0.accounts.forget_remote(user).await {
            Err(chappe_accounts::Error::Store(error)) => Err(error),
            _ => Ok(()),
        }
    }
}
