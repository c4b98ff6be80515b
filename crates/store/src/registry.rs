//! The whole disk on one screen: every table, its number, its class. Retired numbers stay listed.
//!
//! Number 0 belongs to the engine. Ranges: 1–19 the server and the log, 20–69 rooms, 70–129 accounts,
//! 130–149 identity, 150–169 federation, 170–189 media, 190–209 delivery.

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
    /// Validations of e-mail addresses under way, by session id.
    VALIDATIONS = 130, Point;
    /// The same by what the client knows.
    VALIDATIONS_BY_SECRET = 131, Point;
    /// The same by when they end.
    VALIDATIONS_BY_EXPIRY = 132, Queue;
    /// Who may sign up: domains, sub-domains, addresses.
    ALLOW_RULES = 133, Index;
    /// What waits for other servers, by destination.
    OUTBOX = 150, Queue;
    /// How reaching each destination went.
    DESTINATIONS = 151, Point;
    /// Answers to transactions of other servers.
    RECEIVED_TRANSACTIONS = 152, Point;
    /// The same by age.
    RECEIVED_ORDER = 153, Queue;
    /// Verify keys of other servers.
    SERVER_KEYS = 154, Point;
    /// Signed key documents of other servers.
    KEY_DOCUMENTS = 155, Bulk;
    /// What other servers were told of local users' devices.
    ANNOUNCED_DEVICES = 156, Bulk;
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
