//! `GET`, `PUT` and `DELETE /profile/{userId}/{keyName}`: one field.

use std::sync::Arc;

use axum::{
    Json,
    extract::{RawPathParams, State},
};
use chappe_accounts::{Accounts, RemoteUsers};
use chappe_rooms::Rooms;
use chappe_web::{Origin, Ruma, WithBody};
use http::StatusCode;
use ruma::api::client::profile::{delete_profile_field, get_profile_field, set_profile_field};
use serde_json::{Map, Value, json};

use crate::{
    Config,
    error::Result,
    rates::Limits,
    requester::{Acting, Anybody, not_for_guests},
};

pub(super) async fn show(
    State(accounts): State<Accounts>,
    State(remote): State<Arc<dyn RemoteUsers>>,
    State(limits): State<Limits>,
    origin: Origin,
    Anybody(requester): Anybody,
    Ruma(request): Ruma<get_profile_field::v3::Request>,
) -> Result<Json<Value>> {
    let (user, field) = (&request.user_id, request.field.as_str());
    let profile = if accounts.is_local(user) {
        accounts.profile(&accounts.read(), user).await?
    } else {
        limits.asking(requester.as_ref(), origin)?;
        remote.profile(user, Some(field)).await?
    };
    let answer = match profile.fields.get(field) {
        Some(value) => Map::from_iter([(field.to_owned(), value.clone())]),
        None if matches!(field, "displayname" | "avatar_url") => Map::new(),
        None => return Err(chappe_web::Error::not_found("This field is not set").into()),
    };
    Ok(Json(Value::Object(answer)))
}

#[expect(clippy::too_many_arguments, reason = "extractors, one by one")]
pub(super) async fn set(
    State(accounts): State<Accounts>,
    State(rooms): State<Rooms>,
    State(config): State<Arc<Config>>,
    State(limits): State<Limits>,
    requester: Acting,
    path: RawPathParams,
    WithBody(request, body): WithBody<SetField>,
) -> Result<Json<Value>> {
    requester.must_be(&request.user_id)?;
    let field = path.iter().nth(1).map_or("", |(_, value)| value);
    let value = body.get(field).ok_or_else(|| chappe_web::Error::missing_param(field.to_owned()))?;
    // An empty picture is how clients take it away.
    let value = Some(value).filter(|value| !(field == "avatar_url" && value.as_str() == Some("")));
    change((&accounts, &rooms, &config), (&limits, &requester), field, value).await
}

pub(super) async fn delete(
    State(accounts): State<Accounts>,
    State(rooms): State<Rooms>,
    State(config): State<Arc<Config>>,
    State(limits): State<Limits>,
    requester: Acting,
    Ruma(request): Ruma<delete_profile_field::v3::Request>,
) -> Result<Json<Value>> {
    requester.must_be(&request.user_id)?;
    change((&accounts, &rooms, &config), (&limits, &requester), request.field.as_str(), None).await
}

type SetField = set_profile_field::v3::Request;

/// Refuses users who may not choose their name.
pub(crate) fn may_be_renamed(config: &Config, requester: &Acting) -> Result<()> {
    if config.displayname_changes || requester.admin || requester.appservice().is_some() {
        return Ok(());
    }
    // 400, as Synapse answers and clients know it.
    let said = "Changing display name is disabled on this server";
    Err(chappe_web::Error::new(StatusCode::BAD_REQUEST, "M_FORBIDDEN", said).into())
}

/// Name and picture are shown in rooms, which have to be told.
async fn change(
    (accounts, rooms, config): (&Accounts, &Rooms, &Config),
    (limits, requester): (&Limits, &Acting),
    field: &str,
    value: Option<&Value>,
) -> Result<Json<Value>> {
    if field == "displayname" {
        may_be_renamed(config, requester)?;
    }
    if requester.is_guest() && field != "displayname" {
        return Err(not_for_guests().into());
    }
    let is_told = matches!(field, "displayname" | "avatar_url");
    if is_told {
        limits.user("profile", requester, |rates| rates.profile)?;
    }
    accounts.set_profile_field(requester.user(), field, value).await?;
    if is_told {
        rooms.announce_profile(requester.user().to_owned());
    }
    Ok(Json(json!({})))
}
