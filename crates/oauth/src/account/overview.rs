//! What an account is: profile, addresses, sessions, password.

use chappe_accounts::DeviceInfo;
use chappe_identity::moment;
use ruma::UserId;

use crate::{error::Error, fields::Fields, html::Html, login::Goal, page::Page, visitor::Visitor};

/// Everything on one page.
pub(super) async fn page(
    visitor: &Visitor,
    user: &UserId,
    notice: Option<&'static str>,
) -> Result<Page, Error> {
    let accounts = visitor.oauth.accounts();
    let profile = accounts.profile(&accounts.read(), user).await?;
    let mut body = visitor.html();
    if let Some(notice) = notice {
        body.notice(notice);
    }
    body.raw("<dl><dt>").say("Identifiant", "User id").raw("</dt><dd>").text(user.as_str()).raw("</dd>");
    if let Some(name) = profile.displayname() {
        body.raw("<dt>").say("Nom affiché", "Display name").raw("</dt><dd>").text(name).raw("</dd>");
    }
    for threepid in accounts.threepids(user).await? {
        body.raw("<dt>").say("Adresse", "Address").raw("</dt><dd>").text(&threepid.address).raw("</dd>");
    }
    body.say(
        "</dl><p>Le nom et l'image se changent dans votre application.</p>",
        "</dl><p>Name and picture are changed in your application.</p>",
    );
    body.raw("<h2>").say("Vos sessions", "Your sessions").raw("</h2><ul class=\"devices\">");
    for device in accounts.devices(user).await? {
        body.raw("<li>");
        describe(&mut body, &device);
        way(&mut body, "org.matrix.device_delete", Some(&device), "Terminer la session", "End the session");
        body.raw("</li>");
    }
    body.raw("</ul>");
    if accounts.has_password(user).await? {
        password(visitor, &mut body);
    }
    body.raw("<h2>").say("Fermer le compte", "Close the account").raw("</h2>");
    way(&mut body, "org.matrix.account_deactivate", None, "Fermer le compte…", "Close the account…");
    body.form("/logout", &visitor.proof());
    Goal::new("account", &Fields::default()).hide(&mut body);
    body.raw("<p><button>").say("Quitter cette page", "Leave this page").raw("</button></p></form>");
    Ok(visitor.page(visitor.say("Votre compte", "Your account"), &body))
}

/// One session.
pub(super) fn device(visitor: &Visitor, device: &DeviceInfo) -> Page {
    let mut body = visitor.html();
    describe(&mut body, device);
    way(&mut body, "org.matrix.device_delete", Some(device), "Terminer la session", "End the session");
    way(&mut body, "org.matrix.devices_list", None, "Toutes les sessions", "All sessions");
    visitor.page(visitor.say("Session", "Session"), &body)
}

/// A session in words.
pub(super) fn describe(body: &mut Html, device: &DeviceInfo) {
    body.raw("<p><b>").text(device.name.as_deref().unwrap_or_default()).raw("</b> ");
    body.text(device.device_id.as_str());
    if let Some(seen) = device.last_seen_ms {
        body.say("<br>vue le ", "<br>seen ").text(&moment(seen));
    }
    if let Some(ip) = &device.last_seen_ip {
        body.say(" depuis ", " from ").text(ip);
    }
    body.raw("</p>");
}

/// A way to another place of the page.
pub(super) fn way(
    body: &mut Html,
    action: &'static str,
    device: Option<&DeviceInfo>,
    french: &'static str,
    english: &'static str,
) {
    body.raw("<p><a href=\"account?action=").raw(action);
    if let Some(device) = device {
        let id: String = url::form_urlencoded::byte_serialize(device.device_id.as_bytes()).collect();
        body.raw("&amp;device_id=").text(&id);
    }
    body.raw("\">").say(french, english).raw("</a></p>");
}

fn password(visitor: &Visitor, body: &mut Html) {
    body.raw("<h2>").say("Changer de mot de passe", "Change the password").raw("</h2>");
    body.form("/account", &visitor.proof()).hidden("do", "password").raw("<label>");
    body.say("Mot de passe actuel", "Current password").password("password", "current-password");
    body.raw("</label><label>");
    body.say("Nouveau mot de passe", "New password").password("new_password", "new-password");
    body.raw("</label><label>").say("Encore une fois", "Once more").password("again", "new-password");
    body.raw("</label><label class=\"check\"><input type=\"checkbox\" name=\"end_sessions\" value=\"yes\">");
    body.say("Terminer toutes les sessions", "End all sessions").raw("</label><button>");
    body.say("Changer", "Change").raw("</button></form>");
}
