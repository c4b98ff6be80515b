//! What people see on their way, in French and English. Every value that comes from outside is escaped.

use super::{ClientUrl, ProviderError, SSO_APPROVE_PATH, SsoError};
use crate::{
    Language,
    frame::framed,
    texts::{code, escaped},
};

/// What a page shows.
#[derive(Debug)]
pub enum SsoPage<'a> {
    /// Several providers to choose from: name and address of each.
    Choose(&'a [(String, String)]),
    /// The log-in is done; the person is asked before the token goes to a client that nobody has vouched for.
    GoOn {
        /// Who.
        user: &'a str,
        /// Where to.
        client: &'a ClientUrl,
        /// The address with the token.
        link: &'a str,
    },
    /// The person proved who they are and is asked whether they want what their client is about to do.
    Approve {
        /// Who.
        user: &'a str,
        /// Method and path, such as `DELETE /devices/ABC`.
        operation: &'a str,
        /// What is sent back to agree.
        ticket: &'a str,
    },
    /// They agreed.
    Approved,
    /// The session with the provider has ended.
    LoggedOut,
    /// Nobody was let in.
    Failed(&'a SsoError),
}

/// A whole HTML page, without scripts or anything loaded from elsewhere.
pub fn sso_page(page: &SsoPage<'_>, language: Language, service: &str) -> String {
    let body = match page {
        SsoPage::Choose(providers) => choose(providers, language),
        SsoPage::GoOn { user, client, link } => go_on(user, client, link, language),
        SsoPage::Approve { user, operation, ticket } => approve(user, operation, ticket, language),
        SsoPage::Approved => paragraph(say(
            language,
            "C'est confirmé. Vous pouvez fermer cette page et revenir à votre application.",
            "This is confirmed. You can close this page and go back to your application.",
        )),
        SsoPage::LoggedOut => paragraph(say(
            language,
            "Vous êtes déconnecté du fournisseur d'identité. Vous pouvez fermer cette page.",
            "You are logged out of the identity provider. You can close this page.",
        )),
        SsoPage::Failed(error) => paragraph(&escaped(&reason(error, language))),
    };
    framed(language, service, title(page, language), &body)
}

fn title(page: &SsoPage<'_>, language: Language) -> &'static str {
    let (french, english) = match page {
        SsoPage::Choose(_) => ("Connexion", "Log in"),
        SsoPage::GoOn { .. } => ("Autoriser une application", "Let an application in"),
        SsoPage::Approve { .. } => ("Confirmer une opération", "Confirm an operation"),
        SsoPage::Approved => ("C'est confirmé", "Confirmed"),
        SsoPage::LoggedOut => ("Déconnexion", "Logged out"),
        SsoPage::Failed(_) => ("Cela n'a pas marché", "That did not work"),
    };
    say(language, french, english)
}

fn say(language: Language, french: &'static str, english: &'static str) -> &'static str {
    if language == Language::Fr { french } else { english }
}

fn paragraph(html: &str) -> String {
    format!("<p>{html}</p>")
}

fn choose(providers: &[(String, String)], language: Language) -> String {
    let item = |(name, link): &(String, String)| {
        format!("<li><a href=\"{}\">{}</a></li>", escaped(link), escaped(name))
    };
    let items: String = providers.iter().map(item).collect();
    format!("<p>{}</p><ul>{items}</ul>", say(language, "Se connecter avec :", "Log in with:"))
}

fn go_on(user: &str, client: &ClientUrl, link: &str, language: Language) -> String {
    let place = format!("<b>{}</b>", escaped(&client.place()));
    let user = format!("<b>{}</b>", escaped(user));
    let asked = match language {
        Language::Fr => format!(
            "Une application à l'adresse {place} demande l'accès à votre compte {user}. Elle pourra lire et écrire \
             en votre nom."
        ),
        Language::En => format!(
            "An application at {place} asks for access to your account {user}. It will be able to read and to write in \
             your name."
        ),
    };
    let warning = say(
        language,
        "Si vous ne connaissez pas cette adresse, fermez cette page.",
        "If you do not know this address, close this page.",
    );
    let button = say(language, "Continuer", "Go on");
    let (whole, link) = (escaped(&client.to_string()), escaped(link));
    format!(
        "<p>{asked}</p><p><code>{whole}</code></p><p>{warning}</p><p><a href=\"{link}\" class=\"button\">{button}</a></p>"
    )
}

fn approve(user: &str, operation: &str, ticket: &str, language: Language) -> String {
    let asked = say(
        language,
        "Une application connectée à votre compte demande ceci :",
        "An application that is logged in to your account asks for this:",
    );
    let warning = say(
        language,
        "Si ce n'est pas vous qui le demandez, fermez cette page : quelqu'un utilise peut-être votre compte.",
        "If it is not you who ask for it, close this page: somebody may be using your account.",
    );
    format!(
        "<p>{asked}</p><p><b>{}</b><br><code>{}</code></p><p>{}</p><p>{warning}</p>\
         <form method=\"post\" action=\"{SSO_APPROVE_PATH}\"><input type=\"hidden\" name=\"ticket\" value=\"{}\">\
         <input type=\"hidden\" name=\"lang\" value=\"{}\"><button class=\"main\">{}</button></form>",
        described(operation, language),
        escaped(operation),
        escaped(user),
        escaped(ticket),
        code(language),
        say(language, "Confirmer", "Confirm")
    )
}

/// What an operation does, in words.
fn described(operation: &str, language: Language) -> &'static str {
    let path = operation.split_once(' ').map_or(operation, |(_, path)| path);
    let (french, english) = match path {
        _ if path.starts_with("/devices") || path == "/delete_devices" => {
            ("Déconnecter un ou plusieurs de vos appareils", "Log one or more of your devices out")
        }
        "/keys/device_signing/upload" => {
            ("Remplacer les clés de votre identité cryptographique", "Replace the keys of your identity")
        }
        "/account/password" => ("Définir un mot de passe", "Set a password"),
        "/account/deactivate" => ("Fermer votre compte définitivement", "Close your account for good"),
        "/account/3pid" | "/account/3pid/add" => {
            ("Ajouter une adresse à votre compte", "Add an address to your account")
        }
        "/login/get_token" => ("Connecter un nouvel appareil", "Log a new device in"),
        _ => ("Modifier votre compte", "Change your account"),
    };
    say(language, french, english)
}

