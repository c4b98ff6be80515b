//! Access and refresh tokens: stored as SHA-256 only, answered from memory on the hot path.

mod ends;
mod rotation;

use chappe_store::{
    AccountNews, Json, LogInMethod, Reader, Tx,
    accounts::{
        AccessToken, AccessTokens, Device, DeviceTokens, Devices, OAuthLogIn, RefreshToken, RefreshTokens,
        User, Users,
    },
};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

pub(crate) use self::ends::revoke_device_tokens;
use crate::{
    Accounts, Error, Requester, devices::Arrival, oauth::families, requester::Admission, retry::retry,
    token_cache::Entry,
};

/// Whether a client can refresh its access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshing {
    /// It gets a short-lived token and a refresh token.
    Yes,
    /// It gets one token.
    No,
}

/// A log-in that was allowed already.
#[derive(Clone, Debug)]
pub struct LogIn {
    /// Who.
    pub user_id: OwnedUserId,
    /// The client's device; `None` makes a new one. An existing device keeps its keys and loses its old tokens.
    pub device_id: Option<OwnedDeviceId>,
    /// Name for a new device.
    pub device_name: Option<String>,
    /// Whether the client can refresh.
    pub refreshing: Refreshing,
    /// How the user proved who they are; `None` where that is counted elsewhere.
    pub by: Option<LogInMethod>,
}

/// Tokens handed out. The only time they are seen in clear.
#[derive(Clone)]
pub struct Issued {
    /// The device they are for.
    pub device_id: OwnedDeviceId,
    /// Access token.
    pub access_token: String,
    /// Refresh token, if the client can use one.
    pub refresh_token: Option<String>,
    /// How long the access token lives, in milliseconds; `None`: until logged out.
    pub expires_in_ms: Option<u64>,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("device_id", &self.device_id).finish_non_exhaustive()
    }
}

pub(crate) const GONE: Error = Error::UnknownToken { soft_logout: false };
const ACCESS: u8 = 0;
const REFRESH: u8 = 1;
pub(crate) const FAMILY: u8 = 2;

/// SHA-256 of a text: what is stored of a token.
pub(crate) fn sha256(text: &str) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// What a token is shown for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Errand {
    Anything,
    Leaving,
    Renewing,
}

impl Errand {
    fn admit(self, entry: &Entry) -> Result<Requester, Error> {
        if entry.locked && self != Self::Leaving { Err(Error::Locked) } else { Ok(entry.requester.clone()) }
    }
}

/// A standing that refuses every request but logging out.
pub(crate) fn refusal(user: &User) -> Option<Error> {
    if user.deactivated.is_some() {
        Some(Error::Deactivated)
    } else if user.locked {
        Some(Error::Locked)
    } else {
        None
    }
}

/// Everything of a pair of tokens that is written, and what it is called when handed out.
pub(crate) struct Pair {
    pub(crate) issued: Issued,
    access: [u8; 32],
    refresh: Option<[u8; 32]>,
    /// Whether an OAuth client gets it.
    oauth: bool,
}

impl Pair {
    /// A number for the log-in that begins with these tokens, drawn with them.
    fn number(&self) -> u64 {
        self.access.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }
}

impl Accounts {
    /// Who an access token stands for. [`Error::UnknownToken`], [`Error::Locked`], [`Error::Expired`],
    /// [`Error::Deactivated`].
    pub async fn authenticate(&self, token: &str) -> Result<Requester, Error> {
        self.look_up(token, Errand::Anything).await
    }

    /// As [`Accounts::authenticate`], for the requests that a locked account or one that has ended may still make: logging
    /// out.
    pub async fn authenticate_leaving(&self, token: &str) -> Result<Requester, Error> {
        self.look_up(token, Errand::Leaving).await
    }

    /// As [`Accounts::authenticate`], for renewing an account that has ended: by a token too that ended since, as it
    /// could not be refreshed.
    pub async fn authenticate_renewing(&self, token: &str) -> Result<Requester, Error> {
        self.look_up(token, Errand::Renewing).await
    }

