//! `/v1/media` and what else has to do with files.

mod deletion;
mod of_room;
mod of_user;
mod one;
mod protection;
mod quarantine;

use chappe_media::MediumInfo;
use chappe_web::Routes;
use serde_json::{Value, json};

use super::Place as _;
use crate::api::Api;

pub(super) fn routes() -> Routes<Api> {
    Routes::new()
        .get("/_synapse/admin/v1/media/{server_name}/{media_id}", one::show)
        .delete("/_synapse/admin/v1/media/{server_name}/{media_id}", one::delete)
        .post("/_synapse/admin/v1/media/delete", deletion::own)
        .post("/_synapse/admin/v1/media/{server_name}/delete", deletion::own_by_name)
        .post("/_synapse/admin/v1/purge_media_cache", deletion::remote)
        .post("/_synapse/admin/v1/media/protect/{media_id}", protection::protect)
        .post("/_synapse/admin/v1/media/unprotect/{media_id}", protection::unprotect)
        .post("/_synapse/admin/v1/media/quarantine/{server_name}/{media_id}", quarantine::one)
        .post("/_synapse/admin/v1/media/unquarantine/{server_name}/{media_id}", quarantine::lift)
        .post("/_synapse/admin/v1/room/{room_id}/media/quarantine", quarantine::of_room)
        .post("/_synapse/admin/v1/quarantine_media/{room_id}", quarantine::of_room)
        .post("/_synapse/admin/v1/user/{user_id}/media/quarantine", quarantine::of_user)
        .get("/_synapse/admin/v1/room/{room_id}/media", of_room::handler)
        .get("/_synapse/admin/v1/users/{user_id}/media", of_user::list)
        .delete("/_synapse/admin/v1/users/{user_id}/media", of_user::delete)
}

/// A medium as lists of a user's media show it.
fn shown(info: &MediumInfo) -> Value {
    let medium = &info.medium;
    json!({
        "media_id": info.id, "media_type": medium.content_type, "media_length": medium.size,
        "upload_name": medium.filename, "created_ts": medium.created, "last_access_ts": info.last_access,
        "quarantined_by": medium.quarantined_by, "safe_from_quarantine": medium.protected,
    })
}

/// What was deleted.
fn deleted(ids: &[String]) -> Value {
    json!({ "deleted_media": ids, "total": ids.len() })
}
