//! Logging in by an identity provider: the whole way, with a browser and a provider in the process.

mod confirm;
mod hostile;
mod pages;
mod people;
mod provider;
mod way;

use std::{collections::BTreeMap, sync::Arc};

use axum::body::Body;
use chappe_world::FakeNet;
use http::{Request, StatusCode, header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use url::form_urlencoded;

use self::provider::{Person, Provider};
use super::home::{Answer, Home};

/// Where a log-in begins.
const REDIRECT: &str = "/_matrix/client/v3/login/sso/redirect";
/// A client that gets its token without a question.
const CLIENT: &str = "tchap://connect";

/// A server with a provider, and the network that they are on.
struct Stage {
    home: Home,
    provider: Provider,
    net: FakeNet,
    _secret: tempfile::NamedTempFile,
}

impl Stage {
    /// Agents of a State: addresses are believed and open the accounts that have them.
    async fn of_agents() -> Self {
        let trusting = "userinfo = \"signed\"\nemails = \"trusted\"\nlink_by_email = true\n";
        Self::with("[identity]\nprofile = \"agents\"\naddresses = \"any\"\n", trusting).await
    }

    /// A server with more sections, and more lines about its provider.
    async fn with(sections: &str, about_provider: &str) -> Self {
        let net = FakeNet::new();
        let provider = Provider::on(&net);
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), format!("{}\n", provider::SECRET)).unwrap();
        let rates = if sections.contains("[client.rates]") {
            ""
        } else {
            "[client.rates]\nsso = { per_second = 0.0, burst = 0 }\nlogin_by_ip = { per_second = 0.0, burst = 0 }\n"
        };
        let text = format!(
            "{rates}{sections}\n[sso]\ntrusted_clients = [\"tchap://connect\", \"https://app.test/web\"]\n\
             [[sso.providers]]\nid = \"proconnect\"\nname = \"ProConnect\"\nissuer = \"{}\"\n\
             client_id = \"chappe\"\nclient_secret_file = \"{}\"\n{about_provider}",
            provider::ISSUER,
            secret.path().display()
        );
        let home = Home::on(&net, &text).await;
        Self { home, provider, net, _secret: secret }
    }

    fn browser(&self) -> Browser<'_> {
        Browser { home: &self.home, cookies: Arc::default() }
    }

    /// The whole way in a fresh browser, to where it ends.
    async fn come(&self, person: &Person) -> Answer {
        let browser = self.browser();
        let back = self.provider.log_in(&browser.depart(CLIENT).await, person);
        browser.get(&back).await
    }

    /// The whole way, and the log-in of the client at its end.
    async fn logged_in(&self, person: &Person) -> Value {
        let arrived = self.come(person).await;
        let token = token_in(&location(&arrived));
        let body = json!({ "type": "m.login.token", "token": token });
        self.home.call("", "POST", "/login", body).await.ok()
    }

    /// The whole way, to a page that lets nobody in; gives its text.
    async fn refused(&self, person: &Person, status: StatusCode) -> String {
        page(&self.come(person).await, status)
    }
}

/// Somebody as the provider knows them.
fn person(sub: &str, email: &str) -> Person {
    let claims = json!({ "sub": sub, "email": email, "given_name": "Jean", "usual_name": "Martin" });
    serde_json::from_value(claims).unwrap()
}

/// A browser: it keeps cookies.
struct Browser<'a> {
    home: &'a Home,
    cookies: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Browser<'_> {
    async fn send(&self, request: http::request::Builder, body: String) -> Answer {
        let kept: Vec<String> =
            self.cookies.lock().iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = request.header(header::COOKIE, kept.join("; ")).header(header::ACCEPT_LANGUAGE, "en");
        let answer = self.home.send(request.body(Body::from(body)).unwrap()).await;
        for set in answer.headers.get_all(header::SET_COOKIE) {
            let text = set.to_str().unwrap();
            // What marks a browser that nobody is logged in with ends with it.
            let lasts = if text.starts_with("__Host-chappe-oauth") { "" } else { "; Max-Age=" };
            for wanted in ["; Path=/", "; HttpOnly", "; SameSite=Lax", "; Secure", lasts] {
                assert!(text.contains(wanted), "{text}");
            }
            let (name, value) = text.split(';').next().unwrap().split_once('=').unwrap();
            assert!(name.starts_with("__Host-"), "{name}");
            self.cookies.lock().retain(|known, _| known != name);
            if !value.is_empty() {
                self.cookies.lock().insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path), String::new()).await
    }

    /// Presses the button of a page.
    async fn press(&self, page: &str) -> Answer {
        let value = |name: &str| attribute(page, &format!("name=\"{name}\" value=\""));
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("ticket", &value("ticket")).append_pair("lang", &value("lang"));
        let request = Request::post(attribute(page, "action=\""))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request, form.finish()).await
    }

    /// Begins a log-in to a client; gives where the provider is.
    async fn depart(&self, client: &str) -> String {
        let query: String = form_urlencoded::byte_serialize(client.as_bytes()).collect();
        location(&self.get(&format!("{REDIRECT}/proconnect?redirectUrl={query}")).await)
    }
}

/// What stands behind a beginning, up to the next quotation mark.
#[track_caller]
fn attribute(page: &str, beginning: &str) -> String {
    let (_, rest) = page.split_once(beginning).expect(page);
    rest.split('"').next().unwrap().replace("&amp;", "&")
}

/// Where an answer sends the browser; nothing on the way is kept.
#[track_caller]
fn location(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.bytes);
    assert_eq!(answer.status, StatusCode::FOUND, "{text}");
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    answer.headers[header::LOCATION].to_str().unwrap().to_owned()
}

/// The text of a page that nobody can frame, that runs nothing and is not kept.
#[track_caller]
fn page(answer: &Answer, status: StatusCode) -> String {
    let text = String::from_utf8(answer.bytes.clone()).unwrap();
    assert_eq!(answer.status, status, "{text}");
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(answer.headers[header::X_FRAME_OPTIONS], "DENY");
    assert_eq!(answer.headers[header::REFERRER_POLICY], "no-referrer");
    let policy = answer.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    text
}

/// The log-in token in an address.
#[track_caller]
fn token_in(address: &str) -> String {
    let (_, token) = address.split_once("loginToken=").expect(address);
    token.split(['&', '#']).next().unwrap().to_owned()
}
