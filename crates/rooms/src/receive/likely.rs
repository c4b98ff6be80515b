//! Which servers most likely have the history that is missing here.

use chappe_store::EventNum;
use ruma::{OwnedServerName, events::StateEventType};

use crate::{Error, Result, desk::Desk};

/// Events on each side of a gap whose senders' servers are asked first.
const NEAR: usize = 10;
/// Servers of which it is looked up whether they are away, at most.
const LOOKED_UP: usize = 50;

impl Desk<'_> {
    /// Other servers in the room that may have what is missing before the event at `ordinal`, likeliest first, `most` at most:
    /// those of whom something was said beside the gap, the one that made the room, those with most members. Who did not
    /// answer of late comes last.
    pub(crate) async fn likely_servers(&self, ordinal: i64, most: usize) -> Result<Vec<OwnedServerName>> {
        let named = self.named_beside(ordinal).await?;
        let mut servers = self.reader.room_servers(self.nid).await?;
        servers.retain(|(server, _)| *server != self.inner.server);
        servers.sort_by_key(|(server, joined)| {
            let place = named.iter().position(|named| named == server).unwrap_or(named.len());
            (place, std::cmp::Reverse(*joined))
        });
        let (mut there, mut away) = (Vec::new(), Vec::new());
        for (server, _) in servers.into_iter().take(LOOKED_UP) {
            if there.len() == most {
                break;
            }
            let list = if self.inner.peers.is_away(&server).await { &mut away } else { &mut there };
            list.push(server);
        }
        there.extend(away);
        there.truncate(most);
        Ok(there)
    }

    /// The servers of those who said something beside a gap, nearest first, and of whoever made the room.
    async fn named_beside(&self, ordinal: i64) -> Result<Vec<OwnedServerName>> {
        let mut rows = self.reader.timeline_forward(self.nid, ordinal, NEAR).await?;
        rows.extend(self.reader.timeline_back(self.nid, ordinal, NEAR).await?);
        let nums: Vec<EventNum> = rows.iter().map(|row| row.num).collect();
        let mut pdus = match self.pdus(&nums).await {
            // Purged meanwhile.
            Err(Error::NotFound(_)) => Vec::new(),
            pdus => pdus?,
        };
        pdus.extend(self.current(StateEventType::RoomCreate, "").await?);
        Ok(pdus.iter().map(|pdu| pdu.sender().server_name().to_owned()).collect())
    }
}
