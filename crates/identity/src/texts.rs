//! Mails and pages in French and English. Every value that comes from outside is escaped.

use std::fmt::Write;

use chappe_store::identity::Purpose;

use crate::{Email, Language, frame::framed};

/// What a mail is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// Confirm the address with the link.
    Confirm(Purpose),
    /// Confirm the address with the link, to open the closed account again that had it.
    Reopen,
    /// Somebody wanted to sign up with an address that has an account.
    AlreadyRegistered,
    /// Somebody invites the address into a room.
    Invite,
    /// The account ends unless it is renewed.
    Ending,
}

/// The end of an account, in words.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    /// When.
    pub(crate) date: String,
    /// In how many days; 0 if it has ended.
    pub(crate) days: u64,
    /// What renews it if no link does; empty otherwise.
    pub(crate) code: String,
}

/// All that a mail is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letter<'a> {
    pub(crate) occasion: Occasion,
    /// The language that is wanted.
    pub(crate) language: Language,
    /// What this service is called.
    pub(crate) service: &'a str,
    pub(crate) to: &'a Email,
    /// Where its button leads; empty for none.
    pub(crate) link: &'a str,
    /// Who invites, in words.
    pub(crate) inviter: &'a str,
    /// Into which room, in words; empty for one without a name.
    pub(crate) room: &'a str,
    /// When the account ends.
    pub(crate) ending: Option<&'a Ending>,
}

/// Subject, text and HTML of a mail.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) html: String,
}

/// One language's sentences of a mail.
struct Sentences {
    subject: &'static str,
    intro: &'static str,
    button: &'static str,
    outro: &'static str,
}

fn sentences(occasion: Occasion, language: Language) -> Sentences {
    match (occasion, language) {
        (Occasion::Confirm(Purpose::Registration), Language::Fr) => Sentences {
            subject: "Confirmez votre adresse",
            intro: "Quelqu'un, sans doute vous, crée un compte avec l'adresse",
            button: "Confirmer mon adresse",
            outro: "Si ce n'est pas vous, ne faites rien : aucun compte ne sera créé avec votre adresse.",
        },
        (Occasion::Confirm(Purpose::Registration), Language::En) => Sentences {
            subject: "Confirm your address",
            intro: "Someone, most likely you, is creating an account with the address",
            button: "Confirm my address",
            outro: "If it was not you, do nothing: no account will be created with your address.",
        },
        (Occasion::Reopen, language) => before_reopening(language),
        (Occasion::Confirm(Purpose::PasswordReset), Language::Fr) => Sentences {
            subject: "Nouveau mot de passe",
            intro: "Quelqu'un, sans doute vous, demande un nouveau mot de passe pour le compte de",
            button: "Confirmer ma demande",
            outro: "Si ce n'est pas vous, ne faites rien : votre mot de passe ne changera pas.",
        },
        (Occasion::Confirm(Purpose::PasswordReset), Language::En) => Sentences {
            subject: "New password",
            intro: "Someone, most likely you, asks for a new password for the account of",
            button: "Confirm my request",
            outro: "If it was not you, do nothing: your password will not change.",
        },
        (Occasion::Confirm(Purpose::AddToAccount), Language::Fr) => Sentences {
            subject: "Confirmez votre adresse",
            intro: "Quelqu'un, sans doute vous, ajoute à son compte l'adresse",
            button: "Confirmer mon adresse",
            outro: "Si ce n'est pas vous, ne faites rien : votre adresse ne sera pas ajoutée.",
        },
        (Occasion::Confirm(Purpose::AddToAccount), Language::En) => Sentences {
            subject: "Confirm your address",
            intro: "Someone, most likely you, is adding to their account the address",
            button: "Confirm my address",
            outro: "If it was not you, do nothing: your address will not be added.",
        },
        (Occasion::Confirm(Purpose::Bind), Language::Fr) => Sentences {
            subject: "Confirmez votre adresse",
            intro: "Quelqu'un, sans doute vous, veut être trouvé par l'adresse",
            button: "Confirmer mon adresse",
            outro: "Si ce n'est pas vous, ne faites rien : personne ne sera trouvé par votre adresse.",
        },
        (Occasion::Confirm(Purpose::Bind), Language::En) => Sentences {
            subject: "Confirm your address",
            intro: "Someone, most likely you, wants to be found by the address",
            button: "Confirm my address",
            outro: "If it was not you, do nothing: nobody will be found by your address.",
        },
        (Occasion::Invite, Language::Fr) => Sentences {
            subject: "Vous êtes invité",
            intro: "Une invitation attend l'adresse",
            button: "Accepter l'invitation",
            outro: "Pour la trouver, créez un compte avec cette adresse, ou ajoutez-la à votre compte. \
                    Si vous ne connaissez pas cette personne, ne faites rien.",
        },
        (Occasion::Invite, Language::En) => Sentences {
            subject: "You are invited",
            intro: "An invitation waits for the address",
            button: "Accept the invitation",
            outro: "To find it, create an account with this address, or add it to your account. \
                    If you do not know this person, do nothing.",
        },
        (Occasion::Ending, language) => before_an_end(language),
        (Occasion::AlreadyRegistered, Language::Fr) => Sentences {
            subject: "Vous avez déjà un compte",
            intro: "Quelqu'un, sans doute vous, a voulu créer un compte alors qu'il en existe un pour",
            button: "",
            outro: "Connectez-vous avec votre mot de passe, ou demandez-en un nouveau si vous l'avez oublié.",
        },
        (Occasion::AlreadyRegistered, Language::En) => Sentences {
            subject: "You have an account already",
            intro: "Someone, most likely you, wanted to create an account, but there is one for",
            button: "",
            outro: "Log in with your password, or ask for a new one if you forgot it.",
        },
    }
}

