//! Pages of a list, as all lists of this API are asked for: an offset, a length, an order.

use chappe_web::Error;
use serde::Deserialize;

/// The longest page.
const LONGEST: usize = 1_000;
/// A page's length where none is asked for.
const USUAL: usize = 100;

/// `from` and `limit` of a query string.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Page {
    from: Option<usize>,
    limit: Option<usize>,
}

/// `dir` of a query string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum Dir {
    /// Forward.
    #[serde(rename = "f")]
    Forward,
    /// Backward.
    #[serde(rename = "b")]
    Backward,
}

impl Dir {
    /// Whether the order is turned round.
    pub(crate) fn is_backward(self) -> bool {
        self == Self::Backward
    }
}

impl Page {
    /// How many to leave out.
    pub(crate) fn from(self) -> usize {
        self.from.unwrap_or(0)
    }

    /// How many to show.
    pub(crate) fn limit(self) -> usize {
        self.limit.unwrap_or(USUAL).min(LONGEST)
    }

    /// Where the next page begins, if there is one.
    pub(crate) fn next(self, total: usize) -> Option<usize> {
        let next = self.from().saturating_add(self.limit());
        (next < total).then_some(next)
    }

    /// This page of a whole list.
    pub(crate) fn of<T>(self, all: Vec<T>) -> Vec<T> {
        all.into_iter().skip(self.from()).take(self.limit()).collect()
    }
}

/// 400: there is no such order.
pub(crate) fn no_such_order() -> Error {
    Error::invalid_param("Unknown value for order_by")
}
