//! Tables of the identity service: which addresses are whose, who waits for whom, which homeserver serves whom.

use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{Json, table};

/// A medium, such as `email`, and an address in canonical form.
pub type Place = (String, String);

/// That an address is a user's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Association {
    /// Whose.
    pub user: OwnedUserId,
    /// When the address was proved, in milliseconds since 1970.
    pub at: u64,
}

/// An invitation of an address into a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// `email`.
    pub medium: String,
    /// Whom.
    pub address: String,
    /// Into which room.
    pub room: OwnedRoomId,
    /// Who invites.
    pub sender: OwnedUserId,
    /// When it was stored, in milliseconds since 1970.
    pub stored_at: u64,
    /// When it ends, in milliseconds since 1970.
    pub expires_at: u64,
    /// The public half of its ephemeral key.
    pub key: [u8; 32],
    /// The server whose identity service keeps it, if that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<OwnedServerName>,
}

/// What the identity service is still to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Whom; nobody yet where that is still to be found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<OwnedServerName>,
    /// How often it was tried.
    #[serde(default)]
    pub tries: u32,
    /// What.
    pub news: News,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// An address was bound.
    Bound(Binding),
    /// An address is bound no more.
    Ended(Binding),
    /// Invitations waited for an address that was bound: the homeserver of its user is to be told.
    Awaited {
        /// What was bound.
        binding: Binding,
        /// Token, room, inviting user.
        invites: Vec<(String, OwnedRoomId, OwnedUserId)>,
    },
    /// An address that another server takes was invited, by the token.
    Invited(String),
    /// An account was closed: the identity servers where its addresses were bound are to be asked to forget them.
    Closed {
        /// Whose it was.
        user: OwnedUserId,
        /// When, in milliseconds since 1970.
        at: u64,
    },
    /// A server is new to the network: it is told whose the addresses of this server's users are.
    Everything {
        /// Those in front of this one, and this one, were told.
        after: String,
    },
}

/// An address and whose it is or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// `email`.
    pub medium: String,
    /// The address.
    pub address: String,
    /// Whose.
    pub user: OwnedUserId,
    /// Since or until when, in milliseconds since 1970.
    pub at: u64,
}

/// An access token of the identity service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceToken {
    /// Whose.
    pub user: OwnedUserId,
    /// When it was given, in milliseconds since 1970.
    pub created: u64,
}

/// Somebody who uses the identity service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceUser {
    /// URLs of policies that were accepted.
    #[serde(default)]
    pub accepted: Vec<String>,
    /// Hashes of the live tokens, oldest first.
    #[serde(default)]
    pub tokens: Vec<[u8; 32]>,
}

/// Where the map sends an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapTarget {
    /// The homeserver.
    pub hs: OwnedServerName,
    /// The one for callers outside the protected network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow_hs: Option<OwnedServerName>,
    /// Whether only the invited may sign up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requires_invite: bool,
}

/// A pattern of the map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapPattern {
    /// A regular expression that whole addresses match.
    pub regex: String,
    /// Where they belong.
    pub target: MapTarget,
}

/// Under which pepper addresses are looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peppers {
    /// The number of the pepper in use: what its hashes are kept under.
    pub number: u32,
    /// The pepper in use.
    pub pepper: String,
    /// When it came into use, in milliseconds since 1970.
    pub since: u64,
    /// The pepper that hashes are made for, to be used next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

table! {
    /// Address of a new account and its user, to be bound.
    WantedBindings = WANTED_BINDINGS: (String, String, OwnedUserId) => ();
    /// Address → whose.
    Associations = ASSOCIATIONS: (String, String) => Json<Association>;
    /// User and address.
    AssociationsOf = ASSOCIATIONS_OF: (OwnedUserId, String, String) => ();
    /// Number of the pepper and hash → `medium address`. A hint: [`Associations`] says what holds.
    AddressHashes = ADDRESS_HASHES: (u32, [u8; 32]) => String;
    /// Address and token, as long as nobody has the address.
    WaitingInvites = WAITING_INVITES: (String, String, String) => ();
    /// Token → invitation, until it ends, used or not.
    InviteTokens = INVITE_TOKENS: String => Json<Invite>;
    /// Public key → token.
    InviteKeys = INVITE_KEYS: [u8; 32] => String;
    /// `(expires at, token)`.
    InviteExpiries = INVITE_EXPIRIES: (u64, String) => ();
    /// `(try at, id)` → what, and whom to tell.
    Notices = NOTICES: (u64, String) => Json<Notice>;
    /// SHA-256 of a token → whose.
    ServiceTokens = SERVICE_TOKENS: [u8; 32] => Json<ServiceToken>;
    /// User → what is kept of them.
    ServiceUsers = SERVICE_USERS: OwnedUserId => Json<ServiceUser>;
    /// Address, domain, `*.` and a domain, or `*` for all → where.
    MapEntries = MAP_ENTRIES: String => Json<MapTarget>;
    /// Place in the order → pattern and where.
    MapPatterns = MAP_PATTERNS: u32 => Json<MapPattern>;
    /// `map` → revision as 8 bytes; `peppers` → [`Peppers`] as JSON; `network` → names of the servers that were told of all
    /// addresses, or are being told, as JSON.
    IdentityHeads = IDENTITY_HEADS: String => Vec<u8>;
    /// User, medium, address, identity server → when, in milliseconds since 1970.
    BoundAt = BOUND_AT: (OwnedUserId, String, String, String) => u64;
}

