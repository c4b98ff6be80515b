//! Refresh tokens: a pair of tokens goes when the next one is used.

use chappe_store::{
    Json, Reader, Tx,
    accounts::{AccessToken, AccessTokens, DeviceTokens, OAuthLogIn, RefreshToken, RefreshTokens, Users},
};

use super::{GONE, Issued, Refreshing, bump_device, refusal, sha256};
use crate::{Accounts, Error, oauth::families, retry::retry};

impl Accounts {
    /// Exchanges a refresh token. The old pair stays valid until the new one is first used.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Issued, Error> {
        Ok(self.exchange(refresh_token, None).await?.0)
    }

    /// Exchanges a refresh token for whom it was given to: an OAuth client, or none. Gives what the device logged in with.
    pub(crate) async fn exchange(
        &self,
        refresh_token: &str,
        client: Option<&[u8; 32]>,
    ) -> Result<(Issued, Option<OAuthLogIn>), Error> {
        let hash = sha256(refresh_token);
        let Json(row) = self.store().read().get::<RefreshTokens>(&hash).await?.ok_or(GONE)?;
        let pair = self.draw(row.device, Refreshing::Yes, families::of(refresh_token));
        let user = row.user;
        retry!({
            let reader = self.store().read();
            let Json(old) = reader.get::<RefreshTokens>(&hash).await?.ok_or(GONE)?;
            if old.expires.is_some_and(|at| at <= self.world().now()) {
                return Err(Error::UnknownToken { soft_logout: true });
            }
            let record = reader.get::<Users>(&user).await?.ok_or(GONE)?.0;
            if let Some(refusal) = refusal(&record) {
                return Err(refusal);
            }
            self.check_end(&user, &record).await?;
            let mut tx = Tx::new();
            tx.expect::<Users>(&user, Some(&Json(record)));
            let oauth = bump_device(&reader, &mut tx, &user, &old.device).await?.oauth;
            if oauth.as_ref().map(|log_in| &log_in.client) != client {
                return Err(GONE);
            }
            for other in [old.next, old.previous].into_iter().flatten() {
                revoke_pair(&reader, &mut tx, &other).await?;
            }
            if old.previous.is_some() {
                settle_access(&reader, &mut tx, &old.access).await?;
            }
            let row = RefreshToken { next: pair.refresh, previous: None, ..old.clone() };
            tx.expect::<RefreshTokens>(&hash, Some(&Json(old))).put::<RefreshTokens>(&hash, &Json(row));
            self.draft_pair(&mut tx, &user, &pair, Some(hash));
            drop(reader);
            self.commit_of(&user, tx).await?;
            Ok((pair.issued.clone(), oauth))
        })
    }

    /// The first use of a refreshed access token: the pair before it ends.
    pub(super) async fn finish_rotation(&self, access: &[u8; 32]) -> Result<(), Error> {
        retry!({
            let reader = self.store().read();
            let Json(row) = reader.get::<AccessTokens>(access).await?.ok_or(GONE)?;
            let Some(before) = row.replaces else { return Ok(()) };
            let mut tx = Tx::new();
            bump_device(&reader, &mut tx, &row.user, &row.device).await?;
            settle_access(&reader, &mut tx, access).await?;
            let next = reader.get::<RefreshTokens>(&before).await?.and_then(|Json(old)| old.next);
            revoke_pair(&reader, &mut tx, &before).await?;
            if let Some(next) = next
                && let Some(Json(new)) = reader.get::<RefreshTokens>(&next).await?
            {
                tx.put::<RefreshTokens>(&next, &Json(RefreshToken { previous: None, ..new }));
            }
            drop(reader);
            self.commit_of(&row.user, tx).await
        })
    }
}

/// Takes the mark off an access token whose predecessor ends.
async fn settle_access(reader: &Reader<'_>, tx: &mut Tx, access: &[u8; 32]) -> Result<(), Error> {
    if let Some(Json(row)) = reader.get::<AccessTokens>(access).await? {
        tx.put::<AccessTokens>(access, &Json(AccessToken { replaces: None, ..row }));
    }
    Ok(())
}

/// Ends a refresh token and the access token issued with it.
async fn revoke_pair(reader: &Reader<'_>, tx: &mut Tx, refresh: &[u8; 32]) -> Result<(), Error> {
    if let Some(Json(row)) = reader.get::<RefreshTokens>(refresh).await? {
        tx.delete::<RefreshTokens>(refresh).delete::<AccessTokens>(&row.access);
        tx.delete::<DeviceTokens>(&(row.user.clone(), row.device.clone(), *refresh));
        tx.delete::<DeviceTokens>(&(row.user, row.device, row.access));
    }
    Ok(())
}
