//! Where the server speaks to its users.

use ruma::OwnedUserId;

use crate::table;

table! {
    /// User → the room of the server's notices to this user.
    NoticeRooms = NOTICE_ROOMS: OwnedUserId => String;
}

#[cfg(test)]
mod tests {
    use ruma::owned_user_id;

    use crate::{Key, KeyWriter, Value};

    #[test]
    fn golden_bytes() {
        let mut key = KeyWriter::default();
        owned_user_id!("@a:x.fr").write(&mut key);
        assert_eq!(key.0, b"@a:x.fr\0\0");
        assert_eq!("!r:x.fr".to_owned().to_bytes(), b"!r:x.fr");
    }
}
