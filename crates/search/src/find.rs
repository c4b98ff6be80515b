//! Searching for what was said: from a question to hits that the one who asks may see, with what belongs to them.

mod scope;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chappe_rooms::{Actor, Bundle, Form, Profile, Seen, View, passes};
use chappe_store::{RoomNid, state::StateKey};
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, api::client::filter::RoomEventFilter, events::StateEventType,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use self::scope::Scope;
use crate::{
    Error, Search,
    analyze::tokens,
    events::{Field, Order, Question, Terms, address},
    index::Index,
    pages::Place,
    pick::Hit,
};

/// Results of a page when the filter does not say how many, and at most.
const USUAL: usize = 10;
const MOST: usize = 100;
/// Hits asked of the index at once.
const CHUNK: usize = 200;
/// Hits looked at for one answer at most; a page may be shorter then, and tells where to go on.
const LOOKED_AT: usize = 1_000;
/// Hits that are looked at to count them.
const COUNTED: usize = 600;
/// Events before or after a hit at most.
const AROUND: usize = 20;
/// Words to highlight at most.
const HIGHLIGHTS: usize = 50;

/// A search.
#[derive(Clone, Debug)]
pub struct Query {
    /// What is searched for: words that all have to be there, and phrases between quotes.
    pub term: String,
    /// Where; nothing: everywhere.
    pub fields: Vec<Field>,
    /// Which events, and how many of them at once.
    pub filter: RoomEventFilter,
    /// In which order.
    pub order: Order,
    /// What is wanted around each hit.
    pub around: Option<Around>,
    /// Whether the state of the rooms is wanted.
    pub include_state: bool,
    /// How the hits are sorted into groups.
    pub groupings: Vec<Grouping>,
    /// The token of the page.
    pub page: Option<String>,
}

/// What is wanted around a hit.
#[derive(Clone, Copy, Debug)]
pub struct Around {
    /// Events before.
    pub before: usize,
    /// Events after.
    pub after: usize,
    /// Whether the profiles of the senders, at that time, are wanted.
    pub profiles: bool,
}

/// What hits are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    /// Where it was said.
    RoomId,
    /// Who said it.
    Sender,
}

/// A page of hits.
#[derive(Debug, Default)]
pub struct Found {
    /// How many there are, as far as was counted.
    pub count: u64,
    /// The hits.
    pub results: Vec<Match>,
    /// Words to highlight, as they stand in the hits.
    pub highlights: Vec<String>,
    /// The token of the next page.
    pub next: Option<String>,
    /// The state of the rooms, if wanted.
    pub state: BTreeMap<OwnedRoomId, Vec<Box<RawValue>>>,
    /// The hits by group.
    pub groups: BTreeMap<Grouping, BTreeMap<String, Group>>,
}

/// A hit.
#[derive(Debug)]
pub struct Match {
    /// How good it is.
    pub rank: f64,
    /// The event.
    pub event: Box<RawValue>,
    /// What is around it, if wanted.
    pub context: Option<Context>,
}

/// What is around a hit.
#[derive(Debug)]
pub struct Context {
    /// Before it, the nearest first.
    pub before: Vec<Box<RawValue>>,
    /// After it, the nearest first.
    pub after: Vec<Box<RawValue>>,
    /// Token for what was before.
    pub start: String,
    /// Token for what came after.
    pub end: String,
    /// The senders as they were called then, if wanted.
    pub profiles: Option<BTreeMap<OwnedUserId, Profile>>,
}

/// Hits that belong together.
#[derive(Debug, Default)]
pub struct Group {
    /// Groups are shown in this order.
    pub order: u32,
    /// The hits of this page.
    pub results: Vec<OwnedEventId>,
    /// The token of the group's next page.
    pub next: Option<String>,
}

/// Hits that may be seen.
#[derive(Default)]
struct Walked {
    seen: Vec<(Hit, Seen)>,
    visible: usize,
    /// Where to go on, if there may be more.
    next: Option<Hit>,
}

