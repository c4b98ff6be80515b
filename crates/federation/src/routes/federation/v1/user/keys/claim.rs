//! `POST /_matrix/federation/v1/user/keys/claim`: one-time keys of local users.

use axum::{Extension, extract::State};
use chappe_web::{Ruma, UsedUp};
use ruma::api::federation::keys::claim_keys::v1::{Request, Response};

use crate::{Federation, Origin, refusal::Refusal};

/// Devices of which keys are claimed at once.
const MOST: usize = 5000;

pub(in crate::routes) async fn handler(
    State(federation): State<Federation>,
    Origin { request, .. }: Origin<Request>,
) -> Result<(Extension<UsedUp>, Ruma<Response>), Refusal> {
    let mut claim = request.one_time_keys;
    claim.retain(|user, _| federation.local(user).is_ok());
    if claim.values().map(std::collections::BTreeMap::len).sum::<usize>() > MOST {
        return Err(chappe_web::Error::too_large().into());
    }
    let response = Response::new(federation.accounts().claim_keys(&claim).await?);
    Ok((Extension(UsedUp), Ruma(response)))
}
