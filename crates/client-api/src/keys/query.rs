//! `POST /keys/query`: the public keys of users, of this server and of others.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::extract::State;
use chappe_accounts::{Accounts, RemoteKeys, RemoteUsers};
use chappe_web::Ruma;
use chappe_world::World;
use futures_util::future::join_all;
use ruma::{
    OwnedDeviceId, OwnedServerName, OwnedUserId,
    api::client::keys::get_keys::v3::{Request, Response},
};
use serde_json::json;

use crate::{error::Result, rates::Limits, requester::Requester};

/// Users asked about in one request.
const USERS: usize = 20_000;
/// Servers asked for one request; the client hears that the others failed.
const SERVERS: usize = 500;
/// How long other servers may take altogether when the client names no time, and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));

type Devices = BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>;

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(remote): State<Arc<dyn RemoteUsers>>,
    State(world): State<World>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Ruma<Response>> {
    if request.device_keys.len() > USERS {
        return Err(chappe_web::Error::too_large().into());
    }
    let mut response = Response::new();
    let mut elsewhere = Devices::new();
    for (user, devices) in request.device_keys {
        if accounts.is_local(&user) {
            add_local(&accounts, &requester, user, &devices, &mut response).await?;
        } else {
            elsewhere.insert(user, devices);
        }
    }
    let asker = remote.asker(requester.user(), &elsewhere).await;
    let kept = remote.kept_keys(&asker, &elsewhere).await;
    elsewhere.retain(|user, _| !kept.devices.contains_key(user));
    add(kept, &mut response);
    let mut servers: BTreeMap<OwnedServerName, Devices> = BTreeMap::new();
    for (user, devices) in elsewhere {
        servers.entry(user.server_name().to_owned()).or_default().insert(user, devices);
    }
    let (mut asked, mut unasked): (Vec<_>, Vec<_>) =
        servers.into_iter().partition(|(server, _)| remote.talks_with(server));
    unasked.extend(asked.split_off(asked.len().min(SERVERS)));
    for (server, _) in unasked {
        response.failures.insert(server.to_string(), json!({ "errcode": "M_UNKNOWN" }));
    }
    limits.remote_keys(&requester, asked.len())?;
    let patience = request.timeout.unwrap_or(PATIENCE.0).min(PATIENCE.1);
    let answers = join_all(asked.into_iter().map(async |(server, users)| {
        let answer = world.timeout(patience, remote.query_keys(&asker, &server, users.clone())).await;
        (server, users, answer.and_then(Result::ok))
    }));
    for (server, users, answer) in answers.await {
        let keys = match answer {
            Some(keys) => keys,
            // Nobody has to do without what is here.
            None => {
                let kept = remote.kept_keys(&asker, &users).await;
                if !users.keys().all(|user| kept.devices.contains_key(user)) {
                    response.failures.insert(server.to_string(), json!({ "errcode": "M_UNKNOWN" }));
                }
                kept
            }
        };
        add_remote(&users, keys, &mut response);
    }
    Ok(Ruma(response))
}

async fn add_local(
    accounts: &Accounts,
    requester: &Requester,
    user: OwnedUserId,
    devices: &[OwnedDeviceId],
    response: &mut Response,
) -> Result<()> {
    let keys = accounts.public_keys(Some(requester.user()), &user, devices).await?;
    response.master_keys.extend(keys.master.map(|key| (user.clone(), key)));
    response.self_signing_keys.extend(keys.self_signing.map(|key| (user.clone(), key)));
    response.user_signing_keys.extend(keys.user_signing.map(|key| (user.clone(), key)));
    response.device_keys.insert(user, keys.devices);
    Ok(())
}

/// Takes over what was asked for; what a server says of others than its own users is dropped.
fn add_remote(asked: &Devices, mut keys: RemoteKeys, response: &mut Response) {
    keys.devices.retain(|user, _| asked.contains_key(user));
    keys.master.retain(|user, _| asked.contains_key(user));
    keys.self_signing.retain(|user, _| asked.contains_key(user));
    add(keys, response);
}

fn add(keys: RemoteKeys, response: &mut Response) {
    response.device_keys.extend(keys.devices);
    response.master_keys.extend(keys.master);
    response.self_signing_keys.extend(keys.self_signing);
}
