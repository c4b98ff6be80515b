//! Logging in on the server's own pages, as Element X does: registration, pages in a browser, tokens that are refreshed,
//! the page of the account, log-out.

use anyhow::{Context, Result, bail, ensure};
use matrix_sdk::{
    Client,
    authentication::oauth::registration::{ApplicationType, ClientMetadata, Localized, OAuthGrantType},
    reqwest::{self, Url, header, redirect::Policy},
    ruma::{
        api::client::discovery::get_authorization_server_metadata::v1::AccountManagementActionData,
        serde::Raw,
    },
};

/// Where a program says that it listens on the machine of its user, and where it does.
const REGISTERED: &str = "http://127.0.0.1/callback";
const REDIRECT: &str = "http://127.0.0.1:41337/callback";

/// A browser, as far as pages without scripts need one.
struct Browser {
    http: reqwest::Client,
    cookie: String,
}

/// What a browser shows: where it is and what is there, or where it was sent that is not of the web.
struct Page {
    at: Url,
    html: String,
}

impl Browser {
    fn new() -> Result<Self> {
        let http = reqwest::Client::builder().redirect(Policy::none()).build()?;
        Ok(Self { http, cookie: String::new() })
    }

    /// Goes somewhere and on from there, until a page is shown or the client is reached.
    async fn go(&mut self, to: Url, form: Option<String>) -> Result<Page> {
        let (mut to, mut form) = (to, form);
        for _ in 0..10 {
            if to.as_str().starts_with(REDIRECT) {
                return Ok(Page { at: to, html: String::new() });
            }
            let request = match form.take() {
                Some(form) => self
                    .http
                    .post(to.clone())
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form),
                None => self.http.get(to.clone()),
            };
            let answer = request.header(header::COOKIE, &self.cookie).send().await?;
            for line in answer.headers().get_all(header::SET_COOKIE) {
                self.cookie = line.to_str()?.split(';').next().unwrap_or_default().to_owned();
            }
            let Some(onward) = answer.headers().get(header::LOCATION) else {
                ensure!(answer.status().is_success(), "{to}: {} {}", answer.status(), answer.text().await?);
                return Ok(Page { at: to, html: answer.text().await? });
            };
            to = to.join(onward.to_str()?)?;
        }
        bail!("sent on without end")
    }

    /// Sends the form of a page that is posted to a path with this end.
    async fn submit(&mut self, page: &Page, action: &str, filled: &[(&str, &str)]) -> Result<Page> {
        let (_, form) = page
            .html
            .split("<form ")
            .filter_map(|form| form.split_once('>'))
            .find(|(tag, _)| tag.contains(&format!("{action}\"")))
            .with_context(|| format!("no form for {action} in {}", page.html))?;
        let (tag, _) = page.html.split_once(form).context("a form begins somewhere")?;
        let path = tag.rsplit_once("action=\"").and_then(|(_, rest)| rest.split('"').next());
        let to = page.at.join(&plain(path.context("a form leads somewhere")?))?;
        let mut query = to.clone();
        query.set_query(None);
        let form = form.split("</form>").next().unwrap_or_default();
        for field in form.split("<input type=\"hidden\" name=\"").skip(1) {
            let (name, rest) = field.split_once("\" value=\"").context("a field without a value")?;
            let value = rest.split('"').next().unwrap_or_default();
            query.query_pairs_mut().append_pair(&plain(name), &plain(value));
        }
        query.query_pairs_mut().extend_pairs(filled);
        self.go(to, query.query().map(str::to_owned)).await
    }
}

/// The text that an attribute stands for.
fn plain(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    text.replace("&#39;", "'").replace("&amp;", "&")
}

fn metadata() -> Result<Raw<ClientMetadata>> {
    let redirect_uris = vec![Url::parse(REGISTERED)?];
    let grants = vec![OAuthGrantType::AuthorizationCode { redirect_uris }, OAuthGrantType::DeviceCode];
    let home = Localized::new(Url::parse("https://example.com/")?, []);
    let named = ClientMetadata::new(ApplicationType::Native, grants, home);
    Ok(Raw::new(&ClientMetadata { client_name: Some(Localized::new("Rust".to_owned(), [])), ..named })?)
}

/// The whole way of somebody who has an account with a password.
pub(crate) async fn whole_way(at: &Url) -> Result<()> {
    let password = at.password().context("no password")?;
    let mut base = at.clone();
    base.set_username("").ok().context("no user name")?;
    base.set_password(None).ok().context("no password")?;
    let client = Client::builder().homeserver_url(base).handle_refresh_tokens().build().await?;
    let oauth = client.oauth();
    let server = oauth.server_metadata().await?;

    let redirect = Url::parse(REDIRECT)?;
    let asked = oauth.login(redirect, None, Some(metadata()?.into()), None).build().await?;
    let mut browser = Browser::new()?;
    let page = browser.go(asked.url, None).await?;
    let filled = [("name", at.username()), ("password", password)];
    let consent = browser.submit(&page, "/login", &filled).await?;
    let back = browser.submit(&consent, "/authorize", &[("decision", "allow")]).await?;
    oauth.finish_login(back.at.into()).await?;
    let user = client.whoami().await?.user_id;
    ensure!(user.localpart() == at.username(), "logged in as {user}");
    client.encryption().wait_for_e2ee_initialization_tasks().await;

    let before = client.session_tokens().context("no tokens")?;
    oauth.refresh_access_token().await?;
    let after = client.session_tokens().context("no tokens")?;
    ensure!(before.access_token != after.access_token && before.refresh_token != after.refresh_token);
    client.whoami().await?;

    let device = client.device_id().context("no device")?.to_owned();
    let view = AccountManagementActionData::DeviceView((&*device).into());
    let account = server.account_management_url_with_action(view).context("no page of the account")?;
    let shown = browser.go(account, None).await?;
    ensure!(shown.html.contains(device.as_str()), "{}", shown.html);

    // What `logout` does; the SDK refuses to do it without TLS, which these tests leave out.
    let mut form = server.revocation_endpoint.clone();
    let id = oauth.client_id().context("no client")?.as_str().to_owned();
    form.query_pairs_mut().append_pair("token", &after.access_token).append_pair("client_id", &id);
    browser.go(server.revocation_endpoint, form.query().map(str::to_owned)).await?;
    // Neither token is worth anything: the SDK tries to refresh the one with the other.
    let error = client.whoami().await.err().context("the session still works")?.to_string();
    ensure!(error.contains("invalid_grant"), "{error}");
    Ok(())
}
