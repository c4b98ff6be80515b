//! Who uses the identity service: accounts by OpenID token, access tokens, accepted policies.

use chappe_store::{
    Json, Tx,
    identity_service::{ServiceToken, ServiceTokens, ServiceUser, ServiceUsers},
};
use ruma::{OwnedServerName, OwnedUserId, UserId};

use super::{HomeserverError, IdentityService, TRIES};
use crate::{Error, validation::sha256};

/// Tokens one user may have; the oldest goes when there is one more.
const MOST_TOKENS: usize = 20;
/// Longest OpenID token, in bytes.
const MAX_TOKEN: usize = 4096;

/// What a homeserver gave its user to prove who it is (client-server API, `openid/request_token`).
#[derive(Clone)]
pub struct OpenIdToken {
    /// The token.
    pub access_token: String,
    /// The homeserver that vouches.
    pub matrix_server_name: OwnedServerName,
}

impl IdentityService {
    /// An access token for whom the OpenID token belongs to (`account/register`). The homeserver may speak for its own users
    /// alone.
    pub async fn register(&self, openid: &OpenIdToken) -> Result<String, Error> {
        if openid.access_token.is_empty() || openid.access_token.len() > MAX_TOKEN {
            return Err(Error::Invalid("This is not an OpenID token"));
        }
        let server = &openid.matrix_server_name;
        let asked = self.inner.homeservers.openid_user(server, &openid.access_token).await;
        let user = asked.map_err(|error| match error {
            HomeserverError::Refused(_) => {
                Error::Unauthorized("The homeserver does not know this OpenID token")
            }
            HomeserverError::Unreachable => Error::Unreachable,
        })?;
        if user.server_name() != *server || user.as_str().len() > 255 {
            return Err(Error::Unauthorized("The homeserver named a user of another server"));
        }
        self.give_token(&user).await
    }

    async fn give_token(&self, user: &UserId) -> Result<String, Error> {
        let token = format!("chi_{}", self.world().token(43));
        let hash = sha256(token.as_bytes());
        self.change_user(user, |record, tx| {
            while record.tokens.len() >= MOST_TOKENS {
                tx.delete::<ServiceTokens>(&record.tokens.remove(0));
            }
            record.tokens.push(hash);
            let kept = ServiceToken { user: user.to_owned(), created: self.world().now() };
            tx.put::<ServiceTokens>(&hash, &Json(kept));
        })
        .await?;
        Ok(token)
    }

    /// Whose an access token is, policies accepted or not. Those of this server's users are worth nothing while the account
    /// is locked, [`Error::Expired`] once it has ended; how it is with others, their servers know.
    pub async fn member(&self, token: &str) -> Result<OwnedUserId, Error> {
        const UNKNOWN: Error = Error::Unauthorized("Unrecognised access token");
        let reader = self.store().read();
        let Json(kept) = reader.get::<ServiceTokens>(&sha256(token.as_bytes())).await?.ok_or(UNKNOWN)?;
        if kept.user.server_name() == self.server() {
            use chappe_accounts::Error as E;
            match self.inner.accounts.standing(&kept.user).await {
                Err(E::Expired) => return Err(Error::Expired),
                Err(E::Store(error)) => return Err(error.into()),
                other => other.map_err(|_| UNKNOWN)?,
            }
        }
        Ok(kept.user)
    }

    /// The same for whoever has accepted all policies; [`Error::TermsNotSigned`] for the others.
    pub async fn member_in_good_standing(&self, token: &str) -> Result<OwnedUserId, Error> {
        let user = self.member(token).await?;
        let policies = &self.config().service.policies;
        if policies.is_empty() {
            return Ok(user);
        }
        let record = self.store().read().get::<ServiceUsers>(&user).await?.unwrap_or_default();
        let accepted = |url: &String| record.0.accepted.contains(url);
        let signed = |policy: &crate::Policy| policy.texts.values().any(|text| accepted(&text.url));
        if policies.values().all(signed) { Ok(user) } else { Err(Error::TermsNotSigned) }
    }

    /// As what the look-ups of a member are counted: as the user where the server is this one or one that the map names, else
    /// as the server, which can make as many users as it likes.
    pub fn counted_as(&self, member: &UserId) -> String {
        let server = member.server_name();
        if self.knows(server) { member.to_string() } else { server.to_string() }
    }

    /// Ends an access token.
    pub async fn log_out(&self, token: &str) -> Result<(), Error> {
        let (user, hash) = (self.member(token).await?, sha256(token.as_bytes()));
        self.change_user(&user, |record, tx| {
            record.tokens.retain(|known| *known != hash);
            tx.delete::<ServiceTokens>(&hash);
        })
        .await
    }

    /// Notes which policies a user accepts, by the URLs of their texts; URLs of no policy are passed over.
    pub async fn accept(&self, user: &UserId, urls: &[String]) -> Result<(), Error> {
        let policies = &self.config().service.policies;
        let known: Vec<&String> =
            policies.values().flat_map(|policy| policy.texts.values()).map(|text| &text.url).collect();
        self.change_user(user, |record, _| {
            // What is no policy's any more is forgotten: the record stays small.
            record.accepted.retain(|url| known.contains(&url));
            for url in urls.iter().filter(|url| known.contains(url)) {
                if !record.accepted.contains(url) {
                    record.accepted.push(url.clone());
                }
            }
        })
        .await
    }

    async fn change_user(
        &self,
        user: &UserId,
        edit: impl Fn(&mut ServiceUser, &mut Tx) + Send + Sync,
    ) -> Result<(), Error> {
        let key = user.to_owned();
        for _ in 0..TRIES {
            let old = self.store().read().get::<ServiceUsers>(&key).await?;
            let (mut record, mut tx) = (old.clone().unwrap_or_default().0, Tx::new());
            edit(&mut record, &mut tx);
            tx.expect::<ServiceUsers>(&key, old.as_ref()).put::<ServiceUsers>(&key, &Json(record));
            match self.store().commit(tx).await {
                Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
        Err(chappe_store::Error::Conflict.into())
    }
}

impl std::fmt::Debug for OpenIdToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenIdToken of {}", self.matrix_server_name)
    }
}
