//! The list of accounts as administrators page through it: filtered, sorted, counted.

use std::cmp::Ordering;

use chappe_store::{
    Direction, Json, Reader,
    accounts::{DeviceSeen, User, UserKind, Users},
    accounts_data::Profiles,
};
use ruma::OwnedUserId;

use crate::{Accounts, Error, users::beyond};

/// Rows read at a time.
const PAGE: usize = 1_000;

/// Which accounts, in which order.
#[derive(Clone, Debug, Default)]
pub struct UserQuery {
    /// Only those whose user id contains this; not asked where there is a `name`.
    pub user_id: Option<String>,
    /// Only those whose localpart or display name contains this, in whatever case.
    pub name: Option<String>,
    /// Only administrators, or none.
    pub admins: Option<bool>,
    /// Only guests, or none.
    pub guests: Option<bool>,
    /// Only closed accounts, or none.
    pub deactivated: Option<bool>,
    /// Only locked accounts, or none.
    pub locked: Option<bool>,
    /// Not those of these types; an empty one stands for accounts without a type.
    pub not_types: Vec<String>,
    /// The order; what is alike is sorted by user id.
    pub order: UserOrder,
    /// Whether the order is turned round.
    pub backward: bool,
    /// How many to leave out.
    pub from: usize,
    /// How many to show.
    pub limit: usize,
}

/// What accounts are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserOrder {
    /// User id.
    #[default]
    Name,
    /// Whether it is a guest.
    Guest,
    /// Whether it is an administrator.
    Admin,
    /// Its type.
    Type,
    /// Whether it is closed.
    Deactivated,
    /// Display name.
    DisplayName,
    /// Avatar.
    Avatar,
    /// When it was made.
    Created,
    /// When one of its devices was last seen.
    LastSeen,
}

/// An account in a list.
#[derive(Clone, Debug)]
pub struct ListedUser {
    /// Who.
    pub user_id: OwnedUserId,
    /// The account.
    pub user: User,
    /// Display name.
    pub displayname: Option<String>,
    /// Avatar, an `mxc:` URI.
    pub avatar_url: Option<String>,
    /// When one of its devices was last seen, in milliseconds since 1970.
    pub last_seen: Option<u64>,
}

/// A page of accounts.
#[derive(Clone, Debug, Default)]
pub struct UserPage {
    /// The accounts.
    pub users: Vec<ListedUser>,
    /// How many there are on all pages.
    pub total: usize,
}

impl UserQuery {
    /// Whether the account's own record lets it through.
    fn admits(&self, id: &OwnedUserId, user: &User) -> bool {
        let is = |wanted: Option<bool>, is: bool| wanted.is_none_or(|wanted| wanted == is);
        let named =
            self.name.is_some() || self.user_id.as_ref().is_none_or(|part| id.as_str().contains(part));
        let type_of = user.user_type.as_deref().unwrap_or_default();
        named
            && is(self.admins, user.admin)
            && is(self.guests, user.kind == UserKind::Guest)
            && is(self.deactivated, user.deactivated.is_some())
            && is(self.locked, user.locked)
            && !self.not_types.iter().any(|not| not == type_of)
    }

    /// Whether the names let it through.
    fn admits_name(&self, listed: &ListedUser) -> bool {
        let Some(part) = &self.name else { return true };
        let part = part.to_lowercase();
        let contains = |text: &str| text.to_lowercase().contains(&part);
        contains(listed.user_id.localpart()) || listed.displayname.as_deref().is_some_and(contains)
    }

    /// Whether profiles must be known to filter or sort.
    fn needs_all(&self) -> bool {
        let by_profile = [UserOrder::DisplayName, UserOrder::Avatar, UserOrder::LastSeen];
        self.name.is_some() || by_profile.contains(&self.order)
    }

    fn compare(&self, a: &ListedUser, b: &ListedUser) -> Ordering {
        let ordering = match self.order {
            UserOrder::Name => a.user_id.cmp(&b.user_id),
            UserOrder::Guest => (a.user.kind == UserKind::Guest).cmp(&(b.user.kind == UserKind::Guest)),
            UserOrder::Admin => a.user.admin.cmp(&b.user.admin),
            UserOrder::Type => a.user.user_type.cmp(&b.user.user_type),
            UserOrder::Deactivated => a.user.deactivated.is_some().cmp(&b.user.deactivated.is_some()),
            UserOrder::DisplayName => a.displayname.cmp(&b.displayname),
            UserOrder::Avatar => a.avatar_url.cmp(&b.avatar_url),
            UserOrder::Created => a.user.created.cmp(&b.user.created),
            UserOrder::LastSeen => a.last_seen.cmp(&b.last_seen),
        };
        let ordering = if self.backward { ordering.reverse() } else { ordering };
        ordering.then_with(|| a.user_id.cmp(&b.user_id))
    }
}

impl Accounts {
    /// A page of accounts. Reads every account: for administrators alone.
    pub async fn list_users(&self, query: &UserQuery) -> Result<UserPage, Error> {
        let reader = self.read();
        let (mut found, mut from) = (Vec::new(), String::new());
        loop {
            let page = reader.scan_from::<Users>(&(), &from, PAGE).await?;
            let last = page.len() < PAGE;
            if let Some((user, _)) = page.last() {
                from = beyond(user);
            }
            let admitted = page.into_iter().filter(|(id, Json(user))| query.admits(id, user));
            let mut listed: Vec<ListedUser> = admitted.map(|(id, Json(user))| bare(id, user)).collect();
            if query.needs_all() {
                self.complete(&reader, &mut listed).await?;
                listed.retain(|one| query.admits_name(one));
            }
            found.extend(listed);
            if last {
                break;
            }
        }
        let total = found.len();
        found.sort_by(|a, b| query.compare(a, b));
        let mut users: Vec<ListedUser> = found.into_iter().skip(query.from).take(query.limit).collect();
        if !query.needs_all() {
            self.complete(&reader, &mut users).await?;
        }
        Ok(UserPage { users, total })
    }

    /// Adds what lies beside the accounts' records.
    async fn complete(&self, reader: &Reader<'_>, users: &mut [ListedUser]) -> Result<(), Error> {
        let keys: Vec<(OwnedUserId, String)> = users
            .iter()
            .flat_map(|one| {
                ["displayname", "avatar_url"].map(|field| (one.user_id.clone(), field.to_owned()))
            })
            .collect();
        let mut fields = reader.get_many::<Profiles>(&keys).await?.into_iter();
        let mut next = || fields.next().flatten().and_then(|value| serde_json::from_slice(&value).ok());
        for one in users.iter_mut() {
            (one.displayname, one.avatar_url) = (next(), next());
        }
        let unwritten = self.inner.seen.by_user();
        for one in users {
            let rows = reader.scan::<DeviceSeen>(&one.user_id, Direction::Forward, usize::MAX).await?;
            let written = rows.into_iter().map(|(_, Json(seen))| seen.at).max();
            one.last_seen = written.max(unwritten.get(&one.user_id).copied());
        }
        Ok(())
    }
}

fn bare(user_id: OwnedUserId, user: User) -> ListedUser {
    ListedUser { user_id, user, displayname: None, avatar_url: None, last_seen: None }
}
