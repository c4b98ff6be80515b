//! `POST /search`: what was said, found by its words.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use chappe_search::{Around, Context, Field, Found, Group, Grouping, Match, Order, Query, Search};
use chappe_web::{Routes, WithBody};
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId,
    api::client::search::search_events::v3::{Criteria, GroupingKey, OrderBy, Request, SearchKeys},
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{Api, error::Result, rates::Limits, requester::Requester};

/// Characters of a question at most.
const LONGEST: usize = 1_000;

pub(crate) fn routes() -> Routes<Api> {
    Routes::new().on::<Request, _>(handler)
}

async fn handler(
    State(search): State<Search>,
    State(limits): State<Limits>,
    requester: Requester,
    WithBody(request, body): WithBody<Request>,
) -> Result<Json<Categories>> {
    limits.user("search", &requester, |rates| rates.search)?;
    let Some(criteria) = request.search_categories.room_events else {
        return Ok(Json(Categories::default()));
    };
    // That a context is wanted at all shows in the request only: the endpoint's type fills it in.
    let context = body.pointer("/search_categories/room_events/event_context");
    let around = context.is_some_and(|context| !context.is_null());
    let query = query(criteria, around, request.next_batch)?;
    let found = search.events(&requester.actor(), &query).await?;
    let search_categories = Category { room_events: Some(answer(found)) };
    Ok(Json(Categories { search_categories }))
}

fn query(criteria: Criteria, around: bool, page: Option<String>) -> Result<Query> {
    if criteria.search_term.chars().count() > LONGEST {
        return Err(chappe_web::Error::invalid_param("search_term is too long").into());
    }
    let mut fields = Vec::new();
    for key in criteria.keys.unwrap_or_default() {
        fields.push(match key {
            SearchKeys::ContentBody => Field::Body,
            SearchKeys::ContentName => Field::Name,
            SearchKeys::ContentTopic => Field::Topic,
            _ => return Err(chappe_web::Error::invalid_param("keys has one that is not searched").into()),
        });
    }
    let order = match criteria.order_by {
        None | Some(OrderBy::Rank) => Order::Rank,
        Some(OrderBy::Recent) => Order::Recent,
        Some(_) => return Err(chappe_web::Error::invalid_param("order_by is none that is known").into()),
    };
    let mut groupings: Vec<Grouping> = Vec::new();
    for grouping in criteria.groupings.group_by {
        let grouping = match grouping.key {
            Some(GroupingKey::RoomId) => Grouping::RoomId,
            Some(GroupingKey::Sender) => Grouping::Sender,
            _ => return Err(chappe_web::Error::invalid_param("group_by has a key that is not known").into()),
        };
        if !groupings.contains(&grouping) {
            groupings.push(grouping);
        }
    }
    let count = |limit: ruma::UInt| usize::try_from(u64::from(limit)).unwrap_or(usize::MAX);
    let context = criteria.event_context;
    Ok(Query {
        term: criteria.search_term,
        fields,
        filter: criteria.filter,
        order,
        around: around.then(|| Around {
            before: count(context.before_limit),
            after: count(context.after_limit),
            profiles: context.include_profile,
        }),
        include_state: criteria.include_state == Some(true),
        groupings,
        page,
    })
}

#[derive(Default, Serialize)]
struct Categories {
    search_categories: Category,
}

#[derive(Default, Serialize)]
struct Category {
    #[serde(skip_serializing_if = "Option::is_none")]
    room_events: Option<Answer>,
}

#[derive(Serialize)]
struct Answer {
    count: u64,
    highlights: Vec<String>,
    results: Vec<Hit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    state: BTreeMap<OwnedRoomId, Vec<Box<RawValue>>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    groups: BTreeMap<Grouping, BTreeMap<String, GroupAnswer>>,
}

#[derive(Serialize)]
struct Hit {
    rank: f64,
    result: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<Surroundings>,
}

#[derive(Serialize)]
struct Surroundings {
    events_before: Vec<Box<RawValue>>,
    events_after: Vec<Box<RawValue>>,
    start: String,
    end: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile_info: Option<BTreeMap<OwnedUserId, Profile>>,
}

#[derive(Serialize)]
struct Profile {
    #[serde(skip_serializing_if = "Option::is_none")]
    displayname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar_url: Option<String>,
}

#[derive(Serialize)]
struct GroupAnswer {
    order: u32,
    results: Vec<OwnedEventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

fn answer(found: Found) -> Answer {
    let group = |(name, group): (String, Group)| {
        (name, GroupAnswer { order: group.order, results: group.results, next_batch: group.next })
    };
    let groups = found.groups.into_iter();
    Answer {
        count: found.count,
        highlights: found.highlights,
        results: found.results.into_iter().map(result).collect(),
        next_batch: found.next,
        state: found.state,
        groups: groups.map(|(by, groups)| (by, groups.into_iter().map(group).collect())).collect(),
    }
}

fn result(found: Match) -> Hit {
    let profile = |(user, profile): (OwnedUserId, chappe_rooms::Profile)| {
        (user, Profile { displayname: profile.display_name, avatar_url: profile.avatar_url })
    };
    let context = found.context.map(|Context { before, after, start, end, profiles }| Surroundings {
        events_before: before,
        events_after: after,
        start,
        end,
        profile_info: profiles.map(|profiles| profiles.into_iter().map(profile).collect()),
    });
    Hit { rank: found.rank, result: found.event, context }
}
