//! The profile `agents`: account name and display name that follow from the e-mail address; pure.

use crate::Email;

/// The localpart that belongs to an address, before any number: `@` becomes `-`, what a user id may not have is dropped.
pub fn localpart(email: &Email) -> String {
    let allowed = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-./=".contains(*c);
    email.as_str().replace('@', "-").chars().filter(allowed).collect()
}

/// Localparts to try in order: the plain one, then with 1, 2, 3… behind it.
///
/// Two addresses can have the same plain one (`a+b@x.fr`, `ab@x.fr`). Whoever creates the account must
/// take the first that was never used, not even by an account that is deactivated now.
pub fn localparts(email: &Email) -> impl Iterator<Item = String> + Send + use<> {
    let plain = localpart(email);
    let numbered = plain.clone();
    std::iter::once(plain).chain((1_u32..).map(move |n| format!("{numbered}{n}")))
}

/// `jane.smith@example.gouv.fr` → `Jane Smith [Example]`.
pub fn display_name(email: &Email) -> String {
    let words: Vec<String> = email.local().split('.').map(capitalised_parts).collect();
    format!("{} [{}]", words.join(" "), capitalised(organisation(email.domain())))
}

/// The label before `gouv.fr`, for other domains the second-level label.
fn organisation(domain: &str) -> &str {
    let under = domain.strip_suffix(".gouv.fr").or_else(|| domain.rsplit_once('.').map(|(rest, _)| rest));
    under.unwrap_or(domain).rsplit('.').next().unwrap_or_default()
}

fn capitalised_parts(word: &str) -> String {
    word.split('-').map(capitalised).collect::<Vec<_>>().join("-")
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::{display_name, localpart, localparts};
    use crate::Email;

    fn email(text: &str) -> Email {
        Email::parse(text).unwrap()
    }

    #[test]
    fn localparts_follow_from_the_address() {
        for (address, expected) in [
            ("john.doe@example.com", "john.doe-example.com"),
            ("user+tag@domain.com", "usertag-domain.com"),
            ("O'Neil_x=y@Domain.com", "oneil_x=y-domain.com"),
            ("jean2@x.fr", "jean2-x.fr"),
        ] {
            assert_eq!(localpart(&email(address)), expected);
        }
    }

    #[test]
    fn a_collision_takes_the_next_number() {
        assert_eq!(localpart(&email("a+b@x.fr")), localpart(&email("ab@x.fr")));
        let tried: Vec<_> = localparts(&email("ab@x.fr")).take(3).collect();
        assert_eq!(tried, ["ab-x.fr", "ab-x.fr1", "ab-x.fr2"]);
    }

    #[test]
    fn display_names() {
        for (address, expected) in [
            ("jane.smith@example.gouv.fr", "Jane Smith [Example]"),
            ("jean-pierre.le-gall@gendarmerie.interieur.gouv.fr", "Jean-Pierre Le-Gall [Interieur]"),
            ("x@gouv.fr", "X [Gouv]"),
            ("contact@example.com", "Contact [Example]"),
            ("contact@mail.example.com", "Contact [Example]"),
            ("1a.b@x.fr", "1a B [X]"),
            ("x@notgouv.fr", "X [Notgouv]"),
        ] {
            assert_eq!(display_name(&email(address)), expected);
        }
    }
}
