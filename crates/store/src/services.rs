//! What waits for application services, how each of them stands, and what they list in directories of their own.

use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{Direction, Error, Json, Reader, RoomNid, Tx, table};

/// One thing to tell an application service. Like the log it says where to look; what is told is worked out when it is
/// sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum ServiceItem {
    /// An event of a room.
    #[serde(rename = "e")]
    Event {
        /// The room's number.
        #[serde(rename = "r")]
        room: u32,
        /// The event's number in its room.
        #[serde(rename = "n")]
        event: u32,
    },
    /// A user's invite or knock in a room that this server is not in changed.
    OutOfBand {
        /// Whose.
        user: OwnedUserId,
        /// Where.
        room: OwnedRoomId,
    },
    /// Receipts of a user in a room.
    Receipt {
        /// The room's number.
        room: u32,
        /// Whose.
        user: OwnedUserId,
        /// The commit that set them; a later one has an item of its own.
        at: u64,
    },
    /// Messages to a device.
    ToDevice {
        /// Whose.
        user: OwnedUserId,
        /// Which device.
        device: OwnedDeviceId,
        /// The commit that sent them.
        at: u64,
    },
    /// A user's devices or keys changed, or the service has to know them from now on.
    DeviceList {
        /// Whose.
        user: OwnedUserId,
    },
    /// A user shares no room with the service any more.
    NoLongerShared {
        /// Who.
        user: OwnedUserId,
    },
    /// The number of a device's one-time or fallback keys changed.
    Keys {
        /// Whose.
        user: OwnedUserId,
        /// Which device.
        device: OwnedDeviceId,
    },
}

/// How an application service stands: the head record of its queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceHead {
    /// What its users were told apart by when [`ServiceRooms`] was counted anew.
    pub users: u64,
    /// The snapshot of that count; changes up to it are in it.
    pub counted: u64,
    /// What happened up to this commit is not for the service.
    pub begun: u64,
    /// The transaction that is being sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sending: Option<ServiceSending>,
}

/// A transaction that has to be sent as it is until the service takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSending {
    /// Its id.
    pub id: String,
    /// Its last row of the queue.
    pub last: (u64, u32),
    /// Rows of [`ServiceTransactions`] that its body is written in.
    pub pieces: u32,
    /// What leaves the inboxes once it is taken: user, device and the commit of the last message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inboxes: Vec<(OwnedUserId, OwnedDeviceId, u64)>,
}

/// Key of a [`ServiceQueue`] row.
pub type ServiceKey = (String, u64, u32);

table! {
    /// Service → how it stands.
    ServiceHeads = SERVICE_HEADS: String => Json<ServiceHead>;
    /// `(service, position of the commit, index within it)` → what to tell it.
    ServiceQueue = SERVICE_QUEUE: (String, u64, u32) => Json<ServiceItem>;
    /// `(service, piece)` → the body of the transaction that is being sent.
    ServiceTransactions = SERVICE_TRANSACTIONS: (String, u32) => Vec<u8>;
    /// `(service, room)` → how many of the service's users are joined; at least one.
    ServiceRooms = SERVICE_ROOMS: (String, RoomNid) => u64;
    /// `(service, network, room)`: the rooms that a service lists for a network.
    ServiceDirectory = SERVICE_DIRECTORY: (String, String, RoomNid) => ();
}

