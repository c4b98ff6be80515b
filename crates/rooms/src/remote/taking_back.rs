//! Joins that other servers accepted and that came to nothing here: these believe that the user is in, so it leaves. Who was sent
//! one is on disk from before that until the user is in or out, and so outlives a stop.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::pending,
    sync::{Arc, Weak},
    time::Duration,
};

use chappe_store::{Membership, Tx, sent_joins::SentJoin};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use serde_json::{Map, json};
use tokio::sync::{RwLock, watch};

use super::TELLING;
use crate::{Error, Inner, PeerError, Result, Rooms, turn::ATTEMPTS, waits::Waits};

/// How many of those that were sent joins of one user to one room are remembered, the last ones.
const REMEMBERED: usize = 32;
/// How often it is looked what is still to be taken back.
const NAP: Duration = Duration::from_mins(5);
/// Users whose joins are taken back side by side.
const SIDE_BY_SIDE: usize = 16;
/// Joins of one user that are tried in one round.
const OF_ONE: usize = 20;
/// For how long: whoever has many, at servers that are slow, keeps nobody waiting.
const PATIENCE: Duration = Duration::from_mins(1);
/// For how long a join may still be accepted of which nobody knows yet, in milliseconds since it was sent.
const LATE_MS: u64 = 10 * 60 * 1_000;
/// For how long a join is tried to be taken back, in milliseconds since it was sent.
const INSISTED_MS: u64 = 24 * 60 * 60 * 1_000;
/// And since it was first tried after a start at least: this server may have been away for days.
const INSISTED_HERE: Duration = Duration::from_hours(1);

/// The joins of one user to one room that are under way.
#[derive(Default)]
pub(super) struct Joining {
    /// Held by each of them, and by nobody else while they are taken back.
    pub(super) under_way: RwLock<()>,
    /// Servers that have refused one that they were sent.
    refused: Mutex<Vec<OwnedServerName>>,
    /// Where it is heard that the user is in; when all of them have come to nothing it ends.
    word: watch::Sender<()>,
}

impl Joining {
    /// Nobody believes that one, at least.
    pub(super) fn refused_by(&self, server: &ServerName) {
        self.refused.lock().push(server.to_owned());
    }

    /// The user is in: there is nothing to be taken back, whichever join it was.
    pub(super) fn came_in(&self) {
        self.refused.lock().clear();
        self.word.send_replace(());
    }
}

/// Joins by user and room.
#[derive(Default)]
pub(crate) struct Joins {
    /// Those that are under way.
    under_way: Mutex<HashMap<(OwnedUserId, OwnedRoomId), Weak<Joining>>>,
    /// Those that could not be taken back of late.
    failing: Waits<(OwnedUserId, OwnedRoomId)>,
    /// The one of each user that was tried last: the next round goes on behind it.
    last: Mutex<BTreeMap<OwnedUserId, OwnedRoomId>>,
}

impl Joins {
    pub(super) fn of(&self, user: &UserId, room: &RoomId) -> Arc<Joining> {
        let mut joins = self.under_way.lock();
        joins.retain(|_, joining| joining.strong_count() > 0);
        let known = joins.entry((user.to_owned(), room.to_owned())).or_default();
        known.upgrade().unwrap_or_else(|| {
            let joining = Arc::new(Joining::default());
            *known = Arc::downgrade(&joining);
            joining
        })
    }

    /// Users whose joins to a room are under way, or are taken back, and where it is heard that these have ended.
    fn to(&self, room: &RoomId) -> Vec<(OwnedUserId, watch::Receiver<()>)> {
        let joins = self.under_way.lock();
        let to_room = joins.iter().filter(|((_, known), _)| known == room);
        let word = |joining: &Weak<Joining>| Some(joining.upgrade()?.word.subscribe());
        to_room.filter_map(|((user, _), joining)| Some((user.clone(), word(joining)?))).collect()
    }

    /// Has a user enter a room that this server is in, or ask to: not while an earlier join is taken back, nor is it meanwhile.
    pub(crate) async fn hold<T>(&self, user: &UserId, room: &RoomId, work: impl Future<Output = T>) -> T {
        let joining = self.of(user, room);
        let _under_way = joining.under_way.read().await;
        work.await
    }
}

impl Rooms {
    /// Waits while a room comes in with a join that was sent, until one has ended, well or not. For ever where there is none.
    pub async fn until_come_in(&self, room: &RoomId) {
        match self.0.coming_in(room).await {
            Ok(Some(mut word)) => {
                let _ = word.changed().await;
            }
            _ => pending().await,
        }
    }

