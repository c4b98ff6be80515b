//! `GET /keys/changes`: whose devices changed since a sync token.

use std::{sync::Arc, time::Duration};

use axum::extract::State;
use chappe_delivery::{Delivery, SyncRequest};
use chappe_web::Ruma;
use ruma::{
    api::client::{
        filter::FilterDefinition,
        keys::get_key_changes::v3::{Request, Response},
    },
    presence::PresenceState,
};

use crate::{error::Result, requester::Requester};

/// Gives the changes from `from` up to now: those after `to` are news that the client gets again with its next sync.
/// No device is named, so that nothing counts as delivered.
pub(super) async fn handler(
    State(delivery): State<Delivery>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    let wanted = SyncRequest {
        user: requester.user().to_owned(),
        device: None,
        since: Some(request.from.parse()?),
        filter: Arc::new(FilterDefinition::default()),
        full_state: false,
        state_after: false,
        presence: PresenceState::Offline,
        timeout: Duration::ZERO,
    };
    let lists = delivery.sync(&wanted).await?.device_lists;
    Ok(Ruma(Response::new(lists.changed, lists.left)))
}
