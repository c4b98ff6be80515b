//! Guests: which rooms they may enter, and when they have to go (client-server API, "Guest access").

use chappe_accounts::UserKind;
use chappe_rules::policy::{Bypass, Door};
use chappe_store::Membership;
use ruma::{
    OwnedServerName, OwnedUserId, RoomId,
    events::{StateEventType, TimelineEventType},
};
use serde_json::{Map, Value, json};

use crate::{Actor, Draft, Error, Result, Rooms, Standing, author::By, desk::Desk};

const CAN_JOIN: &str = "can_join";

fn lets_in(content: &Map<String, Value>) -> bool {
    content.get("guest_access").and_then(Value::as_str) == Some(CAN_JOIN)
}

impl Rooms {
    /// Refuses a guest who would enter a room that does not let guests in, here or on the servers `via`.
    pub(super) async fn admit_guest(
        &self,
        actor: &Actor,
        room: &RoomId,
        via: &[OwnedServerName],
    ) -> Result<()> {
        if actor.standing != Standing::Guest {
            return Ok(());
        }
        let lets_in = match self.resident_view(room).await? {
            Some(view) => view.summary().await?.room.guest_can_join,
            None => self.remote_summary(room, via).await.is_ok_and(|summary| summary.room.guest_can_join),
        };
        if lets_in { Ok(()) } else { Err(Error::NoGuests) }
    }
}

impl Desk<'_> {
    /// Whether an event about to get its place ends that guests may be here.
    pub(crate) async fn shuts_guests_out(
        &self,
        kind: &TimelineEventType,
        state_key: Option<&str>,
        content: &Map<String, Value>,
    ) -> Result<bool> {
        if *kind != TimelineEventType::RoomGuestAccess || state_key != Some("") || lets_in(content) {
            return Ok(false);
        }
        let now = self.current(StateEventType::RoomGuestAccess, "").await?;
        Ok(now.and_then(|event| event.content_as()).is_some_and(|content| lets_in(&content)))
    }

    /// Has all guests of this server leave, in the same commit.
    pub(crate) async fn dismiss_guests(&mut self) -> Result<()> {
        for guest in self.guests().await? {
            let by = By { sender: &guest, bypass: Bypass::None, door: Door::Local };
            let content = Map::from_iter([("membership".to_owned(), json!("leave"))]);
            self.author_unasked(by, Draft::member(&guest, content)).await?;
        }
        Ok(())
    }

    async fn guests(&self) -> Result<Vec<OwnedUserId>> {
        let mut guests = Vec::new();
        for (user, _) in self.reader.members(self.nid, Membership::Join).await? {
            if user.server_name() != self.inner.server {
                continue;
            }
            let account = self.inner.accounts.user(&user).await.ok().flatten();
            if account.is_some_and(|account| account.kind == UserKind::Guest) {
                guests.push(user);
            }
        }
        Ok(guests)
    }
}
