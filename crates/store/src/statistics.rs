//! Statistics: how much of what happened on each day in each domain, without who and what.

use serde::{Deserialize, Serialize};

use crate::{Json, table};

/// A figure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figure {
    /// How much.
    #[serde(rename = "n")]
    pub count: u64,
    /// The first people whom it is about, as parts of hashes: no more of them than make a group that may be shown.
    #[serde(rename = "p")]
    pub people: Vec<u32>,
}

table! {
    /// `(days since 1970, domain, kind)` → figure.
    Statistics = STATISTICS: (u64, String, String) => Json<Figure>;
    /// The last day (since 1970) at whose beginning it was written down how things stood.
    StatisticsDay = STATISTICS_DAY: () => u64;
}

#[cfg(test)]
mod tests {
    use super::{Figure, Statistics, StatisticsDay};
    use crate::{Json, golden::row};

    #[test]
    fn golden_bytes() {
        let key = (20_000, "x.fr".to_owned(), "people.active".to_owned());
        let figure = Json(Figure { count: 3, people: vec![1, 2] });
        let (number, text) = row::<Statistics>(key, figure);
        assert_eq!(number, 15);
        assert!(text.starts_with("STATISTICS 0f0000000000004e20782e66720000"), "{text}");
        assert!(text.ends_with(" = 7b226e223a332c2270223a5b312c325d7d"), "{text}");
        assert_eq!(row::<StatisticsDay>((), 20_000).1, "STATISTICS_DAY 10 = 0000000000004e20");
    }
}
