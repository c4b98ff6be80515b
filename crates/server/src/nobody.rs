//! Until the federation answers for them: users of other servers cannot be asked for.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chappe_accounts::{Claim, ClaimedKeys, Profile, RemoteError, RemoteKeys, RemoteUsers};
use ruma::{OwnedDeviceId, OwnedUserId, ServerName, UserId};

pub(crate) struct Nobody;

fn unavailable<T>() -> Result<T, RemoteError> {
    Err(RemoteError::Unavailable("no federation yet".to_owned()))
}

#[async_trait]
impl RemoteUsers for Nobody {
    async fn query_keys(
        &self,
        _: &UserId,
        _: &ServerName,
        _: BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
    ) -> Result<RemoteKeys, RemoteError> {
        unavailable()
    }

    async fn claim_keys(&self, _: &ServerName, _: Claim) -> Result<ClaimedKeys, RemoteError> {
        unavailable()
    }

    async fn profile(&self, _: &UserId, _: Option<&str>) -> Result<Profile, RemoteError> {
        unavailable()
    }
}
