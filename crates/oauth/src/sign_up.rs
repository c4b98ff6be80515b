//! `GET` and `POST …/sign_up`: a new account, by the rules of `POST /register`; then on to where somebody was going.
//!
//! Where an address has to be proved it is asked for first; name and password are asked for when the mail is on its way.

use axum::{
    extract::RawQuery,
    response::{IntoResponse, Response},
};
use chappe_accounts::{Error as Refusal, LogInMethod};
use chappe_identity::{Purpose, SignUp, SignUpError, TokenRequest};
use http::StatusCode;
use ruma::{ClientSecret, OwnedUserId, api::client::uiaa::AuthData};
use serde_json::{Value, json};

use crate::{
    OAuth,
    api::BASE,
    browser::Proved,
    error::{Error, Result},
    fields::Fields,
    html::Html,
    login::Goal,
    page::{Page, onward},
    sso::{self, Why},
    visitor::{Posted, Visitor},
};

/// Characters of the secret that a validation of an address is known by.
const SECRET_LENGTH: usize = 43;

/// Why there is no account yet.
enum Wrong {
    /// Something that whoever signs up can change, in French and English.
    Said(&'static str, &'static str),
    /// The same, in words that are those of the domain.
    Worded(String),
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Wrong {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl OAuth {
    /// Whether there is any way to a new account here.
    pub(crate) fn makes_accounts(&self) -> bool {
        self.registration().is_possible() || self.sso().providers().any(|provider| provider.accounts.create)
    }

    /// Whether an address has to be proved.
    fn wants_address(&self) -> bool {
        let registration = self.registration();
        registration.email && !registration.open
    }
}

/// The way to the page.
pub(crate) fn link(body: &mut Html, goal: &Goal) {
    body.raw("<p><a href=\"").raw(BASE).raw("/sign_up?").text(&goal.parameters()).raw("\">");
    body.say("Créer un compte", "Create an account").raw("</a></p>");
}

pub(super) async fn show(visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let goal = Fields::parse(query.unwrap_or_default().as_bytes()).and_then(|fields| Goal::read(&fields));
    match goal {
        Ok(goal) => page(&visitor, &goal, &Fields::default(), None).into_response(),
        Err(error) => visitor.problem(&error).into_response(),
    }
}

pub(super) async fn handler(Posted { visitor, fields }: Posted) -> Response {
    let goal = match Goal::read(&fields) {
        Ok(goal) => goal,
        Err(error) => return visitor.problem(&error).into_response(),
    };
    let waits = visitor.oauth.wants_address() && fields.get("sid").is_none();
    let done =
        if waits { mail(&visitor, &goal, &fields).await } else { enter(&visitor, &goal, &fields).await };
    let notice = match done {
        Ok(response) => return response,
        Err(Wrong::Failed(error)) => return visitor.problem(&error).into_response(),
        Err(Wrong::Said(french, english)) => visitor.say(french, english).to_owned(),
        Err(Wrong::Worded(text)) => text,
    };
    let mut page = page(&visitor, &goal, &fields, Some(&notice));
    page.status = StatusCode::FORBIDDEN;
    page.into_response()
}

/// Sends a mail to the address, and asks for the rest.
async fn mail(visitor: &Visitor, goal: &Goal, fields: &Fields) -> Result<Response, Wrong> {
    let oauth = &visitor.oauth;
    count(visitor)?;
    let secret = oauth.world().token(SECRET_LENGTH);
    let client_secret = <&ClientSecret>::try_from(&*secret).map_err(|_| Error::Internal)?;
    let request = TokenRequest {
        address: fields.get("email").unwrap_or_default(),
        client_secret,
        send_attempt: 1,
        next_link: None,
        ip: Some(visitor.origin.0),
        language: Some(visitor.language),
    };
    let sid = oauth.identity().request_token(Purpose::Registration, request).await.map_err(worded)?;
    let mut known = fields.clone();
    known.set("sid", sid.as_str());
    known.set("client_secret", &secret);
    Ok(page(visitor, goal, &known, None).into_response())
}

/// Makes the account and logs the browser in.
async fn enter(visitor: &Visitor, goal: &Goal, fields: &Fields) -> Result<Response, Wrong> {
    let oauth = &visitor.oauth;
    count(visitor)?;
    let password = fields.get("password").unwrap_or_default();
    if fields.get("again") != Some(password) {
        return Err(Wrong::Said(
            "Les deux mots de passe ne sont pas les mêmes.",
            "The two passwords are not the same.",
        ));
    }
    let user = sign_up(oauth, fields, password, &visitor.origin.subject()).await?;
    let mark = oauth.accounts().log_in_mark(&user).await?;
    oauth.close_browser(&visitor.cookie).await?;
    let proved = Proved { user, mark, by: Some(LogInMethod::SignUp) };
    let cookie = oauth.open_browser(proved, None).await?;
    let line = visitor.cookie_line(&cookie, Some(oauth.config().browser_session_seconds));
    Ok(onward(&goal.address(), Some(line)))
}

/// Shows the proofs one after the other, as a client does.
async fn sign_up(
    oauth: &OAuth,
    fields: &Fields,
    password: &str,
    address: &str,
) -> Result<OwnedUserId, Wrong> {
    let mut session = None;
    for mut said in proofs(oauth, fields) {
        said["session"] = json!(session.take());
        let auth: AuthData =
            serde_json::from_value(said).map_err(|_| Error::request("a proof is not in the form of one"))?;
        let username = fields.get("name");
        let wanted = SignUp { username, password: Some(password), auth: Some(&auth), address };
        match oauth.service().sign_up(oauth.accounts(), &oauth.registration(), wanted).await {
            Ok(user) => return Ok(user),
            Err(SignUpError::Accounts(Refusal::Authenticate(info))) if info.auth_error.is_none() => {
                session = info.session;
            }
            Err(SignUpError::Accounts(error)) => return Err(sentence(error)),
            Err(SignUpError::Identity(error)) => return Err(worded(error)),
            Err(_) => return Err(Error::Internal.into()),
        }
    }
    Err(sentence(Refusal::Forbidden("registration is not open")))
}

/// What the configuration asks for.
fn proofs(oauth: &OAuth, fields: &Fields) -> Vec<Value> {
    let registration = oauth.registration();
    if registration.open {
        return vec![json!({ "type": "m.login.dummy" })];
    }
    let said = |name: &str| fields.get(name).unwrap_or_default();
    let mut proofs = Vec::new();
    if registration.email {
        let credentials = json!({ "sid": said("sid"), "client_secret": said("client_secret") });
        proofs.push(json!({ "type": "m.login.email.identity", "threepid_creds": credentials }));
    }
    // Last: a token that was shown is taken for as long as the rest may follow.
    if registration.token {
        proofs.push(json!({ "type": "m.login.registration_token", "token": said("token").trim() }));
    }
    proofs
}

fn count(visitor: &Visitor) -> Result<()> {
    visitor.oauth.count("registration", &visitor.origin.subject(), visitor.oauth.log_ins().sign_ups)
}

/// What whoever signs up can do about it.
fn sentence(error: Refusal) -> Wrong {
    match error {
        Refusal::UserInUse => Wrong::Said("Cet identifiant est déjà pris.", "This user name is taken."),
        Refusal::InvalidUsername(_) | Refusal::Reserved => {
            Wrong::Said("Cet identifiant n'est pas possible.", "This user name is not possible.")
        }
        Refusal::WeakPassword(_) | Refusal::TooLarge(_) => Wrong::Said(
            "Ce mot de passe est trop faible (ou beaucoup trop long).",
            "This password is too weak (or far too long).",
        ),
        Refusal::ThreepidInUse | Refusal::AddressDenied(_) => {
            Wrong::Said("Cette adresse ne peut pas être utilisée.", "This address cannot be used.")
        }
        Refusal::Authenticate(_) | Refusal::Forbidden(_) | Refusal::Invalid(_) | Refusal::NotFound(_) => {
            Wrong::Said(
                "Le lien du courriel n'a pas encore été ouvert, ou le code d'inscription n'est pas bon.",
                "The link in the mail has not been opened yet, or the registration token is not right.",
            )
        }
        error => Wrong::Failed(error.into()),
    }
}

fn worded(error: chappe_identity::Error) -> Wrong {
    use chappe_identity::Error as E;
    match error {
        E::TooMany { retry_after } => {
            Wrong::Failed(Error::Limited(chappe_web::Error::limit_exceeded(retry_after)))
        }
        E::Store(error) => Wrong::Failed(error.into()),
        error => Wrong::Worded(error.to_string()),
    }
}

/// The page that asks for what is needed next; what was said already is in it.
pub(crate) fn page(visitor: &Visitor, goal: &Goal, known: &Fields, notice: Option<&str>) -> Page {
    let oauth = &visitor.oauth;
    let mut body = visitor.html();
    if let Some(notice) = notice {
        body.raw("<p class=\"notice\" role=\"status\">").text(notice).raw("</p>");
    }
    if oauth.registration().is_possible() {
        form(visitor, goal, known, &mut body);
    }
    let known = oauth.sso();
    let makes = known.providers().filter(|provider| provider.accounts.create);
    sso::links(&mut body, goal, &makes.collect::<Vec<_>>(), Why::SignUp);
    body.raw("<p><a href=\"").text(&goal.address()).raw("\">");
    body.say("J'ai déjà un compte", "I have an account already").raw("</a></p>");
    visitor.page(visitor.say("Créer un compte", "Create an account"), &body)
}

fn form(visitor: &Visitor, goal: &Goal, known: &Fields, body: &mut Html) {
    let oauth = &visitor.oauth;
    let mailed = known.get("sid").zip(known.get("client_secret"));
    let said = |name: &str| known.get(name).unwrap_or_default();
    if mailed.is_some() {
        body.say(
            "<p>Un courriel vous a été envoyé. Ouvrez le lien qu'il contient, puis revenez ici.</p>",
            "<p>A mail is on its way to you. Open the link in it, then come back here.</p>",
        );
    }
    body.form("/sign_up", &visitor.proof());
    goal.hide(body);
    if oauth.wants_address() && mailed.is_none() {
        body.say("<label>Adresse e-mail", "<label>E-mail address");
        body.raw("<input type=\"email\" name=\"email\" maxlength=\"255\" required autocomplete=\"email\"");
        body.raw(" value=\"").text(said("email")).raw("\"></label><button class=\"main\">");
        body.say("Continuer", "Go on").raw("</button></form>");
        return;
    }
    if let Some((sid, secret)) = mailed {
        body.hidden("sid", sid).hidden("client_secret", secret);
    }
    if !(oauth.wants_address() && oauth.identity().names_accounts()) {
        body.say("<label>Identifiant", "<label>User name");
        body.raw("<input name=\"name\" maxlength=\"255\" required autocomplete=\"username\"");
        body.raw(" autocapitalize=\"none\" spellcheck=\"false\" value=\"").text(said("name"));
        body.raw("\"></label>");
    }
    body.raw("<label>").say("Mot de passe", "Password").password("password", "new-password");
    body.raw("</label><label>").say("Encore une fois", "Once more").password("again", "new-password");
    body.raw("</label>");
    let registration = oauth.registration();
    if registration.token && !registration.open {
        body.say("<label>Code d'inscription", "<label>Registration token");
        body.raw("<input name=\"token\" maxlength=\"64\" required autocomplete=\"off\" value=\"");
        body.text(said("token")).raw("\"></label>");
    }
    body.raw("<button class=\"main\">").say("Créer le compte", "Create the account").raw("</button></form>");
}