impl Reader<'_> {
    /// The first `limit` things a service has to be told, oldest first.
    pub async fn service_queue(
        &self,
        service: &str,
        limit: usize,
    ) -> Result<Vec<(ServiceKey, ServiceItem)>, Error> {
        let rows = self.scan::<ServiceQueue>(&service.to_owned(), Direction::Forward, limit).await?;
        Ok(rows.into_iter().map(|(key, Json(item))| (key, item)).collect())
    }

    /// How many users of each of `services` are joined to a room.
    pub async fn service_users_in(&self, services: &[&str], nid: RoomNid) -> Result<Vec<u64>, Error> {
        let keys: Vec<_> = services.iter().map(|service| ((*service).to_owned(), nid)).collect();
        let counts = self.get_many::<ServiceRooms>(&keys).await?;
        Ok(counts.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// The rooms that a service lists for a network.
    pub async fn service_directory(&self, service: &str, network: &str) -> Result<Vec<RoomNid>, Error> {
        let rows = self.scan_all::<ServiceDirectory>(&(service.to_owned(), network.to_owned())).await?;
        Ok(rows.into_iter().map(|((_, _, nid), ())| nid).collect())
    }

    /// The rooms that any service lists for any network.
    pub async fn service_directories(&self) -> Result<Vec<RoomNid>, Error> {
        let rows = self.scan_all::<ServiceDirectory>(&()).await?;
        Ok(rows.into_iter().map(|((_, _, nid), ())| nid).collect())
    }
}

impl Tx {
    /// Puts an item at the end of a service's queue; `index` tells the items of one commit apart.
    pub fn tell_service(&mut self, service: &str, index: u32, item: &ServiceItem) -> &mut Self {
        self.put_at_position::<ServiceQueue>(&service.to_owned(), &index, &Json(item.clone()))
    }

    /// Forgets everything about a service that is no more.
    pub fn forget_service(&mut self, service: &str) -> &mut Self {
        let service = service.to_owned();
        self.delete_prefix::<ServiceQueue>(&service).delete_prefix::<ServiceTransactions>(&service);
        self.delete_prefix::<ServiceRooms>(&service).delete_prefix::<ServiceDirectory>(&service);
        self.delete::<ServiceHeads>(&service)
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_room_id, owned_user_id};

    use super::*;
    use crate::{golden::row, registry};

    fn rows() -> Vec<(u8, String)> {
        let (irc, user) = ("irc".to_owned(), owned_user_id!("@a:x.fr"));
        let inboxes = vec![(user.clone(), "D".into(), 9)];
        let sending = ServiceSending { id: "12".to_owned(), last: (7, 1), pieces: 2, inboxes };
        let head = ServiceHead { users: 1, counted: 2, begun: 3, sending: Some(sending) };
        let key = |index| (irc.clone(), 0x0a0b, index);
        let device = || "D".into();
        vec![
            row::<ServiceHeads>(irc.clone(), Json(head)),
            row::<ServiceQueue>(key(0), Json(ServiceItem::Event { room: 1, event: 2 })),
            row::<ServiceQueue>(
                key(1),
                Json(ServiceItem::OutOfBand { user: user.clone(), room: owned_room_id!("!r:x.fr") }),
            ),
            row::<ServiceQueue>(key(2), Json(ServiceItem::Receipt { room: 1, user: user.clone(), at: 4 })),
            row::<ServiceQueue>(
                key(3),
                Json(ServiceItem::ToDevice { user: user.clone(), device: device(), at: 4 }),
            ),
            row::<ServiceQueue>(key(4), Json(ServiceItem::DeviceList { user: user.clone() })),
            row::<ServiceQueue>(key(5), Json(ServiceItem::NoLongerShared { user: user.clone() })),
            row::<ServiceQueue>(key(6), Json(ServiceItem::Keys { user, device: device() })),
            row::<ServiceTransactions>((irc.clone(), 1), b"{}".to_vec()),
            row::<ServiceRooms>((irc.clone(), RoomNid(0x0102)), 3),
            row::<ServiceDirectory>((irc, "libera".to_owned(), RoomNid(0x0102)), ()),
        ]
    }

    #[test]
    fn service_tables_keep_their_bytes() {
        let rows: Vec<String> = rows().into_iter().map(|(_, row)| row).collect();
        let golden: Vec<&str> = include_str!("golden_services.txt").lines().collect();
        assert_eq!(rows, golden, "{}", rows.join("\n"));
    }

    #[test]
    fn every_service_table_has_a_golden_row() {
        let seen: Vec<u8> = rows().into_iter().map(|(number, _)| number).collect();
        for info in registry::ALL.iter().filter(|info| (210..220).contains(&info.number)) {
            assert!(seen.contains(&info.number), "{} has no golden row", info.name);
        }
    }
}
