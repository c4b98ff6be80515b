//! Profiles of local users: display name, avatar and custom fields (spec v1.16).

use std::collections::BTreeMap;

use chappe_store::{
    Direction, Json, LogEntry, Reader, Tx,
    accounts::Users,
    accounts_data::{ProfileNews, Profiles},
};
use ruma::{OwnedUserId, UserId};
use serde_json::Value;

use crate::{Accounts, Error, retry::retry};

/// Bytes of a whole profile (spec: 64 KiB).
const PROFILE_BYTES: usize = 65_536;
/// Bytes of one field's name.
const NAME_BYTES: usize = 255;
/// Bytes of a display name.
const DISPLAYNAME_BYTES: usize = 1024;

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

    /// Its size as JSON, in bytes.
    fn size(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.to_string().len() + 4).sum::<usize>() + 2
    }
}

impl Accounts {
    /// The profile of a local user. [`Error::NotFound`] when there is no such user.
    pub async fn profile(&self, reader: &Reader<'_>, user: &UserId) -> Result<Profile, Error> {
        let key = user.to_owned();
        if reader.get::<Users>(&key).await?.is_none() {
            return Err(Error::NotFound("user"));
        }
        let mut fields = BTreeMap::new();
        for ((_, name), value) in reader.scan::<Profiles>(&key, Direction::Forward, usize::MAX).await? {
            let value =
                serde_json::from_slice(&value).map_err(|_| chappe_store::Error::Corrupt("profile field"))?;
            fields.insert(name, value);
        }
        Ok(Profile { fields })
    }

    /// Sets a field; `None` removes it, null is a value. [`Error::ProfileTooLarge`] beyond 64 KiB altogether,
    /// [`Error::Invalid`] for bad names or types.
    pub async fn set_profile_field(
        &self,
        user: &UserId,
        field: &str,
        value: Option<&Value>,
    ) -> Result<(), Error> {
        let value = value.filter(|value| field != "avatar_url" || value.as_str() != Some(""));
        check_field(field, value)?;
        retry!({
            let reader = self.store().read();
            let key = user.to_owned();
            let Json(old) = reader.get::<Users>(&key).await?.ok_or(Error::NotFound("user"))?;
            let mut profile = self.profile(&reader, user).await?;
            let mut record = old.clone();
            record.revision += 1;
            let mut tx = Tx::new();
            // The user's head is replaced, so that fields set at the same time cannot exceed the limit together.
            if matches!(field, "displayname" | "avatar_url") {
                tx.put::<ProfileNews>(&key, &record.revision);
            }
            tx.expect::<Users>(&key, Some(&Json(old))).put::<Users>(&key, &Json(record));
            let row = (key.clone(), field.to_owned());
            match value {
                Some(value) => {
                    profile.fields.insert(field.to_owned(), value.clone());
                    if profile.size() > PROFILE_BYTES {
                        return Err(Error::ProfileTooLarge);
                    }
                    tx.put::<Profiles>(&row, &value.to_string().into_bytes());
                }
                None => {
                    tx.delete::<Profiles>(&row);
                }
            }
            tx.log(LogEntry::Profile { user: key });
            drop(reader);
            self.store().commit(tx).await?;
            Ok(())
        })
    }

    /// Users of whose name or picture not all rooms have been told.
    pub async fn unannounced(&self) -> Result<Vec<OwnedUserId>, chappe_store::Error> {
        let rows = self.store().read().scan_all::<ProfileNews>(&()).await?;
        Ok(rows.into_iter().map(|(user, _)| user).collect())
    }

    /// The change of a user's name or picture of which rooms are to be told; a newer one has another number.
    pub async fn profile_news(&self, user: &UserId) -> Result<Option<u64>, chappe_store::Error> {
        self.store().read().get::<ProfileNews>(&user.to_owned()).await
    }

    /// Notes that all rooms were told of a change; nothing where there is a newer one.
    pub async fn announced(&self, user: &UserId, change: u64) -> Result<(), chappe_store::Error> {
        let (key, mut tx) = (user.to_owned(), Tx::new());
        tx.expect::<ProfileNews>(&key, Some(&change)).delete::<ProfileNews>(&key);
        match self.store().commit(tx).await {
            Ok(_) | Err(chappe_store::Error::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn check_field(field: &str, value: Option<&Value>) -> Result<(), Error> {
    if field.len() > NAME_BYTES {
        return Err(Error::FieldNameTooLarge);
    }
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    if !field.starts_with(|c: char| c.is_ascii_lowercase()) || !field.chars().all(fits) {
        return Err(Error::invalid("profile field names have a-z, 0-9 and . _ - and begin with a letter"));
    }
    let Some(value) = value else { return Ok(()) };
    match field {
        "displayname" => match value.as_str() {
            Some(name) if name.len() > DISPLAYNAME_BYTES => Err(Error::TooLarge("display name")),
            Some(_) => Ok(()),
            None => Err(Error::invalid("displayname is a string")),
        },
        "avatar_url" => match value.as_str() {
            Some(url) if url.len() > 1000 => Err(Error::TooLarge("avatar_url")),
            Some(_) => Ok(()),
            None => Err(Error::invalid("avatar_url is a string")),
        },
        "m.tz" if !value.is_string() => Err(Error::invalid("m.tz is a string")),
        _ => Ok(()),
    }
}
