//! Users of other servers, as the accounts and clients of this one ask about them.

mod profiles;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use chappe_accounts::{Asker, Claim, ClaimedKeys, Profile, RemoteError, RemoteKeys, RemoteUsers, UserInfo};
use chappe_rooms::PeerError;
use chappe_store::{Error, Membership, Reader, RoomNid, members::RoomMembers};
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
/// Users of whom keys that are kept are read at the same time.
const AT_ONCE: usize = 50;
/// The longest answer that tells a profile, in bytes: one has 64 KiB, which may be written at more length.
const PROFILE_BYTES: u64 = 128 << 10;
/// How long keys are claimed of a server that failed a moment ago: it may be there again, and may be silent still.
const CLAIMED_WITHIN: Duration = Duration::from_secs(5);

fn remote_error(error: &PeerError) -> RemoteError {
    match error {
        PeerError::Refused { status: 404, .. } => RemoteError::NotFound,
        other => RemoteError::Unavailable(other.to_string()),
    }
}

#[async_trait]
impl RemoteUsers for Federation {
    async fn asker(&self, user: &UserId, about: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>) -> Asker {
        let users: Vec<_> = about.keys().collect();
        let shares_with = self.sharing(user, &users).await.unwrap_or_else(|error| {
            tracing::warn!(%user, %error, "with whom a user shares a room cannot be read");
            BTreeSet::new()
        });
        Asker { user: user.to_owned(), shares_with }
    }

    async fn query_keys(
        &self,
        asker: &Asker,
        server: &ServerName,
        mut users: BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
    ) -> Result<RemoteKeys, RemoteError> {
        users.retain(|user, _| user.server_name() == server);
        let mut keys = RemoteKeys::default();
        let mut missing = BTreeMap::new();
        let shared = users.keys().filter(|user| asker.shares_with.contains(*user));
        let mut followed: BTreeSet<OwnedUserId> = shared.cloned().collect();
        for (user, devices) in users {
            // Of those who share no room any more, changes are not heard.
            if followed.contains(&user) && self.is_fresh(&user).await {
                followed.remove(&user);
                self.add_cached(&mut keys, &asker.user, user, &devices).await?;
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
                    self.add_cached(&mut keys, &asker.user, user, &devices).await?;
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
            self.add_asked(&mut keys, &asker.user, server, missing).await?;
        }
        Ok(keys)
    }

    async fn kept_keys(
        &self,
        asker: &Asker,
        users: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
    ) -> RemoteKeys {
        let mut keys = RemoteKeys::default();
        let shared: Vec<_> = users.iter().filter(|(user, _)| asker.shares_with.contains(*user)).collect();
        for some in shared.chunks(AT_ONCE) {
            let asked = some.iter().copied();
            let kept = join_all(asked.map(|(user, devices)| self.kept(&asker.user, user, devices))).await;
            for kept in kept {
                keys.devices.extend(kept.devices);
                keys.master.extend(kept.master);
                keys.self_signing.extend(kept.self_signing);
            }
        }
        keys
    }

    fn talks_with(&self, server: &ServerName) -> bool {
        self.network().allowed().permits(server)
    }

    fn would_claim(&self, server: &ServerName) -> bool {
        let (network, backoff) = (self.network(), self.network().backoff());
        let is_due = backoff.at_hand(server).is_none_or(|state| state.retry_at <= network.now());
        self.talks_with(server) && (is_due || backoff.may_be_back(server))
    }

    async fn claim_keys(&self, server: &ServerName, mut claim: Claim) -> Result<ClaimedKeys, RemoteError> {
        claim.retain(|user, _| user.server_name() == server);
        let asked = claim.clone();
        let request = claim_keys::v1::Request::new(claim);
        let (network, backoff) = (self.network(), self.network().backoff());
        let call = network.brief().once().about(asked.len());
        let is_waited_for = backoff.wait_until(server).await.is_ok_and(|until| until > 0);
        let answer = if is_waited_for && backoff.tries_again(server) {
            // Without keys nobody there can read what is said now, whenever it comes.
            let claiming = network.request(server, request, call.insisting());
            match network.world().timeout(CLAIMED_WITHIN, claiming).await {
                Some(answer) => answer,
                None => Err(self.still_silent(server).await),
            }
        } else {
            network.request(server, request, call).await
        };
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

    /// Notes that a server which failed a moment ago was tried in vain again.
    async fn still_silent(&self, server: &ServerName) -> PeerError {
        if let Err(error) = self.network().backoff().failed(server, None).await {
            tracing::warn!(%server, %error, "the outcome of a request was not kept");
        }
        PeerError::Unreachable(server.to_owned())
    }

    /// The keys of a user, if what is kept of them can be relied on.
    async fn kept(&self, asker: &UserId, user: &OwnedUserId, devices: &[OwnedDeviceId]) -> RemoteKeys {
        let mut keys = RemoteKeys::default();
        if self.is_fresh(user).await
            && let Err(error) = self.add_cached(&mut keys, asker, user.clone(), devices).await
        {
            tracing::warn!(%error, "keys that are kept cannot be read");
        }
        keys
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
        asker: &UserId,
        server: &ServerName,
        users: BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
    ) -> Result<(), RemoteError> {
        let network = self.network();
        let request = get_keys::v1::Request::new(users.clone());
        let answer = network.request(server, request, network.brief().insisting().about(users.len())).await;
        let answer = answer.map_err(|error| remote_error(&error))?;
        let asked = |user: &OwnedUserId| users.contains_key(user);
        keys.devices.extend(answer.device_keys.into_iter().filter(|(user, _)| asked(user)));
        keys.self_signing.extend(answer.self_signing_keys.into_iter().filter(|(user, _)| asked(user)));
        for (user, key) in answer.master_keys {
            if !users.contains_key(&user) {
                continue;
            }
            // Their server does not know whom the asker has verified.
            let key = self.0.accounts.with_signatures_of(asker, &user, key).await;
            let key = key.map_err(|error| RemoteError::Unavailable(error.to_string()))?;
            keys.master.insert(user, key);
        }
        Ok(())
    }

    /// Those who share a room with a local user: updates of their devices come to this server.
    async fn sharing(&self, asker: &UserId, users: &[&OwnedUserId]) -> Result<BTreeSet<OwnedUserId>, Error> {
        let mut sharing = BTreeSet::new();
        if users.is_empty() {
            return Ok(sharing);
        }
        let reader = self.network().store().read();
        let rooms = reader.user_rooms(asker).await?.into_iter();
        let joined = rooms.filter(|(_, at)| at.value.membership == Membership::Join);
        let joined: BTreeSet<RoomNid> = joined.map(|(nid, _)| nid).collect();
        for user in users {
            if is_in_any(&reader, &joined, user).await? {
                sharing.insert((*user).clone());
            }
        }
        Ok(sharing)
    }
}

/// Whether a user of another server is in one of some rooms: found by the user's rooms, or by those if they are fewer.
async fn is_in_any(
    reader: &Reader<'_>,
    rooms: &BTreeSet<RoomNid>,
    user: &OwnedUserId,
) -> Result<bool, Error> {
    if rooms.is_empty() {
        return Ok(false);
    }
    let of_user = reader.remote_rooms(user, rooms.len().saturating_add(1)).await?;
    let is_found = of_user.iter().any(|nid| rooms.contains(nid));
    if is_found || of_user.len() <= rooms.len() {
        return Ok(is_found);
    }
    let keys: Vec<_> = rooms.iter().map(|nid| (*nid, Membership::Join, user.clone())).collect();
    Ok(reader.get_many::<RoomMembers>(&keys).await?.iter().any(Option::is_some))
}
