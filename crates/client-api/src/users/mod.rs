//! How accounts stand, as bots of Tchap ask it: `/users/info` for many, `/user/{userId}/info` for one. Not of the specification.

mod many;
mod one;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chappe_accounts::{Accounts, RemoteUsers, UserInfo};
use chappe_rooms::Rooms;
use chappe_web::{Auth, Routes};
use futures_util::future::join_all;
use http::Method;
use ruma::{OwnedServerName, OwnedUserId};

use crate::{Api, error::Result};

const MANY: &str = "/_matrix/client/unstable/users/info";
const ONE: &str = "/_matrix/client/unstable/user/{user_id}/info";

pub(crate) fn routes() -> Routes<Api> {
    Routes::new().at(&Method::POST, MANY, Auth::Token, many::handler).at(
        &Method::GET,
        ONE,
        Auth::Token,
        one::handler,
    )
}

/// How accounts stand, here and on the other servers of the network; those are left out of which nothing could be learned.
/// 404 `M_UNRECOGNIZED` where there is no directory of the network.
async fn infos(
    (accounts, rooms): (&Accounts, &Rooms),
    remote: &Arc<dyn RemoteUsers>,
    users: BTreeSet<OwnedUserId>,
) -> Result<BTreeMap<OwnedUserId, UserInfo>> {
    if rooms.neighbours().is_none() {
        return Err(chappe_web::Error::unrecognized().into());
    }
    let (own, others): (Vec<_>, Vec<_>) = users.into_iter().partition(|user| accounts.is_local(user));
    let mut infos = accounts.user_infos(&own).await?;
    let mut servers: BTreeMap<OwnedServerName, Vec<OwnedUserId>> = BTreeMap::new();
    let members = rooms.network_members();
    for user in others {
        // However it is written, a server is asked once.
        let is_home =
            |server: &&OwnedServerName| server.as_str().eq_ignore_ascii_case(user.server_name().as_str());
        if let Some(server) = members.iter().find(is_home) {
            servers.entry(server.clone()).or_default().push(user);
        }
    }
    let asked = servers.into_iter().map(async |(server, users)| remote.user_infos(&server, users).await);
    for answer in join_all(asked).await {
        infos.extend(answer.unwrap_or_default());
    }
    Ok(infos)
}
