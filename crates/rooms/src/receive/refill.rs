//! Events that are here without what they say: whoever gave them had it redacted, or took it away. Their hash tells the whole.

use chappe_rules::{Pdu, redact};
use chappe_store::{EventNum, LogEntry, Removed, StoredPdu};
use ruma::events::TimelineEventType;

use crate::{
    Error, Inner, Result,
    desk::{Desk, parsed},
};

impl Inner {
    /// Gives an event what it says if it is still here without that.
    pub(super) async fn refill(&self, num: EventNum, whole: &Pdu) -> Result<()> {
        let _turn = self.turn(whole.room_id()).await;
        let mut desk = Desk::open(self, whole.room_id()).await?;
        if !desk.is_bare(num, whole).await? {
            return Ok(());
        }
        desk.refill(num, whole).await?;
        let (nid, removed) = (desk.nid, Removed { events: vec![num], ids: Vec::new() });
        let at = self.store.commit(desk.seal()).await?;
        self.store.forget(at, nid, &removed);
        Ok(())
    }
}

impl Desk<'_> {
    /// Whether the whole event, whose hash is right, says more than what is stored of it, and not because it was redacted here
    /// or has expired.
    pub(super) async fn is_bare(&self, num: EventNum, whole: &Pdu) -> Result<bool> {
        let found = match self.reader.events(self.nid, &[num]).await {
            Err(chappe_store::Error::Gone) => return Ok(false),
            found => found?.pop(),
        };
        let Some((meta, stored)) = found else { return Ok(false) };
        if meta.expired || meta.redacted_by.some().is_some() || *stored.json == *whole.json() {
            return Ok(false);
        }
        let left =
            |pdu: &Pdu| redact::event(self.rules, pdu).map_err(|error| Error::BadJson(error.to_string()));
        let stored = parsed(self.rules, &stored)?;
        Ok(left(&stored)? == stored && left(whole)? != *whole)
    }

    async fn refill(&mut self, num: EventNum, whole: &Pdu) -> Result<()> {
        let mut meta = self.reader.event_meta(self.nid, num).await?;
        self.number(whole, Some(num));
        self.tx.refill_event(self.nid, num, &StoredPdu::new(whole.event_id().to_owned(), whole.json()));
        self.note_media(whole, num, &meta);
        self.unredact(num, &mut meta).await?;
        let Some(ordinal) = meta.ordinal else { return Ok(()) };
        self.tx.log(LogEntry::History { room: self.nid.0, first: ordinal, last: ordinal });
        if *whole.kind() == TimelineEventType::RoomRedaction {
            self.index(whole, num, &meta).await?;
        }
        Ok(())
    }
}
