//! What is wrong with a configuration, for who wrote it and for logs.

use std::{fmt, path::PathBuf};

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: {error}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Something is written wrongly; the text shows file, line and key.
    #[error("{}", lines(.0.iter().map(ToString::to_string)))]
    Wrong(Vec<Mistake>),
    /// Something has changed that never does.
    #[error("`{0}` cannot be changed")]
    Fixed(String),
    /// What can be changed while the server runs does not go with what cannot.
    #[error("{0}: only together with what takes effect at the next start")]
    Apart(String),
}

impl Error {
    /// The same without what is written there, which may be a secret: for logs.
    pub fn without_values(&self) -> String {
        match self {
            Self::Wrong(mistakes) => lines(mistakes.iter().map(Mistake::without_values)),
            other => other.to_string(),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// File and line, or variable.
    pub(super) place: String,
    /// The key, and what must be.
    pub(super) sentence: String,
    /// The line as it is written.
    pub(super) shown: Option<String>,
}

impl Mistake {
    /// One whose line is not shown.
    pub(super) fn somewhere(place: &str, sentence: String) -> Self {
        Self { place: place.to_owned(), sentence, shown: None }
    }

    fn without_values(&self) -> String {
        // What serde found stands between these and what it expected.
        let found = ["invalid type: ", "invalid value: ", "unknown variant "];
        let told = found.iter().find_map(|found| {
            let (before, rest) = self.sentence.split_once(found)?;
            Some(format!("{before}expected {}", rest.rsplit_once(", expected ")?.1))
        });
        format!("{}: {}", self.place, told.as_ref().unwrap_or(&self.sentence))
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.sentence)?;
        self.shown.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().join("\n")
}
