//! `GET` and `POST …/authorize`: a client asks for a user, who decides (client-server API, "Authorisation code flow").

use axum::{
    extract::RawQuery,
    response::{IntoResponse, Response},
};
use ruma::UserId;

use crate::{
    error::Error,
    fields::Fields,
    html::Html,
    login::{self, Goal},
    page::{Page, onward},
    redirect,
    request::{Authorization, Refused},
    sign_up,
    visitor::{Posted, Visitor},
};

pub(super) async fn show(visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let fields = match Fields::parse(query.unwrap_or_default().as_bytes()) {
        Ok(fields) => fields,
        Err(error) => return visitor.problem(&error).into_response(),
    };
    let authorization = match visitor.oauth.authorization(&fields).await {
        Ok(authorization) => authorization,
        Err(refused) => return refusal(&visitor, refused).into_response(),
    };
    let prompt = fields.get("prompt");
    let anew = matches!(prompt, Some("login" | "create" | "select_account"));
    let page = match &visitor.user {
        Some(user) if !anew => consent(&visitor, user, &authorization, &fields).await,
        _ if prompt == Some("create") && visitor.oauth.makes_accounts() => {
            Ok(sign_up::page(&visitor, &Goal::new("authorize", &fields), &Fields::default(), None))
        }
        _ => Ok(login::page(&visitor, &Goal::new("authorize", &fields), &login::hint(&fields), None)),
    };
    page.unwrap_or_else(|error| visitor.problem(&error)).into_response()
}

pub(super) async fn decide(Posted { visitor, fields }: Posted) -> Response {
    let fields_asked = match Fields::parse(fields.get("query").unwrap_or_default().as_bytes()) {
        Ok(fields) => fields,
        Err(error) => return visitor.problem(&error).into_response(),
    };
    let authorization = match visitor.oauth.authorization(&fields_asked).await {
        Ok(authorization) => authorization,
        Err(refused) => return refusal(&visitor, refused).into_response(),
    };
    let Some(user) = &visitor.user else {
        let goal = Goal::new("authorize", &fields_asked);
        return login::page(&visitor, &goal, "", None).into_response();
    };
    let back = &authorization.back;
    if fields.get("decision") != Some("allow") {
        return onward(&back.refusal(&Error::AccessDenied), None);
    }
    let oauth = &visitor.oauth;
    if let Err(error) = oauth.count("oauth grant", user.as_str(), oauth.config().rates.token) {
        return visitor.problem(&error).into_response();
    }
    match oauth.code(&authorization, user, Some(&visitor.cookie)).await {
        Ok(code) => onward(&back.to("code", &code), None),
        Err(error) => visitor.problem(&error).into_response(),
    }
}

/// A refused request is told to the user. That leads nowhere by itself: whoever made the link could be anybody.
fn refusal(visitor: &Visitor, refused: Refused) -> Page {
    let (error, back) = match refused {
        Refused::Here(error) => return visitor.problem(&error),
        Refused::Back(error, back) => (error, back),
    };
    let mut body = visitor.html();
    body.say(
        "<p>L'application a fait une demande qui n'est pas valable.</p>",
        "<p>The application has made a request that is not valid.</p>",
    );
    body.raw("<p><small>")
        .text(error.code())
        .raw(" – ")
        .text(&error.to_string())
        .raw("</small></p><p><a rel=\"noreferrer\" href=\"");
    body.text(&back.refusal(&error)).raw("\">").say("Revenir à l'application", "Back to the application");
    body.raw("</a> (").text(&redirect::place(&back.redirect_uri)).raw(")</p>");
    let mut page = visitor.page(visitor.say("Cela n'a pas marché", "That did not work"), &body);
    page.status = http::StatusCode::BAD_REQUEST;
    page
}

/// The page on which a user lets a client in.
async fn consent(
    visitor: &Visitor,
    user: &UserId,
    authorization: &Authorization,
    fields: &Fields,
) -> Result<Page, Error> {
    let (metadata, device) = (&authorization.client.metadata, &authorization.scope.device);
    let redirect_uri = &authorization.back.redirect_uri;
    let mut body = visitor.html();
    body.raw("<p><b>").text(&metadata.name()).raw("</b> ");
    body.say("(dit être de ", "(says it is from ").text(&metadata.host()).raw(") ");
    body.say("demande à utiliser votre compte ", "asks to use your account ");
    body.raw("<b>").text(user.as_str()).raw("</b>.</p>");
    whole_access(&mut body);
    body.say("<p>La réponse sera envoyée à ", "<p>The answer will be sent to ");
    body.raw("<b>").text(&redirect::place(redirect_uri)).raw("</b>.</p>");
    known_device(visitor, user, device, &mut body).await?;
    policies(metadata, &mut body);
    body.form("/authorize", &visitor.proof()).hidden("query", &fields.query(&[]));
    decision(&mut body);
    another_account(visitor, &Goal::new("authorize", fields), &mut body);
    let title = visitor.say("Autoriser une application", "Let an application in");
    let mut page = visitor.page(title, &body);
    page.leads_to = Some(redirect::source(redirect_uri));
    Ok(page)
}

/// What an application that is let in can do.
pub(crate) fn whole_access(body: &mut Html) {
    body.say(
        "<p>Elle pourra lire et envoyer vos messages et agir en votre nom. N'acceptez que si vous venez de le demander \
         vous-même.</p>",
        "<p>It will be able to read and send your messages and to act in your name. Accept only if you have just asked \
         for it yourself.</p>",
    );
}

/// The session that is logged in, and what becomes of one that is there.
pub(crate) async fn known_device(
    visitor: &Visitor,
    user: &UserId,
    device: &ruma::DeviceId,
    body: &mut Html,
) -> Result<(), Error> {
    body.say("<p>Nouvelle session : ", "<p>New session: ").text(device.as_str()).raw(".</p>");
    if let Some(known) = visitor.oauth.accounts().device(user, device).await? {
        let name = known.name.unwrap_or_default();
        body.raw("<p class=\"notice\">");
        body.say("Elle prend la place de votre session ", "It takes the place of your session ");
        body.text(device.as_str()).raw(" ").text(&name).raw(".</p>");
    }
    Ok(())
}

fn policies(metadata: &crate::metadata::Metadata, body: &mut Html) {
    let pages = [
        (
            &metadata.tos_uri,
            "Conditions d'utilisation de l'application",
            "Terms of service of the application",
        ),
        (&metadata.policy_uri, "Règles de l'application", "Policy of the application"),
    ];
    for (uri, french, english) in pages {
        let Some(uri) = uri else { continue };
        body.raw("<p><a rel=\"noreferrer\" target=\"_blank\" href=\"").text(uri).raw("\">");
        body.say(french, english).raw("</a></p>");
    }
}

/// The two buttons.
pub(crate) fn decision(body: &mut Html) {
    body.raw("<button class=\"main\" name=\"decision\" value=\"allow\">").say("Autoriser", "Allow");
    body.raw("</button><button name=\"decision\" value=\"refuse\">").say("Refuser", "Refuse");
    body.raw("</button></form>");
}

/// The way out for somebody who is not this user.
pub(crate) fn another_account(visitor: &Visitor, goal: &Goal, body: &mut Html) {
    body.form("/logout", &visitor.proof());
    goal.hide(body);
    body.raw("<button>").say("Utiliser un autre compte", "Use another account").raw("</button></form>");
}
