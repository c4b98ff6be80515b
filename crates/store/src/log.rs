//! The log: one entry for each thing that happened, in commit order. Everything after a commit follows it.

use chappe_kv::Position;
use ruma::{OwnedDeviceId, OwnedRoomId, OwnedServerName, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{
    Direction, Json, Store, Tx,
    key::{Key, KeyReader, KeyWriter},
    table,
    tx::Error,
};

/// What happened. Entries are hints of where to look, small and without content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum LogEntry {
    /// An event joined a room's timeline.
    #[serde(rename = "e")]
    Event {
        /// The room's number.
        #[serde(rename = "r")]
        room: u32,
        /// The event's number in its room.
        #[serde(rename = "n")]
        event: u32,
        /// Set for a membership event: whose membership it is.
        #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
        member: Option<OwnedUserId>,
        /// Whether it was made here (and so has to be sent to peers).
        #[serde(rename = "l", default, skip_serializing_if = "std::ops::Not::not")]
        local: bool,
        /// Whether it is sticky for a while.
        #[serde(rename = "s", default, skip_serializing_if = "std::ops::Not::not")]
        sticky: bool,
    },
    /// Older history of a room got its places in the timeline.
    #[serde(rename = "h")]
    History {
        /// The room's number.
        #[serde(rename = "r")]
        room: u32,
        /// The first place.
        first: i64,
        /// The last place.
        last: i64,
    },
    /// Events of a room were removed for good, or redacted together: what is kept of them elsewhere is to be looked at anew.
    #[serde(rename = "x")]
    Purged {
        /// The room's number.
        #[serde(rename = "r")]
        room: u32,
        /// The events' numbers in their room.
        #[serde(rename = "n")]
        events: Vec<u32>,
    },
    /// The membership of somebody changed otherwise than by an event of the timeline: states were resolved, or a local user
    /// forgot the room.
    #[serde(rename = "b")]
    Member {
        /// The room's number.
        #[serde(rename = "r")]
        room: u32,
        /// Whose.
        #[serde(rename = "m")]
        user: OwnedUserId,
    },
    /// Memberships of a room changed in great number: it came in from another server.
    #[serde(rename = "w")]
    Members {
        /// The room's number.
        #[serde(rename = "r")]
        room: u32,
    },
    /// A local user's invite or knock in a room that this server is not in changed.
    #[serde(rename = "o")]
    OutOfBandMembership {
        /// Whose.
        user: OwnedUserId,
        /// Where.
        room: OwnedRoomId,
    },
    /// A receipt in a room. Those of another server's users that came together are one entry.
    #[serde(rename = "c")]
    Receipt {
        /// The room's number.
        room: u32,
        /// Whose receipt, or one of those whose receipts came together.
        user: OwnedUserId,
        /// A private receipt is for its own user alone.
        private: bool,
        /// Whether it was made here.
        local: bool,
    },
    /// A user's global or room account data, push rules, or ignored users changed.
    #[serde(rename = "a")]
    AccountData {
        /// Whose.
        user: OwnedUserId,
    },
    /// A user follows a thread, or does no longer.
    #[serde(rename = "t")]
    ThreadSubscription {
        /// Whose.
        user: OwnedUserId,
    },
    /// A to-device message waits for a device.
    #[serde(rename = "d")]
    ToDevice {
        /// Whose.
        user: OwnedUserId,
        /// Which device.
        device: OwnedDeviceId,
    },
    /// A user's devices, device keys or cross-signing keys changed.
    #[serde(rename = "k")]
    DeviceList {
        /// Whose.
        user: OwnedUserId,
    },
    /// A user signed the master keys of others: for the user alone.
    #[serde(rename = "y")]
    KeySignatures {
        /// Whose signatures they are.
        user: OwnedUserId,
    },
    /// A device's own one-time or fallback keys changed in number.
    #[serde(rename = "q")]
    OneTimeKeys {
        /// Whose.
        user: OwnedUserId,
        /// Which device.
        device: OwnedDeviceId,
    },
    /// A user's profile changed.
    #[serde(rename = "p")]
    Profile {
        /// Whose.
        user: OwnedUserId,
    },
    /// A user's pushers changed.
    #[serde(rename = "u")]
    Pushers {
        /// Whose.
        user: OwnedUserId,
    },
    /// The state of a room that was joined over federation is whole now: who is in it may be news.
    #[serde(rename = "f")]
    Whole {
        /// The room's number.
        #[serde(rename = "r")]
        room: u32,
        /// Servers that were not told of local users' devices meanwhile, since they did not seem to be in the room.
        #[serde(rename = "s", default, skip_serializing_if = "Vec::is_empty")]
        servers: Vec<OwnedServerName>,
    },
    /// A user of an application service came into a room or is in it no longer.
    #[serde(rename = "g")]
    ServiceUser {
        /// Who.
        user: OwnedUserId,
        /// The room's number.
        room: u32,
        /// Whether they are joined now.
        joined: bool,
    },
    /// Something happened to a local account that is counted and followed by nothing else.
    #[serde(rename = "n")]
    Account {
        /// Whose.
        user: OwnedUserId,
        /// When, in milliseconds since 1970.
        at: u64,
        /// What.
        what: AccountNews,
    },
    /// Something waits in the outbox of a destination.
    #[serde(rename = "s")]
    Outbox {
        /// Where it has to go.
        destination: OwnedServerName,
    },
}

/// What happened to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountNews {
    /// It was made.
    Made,
    /// It was closed.
    Closed,
    /// It was closed and is open again.
    Reopened,
    /// It is good for another period.
    Renewed,
    /// Its user was there for the first time that day (UTC).
    Active,
    /// Its user proved who they are.
    LoggedIn(LogInMethod),
}

