//! What is asked once more before it is done, with the password: a link may have been made by anybody.

use chappe_accounts::DeviceInfo;
use ruma::UserId;

use super::overview::{describe, way};
use crate::{error::Error, html::Html, page::Page, visitor::Visitor};

/// Whether a session is to end.
pub(super) fn end_device(visitor: &Visitor, device: &DeviceInfo, notice: Option<&'static str>) -> Page {
    let mut body = visitor.html();
    body.say(
        "<p>Cette session sera terminée et son appareil déconnecté :</p>",
        "<p>This session will end, its device will be logged out:</p>",
    );
    describe(&mut body, device);
    let id = device.device_id.as_str();
    ask(visitor, &mut body, ("end_device", Some(id)), notice);
    body.say("Terminer la session", "End the session").raw("</button></form>");
    back(&mut body);
    visitor.page(visitor.say("Terminer une session", "End a session"), &body)
}

/// Whether the account is to be closed.
pub(super) fn deactivate(visitor: &Visitor, user: &UserId, notice: Option<&'static str>) -> Page {
    let mut body = visitor.html();
    body.say("<p>Le compte ", "<p>The account ").raw("<b>").text(user.as_str()).raw("</b> ");
    body.say(
        "sera fermé pour toujours : toutes ses sessions se terminent, il quitte ses salons, et son identifiant ne \
         pourra plus être utilisé.</p>",
        "will be closed for good: all its sessions end, it leaves its rooms, and its user id cannot be used again.</p>",
    );
    ask(visitor, &mut body, ("deactivate", None), notice);
    body.say("Fermer le compte", "Close the account").raw("</button><label class=\"check\">");
    body.raw("<input type=\"checkbox\" name=\"erase\" value=\"yes\">");
    body.say("Oublier aussi mon nom et mes données", "Forget my name and my data as well");
    body.raw("</label></form>");
    back(&mut body);
    visitor.page(visitor.say("Fermer le compte", "Close the account"), &body)
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
        ask(visitor, &mut body, ("reset", Some(id.as_str())), notice);
        body.say("Réinitialiser mon identité", "Reset my identity").raw("</button></form>");
    }
    back(&mut body);
    Ok(visitor.page(visitor.say("Identité cryptographique", "Cryptographic identity"), &body))
}

/// A form that asks for the password, up to the words on its button.
fn ask(
    visitor: &Visitor,
    body: &mut Html,
    (what, device): (&'static str, Option<&str>),
    notice: Option<&'static str>,
) {
    if let Some(notice) = notice {
        body.notice(notice);
    }
    body.form("/account", &visitor.proof()).hidden("do", what);
    if let Some(device) = device {
        body.hidden("device_id", device);
    }
    body.raw("<label>").say("Votre mot de passe", "Your password").password("password", "current-password");
    body.raw("</label><button class=\"main\">");
}

fn back(body: &mut Html) {
    way(body, "org.matrix.devices_list", None, "Ne rien faire", "Do nothing");
}