impl Search {
    /// `POST /search`: what was said in rooms the user is or was in, as far as they may see it.
    ///
    /// Bounded: some questions to the index, [`LOOKED_AT`] events looked at, [`MOST`] shown.
    ///
    /// Specification: client-server API, "Server side search".
    pub async fn events(&self, actor: &Actor, query: &Query) -> Result<Found, Error> {
        if !self.0.config.messages {
            return Err(Error::Off);
        }
        let page = query.page.as_deref().map(|page| self.0.seal.open(&actor.user, page)).transpose()?;
        if page.as_ref().is_some_and(|page| page.order() != query.order) {
            return Err(Error::BadToken);
        }
        let terms = Terms::parse(&query.term);
        let scope = self.scope(actor, query, page.as_ref()).await?;
        let Some(index) = self.fresh().await.filter(|_| !terms.is_empty() && !scope.is_empty()) else {
            return Ok(Found::default());
        };
        let question = Question {
            terms,
            fields: query.fields.clone(),
            rooms: Arc::new(scope.rooms.clone()),
            senders: scope.senders.clone(),
            kinds: scope.kinds.clone(),
            order: query.order,
            after: page.as_ref().map(Place::hit),
            limit: CHUNK,
        };
        let asked = question.terms.clone();
        let walked = self.walk(actor, index, question, &scope).await?;
        let count = page.as_ref().map_or(walked.visible as u64, |page| page.count);
        let group = page.and_then(|page| page.group);
        let place = |hit: Hit, group: Option<(Grouping, String)>| {
            let recent = query.order == Order::Recent;
            self.0.seal.token(&actor.user, &Place { recent, by: hit.by, key: hit.key, count, group })
        };
        let mut found = Found { count, ..Found::default() };
        found.next = walked.next.map(|hit| place(hit, group)).transpose()?;
        found.highlights = highlights(&asked, &walked.seen);
        for grouping in &query.groupings {
            let mut groups = grouped(*grouping, &walked.seen);
            if found.next.is_some() {
                for (name, (last, group)) in &mut groups {
                    group.next = Some(place(*last, Some((*grouping, name.clone())))?);
                }
            }
            let groups = groups.into_iter().map(|(name, (_, group))| (name, group)).collect();
            found.groups.insert(*grouping, groups);
        }
        self.show(actor, query, &scope, &walked.seen, &mut found).await?;
        Ok(found)
    }

    /// Goes through the hits until a page of those that may be seen is full, and, on the first page, counts on.
    async fn walk(
        &self,
        actor: &Actor,
        index: Arc<Index>,
        mut question: Question,
        scope: &Scope,
    ) -> Result<Walked, Error> {
        let mut walked = Walked::default();
        let counts = question.after.is_none();
        let mut looked_at = 0;
        loop {
            let asked = question.clone();
            let hits = self.ask(index.clone(), move |index| asked.ask(index)).await?;
            let done = hits.len() < question.limit;
            for (hit, seen) in self.visible(actor, &hits, scope).await? {
                walked.visible += 1;
                if walked.seen.len() < scope.limit {
                    walked.seen.push((hit, seen));
                }
            }
            looked_at += hits.len();
            question.after = hits.last().copied().or(question.after);
            let full = walked.seen.len() == scope.limit;
            if full {
                walked.next = walked.seen.last().map(|(hit, _)| *hit);
            }
            let most = if full && counts { COUNTED } else { LOOKED_AT };
            if done || (full && !counts) || looked_at >= most {
                if !full && !done {
                    walked.next = question.after;
                }
                return Ok(walked);
            }
        }
    }

    /// Those of the hits that the user may see and wants, in their order.
    async fn visible(&self, actor: &Actor, hits: &[Hit], scope: &Scope) -> Result<Vec<(Hit, Seen)>, Error> {
        let mut rooms: BTreeMap<RoomNid, Vec<_>> = BTreeMap::new();
        for hit in hits {
            let (nid, num) = address(hit.key);
            rooms.entry(nid).or_default().push(num);
        }
        let mut seen = BTreeMap::new();
        for (nid, nums) in rooms {
            let view = self.0.deps.rooms.view_of(nid).await?;
            let events = view.load_kept(&nums).await?;
            for one in view.visible(&actor.user, events).await? {
                let pdu = &one.event.pdu;
                let hidden = pdu.state_key().is_none() && scope.ignored.contains(pdu.sender());
                if !hidden && !one.event.is_redacted() && passes(&scope.filter, &view.room_id, pdu) {
                    seen.insert(crate::events::key(nid, one.event.num), one);
                }
            }
        }
        Ok(hits.iter().filter_map(|hit| Some((*hit, seen.remove(&hit.key)?))).collect())
    }

