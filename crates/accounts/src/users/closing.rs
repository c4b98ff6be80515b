//! Closing accounts and opening them again.

use chappe_store::{
    AccountNews, Direction, Json, LogEntry, Reader, Tx,
    accounts::{Deactivation, Departures, FormerOwners, LastActive, Passwords, User, Users},
    accounts_data::{AccountData, AccountDataChanges, AccountDataCounts, Filters, ProfileNews, Profiles},
    accounts_keys::{BackupKeys, Backups, CrossSigningKeys, KeySignatures, SignatureChanges},
    oauth::LogOuts,
    thread_subscriptions::{ThreadSubscriptionCounts, ThreadSubscriptionOrder, ThreadSubscriptions},
};
use ruma::{OwnedUserId, UserId, thirdparty::Medium};

use super::NewUser;
use crate::{Accounts, Error, retry::retry};

/// Whether closing an account forgets its profile and data as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erase {
    /// Keep the profile and what was said.
    No,
    /// The user asked to be forgotten: what was said is for those alone who were there.
    Yes,
}

impl Accounts {
    /// The account that had an address when it was closed, unless it was erased.
    pub async fn former_owner(&self, medium: &Medium, address: &str) -> Result<Option<OwnedUserId>, Error> {
        let key = (medium.to_string(), address.to_owned());
        let owner = self.store().read().get::<FormerOwners>(&key).await?;
        Ok(owner.and_then(|owner| UserId::parse(owner).ok()))
    }

    /// Opens the closed account again that had the new one's address, with the new one's password and addresses, for whoever
    /// proved the address. `None` if there is none; a locked or suspended one stays closed. Its name stays. Nobody else
    /// comes in any more as before: the address may be another person's now.
    pub async fn reopen(&self, new: &NewUser) -> Result<Option<OwnedUserId>, Error> {
        let Some(address) = &new.email else { return Ok(None) };
        let Some(user) = self.former_owner(&Medium::Email, address).await? else { return Ok(None) };
        let hash = self.new_hash(new).await?;
        retry!({
            let reader = self.store().read();
            let found = reader.get::<Users>(&user).await?;
            let Some(Json(found)) = found else { return Ok(None) };
            if found.deactivated.is_none_or(|closed| closed.erase) {
                return Ok(None);
            }
            if found.locked {
                return Err(Error::Locked);
            }
            if found.suspended {
                return Err(Error::Suspended);
            }
            let mut tx = Tx::new();
            self.draft_external_ends(&reader, &mut tx, &user, new.external.as_ref()).await?;
            self.draft_reopening(&reader, &mut tx, &user).await?;
            self.draft_bindings(&reader, &mut tx, &user, new).await?;
            match &hash {
                Some(hash) => self.draft_hash(&reader, &mut tx, (&user, hash)).await?,
                None => _ = tx.delete::<Passwords>(&user),
            }
            drop(reader);
            self.commit_standing(&user, tx, Erase::No).await?;
            Ok(Some(user.clone()))
        })
    }

    /// Closes an account: password, tokens, devices, addresses, what the identity service has of them, pushers go; with
    /// [`Erase::Yes`] profile, account data, keys, their backups and the accounts with identity providers as well: those of an
    /// account that was merely closed stay with it, so that whoever comes back by one is told, and gets no second account.
    /// Media stay, as those who were there may still see what names them. That its rooms are to be left is noted in the same
    /// batch (see [`Accounts::departing`]). Closing a closed account again is fine.
    pub async fn deactivate(&self, user: &UserId, erase: Erase) -> Result<(), Error> {
        retry!({
            let reader = self.store().read();
            let record = reader.get::<Users>(&user.to_owned()).await?.ok_or(Error::NotFound("user"))?;
            let mut tx = Tx::new();
            self.draft_closing(&reader, &mut tx, (user, record.0), erase).await?;
            drop(reader);
            self.commit_standing(user, tx, erase).await?;
            Ok(())
        })
    }

    /// What closing an account writes, if its record is still `old` by then.
    pub(crate) async fn draft_closing(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        (user, old): (&UserId, User),
        erase: Erase,
    ) -> Result<(), Error> {
        let key = user.to_owned();
        let mut record = old.clone();
        let before = old.deactivated.clone();
        if before.is_none() {
            tx.log(self.news(user, AccountNews::Closed));
        }
        let at = before.as_ref().map_or(self.world().now(), |closed| closed.at);
        let erase = erase == Erase::Yes || before.as_ref().is_some_and(|closed| closed.erase);
        let mut addresses = before.map(|closed| closed.addresses).unwrap_or_default();
        addresses.extend(self.draft_threepid_ends(reader, tx, user).await?);
        draft_former_owner(tx, user, &addresses, erase);
        addresses.retain(|_| !erase);
        record.deactivated = Some(Deactivation { at, erase, addresses });
        record.revision += 1;
        record.admin = false;
        record.ends = None;
        tx.expect::<Users>(&key, Some(&Json(old))).put::<Users>(&key, &Json(record));
        tx.delete::<Passwords>(&key).put::<Departures>(&key, &self.world().now());
        tx.delete::<LastActive>(&key);
        // Browsers of those without a password, too: they would be logged in again once the account is opened.
        tx.add::<LogOuts>(&key, 1);
        let devices = self.device_ids(reader, user).await?;
        self.draft_device_ends(reader, tx, user, &devices).await?;
        self.draft_identity_ends(reader, tx, user).await?;
        self.draft_no_end(reader, tx, &key).await?;
        self.draft_pusher_ends(reader, tx, user, |_| true).await?;
        if erase {
            self.draft_erasure(reader, tx, &key).await?;
        }
        // Whoever finds people has to know, erased or not.
        tx.log(LogEntry::Profile { user: key });
        Ok(())
    }

