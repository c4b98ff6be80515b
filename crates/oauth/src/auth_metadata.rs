//! `GET /auth_metadata`: where clients find what they need (client-server API, "Server metadata discovery"; RFC 8414).

use axum::{Json, extract::State, response::IntoResponse};
use http::header;
use serde_json::json;

use crate::{OAuth, account, metadata::GRANTS};

pub(super) async fn handler(State(oauth): State<OAuth>) -> impl IntoResponse {
    let account = oauth.url("/account");
    let mut metadata = json!({
        "issuer": oauth.issuer(),
        "authorization_endpoint": oauth.url("/authorize"),
        "token_endpoint": oauth.url("/token"),
        "revocation_endpoint": oauth.url("/revoke"),
        "registration_endpoint": oauth.url("/register"),
        "device_authorization_endpoint": oauth.url("/device"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "fragment"],
        "grant_types_supported": GRANTS,
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "authorization_response_iss_parameter_supported": true,
        "account_management_uri": account,
        "account_management_actions_supported": account::ACTIONS,
        // As before they were specified (MSC4191).
        "org.matrix.msc4191.account_management_uri": account,
        "org.matrix.msc4191.account_management_actions_supported": account::ACTIONS,
    });
    if oauth.makes_accounts() {
        metadata["prompt_values_supported"] = json!(["create"]);
    }
    ([(header::CACHE_CONTROL, "public, max-age=600")], Json(metadata))
}
