//! The bytes of the tables that only delivery reads; see `golden`.

use chappe_kv::Position;
use ruma::{event_id, owned_device_id, owned_user_id};

use crate::{
    At, EventNum, RoomNid,
    accounts_keys::{SignatureChanges, ToDeviceSenders},
    golden::row,
    registry,
    sticky::{Sticky, StickyEnds},
    thread_subscriptions::{
        ThreadSubscription, ThreadSubscriptionCounts, ThreadSubscriptionOrder, ThreadSubscriptions,
    },
    unread::{UnreadRooms, UnreadRoomsOf},
};

fn rows() -> Vec<(u8, String)> {
    let (user, nid, num) = (owned_user_id!("@a:x.fr"), RoomNid(0x0102), EventNum(300));
    let root = event_id!("$abc:x.fr");
    let subscription = ThreadSubscription { subscribed: true, automatic: true, ceased_at: -1 };
    let subscription = At { position: Position(0x0a0b), value: subscription };
    vec![
        row::<ThreadSubscriptions>((user.clone(), nid, root.into()), subscription),
        row::<ThreadSubscriptionOrder>((user.clone(), 0x0a0b, (nid, root.into())), ()),
        row::<ThreadSubscriptionCounts>(user.clone(), 3),
        row::<Sticky>((nid, 0x0a0b, num), 1_700_000_000_000),
        row::<StickyEnds>((1_700_000_000_000, 0x0a0b, (nid, num)), ()),
        row::<ToDeviceSenders>((user.clone(), owned_device_id!("D"), user.clone()), 2),
        row::<SignatureChanges>((user.clone(), 0x0a0b, user.clone()), ()),
        row::<UnreadRoomsOf>(user, UnreadRooms { mark: 9, rooms: [nid, RoomNid(3)].into() }),
    ]
}

#[test]
fn delivery_tables_keep_their_bytes() {
    let rows: Vec<String> = rows().into_iter().map(|(_, row)| row).collect();
    let golden: Vec<&str> = include_str!("golden_delivery.txt").lines().collect();
    assert_eq!(rows, golden);
}

#[test]
fn every_delivery_table_has_a_golden_row() {
    let seen: Vec<u8> = rows().into_iter().map(|(number, _)| number).collect();
    for info in registry::ALL.iter().filter(|info| (190..200).contains(&info.number)) {
        assert!(seen.contains(&info.number), "{} has no golden row", info.name);
    }
}
