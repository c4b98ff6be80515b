//! Users of other servers, as the accounts and clients of this one ask about them.

mod profiles;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use chappe_accounts::{Claim, ClaimedKeys, Profile, RemoteError, RemoteKeys, RemoteUsers, UserInfo};
use chappe_rooms::PeerError;
use chappe_store::{Membership, members::RoomMembers};
use futures_util::future::join_all;
use ruma::{
    OwnedDeviceId, OwnedUserId, ServerName, UserId,
    api::federation::{
        keys::{claim_keys, get_keys},
        query::get_profile_information,
    },
    profile::ProfileFieldName,
};

pub(crate) use self::profiles::Profiles;
use crate::Federation;

/// With so many lists to fetch from a server, it is asked for all keys at once and the lists are fetched later.
const SINGLY: usize = 5;
/// The longest answer that tells a profile, in bytes: one has 64 KiB, which may be written at more length.
const PROFILE_BYTES: u64 = 128 << 10;

fn remote_error(error: &PeerError) -> RemoteError {
    match error {
        PeerError::Refused { status: 404, .. } => RemoteError::NotFound,
        other => RemoteError::Unavailable(other.to_string()),
    }
}

#[async_trait]
impl RemoteUsers for Federation {
    async fn query_keys(
        &self,
        asker: &UserId,
        server: &ServerName,
        mut users: BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
    ) -> Result<RemoteKeys, RemoteError> {
        users.retain(|user, _| user.server_name() == server);
        let mut keys = RemoteKeys::default();
        let mut missing = BTreeMap::new();
        let mut followed = self.sharing(asker, users.keys()).await;
        for (user, devices) in users {
            // Of those who share no room any more, changes are not heard.
            if followed.contains(&user) && self.is_fresh(&user).await {
                followed.remove(&user);
                self.add_cached(&mut keys, asker, user, &devices).await?;
            } else {
                missing.insert(user, devices);
            }
        }
        if followed.len() <= SINGLY {
            let fetched = join_all(followed.into_iter().map(async |user| {
                let fetched = self.0.devices.resync(self, &user).await;
                (user, fetched.is_ok())
            }));
            let mut left = Vec::new();
            for (user, fetched) in fetched.await {
                if !fetched {
                    left.push(user);
                } else if let Some(devices) = missing.remove(&user) {
                    self.add_cached(&mut keys, asker, user, &devices).await?;
                }
            }
            self.note_given(&left).await?;
        } else {
            let followed: Vec<_> = followed.into_iter().collect();
            self.note_given(&followed).await?;
            for user in &followed {
                self.0.devices.resync_soon(self, user);
            }
        }
        if !missing.is_empty() {
            self.add_asked(&mut keys, server, missing).await?;
        }
        Ok(keys)
    }

    async fn kept_keys(
        &self,
        asker: &UserId,
        users: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
    ) -> RemoteKeys {
        let mut keys = RemoteKeys::default();
        for user in self.sharing(asker, users.keys()).await {
            let Some(devices) = users.get(&user) else { continue };
            if self.is_fresh(&user).await
                && let Err(error) = self.add_cached(&mut keys, asker, user, devices).await
            {
                tracing::warn!(%error, "keys that are kept cannot be read");
            }
        }
        keys
    }

    async fn claim_keys(&self, server: &ServerName, mut claim: Claim) -> Result<ClaimedKeys, RemoteError> {
        claim.retain(|user, _| user.server_name() == server);
        let asked = claim.clone();
        let request = claim_keys::v1::Request::new(claim);
        let network = self.network();
        let answer = network.request(server, request, network.brief().once().about(asked.len())).await;
        let mut claimed = answer.map_err(|error| remote_error(&error))?.one_time_keys;
        claimed.retain(|user, _| asked.contains_key(user));
        for (user, devices) in &mut claimed {
            devices.retain(|device, _| asked[user].contains_key(device));
        }
        Ok(claimed)
    }

