//! The bytes of every room table, so that a change of the format cannot happen by accident.
//!
//! A failing line here means: existing disks would be misread. Raise `FORMAT` and write a migration instead.

use chappe_kv::Position;
use chappe_rules::retention::{Policy, Retention};
use ruma::{RoomVersionId, event_id, owned_room_alias_id, owned_room_id, owned_server_name, owned_user_id};

use crate::{
    At, EventMeta, EventNum, Json, Keeping, Key, KeyChange, KeyId, KeyReader, KeyWriter, Membership,
    RoomHead, RoomNid, StateRef, Status, StoredPdu, Table, Value,
    aliases::{Alias, Aliases, Directory, RoomAliases},
    delayed::{
        Delayed, DelayedCounts, DelayedDue, DelayedEnd, DelayedEnded, DelayedEvents, DelayedOfUser,
        DelayedSent, DelayedTransactions,
    },
    events::{EventIds, EventMetas, EventPdus, PurgedIds},
    expiry::{CameLate, ExpiryDue, ExpiryPolicies, Told},
    gaps::{Gaps, Missing},
    members::{Forgotten, OpenRooms, RemoteRooms, RoomMembers, RoomServers, ShutRooms, UserRoom, UserRooms},
    out_of_band::{OutOfBand, OutOfBands},
    partial::{Kept, LateEvents, PartialRoom, PartialRooms, UnplacedDevices},
    receipts::{Receipt, ReceiptKey, ReceiptKind, ReceiptOrder, Receipts},
    registry,
    relations::{Child, RelationCounts, Relations, Threads, WaitingRedactions},
    reports::{Report, Reports},
    rooms::{DoomedRooms, RoomHeads, RoomIds, RoomNames, WholeSince},
    state::{Line, Now, StateChanges, StateKey, StateKeys, StateLines, StateNow, StateSince, StateVersions},
    timeline::Timeline,
    transactions::{Done, EventTransaction, EventTransactions, TransactionOrder, Transactions},
};

const NID: RoomNid = RoomNid(0x0102);
const NUM: EventNum = EventNum(300);
/// With everything that is packed: an id, the right content hash, a hash, a signature.
const PDU: &str = concat!(
    r#"{"a":"$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8","b":"/wECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8","#,
    r#""hashes":{"sha256":"/THjJn5VvJMSDRuIFJwcn4CE9so4UvQKmeVCqUukv+c"},"signatures":{"x.fr":{"ed25519:1":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw"}}}"#,
);

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// `key = value` in hex; both must come back as the same bytes.
#[expect(clippy::needless_pass_by_value, reason = "reads as a list of rows")]
pub(crate) fn row<T: Table>(key: T::Key, value: T::Value) -> (u8, String) {
    let mut writer = KeyWriter(vec![T::INFO.number]);
    key.write(&mut writer);
    let mut again = KeyWriter(vec![T::INFO.number]);
    let mut reader = KeyReader(&writer.0[1..]);
    T::Key::read(&mut reader).unwrap().write(&mut again);
    assert_eq!(hex(&writer.0), hex(&again.0), "{} key", T::INFO.name);
    assert!(reader.rest().is_empty(), "{} key", T::INFO.name);
    let bytes = value.to_bytes();
    assert_eq!(hex(&T::Value::from_bytes(&bytes).unwrap().to_bytes()), hex(&bytes), "{} value", T::INFO.name);
    (T::INFO.number, format!("{} {} = {}", T::INFO.name, hex(&writer.0), hex(&bytes)))
}

fn at<T>(value: T) -> At<T> {
    At { position: Position(0x0a0b), value }
}

fn head() -> RoomHead {
    RoomHead {
        position: Position(9),
        version: RoomVersionId::V11,
        state: StateRef { line: 0, version: 200 },
        next_event: 301,
        next_live: 290,
        next_back: -3,
        next_line: 2,
        next_key: 130,
        extremities: vec![NUM, EventNum(7)],
        depth: 1000,
        joined: 50_000,
        invited: 2,
        resident: true,
        partial: false,
        no_policy: false,
        no_redacted_state: false,
        keeping: Keeping::default(),
        whole_since: WholeSince::Commit(Position(0)),
    }
}

fn meta() -> EventMeta {
    EventMeta {
        position: Position(9),
        status: Status::Accepted,
        before: StateRef { line: 0, version: 200 },
        after: StateRef { line: 0, version: 201 },
        ordinal: Some(290),
        redacted_by: EventNum::NONE,
        auth: vec![EventNum(1), EventNum(2), EventNum(3)],
        prev: vec![EventNum(299)],
        expired: false,
        came: 0,
    }
}

