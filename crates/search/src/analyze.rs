//! From text to words: the same way for what is indexed and for what is asked.

use tantivy::tokenizer::{
    AsciiFoldingFilter, LowerCaser, RemoveLongFilter, SimpleTokenizer, TextAnalyzer, Token,
};
use unicode_normalization::UnicodeNormalization as _;

/// The analyzer's name in the schema.
pub(crate) const ANALYZER: &str = "folded";
/// Words of more bytes are no words.
const LONGEST: usize = 64;
/// Letters of a word's beginning that are indexed for people.
pub(crate) const BEGINNING: usize = 12;

/// Words are runs of letters and digits, without case and accents: `L'Été` is `l` and `ete`.
pub(crate) fn analyzer() -> TextAnalyzer {
    TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(LONGEST))
        .filter(LowerCaser)
        .filter(AsciiFoldingFilter)
        .build()
}

/// The text with letters in one piece: some keyboards send an `e` and an accent.
pub(crate) fn composed(text: &str) -> String {
    text.nfkc().collect()
}

/// The words of a text.
pub(crate) fn words(text: &str) -> Vec<String> {
    tokens(&composed(text)).into_iter().map(|token| token.text).collect()
}

/// The words of a composed text, with where they stand in it.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut analyzer = analyzer();
    let mut stream = analyzer.token_stream(text);
    let mut tokens = Vec::new();
    while stream.advance() {
        tokens.push(stream.token().clone());
    }
    tokens
}

/// The beginnings of a word, the first letter alone first, [`BEGINNING`] letters at most.
pub(crate) fn beginnings(word: &str) -> impl Iterator<Item = &str> {
    let ends = word.char_indices().skip(1).map(|(at, _)| at).chain([word.len()]);
    ends.take(BEGINNING).map(|end| &word[..end])
}

/// The word, cut to what is indexed of its beginning.
pub(crate) fn beginning(word: &str) -> &str {
    beginnings(word).last().unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::{beginning, beginnings, words};

    #[test]
    fn case_accents_ligatures_and_elisions_do_not_matter() {
        for text in ["L'ÉTÉ à Nîmes", "l’ete a nimes", "L'e\u{301}te\u{301} a\u{300} Ni\u{302}mes"] {
            assert_eq!(words(text), ["l", "ete", "a", "nimes"], "{text}");
        }
        assert_eq!(words("Œuvre, ÇA, STRASSE"), ["oeuvre", "ca", "strasse"]);
        assert_eq!(words("peut-être 2024"), ["peut", "etre", "2024"]);
        assert_eq!(words("@jean.dupont-x:gouv.fr"), ["jean", "dupont", "x", "gouv", "fr"]);
        assert_eq!(words("Привет"), ["привет"]);
        assert!(words(&"a".repeat(70)).is_empty() && words("… !?").is_empty());
    }

    #[test]
    fn beginnings_are_of_whole_letters() {
        assert_eq!(beginnings("été").collect::<Vec<_>>(), ["é", "ét", "été"]);
        assert_eq!(beginning("abcdefghijklmnop"), "abcdefghijkl");
        assert_eq!(beginning("привет"), "привет");
    }
}
