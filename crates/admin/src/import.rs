//! Lists of people and of domains, taken in from a file of comma-separated values: over HTTP and by the command line alike.
//!
//! A file is read as a whole; each of its lines is done or not, and says which. What is there already is passed over, so that
//! the same file may come again, as after an interruption.

mod domains;
mod table;
mod users;

use serde::Serialize;

pub(crate) use self::{domains::domains, users::users};
use crate::run::Answer;

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It was made.
    Made,
    /// It was there and says something else now.
    Changed,
    /// It was there.
    Known,
    /// It is wrong: nothing was done.
    Refused,
}

/// A line of a file, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Line {
    /// Where it begins, counted from 1.
    #[serde(rename = "line")]
    at: usize,
    /// Whom or what it is about, as it says.
    what: String,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Line {
    fn new(at: usize, what: &str, done: Result<Outcome, String>) -> Self {
        let (outcome, error) = match done {
            Ok(outcome) => (outcome, None),
            Err(error) => (Outcome::Refused, Some(error)),
        };
        Self { at, what: what.to_owned(), outcome, error }
    }
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// Whether nothing was done, only looked at.
    dry_run: bool,
    made: usize,
    changed: usize,
    known: usize,
    refused: usize,
    lines: Vec<Line>,
}

impl Report {
    fn new(dry_run: bool, lines: Vec<Line>) -> Self {
        let count = |wanted| lines.iter().filter(|line| line.outcome == wanted).count();
        let (made, changed) = (count(Outcome::Made), count(Outcome::Changed));
        let (known, refused) = (count(Outcome::Known), count(Outcome::Refused));
        Self { dry_run, made, changed, known, refused, lines }
    }

    /// The same for the command line, where only what is wrong is told line by line.
    pub(crate) fn answer(&self) -> Answer {
        let would = if self.dry_run { "nothing was done; it would be: " } else { "" };
        let Self { made, changed, known, refused, .. } = self;
        let said = format!("{would}{made} made, {changed} changed, {known} were there, {refused} refused");
        let wrong = self
            .lines
            .iter()
            .filter_map(|line| Some(format!("line {} ({}): {}", line.at, line.what, line.error.as_ref()?)));
        let lines = std::iter::once(said).chain(wrong).collect();
        Answer { lines, data: serde_json::json!(self) }
    }
}
