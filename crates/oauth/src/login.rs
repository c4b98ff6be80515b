//! `POST …/login`: somebody logs in to the pages, and goes on to where they were going.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use url::form_urlencoded;

use crate::{
    api::BASE,
    browser::NotIn,
    error::Error,
    fields::Fields,
    page::{Page, onward},
    sign_up,
    sso::{self, Why},
    visitor::{Posted, Visitor},
};

/// Where somebody was going, with the query of that page. Only pages of ours can be named.
#[derive(Clone, Debug)]
pub(crate) struct Goal {
    page: &'static str,
    query: String,
}

const PAGES: [&str; 3] = ["authorize", "link", "account"];

impl Goal {
    /// A page with the parameters of a request.
    pub(crate) fn new(page: &'static str, fields: &Fields) -> Self {
        // What asks for a log-in has been heard once it is done.
        Self { page, query: fields.query(&["prompt"]) }
    }

    /// The page of devices, with the code of a request and nothing else of it.
    pub(crate) fn link(fields: &Fields) -> Self {
        fields.get("user_code").map_or_else(|| Self::new("link", &Fields::default()), Self::with_code)
    }

    /// The page of devices with a code.
    pub(crate) fn with_code(code: &str) -> Self {
        let mut query = form_urlencoded::Serializer::new(String::new());
        Self { page: "link", query: query.append_pair("user_code", code).finish() }
    }

    /// As a form has it.
    pub(crate) fn read(fields: &Fields) -> Result<Self, Error> {
        let wanted = fields.need("to")?;
        let page =
            PAGES.iter().find(|page| **page == wanted).ok_or_else(|| Error::request("no such page"))?;
        let query = Fields::parse(fields.get("query").unwrap_or_default().as_bytes())?;
        Ok(Self::new(page, &query))
    }

    /// Its address.
    pub(crate) fn address(&self) -> String {
        format!("{BASE}/{}?{}", self.page, self.query)
    }

    /// As parameters of a link to a page that leads there.
    pub(crate) fn parameters(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("to", self.page).append_pair("query", &self.query).finish()
    }

    /// As fields of a form.
    pub(crate) fn hide(&self, body: &mut crate::html::Html) {
        body.hidden("to", self.page).hidden("query", &self.query);
    }
}

pub(super) async fn handler(Posted { visitor, fields }: Posted) -> Response {
    let goal = match Goal::read(&fields) {
        Ok(goal) => goal,
        Err(error) => return visitor.problem(&error).into_response(),
    };
    let (name, password) =
        (fields.get("name").unwrap_or_default(), fields.get("password").unwrap_or_default());
    match enter(&visitor, name, password).await {
        Ok(cookie) => onward(&goal.address(), Some(cookie)),
        Err(NotIn::Failed(error)) => visitor.problem(&error).into_response(),
        Err(refusal) => {
            let mut page = page(&visitor, &goal, name, Some(&refusal));
            page.status = StatusCode::FORBIDDEN;
            page.into_response()
        }
    }
}

/// Logs the browser in under a new cookie: the one it had may be known to somebody else.
async fn enter(visitor: &Visitor, name: &str, password: &str) -> Result<String, NotIn> {
    let oauth = &visitor.oauth;
    let user = oauth.prove(visitor.origin, name, password).await?;
    oauth.close_browser(&visitor.cookie).await?;
    let cookie = oauth.open_browser(user, None).await?;
    Ok(visitor.cookie_line(&cookie, Some(oauth.config().browser_session_seconds)))
}

/// The page that asks for name and password.
pub(crate) fn page(visitor: &Visitor, goal: &Goal, name: &str, refusal: Option<&NotIn>) -> Page {
    let mut body = visitor.html();
    match refusal {
        None => {}
        Some(NotIn::Locked) => {
            body.notice(visitor.say("Ce compte est bloqué.", "This account is locked."));
        }
        Some(_) => {
            let sentence = visitor
                .say("Identifiant ou mot de passe incorrect.", "The user name or the password is wrong.");
            body.notice(sentence);
        }
    }
    body.form("/login", &visitor.proof());
    goal.hide(&mut body);
    body.say("<label>Identifiant ou adresse e-mail", "<label>User name or e-mail address");
    body.raw(
        "<input name=\"name\" maxlength=\"255\" required autocomplete=\"username\" autocapitalize=\"none\"",
    );
    body.raw(" spellcheck=\"false\" value=\"").text(name).raw("\"></label><label>");
    body.say("Mot de passe", "Password").password("password", "current-password").raw("</label>");
    body.raw("<button class=\"main\">").say("Se connecter", "Log in").raw("</button></form>");
    let known = visitor.oauth.sso();
    let providers: Vec<_> = known.providers().collect();
    sso::links(&mut body, goal, &providers, Why::LogIn);
    if visitor.oauth.makes_accounts() {
        sign_up::link(&mut body, goal);
    }
    visitor.page(visitor.say("Connexion", "Log in"), &body)
}

/// The name that a client proposes: a user id, marked as one (MSC4198), or anything.
pub(crate) fn hint(fields: &Fields) -> String {
    let hint = fields.get("login_hint").unwrap_or_default();
    hint.strip_prefix("mxid:").unwrap_or(hint).chars().take(255).collect()
}
