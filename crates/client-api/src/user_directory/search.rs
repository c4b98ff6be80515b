//! `POST /user_directory/search`: people one meets in rooms and, if so configured, all of this server.

use std::sync::Arc;

use axum::{Json, extract::State};
use chappe_search::{Circle, Person, Search};
use chappe_web::Ruma;
use ruma::api::client::user_directory::search_users::v3::Request;
use serde_json::{Value, json};

use crate::{Config, UserDirectory, error::Result, rates::Limits, requester::Requester};

/// Results at most.
const MOST: usize = 50;
/// Characters of a question at most.
const LONGEST: usize = 300;

pub(super) async fn handler(
    State(search): State<Search>,
    State(config): State<Arc<Config>>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Value>> {
    limits.user("search", &requester, |rates| rates.search)?;
    if request.search_term.chars().count() > LONGEST {
        return Err(chappe_web::Error::invalid_param("search_term is too long").into());
    }
    let limit = usize::try_from(u64::from(request.limit)).unwrap_or(MOST).min(MOST);
    let circle = match config.user_directory {
        UserDirectory::Shared => Circle::Shared,
        UserDirectory::Everybody => Circle::Everybody,
    };
    let people = search.people(requester.user(), &request.search_term, limit, circle).await?;
    let results: Vec<Value> = people.results.iter().map(entry).collect();
    Ok(Json(json!({ "results": results, "limited": people.limited })))
}

fn entry(person: &Person) -> Value {
    let mut entry = json!({ "user_id": person.user });
    if let Some(name) = &person.display_name {
        entry["display_name"] = name.as_str().into();
    }
    if let Some(avatar) = &person.avatar_url {
        entry["avatar_url"] = avatar.as_str().into();
    }
    entry
}
