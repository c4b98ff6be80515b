//! Devices that log in with an OAuth client: their tokens are those of any device, bound to the client.
//!
//! Their refresh tokens are a family and say which. Whoever shows one that is not valid any more has an old one, which was
//! stolen or lost: the device ends (client-server API, "Refresh token grant").

use chappe_store::{
    Json, Reader, Tx,
    accounts::{AccessTokens, DeviceTokens, Devices, OAuthLogIn, Passwords, RefreshTokens},
    oauth::{LogOuts, TokenFamilies, TokenFamily},
};
use ruma::{OwnedDeviceId, OwnedUserId, UserId};

use crate::{
    Accounts, Error, Issued, LogIn, Refreshing,
    tokens::{FAMILY, GONE, sha256},
};

/// Families that are forgotten in one commit.
const FAMILIES_AT_ONCE: usize = 500;

/// A log-in that a user granted to a client.
#[derive(Clone, Debug)]
pub struct OAuthGrant {
    /// Who.
    pub user_id: OwnedUserId,
    /// The device to log in.
    pub device_id: OwnedDeviceId,
    /// Name, if the device is new.
    pub device_name: Option<String>,
    /// The client and what it may do.
    pub log_in: OAuthLogIn,
}

impl Accounts {
    /// Logs a device in as part of the caller's transaction, made with `reader`; gives the tokens and the hash of their
    /// family. To be written with [`Accounts::commit_of`]. Errors as of [`Accounts::log_in`].
    pub async fn draft_oauth_log_in(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        grant: &OAuthGrant,
    ) -> Result<(Issued, [u8; 32]), Error> {
        let family = self.world().token(families::LENGTH);
        let log_in = LogIn {
            user_id: grant.user_id.clone(),
            device_id: Some(grant.device_id.clone()),
            device_name: grant.device_name.clone(),
            refreshing: Refreshing::Yes,
            // Counted when the browser was logged in.
            by: None,
        };
        let pair = self.draw(grant.device_id.clone(), Refreshing::Yes, Some(&family));
        self.draft_log_in(reader, tx, &log_in, &pair, Some(&grant.log_in)).await?;
        let hash = sha256(&family);
        let (user, device) = (grant.user_id.clone(), grant.device_id.clone());
        tx.put::<DeviceTokens>(&(user.clone(), device.clone(), hash), &FAMILY);
        tx.put::<TokenFamilies>(&hash, &Json(TokenFamily { user, device }));
        Ok((pair.issued, hash))
    }

    /// Exchanges a refresh token of a client, known by its digest. The old pair stays valid until the new one is first used.
    /// [`Error::UnknownToken`] also for a token of another client; an old one ends its device.
    pub async fn refresh_for(
        &self,
        client: &[u8; 32],
        refresh_token: &str,
    ) -> Result<(Issued, OAuthLogIn), Error> {
        let Some(family) = families::of(refresh_token) else { return Err(GONE) };
        let known = self.store().read().get::<RefreshTokens>(&sha256(refresh_token)).await?;
        if known.is_none() {
            self.end_family(&sha256(family)).await?;
            return Err(GONE);
        }
        let (issued, log_in) = self.exchange(refresh_token, Some(client)).await?;
        Ok((issued, log_in.ok_or(GONE)?))
    }

    /// What was granted to the client that a refresh token was given to; `None` if there is no such token.
    pub async fn scope_of(&self, refresh_token: &str) -> Result<Option<String>, Error> {
        let reader = self.store().read();
        let Some(Json(row)) = reader.get::<RefreshTokens>(&sha256(refresh_token)).await? else {
            return Ok(None);
        };
        let head = reader.get::<Devices>(&(row.user, row.device)).await?;
        Ok(head.and_then(|Json(head)| head.oauth).map(|log_in| log_in.scope))
    }

