//! `POST /user_directory/search`: people one meets in rooms and, if so configured, all of this server and of the other servers
//! of the network.

use axum::{Json, extract::State};
use chappe_search::{Person, Scope, Search};
use chappe_web::{Error, WithBody};
use ruma::api::client::user_directory::search_users::v3::Request;
use serde_json::{Value, json};

use crate::{error::Result, rates::Limits, requester::Requester};

/// Results at most.
const MOST: usize = 50;
/// Characters of a question at most.
const LONGEST: usize = 300;

pub(super) async fn handler(
    State(search): State<Search>,
    State(limits): State<Limits>,
    requester: Requester,
    WithBody(request, body): WithBody<Request>,
) -> Result<Json<Value>> {
    limits.user("search", &requester, |rates| rates.search)?;
    if request.search_term.chars().count() > LONGEST {
        return Err(Error::invalid_param("search_term is too long").into());
    }
    let limit = usize::try_from(u64::from(request.limit)).unwrap_or(MOST).min(MOST);
    let scope = scope(&body["search_scope"])?;
    let people = search.people(requester.user(), &request.search_term, limit, scope).await?;
    let results: Vec<Value> = people.results.iter().map(entry).collect();
    Ok(Json(json!({ "results": results, "limited": people.limited })))
}

/// How far the search goes, where the client says it (MSC4258).
fn scope(said: &Value) -> Result<Scope> {
    match said {
        Value::Null => Ok(Scope::default()),
        Value::String(scope) if scope == "local" => Ok(Scope::Local),
        Value::String(scope) if scope == "restricted" => Ok(Scope::Restricted),
        Value::String(scope) if scope == "remote" => Ok(Scope::Remote),
        _ => Err(Error::invalid_param("search_scope is local, restricted or remote").into()),
    }
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
