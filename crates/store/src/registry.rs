//! The whole disk on one screen: every table, its number, its class. Retired numbers stay listed.
//!
//! Number 0 belongs to the engine. Ranges: 1–19 the server and the log, 20–69 rooms, 70–129 accounts,
//! 130–149 identity, 150–169 federation, 170–189 media, 190–199 delivery, 200–209 search, 210–219 application services.

use chappe_kv::Class::{self, Bulk, Index, Point, Queue};

use crate::TableInfo;

macro_rules! registry {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $class:ident;)*) => {
        $($(#[$doc])* pub const $name: TableInfo =
            TableInfo { number: $number, name: stringify!($name), class: $class };)*
        /// All of them, by number.
        pub const ALL: &[TableInfo] = &[$($name),*];
    };
}

registry! {
    /// Format version and other single values, by name.
    META = 1, Point;
    /// The log: what happened, in order.
    LOG = 2, Queue;
    /// How far each follower has come, by name.
    CURSORS = 3, Point;
    /// Rooms that operators keep this server's users out of.
    BLOCKED_ROOMS = 10, Point;
    /// Work for administrators that goes on over restarts, and for a while what became of it.
    JOBS = 11, Point;
    /// Where the server speaks to each user.
    NOTICE_ROOMS = 12, Point;
    /// What administrators asked for, and what came of it.
    AUDIT_ENTRIES = 13, Index;
    /// How far that goes.
    AUDIT_HEAD = 14, Point;
    /// What happened on each day, counted by domain and kind.
    STATISTICS = 15, Index;
    /// The last day that has begun in them.
    STATISTICS_DAY = 16, Point;
    /// Validations of e-mail addresses under way, by session id.
    VALIDATIONS = 130, Point;
    /// The same by what the client knows.
    VALIDATIONS_BY_SECRET = 131, Point;
    /// The same by when they end.
    VALIDATIONS_BY_EXPIRY = 132, Queue;
    /// Who may sign up: domains, sub-domains, addresses.
    ALLOW_RULES = 133, Index;
    /// Servers that operators let take part.
    ALLOWED_SERVERS = 134, Index;
    /// Addresses of new accounts that the identity service is still to bind.
    WANTED_BINDINGS = 135, Queue;
    /// Whose an address is, as the identity service vouches.
    ASSOCIATIONS = 136, Point;
    /// The same by user.
    ASSOCIATIONS_OF = 137, Index;
    /// Bound addresses by their hash under a pepper.
    ADDRESS_HASHES = 138, Point;
    /// Invitations that wait for an address to be bound.
    WAITING_INVITES = 139, Index;
    /// Invitations of addresses, by token.
    INVITE_TOKENS = 140, Point;
    /// Ephemeral keys of invitations.
    INVITE_KEYS = 141, Point;
    /// Invitations of addresses by when they end.
    INVITE_EXPIRIES = 142, Queue;
    /// News of addresses that other servers are still to be told, by when to try.
    NOTICES = 143, Queue;
    /// Access tokens of the identity service, by hash.
    SERVICE_TOKENS = 144, Point;
    /// Who uses the identity service: accepted policies, live tokens.
    SERVICE_USERS = 145, Point;
    /// Which homeserver an address, a domain or its sub-domains belong to.
    MAP_ENTRIES = 146, Index;
    /// The same by pattern, in order.
    MAP_PATTERNS = 147, Index;
    /// The small records that writers of the map, of peppers expect, by name.
    IDENTITY_HEADS = 148, Point;
    /// Where addresses of local users were bound.
    BOUND_AT = 149, Index;
    /// What waits for other servers, by destination.
    OUTBOX = 150, Queue;
    /// How reaching each destination went.
    DESTINATIONS = 151, Point;
    /// Events of other servers that are acknowledged and still to be dealt with.
    RECEIVED_LATER = 152, Queue;
    /// Verify keys of other servers.
    SERVER_KEYS = 154, Point;
    /// Signed key documents of other servers.
    KEY_DOCUMENTS = 155, Bulk;
    /// What other servers were told of local users' devices.
    ANNOUNCED_DEVICES = 156, Bulk;
    /// The signed list of a network's servers, by the network's name.
    NETWORK_LISTS = 159, Point;
    /// Joins of local users that other servers were sent and that have not brought the user in.
    SENT_JOINS = 160, Index;
    /// Room id → room number.
    ROOM_IDS = 20, Point;
    /// Room number → room id.
    ROOM_NAMES = 21, Point;
    /// The one small record of each room that all its writers replace.
    ROOM_HEADS = 22, Point;
    /// Retired: the number the next room got, for which all who made rooms were waiting.
    NEXT_ROOM = 23, Point;
    /// Event id → room number and event number.
    EVENT_IDS = 24, Point;
    /// Event JSON: written once, unless it came without what it says, or what it says is erased.
    EVENT_PDUS = 25, Bulk;
    /// What the server thinks of an event: status, state references, place.
    EVENT_META = 26, Point;
    /// The order in which a room's events are shown.
    TIMELINE = 27, Index;
    /// Current state and key numbers of a room, by type and state key.
    STATE_NOW = 28, Index;
    /// Key number → type and state key.
    STATE_KEYS = 29, Point;
    /// Multi-version state.
    STATE_VERSIONS = 30, Index;
    /// What each state version changed.
    STATE_CHANGES = 31, Index;
    /// Lines of state versions and their parents.
    STATE_LINES = 32, Point;
    /// Current members of a room, by membership.
    ROOM_MEMBERS = 33, Index;
    /// Rooms of a local user.
    USER_ROOMS = 34, Index;
    /// How many users of each server are joined to a room.
    ROOM_SERVERS = 35, Index;
    /// Rooms a local user has forgotten.
    FORGOTTEN = 36, Point;
    /// Invites and knocks of local users in rooms this server is not in.
    OUT_OF_BAND = 37, Bulk;
    /// What is asked of all of a user's at once; the numbers of rooms are used up.
    OUT_OF_BAND_LIST = 161, Index;
    /// Alias → room.
    ALIASES = 38, Point;
    /// Aliases of a room.
    ROOM_ALIASES = 39, Index;
    /// Rooms in the public directory.
    DIRECTORY = 40, Index;
    /// Latest receipts of a room.
    RECEIPTS = 41, Index;
    /// The same by position.
    RECEIPT_ORDER = 42, Index;
    /// Transaction → event, for repeated requests.
    TRANSACTIONS = 43, Point;
    /// Event → transaction of the device that sent it.
    EVENT_TRANSACTIONS = 44, Point;
    /// Related events of an event.
    RELATIONS = 45, Index;
    /// How many events of a relation type an event has.
    RELATION_COUNTS = 46, Point;
    /// Threads of a room with their latest reply.
    THREADS = 47, Index;
    /// Redactions that arrived before the event they redact.
    WAITING_REDACTIONS = 48, Index;
    /// Events of the timeline whose predecessors this server does not have.
    GAPS = 49, Index;
    /// Transactions by age, for forgetting them.
    TRANSACTION_ORDER = 50, Queue;
    /// Rooms whose memberships are still being fetched after a join over federation.
    PARTIAL_ROOMS = 51, Point;
    /// Remote users whose devices changed while it was not known whether they are in such a room.
    UNPLACED_DEVICES = 52, Index;
    /// Rooms of which everything is being removed.
    DOOMED_ROOMS = 53, Point;
    /// Events of such a room that did not fit what it seemed to be like when they came.
    LATE_EVENTS = 54, Index;
    /// Ids of events that were removed from a room's history.
    PURGED_IDS = 55, Bulk;
    /// Rooms by when it is to be looked what has expired in them.
    EXPIRY_DUE = 56, Queue;
    /// For how long rooms keep what is said, as all of them were last told.
    EXPIRY_POLICY = 57, Point;
    /// What came to a room long after it was said, by when that was.
    CAME_LATE = 58, Index;
    /// Rooms whose guests are to leave.
    SHUT_ROOMS = 59, Point;
    /// Reports of events, rooms and users to the administrators.
    REPORTS = 60, Queue;
    /// Events that wait for their time, and for a while what became of them.
    DELAYED_EVENTS = 61, Point;
    /// The same by when they are due.
    DELAYED_DUE = 62, Queue;
    /// The same by user.
    DELAYED_OF_USER = 63, Index;
    /// How many events of each user wait.
    DELAYED_COUNTS = 64, Point;
    /// Transaction → delayed event, for repeated requests.
    DELAYED_TRANSACTIONS = 65, Point;
    /// Delayed events that wait no longer, by when that ended.
    DELAYED_ENDED = 66, Queue;
    /// Event → the delayed event that it was.
    DELAYED_SENT = 67, Point;
    /// Since which commit a room has had each of its current states.
    STATE_SINCE = 68, Index;
    /// Missing predecessors of events, by their own ids.
    MISSING = 69, Index;

    // Accounts.
    /// Local users.
    USERS = 70, Point;
    /// Password hashes of local users.
    PASSWORDS = 71, Point;
    /// Access tokens by hash.
    ACCESS_TOKENS = 72, Point;
    /// Refresh tokens by hash.
    REFRESH_TOKENS = 73, Point;
    /// The tokens of each device.
    DEVICE_TOKENS = 74, Index;
    /// Log-in and OpenID tokens by hash.
    ONE_OFF_TOKENS = 75, Point;
    /// What may be swept, by time.
    EXPIRIES = 76, Queue;
    /// Registration tokens.
    REGISTRATION_TOKENS = 77, Point;
    /// E-mail addresses and phone numbers of each user.
    THREEPIDS = 78, Index;
    /// Whose an e-mail address or phone number is.
    THREEPID_OWNERS = 79, Point;
    /// Profile fields of local users.
    PROFILES = 80, Index;
    /// Devices of local users.
    DEVICES = 81, Index;
    /// When and from where devices were last seen.
    DEVICE_SEEN = 82, Index;
    /// Pushers of each user.
    PUSHERS = 83, Index;
    /// Whose pushers an application and push key have.
    PUSHER_OWNERS = 84, Index;
    /// Account data, push rules and tags included.
    ACCOUNT_DATA = 85, Index;
    /// Account data in the order of its changes.
    ACCOUNT_DATA_CHANGES = 86, Index;
    /// Number of account data items of each user.
    ACCOUNT_DATA_COUNTS = 87, Point;
    /// Filters of each user, by hash.
    FILTERS = 88, Index;
    /// Closed accounts whose rooms are still to be left.
    DEPARTURES = 89, Index;
    /// Identity keys of local devices.
    DEVICE_KEYS = 90, Bulk;
    /// One-time keys not handed out yet.
    ONE_TIME_KEYS = 91, Index;
    /// One-time keys in the order of their upload.
    ONE_TIME_KEY_ORDER = 92, Index;
    /// Fallback keys.
    FALLBACK_KEYS = 93, Index;
    /// Per device: one-time keys left, fallback keys unused.
    KEY_HEADS = 94, Point;
    /// Cross-signing keys of local and remote users.
    CROSS_SIGNING_KEYS = 95, Index;
    /// Signatures uploaded on keys.
    KEY_SIGNATURES = 96, Index;
    /// Position of each user's last device list change.
    DEVICE_LIST_HEADS = 97, Point;
    /// Device list changes in order, the last one of each user.
    DEVICE_LIST_CHANGES = 98, Index;
    /// What is known of remote users' device lists.
    REMOTE_LISTS = 99, Point;
    /// Devices of remote users.
    REMOTE_DEVICES = 100, Bulk;
    /// Remote users whose device list must be fetched again.
    RESYNCS = 101, Index;
    /// Messages that wait for a device.
    TO_DEVICE = 102, Queue;
    /// Transaction ids under which to-device messages were sent.
    TO_DEVICE_TXNS = 103, Point;
    /// Number of messages waiting for each device.
    TO_DEVICE_COUNTS = 104, Point;
    /// Key backup versions of each user.
    BACKUPS = 105, Index;
    /// The last backup version number given to each user.
    BACKUP_NUMBERS = 106, Point;
    /// Backed-up room keys.
    BACKUP_KEYS = 107, Bulk;
    /// The device each user has left asleep for the next log-in.
    DEHYDRATED_DEVICES = 108, Bulk;
    /// Devices by what their refresh tokens have in common.
    TOKEN_FAMILIES = 109, Point;
    /// Registered OAuth clients.
    OAUTH_CLIENTS = 110, Point;
    /// Devices that logged in with an OAuth client.
    OAUTH_CLIENT_DEVICES = 111, Index;
    /// Authorization codes by hash, used ones too for a while.
    OAUTH_CODES = 112, Point;
    /// People logged in to this server's own pages, by hash of the cookie.
    BROWSER_SESSIONS = 113, Point;
    /// What of OAuth may be swept, by time.
    OAUTH_EXPIRIES = 114, Queue;
    /// How many OAuth clients are registered.
    OAUTH_COUNTS = 115, Point;
    /// The day on which each user was last here.
    LAST_ACTIVE = 116, Point;
    /// Retired: how dear the bcrypt hashes were that came from another server.
    BCRYPT_COST = 117, Point;
    /// What the hashes of passwords cost.
    PASSWORD_COSTS = 118, Point;
    /// Users whose rooms are to be told of a new name or picture.
    PROFILE_NEWS = 119, Point;
    /// Whose an account with an identity provider is.
    EXTERNAL_IDS = 120, Point;
    /// The same by user.
    EXTERNAL_IDS_OF = 121, Index;
    /// How often each user was logged out everywhere.
    LOG_OUTS = 122, Point;
    /// OAuth clients that nobody is known to be logged in with, by their last use.
    OAUTH_IDLE_CLIENTS = 123, Queue;
    /// One-time keys that were handed out lately.
    SPENT_KEYS = 124, Point;
    /// Accounts by when their end is to be looked at.
    RENEWALS_DUE = 125, Queue;
    /// How the end of each account is dealt with.
    RENEWALS = 126, Point;
    /// Links that renew accounts, by hash.
    RENEWAL_LINKS = 127, Point;
    /// How far giving ends to accounts that had none has come.
    ENROLMENTS = 128, Point;
    /// Whose an address was when the account was closed.
    FORMER_OWNERS = 129, Point;

    // Delivery.
    /// Threads that users follow.
    THREAD_SUBSCRIPTIONS = 190, Point;
    /// The same by the order of change.
    THREAD_SUBSCRIPTION_ORDER = 191, Index;
    /// How many each user has.
    THREAD_SUBSCRIPTION_COUNTS = 192, Point;
    /// Sticky events by room.
    STICKY = 193, Index;
    /// The same by when they end.
    STICKY_ENDS = 194, Queue;
    /// Number of messages waiting for each device, by sender.
    TO_DEVICE_SENDERS = 195, Index;
    /// Whose master keys each user signed, by when.
    SIGNATURE_CHANGES = 196, Index;
    /// Which rooms have something unread, for users with pushers.
    UNREAD_ROOMS = 197, Point;

    /// Media, by server and id.
    MEDIA = 170, Index;
    /// Addresses of media that wait for their upload.
    PENDING_MEDIA = 171, Index;
    /// What each user has uploaded.
    USER_MEDIA = 172, Index;
    /// Thumbnails, by medium and size.
    THUMBNAILS = 173, Index;
    /// Media by the hash of their bytes.
    MEDIA_BY_HASH = 174, Index;
    /// Hashes of bytes that are given to nobody.
    QUARANTINES = 175, Point;
    /// When media were last given out.
    MEDIA_ACCESS = 176, Point;
    /// What web pages say of themselves, by the hash of the address.
    URL_PREVIEWS = 177, Point;
    /// The same by when it was asked, with the picture that was kept.
    PREVIEWS_BY_AGE = 178, Queue;
    /// What a scanner thought of bytes, by their hash.
    VERDICTS = 179, Point;
    /// The same by when they were scanned.
    VERDICTS_BY_AGE = 180, Queue;
    /// Events that name a medium.
    MEDIA_USES = 181, Index;
    /// Media that an event named which is no more.
    MEDIA_UNUSED = 182, Queue;
    /// What the uploads of each user take up.
    USER_BYTES = 183, Point;

    /// How each application service stands.
    SERVICE_HEADS = 210, Point;
    /// What waits for application services.
    SERVICE_QUEUE = 211, Queue;
    /// Transactions to application services that are being sent.
    SERVICE_TRANSACTIONS = 212, Bulk;
    /// Rooms with users of application services.
    SERVICE_ROOMS = 213, Index;
    /// Rooms that application services list for their networks.
    SERVICE_DIRECTORY = 214, Index;

    /// Rooms that a user of another server is joined to.
    REMOTE_ROOMS = 200, Index;
    /// Rooms that anybody may enter or look into, as the directory of people has them.
    OPEN_ROOMS = 201, Index;
}

/// The class of a table; an unknown number counts as an index.
pub fn class(number: u8) -> Class {
    ALL.iter().find(|info| info.number == number).map_or(Index, |info| info.class)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{ALL, Bulk};

    #[test]
    fn numbers_are_unique_and_never_the_engines() {
        let numbers: BTreeSet<u8> = ALL.iter().map(|info| info.number).collect();
        assert_eq!(numbers.len(), ALL.len());
        assert!(!numbers.contains(&0));
        assert_ne!(super::class(1), Bulk);
    }
}
