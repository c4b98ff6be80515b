//! Room aliases of this server, and the public room directory.

use ruma::{OwnedRoomAliasId, OwnedUserId, RoomAliasId, UserId};
use serde::{Deserialize, Serialize};

use crate::{Json, Reader, Tx, rooms::RoomNid, table, tx::Error};

/// Where an alias points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The room's number.
    pub room: u32,
    /// Who made it; may delete it.
    pub creator: OwnedUserId,
}

impl Alias {
    /// The room's number.
    pub fn nid(&self) -> RoomNid {
        RoomNid(self.room)
    }
}

table! {
    /// Alias → room and creator.
    Aliases = ALIASES: OwnedRoomAliasId => Json<Alias>;
    /// Room and alias.
    RoomAliases = ROOM_ALIASES: (RoomNid, OwnedRoomAliasId) => ();
    /// Rooms in the public directory.
    Directory = DIRECTORY: RoomNid => ();
}

impl Reader<'_> {
    /// Where a local alias points.
    pub async fn alias(&self, alias: &RoomAliasId) -> Result<Option<Alias>, Error> {
        Ok(self.get::<Aliases>(&alias.to_owned()).await?.map(|Json(alias)| alias))
    }

    /// The local aliases of a room, by name.
    pub async fn aliases_of(&self, nid: RoomNid) -> Result<Vec<OwnedRoomAliasId>, Error> {
        let rows = self.scan_all::<RoomAliases>(&nid).await?;
        Ok(rows.into_iter().map(|((_, alias), ())| alias).collect())
    }

    /// Whether a room is in the public directory.
    pub async fn is_published(&self, nid: RoomNid) -> Result<bool, Error> {
        Ok(self.get::<Directory>(&nid).await?.is_some())
    }

    /// All rooms in the public directory, by number.
    pub async fn published_rooms(&self) -> Result<Vec<RoomNid>, Error> {
        let rows = self.scan_all::<Directory>(&()).await?;
        Ok(rows.into_iter().map(|(nid, ())| nid).collect())
    }
}

impl Tx {
    /// Makes an alias. Conflict if it exists by then.
    pub fn put_alias(&mut self, alias: &RoomAliasId, nid: RoomNid, creator: &UserId) -> &mut Self {
        let alias = alias.to_owned();
        self.expect_absent::<Aliases>(&alias);
        self.put::<Aliases>(&alias, &Json(Alias { room: nid.0, creator: creator.to_owned() }));
        self.put::<RoomAliases>(&(nid, alias), &())
    }

    /// Points an alias to another room; its creator stays. Conflict if it is no longer `old`.
    pub fn move_alias(&mut self, alias: &RoomAliasId, old: &Alias, to: RoomNid) -> &mut Self {
        let alias = alias.to_owned();
        self.expect::<Aliases>(&alias, Some(&Json(old.clone())));
        self.put::<Aliases>(&alias, &Json(Alias { room: to.0, creator: old.creator.clone() }));
        self.delete::<RoomAliases>(&(old.nid(), alias.clone()));
        self.put::<RoomAliases>(&(to, alias), &())
    }

    /// Deletes an alias. Conflict if it is no longer `old`.
    pub fn delete_alias(&mut self, alias: &RoomAliasId, old: &Alias) -> &mut Self {
        let alias = alias.to_owned();
        self.expect::<Aliases>(&alias, Some(&Json(old.clone())));
        self.delete::<Aliases>(&alias);
        self.delete::<RoomAliases>(&(old.nid(), alias))
    }

    /// Puts a room into the public directory.
    pub fn publish_room(&mut self, nid: RoomNid) -> &mut Self {
        self.put::<Directory>(&nid, &())
    }

    /// Takes a room out of the public directory.
    pub fn unpublish_room(&mut self, nid: RoomNid) -> &mut Self {
        self.delete::<Directory>(&nid)
    }
}
