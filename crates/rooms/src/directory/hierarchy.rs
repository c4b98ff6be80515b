//! The tree of a space.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use chappe_rules::acl::Acl;
use chappe_store::Membership;
use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId,
    api::federation::space::{SpaceHierarchyParentSummary, get_hierarchy},
    events::{StateEventType, space::child::HierarchySpaceChildEvent},
    room::{RoomSummary, RoomType},
    serde::Raw,
};
use serde_json::{json, value::RawValue};

use super::walks::{Rest, Tree};
use crate::{
    Error, Result, Rooms,
    directory::Summary,
    read::view::{Event, View},
};

/// Rooms of one page at most.
const LONGEST: usize = 50;
/// Rooms of one tree at most.
const LARGEST: usize = 2_000;
/// Children of one space at most.
const CHILDREN: usize = 1_000;
/// Questions to other servers for one page at most: where they are used up, the page ends.
const REMOTE: usize = 20;
/// Servers asked about one room at most.
const SERVERS: usize = 3;
/// The longest word of another server about a room that is kept until the room is visited, in bytes of JSON.
const WORD: usize = 4_096;
/// How deep a tree is followed where the client does not say.
const DEEPEST: u64 = 20;

/// Which part of which tree.
#[derive(Clone, Debug)]
pub struct HierarchyRequest<'a> {
    /// The space.
    pub room: &'a RoomId,
    /// Token of an earlier page.
    pub from: Option<&'a str>,
    /// How many rooms.
    pub limit: Option<u64>,
    /// How deep; 0 is the space alone.
    pub max_depth: Option<u64>,
    /// Only suggested children.
    pub suggested_only: bool,
}

/// A room of a tree.
#[derive(Clone, Debug)]
pub struct HierarchyRoom {
    /// What it is.
    pub summary: RoomSummary,
    /// Its `m.space.child` events, stripped, with their time.
    pub children_state: Vec<Box<RawValue>>,
}

/// A page of a tree, parents before children.
#[derive(Clone, Debug, Default)]
pub struct HierarchyPage {
    /// The rooms.
    pub rooms: Vec<HierarchyRoom>,
    /// Token of the next page.
    pub next_batch: Option<String>,
}

/// A room still to be visited.
#[derive(Clone)]
pub(super) struct Node {
    room: OwnedRoomId,
    /// Servers to ask about it.
    via: Vec<OwnedServerName>,
    depth: u64,
    /// What a server said of it when it told of a space that it is in.
    told: Option<Arc<Told>>,
}

struct Told {
    summary: RoomSummary,
    bytes: usize,
}

impl Told {
    /// None if it is too long to be kept.
    fn short(summary: &RoomSummary) -> Option<Self> {
        let bytes = serde_json::to_vec(summary).ok()?.len();
        (bytes <= WORD).then(|| Self { summary: summary.clone(), bytes })
    }
}

impl Node {
    fn root(room: &RoomId) -> Self {
        Self { room: room.to_owned(), via: Vec::new(), depth: 0, told: None }
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        let via: usize = self.via.iter().map(|server| server.as_str().len()).sum();
        let told = self.told.as_ref().map_or(0, |told| told.bytes);
        size_of::<Self>() + self.room.as_str().len() + via + told
    }

    /// Whether only its servers can tell what is in it: what was told of a room that is no space is all there is.
    fn is_open(&self) -> bool {
        self.told.as_ref().is_none_or(|told| told.summary.room_type == Some(RoomType::Space))
    }
}

/// A room of the tree, with what its server told of the rooms in it.
struct Found {
    room: HierarchyRoom,
    told: Vec<RoomSummary>,
}

impl Found {
    fn alone(summary: RoomSummary) -> Self {
        Self { room: HierarchyRoom { summary, children_state: Vec::new() }, told: Vec::new() }
    }
}

/// What a look at a node came to.
enum Seen {
    Room(Box<Found>),
    /// There is none, or the user may not know of it.
    Nothing,
    /// Nobody was asked: this page is full, or has asked enough.
    Unasked,
}

/// A walk over one tree for one user.
struct Walk<'a> {
    rooms: &'a Rooms,
    tree: &'a Tree,
    rest: Rest,
    asked: usize,
}

