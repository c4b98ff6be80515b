//! The bytes of every table of accounts, so that a change of the format cannot happen by accident.
//!
//! A failing line here means: existing disks would be misread. Raise `FORMAT` and write a migration instead.

use chappe_kv::Position;
use ruma::{OwnedDeviceId, OwnedUserId, owned_room_id, owned_user_id};
use serde_json::{json, value::to_raw_value};

use crate::{
    Json, Value,
    accounts::{
        AccessToken, AccessTokens, Deactivation, Departures, Device, DeviceSeen, DeviceTokens, Devices,
        Expiries, ExternalId, ExternalIds, ExternalIdsOf, FormerOwners, LastActive, OAuthLogIn,
        OneOffPurpose, OneOffToken, OneOffTokens, PasswordCosts, Passwords, Positioned, Pusher, PusherOwners,
        Pushers, RefreshToken, RefreshTokens, RegistrationToken, RegistrationTokens, Seen, Threepid,
        ThreepidOwners, Threepids, User, UserKind, Users,
    },
    accounts_data::{AccountData, AccountDataChanges, AccountDataCounts, Filters, ProfileNews, Profiles},
    accounts_keys::{
        Backup, BackupKeys, BackupNumbers, Backups, CrossSigningKeys, DehydratedDevice, DehydratedDevices,
        DeviceKeys, DeviceListChanges, DeviceListHeads, FallbackKey, FallbackKeys, KeyHead, KeyHeads,
        KeySignatures, OneTimeKeyOrder, OneTimeKeys, RemoteDevice, RemoteDevices, RemoteList, RemoteLists,
        Resyncs, SpentKeys, ToDevice, ToDeviceCounts, ToDeviceTxns,
    },
    golden::row,
    oauth::{
        BrowserSession, BrowserSessions, Client, ClientDevices, Clients, Code, Codes, IdleClients, LogOuts,
        OAuthCounts, OAuthExpiries, TokenFamilies, TokenFamily,
    },
    registry,
    validity::{
        Enrolment, Enrolments, Renewal, RenewalCode, RenewalLink, RenewalLinks, Renewals, RenewalsDue,
    },
};

fn text(text: &str) -> String {
    text.to_owned()
}

fn document() -> Vec<u8> {
    b"{}".to_vec()
}

fn people(user: &OwnedUserId, device: &OwnedDeviceId) -> Vec<(u8, String)> {
    let hash = [7; 32];
    let access = AccessToken {
        user: user.clone(),
        device: device.clone(),
        expires: Some(9),
        replaces: Some([8; 32]),
        oauth: false,
    };
    let refresh = RefreshToken {
        user: user.clone(),
        device: device.clone(),
        expires: None,
        access: [1; 32],
        next: Some([2; 32]),
        previous: Some([3; 32]),
    };
    let closed = User {
        kind: UserKind::System,
        created: 5,
        admin: true,
        locked: true,
        suspended: true,
        deactivated: Some(Deactivation {
            at: 6,
            erase: true,
            addresses: vec![(text("email"), text("a@x.fr"))],
        }),
        appservice: Some(text("irc")),
        user_type: None,
        ends: Some(8),
        rate: None,
        revision: 7,
    };
    let one_off = OneOffToken { purpose: OneOffPurpose::LogIn, user: user.clone(), expires: 9 };
    let pusher = Pusher { pusher: json!({ "kind": "http" }), device: Some(device.clone()), created: 3 };
    let both = (user.clone(), device.clone());
    let phone = Device { name: Some(text("phone")), created: 4, revision: 2, ..Device::default() };
    vec![
        row::<Users>(user.clone(), Json(User::default())),
        row::<Users>(user.clone(), Json(closed)),
        row::<Passwords>(user.clone(), text("$argon2id$")),
        row::<Departures>(user.clone(), 0x0a0b),
        row::<AccessTokens>(hash, Json(access)),
        row::<RefreshTokens>(hash, Json(refresh)),
        row::<DeviceTokens>((user.clone(), device.clone(), hash), 1),
        row::<OneOffTokens>(hash, Json(one_off)),
        row::<Expiries>((9, 75, hash), ()),
        row::<RegistrationTokens>(
            text("t"),
            Json(RegistrationToken { uses_allowed: Some(1), ..Default::default() }),
        ),
        row::<Threepids>(
            (user.clone(), text("email"), text("a@x.fr")),
            Json(Threepid { validated: 1, added: 2 }),
        ),
        row::<ThreepidOwners>((text("email"), text("a@x.fr")), user.to_string()),
        row::<ExternalIds>(
            (text("https://i"), text("s")),
            Json(ExternalId { user: user.clone(), provider: text("p"), linked: 3 }),
        ),
        row::<ExternalIdsOf>((user.clone(), text("https://i"), text("s")), ()),
        row::<Profiles>((user.clone(), text("displayname")), b"\"A\"".to_vec()),
        row::<Devices>(both.clone(), Json(phone)),
        row::<Devices>(both.clone(), Json(Device { created: 4, dehydrated: true, ..Device::default() })),
        row::<Devices>(both.clone(), Json(Device { created: 4, log_in: Some(5), ..Device::default() })),
        row::<DeviceSeen>(both, Json(Seen { at: 5, ip: Some(text("192.0.2.1")) })),
        row::<Pushers>((user.clone(), text("app"), text("key")), Json(pusher)),
        row::<PusherOwners>((text("app"), text("key"), user.clone()), ()),
        row::<AccountData>(
            (user.clone(), text(""), text("m.direct")),
            Positioned { position: Position(0x0a0b), value: document() },
        ),
        row::<AccountDataChanges>((user.clone(), 0x0a0b, text("!r"), text("m.tag")), ()),
        row::<AccountDataCounts>(user.clone(), -1),
        row::<Filters>((user.clone(), text("id")), document()),
        row::<ProfileNews>(user.clone(), 0x0a0b),
    ]
}

