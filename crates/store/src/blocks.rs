//! Rooms that operators keep this server's users out of.

use ruma::{OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{Json, table};

/// A block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Who blocked the room.
    pub by: OwnedUserId,
    /// When, in milliseconds since 1970.
    pub at: u64,
}

table! {
    /// Room id → the block.
    BlockedRooms = BLOCKED_ROOMS: OwnedRoomId => Json<Block>;
}

#[cfg(test)]
mod tests {
    use ruma::{owned_room_id, owned_user_id};

    use super::*;
    use crate::{Key, KeyWriter, Value};

    #[test]
    fn golden_bytes() {
        let mut key = KeyWriter::default();
        owned_room_id!("!r:x.fr").write(&mut key);
        assert_eq!(key.0, b"!r:x.fr\0\0");
        let block = Json(Block { by: owned_user_id!("@a:x.fr"), at: 7 });
        assert_eq!(String::from_utf8(block.to_bytes()).unwrap(), r#"{"by":"@a:x.fr","at":7}"#);
    }
}
