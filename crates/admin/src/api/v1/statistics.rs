//! `GET /v1/statistics/users/media`: what users take up.

use axum::{Json, extract::State};
use chappe_media::Usage;
use chappe_web::{Parameters, Routes};
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Place as _;
use crate::api::{Api, Dir, Page, Result, page::no_such_order};

pub(super) fn routes() -> Routes<Api> {
    Routes::new().get("/_synapse/admin/v1/statistics/users/media", users_media)
}

#[derive(Deserialize)]
struct Query {
    order_by: Option<String>,
    dir: Option<Dir>,
    from_ts: Option<u64>,
    until_ts: Option<u64>,
    search_term: Option<String>,
}

/// A line of the list.
struct Line {
    user: OwnedUserId,
    name: Option<String>,
    usage: Usage,
}

async fn users_media(
    State(api): State<Api>,
    Parameters(page): Parameters<Page>,
    Parameters(query): Parameters<Query>,
) -> Result<Json<Value>> {
    let usage = api.media.usage(query.from_ts.unwrap_or(0), query.until_ts.unwrap_or(u64::MAX)).await?;
    let mut lines = Vec::with_capacity(usage.len());
    for (user, usage) in usage {
        let profile = api.accounts.profile(&api.accounts.read(), &user).await.unwrap_or_default();
        let line = Line { name: profile.displayname().map(str::to_owned), user, usage };
        lines.extend(Some(line).filter(|line| query.finds(line)));
    }
    match query.order_by.as_deref().unwrap_or("user_id") {
        "user_id" => {}
        "displayname" => lines.sort_by(|a, b| a.name.cmp(&b.name)),
        "media_length" => lines.sort_by_key(|line| line.usage.bytes),
        "media_count" => lines.sort_by_key(|line| line.usage.count),
        _ => return Err(no_such_order().into()),
    }
    if query.dir == Some(Dir::Backward) {
        lines.reverse();
    }
    let total = lines.len();
    let shown: Vec<Value> = page.of(lines).iter().map(Line::shown).collect();
    let mut answer = json!({ "users": shown, "total": total });
    if let Some(next) = page.next(total) {
        answer["next_token"] = next.into();
    }
    Ok(Json(answer))
}

impl Query {
    fn finds(&self, line: &Line) -> bool {
        let Some(part) = self.search_term.as_ref().map(|part| part.to_lowercase()) else { return true };
        line.user.localpart().to_lowercase().contains(&part)
            || line.name.as_ref().is_some_and(|name| name.to_lowercase().contains(&part))
    }
}

impl Line {
    fn shown(&self) -> Value {
        json!({
            "user_id": self.user, "displayname": self.name,
            "media_count": self.usage.count, "media_length": self.usage.bytes,
        })
    }
}
