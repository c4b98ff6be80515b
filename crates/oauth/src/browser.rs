//! People in front of browsers: who is logged in by which cookie, and passwords.

use chappe_accounts::Error as Refusal;
use chappe_identity::Email;
use chappe_store::{
    AccountNews, Json, LogEntry, LogInMethod, Table, Tx,
    oauth::{BrowserSession, BrowserSessions, OAuthExpiries},
};
use chappe_web::{Origin, Rate};
use ruma::{OwnedUserId, UserId};

use crate::{
    OAuth,
    error::{Error, Result},
    secrets::sha256,
};

/// Characters of a cookie.
pub(crate) const COOKIE_LENGTH: usize = 43;

/// Somebody who has proved who they are.
#[derive(Clone, Debug)]
pub(crate) struct Proved {
    /// Who.
    pub(crate) user: OwnedUserId,
    /// What their log-ins hung on before they did.
    pub(crate) mark: [u8; 32],
    /// How, unless they had done so before.
    pub(crate) by: Option<LogInMethod>,
}

/// Who is logged in with a browser.
#[derive(Clone, Debug)]
pub(crate) struct LoggedIn {
    pub(crate) user: OwnedUserId,
    /// Whether an identity provider has just said so once more.
    pub(crate) proved: bool,
}

/// Why a password was not taken.
#[derive(Debug)]
pub(crate) enum NotIn {
    /// The name, or the password: it is not said which.
    Wrong,
    /// The account is locked, as somebody who knows the password may be told.
    Locked,
    /// Something else.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for NotIn {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl OAuth {
    /// Counts an action.
    pub(crate) fn count(&self, action: &'static str, subject: &str, rate: Rate) -> Result<()> {
        self.log_ins().limiter.check(action, subject, rate).map_err(Error::Limited)
    }

    /// Who is logged in by a cookie: nobody whose account is closed or locked, or whose log-ins have ended since.
    pub(crate) async fn browser_user(&self, cookie: &str) -> Result<Option<LoggedIn>> {
        let Some(Json(row)) = self.store().read().get::<BrowserSessions>(&sha256(cookie)).await? else {
            return Ok(None);
        };
        let now = self.world().now();
        if row.expires <= now || !self.is_open(&row.user).await? {
            return Ok(None);
        }
        let mark = self.accounts().log_in_mark(&row.user).await?;
        let proved = row.proved_until.is_some_and(|until| until > now);
        Ok((mark == row.mark).then_some(LoggedIn { user: row.user, proved }))
    }

    /// Logs the browser of somebody in who proved who they are; gives its cookie. For so many milliseconds it needs no other
    /// proof.
    pub(crate) async fn open_browser(&self, proved: Proved, proof: Option<u64>) -> Result<String> {
        let Proved { user, mark, by } = proved;
        let cookie = self.world().token(COOKIE_LENGTH);
        let lifetime = self.config().browser_session_seconds.saturating_mul(1000);
        let (hash, now) = (sha256(&cookie), self.world().now());
        let expires = now.saturating_add(lifetime);
        let proved_until = proof.map(|proof| now.saturating_add(proof));
        let row = BrowserSession { user, mark, expires, proved_until };
        let mut tx = Tx::new();
        if let Some(by) = by {
            let what = AccountNews::LoggedIn(by);
            tx.log(LogEntry::Account { user: row.user.clone(), at: now, what });
        }
        tx.put::<BrowserSessions>(&hash, &Json(row));
        tx.put::<OAuthExpiries>(&(expires, BrowserSessions::INFO.number, hash), &());
        self.store().commit(tx).await?;
        Ok(cookie)
    }

    /// Logs a browser out.
    pub(crate) async fn close_browser(&self, cookie: &str) -> Result<()> {
        let hash = sha256(cookie);
        if self.store().read().get::<BrowserSessions>(&hash).await?.is_some() {
            let mut tx = Tx::new();
            tx.delete::<BrowserSessions>(&hash);
            self.store().commit(tx).await?;
        }
        Ok(())
    }

    /// Whose name (or e-mail address) and password these are. Counted as log-ins of the client API are; an unknown name takes
    /// as long as a wrong password and is told the same.
    pub(crate) async fn prove(&self, origin: Origin, name: &str, password: &str) -> Result<Proved, NotIn> {
        let counts = self.log_ins();
        self.count("login", &origin.subject(), counts.by_ip)?;
        let named = self.named(name).await?;
        let said = || name.trim().to_lowercase().chars().take(255).collect();
        let subject = named.as_ref().map_or_else(said, ToString::to_string);
        self.count("login account", &subject, counts.by_account)?;
        let user = match named {
            Some(user) => user,
            // A name that no account has: names cannot begin like this.
            None => UserId::parse(format!("@_nobody:{}", self.accounts().server_name()))
                .map_err(|_| Error::Internal)?,
        };
        // Read before: if the password is changed while this one is looked at, it opens nothing.
        let mark = self.accounts().log_in_mark(&user).await?;
        match self.accounts().verify_password(&user, password).await {
            Ok(()) => {}
            Err(Refusal::Forbidden(_)) => return Err(NotIn::Wrong),
            Err(error) => return Err(error.into()),
        }
        if !self.is_open(&user).await? {
            return Err(NotIn::Locked);
        }
        Ok(Proved { user, mark, by: Some(LogInMethod::Password) })
    }

    /// Whom a name means.
    async fn named(&self, name: &str) -> Result<Option<OwnedUserId>> {
        let name = name.trim();
        if !name.starts_with('@') && name.contains('@') {
            let Ok(email) = Email::parse(name) else { return Ok(None) };
            return Ok(self.identity().owner(&email).await?);
        }
        Ok(self.accounts().local_user(name).ok())
    }

    async fn is_open(&self, user: &UserId) -> Result<bool> {
        let found = self.accounts().user(user).await?;
        Ok(found.is_some_and(|user| user.deactivated.is_none() && !user.locked))
    }
}
