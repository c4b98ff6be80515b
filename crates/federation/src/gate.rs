//! The access control list of a room, asked before anything a server does in it.

use chappe_rules::acl::Acl;
use chappe_store::{
    Error, EventNum, Reader, RoomNid,
    members::RoomServers,
    state::{StateKey, StateNow},
};
use chappe_web::Error as WebError;
use ruma::{RoomId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Federation, refusal::Refusal};

/// How a server stands to a room.
pub(crate) enum Standing {
    /// It has somebody there, as far as is known here.
    Member,
    /// It has not.
    Stranger,
    /// The room's list excludes it.
    Excluded(RoomNid),
}

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

    /// How a server stands to a room; a stranger to one that is not known here.
    pub(crate) async fn standing(&self, origin: &ServerName, room: &RoomId) -> Result<Standing, Error> {
        let reader = self.network().store().read();
        let Some(nid) = reader.room_nid(room).await? else { return Ok(Standing::Stranger) };
        let (server, key) = ((nid, origin.to_owned()), (nid, list_key()));
        let (joined, list) = reader.get_both::<RoomServers, StateNow>(&[server], &[key]).await?;
        let list = list.into_iter().flatten().find_map(|now| now.num.some());
        if !is_let_in(&reader, (nid, list), origin).await? {
            return Ok(Standing::Excluded(nid));
        }
        let is_in = joined.into_iter().flatten().any(|joined| joined > 0);
        Ok(if is_in { Standing::Member } else { Standing::Stranger })
    }
}

fn list_key() -> StateKey {
    StateKey::new("m.room.server_acl", "")
}

/// Whether a room's list allows a server.
pub(crate) async fn allows(reader: &Reader<'_>, nid: RoomNid, server: &ServerName) -> Result<bool, Error> {
    let list = reader.state_now(nid, &[list_key()]).await?;
    is_let_in(reader, (nid, list.into_iter().next().flatten()), server).await
}

/// The same by the list's number in the room, if there is one. The compiled list is kept with its event; of one that was
/// redacted nothing is left, and so it names nobody.
async fn is_let_in(
    reader: &Reader<'_>,
    (nid, list): (RoomNid, Option<EventNum>),
    server: &ServerName,
) -> Result<bool, Error> {
    let Some(num) = list else { return Ok(true) };
    let (meta, stored) = reader.events(nid, &[num]).await?.pop().ok_or(Error::Gone)?;
    if meta.redacted_by.some().is_some() {
        return Ok(false);
    }
    let acl = stored
        .form(|stored| serde_json::from_str::<Event>(&stored.json).map(|event| Acl::new(&event.content)));
    acl.map(|acl| acl.allows(server)).map_err(|_| Error::Corrupt("event JSON"))
}