impl Rooms {
    /// `GET /rooms/{roomId}/hierarchy`: the rooms of a space's tree that the user may know of. [`Error::Forbidden`] if
    /// the space itself is none of them.
    pub async fn hierarchy(&self, user: &UserId, request: &HierarchyRequest<'_>) -> Result<HierarchyPage> {
        let max_depth = request.max_depth.unwrap_or(DEEPEST).min(DEEPEST);
        let suggested_only = request.suggested_only;
        let tree = Tree { user: user.to_owned(), space: request.room.to_owned(), max_depth, suggested_only };
        let (walks, now) = (&self.0.walks, self.0.world.instant());
        let rest = match request.from {
            Some(token) => {
                let rest = walks.rest_of(token, &tree, now);
                rest.ok_or_else(|| Error::InvalidParam("unknown token".to_owned()))?
            }
            None => Rest { stack: vec![Node::root(request.room)], visited: HashSet::new() },
        };
        let limit = request.limit.map_or(LONGEST, |limit| usize::try_from(limit).unwrap_or(LONGEST));
        let limit = limit.clamp(1, LONGEST);
        let mut walk = Walk { rooms: self, tree: &tree, rest, asked: 0 };
        let mut page = HierarchyPage::default();
        while let Some(node) = walk.next_node() {
            // Looked at now, it would have to be asked for once more.
            let is_full = page.rooms.len() >= limit;
            let seen = if is_full { Seen::Unasked } else { walk.visit(&node).await? };
            match seen {
                Seen::Nothing if node.depth == 0 => {
                    return Err(Error::Forbidden("you may not see this room".to_owned()));
                }
                Seen::Nothing => {}
                Seen::Room(found) => {
                    walk.go_into(&node, &found);
                    page.rooms.push(found.room);
                }
                Seen::Unasked => {
                    let token = format!("h{}", self.0.world.token(18));
                    page.next_batch = Some(token.clone());
                    walks.keep(token, tree.clone(), walk.put_back(node), now);
                    return Ok(page);
                }
            }
        }
        Ok(page)
    }

    /// The same for another server: a room and, if it is a space, its children, as far as `origin` may know of them.
    pub async fn hierarchy_for(
        &self,
        origin: &ServerName,
        room: &RoomId,
        suggested_only: bool,
    ) -> Result<get_hierarchy::v1::Response> {
        let view = self.resident_view(room).await?.ok_or(Error::NotFound("room"))?;
        let summary = view.summary().await?;
        if !view.server_may_know(origin, &summary).await? {
            return Err(Error::NotFound("room"));
        }
        let children_state = view.space_children(&summary, suggested_only).await?;
        drop(view);
        let (mut children, mut inaccessible) = (Vec::new(), Vec::new());
        for (child, _) in children_of(&children_state) {
            let Some(view) = self.resident_view(&child).await? else { continue };
            let summary = view.summary().await?;
            if view.server_may_know(origin, &summary).await? {
                children.push(summary.room.clone());
            } else {
                inaccessible.push(child);
            }
        }
        let raw = children_state.into_iter().map(Raw::from_json).collect();
        let mut answer =
            get_hierarchy::v1::Response::new(SpaceHierarchyParentSummary::new(summary.room.clone(), raw));
        answer.children = children;
        answer.inaccessible_children = inaccessible;
        Ok(answer)
    }
}

/// The children that `m.space.child` events name, in the specification's order.
fn children_of(state: &[Box<RawValue>]) -> Vec<(OwnedRoomId, Vec<OwnedServerName>)> {
    let read = |event: &RawValue| serde_json::from_str::<HierarchySpaceChildEvent>(event.get()).ok();
    let mut children: Vec<_> = state.iter().filter_map(|event| read(event)).collect();
    children.sort();
    children.truncate(CHILDREN);
    children.into_iter().map(|child| (child.state_key, child.content.via)).collect()
}

impl Walk<'_> {
    /// The next room that was not visited yet.
    fn next_node(&mut self) -> Option<Node> {
        while self.rest.visited.len() < LARGEST {
            let node = self.rest.stack.pop()?;
            if self.rest.visited.insert(node.room.clone()) {
                return Some(node);
            }
        }
        None
    }

    /// What is left if this room is to be visited again.
    fn put_back(mut self, node: Node) -> Rest {
        self.rest.visited.remove(&node.room);
        self.rest.stack.push(node);
        self.rest
    }

    /// The room of a node, if the user may know of it.
    async fn visit(&mut self, node: &Node) -> Result<Seen> {
        let user = Some(&*self.tree.user);
        if let Some(view) = self.rooms.resident_view(&node.room).await? {
            let summary = view.summary().await?;
            if !view.may_know(user, &summary).await? {
                return Ok(Seen::Nothing);
            }
            let mut found = Found::alone(summary.room.clone());
            found.room.children_state = view.space_children(&summary, self.tree.suggested_only).await?;
            return Ok(Seen::Room(Box::new(found)));
        }
        let mut found = None;
        if node.is_open() {
            if self.asked >= REMOTE {
                return Ok(Seen::Unasked);
            }
            found = self.ask(node).await;
        }
        let told = || Some(Found::alone(node.told.as_ref()?.summary.clone()));
        let Some(found) = found.or_else(told) else { return Ok(Seen::Nothing) };
        let summary = Summary::of(found.room.summary.clone());
        let is_known = self.rooms.may_know_remote(user, &summary).await?;
        Ok(if is_known { Seen::Room(Box::new(found)) } else { Seen::Nothing })
    }

    /// Asks the servers that a child event names. Those that did not answer of late are not asked, and do not count.
    async fn ask(&mut self, node: &Node) -> Option<Found> {
        let peers = &self.rooms.0.peers;
        for server in &node.via {
            if peers.is_away(server).await {
                continue;
            }
            self.asked += 1;
            let answer = peers.hierarchy(server, &node.room, self.tree.suggested_only).await;
            let Ok(answer) = answer else { continue };
            if answer.room.summary.room_id != node.room {
                continue;
            }
            let children_state = answer.room.children_state.into_iter().take(CHILDREN);
            let room = HierarchyRoom {
                summary: answer.room.summary,
                children_state: children_state.map(Raw::into_json).collect(),
            };
            return Some(Found { room, told: answer.children.into_iter().take(CHILDREN).collect() });
        }
        None
    }

    /// Has the rooms in a space visited next.
    fn go_into(&mut self, node: &Node, found: &Found) {
        let Found { room, told } = found;
        if node.depth >= self.tree.max_depth || room.summary.room_type != Some(RoomType::Space) {
            return;
        }
        let told: HashMap<&RoomId, &RoomSummary> =
            told.iter().map(|summary| (&*summary.room_id, summary)).collect();
        for (room, mut via) in children_of(&room.children_state).into_iter().rev() {
            via.retain(|server| *server != self.rooms.server());
            via.truncate(SERVERS);
            let told = told.get(&*room).copied().and_then(Told::short).map(Arc::new);
            self.rest.stack.push(Node { room, via, depth: node.depth + 1, told });
        }
        // As many are visited at most: the last ones of the tree would not be.
        let over = self.rest.stack.len().saturating_sub(LARGEST);
        self.rest.stack.drain(..over);
    }
}