fn rows() -> Vec<(u8, String)> {
    let hashed = event_id!("$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8");
    let plain = event_id!("$abc:x.fr");
    let (user, room) = (owned_user_id!("@a:x.fr"), owned_room_id!("!r:x.fr"));
    let alias = owned_room_alias_id!("#a:x.fr");
    let member = StateKey::new("m.room.member", &user);
    let change = KeyChange { key: KeyId(5), old: EventNum::NONE, new: NUM };
    let receipt = ReceiptKey { user: user.clone(), kind: ReceiptKind::Private, thread: "main".to_owned() };
    let out_of_band = OutOfBand {
        membership: "invite".to_owned(),
        event: serde_json::value::RawValue::from_string("{}".to_owned()).unwrap(),
        event_id: "$e".to_owned(),
        state: Vec::new(),
        version: None,
        via: vec![owned_server_name!("x.fr")],
        number: None,
    };
    let child = Child { num: NUM, event_type: "m.reaction".to_owned(), sender: user.clone() };
    let report = Report {
        reporter: user.clone(),
        room: None,
        event: None,
        user: None,
        reason: "spam".to_owned(),
        at: 7,
    };
    vec![
        row::<RoomIds>(room.clone(), NID),
        row::<DoomedRooms>(room.clone(), NID),
        row::<RoomNames>(NID, at(room.to_string())),
        row::<RoomHeads>(NID, head()),
        row::<EventIds>(hashed.into(), (NID, NUM)),
        row::<EventIds>(plain.into(), (NID, NUM)),
        row::<PurgedIds>((NID, hashed.into()), ()),
        row::<EventPdus>((NID, NUM), StoredPdu::new(hashed.to_owned(), "{}")),
        row::<EventPdus>((NID, NUM), StoredPdu::new(plain.to_owned(), PDU)),
        row::<EventPdus>((NID, NUM), StoredPdu::new(hashed.to_owned(), "{\"a\":\"\u{1}\"}")),
        row::<EventMetas>((NID, NUM), meta()),
        row::<EventMetas>(
            (NID, NUM),
            EventMeta {
                status: Status::Outlier,
                ordinal: None,
                after: StateRef { line: 3, version: 1 },
                ..meta()
            },
        ),
        row::<Timeline>((NID, -2), at(NUM)),
        row::<StateNow>((NID, member.clone()), Now { key: KeyId(5), num: NUM }),
        row::<StateNow>((NID, StateKey::new("x.y", "")), Now { key: KeyId(6), num: EventNum::NONE }),
        row::<StateKeys>((NID, KeyId(5)), member),
        row::<StateVersions>((NID, 0, KeyId(5), !7), NUM),
        row::<StateChanges>((NID, 0, 7, 0), vec![change, change]),
        row::<StateLines>((NID, 2), Line { parent: Some(StateRef { line: 0, version: 7 }), last: 3 }),
        row::<RoomMembers>((NID, Membership::Join, user.clone()), NUM),
        row::<UserRooms>((user.clone(), NID), at(UserRoom { membership: Membership::Ban, num: NUM })),
        row::<RoomServers>((NID, owned_server_name!("x.fr:8448")), 12),
        row::<RemoteRooms>((user.clone(), NID), ()),
        row::<OpenRooms>(NID, ()),
        row::<ShutRooms>(NID, 7),
        row::<Forgotten>((user.clone(), NID), at(())),
        row::<OutOfBands>((user.clone(), room), at(Json(out_of_band))),
        row::<Aliases>(alias.clone(), Json(Alias { room: 3, creator: user.clone() })),
        row::<RoomAliases>((NID, alias), ()),
        row::<Directory>(NID, ()),
        row::<Receipts>((NID, receipt.clone()), at(Receipt { event: hashed.into(), ts: 1000 })),
        row::<ReceiptOrder>((NID, 0x0a0b, receipt), ()),
        row::<Transactions>([9; 32], (NID, NUM)),
        row::<TransactionOrder>((0x0a0b, (NID, NUM)), Done { at: 1000, key: [9; 32] }),
        row::<EventTransactions>((NID, NUM), EventTransaction { device: "D".into(), txn: "1".to_owned() }),
        row::<Relations>((NID, plain.into(), "m.annotation".to_owned(), 290), child),
        row::<RelationCounts>((NID, plain.into(), "m.annotation".to_owned()), 2),
        row::<Threads>((NID, plain.into()), at(NUM)),
        row::<WaitingRedactions>((plain.into(), NID, NUM), ()),
        row::<Gaps>((NID, -2, NUM), Json(vec![plain.to_owned()])),
        row::<Reports>((0x0a0b, ()), Json(report)),
    ]
}

