//! `POST /_matrix/federation/v1/user/keys/query`: public keys of local users.

use axum::extract::State;
use chappe_web::Ruma;
use ruma::api::federation::keys::get_keys::v1::{Request, Response};

use crate::{Federation, Origin, refusal::Answer};

/// Users answered for at once.
const MOST: usize = 2000;

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { request, .. }: Origin<Request>,
) -> Answer<Response> {
    let mut response = Response::default();
    for (user, devices) in request.device_keys.into_iter().take(MOST) {
        if federation.local(&user).is_err() {
            continue;
        }
        let keys = match federation.accounts().public_keys(None, &user, &devices).await {
            Ok(keys) => keys,
            Err(chappe_accounts::Error::NotFound(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        response.master_keys.extend(keys.master.map(|key| (user.clone(), key)));
        response.self_signing_keys.extend(keys.self_signing.map(|key| (user.clone(), key)));
        response.device_keys.insert(user, keys.devices);
    }
    Ok(Ruma(response))
}