fn before_reopening(language: Language) -> Sentences {
    match language {
        Language::Fr => Sentences {
            subject: "Rouvrez votre compte",
            intro: "Quelqu'un, sans doute vous, veut rouvrir le compte, fermé, qui avait l'adresse",
            button: "Rouvrir mon compte",
            outro: "Votre compte revient avec son nom et un nouveau mot de passe. \
                    Si ce n'est pas vous, ne faites rien : le compte reste fermé.",
        },
        Language::En => Sentences {
            subject: "Open your account again",
            intro: "Someone, most likely you, wants to open the closed account again that had the address",
            button: "Open my account again",
            outro: "Your account comes back with its name and a new password. \
                    If it was not you, do nothing: the account stays closed.",
        },
    }
}

fn before_an_end(language: Language) -> Sentences {
    match language {
        Language::Fr => Sentences {
            subject: "Votre compte arrive à expiration",
            intro: "Confirmez que vous avez encore besoin du compte de",
            button: "Renouveler mon compte",
            outro: "Rien n'est perdu : vos appareils, vos salons et vos messages vous attendent.",
        },
        Language::En => Sentences {
            subject: "Your account is about to expire",
            intro: "Confirm that you still need the account of",
            button: "Renew my account",
            outro: "Nothing is lost: your devices, your rooms and your messages wait for you.",
        },
    }
}

/// What comes first, in words of one language: who invites, or when the account ends; nothing for other mails.
fn news(letter: &Letter<'_>, language: Language) -> String {
    let Letter { inviter, room, .. } = letter;
    if let Some(Ending { date, days, .. }) = letter.ending {
        return match (language, days) {
            (Language::Fr, 0) => format!("Votre compte a expiré le {date}."),
            (Language::Fr, _) => format!("Votre compte expire dans {days} jour(s), le {date}."),
            (Language::En, 0) => format!("Your account expired on {date}."),
            (Language::En, _) => format!("Your account expires in {days} day(s), on {date}."),
        };
    }
    match (letter.occasion, language, room.is_empty()) {
        (Occasion::Invite, Language::Fr, false) => format!("{inviter} vous invite dans « {room} »."),
        (Occasion::Invite, Language::Fr, true) => format!("{inviter} vous invite à une conversation."),
        (Occasion::Invite, Language::En, false) => format!("{inviter} invites you to \"{room}\"."),
        (Occasion::Invite, Language::En, true) => format!("{inviter} invites you to a conversation."),
        _ => String::new(),
    }
}

/// The code that renews the account, in words of one language; nothing for other mails.
fn code_line(letter: &Letter<'_>, language: Language) -> String {
    let code = letter.ending.map_or("", |ending| ending.code.as_str());
    match language {
        _ if code.is_empty() => String::new(),
        Language::Fr => format!("Code à saisir dans votre application : {code}"),
        Language::En => format!("Code to type into your application: {code}"),
    }
}