fn delayed_rows() -> Vec<(u8, String)> {
    let (user, room) = (owned_user_id!("@a:x.fr"), owned_room_id!("!r:x.fr"));
    let delayed = Delayed {
        user: user.clone(),
        device: Some("D".into()),
        room,
        kind: "m.x".to_owned(),
        state_key: Some(String::new()),
        content: serde_json::value::RawValue::from_string("{}".to_owned()).unwrap(),
        redacts: None,
        sticky_ms: None,
        delay_ms: 8,
        scheduled_at: 7,
        transaction: Some([9; 32]),
        revision: 1,
        end: Some(DelayedEnd {
            at: 9,
            event: Some(event_id!("$abc:x.fr").to_owned()),
            place: Some((3, 300)),
            error: None,
        }),
    };
    vec![
        row::<DelayedEvents>("d".to_owned(), Json(delayed)),
        row::<DelayedDue>((15, "d".to_owned()), ()),
        row::<DelayedOfUser>((user.clone(), 15, "d".to_owned()), ()),
        row::<DelayedCounts>(user, 1),
        row::<DelayedTransactions>([9; 32], "d".to_owned()),
        row::<DelayedEnded>((9, "d".to_owned()), ()),
        row::<DelayedSent>((NID, NUM), "d".to_owned()),
    ]
}

fn partial_rows() -> Vec<(u8, String)> {
    let server = owned_server_name!("x.fr");
    let partial = PartialRoom {
        join: 300,
        prev: vec![event_id!("$abc:x.fr").to_owned()],
        via: server.clone(),
        servers: vec![server],
    };
    vec![
        row::<RoomHeads>(
            NID,
            RoomHead { partial: true, whole_since: WholeSince::Commit(Position(0x0a0b)), ..head() },
        ),
        row::<RoomHeads>(NID, RoomHead { no_policy: true, ..head() }),
        row::<RoomHeads>(NID, RoomHead { no_redacted_state: true, ..head() }),
        row::<PartialRooms>(NID, Json(Kept { room: partial, doubted: Vec::new() })),
        row::<UnplacedDevices>((NID, owned_user_id!("@a:x.fr")), ()),
        row::<LateEvents>((NID, NUM), ()),
    ]
}

fn expiry_rows() -> Vec<(u8, String)> {
    let keeping =
        Keeping { said: Retention { max: Some(1000), min: None }, next: NUM, due: 1_780_000_000_000 };
    let since = WholeSince::Commit(Position(0x0a0b));
    let policy = Policy { default_days: 365, minimum_days: 1, maximum_days: 730 };
    vec![
        row::<RoomHeads>(NID, RoomHead { keeping, ..head() }),
        row::<RoomHeads>(NID, RoomHead { keeping, whole_since: since, ..head() }),
        row::<EventMetas>((NID, NUM), EventMeta { expired: true, came: 1_780_000_000_000, ..meta() }),
        row::<ExpiryDue>((1_780_000_000_000, NID), ()),
        row::<CameLate>((NID, 1_780_000_000_000, NUM), ()),
        row::<ExpiryPolicies>((), Json(Told { policy, after: 3, done: true, since: 7 })),
    ]
}

fn found_rows() -> Vec<(u8, String)> {
    vec![
        row::<StateSince>((NID, Position(0x0a0b)), StateRef { line: 0, version: 200 }),
        row::<Missing>((NID, event_id!("$abc:x.fr").into(), NUM), -2),
    ]
}

fn all_rows() -> Vec<(u8, String)> {
    let mut all = rows();
    all.extend(delayed_rows());
    all.extend(partial_rows());
    all.extend(expiry_rows());
    all.extend(found_rows());
    all
}

#[test]
fn room_tables_keep_their_bytes() {
    let rows: Vec<String> = all_rows().into_iter().map(|(_, row)| row).collect();
    let golden: Vec<&str> = include_str!("golden_rooms.txt").lines().collect();
    assert_eq!(rows, golden);
}

#[test]
fn every_room_table_has_a_golden_row() {
    let seen: Vec<u8> = all_rows().into_iter().map(|(number, _)| number).collect();
    let retired = registry::NEXT_ROOM.number;
    for info in registry::ALL.iter().filter(|info| {
        ((20..70).contains(&info.number) || (200..210).contains(&info.number)) && info.number != retired
    }) {
        assert!(seen.contains(&info.number), "{} has no golden row", info.name);
    }
}
