//! Local users: making, finding, closing.

use chappe_store::accounts::{User, UserKind};
use ruma::{DeviceId, OwnedUserId, UserId};

use crate::{Accounts, Error, soon};

/// A user to be made.
#[derive(Clone, Debug, Default)]
pub struct NewUser {
    /// The part before the colon; `None` draws a random one.
    pub localpart: Option<String>,
    /// What for.
    pub kind: UserKind,
    /// Whether it becomes a server administrator.
    pub admin: bool,
    /// Its password, checked against the policy; `None`: no log-in by password.
    pub password: Option<String>,
    /// First display name.
    pub displayname: Option<String>,
    /// E-mail address (already parsed and proved) to bind.
    pub email: Option<String>,
    /// Registration token to use up, as `Verified::registration_token` gave it.
    pub registration_token: Option<String>,
    /// Application service it belongs to.
    pub appservice: Option<String>,
}

/// Whether closing an account forgets its profile as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erase {
    /// Keep the profile and what was said.
    No,
    /// The user asked to be forgotten.
    Yes,
}

/// What a new password means for the other devices of the user.
#[derive(Clone, Copy, Debug)]
pub enum OtherDevices<'a> {
    /// They stay logged in.
    Keep,
    /// All are logged out but this one.
    LogOutExcept(Option<&'a DeviceId>),
}

/// Which users an enumeration shows.
#[derive(Clone, Debug, Default)]
pub struct UserFilter {
    /// Only those whose user id contains this.
    pub containing: Option<String>,
    /// Show closed accounts as well.
    pub with_deactivated: bool,
}

impl Accounts {
    /// Makes a user. [`Error::UserInUse`], [`Error::InvalidUsername`], [`Error::Reserved`], [`Error::WeakPassword`],
    /// [`Error::ThreepidInUse`].
    pub async fn create_user(&self, new: NewUser) -> Result<OwnedUserId, Error> { soon() }
    /// Whether a localpart could be registered: the checks of [`Accounts::create_user`] without making anything.
    pub async fn check_available(&self, localpart: &str, kind: UserKind) -> Result<OwnedUserId, Error> { soon() }
    /// A local user; `None` also for users of other servers.
    pub async fn user(&self, user: &UserId) -> Result<Option<User>, Error> { soon() }
    /// Users in order of their id, from `after` (excluded).
    pub async fn users(&self, after: Option<&UserId>, limit: usize, filter: &UserFilter) -> Result<Vec<(OwnedUserId, User)>, Error> { soon() }
    /// Closes an account: password, tokens, devices, addresses, pushers go; with `erase` the profile as well. Leaving rooms is the
    /// caller's. Closing a closed account again is fine.
    pub async fn deactivate(&self, user: &UserId, erase: Erase) -> Result<(), Error> { soon() }
    /// Opens a closed account again; a password is set separately.
    pub async fn reactivate(&self, user: &UserId) -> Result<(), Error> { soon() }
    /// Makes or unmakes an administrator, locks, suspends: `change` edits the record.
    pub async fn update_user(&self, user: &UserId, change: impl Fn(&mut User) + Send) -> Result<User, Error> { soon() }
    /// Checks a password for log-in. Unknown users, closed accounts and wrong passwords look and take the same: [`Error::Forbidden`].
    pub async fn verify_password(&self, user: &UserId, password: &str) -> Result<(), Error> { soon() }
    /// Sets a password; `keep` names the device that stays logged in when the others are logged out.
    pub async fn set_password(&self, user: &UserId, password: &str, others: OtherDevices<'_>) -> Result<(), Error> { soon() }
    /// Checks a new password against the policy: [`Error::WeakPassword`], [`Error::TooLarge`] beyond 512 bytes.
    pub fn check_password(&self, password: &str) -> Result<(), Error> { soon() }
}
