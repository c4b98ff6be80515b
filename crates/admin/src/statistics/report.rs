//! What is shown of the figures: nothing about a group of too few people.
//!
//! Figures of small groups are put together by day and kind, and shown where they make a group that is large enough. Every
//! other sum is one of figures that are shown, so that no difference of two tells more.

use std::{collections::BTreeMap, fmt::Write as _};

use chappe_identity::{day_of, moment};
use chappe_store::{
    Json,
    statistics::{Figure, Statistics as Rows},
};
use serde::{Deserialize, Serialize};

use super::{DAY_MS, Statistics, kinds, sums::join};
use crate::Error;

/// The domain under which small groups are put together.
const OTHERS: &str = "(others)";
/// Days shown where nothing else is asked for.
const USUAL: u64 = 30;
/// Days shown at most; fewer where each is shown by itself.
const MOST: u64 = 3_700;
const MOST_EACH: u64 = 31;

/// What figures are put together by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    /// All days, by domain and kind.
    Domain,
    /// All days and domains, by kind.
    Kind,
}

/// Which figures are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Period {
    /// The first day, such as `2026-11-30`.
    pub(crate) from: Option<String>,
    /// The last day.
    pub(crate) to: Option<String>,
    /// By what; each for itself if nothing is said.
    pub(crate) by: Option<Grouping>,
}

/// A figure as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) day: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<String>,
    pub(crate) kind: String,
    pub(crate) count: u64,
}

/// Figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// The first day.
    pub(crate) from: String,
    /// The last day.
    pub(crate) to: String,
    /// Groups of fewer people are not shown.
    pub(crate) smallest_group: usize,
    pub(crate) figures: Vec<Line>,
}

impl Statistics {
    /// The figures of some days (UTC), up to this moment. [`Error::Invalid`] for days that are none, or too many.
    pub(crate) async fn report(&self, period: &Period) -> Result<Report, Error> {
        let day = |said: &Option<String>, usual: u64| match said {
            None => Ok(usual),
            Some(said) => {
                day_of(said).ok_or_else(|| Error::Invalid(format!("{said:?} is no day: YYYY-MM-DD")))
            }
        };
        let to = day(&period.to, self.today())?;
        let from = day(&period.from, to.saturating_sub(USUAL - 1))?;
        let most = if period.by.is_some() { MOST } else { MOST_EACH };
        if from > to || to - from >= most {
            return Err(Error::Invalid(format!("from the first day to the last there are 1 to {most} days")));
        }
        self.round().await?;
        let reader = self.0.deps.store.read();
        let mut gathered = Gathered { by: period.by, ..Gathered::default() };
        for day in from..=to {
            let rows = reader.scan_all::<Rows>(&day).await?;
            let rows = rows.into_iter().map(|(place, Json(figure))| (place, figure));
            for placed in shown(rows, self.smallest()) {
                gathered.add(placed);
            }
        }
        let figures = gathered.lines();
        Ok(Report { from: date(from), to: date(to), smallest_group: self.smallest(), figures })
    }

    fn smallest(&self) -> usize {
        self.config().smallest_group
    }
}

impl Report {
    /// The same as comma-separated values.
    pub(crate) fn csv(&self) -> String {
        let mut text = "day,domain,kind,count\n".to_owned();
        for Line { day, domain, kind, count } in &self.figures {
            let (day, domain) = (day.as_deref().unwrap_or_default(), domain.as_deref().unwrap_or_default());
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{day},{domain},{kind},{count}");
        }
        text
    }

    /// The same for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let said = format!(
            "{} to {} (UTC), without groups of fewer than {} people",
            self.from, self.to, self.smallest_group
        );
        let line = |line: &Line| {
            let words = [line.day.as_deref(), Some(line.kind.as_str()), line.domain.as_deref()];
            let words: Vec<&str> = words.into_iter().flatten().collect();
            format!("{:>12}  {}", line.count, words.join("  "))
        };
        std::iter::once(said).chain(self.figures.iter().map(line)).collect()
    }
}

fn date(day: u64) -> String {
    moment(day * DAY_MS).chars().take(10).collect()
}

type Placed = ((u64, String, String), Figure);