    /// Takes back what was accepted of a join that failed so: not where the next attempt may go on from here, nor where the
    /// user has an invite that is still good for it. While another one is under way that is left to it, and nobody waits for it.
    /// What is not taken back now is looked at again by [`Rooms::run_joins`].
    pub(super) async fn end_join(&self, error: &Error, joining: Arc<Joining>, user: &UserId, room: &RoomId) {
        if let Err(error) = self.0.strike_refused(&joining, user, room).await {
            tracing::warn!(%room, %user, %error, "who has refused a join may be asked to let the user leave");
        }
        let is_over = match error {
            Error::Store(_) | Error::Retry => false,
            Error::Unreachable => !self.0.holds_invite(user, room).await.unwrap_or(true),
            _ => true,
        };
        if !is_over {
            return;
        }
        let spared = if matches!(error, Error::Unreachable) { Spared::All } else { Spared::Inside };
        let (rooms, user, room) = (self.clone(), user.to_owned(), room.to_owned());
        drop(self.0.world.spawn("join taken back", async move {
            if let Err(error) = rooms.0.take_back(&joining, &user, &room, spared).await {
                tracing::warn!(%room, %user, %error, "a join is not taken back yet");
            }
        }));
    }

    /// Takes back joins that could not be taken back at once, those before the last stop among them, until the server stops. One
    /// task of a server runs this.
    pub async fn run_joins(&self) {
        let world = &self.0.world;
        loop {
            let round = async {
                // Until then nobody can be asked.
                self.0.peers.until_open().await;
                self.take_back_joins().await
            };
            let done = tokio::select! {
                () = world.stopping() => return,
                done = round => done,
            };
            if let Err(error) = done {
                tracing::warn!(%error, "some joins are not taken back yet");
            }
            tokio::select! {
                () = world.stopping() => return,
                () = world.sleep(NAP) => {}
            }
        }
    }

    /// Tries those that are due once.
    pub(crate) async fn take_back_joins(&self) -> Result<()> {
        let now = self.0.world.instant();
        let sent = self.0.store.read().sent_joins().await?;
        let mut due: BTreeMap<OwnedUserId, Vec<OwnedRoomId>> = BTreeMap::new();
        for key in sent {
            let is_due = !self.0.joins.failing.holds(&key, now);
            let (user, room) = key;
            due.entry(user).or_default().extend(is_due.then_some(room));
        }
        self.0.joins.last.lock().retain(|user, _| due.contains_key(user));
        let users = due.into_iter().map(|(user, rooms)| async move { self.take_back_of(&user, rooms).await });
        let users = stream::iter(users).buffer_unordered(SIDE_BY_SIDE);
        users.fold(Ok(()), |done, taken| async { done.and(taken) }).await
    }

    /// Tries joins of a user, in the order of their rooms. Those that are not reached in time come first in the next round.
    async fn take_back_of(&self, user: &UserId, mut rooms: Vec<OwnedRoomId>) -> Result<()> {
        let (world, last) = (&self.0.world, &self.0.joins.last);
        let tried = last.lock().get(user).cloned();
        let behind = rooms.partition_point(|room| Some(room) <= tried.as_ref());
        rooms.rotate_left(behind);
        let end = world.instant() + PATIENCE;
        let mut done = Ok(());
        for room in rooms.into_iter().take(OF_ONE) {
            let left = end.saturating_duration_since(world.instant());
            if left.is_zero() {
                break;
            }
            last.lock().insert(user.to_owned(), room.clone());
            done = done.and(self.try_to_take_back(user, &room, left).await);
        }
        done
    }

    async fn try_to_take_back(&self, user: &UserId, room: &RoomId, patience: Duration) -> Result<()> {
        let (inner, key) = (&self.0, (user.to_owned(), room.to_owned()));
        let joining = inner.joins.of(user, room);
        // An invite is still good for a join, and may be turned down: then it is looked whether that has been heard.
        let taking = Box::pin(inner.take_back(&joining, user, room, Spared::All));
        if inner.world.timeout(patience, taking).await.transpose()? == Some(true) {
            inner.joins.failing.worked(&key);
            return Ok(());
        }
        let now = inner.world.instant();
        let is_new = inner.joins.failing.failed(key.clone(), now) < INSISTED_HERE;
        // Where more fail than are remembered, the time of the join alone tells.
        if is_new && inner.joins.failing.holds(&key, now) {
            return Ok(());
        }
        let now = inner.world.now();
        let sent = inner.store.read().sent_join(user, room).await?;
        if let Some(sent) = sent.filter(|sent| now.saturating_sub(sent.since) > INSISTED_MS) {
            tracing::warn!(%room, %user, "that a user leaves a room that is not entered is given up");
            inner.forget_sent(user, room, &sent).await?;
            inner.joins.failing.worked(&key);
        }
        Ok(())
    }
}

