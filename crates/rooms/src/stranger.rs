//! What strangers are told who write to a room: the same, whether it exists or not.

use ruma::RoomId;

use crate::{Actor, Error, Result, Rooms, Standing, send::not_in_room};

impl Rooms {
    /// What came of somebody's writing to a room, as they may be told: who never had anything to do with the room learns that
    /// they are not in it, whatever else was wrong.
    pub(crate) async fn veiled<T>(&self, actor: &Actor, room: &RoomId, done: Result<T>) -> Result<T> {
        let Err(error) = done else { return done };
        // Whether guests may enter is told at every door.
        let is_told = matches!(error, Error::Store(_) | Error::Retry | Error::NoGuests);
        if is_told || matches!(actor.standing, Standing::Administrator | Standing::Overseer) {
            return Err(error);
        }
        let reader = self.0.store.read();
        let known = match reader.room_nid(room).await? {
            Some(nid) => reader.user_room(&actor.user, nid).await?.is_some(),
            None => false,
        };
        Err(if known { error } else { not_in_room() })
    }
}
