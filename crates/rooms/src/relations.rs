//! Related events of an event, and the threads of a room.

use chappe_rules::client::Form;
use chappe_store::{EventNum, Position, events::EventIdKey, relations::Child};
use ruma::{
    EventId, OwnedEventId, RoomId, api::Direction, api::client::threads::get_threads::v1::IncludeThreads,
};
use serde_json::value::RawValue;

use crate::{
    Actor, Error, Result, Rooms,
    read::{
        event::no_such_event,
        render::Bundle,
        token::Place,
        view::{Event, View},
    },
    visible::{Seen, is_hidden},
};

/// Events of one page at most.
const LONGEST: u64 = 100;
/// Events of one page where the client does not say.
const USUAL: u64 = 20;
/// Related events, of all types and at all depths, that are looked at for one page at most.
const LOOKED_AT: usize = 5_000;
/// Relation types of one event that are looked at.
const TYPES: usize = 50;
/// Threads looked at for one page at most.
const THREADS: usize = 200;
/// Events whose own relations are followed, at each depth, at most.
const PARENTS: usize = 500;
/// How deep `recurse` goes.
const DEEPEST: u8 = 3;

/// Whether events that relate to related events count as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recurse {
    /// Only direct relations.
    No,
    /// Down to a depth of three, by way of those direct relations that lie nearest to where the page begins: 250 on each
    /// side of it, the first 500 where no token says where that is. What relates to an event farther away may be left out.
    Yes,
}

/// Which related events.
#[derive(Clone, Copy, Debug)]
pub struct RelationsRequest<'a> {
    /// Of this event.
    pub event: &'a EventId,
    /// Only of this relation type.
    pub rel_type: Option<&'a str>,
    /// Only of this event type.
    pub event_type: Option<&'a str>,
    /// Where to begin.
    pub from: Option<&'a str>,
    /// Where to stop.
    pub to: Option<&'a str>,
    /// Which way.
    pub direction: Direction,
    /// How many; none: a usual page.
    pub limit: Option<u64>,
    /// How deep.
    pub recurse: Recurse,
}

/// A page of related events.
#[derive(Debug)]
pub struct RelationsPage {
    /// Events in the order asked for.
    pub chunk: Vec<Box<RawValue>>,
    /// Where to go on.
    pub next_batch: Option<String>,
    /// Where this page began.
    pub prev_batch: Option<String>,
    /// With recursion: how deep it went.
    pub recursion_depth: Option<u8>,
}

/// A page of threads.
#[derive(Debug)]
pub struct ThreadsPage {
    /// Thread roots, the most recently answered first.
    pub chunk: Vec<Box<RawValue>>,
    /// Where to go on.
    pub next_batch: Option<String>,
}

impl Rooms {
    /// `GET /rooms/{roomId}/relations/{eventId}…`: what relates to an event the user may see.
    pub async fn relations(
        &self,
        actor: &Actor,
        room: &RoomId,
        request: &RelationsRequest<'_>,
    ) -> Result<RelationsPage> {
        let view = self.view_as(actor, room).await.map_err(no_such_event)?;
        view.seen_by(&actor.user, request.event).await?;
        let limit = usize::try_from(request.limit.unwrap_or(USUAL).clamp(1, LONGEST)).unwrap_or(1);
        let Related { found, beyond, depth } = view.related(request).await?;
        let ignored = view.ignored_by(&actor.user).await?;
        let mut seen: Vec<Seen> = Vec::new();
        let mut rest = found.chunks(limit + 1);
        while let Some(nums) = rest.next().filter(|_| seen.len() <= limit) {
            let nums: Vec<EventNum> = nums.iter().map(|(_, num)| *num).collect();
            let told = |event: &Event| !event.is_redacted() && !is_hidden(&event.pdu, &ignored);
            let events = view.load(&nums).await?.into_iter().filter(told).collect();
            let visible = view.visible(&actor.user, events).await?;
            seen.extend(visible.into_iter().filter(|seen| !seen.event.is_redacted()));
        }
        let more = seen.len() > limit;
        seen.truncate(limit);
        let last = seen.last().and_then(|seen| seen.event.meta.ordinal).filter(|_| more);
        let next = last.map_or(beyond, |last| Some(behind(last, request.direction)));
        Ok(RelationsPage {
            chunk: view.render(actor, &seen, Form::Full, Bundle::All).await?,
            next_batch: next.map(|place| place.to_string()),
            prev_batch: request.from.map(str::to_owned),
            recursion_depth: (request.recurse == Recurse::Yes).then_some(depth),
        })
    }