/// Which invites and knocks of a user a leave would end that is only to take a join back: then it is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spared {
    /// What a room says that this server is in.
    Inside,
    /// And what is noted beside: it may have come since the join.
    All,
}

impl Inner {
    /// Whether a join of a user of this server to a room was sent and is still under way. Where it is not, and was, the room is
    /// here by now or does not come in.
    pub(crate) async fn is_coming_in(&self, room: &RoomId) -> Result<bool> {
        Ok(self.coming_in(room).await?.is_some())
    }

    /// The same, with where it is heard that such a join has ended.
    async fn coming_in(&self, room: &RoomId) -> Result<Option<watch::Receiver<()>>> {
        for (user, word) in self.joins.to(room) {
            if self.store.read().sent_join(&user, room).await?.is_some() {
                return Ok(Some(word));
            }
        }
        Ok(None)
    }

    async fn holds_invite(&self, user: &UserId, room: &RoomId) -> Result<bool> {
        let outside = self.store.read().out_of_band(user, room).await?;
        Ok(outside.is_some_and(|outside| outside.value.0.kind() == Some(Membership::Invite)))
    }

    /// Whether a user has an invite or a knock that is spared.
    async fn spares(&self, user: &UserId, room: &RoomId, spared: Spared) -> Result<bool> {
        let asks = |membership: Membership| matches!(membership, Membership::Invite | Membership::Knock);
        let reader = self.store.read();
        if spared == Spared::All
            && let Some(outside) = reader.out_of_band(user, room).await?
            && outside.value.0.kind().is_some_and(asks)
        {
            return Ok(true);
        }
        let Some(nid) = reader.room_nid(room).await? else { return Ok(false) };
        let is_asked = reader.user_room(user, nid).await?.is_some_and(|now| asks(now.value.membership));
        Ok(is_asked && reader.server_joined(nid, &self.server).await?)
    }

    /// Notes that a server is about to be sent a join: it may have accepted it from then on, also where the answer does not come
    /// whole or in time, or this server stops. The commit that brings the user in forgets it.
    pub(super) async fn note_sent(&self, server: &ServerName, user: &UserId, room: &RoomId) -> Result<()> {
        let since = self.world.now();
        let note = |sent: &mut SentJoin| {
            if sent.servers.len() >= REMEMBERED {
                sent.servers.remove(0);
            }
            sent.servers.push(server.to_owned());
            sent.since = since;
        };
        self.change_sent(user, room, note).await
    }

    /// Takes those that have refused a join from those that may have accepted one.
    async fn strike_refused(&self, joining: &Joining, user: &UserId, room: &RoomId) -> Result<()> {
        let refused = std::mem::take(&mut *joining.refused.lock());
        if refused.is_empty() {
            return Ok(());
        }
        let strike = |sent: &mut SentJoin| {
            for server in &refused {
                if let Some(at) = sent.servers.iter().rposition(|known| known == server) {
                    sent.servers.remove(at);
                }
            }
        };
        self.change_sent(user, room, strike).await
    }

