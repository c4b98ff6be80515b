//! Profiles of local users: display name, avatar and custom fields (spec v1.16).

use std::collections::BTreeMap;

use chappe_store::Reader;
use ruma::UserId;
use serde_json::Value;

use crate::{Accounts, Error, soon};

/// A profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Every field, `displayname` and `avatar_url` included.
    pub fields: BTreeMap<String, Value>,
}

impl Profile {
    /// Display name.
    pub fn displayname(&self) -> Option<&str> {
        self.fields.get("displayname").and_then(Value::as_str)
    }
    /// Avatar, an `mxc:` URI.
    pub fn avatar_url(&self) -> Option<&str> {
        self.fields.get("avatar_url").and_then(Value::as_str)
    }
}

impl Accounts {
    /// The profile of a local user. [`Error::NotFound`] when there is no such user or it was erased.
    pub async fn profile(&self, reader: &Reader<'_>, user: &UserId) -> Result<Profile, Error> { soon() }
    /// Sets a field; `None` or null removes it. [`Error::TooLarge`] beyond 64 KiB altogether, [`Error::Invalid`] for bad names or types.
    pub async fn set_profile_field(&self, user: &UserId, field: &str, value: Option<&Value>) -> Result<(), Error> { soon() }
}
