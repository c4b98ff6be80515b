//! Server-side key backup.

mod keys;
mod version;
mod versions;

use chappe_web::Routes;
use ruma::api::client::backup as api;

use crate::Api;

/// A client uploads its whole history in pieces of a hundred sessions or more.
const UPLOAD_LIMIT: usize = 16 << 20;

pub(crate) fn routes() -> Routes<Api> {
    Routes::new()
        .on::<api::create_backup_version::v3::Request, _>(versions::create)
        .on::<api::get_latest_backup_info::v3::Request, _>(versions::latest)
        .on::<api::get_backup_info::v3::Request, _>(version::show)
        .on::<api::update_backup_version::v3::Request, _>(version::update)
        .on::<api::delete_backup_version::v3::Request, _>(version::delete)
        .on_limited::<api::add_backup_keys::v3::Request, _>(UPLOAD_LIMIT, keys::add)
        .on_limited::<api::add_backup_keys_for_room::v3::Request, _>(UPLOAD_LIMIT, keys::add_for_room)
        .on::<api::add_backup_keys_for_session::v3::Request, _>(keys::add_for_session)
        .on::<api::get_backup_keys::v3::Request, _>(keys::all)
        .on::<api::get_backup_keys_for_room::v3::Request, _>(keys::of_room)
        .on::<api::get_backup_keys_for_session::v3::Request, _>(keys::of_session)
        .on::<api::delete_backup_keys::v3::Request, _>(keys::delete)
        .on::<api::delete_backup_keys_for_room::v3::Request, _>(keys::delete_for_room)
        .on::<api::delete_backup_keys_for_session::v3::Request, _>(keys::delete_for_session)
}