impl View<'_> {
    /// The `m.space.child` events of a space with at least one server to ask; none of a room that is no space.
    async fn space_children(&self, summary: &Summary, suggested_only: bool) -> Result<Vec<Box<RawValue>>> {
        if summary.room.room_type != Some(RoomType::Space) {
            return Ok(Vec::new());
        }
        let nums = self.reader.current_of_type(self.nid, "m.space.child").await?;
        let nums: Vec<_> = nums.into_iter().take(CHILDREN).map(|(_, num)| num).collect();
        let events = self.load(&nums).await?;
        let mut children: Vec<(HierarchySpaceChildEvent, Box<RawValue>)> = events
            .iter()
            .filter_map(|event| stripped_child(event, suggested_only))
            .filter_map(|raw| Some((serde_json::from_str(raw.get()).ok()?, raw)))
            .collect();
        // The order in which clients show them (client-server API, "Ordering of children within a space").
        children.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(children.into_iter().map(|(_, raw)| raw).collect())
    }

    /// Whether a server may know of this room: its users could enter it.
    async fn server_may_know(&self, server: &ServerName, summary: &Summary) -> Result<bool> {
        Ok(summary.federated && self.is_open_for(server, summary).await? && self.list_allows(server).await?)
    }

    /// Whether the room is open, one of a server's users is in it or asked into it, or may join by being in another room.
    /// For servers of externals what their users are in or asked into is open, and nothing else.
    async fn is_open_for(&self, server: &ServerName, summary: &Summary) -> Result<bool> {
        if self.inner.is_external(server) {
            return self.has_part_of(server).await;
        }
        if summary.is_open() || self.has_part_of(server).await? {
            return Ok(true);
        }
        for room in &summary.allowed {
            if let Some(nid) = self.reader.room_nid(room).await?
                && self.reader.server_joined(nid, server).await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the room's access control list lets a server in.
    async fn list_allows(&self, server: &ServerName) -> Result<bool> {
        let list = self.current(StateEventType::RoomServerAcl, "").await?;
        Ok(list.is_none_or(|list| Acl::new(list.pdu.content()).allows(server)))
    }

    /// Whether a user of a server is in this room or asked into it.
    pub(super) async fn has_part_of(&self, server: &ServerName) -> Result<bool> {
        Ok(self.reader.server_joined(self.nid, server).await?
            || has_user_of(&self.reader.members(self.nid, Membership::Invite).await?, server))
    }
}

fn has_user_of(members: &[(OwnedUserId, chappe_store::EventNum)], server: &ServerName) -> bool {
    members.iter().any(|(user, _)| user.server_name() == server)
}

fn stripped_child(event: &Event, suggested_only: bool) -> Option<Box<RawValue>> {
    let content: BTreeMap<String, serde_json::Value> = event.pdu.content_as()?;
    let has_via = content.get("via").and_then(|via| via.as_array()).is_some_and(|via| !via.is_empty());
    let suggested = content.get("suggested").and_then(serde_json::Value::as_bool).unwrap_or(false);
    if !has_via || (suggested_only && !suggested) {
        return None;
    }
    let stripped = json!({
        "type": "m.space.child",
        "state_key": event.pdu.state_key()?,
        "sender": event.pdu.sender(),
        "content": content,
        "origin_server_ts": event.pdu.origin_server_ts(),
    });
    serde_json::value::to_raw_value(&stripped).ok()
}
