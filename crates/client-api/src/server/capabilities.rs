//! `GET /capabilities`: what a user of this server may do.

use std::sync::Arc;

use axum::{Json, extract::State};
use chappe_rooms::{Rooms, UNSTABLE_VERSIONS, VERSIONS};
use serde_json::{Map, Value, json};

use crate::{Config, requester::Requester};

pub(super) async fn handler(
    State(config): State<Arc<Config>>,
    State(rooms): State<Rooms>,
    requester: Requester,
) -> Json<Value> {
    let stable = VERSIONS.iter().map(|version| (version.to_string(), json!("stable")));
    let unstable = UNSTABLE_VERSIONS.iter().map(|version| ((*version).to_owned(), json!("unstable")));
    let available: Map<String, Value> = stable.chain(unstable).collect();
    let delays = rooms.config();
    // What asks for a password is done on the account page by users of OAuth clients.
    let by_password = !requester.oauth;
    let named = config.displayname_changes;
    let mut capabilities = json!({
        "org.matrix.msc4140.delayed_events": {
            "max_delay_ms": delays.delayed_events_seconds * 1_000,
            "max_scheduled": delays.delayed_events_per_user,
        },
        "m.change_password": { "enabled": by_password },
        "m.room_versions": { "default": rooms.config().default_version, "available": available },
        "m.set_displayname": { "enabled": named },
        "m.set_avatar_url": { "enabled": true },
        "m.3pid_changes": { "enabled": config.threepid_changes && by_password },
        "m.get_login_token": { "enabled": by_password },
        "m.profile_fields": { "enabled": true, "disallowed": if named { &[][..] } else { &["displayname"] } },
    });
    if requester.admin {
        capabilities["m.account_moderation"] = json!({ "suspend": true, "lock": true });
    }
    Json(json!({ "capabilities": capabilities }))
}
