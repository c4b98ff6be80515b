//! A collector that keeps the best hits in rooms of a set, and nothing else.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use roaring::RoaringBitmap;
use tantivy::{
    DocId, Score, SegmentOrdinal, SegmentReader,
    collector::{Collector, SegmentCollector},
    columnar::Column,
};

use crate::{
    events::Order,
    schema::{KEY, RECENCY},
};

/// A hit: what it is ordered by, greatest first, and which event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hit {
    /// Score or recency.
    pub(crate) by: u64,
    /// Room number and event number.
    pub(crate) key: u64,
}

/// Keeps the first `limit` hits below `after`.
pub(crate) struct Pick {
    pub(crate) order: Order,
    /// Only in these rooms; none: the query says so itself.
    pub(crate) rooms: Option<Arc<RoaringBitmap>>,
    /// Only what comes after this hit.
    pub(crate) after: Option<Hit>,
    pub(crate) limit: usize,
}

pub(crate) struct PickInSegment {
    order: Order,
    rooms: Option<Arc<RoaringBitmap>>,
    after: Option<Hit>,
    limit: usize,
    /// None in a segment that holds people alone.
    columns: Option<(Column<u64>, Column<u64>)>,
    best: BinaryHeap<Reverse<Hit>>,
}

impl Collector for Pick {
    type Fruit = Vec<Hit>;
    type Child = PickInSegment;

    fn for_segment(&self, _: SegmentOrdinal, segment: &SegmentReader) -> tantivy::Result<PickInSegment> {
        Ok(PickInSegment {
            order: self.order,
            rooms: self.rooms.clone(),
            after: self.after,
            limit: self.limit,
            columns: column(segment, KEY)?.zip(column(segment, RECENCY)?),
            best: BinaryHeap::new(),
        })
    }

    fn requires_scoring(&self) -> bool {
        self.order == Order::Rank
    }

    fn merge_fruits(&self, fruits: Vec<Vec<Hit>>) -> tantivy::Result<Vec<Hit>> {
        let mut all: Vec<Hit> = fruits.into_iter().flatten().collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.truncate(self.limit);
        Ok(all)
    }
}

fn column(segment: &SegmentReader, name: &str) -> tantivy::Result<Option<Column<u64>>> {
    segment.fast_fields().column_opt::<u64>(name)
}

impl SegmentCollector for PickInSegment {
    type Fruit = Vec<Hit>;

    fn collect(&mut self, doc: DocId, score: Score) {
        let Some((keys, recencies)) = &self.columns else { return };
        let Some(key) = keys.first(doc) else { return };
        let room = u32::try_from(key >> 32).unwrap_or(0);
        if self.rooms.as_ref().is_some_and(|rooms| !rooms.contains(room)) {
            return;
        }
        let by = match self.order {
            // Scores are positive: their bits are ordered as they are.
            Order::Rank => u64::from(score.max(0.0).to_bits()),
            Order::Recent => recencies.first(doc).unwrap_or(0),
        };
        let hit = Hit { by, key };
        if self.after.is_some_and(|after| hit >= after) {
            return;
        }
        if self.best.len() < self.limit {
            self.best.push(Reverse(hit));
        } else if self.best.peek().is_some_and(|Reverse(worst)| hit > *worst) {
            self.best.pop();
            self.best.push(Reverse(hit));
        }
    }

    fn harvest(self) -> Vec<Hit> {
        self.best.into_iter().map(|Reverse(hit)| hit).collect()
    }
}
