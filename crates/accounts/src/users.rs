//! Local users: finding and changing them.

mod closing;
mod erased;
mod making;

use chappe_store::{
    AccountNews, Json, LogEntry, Reader, Tx,
    accounts::{User, UserKind, Users},
    identity::Validations,
};
use ruma::{DeviceId, OwnedUserId, UserId};

pub use self::{closing::Erase, making::NewUser};
use crate::{Accounts, Error, retry::retry};

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
    /// The user id that a log-in names: a localpart or a whole user id of this server, in whatever case.
    pub fn local_user(&self, name: &str) -> Result<OwnedUserId, Error> {
        let name = name.trim().to_ascii_lowercase();
        let user = UserId::parse_with_server_name(name.as_str(), self.server_name())
            .map_err(|_| Error::InvalidUsername("not a user name"))?;
        if self.is_local(&user) { Ok(user) } else { Err(Error::Forbidden("not a user of this server")) }
    }

    /// What the log says of an account.
    pub(crate) fn news(&self, user: &UserId, what: AccountNews) -> LogEntry {
        LogEntry::Account { user: user.to_owned(), at: self.world().now(), what }
    }

    /// A local user; `None` also for users of other servers.
    pub async fn user(&self, user: &UserId) -> Result<Option<User>, Error> {
        let found = self.store().read().get::<Users>(&user.to_owned()).await?;
        Ok(found.map(|Json(user)| user))
    }

    /// Those of these local users who are guests: one round trip.
    pub async fn guests_among(
        &self,
        reader: &Reader<'_>,
        users: Vec<OwnedUserId>,
    ) -> Result<Vec<OwnedUserId>, chappe_store::Error> {
        let found = reader.get_many::<Users>(&users).await?;
        let is_guest = |found: &Option<Json<User>>| {
            found.as_ref().is_some_and(|Json(user)| user.kind == UserKind::Guest)
        };
        let guests = users.into_iter().zip(found).filter(|(_, found)| is_guest(found));
        Ok(guests.map(|(user, _)| user).collect())
    }

    /// Up to `limit` users in order of their id, from `after` (excluded).
    pub async fn users(
        &self,
        after: Option<&UserId>,
        limit: usize,
        filter: &UserFilter,
    ) -> Result<Vec<(OwnedUserId, User)>, Error> {
        const PAGE: usize = 500;
        let reader = self.store().read();
        let mut from = after.map(beyond).unwrap_or_default();
        let mut found = Vec::new();
        while found.len() < limit {
            let page = reader.scan_from::<Users>(&(), &from, PAGE).await?;
            let last = page.len() < PAGE;
            if let Some((user, _)) = page.last() {
                from = beyond(user);
            }
            let shown = page.into_iter().map(|(id, Json(user))| (id, user)).filter(|(id, user)| {
                (filter.with_deactivated || user.deactivated.is_none())
                    && filter.containing.as_ref().is_none_or(|part| id.as_str().contains(part))
            });
            found.extend(shown);
            if last {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Makes or unmakes an administrator, locks, suspends: `change` edits the record, maybe several times.
    pub async fn update_user(
        &self,
        user: &UserId,
        change: impl Fn(&mut User) + Send + Sync,
    ) -> Result<User, Error> {
        retry!({
            let key = user.to_owned();
            let Json(old) = self.store().read().get::<Users>(&key).await?.ok_or(Error::NotFound("user"))?;
            let mut record = old.clone();
            change(&mut record);
            record.revision = old.revision + 1;
            let mut tx = Tx::new();
            if record.deactivated != old.deactivated {
                tx.log(LogEntry::Profile { user: key.clone() });
            }
            tx.expect::<Users>(&key, Some(&Json(old))).put::<Users>(&key, &Json(record.clone()));
            self.commit_of(user, tx).await?;
            Ok(record)
        })
    }

    /// What is known of a user whose password is to be guessed.
    async fn about(&self, user: &UserId) -> Result<Vec<String>, Error> {
        let name = self.profile(&self.store().read(), user).await?.displayname().map(str::to_owned);
        let addresses = self.threepids(user).await?.into_iter().map(|bound| bound.address);
        Ok(addresses.chain(name).chain([user.localpart().to_owned()]).collect())
    }

    /// Sets a password, which must follow the policy. [`Error::Deactivated`], [`Error::NotFound`].
    pub async fn set_password(
        &self,
        user: &UserId,
        password: &str,
        others: OtherDevices<'_>,
    ) -> Result<(), Error> {
        self.put_password(user, password, others, None).await
    }

    /// The same for whoever proved to read the account's mail: the validation `sid` is used up with it.
    /// [`Error::Forbidden`] when it was used already.
    pub async fn reset_password(
        &self,
        user: &UserId,
        password: &str,
        others: OtherDevices<'_>,
        sid: &str,
    ) -> Result<(), Error> {
        self.put_password(user, password, others, Some(sid)).await
    }

    async fn put_password(
        &self,
        user: &UserId,
        password: &str,
        others: OtherDevices<'_>,
        validation: Option<&str>,
    ) -> Result<(), Error> {
        self.check_password(password, self.about(user).await?).await?;
        let hash = self.hash_password(password).await?;
        retry!({
            let reader = self.store().read();
            let key = user.to_owned();
            let Json(old) = reader.get::<Users>(&key).await?.ok_or(Error::NotFound("user"))?;
            if old.deactivated.is_some() {
                return Err(Error::Deactivated);
            }
            let mut tx = Tx::new();
            let record = User { revision: old.revision + 1, ..old.clone() };
            tx.expect::<Users>(&key, Some(&Json(old))).put::<Users>(&key, &Json(record));
            self.draft_hash(&reader, &mut tx, (&key, &hash)).await?;
            if let Some(sid) = validation {
                draft_spent_validation(&reader, &mut tx, sid).await?;
            }
            if let OtherDevices::LogOutExcept(kept) = others {
                let mut devices = self.device_ids(&reader, user).await?;
                devices.retain(|device| Some(&**device) != kept);
                self.draft_device_ends(&reader, &mut tx, user, &devices).await?;
            }
            drop(reader);
            self.commit_of(user, tx).await?;
            Ok(())
        })
    }
}

/// Uses up the proof of an address, which is good for one thing. What refers to it goes when its time is over.
pub(crate) async fn draft_spent_validation(reader: &Reader<'_>, tx: &mut Tx, sid: &str) -> Result<(), Error> {
    let key = sid.to_owned();
    let found = reader.get::<Validations>(&key).await?;
    let found = found.ok_or(Error::Forbidden("this proof of an address is used up"))?;
    tx.expect::<Validations>(&key, Some(&found)).delete::<Validations>(&key);
    Ok(())
}

/// The smallest key beyond a user's.
pub(crate) fn beyond(user: impl AsRef<UserId>) -> String {
    format!("{}\0", user.as_ref())
}