    /// `GET /rooms/{roomId}/threads`.
    pub async fn threads(
        &self,
        actor: &Actor,
        room: &RoomId,
        from: Option<&str>,
        include: &IncludeThreads,
        limit: Option<u64>,
    ) -> Result<ThreadsPage> {
        let view = self.view_as(actor, room).await.map_err(crate::read::state::no_such_room)?;
        view.access(&actor.user).await?;
        let limit = usize::try_from(limit.unwrap_or(USUAL).clamp(1, LONGEST)).unwrap_or(1);
        let mut threads = view.reader.threads(view.nid).await?;
        if let Some(from) = from {
            let from = thread_token(from).ok_or(Error::InvalidParam("unknown token".to_owned()))?;
            threads.retain(|(_, at)| (at.position, at.value) < from);
        }
        let (mut seen, mut last) = (Vec::new(), None);
        for (looked_at, (root, at)) in threads.into_iter().enumerate() {
            if seen.len() == limit || looked_at == THREADS {
                let next_batch =
                    last.map(|(position, num): (Position, EventNum)| format!("th{position}_{}", num.0));
                let chunk = view.render(actor, &seen, Form::Full, Bundle::All).await?;
                return Ok(ThreadsPage { chunk, next_batch });
            }
            last = Some((at.position, at.value));
            seen.extend(view.thread_root(actor, &root, include).await?);
        }
        let chunk = view.render(actor, &seen, Form::Full, Bundle::All).await?;
        Ok(ThreadsPage { chunk, next_batch: None })
    }
}

/// What relates to an event.
#[derive(Debug)]
struct Related {
    /// Their places and numbers, in the order asked for.
    found: Vec<(i64, EventNum)>,
    /// Where those begin that were not looked at.
    beyond: Option<Place>,
    /// How deep the search went.
    depth: u8,
}

/// How much may still be looked at.
struct Budget {
    left: usize,
    /// The place up to which everything that relates to the event itself was looked at, where that is not all.
    end: Option<i64>,
}

/// What was looked at.
struct Looked {
    rows: Vec<(i64, Child)>,
    /// The place up to which all types were looked at, where that is not all.
    end: Option<i64>,
}

fn along(direction: Direction) -> chappe_store::Direction {
    match direction {
        Direction::Backward => chappe_store::Direction::Backward,
        Direction::Forward => chappe_store::Direction::Forward,
    }
}

fn against(direction: Direction) -> chappe_store::Direction {
    match direction {
        Direction::Backward => chappe_store::Direction::Forward,
        Direction::Forward => chappe_store::Direction::Backward,
    }
}

/// The place at which those begin that come after an event.
fn behind(ordinal: i64, direction: Direction) -> Place {
    match direction {
        Direction::Backward => Place(ordinal),
        Direction::Forward => Place(ordinal + 1),
    }
}

fn thread_token(token: &str) -> Option<(Position, EventNum)> {
    let (position, num) = token.strip_prefix("th")?.split_once('_')?;
    Some((Position(position.parse().ok()?), EventNum(num.parse().ok()?)))
}

