//! The follower: opens the index, builds it where it has to be built, and takes in what the log says from then on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use chappe_rooms::Event;
use chappe_store::{
    Cursors, Entry, EventNum, LogEntry, Meta, Position, Reader, RoomNid, Tx, members::OpenRooms,
};
use ruma::{OwnedUserId, ServerName, UserId};
use tokio::time::Instant;

use crate::{
    Error, Inner, Search,
    build::{Stage, is_open},
    events,
    index::{FORMAT, Index, Op, Progress, wipe},
    people,
};

/// The follower's name among the cursors, and of the mark of its index among the single values.
const NAME: &str = "search";
/// Log entries taken at once.
const BATCH: usize = 500;
/// People and events of a room taken at once.
const PAGE: usize = 500;
/// Changes that wait for a commit at most.
const PENDING: usize = 20_000;
/// What nobody waits for is committed so often.
const EVERY: Duration = Duration::from_secs(10);
/// After something happened, more is waited for so long.
const GATHERING: Duration = Duration::from_millis(200);
/// Commits for those who wait are so far apart at least.
const APART: Duration = Duration::from_millis(100);
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Positions without anything for the index after which its place is written all the same, so that the log can be cut.
const IDLE: u64 = 5_000;

/// The one writer of the index.
pub(crate) struct Follower {
    pub(crate) search: Search,
    index: Arc<Index>,
    /// What the next commit will say.
    pub(crate) progress: Progress,
    committed: Position,
    committed_at: Instant,
    /// Changes that wait for a commit.
    pending: usize,
    /// Those of them that are of people.
    pending_people: usize,
    /// Rooms that anybody may enter or look into.
    pub(crate) open: BTreeSet<RoomNid>,
    /// Rooms of which that changed, not written down yet.
    turned: BTreeSet<RoomNid>,
}

/// What a stretch of the log asks for.
#[derive(Default)]
struct Todo {
    events: BTreeMap<RoomNid, BTreeSet<EventNum>>,
    history: Vec<(RoomNid, i64, i64)>,
    people: BTreeSet<OwnedUserId>,
    rooms: BTreeSet<RoomNid>,
}

impl Todo {
    fn of(entries: Vec<Entry>) -> Self {
        let mut todo = Self::default();
        for entry in entries {
            match entry.what {
                LogEntry::Event { room, event, member, .. } => {
                    todo.events.entry(RoomNid(room)).or_default().insert(EventNum(event));
                    todo.people.extend(member);
                }
                LogEntry::Purged { room, events } => {
                    todo.events.entry(RoomNid(room)).or_default().extend(events.into_iter().map(EventNum));
                }
                LogEntry::History { room, first, last } => todo.history.push((RoomNid(room), first, last)),
                LogEntry::Member { user, .. } | LogEntry::Profile { user } => {
                    todo.people.insert(user);
                }
                LogEntry::Members { room } | LogEntry::Whole { room, .. } => {
                    todo.rooms.insert(RoomNid(room));
                }
                _ => {}
            }
        }
        todo
    }
}

impl Follower {
    /// Follows until the world stops. What fails is tried again; an index that cannot be read is built anew.
    pub(crate) async fn run(search: Search) {
        let world = search.0.deps.world.clone();
        while !world.is_stopping() {
            let ended = match Self::open(&search).await {
                Ok(follower) => follower.keep_up().await,
                Err(error) => Err(error),
            };
            *search.0.index.write() = None;
            let Err(error) = ended else { return };
            if world.is_stopping() {
                return;
            }
            tracing::error!(%error, "the search index does not get on, trying again");
            if search.0.broken.swap(false, SeqCst) {
                let folder = search.0.deps.folder.clone();
                if let Ok(Err(error)) = world.spawn_blocking(move || wipe(&folder)).await {
                    tracing::error!(%error, "the broken search index cannot be removed");
                }
            }
            tokio::select! {
                () = world.stopping() => return,
                () = world.sleep(AGAIN) => {}
            }
        }
    }

    async fn open(search: &Search) -> Result<Self, Error> {
        let (index, known) = open_index(&search.0).await?;
        let store = &search.0.deps.store;
        let reader = store.read();
        let mark = reader.get::<Meta>(&NAME.to_owned()).await?.and_then(|mark| String::from_utf8(mark).ok());
        let cursor = reader.get::<Cursors>(&NAME.to_owned()).await?;
        let is_ours = |known: &Progress| {
            known.format == FORMAT
                && known.messages == search.0.config.messages
                && Some(&known.mark) == mark.as_ref()
                && cursor.is_some_and(|cursor| known.position >= cursor)
                && known.position <= reader.position().0
        };
        let (index, progress) = match known.filter(is_ours).zip(cursor) {
            // What the store knows less of than the index is done again: that changes nothing.
            Some((known, cursor)) => (index, Progress { position: cursor, ..known }),
            None => begin(&search.0, index).await?,
        };
        let open = store.read().scan_all::<OpenRooms>(&()).await?.into_iter().map(|(nid, ())| nid).collect();
        let follower = Self {
            search: search.clone(),
            index: Arc::new(index),
            committed: Position(progress.position),
            committed_at: search.0.deps.world.instant(),
            progress,
            pending: 0,
            pending_people: 0,
            open,
            turned: BTreeSet::new(),
        };
        *search.0.index.write() = Some(follower.index.clone());
        // Whoever waits for an index to be there looks again.
        search.0.reached.send_modify(|_| ());
        Ok(follower)
    }