fn keys(user: &OwnedUserId, device: &OwnedDeviceId) -> Vec<(u8, String)> {
    let both = (user.clone(), device.clone());
    let of_device = |rest: &str| (user.clone(), device.clone(), text(rest));
    let raw = || to_raw_value(&json!({})).unwrap();
    let head = KeyHead { counts: [(text("a"), 2)].into(), unused_fallback: [text("a")].into(), revision: 3 };
    let backup = Backup { algorithm: text("a"), auth_data: raw(), count: 1, etag: 2, bytes: 0 };
    let counted = Backup { bytes: 3, ..backup.clone() };
    vec![
        row::<DeviceKeys>(both.clone(), document()),
        row::<OneTimeKeys>((user.clone(), device.clone(), text("a"), text("k")), document()),
        row::<OneTimeKeyOrder>((user.clone(), device.clone(), text("a"), 0x0a0b, 1), text("k")),
        row::<SpentKeys>([7; 32], ()),
        row::<FallbackKeys>(of_device("a"), Json(FallbackKey { id: text("k"), key: raw() })),
        row::<KeyHeads>(both.clone(), Json(head)),
        row::<CrossSigningKeys>((user.clone(), 2), document()),
        row::<KeySignatures>((user.clone(), user.clone(), text("D"), text("ed25519:x")), text("s")),
        row::<DeviceListHeads>(user.clone(), 0x0a0b),
        row::<DeviceListChanges>((0x0a0b, user.clone()), 9),
        row::<RemoteLists>(
            user.clone(),
            Json(RemoteList { stream_id: 1, fetched: 2, stale: true, ..RemoteList::default() }),
        ),
        row::<RemoteDevices>(both.clone(), Json(RemoteDevice { keys: Some(raw()), name: Some(text("n")) })),
        row::<Resyncs>(user.clone(), ()),
        row::<ToDevice>((user.clone(), device.clone(), 0x0a0b, 1), document()),
        row::<ToDeviceTxns>([7; 32], 9),
        row::<ToDeviceCounts>(both, 2),
        row::<Backups>((user.clone(), 1), Json(backup)),
        row::<Backups>((user.clone(), 2), Json(counted)),
        row::<BackupNumbers>(user.clone(), 1),
        row::<BackupKeys>((user.clone(), 1, owned_room_id!("!r:x.fr"), text("s")), document()),
        row::<DehydratedDevices>(
            user.clone(),
            Json(DehydratedDevice { device: device.clone(), data: raw() }),
        ),
    ]
}

