//! Mails that an operator wrote in place of the built-in ones: a text and an HTML file for each mail and language.

use std::collections::BTreeMap;

use chappe_store::identity::Purpose;

use crate::{
    Language,
    texts::{self, Letter, Occasion, Written, code, escaped},
};

/// Mails by the names that their files have.
const MAILS: [(&str, Occasion); 6] = [
    ("registration", Occasion::Confirm(Purpose::Registration)),
    ("password_reset", Occasion::Confirm(Purpose::PasswordReset)),
    ("add_to_account", Occasion::Confirm(Purpose::AddToAccount)),
    ("bind", Occasion::Confirm(Purpose::Bind)),
    ("already_registered", Occasion::AlreadyRegistered),
    ("invite", Occasion::Invite),
];
/// What may stand between double braces.
const NAMES: [&str; 5] = ["service", "address", "link", "inviter", "room"];
/// What the first line of a text begins with.
const SUBJECT: &str = "Subject:";

/// Why a folder of mails cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {why}")]
pub struct InvalidTemplate {
    /// Which file.
    pub file: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// One mail in one language.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Template {
    subject: String,
    text: String,
    html: String,
}

/// The mails that were written anew, by name and language; the others are the built-in ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Templates(BTreeMap<(&'static str, &'static str), Template>);

impl Templates {
    /// From files by their names: `invite.fr.txt`, whose first line is `Subject: …`, and `invite.fr.html`. Both are needed
    /// for a mail. `{{service}}`, `{{address}}`, `{{link}}`, `{{inviter}}` and `{{room}}` are replaced.
    pub fn new(files: &BTreeMap<String, String>) -> Result<Self, InvalidTemplate> {
        let mut known: BTreeMap<String, (&'static str, &'static str)> = BTreeMap::new();
        for (name, _) in MAILS {
            for language in [Language::Fr, Language::En] {
                known.insert(format!("{name}.{}", code(language)), (name, code(language)));
            }
        }
        let mut templates = BTreeMap::new();
        for file in files.keys() {
            let refused = |why| InvalidTemplate { file: file.clone(), why };
            let (stem, _) = file.rsplit_once('.').ok_or(refused("not the name of a mail"))?;
            let key = *known.get(stem).ok_or(refused("not the name of a mail"))?;
            let text = files.get(&format!("{stem}.txt")).ok_or(refused("the text beside it is missing"))?;
            let html = files.get(&format!("{stem}.html")).ok_or(refused("the HTML beside it is missing"))?;
            let (head, text) =
                text.split_once('\n').ok_or(refused("the text has no line with its subject"))?;
            let subject = head.strip_prefix(SUBJECT).ok_or(refused("the text begins with `Subject:`"))?;
            for part in [subject, text, html] {
                check(part).map_err(refused)?;
            }
            let (subject, text) = (subject.trim().to_owned(), text.trim_start_matches('\n').to_owned());
            templates.insert(key, Template { subject, text, html: html.clone() });
        }
        Ok(Self(templates))
    }

    /// The mail, by the operator's template in the wanted language if there is one.
    pub(crate) fn write(&self, letter: &Letter<'_>) -> Written {
        let name = MAILS.iter().find(|(_, occasion)| *occasion == letter.occasion).map(|(name, _)| *name);
        let template = name.and_then(|name| self.0.get(&(name, code(letter.language))));
        let Some(template) = template else { return texts::mail(letter) };
        Written {
            subject: filled(&template.subject, letter, str::to_owned),
            text: filled(&template.text, letter, str::to_owned),
            html: filled(&template.html, letter, escaped),
        }
    }
}

/// Refuses a template that names what there is not.
fn check(template: &str) -> Result<(), &'static str> {
    let mut rest = template;
    while let Some((_, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or("`{{` without `}}`")?;
        if !NAMES.contains(&name.trim()) {
            return Err("only service, address, link, inviter and room may stand between braces");
        }
        rest = after;
    }
    Ok(())
}

/// One pass from left to right: what a value holds is never taken for a name.
fn filled(template: &str, letter: &Letter<'_>, shown: impl Fn(&str) -> String) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(before);
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        text.push_str(&shown(match name.trim() {
            "service" => letter.service,
            "address" => letter.to.as_str(),
            "link" => letter.link,
            "inviter" => letter.inviter,
            "room" => letter.room,
            _ => "",
        }));
        rest = after;
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Templates;
    use crate::{
        Email, Language,
        texts::{Letter, Occasion},
    };

    fn files(files: &[(&str, &str)]) -> BTreeMap<String, String> {
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn a_template_replaces_one_mail_in_one_language() {
        let templates = Templates::new(&files(&[
            ("invite.fr.txt", "Subject: {{service}} : venez\n\n{{inviter}} / {{ room }} / {{link}}\n"),
            ("invite.fr.html", "<p>{{inviter}}, {{address}}</p><a href=\"{{link}}\">ici</a>"),
        ]))
        .unwrap();
        let to = Email::parse("a@x.fr").unwrap();
        let letter = Letter {
            occasion: Occasion::Invite,
            language: Language::Fr,
            service: "Chappe",
            to: &to,
            link: "https://x.fr/?a=1&b=\"",
            inviter: "<b>{{link}}</b>",
            room: "Salon",
        };
        let written = templates.write(&letter);
        assert_eq!(written.subject, "Chappe : venez");
        assert_eq!(written.text, "<b>{{link}}</b> / Salon / https://x.fr/?a=1&b=\"\n");
        assert!(written.html.contains("&lt;b&gt;{{link}}&lt;/b&gt;, a@x.fr"), "{}", written.html);
        assert!(!written.html.contains("b=\"\""));
        let english = templates.write(&Letter { language: Language::En, ..letter });
        assert!(english.text.contains("invites you"));
    }

    #[test]
    fn what_is_not_a_mail_is_refused() {
        let whole =
            |text: &str, html: &str| Templates::new(&files(&[("bind.en.txt", text), ("bind.en.html", html)]));
        assert!(whole("Subject: a\nb", "c").is_ok());
        assert!(whole("b", "c").is_err());
        assert!(whole("Hello\nb", "c").is_err());
        assert!(whole("Subject: a\n{{other}}", "c").is_err());
        assert!(whole("Subject: a\nb", "{{link").is_err());
        assert!(Templates::new(&files(&[("bind.en.txt", "Subject: a\nb")])).is_err());
        assert!(Templates::new(&files(&[("bind.de.txt", "Subject: a\nb"), ("bind.de.html", "c")])).is_err());
        assert!(
            Templates::new(&files(&[("other.en.txt", "Subject: a\nb"), ("other.en.html", "c")])).is_err()
        );
    }
}