#[cfg(test)]
mod tests {
    use ruma::{owned_room_id, owned_server_name, owned_user_id};

    use super::*;
    use crate::{golden::row, registry};

    fn rows() -> Vec<(u8, String)> {
        let text = str::to_owned;
        let (user, room) = (owned_user_id!("@a:x.fr"), owned_room_id!("!r:x.fr"));
        let (medium, address) = (text("email"), text("a@x.fr"));
        let invite = Invite {
            medium: medium.clone(),
            address: address.clone(),
            room: room.clone(),
            sender: user.clone(),
            stored_at: 1,
            expires_at: 2,
            key: [7; 32],
            origin: Some(owned_server_name!("b.fr")),
        };
        let binding =
            || Binding { medium: medium.clone(), address: address.clone(), user: user.clone(), at: 1 };
        let notice = |news: News| Json(Notice { to: Some(owned_server_name!("b.fr")), tries: 2, news });
        let awaited = News::Awaited { binding: binding(), invites: vec![(text("t"), room, user.clone())] };
        let target = MapTarget {
            hs: owned_server_name!("a.fr"),
            shadow_hs: Some(owned_server_name!("s.fr")),
            requires_invite: true,
        };
        let pattern = MapPattern {
            regex: text(".*"),
            target: MapTarget { shadow_hs: None, requires_invite: false, ..target.clone() },
        };
        let used = ServiceUser { accepted: vec![text("u")], tokens: vec![[7; 32]] };
        vec![
            row::<WantedBindings>((medium.clone(), address.clone(), user.clone()), ()),
            row::<Associations>(
                (medium.clone(), address.clone()),
                Json(Association { user: user.clone(), at: 1 }),
            ),
            row::<AssociationsOf>((user.clone(), medium.clone(), address.clone()), ()),
            row::<AddressHashes>((3, [7; 32]), text("email a@x.fr")),
            row::<WaitingInvites>((medium.clone(), address.clone(), text("t")), ()),
            row::<InviteTokens>(text("t"), Json(invite)),
            row::<InviteKeys>([7; 32], text("t")),
            row::<InviteExpiries>((2, text("t")), ()),
            row::<Notices>((9, text("i")), Json(Notice { to: None, tries: 0, news: News::Bound(binding()) })),
            row::<Notices>((9, text("j")), notice(News::Ended(binding()))),
            row::<Notices>((9, text("k")), notice(awaited)),
            row::<Notices>((9, text("l")), notice(News::Invited(text("t")))),
            row::<Notices>(
                (9, text("n")),
                Json(Notice { to: None, tries: 0, news: News::Closed { user: user.clone(), at: 1 } }),
            ),
            row::<Notices>((9, text("m")), notice(News::Everything { after: text("a@x.fr") })),
            row::<ServiceTokens>([7; 32], Json(ServiceToken { user: user.clone(), created: 1 })),
            row::<ServiceUsers>(user.clone(), Json(used)),
            row::<MapEntries>(text("*.x.fr"), Json(target)),
            row::<MapPatterns>(3, Json(pattern)),
            row::<IdentityHeads>(text("map"), 7_u64.to_be_bytes().to_vec()),
            row::<BoundAt>((user, medium, address, text("x.fr")), 9),
        ]
    }

    #[test]
    fn identity_service_tables_keep_their_bytes() {
        let rows: Vec<String> = rows().into_iter().map(|(_, row)| row).collect();
        let golden: Vec<&str> = include_str!("golden_identity.txt").lines().collect();
        assert_eq!(rows, golden, "\n{}\n", rows.join("\n"));
    }

    #[test]
    fn every_table_of_the_identity_service_has_a_golden_row() {
        let seen: Vec<u8> = rows().into_iter().map(|(number, _)| number).collect();
        for info in registry::ALL.iter().filter(|info| (135..150).contains(&info.number)) {
            assert!(seen.contains(&info.number), "{} has no golden row", info.name);
        }
    }

    #[test]
    fn peppers_are_kept_as_json() {
        let kept = br#"{"number":1,"pepper":"p","since":2}"#;
        let peppers: Peppers = serde_json::from_slice(kept).unwrap();
        assert_eq!(serde_json::to_vec(&peppers).unwrap(), kept);
    }
}
