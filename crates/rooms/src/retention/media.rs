//! Media that events name, and what becomes of them when those expire.
//!
//! Which events name a medium is known from the moment on at which the server was told to forget what is said. A file of
//! this server goes if it was uploaded after that by who sent the event, no other event names it, and it is not that
//! person's picture. A copy of another server's file goes if no other message names it: it can be fetched again.

use std::collections::BTreeSet;

use chappe_rules::Pdu;
use chappe_store::{
    EventMeta, EventNum, Json, Status, Tx,
    media::{Media, MediaUnused, MediaUses},
};
use ruma::{MxcUri, OwnedServerName};
use serde_json::value::RawValue;

use crate::{Result, desk::Desk, read::view::View};

/// Media of one event that are looked at.
const MOST: usize = 100;

/// The media that a content names, wherever in it.
pub(crate) fn named_media(content: &RawValue) -> BTreeSet<(OwnedServerName, String)> {
    let ends = |c: char| !c.is_ascii_alphanumeric() && !"-_.:[]/".contains(c);
    let mut named = BTreeSet::new();
    for (at, _) in content.get().match_indices("mxc://").take(MOST) {
        let address = &content.get()[at..];
        let address = &address[..address["mxc://".len()..].find(ends).map_or(address.len(), |end| end + 6)];
        if let Ok((server, id)) = <&MxcUri>::from(address).parts()
            && !id.is_empty()
        {
            named.insert((server.to_owned(), id.to_owned()));
        }
    }
    named
}

impl Desk<'_> {
    /// Notes which media an event names. What state names of other servers' is theirs to keep.
    pub(crate) fn note_media(&mut self, pdu: &Pdu, num: EventNum, meta: &EventMeta) {
        let is_part = matches!(meta.status, Status::Accepted | Status::Outlier);
        if self.inner.config().retention.is_none() || !is_part {
            return;
        }
        for (server, id) in named_media(pdu.content()) {
            if pdu.state_key().is_none() || server == self.inner.server {
                self.tx.put::<MediaUses>(&(server.clone(), id.clone(), self.nid, num), &());
                self.tx.delete::<MediaUnused>(&(server, id));
            }
        }
    }

    /// Notes that an event is stored without its content.
    pub(super) fn forget_media(&mut self, pdu: &Pdu, num: EventNum) {
        for (server, id) in named_media(pdu.content()) {
            self.tx.delete::<MediaUses>(&(server, id, self.nid, num));
        }
    }
}

impl View<'_> {
    /// Notes that an event which has expired names no media any more, and which of them may go. Of media that came before
    /// `since` it is not known what else names them.
    pub(super) async fn release_media(
        &self,
        tx: &mut Tx,
        pdu: &Pdu,
        num: EventNum,
        since: u64,
    ) -> Result<()> {
        for (server, id) in named_media(pdu.content()) {
            tx.delete::<MediaUses>(&(server.clone(), id.clone(), self.nid, num));
            if self.may_go(pdu, &server, &id, since).await? {
                tx.put::<MediaUnused>(&(server, id), &());
            }
        }
        Ok(())
    }

    async fn may_go(&self, pdu: &Pdu, server: &OwnedServerName, id: &str, since: u64) -> Result<bool> {
        let key = (server.clone(), id.to_owned());
        let Some(Json(medium)) = self.reader.get::<Media>(&key).await? else { return Ok(false) };
        if medium.created < since || !medium.may_go_unnamed() {
            return Ok(false);
        }
        if *server != self.inner.server {
            return Ok(true);
        }
        if medium.uploader.as_deref() != Some(pdu.sender()) {
            return Ok(false);
        }
        match self.inner.accounts.profile(&self.reader, pdu.sender()).await {
            Ok(profile) => Ok(profile.avatar_url() != Some(&*format!("mxc://{server}/{id}"))),
            Err(chappe_accounts::Error::NotFound(_)) => Ok(true),
            Err(chappe_accounts::Error::Store(error)) => Err(error.into()),
            Err(_) => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::named_media;

    #[test]
    fn media_are_found_wherever_they_are_named() {
        let content = json!({
            "url": "mxc://a.fr/One-1_x",
            "info": { "thumbnail_url": "mxc://a.fr:8448/two" },
            "formatted_body": "<img src=\"mxc://[::1]:80/three\"> mxc://a.fr/One-1_x mxc:// mxc://a.fr mxc://a.fr/",
        });
        let found = named_media(&to_raw_value(&content).unwrap());
        let found: Vec<String> = found.into_iter().map(|(server, id)| format!("{server} {id}")).collect();
        assert_eq!(found, ["[::1]:80 three", "a.fr One-1_x", "a.fr:8448 two"]);
    }
}
