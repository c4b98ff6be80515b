//! Rooms that were joined without their members: the members are fetched behind, from whoever has them, again and again.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use chappe_store::{Membership, Tx, partial::PartialRoom};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedServerName, RoomId, UserId};
use tokio::sync::Notify;

use crate::{Actor, Error, Inner, Result, Rooms, View, desk::Desk, visible::Access};

/// Servers asked in one round at most.
const MOST_SERVERS: usize = 12;
/// Servers of which it is looked up whether they are away, at most.
const LOOKED_UP: usize = 50;
/// Pause after the first round in which nobody could help; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(10);
/// How long nobody tells who is in a room until servers that are only said to be in it are sent nothing more.
const BELIEVED: Duration = Duration::from_hours(6);

/// Rooms whose members are being fetched.
#[derive(Default)]
pub(crate) struct Partial {
    /// Those that a task works on, each with the word that somebody waits for it.
    under_way: Mutex<HashMap<OwnedRoomId, Arc<Notify>>>,
    /// Word that some room is whole now.
    whole: Notify,
}

/// A room that a task works on, for as long as that lasts, however it ends.
struct UnderWay {
    rooms: Rooms,
    room: OwnedRoomId,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.rooms.0.partial.under_way.lock().remove(&self.room);
    }
}

impl Partial {
    /// Tells those who wait that a room is whole, or given up.
    pub(crate) fn some_room_is_whole(&self) {
        self.whole.notify_waiters();
    }
}