/// The built-in mail: in both languages, the wanted one first.
pub(crate) fn mail(letter: &Letter<'_>) -> Written {
    let Letter { occasion, service, to, link, .. } = *letter;
    let (mut text, mut html) = (String::new(), String::new());
    for language in in_order(letter.language) {
        let say = sentences(occasion, language);
        let (service_html, to_html) = (escaped(service), escaped(to.as_str()));
        // Writing to a String cannot fail.
        let _ = write!(text, "{service}\n\n");
        let _ = write!(html, "<h2>{service_html}</h2>");
        let paragraph = |text: &mut String, html: &mut String, said: &str| {
            if !said.is_empty() {
                let _ = write!(text, "{said}\n\n");
                let _ = write!(html, "<p>{}</p>", escaped(said));
            }
        };
        paragraph(&mut text, &mut html, &news(letter, language));
        let _ = write!(text, "{} {to}.\n\n", say.intro);
        let _ = write!(html, "<p>{} <b>{to_html}</b>.</p>", say.intro);
        paragraph(&mut text, &mut html, &code_line(letter, language));
        if !link.is_empty() {
            let link_html = escaped(link);
            let _ = write!(text, "{} :\n{link}\n\n", say.button);
            let _ = write!(html, "<p><a href=\"{link_html}\">{}</a></p><p>{link_html}</p>", say.button);
        }
        let _ = write!(text, "{}\n\n", say.outro);
        let _ = write!(html, "<p>{}</p><hr>", say.outro);
    }
    let subject = format!("{service} : {}", sentences(occasion, letter.language).subject);
    Written { subject, text, html: document(letter.language, &html) }
}

fn in_order(first: Language) -> [Language; 2] {
    match first {
        Language::Fr => [Language::Fr, Language::En],
        Language::En => [Language::En, Language::Fr],
    }
}

/// What a page shows.
#[derive(Clone, Debug)]
pub enum Page<'a> {
    /// A button that confirms the address. A link alone must not do it: mail filters open links.
    Confirm {
        /// The address.
        address: &'a Email,
        /// What for.
        purpose: Purpose,
        /// Whether it opens a closed account again.
        reopens: bool,
        /// Path that the form is posted to.
        action: &'a str,
        /// Session id.
        sid: &'a str,
        /// The token of the link.
        token: &'a str,
    },
    /// The address is confirmed.
    Confirmed {
        /// Where to go on, already checked.
        next_link: Option<&'a str>,
    },
    /// The link is wrong or old.
    Failed,
    /// The account has another period.
    Renewed {
        /// When it ends, in words.
        date: &'a str,
    },
    /// The link has renewed the account before.
    RenewedBefore,
    /// The link or code renews nothing.
    NotRenewed,
}

impl Page<'_> {
    /// What it is about.
    fn title(&self, language: Language) -> &'static str {
        let (french, english) = match self {
            Self::Confirm { purpose, reopens, .. } => return before(*purpose, *reopens, language).subject,
            Self::Confirmed { .. } => ("C'est confirmé", "Confirmed"),
            Self::Renewed { .. } | Self::RenewedBefore => ("Compte renouvelé", "Account renewed"),
            Self::Failed | Self::NotRenewed => ("Cela n'a pas marché", "That did not work"),
        };
        if language == Language::Fr { french } else { english }
    }
}

/// The sentences of the mail whose link led to a page.
fn before(purpose: Purpose, reopens: bool, language: Language) -> Sentences {
    sentences(if reopens { Occasion::Reopen } else { Occasion::Confirm(purpose) }, language)
}