    /// Says whether a requester who was let in a while ago would be let in now: for requests that wait.
    pub async fn still_admits(&self, requester: &Requester) -> Result<(), Error> {
        let (user, admission) = (&requester.user_id, requester.admission);
        let ended = admission.until.is_some_and(|at| at <= self.world().now());
        if !ended && admission.version == self.inner.cache.version(user) {
            return Ok(());
        }
        self.standing(user).await?;
        let Some(device) = &requester.device_id else { return Ok(()) };
        let (token, device) = (admission.token.as_slice(), [(user.clone(), device.clone())]);
        let (tokens, devices) = self.store().read().get_both::<AccessTokens, Devices>(token, &device).await?;
        let Some(Json(device)) = devices.into_iter().flatten().next() else {
            return Err(if requester.appservice.is_some() { Error::UnknownDevice } else { GONE });
        };
        // A log-in ends the tokens before it. One that was refreshed meanwhile is there no more, and the device goes on.
        if admission.token.is_some() && device.log_in != admission.log_in {
            return Err(GONE);
        }
        let mut ends = tokens.into_iter().flatten().filter_map(|Json(row)| row.expires);
        if ends.any(|at| at <= self.world().now()) {
            return Err(Error::UnknownToken { soft_logout: true });
        }
        Ok(())
    }

    async fn look_up(&self, token: &str, errand: Errand) -> Result<Requester, Error> {
        let hash = sha256(token);
        let now = self.world().now();
        if let Some(entry) = self.inner.cache.find(&hash, now) {
            return errand.admit(&entry);
        }
        let Some(Json(row)) = self.store().read().get::<AccessTokens>(&hash).await? else { return Err(GONE) };
        // The version is taken before the reads that count, so that a change in between makes the entry void.
        let version = self.inner.cache.version(&row.user);
        let reader = self.store().read();
        let Some(Json(row)) = reader.get::<AccessTokens>(&hash).await? else { return Err(GONE) };
        let device = [(row.user.clone(), row.device.clone())];
        let (users, devices) =
            reader.get_both::<Users, Devices>(std::slice::from_ref(&row.user), &device).await?;
        let Some(Json(user)) = users.into_iter().flatten().next() else { return Err(GONE) };
        let log_in = devices.into_iter().flatten().next().and_then(|Json(device)| device.log_in);
        drop(reader);
        if user.deactivated.is_some() {
            return Err(Error::Deactivated);
        }
        let over = self.has_ended(&row.user, &user).await?;
        if over && errand == Errand::Anything && !user.locked {
            return Err(Error::Expired);
        }
        let renews = errand == Errand::Renewing && over;
        if row.expires.is_some_and(|at| at <= now) && !renews {
            return Err(Error::UnknownToken { soft_logout: true });
        }
        if row.replaces.is_some() && !over {
            self.finish_rotation(&hash).await?;
        }
        let until = self.end_of(&user);
        let requester = Requester {
            user_id: row.user,
            device_id: Some(row.device),
            kind: user.kind,
            // A client that anybody may register does not get the server with its user's word.
            admin: user.admin && !row.oauth,
            suspended: user.suspended,
            rate: user.rate,
            oauth: row.oauth,
            appservice: None,
            admission: Admission { version, until, token: Some(hash), log_in },
        };
        let expires = [row.expires, until].into_iter().flatten().min();
        let entry = Entry { requester, locked: user.locked, expires, version };
        let admitted = errand.admit(&entry);
        if !over {
            self.inner.cache.keep(hash, entry);
        }
        admitted
    }

    /// Logs a device in. [`Error::Deactivated`], [`Error::Locked`], [`Error::NotFound`] without that user,
    /// [`Error::TooMany`] devices, [`Error::Invalid`] device ids.
    pub async fn log_in(&self, log_in: LogIn) -> Result<Issued, Error> {
        self.log_in_until(log_in, None).await
    }

    /// The same with tokens that end at `until` (milliseconds since 1970) at the latest.
    pub async fn log_in_until(&self, log_in: LogIn, until: Option<u64>) -> Result<Issued, Error> {
        let mut pair = self.draw(self.device_of(&log_in), log_in.refreshing, None);
        if let Some(until) = until {
            let left = until.saturating_sub(self.world().now());
            let issued = &mut pair.issued;
            issued.expires_in_ms = Some(issued.expires_in_ms.map_or(left, |ms| ms.min(left)));
        }
        retry!({
            let reader = self.store().read();
            let mut tx = Tx::new();
            self.draft_log_in(&reader, &mut tx, &log_in, &pair, None).await?;
            drop(reader);
            self.commit_of(&log_in.user_id, tx).await?;
            Ok(pair.issued.clone())
        })
    }

