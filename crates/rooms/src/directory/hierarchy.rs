//! The tree of a space.

use std::collections::{BTreeMap, HashMap, HashSet};

use chappe_store::Membership;
use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId,
    api::federation::space::{SpaceHierarchyParentSummary, get_hierarchy},
    events::space::child::HierarchySpaceChildEvent,
    room::{RoomSummary, RoomType},
    serde::Raw,
};
use serde_json::{json, value::RawValue};

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
/// Other servers asked for one page at most.
const REMOTE: usize = 20;
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
struct Node {
    room: OwnedRoomId,
    via: Vec<OwnedServerName>,
    depth: u64,
}

/// A walk over one tree for one user.
struct Walk<'a> {
    rooms: &'a Rooms,
    user: &'a UserId,
    suggested_only: bool,
    asked: usize,
    told: HashMap<OwnedRoomId, RoomSummary>,
}

impl Rooms {
    /// `GET /rooms/{roomId}/hierarchy`: the rooms of a space's tree that the user may know of. [`Error::Forbidden`] if
    /// the space itself is none of them.
    pub async fn hierarchy(&self, user: &UserId, request: &HierarchyRequest<'_>) -> Result<HierarchyPage> {
        let max_depth = request.max_depth.unwrap_or(DEEPEST).min(DEEPEST);
        let marks = format!("{max_depth}{}", if request.suggested_only { "s" } else { "a" });
        let skip = match request.from {
            Some(token) => {
                read_token(token, &marks).ok_or(Error::InvalidParam("unknown token".to_owned()))?
            }
            None => 0,
        };
        let limit = request.limit.map_or(LONGEST, |limit| usize::try_from(limit).unwrap_or(LONGEST));
        let limit = limit.clamp(1, LONGEST);
        let suggested_only = request.suggested_only;
        let mut walk = Walk { rooms: self, user, suggested_only, asked: 0, told: HashMap::new() };
        let mut stack = vec![Node { room: request.room.to_owned(), via: Vec::new(), depth: 0 }];
        let (mut visited, mut page, mut count) = (HashSet::new(), HierarchyPage::default(), 0);
        while let Some(node) = stack.pop().filter(|_| visited.len() < LARGEST) {
            if !visited.insert(node.room.clone()) {
                continue;
            }
            let Some(found) = walk.visit(&node).await? else {
                if node.depth == 0 {
                    return Err(Error::Forbidden("you may not see this room".to_owned()));
                }
                continue;
            };
            if page.rooms.len() == limit {
                page.next_batch = Some(format!("h{count}_{marks}"));
                break;
            }
            if node.depth < max_depth && found.summary.room_type == Some(RoomType::Space) {
                let children = children_of(&found.children_state).into_iter().rev();
                stack.extend(children.map(|(room, via)| Node { room, via, depth: node.depth + 1 }));
            }
            count += 1;
            if count > skip {
                page.rooms.push(found);
            }
        }
        Ok(page)
    }

    /// The same for another server: a room and its children, as far as `origin` may know of them.
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
        let children_state = view.space_children(suggested_only).await?;
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

fn read_token(token: &str, marks: &str) -> Option<usize> {
    let (skip, found) = token.strip_prefix('h')?.split_once('_')?;
    if found != marks {
        return None;
    }
    skip.parse().ok()
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
    /// The room of a node, if the user may know of it.
    async fn visit(&mut self, node: &Node) -> Result<Option<HierarchyRoom>> {
        if let Some(view) = self.rooms.resident_view(&node.room).await? {
            let summary = view.summary().await?;
            if !view.may_know(Some(self.user), &summary).await? {
                return Ok(None);
            }
            let is_space = summary.room.room_type == Some(RoomType::Space);
            let children_state =
                if is_space { view.space_children(self.suggested_only).await? } else { Vec::new() };
            return Ok(Some(HierarchyRoom { summary: summary.room.clone(), children_state }));
        }
        let found = self.ask(node).await;
        let Some(found) = found.or_else(|| self.told_of(&node.room)) else { return Ok(None) };
        let summary = Summary::of(found.summary.clone());
        let known = self.rooms.may_know_remote(Some(self.user), &summary).await?;
        Ok(Some(found).filter(|_| known))
    }

    fn told_of(&self, room: &RoomId) -> Option<HierarchyRoom> {
        let summary = self.told.get(room)?.clone();
        Some(HierarchyRoom { summary, children_state: Vec::new() })
    }

    /// Asks the servers that a child event names; a room that was told of and is no space needs no question.
    async fn ask(&mut self, node: &Node) -> Option<HierarchyRoom> {
        if self.told.get(&node.room).is_some_and(|summary| summary.room_type != Some(RoomType::Space)) {
            return None;
        }
        for server in node.via.iter().filter(|server| *server != self.rooms.server()).take(3) {
            if self.asked == REMOTE {
                return None;
            }
            self.asked += 1;
            let answer = self.rooms.0.peers.hierarchy(server, &node.room, self.suggested_only).await;
            let Ok(answer) = answer else { continue };
            if answer.room.summary.room_id != node.room {
                continue;
            }
            for child in answer.children.into_iter().take(CHILDREN) {
                self.told.insert(child.room_id.clone(), child);
            }
            let children_state = answer.room.children_state.into_iter().take(CHILDREN);
            return Some(HierarchyRoom {
                summary: answer.room.summary,
                children_state: children_state.map(Raw::into_json).collect(),
            });
        }
        None
    }
}

impl View<'_> {
    /// The room's `m.space.child` events with at least one server to ask.
    async fn space_children(&self, suggested_only: bool) -> Result<Vec<Box<RawValue>>> {
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

    /// Whether a server may know of this room: it is open, one of its users is in it or asked into it, or may join by
    /// being in another room.
    async fn server_may_know(&self, server: &ServerName, summary: &Summary) -> Result<bool> {
        if summary.is_open() || self.reader.server_joined(self.nid, server).await? {
            return Ok(true);
        }
        if has_user_of(&self.reader.members(self.nid, Membership::Invite).await?, server) {
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