    async fn profile(&self, user: &UserId, field: Option<&str>) -> Result<Profile, RemoteError> {
        if !self.network().allowed().permits(user.server_name()) {
            // Nor told of what was kept.
            return Err(RemoteError::NotFound);
        }
        let (network, asked) = (self.network(), (user.to_owned(), field.map(str::to_owned)));
        let now = network.now();
        if let Some(kept) = self.0.profiles.get(&asked, now) {
            return Ok(kept);
        }
        let mut request = get_profile_information::v1::Request::new(user.to_owned());
        request.field = field.map(ProfileFieldName::from);
        let call = network.brief().insisting().up_to(PROFILE_BYTES);
        let answer = network.request(user.server_name(), request, call).await;
        let fields = answer.map_err(|error| remote_error(&error))?.into_iter();
        // Of a server that tells more than it was asked, no more is taken.
        let fields = fields.filter(|(name, _)| field.is_none_or(|field| field == name)).collect();
        let profile = Profile { fields };
        self.0.profiles.keep(asked, &profile, now);
        Ok(profile)
    }

    async fn user_infos(
        &self,
        server: &ServerName,
        users: Vec<OwnedUserId>,
    ) -> Result<BTreeMap<OwnedUserId, UserInfo>, RemoteError> {
        let infos = self.network().user_infos(server, &users).await;
        let mut infos = infos.map_err(|error| remote_error(&error))?;
        infos.retain(|user, _| user.server_name() == server && users.contains(user));
        Ok(infos)
    }
}

impl Federation {
    /// Whether what is kept of a user's devices can be relied on.
    async fn is_fresh(&self, user: &UserId) -> bool {
        matches!(self.0.accounts.remote_list(user).await, Ok(Some(list)) if !list.stale)
    }

    async fn add_cached(
        &self,
        keys: &mut RemoteKeys,
        asker: &UserId,
        user: OwnedUserId,
        devices: &[OwnedDeviceId],
    ) -> Result<(), RemoteError> {
        // With what the asker has signed: that is who has verified whom.
        let known = self.0.accounts.public_keys(Some(asker), &user, devices).await;
        let known = known.map_err(|error| RemoteError::Unavailable(error.to_string()))?;
        keys.master.extend(known.master.map(|key| (user.clone(), key)));
        keys.self_signing.extend(known.self_signing.map(|key| (user.clone(), key)));
        keys.devices.insert(user, known.devices);
        Ok(())
    }

    /// From now on somebody here has keys of these users that their lists may not hold, and must hear of changes.
    async fn note_given(&self, users: &[OwnedUserId]) -> Result<(), RemoteError> {
        let noted = self.0.accounts.note_given(users).await;
        noted.map_err(|error| RemoteError::Unavailable(error.to_string()))
    }

    async fn add_asked(
        &self,
        keys: &mut RemoteKeys,
        server: &ServerName,
        users: BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
    ) -> Result<(), RemoteError> {
        let network = self.network();
        let request = get_keys::v1::Request::new(users.clone());
        let answer = network.request(server, request, network.brief().insisting().about(users.len())).await;
        let answer = answer.map_err(|error| remote_error(&error))?;
        let asked = |user: &OwnedUserId| users.contains_key(user);
        keys.devices.extend(answer.device_keys.into_iter().filter(|(user, _)| asked(user)));
        keys.master.extend(answer.master_keys.into_iter().filter(|(user, _)| asked(user)));
        keys.self_signing.extend(answer.self_signing_keys.into_iter().filter(|(user, _)| asked(user)));
        Ok(())
    }

    /// Those who share a room with a local user: updates of their devices come to this server.
    async fn sharing(
        &self,
        asker: &UserId,
        users: impl Iterator<Item = &OwnedUserId>,
    ) -> BTreeSet<OwnedUserId> {
        let reader = self.network().store().read();
        let Ok(rooms) = reader.user_rooms(asker).await else { return BTreeSet::new() };
        let joined: Vec<_> = rooms
            .into_iter()
            .filter(|(_, at)| at.value.membership == Membership::Join)
            .map(|(nid, _)| nid)
            .collect();
        let mut sharing = BTreeSet::new();
        for user in users {
            let keys: Vec<_> = joined.iter().map(|nid| (*nid, Membership::Join, user.clone())).collect();
            let found = reader.get_many::<RoomMembers>(&keys).await.unwrap_or_default();
            if found.iter().any(Option::is_some) {
                sharing.insert(user.clone());
            }
        }
        sharing
    }
}