    /// Ends the device of a family of refresh tokens, if there is one.
    pub async fn end_family(&self, family: &[u8; 32]) -> Result<(), Error> {
        let found = self.store().read().get::<TokenFamilies>(family).await?;
        let Some(Json(TokenFamily { user, device })) = found else { return Ok(()) };
        tracing::warn!(%user, %device, "an old token or code was used again: the session is ended");
        self.log_out(&user, &device).await
    }

    /// Forgets the families of refresh tokens: a backup was put back, and a token that is not known may be one that was given
    /// out since. The sessions go on, without old tokens being noticed. Meant for a server that serves nobody yet; it may be
    /// done twice.
    pub async fn forget_families(&self) -> Result<(), Error> {
        let mut from = [0_u8; 32];
        loop {
            let rows = self.store().read().scan_from::<TokenFamilies>(&(), &from, FAMILIES_AT_ONCE).await?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            from = *last;
            let mut tx = Tx::new();
            for (family, Json(TokenFamily { user, device })) in rows {
                tx.delete::<TokenFamilies>(&family).delete::<DeviceTokens>(&(user, device, family));
            }
            self.store().commit(tx).await?;
        }
    }

    /// Ends the device of an access or refresh token, whoever shows it (client-server API, "Token revocation"). A token that
    /// is not valid is passed over.
    pub async fn revoke(&self, token: &str) -> Result<(), Error> {
        let hash = sha256(token);
        let reader = self.store().read();
        let now = self.world().now();
        let access = reader.get::<AccessTokens>(&hash).await?.map(|Json(row)| row);
        let access = access.filter(|row| row.expires.is_none_or(|at| at > now));
        let access = access.map(|row| (row.user, row.device));
        let refresh = reader.get::<RefreshTokens>(&hash).await?.map(|Json(row)| (row.user, row.device));
        drop(reader);
        match access.or(refresh) {
            Some((user, device)) => self.log_out(&user, &device).await,
            None => Ok(()),
        }
    }

    /// Binds the caller's transaction, made with `reader`, to this mark (see [`Accounts::log_in_mark`]); false if it is
    /// another one.
    pub async fn expect_log_in_mark(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &UserId,
        mark: Option<&[u8; 32]>,
    ) -> Result<bool, Error> {
        let (password, log_outs) = hung_on(reader, user).await?;
        tx.expect::<Passwords>(&user.to_owned(), password.as_ref());
        tx.expect::<LogOuts>(&user.to_owned(), log_outs.as_ref());
        Ok(Some(&mark_of(password.as_deref(), log_outs)) == mark)
    }

    /// What log-ins of browsers and grants hang on: it changes with the password, and when everything of the user is logged
    /// out at once. It tells nothing of the password.
    pub async fn log_in_mark(&self, user: &UserId) -> Result<[u8; 32], Error> {
        let (password, log_outs) = hung_on(&self.store().read(), user).await?;
        Ok(mark_of(password.as_deref(), log_outs))
    }
}

async fn hung_on(reader: &Reader<'_>, user: &UserId) -> Result<(Option<String>, Option<i64>), Error> {
    let user = user.to_owned();
    Ok((reader.get::<Passwords>(&user).await?, reader.get::<LogOuts>(&user).await?))
}

fn mark_of(password: Option<&str>, log_outs: Option<i64>) -> [u8; 32] {
    sha256(&format!("{} {}", log_outs.unwrap_or(0), password.unwrap_or_default()))
}

/// How refresh tokens name their family.
pub(crate) mod families {
    /// Characters of a family's name: as hard to guess as a token.
    pub(crate) const LENGTH: usize = 22;

    /// A refresh token, of a family or of none.
    pub(crate) fn token(family: Option<&str>, drawn: &str) -> String {
        match family {
            Some(family) => format!("chr_{family}_{drawn}"),
            None => format!("chr_{drawn}"),
        }
    }

    /// The family that a token says it is of.
    pub(crate) fn of(token: &str) -> Option<&str> {
        let (family, _) = token.strip_prefix("chr_")?.split_once('_')?;
        (family.len() == LENGTH).then_some(family)
    }
}
