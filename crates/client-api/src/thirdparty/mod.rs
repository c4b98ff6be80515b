//! Third-party networks that application services connect.

mod location;
mod protocol;
mod protocols;
mod user;

use chappe_web::Routes;
use ruma::api::client::thirdparty as api;
use serde_json::Value;

use crate::{Api, error::Result};

pub(crate) fn routes() -> Routes<Api> {
    Routes::new()
        .on::<api::get_protocols::v3::Request, _>(protocols::handler)
        .on::<api::get_protocol::v3::Request, _>(protocol::handler)
        .on::<api::get_location_for_protocol::v3::Request, _>(location::of_protocol)
        .on::<api::get_location_for_room_alias::v3::Request, _>(location::of_alias)
        .on::<api::get_user_for_protocol::v3::Request, _>(user::of_protocol)
        .on::<api::get_user_for_user_id::v3::Request, _>(user::of_id)
}

/// What was found, which must be something.
fn some(found: Vec<Value>) -> Result<axum::Json<Vec<Value>>> {
    if found.is_empty() {
        return Err(chappe_web::Error::not_found("Nothing like this is known").into());
    }
    Ok(axum::Json(found))
}