/// Why nobody was let in, and what to do about it.
fn reason(error: &SsoError, language: Language) -> String {
    let (french, english) = match error {
        SsoError::Identity(
            error @ (crate::Error::Denied { .. }
            | crate::Error::WrongServer { .. }
            | crate::Error::InvitationMissing { .. }
            | crate::Error::InvalidEmail(_)
            | crate::Error::NameTooLong),
        ) => {
            // They are in both languages, or short.
            return error.to_string();
        }
        SsoError::Ended => (
            "Cette connexion a expiré ou n'a pas commencé dans ce navigateur. Recommencez depuis votre application.",
            "This log-in has expired or was not begun in this browser. Please begin again in your application.",
        ),
        SsoError::TooLong => (
            "La demande de votre application est trop longue.",
            "The request of your application is too long.",
        ),
        SsoError::Cancelled => (
            "La connexion a été interrompue. Recommencez depuis votre application.",
            "The log-in was broken off. Please begin again in your application.",
        ),
        SsoError::Provider(ProviderError::Unreachable(_)) => (
            "Le fournisseur d'identité ne répond pas. Réessayez dans quelques minutes.",
            "The identity provider does not answer. Please try again in a few minutes.",
        ),
        SsoError::Provider(_) => (
            "Le fournisseur d'identité n'a pas confirmé votre identité. Recommencez depuis votre application.",
            "The identity provider did not confirm who you are. Please begin again in your application.",
        ),
        SsoError::NoAddress | SsoError::NotVerified => (
            "Le fournisseur d'identité ne garantit pas votre adresse mail : elle est nécessaire pour ouvrir un compte.",
            "The identity provider does not vouch for your e-mail address, which is needed for an account.",
        ),
        SsoError::AddressTaken => (
            "Un compte existe déjà avec votre adresse mail. Connectez-vous avec son mot de passe, ou contactez votre support.",
            "There is an account with your e-mail address. Log in with its password, or contact your support.",
        ),
        SsoError::NoAccount => (
            "Vous n'avez pas de compte sur ce serveur. Contactez votre support.",
            "You have no account on this server. Contact your support.",
        ),
        SsoError::NotLinked => (
            "Vous vous êtes identifié avec un autre compte que celui de votre application.",
            "You identified yourself with another account than that of your application.",
        ),
        SsoError::Closed => (
            "Votre compte est fermé. Contactez votre support.",
            "Your account is closed. Contact your support.",
        ),
        SsoError::Locked | SsoError::Suspended => (
            "Votre compte est bloqué. Contactez votre support.",
            "Your account is blocked. Contact your support.",
        ),
        _ => (
            "La connexion n'a pas abouti. Réessayez, ou contactez votre support.",
            "The log-in did not succeed. Try again, or contact your support.",
        ),
    };
    say(language, french, english).to_owned()
}

#[cfg(test)]
mod tests {
    use super::{SsoPage, sso_page};
    use crate::{ClientUrl, Language, SsoError};

    #[test]
    fn nothing_from_outside_becomes_html_on_the_way() {
        let client = ClientUrl::parse("https://x.fr/?a=\"x><script>alert(1)</script>").unwrap();
        let evil = "\"x><script>'";
        let link = client.with_token("t");
        let choices = [(evil.to_owned(), evil.to_owned())];
        let denied = SsoError::Identity(crate::Error::Denied { address: evil.to_owned() });
        for language in [Language::Fr, Language::En] {
            for page in [
                SsoPage::Choose(&choices),
                SsoPage::GoOn { user: evil, client: &client, link: &link },
                SsoPage::Approve { user: evil, operation: evil, ticket: evil },
                SsoPage::Approved,
                SsoPage::LoggedOut,
                SsoPage::Failed(&denied),
            ] {
                let html = sso_page(&page, language, evil);
                assert!(!html.contains("<script") && !html.contains("\"x>"), "{page:?} {html}");
            }
        }
    }

    #[test]
    fn an_approval_says_what_it_is_about() {
        for (operation, word) in [
            ("DELETE /devices/ABC", "appareils"),
            ("POST /delete_devices", "appareils"),
            ("POST /account/deactivate", "Fermer"),
            ("POST /keys/device_signing/upload", "identité"),
            ("PUT /x", "Modifier"),
        ] {
            let page = SsoPage::Approve { user: "@a:x.fr", operation, ticket: "t" };
            assert!(sso_page(&page, Language::Fr, "S").contains(word), "{operation}");
        }
    }
}
