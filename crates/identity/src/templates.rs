//! Mails that an operator wrote in place of the built-in ones: a text and an HTML file for each mail and language.

use std::collections::BTreeMap;

use chappe_store::identity::Purpose;

use crate::{
    Language,
    texts::{self, Letter, Occasion, Written, code, escaped},
};

/// Mails by the names that their files have.
const MAILS: [(&str, Occasion); 8] = [
    ("registration", Occasion::Confirm(Purpose::Registration)),
    ("reopening", Occasion::Reopen),
    ("password_reset", Occasion::Confirm(Purpose::PasswordReset)),
    ("add_to_account", Occasion::Confirm(Purpose::AddToAccount)),
    ("bind", Occasion::Confirm(Purpose::Bind)),
    ("already_registered", Occasion::AlreadyRegistered),
    ("invite", Occasion::Invite),
    ("notice_expiry", Occasion::Ending),
];
/// Pages by the names that their files have.
const PAGES: [&str; 3] = ["account_renewed", "account_previously_renewed", "invalid_token"];
/// What may stand between double braces of a mail.
const NAMES: [&str; 8] = ["service", "address", "link", "inviter", "room", "date", "days", "code"];
/// What may stand between those of a page.
const PAGE_NAMES: [&str; 2] = ["service", "date"];
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

/// The mails and pages that were written anew, by name and language; the others are the built-in ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Templates {
    mails: BTreeMap<(&'static str, &'static str), Template>,
    pages: BTreeMap<(&'static str, &'static str), String>,
}

impl Templates {
    /// From files by their names: `invite.fr.txt`, whose first line is `Subject: …`, and `invite.fr.html`. Both are needed
    /// for a mail; a page, such as `account_renewed.fr.html`, has no text. What stands between double braces is replaced:
    /// `{{service}}`, `{{address}}`, `{{link}}`, `{{inviter}}`, `{{room}}`, `{{date}}`, `{{days}}` and `{{code}}` in mails,
    /// `{{service}}` and `{{date}}` in pages.
    pub fn new(files: &BTreeMap<String, String>) -> Result<Self, InvalidTemplate> {
        let mut known: BTreeMap<String, (&'static str, &'static str)> = BTreeMap::new();
        for (name, _) in MAILS {
            for language in [Language::Fr, Language::En] {
                known.insert(format!("{name}.{}", code(language)), (name, code(language)));
            }
        }
        let (mut mails, mut pages) = (BTreeMap::new(), BTreeMap::new());
        for (file, content) in files {
            let refused = |why| InvalidTemplate { file: file.clone(), why };
            let (stem, _) = file.rsplit_once('.').ok_or(refused("not the name of a mail"))?;
            if let Some(key) = page_of(file) {
                check(content, &PAGE_NAMES).map_err(refused)?;
                pages.insert(key, content.clone());
                continue;
            }
            let key = *known.get(stem).ok_or(refused("not the name of a mail"))?;
            let text = files.get(&format!("{stem}.txt")).ok_or(refused("the text beside it is missing"))?;
            let html = files.get(&format!("{stem}.html")).ok_or(refused("the HTML beside it is missing"))?;
            let (head, text) =
                text.split_once('\n').ok_or(refused("the text has no line with its subject"))?;
            let subject = head.strip_prefix(SUBJECT).ok_or(refused("the text begins with `Subject:`"))?;
            for part in [subject, text, html] {
                check(part, &NAMES).map_err(refused)?;
            }
            let (subject, text) = (subject.trim().to_owned(), text.trim_start_matches('\n').to_owned());
            mails.insert(key, Template { subject, text, html: html.clone() });
        }
        Ok(Self { mails, pages })
    }

    /// A page by its name, if the operator has written it in this language.
    pub(crate) fn page(
        &self,
        name: &'static str,
        language: Language,
        service: &str,
        date: &str,
    ) -> Option<String> {
        let template = self.pages.get(&(name, code(language)))?;
        let value = |name: &str| escaped(if name == "date" { date } else { service });
        Some(filled(template, value))
    }

    /// The mail, by the operator's template in the wanted language if there is one.
    pub(crate) fn write(&self, letter: &Letter<'_>) -> Written {
        let name = MAILS.iter().find(|(_, occasion)| *occasion == letter.occasion).map(|(name, _)| *name);
        let template = name.and_then(|name| self.mails.get(&(name, code(letter.language))));
        let Some(template) = template else { return texts::mail(letter) };
        let plain = |name: &str| value(letter, name);
        Written {
            subject: filled(&template.subject, plain),
            text: filled(&template.text, plain),
            html: filled(&template.html, |name| escaped(&value(letter, name))),
        }
    }
}

/// The page that a file is.
fn page_of(file: &str) -> Option<(&'static str, &'static str)> {
    let named = |name: &'static str| {
        let languages = [Language::Fr, Language::En].map(code);
        let language = languages.into_iter().find(|language| file == format!("{name}.{language}.html"))?;
        Some((name, language))
    };
    PAGES.into_iter().find_map(named)
}

/// What a name in a mail stands for.
fn value(letter: &Letter<'_>, name: &str) -> String {
    let ending = |said: fn(&texts::Ending) -> String| letter.ending.map(said).unwrap_or_default();
    match name {
        "service" => letter.service.to_owned(),
        "address" => letter.to.to_string(),
        "link" => letter.link.to_owned(),
        "inviter" => letter.inviter.to_owned(),
        "room" => letter.room.to_owned(),
        "date" => ending(|ending| ending.date.clone()),
        "days" => ending(|ending| ending.days.to_string()),
        "code" => ending(|ending| ending.code.clone()),
        _ => String::new(),
    }
}

/// Refuses a template that names what there is not.
fn check(template: &str, names: &[&str]) -> Result<(), &'static str> {
    let mut rest = template;
    while let Some((_, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or("`{{` without `}}`")?;
        if !names.contains(&name.trim()) {
            return Err("there is nothing of the name between braces");
        }
        rest = after;
    }
    Ok(())
}

/// One pass from left to right: what a value holds is never taken for a name.
fn filled(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(before);
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        text.push_str(&value(name.trim()));
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
            ending: None,
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
