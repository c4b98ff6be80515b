//! How hard a password is to guess for somebody who knows whose it is, as zxcvbn estimates it.

use std::collections::BTreeSet;

use zxcvbn::zxcvbn;

/// Characters of a password that are looked at: the work grows faster than they do.
const LOOKED_AT: usize = 64;
/// Words about a user that are looked for, and how short they may be.
const WORDS: usize = 50;
const SHORTEST: usize = 3;

/// From 0, guessed at once, to 4, very hard to guess. `about`: what is known of the user, such as name, address, organisation.
pub(crate) fn strength(password: &str, about: &[String]) -> u8 {
    let begin: String = joined(password).chars().take(LOOKED_AT).collect();
    let words = words(about);
    zxcvbn(&begin, &words.iter().map(String::as_str).collect::<Vec<_>>()).score().into()
}

/// A text without what stands alone between two words: it makes nothing harder to guess.
fn joined(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let is_word = |some: Option<&[char]>| some.is_some_and(|some| some.iter().all(|c| c.is_alphabetic()));
    let stands_between = |at: usize| {
        let before = at.checked_sub(SHORTEST).map(|from| &letters[from..at]);
        is_word(before) && is_word(letters.get(at + 1..=at + SHORTEST))
    };
    let kept = letters.iter().enumerate().filter(|(at, c)| c.is_alphanumeric() || !stands_between(*at));
    kept.map(|(_, c)| c).collect()
}

/// Whole texts and the words in them.
fn words(about: &[String]) -> BTreeSet<String> {
    let parts = about.iter().flat_map(|text| text.split(|c: char| !c.is_alphanumeric()));
    let all = about.iter().map(|text| joined(text)).chain(parts.map(str::to_owned));
    let kept = all.filter(|word| (SHORTEST..=LOOKED_AT).contains(&word.chars().count()));
    kept.take(WORDS).map(|word| word.to_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::strength;

    #[test]
    fn what_is_known_of_a_user_makes_a_password_easy() {
        let about =
            ["jeanne.durandeau@agriculture.gouv.fr", "Jeanne Durandeau [Agriculture]"].map(str::to_owned);
        for (password, weak) in [
            ("password", true),
            ("Azertyuiop1", true),
            ("Jeanne.Durandeau", true),
            ("durandeau2024", true),
            ("durandeau-agriculture", true),
            ("Agriculture!1", true),
            ("correct horse battery staple", false),
            ("gQ7#vbn2LmX0s", false),
            ("#{[|-@^~%&*", false),
        ] {
            assert_eq!(strength(password, &about) < 3, weak, "{password}");
        }
        assert!(strength("durandeau-agriculture", &[]) > strength("durandeau-agriculture", &about));
    }
}
