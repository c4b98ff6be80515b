//! Whoever looks at a page: language, cookie, account. A form is taken only from the browser that it was shown to.

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use chappe_identity::Language;
use chappe_web::Origin;
use http::{HeaderMap, StatusCode, header, request::Parts};
use ruma::OwnedUserId;

use crate::{
    OAuth,
    browser::{COOKIE_LENGTH, LoggedIn},
    error::Error,
    fields::Fields,
    html::{Html, say},
    page::Page,
    secrets::{form_proof, is_form_proof},
};

/// Names that begin like this are taken by browsers only from the host itself, encrypted, for all its paths.
const SECURE_COOKIE: &str = "__Host-chappe-oauth";
const PLAIN_COOKIE: &str = "chappe-oauth";

/// Whoever looks at a page.
pub(crate) struct Visitor {
    pub(crate) oauth: OAuth,
    pub(crate) language: Language,
    pub(crate) origin: Origin,
    /// Who, if logged in.
    pub(crate) user: Option<OwnedUserId>,
    /// Whether an identity provider has just said so once more.
    pub(crate) proved: bool,
    /// What the browser is known by, logged in or not.
    pub(crate) cookie: String,
    /// Whether the cookie is one that the browser does not have yet.
    fresh: bool,
}

impl FromRequestParts<OAuth> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, oauth: &OAuth) -> Result<Self, Response> {
        let Ok(origin) = Origin::from_request_parts(parts, oauth).await;
        let languages = parts.headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        let language = languages.and_then(Language::accepted);
        let language = language.unwrap_or_else(|| oauth.identity().language());
        let known = cookie(&parts.headers, oauth.is_secure());
        let fresh = known.is_none();
        let cookie = known.unwrap_or_else(|| oauth.world().token(COOKIE_LENGTH));
        let oauth = oauth.clone();
        let mut visitor = Self { oauth, language, origin, user: None, proved: false, cookie, fresh };
        if !fresh {
            match visitor.oauth.browser_user(&visitor.cookie).await {
                Ok(Some(LoggedIn { user, proved })) => (visitor.user, visitor.proved) = (Some(user), proved),
                Ok(None) => {}
                Err(error) => return Err(visitor.problem(&error).into_response()),
            }
        }
        Ok(visitor)
    }
}

impl Visitor {
    /// What forms shown to this browser carry.
    pub(crate) fn proof(&self) -> String {
        form_proof(&self.cookie)
    }

    /// A body to fill.
    pub(crate) fn html(&self) -> Html {
        Html::new(self.language)
    }

    /// A sentence in the visitor's language.
    pub(crate) fn say(&self, french: &'static str, english: &'static str) -> &'static str {
        say(self.language, french, english)
    }

    /// A page with this body.
    pub(crate) fn page(&self, title: &'static str, body: &Html) -> Page {
        Page {
            status: StatusCode::OK,
            html: body.document(&self.oauth.identity().service_name(), title),
            leads_to: None,
            cookie: self.fresh.then(|| self.cookie_line(&self.cookie, None)),
            retry_after: None,
        }
    }

    /// A page that says what went wrong.
    pub(crate) fn problem(&self, error: &Error) -> Page {
        let mut body = self.html();
        match error {
            Error::Limited(_) => body.say(
                "<p>Trop de demandes. Réessayez dans quelques instants.</p>",
                "<p>Too many requests. Please try again in a moment.</p>",
            ),
            Error::Internal => body.say(
                "<p>Le service ne peut pas répondre pour le moment.</p>",
                "<p>The service cannot answer at the moment.</p>",
            ),
            _ => body.say(
                "<p>Cette demande n'est pas valable. Recommencez depuis votre application.</p>",
                "<p>This request is not valid. Please begin again in your application.</p>",
            ),
        };
        // For whoever writes the application; nothing in it comes from the request.
        body.raw("<p><small>").text(error.code()).raw(" – ").text(&error.to_string()).raw("</small></p>");
        let mut page = self.page(self.say("Cela n'a pas marché", "That did not work"), &body);
        page.status = error.status();
        if page.status == StatusCode::UNAUTHORIZED {
            page.status = StatusCode::BAD_REQUEST;
        }
        page.retry_after = error.retry_after();
        page
    }

    /// The line that sets a cookie; without seconds it ends with the browser.
    pub(crate) fn cookie_line(&self, value: &str, seconds: Option<u64>) -> String {
        let (name, secure) =
            if self.oauth.is_secure() { (SECURE_COOKIE, "; Secure") } else { (PLAIN_COOKIE, "") };
        let age = seconds.map(|seconds| format!("; Max-Age={seconds}")).unwrap_or_default();
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{age}")
    }
}

/// The cookie of a browser, if it looks like one of ours.
fn cookie(headers: &HeaderMap, secure: bool) -> Option<String> {
    let value = cookie_named(headers, if secure { SECURE_COOKIE } else { PLAIN_COOKIE })?;
    let fits = value.len() == COOKIE_LENGTH && value.bytes().all(|c| c.is_ascii_alphanumeric());
    fits.then(|| value.to_owned())
}

/// The cookie of that name; a browser sends several in one header.
pub(crate) fn cookie_named<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value)
}

/// A form that this server showed to the browser that sends it.
pub(crate) struct Posted {
    pub(crate) visitor: Visitor,
    pub(crate) fields: Fields,
}

impl FromRequest<OAuth> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, oauth: &OAuth) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, oauth).await?;
        let fields = match Fields::from_request(Request::from_parts(parts, body), oauth).await {
            Ok(fields) => fields,
            Err(error) => return Err(visitor.problem(&error).into_response()),
        };
        let proof = fields.get("csrf").unwrap_or_default();
        if visitor.fresh || !is_form_proof(&visitor.cookie, proof) {
            let error = Error::request("this form was not shown to this browser, or too long ago");
            let mut page = visitor.problem(&error);
            page.status = StatusCode::FORBIDDEN;
            return Err(page.into_response());
        }
        Ok(Self { visitor, fields })
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, header};

    use super::cookie;

    #[test]
    fn only_cookies_of_ours_are_read() {
        let value = "x".repeat(43);
        let read = |line: &str, secure| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, line.parse().unwrap());
            cookie(&headers, secure)
        };
        assert_eq!(read(&format!("a=b; __Host-chappe-oauth={value}; c"), true), Some(value.clone()));
        assert_eq!(read(&format!("chappe-oauth={value}"), false), Some(value.clone()));
        assert_eq!(read(&format!("chappe-oauth={value}"), true), None, "set without encryption");
        assert_eq!(read(&format!("__Host-chappe-oauth={value}x"), true), None);
        assert_eq!(read("__Host-chappe-oauth=", true), None);
    }
}
