//! E-mail addresses and phone numbers bound to accounts; each belongs to one account.

use ruma::{OwnedUserId, UserId, thirdparty::Medium};

use crate::{Accounts, Error, soon};

/// A bound address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreepidInfo {
    /// E-mail or phone.
    pub medium: Medium,
    /// In canonical form.
    pub address: String,
    /// Proved at, in milliseconds since 1970.
    pub validated: u64,
    /// Bound at, in milliseconds since 1970.
    pub added: u64,
}

impl Accounts {
    /// The addresses of a user.
    pub async fn threepids(&self, user: &UserId) -> Result<Vec<ThreepidInfo>, Error> { soon() }
    /// Whose an address is; it must be in canonical form.
    pub async fn user_by_threepid(&self, medium: &Medium, address: &str) -> Result<Option<OwnedUserId>, Error> { soon() }
    /// Binds an address that was proved at `validated` (milliseconds since 1970). [`Error::ThreepidInUse`].
    pub async fn add_threepid(&self, user: &UserId, medium: &Medium, address: &str, validated: u64) -> Result<(), Error> { soon() }
    /// Unbinds an address; none is fine. Says whether it was bound.
    pub async fn remove_threepid(&self, user: &UserId, medium: &Medium, address: &str) -> Result<bool, Error> { soon() }
}