    /// What erasing an account forgets that closing one leaves: all that is no event.
    pub(super) async fn draft_erasure(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &OwnedUserId,
    ) -> Result<(), Error> {
        self.draft_external_ends(reader, tx, user, None).await?;
        tx.delete_prefix::<Profiles>(user).delete::<ProfileNews>(user);
        tx.delete_prefix::<AccountData>(user).delete_prefix::<AccountDataChanges>(user);
        tx.delete::<AccountDataCounts>(user).delete_prefix::<Filters>(user);
        tx.delete_prefix::<ThreadSubscriptions>(user).delete_prefix::<ThreadSubscriptionOrder>(user);
        tx.delete::<ThreadSubscriptionCounts>(user);
        tx.delete_prefix::<Backups>(user).delete_prefix::<BackupKeys>(user);
        for ((.., signed), ()) in reader.scan_all::<SignatureChanges>(user).await? {
            tx.delete_prefix::<KeySignatures>(&(signed, user.clone()));
        }
        tx.delete_prefix::<SignatureChanges>(user).delete_prefix::<KeySignatures>(user);
        if !reader.scan::<CrossSigningKeys>(user, Direction::Forward, 1).await?.is_empty() {
            tx.delete_prefix::<CrossSigningKeys>(user);
            self.draft_list_change(reader, tx, user).await?;
        }
        Ok(())
    }

    /// Opens a closed account again; a password is set separately.
    pub async fn reactivate(&self, user: &UserId) -> Result<(), Error> {
        self.reactivate_with(user, None).await
    }

    /// The same together with an address, in canonical form and proved. [`Error::ThreepidInUse`].
    pub async fn reactivate_with(&self, user: &UserId, email: Option<&str>) -> Result<(), Error> {
        let (key, email) = (user.to_owned(), email.map(str::to_owned));
        let bindings = NewUser { email, ..NewUser::default() };
        retry!({
            let reader = self.store().read();
            let mut tx = Tx::new();
            self.draft_reopening(&reader, &mut tx, &key).await?;
            self.draft_bindings(&reader, &mut tx, &key, &bindings).await?;
            drop(reader);
            self.commit_standing(user, tx, Erase::No).await?;
            Ok(())
        })
    }

    /// Opens an account, closed or not, for another period.
    async fn draft_reopening(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &OwnedUserId,
    ) -> Result<User, Error> {
        let Json(old) = reader.get::<Users>(user).await?.ok_or(Error::NotFound("user"))?;
        let mut record = User { deactivated: None, revision: old.revision + 1, ..old.clone() };
        let addresses = old.deactivated.as_ref().map(|closed| closed.addresses.as_slice());
        draft_former_owner(tx, user, addresses.unwrap_or_default(), true);
        record.ends = self.first_end(record.kind);
        if let Some(ends) = record.ends {
            self.draft_end(reader, tx, user, (ends, None)).await?;
        }
        let was_closed = old.deactivated.is_some();
        tx.expect::<Users>(user, Some(&Json(old))).put::<Users>(user, &Json(record.clone()));
        tx.delete::<Departures>(user).log(LogEntry::Profile { user: user.clone() });
        if was_closed {
            tx.log(self.news(user, AccountNews::Reopened));
        }
        Ok(record)
    }

    /// Closed accounts whose rooms are still to be left, and since when (milliseconds since 1970).
    pub async fn departing(&self) -> Result<Vec<(OwnedUserId, u64)>, chappe_store::Error> {
        self.store().read().scan_all::<Departures>(&()).await
    }

    /// Notes that nothing is left to be done for a closed account.
    pub async fn departed(&self, user: &UserId) -> Result<(), chappe_store::Error> {
        let mut tx = Tx::new();
        tx.delete::<Departures>(&user.to_owned());
        self.store().commit(tx).await.map(drop)
    }
}

/// Remembers whose some addresses were, or forgets it.
fn draft_former_owner(tx: &mut Tx, user: &UserId, addresses: &[(String, String)], forget: bool) {
    for address in addresses {
        if forget {
            tx.delete::<FormerOwners>(address);
        } else {
            tx.put::<FormerOwners>(address, &user.to_string());
        }
    }
}
