//! `GET`, `PUT` and `DELETE /user/{userId}/rooms/{roomId}/tags[/{tag}]`.

use axum::{Json, extract::State};
use chappe_accounts::Accounts;
use chappe_web::Ruma;
use ruma::api::client::tag::{create_tag, delete_tag, get_tags};
use serde_json::{Value, json};

use crate::{error::Result, requester::Requester};

pub(super) async fn all(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_tags::v3::Request>,
) -> Result<Json<Value>> {
    requester.must_be(&request.user_id)?;
    Ok(Json(json!({ "tags": accounts.tags(requester.user(), &request.room_id).await? })))
}

pub(super) async fn set(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<create_tag::v3::Request>,
) -> Result<Ruma<create_tag::v3::Response>> {
    requester.must_be(&request.user_id)?;
    let info = json!(request.tag_info);
    let insert = |tags: &mut serde_json::Map<String, Value>| {
        tags.insert(request.tag.clone(), info.clone());
    };
    accounts.update_tags(requester.user(), &request.room_id, insert).await?;
    Ok(Ruma(create_tag::v3::Response::new()))
}

pub(super) async fn delete(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<delete_tag::v3::Request>,
) -> Result<Ruma<delete_tag::v3::Response>> {
    requester.must_be(&request.user_id)?;
    let remove = |tags: &mut serde_json::Map<String, Value>| {
        tags.remove(&request.tag);
    };
    accounts.update_tags(requester.user(), &request.room_id, remove).await?;
    Ok(Ruma(delete_tag::v3::Response::new()))
}
