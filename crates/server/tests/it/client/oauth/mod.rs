//! Logging in with the pages of the server itself: a browser that keeps cookies, and clients.

mod account;
mod devices;
mod forms;
mod hostile;
mod sign_up;
mod story;

use axum::body::Body;
use http::{Request, header};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::home::{Answer, Home, PASSWORD};

pub(super) const BASE: &str = "/_matrix/client/unstable/chappe/oauth";
const COOKIE: &str = "__Host-chappe-oauth";
const BACK: &str = "com.example.app:/callback";
const ISSUER: &str = "http://a.test/";
/// The pair of RFC 7636.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

async fn home() -> Home {
    home_with("").await
}

async fn home_with(more: &str) -> Home {
    Home::with(&format!("oauth.enabled = true\n{more}")).await
}

impl Answer {
    fn html(&self) -> String {
        String::from_utf8(self.bytes.clone()).unwrap()
    }

    /// Where it sends a browser.
    #[track_caller]
    fn location(&self) -> String {
        assert_eq!(self.status, 303, "{}", self.html());
        self.headers[header::LOCATION].to_str().unwrap().to_owned()
    }

    /// The error code of an OAuth endpoint.
    #[track_caller]
    fn oauth_error(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), &self.json["error"]), (status, &json!(code)), "{}", self.json);
    }
}

pub(super) fn encoded(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

fn query_of(address: &str) -> Vec<(String, String)> {
    let (_, query) = address.split_once(['?', '#']).unwrap_or_default();
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

#[track_caller]
pub(super) fn parameter(address: &str, name: &str) -> String {
    let found = query_of(address).into_iter().find(|(key, _)| key == name);
    assert!(found.is_some(), "no {name} in {address}");
    found.unwrap_or_default().1
}

/// The hidden fields of the form of a page that is posted to `action`.
pub(super) fn hidden(page: &str, action: &str) -> Vec<(String, String)> {
    let begin = format!("<form method=\"post\" action=\"{BASE}{action}\">");
    assert!(page.contains(&begin), "no form for {action} in {page}");
    let (_, form) = page.split_once(&begin).unwrap_or_default();
    let form = form.split("</form>").next().unwrap();
    let plain = |text: &str| {
        let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
        text.replace("&#39;", "'").replace("&amp;", "&")
    };
    let field = |part: &str| {
        let (name, rest) = part.split_once("\" value=\"").unwrap();
        (plain(name), plain(rest.split('"').next().unwrap()))
    };
    form.split("<input type=\"hidden\" name=\"").skip(1).map(field).collect()
}

/// A browser.
struct Browser<'a> {
    home: &'a Home,
    cookie: Option<String>,
}

impl<'a> Browser<'a> {
    fn new(home: &'a Home) -> Self {
        Self { home, cookie: None }
    }

    async fn send(&mut self, method: &str, path: &str, form: Option<String>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("accept-language", "en");
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, format!("other=1; {COOKIE}={cookie}"));
        }
        if form.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let body = form.map_or_else(Body::empty, Body::from);
        let answer = self.home.send(request.body(body).unwrap()).await;
        for line in answer.headers.get_all(header::SET_COOKIE) {
            let line = line.to_str().unwrap();
            assert!(line.contains("; HttpOnly; SameSite=Lax; Secure"), "{line}");
            let value = line.strip_prefix(&format!("{COOKIE}=")).unwrap().split(';').next().unwrap();
            self.cookie = (!value.is_empty()).then(|| value.to_owned());
        }
        answer
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, None).await
    }

    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.send("POST", &format!("{BASE}{path}"), Some(encoded(fields))).await
    }

    /// Sends the form of a page, with what a person fills in.
    async fn submit(&mut self, page: &Answer, action: &str, filled: &[(&str, &str)]) -> Answer {
        let hidden = hidden(&page.html(), action);
        let mut fields: Vec<(&str, &str)> =
            hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        fields.extend(filled);
        self.post(action, &fields).await
    }

    /// Logs in where a page asks for it; gives the page behind.
    async fn log_in(&mut self, page: &Answer, name: &str) -> Answer {
        let onward = self.submit(page, "/login", &[("name", name), ("password", PASSWORD)]).await.location();
        self.get(&onward).await
    }

    /// Opens a page as this user, who logs in for it.
    async fn open(&mut self, path: &str, name: &str) -> Answer {
        let asked = self.get(path).await;
        self.log_in(&asked, name).await
    }
}

