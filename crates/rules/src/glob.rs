//! Glob patterns (`*` and `?`) matched without backtracking blow-up: pattern length times text length at worst.

/// One token of a pattern; all but `Star` match exactly one character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// Any run of characters, empty too.
    Star,
    /// Any one character.
    Any,
    /// Any one character that cannot be part of a word.
    Gap,
    /// This character.
    Exactly(char),
}

impl Token {
    fn matches(self, character: char) -> bool {
        match self {
            Self::Star => false,
            Self::Any => true,
            Self::Gap => !is_word(character),
            Self::Exactly(wanted) => wanted == character,
        }
    }
}

/// A compiled pattern. Case is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Vec<Token>);

impl Glob {
    /// A pattern for the whole of a text.
    pub fn new(pattern: &str) -> Self {
        Self(tokens(pattern))
    }

    /// A pattern for words inside a text: what it matches is delimited by the text's ends or by characters other than
    /// letters, digits and `_` in ASCII. Match it against [`padded`] text.
    ///
    /// Specification: client-server API, "Push rules", `event_match` on `content.body`.
    pub fn words(pattern: &str) -> Self {
        Self::between_gaps(&tokens(pattern))
    }

    /// As [`Glob::words`] for a text in which `*` and `?` mean themselves.
    pub fn literal_words(text: &str) -> Self {
        Self::between_gaps(&folded(text).chars().map(Token::Exactly).collect::<Vec<_>>())
    }

    fn between_gaps(inner: &[Token]) -> Self {
        let delimits = |token: Option<&Token>| match token {
            // Beside a character that is no part of a word, every place is a boundary.
            Some(Token::Exactly(character)) => is_word(*character),
            _ => true,
        };
        let mut all = vec![Token::Star];
        all.extend(delimits(inner.first()).then_some(Token::Gap));
        all.extend_from_slice(inner);
        all.extend(delimits(inner.last()).then_some(Token::Gap));
        all.push(Token::Star);
        Self(all)
    }

    /// Whether `text`, already in [`folded`] form, matches.
    pub fn matches(&self, text: &str) -> bool {
        let tokens = &self.0;
        let (mut token, mut rest) = (0, text.chars());
        // After the last star: the token to go back to, and the text from which it would be tried one further.
        let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            let mut ahead = rest.clone();
            match (tokens.get(token), ahead.next()) {
                (Some(Token::Star), _) => {
                    token += 1;
                    retry = Some((token, rest.clone()));
                    if token == tokens.len() {
                        return true;
                    }
                }
                (Some(one), Some(character)) if one.matches(character) => {
                    token += 1;
                    rest = ahead;
                }
                (None, None) => return true,
                _ => {
                    let Some((back, from)) = &mut retry else { return false };
                    if from.next().is_none() {
                        return false;
                    }
                    token = *back;
                    rest = from.clone();
                }
            }
        }
    }
}

/// The form of a text in which case does not matter.
pub fn folded(text: &str) -> String {
    text.to_lowercase()
}

/// The form of a text that [`Glob::words`] is matched against.
pub fn padded(text: &str) -> String {
    format!(" {} ", folded(text))
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(pattern.len());
    for character in folded(pattern).chars() {
        match character {
            '*' if tokens.last() == Some(&Token::Star) => {}
            '*' => tokens.push(Token::Star),
            '?' => tokens.push(Token::Any),
            other => tokens.push(Token::Exactly(other)),
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::{Glob, folded, padded};

    fn whole(pattern: &str, text: &str) -> bool {
        Glob::new(pattern).matches(&folded(text))
    }

    fn words(pattern: &str, text: &str) -> bool {
        Glob::words(pattern).matches(&padded(text))
    }

    #[test]
    fn whole_text() {
        assert!(
            whole("*", "")
                && whole("", "")
                && whole("a*c", "abbbc")
                && whole("A?c", "aBC")
                && whole("*b*", "abc")
        );
        assert!(!whole("", "a") && !whole("a?", "a") && !whole("a*c", "ab") && !whole("b", "abc"));
        assert!(whole("*.evil.example", "x.evil.example") && !whole("*.evil.example", "evil.example"));
    }

    #[test]
    fn inside_words() {
        assert!(words("alice", "hey Alice, come") && words("alice", "alice") && words("al*ce", "(alice)"));
        assert!(!words("alice", "malice") && !words("alice", "alice_b") && !words("ali", "alice"));
        assert!(words("@room", "hello@room!") && words("é", "café") && words("a b", "x a b y"));
        assert!(words("alice", "malice alice"));
    }

    #[test]
    fn hostile_pattern_ends() {
        let pattern = "*a".repeat(500) + "b";
        assert!(!whole(&pattern, &"a".repeat(50_000)));
    }
}
