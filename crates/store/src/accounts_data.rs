//! Tables of account data, filters and profiles.

use ruma::OwnedUserId;

use crate::{accounts::Positioned, table};

table! {
    /// `(user, room or empty for global, type)` → position of the change, content as JSON.
    AccountData = ACCOUNT_DATA: (OwnedUserId, String, String) => Positioned<Vec<u8>>;
    /// `(user, position, room or empty, type)` → nothing; an older row of the same item is gone.
    AccountDataChanges = ACCOUNT_DATA_CHANGES: (OwnedUserId, u64, String, String) => ();
    /// User → number of items.
    AccountDataCounts = ACCOUNT_DATA_COUNTS: OwnedUserId => i64;
    /// `(user, filter id)` → filter as JSON.
    Filters = FILTERS: (OwnedUserId, String) => Vec<u8>;
    /// `(user, field)` → value as JSON.
    Profiles = PROFILES: (OwnedUserId, String) => Vec<u8>;
    /// User → the revision of the account that came with a name or picture of which not all rooms were told.
    ProfileNews = PROFILE_NEWS: OwnedUserId => u64;
}