/// How somebody proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogInMethod {
    /// By a password.
    Password,
    /// By an identity provider.
    SingleSignOn,
    /// By a token that another device of the user asked for.
    Token,
    /// By signing up.
    SignUp,
    /// By the token of an application service.
    Service,
    /// Not at all: an administrator logged in as the user.
    Administrator,
}

/// An entry with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The commit that made it.
    pub position: Position,
    /// What happened.
    pub what: LogEntry,
}

/// A place within a commit, in the order in which its entries were made. Two bytes on disk; six from the 65,536th on, as
/// when a server with so many users comes into a room at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Index(pub u32);

impl Key for Index {
    fn write(&self, to: &mut KeyWriter) {
        match u16::try_from(self.0) {
            Ok(short) if short < u16::MAX => short.write(to),
            _ => (u16::MAX, self.0).write(to),
        }
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
        match u16::read(from)? {
            u16::MAX => u32::read(from).map(Self),
            short => Ok(Self(short.into())),
        }
    }
}

table! {
    /// `(position, index within the commit)` → what happened.
    Log = LOG: (u64, Index) => Json<LogEntry>;
    /// Follower name → the last position it has dealt with.
    Cursors = CURSORS: String => u64;
    /// Name → value.
    Meta = META: String => Vec<u8>;
}

/// Entries kept behind the slowest follower, in positions.
const KEPT: u64 = 100_000;

impl Store {
    /// Drops the part of the log that every follower has left far behind. Does nothing when there is little to drop.
    pub async fn trim_log(&self) -> Result<(), Error> {
        let now = self.read().position();
        self.trim_log_at(now).await
    }

    async fn trim_log_at(&self, now: Position) -> Result<(), Error> {
        let reader = self.read();
        let cursors = reader.scan_all::<Cursors>(&()).await?;
        let slowest = cursors.into_iter().map(|(_, at)| at).chain([now.0]).min().unwrap_or(0);
        let end = slowest.saturating_sub(KEPT);
        let first = reader.scan::<Log>(&(), Direction::Forward, 1).await?;
        if first.first().is_none_or(|((position, _), _)| position.saturating_add(KEPT / 10) > end) {
            return Ok(());
        }
        drop(reader);
        let mut tx = Tx::new();
        tx.delete_between::<Log>(&0u64, &end);
        self.commit(tx).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use chappe_kv::{Db, Memory};
    use ruma::{owned_user_id, server_name};

    use super::{Cursors, Index, Json, KEPT, Log, LogEntry};
    use crate::{
        OutboxItem, Position, Store, Tx,
        key::{Key, KeyReader, KeyWriter},
    };

    #[test]
    fn places_keep_their_bytes_and_their_order() {
        let bytes = |place: u32| {
            let mut writer = KeyWriter::default();
            Index(place).write(&mut writer);
            assert_eq!(Index::read(&mut KeyReader(&writer.0)).unwrap(), Index(place));
            writer.0
        };
        assert_eq!((bytes(0), bytes(258)), (vec![0, 0], vec![1, 2]));
        assert_eq!((bytes(65_534), bytes(65_535)), (vec![255, 254], vec![255, 255, 0, 0, 255, 255]));
        assert!(
            bytes(65_534) < bytes(65_535) && bytes(65_535) < bytes(65_536) && bytes(65_536) < bytes(u32::MAX)
        );
    }

    #[tokio::test]
    async fn a_commit_says_as_much_as_happened() {
        let store = Store::new(Db::new(Memory::default()));
        let server = server_name!("b.example");
        let pdu = |event| OutboxItem::Pdu { room: 1, event };
        let mut tx = Tx::new();
        for event in 0..70_000 {
            tx.enqueue(server, &pdu(event));
        }
        tx.log(LogEntry::Members { room: 1 });
        store.commit(tx).await.unwrap();
        let entries = store.read().log_after(Position(0), 100).await.unwrap();
        assert_eq!(entries.len(), 70_001);
        assert_eq!(entries.last().unwrap().what, LogEntry::Members { room: 1 });
        let queue = store.read().outbox(server, 100_000).await.unwrap();
        assert!(
            queue.into_iter().map(|(_, item)| item).eq((0..70_000).map(pdu)),
            "in the order they were put"
        );
    }

    #[tokio::test]
    async fn the_log_is_kept_for_the_slowest_follower() {
        let store = Store::new(Db::new(Memory::default()));
        let mut tx = Tx::new();
        for position in (0..3 * KEPT).step_by(10_000) {
            tx.put::<Log>(
                &(position, Index(0)),
                &Json(LogEntry::Profile { user: owned_user_id!("@a:x.fr") }),
            );
        }
        tx.put::<Cursors>(&"slow".to_owned(), &(2 * KEPT)).put::<Cursors>(&"fast".to_owned(), &(3 * KEPT));
        store.commit(tx).await.unwrap();
        let left = async || store.read().scan_all::<Log>(&()).await.unwrap();
        store.trim_log().await.unwrap();
        assert_eq!(left().await.len(), 30, "a young store drops nothing");
        store.trim_log_at(Position(3 * KEPT)).await.unwrap();
        assert_eq!(left().await.first().unwrap().0.0, KEPT, "what is kept begins behind the slowest");
        let before = store.read().position();
        store.trim_log_at(Position(3 * KEPT)).await.unwrap();
        assert_eq!(store.read().position(), before, "nothing to drop writes nothing");
    }
}
