//! `GET` and `POST …/link`: a user types the code that a device shows, and decides (RFC 8628, section 3.3).

use axum::{
    extract::RawQuery,
    response::{IntoResponse, Response},
};
use ruma::UserId;

use crate::{
    authorize::{another_account, decision, known_device, whole_access},
    clients::client_id,
    device_codes::{Grantor, Waiting},
    error::Error,
    fields::Fields,
    login::{self, Goal},
    page::Page,
    secrets::sha256,
    visitor::{Posted, Visitor},
};

pub(super) async fn show(visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let page = match Fields::parse(query.unwrap_or_default().as_bytes()) {
        Ok(fields) => look(&visitor, &fields).await,
        Err(error) => Err(error),
    };
    page.unwrap_or_else(|error| visitor.problem(&error)).into_response()
}

pub(super) async fn decide(Posted { visitor, fields }: Posted) -> Response {
    let page = match fields.get("decision") {
        Some(decision) => settle(&visitor, &fields, decision == "allow").await,
        None => look(&visitor, &fields).await,
    };
    page.unwrap_or_else(|error| visitor.problem(&error)).into_response()
}

/// Shows what waits behind a code, or asks for one.
async fn look(visitor: &Visitor, fields: &Fields) -> Result<Page, Error> {
    let goal = Goal::link(fields);
    let Some(user) = &visitor.user else { return Ok(login::page(visitor, &goal, "", None)) };
    let Some(code) = fields.get("user_code") else { return Ok(ask(visitor, false)) };
    let oauth = &visitor.oauth;
    oauth.count("oauth user code", user.as_str(), oauth.config().rates.user_code)?;
    match oauth.devices().find(oauth.world().now(), code) {
        Some(waiting) => consent(visitor, user, &waiting, code).await,
        None => Ok(ask(visitor, true)),
    }
}

async fn settle(visitor: &Visitor, fields: &Fields, allowed: bool) -> Result<Page, Error> {
    let oauth = &visitor.oauth;
    let Some(user) = &visitor.user else {
        return Ok(login::page(visitor, &Goal::link(fields), "", None));
    };
    oauth.count("oauth user code", user.as_str(), oauth.config().rates.user_code)?;
    let by = if allowed {
        let mark = oauth.accounts().log_in_mark(user).await?;
        Some(Grantor { user: user.clone(), mark, browser: Some(sha256(&visitor.cookie)) })
    } else {
        None
    };
    if !oauth.devices().decide(oauth.world().now(), fields.need("user_code")?, by) {
        return Ok(ask(visitor, true));
    }
    let mut body = visitor.html();
    if allowed {
        body.say(
            "<p>C'est fait. Vous pouvez revenir à votre appareil.</p>",
            "<p>Done. You can go back to your device.</p>",
        );
    } else {
        body.say("<p>L'appareil n'est pas connecté.</p>", "<p>The device is not logged in.</p>");
    }
    Ok(visitor.page(visitor.say("Connecter un appareil", "Log a device in"), &body))
}

/// The page that asks for a code.
fn ask(visitor: &Visitor, wrong: bool) -> Page {
    let mut body = visitor.html();
    if wrong {
        let sentence =
            visitor.say("Ce code n'est pas valable ou a expiré.", "This code is not valid or has expired.");
        body.notice(sentence);
    }
    body.form("/link", &visitor.proof());
    body.say("<label>Le code que montre l'appareil", "<label>The code that the device shows");
    body.raw("<input name=\"user_code\" class=\"code\" maxlength=\"20\" required autocomplete=\"off\" autocapitalize=\"characters\" spellcheck=\"false\"></label>");
    body.raw("<button class=\"main\">").say("Continuer", "Go on").raw("</button></form>");
    visitor.page(visitor.say("Connecter un appareil", "Log a device in"), &body)
}

/// The page on which a user lets a device in. It shows the code: somebody may have sent the link to somebody else's device.
async fn consent(visitor: &Visitor, user: &UserId, waiting: &Waiting, code: &str) -> Result<Page, Error> {
    let client = visitor.oauth.client(&client_id(&waiting.client)).await?;
    let mut body = visitor.html();
    body.say(
        "<p>L'appareil montre-t-il ce code ? S'il ne le montre pas, refusez.</p>",
        "<p>Does the device show this code? If it does not, refuse.</p>",
    );
    body.raw("<p class=\"code\">").text(&code.to_ascii_uppercase()).raw("</p><p><b>");
    body.text(&client.metadata.name()).raw("</b> ");
    body.say("(dit être de ", "(says it is from ").text(&client.metadata.host()).raw(") ");
    body.say("demande à utiliser votre compte ", "asks to use your account ");
    body.raw("<b>").text(user.as_str()).raw("</b>.</p>");
    whole_access(&mut body);
    known_device(visitor, user, &waiting.scope.device, &mut body).await?;
    body.form("/link", &visitor.proof()).hidden("user_code", code);
    decision(&mut body);
    another_account(visitor, &Goal::with_code(code), &mut body);
    Ok(visitor.page(visitor.say("Connecter un appareil", "Log a device in"), &body))
}
