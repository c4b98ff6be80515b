//! Ending a browser's session with a provider (OpenID Connect RP-Initiated Logout 1.0).
//!
//! A client that logs out does so without a browser; one that runs in a browser can go to this address afterwards.

use super::{Cookie, SSO_LOGGED_OUT_PATH, Sso, SsoError, flow::Departure, provider::Provider};

/// How long a browser keeps what names its session, in seconds: as long as sessions with ProConnect last.
const KEPT: u64 = 12 * 3600;
/// Bytes of a cookie that browsers take.
pub(super) const LONGEST_COOKIE: usize = 3800;
/// What the seal is for.
const SESSION: &str = "session";

impl Sso {
    /// What a browser keeps of its session with a provider, if that can be ended and is not too long to keep.
    pub(super) fn session(&self, provider: &Provider, id_token: &str) -> Option<Cookie> {
        if !provider.config.end_session {
            return None;
        }
        let value = self.seal().close(SESSION, &id_token)?;
        let name = self.session_cookie_name(&provider.config.id);
        (value.len() <= LONGEST_COOKIE).then_some(Cookie { name, value, seconds: KEPT })
    }

    /// The cookie that names a browser's session with a provider.
    pub fn session_cookie_name(&self, provider: &str) -> String {
        self.cookie_name_for("session", provider)
    }

    /// Sends a browser to end its session with a provider. [`SsoError::NoProvider`] where that is not done.
    pub async fn leave(&self, provider: &str, cookie: Option<&str>) -> Result<Departure, SsoError> {
        let found = self.provider(provider)?;
        let metadata = found.metadata().await?;
        let endpoint = metadata.end_session.as_ref().filter(|_| found.config.end_session);
        let mut location = endpoint.ok_or(SsoError::NoProvider)?.clone();
        let id_token: Option<String> = cookie.and_then(|value| self.seal().open(SESSION, value));
        let back = self.address(SSO_LOGGED_OUT_PATH);
        location
            .query_pairs_mut()
            .extend_pairs(id_token.map(|token| ("id_token_hint", token)))
            .append_pair("client_id", &found.config.client_id)
            .append_pair("post_logout_redirect_uri", &back)
            .append_pair("state", &self.world().token(43));
        let cookie = Cookie::gone(self.session_cookie_name(provider));
        Ok(Departure { location: location.into(), cookie })
    }
}