    /// The device that logs in: a new one if none is named.
    fn device_of(&self, log_in: &LogIn) -> OwnedDeviceId {
        log_in.device_id.clone().unwrap_or_else(|| self.world().token(10).to_ascii_uppercase().into())
    }

    /// What a log-in with drawn tokens writes.
    pub(crate) async fn draft_log_in(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        log_in: &LogIn,
        pair: &Pair,
        oauth: Option<&OAuthLogIn>,
    ) -> Result<(), Error> {
        let (user, device) = (&log_in.user_id, &pair.issued.device_id);
        let record = reader.get::<Users>(user).await?.ok_or(Error::NotFound("user"))?.0;
        if let Some(refusal) = refusal(&record) {
            return Err(refusal);
        }
        tx.expect::<Users>(user, Some(&Json(record)));
        let (name, log_in_number) = (log_in.device_name.as_deref(), Some(pair.number()));
        let arrival = Arrival { user, device, name, oauth, log_in: log_in_number };
        self.draft_device(reader, tx, &arrival).await?;
        revoke_device_tokens(reader, tx, user, device).await?;
        self.draft_pair(tx, user, pair, None);
        if let Some(by) = log_in.by {
            tx.log(self.news(user, AccountNews::LoggedIn(by)));
        }
        Ok(())
    }

    /// Draws tokens for a device. Tokens of one family say so.
    pub(crate) fn draw(
        &self,
        device_id: OwnedDeviceId,
        refreshing: Refreshing,
        family: Option<&str>,
    ) -> Pair {
        let config = &self.config().tokens;
        let access_token = format!("cha_{}", self.world().token(43));
        let (refresh_token, seconds) = match refreshing {
            Refreshing::Yes => {
                (Some(families::token(family, &self.world().token(43))), Some(config.refreshable_seconds))
            }
            Refreshing::No => (None, config.access_seconds),
        };
        let access = sha256(&access_token);
        let refresh = refresh_token.as_deref().map(sha256);
        let expires_in_ms = seconds.map(|seconds| seconds.saturating_mul(1000));
        let oauth = family.is_some();
        Pair {
            issued: Issued { device_id, access_token, refresh_token, expires_in_ms },
            access,
            refresh,
            oauth,
        }
    }

    fn draft_pair(&self, tx: &mut Tx, user: &OwnedUserId, pair: &Pair, replaces: Option<[u8; 32]>) {
        let now = self.world().now();
        let device = pair.issued.device_id.clone();
        let expires = pair.issued.expires_in_ms.map(|ms| now.saturating_add(ms));
        let (owner, of) = (user.clone(), device.clone());
        let row = AccessToken { user: owner, device: of, expires, replaces, oauth: pair.oauth };
        tx.put::<AccessTokens>(&pair.access, &Json(row));
        tx.put::<DeviceTokens>(&(user.clone(), device.clone(), pair.access), &ACCESS);
        let Some(refresh) = pair.refresh else { return };
        let expires =
            self.config().tokens.refresh_seconds.map(|s| now.saturating_add(s.saturating_mul(1000)));
        let row = RefreshToken {
            user: user.clone(),
            device: device.clone(),
            expires,
            access: pair.access,
            next: None,
            previous: replaces,
        };
        tx.put::<RefreshTokens>(&refresh, &Json(row));
        tx.put::<DeviceTokens>(&(user.clone(), device, refresh), &REFRESH);
    }
}

/// Replaces the device's head and gives it: whoever else writes its tokens at the same time tries again.
async fn bump_device(
    reader: &Reader<'_>,
    tx: &mut Tx,
    user: &UserId,
    device: &DeviceId,
) -> Result<Device, Error> {
    let key = (user.to_owned(), device.to_owned());
    let Json(old) = reader.get::<Devices>(&key).await?.ok_or(GONE)?;
    let new = Json(Device { revision: old.revision + 1, ..old.clone() });
    tx.expect::<Devices>(&key, Some(&Json(old))).put::<Devices>(&key, &new);
    Ok(new.0)
}