impl View<'_> {
    /// What is wanted of what relates to an event, as far as that can be looked at.
    async fn related(&self, request: &RelationsRequest<'_>) -> Result<Related> {
        let mut budget = Budget { left: LOOKED_AT, end: None };
        let (mut found, depth) = self.related_to(request, &mut budget).await?;
        self.cut(&mut found, request).await?;
        let Some(end) = budget.end else {
            return Ok(Related { found, beyond: None, depth });
        };
        let backward = request.direction == Direction::Backward;
        found.retain(|(ordinal, _)| if backward { *ordinal >= end } else { *ordinal <= end });
        let mut beyond = Some(behind(end, request.direction));
        if let Some(token) = request.to {
            let to = self.place(token).await?;
            beyond = beyond.filter(|beyond| if backward { *beyond > to } else { *beyond < to });
        }
        Ok(Related { found, beyond, depth })
    }

    /// Related events of the wanted kinds with their places, and how deep the search went.
    async fn related_to(
        &self,
        request: &RelationsRequest<'_>,
        budget: &mut Budget,
    ) -> Result<(Vec<(i64, EventNum)>, u8)> {
        let mut found = Vec::new();
        let mut parents: Vec<OwnedEventId> = vec![request.event.to_owned()];
        let deepest = if request.recurse == Recurse::Yes { DEEPEST } else { 1 };
        let mut depth = 0;
        while depth < deepest && !parents.is_empty() && budget.left > 0 {
            depth += 1;
            let children = if depth == 1 {
                self.direct(request, budget).await?
            } else {
                self.children(&parents, along(request.direction), budget).await?
            };
            parents = if depth < deepest {
                let nums: Vec<EventNum> = children.iter().take(PARENTS).map(|(_, child)| child.num).collect();
                let events = self.reader.pdus(self.nid, &nums).await?;
                events.into_iter().map(|event| event.event_id.clone()).collect()
            } else {
                Vec::new()
            };
            let wanted = |child: &Child| request.event_type.is_none_or(|kind| child.event_type == kind);
            found.extend(
                children
                    .into_iter()
                    .filter(|(_, child)| wanted(child))
                    .map(|(ordinal, child)| (ordinal, child.num)),
            );
        }
        Ok((found, depth))
    }

    /// What relates to the event itself, from the token on: with recursion no more than is followed.
    async fn direct(&self, request: &RelationsRequest<'_>, budget: &mut Budget) -> Result<Vec<(i64, Child)>> {
        let types = match request.rel_type {
            Some(rel_type) => vec![rel_type.to_owned()],
            None => self.rarest_first(request.event).await?,
        };
        let from = match request.from {
            Some(token) => Some(self.place(token).await?.0),
            None => None,
        };
        let of = (request.event, &*types);
        let (most, both_sides) = match (request.recurse, from) {
            (Recurse::No, _) => (budget.left, false),
            (Recurse::Yes, None) => (PARENTS, false),
            (Recurse::Yes, Some(_)) => (PARENTS / 2, true),
        };
        let ahead = self.share_out(of, (along(request.direction), from), most, budget).await?;
        budget.end = ahead.end;
        let mut found = ahead.rows;
        if both_sides {
            // What relates to related events may lie on the other side of the token than they do.
            let behind = self.share_out(of, (against(request.direction), from), most, budget).await?;
            found.extend(behind.rows);
        }
        Ok(found)
    }

    /// Looks at up to `most` relations; what one type does not need is left to those after it.
    async fn share_out(
        &self,
        (event, types): (&EventId, &[String]),
        (direction, from): (chappe_store::Direction, Option<i64>),
        most: usize,
        budget: &mut Budget,
    ) -> Result<Looked> {
        let (mut left, mut looked) = (most, Looked { rows: Vec::new(), end: None });
        for (i, rel_type) in types.iter().enumerate() {
            let share = (left / (types.len() - i)).max(1);
            let rows = self.reader.related(self.nid, (event, rel_type), direction, from, share).await?;
            // A look that finds nothing is one too.
            left = left.saturating_sub(rows.len().max(1));
            if let Some((last, _)) = rows.last().filter(|_| rows.len() == share) {
                let nearer = match direction {
                    chappe_store::Direction::Backward => looked.end.map_or(*last, |end| end.max(*last)),
                    chappe_store::Direction::Forward => looked.end.map_or(*last, |end| end.min(*last)),
                };
                looked.end = Some(nearer);
            }
            looked.rows.extend(rows);
        }
        budget.left = budget.left.saturating_sub(most - left);
        Ok(looked)
    }

    /// The types of what relates to an event, the rarest first.
    async fn rarest_first(&self, event: &EventId) -> Result<Vec<String>> {
        let types = self.reader.relation_types(self.nid, event, TYPES).await?;
        let names: Vec<&str> = types.iter().map(String::as_str).collect();
        let counts = self.reader.relation_counts(self.nid, &[event], &names).await?.concat();
        let mut counted: Vec<(u32, String)> = counts.into_iter().zip(types).collect();
        counted.sort_unstable();
        Ok(counted.into_iter().map(|(_, rel_type)| rel_type).collect())
    }

    /// What relates to related events.
    async fn children(
        &self,
        parents: &[OwnedEventId],
        direction: chappe_store::Direction,
        budget: &mut Budget,
    ) -> Result<Vec<(i64, Child)>> {
        let mut found = Vec::new();
        for parent in parents {
            if budget.left == 0 {
                break;
            }
            let types = self.reader.relation_types(self.nid, parent, TYPES).await?;
            let share = (budget.left / types.len()).max(1);
            for rel_type in types.iter().take(budget.left) {
                let rows = self.reader.related(self.nid, (parent, rel_type), direction, None, share).await?;
                budget.left = budget.left.saturating_sub(rows.len().max(1));
                found.extend(rows);
            }
        }
        Ok(found)
    }

    /// Sorts what was found and keeps what lies between the tokens.
    async fn cut(&self, found: &mut Vec<(i64, EventNum)>, request: &RelationsRequest<'_>) -> Result<()> {
        let backward = request.direction == Direction::Backward;
        found.sort_unstable();
        found.dedup();
        if backward {
            found.reverse();
        }
        if let Some(token) = request.from {
            let from = self.place(token).await?.0;
            found.retain(|(ordinal, _)| if backward { *ordinal < from } else { *ordinal >= from });
        }
        if let Some(token) = request.to {
            let to = self.place(token).await?.0;
            found.retain(|(ordinal, _)| if backward { *ordinal >= to } else { *ordinal < to });
        }
        Ok(())
    }

    /// The root of a thread, if the user may see it and it is wanted; redacted if it is of somebody whom the user ignores.
    async fn thread_root(
        &self,
        actor: &Actor,
        root: &EventIdKey,
        include: &IncludeThreads,
    ) -> Result<Option<Seen>> {
        let Some(num) = self.reader.event_num(self.nid, &root.0).await? else { return Ok(None) };
        let event = self.load_one(num).await?;
        let Some(mut seen) = self.visible(&actor.user, vec![event]).await?.pop() else { return Ok(None) };
        let ignored = self.ignored_by(&actor.user).await?;
        if is_hidden(&seen.event.pdu, &ignored) {
            seen.event.erase(self.rules)?;
        }
        let wanted =
            *include != IncludeThreads::Participated || self.takes_part(&actor.user, &seen.event).await?;
        Ok(Some(seen).filter(|_| wanted))
    }
}

#[cfg(test)]
mod tests;