fn oauth(user: &OwnedUserId, device: &OwnedDeviceId) -> Vec<(u8, String)> {
    let hash = [7; 32];
    let family = TokenFamily { user: user.clone(), device: device.clone() };
    let client = Client { metadata: json!({ "client_uri": "https://x.fr/" }), used: 1 };
    let code = Code {
        user: user.clone(),
        client: [1; 32],
        redirect_uri: text("x.fr:/"),
        challenge: [2; 32],
        device: device.clone(),
        scope: text("s"),
        expires: 5,
        used_for: Some([3; 32]),
        mark: None,
        browser: None,
    };
    let (owner, of) = (user.clone(), device.clone());
    let access = AccessToken { user: owner, device: of, expires: Some(9), replaces: None, oauth: true };
    let log_in = Some(OAuthLogIn { client: [4; 32], scope: text("s"), browser: None });
    let phone = Device { created: 4, revision: 2, oauth: log_in, ..Device::default() };
    let session = BrowserSession { user: user.clone(), mark: [4; 32], expires: 6, proved_until: None };
    vec![
        row::<AccessTokens>(hash, Json(access)),
        row::<Devices>((user.clone(), device.clone()), Json(phone)),
        row::<TokenFamilies>(hash, Json(family)),
        row::<Clients>(hash, Json(client)),
        row::<ClientDevices>((hash, user.clone(), device.clone()), ()),
        row::<Codes>(hash, Json(code)),
        row::<BrowserSessions>(hash, Json(session)),
        row::<OAuthExpiries>((9, 110, hash), ()),
        row::<OAuthCounts>(text("clients"), 2),
        row::<LogOuts>(user.clone(), 2),
        row::<IdleClients>((9, hash), ()),
    ]
}

fn validity(user: &OwnedUserId) -> Vec<(u8, String)> {
    let code = RenewalCode { hash: [8; 32], failures: 1, used: true };
    let renewal = Renewal {
        due: 4,
        told: Some(5),
        ended: Some(6),
        quiet: true,
        links: vec![[7; 32]],
        code: Some(code),
    };
    let link = RenewalLink { user: user.clone(), expires: 9, used: true };
    vec![
        row::<RenewalsDue>((4, user.clone()), ()),
        row::<Renewals>(user.clone(), Json(renewal)),
        row::<FormerOwners>((text("email"), text("a@x.fr")), user.to_string()),
        row::<RenewalLinks>([7; 32], Json(link)),
        row::<LastActive>(user.clone(), 20_000),
        row::<PasswordCosts>((), Json([text("$2b$12$")].into())),
        row::<Enrolments>(text("e"), Json(Enrolment { after: text("@a:x.fr"), done: true })),
    ]
}

fn rows() -> Vec<(u8, String)> {
    let (user, device) = (owned_user_id!("@a:x.fr"), OwnedDeviceId::from("D"));
    let mut rows = people(&user, &device);
    rows.extend(keys(&user, &device));
    rows.extend(oauth(&user, &device));
    rows.extend(validity(&user));
    rows
}

#[test]
fn account_tables_keep_their_bytes() {
    let rows: Vec<String> = rows().into_iter().map(|(_, row)| row).collect();
    let golden: Vec<&str> = include_str!("golden_accounts.txt").lines().collect();
    assert_eq!(rows, golden, "\n{}\n", rows.join("\n"));
}

#[test]
fn every_account_table_has_a_golden_row() {
    let seen: Vec<u8> = rows().into_iter().map(|(number, _)| number).collect();
    let retired = registry::BCRYPT_COST.number;
    let is_kept = |number| (70..130).contains(&number) && number != retired;
    for info in registry::ALL.iter().filter(|info| is_kept(info.number)) {
        assert!(seen.contains(&info.number), "{} has no golden row", info.name);
    }
}

#[test]
fn a_value_may_be_shorter_than_today() {
    let old = Json::<User>::from_bytes(br#"{"kind":"user","created":1}"#).unwrap();
    assert_eq!(old.0, User { created: 1, ..User::default() });
    let bot = Json(User { user_type: Some(text("bot")), ..User::default() });
    assert!(String::from_utf8(bot.to_bytes()).unwrap().contains(r#""user_type":"bot""#));
}
