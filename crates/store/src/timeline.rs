//! The timeline: the order in which a room's events are shown.
//!
//! Live events have growing ordinals from 1 on, in order of position; where events were missed, places are left free
//! and filled backwards later. What is older than the first live event gets 0, −1, −2 …

use chappe_kv::Position;

use crate::{At, Direction, Reader, events::EventNum, rooms::RoomNid, table, tx::Error};

table! {
    /// Room and ordinal → the commit that put the event there, and the event.
    Timeline = TIMELINE: (RoomNid, i64) => At<EventNum>;
}

/// An event's place in the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimelineRow {
    /// Its place.
    pub ordinal: i64,
    /// The commit that put it there.
    pub position: Position,
    /// Which event.
    pub num: EventNum,
}

fn row(((_, ordinal), at): ((RoomNid, i64), At<EventNum>)) -> TimelineRow {
    TimelineRow { ordinal, position: at.position, num: at.value }
}

impl Reader<'_> {
    /// Up to `limit` events before the ordinal `before` (excluded), latest first: one round trip.
    pub async fn timeline_back(
        &self,
        nid: RoomNid,
        before: i64,
        limit: usize,
    ) -> Result<Vec<TimelineRow>, Error> {
        let rows = self.scan_back::<Timeline>(&nid, &(nid, before), limit).await?;
        Ok(rows.into_iter().map(row).collect())
    }

    /// Up to `limit` events from the ordinal `from` (included) on, earliest first: one round trip.
    pub async fn timeline_forward(
        &self,
        nid: RoomNid,
        from: i64,
        limit: usize,
    ) -> Result<Vec<TimelineRow>, Error> {
        let rows = self.scan_from::<Timeline>(&nid, &(nid, from), limit).await?;
        Ok(rows.into_iter().map(row).collect())
    }

    /// The latest event of the timeline.
    pub async fn timeline_end(&self, nid: RoomNid) -> Result<Option<TimelineRow>, Error> {
        let rows = self.scan::<Timeline>(&nid, Direction::Backward, 1).await?;
        Ok(rows.into_iter().map(row).next())
    }

    /// The nearest free place before the event at `ordinal`, with no other event between, and the place of the next
    /// older event, if there is one: where older history goes.
    pub async fn free_before(&self, nid: RoomNid, ordinal: i64) -> Result<(i64, Option<i64>), Error> {
        let mut lowest = ordinal;
        loop {
            let rows = self.timeline_back(nid, lowest, 200).await?;
            let Some(last) = rows.last() else { return Ok((lowest - 1, None)) };
            let last = last.ordinal;
            for row in rows {
                if row.ordinal != lowest - 1 {
                    return Ok((lowest - 1, Some(row.ordinal)));
                }
                lowest = row.ordinal;
            }
            debug_assert_eq!(lowest, last, "all rows were next to each other");
        }
    }

    /// The first live ordinal whose event came after `position`: where a sync token stands in this room's
    /// timeline, in the meaning of a pagination token. About log2(length of the room) reads.
    pub async fn ordinal_after(&self, nid: RoomNid, position: Position) -> Result<i64, Error> {
        let Some(end) = self.timeline_end(nid).await?.filter(|end| end.ordinal >= 1) else { return Ok(1) };
        if end.position <= position {
            return Ok(end.ordinal + 1);
        }
        let (mut low, mut high) = (1, end.ordinal);
        while low < high {
            let middle = low + (high - low) / 2;
            let later = match self.timeline_forward(nid, middle, 1).await?.first() {
                Some(row) => row.position > position,
                None => true,
            };
            if later {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }
}
