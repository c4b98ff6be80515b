//! What people do to their account, after they have shown once more who they are.

use axum::response::{IntoResponse, Response};
use chappe_accounts::{Erase, Error as Refusal, OtherDevices};
use http::StatusCode;
use ruma::{DeviceId, UserId};

use super::{Place, at};
use crate::{
    browser::{NotIn, Proved},
    error::Error,
    fields::Fields,
    login::{self, Goal},
    page::Page,
    visitor::{Posted, Visitor},
};

pub(crate) async fn act(Posted { visitor, fields }: Posted) -> Response {
    let Some(user) = visitor.user.clone() else {
        return login::page(&visitor, &Goal::new("account", &Fields::default()), "", None).into_response();
    };
    let done = attempt(&visitor, &user, &fields).await;
    done.unwrap_or_else(|error| visitor.problem(&error)).into_response()
}

async fn attempt(visitor: &Visitor, user: &UserId, fields: &Fields) -> Result<Page, Error> {
    let what = fields.need("do")?;
    let place = match what {
        "password" => Place::Overview,
        "end_device" => Place::EndDevice,
        "deactivate" => Place::Deactivate,
        "reset" => Place::Reset,
        _ => return Err(Error::request("there is nothing of this name to do")),
    };
    // A password is changed only by whoever knows the one before.
    if visitor.proved && place != Place::Overview {
        return perform(visitor, user, place, fields).await;
    }
    let password = fields.get("password").unwrap_or_default();
    match visitor.oauth.prove(visitor.origin, user.as_str(), password).await {
        Ok(_) => {}
        Err(NotIn::Failed(error)) => return Err(error),
        Err(NotIn::Wrong | NotIn::Locked) => {
            let sentence = visitor.say("Mot de passe incorrect.", "The password is wrong.");
            let mut page = at(visitor, user, place, fields, Some(sentence)).await?;
            page.status = StatusCode::FORBIDDEN;
            return Ok(page);
        }
    }
    perform(visitor, user, place, fields).await
}

async fn perform(visitor: &Visitor, user: &UserId, place: Place, fields: &Fields) -> Result<Page, Error> {
    match place {
        Place::EndDevice => end_device(visitor, user, fields).await,
        Place::Deactivate => deactivate(visitor, user, fields).await,
        Place::Reset => reset(visitor, user, fields).await,
        Place::Overview | Place::Device => change_password(visitor, user, fields).await,
    }
}

async fn end_device(visitor: &Visitor, user: &UserId, fields: &Fields) -> Result<Page, Error> {
    let device = <&DeviceId>::from(fields.need("device_id")?);
    visitor.oauth.accounts().log_out(user, device).await?;
    let sentence = visitor.say("La session est terminée.", "The session has ended.");
    at(visitor, user, Place::Overview, &Fields::default(), Some(sentence)).await
}

async fn deactivate(visitor: &Visitor, user: &UserId, fields: &Fields) -> Result<Page, Error> {
    let erase = if fields.get("erase").is_some() { Erase::Yes } else { Erase::No };
    visitor.oauth.accounts().deactivate(user, erase).await?;
    visitor.oauth.leave_rooms(user.to_owned());
    visitor.oauth.close_browser(&visitor.cookie).await?;
    let mut body = visitor.html();
    body.say("<p>Votre compte est fermé.</p>", "<p>Your account is closed.</p>");
    let mut page = visitor.page(visitor.say("Compte fermé", "Account closed"), &body);
    page.cookie = Some(visitor.cookie_line("", Some(0)));
    Ok(page)
}

async fn reset(visitor: &Visitor, user: &UserId, fields: &Fields) -> Result<Page, Error> {
    let device = <&DeviceId>::from(fields.need("device_id")?);
    let sentence = if visitor.oauth.accounts().approve(user, device) {
        visitor.say("C'est accordé. Revenez à votre application.", "Approved. Go back to your application.")
    } else {
        visitor.say(
            "Rien n'est accordé : la session n'attend rien, ou demande plus d'une chose. Si ce n'était pas vous, terminez-la.",
            "Nothing is granted: the session waits for nothing, or asks for more than one thing. If that was not you, end it.",
        )
    };
    at(visitor, user, Place::Reset, &Fields::default(), Some(sentence)).await
}

async fn change_password(visitor: &Visitor, user: &UserId, fields: &Fields) -> Result<Page, Error> {
    let overview = async |sentence| at(visitor, user, Place::Overview, fields, Some(sentence)).await;
    let new = fields.get("new_password").unwrap_or_default();
    if fields.get("again") != Some(new) {
        let sentence = visitor.say(
            "Les deux nouveaux mots de passe ne sont pas les mêmes.",
            "The two new passwords are not the same.",
        );
        return overview(sentence).await;
    }
    let ends = fields.get("end_sessions").is_some();
    let others = if ends { OtherDevices::LogOutExcept(None) } else { OtherDevices::Keep };
    match visitor.oauth.accounts().set_password(user, new, others).await {
        Ok(()) => {}
        Err(Refusal::WeakPassword(_) | Refusal::TooLarge(_)) => {
            let sentence = visitor.say(
                "Ce nouveau mot de passe est trop faible (ou beaucoup trop long).",
                "This new password is too weak (or far too long).",
            );
            return overview(sentence).await;
        }
        Err(error) => return Err(error.into()),
    }
    // The new password ended what this browser was logged in by.
    let oauth = &visitor.oauth;
    oauth.close_browser(&visitor.cookie).await?;
    let mark = oauth.accounts().log_in_mark(user).await?;
    let cookie = oauth.open_browser(Proved { user: user.to_owned(), mark, by: None }, None).await?;
    let mut body = visitor.html();
    body.say("<p>Votre mot de passe est changé.</p>", "<p>Your password is changed.</p>");
    super::overview::way(&mut body, "org.matrix.profile", None, "Votre compte", "Your account");
    let mut page = visitor.page(visitor.say("Mot de passe", "Password"), &body);
    page.cookie = Some(visitor.cookie_line(&cookie, Some(oauth.config().browser_session_seconds)));
    Ok(page)
}
