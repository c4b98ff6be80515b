//! End-to-end encryption keys.

mod changes;
mod claim;
mod query;
mod signatures;
mod signing;
mod upload;

use chappe_web::Routes;
use ruma::api::client::keys as api;

use crate::Api;

/// Uploads carry up to some hundred keys of a few hundred bytes.
const UPLOAD_LIMIT: usize = 4 << 20;

pub(crate) fn routes() -> Routes<Api> {
    Routes::new()
        .on_limited::<api::upload_keys::v3::Request, _>(UPLOAD_LIMIT, upload::handler)
        .on::<api::get_keys::v3::Request, _>(query::handler)
        .on::<api::get_key_changes::v3::Request, _>(changes::handler)
        .on::<api::claim_keys::v3::Request, _>(claim::handler)
        .on::<api::upload_signing_keys::v3::Request, _>(signing::handler)
        .on_limited::<api::upload_signatures::v3::Request, _>(UPLOAD_LIMIT, signatures::handler)
}