    /// Renders the hits with what belongs to them.
    async fn show(
        &self,
        actor: &Actor,
        query: &Query,
        scope: &Scope,
        seen: &[(Hit, Seen)],
        found: &mut Found,
    ) -> Result<(), Error> {
        let mut rooms: BTreeMap<RoomNid, Vec<usize>> = BTreeMap::new();
        for (i, (hit, _)) in seen.iter().enumerate() {
            rooms.entry(address(hit.key).0).or_default().push(i);
        }
        let mut shown: BTreeMap<usize, Match> = BTreeMap::new();
        for (nid, places) in rooms {
            let view = self.0.deps.rooms.view_of(nid).await?;
            view.ignores(&actor.user, scope.ignored.clone());
            let here: Vec<Seen> = places.iter().map(|&i| seen[i].1.clone()).collect();
            let rendered = view.render(actor, &here, Form::Full, Bundle::All).await?;
            for ((&i, one), event) in places.iter().zip(&here).zip(rendered) {
                let context = match query.around {
                    Some(around) => context(&view, actor, one, around).await?,
                    None => None,
                };
                shown.insert(i, Match { rank: rank(query.order, seen[i].0), event, context });
            }
            if query.include_state {
                let state = state(&view, actor, &here).await?;
                found.state.extend(state.map(|state| (view.room_id.clone(), state)));
            }
        }
        found.results = shown.into_values().collect();
        Ok(())
    }
}

fn rank(order: Order, hit: Hit) -> f64 {
    match order {
        Order::Rank => u32::try_from(hit.by).map_or(0.0, |bits| f64::from(f32::from_bits(bits))),
        Order::Recent => 1.0,
    }
}

async fn context(
    view: &View<'_>,
    actor: &Actor,
    seen: &Seen,
    around: Around,
) -> Result<Option<Context>, Error> {
    let Some(ordinal) = seen.event.meta.ordinal else { return Ok(None) };
    let sides = (around.before.min(AROUND), around.after.min(AROUND));
    let all = view.surroundings(&actor.user, ordinal, sides, &RoomEventFilter::default()).await?;
    let profiles = if around.profiles {
        let events = all.before.iter().chain(&all.after).chain([seen]);
        let senders: BTreeSet<OwnedUserId> = events.map(|seen| seen.event.pdu.sender().to_owned()).collect();
        let keys: Vec<StateKey> =
            senders.iter().map(|user| StateKey::new(StateEventType::RoomMember, user)).collect();
        let at = [seen.event.meta.before, seen.event.meta.after];
        let mut members = view.state_events_at(seen.event.meta.after, &keys).await?;
        view.veil_state(&actor.user, &at, members.iter_mut().flatten().collect()).await?;
        let profile = |member: Option<chappe_rooms::Event>| {
            member.and_then(|member| member.pdu.content_as::<Profile>()).unwrap_or_default()
        };
        Some(senders.into_iter().zip(members.into_iter().map(profile)).collect())
    } else {
        None
    };
    Ok(Some(Context {
        before: view.render(actor, &all.before, Form::Full, Bundle::All).await?,
        after: view.render(actor, &all.after, Form::Full, Bundle::All).await?,
        start: all.start,
        end: all.end,
        profiles,
    }))
}

/// The state of a room as the user may see it, now or when they left: of its members those who said what is shown. None of
/// a room into which they may not look any more, though they may see what was said.
async fn state(view: &View<'_>, actor: &Actor, shown: &[Seen]) -> Result<Option<Vec<Box<RawValue>>>, Error> {
    let at = match view.access(&actor.user).await {
        Ok(access) => access.state(view.head.state),
        Err(chappe_rooms::Error::Forbidden(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some(view.render_state(&view.state_for(at, shown).await?, Form::Full)?))
}

/// The words of the hits that are meant, as they stand there.
fn highlights(terms: &Terms, seen: &[(Hit, Seen)]) -> Vec<String> {
    let mut words = BTreeSet::new();
    for (_, seen) in seen {
        let Some(text) = Field::text(&seen.event.pdu) else { continue };
        for token in tokens(&text).into_iter().filter(|token| terms.have(&token.text)) {
            let word = text.get(token.offset_from..token.offset_to).map(str::to_lowercase);
            words.extend(word.filter(|_| words.len() < HIGHLIGHTS));
        }
    }
    words.into_iter().collect()
}

/// The hits by group, each group with its last hit.
fn grouped(grouping: Grouping, seen: &[(Hit, Seen)]) -> BTreeMap<String, (Hit, Group)> {
    let mut groups: BTreeMap<String, (Hit, Group)> = BTreeMap::new();
    for (hit, seen) in seen {
        let name = match grouping {
            Grouping::RoomId => seen.event.pdu.room_id().to_string(),
            Grouping::Sender => seen.event.pdu.sender().to_string(),
        };
        let order = u32::try_from(groups.len()).unwrap_or(u32::MAX);
        let (last, group) = groups.entry(name).or_insert_with(|| (*hit, Group { order, ..Group::default() }));
        *last = *hit;
        group.results.push(seen.event.pdu.event_id().to_owned());
    }
    groups
}
