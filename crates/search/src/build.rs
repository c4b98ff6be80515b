//! The index is built from the store where there is none: rooms and their members first, then people, then what was said.

use chappe_rooms::View;
use chappe_rules::visibility::visibility;
use chappe_store::{
    RoomNid, Tx,
    accounts::Users,
    members::{OpenRooms, RemoteRooms},
};
use ruma::{
    OwnedUserId, ServerName,
    events::{StateEventType, room::history_visibility::HistoryVisibility},
};
use serde::{Deserialize, Serialize};

use crate::{Error, events, follow::Follower, index::Op, people};

/// Rows read at once.
const PAGE: usize = 500;

/// What is read next while an index is being built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// Rooms numbered above this: whether they are open, and their members of other servers.
    Rooms(u32),
    /// Users of this server after this one.
    Locals(String),
    /// Users of other servers after this one.
    Remotes(String),
    /// What was said in the room with this number from this place on.
    Said(u32, i64),
    /// Nothing: all that follows is in the log.
    Done,
}

impl Follower {
    /// One step of the building, a page of rows long.
    pub(crate) async fn build(&mut self) -> Result<(), Error> {
        let next = match self.progress.stage.clone() {
            Stage::Rooms(after) => self.build_room(after).await?,
            Stage::Locals(after) => self.build_locals(after).await?,
            Stage::Remotes(after) => self.build_remotes(after).await?,
            Stage::Said(room, from) => self.build_said(room, from).await?,
            Stage::Done => Stage::Done,
        };
        self.progress.stage = next;
        Ok(())
    }

    async fn build_room(&mut self, after: u32) -> Result<Stage, Error> {
        let store = self.search.0.deps.store.clone();
        let Some(nid) = store.read().rooms_after(RoomNid(after), 1).await?.first().copied() else {
            return Ok(Stage::Locals(String::new()));
        };
        let open = self.look_at_room(nid).await?;
        let mut tx = Tx::new();
        if open {
            tx.put::<OpenRooms>(&nid, &());
        } else {
            tx.delete::<OpenRooms>(&nid);
        }
        store.commit(tx).await?;
        let mut last: Option<OwnedUserId> = None;
        loop {
            let members = people::members(&store.read(), nid, last.as_deref(), PAGE).await?;
            let Some((user, _)) = members.last_key_value() else { return Ok(Stage::Rooms(nid.0)) };
            let end = user.clone();
            let mut tx = Tx::new();
            let own = self.search.0.deps.accounts.server_name();
            for (user, num) in members.iter().filter(|(user, _)| user.server_name() != own) {
                tx.note_remote_room(nid, user, *num);
            }
            match store.commit(tx).await {
                Ok(_) => last = Some(end),
                // Somebody left meanwhile: look again.
                Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn build_locals(&mut self, after: String) -> Result<Stage, Error> {
        let store = self.search.0.deps.store.clone();
        let reader = store.read();
        let rows = reader.scan_from::<Users>(&(), &beyond(after), PAGE).await?;
        let Some((last, _)) = rows.last() else { return Ok(Stage::Remotes(String::new())) };
        let next = Stage::Locals(last.to_string());
        let users: Vec<OwnedUserId> = rows.into_iter().map(|(user, _)| user).collect();
        self.take_people(&reader, users).await?;
        Ok(next)
    }

    async fn build_remotes(&mut self, after: String) -> Result<Stage, Error> {
        let store = self.search.0.deps.store.clone();
        let reader = store.read();
        let (mut users, mut from) = (Vec::new(), beyond(after.clone()));
        while users.len() < PAGE {
            // One row tells that there is somebody; the next question begins beyond all rows of theirs.
            let rows = reader.scan_from::<RemoteRooms>(&(), &from, PAGE).await?;
            let Some(((last, _), ())) = rows.last() else { break };
            from = beyond(last.to_string());
            let mut some: Vec<OwnedUserId> = rows.into_iter().map(|((user, _), ())| user).collect();
            some.dedup();
            users.extend(some);
        }
        let Some(last) = users.last() else { return Ok(self.first_said()) };
        let next = Stage::Remotes(last.to_string());
        self.take_people(&reader, users).await?;
        Ok(next)
    }

    fn first_said(&self) -> Stage {
        if self.search.0.config.messages { Stage::Said(0, i64::MIN) } else { Stage::Done }
    }

    async fn build_said(&mut self, room: u32, from: i64) -> Result<Stage, Error> {
        let search = self.search.clone();
        let reader = search.0.deps.store.read();
        let nid = if from == i64::MIN {
            match reader.rooms_after(RoomNid(room), 1).await?.first() {
                Some(nid) => *nid,
                None => return Ok(Stage::Done),
            }
        } else {
            RoomNid(room)
        };
        let rows = reader.timeline_forward(nid, from, PAGE).await?;
        let next = match rows.last().filter(|_| rows.len() == PAGE) {
            Some(last) => Stage::Said(nid.0, last.ordinal + 1),
            None => Stage::Said(nid.0, i64::MIN),
        };
        let view = search.0.deps.rooms.view_at(reader, nid).await?;
        let nums: Vec<_> = rows.iter().map(|row| row.num).collect();
        let now = search.0.deps.world.now();
        let ops: Vec<Op> =
            view.load_once(&nums).await?.iter().map(|event| events::op(nid, event, now)).collect();
        self.apply(ops).await?;
        Ok(next)
    }

    /// Whether anybody may enter or look into a room, remembered from now on.
    pub(crate) async fn look_at_room(&mut self, nid: RoomNid) -> Result<bool, Error> {
        let search = self.search.clone();
        let view = search.0.deps.rooms.view_of(nid).await?;
        let open = is_open(&view, search.0.deps.accounts.server_name()).await?;
        if open {
            self.open.insert(nid);
        } else {
            self.open.remove(&nid);
        }
        Ok(open)
    }
}

/// Whether anybody may enter or look into a room.
pub(crate) async fn is_open(view: &View<'_>, here: &ServerName) -> Result<bool, Error> {
    #[derive(Deserialize)]
    struct JoinRules {
        join_rule: String,
    }
    // With nobody of this server in it, what is known of the room is old.
    if !view.reader.server_joined(view.nid, here).await? {
        return Ok(false);
    }
    let rule = view.current_content::<JoinRules>(StateEventType::RoomJoinRules).await?;
    if rule.is_some_and(|rule| rule.join_rule == "public") {
        return Ok(true);
    }
    let said = view.current(StateEventType::RoomHistoryVisibility, "").await?;
    Ok(visibility(said.as_ref().map(|event| &event.pdu)) == HistoryVisibility::WorldReadable)
}

/// The first key behind all that begin with this user.
fn beyond(user: String) -> String {
    if user.is_empty() { user } else { format!("{user}\u{1}") }
}