impl Rooms {
    /// Goes on with rooms that were joined without their members: fetches these, or does what was left to do when they were
    /// there. To be called once when the server starts.
    pub async fn resume_partial(&self) -> Result<()> {
        let reader = self.0.store.read();
        for nid in reader.unfinished_rooms().await? {
            match reader.room_id(nid).await {
                Ok(room) => self.complete_soon(&room),
                Err(chappe_store::Error::Gone) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Fetches the members of a room in the background, if it lacks them.
    pub(crate) fn complete_soon(&self, room: &RoomId) {
        let wanted = Arc::new(Notify::new());
        match self.0.partial.under_way.lock().entry(room.to_owned()) {
            Entry::Occupied(_) => return,
            Entry::Vacant(entry) => entry.insert(wanted.clone()),
        };
        let (rooms, room) = (self.clone(), room.to_owned());
        let mark = UnderWay { rooms: rooms.clone(), room: room.clone() };
        drop(self.0.world.spawn("members of a room", async move {
            rooms.fetch_members(&room, &wanted).await;
            drop(mark);
            // It may have come in anew after the last look.
            rooms.complete_if_partial(&room).await;
        }));
    }

    /// The same if the room is here and is known to lack them.
    pub(crate) async fn complete_if_partial(&self, room: &RoomId) {
        let is_partial = Desk::open(&self.0, room).await.is_ok_and(|desk| desk.head.partial);
        if is_partial && !self.0.world.is_stopping() {
            self.complete_soon(room);
        }
    }

    /// The same without long pauses: somebody waits for them.
    fn complete_now(&self, room: &RoomId) {
        self.complete_soon(room);
        if let Some(wanted) = self.0.partial.under_way.lock().get(room) {
            wanted.notify_one();
        }
    }

    async fn fetch_members(&self, room: &RoomId, wanted: &Notify) {
        let world = &self.0.world;
        let (mut pause, mut in_vain) = (FIRST_PAUSE, Duration::ZERO);
        while !world.is_stopping() {
            // Until then nobody can be asked, and whoever is in the room would be taken for an outsider.
            tokio::select! {
                () = self.0.peers.until_open() => {}
                () = world.stopping() => return,
            }
            match self.0.try_complete(room).await {
                Ok(()) | Err(Error::NotFound("room")) => return,
                Err(error) => tracing::info!(%room, %error, "the members of the room could not be fetched"),
            }
            if in_vain >= BELIEVED
                && let Err(error) = self.0.doubt_claims(room).await
            {
                tracing::warn!(%room, %error, "servers are still believed to be in the room");
            }
            let since = world.instant();
            tokio::select! {
                () = world.sleep(pause) => {}
                () = async { world.sleep(FIRST_PAUSE).await; wanted.notified().await } => {}
                () = world.stopping() => {}
            }
            in_vain += world.instant().saturating_duration_since(since);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// What a user may ask of a room, as soon as the room is whole; the user is let in before there is any waiting.
    pub(crate) async fn whole_view(&self, actor: &Actor, room: &RoomId) -> Result<(View<'_>, Access)> {
        let view = self.view_as(actor, room).await.map_err(crate::read::state::no_such_room)?;
        let access = view.access(&actor.user).await?;
        if !view.head.partial || access != Access::Joined {
            return Ok((view, access));
        }
        drop(view);
        self.complete_now(room);
        let limit = Duration::from_secs(self.config().join_timeout_seconds);
        let whole = self.0.world.timeout(limit, self.0.until_whole(room)).await;
        whole.unwrap_or(Err(Error::Unreachable))?;
        let view = self.view_as(actor, room).await?;
        let access = view.access(&actor.user).await?;
        Ok((view, access))
    }

    /// Remembers that the devices of a remote user changed, for the rooms of which it is not known whether the user is in
    /// them: those who are in such a room are told once it is whole.
    pub async fn note_unplaced_devices(&self, user: &UserId) -> Result<()> {
        let reader = self.0.store.read();
        let mut tx = Tx::new();
        for nid in reader.partial_rooms().await? {
            let may_be = reader.server_joined(nid, user.server_name()).await?;
            if may_be && reader.membership(nid, user).await?.is_none() {
                tx.put::<chappe_store::partial::UnplacedDevices>(&(nid, user.to_owned()), &());
            }
        }
        if !tx.is_empty() {
            self.0.store.commit(tx).await?;
        }
        Ok(())
    }
}

impl Inner {
    async fn until_whole(&self, room: &RoomId) -> Result<()> {
        loop {
            let word = self.partial.whole.notified();
            tokio::pin!(word);
            word.as_mut().enable();
            if !Desk::open(self, room).await?.head.partial {
                return Ok(());
            }
            word.await;
        }
    }

    /// One round: the state before the join from the first server that has it, then everything since judged again.
    pub(crate) async fn try_complete(&self, room: &RoomId) -> Result<()> {
        let desk = Desk::open(self, room).await?;
        let Some(partial) = desk.reader.partial_room(desk.nid).await? else { return self.finish(room).await };
        let doubted = desk.reader.doubted_servers(desk.nid).await?;
        let servers: BTreeSet<OwnedServerName> = desk.servers().await?.into_iter().chain(doubted).collect();
        let servers = servers.into_iter().collect();
        drop(desk);
        let result = if self.knows_state_before(room, &partial).await? {
            Ok(())
        } else {
            self.ask_for_state_before(room, &partial, servers).await
        };
        if matches!(result, Err(Error::Store(_) | Error::Retry)) {
            return result;
        }
        if result.is_ok() {
            self.make_whole(room, &partial).await?;
            self.partial.some_room_is_whole();
            return self.finish(room).await;
        }
        if Desk::open(self, room).await?.is_here().await? {
            return result;
        }
        // Nobody here is in the room any more, and nobody there tells those who are not.
        self.give_up(room, &partial).await
    }

    /// Asks one server after the other, until one helps.
    async fn ask_for_state_before(
        &self,
        room: &RoomId,
        partial: &PartialRoom,
        servers: Vec<OwnedServerName>,
    ) -> Result<()> {
        let mut result = Err(Error::Unreachable);
        for server in self.to_ask(&partial.via, servers).await {
            result = self.fetch_state_before(&server, room, partial).await;
            match &result {
                Ok(()) | Err(Error::Store(_) | Error::Retry) => break,
                Err(error) => tracing::info!(%room, %server, %error, "the state of the room was not told"),
            }
        }
        result
    }

    /// Who let the user in, then some of the `servers` that may be in the room, other ones each time; who did not answer of late comes last.
    async fn to_ask(&self, via: &OwnedServerName, mut servers: Vec<OwnedServerName>) -> Vec<OwnedServerName> {
        servers.retain(|server| server != via && *server != self.server);
        let count = u64::try_from(servers.len()).unwrap_or(u64::MAX);
        servers.rotate_left(usize::try_from(self.world.below(count)).unwrap_or_default());
        servers.insert(0, via.clone());
        let (mut there, mut away) = (Vec::new(), Vec::new());
        for server in servers.into_iter().take(LOOKED_UP) {
            let list = if self.peers.is_away(&server).await { &mut away } else { &mut there };
            list.push(server);
        }
        there.append(&mut away);
        there.truncate(MOST_SERVERS);
        there
    }

    /// What follows once a room is whole; done again after a crash, it changes nothing.
    async fn finish(&self, room: &RoomId) -> Result<()> {
        self.settle_late(room).await?;
        self.place_devices(room).await
    }

    pub(crate) async fn give_up(&self, room: &RoomId, partial: &PartialRoom) -> Result<()> {
        let _turn = self.turn(room).await;
        let mut desk = Desk::open(self, room).await?;
        if desk.is_here().await? {
            // Somebody came back meanwhile.
            return Err(Error::Unreachable);
        }
        desk.head.partial = false;
        desk.tx.end_partial(desk.nid, partial);
        desk.tx.forget_unplaced_devices(desk.nid);
        self.store.commit(desk.seal()).await?;
        self.partial.some_room_is_whole();
        Ok(())
    }

    /// Has servers count no longer that are only said to be in a room, but for the one that let the user in. As soon as
    /// somebody of theirs is known, who says something or is told of by others, they do. They are still asked for the members.
    async fn doubt_claims(&self, room: &RoomId) -> Result<()> {
        let _turn = self.turn(room).await;
        let mut desk = Desk::open(self, room).await?;
        let Some(partial) = desk.reader.partial_room(desk.nid).await? else { return Ok(()) };
        let counts = desk.reader.room_servers(desk.nid).await?;
        let alone: BTreeSet<OwnedServerName> =
            counts.into_iter().filter(|(_, count)| *count == 1).map(|(server, _)| server).collect();
        let PartialRoom { join, prev, via, servers } = partial;
        let is_doubted = |server: &OwnedServerName| *server != via && alone.contains(server);
        let (doubted, servers): (Vec<_>, Vec<_>) = servers.into_iter().partition(is_doubted);
        if doubted.is_empty() {
            return Ok(());
        }
        tracing::info!(%room, servers = doubted.len(), "nobody tells whether these are in the room");
        let before = desk.reader.doubted_servers(desk.nid).await?;
        desk.tx.doubt_partial(desk.nid, PartialRoom { join, prev, via, servers }, before, doubted);
        self.store.commit(desk.seal()).await?;
        Ok(())
    }

    /// Tells those in a room that is whole now of the devices that changed meanwhile.
    pub(crate) async fn place_devices(&self, room: &RoomId) -> Result<()> {
        let desk = Desk::open(self, room).await?;
        let users = desk.reader.unplaced_devices(desk.nid).await?;
        for user in &users {
            if matches!(desk.reader.membership(desk.nid, user).await?, Some((Membership::Join, _)))
                && let Err(error) = self.accounts.mark_stale(user).await
            {
                tracing::warn!(%user, %error, "nobody was told that the user's devices changed");
            }
        }
        if !users.is_empty() {
            let mut tx = Tx::new();
            tx.forget_unplaced_devices(desk.nid);
            self.store.commit(tx).await?;
        }
        Ok(())
    }
}