/// A registered client.
pub(super) struct Client<'a> {
    home: &'a Home,
    id: String,
}

/// What a client registers.
fn metadata(change: &Value) -> Value {
    let mut metadata = json!({
        "client_name": "App", "client_uri": "https://example.com/", "application_type": "native",
        "redirect_uris": [BACK, "http://127.0.0.1/back", "https://example.com/back"],
        "token_endpoint_auth_method": "none", "response_types": ["code"],
        "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
    });
    let fields = metadata.as_object_mut().unwrap();
    fields.extend(change.as_object().unwrap().clone());
    metadata
}

async fn register(home: &Home, metadata: Value) -> Answer {
    home.call("", "POST", &format!("{BASE}/register"), metadata).await
}

impl<'a> Client<'a> {
    pub(super) async fn new(home: &'a Home) -> Self {
        Self::with(home, json!({})).await
    }

    async fn with(home: &'a Home, change: Value) -> Self {
        let said = register(home, metadata(&change)).await;
        assert_eq!(said.status, 201, "{}", said.json);
        Self { home, id: said.json["client_id"].as_str().unwrap().to_owned() }
    }

    /// The address that the client opens in a browser; `change` replaces parameters, or with an empty value removes them.
    pub(super) fn address(&self, change: &[(&str, &str)]) -> String {
        let usual = [
            ("response_type", "code"),
            ("client_id", &self.id),
            ("redirect_uri", BACK),
            ("scope", "urn:matrix:client:api:* urn:matrix:client:device:PHONE"),
            ("state", "s&=é"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        let kept = usual.into_iter().filter(|(name, _)| !change.iter().any(|(other, _)| name == other));
        let fields: Vec<_> =
            kept.chain(change.iter().copied()).filter(|(_, value)| !value.is_empty()).collect();
        format!("{BASE}/authorize?{}", encoded(&fields))
    }

    /// A user lets the client in; gives the address that the browser is sent to.
    async fn let_in(&self, browser: &mut Browser<'_>, name: &str, change: &[(&str, &str)]) -> String {
        let mut page = browser.get(&self.address(change)).await;
        if page.html().contains("name=\"password\"") {
            page = browser.log_in(&page, name).await;
        }
        browser.submit(&page, "/authorize", &[("decision", "allow")]).await.location()
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let request = Request::post(format!("{BASE}{path}"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.home.send(request.body(Body::from(encoded(fields))).unwrap()).await
    }

    pub(super) async fn token_for(&self, code: &str, change: &[(&str, &str)]) -> Answer {
        let usual = [
            ("grant_type", "authorization_code"),
            ("client_id", self.id.as_str()),
            ("code", code),
            ("redirect_uri", BACK),
            ("code_verifier", VERIFIER),
        ];
        let kept = usual.into_iter().filter(|(name, _)| !change.iter().any(|(other, _)| name == other));
        self.post("/token", &kept.chain(change.iter().copied()).collect::<Vec<_>>()).await
    }

    async fn refresh(&self, token: &str) -> Answer {
        let fields = [("grant_type", "refresh_token"), ("client_id", &self.id), ("refresh_token", token)];
        self.post("/token", &fields).await
    }

    /// A user's session with this client, on a device.
    async fn session(&self, name: &str, device: &str) -> Tokens {
        let scope = format!("urn:matrix:client:api:* urn:matrix:client:device:{device}");
        let mut browser = Browser::new(self.home);
        let back = self.let_in(&mut browser, name, &[("scope", &scope)]).await;
        Tokens::of(self.token_for(&parameter(&back, "code"), &[]).await)
    }
}

/// What a client was given.
struct Tokens {
    access: String,
    refresh: String,
}

impl Tokens {
    #[track_caller]
    fn of(answer: Answer) -> Self {
        let said = answer.ok();
        let text = |field: &str| said[field].as_str().unwrap().to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token") }
    }

    async fn works(&self, home: &Home) -> bool {
        home.call(&self.access, "GET", "/account/whoami", Value::Null).await.status == 200
    }
}