/// The figures that are about enough people, and small groups put together.
fn shown(rows: impl Iterator<Item = Placed>, smallest: usize) -> Vec<Placed> {
    let (mut shown, small): (Vec<Placed>, Vec<Placed>) =
        rows.partition(|(_, figure)| figure.people.len() >= smallest);
    let mut others: BTreeMap<(u64, String, String), Figure> = BTreeMap::new();
    for ((day, _, kind), figure) in small {
        let other = others.entry((day, OTHERS.to_owned(), kind)).or_default();
        other.count += figure.count;
        // Whose address changed on that day is in two domains, and one person all the same.
        join(&mut other.people, figure.people, smallest);
    }
    shown.extend(others.into_iter().filter(|(_, figure)| figure.people.len() >= smallest));
    shown
}

/// Sums of figures that are shown, of one day after the other.
#[derive(Default)]
struct Gathered {
    by: Option<Grouping>,
    sums: BTreeMap<(Option<u64>, Option<String>, String), u64>,
    /// The last day that says how things stood, by kind.
    last: BTreeMap<String, u64>,
}

impl Gathered {
    fn add(&mut self, ((day, domain, kind), figure): Placed) {
        // How things stood is not summed up over days: the last one says it.
        if self.by.is_some() && kinds::is_level(&kind) && self.last.insert(kind.clone(), day) != Some(day) {
            self.sums.retain(|(.., known), _| *known != kind);
        }
        let place = match self.by {
            None => (Some(day), Some(domain), kind),
            Some(Grouping::Domain) => (None, Some(domain), kind),
            Some(Grouping::Kind) => (None, None, kind),
        };
        *self.sums.entry(place).or_default() += figure.count;
    }

    fn lines(self) -> Vec<Line> {
        let figures = self.sums.into_iter();
        figures.map(|((day, domain, kind), count)| Line { day: day.map(date), domain, kind, count }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Figure, Gathered, Grouping, Placed, shown};

    /// The people of a domain are others than those of one whose name is of another length.
    fn row(day: u64, domain: &str, kind: &str, (count, people): (u64, u32)) -> Placed {
        let first = u32::try_from(domain.len()).unwrap() * 100;
        let people = (first..first + people).collect();
        ((day, domain.to_owned(), kind.to_owned()), Figure { count, people })
    }

    fn said(rows: &[Placed], smallest: usize, by: Option<Grouping>) -> Vec<String> {
        let mut gathered = Gathered { by, ..Gathered::default() };
        for placed in shown(rows.iter().cloned(), smallest) {
            gathered.add(placed);
        }
        let lines = gathered.lines();
        let text = |line: &super::Line| {
            let (day, domain) = (line.day.as_deref().unwrap_or("-"), line.domain.as_deref().unwrap_or("-"));
            format!("{day} {domain} {} {}", line.kind, line.count)
        };
        lines.iter().map(text).collect()
    }

    #[test]
    fn small_groups_are_put_together_or_not_shown_and_no_sum_tells_of_them() {
        let rows = [
            row(0, "big.fr", "m", (100, 5)),
            row(0, "one.fr", "m", (7, 1)),
            row(0, "four.fr", "m", (20, 4)),
            row(1, "big.fr", "m", (50, 5)),
            row(1, "one.fr", "m", (900, 1)),
        ];
        assert_eq!(
            said(&rows, 5, None),
            ["1970-01-01 (others) m 27", "1970-01-01 big.fr m 100", "1970-01-02 big.fr m 50"]
        );
        assert_eq!(said(&rows, 5, Some(Grouping::Domain)), ["- (others) m 27", "- big.fr m 150"]);
        assert_eq!(said(&rows, 5, Some(Grouping::Kind)), ["- - m 177"]);
        assert_eq!(said(&rows, 1, Some(Grouping::Kind)), ["- - m 1077"]);
    }

    #[test]
    fn people_who_are_in_two_domains_make_no_larger_group() {
        let rows = [row(0, "a.fr", "m", (7, 3)), row(0, "b.fr", "m", (7, 3))];
        assert_eq!(said(&rows, 5, None), Vec::<String>::new());
        assert_eq!(said(&rows, 3, None).len(), 2);
    }

    #[test]
    fn how_things_stood_is_not_summed_up_over_days() {
        let rows = [
            row(0, "a.fr", super::kinds::OPEN, (10, 5)),
            row(1, "a.fr", super::kinds::OPEN, (12, 5)),
            row(1, "b.fr", super::kinds::OPEN, (30, 5)),
        ];
        assert_eq!(said(&rows, 5, Some(Grouping::Kind)), ["- - account.open 42"]);
        assert_eq!(said(&rows, 5, None).len(), 3);
    }
}
