//! Registration tokens (`m.login.registration_token`): who may use them, and their administration.
//!
//! A use is counted when the account is made. Registrations under way count against the number of uses through
//! their sessions, so that what a crash interrupts is never lost to the token.

use chappe_store::{
    Direction, Json, Tx,
    accounts::{RegistrationToken, RegistrationTokens},
};

use crate::{Accounts, Error, retry::retry};

/// The longest token, in bytes (spec v1.2).
const LONGEST: usize = 64;

impl Accounts {
    /// Whether a token would let someone register now (spec: `/register/m.login.registration_token/validity`).
    pub async fn registration_token_valid(&self, token: &str) -> Result<bool, Error> {
        self.token_usable(token, None).await
    }

    /// As above, not counting one session's own use.
    pub(crate) async fn token_usable(&self, token: &str, session: Option<&str>) -> Result<bool, Error> {
        let Some(Json(row)) = self.store().read().get::<RegistrationTokens>(&token.to_owned()).await? else {
            return Ok(false);
        };
        let now = self.world().now();
        let used = row.completed + self.inner.sessions.pending(now, token, session);
        let left = row.uses_allowed.is_none_or(|allowed| used < allowed);
        Ok(left && row.expires.is_none_or(|at| at > now))
    }

    /// All tokens, with the number of registrations under way.
    pub async fn registration_tokens(&self) -> Result<Vec<(String, RegistrationToken, u64)>, Error> {
        let rows =
            self.store().read().scan::<RegistrationTokens>(&(), Direction::Forward, usize::MAX).await?;
        let now = self.world().now();
        let with_pending = |(token, Json(row)): (String, _)| {
            let pending = self.inner.sessions.pending(now, &token, None);
            (token, row, pending)
        };
        Ok(rows.into_iter().map(with_pending).collect())
    }

    /// One token, with the number of registrations under way.
    pub async fn registration_token(&self, token: &str) -> Result<Option<(RegistrationToken, u64)>, Error> {
        let row = self.store().read().get::<RegistrationTokens>(&token.to_owned()).await?;
        let pending = self.inner.sessions.pending(self.world().now(), token, None);
        Ok(row.map(|Json(row)| (row, pending)))
    }

    /// Makes a token; `None` draws a random one. [`Error::Invalid`] when it exists, is longer than 64 bytes or has
    /// characters beyond `A-Za-z0-9._~-`.
    pub async fn create_registration_token(
        &self,
        token: Option<String>,
        uses_allowed: Option<u64>,
        expires: Option<u64>,
    ) -> Result<(String, RegistrationToken), Error> {
        let token = token.unwrap_or_else(|| self.world().token(16));
        let fits = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c);
        if token.is_empty() || token.len() > LONGEST || !token.chars().all(fits) {
            return Err(Error::invalid("registration tokens have 1 to 64 characters of A-Z a-z 0-9 . _ ~ -"));
        }
        let row = RegistrationToken { uses_allowed, completed: 0, expires };
        let mut tx = Tx::new();
        tx.expect_absent::<RegistrationTokens>(&token).put::<RegistrationTokens>(&token, &Json(row.clone()));
        match self.store().commit(tx).await {
            Ok(_) => Ok((token, row)),
            Err(chappe_store::Error::Conflict) => Err(Error::invalid("this token exists")),
            Err(error) => Err(error.into()),
        }
    }

    /// Changes a token; `change` may run several times. [`Error::NotFound`].
    pub async fn update_registration_token(
        &self,
        token: &str,
        change: impl Fn(&mut RegistrationToken) + Send + Sync,
    ) -> Result<RegistrationToken, Error> {
        retry!({
            let key = token.to_owned();
            let found = self.store().read().get::<RegistrationTokens>(&key).await?;
            let Json(old) = found.ok_or(Error::NotFound("registration token"))?;
            let mut new = old.clone();
            change(&mut new);
            let mut tx = Tx::new();
            tx.expect::<RegistrationTokens>(&key, Some(&Json(old)));
            tx.put::<RegistrationTokens>(&key, &Json(new.clone()));
            self.store().commit(tx).await?;
            Ok(new)
        })
    }

    /// Removes a token. [`Error::NotFound`].
    pub async fn delete_registration_token(&self, token: &str) -> Result<(), Error> {
        let key = token.to_owned();
        if self.store().read().get::<RegistrationTokens>(&key).await?.is_none() {
            return Err(Error::NotFound("registration token"));
        }
        let mut tx = Tx::new();
        tx.delete::<RegistrationTokens>(&key);
        self.store().commit(tx).await?;
        Ok(())
    }
}
