//! `GET` and `DELETE /v1/users/{userId}/media`: what a user has uploaded.

use std::cmp::Ordering;

use axum::{Json, extract::State};
use chappe_media::MediumInfo;
use chappe_web::{Arguments, Parameters};
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{deleted, shown};
use crate::api::{Api, Dir, Page, Result, page::no_such_order};

#[derive(Deserialize)]
pub(super) struct Query {
    order_by: Option<String>,
    dir: Option<Dir>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Arguments(user): Arguments<OwnedUserId>,
    Parameters(page): Parameters<Page>,
    Parameters(query): Parameters<Query>,
) -> Result<Json<Value>> {
    let media = sorted(&api, &user, &query).await?;
    let total = media.len();
    let shown: Vec<Value> = page.of(media).iter().map(shown).collect();
    let mut answer = json!({ "media": shown, "total": total });
    if let Some(next) = page.next(total) {
        answer["next_token"] = next.into();
    }
    Ok(Json(answer))
}

/// The page that a list would show.
pub(super) async fn delete(
    State(api): State<Api>,
    Arguments(user): Arguments<OwnedUserId>,
    Parameters(page): Parameters<Page>,
    Parameters(query): Parameters<Query>,
) -> Result<Json<Value>> {
    let mut ids = Vec::new();
    for info in page.of(sorted(&api, &user, &query).await?) {
        api.media.delete(&info.server, &info.id).await?;
        ids.push(info.id);
    }
    Ok(Json(deleted(&ids)))
}

/// The newest first unless asked otherwise; what is alike is sorted by id.
async fn sorted(api: &Api, user: &OwnedUserId, query: &Query) -> Result<Vec<MediumInfo>> {
    api.account(user).await?;
    let compare = comparison(query.order_by.as_deref().unwrap_or("created_ts"))?;
    let unasked = query.order_by.is_none() && query.dir.is_none();
    let backward = unasked || query.dir.is_some_and(Dir::is_backward);
    let mut media = api.media.of_user(user).await?;
    media.sort_by(|a, b| {
        let ordering = compare(a, b);
        let ordering = if backward { ordering.reverse() } else { ordering };
        ordering.then_with(|| a.id.cmp(&b.id))
    });
    Ok(media)
}

type Comparison = fn(&MediumInfo, &MediumInfo) -> Ordering;

fn comparison(word: &str) -> Result<Comparison, chappe_web::Error> {
    Ok(match word {
        "media_id" => |a, b| a.id.cmp(&b.id),
        "upload_name" => |a, b| a.medium.filename.cmp(&b.medium.filename),
        "created_ts" => |a, b| a.medium.created.cmp(&b.medium.created),
        "last_access_ts" => |a, b| a.last_access.cmp(&b.last_access),
        "media_length" => |a, b| a.medium.size.cmp(&b.medium.size),
        "media_type" => |a, b| a.medium.content_type.cmp(&b.medium.content_type),
        "quarantined_by" => |a, b| a.medium.quarantined_by.cmp(&b.medium.quarantined_by),
        "safe_from_quarantine" => |a, b| a.medium.protected.cmp(&b.medium.protected),
        _ => return Err(no_such_order()),
    })
}
