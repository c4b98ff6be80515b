//! The access control list of a room, asked before anything a server does in it.

use chappe_rules::acl::Acl;
use chappe_store::{Error, Reader, RoomNid, state::StateKey};
use chappe_web::Error as WebError;
use ruma::{RoomId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Federation, refusal::Refusal};

#[derive(Deserialize)]
struct Event {
    content: Box<RawValue>,
}

impl Federation {
    /// 403 for a server that the room's list excludes. A room this server does not know excludes nobody.
    pub(crate) async fn gate(&self, origin: &ServerName, room: &RoomId) -> Result<(), Refusal> {
        if self.acl_allows(origin, room).await? {
            return Ok(());
        }
        Err(WebError::forbidden("Your server is excluded from this room").into())
    }

    pub(crate) async fn acl_allows(&self, origin: &ServerName, room: &RoomId) -> Result<bool, Error> {
        let reader = self.network().store().read();
        match reader.room_nid(room).await? {
            Some(nid) => allows(&reader, nid, origin).await,
            None => Ok(true),
        }
    }
}

/// Whether a room's list allows a server. The compiled list is kept with its event.
pub(crate) async fn allows(reader: &Reader<'_>, nid: RoomNid, server: &ServerName) -> Result<bool, Error> {
    let found = reader.state_now(nid, &[StateKey::new("m.room.server_acl", "")]).await?;
    let Some(num) = found.into_iter().next().flatten() else { return Ok(true) };
    let stored = reader.pdu(nid, num).await?;
    let acl = stored
        .form(|stored| serde_json::from_str::<Event>(&stored.json).map(|event| Acl::new(&event.content)));
    acl.map(|acl| acl.allows(server)).map_err(|_| Error::Corrupt("event JSON"))
}