/// A whole HTML page, without scripts or anything loaded from elsewhere.
pub fn page(page: &Page<'_>, language: Language, service: &str) -> String {
    let french = language == Language::Fr;
    let say = |fr: &'static str, en: &'static str| if french { fr } else { en };
    let body = match page {
        Page::Confirm { address, purpose, reopens, action, sid, token } => {
            let sentences = before(*purpose, *reopens, language);
            format!(
                "<p>{} <b>{}</b>.</p><form method=\"post\" action=\"{}\">\
                 <input type=\"hidden\" name=\"sid\" value=\"{}\"><input type=\"hidden\" name=\"token\" value=\"{}\">\
                 <input type=\"hidden\" name=\"lang\" value=\"{}\"><button class=\"main\">{}</button></form>\
                 <p>{}</p>",
                sentences.intro,
                escaped(address.as_str()),
                escaped(action),
                escaped(sid),
                escaped(token),
                code(language),
                sentences.button,
                sentences.outro
            )
        }
        Page::Confirmed { next_link } => {
            let done = say(
                "Votre adresse est confirmée. Vous pouvez revenir à votre application.",
                "Your address is confirmed. You can go back to your application.",
            );
            let go_on = next_link.map_or_else(String::new, |link| {
                format!("<p><a href=\"{}\">{}</a></p>", escaped(link), say("Continuer", "Go on"))
            });
            format!("<p>{done}</p>{go_on}")
        }
        Page::Renewed { date } => {
            let done = say("Votre compte est renouvelé jusqu'au", "Your account is renewed until");
            format!("<p>{done} {}.</p>", escaped(date))
        }
        Page::RenewedBefore => {
            let before = say(
                "Ce lien a déjà servi : votre compte a été renouvelé.",
                "This link was used before: your account has been renewed.",
            );
            format!("<p>{before}</p>")
        }
        Page::NotRenewed => {
            let failed = say(
                "Ce lien ou ce code n'est pas valable. Demandez un nouveau message depuis votre application.",
                "This link or code is not valid. Please ask for another mail in your application.",
            );
            format!("<p>{failed}</p>")
        }
        Page::Failed => {
            let failed = say(
                "Ce lien n'est pas valable ou a expiré. Recommencez depuis votre application.",
                "This link is not valid or has expired. Please begin again in your application.",
            );
            format!("<p>{failed}</p>")
        }
    };
    framed(language, service, page.title(language), &body)
}

fn document(language: Language, body: &str) -> String {
    format!(
        "<!DOCTYPE html><html lang=\"{}\"><head><meta charset=\"utf-8\"><title></title>\
         <meta name=\"viewport\" content=\"width=device-width\"></head>\
         <body style=\"font-family:sans-serif;max-width:40em;margin:2em auto\">{body}</body></html>",
        code(language)
    )
}

pub(crate) fn code(language: Language) -> &'static str {
    match language {
        Language::Fr => "fr",
        Language::En => "en",
    }
}

/// Text that is safe inside HTML and inside a quoted attribute.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use chappe_store::identity::Purpose;

    use super::{Letter, Occasion, Page, mail, page};
    use crate::{Email, Language};

    fn letter<'a>(occasion: Occasion, service: &'a str, to: &'a Email, link: &'a str) -> Letter<'a> {
        Letter { occasion, language: Language::En, service, to, link, inviter: "", room: "", ending: None }
    }

    #[test]
    fn nothing_from_outside_becomes_html() {
        let to = Email::parse("o'neil&co@x.fr").unwrap();
        let link = "https://x.fr/?a=\"><script>";
        let written = mail(&letter(Occasion::Confirm(Purpose::Registration), "<b>S</b>", &to, link));
        assert!(!written.html.contains("<script>") && !written.html.contains("<b>S</b>"));
        assert!(written.html.contains("o&#39;neil&amp;co@x.fr"));
        assert!(written.text.contains("o'neil&co@x.fr") && written.text.contains(link));
        let invite =
            Letter { inviter: "<i>Eve</i>", room: "<script>", ..letter(Occasion::Invite, "S", &to, link) };
        let written = mail(&invite);
        assert!(!written.html.contains("<i>Eve") && !written.html.contains("<script>"));
        assert!(written.html.contains("&lt;i&gt;Eve&lt;/i&gt; invites you to"));
        let confirmed = page(&Page::Confirmed { next_link: Some(link) }, Language::Fr, "<i>");
        assert!(!confirmed.contains("<script>") && !confirmed.contains("<i>"));
        let confirm = Page::Confirm {
            address: &to,
            reopens: false,
            purpose: Purpose::PasswordReset,
            action: "/x",
            sid: "\"><script>",
            token: "t",
        };
        assert!(!page(&confirm, Language::En, "S").contains("<script>"));
    }

    #[test]
    fn the_wanted_language_comes_first() {
        let to = Email::parse("a@x.fr").unwrap();
        let written = mail(&letter(Occasion::AlreadyRegistered, "Tchap", &to, ""));
        let at = |text: &str| written.text.find(text).unwrap();
        assert!(at("Log in") < at("Connectez-vous"));
        assert_eq!(written.subject, "Tchap : You have an account already");
    }
}
