//! What is asked once more before it is done, with a proof of who asks: a link may have been made by anybody.

use chappe_accounts::DeviceInfo;
use ruma::UserId;

use super::overview::{describe, way};
use crate::{
    error::Error,
    fields::Fields,
    html::Html,
    login::Goal,
    page::Page,
    sso::{self, Why},
    visitor::Visitor,
};

/// Something to be done.
struct Question<'a> {
    /// What the form calls it, and the action that leads here.
    what: (&'static str, &'static str),
    device: Option<&'a str>,
    /// What the button says, in French and English.
    button: (&'static str, &'static str),
    /// A choice besides: its name, and what is said of it.
    choice: Option<(&'static str, &'static str, &'static str)>,
}

/// Whether a session is to end.
pub(super) async fn end_device(
    visitor: &Visitor,
    user: &UserId,
    device: &DeviceInfo,
    notice: Option<&'static str>,
) -> Result<Page, Error> {
    let mut body = visitor.html();
    body.say(
        "<p>Cette session sera terminée et son appareil déconnecté :</p>",
        "<p>This session will end, its device will be logged out:</p>",
    );
    describe(&mut body, device);
    let question = Question {
        what: ("end_device", "org.matrix.device_delete"),
        device: Some(device.device_id.as_str()),
        button: ("Terminer la session", "End the session"),
        choice: None,
    };
    ask(visitor, user, &mut body, &question, notice).await?;
    back(&mut body);
    Ok(visitor.page(visitor.say("Terminer une session", "End a session"), &body))
}

/// Whether the account is to be closed.
pub(super) async fn deactivate(
    visitor: &Visitor,
    user: &UserId,
    notice: Option<&'static str>,
) -> Result<Page, Error> {
    let mut body = visitor.html();
    body.say("<p>Le compte ", "<p>The account ").raw("<b>").text(user.as_str()).raw("</b> ");
    body.say(
        "sera fermé pour toujours : toutes ses sessions se terminent, il quitte ses salons, et son identifiant ne \
         pourra plus être utilisé.</p>",
        "will be closed for good: all its sessions end, it leaves its rooms, and its user id cannot be used again.</p>",
    );
    let question = Question {
        what: ("deactivate", "org.matrix.account_deactivate"),
        device: None,
        button: ("Fermer le compte", "Close the account"),
        choice: Some(("erase", "Oublier aussi mon nom et mes données", "Forget my name and my data as well")),
    };
    ask(visitor, user, &mut body, &question, notice).await?;
    back(&mut body);
    Ok(visitor.page(visitor.say("Fermer le compte", "Close the account"), &body))
}

/// Whether applications that wait for it may replace the identity.
pub(super) async fn reset(
    visitor: &Visitor,
    user: &UserId,
    notice: Option<&'static str>,
) -> Result<Page, Error> {
    let mut body = visitor.html();
    let accounts = visitor.oauth.accounts();
    let waiting = accounts.waiting_for_approval(user);
    if waiting.is_empty() {
        if let Some(notice) = notice {
            body.notice(notice);
        }
        body.say(
            "<p>Aucune application n'attend votre accord. Commencez dans votre application, puis ouvrez cette page.</p>",
            "<p>No application waits for your approval. Begin in your application, then open this page.</p>",
        );
    }
    for id in waiting {
        let Some(device) = accounts.device(user, &id).await? else { continue };
        body.say(
            "<p>Cette session demande à réinitialiser votre identité cryptographique. Vos contacts devront vous \
             vérifier à nouveau. N'acceptez que si vous venez de le demander vous-même.</p>",
            "<p>This session asks to reset your cryptographic identity. Your contacts will have to verify you again. \
             Accept only if you have just asked for it yourself.</p>",
        );
        describe(&mut body, &device);
        let question = Question {
            what: ("reset", "org.matrix.cross_signing_reset"),
            device: Some(id.as_str()),
            button: ("Réinitialiser mon identité", "Reset my identity"),
            choice: None,
        };
        ask(visitor, user, &mut body, &question, notice).await?;
    }
    back(&mut body);
    Ok(visitor.page(visitor.say("Identité cryptographique", "Cryptographic identity"), &body))
}

/// The form that does it: with the password, or once an identity provider has said anew who this is.
async fn ask(
    visitor: &Visitor,
    user: &UserId,
    body: &mut Html,
    question: &Question<'_>,
    notice: Option<&'static str>,
) -> Result<(), Error> {
    if let Some(notice) = notice {
        body.notice(notice);
    }
    let (what, action) = question.what;
    let by_password = !visitor.proved && visitor.oauth.accounts().has_password(user).await?;
    if visitor.proved || by_password {
        body.form("/account", &visitor.proof()).hidden("do", what);
        if let Some(device) = question.device {
            body.hidden("device_id", device);
        }
        if by_password {
            body.raw("<label>").say("Votre mot de passe", "Your password");
            body.password("password", "current-password").raw("</label>");
        }
        if let Some((name, french, english)) = question.choice {
            body.raw("<label class=\"check\"><input type=\"checkbox\" value=\"yes\" name=\"")
                .raw(name)
                .raw("\">");
            body.say(french, english).raw("</label>");
        }
        body.raw("<button class=\"main\">").say(question.button.0, question.button.1).raw("</button></form>");
    }
    if !visitor.proved {
        let mut here = Fields::default();
        here.set("action", action);
        if let Some(device) = question.device {
            here.set("device_id", device);
        }
        let known = visitor.oauth.sso();
        let providers = known.providers_of(user).await?;
        sso::links(body, &Goal::new("account", &here), &providers, Why::Prove);
    }
    Ok(())
}

fn back(body: &mut Html) {
    way(body, "org.matrix.devices_list", None, "Ne rien faire", "Do nothing");
}
