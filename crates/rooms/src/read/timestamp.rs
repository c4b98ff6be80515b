//! `/timestamp_to_event`: the event nearest to a time.

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedServerName, RoomId, ServerName, UserId,
    api::Direction,
};

use crate::{
    Actor, Error, Result, Rooms,
    read::view::{Event, View},
};

/// Events looked at on each side of where the time should be: clocks of servers differ.
const AROUND: usize = 50;

/// An event and its time.
pub type Found = (OwnedEventId, MilliSecondsSinceUnixEpoch);

impl Rooms {
    /// `GET /rooms/{roomId}/timestamp_to_event`: the nearest visible event not before (forward) or not after
    /// (backward) `ts`. Where this server's history ends before that, other servers are asked.
    pub async fn timestamp_to_event(
        &self,
        actor: &Actor,
        room: &RoomId,
        ts: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Result<Found> {
        let (local, servers) = {
            let view = self.view(room).await.map_err(crate::read::state::no_such_room)?;
            view.access(&actor.user).await?;
            let local = view.nearest_for_user(&actor.user, ts, direction).await?;
            let asks = local.is_none() && direction == Direction::Backward;
            (local, if asks { view.other_servers().await? } else { Vec::new() })
        };
        if let Some(event) = local {
            return Ok(found(&event));
        }
        for server in servers.iter().take(self.0.config.backfill_servers) {
            if let Ok(answer) = self.0.peers.timestamp_to_event(server, room, ts, direction).await
                && answer.1 <= ts
            {
                return Ok(answer);
            }
        }
        Err(Error::NotFound("event at this time"))
    }

    /// The same for another server.
    pub async fn timestamp_to_event_for(
        &self,
        origin: &ServerName,
        room: &RoomId,
        ts: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Result<Found> {
        let view = self.view_for(origin, room).await?;
        let candidates = view.around(ts, direction).await?;
        let sees = view.server_sees(origin, &candidates).await?;
        let visible = candidates.into_iter().zip(sees).filter(|(event, sees)| *sees && event.is_shown());
        nearest(visible.map(|(event, _)| event), ts, direction)
            .map(|event| found(&event))
            .ok_or(Error::NotFound("event at this time"))
    }
}

fn found(event: &Event) -> Found {
    let id: &EventId = event.pdu.event_id();
    (id.to_owned(), event.pdu.origin_server_ts())
}

fn nearest(
    events: impl Iterator<Item = Event>,
    ts: MilliSecondsSinceUnixEpoch,
    direction: Direction,
) -> Option<Event> {
    let time = |event: &Event| event.pdu.origin_server_ts();
    match direction {
        Direction::Forward => events.filter(|event| time(event) >= ts).min_by_key(time),
        Direction::Backward => events.filter(|event| time(event) <= ts).max_by_key(time),
    }
}

impl View<'_> {
    async fn nearest_for_user(
        &self,
        user: &UserId,
        ts: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Result<Option<Event>> {
        let candidates = self.around(ts, direction).await?;
        let seen = self.visible(user, candidates).await?;
        Ok(nearest(seen.into_iter().map(|seen| seen.event), ts, direction))
    }

    /// Events around a time: a binary search, as the timeline is nearly in order of time.
    async fn around(&self, ts: MilliSecondsSinceUnixEpoch, direction: Direction) -> Result<Vec<Event>> {
        let (mut low, mut high) = (self.head.next_back + 1, self.head.next_live);
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(row) = self.reader.timeline_forward(self.nid, middle, 1).await?.into_iter().next()
            else {
                high = middle;
                continue;
            };
            let time = self.load_one(row.num).await?.pdu.origin_server_ts();
            let before = if direction == Direction::Forward { time < ts } else { time <= ts };
            if before {
                low = row.ordinal + 1;
            } else {
                high = middle;
            }
        }
        let mut rows = self.reader.timeline_back(self.nid, low, AROUND).await?;
        rows.extend(self.reader.timeline_forward(self.nid, low, AROUND).await?);
        let nums: Vec<_> = rows.into_iter().map(|row| row.num).collect();
        self.load(&nums).await
    }

    /// Other servers with a joined user, the biggest first.
    pub(crate) async fn other_servers(&self) -> Result<Vec<OwnedServerName>> {
        let mut servers = self.reader.room_servers(self.nid).await?;
        servers.retain(|(server, _)| *server != self.inner.server);
        servers.sort_by_key(|(_, joined)| std::cmp::Reverse(*joined));
        Ok(servers.into_iter().map(|(server, _)| server).collect())
    }
}
