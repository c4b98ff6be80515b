//! Whoever gives events of others can leave out what they say, as of a redacted event, and their signatures hold all the same.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use ruma::{EventId, RoomId, ServerName, room_version_rules::RoomVersionRules};

use super::{HOPELESS_MS, Proven, check::parse};
use crate::{Inner, Result, desk::Desk};

/// Events whose senders' servers are asked for them, at most.
const MOST: usize = 20;
/// For how long they are waited for.
const LONGEST: Duration = Duration::from_secs(10);

impl Inner {
    /// Events that `server` gave, with those that it gave as if they were redacted as their own servers give them, where nobody
    /// else is known to have redacted them. What cannot be had stays as it came.
    pub(super) async fn intact(
        &self,
        server: &ServerName,
        (room, rules): (&RoomId, &'static RoomVersionRules),
        mut events: Vec<Proven>,
    ) -> Vec<Proven> {
        let changed = self.changed_by(server, room, &events).await.unwrap_or_default();
        let asked = changed.into_iter().take(MOST).map(|at| {
            let whole = self.as_its_server_gives(rules, room, &events[at]);
            async move { Some((at, whole.await?)) }
        });
        let found: Vec<(usize, Proven)> = join_all(asked).await.into_iter().flatten().collect();
        for (at, whole) in found {
            events[at] = whole;
        }
        events
    }

    /// Which of the events are of servers beside this one and `server`, came without what they say, and are redacted by nobody
    /// of another server as far as is known.
    async fn changed_by(&self, server: &ServerName, room: &RoomId, events: &[Proven]) -> Result<Vec<usize>> {
        let of = |proven: &Proven| proven.pdu().sender().server_name().to_owned();
        let is_changed =
            |proven: &Proven| !proven.is_intact() && of(proven) != server && of(proven) != self.server;
        let redactions = events.iter().filter(|proven| of(proven) != server);
        let redacted: BTreeSet<&EventId> = redactions.filter_map(|proven| proven.pdu().redacts()).collect();
        let desk = Desk::open(self, room).await?;
        let mut changed = Vec::new();
        for (at, proven) in events.iter().enumerate().filter(|(_, proven)| is_changed(proven)) {
            let event = proven.pdu().event_id();
            if self.blank.holds(&(room.to_owned(), event.to_owned()), self.world.now()) {
                continue;
            }
            let waiting = desk.reader.waiting_redactions(desk.nid, event).await?;
            let waiting = desk.pdus(&waiting).await?;
            let is_redacted = redacted.contains(event)
                || waiting.iter().any(|redaction| redaction.sender().server_name() != server)
                || match desk.reader.event_num(desk.nid, event).await? {
                    Some(num) => desk.is_redacted(num).await?,
                    None => false,
                };
            if !is_redacted {
                changed.push(at);
            }
        }
        Ok(changed)
    }

    /// None is not asked for again for a while, unless its server was not asked at all.
    async fn as_its_server_gives(
        &self,
        rules: &'static RoomVersionRules,
        room: &RoomId,
        given: &Proven,
    ) -> Option<Proven> {
        let (pdu, server) = (given.pdu(), given.pdu().sender().server_name());
        if self.peers.is_away(server).await {
            return None;
        }
        let asked = async {
            let raw = self.peers.event(server, pdu.event_id()).await.ok()?;
            let whole = self.check_one(rules, parse(rules, room, &raw).ok()?).await.ok()?;
            (whole.is_intact() && pdu.is_same(rules, whole.pdu())).then_some(whole)
        };
        let whole = self.world.timeout(LONGEST, asked).await.flatten();
        if whole.is_none() {
            self.blank.add((room.to_owned(), pdu.event_id().to_owned()), (self.world.now(), HOPELESS_MS));
        }
        whole
    }
}
