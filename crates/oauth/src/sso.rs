//! `GET …/sso` and `…/sso/done`: people log in to the pages, or prove once more who they are, by an identity provider.

use axum::{
    extract::RawQuery,
    response::{IntoResponse, Response},
};
use chappe_accounts::LogInMethod;
use chappe_identity::{Cookie, Errand, Manner, ProviderConfig, SsoError, SsoPage, sso_page};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use url::form_urlencoded;

use crate::{
    api::BASE,
    browser::Proved,
    error::{Error, Result},
    fields::Fields,
    html::Html,
    login::Goal,
    page::{Page, onward},
    visitor::{Visitor, cookie_named},
};

/// How long a proof by an identity provider is enough, in milliseconds.
const PROOF: u64 = 300_000;

/// What somebody goes to a provider for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// To log in.
    LogIn,
    /// To get an account.
    SignUp,
    /// To prove once more who they are.
    Prove,
}

impl Why {
    fn name(self) -> &'static str {
        match self {
            Self::LogIn => "log_in",
            Self::SignUp => "sign_up",
            Self::Prove => "prove",
        }
    }

    fn read(fields: &Fields) -> Result<Self> {
        let named = fields.need("for")?;
        let found = [Self::LogIn, Self::SignUp, Self::Prove].into_iter().find(|why| why.name() == named);
        found.ok_or_else(|| Error::request("that is nothing to go there for"))
    }
}

/// Links to providers. They are no forms: browsers do not let a form lead from here to another site.
pub(crate) fn links(body: &mut Html, goal: &Goal, providers: &[&ProviderConfig], why: Why) {
    for provider in providers {
        let mut query = form_urlencoded::Serializer::new(goal.parameters());
        query.append_pair("for", why.name()).append_pair("provider", &provider.id);
        body.raw("<p><a class=\"button\" href=\"").raw(BASE).raw("/sso?").text(&query.finish()).raw("\">");
        match why {
            Why::LogIn => body.say("Se connecter avec ", "Log in with "),
            Why::SignUp => body.say("Créer un compte avec ", "Create an account with "),
            Why::Prove => body.say("Confirmer avec ", "Confirm with "),
        };
        body.text(&provider.name).raw("</a></p>");
    }
}

pub(super) async fn depart(visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let gone = match Fields::parse(query.unwrap_or_default().as_bytes()) {
        Ok(fields) => leave(&visitor, &fields).await,
        Err(error) => Err(error),
    };
    gone.unwrap_or_else(|error| visitor.problem(&error).into_response())
}

async fn leave(visitor: &Visitor, fields: &Fields) -> Result<Response> {
    let oauth = &visitor.oauth;
    oauth.count("oauth sso", &visitor.origin.subject(), oauth.config().rates.token)?;
    let (goal, why) = (Goal::read(fields)?, Why::read(fields)?);
    let user = match why {
        Why::Prove => Some(visitor.user.clone().ok_or_else(|| Error::request("nobody is logged in"))?),
        Why::LogIn | Why::SignUp => None,
    };
    let errand = Errand::Browse { page: format!("{BASE}/sso/done?{}", goal.parameters()), user };
    let manner = Manner { register: why == Why::SignUp, login_hint: None };
    match oauth.sso().depart(fields.need("provider")?, errand, &manner).await {
        Ok(departure) => {
            let mut response = onward(&departure.location, None);
            set(&mut response, &departure.cookie);
            Ok(response)
        }
        Err(error) => Ok(failed(visitor, &error).into_response()),
    }
}

pub(super) async fn arrive(visitor: Visitor, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let done = match Fields::parse(query.unwrap_or_default().as_bytes()) {
        Ok(fields) => enter(&visitor, &headers, &fields).await,
        Err(error) => Err(error),
    };
    done.unwrap_or_else(|error| visitor.problem(&error).into_response())
}

/// Logs the browser in that shows a pass, under a new cookie.
async fn enter(visitor: &Visitor, headers: &HeaderMap, fields: &Fields) -> Result<Response> {
    let (oauth, goal) = (&visitor.oauth, Goal::read(fields)?);
    let name = oauth.sso().pass_cookie_name();
    let pass = match oauth.sso().admit(cookie_named(headers, &name).unwrap_or_default()) {
        Ok(pass) => pass,
        Err(error) => return Ok(failed(visitor, &error).into_response()),
    };
    oauth.close_browser(&visitor.cookie).await?;
    let proved = Proved { user: pass.user, mark: pass.mark, by: Some(LogInMethod::SingleSignOn) };
    let cookie = oauth.open_browser(proved, pass.proved.then_some(PROOF)).await?;
    let line = visitor.cookie_line(&cookie, Some(oauth.config().browser_session_seconds));
    let mut response = onward(&goal.address(), Some(line));
    set(&mut response, &Cookie::gone(name));
    Ok(response)
}

fn set(response: &mut Response, cookie: &Cookie) {
    if let Ok(value) = HeaderValue::from_str(&cookie.header()) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// The page that says why nobody was let in.
fn failed(visitor: &Visitor, error: &SsoError) -> Page {
    tracing::info!(%error, "nobody was let in by an identity provider");
    let service = &visitor.oauth.identity().service_name();
    let status = match error {
        SsoError::Provider(_) => StatusCode::BAD_GATEWAY,
        SsoError::NoProvider => StatusCode::NOT_FOUND,
        _ => StatusCode::FORBIDDEN,
    };
    let html = sso_page(&SsoPage::Failed(error), visitor.language, service);
    Page { status, html, leads_to: None, cookie: None, retry_after: None }
}