    async fn change_sent(
        &self,
        user: &UserId,
        room: &RoomId,
        change: impl Fn(&mut SentJoin) + Send,
    ) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let read = self.store.read().sent_join(user, room).await?;
            let mut now = read.clone().unwrap_or_default();
            change(&mut now);
            if now == read.clone().unwrap_or_default() {
                return Ok(());
            }
            if self.replace_sent((user, room), read.as_ref(), &now).await? {
                return Ok(());
            }
        }
        Err(Error::Retry)
    }

    /// False if it is not what was read any more.
    async fn replace_sent(
        &self,
        (user, room): (&UserId, &RoomId),
        read: Option<&SentJoin>,
        now: &SentJoin,
    ) -> Result<bool> {
        let mut tx = Tx::new();
        tx.replace_sent_join(user, room, read, now);
        match self.store.commit(tx).await {
            Ok(_) => Ok(true),
            Err(chappe_store::Error::Conflict) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Has a user leave a room that did not come in, through one of those that may have accepted a join. Gives whether nothing is
    /// left to be taken back.
    async fn take_back(
        &self,
        joining: &Joining,
        user: &UserId,
        room: &RoomId,
        spared: Spared,
    ) -> Result<bool> {
        let Some(sent) = self.to_take_back(user, room).await? else { return Ok(true) };
        let content = Map::from_iter([("membership".to_owned(), json!("leave"))]);
        let (mut seen, mut servers) = (BTreeSet::new(), sent.servers.clone());
        servers.retain(|server| seen.insert(server.clone()));
        // Not always the same ones are reached before the time is up.
        let count = u64::try_from(servers.len()).unwrap_or(u64::MAX);
        servers.rotate_left(usize::try_from(self.world.below(count)).unwrap_or_default());
        let mut nobody_knows = true;
        for server in &servers {
            // Let go of after each of them: a join that waits comes first, and the user may be in then.
            let Ok(_alone) = joining.under_way.try_write() else { return Ok(false) };
            let is_as_it_was = self.to_take_back(user, room).await?.as_ref() == Some(&sent);
            if !is_as_it_was
                || !self.is_still_sent(user, room, &sent).await?
                || self.spares(user, room, spared).await?
            {
                return Ok(false);
            }
            match self.leave_through(server, user, room, &content, TELLING).await {
                Ok(_) => return self.forget_sent(user, room, &sent).await,
                Err(error) => {
                    tracing::warn!(%room, %user, %server, %error, "a room that is not entered was not left");
                    nobody_knows &= knows_no_member(&error);
                }
            }
        }
        let is_late = self.world.now().saturating_sub(sent.since) > LATE_MS;
        if nobody_knows && is_late { self.forget_sent(user, room, &sent).await } else { Ok(false) }
    }

    /// What was sent of the joins of a user who is not in the room.
    async fn to_take_back(&self, user: &UserId, room: &RoomId) -> Result<Option<SentJoin>> {
        let reader = self.store.read();
        let Some(sent) = reader.sent_join(user, room).await? else { return Ok(None) };
        let Some(nid) = reader.room_nid(room).await? else { return Ok(Some(sent)) };
        let now = reader.user_room(user, nid).await?;
        drop(reader);
        if now.is_none_or(|now| now.value.membership != Membership::Join) {
            return Ok(Some(sent));
        }
        // Another join of the same user brought the user in.
        self.forget_sent(user, room, &sent).await?;
        Ok(None)
    }

    /// False if another join was sent meanwhile.
    async fn forget_sent(&self, user: &UserId, room: &RoomId, sent: &SentJoin) -> Result<bool> {
        self.replace_sent((user, room), Some(sent), &SentJoin::default()).await
    }

    /// Whether it is noted still, also after all commits that were under way: nobody waited for the last one of a join whose time
    /// was up, and the user may come in by it.
    async fn is_still_sent(&self, user: &UserId, room: &RoomId, sent: &SentJoin) -> Result<bool> {
        self.replace_sent((user, room), Some(sent), sent).await
    }
}

/// Whether a server says that the user is no member, or that there is no such room: the join was not accepted, or the user was
/// put out since.
fn knows_no_member(error: &Error) -> bool {
    matches!(error, Error::Peer(PeerError::Refused { status: 403 | 404, .. }))
}

#[cfg(test)]
mod tests {
    use chappe_kv::{Db, Memory};
    use chappe_store::{Tx, sent_joins::SentJoin};
    use ruma::{OwnedRoomId, RoomId, owned_server_name, room_id, user_id};

    use crate::tests::net::Net;

    #[tokio::test(start_paused = true)]
    async fn where_too_many_joins_fail_only_their_time_tells_when_they_are_given_up() {
        let b = Net::default().server_on("b.example", 2, Db::new(Memory::default()));
        let (bob, old, new) =
            (user_id!("@bob:b.example"), room_id!("!old:a.example"), room_id!("!new:a.example"));
        // As many as are remembered.
        for n in 0..10_000 {
            let other: OwnedRoomId = RoomId::parse(format!("!{n}:a.example")).unwrap();
            b.0.joins.failing.failed((bob.to_owned(), other), b.0.world.instant());
        }
        let mut tx = Tx::new();
        for (room, since) in [(old, 1), (new, b.0.world.now())] {
            let sent = SentJoin { servers: vec![owned_server_name!("a.example")], since };
            tx.replace_sent_join(bob, room, None, &sent);
        }
        b.store().commit(tx).await.unwrap();
        b.take_back_joins().await.unwrap();
        let left = b.store().read().sent_joins().await.unwrap();
        assert_eq!(left, [(bob.to_owned(), new.to_owned())]);
    }
}
