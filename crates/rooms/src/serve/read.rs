//! What other servers may read of a room.
