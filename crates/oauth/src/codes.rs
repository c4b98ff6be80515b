//! Authorization codes: good once, for a minute, for the client, redirect URI and verifier they were made for. Reuse ends
//! the session that came of it (RFC 6749, sections 4.1.2 and 10.5).

use chappe_accounts::{Issued, OAuthGrant, OAuthLogIn};
use chappe_store::{
    Json, Reader, Table, Tx,
    oauth::{BrowserSessions, Code, Codes, OAuthExpiries},
};
use ruma::UserId;

use crate::{
    OAuth,
    api::ATTEMPTS,
    clients::{Registered, expect_client},
    error::{Error, Result},
    pkce,
    request::Authorization,
    secrets::sha256,
};

/// How long a code can be used, in milliseconds.
const LIFETIME: u64 = 60_000;
/// How long it is known that a code was used, in milliseconds.
const MEMORY: u64 = 3_600_000;

/// What a client shows for its tokens.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub(crate) code: &'a str,
    pub(crate) redirect_uri: &'a str,
    pub(crate) verifier: &'a str,
}

/// Tokens and what they are good for.
pub(crate) type Given = (Issued, String);

impl OAuth {
    /// A code for a request that the user granted, in the browser with this cookie.
    pub(crate) async fn code(
        &self,
        authorization: &Authorization,
        user: &UserId,
        cookie: Option<&str>,
    ) -> Result<String> {
        let (code, now) = (format!("chc_{}", self.world().token(43)), self.world().now());
        let row = Code {
            user: user.to_owned(),
            client: authorization.client.digest,
            redirect_uri: authorization.back.redirect_uri.clone(),
            challenge: authorization.challenge,
            device: authorization.scope.device.clone(),
            scope: authorization.scope.text.clone(),
            expires: now.saturating_add(LIFETIME),
            used_for: None,
            mark: Some(self.accounts().log_in_mark(user).await?),
            browser: cookie.map(sha256),
        };
        let hash = sha256(&code);
        let mut tx = Tx::new();
        tx.put::<Codes>(&hash, &Json(row));
        tx.put::<OAuthExpiries>(&(now.saturating_add(MEMORY), Codes::INFO.number, hash), &());
        self.store().commit(tx).await?;
        Ok(code)
    }

    /// Logs a device in for its code.
    pub(crate) async fn redeem(&self, client: &Registered, shown: Shown<'_>) -> Result<Given> {
        const REFUSED: Error = Error::InvalidGrant("this code is not good for this client, or no longer");
        let hash = sha256(shown.code);
        for _ in 0..ATTEMPTS {
            let (reader, now) = (self.store().read(), self.world().now());
            let Some(Json(code)) = reader.get::<Codes>(&hash).await? else { return Err(REFUSED) };
            if let Some(family) = &code.used_for {
                drop(reader);
                self.accounts().end_family(family).await?;
                return Err(REFUSED);
            }
            let bound = code.client == client.digest && code.redirect_uri == shown.redirect_uri;
            if !bound || code.expires <= now || !pkce::holds(&code.challenge, shown.verifier) {
                return Err(REFUSED);
            }
            let granted = (code.device.clone(), code.scope.clone());
            let grant = grant(client, &code.user, granted, code.browser);
            let mut tx = Tx::new();
            let mark = code.mark.as_ref();
            if !self.accounts().expect_log_in_mark(&reader, &mut tx, &code.user, mark).await?
                || !expect_browser(&reader, &mut tx, code.browser).await?
            {
                return Err(REFUSED);
            }
            expect_client(&reader, &mut tx, &client.digest, now).await?;
            let (issued, family) = self.accounts().draft_oauth_log_in(&reader, &mut tx, &grant).await?;
            let used = Code { used_for: Some(family), ..code.clone() };
            tx.expect::<Codes>(&hash, Some(&Json(code))).put::<Codes>(&hash, &Json(used));
            drop(reader);
            match self.accounts().commit_of(&grant.user_id, tx).await {
                Ok(()) => return Ok((issued, grant.log_in.scope)),
                Err(chappe_accounts::Error::Store(chappe_store::Error::Conflict)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::busy())
    }

    /// Logs a device in that a user has granted already, when their log-ins hung on this mark.
    pub(crate) async fn log_in(
        &self,
        client: &Registered,
        grant: &OAuthGrant,
        mark: &[u8; 32],
    ) -> Result<Given> {
        for _ in 0..ATTEMPTS {
            let (reader, now) = (self.store().read(), self.world().now());
            let mut tx = Tx::new();
            if !self.accounts().expect_log_in_mark(&reader, &mut tx, &grant.user_id, Some(mark)).await?
                || !expect_browser(&reader, &mut tx, grant.log_in.browser).await?
            {
                return Err(Error::InvalidGrant("the user was logged out since they granted this"));
            }
            expect_client(&reader, &mut tx, &client.digest, now).await?;
            let (issued, _) = self.accounts().draft_oauth_log_in(&reader, &mut tx, grant).await?;
            drop(reader);
            match self.accounts().commit_of(&grant.user_id, tx).await {
                Ok(()) => return Ok((issued, grant.log_in.scope.clone())),
                Err(chappe_accounts::Error::Store(chappe_store::Error::Conflict)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::busy())
    }
}

/// Binds a transaction to the log-in of the browser in which it was granted; false if that has ended.
async fn expect_browser(reader: &Reader<'_>, tx: &mut Tx, browser: Option<[u8; 32]>) -> Result<bool> {
    let Some(browser) = browser else { return Ok(true) };
    let session = reader.get::<BrowserSessions>(&browser).await?;
    tx.expect::<BrowserSessions>(&browser, session.as_ref());
    Ok(session.is_some())
}

/// What a user granted to a client, in a browser whose log-in has this hash.
pub(crate) fn grant(
    client: &Registered,
    user: &UserId,
    (device_id, scope): (ruma::OwnedDeviceId, String),
    browser: Option<[u8; 32]>,
) -> OAuthGrant {
    OAuthGrant {
        user_id: user.to_owned(),
        device_id,
        device_name: Some(client.metadata.name()),
        log_in: OAuthLogIn { client: client.digest, scope, browser },
    }
}
