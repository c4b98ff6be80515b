//! `POST …/user_directory/search`: users of this server whom a user of another one finds (MSC4258). Nobody else is asked.

use axum::{Json, extract::State};
use chappe_web::Error;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Networked;
use crate::{Federation, auth::SignedJson, refusal::Refusal};

/// Results at most.
const MOST: usize = 50;
/// Results where it is not said.
const USUAL: usize = 10;
/// Characters of a question at most.
const LONGEST: usize = 300;

#[derive(Deserialize)]
pub(in crate::routes) struct Body {
    requester: OwnedUserId,
    search_term: String,
    limit: Option<u64>,
}

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    _: Networked,
    SignedJson { origin, body }: SignedJson<Body>,
) -> Result<Json<Value>, Refusal> {
    if body.requester.server_name() != origin {
        return Err(Error::forbidden("The requester is of another server than yours").into());
    }
    let (network, rates) = (federation.network(), &federation.network().config().rates);
    network.count("people", origin.as_str(), rates.directory)?;
    network.count("people for one", body.requester.as_str(), rates.directory_by_user)?;
    if body.search_term.chars().count() > LONGEST {
        return Err(Error::invalid_param("search_term is too long").into());
    }
    let limit = body.limit.map_or(USUAL, |limit| usize::try_from(limit).unwrap_or(MOST).min(MOST));
    let search = federation.search();
    let people = search.people_for_peer(&body.requester, body.search_term.trim(), limit).await?;
    let results: Vec<Value> = people
        .results
        .iter()
        .map(|person| {
            json!({
                "user_id": person.user, "display_name": person.display_name, "avatar_url": person.avatar_url,
            })
        })
        .collect();
    Ok(Json(json!({ "limited": people.limited, "results": results })))
}
