//! Log-in tokens, OpenID tokens, and the sweeping of what has expired.

use chappe_store::{
    Json, LogInMethod, Table, Tx,
    accounts::{Expiries, OneOffPurpose, OneOffToken, OneOffTokens, Users},
    accounts_keys::{SpentKeys, ToDeviceTxns},
    validity::RenewalLinks,
};
use ruma::{OwnedUserId, UserId};

use crate::{Accounts, Error, retry::retry, tokens::sha256};

/// Rows that one sweep removes at most in one commit.
const SWEPT_AT_ONCE: usize = 1000;

impl Accounts {
    /// A token for `m.login.token`; gives it and its lifetime in milliseconds.
    pub async fn login_token(&self, user: &UserId) -> Result<(String, u64), Error> {
        self.one_off(user, OneOffPurpose::LogIn, "chl", self.config().tokens.login_seconds).await
    }

    /// The same for somebody whom an identity provider has vouched for.
    pub async fn sign_on_token(&self, user: &UserId) -> Result<String, Error> {
        let seconds = self.config().tokens.login_seconds;
        Ok(self.one_off(user, OneOffPurpose::SignOn, "chl", seconds).await?.0)
    }

    /// Uses a log-in token up; gives whose it was and how they came by it. [`Error::Forbidden`] when it is unknown, used or
    /// expired.
    pub async fn redeem_login_token(&self, token: &str) -> Result<(OwnedUserId, LogInMethod), Error> {
        const REFUSED: Error = Error::Forbidden("invalid login token");
        let hash = sha256(token);
        let row = retry!({
            let Some(Json(row)) = self.store().read().get::<OneOffTokens>(&hash).await? else {
                return Err(REFUSED);
            };
            if row.purpose == OneOffPurpose::OpenId {
                return Err(REFUSED);
            }
            let mut tx = Tx::new();
            tx.expect::<OneOffTokens>(&hash, Some(&Json(row.clone()))).delete::<OneOffTokens>(&hash);
            self.store().commit(tx).await?;
            Ok(row)
        })?;
        let by = match row.purpose {
            OneOffPurpose::SignOn => LogInMethod::SingleSignOn,
            _ => LogInMethod::Token,
        };
        if row.expires <= self.world().now() { Err(REFUSED) } else { Ok((row.user, by)) }
    }

    /// An OpenID token; gives it and its lifetime in milliseconds.
    pub async fn openid_token(&self, user: &UserId) -> Result<(String, u64), Error> {
        self.one_off(user, OneOffPurpose::OpenId, "cho", self.config().tokens.openid_seconds).await
    }

    /// Whose an OpenID token is. [`Error::UnknownToken`] also when the account is closed.
    pub async fn openid_user(&self, token: &str) -> Result<OwnedUserId, Error> {
        const UNKNOWN: Error = Error::UnknownToken { soft_logout: false };
        let reader = self.store().read();
        let Json(row) = reader.get::<OneOffTokens>(&sha256(token)).await?.ok_or(UNKNOWN)?;
        if row.purpose != OneOffPurpose::OpenId || row.expires <= self.world().now() {
            return Err(UNKNOWN);
        }
        let Json(user) = reader.get::<Users>(&row.user).await?.ok_or(UNKNOWN)?;
        let closed = user.deactivated.is_some() || user.locked || self.has_ended(&row.user, &user).await?;
        if closed { Err(UNKNOWN) } else { Ok(row.user) }
    }

    async fn one_off(
        &self,
        user: &UserId,
        purpose: OneOffPurpose,
        prefix: &str,
        seconds: u64,
    ) -> Result<(String, u64), Error> {
        let token = format!("{prefix}_{}", self.world().token(43));
        let hash = sha256(&token);
        let lifetime = seconds.saturating_mul(1000);
        let expires = self.world().now().saturating_add(lifetime);
        let mut tx = Tx::new();
        tx.put::<OneOffTokens>(&hash, &Json(OneOffToken { purpose, user: user.to_owned(), expires }));
        tx.put::<Expiries>(&(expires, OneOffTokens::INFO.number, hash), &());
        self.store().commit(tx).await?;
        Ok((token, lifetime))
    }

    /// Removes what has expired; gives the number of rows. Meant to be called every few minutes.
    pub async fn sweep(&self) -> Result<usize, Error> {
        // What is gone is not walked over again.
        let (mut swept, mut gone) = (0, 0_u64);
        loop {
            let now = self.world().now();
            let mut rows = self.store().read().scan_from::<Expiries>(&(), &gone, SWEPT_AT_ONCE).await?;
            rows.retain(|((at, ..), ())| *at <= now);
            if rows.is_empty() {
                return Ok(swept);
            }
            let mut tx = Tx::new();
            for (key, ()) in &rows {
                match key.1 {
                    n if n == OneOffTokens::INFO.number => tx.delete::<OneOffTokens>(&key.2),
                    n if n == RenewalLinks::INFO.number => tx.delete::<RenewalLinks>(&key.2),
                    n if n == SpentKeys::INFO.number => tx.delete::<SpentKeys>(&key.2),
                    n if n == ToDeviceTxns::INFO.number => tx.delete::<ToDeviceTxns>(&key.2),
                    _ => &mut tx,
                }
                .delete::<Expiries>(key);
            }
            self.store().commit(tx).await?;
            swept += rows.len();
            gone = rows.last().map_or(gone, |((at, ..), ())| *at);
        }
    }
}