    async fn keep_up(mut self) -> Result<(), Error> {
        let search = self.search.clone();
        let world = search.0.deps.world.clone();
        let mut visible = search.0.deps.store.visible();
        let mut tick = world.interval(EVERY);
        loop {
            if search.0.broken.load(SeqCst) {
                return Err(Error::Broken);
            }
            if self.progress.stage != Stage::Done {
                self.build().await?;
                self.settle().await?;
                if world.is_stopping() {
                    return self.commit().await;
                }
                continue;
            }
            self.catch_up().await?;
            self.settle().await?;
            tokio::select! {
                biased;
                () = world.stopping() => return self.commit().await,
                changed = visible.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    // What comes together is taken in together, unless somebody waits for it.
                    tokio::select! {
                        biased;
                        () = world.stopping() => {}
                        () = search.0.wake.notified() => {}
                        () = world.sleep(GATHERING) => {}
                    }
                }
                () = search.0.wake.notified() => {}
                _ = tick.tick() => {}
            }
        }
    }

    async fn catch_up(&mut self) -> Result<(), Error> {
        let store = self.search.0.deps.store.clone();
        loop {
            let reader = store.read();
            let entries = reader.log_after(Position(self.progress.position), BATCH).await?;
            let Some(last) = entries.last().map(|entry| entry.position) else {
                self.progress.position = self.progress.position.max(reader.position().0);
                return Ok(());
            };
            self.take(&reader, Todo::of(entries)).await?;
            self.progress.position = last.0;
            if self.pending >= PENDING {
                self.commit().await?;
            }
        }
    }

    /// Takes in what happened.
    async fn take(&mut self, reader: &Reader<'_>, mut todo: Todo) -> Result<(), Error> {
        for (nid, nums) in std::mem::take(&mut todo.events) {
            let nums: Vec<EventNum> = nums.into_iter().collect();
            for nums in nums.chunks(PAGE) {
                if self.take_events(reader, nid, nums).await? {
                    todo.rooms.insert(nid);
                }
            }
        }
        for (nid, mut first, last) in todo.history {
            while first <= last {
                let rows = reader.timeline_forward(nid, first, PAGE).await?;
                let nums: Vec<EventNum> =
                    rows.iter().filter(|row| row.ordinal <= last).map(|row| row.num).collect();
                self.take_events(reader, nid, &nums).await?;
                let Some(end) = rows.last().filter(|_| rows.len() == PAGE) else { break };
                first = end.ordinal + 1;
            }
        }
        for nid in todo.rooms {
            self.look_at_room(nid).await?;
            self.turned.insert(nid);
            let mut last: Option<OwnedUserId> = None;
            loop {
                let members = people::members(reader, nid, last.as_deref(), PAGE).await?;
                let Some((end, _)) = members.last_key_value() else { break };
                last = Some(end.clone());
                self.take_people(reader, members.into_keys().collect()).await?;
            }
        }
        self.take_people(reader, todo.people.into_iter().collect()).await
    }

    /// Takes in events of a room. Says whether the room opened or closed by them.
    async fn take_events(
        &mut self,
        reader: &Reader<'_>,
        nid: RoomNid,
        nums: &[EventNum],
    ) -> Result<bool, Error> {
        let search = self.search.clone();
        let view = search.0.deps.rooms.view_at(reader.clone(), nid).await?;
        let loaded = view.load_kept(nums).await?;
        if search.0.config.messages {
            let now = search.0.deps.world.now();
            let mut ops: Vec<Op> = loaded.iter().map(|event| events::op(nid, event, now)).collect();
            let kept: BTreeSet<EventNum> = loaded.iter().map(|event| event.num).collect();
            let gone = nums.iter().filter(|num| !kept.contains(*num));
            ops.extend(gone.map(|num| Op::NoEvent(events::key(nid, *num))));
            for target in loaded.iter().filter_map(|event| event.pdu.redacts()) {
                if let Some(num) = reader.event_num(nid, target).await? {
                    let targets = view.load_kept(&[num]).await?;
                    ops.extend(targets.iter().map(|target| events::op(nid, target, now)));
                }
            }
            self.apply(ops).await?;
        }
        let here = search.0.deps.accounts.server_name();
        if !loaded.iter().any(|event| opens_or_closes(event, here)) {
            return Ok(false);
        }
        let open = is_open(&view, here).await?;
        Ok(if open { self.open.insert(nid) } else { self.open.remove(&nid) })
    }

    /// Takes in people as they are now.
    pub(crate) async fn take_people(
        &mut self,
        reader: &Reader<'_>,
        users: Vec<OwnedUserId>,
    ) -> Result<(), Error> {
        let search = self.search.clone();
        let mut ops = Vec::with_capacity(users.len());
        for user in &users {
            ops.push(people::op(&search.0, reader, &self.open, user).await?);
        }
        self.apply(ops).await
    }

    /// Hands changes to the index.
    pub(crate) async fn apply(&mut self, ops: Vec<Op>) -> Result<(), Error> {
        if ops.is_empty() {
            return Ok(());
        }
        self.pending += ops.len();
        self.pending_people += ops.iter().filter(|op| op.is_of_person()).count();
        let index = self.index.clone();
        let done = self.search.0.deps.world.spawn_blocking(move || index.apply(ops)).await;
        Ok(done.map_err(|_| Error::Broken)??)
    }

    /// Commits if that is due, and says how far the index is.
    async fn settle(&mut self) -> Result<(), Error> {
        let world = self.search.0.deps.world.clone();
        let at = Position(self.progress.position);
        let done = self.progress.stage == Stage::Done;
        if self.pending_people == 0 && done {
            self.search.0.people_reached.send_replace(at);
        }
        if self.pending == 0 && done {
            self.search.0.reached.send_replace(at);
            if at.0.saturating_sub(self.committed.0) >= IDLE {
                self.commit().await?;
            }
            return Ok(());
        }
        let since = world.instant() - self.committed_at;
        let inner = &self.search.0;
        let behind = inner.wanted.load(SeqCst) > inner.reached.borrow().0;
        let people_behind = inner.people_wanted.load(SeqCst) > inner.people_reached.borrow().0;
        let wanted = done && (behind || people_behind);
        if wanted && since < APART {
            world.sleep(APART.saturating_sub(since)).await;
        }
        if wanted || self.pending >= PENDING || since >= EVERY {
            self.commit().await?;
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Error> {
        let (index, progress) = (self.index.clone(), self.progress.clone());
        let done = self.search.0.deps.world.spawn_blocking(move || index.commit(&progress)).await;
        done.map_err(|_| Error::Broken)??;
        let mut tx = Tx::new();
        for nid in std::mem::take(&mut self.turned) {
            if self.open.contains(&nid) {
                tx.put::<OpenRooms>(&nid, &());
            } else {
                tx.delete::<OpenRooms>(&nid);
            }
        }
        tx.put::<Cursors>(&NAME.to_owned(), &self.progress.position);
        self.search.0.deps.store.commit(tx).await?;
        self.committed = Position(self.progress.position);
        self.committed_at = self.search.0.deps.world.instant();
        (self.pending, self.pending_people) = (0, 0);
        if self.progress.stage == Stage::Done {
            self.search.0.reached.send_replace(self.committed);
            self.search.0.people_reached.send_replace(self.committed);
        }
        Ok(())
    }
}

/// Whether an event may change who may enter or look into its room, or whether anybody here is in it.
fn opens_or_closes(event: &Event, here: &ServerName) -> bool {
    let Some(key) = event.pdu.state_key() else { return false };
    match event.pdu.kind().to_string().as_str() {
        "m.room.join_rules" | "m.room.history_visibility" => key.is_empty(),
        "m.room.member" => <&UserId>::try_from(key).is_ok_and(|user| user.server_name() == here),
        _ => false,
    }
}

async fn open_index(inner: &Inner) -> Result<(Index, Option<Progress>), Error> {
    let (folder, memory) = (inner.deps.folder.clone(), inner.config.memory());
    let opened = inner.deps.world.spawn_blocking(move || Index::open(&folder, memory)).await;
    Ok(opened.map_err(|_| Error::Broken)??)
}

/// An empty index in the place of one that is not what the store is followed by.
async fn begin(inner: &Inner, old: Index) -> Result<(Index, Progress), Error> {
    let folder = inner.deps.folder.clone();
    let wiped = inner.deps.world.spawn_blocking(move || {
        drop(old);
        wipe(&folder)
    });
    wiped.await.map_err(|_| Error::Broken)?.map_err(tantivy::TantivyError::from)?;
    let (index, _) = open_index(inner).await?;
    let mark = inner.deps.world.token(16);
    let position = inner.deps.store.read().position().0;
    let mut tx = Tx::new();
    tx.put::<Meta>(&NAME.to_owned(), &mark.clone().into_bytes());
    tx.put::<Cursors>(&NAME.to_owned(), &position);
    inner.deps.store.commit(tx).await?;
    tracing::info!("building the search index");
    let messages = inner.config.messages;
    Ok((index, Progress { format: FORMAT, mark, messages, position, stage: Stage::Rooms(0) }))
}

#[cfg(test)]
mod tests {
    use chappe_store::{Entry, LogEntry, Position, RoomNid};

    use super::Todo;

    #[test]
    fn a_room_whose_members_came_is_looked_at() {
        for what in [LogEntry::Members { room: 7 }, LogEntry::Whole { room: 7, servers: Vec::new() }] {
            let todo = Todo::of(vec![Entry { position: Position(1), what }]);
            assert!(todo.rooms.contains(&RoomNid(7)));
        }
    }
}
