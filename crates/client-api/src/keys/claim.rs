//! `POST /keys/claim`: one-time keys, to begin encrypted sessions.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Extension, extract::State};
use chappe_accounts::{Accounts, Claim, RemoteUsers};
use chappe_web::{Ruma, UsedUp};
use chappe_world::World;
use futures_util::future::join_all;
use ruma::{
    OwnedServerName,
    api::client::keys::claim_keys::v3::{Request, Response},
};
use serde_json::json;

use crate::{error::Result, rates::Limits, requester::Requester};

/// Devices of which keys are claimed in one request.
const DEVICES: usize = 20_000;
/// Servers asked for one request; the client hears that the others failed.
const SERVERS: usize = 500;
/// How long other servers may take altogether when the client names no time, and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(remote): State<Arc<dyn RemoteUsers>>,
    State(world): State<World>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<(Extension<UsedUp>, Ruma<Response>)> {
    if request.one_time_keys.values().map(BTreeMap::len).sum::<usize>() > DEVICES {
        return Err(chappe_web::Error::too_large().into());
    }
    let mut elsewhere: BTreeMap<OwnedServerName, Claim> = BTreeMap::new();
    let mut here = Claim::new();
    for (user, devices) in request.one_time_keys {
        if accounts.is_local(&user) {
            here.insert(user, devices);
        } else {
            elsewhere.entry(user.server_name().to_owned()).or_default().insert(user, devices);
        }
    }
    let (mut asked, mut unasked): (Vec<_>, Vec<_>) =
        elsewhere.into_iter().partition(|(server, _)| remote.would_claim(server));
    unasked.extend(asked.split_off(asked.len().min(SERVERS)));
    // Before anything is claimed.
    limits.remote_keys(&requester, asked.len())?;
    let mut response = Response::new(accounts.claim_keys(&here).await?);
    for (server, _) in unasked {
        response.failures.insert(server.to_string(), json!({ "errcode": "M_UNKNOWN" }));
    }
    let patience = request.timeout.unwrap_or(PATIENCE.0).min(PATIENCE.1);
    let answers = join_all(asked.into_iter().map(async |(server, claim)| {
        let answer = world.timeout(patience, remote.claim_keys(&server, claim.clone())).await;
        (server, claim, answer)
    }));
    for (server, claim, answer) in answers.await {
        match answer {
            Some(Ok(keys)) => {
                let asked = keys.into_iter().filter(|(user, _)| claim.contains_key(user));
                response.one_time_keys.extend(asked);
            }
            Some(Err(_)) | None => {
                response.failures.insert(server.to_string(), json!({ "errcode": "M_UNKNOWN" }));
            }
        }
    }
    Ok((Extension(UsedUp), Ruma(response)))
}
