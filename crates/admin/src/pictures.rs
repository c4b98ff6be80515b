//! The pictures of users and rooms, which stay where other media go.

use std::collections::HashSet;

use chappe_accounts::{Accounts, UserQuery};
use chappe_rooms::{RoomQuery, Rooms};

use crate::Error;

/// The `mxc:` addresses of the pictures of all users and rooms.
pub async fn pictures(accounts: &Accounts, rooms: &Rooms) -> Result<HashSet<String>, Error> {
    let users = UserQuery { limit: usize::MAX, ..UserQuery::default() };
    let listed = RoomQuery { limit: usize::MAX, ..RoomQuery::default() };
    let users = accounts.list_users(&users).await?.users.into_iter();
    let rooms = rooms.list(&listed).await?.rooms.into_iter();
    Ok(users.filter_map(|user| user.avatar_url).chain(rooms.filter_map(|room| room.avatar)).collect())
}
