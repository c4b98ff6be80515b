//! `GET /unstable/io.element.msc4308/thread_subscriptions`: which threads the user follows, the last change first.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use chappe_delivery::Received;
use chappe_rooms::{Rooms, SubscriptionChange, SubscriptionsPage, sync_position};
use chappe_web::{Error, Parameters};
use ruma::{OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};

use crate::{error::Result, requester::Requester};

/// Changes in one answer if the client does not say how many, and at most.
const USUAL: usize = 100;
const MOST: usize = 500;

#[derive(Debug, Deserialize)]
pub(super) struct Query {
    dir: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn handler(
    State(rooms): State<Rooms>,
    requester: Requester,
    Parameters(query): Parameters<Query>,
) -> Result<Json<Answer>> {
    let limit = query.limit.unwrap_or(USUAL).min(MOST);
    let dir = query.dir.ok_or_else(|| Error::missing_param("dir is missing"))?;
    if dir != "b" || limit == 0 {
        return Err(Error::invalid_param("dir is b, and limit more than 0").into());
    }
    let unknown = || Error::invalid_param("Not a token of this server");
    let from = query.from.map(|from| from.parse::<Received>().map_err(|_| unknown())).transpose()?;
    let to = match &query.to {
        None => Received::default().position(),
        // The `pos` of a sliding sync does as well.
        Some(to) => sync_position(to)
            .or_else(|| to.parse::<Received>().ok().map(Received::position))
            .ok_or_else(unknown)?,
    };
    let from = from.map(Received::position);
    let page = rooms.thread_subscriptions(requester.user(), to, from, limit).await?;
    Ok(Json(Answer::from_page(page)))
}

/// Changed subscriptions, by room and thread root; also what the extension of sliding sync gives.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Changes {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    subscribed: ByThread<Subscribed>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unsubscribed: ByThread<Unsubscribed>,
}

type ByThread<T> = BTreeMap<OwnedRoomId, BTreeMap<OwnedEventId, T>>;

#[derive(Debug, Serialize)]
struct Subscribed {
    automatic: bool,
    bump_stamp: u64,
}

#[derive(Debug, Serialize)]
struct Unsubscribed {
    bump_stamp: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Answer {
    #[serde(flatten)]
    changes: Changes,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
}

impl Answer {
    fn from_page(page: SubscriptionsPage) -> Self {
        let end = page.more.map(|more| Received::up_to(more).to_string());
        Self { changes: page.changes.into(), end }
    }
}

impl From<Vec<SubscriptionChange>> for Changes {
    fn from(all: Vec<SubscriptionChange>) -> Self {
        let mut changes = Self::default();
        for SubscriptionChange { room, root, automatic, position } in all {
            let bump_stamp = position.0;
            match automatic {
                Some(automatic) => {
                    let threads = changes.subscribed.entry(room).or_default();
                    threads.insert(root, Subscribed { automatic, bump_stamp });
                }
                None => {
                    changes.unsubscribed.entry(room).or_default().insert(root, Unsubscribed { bump_stamp });
                }
            }
        }
        changes
    }
}
